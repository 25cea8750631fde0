//! Norms, gates, attention, and rotary embeddings of float32 on the CPU, each as one operation of our own
//! inside MLX's graph. MLX's CPU backend makes each of dozens, every one of which costs a step of its
//! thread.

use std::ffi::CStr;

use super::call::{Computed, Function, Params, Seen, View, ViewMut, call_one, on_cpu};
use super::cpu::{ARRAYS, floats, floats_mut, is_known, part, part_mut};
use super::{Array, Dtype, Mask, Result, RopeFreqs};
use crate::kernels::{self, Heads, Turn};

/// Whether this thread computes on the CPU, and all these are of one type that the kernels know.
fn takes(arrays: &[&Array]) -> bool {
    let mut dtypes = arrays.iter().map(|array| array.dtype());
    let first = dtypes.next();
    on_cpu() && first.is_some_and(|first| is_known(first) && dtypes.all(|dtype| dtype == first))
}

pub(super) fn bits(x: f32) -> u64 {
    u64::from(x.to_bits())
}

pub(super) fn float(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// Whether [`rms_norm`] takes these.
pub(super) fn takes_norm(x: &Array, weight: Option<&Array>) -> bool {
    let d = x.shape().last().copied().unwrap_or(0);
    let fits = |w: &Array| takes(&[x, w]) && w.shape() == [d];
    takes(&[x]) && d > 0 && weight.is_none_or(fits)
}

#[track_caller]
pub(super) fn rms_norm(x: &Array, weight: Option<&Array>, eps: f32) -> Result<Array> {
    let inputs = [Some(x), weight];
    let inputs: Vec<&Array> = inputs.into_iter().flatten().collect();
    let params = [bits(eps), 0, 0, 0, 0, 0, 0, 0];
    call_one::<Norm>("rms_norm", &inputs, (&x.shape(), x.dtype()), params)
}

struct Norm;

impl Function for Norm {
    const NAME: &'static CStr = c"FusedRmsNorm";

    fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([x, rest @ ..], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let weight = rest.first().map(floats).transpose()?;
        let d = x.shape().last().map_or(1, |&d| d as usize);
        kernels::rms_norm(floats(x)?, d, weight, float(params[0]), floats_mut(out)?);
        Ok(())
    }
}

/// Whether [`silu_gate`] takes these.
pub(super) fn takes_gate(gate: &Array, up: &Array) -> bool {
    takes(&[gate, up]) && gate.shape() == up.shape()
}

#[track_caller]
pub(super) fn silu_gate(gate: &Array, up: &Array) -> Result<Array> {
    let out = (&gate.shape()[..], gate.dtype());
    call_one::<Gate>("silu_gate", &[gate, up], out, [0; 8])
}

struct Gate;

impl Function for Gate {
    const NAME: &'static CStr = c"FusedSiluGate";

    fn run(_: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([gate, up], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        kernels::swiglu(floats(gate)?, floats(up)?, floats_mut(out)?);
        Ok(())
    }
}

/// Whether [`rope`] takes these.
pub(super) fn takes_rope(x: &Array, dims: i32, freqs: &RopeFreqs) -> bool {
    let pairs_fit = |table: &Array| table.dtype() == Dtype::Float32 && table.shape() == [dims / 2];
    let freqs_fit = match freqs {
        RopeFreqs::Base(base) => *base > 0.0,
        RopeFreqs::Table(table) => pairs_fit(table),
    };
    let shape = x.shape();
    takes(&[x])
        && x.dtype() == Dtype::Float32
        && shape.len() == 4
        && dims >= 0
        && dims % 2 == 0
        && dims <= shape[3]
        && freqs_fit
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
    let (&[b, h, l, d], &[b_k, n_kv_heads, s, d_k], &[b_v, n_v, s_v, _]) = (&q[..], &k[..], &v[..])
    else {
        return false;
    };
    let shapes = [b, n_kv_heads, s, d] == [b_k, n_v, s_v, d_k] && b == b_v;
    let mask = match mask {
        Mask::None => true,
        Mask::Causal => s >= l,
        Mask::Array(mask) => mask.dtype() == Dtype::Bool && mask.shape() == [l, s],
    };
    let sinks = sinks.is_none_or(|sinks| takes(&[queries, sinks]) && sinks.shape() == [h]);
    let grouped = d > 0 && s > 0 && n_kv_heads > 0 && h % n_kv_heads == 0;
    takes(&[queries, keys, values]) && shapes && mask && sinks && grouped
}

#[track_caller]
pub(super) fn attention(
    (queries, keys, values): (&Array, &Array, &Array),
    scale: f32,
    mask: Mask,
    sinks: Option<&Array>,
) -> Result<Array> {
    let op = "scaled_dot_product_attention";
    let (kind, mask) = match mask {
        Mask::None => (0, None),
        Mask::Causal => (1, None),
        Mask::Array(mask) => (2, Some(mask)),
    };
    let inputs = [Some(queries), Some(keys), Some(values), mask, sinks];
    let inputs: Vec<&Array> = inputs.into_iter().flatten().collect();
    let params = [bits(scale), kind, u64::from(sinks.is_some()), 0, 0, 0, 0, 0];
    let mut out = queries.shape();
    if let Some(width) = out.last_mut() {
        *width = values.dim(3)?;
    }
    call_one::<Attention>(op, &inputs, (&out, queries.dtype()), params)
}

struct Attention;

impl Function for Attention {
    const NAME: &'static CStr = c"FusedAttention";
    // Keys and values are parts of buffers with room for more.
    const STRIDED: u32 = 0b110;

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
        let mut room = [Vec::new(), Vec::new()];
        let [of_k, of_v] = &mut room;
        let common = Entries::room(keys)?.filter(|_| Entries::room(keys) == Entries::room(values));
        let k = Entries::of(keys, common, of_k)?;
        let v = Entries::of(values, common, of_v)?;
        let &[b, h, l, _] = queries.shape() else {
            return Err(ARRAYS.into());
        };
        let [b, h, l] = [b, h, l].map(|n| n as usize);
        let (q, mut out) = (floats(queries)?, floats_mut(out)?);
        let (of_q, of_out) = (h * l * k.width, h * l * v.width);
        for row in 0..b {
            let one = kernels::Attention {
                q: part(&q, row * of_q, of_q)?,
                k: k.row(row)?,
                v: v.row(row)?,
                heads: h,
                kv_heads: k.heads,
                queries: l,
                keys: k.count,
                key_room: k.room,
                head_dim: k.width,
                value_dim: v.width,
                scale: float(params[0]),
                causal: params[1] == 1,
                window: None,
                mask: mask.map(View::slice).transpose()?,
                sinks: sinks.map(floats).transpose()?,
            };
            kernels::attention(&one, part_mut(&mut out, row * of_out, of_out)?);
        }
        Ok(())
    }
}

/// Keys or values `[B, K, S, D]`, whose heads have room for more.
struct Entries<'a> {
    data: kernels::Floats<'a>,
    heads: usize,
    count: usize,
    width: usize,
    room: usize,
    /// How far apart rows lie.
    stride: usize,
}

