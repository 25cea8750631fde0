//! Bodies of any shape: each is taken or refused by name, and what is taken is a request that the
//! engine takes.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::server::error::ApiError;
use crate::server::openai::{chat_request, completions_request};
use crate::server::reply::Prepared;
use crate::server::{anthropic, body as bodies};

const NAMES: [&str; 46] = [
    "n",
    "system",
    "stop_sequences",
    "tool_choice",
    "thinking",
    "budget_tokens",
    "tool_use_id",
    "id",
    "input",
    "input_schema",
    "source",
    "data",
    "is_error",
    "cache_control",
    "output_config",
    "format",
    "response_format",
    "logit_bias",
    "repetition_penalty",
    "dry_multiplier",
    "min_tokens",
    "choice",
    "model",
    "messages",
    "role",
    "content",
    "type",
    "text",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "tools",
    "parameters",
    "prompt",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "include_usage",
    "logprobs",
    "top_logprobs",
    "echo",
];
const WORDS: [&str; 16] = [
    "tool_use",
    "tool_result",
    "thinking",
    "document",
    "enabled",
    "any",
    "json_schema",
    "5",
    "tiny",
    "user",
    "assistant",
    "tool",
    "text",
    "function",
    "{}",
    "é\u{0}",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2..300_i64).prop_map(Value::from),
        (-1.0..2.0_f64).prop_map(Value::from),
        select(&WORDS[..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            object(inner),
        ]
    })
}

fn object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let field = (select(&NAMES[..]).prop_map(String::from), inner);
    let fields = prop::collection::vec(field, 0..5);
    fields.prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

/// A body that is mostly right, with some fields replaced by anything.
fn body() -> impl Strategy<Value = Value> {
    object(value()).prop_map(|more| {
        let mut body = hello(json!({"prompt": ["a", "b"], "max_tokens": 100}));
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    })
}

fn check(engine: &Handle, parsed: Result<Prepared, ApiError>) {
    match parsed {
        Ok(prepared) => {
            assert!(!prepared.jobs.is_empty());
            for job in prepared.jobs {
                let taken = engine.submit(job.request);
                assert!(taken.is_ok(), "{}", taken.unwrap_err());
            }
        }
        Err(error) => {
            assert!(matches!(error.status.as_u16(), 400 | 404), "{error:?}");
            assert!(!error.message.is_empty());
        }
    }
}

#[test]
fn any_body_is_taken_or_refused() {
    let (engine, _inbox) = Handle::new(facts(), usize::MAX);
    let app = app(engine.clone());
    let dialects = [
        chat_request::prepare,
        completions_request::prepare,
        anthropic::prepare,
    ];
    proptest!(|(body in body())| {
        let bytes = body.to_string().into_bytes();
        for prepare in dialects {
            let parsed = bodies::parse(&bytes).and_then(|fields| prepare(&app, fields, "req_1"));
            check(&engine, parsed);
        }
    });
}
