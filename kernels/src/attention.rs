//! Attention of some queries over the keys and values of a sequence: a softmax that grows with the
//! keys, so that no matrix of scores is ever whole.
//!
//! Query heads that share keys go through them together. Keys are taken in blocks of [`BLOCK`] from
//! the first one on, whatever else is computed: a query's result is the same alone and among others.

use std::cell::Cell;
use std::ops::Range;

use crate::Line;
use crate::input::tiles;
use crate::lanes::{Lanes, MOST, Spread};
use crate::panel;
use crate::product::{Out, by_height};
use crate::simple::{exp, sum};
use crate::tile;
use crate::types::{Floats, to_bf16, to_f16};

/// Keys whose scores are computed before they are weighed.
const BLOCK: usize = 64;

/// Rows of queries that share a block of keys made ready: a multiple of every tile.
const SLICE: usize = 96;

/// What attends to what. Heads of queries outnumber those of keys by a whole factor; neighbours
/// share.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// `[heads, queries, head_dim]`.
    pub q: Floats<'a>,
    /// `[kv_heads, key_room, head_dim]`, of which `keys` rows a head count.
    pub k: Floats<'a>,
    /// `[kv_heads, key_room, value_dim]`.
    pub v: Floats<'a>,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Queries: the last of them stands at the last key.
    pub queries: usize,
    /// Keys that there are.
    pub keys: usize,
    /// Keys that there is room for, a head.
    pub key_room: usize,
    /// Numbers of a query and a key.
    pub head_dim: usize,
    /// Numbers of a value.
    pub value_dim: usize,
    /// What products of queries and keys are multiplied with.
    pub scale: f32,
    /// Whether a query sees no key after its own.
    pub causal: bool,
    /// How many keys a query sees at most, its own the last of them.
    pub window: Option<usize>,
    /// `[queries, keys]`: 0 where a query does not see a key; beside the two above.
    pub mask: Option<&'a [u8]>,
    /// `[heads]`: a score that takes part in the softmax and has no value.
    pub sinks: Option<Floats<'a>>,
}

impl Attention<'_> {
    /// Rows of queries that share a head of keys.
    fn rows(&self) -> usize {
        self.queries * (self.heads / self.kv_heads)
    }

    /// Slices of all heads: what threads share.
    pub(crate) fn units(&self) -> usize {
        self.kv_heads * self.rows().div_ceil(SLICE)
    }

    /// The keys that query `i` may see by its place.
    fn seen(&self, i: usize) -> Range<usize> {
        let end = match self.causal {
            true => (self.keys + i + 1).saturating_sub(self.queries),
            false => self.keys,
        };
        let own = (self.keys + i + 1).saturating_sub(self.queries);
        let start = self.window.map_or(0, |window| own.saturating_sub(window));
        start.min(end)..end
    }

    /// Whether lengths agree.
    ///
    /// # Panics
    /// If they do not.
    pub(crate) fn check(&self, out: usize) {
        let Attention {
            heads, kv_heads, ..
        } = *self;
        assert!(
            kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "attention: heads"
        );
        assert!(self.keys <= self.key_room, "attention: more keys than room");
        let rows = heads * self.queries;
        // Behind the last head's last key there need be nothing.
        let most = kv_heads * self.key_room;
        let least = most - (self.key_room - self.keys);
        let one = |n: usize| n..=n;
        for (what, found, wanted) in [
            ("q", self.q.len(), one(rows * self.head_dim)),
            (
                "k",
                self.k.len(),
                least * self.head_dim..=most * self.head_dim,
            ),
            (
                "v",
                self.v.len(),
                least * self.value_dim..=most * self.value_dim,
            ),
            ("out", out, one(rows * self.value_dim)),
        ] {
            assert!(
                wanted.contains(&found),
                "attention: {found} numbers of {what}, expected {wanted:?}"
            );
        }
        if let Some(mask) = self.mask {
            assert_eq!(mask.len(), self.queries * self.keys, "attention: the mask");
        }
        if let Some(sinks) = self.sinks {
            assert_eq!(sinks.len(), heads, "attention: sinks");
        }
    }
}

