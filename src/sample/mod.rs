//! Choosing the next token: parameters (plain data) and the chain of steps on the device.

mod chain;
mod params;

pub use chain::{Scores, sample, score};
pub use params::Params;
