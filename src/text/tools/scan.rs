//! Finds the calls of a format in text that comes in pieces.
//!
//! Invariant: the parser's state is a function of the characters so far, so the cuts between pieces cannot matter.

use std::collections::VecDeque;

use super::pieces::Step;
use super::{Format, Opener, Output};

/// The most bytes that a call may have; a longer one is text.
const MOST_CALL: usize = 4 << 20;
/// How often, on average, a character may be looked at again because a call that it was part of turned out to be none.
const MOST_AGAIN: usize = 16;

/// Where a format puts what it finds.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    out: Vec<Output>,
    next_index: usize,
    /// A call is begun and not ended.
    open: bool,
    /// What was read so far is dealt with and will not come back as text, but for this many bytes at its end.
    settled: Option<usize>,
    /// Some text other than white space, or a call, came out.
    begun: bool,
    /// A call was completed, and nothing but white space has come since.
    called: bool,
}

impl Sink {
    /// A call begins.
    pub fn start(&mut self, name: String, id: Option<String>) {
        let index = self.next_index;
        self.next_index += 1;
        self.open = true;
        self.out.push(Output::CallStart { index, name, id });
    }

    /// More of its arguments.
    pub fn arguments(&mut self, text: &str) {
        Output::join(&mut self.out, Output::Arguments(text.to_owned()));
    }

    /// The call is complete.
    pub fn end(&mut self) {
        self.open = false;
        self.settled = Some(0);
        self.begun = true;
        self.called = true;
        self.out.push(Output::CallEnd);
    }

    /// Ordinary text inside a section; what was read so far is dealt with, but for `held` bytes.
    pub fn text(&mut self, text: &str, held: usize) {
        self.settled = Some(held);
        self.plain(text);
    }

    /// Reasoning; what was read so far is dealt with, but for `held` bytes.
    pub fn reasoning(&mut self, text: &str, held: usize) {
        self.settled = Some(held);
        Output::join(&mut self.out, Output::Reasoning(text.to_owned()));
    }

    /// What was read so far is markup of what came out.
    pub fn settle(&mut self) {
        self.settled = Some(0);
    }

    fn plain(&mut self, text: &str) {
        let blank = text.trim_start().is_empty();
        self.begun |= !blank;
        self.called &= blank;
        Output::join(&mut self.out, Output::Text(text.to_owned()));
    }
}

/// Takes generated text apart into text and calls.
pub struct ToolParser {
    format: Box<dyn Format>,
    openers: Vec<Opener>,
    sink: Sink,
    /// White space and what may become an opener.
    held: String,
    /// What the format has read since it last settled anything.
    raw: String,
    active: bool,
    /// Characters to be looked at again.
    again: VecDeque<char>,
    n_chars: usize,
    n_again: usize,
}

impl ToolParser {
    pub(crate) fn new(format: Box<dyn Format>) -> ToolParser {
        ToolParser {
            openers: format.openers(),
            format,
            sink: Sink::default(),
            held: String::new(),
            raw: String::new(),
            active: false,
            again: VecDeque::new(),
            n_chars: 0,
            n_again: 0,
        }
    }

    /// Takes the next text and returns what is certain.
    pub fn push(&mut self, text: &str) -> Vec<Output> {
        for c in text.chars() {
            self.n_chars += 1;
            self.take(c);
            self.take_again();
        }
        std::mem::take(&mut self.sink.out)
    }

    /// What was held back; the text is at its end.
    pub fn finish(&mut self) -> Vec<Output> {
        while self.active {
            if self.format.end(&mut self.sink) {
                self.raw.clear();
                self.active = false;
            } else {
                self.fail();
                self.take_again();
            }
        }
        let held = std::mem::take(&mut self.held);
        if !(self.sink.called && held.trim_start().is_empty()) {
            self.sink.plain(&held);
        }
        std::mem::take(&mut self.sink.out)
    }

    fn take_again(&mut self) {
        while let Some(c) = self.again.pop_front() {
            self.take(c);
        }
    }

    fn take(&mut self, c: char) {
        if !self.active {
            self.held.push(c);
            return self.look();
        }
        self.raw.push(c);
        let step = self.format.step(c, &mut self.sink);
        if let Some(held) = self.sink.settled.take() {
            let held = match step {
                Step::Before => held.max(c.len_utf8()),
                _ => held,
            };
            self.raw.drain(..self.raw.len().saturating_sub(held));
        }
        match step {
            Step::More if self.raw.len() <= MOST_CALL => {}
            Step::More | Step::Fail => self.fail(),
            Step::Done => {
                self.raw.clear();
                self.active = false;
            }
            Step::Before => {
                self.active = false;
                let raw = std::mem::take(&mut self.raw);
                self.look_again(&raw);
            }
        }
    }

    /// Sends out what of `held` cannot begin a call, and opens one if it does.
    fn look(&mut self) {
        loop {
            let blank = self.held.len() - self.held.trim_start().len();
            let candidate = &self.held[blank..];
            let Some(first) = candidate.chars().next() else {
                return;
            };
            let mut openers = self.openers.iter().enumerate();
            let possible = |opener: &Opener| !(opener.at_start && self.sink.begun);
            if let Some((at, _)) =
                openers.find(|(_, opener)| possible(opener) && opener.text == candidate)
            {
                self.raw = std::mem::take(&mut self.held);
                self.active = true;
                self.format.open(at, &mut self.sink);
                return;
            }
            if self
                .openers
                .iter()
                .any(|opener| possible(opener) && opener.text.starts_with(candidate))
            {
                return;
            }
            let text: String = self.held.drain(..blank + first.len_utf8()).collect();
            self.sink.plain(&text);
        }
    }

    /// What was read was no call: its first character is text, the rest is looked at again.
    fn fail(&mut self) {
        self.active = false;
        if std::mem::take(&mut self.sink.open) {
            self.sink.out.push(Output::CallAbort);
        }
        let raw = std::mem::take(&mut self.raw);
        let blank = raw.len() - raw.trim_start().len();
        let first = raw[blank..].chars().next().map_or(0, char::len_utf8);
        let (text, rest) = raw.split_at(blank + first);
        self.sink.plain(text);
        self.n_again += rest.len();
        if self.n_again > MOST_AGAIN * self.n_chars + (64 << 10) {
            self.sink.plain(rest);
        } else {
            self.look_again(rest);
        }
    }

    fn look_again(&mut self, text: &str) {
        for c in text.chars().rev() {
            self.again.push_front(c);
        }
    }
}
