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
            SubmitError::Crowded { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message).code("memory_full")
            }
            SubmitError::TooLarge { .. } => {
                let mut error = Self::new(StatusCode::PAYLOAD_TOO_LARGE, message);
                error.param = Some(prompt.to_owned());
                error.code("request_too_large")
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
        matches!(self.code, Some("queue_full" | "memory_full")).then_some(1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_said_with_the_numbers() {
        let too_large = SubmitError::TooLarge {
            needed: 3_000_000_000,
            available: 2_000_000_000,
            prompt: 30_000,
            answer: 500,
            most: 20_000,
        };
        let error = ApiError::submit(too_large, "messages");
        assert_eq!((error.status.as_u16(), error.retry_after()), (413, None));
        assert_eq!(error.param.as_deref(), Some("messages"));
        for number in ["3.00 GB", "2.00 GB", "30000 tokens", "20000 tokens"] {
            assert!(error.message.contains(number), "{error}");
        }
        let crowded = SubmitError::Crowded {
            needed: 30_000_000,
            waiting: 90_000_000,
            limit: 100_000_000,
        };
        let error = ApiError::submit(crowded, "messages");
        assert_eq!((error.status.as_u16(), error.retry_after()), (503, Some(1)));
        for number in ["30 MB", "90 MB", "100 MB"] {
            assert!(error.message.contains(number), "{error}");
        }
    }
}
