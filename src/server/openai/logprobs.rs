//! Log-probabilities as the two APIs write them.

use serde_json::{Map, Value, json};

use crate::engine::TokenLogprob;
use crate::text::Tokenizer;

/// What stands for a probability of zero, whose logarithm JSON cannot write.
const IMPOSSIBLE: f32 = -9999.0;

fn number(logprob: f32) -> Value {
    match logprob.is_finite() {
        true => json!(logprob),
        false => json!(IMPOSSIBLE),
    }
}

/// An item of the chat API's `logprobs.content`.
pub fn chat_item(tokenizer: &Tokenizer, score: &TokenLogprob) -> Value {
    let item = |id: u32, logprob: f32| {
        json!({
            "token": tokenizer.token_text(id),
            "logprob": number(logprob),
            "bytes": tokenizer.token_bytes(id),
        })
    };
    let top: Vec<Value> = score
        .top
        .iter()
        .map(|&(id, logprob)| item(id, logprob))
        .collect();
    let mut whole = item(score.id, score.logprob);
    whole["top_logprobs"] = Value::Array(top);
    whole
}

/// The legacy API's `logprobs` object: one entry a token in each of four arrays.
#[derive(Clone, Debug, Default)]
pub struct Legacy {
    tokens: Vec<Value>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<Value>,
}

impl Legacy {
    /// Adds a token that starts at the character `offset` of the returned text; without a score
    /// if it is the prompt's first.
    pub fn push(
        &mut self,
        tokenizer: &Tokenizer,
        id: u32,
        score: Option<&TokenLogprob>,
        offset: usize,
    ) {
        self.tokens.push(json!(tokenizer.token_text(id)));
        self.text_offset.push(json!(offset));
        self.token_logprobs
            .push(score.map_or(Value::Null, |score| number(score.logprob)));
        self.top_logprobs.push(score.map_or(Value::Null, |score| {
            // Different tokens can have one text; the likeliest comes first and keeps its place.
            let mut top = Map::new();
            let all = score.top.iter().copied().chain([(score.id, score.logprob)]);
            for (id, logprob) in all {
                top.entry(tokenizer.token_text(id))
                    .or_insert_with(|| number(logprob));
            }
            Value::Object(top)
        }));
    }

    /// Adds what `more` has.
    pub fn append(&mut self, more: Self) {
        self.tokens.extend(more.tokens);
        self.token_logprobs.extend(more.token_logprobs);
        self.top_logprobs.extend(more.top_logprobs);
        self.text_offset.extend(more.text_offset);
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The JSON object.
    pub fn json(self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        })
    }
}
