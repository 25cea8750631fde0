//! Matrices in packed layouts that are not MLX's own, and matrices that converters cut up.

use super::weights::{Cursor, LoadError, LoadResult};
use crate::mlx::{self, Array, Dtype, Order, QuantMode, Quantized, dequantize, from_fp8, quantize};
use crate::nn::Matrix;

/// The name of the scales beside a block-scaled `weight`.
pub(super) const SCALE_INV: &str = "weight_scale_inv";

/// Rows, and columns, that share such a scale.
const BLOCK: usize = 128;

impl Cursor<'_> {
    /// The matrix `[out, in]` here, 8-bit floats (e4m3) with one scale for each block of 128 by 128
    /// (DeepSeek-V3, 2024, section 3.3). It becomes bfloat16 first, as mlx-lm has it.
    pub(super) fn block_scaled(&self, shape: &[usize]) -> LoadResult<Array> {
        let &[rows, columns] = shape else {
            return Err(LoadError::Unsupported(format!(
                "{} has 8-bit floats with block scales, which only single matrices can have",
                self.path()
            )));
        };
        let codes = self.raw("weight", Some(shape))?;
        if self.stored("weight").map(|tensor| tensor.dtype) != Some(super::Dtype::F8E4M3) {
            return Err(self.wrong_type("weight", "F8_E4M3"));
        }
        let blocks = [rows.div_ceil(BLOCK), columns.div_ceil(BLOCK)];
        let scales = self.raw(SCALE_INV, Some(&blocks))?;
        if !scales.dtype().is_float() {
            return Err(self.wrong_type(SCALE_INV, "F32, F16 or BF16"));
        }
        let scales = scales
            .repeat(BLOCK as i32, 0)?
            .repeat(BLOCK as i32, 1)?
            .slice(&[0, 0], &[rows as i32, columns as i32])?; // [out, in]
        let weight = from_fp8(&codes, Dtype::Bfloat16)?.multiply(&scales)?;
        self.keep_dense(weight.astype(Dtype::Bfloat16)?)
    }

    /// Matrices `[E, out, in]` of 4-bit floats as OpenAI published gpt-oss: `name_blocks`, uint8
    /// `[E, out, in / 32, 16]` with two numbers in each, and `name_scales`.
    pub fn mxfp4_blocks(&self, name: &str, [e, out, inner]: [usize; 3]) -> LoadResult<Matrix> {
        let (blocks, scales) = (format!("{name}_blocks"), format!("{name}_scales"));
        if !inner.is_multiple_of(32) {
            return Err(LoadError::Unsupported(format!(
                "{}.{blocks}: rows of {inner} cannot be packed by 32",
                self.path()
            )));
        }
        let groups = inner / 32;
        let bytes = |name: &str, shape: &[usize]| {
            let array = self.raw(name, Some(shape))?;
            match array.dtype() {
                Dtype::Uint8 => Ok(array),
                _ => Err(self.wrong_type(name, "U8")),
            }
        };
        let weight = bytes(&blocks, &[e, out, groups, 16])?;
        let scales = bytes(&scales, &[e, out, groups])?;
        self.keep_packed(Quantized {
            weight: weight.view(Dtype::Uint32)?.flatten(2, 3)?, // [E, out, in / 8]
            scales,
            biases: None,
            group_size: 32,
            bits: 4,
            mode: QuantMode::Mxfp4,
            order: Order::Rows,
        })
    }

    /// Matrices that `cut` makes of the one here, which MLX's layout has as `names`
    /// of the place `beside` it. A packed one is unpacked, and what comes of it is
    /// packed again in the same way, because its rows may run along other features: so does mlx-lm,
    /// and what rounding does to them is part of the result.
    pub fn cut_matrix<const N: usize>(
        &self,
        shape: &[usize],
        beside: &Cursor,
        names: [&str; N],
        cut: impl Fn(&Array) -> mlx::Result<[Array; N]>,
    ) -> LoadResult<[Matrix; N]> {
        let parts: Vec<Matrix> = if self.has("scales") {
            let whole = self.quantized(shape)?;
            let Quantized {
                mode,
                group_size,
                bits,
                ..
            } = whole;
            let dtype = match mode.has_biases() {
                true => whole.scales.dtype(),
                false => Dtype::Bfloat16,
            };
            let pack = |part| self.keep_packed(quantize(&part, mode, group_size, bits)?);
            let parts = cut(&dequantize(&whole, dtype)?)?.into_iter().map(pack);
            parts.collect::<LoadResult<_>>()?
        } else {
            let own = |part: Array| {
                let part = part.contiguous()?;
                part.eval()?;
                Ok(part.into())
            };
            let parts = cut(&self.dense(shape)?)?.into_iter().map(own);
            parts.collect::<LoadResult<_>>()?
        };
        let told = names
            .into_iter()
            .zip(parts)
            .map(|(name, part)| beside.at(name).told_matrix(part));
        let parts = told.collect::<LoadResult<Vec<_>>>()?;
        // As many parts as `cut` made.
        Ok(<[Matrix; N]>::try_from(parts).unwrap_or_else(|_| unreachable!()))
    }
}
