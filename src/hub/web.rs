//! Requests to the hub and to the storage that it sends us to.
//!
//! Invariants: the access token goes to the hub's own address and nowhere else; a redirect leads from
//! `https` to `https` only; no wait is without an end. What may be different the next time is told apart
//! from what may not ([`Fault`]), and tried again with growing pauses.

use std::io::Read;
use std::ops::Range;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{HeaderMap, Method, Request, Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use super::error::{HubError, Result, io};
use super::settings::Settings;
use super::watch::Watch;

/// How often something is tried that goes on failing.
pub const TRIES: u32 = 5;
const MOST_REDIRECTS: usize = 8;
/// The most that a hub may make us wait before the next try.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A try that failed.
#[derive(Debug)]
pub enum Fault {
    /// The next one may succeed, but not before a while if the server says so.
    Again {
        /// What happened.
        why: String,
        /// What the server asks for.
        after: Option<Duration>,
    },
    /// No other will.
    Final(HubError),
}

impl From<HubError> for Fault {
    fn from(error: HubError) -> Self {
        Fault::Final(error)
    }
}

/// A try that may be made again.
pub type Try<T> = std::result::Result<T, Fault>;

impl Fault {
    /// One that may pass.
    pub fn again(why: impl Into<String>) -> Fault {
        Fault::Again {
            why: why.into(),
            after: None,
        }
    }
}

/// How far redirects are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// As long as they stay at the hub and say nothing of a file themselves: its own answer about one is
    /// wanted, also where its files lie at its own address.
    AtHub,
    /// To wherever the bytes are.
    Everywhere,
}

/// An answer: its head, and its body still to be read.
pub struct Reply {
    /// Where it came from in the end.
    pub url: String,
    response: Response<Body>,
}

impl Reply {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header's text, if there is one.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The body, as it arrives.
    pub fn into_reader(self) -> impl Read {
        self.response.into_body().into_reader()
    }

    /// The whole body, if it has no more than `most` bytes.
    ///
    /// # Errors
    /// If it breaks off, or is larger.
    pub fn bytes(self, most: u64) -> Try<Vec<u8>> {
        let body = self.response.into_body();
        let read = body.into_with_config().limit(most).read_to_vec();
        read.map_err(|e| Fault::again(format!("{}: the answer breaks off: {e}", shown(&self.url))))
    }

    /// The error that a status other than the wanted one stands for, where it may pass.
    pub fn fault(&self) -> Option<Fault> {
        let status = self.status();
        let passing = matches!(status, 408 | 425 | 429 | 500..=599);
        passing.then(|| Fault::Again {
            why: match status {
                429 => "429: too many requests (a token in HF_TOKEN raises the limit)".to_owned(),
                _ => format!("the server answers {status}"),
            },
            after: pause(self.response.headers()),
        })
    }
}

/// What `Retry-After` asks for, in seconds.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// The way to the hub.
pub struct Web {
    endpoint: Uri,
    token: Option<String>,
    no_proxy: String,
    direct: Agent,
    http: Option<Agent>,
    https: Option<Agent>,
}

