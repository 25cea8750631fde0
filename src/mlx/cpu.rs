//! Products on the CPU by kernels of our own, inside MLX's graph.
//!
//! MLX's CPU backend computes an operation on one thread, and unpacks a matrix weight by weight. These
//! read a packed matrix as it is, on all threads. A row of a product does not depend on the rows beside
//! it, so a batch gives each sequence what it gets alone.

use std::ffi::CStr;

use super::call::{Computed, Function, Params, Seen, View, ViewMut, call_one, on_cpu};
use super::{Array, Dtype, Error, QuantMode, Quantized, Result};
use crate::kernels::{
    Floats, FloatsMut, Order, Packed, dense_matmul, packed_matmul, packed_rows, to_blocks,
};

/// Whether products on the CPU are computed here, so that packed and 16-bit matrices need not be
/// unpacked for them.
pub fn has_cpu_kernels() -> bool {
    cfg!(target_os = "linux")
}

/// Whether the kernels read and write numbers of this type.
pub(super) fn is_known(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16)
}

/// The type that MLX gives a product of two types of [`is_known`].
fn joint(a: Dtype, b: Dtype) -> Dtype {
    if a == b { a } else { Dtype::Float32 }
}

/// Whether this thread computes on the CPU and the kernels know how `w` is packed.
fn knows(w: &Quantized) -> bool {
    on_cpu()
        && w.mode == QuantMode::Affine
        && w.biases.as_ref().map(Array::dtype) == Some(w.scales.dtype())
        && is_known(w.scales.dtype())
        && matches!(w.group_size, 32 | 64 | 128)
        && (2..=8).contains(&w.bits)
}

/// Whether [`times_packed`] takes these.
pub(super) fn takes_packed(x: &Array, w: &Quantized) -> bool {
    knows(w) && w.weight.ndim() == 2 && x.ndim() > 0 && is_known(x.dtype())
}

/// Whether [`times_dense`] takes these.
pub(super) fn takes_dense(x: &Array, w: &Array) -> bool {
    on_cpu() && w.ndim() == 2 && x.ndim() > 0 && is_known(x.dtype()) && is_known(w.dtype())
}

/// Whether [`rows_packed`] takes these.
pub(super) fn takes_rows(w: &Quantized, dtype: Dtype) -> bool {
    knows(w) && w.weight.ndim() == 2 && is_known(dtype)
}

/// Whether `x` has a matrix for each of `indices`, or one that they share.
fn pair_up(x: &Array, indices: &Array) -> bool {
    is_known(x.dtype()) && x.ndim() == indices.ndim() + 2
}

/// Whether [`experts_packed`] takes these.
pub(super) fn takes_experts_packed(x: &Array, w: &Quantized, indices: &Array) -> bool {
    knows(w) && w.weight.ndim() == 3 && pair_up(x, indices)
}

/// Whether [`experts_dense`] takes these.
pub(super) fn takes_experts_dense(x: &Array, w: &Array, indices: &Array) -> bool {
    on_cpu() && w.ndim() == 3 && is_known(w.dtype()) && pair_up(x, indices)
}

/// `shape` with `n` as its last dimension.
fn widened(x: &Array, n: i32) -> Vec<i32> {
    let mut shape = x.shape();
    if let Some(last) = shape.last_mut() {
        *last = n;
    }
    shape
}

/// Refuses factors whose inner dimensions differ.
#[track_caller]
fn fits(op: &'static str, x: &Array, w: &Array, k: i32) -> Result<()> {
    match x.dim(-1)? {
        found if found == k => Ok(()),
        found => {
            let message = format!("rows have {found} features, the matrix takes {k}");
            Err(Error::new(op, &[x, w], message))
        }
    }
}

/// How a matrix is packed, for [`packed`]: in 16 bits, since some calls have many.
pub(super) fn packing(w: &Quantized) -> u64 {
    let blocks = u64::from(w.order == Order::Blocks);
    (w.bits as u64 & 0x7f) | blocks << 7 | (w.group_size as u64 & 0xff) << 8
}

