//! Quantized weights: MLX's packed formats.

use std::borrow::Cow;
use std::ffi::CStr;
use std::fmt;

use super::cpu;
use super::error::check;
use super::fast::none;
use super::kernel::on_cuda;
use super::ops::op;
use super::runtime::stream;
use super::shape::ArrayVec;
use super::{Array, Dtype, Error, Result};
pub use crate::kernels::Order;

/// How groups of weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuantMode {
    /// `w = scale * q + bias` for each group; scales and biases in the weights' type.
    Affine,
    /// 4-bit floats, one shared exponent for 32 (OCP MX).
    Mxfp4,
    /// 8-bit floats, one shared exponent for 32 (OCP MX).
    Mxfp8,
    /// 4-bit floats, one 8-bit float scale for 16 (NVIDIA).
    Nvfp4,
}

impl QuantMode {
    /// All there are.
    pub const ALL: [QuantMode; 4] = [
        QuantMode::Affine,
        QuantMode::Mxfp4,
        QuantMode::Mxfp8,
        QuantMode::Nvfp4,
    ];

    /// Whether a matrix has `biases` beside its `scales`.
    pub fn has_biases(self) -> bool {
        self == QuantMode::Affine
    }

    /// The group sizes that MLX takes, the default first.
    pub fn group_sizes(self) -> &'static [usize] {
        match self {
            QuantMode::Affine => &[64, 32, 128],
            QuantMode::Mxfp4 | QuantMode::Mxfp8 => &[32],
            QuantMode::Nvfp4 => &[16],
        }
    }

    /// The widths in bits that MLX takes, the default first.
    pub fn widths(self) -> &'static [usize] {
        match self {
            QuantMode::Affine => &[4, 2, 3, 5, 6, 8],
            QuantMode::Mxfp4 | QuantMode::Nvfp4 => &[4],
            QuantMode::Mxfp8 => &[8],
        }
    }

    /// MLX's name for it.
    pub fn name(self) -> &'static str {
        match self {
            QuantMode::Affine => "affine",
            QuantMode::Mxfp4 => "mxfp4",
            QuantMode::Mxfp8 => "mxfp8",
            QuantMode::Nvfp4 => "nvfp4",
        }
    }

    fn c_name(self) -> &'static CStr {
        match self {
            QuantMode::Affine => c"affine",
            QuantMode::Mxfp4 => c"mxfp4",
            QuantMode::Mxfp8 => c"mxfp8",
            QuantMode::Nvfp4 => c"nvfp4",
        }
    }
}

impl fmt::Display for QuantMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A packed weight matrix and what unpacks it.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// uint32 `[out, in * bits / 32]`.
    pub weight: Array,
    /// `[out, in / group_size]`.
    pub scales: Array,
    /// Like `scales`; only [`QuantMode::Affine`] has them.
    pub biases: Option<Array>,
    /// Weights that share a scale.
    pub group_size: i32,
    /// Bits a weight takes.
    pub bits: i32,
    /// How they are packed.
    pub mode: QuantMode,
    /// How the parts' rows lie; MLX's operations take [`Order::Rows`] alone, which all here see to.
    pub order: Order,
}

impl Quantized {
    fn biases_raw(&self) -> mlx_sys::mlx_array {
        self.biases.as_ref().map_or(none(), Array::raw)
    }

    /// The type that its weights unpack to: that of the scales, or bfloat16 where scales are no
    /// numbers of their own.
    pub fn dtype(&self) -> Dtype {
        match self.biases {
            Some(_) => self.scales.dtype(),
            None => Dtype::Bfloat16,
        }
    }

    /// The bytes of all its parts.
    pub fn nbytes(&self) -> usize {
        let biases = self.biases.as_ref().map_or(0, Array::nbytes);
        self.weight.nbytes() + self.scales.nbytes() + biases
    }

