//! A row of `x` and weights as they lie in memory: for so few rows that turning the weights into a
//! panel would cost more than the product itself.
//!
//! Each row of weights meets `x` by itself; what neighbouring lanes come to is then summed up, for as
//! many rows at a time as there are lanes. Integer sums are exact and floats go the panels' way, so the
//! result is theirs, bit by bit.

use crate::lanes::{Lanes, MOST, Rows};
use crate::product::AHEAD;
use crate::tile::Groups;

/// Columns of the largest group there is.
const LARGEST: usize = 128;

/// Whether weights of `bits` bits can be read so: bytes hold whole codes, and four lanes none of two
/// groups.
pub(crate) fn takes(bits: u8, group: usize) -> bool {
    matches!(bits, 2 | 4 | 8) && group * usize::from(bits) >= 128
}

/// Writes the codes of columns `start` on of a row of `x` to where the weights' meet them: those are read
/// `lanes` words at a time, and a byte's lowest code first, so of [`chunk`] columns the first of every byte
/// come first, then the second.
///
/// # Safety
/// `codes` are a group, and `to` is good for whole chunks, from the row's first column on.
#[inline(always)]
pub(crate) unsafe fn place<const PER_BYTE: usize>(
    lanes: usize,
    codes: &[i8],
    start: usize,
    to: *mut i8,
) {
    let chunk = chunk(lanes, PER_BYTE);
    for (i, piece) in codes.chunks(chunk).enumerate() {
        let column = start + i * chunk;
        let within = column % chunk;
        for field in 0..PER_BYTE {
            let at = column - within + 4 * lanes * field + within / PER_BYTE;
            for (i, bytes) in piece.chunks_exact(PER_BYTE).enumerate() {
                // SAFETY: the caller's promise.
                unsafe { *to.add(at + i) = bytes[field] };
            }
        }
    }
}

/// Columns that a vector of codes holds: rows of `x` are a multiple of it long.
pub(crate) const fn chunk(lanes: usize, per_byte: usize) -> usize {
    4 * lanes * per_byte
}

/// Adds what `cols` columns from `start` on come to, for a block of rows; what follows in the rows is asked
/// for if `asks`.
///
/// # Safety
/// The processor has what `S` needs; [`takes`] does; `start` is a multiple of [`chunk`]; the rows have
/// the columns, `x` is good for them in [`place`]'s order up to a whole chunk, `steps` and `totals` for
/// `[group]` and `sums` for `[N]`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn fast<S: Lanes, const BITS: usize, const WIDE: bool>(
    rows: &Rows,
    columns: (usize, usize, bool),
    groups: Groups,
    x: *const u8,
    steps: *const f32,
    totals: *const f32,
    sums: *mut f32,
) {
    // As constants: how a vector's sums are shared among groups would else be found out for each.
    // SAFETY: passed on.
    unsafe {
        match 4 * groups.quads {
            32 => grouped::<S, BITS, WIDE, 32>(rows, columns, groups, x, steps, totals, sums),
            64 => grouped::<S, BITS, WIDE, 64>(rows, columns, groups, x, steps, totals, sums),
            _ => grouped::<S, BITS, WIDE, LARGEST>(rows, columns, groups, x, steps, totals, sums),
        }
    }
}

/// [`fast`] for groups of `GROUP` columns.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn grouped<S: Lanes, const BITS: usize, const WIDE: bool, const GROUP: usize>(
    rows: &Rows,
    (start, cols, asks): (usize, usize, bool),
    groups: Groups,
    x: *const u8,
    steps: *const f32,
    totals: *const f32,
    sums: *mut f32,
) {
    let vector = 4 * S::N;
    let chunk = chunk(S::N, 8 / BITS);
    // Chunks until sums are whole, which is known beforehand if one holds the largest group; groups in
    // them, and vectors of quads to each.
    let chunks = match chunk >= LARGEST {
        true => 1,
        false => (GROUP / chunk).max(1),
    };
    let whole = (chunk / GROUP).max(1);
    let quads = S::N / 4 / whole;
    let end = (start + cols) * BITS / 8;
    // SAFETY: the caller's promise; no bytes from `end` on are read.
    unsafe {
        let mut sum = S::load(sums);
        let (mut x, mut at, mut group) = (x, start * BITS / 8, 0);
        while at < end {
            let left = end - at;
            let parts = match (left >= vector, asks) {
                (true, true) => step::<S, BITS, WIDE, true, true>(rows, at, left, chunks, x),
                (true, false) => step::<S, BITS, WIDE, true, false>(rows, at, left, chunks, x),
                _ => step::<S, BITS, WIDE, false, false>(rows, at, left, chunks, x),
            };
            x = x.add(chunks * chunk);
            at += chunks * vector;
            for first in (0..whole).map(|i| i * quads) {
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
/// [`Lanes::quads`] has it; `FULL` where as many bytes are left. Where it `ASKS`, memory [`AHEAD`] is
/// asked for.
#[inline(always)]
unsafe fn step<
    S: Lanes,
    const BITS: usize,
    const WIDE: bool,
    const FULL: bool,
    const ASKS: bool,
>(
    rows: &Rows,
    at: usize,
    left: usize,
    chunks: usize,
    x: *const u8,
) -> [S::I; MOST / 4] {
    let (vector, chunk) = (4 * S::N, chunk(S::N, 8 / BITS));
    // SAFETY: the caller's promise; a prefetch may name any address.
    unsafe {
        let mut dots = [S::zero(); MOST];
        for i in 0..chunks {
            let (at, x) = (at + i * vector, x.add(i * chunk));
            for (dot, row) in dots.iter_mut().zip(rows.0).take(S::N) {
                let row = row.wrapping_add(at);
                let w = match FULL {
                    true => S::load_bytes(row),
                    false => S::load_part(row, left),
                };
                if ASKS {
                    S::prefetch(row.wrapping_add(AHEAD));
                }
                *dot = meet::<S, BITS, WIDE>(*dot, w, x);
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
    fn every_code_has_a_place() {
        fn placed<const PER_BYTE: usize>(lanes: usize) {
            let n = 2 * chunk(lanes, PER_BYTE);
            for group in [32, 64, 128] {
                let mut row = vec![-1; n.max(group)];
                for start in (0..n).step_by(group) {
                    let codes: Vec<i8> = (start..start + group)
                        .map(|column| (column / PER_BYTE % 64) as i8)
                        .collect();
                    // SAFETY: groups are whole bytes, and the row is whole chunks.
                    unsafe { place::<PER_BYTE>(lanes, &codes, start, row.as_mut_ptr()) };
                }
                // A byte of weights meets the same place of each field.
                for chunk in row.chunks(chunk(lanes, PER_BYTE)) {
                    let mut fields = chunk.chunks(4 * lanes);
                    let first = fields.next().unwrap();
                    assert!(fields.all(|field| field == first), "{chunk:?}");
                    assert!(first.windows(2).all(|w| (w[0] + 1) % 64 == w[1]));
                }
            }
        }
        for lanes in [4, 8, 16] {
            placed::<1>(lanes);
            placed::<2>(lanes);
            placed::<4>(lanes);
        }
    }
}
