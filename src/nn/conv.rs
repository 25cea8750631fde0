//! Causal convolutions over time, one filter a channel.

use crate::cache::RecurrentCache;
use crate::mlx::{Array, Result};

/// A depthwise causal convolution.
#[derive(Clone, Debug)]
pub struct Conv1d {
    /// `[C, K, 1]`.
    weight: Array,
    /// `[C]`.
    bias: Option<Array>,
    kernel: usize,
}

impl Conv1d {
    /// From `weight [C, K, 1]` and perhaps `bias [C]`.
    pub fn new(weight: Array, bias: Option<Array>, kernel: usize) -> Self {
        Self {
            weight,
            bias,
            kernel,
        }
    }

    /// `x [B, L, C]` to the same shape; the inputs before it come from `cache`.
    pub fn forward(&self, x: &Array, cache: &mut RecurrentCache) -> Result<Array> {
        let window = cache.conv_window(x, self.kernel)?; // [B, K - 1 + L, C]
        let y = window.conv1d(&self.weight, window.dim(-1)?)?; // [B, L, C]
        match &self.bias {
            Some(bias) => y.add(bias),
            None => Ok(y),
        }
    }
}
