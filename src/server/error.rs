//! A refusal or failure as a client sees it: an HTTP status and the dialect's error envelope.
//!
//! OpenAI's is `{"error": {"message", "type", "param", "code"}}`, Anthropic's
//! `{"type": "error", "error": {"type", "message"}, "request_id"}`.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::engine::{Reason, SubmitError};

/// Whose shapes a request and its answer have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's, and everything that is nobody's.
    OpenAi,
    /// Anthropic's.
    Anthropic,
}

/// Why a request is not answered, with the status to send.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// What failed, on what, what was expected and what to do.
    pub message: String,
    /// The request's field at fault, as a path such as `messages[2].content`.
    pub param: Option<String>,
    /// A short word for programs, such as `model_not_found`.
    pub code: Option<&'static str>,
    /// The methods that the path takes, for the `Allow` header.
    pub allow: Option<String>,
}

impl ApiError {
    /// A failure with this status; the envelope's `type` follows from it.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
            allow: None,
        }
    }

    /// 400 for the field at `param`.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, message);
        error.param = Some(param.into());
        error
    }

    /// 500: the server failed, not the client.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The same error with a `code`.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// What [`SubmitError`] means over HTTP; `prompt` is the dialect's name of the prompt's field.
    pub fn submit(error: SubmitError, prompt: &str) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Full(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message).code("queue_full")
            }
            SubmitError::Stopped => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message).code("engine_stopped")
            }
            SubmitError::Invalid { field, reason, .. } => {
                let field = if field == "prompt" { prompt } else { field };
                let error = Self::field(field, message);
                match reason {
                    Reason::Context => error.code("context_length_exceeded"),
                    _ => error,
                }
            }
        }
    }

    /// Seconds after which trying again makes sense, for the `Retry-After` header.
    pub fn retry_after(&self) -> Option<u32> {
        (self.code == Some("queue_full")).then_some(1)
    }

    /// 401: no key, or a wrong one.
    pub fn unauthorized() -> Self {
        let message = "this server wants its API key; send it as `Authorization: Bearer KEY` or `x-api-key: KEY`";
        Self::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key")
    }

    /// The status, which Anthropic has one more of.
    pub fn status(&self, dialect: Dialect) -> StatusCode {
        match (dialect, self.code) {
            (Dialect::Anthropic, Some("queue_full")) => {
                StatusCode::from_u16(529).unwrap_or(self.status)
            }
            _ => self.status,
        }
    }

    /// The envelope; `id` is the HTTP request's identifier.
    pub fn envelope(&self, dialect: Dialect, id: &str) -> Value {
        let code = self.status(dialect).as_u16();
        match dialect {
            Dialect::OpenAi => {
                let kind = match code {
                    500.. => "server_error",
                    401 => "authentication_error",
                    403 => "permission_error",
                    _ => "invalid_request_error",
                };
                json!({"error": {
                    "message": self.message,
                    "type": kind,
                    "param": self.param,
                    "code": self.code,
                }})
            }
            Dialect::Anthropic => {
                let kind = match code {
                    529 => "overloaded_error",
                    500.. => "api_error",
                    401 => "authentication_error",
                    403 => "permission_error",
                    404 => "not_found_error",
                    413 => "request_too_large",
                    _ => "invalid_request_error",
                };
                json!({
                    "type": "error",
                    "error": {"type": kind, "message": self.message},
                    "request_id": id,
                })
            }
        }
    }
}