    /// The same in the order in which this thread's device computes with it fastest.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn arranged(self) -> Result<Quantized> {
        Ok(cpu::in_blocks(&self)?.unwrap_or(self))
    }

    /// The same row by row.
    pub fn by_rows(&self) -> Result<Cow<'_, Quantized>> {
        if self.order == Order::Rows {
            return Ok(Cow::Borrowed(self));
        }
        let tall = Order::TALL as i32;
        let rows = self.each_part(|part| {
            let (n, width) = (part.dim(-2)?, part.dim(-1)?);
            let in_blocks = n - n % tall;
            let blocks = part.slice_axis(-2, 0, in_blocks)?;
            let turned = blocks.reshape(&[-1, width, tall])?.swap_last()?;
            let rows = turned.reshape(&blocks.shape())?;
            match in_blocks == n {
                true => Ok(rows),
                false => Array::concatenate(&[&rows, &part.slice_axis(-2, in_blocks, n)?], -2),
            }
        })?;
        Ok(Cow::Owned(Quantized {
            order: Order::Rows,
            ..rows
        }))
    }

    /// The same change made to all parts, row by row. It must treat rows alike: the last dimensions differ.
    pub fn map(&self, change: impl Fn(&Array) -> Result<Array>) -> Result<Quantized> {
        self.by_rows()?.each_part(change)
    }

    /// The same change made to all parts in the order in which they lie.
    pub(super) fn each_part(&self, change: impl Fn(&Array) -> Result<Array>) -> Result<Quantized> {
        Ok(Quantized {
            weight: change(&self.weight)?,
            scales: change(&self.scales)?,
            biases: self.biases.as_ref().map(change).transpose()?,
            ..*self
        })
    }

    /// The rows at `indices`, packed as before.
    #[track_caller]
    pub fn take(&self, indices: &Array) -> Result<Quantized> {
        self.map(|part| part.take(indices, 0))
    }
}

fn some(value: i32) -> mlx_sys::mlx_optional_int {
    mlx_sys::mlx_optional_int {
        value,
        has_value: true,
    }
}

/// A way of computing `x · wᵀ` with a packed matrix. All give the same up to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    /// Our kernels, on a CPU.
    Kernel,
    /// MLX's product, which reads the matrix packed.
    Packed,
    /// Unpacking for this product, and MLX's ordinary one.
    Unpack,
}

impl Way {
    /// All there are.
    pub const ALL: [Way; 3] = [Way::Kernel, Way::Packed, Way::Unpack];

    /// Its name, for people and files.
    pub fn name(self) -> &'static str {
        match self {
            Way::Kernel => "kernel",
            Way::Packed => "packed",
            Way::Unpack => "unpack",
        }
    }

    /// Whether it can compute this.
    pub fn takes(self, x: &Array, w: &Quantized) -> Result<bool> {
        if w.order != Order::Rows {
            return Ok(self == Way::Kernel && cpu::takes_packed(x, w));
        }
        Ok(match self {
            Way::Kernel => cpu::takes_packed(x, w),
            // On CUDA MLX 0.32.2 computes nonsense with rows of a single group (seen on an H200).
            Way::Packed => !on_cuda() || w.scales.dim(-1)? > 1,
            Way::Unpack => true,
        })
    }

    /// The one that is taken where nothing was measured: as measured on an H200, where MLX is slower with
    /// a packed matrix than with one that it unpacks first from some number of rows on.
    pub fn usual(x: &Array, w: &Quantized) -> Result<Way> {
        if cpu::takes_packed(x, w) {
            return Ok(Way::Kernel);
        }
        if !on_cuda() {
            return Ok(Way::Packed);
        }
        let groups = w.scales.dim(-1)?;
        let tall = w.scales.dim(-2)? > groups * w.group_size;
        let rows = rows_of(x);
        let unpacks = groups == 1 || rows >= 128 || (rows >= 8 && !tall);
        Ok(if unpacks { Way::Unpack } else { Way::Packed })
    }
}

