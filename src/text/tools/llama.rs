//! Llama 3.1 to 3.3: `{"name": …, "parameters": {…}}` as the whole answer, several separated by `;`, or the same behind
//! `<|python_tag|>`, or there a call in Python, as `f.call(a="b")`.

use super::pieces::Step;
use super::pythonic::{PYTHON_TAG, Pythonic};
use super::scan::Sink;
use super::wrapped::Wrapped;
use super::wrappers::LLAMA3;
use super::{Format, Opener};

pub(super) struct Llama3 {
    json: Wrapped,
    python: Pythonic,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// Behind the tag.
    Unknown,
    Json,
    Python,
}

impl Llama3 {
    pub fn new() -> Llama3 {
        Llama3 {
            json: Wrapped::new(&LLAMA3),
            python: Pythonic::new(&PYTHON_TAG),
            what: What::Unknown,
        }
    }
}

impl Format for Llama3 {
    fn openers(&self) -> Vec<Opener> {
        let mut openers = self.json.openers();
        openers.push(Opener::anywhere("<|python_tag|>"));
        openers
    }

    fn open(&mut self, opener: usize, sink: &mut Sink) {
        self.json.open(opener, sink);
        self.python.open(opener, sink);
        self.what = match opener {
            0 => What::Json,
            _ => What::Unknown,
        };
    }

    fn step(&mut self, c: char, sink: &mut Sink) -> Step {
        match self.what {
            What::Unknown if c.is_whitespace() => return Step::More,
            What::Unknown if matches!(c, '{' | '[') => self.what = What::Json,
            What::Unknown => self.what = What::Python,
            _ => {}
        }
        match self.what {
            What::Python => self.python.step(c, sink),
            _ => self.json.step(c, sink),
        }
    }

    fn end(&mut self, sink: &mut Sink) -> bool {
        match self.what {
            What::Unknown => false,
            What::Json => self.json.end(sink),
            What::Python => self.python.end(sink),
        }
    }
}