/// `w` as the kernels like it best, in blocks of rows, in memory of its own; nothing where they do not
/// compute with it, or it is so already. It is evaluated.
#[track_caller]
pub(super) fn in_blocks(w: &Quantized) -> Result<Option<Quantized>> {
    let op = "packed_blocks";
    let (rows, words) = (w.weight.dim(-2)?, w.weight.dim(-1)?);
    // Of a stack each matrix is to be whole blocks.
    let whole = w.weight.ndim() == 2 || (rows as usize).is_multiple_of(Order::TALL);
    let suits = knows(w) && Order::best(w.bits as u8) == Order::Blocks && whole;
    if !suits || w.order == Order::Blocks || words == 0 || (rows as usize) < Order::TALL {
        return Ok(None);
    }
    let turned = w.each_part(|part| {
        let turned = call_one::<ToBlocks>(op, &[part], (&part.shape(), part.dtype()), [0; 8])?;
        turned.eval()?;
        Ok(turned)
    })?;
    Ok(Some(Quantized {
        order: Order::Blocks,
        ..turned
    }))
}

fn only(packing: u64) -> Params {
    [packing, 0, 0, 0, 0, 0, 0, 0]
}

/// `x [.., k] · wᵀ` with a packed `w [n, k]`: `[.., n]`.
#[track_caller]
pub(super) fn times_packed(x: &Array, w: &Quantized) -> Result<Array> {
    let op = "packed_matmul";
    let (k, n) = (w.scales.dim(-1)? * w.group_size, w.weight.dim(0)?);
    fits(op, x, &w.weight, k)?;
    let out = (&widened(x, n)[..], joint(x.dtype(), w.scales.dtype()));
    let biases = w.biases.as_ref().unwrap_or(&w.scales);
    call_one::<TimesPacked>(
        op,
        &[x, &w.weight, &w.scales, biases],
        out,
        only(packing(w)),
    )
}

/// `x [.., k] · wᵀ` with `w [n, k]`: `[.., n]`.
#[track_caller]
pub(super) fn times_dense(x: &Array, w: &Array) -> Result<Array> {
    let op = "dense_matmul";
    fits(op, x, w, w.dim(1)?)?;
    let out = (&widened(x, w.dim(0)?)[..], joint(x.dtype(), w.dtype()));
    call_one::<TimesDense>(op, &[x, w], out, [0; 8])
}

/// The rows of a packed `w [n, k]` that `ids [..]` (uint32) names: `[.., k]`, rounded once, to `dtype`.
#[track_caller]
pub(super) fn rows_packed(ids: &Array, w: &Quantized, dtype: Dtype) -> Result<Array> {
    let op = "packed_rows";
    let mut shape = ids.shape();
    shape.push(w.scales.dim(-1)? * w.group_size);
    let biases = w.biases.as_ref().unwrap_or(&w.scales);
    let inputs = [ids, &w.weight, &w.scales, biases];
    call_one::<RowsPacked>(op, &inputs, (&shape, dtype), only(packing(w)))
}

/// For each of `indices [..]` the product of its `x [.., m, k]`, whose leading dimensions broadcast to
/// theirs, and the transpose of the packed matrix that it names in `w [E, n, k]`: `[.., m, n]`.
#[track_caller]
pub(super) fn experts_packed(x: &Array, w: &Quantized, indices: &Array) -> Result<Array> {
    let op = "packed_experts";
    let (k, n) = (w.scales.dim(-1)? * w.group_size, w.weight.dim(1)?);
    fits(op, x, &w.weight, k)?;
    let (x, indices, shape) = paired(x, indices, n)?;
    let biases = w.biases.as_ref().unwrap_or(&w.scales);
    let out = (&shape[..], joint(x.dtype(), w.scales.dtype()));
    let inputs = [&x, &indices, &w.weight, &w.scales, biases];
    call_one::<ExpertsPacked>(op, &inputs, out, only(packing(w)))
}

/// The same with matrices `w [E, n, k]` that are not packed.
#[track_caller]
pub(super) fn experts_dense(x: &Array, w: &Array, indices: &Array) -> Result<Array> {
    let op = "dense_experts";
    fits(op, x, w, w.dim(2)?)?;
    let (x, indices, shape) = paired(x, indices, w.dim(1)?)?;
    let out = (&shape[..], joint(x.dtype(), w.dtype()));
    call_one::<ExpertsDense>(op, &[&x, &indices, w], out, [0; 8])
}

