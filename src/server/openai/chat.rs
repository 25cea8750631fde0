//! `POST /v1/chat/completions`.

use std::sync::Arc;

use hyper::{Response, StatusCode};

use super::chat_reply::{ChatReply, Stream, Whole};
use super::chat_request::ChatRequest;
use super::report_ignored;
use crate::server::State;
use crate::server::body::{self, Body, Upload};
use crate::server::error::ApiError;
use crate::server::running::Running;
use crate::server::sse;

/// Answers a chat; dropping the future, or the response's body, cancels it.
pub async fn serve(
    state: Arc<State>,
    upload: Upload,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let config = &state.config;
    let bytes = upload.read(config.body_limit, config.body_timeout).await?;
    let prepare = move |app: &_| ChatRequest::parse(app, &bytes);
    let ChatRequest {
        ask,
        common,
        logprobs,
        ignored,
    } = state.prepare(prepare).await?;
    let reply = ChatReply::new(&state.app, logprobs, common.include_usage);
    let mut running = Running::start(&state.app.engine, vec![ask], "messages", id)?;
    let mut response = if common.stream {
        sse::response(running, Stream::new(reply))
    } else {
        let mut whole = Whole::new(reply);
        let answer = loop {
            match running.next().await {
                Some((_, part)) => {
                    if let Some(answer) = whole.take(part) {
                        break answer.map_err(ApiError::internal)?;
                    }
                }
                None => return Err(ApiError::internal("the answer ended early; try again")),
            }
        };
        body::json(StatusCode::OK, &answer)
    };
    report_ignored(&mut response, &ignored, id);
    Ok(response)
}
