//! Normalisation layers.

use crate::mlx::{Array, Result, layer_norm, rms_norm};

/// Root-mean-square norm, with a learned scale or without (Zhang and Sennrich, 2019).
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Option<Array>,
    eps: f32,
}

impl RmsNorm {
    /// From its scale `[d]`, if it has one.
    pub fn new(weight: Option<Array>, eps: f32) -> Self {
        Self { weight, eps }
    }

    /// Its scale, and what is added to the mean square.
    pub fn parts(&self) -> (Option<&Array>, f32) {
        (self.weight.as_ref(), self.eps)
    }

    /// Over the last axis of `x [.., d]`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        rms_norm(x, self.weight.as_ref(), self.eps)
    }
}

/// Mean and variance norm, with a learned scale and offset or without (Ba et al., 2016).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Option<Array>,
    bias: Option<Array>,
    eps: f32,
}

impl LayerNorm {
    /// From its scale and offset `[d]`, if it has them.
    pub fn new(weight: Option<Array>, bias: Option<Array>, eps: f32) -> Self {
        Self { weight, bias, eps }
    }

    /// Over the last axis of `x [.., d]`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        layer_norm(x, self.weight.as_ref(), self.bias.as_ref(), self.eps)
    }
}
