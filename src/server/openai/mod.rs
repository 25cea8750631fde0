//! OpenAI's dialects: what the chat and the legacy completions API have in common.
//!
//! A field that a dialect defines is honoured, or refused with its name unless its value asks for
//! nothing. A field that it does not define is ignored, logged and named in the response's
//! `x-pensieve-ignored` header.

pub mod chat;
mod chat_reply;
pub mod chat_request;
pub mod completions;
mod completions_reply;
pub mod completions_request;
mod logprobs;
pub mod models;
mod offsets;

use std::time::{SystemTime, UNIX_EPOCH};

use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::answer::Usage;
use super::body::Body;
use super::error::ApiError;
use super::fields::{Fields, wrong_type};
use super::{App, random};
use crate::engine::Facts;
use crate::sample::Params;

const IGNORED: HeaderName = HeaderName::from_static("x-pensieve-ignored");
/// The most stop strings of a request; each costs a search in every piece of text.
const MAX_STOPS: usize = 64;

/// What both dialects' requests may ask beside their prompt.
#[derive(Clone, Debug)]
pub struct Common {
    /// How tokens are chosen.
    pub params: Params,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Those of them that spell a special token, which never shows as text.
    pub stop_ids: Vec<u32>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a streamed answer ends with its usage.
    pub include_usage: bool,
}

impl Common {
    /// Takes these fields out of a request's body, and checks those that name no more than one
    /// choice, this model, or nothing.
    pub fn read(fields: &mut Fields, app: &App) -> Result<Self, ApiError> {
        let model = fields.string("model")?.unwrap_or_default();
        models::check(&model, app.engine.facts()).map_err(|mut error| {
            error.param = Some("model".to_owned());
            error
        })?;
        let defaults = &app.defaults;
        let params = Params {
            temperature: fields
                .number("temperature")?
                .unwrap_or(defaults.temperature),
            top_p: fields.number("top_p")?.unwrap_or(defaults.top_p),
            top_k: match fields.integer("top_k", 0..=i64::from(u32::MAX))? {
                Some(top_k) => top_k as u32,
                None => defaults.top_k,
            },
            min_p: fields.number("min_p")?.unwrap_or(defaults.min_p),
            seed: match fields.integer("seed", i64::MIN..=i64::MAX)? {
                Some(seed) => seed as u64,
                None => random::number(),
            },
            ..Params::default()
        };
        params
            .check()
            .map_err(|(field, message)| ApiError::field(field, message))?;
        let stop = stops(fields)?;
        let tokenizer = app.text.tokenizer();
        let stop_ids = stop.iter().filter_map(|text| tokenizer.id(text));
        let stop_ids = stop_ids.filter(|&id| tokenizer.is_special(id)).collect();
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let include_usage = stream_options(fields, stream)?;
        fields.refuse("n", is_one, "only one choice is made; leave it out")?;
        let zero = |value: &Value| value.as_f64() == Some(0.0);
        fields.refuse("frequency_penalty", zero, "only 0 is")?;
        fields.refuse("presence_penalty", zero, "only 0 is")?;
        let empty = |value: &Value| value.as_object().is_some_and(|map| map.is_empty());
        fields.refuse("logit_bias", empty, "leave it out")?;
        // Says who asks, which changes no answer.
        fields.string("user")?;
        Ok(Self {
            params,
            stop,
            stop_ids,
            stream,
            include_usage,
        })
    }
}

fn is_one(value: &Value) -> bool {
    value.as_i64() == Some(1)
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let items = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(one @ Value::String(_)) => vec![one],
        Some(other) => {
            return Err(wrong_type(
                "stop",
                &other,
                "a string or an array of strings",
            ));
        }
    };
    if items.len() > MAX_STOPS {
        let message = format!(
            "`stop` has {} strings, expected at most {MAX_STOPS}",
            items.len()
        );
        return Err(ApiError::field("stop", message));
    }
    let mut stops = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Value::String(text) if text.is_empty() => {
                let message =
                    "`stop` has an empty string, which would stop everything; leave it out";
                return Err(ApiError::field("stop", message));
            }
            Value::String(text) => stops.push(text),
            other => return Err(wrong_type(&format!("stop[{index}]"), &other, "a string")),
        }
    }
    Ok(stops)
}

fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(mut options) = fields.object("stream_options")? else {
        return Ok(false);
    };
    if !stream {
        let message = "`stream_options` is only taken with `stream` true; leave it out";
        return Err(ApiError::field("stream_options", message));
    }
    let include_usage = options.boolean("include_usage")?.unwrap_or(false);
    let is_false = |value: &Value| *value == Value::Bool(false);
    options.refuse("include_obfuscation", is_false, "only false is")?;
    match options.rest().first() {
        None => Ok(include_usage),
        Some(path) => Err(ApiError::field(
            path,
            format!("`{path}` is not an option of streams"),
        )),
    }
}

/// Checks that a prompt can be answered at all; `param` is the field it came from.
fn fit(facts: &Facts, prompt: &[u32], max_tokens: usize, param: &str) -> Result<(), ApiError> {
    if prompt.is_empty() {
        let message = format!("`{param}` is empty; give at least one token");
        return Err(ApiError::field(param, message));
    }
    let vocabulary = facts.vocab_size;
    if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocabulary) {
        let message = format!("`{param}` has the token id {id}, expected ids below {vocabulary}");
        return Err(ApiError::field(param, message));
    }
    let context = facts.context_length;
    if prompt.len() + max_tokens.min(1) > context {
        let message = format!(
            "this model's context holds {context} tokens of prompt and answer together, but `{param}` alone has {}; shorten it",
            prompt.len()
        );
        return Err(ApiError::field(param, message).code("context_length_exceeded"));
    }
    Ok(())
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    })
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Logs the request's unknown fields and names them in the response.
fn report_ignored(response: &mut Response<Body>, ignored: &[String], id: &str) {
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
