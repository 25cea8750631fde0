//! Choosing the next token: parameters (plain data) and the chain of steps on the device.

mod params;

pub use params::Params;
