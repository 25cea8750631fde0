//! Writing a chat answer: one object, or chunks.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use super::logprobs::chat_item;
use super::{Extras, now, timings, usage};
use crate::engine::{Stats, TokenLogprob};
use crate::server::answer::{Part, Usage};
use crate::server::error::{ApiError, Dialect};
use crate::server::reply::Reply;
use crate::server::sse::Sse;
use crate::server::{App, random};
use crate::text::Text;

const CHUNK: &str = "chat.completion.chunk";
/// The one tier of service.
const TIER: &str = "default";

/// One choice: its parts so far, for a whole answer, and how many calls it made.
#[derive(Default)]
struct Choice {
    content: String,
    reasoning: String,
    calls: Vec<Value>,
    called: usize,
    items: Vec<Value>,
    end: Option<&'static str>,
}

/// A chunk with one choice: what goes out with every token, so that no tree is built for it.
#[derive(serde::Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    choices: [ChunkChoice<'a>; 1],
    /// Null in all chunks but the last, if the last is to tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<()>,
}

#[derive(serde::Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(serde::Serialize)]
struct Logprobs {
    content: Vec<Value>,
    refusal: (),
}

/// What a chunk adds.
enum Delta<'a> {
    /// A piece of text to the field of this name.
    Piece(&'a str, &'a str),
    /// Anything.
    Any(Value),
}

impl Serialize for Delta<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Piece(name, text) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(name, text)?;
                map.end()
            }
            Self::Any(delta) => delta.serialize(serializer),
        }
    }
}

/// What every object of one answer says, and how far each choice is.
pub struct ChatReply {
    id: String,
    created: u64,
    model: String,
    text: Text,
    /// The field that reasoning is given in.
    reasoning: String,
    extras: Extras,
    choices: Vec<Choice>,
    usage: Usage,
    stats: Option<Stats>,
}

impl ChatReply {
    /// The frame of a new answer with `n` choices.
    pub fn new(app: &App, n: usize, extras: Extras) -> Self {
        Self {
            id: random::identifier("chatcmpl-"),
            created: now(),
            model: app.engine.facts().id.clone(),
            text: app.text.clone(),
            reasoning: app.reasoning_field.clone(),
            extras,
            choices: (0..n).map(|_| Choice::default()).collect(),
            usage: Usage::default(),
            stats: None,
        }
    }

    fn items(&self, tokens: &[TokenLogprob]) -> Vec<Value> {
        if !self.extras.logprobs {
            return Vec::new();
        }
        let tokenizer = self.text.tokenizer();
        let items = tokens.iter().map(|token| chat_item(tokenizer, token));
        items.collect()
    }

    fn call(name: String, id: Option<String>) -> Value {
        json!({
            "id": id.unwrap_or_else(|| random::identifier("call_")),
            "type": "function",
            "function": {"name": name, "arguments": ""},
        })
    }

    fn ended(&mut self, usage: Usage, stats: Option<Stats>) {
        self.usage += usage;
        self.stats = stats.or(self.stats.take());
    }

    fn chunk(
        &self,
        index: usize,
        delta: Delta<'_>,
        items: Vec<Value>,
        end: Option<&'static str>,
        out: &mut Sse,
    ) {
        let logprobs = (!items.is_empty()).then_some(Logprobs {
            content: items,
            refusal: (),
        });
        out.data(&Chunk {
            id: &self.id,
            object: CHUNK,
            created: self.created,
            model: &self.model,
            service_tier: self.extras.tier.then_some(TIER),
            choices: [ChunkChoice {
                index,
                delta,
                logprobs,
                finish_reason: end,
            }],
            usage: self.extras.usage.then_some(()),
        });
    }

    fn add_extras(&self, object: &mut Value) {
        if self.extras.tier {
            object["service_tier"] = json!(TIER);
        }
        if self.extras.timings {
            object["timings"] = timings(self.stats.as_ref());
        }
    }
}

impl Reply for ChatReply {
    fn open(&mut self, out: &mut Sse) {
        for index in 0..self.choices.len() {
            let delta = Delta::Any(json!({"role": "assistant", "content": "", "refusal": null}));
            self.chunk(index, delta, Vec::new(), None, out);
        }
    }

