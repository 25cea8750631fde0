//! Measuring: checkpoints of published shapes with random weights, and what runs them.
//!
//! A room above the engine: it submits requests as the server does and looks at the clock.

pub mod make;
pub mod shapes;

mod vocabulary;
