//! MLX's fused operations.

use super::fused;
use super::ops::op;
use super::{Array, Dtype, Result};

/// No array, where mlx-c takes one or none.
pub(super) fn none() -> mlx_sys::mlx_array {
    mlx_sys::mlx_array {
        ctx: std::ptr::null_mut(),
    }
}

fn raw_or_none(array: Option<&Array>) -> mlx_sys::mlx_array {
    array.map_or(none(), Array::raw)
}

/// Root-mean-square norm over the last axis, times `weight` if there is one (Zhang and Sennrich,
/// 2019).
#[track_caller]
pub fn rms_norm(x: &Array, weight: Option<&Array>, eps: f32) -> Result<Array> {
    if fused::takes_norm(x, weight) {
        return fused::rms_norm(x, weight, eps);
    }
    op!(
        "rms_norm",
        [x],
        mlx_fast_rms_norm(x.raw(), raw_or_none(weight), eps)
    )
}

/// Mean and variance norm over the last axis, times `weight` plus `bias` if there are any (Ba et
/// al., 2016).
#[track_caller]
pub fn layer_norm(
    x: &Array,
    weight: Option<&Array>,
    bias: Option<&Array>,
    eps: f32,
) -> Result<Array> {
    op!(
        "layer_norm",
        [x],
        mlx_fast_layer_norm(x.raw(), raw_or_none(weight), raw_or_none(bias), eps)
    )
}

/// Where the angles of a rotary embedding come from.
#[derive(Clone, Debug)]
pub enum RopeFreqs {
    /// `base^(2i / dims)`, computed in the kernel.
    Base(f32),
    /// These wavelengths over 2π, float32 of shape `[dims / 2]`.
    Table(Array),
}

impl RopeFreqs {
    fn raw(&self) -> (mlx_sys::mlx_optional_float, mlx_sys::mlx_array) {
        let base = |base: Option<f32>| mlx_sys::mlx_optional_float {
            value: base.unwrap_or(0.0),
            has_value: base.is_some(),
        };
        match self {
            RopeFreqs::Base(theta) => (base(Some(*theta)), none()),
            RopeFreqs::Table(table) => (base(None), table.raw()),
        }
    }
}

/// Rotary position embedding (Su et al., 2021) of `x [B, H, L, D]` in its first `dims` features.
///
/// Positions are `offset, offset + 1, …`, each multiplied by `scale`. `traditional` rotates
/// neighbours; otherwise feature i goes with i + dims/2.
#[track_caller]
pub fn rope(
    x: &Array,
    dims: i32,
    traditional: bool,
    freqs: &RopeFreqs,
    scale: f32,
    offset: i32,
) -> Result<Array> {
    if fused::takes_rope(x, dims, freqs) {
        let offset = Array::from_i32(offset)?;
        return fused::rope(x, (dims, traditional), freqs, scale, &offset);
    }
    let (base, table) = freqs.raw();
    op!(
        "rope",
        [x],
        mlx_fast_rope(x.raw(), dims, traditional, base, scale, offset, table)
    )
}

/// As [`rope`], with the first position of each row of the batch in `offsets`, int32 `[B]`.
#[track_caller]
pub fn rope_rows(
    x: &Array,
    dims: i32,
    traditional: bool,
    freqs: &RopeFreqs,
    scale: f32,
    offsets: &Array,
) -> Result<Array> {
    if offsets.dtype() == Dtype::Int32 && fused::takes_rope(x, dims, freqs) {
        return fused::rope(x, (dims, traditional), freqs, scale, offsets);
    }
    let (base, table) = freqs.raw();
    op!(
        "rope",
        [x, offsets],
        mlx_fast_rope_dynamic(
            x.raw(),
            dims,
            traditional,
            base,
            scale,
            offsets.raw(),
            table
        )
    )
}

/// Which keys a query may see.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// Every key.
    None,
    /// The keys up to its own place, where the last query stands at the last key.
    Causal,
    /// Those where a boolean array that broadcasts to `[B, H, L, S]` is true.
    Array(&'a Array),
}

/// Attention of `queries [B, H, L, D]` to `keys [B, K, S, D]` and `values [B, K, S, V]`, where H is
/// a multiple of K. Softmax runs in float32. `sinks [H]` are scores that join each head's softmax
/// without a value (Xiao et al., 2023).
#[track_caller]
pub fn scaled_dot_product_attention(
    queries: &Array,
    keys: &Array,
    values: &Array,
    scale: f32,
    mask: Mask,
    sinks: Option<&Array>,
) -> Result<Array> {
    let all = (queries, keys, values);
    if fused::takes_attention(all, mask, sinks) {
        return fused::attention(all, scale, mask, sinks);
    }
    // mlx-c builds a std::string from the mode: it must not be null.
    let (mode, array) = match mask {
        Mask::None => (c"", none()),
        Mask::Causal => (c"causal", none()),
        Mask::Array(array) => (c"array", array.raw()),
    };
    op!(
        "scaled_dot_product_attention",
        [queries, keys, values],
        mlx_fast_scaled_dot_product_attention(
            queries.raw(),
            keys.raw(),
            values.raw(),
            scale,
            mode.as_ptr(),
            array,
            raw_or_none(sinks),
            false,
        )
    )
}

/// `gate · sigmoid(gate) · up` of each element, in one operation where there is one: else nothing.
#[track_caller]
pub fn silu_gate(gate: &Array, up: &Array) -> Option<Result<Array>> {
    fused::takes_gate(gate, up).then(|| fused::silu_gate(gate, up))
}
