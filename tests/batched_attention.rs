//! Attention of sequences that step together against each by itself, over widths, types, lengths and
//! kinds of cache. On CUDA (`PENSIEVE_GOLDEN_DEVICE=gpu`, `MLX_ENABLE_TF32=0`) this is what checks the
//! kernels that attend within a common store.

mod common;

use common::golden::device;
use pensieve::cache::{Attend, Batch, LayerCache};
use pensieve::mlx::{Array, Dtype, Runtime};

/// Numbers between -1 and 1 that differ with `seed`.
fn noise(seed: u64, shape: &[i32], dtype: Dtype) -> Array {
    let n: i32 = shape.iter().product();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let numbers: Vec<f32> = (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    Array::from_slice(&numbers, shape)
        .unwrap()
        .astype(dtype)
        .unwrap()
}

struct Shape {
    kind: fn() -> LayerCache,
    heads: (i32, i32),
    width: i32,
    /// Features of a latent that are values; 0 is no latent.
    rank: i32,
    dtype: Dtype,
    softcap: Option<f32>,
    sinks: bool,
    lengths: &'static [usize],
}

const PLAIN: Shape = Shape {
    kind: LayerCache::full,
    heads: (8, 2),
    width: 64,
    rank: 0,
    dtype: Dtype::Float32,
    softcap: None,
    sinks: false,
    lengths: &[3, 40, 1, 129],
};

fn shapes() -> Vec<Shape> {
    let sliding = || LayerCache::sliding(100);
    vec![
        PLAIN,
        Shape {
            heads: (8, 8),
            width: 128,
            ..PLAIN
        },
        Shape {
            heads: (32, 8),
            width: 128,
            dtype: Dtype::Bfloat16,
            lengths: &[700, 1, 33, 512, 2000, 64],
            ..PLAIN
        },
        Shape {
            heads: (24, 8),
            width: 96,
            dtype: Dtype::Float16,
            ..PLAIN
        },
        Shape {
            heads: (16, 2),
            width: 80,
            lengths: &[2500, 5],
            ..PLAIN
        },
        Shape {
            heads: (14, 2),
            width: 256,
            dtype: Dtype::Bfloat16,
            lengths: &[1000, 3000],
            ..PLAIN
        },
        Shape {
            heads: (16, 1),
            width: 32,
            sinks: true,
            ..PLAIN
        },
        Shape {
            heads: (16, 4),
            width: 64,
            sinks: true,
            lengths: &[4000, 17, 900],
            ..PLAIN
        },
        Shape {
            softcap: Some(2.0),
            lengths: &[1500, 4],
            ..PLAIN
        },
        Shape {
            kind: sliding,
            lengths: &[30, 99, 100, 101, 400],
            ..PLAIN
        },
        Shape {
            kind: LayerCache::latent,
            heads: (16, 1),
            width: 576,
            rank: 512,
            dtype: Dtype::Bfloat16,
            lengths: &[600, 20, 1],
            ..PLAIN
        },
        Shape {
            kind: LayerCache::latent,
            heads: (4, 1),
            width: 40,
            rank: 32,
            ..PLAIN
        },
        // One or two short rows, which are computed by other blocks, and beyond what counts as short.
        Shape {
            heads: (32, 8),
            width: 128,
            dtype: Dtype::Bfloat16,
            lengths: &[1],
            ..PLAIN
        },
        Shape {
            heads: (32, 8),
            width: 128,
            dtype: Dtype::Bfloat16,
            lengths: &[505, 30],
            ..PLAIN
        },
        Shape {
            sinks: true,
            softcap: Some(3.0),
            lengths: &[260, 7],
            ..PLAIN
        },
        Shape {
            heads: (16, 8),
            width: 256,
            dtype: Dtype::Bfloat16,
            lengths: &[20, 900, 4],
            ..PLAIN
        },
    ]
}

fn update(
    cache: &mut LayerCache,
    shape: &Shape,
    kv: &(Array, Array),
    batch: &Batch,
) -> pensieve::cache::KvView {
    match shape.rank {
        0 => cache.update(&kv.0, &kv.1, batch).unwrap(),
        rank => cache.update_latent(&kv.0, rank, batch).unwrap(),
    }
}

#[test]
fn rows_together_attend_as_alone() {
    let _runtime = Runtime::enter(device()).unwrap();
    for (number, shape) in shapes().iter().enumerate() {
        let (n_heads, n_kv_heads) = shape.heads;
        let rows = shape.lengths.len();
        let entries = |seed: u64, b: usize, l: usize| {
            let make = |salt| {
                noise(
                    seed * 2 + salt,
                    &[b as i32, n_kv_heads, l as i32, shape.width],
                    shape.dtype,
                )
            };
            (make(0), make(1))
        };
        let mut alone: Vec<LayerCache> = Vec::new();
        for (row, &length) in shape.lengths.iter().enumerate() {
            let mut cache = (shape.kind)();
            let batch = Batch::single(&vec![0; length], 0).unwrap();
            update(
                &mut cache,
                shape,
                &entries(row as u64 + 100, 1, length),
                &batch,
            );
            alone.push(cache);
        }
        let joined = alone.iter().map(|cache| cache.fork().unwrap()).collect();
        let mut joined = LayerCache::join(joined).unwrap();
        let sinks = shape.sinks.then(|| noise(7, &[n_heads], shape.dtype));
        let how = Attend {
            scale: 2.0 / (shape.width as f32).sqrt(),
            softcap: shape.softcap,
            sinks: sinks.as_ref(),
        };
        // The first goes far enough for every row to use up its room.
        let last = if number == 0 { 269 } else { 9 };
        for step in 0..=last {
            let lens: Vec<usize> = shape.lengths.iter().map(|l| l + step).collect();
            let queries = noise(
                step as u64 + 9,
                &[rows as i32, n_heads, 1, shape.width],
                shape.dtype,
            );
            let (k, v) = entries(step as u64 + 5000, rows, 1);
            let tokens = Array::from_slice(&vec![0u32; rows], &[rows as i32, 1]).unwrap();
            let batch = Batch::new(tokens, lens.clone()).unwrap();
            // As views of one array, as a common projection leaves them, every other time.
            let (queries_given, given) = match (step % 2, shape.rank) {
                (1, 0) => {
                    let all = Array::concatenate(&[&queries, &k, &v], 1).unwrap();
                    let sizes = [n_heads, n_kv_heads, n_kv_heads];
                    let [queries, k, v] = all.split(sizes, 1).unwrap();
                    (queries, (k, v))
                }
                _ => (queries.clone(), (k.clone(), v.clone())),
            };
            let together = update(&mut joined, shape, &given, &batch);
            let together = together.attend(&queries_given, how).unwrap();
            let together = together.astype(Dtype::Float32).unwrap();
            together.eval().unwrap();
            let checked = step % 67 == 0 || step == last;
            for (row, cache) in alone.iter_mut().enumerate() {
                let one = |array: &Array| array.slice_axis(0, row as i32, row as i32 + 1).unwrap();
                let batch = Batch::single(&[0], lens[row]).unwrap();
                let view = update(cache, shape, &(one(&k), one(&v)), &batch);
                if !checked {
                    continue;
                }
                let expected = view.attend(&one(&queries), how).unwrap();
                let expected = expected.astype(Dtype::Float32).unwrap();
                let read = |array: &Array| array.contiguous().unwrap().to_vec::<f32>().unwrap();
                let (found, expected) = (read(&one(&together)), read(&expected));
                assert_eq!(found.len(), expected.len());
                let limit = if shape.dtype == Dtype::Float32 {
                    2e-5
                } else {
                    1e-2
                };
                for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                    assert!(
                        (a - b).abs() <= limit,
                        "shape {number}, step {step}, row {row}, element {i}: {a}, expected {b}"
                    );
                }
            }
        }
    }
}
