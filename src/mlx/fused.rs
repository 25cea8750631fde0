//! Norms, gates, rotary embeddings and attention in float32 on the CPU, each as one operation of our own
//! inside MLX's graph. MLX's CPU backend makes each of dozens, every one of which costs a step of its
//! thread.

use std::ffi::CStr;

use super::call::{Computed, Function, Params, Seen, View, ViewMut, call_one, on_cpu};
use super::{Array, Dtype, Mask, Result, RopeFreqs};
use crate::kernels::{self, Heads, Turn};

/// Whether this thread computes on the CPU, and all these are float32.
pub(super) fn takes(arrays: &[&Array]) -> bool {
    on_cpu() && arrays.iter().all(|array| array.dtype() == Dtype::Float32)
}

fn bits(x: f32) -> u64 {
    u64::from(x.to_bits())
}

fn float(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

const ARRAYS: &str = "it was given other arrays than it takes";

/// Whether [`rms_norm`] takes these.
pub(super) fn takes_norm(x: &Array, weight: Option<&Array>) -> bool {
    let d = x.shape().last().copied().unwrap_or(0);
    let fits = |w: &Array| takes(&[w]) && w.shape() == [d];
    takes(&[x]) && d > 0 && weight.is_none_or(fits)
}

#[track_caller]
pub(super) fn rms_norm(x: &Array, weight: Option<&Array>, eps: f32) -> Result<Array> {
    let inputs = [Some(x), weight];
    let inputs: Vec<&Array> = inputs.into_iter().flatten().collect();
    let params = [bits(eps), 0, 0, 0, 0, 0, 0, 0];
    call_one::<Norm>("rms_norm", &inputs, (&x.shape(), Dtype::Float32), params)
}

struct Norm;

impl Function for Norm {
    const NAME: &'static CStr = c"FusedRmsNorm";

    fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([x, rest @ ..], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let weight = rest.first().map(View::slice::<f32>).transpose()?;
        let d = x.shape().last().map_or(1, |&d| d as usize);
        kernels::rms_norm(x.slice()?, weight, float(params[0]), d, out.slice()?);
        Ok(())
    }
}

/// Whether [`silu_gate`] takes these.
pub(super) fn takes_gate(gate: &Array, up: &Array) -> bool {
    takes(&[gate, up]) && gate.shape() == up.shape()
}

#[track_caller]
pub(super) fn silu_gate(gate: &Array, up: &Array) -> Result<Array> {
    let out = (&gate.shape()[..], Dtype::Float32);
    call_one::<Gate>("silu_gate", &[gate, up], out, [0; 8])
}

struct Gate;

impl Function for Gate {
    const NAME: &'static CStr = c"FusedSiluGate";

    fn run(_: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([gate, up], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        kernels::silu_gate(gate.slice()?, up.slice()?, out.slice()?);
        Ok(())
    }
}

/// Whether [`rope`] takes these.
pub(super) fn takes_rope(x: &Array, dims: i32, freqs: &RopeFreqs) -> bool {
    let pairs_fit = |table: &Array| takes(&[table]) && table.shape() == [dims / 2];
    let freqs_fit = match freqs {
        RopeFreqs::Base(base) => *base > 0.0,
        RopeFreqs::Table(table) => pairs_fit(table),
    };
    let shape = x.shape();
    takes(&[x]) && shape.len() == 4 && dims >= 0 && dims % 2 == 0 && dims <= shape[3] && freqs_fit
}

/// `offsets` is int32, `[]`, `[1]` or `[B]`.
#[track_caller]
pub(super) fn rope(
    x: &Array,
    (dims, traditional): (i32, bool),
    freqs: &RopeFreqs,
    scale: f32,
    offsets: &Array,
) -> Result<Array> {
    let (base, table) = match freqs {
        RopeFreqs::Base(base) => (*base, None),
        RopeFreqs::Table(table) => (1.0, Some(table)),
    };
    let inputs = [Some(x), Some(offsets), table];
    let inputs: Vec<&Array> = inputs.into_iter().flatten().collect();
    let constants = [dims as u64, u64::from(traditional), bits(base), bits(scale)];
    let [a, b, c, d] = constants;
    let out = (&x.shape()[..], Dtype::Float32);
    call_one::<Rope>("rope", &inputs, out, [a, b, c, d, 0, 0, 0, 0])
}

struct Rope;

impl Function for Rope {
    const NAME: &'static CStr = c"FusedRope";
    const STRIDED: u32 = 1;

    fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([x, offsets, rest @ ..], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let turn = Turn {
            dims: params[0] as usize,
            traditional: params[1] != 0,
            freqs: rest.first().map(View::slice).transpose()?,
            base: float(params[2]),
            scale: float(params[3]),
        };
        let mut room = Vec::new();
        let x = heads(x, &mut room)?;
        kernels::rope(x, offsets.slice()?, &turn, out.slice()?);
        Ok(())
    }
}

/// An input `[B, H, L, D]`, by way of `room` where its features do not lie side by side.
fn heads<'a>(view: &'a View, room: &'a mut Vec<f32>) -> Seen<Heads<'a>> {
    let data = view.slice::<f32>()?;
    let (&[b, h, l, d], &[of_b, of_h, of_l, of_d]) = (view.shape(), view.strides()) else {
        return Err("it takes arrays of four dimensions".into());
    };
    let shape = [b, h, l, d].map(|n| n as usize);
    let [b, h, l, d] = shape;
    let strides = [of_b, of_h, of_l].map(|n| n as usize);
    if of_d == 1 || d == 1 {
        return Ok(Heads {
            data,
            shape,
            strides,
        });
    }
    room.reserve(b * h * l * d);
    for b in 0..b {
        for h in 0..h {
            for l in 0..l {
                let from = b * strides[0] + h * strides[1] + l * strides[2];
                room.extend((0..d).map(|i| data[from + i * of_d as usize]));
            }
        }
    }
    Ok(Heads {
        data: room,
        shape,
        strides: [h * l * d, l * d, d],
    })
}

/// Whether [`attention`] takes these.
pub(super) fn takes_attention(
    (queries, keys, values): (&Array, &Array, &Array),
    mask: Mask,
    sinks: Option<&Array>,
) -> bool {
    let (q, k, v) = (queries.shape(), keys.shape(), values.shape());
    let ([b, h, l, d], [b_k, n_kv_heads, s, d_k], [b_v, n_v, s_v, _]) = (&q[..], &k[..], &v[..])
    else {
        return false;
    };
    let shapes = b == b_k && b == b_v && n_kv_heads == n_v && s == s_v && d == d_k;
    let mask = match mask {
        Mask::None => true,
        Mask::Causal => s >= l,
        Mask::Array(mask) => mask.dtype() == Dtype::Bool && mask.ndim() <= 4,
    };
    let sinks = sinks.is_none_or(|sinks| takes(&[sinks]) && sinks.shape() == [*h]);
    takes(&[queries, keys, values])
        && shapes
        && mask
        && sinks
        && *d > 0
        && *n_kv_heads > 0
        && h % n_kv_heads == 0
}

#[track_caller]
pub(super) fn attention(
    (queries, keys, values): (&Array, &Array, &Array),
    scale: f32,
    mask: Mask,
    sinks: Option<&Array>,
) -> Result<Array> {
    let op = "scaled_dot_product_attention";
    let (b, h, l) = (queries.dim(0)?, queries.dim(1)?, queries.dim(2)?);
    let (kind, mask) = match mask {
        Mask::None => (0, None),
        Mask::Causal => (1, None),
        Mask::Array(mask) => (2, Some(mask.broadcast_to(&[b, h, l, keys.dim(2)?])?)),
    };
    let inputs = [
        Some(queries),
        Some(keys),
        Some(values),
        mask.as_ref(),
        sinks,
    ];
    let inputs: Vec<&Array> = inputs.into_iter().flatten().collect();
    let params = [bits(scale), kind, u64::from(sinks.is_some()), 0, 0, 0, 0, 0];
    // Written by positions, as the output layer wants it: what turns it back is a view.
    let out = [b, l, h, values.dim(3)?];
    call_one::<Attention>(op, &inputs, (&out, Dtype::Float32), params)?
        .transpose_axes(&[0, 2, 1, 3])
}

struct Attention;

impl Function for Attention {
    const NAME: &'static CStr = c"FusedAttention";
    const STRIDED: u32 = 0b1111;

    fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([queries, keys, values, rest @ ..], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let (mask, sinks) = match (params[1], params[2], rest) {
            (2, 0, [mask]) => (Some(mask), None),
            (2, _, [mask, sinks]) => (Some(mask), Some(sinks)),
            (_, 0, []) => (None, None),
            (_, _, [sinks]) => (None, Some(sinks)),
            _ => return Err(ARRAYS.into()),
        };
        let seen = match (params[1], mask) {
            (1, _) => kernels::Seen::Causal,
            (_, Some(mask)) => {
                let &[b, h, l, s] = mask.strides() else {
                    return Err(ARRAYS.into());
                };
                let strides = [b, h, l, s].map(|n| n as usize);
                let data = mask.slice()?;
                kernels::Seen::Bytes { data, strides }
            }
            _ => kernels::Seen::All,
        };
        let sinks = sinks.map(View::slice).transpose()?;
        let mut room = [Vec::new(), Vec::new(), Vec::new()];
        let [of_q, of_k, of_v] = &mut room;
        let all = (
            heads(queries, of_q)?,
            heads(keys, of_k)?,
            heads(values, of_v)?,
        );
        kernels::attention(all, float(params[0]), seen, sinks, out.slice()?);
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
#[path = "fused_tests.rs"]
mod tests;
