//! One thread owns every array; the rest of the program talks to it through a [`Handle`].

mod handle;
mod request;
mod schedule;
mod sequence;
mod step;
mod thread;

pub use handle::{Command, Facts, Handle, Inbox, Submission, SubmitError};
pub use request::{Event, FinishReason, MAX_TOP_LOGPROBS, Request, Stats, TokenLogprob};
pub use thread::{Engine, Options, WeightsMode};
