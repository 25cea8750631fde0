//! The loops around the tiles: blocks of weights' rows, slices of `x`'s rows, panels of columns.
//!
//! A thread takes some blocks and does all of `x` with them, so weights are read from memory once.
//! Outputs of different blocks do not overlap, which is what lets threads write them.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::blocked::{self, ABREAST, Block};
use crate::input::{Input, Layout, Way, tiles};
use crate::lanes::{Lanes, MOST, Spread, Unit, Walk};
use crate::panel::{self, CODES, FLOATS, GROUPS};
use crate::tile::{self, Groups};
use crate::types::{Floats, FloatsMut, Packed, Precision, to_bf16, to_f16};

/// Rows of `x` whose sums are kept at a time: a multiple of every implementation's tile.
const SLICE: usize = 240;

/// How far ahead a lane's row is asked for, in bytes: the rest of it, or the rows that the lane goes on
/// with.
pub(crate) const AHEAD: usize = 512;

/// Weights of a product.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    Packed(Packed<'a>),
    /// `[n, k]`.
    Dense(Floats<'a>),
}

impl Weights<'_> {
    /// The codes, scales and biases of rows from `block` on; of dense weights, their `n` rows thrice.
    fn walks(&self, block: Spread, n: usize, k: usize) -> [Walk; 3] {
        match self {
            Weights::Packed(w) => {
                let floats = |floats: &Floats| floats.walk(w.groups(), block, n);
                let codes = Walk::new(w.codes.as_ptr().cast(), 4 * w.words(), block, n);
                [codes, floats(&w.scales), floats(&w.biases)]
            }
            Weights::Dense(w) => [w.walk(k, block, n); 3],
        }
    }
}

/// Where the results go.
#[derive(Clone, Copy)]
pub(crate) enum Out {
    F32(*mut f32),
    F16(*mut u16),
    BF16(*mut u16),
}

impl From<FloatsMut<'_>> for Out {
    fn from(out: FloatsMut) -> Out {
        match out {
            FloatsMut::F32(out) => Out::F32(out.as_mut_ptr()),
            FloatsMut::F16(out) => Out::F16(out.as_mut_ptr()),
            FloatsMut::BF16(out) => Out::BF16(out.as_mut_ptr()),
        }
    }
}

/// One product: `out [m, n] = x [m, k] · wᵀ`.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) x: Floats<'a>,
    pub(crate) layout: Layout,
    pub(crate) input: Input,
    pub(crate) weights: Weights<'a>,
    pub(crate) n: usize,
    pub(crate) out: Out,
}

// SAFETY: threads share it read-only; what its pointers lead to they use by disjoint blocks and
// tiles, see `blocks` and `input::tile`.
unsafe impl Sync for Product<'_> {}

/// What a thread works with: too large to be cleared for each part.
#[repr(C, align(64))]
struct Desk {
    panel: [f32; (FLOATS + 1) * MOST],
    scales: [f32; (GROUPS + 1) * MOST],
    biases: [f32; (GROUPS + 1) * MOST],
    sums: [f32; SLICE * MOST],
}

const _: () = assert!(CODES <= 4 * FLOATS);

/// Makes the tiles `tiles` of `x` ready; they are numbered by their first row over the tallest's.
///
/// # Safety
/// The processor has what the caller is compiled for; no one else works on these tiles.
#[inline(always)]
pub(crate) unsafe fn ready(product: &Product, slices: Range<usize>) {
    let layout = &product.layout;
    let (from, to) = (slices.start * layout.tile, slices.end * layout.tile);
    for (first, height) in tiles(layout.tile, from, to.min(layout.m)) {
        // SAFETY: passed on.
        unsafe { crate::input::tile(product.x, layout, first, height, &product.input) };
    }
}

/// Computes the outputs of blocks `blocks`: weights' rows `N` at a time.
///
/// # Safety
/// The processor has what `S` needs; lengths are checked; no one else works on these blocks.
#[inline(always)]
pub(crate) unsafe fn blocks<S: Lanes>(product: &Product, blocks: Range<usize>) {
    let mut desk = MaybeUninit::<Desk>::uninit();
    let desk = desk.as_mut_ptr();
    let layout = &product.layout;
    let mut first = blocks.start;
    // SAFETY: passed on.
    unsafe {
        let unit = (layout.way == Way::Unit).then(|| S::Unit::new(layout.group));
        if let Weights::Packed(w) = &product.weights {
            let in_blocks = w.order.in_blocks(w.rows) / S::N;
            first = in_blocks.clamp(blocks.start, blocks.end);
            if layout.way == Way::Blocks {
                abreast::<S>(product, w, blocks.start..first);
            } else {
                for row in (blocks.start..first).map(|block| block * S::N) {
                    let block = Spread {
                        first: row,
                        apart: 1,
                    };
                    all_rows::<S>(
                        product,
                        block,
                        Source::Block(Block::new(w, row)),
                        &unit,
                        desk,
                    );
                }
            }
        }
        if first == blocks.end {
            return;
        }
        let mut block = Spread {
            first: first * S::N,
            apart: blocks.end - first,
        };
        let mut walks = product.weights.walks(block, product.n, layout.k);
        for _ in first..blocks.end {
            all_rows::<S>(product, block, Source::Rows(&walks), &unit, desk);
            block.first += 1;
            walks.iter_mut().for_each(Walk::step);
        }
    }
}

