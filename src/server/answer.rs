//! From one request's engine events to the parts of an answer that every dialect shares: text
//! with log-probabilities, reasoning, tool calls, and how it ended.
//!
//! Invariant: each token's log-probability is handed on with or before the text that the token
//! completes. Tokens whose text a stop string cut away are dropped with it.

use serde_json::Value;

use crate::engine::{Event, FinishReason, Stats, TokenLogprob};
use crate::text::tools::Output;
use crate::text::{AnswerParser, Text, TextStream, Tokenizer};

/// Bytes that a token adds to an answer's text: none if it is a special one.
pub fn visible(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    match tokenizer.is_special(id) {
        true => Vec::new(),
        false => tokenizer.token_bytes(id),
    }
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended it.
    Stop,
    /// This stop string did.
    StopString(String),
    /// `max_tokens` or the context is used up.
    Length,
    /// The model called tools.
    ToolCalls,
}

impl End {
    /// The word of OpenAI's dialects.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stop | Self::StopString(_) => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

/// Tokens that a request cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Those of them that were not computed anew.
    pub cached: usize,
    /// Tokens generated.
    pub completion: usize,
    /// Those of them that were spent on reasoning.
    pub reasoning: usize,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.prompt += more.prompt;
        self.cached += more.cached;
        self.completion += more.completion;
        self.reasoning += more.reasoning;
    }
}

/// One part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// The engine has taken the request up; the usage so far. Nothing comes before it.
    Started(Usage),
    /// Log-probabilities of the prompt's tokens; comes first, if at all.
    Prompt(Vec<Option<TokenLogprob>>),
    /// A piece of text, possibly empty, with the tokens scored since the last piece.
    Text {
        /// The text.
        text: String,
        /// Empty unless log-probabilities were asked for.
        tokens: Vec<TokenLogprob>,
    },
    /// A piece of what the model thinks before it answers.
    Reasoning(String),
    /// All text so far was reasoning: the model closed what it had not opened.
    TextWasReasoning,
    /// A call of a tool begins; its arguments follow.
    Call {
        /// The function's name.
        name: String,
        /// The model's own identifier of the call, if its notation has one.
        id: Option<String>,
    },
    /// A piece of the arguments' JSON text of the last call.
    Arguments(String),
    /// The last call is none after all: what it was made of follows as text.
    CallAborted,
    /// The answer is complete; nothing follows.
    End {
        /// Why it ended.
        end: End,
        /// What it cost.
        usage: Usage,
        /// The engine's measurements; absent if a stop string or a call ended the answer.
        stats: Option<Stats>,
    },
    /// The request failed; nothing follows.
    Failed(String),
}

/// How an answer's text is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Calls {
    /// It is handed on as it is.
    Ignored,
    /// It is the model's side of a dialogue: reasoning is parsed out of it, and calls if there are
    /// tools.
    Parsed {
        /// The tools on offer, a list as in OpenAI's chat API.
        tools: Option<Value>,
        /// Whether the first call ends the answer.
        one: bool,
    },
}

/// An answer in the making.
pub struct Answer {
    text: Text,
    stream: TextStream,
    parser: Option<AnswerParser>,
    /// The first call ends the answer.
    one: bool,
    called: bool,
    usage: Usage,
    held: Vec<TokenLogprob>,
    text_bytes: usize,
    token_bytes: usize,
    ended: bool,
}

impl Answer {
    /// An answer to `prompt`, of which `cost` tokens count, whose ids become text through `stream`.
    pub fn new(
        text: &Text,
        mut stream: TextStream,
        calls: &Calls,
        prompt: &[u32],
        cost: usize,
    ) -> Self {
        let (parser, one) = match calls {
            Calls::Ignored => (None, false),
            Calls::Parsed { tools, one } => {
                let parser = text.answer_parser(prompt, tools.as_ref());
                stream.show(parser.shown());
                (Some(parser), *one)
            }
        };
        Self {
            text: text.clone(),
            stream,
            parser,
            one,
            called: false,
            usage: Usage {
                prompt: cost,
                ..Usage::default()
            },
            held: Vec::new(),
            text_bytes: 0,
            token_bytes: 0,
            ended: false,
        }
    }

