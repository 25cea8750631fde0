//! Writing an answer as blocks: one message, or the dialect's events in their order.
//!
//! `message_start`; for each block `content_block_start`, deltas, `content_block_stop`, with a `ping`
//! after the first start; then `message_delta` and `message_stop`. Blocks are numbered from 0 and
//! never overlap.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;
use serde_json::{Value, json};

use crate::server::answer::{End, Part, Usage};
use crate::server::error::{ApiError, Dialect};
use crate::server::reply::Reply;
use crate::server::sse::Sse;
use crate::server::{App, random};

/// What of the request its answer depends on.
pub struct Frame {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that were asked for at most.
    pub max_tokens: usize,
    /// Whether thinking blocks come without their text.
    pub omit_thinking: bool,
    /// Whether it is to be said why the cache was missed, and whether there is a message to compare with.
    pub diagnosed: Option<bool>,
}

/// A block in the making.
enum Block {
    Text(String),
    Thinking(String),
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

/// What goes out with every token, so that no tree is built for it.
#[derive(Serialize)]
struct BlockDelta<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    index: usize,
    delta: Delta<'a>,
}

/// What is added to a block.
#[derive(Serialize)]
#[serde(tag = "type")]
enum Delta<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "input_json_delta")]
    Input { partial_json: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
}

/// An answer in the making.
pub struct MessageReply {
    id: String,
    model: String,
    frame: Frame,
    usage: Usage,
    end: Option<End>,
    /// Whether `message_start` is out.
    started: bool,
    /// The block that is not complete.
    open: Option<Block>,
    /// Blocks begun.
    begun: usize,
    /// Complete blocks, if they are kept.
    blocks: Vec<Value>,
}

impl MessageReply {
    /// An answer of which nothing is known.
    pub fn new(app: &App, frame: Frame) -> Self {
        let usage = Usage {
            prompt: frame.prompt,
            ..Usage::default()
        };
        Self {
            id: random::identifier("msg_"),
            model: app.engine.facts().id.clone(),
            frame,
            usage,
            end: None,
            started: false,
            open: None,
            begun: 0,
            blocks: Vec::new(),
        }
    }

    fn usage(&self) -> Value {
        let usage = &self.usage;
        json!({
            "input_tokens": usage.prompt.saturating_sub(usage.cached),
            // Every prompt is kept, and nobody pays for it.
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached,
            "output_tokens": usage.completion,
            "output_tokens_details": {"thinking_tokens": usage.reasoning},
        })
    }

    /// The dialect's reason and stop sequence.
    fn stop(&self) -> (Value, Value) {
        let reason = match &self.end {
            None => return (Value::Null, Value::Null),
            Some(End::StopString(stop)) => return (json!("stop_sequence"), json!(stop)),
            Some(End::Stop) => "end_turn",
            Some(End::ToolCalls) => "tool_use",
            Some(End::Length) if self.usage.completion < self.frame.max_tokens => {
                "model_context_window_exceeded"
            }
            Some(End::Length) => "max_tokens",
        };
        (json!(reason), Value::Null)
    }

