//! The kernels inside MLX's graph, against MLX's own operations.

use super::*;
use crate::mlx::tests::noise;
use crate::mlx::{
    Device, Runtime, dequantize, gather_qmm, quantize, quantized_matmul, quantized_rows,
};

#[track_caller]
fn close(ours: &Array, theirs: &Array, tolerance: f32) {
    assert_eq!(ours.shape(), theirs.shape());
    assert_eq!(ours.dtype(), theirs.dtype());
    let numbers = |a: &Array| a.astype(Dtype::Float32).unwrap().to_vec::<f32>().unwrap();
    let (ours, theirs) = (numbers(ours), numbers(theirs));
    let size = theirs.iter().fold(1e-3f32, |most, x| most.max(x.abs()));
    for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * size,
            "{i}: {a} and {b} of {size}"
        );
    }
}

fn tolerance(dtype: Dtype) -> f32 {
    if dtype == Dtype::Float32 { 2e-6 } else { 1e-2 }
}

/// `x · wᵀ` in float32, rounded once.
fn expected(x: &Array, w: &Array, dtype: Dtype) -> Array {
    let wide = |a: &Array| a.astype(Dtype::Float32).unwrap();
    let y = wide(x).matmul(&wide(w).swap_last().unwrap()).unwrap();
    y.astype(dtype).unwrap()
}

#[test]
fn products_with_packed_matrices_are_mlx_s() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let dtypes = [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16];
    for (i, bits) in [2, 3, 4, 5, 6, 8].into_iter().enumerate() {
        for group in [32, 64, 128] {
            let (of_w, of_x) = (dtypes[i % 3], dtypes[(i + group as usize / 32) % 3]);
            let w = noise(&[19, 256], 1).astype(of_w).unwrap();
            let w = quantize(&w, QuantMode::Affine, group, bits).unwrap();
            let x = noise(&[2, 3, 256], 2).astype(of_x).unwrap();
            assert!(takes_packed(&x, &w));
            let ours = times_packed(&x, &w).unwrap();
            let dense = dequantize(&w, Dtype::Float32).unwrap();
            let theirs = expected(&x, &dense, joint(of_x, of_w));
            close(&ours, &theirs, tolerance(of_x).max(tolerance(of_w)));
        }
    }
}

#[test]
fn matrices_in_blocks_are_the_same_matrices() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let numbers = |a: &Array| a.to_vec::<f32>().unwrap();
    for (i, bits) in [2, 4, 8].into_iter().enumerate() {
        let dtype = [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16][i];
        let w = noise(&[53, 128], 1).astype(dtype).unwrap();
        let w = quantize(&w, QuantMode::Affine, 64, bits).unwrap();
        let turned = w.clone().arranged().unwrap();
        assert_eq!(turned.order, Order::Blocks);
        let unpacked = |w: &Quantized| numbers(&dequantize(w, Dtype::Float32).unwrap());
        assert_eq!(unpacked(&turned), unpacked(&w));
        assert_eq!(unpacked(&turned.clone().arranged().unwrap()), unpacked(&w));
        for rows in [1, 3, 20] {
            let x = noise(&[rows, 128], 2);
            let product = |w: &Quantized| numbers(&quantized_matmul(&x, w, true).unwrap());
            assert_eq!(product(&turned), product(&w));
            let x = noise(&[rows, 53], 2);
            let product = |w: &Quantized| numbers(&quantized_matmul(&x, w, false).unwrap());
            assert_eq!(product(&turned), product(&w));
        }
        let ids = Array::from_slice(&[52u32, 0, 17], &[3]).unwrap();
        let rows = |w: &Quantized| numbers(&quantized_rows(&ids, w, Dtype::Float32).unwrap());
        assert_eq!(rows(&turned), rows(&w));
        let taken = |w: &Quantized| unpacked(&w.take(&ids).unwrap());
        assert_eq!(taken(&turned), taken(&w));
        // Experts, whose matrices are whole blocks or stay as they are.
        for (n, order) in [(32, Order::Blocks), (20, Order::Rows)] {
            let w = quantize(&noise(&[3, n, 128], 1), QuantMode::Affine, 64, bits).unwrap();
            let turned = w.clone().arranged().unwrap();
            assert_eq!(turned.order, order);
            assert_eq!(unpacked(&turned), unpacked(&w));
            let x = noise(&[3, 1, 128], 2);
            let product = |w: &Quantized| {
                let ids = Array::from_slice(&[2u32, 0, 2], &[3]).unwrap();
                numbers(&gather_qmm(&x, w, &ids, false).unwrap())
            };
            assert_eq!(product(&turned), product(&w));
        }
    }
    // What the kernels spread first, and what is less than a block.
    for (n, bits) in [(32, 3), (15, 4)] {
        let w = quantize(&noise(&[n, 128], 1), QuantMode::Affine, 64, bits).unwrap();
        assert_eq!(w.arranged().unwrap().order, Order::Rows);
    }
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let w = quantize(&noise(&[70, 128], 1), QuantMode::Affine, 64, 4).unwrap();
    let dense = noise(&[70, 128], 5);
    let x = noise(&[9, 128], 2);
    let [all, all_dense] = [times_packed(&x, &w), times_dense(&x, &dense)].map(|y| y.unwrap());
    for i in 0..9 {
        let row = |a: &Array| a.slice_axis(0, i, i + 1).unwrap();
        let alone = times_packed(&row(&x), &w).unwrap();
        let bits = |a: &Array| a.to_vec::<f32>().unwrap();
        assert_eq!(bits(&alone), bits(&row(&all)));
        let alone = times_dense(&row(&x), &dense).unwrap();
        assert_eq!(bits(&alone), bits(&row(&all_dense)));
    }
}

