//! Choosing the next token: parameters (plain data) and the chain of steps on the device.

mod chain;
mod guide;
mod params;

pub use chain::{Scores, sample, score};
pub use guide::{Allowed, Form, Guide};
pub use params::{Dry, Params, Penalty, Window, Xtc};
