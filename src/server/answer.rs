//! From one request's engine events to the parts of an answer that every dialect shares: text
//! with log-probabilities, tool calls, and how it ended.
//!
//! Invariant: each token's log-probability is handed on with or before the text that the token
//! completes. Tokens whose text a stop string cut away are dropped with it.

use crate::engine::{Event, FinishReason, Stats, TokenLogprob};
use crate::text::tool_calls::{ToolCallParser, ToolPiece};
use crate::text::{Text, TextStream, Tokenizer};

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
    /// A call of a tool begins; its arguments follow.
    Call {
        /// The function's name.
        name: String,
    },
    /// A piece of the arguments' JSON text of the last call.
    Arguments(String),
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

/// What becomes of the calls in an answer's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// The text is handed on as it is.
    Ignored,
    /// Calls are parsed out of it, any number.
    Many,
    /// The first call ends the answer.
    One,
}

struct Tools {
    parser: ToolCallParser,
    one: bool,
    called: bool,
    /// White space that is dropped if a call follows it.
    space: String,
}

/// An answer in the making.
pub struct Answer {
    text: Text,
    stream: TextStream,
    tools: Option<Tools>,
    usage: Usage,
    held: Vec<TokenLogprob>,
    text_bytes: usize,
    token_bytes: usize,
    ended: bool,
}

impl Answer {
    /// An answer to a prompt of `prompt_tokens`, whose ids become text through `stream`.
    pub fn new(text: &Text, stream: TextStream, calls: Calls, prompt_tokens: usize) -> Self {
        Self {
            text: text.clone(),
            stream,
            tools: (calls != Calls::Ignored).then(|| Tools {
                parser: ToolCallParser::new(),
                one: calls == Calls::One,
                called: false,
                space: String::new(),
            }),
            usage: Usage {
                prompt: prompt_tokens,
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
            self.token_bytes += visible(self.text.tokenizer(), token.id).len();
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

    fn emit(&mut self, text: String, tokens: Vec<TokenLogprob>, out: &mut impl FnMut(Part)) {
        let Some(tools) = &mut self.tools else {
            if !text.is_empty() || !tokens.is_empty() {
                out(Part::Text { text, tokens });
            }
            return;
        };
        if !tokens.is_empty() {
            let text = String::new();
            out(Part::Text { text, tokens });
        }
        let pieces = tools.parser.push(&text);
        self.pieces(pieces, out);
    }

    fn pieces(&mut self, pieces: Vec<ToolPiece>, out: &mut impl FnMut(Part)) {
        for piece in pieces {
            let Some(tools) = self.tools.as_mut().filter(|_| !self.ended) else {
                return;
            };
            match piece {
                ToolPiece::Text(more) => {
                    let mut text = std::mem::take(&mut tools.space) + &more;
                    tools.space = text.split_off(text.trim_end().len());
                    if !text.is_empty() {
                        let tokens = Vec::new();
                        out(Part::Text { text, tokens });
                    }
                }
                ToolPiece::Call { name, arguments } => {
                    tools.space.clear();
                    tools.called = true;
                    let one = tools.one;
                    out(Part::Call { name });
                    out(Part::Arguments(arguments.to_string()));
                    if one {
                        self.end(End::Stop, None, out);
                    }
                }
            }
        }
    }

    fn end(&mut self, mut end: End, stats: Option<Stats>, out: &mut impl FnMut(Part)) {
        if let Some(tools) = &mut self.tools
            && !(tools.one && tools.called)
        {
            let pieces = tools.parser.finish();
            self.pieces(pieces, out);
        }
        if self.ended {
            return;
        }
        self.ended = true;
        if let Some(tools) = &mut self.tools {
            if !tools.called && !tools.space.is_empty() {
                let text = std::mem::take(&mut tools.space);
                let tokens = Vec::new();
                out(Part::Text { text, tokens });
            }
            if tools.called && end != End::Length {
                end = End::ToolCalls;
            }
        }
        let usage = self.usage;
        out(Part::End { end, usage, stats });
    }
}
