//! Gemma 4: `<|tool_call>call:name{key:<|"|>text<|"|>,other:[1,{inner:true}]}<tool_call|>`, and FunctionGemma, which
//! quotes with `<escape>` between `<start_function_call>` and `<end_function_call>`.
//!
//! Keys stand bare; of what stands bare as a value, numbers, booleans and null are such and the rest is text.

use std::sync::Arc;

use super::pieces::{MOST_NAME, Markers, Seen, Step, Until, bare_name, escape, quoted};
use super::scan::Sink;
use super::schema::{Kinds, Tools};
use super::{Format, Opener};

const MOST_DEPTH: usize = 120;

/// The marks of a notation.
#[derive(Debug)]
pub(super) struct Marks {
    pub open: &'static str,
    pub close: &'static str,
    pub quote: &'static str,
}

/// Gemma 4.
pub(super) const GEMMA4: Marks = Marks {
    open: "<|tool_call>",
    close: "<tool_call|>",
    quote: "<|\"|>",
};

/// FunctionGemma.
pub(super) const FUNCTION_GEMMA: Marks = Marks {
    open: "<start_function_call>",
    close: "<end_function_call>",
    quote: "<escape>",
};

pub(super) struct Gemma {
    marks: &'static Marks,
    tools: Arc<Tools>,
    state: State,
    name: String,
    /// Of each open container whether it is an object.
    stack: Vec<bool>,
    called: bool,
    /// What the value under way is to be, for arguments themselves.
    kinds: Kinds,
}

enum State {
    Call(Markers),
    Name(Until),
    /// A key, or the object's end.
    FirstKey,
    Key(String),
    /// A key between quotes.
    QuotedKey(String),
    Colon,
    /// A value, or, in a list that is empty so far, its end.
    Value {
        first: bool,
    },
    /// What stands bare, or the beginning of a quote.
    Bare(String),
    Quoted(String),
    AfterValue,
    After(Markers),
}

impl Gemma {
    pub fn new(marks: &'static Marks, tools: Arc<Tools>) -> Gemma {
        Gemma {
            marks,
            tools,
            state: State::Call(Markers::default()),
            name: String::new(),
            stack: Vec::new(),
            called: false,
            kinds: Kinds::default(),
        }
    }

    fn begin_value(&mut self, key: &str, sink: &mut Sink) {
        sink.arguments(&format!("{}: ", quoted(key)));
        self.kinds = match self.stack.len() {
            1 => self.tools.kinds(&self.name, key),
            _ => Kinds::default(),
        };
        self.state = State::Value { first: false };
    }

    fn open_container(&mut self, object: bool, sink: &mut Sink) -> Step {
        if self.stack.len() >= MOST_DEPTH {
            return Step::Fail;
        }
        self.stack.push(object);
        self.kinds = Kinds::default();
        sink.arguments(if object { "{" } else { "[" });
        self.state = match object {
            true => State::FirstKey,
            false => State::Value { first: true },
        };
        Step::More
    }

    /// What may follow a value.
    fn after_value(&mut self, c: char, sink: &mut Sink) -> Step {
        match (c, self.stack.last()) {
            (',', Some(&object)) => {
                sink.arguments(", ");
                self.state = match object {
                    true => State::Key(String::new()),
                    false => State::Value { first: false },
                };
            }
            ('}', Some(true)) | (']', Some(false)) => {
                self.stack.pop();
                sink.arguments(if c == '}' { "}" } else { "]" });
                self.state = State::AfterValue;
                if self.stack.is_empty() {
                    sink.end();
                    self.called = true;
                    self.state = State::After(Markers::default());
                }
            }
            _ if c.is_whitespace() => self.state = State::AfterValue,
            _ => return Step::Fail,
        }
        Step::More
    }

