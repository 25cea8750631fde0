//! Who may talk to a server on this machine: programs and pages that address it by a name that
//! cannot belong to somebody else.
//!
//! A web page can make a browser send requests to localhost, either across origins or by DNS
//! rebinding, where a name of the attacker's resolves to this machine. In the first case the
//! browser sends `Origin`, in the second a `Host` that is not ours; both are refused.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Request, StatusCode, Version};

use super::error::ApiError;

/// Who is let in beside those who address this server by its own names.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Names by which this server may be addressed; `*` is any.
    pub hosts: Vec<String>,
    /// Origins of web pages, such as `https://ui.example`; `*` is any. Their browsers are told so.
    pub origins: Vec<String>,
}

impl Allowed {
    /// The request's origin, if its pages are let in by name: what CORS headers are for.
    pub fn origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        let named = |name: &String| name == "*" || name.eq_ignore_ascii_case(text);
        self.origins.iter().any(named).then_some(origin)
    }
}

/// Refuses a request whose `Host`, request target or `Origin` names another machine.
///
/// `local` is the address that the connection came in on.
pub fn check<B>(request: &Request<B>, local: IpAddr, allow: &Allowed) -> Result<(), ApiError> {
    let allowed = &allow.hosts;
    let headers = request.headers();
    let hosts: Vec<_> = headers.get_all(HOST).iter().collect();
    if hosts.len() != 1 && (request.version() >= Version::HTTP_11 || hosts.len() > 1) {
        let message = format!("the request has {} Host headers, expected one", hosts.len());
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
    }
    let target = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let named = hosts.iter().map(|host| host.to_str().unwrap_or("\u{fffd}"));
    for authority in named.chain(target) {
        if !ours(host_of(authority), local, allowed) {
            let message = format!(
                "the host {authority:?} is not a name of this server; use localhost, or start the server with --allowed-host"
            );
            return Err(ApiError::new(StatusCode::FORBIDDEN, message).code("host_not_allowed"));
        }
    }
    if allow.origin(headers).is_some() {
        return Ok(());
    }
    origin(headers, local, allowed)
}

fn origin(headers: &HeaderMap, local: IpAddr, allowed: &[String]) -> Result<(), ApiError> {
    for origin in headers.get_all(ORIGIN) {
        let text = origin.to_str().unwrap_or("null");
        let website = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"));
        // Other schemes are programs' own (`app://`, `vscode-webview://`): no web page has them.
        let foreign = match website {
            Some(authority) => !ours(host_of(authority), local, allowed),
            None => text == "null" && !allowed.iter().any(|name| name == "*"),
        };
        if foreign {
            let message = format!(
                "requests from web pages of {text:?} are refused; start the server with --allowed-origin to accept them"
            );
            return Err(ApiError::new(StatusCode::FORBIDDEN, message).code("origin_not_allowed"));
        }
    }
    Ok(())
}

/// The host in `host[:port]`, without the brackets of an IPv6 address; what is of another form is nobody's.
fn host_of(authority: &str) -> &str {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) => (
                host,
                port.strip_prefix(':').or(port.is_empty().then_some("")),
            ),
            None => return authority,
        },
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("")),
        },
    };
    match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn ours(host: &str, local: IpAddr, allowed: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let literal = host.parse::<IpAddr>().is_ok_and(|address| {
        let address = address.to_canonical();
        address.is_loopback() || address == local.to_canonical()
    });
    literal
        || host == "localhost"
        || host.ends_with(".localhost")
        || allowed
            .iter()
            .any(|name| name == "*" || name.eq_ignore_ascii_case(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(host: &str, origin: Option<&str>, allowed: &[&str]) -> Option<&'static str> {
        let mut request = Request::builder().header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        let hosts = allowed.iter().map(|&name| name.to_owned()).collect();
        let allowed = Allowed {
            hosts,
            ..Allowed::default()
        };
        let request = request.body(()).unwrap();
        let local = IpAddr::from([192, 168, 1, 5]);
        check(&request, local, &allowed)
            .err()
            .and_then(|error| error.code)
    }

    #[test]
    fn loopback_and_the_bound_address_are_ours() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "api.localhost",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
            "localhost.",
            "192.168.1.5:8080",
        ] {
            assert_eq!(verdict(host, None, &[]), None, "{host}");
        }
    }

    #[test]
    fn other_names_are_refused_unless_allowed() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.1.6",
            "",
            "evillocalhost",
            "localhost:80@evil.example",
            "localhost@evil.example",
            "[::1].evil.example",
            "[::1]evil.example:80",
            "[::1",
            "localhost:evil",
            "localhost:80:80",
            "evil.example:80@localhost",
        ] {
            assert_eq!(verdict(host, None, &[]), Some("host_not_allowed"), "{host}");
        }
        assert_eq!(verdict("mac.local:8080", None, &["Mac.local"]), None);
        assert_eq!(verdict("anything", None, &["*"]), None);
    }

    #[test]
    fn web_pages_of_other_hosts_are_refused() {
        let refused = Some("origin_not_allowed");
        assert_eq!(
            verdict("localhost", Some("https://evil.example"), &[]),
            refused
        );
        assert_eq!(verdict("localhost", Some("null"), &[]), refused);
        assert_eq!(
            verdict("localhost", Some("http://localhost:3000"), &[]),
            None
        );
        assert_eq!(verdict("localhost", Some("app://some-program"), &[]), None);
        assert_eq!(
            verdict("localhost", Some("https://ui.example"), &["ui.example"]),
            None
        );
    }

    #[test]
    fn an_absolute_request_target_is_checked_too() {
        let request = Request::builder()
            .uri("http://evil.example/v1/models")
            .header(HOST, "localhost")
            .body(())
            .unwrap();
        assert!(check(&request, IpAddr::from([127, 0, 0, 1]), &Allowed::default()).is_err());
    }

    #[test]
    fn two_hosts_or_none_are_malformed() {
        let none = Request::builder().body(()).unwrap();
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(
            check(&none, local, &Allowed::default()).unwrap_err().status,
            400
        );
        let two = Request::builder()
            .header(HOST, "localhost")
            .header(HOST, "localhost");
        assert_eq!(
            check(&two.body(()).unwrap(), local, &Allowed::default())
                .unwrap_err()
                .status,
            400
        );
    }
}