/// A matrix of `x` for each index, the indices as numbers of 32 bits, and the product's shape.
fn paired(x: &Array, indices: &Array, n: i32) -> Result<(Array, Array, Vec<i32>)> {
    let mut shape = indices.shape();
    shape.extend([x.dim(-2)?, x.dim(-1)?]);
    let x = x.broadcast_to(&shape)?;
    Ok((x.clone(), indices.astype(Dtype::Uint32)?, widened(&x, n)))
}

/// An input's numbers.
pub(super) fn floats(view: &View) -> Seen<Floats<'_>> {
    Ok(match view.dtype() {
        Some(Dtype::Float32) => Floats::F32(view.slice()?),
        Some(Dtype::Float16) => Floats::F16(view.slice()?),
        Some(Dtype::Bfloat16) => Floats::BF16(view.slice()?),
        other => return Err(format!("elements are {other:?}, not floats")),
    })
}

/// An output's numbers.
pub(super) fn floats_mut(view: &mut ViewMut) -> Seen<FloatsMut<'_>> {
    Ok(match view.dtype() {
        Some(Dtype::Float32) => FloatsMut::F32(view.slice()?),
        Some(Dtype::Float16) => FloatsMut::F16(view.slice()?),
        Some(Dtype::Bfloat16) => FloatsMut::BF16(view.slice()?),
        other => return Err(format!("elements are {other:?}, not floats")),
    })
}

/// Elements `from .. from + n`.
pub(super) fn part<'a>(all: &Floats<'a>, from: usize, n: usize) -> Seen<Floats<'a>> {
    let range = from..from.saturating_add(n);
    let part = match all {
        Floats::F32(all) => all.get(range).map(Floats::F32),
        Floats::F16(all) => all.get(range).map(Floats::F16),
        Floats::BF16(all) => all.get(range).map(Floats::BF16),
    };
    part.ok_or_else(|| format!("{n} numbers from {from} on, of {}", all.len()))
}

pub(super) fn part_mut<'a>(all: &'a mut FloatsMut, from: usize, n: usize) -> Seen<FloatsMut<'a>> {
    let (range, len) = (from..from.saturating_add(n), all.len());
    let part = match all {
        FloatsMut::F32(all) => all.get_mut(range).map(FloatsMut::F32),
        FloatsMut::F16(all) => all.get_mut(range).map(FloatsMut::F16),
        FloatsMut::BF16(all) => all.get_mut(range).map(FloatsMut::BF16),
    };
    part.ok_or_else(|| format!("{n} numbers from {from} on, of {len}"))
}

/// Rows that `view [.., k]` has, and `k`.
fn rows(shape: &[i32]) -> (usize, usize) {
    match shape.split_last() {
        Some((&k, leading)) => (leading.iter().map(|&n| n as usize).product(), k as usize),
        None => (1, 1),
    }
}

/// The matrix that codes, scales and biases make, whose packing [`packing`] has told.
pub(super) fn packed<'a>(packing: u64, [codes, scales, biases]: [&'a View; 3]) -> Seen<Packed<'a>> {
    let (bits, group_size) = (packing as u8 & 0x7f, (packing >> 8 & 0xff) as usize);
    let (rows, groups) = rows(scales.shape());
    Ok(Packed {
        codes: codes.slice()?,
        scales: floats(scales)?,
        biases: floats(biases)?,
        rows,
        cols: groups * group_size,
        bits,
        group_size,
        order: match packing >> 7 & 1 {
            0 => Order::Rows,
            _ => Order::Blocks,
        },
    })
}

struct ToBlocks;

impl Function for ToBlocks {
    const NAME: &'static CStr = c"PackedBlocks";

