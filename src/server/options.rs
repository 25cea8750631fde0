//! The fields that say how tokens are chosen and where an answer ends, with the names that OpenAI,
//! mlx-lm, llama-server and vLLM gave them.

use serde_json::{Map, Value};

use super::error::ApiError;
use super::fields::{Fields, wrong_type};
use super::{App, random};
use crate::sample::{Dry, MAX_WINDOW, Params, Penalty, Window, Xtc};
use crate::text::DRY_SEQUENCE_BREAKERS;

/// The most stop strings of a request; each costs a search in every piece of text.
const MAX_STOPS: usize = 64;
/// The most token ids in a list of them.
const MAX_IDS: usize = 1024;
/// The most strings at which a repetition ends.
const MAX_BREAKERS: usize = 16;
/// Takes all sampling parameters out of `fields`; what is absent comes from the model's defaults.
///
/// # Errors
/// A value of the wrong type or outside its range, by its name.
pub fn params(fields: &mut Fields, app: &App) -> Result<Params, ApiError> {
    let defaults = &app.defaults;
    let count = 0..=i64::from(u32::MAX);
    let top_k = fields.integer("top_k", -1..=i64::from(u32::MAX))?;
    let mut params = Params {
        temperature: fields
            .number("temperature")?
            .unwrap_or(defaults.temperature),
        top_p: fields.number("top_p")?.unwrap_or(defaults.top_p),
        // vLLM's -1 keeps all, as 0 does.
        top_k: top_k.map_or(defaults.top_k, |top_k| top_k.max(0) as u32),
        min_p: fields.number("min_p")?.unwrap_or(defaults.min_p),
        typical_p: fields.number("typical_p")?.unwrap_or(defaults.typical_p),
        xtc: Xtc {
            probability: fields
                .number("xtc_probability")?
                .unwrap_or(defaults.xtc.probability),
            threshold: fields
                .number("xtc_threshold")?
                .unwrap_or(defaults.xtc.threshold),
        },
        dry: dry(fields, app)?,
        repetition: penalty(
            fields,
            &["repetition_penalty", "repeat_penalty"],
            &["repetition_context_size", "repeat_last_n"],
            defaults.repetition,
        )?,
        presence: penalty(
            fields,
            &["presence_penalty"],
            &["presence_context_size"],
            defaults.presence,
        )?,
        frequency: penalty(
            fields,
            &["frequency_penalty"],
            &["frequency_context_size"],
            defaults.frequency,
        )?,
        logit_bias: logit_bias(fields, app)?,
        min_tokens: match fields.integer("min_tokens", count)? {
            Some(tokens) => tokens as usize,
            None => defaults.min_tokens,
        },
        ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(defaults.ignore_eos),
        seed: match fields.integer("seed", i64::MIN..=i64::MAX)? {
            Some(seed) => seed as u64,
            None => random::number(),
        },
    };
    for (name, strength) in [
        ("presence_penalty", params.presence.strength),
        ("frequency_penalty", params.frequency.strength),
    ] {
        if !(-2.0..=2.0).contains(&strength) {
            let message = format!("`{name}` is {strength}, expected -2 to 2");
            return Err(ApiError::field(name, message));
        }
    }
    if params.logit_bias.iter().all(|&(_, bias)| bias == 0.0) {
        params.logit_bias.clear();
    }
    params
        .check()
        .map_err(|(field, message)| ApiError::field(field, message))?;
    Ok(params)
}

/// A penalty and its window, each under the first of its names that is given.
fn penalty(
    fields: &mut Fields,
    strength: &[&str],
    window: &[&str],
    default: Penalty,
) -> Result<Penalty, ApiError> {
    let mut penalty = default;
    for name in strength.iter().rev() {
        penalty.strength = fields.number(name)?.unwrap_or(penalty.strength);
    }
    for name in window.iter().rev() {
        if let Some(size) = fields.integer(name, -1..=i64::from(u32::MAX))? {
            // llama.cpp's -1 is the whole context, as far as is looked back.
            let size = usize::try_from(size).unwrap_or(MAX_WINDOW);
            penalty.window = Window::Last(size);
        }
    }
    Ok(penalty)
}

