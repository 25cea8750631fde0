//! Work on rows of `f32`: norms, gates, rotary embeddings. Threaded by rows.

use std::cell::RefCell;

use crate::versions::{Spread, exp, fma, versions};

/// Lanes that sums run in, the same on every processor.
pub(crate) const LANES: usize = 16;

/// Root-mean-square norm of each `d` numbers of `x`, times `weight` if there is one, to `out`.
///
/// # Panics
/// If a length disagrees or `d` is 0.
pub fn rms_norm(x: &[f32], weight: Option<&[f32]>, eps: f32, d: usize, out: &mut [f32]) {
    assert!(
        d > 0 && x.len().is_multiple_of(d),
        "rms_norm: x is not [.., d]"
    );
    assert_eq!(x.len(), out.len(), "rms_norm: out's length");
    assert!(
        weight.is_none_or(|w| w.len() == d),
        "rms_norm: weight is not [d]"
    );
    let spread = Spread::new(out, d);
    spread.rows(d, |row, out| norm_row(&x[row * d..][..d], weight, eps, out));
}

versions! {
    fn norm_row(x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for x in whole {
            for (lane, x) in lanes.iter_mut().zip(x) {
                *lane = fma(*x, *x, *lane);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane = fma(*x, *x, *lane);
        }
        let scale = 1.0 / (total(lanes) / x.len() as f32 + eps).sqrt();
        match weight {
            Some(weight) => {
                for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                    *out = x * scale * w;
                }
            }
            None => {
                for (out, x) in out.iter_mut().zip(x) {
                    *out = x * scale;
                }
            }
        }
    }
}

/// The sum of lanes, halves first.
#[inline(always)]
pub(crate) fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
        n /= 2;
    }
    lanes[0]
}

/// `gate · sigmoid(gate) · up` of each number, to `out`.
///
/// # Panics
/// If a length disagrees.
pub fn silu_gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert_eq!(gate.len(), out.len(), "silu_gate: gate's length");
    assert_eq!(up.len(), out.len(), "silu_gate: up's length");
    const PIECE: usize = 1024;
    let spread = Spread::new(out, PIECE);
    spread.rows(8 * PIECE, |piece, out| {
        let at = piece * PIECE;
        gate_piece(&gate[at..][..out.len()], &up[at..][..out.len()], out);
    });
}

versions! {
    fn gate_piece(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
            *out = g / (1.0 + exp(-g)) * u;
        }
    }
}

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
    pub(crate) fn at(&self, b: usize, h: usize, l: usize) -> &'a [f32] {
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
    assert_eq!(out.len(), b * h * l * d, "rope: out is not [B, H, L, D]");
    assert!(turn.dims <= d && turn.dims.is_multiple_of(2), "rope: dims");
    let pairs = turn.dims / 2;
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
        let spread = Spread::new(out, d);
        spread.rows(d, |row, out| {
            let (b, h, l) = (row / (h * l), row / l % h, row % l);
            let from = x.at(b, h, l);
            let turns = &turns[(b * x.shape[2] + l) * pairs..][..pairs];
            turn_row(from, turns, turn.traditional, out);
        });
    });
}

fn turn_row(x: &[f32], turns: &[(f32, f32)], traditional: bool, out: &mut [f32]) {
    let pairs = turns.len();
    out[2 * pairs..].copy_from_slice(&x[2 * pairs..]);
    for (i, (cos, sin)) in turns.iter().enumerate() {
        let (at, with) = match traditional {
            true => (2 * i, 2 * i + 1),
            false => (i, i + pairs),
        };
        let (a, b) = (x[at], x[with]);
        out[at] = a * cos - b * sin;
        out[with] = a * sin + b * cos;
    }
}