/// How many vectors of the last dimension `x` holds.
fn rows_of(x: &Array) -> usize {
    let shape = x.shape();
    let leading = shape.split_last().map_or(&[][..], |(_, leading)| leading);
    leading.iter().map(|&n| n as usize).product()
}

/// The unpacked matrix in `x`'s type, in which it is computed too: scales of a shorter type would
/// round each weight.
fn unpack_for(x: &Array, w: &Quantized) -> Result<Array> {
    let dtype = x.dtype();
    if w.biases.is_none() || w.scales.dtype() == dtype {
        return dequantize(w, dtype);
    }
    let wider = Quantized {
        weight: w.weight.clone(),
        scales: w.scales.astype(dtype)?,
        biases: w.biases.as_ref().map(|b| b.astype(dtype)).transpose()?,
        ..*w
    };
    dequantize(&wider, dtype)
}

/// `x · wᵀ` with a packed `w`, the usual way; without `transpose` `x · w`.
#[track_caller]
pub fn quantized_matmul(x: &Array, w: &Quantized, transpose: bool) -> Result<Array> {
    match transpose {
        true => quantized_matmul_by(Way::usual(x, w)?, x, w),
        // There MLX has no kernel for it.
        false if on_cuda() => flat(x, w, |x| x.matmul(&unpack_for(x, w)?)),
        false => flat(x, w, |x| packed_matmul(x, w, false)),
    }
}

/// `x · wᵀ` by a way that [takes](Way::takes) it.
#[track_caller]
pub fn quantized_matmul_by(way: Way, x: &Array, w: &Quantized) -> Result<Array> {
    match way {
        Way::Kernel => cpu::times_packed(x, w),
        Way::Packed => flat(x, w, |x| packed_matmul(x, w, true)),
        Way::Unpack => flat(x, w, |x| x.matmul(&unpack_for(x, w)?.swap_last()?)),
    }
}

/// The product of all of `x`'s rows together with a `w` of two dimensions: MLX on CUDA would read it once
/// for each of `x`'s leading dimensions.
fn flat(x: &Array, w: &Quantized, product: impl Fn(&Array) -> Result<Array>) -> Result<Array> {
    let mut shape = x.shape();
    if w.weight.ndim() != 2 || shape.len() <= 2 || rows_of(x) <= 1 {
        return product(x);
    }
    let y = product(&x.reshape(&[-1, x.dim(-1)?])?)?;
    shape.pop();
    shape.push(y.dim(-1)?);
    y.reshape(&shape)
}

#[track_caller]
fn packed_matmul(x: &Array, w: &Quantized, transpose: bool) -> Result<Array> {
    let w = w.by_rows()?;
    op!(
        "quantized_matmul",
        [x, &w.weight, &w.scales],
        mlx_quantized_matmul(
            x.raw(),
            w.weight.raw(),
            w.scales.raw(),
            w.biases_raw(),
            transpose,
            some(w.group_size),
            some(w.bits),
            w.mode.c_name().as_ptr(),
        )
    )
}

/// For each index the product of `x`'s matrix and the transpose of the packed one that `indices`
/// names among `w`'s `[E, out, in]`; as [`Array::gather_mm`].
#[track_caller]
pub fn gather_qmm(x: &Array, w: &Quantized, indices: &Array, sorted: bool) -> Result<Array> {
    if cpu::takes_experts_packed(x, w, indices) {
        return cpu::experts_packed(x, w, indices);
    }
    let w = w.by_rows()?;
    if !Way::Packed.takes(x, &w)? {
        let dense = unpack_for(x, &w)?;
        return x.gather_mm(&dense.swap_last()?, indices, sorted);
    }
    op!(
        "gather_qmm",
        [x, &w.weight, &w.scales, indices],
        mlx_gather_qmm(
            x.raw(),
            w.weight.raw(),
            w.scales.raw(),
            w.biases_raw(),
            none(),
            indices.raw(),
            true,
            some(w.group_size),
            some(w.bits),
            w.mode.c_name().as_ptr(),
            sorted,
        )
    )
}

