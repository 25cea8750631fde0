//! How fast products are, beside what the machine can do: memory read by the same threads, and
//! multiply-adds in registers.
//!
//! `cargo bench -p pensieve-kernels --bench products [-- THREADS…]`. Rounds of all rows are
//! interleaved; the median and the best are printed: the best is what an idle machine does.

use std::hint::black_box;
use std::time::Instant;

use pensieve_kernels::{
    Floats, FloatsMut, Isa, Order, Packed, Precision, dense_matmul, packed_matmul_as, set_threads,
};

/// A product of weights of `n` rows and `k` columns, `bits` wide (16: dense bfloat16, 32: float32).
#[derive(Clone, Copy)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
    bits: u8,
    precision: Precision,
}

/// Weights lie this long ago in memory when their turn comes again.
const ROTATED: usize = 256 << 20;

fn main() {
    let given: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let threads = if given.is_empty() { vec![1, 2] } else { given };
    println!("{}", Isa::current());
    let words = vec![0x1234_5678u32; ROTATED / 4];
    let halves = vec![0x3c00u16; ROTATED / 2];
    let floats = vec![0.5f32; ROTATED / 4];
    let mut shapes = Vec::new();
    for precision in [Precision::Exact, Precision::Fast] {
        for (m, n, k) in [
            (1, 1024, 1024),
            (1, 3072, 1024),
            (1, 1024, 3072),
            (1, 151_936, 1024),
            (4, 3072, 1024),
            (16, 3072, 1024),
            (64, 3072, 1024),
            (512, 3072, 1024),
            (64, 1024, 3072),
        ] {
            shapes.push(Shape {
                m,
                n,
                k,
                bits: 4,
                precision,
            });
        }
        for bits in [2, 3, 8] {
            for m in [1, 64] {
                shapes.push(Shape {
                    m,
                    n: 3072,
                    k: 1024,
                    bits,
                    precision,
                });
            }
        }
    }
    for bits in [16, 32] {
        for m in [1, 64] {
            shapes.push(Shape {
                m,
                n: 3072,
                k: 1024,
                bits,
                precision: Precision::Exact,
            });
        }
    }
    for threads in threads {
        set_threads(threads);
        let mut times = vec![Vec::new(); shapes.len() + 1];
        for _ in 0..9 {
            let start = Instant::now();
            read(&words, threads);
            times[shapes.len()].push(start.elapsed().as_secs_f64());
            for (shape, times) in shapes.iter().zip(&mut times) {
                times.push(run(shape, &words, &halves, &floats));
            }
        }
        times.iter_mut().for_each(|t| t.sort_by(f64::total_cmp));
        let memory = ROTATED as f64 / times[shapes.len()][0];
        println!(
            "\n{threads} threads; memory is read at {:.1} GB/s (best), {:.1} (median)",
            memory / 1e9,
            ROTATED as f64 / times[shapes.len()][4] / 1e9
        );
        println!("    m       n     k bits way      best µs  median     GB/s  of memory   GFLOP/s");
        for (shape, times) in shapes.iter().zip(&times) {
            let Shape {
                m,
                n,
                k,
                bits,
                precision,
            } = *shape;
            let rate = bytes(shape) as f64 / times[0];
            println!(
                "{m:5} {n:7} {k:5} {bits:4} {:6} {:9.1} {:8.1} {:8.1} {:9.0}% {:9.0}",
                if bits > 8 {
                    "dense".into()
                } else {
                    format!("{precision:?}")
                },
                times[0] * 1e6,
                times[4] * 1e6,
                rate / 1e9,
                100.0 * rate / memory,
                2.0 * (m * n * k) as f64 / times[0] / 1e9,
            );
        }
    }
}

/// What a product reads of weights.
fn bytes(shape: &Shape) -> usize {
    let groups = if shape.bits > 8 {
        0
    } else {
        shape.n * shape.k / 64 * 4
    };
    shape.n * shape.k * usize::from(shape.bits) / 8 + groups
}

/// Seconds of one product, each with weights that are not in the cache.
fn run(shape: &Shape, words: &[u32], halves: &[u16], floats: &[f32]) -> f64 {
    let Shape {
        m,
        n,
        k,
        bits,
        precision,
    } = *shape;
    let x: Vec<f32> = (0..m * k).map(|i| (i % 61) as f32 - 30.0).collect();
    let mut out = vec![0f32; m * n];
    let rounds = (400_000_000 / (m * n * k)).clamp(1, 64);
    let (codes, groups) = (n * k / 32 * usize::from(bits), n * k / 64);
    let start = Instant::now();
    for round in 0..rounds {
        let at = |len: usize, all: usize| round * len % (all - len + 1);
        let (x, to) = (Floats::F32(&x), FloatsMut::F32(&mut out));
        match bits {
            16 => dense_matmul(
                x,
                m,
                Floats::BF16(&halves[at(n * k, halves.len())..][..n * k]),
                n,
                k,
                to,
            ),
            32 => dense_matmul(
                x,
                m,
                Floats::F32(&floats[at(n * k, floats.len())..][..n * k]),
                n,
                k,
                to,
            ),
            _ => {
                let w = Packed {
                    codes: &words[at(codes, words.len())..][..codes],
                    scales: Floats::BF16(&halves[at(groups, halves.len())..][..groups]),
                    biases: Floats::BF16(
                        &halves[at(groups, halves.len() / 2) + halves.len() / 2..][..groups],
                    ),
                    rows: n,
                    cols: k,
                    bits,
                    group_size: 64,
                    // As models have them.
                    order: Order::best(bits),
                };
                packed_matmul_as(precision, x, m, &w, to);
            }
        }
        black_box(&mut out);
    }
    start.elapsed().as_secs_f64() / rounds as f64
}

/// Reads all of it.
fn read(words: &[u32], threads: usize) {
    std::thread::scope(|scope| {
        for part in words.chunks(words.len().div_ceil(threads)) {
            scope.spawn(move || {
                let mut sums = [0u32; 64];
                for line in part.chunks_exact(64) {
                    for (sum, word) in sums.iter_mut().zip(line) {
                        *sum ^= word;
                    }
                }
                black_box(sums);
            });
        }
    });
}