    fn run(_: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([from], [to]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let (_, width) = rows(from.shape());
        match from.dtype() {
            Some(Dtype::Uint32) => to_blocks(from.slice::<u32>()?, width, to.slice()?),
            Some(Dtype::Float32) => to_blocks(from.slice::<f32>()?, width, to.slice()?),
            _ => to_blocks(from.slice::<u16>()?, width, to.slice()?),
        }
        Ok(())
    }
}

/// Why a function refuses its inputs.
pub(super) const ARRAYS: &str = "it was given other arrays than it takes";

struct TimesPacked;

impl Function for TimesPacked {
    const NAME: &'static CStr = c"PackedMatmul";

    fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([x, codes, scales, biases], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let w = packed(params[0], [codes, scales, biases])?;
        packed_matmul(floats(x)?, rows(x.shape()).0, &w, floats_mut(out)?);
        Ok(())
    }
}

struct TimesDense;

impl Function for TimesDense {
    const NAME: &'static CStr = c"DenseMatmul";

    fn run(_: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([x, w], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let (n, k) = rows(w.shape());
        let m = rows(x.shape()).0;
        dense_matmul(floats(x)?, m, floats(w)?, n, k, floats_mut(out)?);
        Ok(())
    }
}

struct RowsPacked;

impl Function for RowsPacked {
    const NAME: &'static CStr = c"PackedRows";

    fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([ids, codes, scales, biases], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let w = packed(params[0], [codes, scales, biases])?;
        packed_rows(ids.slice()?, &w, floats_mut(out)?);
        Ok(())
    }
}

/// Calls `one` with each stretch of equal `indices`: the expert, the first one's place, how many.
fn each_stretch(indices: &[u32], mut one: impl FnMut(usize, usize, usize) -> Computed) -> Computed {
    let mut at = 0;
    while let Some(&expert) = indices.get(at) {
        let same = indices[at..].iter().take_while(|&&e| e == expert).count();
        one(expert as usize, at, same)?;
        at += same;
    }
    Ok(())
}

/// Numbers of each matrix of `x [.., m, k]`, and of `[.., m, n]`.
fn sizes(x: &View, out: &ViewMut) -> Seen<[usize; 4]> {
    match (x.shape(), out.shape()) {
        ([.., m, k], [.., n]) => {
            let [m, k, n] = [*m as usize, *k as usize, *n as usize];
            Ok([m, k, n, m * k])
        }
        _ => Err(ARRAYS.into()),
    }
}

struct ExpertsPacked;

impl Function for ExpertsPacked {
    const NAME: &'static CStr = c"PackedExperts";

    fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([x, indices, codes, scales, biases], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let [m, k, n, each] = sizes(x, out)?;
        let all = packed(params[0], [codes, scales, biases])?;
        let (words, groups) = (k / 32 * usize::from(all.bits), k / all.group_size);
        let (x, mut out) = (floats(x)?, floats_mut(out)?);
        each_stretch(indices.slice()?, |expert, at, same| {
            let first = expert.saturating_mul(n);
            let range = first.saturating_mul(words)..first.saturating_add(n).saturating_mul(words);
            let w = Packed {
                codes: all.codes.get(range).ok_or("there is no such expert")?,
                scales: part(&all.scales, first * groups, n * groups)?,
                biases: part(&all.biases, first * groups, n * groups)?,
                rows: n,
                ..all
            };
            let x = part(&x, at * each, same * each)?;
            let out = part_mut(&mut out, at * m * n, same * m * n)?;
            packed_matmul(x, same * m, &w, out);
            Ok(())
        })
    }
}

struct ExpertsDense;

impl Function for ExpertsDense {
    const NAME: &'static CStr = c"DenseExperts";

    fn run(_: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([x, indices, w], [out]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let [m, k, n, each] = sizes(x, out)?;
        let (x, all, mut out) = (floats(x)?, floats(w)?, floats_mut(out)?);
        each_stretch(indices.slice()?, |expert, at, same| {
            let w = part(&all, expert.saturating_mul(n * k), n * k)?;
            let x = part(&x, at * each, same * each)?;
            let out = part_mut(&mut out, at * m * n, same * m * n)?;
            dense_matmul(x, same * m, w, n, k, out);
            Ok(())
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
#[path = "cpu_tests.rs"]
mod tests;
