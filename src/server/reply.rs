//! From a request's body to its response, the same way for every dialect: read, prepare off the
//! reactor, submit, and write what comes, whole or as a stream.

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::answer::Part;
use super::ask::Job;
use super::body::{self, Body, Upload};
use super::error::ApiError;
use super::fields::Fields;
use super::running::Running;
use super::sse::{self, Sse};
use super::utilities::Question;
use super::{App, State};

const IGNORED: HeaderName = HeaderName::from_static("x-pensieve-ignored");

/// How a dialect writes an answer. A reply is used in one of two ways: `open`, `part` and `close`
/// for a stream, or `keep` and `whole`.
pub trait Reply: Send + 'static {
    /// What is sent before the first part.
    fn open(&mut self, out: &mut Sse);
    /// What a part of the choice `index` becomes; `Failed` does not get here.
    fn part(&mut self, index: usize, part: Part, out: &mut Sse);
    /// What is sent after the last part.
    fn close(&mut self, out: &mut Sse);
    /// What a failure in the middle becomes; nothing follows it.
    fn fail(&mut self, error: &ApiError, out: &mut Sse);
    /// A sign of life.
    fn beat(&mut self, out: &mut Sse);
    /// Takes a part of the choice `index` for the whole; `Failed` does not get here.
    fn keep(&mut self, index: usize, part: Part);
    /// The whole answer, of the parts kept.
    fn whole(&mut self) -> Value;
}

/// A request that is ready to run.
pub struct Prepared {
    /// What the engine is asked.
    pub jobs: Vec<Job>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// What writes it.
    pub reply: Box<dyn Reply>,
    /// What of the request nobody knew.
    pub ignored: Vec<String>,
}

/// Reads one dialect's body.
pub type Prepare = fn(&App, Fields, &str) -> Result<Prepared, ApiError>;

/// Answers one request; dropping the future, or the response's body, cancels it.
///
/// `ignored` is what of the request's head nobody knew.
///
/// # Errors
/// What the client is to be told instead of an answer.
pub async fn answer(
    state: Arc<State>,
    upload: Upload,
    id: &str,
    ignored: Vec<String>,
    prepare: Prepare,
) -> Result<Response<Body>, ApiError> {
    let config = &state.config;
    let bytes = upload.read(config.body_limit, config.body_timeout).await?;
    let name = id.to_owned();
    let prepared = state.prepare(move |app| prepare(app, body::parse(&bytes)?, &name));
    let mut prepared = prepared.await?;
    check_ignored(&state, &prepared.ignored)?;
    prepared.ignored.extend(ignored);
    let mut running = Running::start(&state, prepared.jobs, id)?;
    let mut response = if prepared.stream {
        sse::response(running, prepared.reply, config.keep_alive)
    } else {
        while let Some((index, part)) = running.next().await {
            match part {
                Part::Failed(message) => return Err(ApiError::internal(message)),
                part => prepared.reply.keep(index, part),
            }
        }
        body::json(StatusCode::OK, &prepared.reply.whole())
    };
    report_ignored(&mut response, &prepared.ignored, id);
    Ok(response)
}

/// Answers a question that needs no engine.
///
/// # Errors
/// What the client is to be told instead of an answer.
pub async fn ask(
    state: Arc<State>,
    upload: Upload,
    id: &str,
    question: Question,
) -> Result<Response<Body>, ApiError> {
    let config = &state.config;
    let bytes = upload.read(config.body_limit, config.body_timeout).await?;
    let answered = state.prepare(move |app| question(app, body::parse(&bytes)?));
    let (answer, ignored) = answered.await?;
    check_ignored(&state, &ignored)?;
    let mut response = body::json(StatusCode::OK, &answer);
    report_ignored(&mut response, &ignored, id);
    Ok(response)
}

/// Refuses what nobody knows, if the server is to.
///
/// # Errors
/// A 400 for the first of the fields.
pub fn check_ignored(state: &State, ignored: &[String]) -> Result<(), ApiError> {
    match ignored.first() {
        Some(path) if state.config.strict => {
            let message = format!("`{path}` is not known; leave it out, as this server is strict");
            Err(ApiError::field(path, message).code("unknown_field"))
        }
        _ => Ok(()),
    }
}

/// Logs the request's unknown fields and names them in the response.
pub fn report_ignored(response: &mut Response<Body>, ignored: &[String], id: &str) {
    if ignored.is_empty() {
        return;
    }
    // The names are the client's: escaped and shortened they fit a header whatever they are.
    let mut names = String::new();
    for name in ignored {
        if names.len() > 500 {
            names.push_str(", ...");
            break;
        }
        if !names.is_empty() {
            names.push_str(", ");
        }
        let short: String = name.chars().take(100).collect();
        names.extend(short.escape_default());
    }
    tracing::warn!(request = id, "unknown fields are ignored: {names}");
    if let Ok(value) = HeaderValue::from_str(&names) {
        response.headers_mut().insert(IGNORED, value);
    }
}
