//! Anthropic's dialect: `/v1/messages` and `/v1/messages/count_tokens`.
//!
//! Its messages become the dialogue that every dialect ends in. Blocks and fields that it defines
//! are honoured or refused by name; what only one of its beta versions knows is ignored and named in
//! the response's `x-pensieve-ignored` header, because agents send such fields to every server.

mod blocks;
mod reply;
mod request;

use std::sync::Arc;

use hyper::{HeaderMap, Response, StatusCode};
use serde_json::json;

pub use request::prepare;

use super::State;
use super::body::{self, Body, Upload};
use super::error::ApiError;
use super::reply::{check_ignored, report_ignored};

/// The versions whose shapes are spoken here.
const VERSION: &str = "2023-06-01";

/// Reads the dialect's own headers; returns the beta versions that the client would like, none of
/// which changes anything.
///
/// # Errors
/// A version of the API with other shapes.
pub fn head(headers: &HeaderMap) -> Result<Vec<String>, ApiError> {
    if let Some(version) = headers.get("anthropic-version")
        && version != VERSION
    {
        let message = format!(
            "`anthropic-version` is {:?}, expected {VERSION:?}",
            version.to_str().unwrap_or("\u{fffd}")
        );
        return Err(ApiError::field("anthropic-version", message));
    }
    let betas = headers.get_all("anthropic-beta").iter();
    let betas = betas.filter_map(|value| value.to_str().ok());
    let betas = betas.flat_map(|value| value.split(','));
    let named = betas.map(str::trim).filter(|name| !name.is_empty());
    Ok(named.map(|name| format!("anthropic-beta:{name}")).collect())
}

/// Answers `/v1/messages/count_tokens`.
///
/// # Errors
/// As for the request that is to be counted.
pub async fn count(
    state: Arc<State>,
    upload: Upload,
    id: &str,
    mut ignored: Vec<String>,
) -> Result<Response<Body>, ApiError> {
    let config = &state.config;
    let bytes = upload.read(config.body_limit, config.body_timeout).await?;
    let counted = state.prepare(move |app| request::count(app, body::parse(&bytes)?));
    let (tokens, unknown) = counted.await?;
    check_ignored(&state, &unknown)?;
    ignored.extend(unknown);
    let mut response = body::json(StatusCode::OK, &json!({"input_tokens": tokens}));
    report_ignored(&mut response, &ignored, id);
    Ok(response)
}
