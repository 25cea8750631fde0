//! Anthropic's dialect: `/v1/messages` and `/v1/messages/count_tokens`.
//!
//! Its messages become the dialogue that every dialect ends in. Blocks and fields that it defines
//! are honoured or refused by name; what only one of its beta versions knows is ignored and named in
//! the response's `x-pensieve-ignored` header, because agents send such fields to every server.

mod blocks;
mod reply;
mod request;

use hyper::HeaderMap;

pub use request::{count, prepare};

use super::error::ApiError;

/// The versions whose shapes are spoken here. What they have in common is all that matters to a text
/// client; the later one has no sampling parameters, which are taken all the same.
const VERSIONS: [&str; 2] = ["2023-06-01", "2026-10-21"];

/// Reads the dialect's own headers; returns the beta versions that the client would like, none of
/// which changes anything.
///
/// # Errors
/// A version of the API with other shapes.
pub fn head(headers: &HeaderMap) -> Result<Vec<String>, ApiError> {
    if let Some(version) = headers.get("anthropic-version")
        && !VERSIONS.iter().any(|known| version == known)
    {
        let message = format!(
            "`anthropic-version` is {:?}, expected one of {}",
            version.to_str().unwrap_or("\u{fffd}"),
            VERSIONS.join(", ")
        );
        return Err(ApiError::field("anthropic-version", message));
    }
    let betas = headers.get_all("anthropic-beta").iter();
    let betas = betas.filter_map(|value| value.to_str().ok());
    let betas = betas.flat_map(|value| value.split(','));
    let named = betas.map(str::trim).filter(|name| !name.is_empty());
    Ok(named.map(|name| format!("anthropic-beta:{name}")).collect())
}