/// All rows of `x` with one block.
///
/// # Safety
/// As [`blocks`].
#[inline(always)]
unsafe fn all_rows<S: Lanes>(
    product: &Product,
    block: Spread,
    source: Source,
    unit: &Option<S::Unit>,
    desk: *mut Desk,
) {
    let layout = &product.layout;
    for from in (0..layout.m).step_by(SLICE) {
        let to = layout.m.min(from + SLICE);
        // SAFETY: the desk's sums have room for a slice of `N` lanes, and are written before
        // they are read; the rest is passed on.
        unsafe {
            let sums = (&raw mut (*desk).sums).cast::<f32>();
            let count = match S::Unit::ROWS {
                0 => to - from,
                rows => (to - from).next_multiple_of(rows),
            };
            match count {
                // A call to clear one vector would be the longest part of a short row.
                1 => S::store(sums, S::splat(0.0)),
                _ => sums.write_bytes(0, count * S::N),
            }
            match (&product.weights, source) {
                (Weights::Dense(w), Source::Rows([walk, ..])) => {
                    dense::<S>(product, w, walk, from..to, desk);
                }
                (Weights::Packed(w), _) => packed::<S>(product, w, source, from..to, unit, desk),
                (Weights::Dense(_), Source::Block(_)) => unreachable!("blocks are packed"),
            }
            write::<S>(product, block, from..to, sums);
        }
    }
}

/// Where the rows of weights come from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// Codes, scales and biases, or dense rows, row by row.
    Rows(&'a [Walk; 3]),
    /// A block of [`Order::Blocks`].
    Block(Block),
}

/// [`blocks`] of weights in blocks, for a few rows of `x`: some blocks at a time, far apart, so that memory
/// is read in several places.
///
/// # Safety
/// As [`blocks`].
#[inline(always)]
unsafe fn abreast<S: Lanes>(product: &Product, w: &Packed, blocks: Range<usize>) {
    let apart = blocks.len() / ABREAST;
    let rest = blocks.start + ABREAST * apart;
    // SAFETY: passed on.
    unsafe {
        for first in blocks.start..blocks.start + apart {
            let blocks = std::array::from_fn(|i| first + i * apart);
            few_rows::<S, ABREAST>(product, w, blocks);
        }
        for block in rest..blocks.end {
            few_rows::<S, 1>(product, w, [block]);
        }
    }
}

/// All rows of `x` with `K` blocks.
///
/// # Safety
/// As [`blocks`].
#[inline(always)]
unsafe fn few_rows<S: Lanes, const K: usize>(product: &Product, w: &Packed, blocks: [usize; K]) {
    let (layout, input) = (&product.layout, &product.input);
    let from = blocks.map(|block| Block::new(w, block * S::N));
    for row in 0..layout.m {
        // SAFETY: the input's offsets are those that `Input` names; the rest is passed on.
        unsafe {
            let x = input.values.cast::<i32>().add(row * layout.k / 4);
            let steps = input.steps.add(row * w.groups());
            let totals = input.totals.add(row * w.groups());
            let sums = match w.bits {
                2 => blocked::fast::<S, 2, false, K>(w, &from, x, steps, totals),
                4 => blocked::fast::<S, 4, false, K>(w, &from, x, steps, totals),
                _ if S::SPLITS => blocked::fast::<S, 8, true, K>(w, &from, x, steps, totals),
                _ => blocked::fast::<S, 8, false, K>(w, &from, x, steps, totals),
            };
            for (block, sums) in blocks.into_iter().zip(sums) {
                let mut lanes = [0f32; MOST];
                S::store(lanes.as_mut_ptr(), sums);
                let first = block * S::N;
                write::<S>(
                    product,
                    Spread { first, apart: 1 },
                    row..row + 1,
                    lanes.as_ptr(),
                );
            }
        }
    }
}

/// Calls with the height as a constant; only heights that the lanes have are compiled.
macro_rules! by_height {
    ($lanes:ty, $height:expr, $M:ident => $call:expr) => {
        match $height {
            12 if <$lanes>::TILE >= 12 => {
                const $M: usize = 12;
                $call
            }
            4 => {
                const $M: usize = 4;
                $call
            }
            2 => {
                const $M: usize = 2;
                $call
            }
            _ => {
                const $M: usize = 1;
                $call
            }
        }
    };
}

pub(crate) use by_height;