#[test]
fn dense_products_take_what_lies_apart() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for dtype in [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16] {
        let w = noise(&[33, 40], 3).astype(dtype).unwrap();
        let x = noise(&[40, 2, 5], 4).transpose_axes(&[1, 2, 0]).unwrap();
        let ours = times_dense(&x, &w).unwrap();
        close(&ours, &expected(&x, &w, Dtype::Float32), 2e-6);
    }
    let (x, w) = (noise(&[1, 41], 1), noise(&[3, 40], 2));
    let message = times_dense(&x, &w).unwrap_err().to_string();
    assert!(
        message.contains("41") && message.contains("40"),
        "{message}"
    );
}

#[test]
fn rows_are_what_unpacking_gives() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let w = quantize(&noise(&[50, 64], 1), QuantMode::Affine, 32, 4).unwrap();
    let ids = Array::from_slice(&[49u32, 0, 7, 7, 31, 2], &[2, 3]).unwrap();
    let ours = rows_packed(&ids, &w, Dtype::Float32).unwrap();
    let theirs = dequantize(&w.take(&ids).unwrap(), Dtype::Float32).unwrap();
    close(&ours, &theirs, 1e-6);
    let beyond = Array::from_slice(&[50u32], &[1]).unwrap();
    let message = rows_packed(&beyond, &w, Dtype::Float32)
        .unwrap()
        .eval()
        .unwrap_err();
    assert!(message.to_string().contains("50"), "{message}");
}

#[test]
fn experts_are_mlx_s() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let stack = noise(&[5, 24, 64], 1);
    let w = quantize(&stack, QuantMode::Affine, 64, 8).unwrap();
    let unpacked = dequantize(&w, Dtype::Float32).unwrap();
    let indices = Array::from_slice(&[4u32, 4, 0, 3, 1, 1], &[1, 3, 2]).unwrap();
    for shape in [[1, 3, 1, 1, 64], [1, 3, 2, 1, 64], [1, 1, 1, 3, 64]] {
        let x = noise(&shape, 2);
        assert!(takes_experts_packed(&x, &w, &indices));
        for (ours, matrices) in [
            (experts_packed(&x, &w, &indices), &unpacked),
            (experts_dense(&x, &stack, &indices), &stack),
        ] {
            let theirs = x.gather_mm(&matrices.swap_last().unwrap(), &indices, false);
            close(&ours.unwrap(), &theirs.unwrap(), 2e-6);
        }
    }
    let beyond = Array::from_slice(&[5u32], &[1]).unwrap();
    let y = experts_packed(&noise(&[1, 1, 64], 1), &w, &beyond).unwrap();
    assert!(y.eval().unwrap_err().to_string().contains("expert"));
}
