//! Functions compiled for several sets of instructions by the compiler's own vectorizer, and rows of a
//! result shared among threads.
//!
//! Sums keep to an order of their own, so all versions give the same bits.

use std::marker::PhantomData;

use crate::{pool, threads};

/// `a · b + c`, rounded once.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// e to the power of `x`, within 2 units in the last place; 0 far below, infinity far above.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2^23 rounds to a whole number, in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-104.0, 89.0);
    let shifted = fma(clamped, std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    // ln 2 in two parts, so that the rest is exact.
    let rest = fma(whole, -0.693_359_4, clamped);
    let rest = fma(whole, 2.121_944_4e-4, rest);
    let mut sum = 1.987_569_1e-4;
    for term in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
        1.0,
        1.0,
    ] {
        sum = fma(sum, rest, term);
    }
    // Two factors, as one may be beyond the exponents there are.
    let whole = shifted.to_bits() as i32 - ROUND.to_bits() as i32;
    let half = whole >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    sum * power(half) * power(whole - half)
}

/// Defines a function that runs the version for [`crate::Isa::current`].
macro_rules! versions {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {
        $($(#[$meta])* $vis fn $name($($arg: $type),*) {
            #[inline(always)]
            fn body($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
                fn avx512($($arg: $type),*) {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) {
                    body($($arg),*)
                }
                match $crate::Isa::current() {
                    // SAFETY: the current set of instructions is here.
                    $crate::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    $crate::Isa::Avx2 | $crate::Isa::Avx2Vnni => {
                        // SAFETY: as above.
                        return unsafe { avx2($($arg),*) };
                    }
                    _ => {}
                }
            }
            body($($arg),*)
        })*
    };
}
pub(crate) use versions;

/// A result whose rows, `width` numbers each but for a shorter last one, are written by several threads.
pub(crate) struct Spread<'a> {
    data: *mut f32,
    len: usize,
    width: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: each row is given to one thread only, by `rows`.
unsafe impl Sync for Spread<'_> {}

/// Numbers of work that are worth a part of their own.
const WORTH: usize = 1 << 15;

impl<'a> Spread<'a> {
    /// `width` must not be 0.
    pub(crate) fn new(out: &'a mut [f32], width: usize) -> Self {
        Self {
            data: out.as_mut_ptr(),
            len: out.len(),
            width: width.max(1),
            lifetime: PhantomData,
        }
    }

    /// Calls `one` with each row's number and the row. One takes about as long as `work` numbers.
    pub(crate) fn rows(self, work: usize, one: impl Fn(usize, &mut [f32]) + Sync) {
        let this = &self;
        share(self.len.div_ceil(self.width), work, &|row| {
            let at = row * this.width;
            let n = this.width.min(this.len - at);
            // SAFETY: the row lies within `out`, which is borrowed, and is given out once.
            one(row, unsafe {
                std::slice::from_raw_parts_mut(this.data.add(at), n)
            });
        });
    }
}

/// Calls `one` with every number below `count`, each once, on several threads where that is worth it.
/// One takes about as long as `work` numbers.
pub(crate) fn share(count: usize, work: usize, one: &(dyn Fn(usize) + Sync)) {
    let all = count.saturating_mul(work.max(1));
    let parts = (all / WORTH).clamp(1, 8 * threads()).min(count.max(1));
    pool::run(threads(), parts, &|part| {
        for i in part * count / parts..(part + 1) * count / parts {
            one(i);
        }
    });
}
