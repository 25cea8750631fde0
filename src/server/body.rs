//! Bodies: bounded reading of a request's, and the kinds of a response's.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::Value;

use super::error::ApiError;
use super::fields::Fields;

/// Any response's body.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How long the rest of a refused body is read and thrown away, so that a client that is still
/// sending sees the answer instead of a reset connection.
const LINGER: Duration = Duration::from_secs(2);

/// A request's body, not read yet.
pub struct Upload {
    body: Incoming,
    /// Whether the client waits to be told to send it.
    waits: bool,
    /// What it is compressed with: a few bytes could stand for more than any limit.
    coding: Option<HeaderValue>,
}

impl Upload {
    /// The body of `request`.
    pub fn new(request: Request<Incoming>) -> Self {
        let headers = request.headers();
        let waits = headers.contains_key(EXPECT);
        let coding = headers.get(CONTENT_ENCODING).cloned();
        Self {
            coding: coding.filter(|coding| coding != "identity"),
            waits,
            body: request.into_body(),
        }
    }

    /// Reads at most `limit` bytes within `patience`: 413 or 408 otherwise, and 415 if
    /// it is compressed. A length that is
    /// announced and too large is refused before anything is read.
    pub async fn read(mut self, limit: usize, patience: Duration) -> Result<Bytes, ApiError> {
        if let Some(coding) = self.coding.take() {
            self.discard();
            let message = format!(
                "the body is compressed ({coding:?}); send it as it is, without Content-Encoding"
            );
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(ApiError::new(status, message).code("compressed_body"));
        }
        if self.body.size_hint().lower() > limit as u64 {
            self.discard();
            return Err(too_large(limit));
        }
        self.waits = false;
        match tokio::time::timeout(patience, collect(&mut self.body, limit)).await {
            Ok(Ok(Some(bytes))) => Ok(bytes),
            Ok(Ok(None)) => {
                self.discard();
                Err(too_large(limit))
            }
            Ok(Err(error)) => {
                let message = format!("the body could not be read: {error}; send it whole");
                Err(ApiError::new(StatusCode::BAD_REQUEST, message))
            }
            Err(_) => {
                let message =
                    format!("the body did not arrive within {patience:?}; send it faster");
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
            }
        }
    }

    /// Reads and throws away what a client still sends with a request that is refused.
    pub fn discard(mut self) {
        // Reading would tell a waiting client to send.
        if self.waits || self.body.is_end_stream() {
            return;
        }
        tokio::spawn(tokio::time::timeout(LINGER, async move {
            while let Some(Ok(_)) = self.body.frame().await {}
        }));
    }
}

/// The whole body, or nothing if it is larger than `limit`.
async fn collect(body: &mut Incoming, limit: usize) -> hyper::Result<Option<Bytes>> {
    let mut held = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if held.len() + data.len() > limit {
            return Ok(None);
        }
        held.extend_from_slice(&data);
    }
    Ok(Some(held.freeze()))
}

fn too_large(limit: usize) -> ApiError {
    let message = format!("the body is larger than {limit} bytes, which is the limit; send less");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message).code("request_too_large")
}

/// Reads a body as a JSON object.
pub fn parse(bytes: &[u8]) -> Result<Fields, ApiError> {
    let malformed = |message| ApiError::new(StatusCode::BAD_REQUEST, message).code("invalid_json");
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        malformed(format!(
            "the body is not UTF-8: byte {at} is wrong; send JSON in UTF-8"
        ))
    })?;
    let value: Value = serde_json::from_str(text)
        .map_err(|error| malformed(format!("the body is not valid JSON: {error}")))?;
    Fields::new(value, "")
}

/// A response with a JSON body.
pub fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::from(value.to_string()).boxed_unsync());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A response of plain text, whose exact type is `kind`.
pub fn text(kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed_unsync());
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A response without content.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_object_is_named() {
        let message = |bytes: &[u8]| parse(bytes).unwrap_err().message;
        assert!(message(b"{\"a\":\n 1,}").contains("line 2 column"));
        assert!(message(b"").contains("EOF"));
        assert!(message(b"[1]").contains("an array, expected a JSON object"));
        assert!(message(b"{\"a\": \"\xff\"}").contains("byte 7"));
        assert!(message("[".repeat(100_000).as_bytes()).contains("recursion limit"));
        assert!(message(b"{\"a\": \"\\ud800\"}").contains("not valid JSON"));
    }
}