fn dry(fields: &mut Fields, app: &App) -> Result<Dry, ApiError> {
    let default = &app.defaults.dry;
    let count = 0..=i64::from(u32::MAX);
    let multiplier = fields.number("dry_multiplier")?;
    let mut dry = Dry {
        multiplier: multiplier.unwrap_or(default.multiplier),
        base: fields.number("dry_base")?.unwrap_or(default.base),
        allowed_length: match fields.integer("dry_allowed_length", count)? {
            Some(length) => length as usize,
            None => default.allowed_length,
        },
        last_n: match fields.integer("dry_penalty_last_n", -1..=i64::from(u32::MAX))? {
            Some(last) => usize::try_from(last).ok(),
            None => default.last_n,
        },
        breakers: Vec::new(),
    };
    let breakers = strings(fields, "dry_sequence_breakers", MAX_BREAKERS)?;
    if dry.multiplier != 0.0 {
        let tokenizer = app.text.tokenizer();
        let ids = match &breakers {
            Some(strings) => tokenizer.dry_breakers(strings),
            None if !default.breakers.is_empty() => Ok(default.breakers.clone()),
            None => tokenizer.dry_breakers(&DRY_SEQUENCE_BREAKERS),
        };
        let name = "dry_sequence_breakers";
        dry.breakers = ids.map_err(|error| ApiError::field(name, error.to_string()))?;
    }
    Ok(dry)
}

/// OpenAI's object of token ids and what is added to their logits, or llama-server's list of pairs.
fn logit_bias(fields: &mut Fields, app: &App) -> Result<Vec<(u32, f32)>, ApiError> {
    let expected = "an object with token ids as keys and numbers from -100 to 100";
    let pairs: Vec<(String, Value)> = match fields.take("logit_bias") {
        None => return Ok(app.defaults.logit_bias.clone()),
        Some(Value::Object(map)) => Map::into_iter(map).collect(),
        Some(other) => return Err(wrong_type("logit_bias", &other, expected)),
    };
    if pairs.len() > MAX_IDS {
        let many = pairs.len();
        let message = format!("`logit_bias` has {many} tokens, expected at most {MAX_IDS}");
        return Err(ApiError::field("logit_bias", message));
    }
    let vocabulary = app.engine.facts().vocab_size;
    let pair = |(key, value): (String, Value)| {
        let path = format!("logit_bias.{key}");
        let id = key.parse::<u32>().ok();
        let Some(id) = id.filter(|&id| (id as usize) < vocabulary) else {
            let message = format!("`{path}`: {key:?} is no token id below {vocabulary}");
            return Err(ApiError::field(path, message));
        };
        match value.as_f64() {
            Some(bias) if (-100.0..=100.0).contains(&bias) => Ok((id, bias as f32)),
            Some(bias) => {
                let message = format!("`{path}` is {bias}, expected -100 to 100");
                Err(ApiError::field(path, message))
            }
            None => Err(wrong_type(&path, &value, "a number from -100 to 100")),
        }
    };
    pairs.into_iter().map(pair).collect()
}

/// Strings that end an answer, from a field that holds one or an array of them.
///
/// # Errors
/// Too many of them, or one that is empty.
pub fn stops(fields: &mut Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let stops = strings(fields, name, MAX_STOPS)?.unwrap_or_default();
    if stops.iter().any(String::is_empty) {
        let message =
            format!("`{name}` has an empty string, which would stop everything; leave it out");
        return Err(ApiError::field(name, message));
    }
    Ok(stops)
}

/// Takes a string or an array of at most `most` strings.
///
/// # Errors
/// Anything else.
pub fn strings(
    fields: &mut Fields,
    name: &str,
    most: usize,
) -> Result<Option<Vec<String>>, ApiError> {
    let items = match fields.take(name) {
        None => return Ok(None),
        Some(Value::Array(items)) => items,
        Some(one @ Value::String(_)) => vec![one],
        Some(other) => {
            let expected = "a string or an array of strings";
            return Err(wrong_type(&fields.path(name), &other, expected));
        }
    };
    let path = fields.path(name);
    if items.len() > most {
        let many = items.len();
        let message = format!("`{path}` has {many} strings, expected at most {most}");
        return Err(ApiError::field(path, message));
    }
    let numbered = items.into_iter().enumerate();
    let strings: Result<Vec<String>, ApiError> = numbered
        .map(|(index, item)| match item {
            Value::String(text) => Ok(text),
            other => Err(wrong_type(&format!("{path}[{index}]"), &other, "a string")),
        })
        .collect();
    strings.map(Some)
}

/// vLLM's `stop_token_ids`.
///
/// # Errors
/// Anything but token ids.
pub fn stop_ids(fields: &mut Fields) -> Result<Vec<u32>, ApiError> {
    let items = fields.array("stop_token_ids")?.unwrap_or_default();
    if items.len() > MAX_IDS {
        let many = items.len();
        let message = format!("`stop_token_ids` has {many} ids, expected at most {MAX_IDS}");
        return Err(ApiError::field("stop_token_ids", message));
    }
    token_ids(items, "stop_token_ids")
}

/// Reads an array's items as token ids.
///
/// # Errors
/// Anything else, by its place.
pub fn token_ids(items: Vec<Value>, path: &str) -> Result<Vec<u32>, ApiError> {
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
