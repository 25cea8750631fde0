//! What the hub has: which commit a revision is, which files it holds, and each file's size and hash.

use hf_hub::{Repo, RepoType};
use serde::Deserialize;
use ureq::http::Method;

use super::digest::Digest;
use super::error::{HubError, Result};
use super::name::{Name, is_commit};
use super::settings::Settings;
use super::watch::Watch;
use super::web::{Fault, Follow, Reply, Try, Web, encoded, shown};
use crate::checkpoint::files::is_plain;

/// The most bytes of a repository's description.
const LONGEST_LISTING: u64 = 64 << 20;
/// Files beside the ones that a model cannot do without, which programs look for; where the repository
/// has them not, that is noted in the cache.
pub const OPTIONAL: [&str; 7] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
];

/// A repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit.
    pub commit: String,
    /// Its files' names, with folders.
    pub files: Vec<String>,
}

/// A file at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its name, with folders.
    pub name: String,
    /// What the cache calls its content.
    pub etag: String,
    /// Its bytes.
    pub size: u64,
    /// Its hash; none where the ETag is none.
    pub digest: Option<Digest>,
    /// Where it is.
    pub url: String,
}

#[derive(Deserialize)]
struct Described {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Asks which commit the revision is and what it holds.
///
/// # Errors
/// Why the hub does not say.
pub fn listing(web: &Web, settings: &Settings, name: &Name, watch: &dyn Watch) -> Result<Listing> {
    let repo = Repo::with_revision(name.repo().into(), RepoType::Model, name.revision().into());
    let url = format!("{}/api/{}", settings.endpoint, repo.api_url());
    web.persist(&url, watch, || {
        let reply = web.send(&Method::GET, &url, None, Follow::AtHub)?;
        if reply.status() != 200 {
            return Err(explained(web, settings, name, reply));
        }
        let strange = |why: String| HubError::Strange {
            url: url.clone(),
            why,
        };
        let described: Described = serde_json::from_slice(&reply.bytes(LONGEST_LISTING)?)
            .map_err(|e| strange(format!("its description of the model cannot be read: {e}")))?;
        if !is_commit(&described.sha) {
            return Err(strange(format!("{:?} is no commit", described.sha)).into());
        }
        Ok(Listing {
            commit: described.sha,
            files: described
                .siblings
                .into_iter()
                .map(|file| file.rfilename)
                .collect(),
        })
    })
}

/// Of a repository's files the ones that a model needs: settings, tokenizer, chat templates, weights in
/// safetensors, and the model card with the licence. Not its copies in other formats.
pub fn wanted(files: &[String]) -> Vec<&str> {
    const SETTINGS: [&str; 5] = [
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "README.md",
    ];
    const VOCABULARIES: [&str; 4] = ["vocab.json", "vocab.txt", "merges.txt", "tekken.json"];
    let weights = |name: &str| name.ends_with(".safetensors");
    // Where there are files for transformers and MLX, others are the same again (`consolidated`).
    let usual = |name: &str| name.starts_with("model") && weights(name);
    let has_usual = files.iter().any(|name| usual(name));
    let text = |name: &str| {
        [".json", ".jinja", ".model", ".txt"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let needed = |name: &str| match name.split_once('/') {
        Some(("additional_chat_templates", rest)) => is_plain(rest) && rest.ends_with(".jinja"),
        Some(_) => false,
        None => {
            SETTINGS.contains(&name)
                || VOCABULARIES.contains(&name)
                || (name.starts_with("tokenizer") && text(name))
                || (name.starts_with("chat_template") && text(name))
                || name.ends_with(".tiktoken")
                || (weights(name) && (usual(name) || !has_usual))
                || name.ends_with(".safetensors.index.json")
                || ["LICENSE", "LICENCE", "NOTICE"]
                    .iter()
                    .any(|start| name.starts_with(start))
        }
    };
    let plain = |name: &str| name.split('/').all(is_plain);
    files
        .iter()
        .map(String::as_str)
        .filter(|name| plain(name) && needed(name))
        .collect()
}

/// Asks for a file's size and hash.
///
/// # Errors
/// Why the hub does not say.
pub fn file(
    web: &Web,
    settings: &Settings,
    name: &Name,
    commit: &str,
    file: &str,
    watch: &dyn Watch,
) -> Result<Remote> {
    let path: Vec<String> = file.split('/').map(encoded).collect();
    let url = format!(
        "{}/{}/resolve/{commit}/{}",
        settings.endpoint,
        name.repo(),
        path.join("/")
    );
    web.persist(&url, watch, || {
        let reply = web.send(&Method::HEAD, &url, None, Follow::AtHub)?;
        if !matches!(reply.status(), 200..=399) {
            return Err(explained(web, settings, name, reply));
        }
        described(file, commit, &reply).map_err(|why| {
            let url = url.clone();
            HubError::Strange { url, why }.into()
        })
    })
}

/// Reads a file's size and hash from the head of the hub's answer.
fn described(file: &str, commit: &str, reply: &Reply) -> std::result::Result<Remote, String> {
    if let Some(other) = reply.header("x-repo-commit")
        && other != commit
    {
        return Err(format!(
            "asked for commit {commit}, it answers with {other}"
        ));
    }
    let etag = reply
        .header("x-linked-etag")
        .or_else(|| reply.header("etag"));
    let etag = etag.ok_or("there is no ETag")?;
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    let clean = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !is_plain(etag) || etag.len() > 128 || !etag.bytes().all(clean) {
        return Err(format!("the ETag {etag:?} cannot name a file"));
    }
    // The length of a redirect's own body says nothing.
    let size = match (reply.header("x-linked-size"), reply.status()) {
        (Some(size), _) => Some(size),
        (None, 200) => reply.header("content-length"),
        (None, _) => None,
    };
    let size = size.ok_or("there is no size")?;
    let size = size
        .trim()
        .parse()
        .map_err(|_| format!("the size is {size:?}"))?;
    Ok(Remote {
        name: file.to_owned(),
        etag: etag.to_owned(),
        size,
        digest: Digest::from_etag(etag),
        url: reply.url.clone(),
    })
}

/// What a refusal of the hub means.
pub fn explained(web: &Web, settings: &Settings, name: &Name, reply: Reply) -> Fault {
    if let Some(fault) = reply.fault() {
        return fault;
    }
    let repo = name.repo().to_owned();
    let status = reply.status();
    let code = reply.header("x-error-code").unwrap_or_default().to_owned();
    let message = reply.header("x-error-message").map(str::to_owned);
    let url = shown(&reply.url).to_owned();
    let said = |before: &str| match &message {
        // A server's text goes to a terminal: no control characters, no essays.
        Some(text) => {
            let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
            format!("{before}{text}")
        }
        None => String::new(),
    };
    let invalid = message
        .as_deref()
        .is_some_and(|text| text.contains("nvalid"));
    match (status, code.as_str()) {
        (401 | 403, "GatedRepo") => HubError::Gated {
            page: format!("{}/{repo}", settings.endpoint),
            repo,
            login: match web.has_token() {
                true => "try again (the token in use must be of the account that accepted)",
                false => "set HF_TOKEN to an access token of yours, or log in with `hf auth login`",
            },
            detail: said(". The hub says: "),
        },
        (404, "RevisionNotFound") => HubError::NoRevision {
            repo,
            revision: name.revision().to_owned(),
        },
        (401, _) if web.has_token() && (invalid || code.is_empty()) => HubError::Token {
            repo,
            detail: said(": "),
        },
        (403, _) => HubError::Token {
            repo,
            detail: said(": "),
        },
        (401, _) | (404, "RepoNotFound" | "") => HubError::NoRepository {
            repo,
            endpoint: settings.endpoint.clone(),
            private: match web.has_token() {
                true => ", or it is private and not of your account",
                false => ", or it is private and needs an access token in HF_TOKEN",
            },
        },
        _ => HubError::Refused {
            url,
            status,
            detail: said(": "),
        },
    }
    .into()
}

/// The part of `Try` that asks for nothing but one more try, for a wrong range.
pub fn check_range(reply: &Reply, start: u64, end: u64, size: u64) -> Try<()> {
    let expected = format!("bytes {start}-{}/{size}", end.saturating_sub(1));
    match reply.header("content-range") {
        Some(found) if found.trim() == expected => Ok(()),
        found => Err(Fault::again(format!(
            "asked for {expected}, the storage answers with {}",
            found.unwrap_or("no range")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_model_needs_is_wanted() {
        let files = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let all = files(&[
            ".gitattributes",
            "LICENSE",
            "README.md",
            "additional_chat_templates/tool_use.jinja",
            "chat_template.jinja",
            "config.json",
            "consolidated.safetensors",
            "generation_config.json",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "model-q4.gguf",
            "onnx/model.onnx",
            "original/consolidated.00.pth",
            "other/model.safetensors",
            "pytorch_model.bin",
            "../model.safetensors",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
            "tokenizer.py",
            "training_args.bin",
            "vocab.json",
        ]);
        let wanted: Vec<&str> = wanted(&all);
        assert_eq!(
            wanted,
            [
                "LICENSE",
                "README.md",
                "additional_chat_templates/tool_use.jinja",
                "chat_template.jinja",
                "config.json",
                "generation_config.json",
                "merges.txt",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "tokenizer.json",
                "tokenizer.model",
                "tokenizer_config.json",
                "vocab.json",
            ]
        );
        let odd = files(&["config.json", "weights.00.safetensors"]);
        assert_eq!(
            super::wanted(&odd),
            ["config.json", "weights.00.safetensors"]
        );
    }
}
