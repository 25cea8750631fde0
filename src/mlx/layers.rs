//! Stretches of a layer as one operation each, on the CPU: what the kernels compute in microseconds for a
//! few rows costs as much again to build, schedule and free as nodes of MLX's graph.
//!
//! They run the same kernels in the same order as the single operations, so results are the same bits.

use std::cell::Cell;
use std::ffi::CStr;

use super::call::{Computed, Function, Params, Seen, View, ViewMut, call, call_one};
use super::cpu::{ARRAYS, floats, packed, packing, takes_packed};
use super::fused::{bits, float};
use super::{Array, Dtype, Quantized, Result, RopeFreqs};
use crate::kernels::{self, Floats, FloatsMut, Heads, Packed, Turn};

/// More rows than this are worth their nodes.
pub(super) const FEW: i32 = 16;

thread_local! {
    /// Where what lies between the kernels of a call was last.
    pub(super) static ROOM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Whether `x [.., k]` is a few rows of float32, and each of `weights` a matrix that the kernels take.
fn takes(x: &Array, weights: [&Quantized; 3]) -> bool {
    let shape = x.shape();
    let rows = shape.iter().rev().skip(1).product::<i32>();
    x.dtype() == Dtype::Float32 && rows <= FEW && weights.iter().all(|w| takes_packed(x, w))
}

/// The arrays of a packed matrix.
pub(super) fn parts(w: &Quantized) -> [&Array; 3] {
    [&w.weight, &w.scales, w.biases.as_ref().unwrap_or(&w.scales)]
}

/// Columns of a packed matrix.
pub(super) fn width(w: &Quantized) -> Result<i32> {
    Ok(w.scales.dim(-1)? * w.group_size)
}

/// How three matrices are packed, and room for more.
fn packings(weights: [&Quantized; 3]) -> Params {
    let [a, b, c] = weights.map(packing);
    [a, b, c, 0, 0, 0, 0, 0]
}

/// The matrix of these arrays, whose packing [`packings`] has told.
pub(super) fn matrix(packing: u64, w: &[View]) -> Seen<Packed<'_>> {
    let [codes, scales, biases] = w else {
        return Err(ARRAYS.into());
    };
    packed(packing, [codes, scales, biases])
}

/// `down(silu(gate(x)) · up(x))` for a few rows `x [.., k]` on the CPU; nothing where that is not so.
#[track_caller]
pub fn packed_mlp(
    x: &Array,
    gate: &Quantized,
    up: &Quantized,
    down: &Quantized,
) -> Option<Result<Array>> {
    let weights = [gate, up, down];
    let fits = || {
        let k = x.dim(-1)?;
        let (n, inner) = (gate.weight.dim(0)?, up.weight.dim(0)?);
        let sides = [width(gate)?, width(up)?] == [k, k] && [inner, width(down)?] == [n, n];
        Ok::<_, super::Error>(sides)
    };
    if !takes(x, weights) || !matches!(fits(), Ok(true)) {
        return None;
    }
    let run = || {
        let mut shape = x.shape();
        if let Some(last) = shape.last_mut() {
            *last = down.weight.dim(0)?;
        }
        let mut inputs = vec![x];
        inputs.extend(weights.iter().flat_map(|w| parts(w)));
        let out = (&shape[..], Dtype::Float32);
        call_one::<Mlp>("packed_mlp", &inputs, out, packings(weights))
    };
    Some(run())
}

struct Mlp;

impl Function for Mlp {
    const NAME: &'static CStr = c"PackedMlp";

    fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([x, weights @ ..], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let [gate, up, down] = [0, 3, 6].map(|i| {
            let w = weights.get(i..i + 3).ok_or(ARRAYS)?;
            matrix(params[i / 3], w)
        });
        let (gate, up, down) = (gate?, up?, down?);
        let x = x.slice::<f32>()?;
        let m = x.len().checked_div(gate.cols).unwrap_or(0);
        let n = m * gate.rows;
        let mut room = ROOM.take();
        room.resize(room.len().max(3 * n), 0.0);
        let (gates, rest) = room[..3 * n].split_at_mut(n);
        let (ups, fed) = rest.split_at_mut(n);
        let products = [(&gate, FloatsMut::F32(gates)), (&up, FloatsMut::F32(ups))];
        kernels::packed_matmuls(Floats::F32(x), m, products);
        kernels::swiglu(Floats::F32(gates), Floats::F32(ups), FloatsMut::F32(fed));
        kernels::packed_matmul(Floats::F32(fed), m, &down, FloatsMut::F32(out.slice()?));
        ROOM.set(room);
        Ok(())
    }
}

