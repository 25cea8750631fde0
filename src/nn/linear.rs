//! Linear layers, stacks of them, and embeddings, whatever their matrices are.

use super::{Adapter, Matrix};
use crate::mlx::{
    Array, Device, Dtype, Quantized, Result, current_device, gather_dense, gather_qmm, on_cuda,
    quantized_rows,
};

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
    /// The matrix, if it is all there is.
    fn bare(&self) -> Option<&Matrix> {
        (self.bias.is_none() && self.adapter.is_none()).then_some(&self.weight)
    }

    /// The same, if it is packed.
    pub fn packed(&self) -> Option<&Quantized> {
        self.bare()?.packed()
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
                x.addmm(weight.transposed()?, bias)
            }
            (weight, Some(bias)) => weight.times(x)?.add(bias),
        }
    }
}

/// Rows up to which a common product pays.
const FEW: usize = 64;

/// Linear layers of one input whose matrices stand one behind the other, so that one product serves
/// all of them. On CUDA a step of few sequences is bound by launches as much as by bytes, and small
/// products leave the device idle.
#[derive(Clone, Debug)]
pub struct Joined<const N: usize> {
    all: Box<Linear>,
    widths: [i32; N],
}

impl<const N: usize> Joined<N> {
    /// Of layers whose matrices become views of the common one; none where it does not pay, or they
    /// are of different kinds.
    ///
    /// # Errors
    /// If MLX fails; the layers are as before.
    pub fn of(layers: [&mut Linear; N]) -> Result<Option<Self>> {
        let parts: Vec<&Matrix> = layers.iter().filter_map(|layer| layer.bare()).collect();
        let same = parts.windows(2).all(|two| two[0].dtype() == two[1].dtype());
        if !on_cuda() || parts.len() < N || !same {
            return Ok(None);
        }
        let Some(all) = Matrix::joined(&parts, |arrays| Array::concatenate(arrays, 0))? else {
            return Ok(None);
        };
        let mut widths = [0; N];
        let mut views = Vec::with_capacity(N);
        let mut start = 0;
        for (width, part) in widths.iter_mut().zip(parts) {
            *width = part.n_rows()?;
            let end = start + *width;
            views.push(all.map(|part| part.slice_axis(-2, start, end))?);
            start = end;
        }
        all.eval()?;
        for (layer, view) in layers.into_iter().zip(views) {
            view.eval()?;
            layer.weight = view;
        }
        let all = Box::new(Linear {
            weight: all,
            bias: None,
            adapter: None,
        });
        Ok(Some(Self { all, widths }))
    }

    /// What the layers make of `x [.., in]`, side by side; none for many rows, where products are as fast
    /// by themselves, and what follows reads whole rows faster.
    pub fn side_by_side(&self, x: &Array) -> Result<Option<Array>> {
        match x.size() > FEW * x.dim(-1)? as usize {
            true => Ok(None),
            false => self.all.forward(x).map(Some),
        }
    }

    /// The same one by one, views.
    pub fn forward(&self, x: &Array) -> Result<Option<[Array; N]>> {
        let all = self.side_by_side(x)?;
        all.map(|all| all.split(self.widths, -1)).transpose()
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
