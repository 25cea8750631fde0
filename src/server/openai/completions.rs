//! `POST /v1/completions`, the legacy API.

use std::sync::Arc;

use hyper::{Response, StatusCode};

use super::completions_reply::{CompletionsReply, Whole};
use super::completions_request::CompletionsRequest;
use super::report_ignored;
use crate::server::State;
use crate::server::body::{self, Body, Upload};
use crate::server::error::ApiError;
use crate::server::running::Running;
use crate::server::sse;

/// Continues prompts; dropping the future, or the response's body, cancels it.
pub async fn serve(
    state: Arc<State>,
    upload: Upload,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let config = &state.config;
    let bytes = upload.read(config.body_limit, config.body_timeout).await?;
    let prepare = move |app: &_| CompletionsRequest::parse(app, &bytes);
    let CompletionsRequest {
        asks,
        echoes,
        common,
        logprobs,
        ignored,
    } = state.prepare(prepare).await?;
    let app = &state.app;
    let reply = CompletionsReply::new(app, asks.len(), echoes, logprobs, common.include_usage);
    let mut running = Running::start(&app.engine, asks, "prompt", id)?;
    let mut response = if common.stream {
        sse::response(running, reply)
    } else {
        let mut whole = Whole::new(reply);
        while let Some((index, part)) = running.next().await {
            whole.take(index, part).map_err(ApiError::internal)?;
        }
        body::json(StatusCode::OK, &whole.json())
    };
    report_ignored(&mut response, &ignored, id);
    Ok(response)
}
