//! Stretches of a layer against the single operations: the same bits.

use super::*;
use crate::mlx::QuantMode;
use crate::mlx::tests::noise;
use crate::mlx::{Device, Runtime, fast, quantize, quantized_matmul};

#[track_caller]
fn same(ours: &Array, theirs: &Array) {
    assert_eq!(ours.shape(), theirs.shape());
    assert_eq!(
        ours.to_vec::<f32>().unwrap(),
        theirs.contiguous().unwrap().to_vec::<f32>().unwrap()
    );
}

fn matrix(n: i32, k: i32, bits: i32, seed: u32) -> Quantized {
    quantize(&noise(&[n, k], seed), QuantMode::Affine, 32, bits).unwrap()
}

#[test]
fn feed_forward_layers_are_their_parts() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let (gate, up) = (matrix(96, 64, 4, 1), matrix(96, 64, 8, 2));
    let down = matrix(32, 96, 3, 3);
    for shape in [&[64][..], &[1, 1, 64], &[2, 3, 64], &[2, 0, 64]] {
        let x = noise(shape, 4);
        let ours = packed_mlp(&x, &gate, &up, &down).unwrap().unwrap();
        let [gates, ups] = [&gate, &up].map(|w| quantized_matmul(&x, w, true).unwrap());
        let fed = fast::silu_gate(&gates, &ups).unwrap().unwrap();
        same(&ours, &quantized_matmul(&fed, &down, true).unwrap());
    }
    // Many rows, another type, and matrices that do not fit.
    assert!(packed_mlp(&noise(&[17, 64], 4), &gate, &up, &down).is_none());
    let halves = noise(&[1, 64], 4).astype(Dtype::Float16).unwrap();
    assert!(packed_mlp(&halves, &gate, &up, &down).is_none());
    assert!(packed_mlp(&noise(&[1, 64], 4), &gate, &down, &down).is_none());
    assert!(packed_mlp(&noise(&[1, 96], 4), &gate, &up, &down).is_none());
}

#[test]
fn heads_are_projected_normalised_and_turned() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let (d, heads) = (16, [4, 2, 2]);
    let mut seed = 0;
    let weights = heads.map(|h| {
        seed += 1;
        matrix(h * d, 64, 4, seed)
    });
    let scales = [noise(&[d], 5), noise(&[d], 6)];
    let table = noise(&[d / 2], 7)
        .square()
        .unwrap()
        .add(&noise(&[1], 8).square().unwrap());
    let freqs = [RopeFreqs::Base(1e4), RopeFreqs::Table(table.unwrap())];
    let starts = Array::from_slice(&[3, 40], &[2]).unwrap();
    for (l, normed, turned, traditional, start) in [
        (1, true, Some(0), false, Ok(9)),
        (1, false, Some(1), true, Err(&starts)),
        (4, true, Some(1), false, Err(&starts)),
        (3, false, Some(0), true, Ok(0)),
        (2, true, None, false, Ok(0)),
    ] {
        let x = noise(&[2, l, 64], 9);
        let rope = turned.map(|i: usize| Turning {
            dims: d,
            traditional,
            freqs: &freqs[i],
            scale: 0.5,
            start,
        });
        let heading = Heading {
            head_dim: d,
            norms: normed.then_some([(Some(&scales[0]), 1e-6), (Some(&scales[1]), 1e-5)]),
            rope,
        };
        let ours = packed_heads(&x, weights.each_ref(), &heading)
            .unwrap()
            .unwrap();
        for (i, w) in weights.iter().enumerate() {
            let y = quantized_matmul(&x, w, true).unwrap();
            let mut y = y.unflatten(2, &[heads[i], d]).unwrap();
            if normed && i < 2 {
                y = fast::rms_norm(&y, Some(&scales[i]), [1e-6, 1e-5][i]).unwrap();
            }
            y = y.transpose_axes(&[0, 2, 1, 3]).unwrap();
            if let Some(rope) = rope.filter(|_| i < 2) {
                y = match rope.start {
                    Ok(start) => fast::rope(&y, d, traditional, rope.freqs, 0.5, start),
                    Err(starts) => fast::rope_rows(&y, d, traditional, rope.freqs, 0.5, starts),
                }
                .unwrap();
            }
            same(&ours[i], &y);
        }
    }
    let heading = Heading {
        head_dim: 24,
        norms: None,
        rope: None,
    };
    assert!(packed_heads(&noise(&[1, 1, 64], 9), weights.each_ref(), &heading).is_none());
}
