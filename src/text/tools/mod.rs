//! Tool calls in generated text: one file a notation over one small trait, `Format`.
//!
//! Invariants, for any text and however it is cut into pieces: what comes out does not depend on the cuts; the text
//! that comes out is the text that went in without the markup of complete calls, and nothing else is lost; memory is
//! bounded. White space directly before a call, and behind the last one, belongs to its markup. A call is begun as soon
//! as its name is known, so that its arguments stream; if it turns out to be none, [`Output::CallAbort`] takes it back
//! and what it was made of follows as text.

mod call;
mod deepseek;
mod gemma;
mod grammar;
mod harmony;
mod json;
mod kimi;
mod llama;
mod mistral;
mod pieces;
mod python;
mod pythonic;
mod registry;
mod scan;
mod schema;
mod spell;
mod tagged;
mod tags;
#[cfg(test)]
mod tests;
mod wrapped;
mod wrappers;

pub use grammar::Demand;
pub use registry::{FORMATS, Notation, USUAL, by_name, detect};
pub use scan::ToolParser;
pub use schema::{Kinds, Tool, Tools};
pub use spell::Spelling;

use pieces::Step;
use scan::Sink;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ordinary text.
    Text(String),
    /// What the model said to itself.
    Reasoning(String),
    /// All text so far was reasoning: the model closed what it had not opened.
    TextWasReasoning,
    /// A call begins; its arguments follow.
    CallStart {
        /// Counts the answer's calls from 0, aborted ones included.
        index: usize,
        /// The function's name, not empty; not necessarily one that was offered.
        name: String,
        /// The model's own identifier of the call, if its notation has one.
        id: Option<String>,
    },
    /// More of the arguments' JSON text; all together make one object.
    Arguments(String),
    /// The call is complete.
    CallEnd,
    /// The call begun last is none after all; what it was made of follows as text.
    CallAbort,
}

impl Output {
    /// Puts `next` behind `out`, joined with its last part where both are of one kind.
    pub fn join(out: &mut Vec<Output>, next: Output) {
        match (out.last_mut(), next) {
            (_, Output::Text(more) | Output::Reasoning(more) | Output::Arguments(more))
                if more.is_empty() => {}
            (Some(Output::Text(text)), Output::Text(more))
            | (Some(Output::Reasoning(text)), Output::Reasoning(more))
            | (Some(Output::Arguments(text)), Output::Arguments(more)) => text.push_str(&more),
            (_, next) => out.push(next),
        }
    }
}

/// What begins a call, or a section of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opener {
    /// Its spelling; neither empty nor with white space at its start.
    pub text: &'static str,
    /// Whether it counts only where no text went before.
    pub at_start: bool,
}

impl Opener {
    const fn anywhere(text: &'static str) -> Opener {
        Opener {
            text,
            at_start: false,
        }
    }

    const fn at_start(text: &'static str) -> Opener {
        Opener {
            text,
            at_start: true,
        }
    }
}

/// The notation of one family of models: follows the text from an opener on, character by character.
pub(crate) trait Format: Send {
    /// What begins a call.
    fn openers(&self) -> Vec<Opener>;

    /// The opener of this index was read; whatever went before is forgotten.
    fn open(&mut self, opener: usize, sink: &mut Sink);

    /// Takes the next character.
    fn step(&mut self, c: char, sink: &mut Sink) -> Step;

    /// The text is at its end: whether what was read since the last complete call is nothing but markup of it.
    fn end(&mut self, sink: &mut Sink) -> bool;
}