impl Web {
    /// As the settings have it.
    ///
    /// # Errors
    /// If the endpoint is no address, a proxy is none, or the certificates cannot be read.
    pub fn new(settings: &Settings) -> Result<Web> {
        let roots = match &settings.certificates {
            Some(file) => read_roots(file)?,
            None => RootCerts::WebPki,
        };
        let agent = |proxy: Option<Proxy>| {
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(proxy)
                .user_agent(concat!("pensieve/", env!("CARGO_PKG_VERSION")))
                // Of packed bytes neither the size nor the ranges would be the file's.
                .accept_encoding("identity")
                .timeout_resolve(Some(Duration::from_secs(15)))
                .timeout_connect(Some(Duration::from_secs(15)))
                .timeout_recv_response(Some(
                    settings.metadata_timeout.max(settings.download_timeout),
                ))
                .timeout_per_read(Some(settings.download_timeout))
                .max_idle_connections_per_host(settings.connections)
                .max_idle_connections(2 * settings.connections)
                .tls_config(TlsConfig::builder().root_certs(roots.clone()).build())
                .build();
            Agent::new_with_config(config)
        };
        let proxied = |variable: &'static str, address: &Option<String>| match address {
            None => Ok(None),
            Some(address) => match Proxy::new(address) {
                Ok(proxy) => Ok(Some(agent(Some(proxy)))),
                Err(_) => Err(HubError::Setting {
                    variable,
                    // Not as it is: it may hold a password.
                    value: address.rsplit('@').next().unwrap_or_default().to_owned(),
                    expected: "a proxy's address, such as http://HOST:PORT",
                }),
            },
        };
        let endpoint = settings.endpoint.parse::<Uri>().ok();
        Ok(Web {
            endpoint: endpoint
                .filter(|uri| uri.authority().is_some())
                .ok_or_else(|| HubError::Setting {
                    variable: "HF_ENDPOINT",
                    value: settings.endpoint.clone(),
                    expected: "an address such as http://HOST:PORT",
                })?,
            token: settings.token.clone(),
            no_proxy: settings.no_proxy.clone(),
            direct: agent(None),
            http: proxied("HTTP_PROXY", &settings.http_proxy)?,
            https: proxied("HTTPS_PROXY", &settings.https_proxy)?,
        })
    }

    /// Whether there is a token.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks for `url`, or for a range of its bytes.
    ///
    /// # Errors
    /// What the network says, or a redirect that is not followed. A status is no error.
    pub fn send(
        &self,
        method: &Method,
        url: &str,
        range: Option<&Range<u64>>,
        follow: Follow,
    ) -> Try<Reply> {
        let mut url = url.to_owned();
        for _ in 0..MOST_REDIRECTS {
            let strange = |why: String| HubError::Strange {
                url: shown(&url).to_owned(),
                why,
            };
            let uri: Uri = match url.parse() {
                Ok(uri) => uri,
                Err(e) => return Err(strange(format!("that is no address: {e}")).into()),
            };
            let at_hub = same_origin(&uri, &self.endpoint);
            let mut request = Request::builder().method(method.clone()).uri(uri.clone());
            if let Some(range) = range {
                let last = range.end.saturating_sub(1);
                request = request.header(RANGE, format!("bytes={}-{last}", range.start));
            }
            if let (true, Some(token)) = (at_hub, &self.token) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let request = request.body(()).map_err(|e| strange(e.to_string()))?;
            let response = self.agent(&uri).run(request);
            let response = response.map_err(|e| Fault::again(told(&e)))?;
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|l| l.to_str().ok());
            let (true, Some(location)) = (response.status().is_redirection(), location) else {
                return Ok(Reply { url, response });
            };
            let next = join(&uri, location);
            let next_uri = next.parse::<Uri>().ok();
            let to_hub = next_uri
                .as_ref()
                .is_some_and(|next| same_origin(next, &self.endpoint));
            let says = response.headers().contains_key("x-linked-etag");
            if follow == Follow::AtHub && (says || !to_hub) {
                return Ok(Reply { url, response });
            }
            if uri.scheme_str() == Some("https")
                && next_uri.as_ref().and_then(Uri::scheme_str) != Some("https")
            {
                return Err(
                    strange(format!("it leads to {}, which is not https", shown(&next))).into(),
                );
            }
            url = next;
        }
        Err(HubError::Strange {
            url: shown(&url).to_owned(),
            why: format!("more than {MOST_REDIRECTS} redirects"),
        }
        .into())
    }

    /// Tries until it succeeds, fails for good, or has failed [`TRIES`] times.
    ///
    /// # Errors
    /// The last one.
    pub fn persist<T>(
        &self,
        url: &str,
        watch: &dyn Watch,
        mut attempt: impl FnMut() -> Try<T>,
    ) -> Result<T> {
        let mut tries = 0;
        loop {
            tries += 1;
            match attempt() {
                Ok(done) => return Ok(done),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Again { why, .. }) if tries >= TRIES => {
                    return Err(HubError::Network {
                        url: shown(url).to_owned(),
                        why,
                        tries,
                        kept: "",
                    });
                }
                Err(Fault::Again { why, after }) => {
                    let after = after.unwrap_or_else(|| backoff(tries));
                    watch.retry(shown(url), &why, after);
                    std::thread::sleep(after);
                }
            }
        }
    }

    fn agent(&self, uri: &Uri) -> &Agent {
        let proxied = match uri.scheme_str() {
            Some("https") => &self.https,
            _ => &self.http,
        };
        match proxied {
            Some(agent) if !is_exempt(uri, &self.no_proxy) => agent,
            _ => &self.direct,
        }
    }
}

