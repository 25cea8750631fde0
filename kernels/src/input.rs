//! `x` made ready for the inner loops: in tiles of rows, turned, in the order of the panels' columns,
//! and for [`Precision::Fast`] in 8 bits.

use crate::lanes::TALLEST;
use crate::panel::column;
use crate::simple::sum;
use crate::types::{Floats, Precision};

/// The most weights in a group, and columns converted at a time.
const PIECE: usize = 128;

/// Heights of tiles, the tallest first.
const HEIGHTS: [usize; 4] = [TALLEST, 4, 2, 1];

/// How weights and `x` meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Panels and tiles of rows of `x`: [`crate::tile`].
    Panels,
    /// Weights in blocks and rows of `x`, one by one: [`crate::blocked`].
    Blocks,
    /// Panels and whole rows of `x`: a [`crate::lanes::Unit`].
    Unit,
}

/// How `x` is to lie.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Rows.
    pub(crate) m: usize,
    /// Columns.
    pub(crate) k: usize,
    /// The tallest tile.
    pub(crate) tile: usize,
    /// Columns that are summed up: the weights' group, or 0 where no sums are wanted.
    pub(crate) group: usize,
    /// Codes in a byte of the weights: the order of the columns.
    pub(crate) per_byte: usize,
    /// Whether `x` becomes codes.
    pub(crate) precision: Precision,
    /// What it is made ready for: but for panels, tiles are a row tall.
    pub(crate) way: Way,
    /// Rows of a unit's tile.
    pub(crate) unit: usize,
    /// Rows that there is room for.
    pub(crate) room: usize,
}

/// Where the parts of a ready `x` are. Rows of a tile of height `M` that starts at row `first`:
/// * `values`: `[column][M]` floats from `first * k` on, or with codes `[quad][M]` words from
///   `first * k / 4` on;
/// * `steps` (codes only) and `totals`: `[group][M]` from `first * groups` on.
///
/// For a unit, tiles are as tall as it, and codes `[group][M][quad]`.
#[derive(Clone, Copy)]
pub(crate) struct Input {
    pub(crate) values: *mut f32,
    pub(crate) steps: *mut f32,
    pub(crate) totals: *mut f32,
}

impl Layout {
    /// Groups in a row.
    pub(crate) fn groups(&self) -> usize {
        match self.group {
            0 => 0,
            group => self.k / group,
        }
    }

    /// Where group `group` of row `row` is, in a unit's tiles.
    fn place(&self, row: usize, groups: usize, group: usize) -> usize {
        let within = row % self.unit;
        (row - within) * groups + group * self.unit + within
    }

    /// Floats that the values and each of the other two parts need.
    pub(crate) fn sizes(&self) -> [usize; 2] {
        let values = match self.precision {
            Precision::Fast => self.room * self.k / 4,
            Precision::Exact => self.room * self.k,
        };
        [values, self.room * self.groups()]
    }
}

/// The tiles of rows `from` to `to`, each its first row and height, none above `tallest`. What is cut
/// at a multiple of `tallest` is cut there by whole rows too.
pub(crate) fn tiles(
    tallest: usize,
    from: usize,
    to: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let mut next = from;
    std::iter::from_fn(move || {
        let height = height(tallest, to - next)?;
        next += height;
        Some((next - height, height))
    })
}

fn height(tallest: usize, left: usize) -> Option<usize> {
    let fits = |height: &&usize| **height <= tallest.min(left);
    HEIGHTS.iter().find(fits).copied()
}

/// Makes one tile ready: `height` rows from `first` on.
///
/// # Safety
/// `to` has the room that [`Layout::sizes`] says, and no one else uses the tile's part of it.
#[inline(always)]
pub(crate) unsafe fn tile(x: Floats, layout: &Layout, first: usize, height: usize, to: &Input) {
    let (k, groups) = (layout.k, layout.groups());
    let piece = if layout.group > 0 {
        layout.group
    } else {
        PIECE
    };
    let mut floats = [0f32; PIECE];
    let mut codes = [0i8; PIECE];
    for r in 0..height {
        for start in (0..k).step_by(piece) {
            let width = piece.min(k - start);
            let floats = x.part((first + r) * k + start, &mut floats[..width]);
            let group = match layout.way {
                Way::Unit => layout.place(first, groups, start / piece),
                _ => first * groups + start / piece * height + r,
            };
            // SAFETY: all indices are below the sizes: columns below `k`, groups below `groups`.
            unsafe {
                if layout.precision == Precision::Exact {
                    let values = to.values.add(first * k + start * height + r);
                    place(floats, layout.per_byte, |at, value| {
                        *values.add(at * height) = value;
                    });
                    if layout.group > 0 {
                        *to.totals.add(group) = sum(floats);
                    }
                    continue;
                }
                let codes = &mut codes[..width];
                let (step, total) = quantize(floats, codes);
                *to.steps.add(group) = step;
                *to.totals.add(group) = total;
                let words = to.values.cast::<i32>().add(first * k / 4 + r);
                let quad = start / 4;
                match layout.way {
                    Way::Unit => {
                        let words = to.values.cast::<i32>();
                        let words = words.add(group * (piece / 4));
                        quads(codes, layout.per_byte, |at, word| *words.add(at) = word);
                    }
                    Way::Panels | Way::Blocks => quads(codes, layout.per_byte, |at, word| {
                        *words.add((quad + at) * height) = word;
                    }),
                }
            }
        }
    }
}

