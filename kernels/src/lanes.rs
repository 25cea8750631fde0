//! What the kernels ask of a processor: vectors of 32-bit lanes, one lane for each of [`Lanes::N`]
//! neighbouring rows of the weights.
//!
//! Every implementation gives the same bits: integer sums are exact, floats go through the same
//! fused operations in the same order. Methods are `unsafe` because a processor must have what they
//! are made of; whoever calls them has asked it, and stands in a function compiled for it.

use crate::tile::Groups;
use crate::types::{from_bf16, from_f16};

/// The most lanes any implementation has.
pub(crate) const MOST: usize = 16;

/// The most rows of `x` that any implementation takes through a panel at once.
pub(crate) const TALLEST: usize = 12;

/// Vectors of `N` lanes.
///
/// # Safety
/// Of all methods: the processor has the features, pointers are good for the lanes they stand for
/// (not aligned).
pub(crate) trait Lanes: Copy {
    /// Lanes of a vector.
    const N: usize;
    /// Rows of `x` that fill the registers.
    const TILE: usize;
    /// Whether products with bytes above 127 are made another way than those with smaller ones.
    const SPLITS: bool;
    /// `N` floats.
    type F: Copy;
    /// `N` integers of 32 bits, or `4 N` bytes.
    type I: Copy;
    /// `N` vectors of integers.
    type Square: AsRef<[Self::I]>;
    /// What multiplies whole tiles; `()` where nothing does.
    type Unit: Unit;

    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, value: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;

    unsafe fn zero() -> Self::I;
    unsafe fn load_bytes(from: *const u8) -> Self::I;
    unsafe fn store_bytes(to: *mut u8, value: Self::I);
    /// Lanes shifted right by `by`, then masked.
    unsafe fn field<const BY: u32>(value: Self::I, mask: u32) -> Self::I;
    /// Signed integers as floats.
    unsafe fn to_float(value: Self::I) -> Self::F;
    /// `x` in every lane.
    unsafe fn words(x: i32) -> Self::I;
    /// To each lane of `sum` the products of its four unsigned bytes of `w` with the four signed
    /// bytes of `x`. `WIDE` where bytes of `w` may be above 127, if the lanes ask.
    unsafe fn dot<const WIDE: bool>(sum: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// Sums of integers, which wrap.
    unsafe fn plus(a: Self::I, b: Self::I) -> Self::I;
    /// The lanes' bits as floats.
    unsafe fn as_f32(value: Self::I) -> Self::F;
    /// The lower halves of the lanes as bfloat16, and the upper ones.
    unsafe fn bf16_pair(value: Self::I) -> (Self::F, Self::F);
    /// The lower halves of the lanes as halves, and the upper ones.
    unsafe fn f16_pair(value: Self::I) -> (Self::F, Self::F);

    /// `N` words of each row, from byte `at` on, turned: vector `j` holds word `j` of every row.
    /// Bytes from `at + bytes` on are not read and count as 0; `bytes` is even.
    unsafe fn square(rows: &Rows, at: usize, bytes: usize) -> Self::Square;

    /// Eight codes of `bits` bits, lowest first, each in a byte of its own.
    #[inline(always)]
    unsafe fn spread(stream: u64, bits: usize) -> u64 {
        let mut bytes = 0;
        for i in 0..8 {
            bytes |= (stream >> (i * bits) & ((1 << bits) - 1)) << (8 * i);
        }
        bytes
    }
    /// `N` bfloat16 as floats.
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { gathered::<Self>(|lane| from_bf16(from.add(lane).read_unaligned())) }
    }
    /// `N` halves as floats.
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { gathered::<Self>(|lane| from_f16(from.add(lane).read_unaligned())) }
    }
    /// Asks for memory that will be read.
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}

/// A vector of what `of` says of each lane.
#[inline(always)]
unsafe fn gathered<S: Lanes>(of: impl Fn(usize) -> f32) -> S::F {
    let mut all = [0.0; MOST];
    for (lane, value) in all.iter_mut().enumerate().take(S::N) {
        *value = of(lane);
    }
    // SAFETY: the caller's promise; there are `N`.
    unsafe { S::load(all.as_ptr()) }
}

/// A part of a processor that takes several rows of `x` through a panel at once, in registers of its own.
///
/// # Safety
/// Of all methods: the processor has it.
pub(crate) trait Unit {
    /// Rows of `x` that it takes; 0 for none.
    const ROWS: usize;

    /// Has it, on this thread, for groups of `group` columns.
    unsafe fn new(group: usize) -> Self;

    /// Adds what `ROWS` rows of `x` and a panel come to, to sums `[ROWS][N]`; `x` is good for
    /// `[group][ROWS][quad]` in the panels' order, `steps` and `totals` for `[group][ROWS]`.
    unsafe fn fast(
        &self,
        panel: *const u8,
        groups: Groups,
        x: *const u8,
        steps: *const f32,
        totals: *const f32,
        sums: *mut f32,
    );
}

impl Unit for () {
    const ROWS: usize = 0;

    unsafe fn new(_: usize) {}

