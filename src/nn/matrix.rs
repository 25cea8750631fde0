//! Weight matrices, packed or not, and products with them.

use std::cell::OnceCell;
use std::ops::Deref;

use super::plan;
use crate::mlx::{
    Array, Dtype, Order, Quantized, Result, dense_matmul, dequantize, eval, quantized_matmul,
};

/// An ordinary matrix `[.., out, in]`, with its transpose at hand: one that is there already is no node
/// of a step's graph.
#[derive(Clone, Debug)]
pub struct Dense {
    weight: Array,
    transposed: OnceCell<Array>,
}

impl Dense {
    /// `[.., in, out]`, a view.
    pub(super) fn transposed(&self) -> Result<&Array> {
        if let Some(there) = self.transposed.get() {
            return Ok(there);
        }
        let view = self.weight.swap_last()?;
        Ok(self.transposed.get_or_init(|| view))
    }
}

impl Deref for Dense {
    type Target = Array;

    fn deref(&self) -> &Array {
        &self.weight
    }
}

impl From<Array> for Matrix {
    fn from(weight: Array) -> Self {
        let transposed = OnceCell::new();
        Matrix::Dense(Dense { weight, transposed })
    }
}

/// A weight matrix `[.., out, in]`. Which kind it is depends on its tensors alone, so one model file
/// serves every quantization.
#[derive(Clone, Debug)]
pub enum Matrix {
    /// An ordinary one.
    Dense(Dense),
    /// A packed one.
    Quant(Quantized),
}

impl Matrix {
    /// `x · Wᵀ`, for `x [.., in]`; leading dimensions pair up or broadcast.
    pub fn times(&self, x: &Array) -> Result<Array> {
        match self {
            Matrix::Dense(weight) => dense_matmul(x, weight, || weight.transposed()),
            Matrix::Quant(weight) => plan::times(x, weight),
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
            Matrix::Dense(weight) => change(weight)?.into(),
            Matrix::Quant(weight) => {
                let changed = weight.map(change)?;
                Matrix::Quant(match weight.order {
                    Order::Rows => changed,
                    Order::Blocks => changed.arranged()?,
                })
            }
        })
    }

    /// The same as this thread's device likes it best for products.
    pub fn arranged(self) -> Result<Self> {
        match self {
            Matrix::Quant(weight) => weight.arranged().map(Matrix::Quant),
            Matrix::Dense(_) => Ok(self),
        }
    }

    /// The same as a file has it.
    pub fn by_rows(self) -> Result<Self> {
        match self {
            Matrix::Quant(weight) => Ok(Matrix::Quant(weight.by_rows()?.into_owned())),
            Matrix::Dense(_) => Ok(self),
        }
    }

    /// Rows of `[.., out, in]`.
    pub(super) fn n_rows(&self) -> Result<i32> {
        match self {
            Matrix::Dense(weight) => weight.dim(-2),
            Matrix::Quant(weight) => weight.scales.dim(-2),
        }
    }

    pub(super) fn eval(&self) -> Result<()> {
        match self {
            Matrix::Dense(weight) => weight.eval(),
            Matrix::Quant(w) => {
                let parts = [Some(&w.weight), Some(&w.scales), w.biases.as_ref()];
                eval(&parts.into_iter().flatten().collect::<Vec<_>>())
            }
        }
    }

    /// The matrix itself, unpacked in the type of its scales if it is packed.
    pub fn unpacked(&self) -> Result<Array> {
        match self {
            Matrix::Dense(weight) => Ok(Array::clone(weight)),
            Matrix::Quant(weight) => dequantize(weight, weight.dtype()),
        }
    }

    /// Matrices of one kind as one, whose arrays `join` makes of theirs; none where there is none, or they
    /// are of several kinds.
    pub fn joined(
        parts: &[&Matrix],
        join: impl Fn(&[&Array]) -> Result<Array>,
    ) -> Result<Option<Matrix>> {
        let dense: Vec<&Array> = parts.iter().filter_map(|part| part.unquantized()).collect();
        if !dense.is_empty() && dense.len() == parts.len() {
            return join(&dense).map(|whole| Some(whole.into()));
        }
        let packed: Vec<&Quantized> = parts.iter().filter_map(|part| part.packed()).collect();
        let scheme = |w: &Quantized| (w.mode, w.bits, w.group_size, w.order);
        let first = packed.first().filter(|first| {
            let same = packed.iter().all(|w| scheme(w) == scheme(first));
            same && dense.is_empty()
        });
        let Some(first) = first else {
            return Ok(None);
        };
        let all = |array: fn(&Quantized) -> &Array| -> Result<Array> {
            join(&packed.iter().map(|w| array(w)).collect::<Vec<_>>())
        };
        let biases: Vec<&Array> = packed.iter().filter_map(|w| w.biases.as_ref()).collect();
        Ok(Some(Matrix::Quant(Quantized {
            weight: all(|w| &w.weight)?,
            scales: all(|w| &w.scales)?,
            biases: (!biases.is_empty()).then(|| join(&biases)).transpose()?,
            ..**first
        })))
    }

    /// The type of its numbers, or of those that it unpacks to.
    pub(super) fn dtype(&self) -> Dtype {
        match self {
            Matrix::Dense(weight) => weight.dtype(),
            Matrix::Quant(weight) => weight.scales.dtype(),
        }
    }

    fn unquantized(&self) -> Option<&Array> {
        match self {
            Matrix::Dense(weight) => Some(weight),
            Matrix::Quant(_) => None,
        }
    }

    pub(super) fn packed(&self) -> Option<&Quantized> {
        match self {
            Matrix::Dense(_) => None,
            Matrix::Quant(weight) => Some(weight),
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
