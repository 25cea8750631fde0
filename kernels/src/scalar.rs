//! The same products, a number at a time: for machines without a faster way.

use crate::{Floats, FloatsMut, Packed, Precision};

/// Columns of a dense product that are summed up before they join the whole.
const BLOCK: usize = 64;

/// [`crate::packed_matmul_as`].
pub(crate) fn packed(_: Precision, x: Floats, m: usize, w: &Packed, mut out: FloatsMut) {
    let (k, groups) = (w.cols, w.groups());
    for row in 0..w.rows {
        let words = w.row(row);
        for i in 0..m {
            let mut sum = 0f32;
            for group in 0..groups {
                let (mut dot, mut total) = (0f32, 0f32);
                for col in group * w.group_size..(group + 1) * w.group_size {
                    let value = x.get(i * k + col);
                    dot = value.mul_add(w.code(words, col) as f32, dot);
                    total += value;
                }
                sum = w.scales.get(row * groups + group).mul_add(dot, sum);
                sum = w.biases.get(row * groups + group).mul_add(total, sum);
            }
            out.set(i * w.rows + row, sum);
        }
    }
}

/// [`crate::dense_matmul`].
pub(crate) fn dense(x: Floats, m: usize, w: Floats, n: usize, k: usize, mut out: FloatsMut) {
    for i in 0..m {
        for row in 0..n {
            let mut sum = 0f32;
            for start in (0..k).step_by(BLOCK) {
                let mut block = 0f32;
                for col in start..k.min(start + BLOCK) {
                    block = x.get(i * k + col).mul_add(w.get(row * k + col), block);
                }
                sum += block;
            }
            out.set(i * n + row, sum);
        }
    }
}

/// [`crate::packed_rows`].
pub(crate) fn rows(ids: &[u32], w: &Packed, mut out: FloatsMut) {
    let groups = w.groups();
    for (i, id) in ids.iter().enumerate() {
        let row = *id as usize;
        let words = w.row(row);
        for col in 0..w.cols {
            let at = row * groups + col / w.group_size;
            let code = w.code(words, col) as f32;
            let value = code.mul_add(w.scales.get(at), w.biases.get(at));
            out.set(i * w.cols + col, value);
        }
    }
}
