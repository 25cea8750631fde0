//! Writing a chat answer: one object, or chunks.

use serde_json::{Value, json};

use super::logprobs::chat_item;
use super::{now, usage};
use crate::engine::TokenLogprob;
use crate::server::answer::{Part, Usage};
use crate::server::sse::Chunks;
use crate::server::{App, random};
use crate::text::Text;

/// What every object of one answer says.
pub struct ChatReply {
    id: String,
    created: u64,
    model: String,
    text: Text,
    logprobs: bool,
    include_usage: bool,
}

impl ChatReply {
    /// The frame of a new answer.
    pub fn new(app: &App, logprobs: bool, include_usage: bool) -> Self {
        Self {
            id: random::identifier("chatcmpl-"),
            created: now(),
            model: app.engine.facts().id.clone(),
            text: app.text.clone(),
            logprobs,
            include_usage,
        }
    }

    fn items(&self, tokens: &[TokenLogprob]) -> Vec<Value> {
        let tokenizer = self.text.tokenizer();
        tokens
            .iter()
            .map(|token| chat_item(tokenizer, token))
            .collect()
    }

    fn call(name: String, arguments: String) -> Value {
        json!({
            "id": random::identifier("call_"),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        })
    }
}

/// A whole answer in the making.
pub struct Whole {
    reply: ChatReply,
    content: String,
    calls: Vec<Value>,
    items: Vec<Value>,
}

impl Whole {
    /// An empty answer.
    pub fn new(reply: ChatReply) -> Self {
        Self {
            reply,
            content: String::new(),
            calls: Vec::new(),
            items: Vec::new(),
        }
    }

    /// Takes a part; the answer if it was the last one, or the failure's text.
    pub fn take(&mut self, part: Part) -> Option<Result<Value, String>> {
        match part {
            Part::Prompt(_) => None,
            Part::Text { text, tokens } => {
                self.content.push_str(&text);
                let items = self.reply.items(&tokens);
                self.items.extend(items);
                None
            }
            Part::Call { name, arguments } => {
                self.calls.push(ChatReply::call(name, arguments));
                None
            }
            Part::End { end, usage, .. } => Some(Ok(self.json(end.word(), usage))),
            Part::Failed(message) => Some(Err(message)),
        }
    }

    fn json(&mut self, finish_reason: &str, cost: Usage) -> Value {
        let content = std::mem::take(&mut self.content);
        let content = match content.is_empty() && !self.calls.is_empty() {
            true => Value::Null,
            false => Value::String(content),
        };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !self.calls.is_empty() {
            message["tool_calls"] = Value::Array(std::mem::take(&mut self.calls));
        }
        let logprobs = match self.reply.logprobs {
            true => json!({"content": std::mem::take(&mut self.items), "refusal": null}),
            false => Value::Null,
        };
        json!({
            "id": self.reply.id,
            "object": "chat.completion",
            "created": self.reply.created,
            "model": self.reply.model,
            "choices": [{
                "index": 0,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": finish_reason,
            }],
            "usage": usage(cost),
        })
    }
}

/// A streamed answer in the making.
pub struct Stream {
    reply: ChatReply,
    calls: usize,
    usage: Usage,
}

impl Stream {
    /// An answer of which nothing is sent.
    pub fn new(reply: ChatReply) -> Self {
        Self {
            reply,
            calls: 0,
            usage: Usage::default(),
        }
    }

    fn chunk(&self, choices: Value, cost: Option<Usage>) -> Value {
        let mut chunk = json!({
            "id": self.reply.id,
            "object": "chat.completion.chunk",
            "created": self.reply.created,
            "model": self.reply.model,
            "choices": choices,
        });
        if self.reply.include_usage {
            chunk["usage"] = cost.map_or(Value::Null, usage);
        }
        chunk
    }

    fn delta(&self, delta: Value, logprobs: Value, finish_reason: Option<&str>) -> Vec<Value> {
        let choice = json!({
            "index": 0,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        });
        vec![self.chunk(json!([choice]), None)]
    }
}

impl Chunks for Stream {
    fn opening(&mut self) -> Vec<Value> {
        let delta = json!({"role": "assistant", "content": "", "refusal": null});
        self.delta(delta, Value::Null, None)
    }

    fn part(&mut self, _index: usize, part: Part) -> Vec<Value> {
        match part {
            Part::Prompt(_) | Part::Failed(_) => Vec::new(),
            Part::Text { text, tokens } => {
                let logprobs = match self.reply.logprobs {
                    true => json!({"content": self.reply.items(&tokens), "refusal": null}),
                    false => Value::Null,
                };
                self.delta(json!({"content": text}), logprobs, None)
            }
            Part::Call { name, arguments } => {
                let mut call = ChatReply::call(name, arguments);
                call["index"] = json!(self.calls);
                self.calls += 1;
                self.delta(json!({"tool_calls": [call]}), Value::Null, None)
            }
            Part::End { end, usage, .. } => {
                self.usage = usage;
                self.delta(json!({}), Value::Null, Some(end.word()))
            }
        }
    }

    fn closing(&mut self) -> Vec<Value> {
        match self.reply.include_usage {
            true => vec![self.chunk(json!([]), Some(self.usage))],
            false => Vec::new(),
        }
    }
}