/// What becomes of projected heads before attention.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// Features of a head.
    pub head_dim: i32,
    /// Scales `[head_dim]` of each head's norm and what is added to its mean square: of queries and keys.
    pub norms: Option<[(Option<&'a Array>, f32); 2]>,
    /// How queries and keys turn.
    pub rope: Option<Turning<'a>>,
}

/// A rotary embedding; see [`super::rope`].
#[derive(Clone, Copy, Debug)]
pub struct Turning<'a> {
    /// Features that turn.
    pub dims: i32,
    /// Whether neighbours turn together.
    pub traditional: bool,
    /// Where angles come from.
    pub freqs: &'a RopeFreqs,
    /// Positions are multiplied by it.
    pub scale: f32,
    /// The first position of all rows, or of each, int32 `[B]`.
    pub start: std::result::Result<i32, &'a Array>,
}

const NORMS: u64 = 1;
const ROPE: u64 = 2;
const STARTS: u64 = 4;
const TABLE: u64 = 8;
const TRADITIONAL: u64 = 16;

/// Queries `[B, H, L, D]`, and keys and values `[B, K, L, D]`, of a few rows `x [B, L, k]` on the CPU:
/// projected, normalised and turned. Nothing where that is not so.
#[track_caller]
pub fn packed_heads(
    x: &Array,
    weights: [&Quantized; 3],
    heading: &Heading,
) -> Option<Result<[Array; 3]>> {
    let &[b, l, k] = &x.shape()[..] else {
        return None;
    };
    let d = heading.head_dim;
    let mut heads = [0; 3];
    for (heads, w) in heads.iter_mut().zip(weights) {
        let n = w.weight.dim(0).ok()?;
        *heads = n.checked_div(d).filter(|heads| heads * d == n)?;
        (width(w).ok()? == k).then_some(())?;
    }
    if !takes(x, weights) || b < 1 || l < 1 {
        return None;
    }
    let mut params = packings(weights);
    params[3] = d as u64;
    let mut inputs = vec![x];
    inputs.extend(weights.iter().flat_map(|w| parts(w)));
    if let Some(norms) = &heading.norms {
        for (i, (weight, eps)) in norms.iter().enumerate() {
            let weight = (*weight)?;
            (weight.dtype() == Dtype::Float32 && weight.shape() == [d]).then_some(())?;
            inputs.push(weight);
            params[4] |= bits(*eps) << (32 * i);
        }
        params[7] |= NORMS;
    }
    if let Some(turn) = &heading.rope {
        (turn.dims >= 0 && turn.dims % 2 == 0 && turn.dims <= d).then_some(())?;
        params[7] |= ROPE | if turn.traditional { TRADITIONAL } else { 0 };
        params[3] |= (turn.dims as u64) << 32;
        params[5] = bits(turn.scale);
        match turn.start {
            Ok(start) => params[6] = u64::from(start as u32),
            Err(starts) => {
                (starts.dtype() == Dtype::Int32).then_some(())?;
                params[7] |= STARTS;
                inputs.push(starts);
            }
        }
        match turn.freqs {
            RopeFreqs::Base(base) if *base > 0.0 => params[5] |= bits(*base) << 32,
            RopeFreqs::Base(_) => return None,
            RopeFreqs::Table(table) => {
                let fits = table.dtype() == Dtype::Float32 && table.shape() == [turn.dims / 2];
                fits.then_some(())?;
                params[7] |= TABLE;
                inputs.push(table);
            }
        }
    }
    let shapes = heads.map(|h| [b, h, l, d]);
    let outputs = shapes.each_ref().map(|shape| (&shape[..], Dtype::Float32));
    let made = call::<ToHeads>("packed_heads", &inputs, &outputs, params);
    Some(made.and_then(|made| {
        let missing = |_| super::Error::new("packed_heads", &[x], "it returned fewer arrays");
        <[Array; 3]>::try_from(made).map_err(missing)
    }))
}

