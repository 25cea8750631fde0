//! Reading a legacy completions request: one prompt or several, as text or token ids.

use serde_json::Value;

use super::Common;
use super::completions_reply::CompletionsReply;
use crate::server::App;
use crate::server::answer::Calls;
use crate::server::ask::{Ask, Prompt};
use crate::server::error::ApiError;
use crate::server::fields::{Fields, wrong_type};
use crate::server::options::token_ids;
use crate::server::reply::Prepared;

/// What the API gives when `max_tokens` is absent.
const DEFAULT_MAX_TOKENS: i64 = 16;
/// The most prompts of one request.
const MAX_PROMPTS: usize = 2048;
const PROMPT_TYPES: &str =
    "a string, an array of strings, an array of token ids, or an array of such arrays";

/// A prompt that stands at the start of its answer.
#[derive(Clone, Debug)]
pub struct Echo {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
}

enum Given {
    Text(String),
    Ids(Vec<u32>),
}

/// Makes a completions request ready to run.
///
/// # Errors
/// What the client is to be told.
pub fn prepare(app: &App, mut fields: Fields, _id: &str) -> Result<Prepared, ApiError> {
    let mut ignored = Vec::new();
    let mut common = Common::read(&mut fields, app, &mut ignored)?;
    let max_tokens = fields.integer("max_tokens", 0..=i64::MAX)?;
    let most = crate::engine::MAX_TOP_LOGPROBS as i64;
    let logprobs = fields
        .integer("logprobs", 0..=most)?
        .map(|top| top as usize);
    common.extras.logprobs = logprobs.is_some();
    let echo = fields.boolean("echo")?.unwrap_or(false);
    let n = common.n;
    let as_many = |value: &Value| value.as_u64() == Some(n as u64);
    fields.refuse("best_of", as_many, "it can only equal `n`; leave it out")?;
    let empty = |value: &Value| value.as_str() == Some("");
    fields.refuse(
        "suffix",
        empty,
        "text is only written after a prompt; leave it out",
    )?;
    let given = prompts(&mut fields)?;
    ignored.extend(fields.rest());
    let many = given.len() > 1;
    let mut prompts = Vec::with_capacity(given.len());
    let mut echoes = Vec::new();
    for (index, prompt) in given.into_iter().enumerate() {
        let param = match many {
            true => format!("prompt[{index}]"),
            false => "prompt".to_owned(),
        };
        let tokenizer = app.text.tokenizer();
        let (text, ids) = match prompt {
            Given::Text(text) => {
                let ids = tokenizer
                    .encode(&text, true)
                    .map_err(|error| ApiError::field(&param, error.to_string()))?;
                (Some(text), ids)
            }
            Given::Ids(ids) => (None, ids),
        };
        if echo {
            let text = text.unwrap_or_else(|| tokenizer.decode(&ids, false));
            let echo = Echo {
                text,
                ids: ids.clone(),
            };
            echoes.extend(std::iter::repeat_n(echo, n));
        }
        prompts.push(Prompt {
            ids,
            param,
            continues: true,
        });
    }
    let form = common.form.as_ref().map(|wanted| wanted.compile(app));
    let ask = Ask {
        prompts,
        n,
        params: common.params,
        max_tokens: max_tokens.unwrap_or(DEFAULT_MAX_TOKENS) as usize,
        stop: common.stop,
        stop_ids: common.stop_ids,
        logprobs,
        prompt_logprobs: echo && logprobs.is_some(),
        form: form.transpose()?,
        calls: Calls::Ignored,
    };
    let jobs = ask.jobs(app)?;
    let reply = CompletionsReply::new(app, jobs.len(), echoes, common.extras);
    Ok(Prepared {
        jobs,
        stream: common.stream,
        reply: Box::new(reply),
        ignored,
    })
}

fn prompts(fields: &mut Fields) -> Result<Vec<Given>, ApiError> {
    let items = match fields.take("prompt") {
        None => return Err(fields.missing("prompt")),
        Some(Value::String(text)) => return Ok(vec![Given::Text(text)]),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_type("prompt", &other, PROMPT_TYPES)),
    };
    match items.first() {
        None => Err(ApiError::field(
            "prompt",
            "`prompt` is empty; give at least one token",
        )),
        Some(Value::Number(_)) => Ok(vec![Given::Ids(token_ids(items, "prompt")?)]),
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
                        Value::String(text) => Ok(Given::Text(text)),
                        Value::Array(items) => Ok(Given::Ids(token_ids(items, &path)?)),
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
