//! A refusal or failure as a client sees it: an HTTP status and OpenAI's error envelope,
//! `{"error": {"message", "type", "param", "code"}}`.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::engine::SubmitError;

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
            SubmitError::Invalid {
                field: "prompt", ..
            } => Self::field(prompt, message),
            SubmitError::Invalid { field, .. } => Self::field(field, message),
        }
    }

    /// Seconds after which trying again makes sense, for the `Retry-After` header.
    pub fn retry_after(&self) -> Option<u32> {
        matches!(self.code, Some("queue_full" | "memory_full")).then_some(1)
    }

    /// The envelope.
    pub fn envelope(&self) -> Value {
        let kind = match self.status {
            status if status.is_server_error() => "server_error",
            StatusCode::FORBIDDEN => "permission_error",
            _ => "invalid_request_error",
        };
        json!({"error": {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }})
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