/// # Safety
/// As [`blocks`].
#[inline(always)]
unsafe fn packed<S: Lanes>(
    product: &Product,
    w: &Packed,
    source: Source,
    slice: Range<usize>,
    unit: &Option<S::Unit>,
    desk: *mut Desk,
) {
    let layout = product.layout;
    let (k, size, input) = (w.cols, w.group_size, product.input);
    for start in (0..k).step_by(CODES) {
        let cols = CODES.min(k - start);
        let (group, count) = (start / size, cols / size);
        // SAFETY: the desk's parts have room for `CODES` columns, `GROUPS` groups and a slice of
        // `N` lanes; the input's offsets are those that `Input` names.
        unsafe {
            let panel = (&raw mut (*desk).panel).cast::<u8>();
            let groups = Groups {
                scales: (&raw const (*desk).scales).cast(),
                biases: (&raw const (*desk).biases).cast(),
                count,
                quads: size / 4,
            };
            let floats =
                [&raw mut (*desk).scales, &raw mut (*desk).biases].map(|to| to.cast::<f32>());
            match source {
                Source::Block(block) => block.from(w, start).panel::<S>(w, cols, panel, floats),
                Source::Rows(walks) => {
                    let [rows, scales, biases] = walks.each_ref().map(|walk| &walk.rows);
                    panel::codes::<S>(w, rows, start, cols, AHEAD, panel);
                    panel::floats::<S>(&w.scales, scales, group, count, AHEAD, floats[0]);
                    panel::floats::<S>(&w.biases, biases, group, count, AHEAD, floats[1]);
                }
            }
            let sums = (&raw mut (*desk).sums).cast::<f32>();
            if let Some(unit) = unit {
                for row in slice.clone().step_by(S::Unit::ROWS) {
                    let sums = sums.add((row - slice.start) * S::N);
                    let at = row * w.groups() + group * S::Unit::ROWS;
                    let x = input.values.cast::<u8>().add(at * size);
                    unit.fast(
                        panel,
                        groups,
                        x,
                        input.steps.add(at),
                        input.totals.add(at),
                        sums,
                    );
                }
                continue;
            }
            for (row, height) in tiles(layout.tile, slice.start, slice.end) {
                let sums = sums.add((row - slice.start) * S::N);
                let at = row * w.groups() + group * height;
                let totals = input.totals.add(at);
                let at_steps = input.steps.wrapping_add(at);
                let at = row * k + start * height;
                match (layout.precision, w.bits) {
                    (Precision::Exact, _) => {
                        let x = input.values.add(at);
                        by_height!(S, height, M => tile::exact::<S, M>(panel, groups, x, totals, sums));
                    }
                    (Precision::Fast, 8) if S::SPLITS => {
                        let x = input.values.add(at / 4).cast();
                        by_height!(S, height, M => tile::fast::<S, M, true>(
                            panel, groups, x, at_steps, totals, sums));
                    }
                    (Precision::Fast, _) => {
                        let x = input.values.add(at / 4).cast();
                        by_height!(S, height, M => tile::fast::<S, M, false>(
                            panel, groups, x, at_steps, totals, sums));
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`blocks`].
#[inline(always)]
unsafe fn dense<S: Lanes>(
    product: &Product,
    w: &Floats,
    walk: &Walk,
    slice: Range<usize>,
    desk: *mut Desk,
) {
    let layout = product.layout;
    let k = layout.k;
    for start in (0..k).step_by(FLOATS) {
        let cols = FLOATS.min(k - start);
        // SAFETY: the desk's parts have room for `FLOATS` columns and one more, and for a slice of
        // `N` lanes; the input's offsets are those that `Input` names.
        unsafe {
            let panel = (&raw mut (*desk).panel).cast::<f32>();
            panel::floats::<S>(w, &walk.rows, start, cols, AHEAD, panel);
            let sums = (&raw mut (*desk).sums).cast::<f32>();
            for (row, height) in tiles(layout.tile, slice.start, slice.end) {
                let sums = sums.add((row - slice.start) * S::N);
                let x = product.input.values.add(row * k + start * height);
                by_height!(S, height, M => tile::dense::<S, M, 1>((panel, 0), cols, x, sums));
            }
        }
    }
}

/// # Safety
/// As [`blocks`].
#[inline(always)]
unsafe fn write<S: Lanes>(product: &Product, block: Spread, slice: Range<usize>, sums: *const f32) {
    let n = product.n;
    let lanes = || {
        (0..S::N)
            .map(|lane| (lane, block.row(lane)))
            .filter(|(_, column)| *column < n)
    };
    let whole = block.apart == 1 && block.row(S::N - 1) < n;
    for (i, row) in slice.enumerate() {
        // SAFETY: rows below `m`, columns below `n`; the block's rows are this thread's.
        unsafe {
            let from = sums.add(i * S::N);
            match product.out {
                Out::F32(to) if whole => S::store(to.add(row * n + block.first), S::load(from)),
                Out::F32(to) => {
                    lanes().for_each(|(lane, column)| *to.add(row * n + column) = *from.add(lane));
                }
                Out::F16(to) => lanes().for_each(|(lane, column)| {
                    *to.add(row * n + column) = to_f16(*from.add(lane));
                }),
                Out::BF16(to) => lanes().for_each(|(lane, column)| {
                    *to.add(row * n + column) = to_bf16(*from.add(lane));
                }),
            }
        }
    }
}
