//! DeepSeek V3, R1 and V3.1: calls between `<｜tool▁calls▁begin｜>` and `<｜tool▁calls▁end｜>`. Each is
//! `<｜tool▁call▁begin｜>name<｜tool▁sep｜>{…}<｜tool▁call▁end｜>`, or, before V3.1,
//! `<｜tool▁call▁begin｜>function<｜tool▁sep｜>name`, then the arguments in a block of ```` ```json ````.

use super::call::Arguments;
use super::pieces::{Markers, Seen, Step, Until, bare_name};
use super::scan::Sink;
use super::{Format, Opener};

pub(super) const SECTION: &str = "<｜tool▁calls▁begin｜>";
pub(super) const SECTION_END: &str = "<｜tool▁calls▁end｜>";
pub(super) const CALL: &str = "<｜tool▁call▁begin｜>";
pub(super) const CALL_END: &str = "<｜tool▁call▁end｜>";
pub(super) const SEPARATOR: &str = "<｜tool▁sep｜>";
const FENCE: &str = "```";

pub(super) struct DeepSeek {
    state: State,
    called: bool,
}

enum State {
    Calls(Markers),
    Header(Until),
    /// Behind the separator: what stood before it.
    Separated(String),
    /// The name of the older form, up to the block.
    Name(Until),
    Arguments(Arguments),
    After(Markers),
}

impl DeepSeek {
    pub fn new() -> DeepSeek {
        DeepSeek {
            state: State::Calls(Markers::default()),
            called: false,
        }
    }

    fn begin(&mut self, name: &str, sink: &mut Sink) -> Step {
        let Some(name) = bare_name(name) else {
            return Step::Fail;
        };
        sink.start(name, None);
        self.state = State::Arguments(Arguments::new());
        Step::More
    }
}

impl Format for DeepSeek {
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
            State::Header(until) => match until.step(c, &[SEPARATOR]) {
                Ok(None) => {}
                Ok(Some((text, _))) if bare_name(&text).is_some() => {
                    self.state = State::Separated(text);
                }
                _ => return Step::Fail,
            },
            State::Separated(_) if c.is_whitespace() => {}
            State::Separated(name) if c == '{' => {
                let name = std::mem::take(name);
                return match self.begin(&name, sink) {
                    Step::More => self.step(c, sink),
                    step => step,
                };
            }
            State::Separated(_) => {
                let mut until = Until::default();
                let _ = until.step(c, &[FENCE]);
                self.state = State::Name(until);
            }
            State::Name(until) => match until.step(c, &["```json", "{"]) {
                Ok(None) => {}
                Ok(Some((name, 0))) => return self.begin(&name, sink),
                _ => return Step::Fail,
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
            State::After(markers) => match markers.step(c, &[FENCE, CALL_END, SECTION_END, CALL]) {
                Seen::More | Seen::One(0) => {}
                Seen::One(1) => {
                    sink.settle();
                    self.state = State::Calls(Markers::default());
                }
                Seen::One(2) => return Step::Done,
                Seen::One(_) => self.state = State::Header(Until::default()),
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
