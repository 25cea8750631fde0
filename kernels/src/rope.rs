//! Rotary position embeddings.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::share;

/// Heads `[B, H, L, D]`, whose features lie side by side.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// From the first number to the last.
    pub data: &'a [f32],
    /// B, H, L and D.
    pub shape: [usize; 4],
    /// How far apart neighbours of B, H and L lie.
    pub strides: [usize; 3],
}

impl<'a> Heads<'a> {
    /// The features of one head at one position.
    #[inline(always)]
    fn at(&self, b: usize, h: usize, l: usize) -> &'a [f32] {
        let [of_b, of_h, of_l] = self.strides;
        &self.data[b * of_b + h * of_h + l * of_l..][..self.shape[3]]
    }
}

/// How features turn with their positions (Su et al., 2021).
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// Features that turn, the first ones; even.
    pub dims: usize,
    /// Whether neighbours turn together, else feature i and i + dims/2.
    pub traditional: bool,
    /// Wavelengths over 2π of each pair, `[dims / 2]`; from `base` if not given.
    pub freqs: Option<&'a [f32]>,
    /// Pair i's is `base^(2i / dims)`.
    pub base: f32,
    /// Positions are multiplied by it.
    pub scale: f32,
}

thread_local! {
    /// The cosines and sines of the last call on this thread: a layer's keys and the next layer want
    /// the same.
    static TABLE: RefCell<Table> = const { RefCell::new(Table::EMPTY) };
}

#[derive(Debug)]
struct Table {
    positions: Vec<i32>,
    freqs: Vec<f32>,
    constants: (usize, u32, u32),
    /// `[positions, pairs]`: cosine and sine.
    turns: Vec<(f32, f32)>,
}

impl Table {
    const EMPTY: Table = Table {
        positions: Vec::new(),
        freqs: Vec::new(),
        constants: (0, 0, 0),
        turns: Vec::new(),
    };

    fn fill(&mut self, turn: &Turn, positions: impl Iterator<Item = i32> + Clone) {
        let freqs = turn.freqs.unwrap_or(&[]);
        let constants = (turn.dims, turn.base.to_bits(), turn.scale.to_bits());
        let same = self.constants == constants
            && self.freqs == freqs
            && self.positions.iter().copied().eq(positions.clone());
        if same {
            return;
        }
        let pairs = turn.dims / 2;
        let speeds: Vec<f32> = match turn.freqs {
            Some(freqs) => freqs.iter().map(|freq| 1.0 / freq).collect(),
            None => (0..pairs)
                .map(|i| (-(i as f32) * (turn.base.ln() / pairs as f32)).exp())
                .collect(),
        };
        self.turns.clear();
        for position in positions.clone() {
            let position = position as f32 * turn.scale;
            let turns = speeds.iter().map(|speed| {
                let (sin, cos) = (position * speed).sin_cos();
                (cos, sin)
            });
            self.turns.extend(turns);
        }
        self.positions = positions.collect();
        self.freqs = freqs.to_vec();
        self.constants = constants;
    }
}

/// The heads turned, to `out [B, H, L, D]`. Positions of row b are `offsets[b]`, `offsets[b] + 1`, …;
/// one offset serves all rows.
///
/// # Panics
/// If a length disagrees.
pub fn rope(x: Heads, offsets: &[i32], turn: &Turn, out: &mut [f32]) {
    let [b, h, l, d] = x.shape;
    let pairs = turn.dims / 2;
    assert_eq!(out.len(), b * h * l * d, "rope: out is not [B, H, L, D]");
    assert!(turn.dims <= d && turn.dims.is_multiple_of(2), "rope: dims");
    assert!(
        turn.freqs.is_none_or(|f| f.len() == pairs),
        "rope: freqs' length"
    );
    assert!(
        offsets.len() == b || offsets.len() == 1,
        "rope: offsets' length"
    );
    if out.is_empty() {
        return;
    }
    let offsets = (0..b).map(|i| offsets[i % offsets.len()]);
    let positions = offsets.flat_map(|from| (0..l).map(move |i| from.wrapping_add(i as i32)));
    TABLE.with_borrow_mut(|table| {
        table.fill(turn, positions);
        let turns = &table.turns[..];
        let rows = Rows {
            data: out.as_mut_ptr(),
            width: d,
            lifetime: PhantomData,
        };
        share(b * h * l, 4 * out.len(), &|part| {
            for row in part {
                let (b, h, l) = (row / (h * l), row / l % h, row % l);
                let turns = &turns[(b * x.shape[2] + l) * pairs..][..pairs];
                // SAFETY: there are so many rows in `out`, and each is in one part.
                let out = unsafe { rows.get(row) };
                turn_row(x.at(b, h, l), turns, turn.traditional, out);
            }
        });
    });
}

