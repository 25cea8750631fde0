//! Mistral: `[TOOL_CALLS][{"name": …, "arguments": {…}, "id": …}]`, and since 2025
//! `[TOOL_CALLS]name[CALL_ID]id[ARGS]{…}` once for each call.

use super::call::{Arguments, Calls, USUAL};
use super::pieces::{MOST_NAME, Step, bare_name};
use super::scan::Sink;
use super::{Format, Opener};

const ARGS: &str = "[ARGS]";
const CALL_ID: &str = "[CALL_ID]";

pub(super) struct Mistral {
    state: State,
}

enum State {
    /// The list's bracket, or a name.
    Start,
    List(Calls),
    /// The name and what follows it up to the arguments.
    Header(String),
    Arguments(Arguments),
    After,
}

impl Mistral {
    pub fn new() -> Mistral {
        Mistral {
            state: State::Start,
        }
    }

    fn argument(&mut self, c: char, sink: &mut Sink) -> Step {
        let State::Arguments(arguments) = &mut self.state else {
            return Step::Fail;
        };
        let mut out = String::new();
        let step = arguments.step(c, &mut out);
        sink.arguments(&out);
        if step != Step::Done {
            return step;
        }
        sink.end();
        self.state = State::After;
        Step::More
    }
}

/// The name and the identifier of `name[CALL_ID]id`.
fn header(text: &str) -> Option<(String, Option<String>)> {
    let (name, id) = match text.split_once(CALL_ID) {
        Some((name, id)) => (name, Some(id.trim().to_owned())),
        None => (text, None),
    };
    match id {
        Some(id) => Some((bare_name(name)?, Some(bare_name(&id)?))),
        None => Some((bare_name(name)?, None)),
    }
}

impl Format for Mistral {
    fn openers(&self) -> Vec<Opener> {
        vec![Opener::anywhere("[TOOL_CALLS]")]
    }

    fn open(&mut self, _opener: usize, _sink: &mut Sink) {
        self.state = State::Start;
    }

    fn step(&mut self, c: char, sink: &mut Sink) -> Step {
        match &mut self.state {
            State::Start if c.is_whitespace() => {}
            State::Start if c == '[' || c == '{' => {
                let mut calls = Calls::new(&USUAL);
                let step = calls.step(c, sink);
                self.state = State::List(calls);
                return step;
            }
            State::Start => self.state = State::Header(c.to_string()),
            State::List(calls) => {
                let step = calls.step(c, sink);
                if step == Step::Done {
                    sink.settle();
                    self.state = State::After;
                    return Step::More;
                }
                return step;
            }
            State::Header(text) => {
                text.push(c);
                if text.len() > MOST_NAME {
                    return Step::Fail;
                }
                // The marker of the arguments is sometimes left out.
                let bare = c == '{';
                let before = match bare {
                    true => text.strip_suffix('{'),
                    false => text.strip_suffix(ARGS),
                };
                let Some(before) = before else {
                    return Step::More;
                };
                let Some((name, id)) = header(before) else {
                    return Step::Fail;
                };
                sink.start(name, id);
                self.state = State::Arguments(Arguments::new());
                if bare {
                    return self.argument(c, sink);
                }
            }
            State::Arguments(_) => return self.argument(c, sink),
            // A further call has its own opener.
            State::After => return Step::Before,
        }
        Step::More
    }

    fn end(&mut self, _sink: &mut Sink) -> bool {
        match &self.state {
            State::List(calls) => calls.between_calls(),
            State::After => true,
            _ => false,
        }
    }
}
