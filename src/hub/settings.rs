//! What the environment says about hubs, with the variables that `huggingface_hub` reads.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::error::{HubError, Result};

/// Where models come from and where they are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// The folder with the repositories.
    pub cache: PathBuf,
    /// The access token.
    pub token: Option<String>,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Whether snapshots are made of links, where the file system has them.
    pub links: bool,
    /// The longest wait for an answer about a file.
    pub metadata_timeout: Duration,
    /// The longest silence while a file arrives.
    pub download_timeout: Duration,
    /// Ranges that are fetched at a time.
    pub connections: usize,
    /// The proxy for addresses with `http:`.
    pub http_proxy: Option<String>,
    /// The proxy for addresses with `https:`.
    pub https_proxy: Option<String>,
    /// Hosts that are reached without a proxy, with commas between.
    pub no_proxy: String,
    /// A file of the certificates to trust, in place of those built in.
    pub certificates: Option<PathBuf>,
}

impl Settings {
    /// From this process's environment.
    ///
    /// # Errors
    /// If a variable holds what it cannot.
    pub fn from_env() -> Result<Settings> {
        Settings::read(&|name| std::env::var(name).ok())
    }

    /// From an environment. A variable that is empty counts as not set.
    ///
    /// # Errors
    /// If a variable holds what it cannot.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Settings> {
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let first = |names: &[&str]| names.iter().find_map(|name| get(name));
        let home = get("HOME").map(PathBuf::from);
        let path = |text: String| match (text.strip_prefix("~/"), &home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(text),
        };
        let own = match (get("HF_HOME"), get("XDG_CACHE_HOME"), &home) {
            (Some(own), _, _) => path(own),
            (None, Some(caches), _) => path(caches).join("huggingface"),
            (None, None, Some(home)) => home.join(".cache/huggingface"),
            (None, None, None) => {
                return Err(HubError::Setting {
                    variable: "HOME",
                    value: String::new(),
                    expected: "your home folder (or set HF_HOME to the folder for models)",
                });
            }
        };
        let cache =
            first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map_or_else(|| own.join("hub"), path);
        let token = match get("HF_TOKEN") {
            Some(token) => Some(token.trim().to_owned()),
            None if get("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|v| is_true(&v)) => None,
            None => match get("HF_TOKEN_PATH") {
                Some(file) => read_token(&path(file)),
                None => Cache::new(own.join("hub")).token(),
            },
        };
        let endpoint = match get("HF_ENDPOINT") {
            Some(endpoint) => endpoint.trim().trim_end_matches('/').to_owned(),
            None => default_endpoint(&cache)?,
        };
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(HubError::Setting {
                variable: "HF_ENDPOINT",
                value: endpoint,
                expected: "an address that begins with http:// or https://",
            });
        }
        let offline = first(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]);
        let all = first(&["all_proxy", "ALL_PROXY"]);
        Ok(Settings {
            endpoint,
            cache: std::path::absolute(&cache).unwrap_or(cache),
            token,
            offline: offline.is_some_and(|v| is_true(&v)),
            links: !get("HF_HUB_DISABLE_SYMLINKS").is_some_and(|v| is_true(&v)),
            metadata_timeout: seconds("HF_HUB_ETAG_TIMEOUT", get("HF_HUB_ETAG_TIMEOUT"), 10)?,
            download_timeout: seconds(
                "HF_HUB_DOWNLOAD_TIMEOUT",
                get("HF_HUB_DOWNLOAD_TIMEOUT"),
                30,
            )?,
            connections: 8,
            http_proxy: first(&["http_proxy", "HTTP_PROXY"]).or_else(|| all.clone()),
            https_proxy: first(&["https_proxy", "HTTPS_PROXY"]).or(all),
            no_proxy: first(&["no_proxy", "NO_PROXY"]).unwrap_or_default(),
            certificates: first(&["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]).map(path),
        })
    }

    /// The folders of a repository of models in the cache.
    pub fn repo(&self, repo: &str, revision: &str) -> CacheRepo {
        let revision = revision.to_owned();
        let repo = Repo::with_revision(repo.to_owned(), RepoType::Model, revision);
        Cache::new(self.cache.clone()).repo(repo)
    }
}

/// As `huggingface_hub` reads a switch.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_ascii_uppercase().as_str())
}

