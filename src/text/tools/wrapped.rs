//! Notations that write calls as JSON between markers; wrappers.rs lists them.

use super::call::{Calls, Keys};
use super::pieces::{Markers, Seen, Step};
use super::scan::Sink;
use super::{Format, Opener};

/// What stands around the JSON.
#[derive(Debug)]
pub(super) struct Wrapper {
    /// What begins a call or a list of calls. `{` and `[` are part of the JSON themselves.
    pub openers: &'static [Opener],
    /// What may end it; a call without it counts.
    pub closers: &'static [&'static str],
    /// What may stand between calls that are in no list, beside white space.
    pub between: &'static [&'static str],
    pub keys: &'static Keys,
}

pub(super) struct Wrapped {
    wrapper: &'static Wrapper,
    markers: Vec<&'static str>,
    state: State,
}

enum State {
    Body(Box<Calls>),
    After(Markers),
}

impl Wrapped {
    pub fn new(wrapper: &'static Wrapper) -> Wrapped {
        let more = wrapper.closers.iter().chain(wrapper.between);
        Wrapped {
            wrapper,
            markers: more.copied().chain(["{", "["]).collect(),
            state: State::After(Markers::default()),
        }
    }

    fn begin(&mut self, spelled: &str, sink: &mut Sink) -> Step {
        let mut calls = Calls::new(self.wrapper.keys);
        let mut step = Step::More;
        for c in spelled.chars().filter(|c| matches!(c, '{' | '[')) {
            step = calls.step(c, sink);
        }
        self.state = State::Body(Box::new(calls));
        step
    }
}

impl Format for Wrapped {
    fn openers(&self) -> Vec<Opener> {
        self.wrapper.openers.to_vec()
    }

    fn open(&mut self, opener: usize, sink: &mut Sink) {
        let opener = self.wrapper.openers.get(opener);
        let json = opener.map_or("", |opener| match opener.text {
            json @ ("{" | "[") => json,
            _ => "",
        });
        self.begin(json, sink);
    }

    fn step(&mut self, c: char, sink: &mut Sink) -> Step {
        let seen = match &mut self.state {
            State::Body(calls) => {
                let step = calls.step(c, sink);
                if step == Step::Done {
                    sink.settle();
                    self.state = State::After(Markers::default());
                    return Step::More;
                }
                return step;
            }
            State::After(markers) => markers.step(c, &self.markers),
        };
        match seen {
            Seen::More => Step::More,
            Seen::Nothing => Step::Before,
            Seen::One(at) if at < self.wrapper.closers.len() => Step::Done,
            Seen::One(at) => match self.markers.get(at) {
                Some(json @ (&"{" | &"[")) => self.begin(json, sink),
                _ => Step::More,
            },
        }
    }

    fn end(&mut self, _sink: &mut Sink) -> bool {
        match &self.state {
            State::Body(calls) => calls.between_calls(),
            State::After(markers) => markers.is_empty(),
        }
    }
}
