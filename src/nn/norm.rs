//! Normalisation layers.

use crate::mlx::{Array, Result, rms_norm};

/// Root-mean-square norm with a learned scale.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Array,
    eps: f32,
}

impl RmsNorm {
    /// From its scale `[d]`.
    pub fn new(weight: Array, eps: f32) -> Self {
        Self { weight, eps }
    }

    /// Over the last axis of `x [.., d]`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        rms_norm(x, &self.weight, self.eps)
    }

    /// Bytes of the scale in memory.
    pub fn nbytes(&self) -> usize {
        self.weight.nbytes()
    }
}
