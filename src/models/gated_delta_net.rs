//! The linear attention layer of Qwen3-Next and Qwen3.5: projections, a short convolution, the gated
//! delta rule (Yang et al., 2024, "Gated Delta Networks"), a gated norm.

use super::hybrid::size;
use crate::cache::{Batch, RecurrentCache};
use crate::checkpoint::{Config, Cursor, LoadResult};
use crate::mlx::{Array, Dtype, Result, rms_norm};
use crate::nn::{Activation, Conv1d, GatedDelta, Linear, RmsNorm, softplus};

/// Key heads, value heads (a multiple), and the features of each.
#[derive(Clone, Copy)]
struct Shape {
    n_k_heads: usize,
    n_v_heads: usize,
    d_k: usize,
    d_v: usize,
}

impl Shape {
    /// Features of all keys, and of all values.
    fn widths(self) -> (usize, usize) {
        (self.n_k_heads * self.d_k, self.n_v_heads * self.d_v)
    }
}

/// A linear attention layer.
pub(super) struct GatedDeltaNet {
    shape: Shape,
    /// `[2 * Hk * Dk + Hv * Dv, d_model]`: queries, keys, values.
    in_proj_qkv: Linear,
    /// `[Hv * Dv, d_model]`: the gate of the outputs.
    in_proj_z: Linear,
    /// `[Hv, d_model]`: the rate of writing.
    in_proj_b: Linear,
    /// `[Hv, d_model]`: the decay.
    in_proj_a: Linear,
    conv1d: Conv1d,
    /// `-exp(A_log)`, float32 `[Hv]`.
    slope: Array,
    /// `[Hv]`.
    dt_bias: Array,
    norm: RmsNorm,
    out_proj: Linear,
}

impl GatedDeltaNet {
    /// Under `w`, with projections of their own or, where `fused`, in `in_proj_qkvz` and
    /// `in_proj_ba`.
    pub fn load(config: &Config, w: &Cursor, fused: bool) -> LoadResult<Self> {
        let shape = Shape {
            n_k_heads: size(config, "linear_num_key_heads")?,
            n_v_heads: size(config, "linear_num_value_heads")?,
            d_k: size(config, "linear_key_head_dim")?,
            d_v: size(config, "linear_value_head_dim")?,
        };
        if !shape.n_v_heads.is_multiple_of(shape.n_k_heads) {
            let n_k_heads = shape.n_k_heads;
            let expected = format!("a multiple of linear_num_key_heads, which is {n_k_heads}");
            return Err(config.invalid("linear_num_value_heads", expected).into());
        }
        let d_model = size(config, "hidden_size")?;
        let (keys, values) = shape.widths();
        let heads = shape.n_v_heads;
        let linear = |name, out| w.linear(name, [out, d_model], false);
        let [in_proj_qkv, in_proj_z, in_proj_b, in_proj_a] = match fused {
            true => {
                let qkvz = linear("in_proj_qkvz", 2 * keys + 2 * values)?;
                let ba = linear("in_proj_ba", 2 * heads)?;
                unmixed(shape, &qkvz, &ba)?
            }
            false => [
                linear("in_proj_qkv", 2 * keys + values)?,
                linear("in_proj_z", values)?,
                linear("in_proj_b", heads)?,
                linear("in_proj_a", heads)?,
            ],
        };
        let channels = 2 * keys + values;
        let kernel = size(config, "linear_conv_kernel_dim")?;
        let eps = config.f32("rms_norm_eps")?;
        let rate = w.tensor("A_log", &[heads])?.astype(Dtype::Float32)?.exp()?;
        let slope = rate.scale(-1.0)?;
        slope.eval()?;
        Ok(Self {
            shape,
            in_proj_qkv,
            in_proj_z,
            in_proj_b,
            in_proj_a,
            conv1d: w.conv1d("conv1d", channels, kernel, false)?,
            slope,
            dt_bias: w.tensor("dt_bias", &[heads])?,
            norm: w.rms_norm("norm", shape.d_v, eps)?,
            out_proj: w.linear("out_proj", [d_model, values], false)?,
        })
    }