    /// Whether `End` or `Failed` has been handed on.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Takes the next event and hands on what it completes.
    pub fn take(&mut self, event: Event, mut out: impl FnMut(Part)) {
        if self.ended {
            return;
        }
        match event {
            Event::Started(stats) => {
                self.usage.cached = stats.cached_tokens.min(self.usage.prompt);
                out(Part::Started(self.usage));
            }
            Event::Prompt(scores) => out(Part::Prompt(scores)),
            Event::Token { id, logprob } => self.token(id, logprob, &mut out),
            Event::Finished { reason, stats } => {
                let text = self.stream.finish();
                let tokens = std::mem::take(&mut self.held);
                self.emit(text, tokens, &mut out);
                let end = match (self.stream.matched(), reason) {
                    (Some(stop), _) => End::StopString(stop.into()),
                    (None, FinishReason::Stop) => End::Stop,
                    (None, FinishReason::Length) => End::Length,
                };
                self.end(end, Some(stats), &mut out);
            }
            Event::Failed(message) => {
                self.ended = true;
                out(Part::Failed(message));
            }
        }
    }

    fn token(&mut self, id: u32, logprob: Option<TokenLogprob>, out: &mut impl FnMut(Part)) {
        self.usage.completion += 1;
        self.held.extend(logprob);
        let piece = self.stream.push(id);
        let reasons = self.parser.as_ref().is_some_and(AnswerParser::in_reasoning);
        self.usage.reasoning += usize::from(reasons);
        self.text_bytes += piece.text.len();
        if piece.text.is_empty() && !piece.stopped {
            return;
        }
        let mut tokens = std::mem::take(&mut self.held);
        let mut kept = 0;
        for token in &tokens {
            if piece.stopped && self.token_bytes >= self.text_bytes {
                break;
            }
            let tokenizer = self.text.tokenizer();
            self.token_bytes += match self.stream.shows(token.id) {
                true => tokenizer.token_bytes(token.id).len(),
                false => visible(tokenizer, token.id).len(),
            };
            kept += 1;
        }
        tokens.truncate(kept);
        self.emit(piece.text, tokens, out);
        if piece.stopped {
            let stop = self.stream.matched().map(String::from);
            let end = stop.map_or(End::Stop, End::StopString);
            self.end(end, None, out);
        }
    }

    fn emit(&mut self, text: String, mut tokens: Vec<TokenLogprob>, out: &mut impl FnMut(Part)) {
        let parts = match &mut self.parser {
            Some(parser) => parser.push(&text),
            None => vec![Output::Text(text)],
        };
        let begins = matches!(parts.first(), Some(Output::Text(text)) if !text.is_empty());
        if !begins && !tokens.is_empty() {
            let tokens = std::mem::take(&mut tokens);
            let text = String::new();
            out(Part::Text { text, tokens });
        }
        self.parts(parts, tokens, out);
    }

    /// Hands on parts, with `tokens` in the first text.
    fn parts(
        &mut self,
        parts: Vec<Output>,
        mut tokens: Vec<TokenLogprob>,
        out: &mut impl FnMut(Part),
    ) {
        for part in parts {
            match part {
                Output::Text(text) if text.is_empty() => {}
                Output::Text(text) => {
                    let tokens = std::mem::take(&mut tokens);
                    out(Part::Text { text, tokens });
                }
                Output::Reasoning(text) => out(Part::Reasoning(text)),
                Output::TextWasReasoning => out(Part::TextWasReasoning),
                Output::CallStart { name, id, .. } => out(Part::Call { name, id }),
                Output::Arguments(text) => out(Part::Arguments(text)),
                Output::CallAbort => out(Part::CallAborted),
                Output::CallEnd => {
                    self.called = true;
                    if self.one {
                        return self.close(End::ToolCalls, None, out);
                    }
                }
            }
        }
    }

    fn end(&mut self, end: End, stats: Option<Stats>, out: &mut impl FnMut(Part)) {
        if self.ended {
            return;
        }
        if let Some(parser) = &mut self.parser {
            let parts = parser.finish();
            self.parts(parts, Vec::new(), out);
        }
        if self.ended {
            return;
        }
        let end = match end {
            End::Stop | End::StopString(_) if self.called => End::ToolCalls,
            end => end,
        };
        self.close(end, stats, out);
    }

    fn close(&mut self, end: End, stats: Option<Stats>, out: &mut impl FnMut(Part)) {
        self.ended = true;
        let usage = self.usage;
        out(Part::End { end, usage, stats });
    }
}
