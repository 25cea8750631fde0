//! Causal convolutions over time, one filter a channel.
//!
//! On a GPU the taps' products are summed by one element-wise kernel: MLX hands a convolution to a library
//! there that plans anew for each length, and a filter of four taps is not worth that.

use crate::cache::RecurrentCache;
use crate::mlx::{Array, Dtype, Result, fused, fuses};

/// A depthwise causal convolution.
#[derive(Clone, Debug)]
pub struct Conv1d {
    /// `[C, K, 1]`.
    weight: Array,
    /// Each tap's factors, float32 `[C]`.
    taps: Vec<Array>,
    /// `[C]`.
    bias: Option<Array>,
}

impl Conv1d {
    /// From `weight [C, K, 1]` and perhaps `bias [C]`.
    ///
    /// # Errors
    /// If the weight has another rank, or MLX fails.
    pub fn new(weight: Array, bias: Option<Array>) -> Result<Self> {
        let by_tap = weight.astype(Dtype::Float32)?.squeeze(2)?.swap_last()?; // [K, C]
        let by_tap = by_tap.contiguous()?;
        by_tap.eval()?;
        let taps = (0..weight.dim(1)?).map(|k| by_tap.slice_axis(0, k, k + 1)?.squeeze(0));
        Ok(Self {
            taps: taps.collect::<Result<_>>()?,
            weight,
            bias,
        })
    }

    /// `x [B, L, C]` to the same shape; the inputs before it come from `cache`.
    pub fn forward(&self, x: &Array, cache: &mut RecurrentCache) -> Result<Array> {
        let window = cache.conv_window(x, self.taps.len())?; // [B, K - 1 + L, C]
        if fuses() {
            return self.summed(&window);
        }
        let y = window.conv1d(&self.weight, window.dim(-1)?)?; // [B, L, C]
        match &self.bias {
            Some(bias) => y.add(bias),
            None => Ok(y),
        }
    }

    /// `window [B, K - 1 + L, C]` to `[B, L, C]`.
    fn summed(&self, window: &Array) -> Result<Array> {
        let l = window.dim(1)? - self.taps.len() as i32 + 1;
        let inputs = (0..).zip(&self.taps);
        let inputs = inputs.map(|(k, _)| window.slice_axis(1, k, k + l));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let mut all: Vec<&Array> = inputs.iter().chain(&self.taps).collect();
        let sum = match &self.bias {
            Some(bias) => {
                all.push(bias);
                fused(biased_sum, &all)
            }
            None => fused(sum, &all),
        };
        sum.map(|[y]| y)
    }
}

/// The sum of the first arrays, each times one of as many others, in the type of the first.
fn sum(inputs: &[&Array]) -> Result<[Array; 1]> {
    let (values, taps) = inputs.split_at(inputs.len() / 2);
    let terms = values.iter().zip(taps).map(|(x, tap)| {
        let x = x.astype(Dtype::Float32)?;
        x.multiply(tap)
    });
    let mut terms = terms.collect::<Result<Vec<_>>>()?;
    // In pairs: a chain would be too long for one kernel.
    while terms.len() > 1 {
        let pairs = terms.chunks(2).map(|pair| match pair {
            [a, b] => a.add(b),
            _ => Ok(pair[0].clone()),
        });
        terms = pairs.collect::<Result<_>>()?;
    }
    Ok([terms.remove(0).astype(inputs[0].dtype())?])
}

/// The same with one more array added to it.
fn biased_sum(inputs: &[&Array]) -> Result<[Array; 1]> {
    let (factors, bias) = inputs.split_at(inputs.len() - 1);
    let [y] = sum(factors)?;
    Ok([y.add(bias[0])?])
}