struct ToHeads;

impl Function for ToHeads {
    const NAME: &'static CStr = c"PackedHeads";

    fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let flags = params[7];
        let [x, rest @ ..] = inputs else {
            return Err(ARRAYS.into());
        };
        let (weights, rest) = rest.split_at_checked(9).ok_or(ARRAYS)?;
        let mut rest = rest.iter();
        let mut next = || rest.next().ok_or_else(|| String::from(ARRAYS));
        let mut norms = [None; 3];
        if flags & NORMS != 0 {
            for (i, norm) in norms[..2].iter_mut().enumerate() {
                let eps = float(params[4] >> (32 * i) & 0xffff_ffff);
                *norm = Some((floats(next()?)?, eps));
            }
        }
        let start = [params[6] as u32 as i32];
        let starts = match flags & STARTS {
            0 => &start[..],
            _ => next()?.slice::<i32>()?,
        };
        let turn = Turn {
            dims: (params[3] >> 32) as usize,
            traditional: flags & TRADITIONAL != 0,
            freqs: match flags & TABLE {
                0 => None,
                _ => Some(next()?.slice::<f32>()?),
            },
            base: float(params[5] >> 32),
            scale: float(params[5] & 0xffff_ffff),
        };
        let x = x.slice::<f32>()?;
        let [q, k, v] = [0, 1, 2].map(|i| matrix(params[i], &weights[3 * i..3 * i + 3]));
        let (q, k, v) = (q?, k?, v?);
        let m = x.len().checked_div(q.cols).unwrap_or(0);
        let [of_q, of_k, of_v] = [&q, &k, &v].map(|w| m * w.rows);
        let mut room = ROOM.take();
        let most = of_q.max(of_k);
        room.resize(room.len().max(of_q + of_k + of_v + most), 0.0);
        let (queries, rest) = room.split_at_mut(of_q);
        let (keys, rest) = rest.split_at_mut(of_k);
        let (values, rest) = rest.split_at_mut(of_v);
        let products = [
            (&q, FloatsMut::F32(queries)),
            (&k, FloatsMut::F32(keys)),
            (&v, FloatsMut::F32(values)),
        ];
        kernels::packed_matmuls(Floats::F32(x), m, products);
        for (i, (out, heads)) in outputs.iter_mut().zip([queries, keys, values]).enumerate() {
            let &[b, h, l, d] = out.shape() else {
                return Err(ARRAYS.into());
            };
            let shape = [b, h, l, d].map(|n| n as usize);
            let turn = (flags & ROPE != 0 && i < 2).then_some((&turn, starts));
            make_ready(heads, shape, norms[i], turn, rest, out.slice()?);
        }
        ROOM.set(room);
        Ok(())
    }
}

/// Projected heads `[B, L, H, D]` to `out [B, H, L, D]`, normalised and turned; `room` is as long.
pub(super) fn make_ready<'a>(
    mut heads: &'a [f32],
    shape: [usize; 4],
    norm: Option<(Floats, f32)>,
    turn: Option<(&Turn, &[i32])>,
    room: &'a mut [f32],
    out: &mut [f32],
) {
    let [_, h, l, d] = shape;
    if let Some((weight, eps)) = norm {
        let normed = &mut room[..heads.len()];
        let to = FloatsMut::F32(normed);
        kernels::rms_norm(Floats::F32(heads), d, Some(weight), eps, to);
        heads = normed;
    }
    if let Some((turn, starts)) = turn {
        let heads = Heads {
            data: heads,
            shape,
            strides: [l * h * d, d, h * d],
        };
        kernels::rope(heads, starts, turn, out);
        return;
    }
    for (i, to) in out.chunks_exact_mut(d).enumerate() {
        let from = i / (h * l) * l * h + i % l * h + i / l % h; // [B, L, H]
        to.copy_from_slice(&heads[from * d..][..d]);
    }
}

#[cfg(all(test, target_os = "linux"))]
#[path = "layers_tests.rs"]
mod tests;
