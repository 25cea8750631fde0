//! CPU kernels over plain slices: products with packed and dense weights, several threads each.
//!
//! Knows no arrays and imports nothing of the project. What holds for every function here:
//! * A row of the result depends on that row of `x` and on the weights alone: not on how many rows
//!   there are, nor on the number of threads. So a batch gives each sequence what it gets alone.
//! * Sums are in `f32`, whatever the slices hold.
//! * Lengths are the caller's duty. [`Packed::check`] tells it about weights; a slice of the wrong
//!   length is a panic, never a read or write outside.

mod scalar;
mod types;

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

pub use types::{Floats, FloatsMut, Mismatch, Packed, Precision, Scales};

static THREADS: AtomicUsize = AtomicUsize::new(0);
static PRECISION: AtomicU8 = AtomicU8::new(0);

/// How many threads a call uses at most, the calling one among them: what [`set_threads`] said, or
/// as many as the machine runs at once.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// Sets [`threads`]; 0 is the machine's own number.
pub fn set_threads(n: usize) {
    THREADS.store(n, Ordering::Relaxed);
}

/// How [`packed_matmul`] computes: what [`set_precision`] said, or [`Precision::Exact`].
pub fn precision() -> Precision {
    match PRECISION.load(Ordering::Relaxed) {
        0 => Precision::Exact,
        _ => Precision::Fast,
    }
}

/// Sets [`precision`] for the whole process.
pub fn set_precision(precision: Precision) {
    PRECISION.store(precision as u8, Ordering::Relaxed);
}

/// `out = x · wᵀ` with a packed `w`, computed as [`precision`] says.
///
/// `x` is `[m, w.cols]`, `out` is `[m, w.rows]`, both row after row.
///
/// # Panics
/// If a length disagrees or [`Packed::check`] refuses `w`.
pub fn packed_matmul(x: Floats, m: usize, w: &Packed, out: FloatsMut) {
    packed_matmul_as(precision(), x, m, w, out);
}

/// As [`packed_matmul`], computed as `precision` says.
///
/// # Panics
/// As [`packed_matmul`].
pub fn packed_matmul_as(precision: Precision, x: Floats, m: usize, w: &Packed, out: FloatsMut) {
    if let Err(mismatch) = w.check() {
        panic!("packed_matmul: {mismatch}");
    }
    assert_eq!(x.len(), m * w.cols, "packed_matmul: x is not [m, k]");
    assert_eq!(out.len(), m * w.rows, "packed_matmul: out is not [m, n]");
    scalar::packed(precision, x, m, w, out);
}

/// `out = x · wᵀ`: `x` is `[m, k]`, `w` is `[n, k]`, `out` is `[m, n]`, all row after row.
///
/// # Panics
/// If a length disagrees.
pub fn dense_matmul(x: Floats, m: usize, w: Floats, n: usize, k: usize, out: FloatsMut) {
    assert_eq!(x.len(), m * k, "dense_matmul: x is not [m, k]");
    assert_eq!(w.len(), n * k, "dense_matmul: w is not [n, k]");
    assert_eq!(out.len(), m * n, "dense_matmul: out is not [m, n]");
    scalar::dense(x, m, w, n, k, out);
}

/// The rows `ids` of `w`, unpacked, one after the other: an embedding. `out` is `[ids, w.cols]`.
///
/// # Panics
/// If a length disagrees, an id is not below `w.rows`, or [`Packed::check`] refuses `w`.
pub fn packed_rows(ids: &[u32], w: &Packed, out: FloatsMut) {
    if let Err(mismatch) = w.check() {
        panic!("packed_rows: {mismatch}");
    }
    assert_eq!(out.len(), ids.len() * w.cols, "packed_rows: out's length");
    if let Some(id) = ids.iter().find(|id| **id as usize >= w.rows) {
        panic!("packed_rows: id {id} of a matrix with {} rows", w.rows);
    }
    scalar::rows(ids, w, out);
}