    /// `x [B, L, d_model]` to the same shape.
    pub fn forward(&self, x: &Array, batch: &Batch, cache: &mut RecurrentCache) -> Result<Array> {
        let (n_v_heads, d_v) = (self.shape.n_v_heads as i32, self.shape.d_v as i32);
        let qkv = self.conv1d.forward(&self.in_proj_qkv.forward(x)?, cache)?;
        let [q, k, v] = self.heads(&Activation::Silu.apply(&qkv)?)?;
        let dt = self.in_proj_a.forward(x)?.add(&self.dt_bias)?;
        let log_decay = softplus(&dt)?.multiply(&self.slope)?; // [B, L, Hv]
        let beta = self.in_proj_b.forward(x)?.sigmoid()?;
        let rule = GatedDelta {
            q: &q,
            k: &k,
            v: &v,
            log_decay: &log_decay,
            beta: &beta,
        };
        let y = cache.pass(batch, |ends, state| rule.forward(state.as_ref(), ends))?;
        let y = self.norm.forward(&y)?.astype(Dtype::Float32)?;
        let z = self.in_proj_z.forward(x)?.astype(Dtype::Float32)?;
        let z = z.unflatten(2, &[n_v_heads, d_v])?; // [B, L, Hv, Dv]
        let y = Activation::Silu.gated(&z, &y)?.astype(q.dtype())?;
        self.out_proj.forward(&y.flatten(2, 3)?)
    }

    /// Queries and keys `[B, L, Hk, Dk]` of length 1, queries over the root of Dk, and values
    /// `[B, L, Hv, Dv]`.
    fn heads(&self, qkv: &Array) -> Result<[Array; 3]> {
        let (keys, values) = self.shape.widths();
        let [q, k, v] = qkv.split([keys as i32, keys as i32, values as i32], 2)?;
        let (n_k_heads, d_k) = (self.shape.n_k_heads as i32, self.shape.d_k as i32);
        let (n_v_heads, d_v) = (self.shape.n_v_heads as i32, self.shape.d_v as i32);
        let share = 1.0 / d_k as f32;
        let unit = |x: Array, factor| {
            let x = x.unflatten(2, &[n_k_heads, d_k])?; // [B, L, Hk, Dk]
            // A mean in place of the sum, so its share of the reference's 1e-6.
            rms_norm(&x, None, 1e-6 * share)?.scale(factor)
        };
        let v = v.unflatten(2, &[n_v_heads, d_v])?; // [B, L, Hv, Dv]
        Ok([unit(q, share)?, unit(k, share.sqrt())?, v])
    }
}

/// The projections of queries, keys and values, of the gate, of rates and of decays, out of two that
/// have them key head by key head.
fn unmixed(shape: Shape, qkvz: &Linear, ba: &Linear) -> Result<[Linear; 4]> {
    let Shape {
        n_k_heads,
        n_v_heads,
        d_k,
        d_v,
    } = shape;
    let per_key = n_v_heads / n_k_heads;
    let part = |mixed: &Linear, ranges: &[(usize, usize)]| {
        let unmix = |rows: &Array| {
            let by_head = rows.unflatten(0, &[n_k_heads as i32, -1])?; // [Hk, rows, d_model]
            let ranges = ranges.iter().map(|&(start, end)| {
                let range = by_head.slice_axis(1, start as i32, end as i32)?;
                range.flatten(0, 1)
            });
            let ranges = ranges.collect::<Result<Vec<_>>>()?;
            let rows = Array::concatenate(&ranges.iter().collect::<Vec<_>>(), 0)?.contiguous()?;
            rows.eval()?;
            Ok(rows)
        };
        let adapter = mixed.adapter.as_ref();
        Ok(Linear {
            weight: mixed.weight.map(unmix)?,
            bias: None,
            adapter: adapter.map(|a| a.map_rows(unmix)).transpose()?,
        })
    };
    let (v, z) = (2 * d_k, 2 * d_k + per_key * d_v);
    Ok([
        part(qkvz, &[(0, d_k), (d_k, v), (v, z)])?,
        part(qkvz, &[(z, z + per_key * d_v)])?,
        part(ba, &[(0, per_key)])?,
        part(ba, &[(per_key, 2 * per_key)])?,
    ])
}
