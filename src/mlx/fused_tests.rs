//! Fused operations against the ones that MLX makes of many.

use super::*;
use crate::mlx::{Device, Runtime, fast};

/// Numbers from -2 to 2, the same each time.
fn noise(shape: &[i32], seed: u32) -> Array {
    crate::mlx::tests::noise(shape, seed).scale(2.0).unwrap()
}

/// In float32; `theirs` may be in float64, of which MLX makes no fused operation of ours.
#[track_caller]
fn close(ours: &Array, theirs: &Array, tolerance: f32) {
    assert_eq!(ours.shape(), theirs.shape());
    let theirs = theirs.astype(Dtype::Float32).unwrap();
    let (ours, theirs) = (
        ours.to_vec::<f32>().unwrap(),
        theirs.to_vec::<f32>().unwrap(),
    );
    for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * b.abs().max(1.0),
            "{i}: {a} and {b}"
        );
    }
}

fn wide(x: &Array) -> Array {
    x.astype(Dtype::Float64).unwrap()
}

#[test]
fn norms_are_as_defined() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for d in [1, 7, 16, 40, 256] {
        let (x, w) = (noise(&[3, 5, d], 1), noise(&[d], 2));
        let mean = wide(&x).square().unwrap();
        let mean = mean
            .sum_axis(-1, true)
            .unwrap()
            .scale(1.0 / d as f32)
            .unwrap();
        let root = mean
            .add(&mean.scalar_like(1e-5).unwrap())
            .unwrap()
            .sqrt()
            .unwrap();
        let plain = wide(&x).divide(&root).unwrap();
        close(&fast::rms_norm(&x, None, 1e-5).unwrap(), &plain, 1e-6);
        let scaled = plain.multiply(&wide(&w)).unwrap();
        close(&fast::rms_norm(&x, Some(&w), 1e-5).unwrap(), &scaled, 1e-6);
    }
}

#[test]
fn gates_are_as_defined_from_end_to_end() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let gate = noise(&[3, 1111], 1).scale(60.0).unwrap();
    let up = noise(&[3, 1111], 2);
    let silu = gate.multiply(&gate.sigmoid().unwrap()).unwrap();
    let theirs = silu.multiply(&up).unwrap();
    close(&silu_gate(&gate, &up).unwrap(), &theirs, 2e-6);
    let (huge, one) = (&[-1e30f32, -90.0, 90.0, 1e30][..], &[1.0f32; 4][..]);
    let [huge, one] = [huge, one].map(|x| Array::from_slice(x, &[4]).unwrap());
    let found = silu_gate(&huge, &one).unwrap().to_vec::<f32>().unwrap();
    assert!(
        found[0].abs() < 1e-30 && found[1].abs() < 1e-30,
        "{found:?}"
    );
    assert_eq!(found[2..], [90.0, 1e30]);
}

#[test]
fn features_turn_as_mlx_turns_them() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let x = noise(&[2, 5, 3, 16], 1)
        .transpose_axes(&[0, 2, 1, 3])
        .unwrap();
    let offsets = Array::from_slice(&[7, 900], &[2]).unwrap();
    let table: Vec<f32> = (0..4).map(|i| 3.0f32.powi(i)).collect();
    let table = Array::from_slice(&table, &[4]).unwrap();
    for (dims, traditional) in [(16, false), (16, true), (8, false), (8, true)] {
        let mut all = vec![RopeFreqs::Base(10_000.0)];
        if dims == 8 {
            all.push(RopeFreqs::Table(table.clone()));
        }
        for freqs in all {
            assert!(takes_rope(&x, dims, &freqs));
            // Of float16, which is not ours, to the same numbers.
            let half = x.astype(Dtype::Float16).unwrap();
            let same = half.astype(Dtype::Float32).unwrap();
            let ours = fast::rope_rows(&same, dims, traditional, &freqs, 0.5, &offsets).unwrap();
            let theirs = fast::rope_rows(&half, dims, traditional, &freqs, 0.5, &offsets).unwrap();
            close(&ours, &theirs, 4e-3);
            let ours = fast::rope(&same, dims, traditional, &freqs, 1.0, 11).unwrap();
            let theirs = fast::rope(&half, dims, traditional, &freqs, 1.0, 11).unwrap();
            close(&ours, &theirs, 4e-3);
        }
    }
}

/// Attention operation by operation, in float64.
fn plainly(q: &Array, k: &Array, v: &Array, seen: Option<&Array>, sinks: Option<&Array>) -> Array {
    let (h, n_kv_heads) = (q.dim(1).unwrap(), k.dim(1).unwrap());
    let q = wide(q).unflatten(1, &[n_kv_heads, h / n_kv_heads]).unwrap();
    let [k, v] = [k, v].map(|x| wide(x).expand_dims(2).unwrap());
    let scores = q
        .matmul(&k.swap_last().unwrap())
        .unwrap()
        .scale(0.25)
        .unwrap();
    let mut scores = scores.flatten(1, 2).unwrap();
    if let Some(seen) = seen {
        let never = scores.scalar_like(f32::NEG_INFINITY).unwrap();
        scores = seen.select(&scores, &never).unwrap();
    }
    let s = scores.dim(3).unwrap();
    if let Some(sinks) = sinks {
        let mut shape = scores.shape();
        shape[3] = 1;
        let sinks = wide(sinks)
            .reshape(&[1, h, 1, 1])
            .unwrap()
            .broadcast_to(&shape)
            .unwrap();
        scores = Array::concatenate(&[&scores, &sinks], 3).unwrap();
    }
    let weights = scores.softmax().unwrap().slice_axis(3, 0, s).unwrap();
    let weights = weights.unflatten(1, &[n_kv_heads, h / n_kv_heads]).unwrap();
    weights.matmul(&v).unwrap().flatten(1, 2).unwrap()
}

#[test]
fn attention_is_as_defined() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let sinks = noise(&[6], 9);
    for (l, s, d, width) in [
        (1, 37, 16, 16),
        (1, 1, 20, 36),
        (5, 19, 16, 24),
        (33, 50, 20, 16),
    ] {
        for n_kv_heads in [1, 3, 6] {
            let q = noise(&[2, l, 6, d], 1)
                .transpose_axes(&[0, 2, 1, 3])
                .unwrap();
            let room = noise(&[2, n_kv_heads, 64, d], 2);
            let k = room.slice_axis(2, 0, s).unwrap();
            let v = noise(&[2, n_kv_heads, s, width], 3);
            let ones = Array::full(&[l, s], 1.0, Dtype::Bool).unwrap();
            let causal = ones.tril(s - l).unwrap();
            let window = Array::full(&[l, s], 1.0, Dtype::Bool)
                .unwrap()
                .tril(s - l - 2)
                .unwrap();
            let window = window.logical_not().unwrap();
            let mut masks = vec![(Mask::None, None), (Mask::Causal, Some(&causal))];
            masks.push((Mask::Array(&causal), Some(&causal)));
            masks.push((Mask::Array(&window), Some(&window)));
            for (mask, seen) in masks {
                for sinks in [None, Some(&sinks)] {
                    assert!(takes_attention((&q, &k, &v), mask, sinks));
                    let ours = attention((&q, &k, &v), 0.25, mask, sinks).unwrap();
                    close(&ours, &plainly(&q, &k, &v, seen, sinks), 1e-5);
                }
            }
        }
    }
}
