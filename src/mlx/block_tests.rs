//! A layer as one operation against its parts: the same bits.

use super::*;
use crate::mlx::layers::{Turning, packed_heads, packed_mlp};
use crate::mlx::tests::noise;
use crate::mlx::{
    Device, Mask, QuantMode, Runtime, quantize, quantized_matmul, rms_norm,
    scaled_dot_product_attention,
};

const D: i32 = 16;
const D_MODEL: i32 = 64;
const ROOM: i32 = 24;

fn matrix(n: i32, k: i32, bits: i32, seed: u32) -> Quantized {
    quantize(&noise(&[n, k], seed), QuantMode::Affine, 32, bits).unwrap()
}

#[track_caller]
fn same(ours: &Array, theirs: &Array) {
    assert_eq!(ours.shape(), theirs.shape());
    let theirs = theirs.contiguous().unwrap();
    assert_eq!(
        ours.to_vec::<f32>().unwrap(),
        theirs.to_vec::<f32>().unwrap()
    );
}

/// What single operations make of the layer.
fn apart(
    block: &PackedBlock,
    h: &Array,
    keys: &Array,
    values: &Array,
    len: i32,
) -> Result<[Array; 3]> {
    let l = h.dim(1)?;
    let x = rms_norm(h, block.norms[0].0, block.norms[0].1)?;
    let [q, k, v] = packed_heads(&x, block.qkv, &block.heading).unwrap()?;
    let stop = [1, k.dim(1)?, len + l, D];
    let keys = keys.clone().slice_update(&k, &[0, 0, len, 0], &stop)?;
    let values = values.clone().slice_update(&v, &[0, 0, len, 0], &stop)?;
    let (seen_k, seen_v) = (
        keys.slice_axis(2, 0, len + l)?,
        values.slice_axis(2, 0, len + l)?,
    );
    let mask = if l == 1 { Mask::None } else { Mask::Causal };
    let y = scaled_dot_product_attention(&q, &seen_k, &seen_v, block.scale, mask, None)?;
    let y = y.transpose_axes(&[0, 2, 1, 3])?.flatten(2, 3)?;
    let h = h.add(&quantized_matmul(&y, block.o, true)?)?;
    let x = rms_norm(&h, block.norms[1].0, block.norms[1].1)?;
    let [gate, up, down] = block.mlp;
    Ok([
        h.add(&packed_mlp(&x, gate, up, down).unwrap()?)?,
        keys,
        values,
    ])
}

#[test]
fn a_layer_is_its_parts() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let qkv = [
        matrix(64, 64, 4, 1),
        matrix(32, 64, 4, 2),
        matrix(32, 64, 8, 3),
    ];
    let o = matrix(D_MODEL, 64, 4, 4);
    let mlp = [
        matrix(96, 64, 4, 5),
        matrix(96, 64, 4, 6),
        matrix(D_MODEL, 96, 6, 7),
    ];
    let scales = [noise(&[D_MODEL], 8), noise(&[D_MODEL], 9)];
    let head_scales = [noise(&[D], 10), noise(&[D], 11)];
    let squares = noise(&[D / 2], 12).square().unwrap();
    let one = Array::full(&[1], 1.0, Dtype::Float32).unwrap();
    let table = RopeFreqs::Table(squares.add(&one).unwrap());
    let base = RopeFreqs::Base(1e4);
    for (l, len, normed, freqs, traditional) in [
        (1, 0, true, Some(&base), false),
        (1, 20, true, Some(&table), true),
        (1, 7, false, None, false),
        (5, 9, true, Some(&base), false),
        (4, 0, false, Some(&base), true),
    ] {
        let rope = freqs.map(|freqs| Turning {
            dims: if normed { D } else { D / 2 },
            traditional,
            freqs,
            scale: 0.5,
            start: Ok(len),
        });
        let heading = Heading {
            head_dim: D,
            norms: normed.then_some([(Some(&head_scales[0]), 1e-6), (Some(&head_scales[1]), 1e-5)]),
            rope,
        };
        let block = PackedBlock {
            norms: [(Some(&scales[0]), 1e-6), (Some(&scales[1]), 1e-5)],
            qkv: qkv.each_ref(),
            heading,
            scale: 0.3,
            o: &o,
            mlp: mlp.each_ref(),
            held: &Held::default(),
        };
        let h = noise(&[1, l, D_MODEL], 13);
        assert_eq!(block.entries(&h), Some([1, 2, l, D]));
        let [keys, values] = [14, 15].map(|seed| noise(&[1, 2, ROOM, D], seed));
        let theirs = apart(&block, &h, &keys, &values, len).unwrap();
        let before = keys.to_vec::<f32>().unwrap();
        // With a handle left the array stays as it was; without one it may be changed in place.
        let copies = [keys.clone(), noise(&[1, 2, ROOM, D], 15)];
        let [k, v] = copies;
        let ours = block.forward(&h, k, v, len as usize).unwrap();
        for (ours, theirs) in ours.iter().zip(&theirs) {
            same(ours, theirs);
        }
        assert_eq!(keys.to_vec::<f32>().unwrap(), before);
    }
}

