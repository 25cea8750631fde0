//! Layers without state: what a model file is made of.

mod attention;
mod linear;
mod mlp;
mod norm;
mod rope;

pub use attention::{Attention, AttentionShape};
pub use linear::{Embedding, Linear};
pub use mlp::{SwiGlu, silu_mul};
pub use norm::RmsNorm;
pub use rope::{Rope, RopeShape};