/// Rows of a result, each for one thread.
struct Rows<'a> {
    data: *mut f32,
    width: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: `get` is what reaches the numbers, and its caller promises rows of its own.
unsafe impl Sync for Rows<'_> {}

impl Rows<'_> {
    /// # Safety
    /// There must be such a row, which nobody else gets while the result lives.
    #[allow(clippy::mut_from_ref)]
    unsafe fn get(&self, row: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.width), self.width) }
    }
}

fn turn_row(x: &[f32], turns: &[(f32, f32)], traditional: bool, out: &mut [f32]) {
    let pairs = turns.len();
    out[2 * pairs..].copy_from_slice(&x[2 * pairs..]);
    if traditional {
        for ((out, x), (cos, sin)) in out.chunks_exact_mut(2).zip(x.chunks_exact(2)).zip(turns) {
            out[0] = x[0] * cos - x[1] * sin;
            out[1] = x[0] * sin + x[1] * cos;
        }
        return;
    }
    let (first, second) = x[..2 * pairs].split_at(pairs);
    let (out_first, out_second) = out[..2 * pairs].split_at_mut(pairs);
    for (i, (cos, sin)) in turns.iter().enumerate() {
        out_first[i] = first[i] * cos - second[i] * sin;
        out_second[i] = first[i] * sin + second[i] * cos;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(traditional: bool, positions: &[i32], shape: [usize; 4]) -> (Vec<f32>, Vec<f32>) {
        let [b, h, l, d] = shape;
        let x: Vec<f32> = (0..b * h * l * d).map(|i| (i % 13) as f32 - 6.0).collect();
        let turn = Turn {
            dims: d - 2,
            traditional,
            freqs: None,
            base: 100.0,
            scale: 0.5,
        };
        let strides = [h * l * d, l * d, d];
        let heads = Heads {
            data: &x,
            shape,
            strides,
        };
        let mut out = vec![f32::NAN; x.len()];
        rope(heads, positions, &turn, &mut out);
        (x, out)
    }

    #[test]
    fn each_pair_turns_by_its_position() {
        for traditional in [false, true] {
            let shape @ [b, h, l, d] = [2, 3, 4, 10];
            let (x, out) = turned(traditional, &[5, -2], shape);
            let pairs = (d - 2) / 2;
            for row in 0..b * h * l {
                let position = [5, -2][row / (h * l)] + (row % l) as i32;
                for i in 0..pairs {
                    let angle = f64::from(position) * 0.5 * 100f64.powf(-(i as f64) / pairs as f64);
                    let (at, with) = match traditional {
                        true => (row * d + 2 * i, row * d + 2 * i + 1),
                        false => (row * d + i, row * d + i + pairs),
                    };
                    let (a, b) = (f64::from(x[at]), f64::from(x[with]));
                    let (sin, cos) = angle.sin_cos();
                    assert!((f64::from(out[at]) - (a * cos - b * sin)).abs() < 1e-5);
                    assert!((f64::from(out[with]) - (a * sin + b * cos)).abs() < 1e-5);
                }
                assert_eq!(out[row * d + d - 2..][..2], x[row * d + d - 2..][..2]);
            }
        }
    }

    #[test]
    fn one_offset_serves_all_rows() {
        let shape = [2, 1, 2, 6];
        assert_eq!(
            turned(false, &[7], shape).1,
            turned(false, &[7, 7], shape).1
        );
    }
}
