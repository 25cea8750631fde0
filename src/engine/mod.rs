//! One thread owns every array; the rest of the program talks to it through a [`Handle`].

mod check;
mod decoding;
mod draw;
mod explain;
mod footprint;
mod fuse;
mod handle;
mod load;
mod machine;
mod memory;
mod options;
mod perplexity;
mod prefix;
mod probe;
mod request;
mod schedule;
mod sequence;
mod start;
mod step;
mod thread;
mod warm;
mod watch;

pub use check::{Checked, Fault, check};
pub use explain::{Choice, Explained};
pub use fuse::{Fused, fuse};
pub use handle::{Command, Facts, Handle, Health, Inbox, Reason, Submission, SubmitError};
pub use machine::MemoryLimit;
pub use memory::{Bytes, MemoryParts};
pub use options::{Options, Planning, WeightsMode, default_max_running};
pub use perplexity::{Perplexity, Scorer, Sequence};
pub use probe::{Rates, probe};
pub use request::{Event, FinishReason, MAX_TOP_LOGPROBS, Request, Stats, TokenLogprob};
pub use schedule::share;
pub use start::Engine;
pub use warm::Loading;
pub use watch::{Stall, Work};

#[cfg(test)]
pub(crate) mod double;
#[cfg(test)]
mod tests;
