//! Products with weight matrices: linear layers, stacks of them, and embeddings, packed or not.

use super::Adapter;
use crate::mlx::{
    Array, Device, Dtype, Quantized, Result, current_device, dense_matmul, dequantize,
    gather_dense, gather_qmm, quantized_matmul, quantized_rows,
};

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
            Matrix::Dense(weight) => dense_matmul(x, weight),
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

    /// The matrix itself, unpacked in the type of its scales if it is packed.
    pub fn unpacked(&self) -> Result<Array> {
        match self {
            Matrix::Dense(weight) => Ok(weight.clone()),
            Matrix::Quant(weight) => dequantize(weight, weight.dtype()),
        }
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
    /// A fine-tune's change to the matrix.
    pub adapter: Option<Adapter>,
}

impl Linear {
    /// The matrix, if it is packed and all there is.
    pub fn packed(&self) -> Option<&Quantized> {
        match self {
            Linear {
                weight: Matrix::Quant(weight),
                bias: None,
                adapter: None,
            } => Some(weight),
            _ => None,
        }
    }

    /// `x [.., in]` to `[.., out]`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        if let Some(adapter) = &self.adapter {
            let y = adapter.linear(&self.weight.times(x)?, x)?;
            return match &self.bias {
                Some(bias) => y.add(bias),
                None => Ok(y),
            };
        }
        match (&self.weight, &self.bias) {
            (weight, None) => weight.times(x),
            (Matrix::Dense(weight), Some(bias)) if current_device() == Some(Device::Gpu) => {
                x.addmm(&weight.swap_last()?, bias)
            }
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
    /// A fine-tune's change to the matrices.
    pub adapter: Option<Adapter>,
}

impl SwitchLinear {
    /// Without bias and adapter.
    pub fn plain(weight: Matrix) -> Self {
        Self {
            weight,
            bias: None,
            adapter: None,
        }
    }

    /// `x [.., 1, in]` through the experts that `indices [..]` names: `[.., 1, out]`. `sorted` says
    /// that the indices ascend.
    pub fn forward(&self, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        let mut y = match &self.weight {
            Matrix::Dense(weight) => gather_dense(x, weight, indices, sorted)?,
            Matrix::Quant(weight) => gather_qmm(x, weight, indices, sorted)?,
        };
        if let Some(adapter) = &self.adapter {
            y = adapter.switch(&y, x, indices, sorted)?;
        }
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
    adapter: Option<Adapter>,
    /// The type of its rows; the table's own if not given.
    dtype: Option<Dtype>,
}

impl Embedding {
    /// From a matrix `[vocab, d_model]`.
    pub fn new(table: Matrix) -> Self {
        Self {
            table,
            adapter: None,
            dtype: None,
        }
    }

    /// With rows of this type.
    pub fn with_rows_as(self, dtype: Option<Dtype>) -> Self {
        Self { dtype, ..self }
    }

    /// With a fine-tune's change to the table.
    pub fn with_adapter(self, adapter: Option<Adapter>) -> Self {
        Self { adapter, ..self }
    }

    /// Rows `[B, L, d_model]` of the tokens (uint32 `[B, L]`).
    pub fn forward(&self, tokens: &Array) -> Result<Array> {
        let rows = match &self.table {
            Matrix::Dense(weight) => weight.take(tokens, 0)?,
            Matrix::Quant(weight) => {
                quantized_rows(tokens, weight, self.dtype.unwrap_or(weight.dtype()))?
            }
        };
        let rows = match self.dtype {
            Some(dtype) if dtype != rows.dtype() => rows.astype(dtype)?,
            _ => rows,
        };
        match &self.adapter {
            Some(adapter) => adapter.rows(&rows, tokens),
            None => Ok(rows),
        }
    }

    /// As the output layer of a model that ties both: hidden states to logits.
    pub fn as_linear(&self, hidden: &Array) -> Result<Array> {
        let logits = self.table.times(hidden)?;
        match &self.adapter {
            Some(adapter) => adapter.linear(&logits, hidden),
            None => Ok(logits),
        }
    }
}