    fn bare(&mut self, text: &str, sink: &mut Sink) -> Step {
        let text = text.trim();
        if text.is_empty() {
            return Step::Fail;
        }
        let json = match text {
            "true" | "false" | "null" if !self.kinds.is_string() => text.to_owned(),
            "None" if !self.kinds.is_string() => "null".to_owned(),
            _ if self.kinds.is_unknown() => Kinds::JSON.json(text),
            _ => self.kinds.json(text),
        };
        sink.arguments(&json);
        Step::More
    }
}

impl Format for Gemma {
    fn openers(&self) -> Vec<Opener> {
        vec![Opener::anywhere(self.marks.open)]
    }

    fn open(&mut self, _opener: usize, _sink: &mut Sink) {
        self.called = false;
        self.stack.clear();
        self.state = State::Call(Markers::default());
    }

    fn step(&mut self, c: char, sink: &mut Sink) -> Step {
        let blank = c.is_whitespace();
        let quote = self.marks.quote;
        match &mut self.state {
            State::Call(markers) => match markers.step(c, &["call:"]) {
                Seen::More => {}
                Seen::One(_) => self.state = State::Name(Until::default()),
                Seen::Nothing => return Step::Fail,
            },
            State::Name(until) => match until.step(c, &["{"]) {
                Ok(None) => {}
                Ok(Some((text, _))) => {
                    let Some(name) = bare_name(&text) else {
                        return Step::Fail;
                    };
                    sink.start(name.clone(), None);
                    self.name = name;
                    return self.open_container(true, sink);
                }
                Err(()) => return Step::Fail,
            },
            State::FirstKey if c == '}' => return self.after_value(c, sink),
            State::FirstKey if blank => {}
            State::FirstKey => {
                self.state = State::Key(String::new());
                return self.step(c, sink);
            }
            State::Key(key) if c == ':' => {
                let key = key.trim().to_owned();
                if key.is_empty() {
                    return Step::Fail;
                }
                self.begin_value(&key, sink);
            }
            State::Key(key) => {
                key.push(c);
                if key.trim_start() == quote {
                    self.state = State::QuotedKey(String::new());
                } else if key.len() > MOST_NAME || "{}[],".contains(c) {
                    return Step::Fail;
                }
            }
            State::QuotedKey(key) => {
                key.push(c);
                if let Some(text) = key.strip_suffix(quote) {
                    let key = text.to_owned();
                    self.begin_value(&key, sink);
                    self.state = State::Colon;
                } else if key.len() > MOST_NAME {
                    return Step::Fail;
                }
            }
            State::Colon if c == ':' => self.state = State::Value { first: false },
            State::Colon if blank => {}
            State::Value { first: true } if c == ']' => return self.after_value(c, sink),
            State::Value { .. } if blank => {}
            State::Value { .. } => match c {
                '{' | '[' => return self.open_container(c == '{', sink),
                ',' | '}' | ']' | ':' => return Step::Fail,
                _ => self.state = State::Bare(c.to_string()),
            },
            State::Bare(text) if matches!(c, ',' | '}' | ']') => {
                let text = std::mem::take(text);
                return match self.bare(&text, sink) {
                    Step::More => self.after_value(c, sink),
                    step => step,
                };
            }
            State::Bare(text) => {
                text.push(c);
                if text == quote {
                    sink.arguments("\"");
                    self.state = State::Quoted(String::new());
                }
            }
            State::Quoted(held) => {
                held.push(c);
                let mut json = String::new();
                while !quote.starts_with(held.as_str()) {
                    escape(held.remove(0), &mut json);
                }
                if held == quote {
                    json.push('"');
                    self.state = State::AfterValue;
                }
                sink.arguments(&json);
            }
            State::AfterValue => return self.after_value(c, sink),
            State::After(markers) => match markers.step(c, &[self.marks.close]) {
                Seen::More => {}
                Seen::One(_) => return Step::Done,
                Seen::Nothing => return Step::Before,
            },
            State::Colon => return Step::Fail,
        }
        Step::More
    }

    fn end(&mut self, _sink: &mut Sink) -> bool {
        matches!(&self.state, State::After(markers) if markers.is_empty()) && self.called
    }
}
