//! One question to the engine: from messages to text, with the measurements.

use std::io::{self, IsTerminal, Write};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc::Receiver;

use super::args::Answer;
use super::model::Opened;
use super::{Done, Failure};
use crate::engine::{Event, FinishReason, Request, Stats};
use crate::sample::{Form, Params};
use crate::text::tools::Output;
use crate::text::{AnswerParser, Chat, TextStream};

/// What an answer cost and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// `stop`, `length` or `cancelled`.
    pub reason: &'static str,
    /// The engine's measurements; what is known of them if the answer was cut short.
    pub stats: Stats,
}

/// A request under way, and its text so far.
pub struct Asked {
    /// The engine's events.
    pub events: Receiver<Event>,
    stream: TextStream,
    /// Tells reasoning from the answer, in a dialogue.
    parser: Option<AnswerParser>,
    /// Tokens received.
    n_tokens: usize,
    prompt_tokens: usize,
}

/// What came of one event.
pub enum Heard {
    /// More text, perhaps empty.
    Text(Said),
    /// The last text, and the end.
    End(Said, Outcome),
}

/// What a model said, to itself and to others.
#[derive(Debug, Default)]
pub struct Said {
    /// What it said to itself.
    pub reasoning: String,
    /// Its answer.
    pub text: String,
}

impl Said {
    /// Writes the answer to standard output, what the model said to itself to standard error.
    pub fn print(&self) -> Done {
        if !self.reasoning.is_empty() {
            let mut err = io::stderr().lock();
            let (dim, plain) = match err.is_terminal() {
                true => ("\x1b[2m", "\x1b[0m"),
                false => ("", ""),
            };
            // Losing it is no reason to lose the answer.
            let _ = write!(err, "{dim}{}{plain}", self.reasoning).and_then(|()| err.flush());
        }
        print(&self.text)
    }

    /// Puts `more` behind it.
    pub fn push(&mut self, more: &Said) {
        self.reasoning.push_str(&more.reasoning);
        self.text.push_str(&more.text);
    }
}

/// The prompt's tokens for a dialogue.
pub fn encode_chat(opened: &Opened, args: &Answer, messages: &[Value]) -> Done<Vec<u32>> {
    let mut messages = messages.to_vec();
    if let Some(system) = &args.system_prompt {
        messages.insert(0, json!({"role": "system", "content": system}));
    }
    let chat = Chat {
        messages,
        add_generation_prompt: true,
        extra: template_variables(args)?,
        ..Chat::default()
    };
    let encoded = opened.text.encode_chat(&chat);
    encoded.map_err(|e| Failure::Input(e.to_string()))
}

fn template_variables(args: &Answer) -> Done<Map<String, Value>> {
    let Some(text) = &args.chat_template_config else {
        return Ok(Map::new());
    };
    serde_json::from_str(text)
        .map_err(|e| Failure::Usage(format!("--chat-template-config is not a JSON object: {e}")))
}

impl Asked {
    /// Submits a prompt; `stream` turns the answer's ids into text, which is taken apart if it is
    /// the model's side of a `dialogue`.
    pub fn new(
        opened: &Opened,
        args: &Answer,
        mut stream: TextStream,
        params: Params,
        form: Option<Form>,
        prompt: Vec<u32>,
        dialogue: bool,
    ) -> Done<Self> {
        let prompt_tokens = prompt.len();
        let parser = dialogue.then(|| opened.text.answer_parser(&prompt, None));
        if let Some(parser) = &parser {
            stream.show(parser.shown());
        }
        let request = Request {
            prompt,
            params,
            max_tokens: args.max_tokens,
            form,
            stop_ids: Vec::new(),
            logprobs: None,
            prompt_logprobs: false,
        };
        let events = opened.engine.handle.submit(request);
        Ok(Self {
            events: events.map_err(|e| Failure::Input(e.to_string()))?,
            stream,
            parser,
            n_tokens: 0,
            prompt_tokens,
        })
    }

    /// Turns an event into text; `None` is a channel that closed before the end.
    pub fn hear(&mut self, event: Option<Event>) -> Done<Heard> {
        match event {
            Some(Event::Started(_) | Event::Prompt(_)) => Ok(Heard::Text(Said::default())),
            Some(Event::Token { id, .. }) => {
                self.n_tokens += 1;
                let piece = self.stream.push(id);
                let said = self.said(piece.text, piece.stopped);
                match piece.stopped {
                    false => Ok(Heard::Text(said)),
                    true => Ok(Heard::End(said, self.cut_short("stop"))),
                }
            }
            Some(Event::Finished { reason, stats }) => {
                let reason = match reason {
                    FinishReason::Stop => "stop",
                    FinishReason::Length => "length",
                };
                let text = self.stream.finish();
                let said = self.said(text, true);
                Ok(Heard::End(said, Outcome { reason, stats }))
            }
            Some(Event::Failed(message)) => Err(Failure::Work(message)),
            None => Err(Failure::Engine(
                "the engine ended before the answer did".into(),
            )),
        }
    }

    fn said(&mut self, text: String, last: bool) -> Said {
        let mut said = Said::default();
        let Some(parser) = &mut self.parser else {
            said.text = text;
            return said;
        };
        let mut parts = parser.push(&text);
        if last {
            parts.extend(parser.finish());
        }
        for part in parts {
            match part {
                Output::Text(text) => said.text.push_str(&text),
                Output::Reasoning(text) => said.reasoning.push_str(&text),
                // What is printed stays, and calls are not looked for.
                _ => {}
            }
        }
        said
    }

    /// The outcome of an answer that the engine did not end itself.
    pub fn cut_short(&self, reason: &'static str) -> Outcome {
        let stats = Stats {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.n_tokens,
            ..Stats::default()
        };
        Outcome { reason, stats }
    }
}

/// Writes text to standard output at once.
pub fn print(text: &str) -> Done {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::Work(format!("cannot write to standard output: {e}")))
}

impl Outcome {
    /// Prompt tokens a second until the first token was known.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.stats.prompt_tokens, self.stats.prefill)
    }

    /// Tokens a second after the first.
    pub fn decode_rate(&self) -> f64 {
        rate(
            self.stats.completion_tokens.saturating_sub(1),
            self.stats.decode,
        )
    }

    /// One line for a person.
    pub fn summary(&self, load_seconds: f64) -> String {
        let stats = &self.stats;
        format!(
            "load {load_seconds:.2} s | first token {:.0} ms | prompt {} tokens, {:.0} tokens/s | \
             answer {} tokens, {:.1} tokens/s | peak memory {:.0} MB | {}",
            (stats.queued + stats.prefill) * 1e3,
            stats.prompt_tokens,
            self.prefill_rate(),
            stats.completion_tokens,
            self.decode_rate(),
            stats.peak_memory as f64 / 1e6,
            self.reason,
        )
    }
}

fn rate(n: usize, seconds: f64) -> f64 {
    if seconds > 0.0 {
        n as f64 / seconds
    } else {
        0.0
    }
}