/// The pause after the `tries`-th failure: half a second, doubled each time, up to 8 seconds.
pub fn backoff(tries: u32) -> Duration {
    Duration::from_millis(500) * 2u32.pow(tries.saturating_sub(1).min(4))
}

/// An address without its query, which may hold a signature.
pub fn shown(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// A text as one part of an address's path.
pub fn encoded(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// What went wrong on the network, with what to look at.
fn told(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "the host is not found (is there a network?)".into(),
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        ureq::Error::ConnectionFailed => "cannot connect".into(),
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            "the connection is refused".into()
        }
        other => other.to_string(),
    }
}

fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("https") => 443,
            _ => 80,
        })
    };
    a.scheme_str() == b.scheme_str() && a.host() == b.host() && port(a) == port(b)
}

/// The address that a `Location` stands for.
fn join(base: &Uri, location: &str) -> String {
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map_or("", |authority| authority.as_str());
    if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = base
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    }
}

/// Whether `no_proxy` names the host, or a domain that it is in.
fn is_exempt(uri: &Uri, no_proxy: &str) -> bool {
    let Some(host) = uri.host() else { return false };
    // An IPv6 address stands in brackets in an address, and in lists as people like.
    let host = host.trim_matches(['[', ']']);
    no_proxy.split(',').map(str::trim).any(|entry| {
        let (entry, port) = match entry.rsplit_once(':') {
            Some((name, port)) if name.ends_with(']') || !name.contains(':') => {
                (name, port.parse().ok())
            }
            _ => (entry, None),
        };
        let entry = entry.trim_matches(['[', ']']);
        let domain = entry.trim_start_matches('*').trim_start_matches('.');
        let matches = entry == "*"
            || (!domain.is_empty()
                && (host.eq_ignore_ascii_case(domain)
                    || host
                        .to_ascii_lowercase()
                        .ends_with(&format!(".{}", domain.to_ascii_lowercase()))));
        matches && (port.is_none() || port == uri.port_u16())
    })
}

fn read_roots(file: &std::path::Path) -> Result<RootCerts> {
    let text = std::fs::read(file).map_err(io("read the certificates in", file))?;
    let certificates: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(HubError::Setting {
            variable: "SSL_CERT_FILE",
            value: file.display().to_string(),
            expected: "a file with certificates in PEM form",
        });
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined() {
        let base: Uri = "https://hub:8/a/b?x=1".parse().unwrap();
        for (location, url) in [
            ("https://other/c?d", "https://other/c?d"),
            ("//other/c", "https://other/c"),
            ("/c/d?e", "https://hub:8/c/d?e"),
            ("c", "https://hub:8/a/c"),
        ] {
            assert_eq!(join(&base, location), url);
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://h/x", "https://h:443/y"));
        assert!(!same("https://h", "http://h"));
        assert!(!same("http://h:1", "http://h:2"));
        assert!(!same("http://h", "http://g"));
    }

    #[test]
    fn no_proxy_names_hosts_and_domains() {
        let exempt = |url: &str, list: &str| is_exempt(&url.parse().unwrap(), list);
        assert!(exempt("http://localhost:8", "a, localhost"));
        assert!(exempt("https://cdn.example", "*"));
        assert!(exempt("https://a.b.example", ".example"));
        assert!(exempt("https://a.b.example", "B.example"));
        assert!(exempt("https://b.example", "*.b.example"));
        assert!(exempt("http://h:8", "h:8"));
        assert!(!exempt("http://h:9", "h:8"));
        assert!(!exempt("https://ab.example", "b.example"));
        for list in ["::1", "[::1]", "[::1]:8", "a, ::1"] {
            assert!(exempt("http://[::1]:8", list), "{list}");
        }
        assert!(!exempt("http://[::1]:9", "[::1]:8"));
        assert!(!exempt("http://[::1]:8", "::2"));
        assert!(!exempt("https://h", ""));
        assert!(!exempt("https://h", ",,"));
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let pauses: Vec<u128> = [1, 2, 3, 5, 50].map(|n| backoff(n).as_millis()).to_vec();
        assert_eq!(pauses, [500, 1000, 2000, 8000, 8000]);
        assert_eq!(encoded("a b/ü-1.x"), "a%20b%2F%C3%BC-1.x");
        assert_eq!(shown("http://h/x?signature=1#y"), "http://h/x");
    }
}
