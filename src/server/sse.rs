//! Answers as server-sent events.
//!
//! The body pulls: hyper asks for a frame when the connection can take more, so a client that does
//! not read leaves its tokens in the engine's bounded channel. While nothing comes, a sign of life
//! goes out now and then, so that neither side takes a long prompt for a dead connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use tokio::time::{Instant, Sleep};

use super::answer::Part;
use super::body::Body;
use super::error::ApiError;
use super::reply::Reply;
use super::running::Running;

/// Events that are ready together are sent together, up to about this many bytes.
const FRAME: usize = 16 * 1024;

/// Room for an event of one token, so that it is written without moving.
const EVENT: usize = 512;

/// Events on their way out. Data is JSON, which has no raw line end, so that an event is never cut.
#[derive(Debug, Default)]
pub struct Sse(Vec<u8>);

impl Sse {
    /// What is on its way.
    pub fn into_text(self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// An event without a name.
    pub fn data(&mut self, data: &impl Serialize) {
        self.0.reserve(EVENT);
        self.0.extend_from_slice(b"data: ");
        let from = self.0.len();
        if let Err(error) = serde_json::to_writer(&mut self.0, data) {
            // Memory takes all that is written, and every key here is a string.
            tracing::error!("an event is no JSON: {error}");
            self.0.truncate(from);
            self.0.extend_from_slice(b"{}");
        }
        self.0.extend_from_slice(b"\n\n");
    }

    /// An event with a name.
    pub fn event(&mut self, name: &'static str, data: &impl Serialize) {
        for part in ["event: ", name, "\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
        self.data(data);
    }

    /// What OpenAI's streams end with.
    pub fn done(&mut self) {
        self.0.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// A line that clients pass over.
    pub fn comment(&mut self, text: &'static str) {
        for part in [": ", text, "\n\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }
}

struct Events {
    running: Running,
    reply: Box<dyn Reply>,
    opened: bool,
    done: bool,
    /// When a sign of life is due, and after how long the next one.
    beat: Pin<Box<Sleep>>,
    pause: Duration,
}

/// A response that streams what `running` yields; `pause` is the longest silence.
pub fn response(running: Running, reply: Box<dyn Reply>, pause: Duration) -> Response<Body> {
    let events = Events {
        running,
        reply,
        opened: false,
        done: false,
        beat: Box::pin(tokio::time::sleep(pause)),
        pause,
    };
    let mut response = Response::new(events.boxed_unsync());
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let mut out = Sse::default();
        if !this.opened {
            this.opened = true;
            this.reply.open(&mut out);
        }
        while !this.done && out.0.len() < FRAME {
            match this.running.poll_next(context) {
                Poll::Ready(Some((_, Part::Failed(message)))) => {
                    // Without an end, so that a client cannot take it for a complete answer.
                    this.reply.fail(&ApiError::internal(message), &mut out);
                    this.done = true;
                }
                Poll::Ready(Some((index, part))) => this.reply.part(index, part, &mut out),
                Poll::Ready(None) => {
                    this.reply.close(&mut out);
                    this.done = true;
                }
                Poll::Pending if !out.0.is_empty() => break,
                Poll::Pending => {
                    if this.beat.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    this.reply.beat(&mut out);
                    break;
                }
            }
        }
        this.beat.as_mut().reset(Instant::now() + this.pause);
        match out.0.is_empty() {
            true => Poll::Ready(None),
            false => Poll::Ready(Some(Ok(Frame::data(Bytes::from(out.0))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    proptest! {
        #[test]
        fn every_event_is_read_back_as_it_was(texts in prop::collection::vec(".*|[\r\n\u{2028}:]*", 0..8)) {
            let mut out = Sse::default();
            for (at, text) in texts.iter().enumerate() {
                match at % 2 {
                    0 => out.data(&json!({"text": text})),
                    _ => out.event("delta", &json!({text.as_str(): 1})),
                }
            }
            let text = out.into_text();
            let events: Vec<&str> = text.split_terminator("\n\n").collect();
            prop_assert_eq!(events.len(), texts.len());
            for (at, (event, text)) in events.iter().zip(&texts).enumerate() {
                // An event stream ends a line at any of CR, LF and CRLF.
                let lines: Vec<&str> = event.split(['\r', '\n']).collect();
                prop_assert_eq!(lines.len(), 1 + at % 2);
                let data = lines.last().and_then(|line| line.strip_prefix("data: ")).unwrap();
                let data: Value = serde_json::from_str(data).unwrap();
                let expected = match at % 2 {
                    0 => json!({"text": text}),
                    _ => json!({text.as_str(): 1}),
                };
                prop_assert_eq!(data, expected);
            }
        }
    }
}