/// An attention and where its result goes.
pub(crate) struct Job<'a> {
    pub(crate) attention: Attention<'a>,
    pub(crate) out: Out,
}

// SAFETY: threads write disjoint rows of `out`, see `units`.
unsafe impl Sync for Job<'_> {}

thread_local! {
    static ROOM: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Where a slice's parts are.
#[derive(Clone, Copy)]
struct Desk {
    /// Tiles of queries, `[head_dim][M]` each.
    q: *mut f32,
    /// A block of keys: panels of `N` keys.
    keys: *mut f32,
    /// A block of values, `[BLOCK][width]`, where they do not lie so already.
    values: *mut f32,
    /// `[SLICE][width]`.
    sums: *mut f32,
    /// Floats of a panel of keys.
    panel: usize,
    /// Numbers of a value, in whole vectors.
    width: usize,
}

/// What a row has come to so far: its largest score and the sum of its weights.
#[derive(Clone, Copy)]
struct State {
    largest: f32,
    weight: f32,
}

/// Computes slices `units`.
///
/// # Safety
/// The processor has what `S` needs; lengths are checked; no one else works on these slices.
#[inline(always)]
pub(crate) unsafe fn units<S: Lanes>(job: &Job, units: Range<usize>) {
    let a = &job.attention;
    let width = a.value_dim.next_multiple_of(S::N);
    // A column more, for the pairs of 16-bit floats.
    let panel = (a.head_dim + 1) * S::N;
    let sizes = [
        SLICE * a.head_dim,
        BLOCK.div_ceil(S::N) * panel,
        BLOCK * width,
        SLICE * width,
    ]
    .map(|floats| floats.div_ceil(16));
    let mut room = ROOM.take();
    let lines = sizes.iter().sum();
    if room.len() < lines {
        room.resize(lines, Line { _floats: [0.0; 16] });
    }
    let base = room.as_mut_ptr().cast::<f32>();
    let at = |parts: usize| base.wrapping_add(16 * sizes[..parts].iter().sum::<usize>());
    let desk = Desk {
        q: at(0),
        keys: at(1),
        values: at(2),
        sums: at(3),
        panel,
        width,
    };
    let slices = a.rows().div_ceil(SLICE);
    for unit in units {
        let from = unit % slices * SLICE;
        // SAFETY: passed on; the desk has the room.
        unsafe { slice::<S>(job, unit / slices, from..a.rows().min(from + SLICE), &desk) };
    }
    ROOM.set(room);
}

/// # Safety
/// As [`units`].
#[inline(always)]
unsafe fn slice<S: Lanes>(job: &Job, kv_head: usize, rows: Range<usize>, desk: &Desk) {
    let a = &job.attention;
    let (d, shared) = (a.head_dim, a.heads / a.kv_heads);
    // Row `r` is query `r / shared` of head `r % shared` among those that share.
    let head = |row: usize| kv_head * shared + row % shared;
    let at = |row: usize| head(row) * a.queries + row / shared;
    let mut states = [State {
        largest: f32::NEG_INFINITY,
        weight: 0.0,
    }; SLICE];
    for (state, row) in states.iter_mut().zip(rows.clone()) {
        if let Some(sinks) = &a.sinks {
            *state = State {
                largest: sinks.get(head(row)),
                weight: 1.0,
            };
        }
    }
    let count = rows.len();
    // SAFETY: the desk has room for a slice; rows are below `rows()`.
    unsafe {
        desk.sums.write_bytes(0, count * desk.width);
        for (first, height) in tiles(S::TILE, 0, count) {
            for r in 0..height {
                let from = at(rows.start + first + r) * d;
                let to = desk.q.add(first * d + r);
                for c in 0..d {
                    *to.add(c * height) = a.q.get(from + c) * a.scale;
                }
            }
        }
    }
    let start = a.seen(rows.start / shared).start / BLOCK * BLOCK;
    let end = a.seen((rows.end - 1) / shared).end;
    for key in (start..end).step_by(BLOCK) {
        let keys = BLOCK.min(a.keys - key);
        // SAFETY: keys below `keys`; the desk has room for a block and a slice.
        unsafe {
            let values = block::<S>(a, kv_head, key, keys, desk);
            for (first, height) in tiles(S::TILE, 0, count) {
                let row = rows.start + first;
                let states = &mut states[first..][..height];
                by_height!(S, height, M => weigh::<S, M>(a, row, first, key, keys, states, values, desk));
            }
        }
    }
    for (i, row) in rows.enumerate() {
        // A row that sees nothing comes to 0.
        let weight = states[i].weight;
        let inverse = if weight == 0.0 { 0.0 } else { 1.0 / weight };
        let to = at(row) * a.value_dim;
        for c in 0..a.value_dim {
            // SAFETY: below the desk's and the output's lengths; the row is this thread's.
            unsafe {
                let value = *desk.sums.add(i * desk.width + c) * inverse;
                match job.out {
                    Out::F32(out) => *out.add(to + c) = value,
                    Out::F16(out) => *out.add(to + c) = to_f16(value),
                    Out::BF16(out) => *out.add(to + c) = to_bf16(value),
                }
            }
        }
    }
}

/// Makes `keys` keys and values from `key` on ready; where the values are, `[key][width]`.
///
/// # Safety
/// As [`units`].
#[inline(always)]
unsafe fn block<S: Lanes>(
    a: &Attention,
    kv_head: usize,
    key: usize,
    keys: usize,
    desk: &Desk,
) -> *const f32 {
    let first = kv_head * a.key_room;
    // SAFETY: the keys are there, and the desk has room for a block.
    unsafe {
        for (i, from) in (0..keys).step_by(S::N).enumerate() {
            // Keys after the last are the last once more: their scores are not used.
            let last = first + a.keys;
            let block = Spread {
                first: first + key + from,
                apart: 1,
            };
            let rows = a.k.walk(a.head_dim, block, last).rows;
            let ahead = a.k.bytes(a.head_dim) * S::N;
            let panel = desk.keys.add(i * desk.panel);
            panel::floats::<S>(&a.k, &rows, 0, a.head_dim, ahead, panel);
        }
        match a.v {
            Floats::F32(values) if a.value_dim == desk.width => {
                return values[(first + key) * a.value_dim..][..keys * a.value_dim].as_ptr();
            }
            _ => {}
        }
        for i in 0..keys {
            let to = desk.values.add(i * desk.width);
            let room = std::slice::from_raw_parts_mut(to, desk.width);
            let (values, rest) = room.split_at_mut(a.value_dim);
            a.v.read((first + key + i) * a.value_dim, values);
            rest.fill(0.0);
        }
    }
    desk.values
}

/// A tile of queries and a block of keys: scores, weights, and what the values come to.
///
/// # Safety
/// As [`units`]; `first` is a tile of the slice, `row` its first row, and `values` are [`block`]'s.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn weigh<S: Lanes, const M: usize>(
    a: &Attention,
    row: usize,
    first: usize,
    key: usize,
    keys: usize,
    states: &mut [State],
    values: *const f32,
    desk: &Desk,
) {
    let shared = a.heads / a.kv_heads;
    let mut weights = [[f32::NEG_INFINITY; BLOCK]; M];
    let mut fade = [1f32; M];
    // SAFETY: the desk holds the tile and the block.
    unsafe {
        let q = desk.q.add(first * a.head_dim);
        let mut from = 0;
        while from < keys {
            let weights = &mut weights[..];
            from = match M {
                1 | 2 if from + 4 * S::N <= keys => {
                    score::<S, M, 4>(a.head_dim, q, from, 4 * S::N, weights, desk)
                }
                1 | 2 | 4 if from + 2 * S::N <= keys => {
                    score::<S, M, 2>(a.head_dim, q, from, 2 * S::N, weights, desk)
                }
                _ => {
                    let count = S::N.min(keys - from);
                    score::<S, M, 1>(a.head_dim, q, from, count, weights, desk)
                }
            };
        }
        for (r, (weights, state)) in weights.iter_mut().zip(states).enumerate() {
            let i = (row + r) / shared;
            let seen = a.seen(i);
            if seen.start > key || seen.end < key + keys {
                for (c, weight) in weights[..keys].iter_mut().enumerate() {
                    if !seen.contains(&(key + c)) {
                        *weight = f32::NEG_INFINITY;
                    }
                }
            }
            if let Some(mask) = a.mask {
                let mask = &mask[i * a.keys + key..][..keys];
                for (weight, mask) in weights.iter_mut().zip(mask) {
                    if *mask == 0 {
                        *weight = f32::NEG_INFINITY;
                    }
                }
            }
            let most = weights.iter().fold(state.largest, |most, w| most.max(*w));
            // Nothing seen so far: any finite number keeps the weights at 0.
            let base = if most == f32::NEG_INFINITY { 0.0 } else { most };
            fade[r] = exp(state.largest - base);
            weights.iter_mut().for_each(|w| *w = exp(*w - base));
            state.weight = state.weight * fade[r] + sum(weights);
            state.largest = most;
        }
        let mut c = 0;
        while c < desk.width {
            let left = (desk.width - c) / S::N;
            c = match M {
                1 | 2 if left >= 4 => {
                    mix::<S, M, 4>(first, c, (values, keys), &fade, &weights, desk)
                }
                1 | 2 | 4 if left >= 2 => {
                    mix::<S, M, 2>(first, c, (values, keys), &fade, &weights, desk)
                }
                _ => mix::<S, M, 1>(first, c, (values, keys), &fade, &weights, desk),
            };
        }
    }
}

