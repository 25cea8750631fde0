//! Calls written as Python: `[f(a=1), g()]`, perhaps between markers, one a line without the list, or behind
//! `<|python_tag|>` as `f.call(a=1)`.

use super::pieces::{MOST_NAME, Markers, Seen, Step, quoted};
use super::python::Literal;
use super::scan::Sink;
use super::{Format, Opener};

/// What stands around the calls.
#[derive(Debug)]
pub(super) struct Around {
    /// `[` is part of the list itself.
    pub openers: &'static [Opener],
    /// What may end them; calls without it count.
    pub closers: &'static [&'static str],
    /// Whether calls may stand there without a list.
    pub bare: bool,
}

/// `<|tool_call_start|>[f(a=1)]<|tool_call_end|>`: LFM 2 and 2.5.
pub(super) const LFM2: Around = Around {
    openers: &[Opener::anywhere("<|tool_call_start|>")],
    closers: &["<|tool_call_end|>"],
    bare: false,
};

/// `[f(a=1)]` as the whole answer, perhaps between `<|python_start|>` and `<|python_end|>`: Llama 4, ToolACE.
pub(super) const PYTHONIC: Around = Around {
    openers: &[
        Opener::at_start("["),
        Opener::anywhere("<|python_start|>"),
        Opener::anywhere("<|tool_call_start|>"),
    ],
    closers: &["<|python_end|>", "<|tool_call_end|>"],
    bare: false,
};

/// `<|python_tag|>f.call(a=1)`: what Llama 3.1 was taught for its built-in tools.
pub(super) const PYTHON_TAG: Around = Around {
    openers: &[],
    closers: &["<|eom_id|>"],
    bare: true,
};

/// `<function_calls>f(a=1)⏎g()</function_calls>`: Olmo 3.
pub(super) const OLMO3: Around = Around {
    openers: &[Opener::anywhere("<function_calls>")],
    closers: &["</function_calls>"],
    bare: true,
};

pub(super) struct Pythonic {
    around: &'static Around,
    state: State,
    listed: bool,
    n_arguments: usize,
    called: bool,
}

enum State {
    /// The list's bracket, or a name.
    Start,
    /// A name; white space may precede it.
    Item,
    Name(String),
    /// An argument's name, or the end.
    FirstKey,
    NextKey,
    Key(String),
    Equals,
    Value(Literal),
    AfterValue,
    AfterCall,
    After(Markers),
}

impl Pythonic {
    pub fn new(around: &'static Around) -> Pythonic {
        Pythonic {
            around,
            state: State::Start,
            listed: false,
            n_arguments: 0,
            called: false,
        }
    }

    fn end_call(&mut self, sink: &mut Sink) -> Step {
        sink.arguments(if self.n_arguments == 0 { "{}" } else { "}" });
        sink.end();
        self.called = true;
        self.state = match self.listed {
            true => State::AfterCall,
            false => State::After(Markers::default()),
        };
        Step::More
    }

    fn begin_argument(&mut self, key: &str, sink: &mut Sink) {
        let open = match self.n_arguments {
            0 => "{",
            _ => ", ",
        };
        self.n_arguments += 1;
        sink.arguments(&format!("{open}{}: ", quoted(key)));
        self.state = State::Value(Literal::new());
    }
}

fn begins_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn in_a_name(c: char) -> bool {
    c.is_alphanumeric() || "_-.".contains(c)
}

impl Format for Pythonic {
    fn openers(&self) -> Vec<Opener> {
        self.around.openers.to_vec()
    }

    fn open(&mut self, opener: usize, _sink: &mut Sink) {
        let opener = self.around.openers.get(opener);
        self.called = false;
        self.listed = opener.is_some_and(|opener| opener.text == "[");
        self.state = match self.listed {
            true => State::Item,
            false => State::Start,
        };
    }

    fn step(&mut self, c: char, sink: &mut Sink) -> Step {
        let blank = c.is_whitespace();
        match &mut self.state {
            State::Start if c == '[' => {
                self.listed = true;
                self.state = State::Item;
            }
            State::Start if blank => {}
            State::Start if self.around.bare && begins_a_name(c) => {
                self.state = State::Name(c.to_string());
            }
            State::Item if begins_a_name(c) => self.state = State::Name(c.to_string()),
            State::Name(name) if in_a_name(c) || c == '/' => {
                name.push(c);
                if name.len() > MOST_NAME {
                    return Step::Fail;
                }
            }
            State::Name(name) if c == '(' => {
                let name = name.strip_suffix(".call").unwrap_or(name).to_owned();
                sink.start(name, None);
                self.n_arguments = 0;
                self.state = State::FirstKey;
            }
            State::FirstKey | State::NextKey if c == ')' => return self.end_call(sink),
            State::FirstKey | State::NextKey if begins_a_name(c) => {
                self.state = State::Key(c.to_string());
            }
            State::Key(key) if in_a_name(c) => {
                key.push(c);
                if key.len() > MOST_NAME {
                    return Step::Fail;
                }
            }
            State::Key(key) if c == '=' => {
                let key = std::mem::take(key);
                self.begin_argument(&key, sink);
            }
            State::Key(key) if blank => {
                let key = std::mem::take(key);
                self.begin_argument(&key, sink);
                self.state = State::Equals;
            }
            State::Equals if c == '=' => self.state = State::Value(Literal::new()),
            State::Value(literal) => {
                let mut out = String::new();
                let step = literal.step(c, &mut out);
                sink.arguments(&out);
                match step {
                    Step::More => {}
                    Step::Done => self.state = State::AfterValue,
                    Step::Before => {
                        self.state = State::AfterValue;
                        return self.step(c, sink);
                    }
                    Step::Fail => return Step::Fail,
                }
            }
            State::AfterValue if c == ',' => self.state = State::NextKey,
            State::AfterValue if c == ')' => return self.end_call(sink),
            State::AfterCall if c == ',' => self.state = State::Item,
            State::AfterCall if c == ']' => {
                sink.settle();
                self.state = State::After(Markers::default());
            }
            State::After(markers) => {
                return match markers.step(c, self.around.closers) {
                    Seen::More => Step::More,
                    Seen::One(_) => Step::Done,
                    Seen::Nothing if !self.listed && begins_a_name(c) => {
                        self.state = State::Name(c.to_string());
                        Step::More
                    }
                    Seen::Nothing => Step::Before,
                };
            }
            State::Item
            | State::FirstKey
            | State::NextKey
            | State::Equals
            | State::AfterValue
            | State::AfterCall
                if blank => {}
            _ => return Step::Fail,
        }
        Step::More
    }

    fn end(&mut self, _sink: &mut Sink) -> bool {
        match &self.state {
            State::AfterCall => self.called,
            State::After(markers) => markers.is_empty(),
            _ => false,
        }
    }
}
