//! Answers as server-sent events.
//!
//! The body pulls: hyper asks for a frame when the connection can take more, so a client that does
//! not read leaves its tokens in the engine's bounded channel.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde_json::Value;

use super::answer::Part;
use super::body::Body;
use super::error::ApiError;
use super::running::Running;

/// Events that are ready together are sent together, up to about this many bytes.
const FRAME: usize = 16 * 1024;

/// How a dialect writes the parts of an answer as events. `Failed` parts do not reach it.
pub trait Chunks: Send + Unpin + 'static {
    /// What is sent before the first part.
    fn opening(&mut self) -> Vec<Value>;
    /// What a part of the choice `index` becomes.
    fn part(&mut self, index: usize, part: Part) -> Vec<Value>;
    /// What is sent after the last part, before `[DONE]`.
    fn closing(&mut self) -> Vec<Value>;
}

struct Events<C> {
    running: Running,
    chunks: C,
    opened: bool,
    done: bool,
}

/// A response that streams what `running` yields.
pub fn response(running: Running, chunks: impl Chunks) -> Response<Body> {
    let events = Events {
        running,
        chunks,
        opened: false,
        done: false,
    };
    let mut response = Response::new(events.boxed_unsync());
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn write(out: &mut String, values: impl IntoIterator<Item = Value>) {
    for value in values {
        out.push_str("data: ");
        out.push_str(&value.to_string());
        out.push_str("\n\n");
    }
}

impl<C: Chunks> HttpBody for Events<C> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let mut out = String::new();
        if !this.opened {
            this.opened = true;
            write(&mut out, this.chunks.opening());
        }
        while !this.done && out.len() < FRAME {
            match this.running.poll_next(context) {
                Poll::Ready(Some((_, Part::Failed(message)))) => {
                    // Without [DONE], so that a client cannot take it for a complete answer.
                    write(&mut out, [ApiError::internal(message).envelope()]);
                    this.done = true;
                }
                Poll::Ready(Some((index, part))) => write(&mut out, this.chunks.part(index, part)),
                Poll::Ready(None) => {
                    write(&mut out, this.chunks.closing());
                    out.push_str("data: [DONE]\n\n");
                    this.done = true;
                }
                Poll::Pending if out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        match out.is_empty() {
            true => Poll::Ready(None),
            false => Poll::Ready(Some(Ok(Frame::data(Bytes::from(out))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}
