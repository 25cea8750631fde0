//! What is done to each row or number: norms, gates, exponentials. Plain loops that the compiler
//! makes vectors of, for whichever instructions it is told.

use std::ops::Range;

use crate::product::Out;
use crate::types::{Floats, to_bf16, to_f16};

/// Numbers that are read, changed and written at a time.
const PIECE: usize = 256;

/// Numbers of a gate that make a part of a job.
pub(crate) const GATE: usize = 4096;

/// `e^x` for `x` of at most 0, to within 1e-7 of it; 0 below -87, NaN for NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves an integer in the lowest bits.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    // ln 2 in two parts: the product with the first is exact.
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut y = 1.984_127e-4f32;
    for term in [
        1.388_888_9e-3,
        8.333_333e-3,
        4.166_666_6e-2,
        1.666_666_7e-1,
        0.5,
        1.0,
        1.0,
    ] {
        y = y.mul_add(r, term);
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { y * power }
}

/// The sum, in an order that vectors can follow.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    let mut parts = [0f32; 16];
    for values in values.chunks(16) {
        for (part, value) in parts.iter_mut().zip(values) {
            *part += value;
        }
    }
    fold(parts)
}

#[inline(always)]
fn fold(mut parts: [f32; 16]) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            parts[i] += parts[i + width];
        }
    }
    parts[0]
}

/// Rows to norm.
pub(crate) struct Norm<'a> {
    pub(crate) x: Floats<'a>,
    pub(crate) width: usize,
    pub(crate) weight: Option<Floats<'a>>,
    pub(crate) eps: f32,
    pub(crate) out: Out,
}

// SAFETY: threads write disjoint rows of `out`.
unsafe impl Sync for Norm<'_> {}

/// Numbers to gate.
pub(crate) struct Gate<'a> {
    pub(crate) gate: Floats<'a>,
    pub(crate) up: Floats<'a>,
    pub(crate) out: Out,
}

// SAFETY: threads write disjoint pieces of `out`.
unsafe impl Sync for Gate<'_> {}

/// Norms rows `rows`.
///
/// # Safety
/// Lengths are checked; no one else works on these rows.
#[inline(always)]
pub(crate) unsafe fn norm(job: &Norm, rows: Range<usize>) {
    let (mut x, mut w) = ([0f32; PIECE], [1f32; PIECE]);
    for row in rows {
        let base = row * job.width;
        let mut parts = [0f32; 16];
        for start in (0..job.width).step_by(PIECE) {
            let room = &mut x[..PIECE.min(job.width - start)];
            for x in job.x.part(base + start, room).chunks(16) {
                for (part, x) in parts.iter_mut().zip(x) {
                    *part = x.mul_add(*x, *part);
                }
            }
        }
        let scale = 1.0 / (fold(parts) / job.width as f32 + job.eps).sqrt();
        for start in (0..job.width).step_by(PIECE) {
            let x = &mut x[..PIECE.min(job.width - start)];
            job.x.read(base + start, x);
            let w = match &job.weight {
                Some(weight) => weight.part(start, &mut w[..x.len()]),
                None => &w[..x.len()],
            };
            for (x, w) in x.iter_mut().zip(w) {
                *x = *x * scale * w;
            }
            // SAFETY: within the row.
            unsafe { write(job.out, base + start, x) };
        }
    }
}

/// Gates pieces `pieces` of [`GATE`] numbers: `silu(gate) * up`.
///
/// # Safety
/// Lengths are checked; no one else works on these pieces.
#[inline(always)]
pub(crate) unsafe fn gate(job: &Gate, pieces: Range<usize>) {
    let (mut gate, mut up) = ([0f32; PIECE], [0f32; PIECE]);
    let end = job.gate.len().min(pieces.end * GATE);
    for start in (pieces.start * GATE..end).step_by(PIECE) {
        let gate = &mut gate[..PIECE.min(end - start)];
        job.gate.read(start, gate);
        let up = job.up.part(start, &mut up[..gate.len()]);
        for (gate, up) in gate.iter_mut().zip(up) {
            // The exponential of a number below 0 cannot overflow.
            let e = exp(-gate.abs());
            let numerator = if *gate < 0.0 { e } else { 1.0 };
            *gate = *gate * (numerator / (1.0 + e)) * *up;
        }
        // SAFETY: within the pieces.
        unsafe { write(job.out, start, gate) };
    }
}

/// Writes `values` from `at` on, rounded to the type.
///
/// # Safety
/// `out` is that long, and no one else uses this part.
#[inline(always)]
pub(crate) unsafe fn write(out: Out, at: usize, values: &[f32]) {
    let values_at = values.iter().enumerate().map(|(i, value)| (at + i, *value));
    // SAFETY: the caller's promise.
    unsafe {
        match out {
            Out::F32(out) => values_at.for_each(|(i, value)| *out.add(i) = value),
            Out::F16(out) => values_at.for_each(|(i, value)| *out.add(i) = to_f16(value)),
            Out::BF16(out) => values_at.for_each(|(i, value)| *out.add(i) = to_bf16(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_near() {
        for i in 0..if cfg!(miri) { 50 } else { 87_000 } {
            let x = -(i as f32) / if cfg!(miri) { 0.6 } else { 1000.0 };
            let (found, wanted) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (found - wanted).abs() <= 2e-7 * wanted,
                "{x}: {found}, {wanted}"
            );
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }
}
