//! Reading a legacy completions request: one prompt or several, as text or token ids.

use serde_json::Value;

use super::{Common, fit, is_one};
use crate::engine::Request;
use crate::server::App;
use crate::server::answer::{Answer, Calls};
use crate::server::body;
use crate::server::error::ApiError;
use crate::server::fields::{Fields, wrong_type};
use crate::server::running::Ask;

/// What the API gives when `max_tokens` is absent.
const DEFAULT_MAX_TOKENS: i64 = 16;
/// The most prompts of one request.
const MAX_PROMPTS: usize = 2048;
const PROMPT_TYPES: &str =
    "a string, an array of strings, an array of token ids, or an array of such arrays";

/// A completions request, checked and tokenized.
pub struct CompletionsRequest {
    /// For the engine, one for each prompt.
    pub asks: Vec<Ask>,
    /// The prompts that the answers repeat, one for each, or none at all.
    pub echoes: Vec<Echo>,
    /// Whether to stream, and how.
    pub common: Common,
    /// Whether log-probabilities were asked for.
    pub logprobs: bool,
    /// Unknown fields' paths.
    pub ignored: Vec<String>,
}

/// A prompt that stands at the start of its answer.
#[derive(Clone, Debug)]
pub struct Echo {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
}

enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

impl CompletionsRequest {
    /// Reads a request's body.
    pub fn parse(app: &App, bytes: &[u8]) -> Result<Self, ApiError> {
        let mut fields = body::parse(bytes)?;
        let common = Common::read(&mut fields, app)?;
        let max_tokens = fields.integer("max_tokens", 0..=i64::MAX)?;
        let max_tokens = max_tokens.unwrap_or(DEFAULT_MAX_TOKENS) as usize;
        let most = crate::engine::MAX_TOP_LOGPROBS as i64;
        let logprobs = fields
            .integer("logprobs", 0..=most)?
            .map(|top| top as usize);
        let echo = fields.boolean("echo")?.unwrap_or(false);
        fields.refuse("best_of", is_one, "only one choice is made; leave it out")?;
        let empty = |value: &Value| value.as_str() == Some("");
        fields.refuse(
            "suffix",
            empty,
            "text is only written after a prompt; leave it out",
        )?;
        let prompts = prompts(&mut fields)?;
        let ignored = fields.rest();
        let many = prompts.len() > 1;
        let mut asks = Vec::with_capacity(prompts.len());
        let mut echoes = Vec::new();
        for (index, prompt) in prompts.into_iter().enumerate() {
            let param = match many {
                true => format!("prompt[{index}]"),
                false => "prompt".to_owned(),
            };
            let tokenizer = app.text.tokenizer();
            let (text, ids) = match prompt {
                Prompt::Text(text) => {
                    let ids = tokenizer
                        .encode(&text, true)
                        .map_err(|error| ApiError::field(&param, error.to_string()))?;
                    (Some(text), ids)
                }
                Prompt::Ids(ids) => (None, ids),
            };
            fit(app.engine.facts(), &ids, max_tokens, &param)?;
            if echo {
                echoes.push(Echo {
                    text: text.unwrap_or_else(|| tokenizer.decode(&ids, false)),
                    ids: ids.clone(),
                });
            }
            let stop = common.stop.clone();
            asks.push(Ask {
                index,
                answer: Answer::new(
                    &app.text,
                    app.text.stream_after(&ids, stop),
                    Calls::Ignored,
                    ids.len(),
                ),
                request: Request {
                    prompt: ids,
                    params: common.params.clone(),
                    max_tokens,
                    form: None,
                    stop_ids: common.stop_ids.clone(),
                    logprobs,
                    prompt_logprobs: echo && logprobs.is_some(),
                },
            });
        }
        Ok(Self {
            asks,
            echoes,
            common,
            logprobs: logprobs.is_some(),
            ignored,
        })
    }
}

fn prompts(fields: &mut Fields) -> Result<Vec<Prompt>, ApiError> {
    let items = match fields.take("prompt") {
        None => return Err(fields.missing("prompt")),
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text)]),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_type("prompt", &other, PROMPT_TYPES)),
    };
    match items.first() {
        None => Err(ApiError::field(
            "prompt",
            "`prompt` is empty; give at least one token",
        )),
        Some(Value::Number(_)) => Ok(vec![Prompt::Ids(ids(items, "prompt")?)]),
        Some(_) if items.len() > MAX_PROMPTS => {
            let many = items.len();
            let message = format!("`prompt` has {many} prompts, expected at most {MAX_PROMPTS}");
            Err(ApiError::field("prompt", message))
        }
        Some(_) => {
            let numbered = items.into_iter().enumerate();
            numbered
                .map(|(index, item)| {
                    let path = format!("prompt[{index}]");
                    match item {
                        Value::String(text) => Ok(Prompt::Text(text)),
                        Value::Array(items) => Ok(Prompt::Ids(ids(items, &path)?)),
                        other => {
                            let expected = "a string or an array of token ids";
                            Err(wrong_type(&path, &other, expected))
                        }
                    }
                })
                .collect()
        }
    }
}

fn ids(items: Vec<Value>, path: &str) -> Result<Vec<u32>, ApiError> {
    let numbered = items.into_iter().enumerate();
    numbered
        .map(|(index, item)| {
            let id = item.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| {
                let path = format!("{path}[{index}]");
                let message = format!("`{path}` is {item}, expected a token id");
                ApiError::field(path, message)
            })
        })
        .collect()
}
