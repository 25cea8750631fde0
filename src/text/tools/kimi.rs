//! Kimi K2: calls between `<|tool_calls_section_begin|>` and `<|tool_calls_section_end|>`, each
//! `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}<|tool_call_end|>`. The header is the call's
//! identifier, which the model wants to see again with the result.

use super::call::Arguments;
use super::pieces::{Markers, Seen, Step, Until, bare_name};
use super::scan::Sink;
use super::{Format, Opener};

pub(super) const SECTION: &str = "<|tool_calls_section_begin|>";
pub(super) const SECTION_END: &str = "<|tool_calls_section_end|>";
pub(super) const CALL: &str = "<|tool_call_begin|>";
pub(super) const CALL_END: &str = "<|tool_call_end|>";
pub(super) const ARGUMENTS: &str = "<|tool_call_argument_begin|>";

pub(super) struct KimiK2 {
    state: State,
    called: bool,
}

enum State {
    Calls(Markers),
    Header(Until),
    Arguments(Arguments),
    After(Markers),
}

impl KimiK2 {
    pub fn new() -> KimiK2 {
        KimiK2 {
            state: State::Calls(Markers::default()),
            called: false,
        }
    }
}

/// The name in `functions.name:0`, as far as the header has that form.
fn name(header: &str) -> Option<String> {
    let name = header.trim();
    let name = name.strip_prefix("functions.").unwrap_or(name);
    let name = match name.rsplit_once(':') {
        Some((name, number)) if number.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => name,
    };
    bare_name(name)
}

impl Format for KimiK2 {
    fn openers(&self) -> Vec<Opener> {
        vec![Opener::anywhere(SECTION), Opener::anywhere(CALL)]
    }

    fn open(&mut self, opener: usize, _sink: &mut Sink) {
        self.called = false;
        self.state = match opener {
            0 => State::Calls(Markers::default()),
            _ => State::Header(Until::default()),
        };
    }

    fn step(&mut self, c: char, sink: &mut Sink) -> Step {
        match &mut self.state {
            State::Calls(markers) => match markers.step(c, &[CALL, SECTION_END]) {
                Seen::More => {}
                Seen::One(0) => self.state = State::Header(Until::default()),
                _ if !self.called => return Step::Fail,
                Seen::One(_) => return Step::Done,
                Seen::Nothing => return Step::Before,
            },
            State::Header(until) => match until.step(c, &[ARGUMENTS]) {
                Ok(None) => {}
                Ok(Some((header, _))) => {
                    let Some(name) = name(&header) else {
                        return Step::Fail;
                    };
                    sink.start(name, Some(header.trim().to_owned()));
                    self.state = State::Arguments(Arguments::new());
                }
                Err(()) => return Step::Fail,
            },
            State::Arguments(arguments) => {
                let mut out = String::new();
                let step = arguments.step(c, &mut out);
                sink.arguments(&out);
                if step != Step::Done {
                    return step;
                }
                sink.end();
                self.called = true;
                self.state = State::After(Markers::default());
            }
            State::After(markers) => match markers.step(c, &[CALL_END, SECTION_END]) {
                Seen::More => {}
                Seen::One(0) => {
                    sink.settle();
                    self.state = State::Calls(Markers::default());
                }
                Seen::One(_) => return Step::Done,
                Seen::Nothing => return Step::Before,
            },
        }
        Step::More
    }

    fn end(&mut self, _sink: &mut Sink) -> bool {
        match &self.state {
            State::Calls(markers) => self.called && markers.is_empty(),
            State::After(markers) => markers.is_empty(),
            _ => false,
        }
    }
}