/// Gives each of the values its place in the panels' order.
#[inline(always)]
fn place<T: Copy>(values: &[T], per_byte: usize, mut put: impl FnMut(usize, T)) {
    match per_byte {
        1 => values.iter().enumerate().for_each(|(at, v)| put(at, *v)),
        _ if values.len().is_multiple_of(4 * per_byte) => {
            for quad in 0..values.len() / 4 {
                for i in 0..4 {
                    put(4 * quad + i, values[column(per_byte, quad, i)]);
                }
            }
        }
        _ => unreachable!("groups are multiples of 32"),
    }
}

/// Gives each quad of codes its number, in the panels' order.
#[inline(always)]
fn quads(codes: &[i8], per_byte: usize, mut put: impl FnMut(usize, i32)) {
    if per_byte == 2 {
        // Eight codes are two quads: the even ones and the odd ones.
        for (pair, eight) in codes.chunks_exact(8).enumerate() {
            let mut bytes = u64::from_le_bytes(std::array::from_fn(|i| eight[i] as u8));
            // The inner two bytes of each half change places, then the inner two pairs.
            let inner = (bytes ^ bytes >> 8) & 0x0000_ff00_0000_ff00;
            bytes ^= inner | inner << 8;
            let inner = (bytes ^ bytes >> 16) & 0xffff_0000;
            bytes ^= inner | inner << 16;
            put(2 * pair, bytes as i32);
            put(2 * pair + 1, (bytes >> 32) as i32);
        }
        return;
    }
    for quad in 0..codes.len() / 4 {
        let code = |i| codes[column(per_byte, quad, i)] as u8;
        put(quad, i32::from_le_bytes([0, 1, 2, 3].map(code)));
    }
}

/// Rounds to `codes` of `[-127, 127]`: what one is worth, and what they come to in total. Numbers
/// that are not finite make both not a number.
#[inline(always)]
fn quantize(values: &[f32], codes: &mut [i8]) -> (f32, f32) {
    // The bits of magnitudes are in the order of the magnitudes, those of NaN above all.
    let largest = values
        .iter()
        .fold(0, |most: u32, v| most.max(v.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        codes.fill(0);
        return (f32::NAN, f32::NAN);
    }
    // Where the inverse would not be finite, 0 is near enough.
    if largest < 1e-35 {
        codes.fill(0);
        return (0.0, 0.0);
    }
    let inverse = 127.0 / largest;
    let mut total = 0i32;
    for (code, value) in codes.iter_mut().zip(values) {
        let rounded = (value * inverse).round_ties_even();
        // SAFETY: the magnitude is at most 127 and a rounding error.
        let rounded: i32 = unsafe { rounded.to_int_unchecked() };
        *code = rounded as i8;
        total += rounded;
    }
    let step = largest / 127.0;
    (step, step * total as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_all_rows() {
        for tallest in [4, 12] {
            for m in 0..60 {
                let mut next = 0;
                for (first, height) in tiles(tallest, 0, m) {
                    assert_eq!(first, next);
                    assert!(height <= tallest);
                    next += height;
                }
                assert_eq!(next, m);
            }
        }
    }

    #[test]
    fn codes_are_near_and_what_is_not_finite_stays_so() {
        let values: Vec<f32> = (0..64).map(|i| (i as f32 - 20.0) * 0.37).collect();
        let mut codes = [0; 64];
        let (step, total) = quantize(&values, &mut codes);
        let mut sum = 0.0;
        for (value, code) in values.iter().zip(codes) {
            assert!((value - step * f32::from(code)).abs() <= step * 0.501);
            sum += f64::from(step) * f64::from(code);
        }
        assert!((f64::from(total) - sum).abs() < 1e-4);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = values.clone();
            values[7] = bad;
            assert!(quantize(&values, &mut codes).0.is_nan());
        }
        assert_eq!(quantize(&[0.0; 64], &mut codes), (0.0, 0.0));
        assert_eq!(quantize(&[1e-40; 64], &mut codes), (0.0, 0.0));
    }
}
