//! Choosing the next token: parameters (plain data), the steps on the device, and what they need of
//! the host.

mod chain;
mod dry;
mod guide;
mod history;
mod host;
mod noise;
mod params;
mod sampler;
mod score;
mod workers;

pub use guide::{Allowed, Form, Guide};
pub use history::{Kept, Seen};
pub use host::{Demand, Host, NoDraw};
pub use params::{Dry, MAX_DRY_BREAKERS, MAX_LOGIT_BIAS, MAX_WINDOW, Params, Penalty, Window, Xtc};
pub use sampler::{Row, Sampler};
pub use score::{Scores, score};

#[cfg(test)]
mod tests;