impl<'a> Entries<'a> {
    /// Entries that each head has room for, if they lie one after the other.
    fn room(view: &View) -> Seen<Option<usize>> {
        let (&[_, heads, count, width], &[_, of_h, of_s, of_d]) = (view.shape(), view.strides())
        else {
            return Err(ARRAYS.into());
        };
        let [heads, count, width] = [heads, count, width].map(|n| n as usize);
        let [of_h, of_s, of_d] = [of_h, of_s, of_d].map(|n| n as usize);
        let in_line = (of_d == 1 || width == 1) && (of_s == width || count == 1);
        Ok(match heads {
            _ if !in_line || width == 0 => None,
            1 => Some(count),
            _ if of_h.is_multiple_of(width) && of_h >= count * width => Some(of_h / width),
            _ => None,
        })
    }

    /// Where they lie, if that is so with `room`; else copied to `dense`.
    fn of(view: &'a View, room: Option<usize>, dense: &'a mut Vec<f32>) -> Seen<Self> {
        let data = floats(view)?;
        let (&[b, heads, count, width], &[of_b, of_h, of_s, of_d]) = (view.shape(), view.strides())
        else {
            return Err(ARRAYS.into());
        };
        let [b, heads, count, width] = [b, heads, count, width].map(|n| n as usize);
        let [of_b, of_h, of_s, of_d] = [of_b, of_h, of_s, of_d].map(|n| n as usize);
        if let Some(room) = room {
            let stride = of_b;
            return Ok(Self {
                data,
                heads,
                count,
                width,
                room,
                stride,
            });
        }
        dense.reserve(b * heads * count * width);
        for i in 0..b * heads * count * width {
            let (b, h) = (i / width / count / heads, i / width / count % heads);
            let (s, d) = (i / width % count, i % width);
            dense.push(data.get(b * of_b + h * of_h + s * of_s + d * of_d));
        }
        Ok(Self {
            data: kernels::Floats::F32(dense),
            heads,
            count,
            width,
            room: count,
            stride: heads * count * width,
        })
    }

    /// The heads of one row of the batch.
    fn row(&self, row: usize) -> Seen<kernels::Floats<'a>> {
        let n = ((self.heads - 1) * self.room + self.count) * self.width;
        part(&self.data, row * self.stride, n)
    }
}

#[cfg(all(test, target_os = "linux"))]
#[path = "fused_tests.rs"]
mod tests;
