//! One thread owns every array; the rest of the program talks to it through a [`Handle`].

mod check;
mod decoding;
mod fuse;
mod handle;
mod perplexity;
mod probe;
mod request;
mod schedule;
mod sequence;
mod step;
mod thread;

pub use check::{Checked, Fault, check};
pub use fuse::{Fused, fuse};
pub use handle::{Command, Facts, Handle, Inbox, Submission, SubmitError};
pub use perplexity::{Perplexity, Scorer};
pub use probe::{Rates, probe};
pub use request::{Event, FinishReason, MAX_TOP_LOGPROBS, Request, Stats, TokenLogprob};
pub use thread::{Engine, Options, WeightsMode};
