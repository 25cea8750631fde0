//! The inner loops: some rows of `x` through a panel, sums kept in registers.
//!
//! `M` rows of `x` lie `[column][M]` (four codes of a quad side by side), so both operands are read
//! straight on. Sums are `[M][N]` and grow by a whole group or block at a time, in the order of the
//! columns: a row's sum is the same whatever `M` is.

use crate::lanes::Lanes;

/// What a panel's groups bring beside the codes.
#[derive(Clone, Copy)]
pub(crate) struct Groups {
    /// `[group][N]`.
    pub(crate) scales: *const f32,
    /// `[group][N]`.
    pub(crate) biases: *const f32,
    /// Groups in the panel.
    pub(crate) count: usize,
    /// Quads in a group.
    pub(crate) quads: usize,
}

/// Codes of `x` in 8 bits: integer sums a group, then scaled.
///
/// # Safety
/// The processor has what `S` needs; all pointers are good for the groups that there are:
/// `x` for `[quad][M]`, `steps` and `totals` for `[group][M]`, `sums` for `[M][N]`.
#[inline(always)]
pub(crate) unsafe fn fast<S: Lanes, const M: usize, const WIDE: bool>(
    panel: *const u8,
    groups: Groups,
    x: *const i32,
    steps: *const f32,
    totals: *const f32,
    sums: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sum: [S::F; M] = std::array::from_fn(|r| S::load(sums.add(r * S::N)));
        let (mut panel, mut x) = (panel, x);
        for group in 0..groups.count {
            let mut dots = [S::zero(); M];
            for _ in 0..groups.quads {
                let w = S::load_bytes(panel);
                for (r, dot) in dots.iter_mut().enumerate() {
                    *dot = S::dot::<WIDE>(*dot, w, S::words(x.add(r).read_unaligned()));
                }
                panel = panel.add(4 * S::N);
                x = x.add(M);
            }
            let scale = S::load(groups.scales.add(group * S::N));
            let bias = S::load(groups.biases.add(group * S::N));
            for (r, sum) in sum.iter_mut().enumerate() {
                let step = S::splat(*steps.add(group * M + r));
                let total = S::splat(*totals.add(group * M + r));
                *sum = S::fma(S::to_float(dots[r]), S::mul(scale, step), *sum);
                *sum = S::fma(bias, total, *sum);
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            S::store(sums.add(r * S::N), *sum);
        }
    }
}

/// `x` in `f32`: codes become floats, sums a group, then scaled.
///
/// # Safety
/// As [`fast`]; `x` is good for `[column][M]`.
#[inline(always)]
pub(crate) unsafe fn exact<S: Lanes, const M: usize>(
    panel: *const u8,
    groups: Groups,
    x: *const f32,
    totals: *const f32,
    sums: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sum: [S::F; M] = std::array::from_fn(|r| S::load(sums.add(r * S::N)));
        let (mut panel, mut x) = (panel, x);
        for group in 0..groups.count {
            let mut dots = [S::splat(0.0); M];
            for _ in 0..groups.quads {
                let quad = S::load_bytes(panel);
                let w = [
                    S::to_float(S::field::<0>(quad, 0xff)),
                    S::to_float(S::field::<8>(quad, 0xff)),
                    S::to_float(S::field::<16>(quad, 0xff)),
                    S::to_float(S::field::<24>(quad, 0xff)),
                ];
                for w in w {
                    for (r, dot) in dots.iter_mut().enumerate() {
                        *dot = S::fma(w, S::splat(*x.add(r)), *dot);
                    }
                    x = x.add(M);
                }
                panel = panel.add(4 * S::N);
            }
            let scale = S::load(groups.scales.add(group * S::N));
            let bias = S::load(groups.biases.add(group * S::N));
            for (r, sum) in sum.iter_mut().enumerate() {
                let total = S::splat(*totals.add(group * M + r));
                *sum = S::fma(dots[r], scale, *sum);
                *sum = S::fma(bias, total, *sum);
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            S::store(sums.add(r * S::N), *sum);
        }
    }
}

/// Columns of a dense product that are summed up before they join the whole.
pub(crate) const BLOCK: usize = 64;

/// `W` panels of floats of `cols` columns, `apart` floats from each other, starting at a whole number of
/// [`BLOCK`]s; sums are `[W][M][N]`. With few rows of `x` several panels keep the processor busy.
///
/// # Safety
/// As [`fast`]; `x` is good for `[column][M]`.
#[inline(always)]
pub(crate) unsafe fn dense<S: Lanes, const M: usize, const W: usize>(
    (panel, apart): (*const f32, usize),
    cols: usize,
    x: *const f32,
    sums: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let at = |p: usize, r: usize| sums.add((p * M + r) * S::N);
        let mut sum: [[S::F; M]; W] =
            std::array::from_fn(|p| std::array::from_fn(|r| S::load(at(p, r))));
        let (mut panel, mut x) = (panel, x);
        for start in (0..cols).step_by(BLOCK) {
            let mut dots = [[S::splat(0.0); M]; W];
            for _ in 0..BLOCK.min(cols - start) {
                for (p, dots) in dots.iter_mut().enumerate() {
                    let w = S::load(panel.add(p * apart));
                    for (r, dot) in dots.iter_mut().enumerate() {
                        *dot = S::fma(w, S::splat(*x.add(r)), *dot);
                    }
                }
                panel = panel.add(S::N);
                x = x.add(M);
            }
            for (sum, dot) in sum.iter_mut().flatten().zip(dots.into_iter().flatten()) {
                *sum = S::add(*sum, dot);
            }
        }
        for (p, sum) in sum.iter().enumerate() {
            for (r, sum) in sum.iter().enumerate() {
                S::store(at(p, r), *sum);
            }
        }
    }
}