    fn message(&self, content: Vec<Value>) -> Value {
        let (reason, sequence) = self.stop();
        let mut message = json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": self.usage(),
        });
        if let Some(compared) = self.frame.diagnosed {
            // Former prompts are kept, but not by the message that they led to.
            let reason = compared.then(|| json!({"type": "unavailable"}));
            message["diagnostics"] = json!({"cache_miss_reason": reason});
        }
        message
    }

    fn start(&mut self, out: &mut Sse) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let message = self.message(Vec::new());
        let start = json!({"type": "message_start", "message": message});
        out.event("message_start", &start);
    }

    /// Makes the block that `part` belongs to the open one; `None` if the part adds nothing.
    fn turn_to(&mut self, part: &Part, mut out: Option<&mut Sse>) -> Option<()> {
        let same = match (&self.open, part) {
            (_, Part::Text { text, .. } | Part::Reasoning(text)) if text.is_empty() => return None,
            (Some(Block::Text(_)), Part::Text { .. }) => true,
            (Some(Block::Thinking(_)), Part::Reasoning(_)) => true,
            (Some(Block::Call { .. }), Part::Arguments(_)) => true,
            _ => false,
        };
        if same {
            return Some(());
        }
        let (block, start) = match part {
            Part::Text { .. } => {
                let start = json!({"type": "text", "text": ""});
                (Block::Text(String::new()), start)
            }
            Part::Reasoning(_) => {
                let start = json!({"type": "thinking", "thinking": "", "signature": ""});
                (Block::Thinking(String::new()), start)
            }
            Part::Call { name, .. } => {
                let id = random::identifier("toolu_");
                let start = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                let block = Block::Call {
                    id,
                    name: name.clone(),
                    arguments: String::new(),
                };
                (block, start)
            }
            _ => return None,
        };
        self.finish_block(out.as_deref_mut());
        if let Some(out) = out {
            let index = self.begun;
            let start =
                json!({"type": "content_block_start", "index": index, "content_block": start});
            out.event("content_block_start", &start);
            if index == 0 {
                self.ping(out);
            }
        }
        self.open = Some(block);
        self.begun += 1;
        Some(())
    }

    /// Adds a part to the open block; returns its delta.
    fn add<'a>(&mut self, part: &'a Part) -> Option<Delta<'a>> {
        match (self.open.as_mut()?, part) {
            (Block::Text(whole), Part::Text { text, .. }) => {
                whole.push_str(text);
                Some(Delta::Text { text })
            }
            (Block::Thinking(whole), Part::Reasoning(thinking)) => {
                whole.push_str(thinking);
                (!self.frame.omit_thinking).then_some(Delta::Thinking { thinking })
            }
            (Block::Call { arguments, .. }, Part::Arguments(partial_json)) => {
                arguments.push_str(partial_json);
                Some(Delta::Input { partial_json })
            }
            _ => None,
        }
    }

    /// Makes a thinking block of the text so far.
    fn think_anew(&mut self) {
        if let Some(Block::Text(text)) = self.open.take() {
            self.open = Some(Block::Thinking(text));
        }
    }

    /// Completes the open block, if there is one.
    fn finish_block(&mut self, out: Option<&mut Sse>) {
        let Some(block) = self.open.take() else {
            return;
        };
        let index = self.begun - 1;
        match out {
            Some(out) => {
                if let Block::Thinking(text) = &block {
                    let signature = signature(text);
                    write_delta(index, Delta::Signature { signature }, out);
                }
                let stop = json!({"type": "content_block_stop", "index": index});
                out.event("content_block_stop", &stop);
            }
            None => self.blocks.push(whole(block, self.frame.omit_thinking)),
        }
    }

    fn ping(&self, out: &mut Sse) {
        out.event("ping", &json!({"type": "ping"}));
    }
}

fn write_delta(index: usize, delta: Delta<'_>, out: &mut Sse) {
    let kind = "content_block_delta";
    out.event(kind, &BlockDelta { kind, index, delta });
}

/// A block as it stands in a message.
fn whole(block: Block, omit_thinking: bool) -> Value {
    match block {
        Block::Text(text) => json!({"type": "text", "text": text}),
        Block::Thinking(text) => {
            let signature = signature(&text);
            let text = if omit_thinking { String::new() } else { text };
            json!({"type": "thinking", "thinking": text, "signature": signature})
        }
        Block::Call {
            id,
            name,
            arguments,
        } => {
            // Arguments that `max_tokens` cut off are still what the model wrote.
            let input = serde_json::from_str(&arguments).ok();
            let input = input.filter(Value::is_object);
            let input = input.unwrap_or_else(|| match arguments.is_empty() {
                true => json!({}),
                false => json!({"INVALID_JSON": arguments}),
            });
            json!({"type": "tool_use", "id": id, "name": name, "input": input})
        }
    }
}

/// Clients keep a signature with a thinking block and give both back; nothing depends on it here.
fn signature(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("pensieve-{:016x}", hasher.finish())
}

impl Reply for MessageReply {
    fn open(&mut self, _out: &mut Sse) {
        // `message_start` tells how much of the prompt was cached, which is not known yet.
    }

    fn part(&mut self, _index: usize, part: Part, out: &mut Sse) {
        if let Part::Started(usage) = part {
            self.usage = usage;
            return self.start(out);
        }
        self.start(out);
        if let Part::End { end, usage, .. } = part {
            self.usage = usage;
            self.end = Some(end);
            return;
        }
        if self.turn_to(&part, Some(out)).is_some()
            && let Some(delta) = self.add(&part)
        {
            write_delta(self.begun.saturating_sub(1), delta, out);
        }
    }

    fn close(&mut self, out: &mut Sse) {
        self.start(out);
        self.finish_block(Some(out));
        let (reason, sequence) = self.stop();
        let delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": self.usage(),
        });
        out.event("message_delta", &delta);
        out.event("message_stop", &json!({"type": "message_stop"}));
    }

    fn fail(&mut self, error: &ApiError, out: &mut Sse) {
        out.event("error", &error.envelope(Dialect::Anthropic, &self.id));
    }

    fn beat(&mut self, out: &mut Sse) {
        self.start(out);
        self.ping(out);
    }

    fn keep(&mut self, _index: usize, part: Part) {
        if let Part::End { end, usage, .. } = part {
            self.usage = usage;
            self.end = Some(end);
        } else if part == Part::CallAborted {
            self.open = None;
        } else if part == Part::TextWasReasoning {
            self.think_anew();
        } else if self.turn_to(&part, None).is_some() {
            self.add(&part);
        }
    }

    fn whole(&mut self) -> Value {
        self.finish_block(None);
        let blocks = std::mem::take(&mut self.blocks);
        self.message(blocks)
    }
}
