//! How fast products are, beside what the machine can do: memory read by the same threads, and
//! multiply-adds in registers.
//!
//! `cargo bench -p pensieve-kernels [-- THREADS…]`. Rounds of all rows are interleaved, medians and bests
//! are printed: the best is what an idle machine does.

fn main() {}
