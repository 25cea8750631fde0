//! Products with weight matrices: linear layers and embeddings, packed or not.

use crate::mlx::{Array, Dtype, Quantized, Result, dequantize, quantized_matmul};

/// `x · Wᵀ + b`. Which kind a layer is depends on its tensors alone, so one model file serves
/// every quantization.
#[derive(Debug)]
pub enum Linear {
    /// An ordinary matrix.
    Dense {
        /// `[out, in]`.
        weight: Array,
        /// `[out]`.
        bias: Option<Array>,
    },
    /// A packed matrix.
    Quant {
        /// `[out, in]`, packed.
        weight: Quantized,
        /// `[out]`.
        bias: Option<Array>,
    },
}

impl Linear {
    /// The same layer with this bias (`[out]`).
    pub fn with_bias(self, bias: Array) -> Self {
        let bias = Some(bias);
        match self {
            Linear::Dense { weight, .. } => Linear::Dense { weight, bias },
            Linear::Quant { weight, .. } => Linear::Quant { weight, bias },
        }
    }

    /// `x [.., in]` to `[.., out]`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        match self {
            Linear::Dense { weight, bias: None } => x.matmul(&weight.swap_last()?),
            Linear::Dense {
                weight,
                bias: Some(bias),
            } => x.addmm(&weight.swap_last()?, bias),
            Linear::Quant { weight, bias } => {
                let y = quantized_matmul(x, weight)?;
                match bias {
                    Some(bias) => y.add(bias),
                    None => Ok(y),
                }
            }
        }
    }

    /// Bytes of the weights in memory.
    pub fn nbytes(&self) -> usize {
        let (weight, bias) = match self {
            Linear::Dense { weight, bias } => (weight.nbytes(), bias),
            Linear::Quant { weight, bias } => (weight.nbytes(), bias),
        };
        weight + bias.as_ref().map_or(0, Array::nbytes)
    }
}

/// A table of one row a token, which may serve as the output layer too.
#[derive(Debug)]
pub struct Embedding {
    table: Linear,
}

impl Embedding {
    /// From a matrix `[vocab, d_model]`.
    pub fn new(table: Linear) -> Self {
        Self { table }
    }

    /// Rows `[B, L, d_model]` of the tokens (uint32 `[B, L]`).
    pub fn forward(&self, tokens: &Array) -> Result<Array> {
        match &self.table {
            Linear::Dense { weight, .. } => weight.take(tokens, 0),
            Linear::Quant { weight, .. } => {
                let dtype = match weight.biases {
                    Some(_) => weight.scales.dtype(),
                    None => Dtype::Bfloat16,
                };
                dequantize(&weight.take(tokens)?, dtype)
            }
        }
    }

    /// As the output layer of a model that ties both: hidden states to logits.
    pub fn as_linear(&self, hidden: &Array) -> Result<Array> {
        self.table.forward(hidden)
    }

    /// Bytes of the table in memory.
    pub fn nbytes(&self) -> usize {
        self.table.nbytes()
    }
}
