//! A row of `x` and weights as they lie in memory: for so few rows that turning the weights into a
//! panel would cost more than the product itself.
//!
//! Each row of weights meets `x` by itself; what neighbouring lanes come to is then summed up, for as
//! many rows at a time as there are lanes. Integer sums are exact and floats go the panels' way, so the
//! result is theirs, bit by bit.

use crate::lanes::{Lanes, MOST, Rows};
use crate::panel::fetch;
use crate::tile::Groups;

/// Columns of the largest group there is.
const LARGEST: usize = 128;

/// Whether weights of `bits` bits can be read so: bytes hold whole codes, and four lanes none of two
/// groups.
pub(crate) fn takes(bits: u8, group: usize) -> bool {
    matches!(bits, 2 | 4 | 8) && group * usize::from(bits) >= 128
}

/// Where quad `quad` of a row of `x` goes, in words: the weights' words are read `lanes` at a time, and
/// taken apart by shifts, so first the quads come that the lowest codes of those words meet. Both numbers
/// are powers of two: this is done for each quad of `x`, and divisions would take longer than the rest.
#[inline(always)]
pub(crate) fn place(lanes: usize, per_byte: usize, quad: usize) -> usize {
    let within = quad & (lanes * per_byte - 1);
    quad - within + (within & (per_byte - 1)) * lanes + (within >> per_byte.trailing_zeros())
}

/// Columns that a vector of codes holds: rows of `x` are a multiple of it long.
pub(crate) const fn chunk(lanes: usize, per_byte: usize) -> usize {
    4 * lanes * per_byte
}

/// Adds what `cols` columns from `start` on come to, for a block of rows.
///
/// # Safety
/// The processor has what `S` needs; [`takes`] does; `start` is a multiple of [`chunk`]; the rows have
/// the columns, `x` is good for them in [`place`]'s order up to a whole chunk, `steps` and `totals` for
/// `[group]` and `sums` for `[N]`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn fast<S: Lanes, const BITS: usize, const WIDE: bool>(
    rows: &Rows,
    (start, cols, ahead): (usize, usize, Option<usize>),
    groups: Groups,
    x: *const u8,
    steps: *const f32,
    totals: *const f32,
    sums: *mut f32,
) {
    let (vector, group) = (4 * S::N, 4 * groups.quads);
    let chunk = chunk(S::N, 8 / BITS);
    // Chunks until sums are whole, which is known beforehand if one holds the largest group; groups in
    // them, and vectors of quads to each.
    let chunks = match chunk >= LARGEST {
        true => 1,
        false => (group / chunk).max(1),
    };
    let whole = (chunk / group).max(1);
    let quads = S::N / 4 / whole;
    let end = (start + cols) * BITS / 8;
    // SAFETY: the caller's promise; no bytes from `end` on are read.
    unsafe {
        let mut sum = S::load(sums);
        let (mut x, mut at, mut group) = (x, start * BITS / 8, 0);
        while at < end {
            let left = end - at;
            let parts = match left >= vector {
                true => step::<S, BITS, WIDE, true>(rows, at, (left, ahead), chunks, x),
                false => step::<S, BITS, WIDE, false>(rows, at, (left, ahead), chunks, x),
            };
            x = x.add(chunks * chunk);
            at += chunks * vector;
            for first in (0..S::N / 4).step_by(quads) {
                if group == groups.count {
                    break;
                }
                let mut dot = parts[first];
                for part in &parts[first + 1..first + quads] {
                    dot = S::plus(dot, *part);
                }
                let scale = S::load(groups.scales.add(group * S::N));
                let bias = S::load(groups.biases.add(group * S::N));
                let step = S::splat(*steps.add(group));
                let total = S::splat(*totals.add(group));
                sum = S::fma(S::to_float(dot), S::mul(scale, step), sum);
                sum = S::fma(bias, total, sum);
                group += 1;
            }
        }
        S::store(sums, sum);
    }
}

/// What `chunks` vectors of codes of each row from byte `at` on and as many chunks of `x` come to, as
/// [`Lanes::quads`] has it; `FULL` where as many bytes are left.
#[inline(always)]
unsafe fn step<S: Lanes, const BITS: usize, const WIDE: bool, const FULL: bool>(
    rows: &Rows,
    at: usize,
    (left, ahead): (usize, Option<usize>),
    chunks: usize,
    x: *const u8,
) -> [S::I; MOST / 4] {
    let (vector, chunk) = (4 * S::N, chunk(S::N, 8 / BITS));
    // SAFETY: the caller's promise.
    unsafe {
        let mut dots = [S::zero(); MOST];
        for i in 0..chunks {
            let (at, x) = (at + i * vector, x.add(i * chunk));
            for (dot, row) in dots.iter_mut().zip(rows.0).take(S::N) {
                let w = match FULL {
                    true => S::load_bytes(row.add(at)),
                    false => S::load_part(row.add(at), left),
                };
                *dot = meet::<S, BITS, WIDE>(*dot, w, x);
            }
            if let Some(ahead) = ahead {
                fetch::<S>(rows, at + ahead);
            }
        }
        // Two lanes of one chunk are 16 products of 4 bits and 7, or 32 of 2 bits and 7.
        match BITS < 8 && chunk >= LARGEST {
            true => S::quads::<true>(&dots),
            false => S::quads::<false>(&dots),
        }
    }
}

/// A vector of codes and a chunk of `x`.
#[inline(always)]
unsafe fn meet<S: Lanes, const BITS: usize, const WIDE: bool>(
    dot: S::I,
    w: S::I,
    x: *const u8,
) -> S::I {
    let field = |i: usize| x.wrapping_add(4 * S::N * i);
    // SAFETY: the caller's promise.
    unsafe {
        match BITS {
            2 => {
                let dot = S::dot::<false>(dot, S::field::<0>(w, 0x0303_0303), S::load_bytes(x));
                let x1 = S::load_bytes(field(1));
                let dot = S::dot::<false>(dot, S::field::<2>(w, 0x0303_0303), x1);
                let x2 = S::load_bytes(field(2));
                let dot = S::dot::<false>(dot, S::field::<4>(w, 0x0303_0303), x2);
                let x3 = S::load_bytes(field(3));
                S::dot::<false>(dot, S::field::<6>(w, 0x0303_0303), x3)
            }
            4 => {
                let dot = S::dot::<false>(dot, S::field::<0>(w, 0x0f0f_0f0f), S::load_bytes(x));
                let x1 = S::load_bytes(field(1));
                S::dot::<false>(dot, S::field::<4>(w, 0x0f0f_0f0f), x1)
            }
            _ => S::dot::<WIDE>(dot, w, S::load_bytes(x)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quad_has_a_place() {
        for lanes in [4, 8, 16] {
            for per_byte in [1, 2, 4] {
                let n = 2 * lanes * per_byte;
                let mut places: Vec<usize> = (0..n).map(|q| place(lanes, per_byte, q)).collect();
                places.sort_unstable();
                assert_eq!(places, (0..n).collect::<Vec<_>>());
            }
        }
        // Two codes a byte: even quads are the low halves of the words.
        assert_eq!([0, 1, 2, 3].map(|q| place(4, 2, q)), [0, 4, 1, 5]);
    }
}
