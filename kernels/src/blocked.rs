//! Weights in blocks of rows, as [`Order::Blocks`] has them: what lanes need side by side lies so.
//!
//! A row of `x` meets the words as they come from memory, and nothing is turned. Several blocks at a time
//! give the processor sums that do not wait for each other, and places in memory to fetch ahead in.

use crate::lanes::Lanes;
use crate::panel::take_apart;
use crate::product::AHEAD;
use crate::types::{Floats, Order, Packed};

/// Blocks that a row of `x` meets at a time.
pub(crate) const ABREAST: usize = 4;

/// Bytes from a row's word to its next.
const LINE: usize = 4 * Order::TALL;

/// Where the parts of `N` rows begin.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    codes: *const u8,
    scales: *const u8,
    biases: *const u8,
}

impl Block {
    /// The rows from `row` on, a multiple of `N`.
    #[inline(always)]
    pub(crate) fn new(w: &Packed, row: usize) -> Self {
        let start = |base: *const u8, width: usize, size: usize| {
            base.wrapping_add(w.place(row, 0, width) * size)
        };
        let floats = |floats: &Floats| start(floats.base(), w.groups(), floats.bytes(1));
        Block {
            codes: start(w.codes.as_ptr().cast(), w.words(), 4),
            scales: floats(&w.scales),
            biases: floats(&w.biases),
        }
    }

    /// From column `start` on.
    #[inline(always)]
    pub(crate) fn from(self, w: &Packed, start: usize) -> Self {
        let words = start * usize::from(w.bits) / 32;
        let group = start / w.group_size * Order::TALL;
        Block {
            codes: self.codes.wrapping_add(words * LINE),
            scales: self.scales.wrapping_add(w.scales.bytes(group)),
            biases: self.biases.wrapping_add(w.biases.bytes(group)),
        }
    }

    /// Takes `cols` columns apart into `panel`, and makes their scales and biases floats `[group][N]`.
    ///
    /// # Safety
    /// The processor has what `S` needs; the block has the columns, which are whole groups, and all that
    /// is written has the room.
    #[inline(always)]
    pub(crate) unsafe fn panel<S: Lanes>(
        &self,
        w: &Packed,
        cols: usize,
        panel: *mut u8,
        [scales, biases]: [*mut f32; 2],
    ) {
        // SAFETY: the caller's promise; a prefetch may name any address.
        unsafe {
            let mut panel = panel;
            for word in 0..cols * usize::from(w.bits) / 32 {
                let line = self.codes.add(word * LINE);
                S::prefetch(line.wrapping_add(AHEAD));
                let word = S::load_bytes(line);
                panel = match w.bits {
                    2 => take_apart::<S, 2>(word, panel),
                    4 => take_apart::<S, 4>(word, panel),
                    _ => take_apart::<S, 8>(word, panel),
                };
            }
            for group in 0..cols / w.group_size {
                let scale = floats::<S>(&w.scales, self.scales, group);
                S::store(scales.add(group * S::N), scale);
                let bias = floats::<S>(&w.biases, self.biases, group);
                S::store(biases.add(group * S::N), bias);
            }
        }
    }
}

/// What `N` rows have for group `group`; `like` says of what type it is.
#[inline(always)]
unsafe fn floats<S: Lanes>(like: &Floats, from: *const u8, group: usize) -> S::F {
    // SAFETY: the caller's promise.
    unsafe {
        let from = from.add(like.bytes(group * Order::TALL));
        match like {
            Floats::F32(_) => S::load(from.cast()),
            Floats::F16(_) => S::load_f16(from.cast()),
            Floats::BF16(_) => S::load_bf16(from.cast()),
        }
    }
}

/// What a row of `x` comes to with `K` blocks.
///
/// # Safety
/// The processor has what `S` needs; `w` is of `BITS` bits, and the blocks are its; `x` is good for all
/// quads of a row in the panels' order, `steps` and `totals` for its groups.
#[inline(always)]
pub(crate) unsafe fn fast<S: Lanes, const BITS: usize, const WIDE: bool, const K: usize>(
    w: &Packed,
    blocks: &[Block; K],
    x: *const i32,
    steps: *const f32,
    totals: *const f32,
) -> [S::F; K] {
    // SAFETY: the caller's promise; a prefetch may name any address.
    unsafe {
        let mut sums = [S::splat(0.0); K];
        let (mut x, mut at) = (x, 0);
        for group in 0..w.groups() {
            // A sum for each code of a byte: they need not wait for each other.
            let mut dots = [[S::zero(); 4]; K];
            for _ in 0..w.group_size * BITS / 32 {
                for (block, dots) in blocks.iter().zip(&mut dots) {
                    let word = S::load_bytes(block.codes.add(at));
                    S::prefetch(block.codes.wrapping_add(at + AHEAD));
                    meet::<S, BITS, WIDE>(dots, word, x);
                }
                x = x.add(8 / BITS);
                at += LINE;
            }
            let step = S::splat(*steps.add(group));
            let total = S::splat(*totals.add(group));
            for ((block, dots), sum) in blocks.iter().zip(dots).zip(&mut sums) {
                let mut dot = dots[0];
                for more in &dots[1..8 / BITS] {
                    dot = S::plus(dot, *more);
                }
                let scale = floats::<S>(&w.scales, block.scales, group);
                let bias = floats::<S>(&w.biases, block.biases, group);
                *sum = S::fma(S::to_float(dot), S::mul(scale, step), *sum);
                *sum = S::fma(bias, total, *sum);
            }
        }
        sums
    }
}

/// A word of each row and the quads of `x` that it meets.
#[inline(always)]
unsafe fn meet<S: Lanes, const BITS: usize, const WIDE: bool>(
    dots: &mut [S::I; 4],
    word: S::I,
    x: *const i32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let x = |i: usize| S::words(x.add(i).read_unaligned());
        match BITS {
            2 => {
                dots[0] = S::dot::<false>(dots[0], S::field::<0>(word, 0x0303_0303), x(0));
                dots[1] = S::dot::<false>(dots[1], S::field::<2>(word, 0x0303_0303), x(1));
                dots[2] = S::dot::<false>(dots[2], S::field::<4>(word, 0x0303_0303), x(2));
                dots[3] = S::dot::<false>(dots[3], S::field::<6>(word, 0x0303_0303), x(3));
            }
            4 => {
                dots[0] = S::dot::<false>(dots[0], S::field::<0>(word, 0x0f0f_0f0f), x(0));
                dots[1] = S::dot::<false>(dots[1], S::field::<4>(word, 0x0f0f_0f0f), x(1));
            }
            _ => dots[0] = S::dot::<WIDE>(dots[0], word, x(0)),
        }
    }
}
