//! OpenAI's dialects: what the chat and the legacy completions API have in common.
//!
//! A field that a dialect defines is honoured, or refused with its name unless its value asks for
//! nothing. A field that it does not define is ignored, logged and named in the response's
//! `x-pensieve-ignored` header; a strict server refuses it.

mod chat_reply;
pub mod chat_request;
mod completions_reply;
pub mod completions_request;
mod logprobs;
pub mod models;
mod offsets;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::answer::Usage;
use super::constraint::{self, Wanted};
use super::error::ApiError;
use super::fields::Fields;
use super::{App, options};
use crate::engine::Stats;
use crate::sample::Params;

/// The most choices of a request.
const MAX_CHOICES: i64 = 128;

/// What both dialects' requests may ask beside their prompt.
#[derive(Clone, Debug)]
pub struct Common {
    /// How tokens are chosen.
    pub params: Params,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Tokens that end the answer.
    pub stop_ids: Vec<u32>,
    /// Answers to each prompt.
    pub n: usize,
    /// The form that the answer must have.
    pub form: Option<Wanted>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// What is told beside the answer.
    pub extras: Extras,
}

/// What is told beside the answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// Log-probabilities.
    pub logprobs: bool,
    /// The usage, at the end of a stream.
    pub usage: bool,
    /// How long everything took.
    pub timings: bool,
    /// The tier of service, of which there is one.
    pub tier: bool,
}

impl Common {
    /// Takes these fields out of a request's body.
    ///
    /// # Errors
    /// A field with a value that it cannot have, or one that asks for what there is not.
    pub fn read(
        fields: &mut Fields,
        app: &App,
        ignored: &mut Vec<String>,
    ) -> Result<Self, ApiError> {
        let model = fields.string("model")?.unwrap_or_default();
        models::check(&model, app).map_err(|mut error| {
            error.param = Some("model".to_owned());
            error
        })?;
        let params = options::params(fields, app)?;
        let stop = options::stops(fields, "stop")?;
        let stop_ids = options::stop_ids(fields)?;
        let n = fields.integer("n", 1..=MAX_CHOICES)?.unwrap_or(1) as usize;
        let form = constraint::read(fields, ignored)?;
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let extras = Extras {
            logprobs: false,
            usage: stream_options(fields, stream)?,
            timings: fields.boolean("timings")?.unwrap_or(false),
            tier: false,
        };
        // Says who asks, which changes no answer.
        fields.string("user")?;
        Ok(Self {
            params,
            stop,
            stop_ids,
            n,
            form,
            stream,
            extras,
        })
    }
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

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    })
}

/// How long an answer took, as far as the engine ended it itself: milliseconds and tokens a second.
fn timings(stats: Option<&Stats>) -> Value {
    let Some(stats) = stats else {
        return Value::Null;
    };
    let rate = |tokens: usize, seconds: f64| match seconds > 0.0 {
        true => json!(tokens as f64 / seconds),
        false => Value::Null,
    };
    let computed = stats.prompt_tokens.saturating_sub(stats.cached_tokens);
    let decoded = stats.completion_tokens.saturating_sub(1);
    json!({
        "queue_ms": stats.queued * 1e3,
        "ttft_ms": (stats.queued + stats.prefill) * 1e3,
        "prefill_ms": stats.prefill * 1e3,
        "prefill_tokens_per_second": rate(computed, stats.prefill),
        "decode_ms": stats.decode * 1e3,
        "decode_tokens_per_second": rate(decoded, stats.decode),
    })
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