    unsafe fn fast(
        &self,
        _: *const u8,
        _: Groups,
        _: *const u8,
        _: *const f32,
        _: *const f32,
        _: *mut f32,
    ) {
        unreachable!("there is no unit");
    }
}

/// The rows of a block: the first, and how far each is from the one before.
///
/// They are far apart where memory is read for the first time: each lane then reads its own stretch from
/// block to block, straight on, and a processor that fetches ahead does so in as many places, which is
/// faster than in one.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) first: usize,
    pub(crate) apart: usize,
}

impl Spread {
    /// The row of lane `lane`.
    #[inline(always)]
    pub(crate) fn row(self, lane: usize) -> usize {
        self.first + lane * self.apart
    }
}

/// Where the rows of a block start.
#[derive(Clone, Copy)]
pub(crate) struct Rows(pub(crate) [*const u8; MOST]);

/// The rows of a block and, step by step, of those after it. Rows past the matrix's end are its last row
/// once more.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    pub(crate) rows: Rows,
    stride: usize,
    last: *const u8,
}

impl Walk {
    /// From `block` on, through `rows` rows that are `stride` bytes each.
    pub(crate) fn new(base: *const u8, stride: usize, block: Spread, rows: usize) -> Self {
        let last = rows.saturating_sub(1);
        let at = |row: usize| base.wrapping_add(stride * row.min(last));
        Walk {
            rows: Rows(std::array::from_fn(|lane| at(block.row(lane)))),
            stride,
            last: at(last),
        }
    }

    /// The next row of every lane.
    #[inline(always)]
    pub(crate) fn step(&mut self) {
        let next = |row: *const u8| row.wrapping_add(self.stride).min(self.last);
        self.rows.0 = self.rows.0.map(next);
    }
}

/// The last words of `N` rows, the rest 0, with a stride of `4 N` bytes; for [`Lanes::square`].
///
/// # Safety
/// `bytes` bytes from `at` on can be read of each row.
pub(crate) unsafe fn padded<const N: usize>(rows: &Rows, at: usize, bytes: usize) -> [[u32; N]; N] {
    let mut copy = [[0u32; N]; N];
    for (row, to) in rows.0.iter().zip(&mut copy) {
        // SAFETY: as promised; `to` has `4 N` bytes, and no caller asks for more.
        unsafe {
            let to = to.as_mut_ptr().cast::<u8>();
            row.add(at).copy_to_nonoverlapping(to, bytes.min(4 * N));
        }
    }
    copy
}

/// Plain arrays: for processors without a faster way, and for Miri.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const P: usize = 4;

impl Lanes for Portable {
    const N: usize = P;
    const TILE: usize = 4;
    const SPLITS: bool = false;
    type F = [f32; P];
    type I = [u32; P];
    type Square = [[u32; P]; P];
    type Unit = ();

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::F {
        [value; P]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        // SAFETY: the trait's promise.
        unsafe { from.cast::<[f32; P]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::F) {
        // SAFETY: the trait's promise.
        unsafe { to.cast::<[f32; P]>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn zero() -> Self::I {
        [0; P]
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::I {
        // SAFETY: the trait's promise.
        unsafe { from.cast::<[u32; P]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, value: Self::I) {
        // SAFETY: the trait's promise.
        unsafe { to.cast::<[u32; P]>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn field<const BY: u32>(value: Self::I, mask: u32) -> Self::I {
        value.map(|lane| lane >> BY & mask)
    }
    #[inline(always)]
    unsafe fn to_float(value: Self::I) -> Self::F {
        value.map(|lane| lane as i32 as f32)
    }
    #[inline(always)]
    unsafe fn words(x: i32) -> Self::I {
        [x as u32; P]
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(sum: Self::I, w: Self::I, x: Self::I) -> Self::I {
        std::array::from_fn(|lane| {
            let (w, x) = (w[lane].to_le_bytes(), x[lane].to_le_bytes());
            let product: i32 = w
                .iter()
                .zip(x)
                .map(|(w, x)| i32::from(*w) * i32::from(x as i8))
                .sum();
            sum[lane].wrapping_add(product as u32)
        })
    }
    #[inline(always)]
    unsafe fn plus(a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|lane| a[lane].wrapping_add(b[lane]))
    }
    #[inline(always)]
    unsafe fn as_f32(value: Self::I) -> Self::F {
        value.map(f32::from_bits)
    }
    #[inline(always)]
    unsafe fn bf16_pair(value: Self::I) -> (Self::F, Self::F) {
        (
            value.map(|lane| f32::from_bits(lane << 16)),
            value.map(|lane| f32::from_bits(lane & 0xffff_0000)),
        )
    }
    #[inline(always)]
    unsafe fn f16_pair(value: Self::I) -> (Self::F, Self::F) {
        (
            value.map(|lane| from_f16(lane as u16)),
            value.map(|lane| from_f16((lane >> 16) as u16)),
        )
    }
    #[inline(always)]
    unsafe fn square(rows: &Rows, at: usize, bytes: usize) -> Self::Square {
        // SAFETY: the trait's promise.
        let words = unsafe { padded::<P>(rows, at, bytes) };
        std::array::from_fn(|j| std::array::from_fn(|row| words[row][j]))
    }
}