/// The rows `ids [..]` (uint32) of a packed `w [n, k]`, unpacked to `dtype`: `[.., k]`.
#[track_caller]
pub fn quantized_rows(ids: &Array, w: &Quantized, dtype: Dtype) -> Result<Array> {
    if ids.dtype() == Dtype::Uint32 && cpu::takes_rows(w, dtype) {
        return cpu::rows_packed(ids, w, dtype);
    }
    dequantize(&w.take(ids)?, dtype)
}

/// `x [.., k] · wᵀ` for `w [.., n, k]`; leading dimensions pair up or broadcast. `transposed` gives `wᵀ`
/// to those who need it.
#[track_caller]
pub fn dense_matmul<'a>(
    x: &Array,
    w: &Array,
    transposed: impl FnOnce() -> Result<&'a Array>,
) -> Result<Array> {
    if cpu::takes_dense(x, w) {
        return cpu::times_dense(x, w);
    }
    x.matmul(transposed()?)
}

/// For each of `indices [..]` the product of its `x [.., m, k]` and the transpose of the matrix that it
/// names in `w [E, n, k]`; as [`Array::gather_mm`].
#[track_caller]
pub fn gather_dense(x: &Array, w: &Array, indices: &Array, sorted: bool) -> Result<Array> {
    if cpu::takes_experts_dense(x, w, indices) {
        return cpu::experts_dense(x, w, indices);
    }
    x.gather_mm(&w.swap_last()?, indices, sorted)
}

/// The numbers of 8-bit floats (e4m3, in uint8), as `dtype`.
#[track_caller]
pub fn from_fp8(x: &Array, dtype: Dtype) -> Result<Array> {
    op!("from_fp8", [x], mlx_from_fp8(x.raw(), dtype.raw()))
}

/// The unpacked matrix, as `dtype`.
#[track_caller]
pub fn dequantize(w: &Quantized, dtype: Dtype) -> Result<Array> {
    let w = w.by_rows()?;
    // Affine weights take the type of their scales; the cast comes after, as in mlx-lm.
    let target = mlx_sys::mlx_optional_dtype {
        value: dtype.raw(),
        has_value: w.mode != QuantMode::Affine,
    };
    op!(
        "dequantize",
        [&w.weight, &w.scales],
        mlx_dequantize(
            w.weight.raw(),
            w.scales.raw(),
            w.biases_raw(),
            some(w.group_size),
            some(w.bits),
            w.mode.c_name().as_ptr(),
            none(),
            target,
        )
    )?
    .astype(dtype)
}

/// Packs a matrix.
///
/// # Errors
/// If the mode does not support the bits or group size, or the last dimension is not a multiple of
/// the group.
#[track_caller]
pub fn quantize(w: &Array, mode: QuantMode, group_size: i32, bits: i32) -> Result<Quantized> {
    let op = "quantize";
    let stream = stream(op)?;
    let mut parts = ArrayVec::empty();
    // SAFETY: `parts` is a fresh vector that the call fills; the input is live.
    check(op, &[w], || unsafe {
        mlx_sys::mlx_quantize(
            parts.raw_mut(),
            w.raw(),
            some(group_size),
            some(bits),
            mode.c_name().as_ptr(),
            none(),
            stream,
        )
    })?;
    let mut parts = parts.arrays(op)?.into_iter();
    let (Some(weight), Some(scales)) = (parts.next(), parts.next()) else {
        return Err(Error::new(op, &[w], "mlx-c returned too few arrays"));
    };
    Ok(Quantized {
        weight,
        scales,
        biases: parts.next(),
        group_size,
        bits,
        mode,
        order: Order::Rows,
    })
}