/// A layer whose matrices and scales are all the same, without anything beside.
fn plain<'a>(w: &'a Quantized, scale: &'a Array, held: &'a Held) -> PackedBlock<'a> {
    PackedBlock {
        norms: [(Some(scale), 1e-6); 2],
        qkv: [w; 3],
        heading: Heading {
            head_dim: D,
            norms: None,
            rope: None,
        },
        scale: 0.25,
        o: w,
        mlp: [w; 3],
        held,
    }
}

#[test]
fn other_layers_are_refused() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let w = matrix(64, 64, 4, 1);
    let scale = noise(&[64], 2);
    let held = Held::default();
    let block = plain(&w, &scale, &held);
    let h = noise(&[1, 2, 64], 3);
    assert!(block.entries(&h).is_some());
    assert!(block.entries(&noise(&[2, 1, 64], 3)).is_none());
    assert!(block.entries(&noise(&[1, 17, 64], 3)).is_none());
    assert!(block.entries(&noise(&[1, 1, 96], 3)).is_none());
    assert!(block.entries(&h.astype(Dtype::Float16).unwrap()).is_none());
    let bare = PackedBlock {
        norms: [(None, 1e-6); 2],
        ..block
    };
    assert!(bare.entries(&h).is_none());
    let narrow = matrix(32, 64, 4, 4);
    let odd = PackedBlock {
        qkv: [&w, &narrow, &w],
        ..block
    };
    assert!(odd.entries(&h).is_none());
    let room = || noise(&[1, 4, 8, D], 5);
    let full = block.forward(&h, room(), room(), 7).unwrap_err();
    assert!(full.to_string().contains("no room"), "{full}");
    assert!(block.forward(&h, room(), room(), 6).is_ok());
}

#[test]
fn steps_change_the_cache_in_place() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let w = matrix(64, 64, 4, 1);
    let scale = noise(&[64], 2);
    let held = Held::default();
    let block = plain(&w, &scale, &held);
    let mut h = noise(&[1, 1, 64], 3);
    let (mut keys, mut values) = (noise(&[1, 4, 64, D], 4), noise(&[1, 4, 64, D], 5));
    let mut parts = (
        h.clone(),
        keys.contiguous().unwrap(),
        values.contiguous().unwrap(),
    );
    // SAFETY: the handle is live, and the array evaluated; the address is compared, not read.
    let place = |array: &Array| unsafe { mlx_sys::mlx_array_data_float32(array.raw()) };
    let mut places = Vec::new();
    for len in 0..40 {
        let (at, theirs) = (len as usize, &mut parts);
        let [a, b, c] = apart(&block, &theirs.0, &theirs.1, &theirs.2, len).unwrap();
        *theirs = (a, b, c);
        [h, keys, values] = block.forward(&h, keys, values, at).unwrap();
        if len < 20 {
            // The next is started before this one has ended.
            crate::mlx::async_eval(&[&h]).unwrap();
            continue;
        }
        h.eval().unwrap();
        places.push([place(&keys), place(&values)]);
    }
    assert!(places.windows(2).all(|two| two[0] == two[1]), "{places:?}");
    same(&h, &parts.0);
    same(&keys, &parts.1);
    same(&values, &parts.2);
}