fn seconds(variable: &'static str, value: Option<String>, default: u64) -> Result<Duration> {
    let Some(value) = value else {
        return Ok(Duration::from_secs(default));
    };
    match value.trim().parse::<u64>() {
        Ok(n @ 1..=86_400) => Ok(Duration::from_secs(n)),
        _ => Err(HubError::Setting {
            variable,
            value,
            expected: "a number of seconds, 1 to 86400",
        }),
    }
}

fn read_token(file: &Path) -> Option<String> {
    let token = std::fs::read_to_string(file).ok()?;
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

/// The hub that the ecosystem takes where none is named: the one that `hf-hub` has.
fn default_endpoint(cache: &Path) -> Result<String> {
    let api = ApiBuilder::from_cache(Cache::new(cache.to_path_buf()))
        .with_token(None)
        .build();
    let strange = |why: String| HubError::Strange {
        url: "the default hub's address".into(),
        why,
    };
    let api = api.map_err(|e| strange(e.to_string()))?;
    let url = api.model("o/n".to_owned()).url("f");
    match url.strip_suffix("/o/n/resolve/main/f") {
        Some(endpoint) => Ok(endpoint.to_owned()),
        None => Err(strange(format!("the address of a file is {url}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings> {
        let variables: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Settings::read(&|wanted| {
            let found = variables.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        for (variables, cache) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                "/x/huggingface/hub",
            ),
            (
                &[
                    ("HOME", "/h"),
                    ("XDG_CACHE_HOME", "/x"),
                    ("HF_HOME", "~/hf"),
                ],
                "/h/hf/hub",
            ),
            (
                &[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")],
                "/old",
            ),
            (
                &[
                    ("HF_HOME", "/hf"),
                    ("HF_HUB_CACHE", "/c"),
                    ("HUGGINGFACE_HUB_CACHE", "/o"),
                ],
                "/c",
            ),
            (
                &[("HOME", "/h"), ("HF_HOME", " ")],
                "/h/.cache/huggingface/hub",
            ),
        ] {
            assert_eq!(read(variables).unwrap().cache, PathBuf::from(cache));
        }
        assert!(read(&[]).is_err());
    }

    #[test]
    fn the_token_comes_from_the_variable_or_from_a_login() {
        let own = tempfile::tempdir().unwrap();
        let home = own.path().to_str().unwrap();
        let token = |more: &[(&str, &str)]| {
            let variables = [&[("HF_HOME", home), ("HF_HUB_CACHE", "/elsewhere")], more].concat();
            read(&variables).unwrap().token
        };
        assert_eq!(token(&[]), None);
        std::fs::write(own.path().join("token"), " stored\n").unwrap();
        assert_eq!(token(&[]).as_deref(), Some("stored"));
        assert_eq!(token(&[("HF_TOKEN", "own\n")]).as_deref(), Some("own"));
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let other = own.path().join("other");
        std::fs::write(&other, "third").unwrap();
        let other = other.to_str().unwrap();
        assert_eq!(token(&[("HF_TOKEN_PATH", other)]).as_deref(), Some("third"));
    }

    #[test]
    fn endpoint_switches_and_proxies_are_read() {
        let plain = read(&[("HOME", "/h")]).unwrap();
        assert!(plain.endpoint.starts_with("https://"));
        assert!(!plain.endpoint.ends_with('/'));
        assert!(!plain.offline && plain.links);
        let set = read(&[
            ("HOME", "/h"),
            ("HF_ENDPOINT", "http://localhost:1/"),
            ("HF_HUB_OFFLINE", "yes"),
            ("HF_HUB_DISABLE_SYMLINKS", "1"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "3"),
            ("HTTPS_PROXY", "http://p:1"),
            ("ALL_PROXY", "http://all:1"),
        ])
        .unwrap();
        assert_eq!(set.endpoint, "http://localhost:1");
        assert!(set.offline && !set.links);
        assert_eq!(set.download_timeout, Duration::from_secs(3));
        assert_eq!(set.https_proxy.as_deref(), Some("http://p:1"));
        assert_eq!(set.http_proxy.as_deref(), Some("http://all:1"));
        for (name, value) in [
            ("HF_ENDPOINT", "localhost"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
            ("HF_HUB_ETAG_TIMEOUT", "x"),
        ] {
            assert!(read(&[("HOME", "/h"), (name, value)]).is_err(), "{name}");
        }
    }
}