    fn part(&mut self, index: usize, part: Part, out: &mut Sse) {
        let mut end = None;
        let delta = match part {
            Part::Started(_) | Part::Prompt(_) | Part::Failed(_) => return,
            // What is sent cannot be taken back; the text of an aborted call follows it.
            Part::TextWasReasoning | Part::CallAborted => return,
            Part::Text { text, tokens } => {
                let items = self.items(&tokens);
                return self.chunk(index, Delta::Piece("content", &text), items, None, out);
            }
            Part::Reasoning(text) => {
                let delta = Delta::Piece(&self.reasoning, &text);
                return self.chunk(index, delta, Vec::new(), None, out);
            }
            Part::Call { name, id } => {
                let mut call = Self::call(name, id);
                call["index"] = json!(self.choices[index].called);
                self.choices[index].called += 1;
                json!({"tool_calls": [call]})
            }
            Part::Arguments(text) => {
                let call = self.choices[index].called.saturating_sub(1);
                let call = json!({"index": call, "function": {"arguments": text}});
                json!({"tool_calls": [call]})
            }
            Part::End {
                end: why,
                usage,
                stats,
            } => {
                self.ended(usage, stats);
                end = Some(why.word());
                json!({})
            }
        };
        self.chunk(index, Delta::Any(delta), Vec::new(), end, out);
    }

    fn close(&mut self, out: &mut Sse) {
        if self.extras.usage || self.extras.timings {
            let mut chunk = json!({
                "id": self.id,
                "object": CHUNK,
                "created": self.created,
                "model": self.model,
                "choices": [],
            });
            if self.extras.usage {
                chunk["usage"] = usage(self.usage);
            }
            self.add_extras(&mut chunk);
            out.data(&chunk);
        }
        out.done();
    }

    fn fail(&mut self, error: &ApiError, out: &mut Sse) {
        out.data(&error.envelope(Dialect::OpenAi, &self.id));
    }

    fn beat(&mut self, out: &mut Sse) {
        out.comment("still at it");
    }

    fn keep(&mut self, index: usize, part: Part) {
        let items = match &part {
            Part::Text { tokens, .. } => self.items(tokens),
            _ => Vec::new(),
        };
        let choice = &mut self.choices[index];
        match part {
            Part::Started(_) | Part::Prompt(_) | Part::Failed(_) => {}
            Part::Text { text, .. } => {
                choice.content.push_str(&text);
                choice.items.extend(items);
            }
            Part::Reasoning(text) => choice.reasoning.push_str(&text),
            Part::TextWasReasoning => {
                let text = std::mem::take(&mut choice.content);
                choice.reasoning.push_str(&text);
            }
            Part::Call { name, id } => choice.calls.push(Self::call(name, id)),
            Part::CallAborted => {
                choice.calls.pop();
            }
            Part::Arguments(text) => {
                if let Some(call) = choice.calls.last_mut()
                    && let Value::String(arguments) = &mut call["function"]["arguments"]
                {
                    arguments.push_str(&text);
                }
            }
            Part::End { end, usage, stats } => {
                choice.end = Some(end.word());
                self.ended(usage, stats);
            }
        }
    }

    fn whole(&mut self) -> Value {
        let choices = std::mem::take(&mut self.choices);
        let choice = |(index, choice): (usize, Choice)| {
            let content = match choice.content.is_empty() && !choice.calls.is_empty() {
                true => Value::Null,
                false => Value::String(choice.content),
            };
            let mut message = json!({"role": "assistant", "content": content, "refusal": null});
            if !choice.reasoning.is_empty() {
                message[self.reasoning.as_str()] = Value::String(choice.reasoning);
            }
            if !choice.calls.is_empty() {
                message["tool_calls"] = Value::Array(choice.calls);
            }
            let logprobs = match self.extras.logprobs {
                true => json!({"content": choice.items, "refusal": null}),
                false => Value::Null,
            };
            json!({
                "index": index,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": choice.end,
            })
        };
        let choices: Vec<Value> = choices.into_iter().enumerate().map(choice).collect();
        let mut object = json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": usage(self.usage),
        });
        self.add_extras(&mut object);
        object
    }
}
