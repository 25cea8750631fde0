//! Products with weight matrices: linear layers, stacks of them, and embeddings, packed or not.

use crate::mlx::{Array, Dtype, Quantized, Result, dequantize, gather_qmm, quantized_matmul};

/// A weight matrix `[.., out, in]`. Which kind it is depends on its tensors alone, so one model file
/// serves every quantization.
#[derive(Clone, Debug)]
pub enum Matrix {
    /// An ordinary one.
    Dense(Array),
    /// A packed one.
    Quant(Quantized),
}

impl Matrix {
    /// `x · Wᵀ`, for `x [.., in]`; leading dimensions pair up or broadcast.
    pub fn times(&self, x: &Array) -> Result<Array> {
        match self {
            Matrix::Dense(weight) => x.matmul(&weight.swap_last()?),
            Matrix::Quant(weight) => quantized_matmul(x, weight, true),
        }
    }

    /// `x · W`, for `x [.., out]`.
    pub fn times_transposed(&self, x: &Array) -> Result<Array> {
        match self {
            Matrix::Dense(weight) => x.matmul(weight),
            Matrix::Quant(weight) => quantized_matmul(x, weight, false),
        }
    }

    /// The same change made to its tensors, which must not concern the last dimension.
    pub fn map(&self, change: impl Fn(&Array) -> Result<Array>) -> Result<Self> {
        Ok(match self {
            Matrix::Dense(weight) => Matrix::Dense(change(weight)?),
            Matrix::Quant(weight) => Matrix::Quant(weight.map(change)?),
        })
    }

    /// The rows `start..end` of `[out, in]`, as a matrix of its own.
    pub fn rows(&self, start: usize, end: usize) -> Result<Self> {
        self.map(|part| {
            let rows = part
                .slice_axis(-2, start as i32, end as i32)?
                .contiguous()?;
            rows.eval()?;
            Ok(rows)
        })
    }
}

/// `x · Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Matrix,
    /// `[out]`.
    pub bias: Option<Array>,
}

impl Linear {
    /// `x [.., in]` to `[.., out]`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        match (&self.weight, &self.bias) {
            (weight, None) => weight.times(x),
            (Matrix::Dense(weight), Some(bias)) => x.addmm(&weight.swap_last()?, bias),
            (weight, Some(bias)) => weight.times(x)?.add(bias),
        }
    }
}

/// A stack of linear layers, one an expert.
#[derive(Clone, Debug)]
pub struct SwitchLinear {
    /// `[E, out, in]`.
    pub weight: Matrix,
    /// `[E, out]`.
    pub bias: Option<Array>,
}

impl SwitchLinear {
    /// `x [.., 1, in]` through the experts that `indices [..]` names: `[.., 1, out]`. `sorted` says
    /// that the indices ascend.
    pub fn forward(&self, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        let y = match &self.weight {
            Matrix::Dense(weight) => x.gather_mm(&weight.swap_last()?, indices, sorted)?,
            Matrix::Quant(weight) => gather_qmm(x, weight, indices, sorted)?,
        };
        match &self.bias {
            Some(bias) => y.add(&bias.take(indices, 0)?.expand_dims(-2)?),
            None => Ok(y),
        }
    }
}

/// A table of one row a token, which may serve as the output layer too.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Matrix,
}

impl Embedding {
    /// From a matrix `[vocab, d_model]`.
    pub fn new(table: Matrix) -> Self {
        Self { table }
    }

    /// Rows `[B, L, d_model]` of the tokens (uint32 `[B, L]`).
    pub fn forward(&self, tokens: &Array) -> Result<Array> {
        match &self.table {
            Matrix::Dense(weight) => weight.take(tokens, 0),
            Matrix::Quant(weight) => {
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
        self.table.times(hidden)
    }
}
