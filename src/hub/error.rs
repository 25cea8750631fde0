//! What can go wrong between a model's name and its files, told so that one knows what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why a model could not be found, fetched, kept or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name is none.
    #[error(
        "{name:?} is no model's name: {why}; expected ORG/NAME, ORG/NAME@REVISION, or one of the short \
         names that `pensieve pull` lists"
    )]
    Name {
        /// As it was given.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A setting from the environment is wrong.
    #[error("{variable} is {value:?}; expected {expected}")]
    Setting {
        /// The environment variable.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// The network may not be used, and the model is not here.
    #[error(
        "{name} is not in {}, and HF_HUB_OFFLINE forbids to fetch it{missing}; unset HF_HUB_OFFLINE, or \
         run `pensieve pull {name}` where there is a network",
        cache.display()
    )]
    Offline {
        /// The model.
        name: String,
        /// The cache that was searched.
        cache: PathBuf,
        /// What is missing of it, if a part is here; begins with a colon.
        missing: String,
    },
    /// The repository asks for something to be accepted first.
    #[error(
        "{repo} is gated: its makers want you to accept their terms first. Open {page} in a browser, log \
         in and accept them, then {login}{detail}"
    )]
    Gated {
        /// The repository.
        repo: String,
        /// Where the terms are.
        page: String,
        /// What to do about the token.
        login: &'static str,
        /// What the hub says; begins with a blank.
        detail: String,
    },
    /// The token is not taken.
    #[error(
        "the hub does not take the access token for {repo}{detail}; it is wrong, has expired or may not \
         read this repository: make a new one in the settings of your account, and put it into HF_TOKEN \
         or log in again with `hf auth login`"
    )]
    Token {
        /// The repository.
        repo: String,
        /// What the hub says; begins with a colon.
        detail: String,
    },
    /// There is no such repository, or it is hidden.
    #[error(
        "there is no model {repo} at {endpoint}{private}; look for a misspelling (upper and lower case \
         count)"
    )]
    NoRepository {
        /// The repository.
        repo: String,
        /// The hub.
        endpoint: String,
        /// What else it may be.
        private: &'static str,
    },
    /// The repository has no such revision.
    #[error(
        "{repo} has no branch, tag or commit {revision:?}; leave out @{revision} for its newest"
    )]
    NoRevision {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
    },
    /// The repository holds no model of a kind that can be loaded.
    #[error("{repo} has no {lacks}; {advice}")]
    NotAModel {
        /// The repository.
        repo: String,
        /// What is not there.
        lacks: &'static str,
        /// What to do.
        advice: String,
    },
    /// The hub, or the storage that it names, refuses.
    #[error("{url} answers {status}{detail}")]
    Refused {
        /// The address, without a query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it says, and what to do.
        detail: String,
    },
    /// The hub does not answer as one.
    #[error("{url} does not answer as a hub: {why}; is HF_ENDPOINT right, or a proxy in between?")]
    Strange {
        /// The address, without a query.
        url: String,
        /// What was wrong.
        why: String,
    },
    /// The network fails, again and again.
    #[error("cannot fetch {url}: {why} (tried {tries} times){kept}")]
    Network {
        /// The address, without a query.
        url: String,
        /// What happened the last time.
        why: String,
        /// How many times.
        tries: u32,
        /// What became of what had arrived.
        kept: &'static str,
    },
    /// What arrived is not what the hub says it has.
    #[error(
        "{file} arrived damaged, twice: its {kind} is {found}, expected {expected}; something between \
         here and the hub changes the data (a proxy?), or the hub's copy is broken"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// The kind of hash.
        kind: &'static str,
        /// What was computed.
        found: String,
        /// What the hub says.
        expected: String,
    },
    /// The disk is too full.
    #[error(
        "not enough room in {}: {} more are needed, {} are free; remove models (`pensieve list`, `pensieve \
         rm NAME`) or set HF_HUB_CACHE to a folder on another disk",
        place.display(), bytes(*needed), bytes(*free)
    )]
    Room {
        /// The cache.
        place: PathBuf,
        /// Bytes still to be fetched, and a margin.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The file system fails.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no such model in the cache.
    #[error("{name} is not in {}; `pensieve list` shows what is", cache.display())]
    Absent {
        /// The model.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// Another process works on it.
    #[error("another process is fetching {repo}; try again when it has ended")]
    Busy {
        /// The repository.
        repo: String,
    },
    /// The fetched snapshot lacks files.
    #[error("{repo} lacks files that its own index names: {files}; its makers have to upload them")]
    Incomplete {
        /// The repository.
        repo: String,
        /// The files.
        files: String,
    },
}

/// What this room returns.
pub type Result<T = ()> = std::result::Result<T, HubError>;

/// Turns the system's error into one that says what was tried, on what.
pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_path_buf();
    move |source| HubError::Io {
        doing,
        path,
        source,
    }
}

/// A size as people read it, in powers of ten as disks are sold: `4.5 GB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut size = n as f64 / 1000.0;
    let mut unit = 0;
    // Rounded to one digit, 999.95 would show as 1000.0.
    while size >= 999.95 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read_by_people() {
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (4_512_345_678, "4.5 GB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }
}
