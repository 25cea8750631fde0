//! Measuring: checkpoints of published shapes with random weights, and what runs them.
//!
//! A room above the engine: it submits requests as the server does and looks at the clock.

pub mod client;
pub mod cost;
pub mod explain;
pub mod grid;
pub mod layout;
pub mod make;
pub mod peer;
pub mod report;
pub mod row;
pub mod scenario;
pub mod shapes;
pub mod stats;
pub mod suite;
pub mod system;
pub mod target;
pub mod trace;
pub mod verdict;

mod vocabulary;