/// The scores of `count` keys from `from` on, in `W` panels; where the next ones are.
///
/// # Safety
/// As [`weigh`].
#[inline(always)]
unsafe fn score<S: Lanes, const M: usize, const W: usize>(
    head_dim: usize,
    q: *const f32,
    from: usize,
    count: usize,
    weights: &mut [[f32; BLOCK]],
    desk: &Desk,
) -> usize {
    let mut scores = [[[0f32; MOST]; M]; W];
    let scores = scores.as_flattened_mut().as_flattened_mut();
    // SAFETY: the caller's promise; there is room for `M * W` vectors.
    unsafe {
        let panel = desk.keys.add(from / S::N * desk.panel);
        let panels = (panel.cast_const(), desk.panel);
        tile::dense::<S, M, W>(panels, head_dim, q, scores.as_mut_ptr());
    }
    for (i, scores) in scores.chunks(S::N).take(M * W).enumerate() {
        let from = from + i / M * S::N;
        let lanes = count.min(S::N);
        weights[i % M][from..from + lanes].copy_from_slice(&scores[..lanes]);
    }
    from + count
}

/// Adds the weighted values to `W` vectors of each row's sums, from number `c` on, which fade first;
/// where the next ones are.
///
/// # Safety
/// As [`weigh`].
#[inline(always)]
unsafe fn mix<S: Lanes, const M: usize, const W: usize>(
    first: usize,
    c: usize,
    (values, keys): (*const f32, usize),
    fade: &[f32; M],
    weights: &[[f32; BLOCK]; M],
    desk: &Desk,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let to = |r: usize, p: usize| desk.sums.add((first + r) * desk.width + c + p * S::N);
        let mut sums: [[S::F; W]; M] = std::array::from_fn(|r| {
            std::array::from_fn(|p| S::mul(S::load(to(r, p)), S::splat(fade[r])))
        });
        for key in 0..keys {
            let value = values.add(key * desk.width + c);
            let value: [S::F; W] = std::array::from_fn(|p| S::load(value.add(p * S::N)));
            for (sums, weights) in sums.iter_mut().zip(weights) {
                let weight = S::splat(weights[key]);
                for (sum, value) in sums.iter_mut().zip(value) {
                    *sum = S::fma(value, weight, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (p, sum) in sums.iter().enumerate() {
                S::store(to(r, p), *sum);
            }
        }
    }
    c + W * S::N
}
