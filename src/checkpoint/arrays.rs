//! From a stored tensor to an array.

use super::Dtype as Stored;
use super::index::Tensor;
use super::weights::{LoadError, LoadResult};
use crate::mlx::{Array, Dtype};

impl Tensor<'_> {
    /// The type and the shape of an array that holds it.
    pub(super) fn array_type(&self) -> LoadResult<(Dtype, Vec<i32>)> {
        let Some(dtype) = self.dtype.array_dtype() else {
            return Err(LoadError::Type {
                name: self.name.into(),
                found: self.dtype.name(),
                expected: "F32, F16, BF16, F8_E4M3, U32 or U8",
            });
        };
        // A validated header has dimensions that fit.
        Ok((dtype, self.shape.iter().map(|&d| d as i32).collect()))
    }

    /// A copy of it as an array; 8-bit floats as their codes.
    ///
    /// # Errors
    /// If MLX has no such type.
    pub fn array(&self) -> LoadResult<Array> {
        let (dtype, shape) = self.array_type()?;
        Ok(Array::from_bytes(self.bytes, &shape, dtype)?)
    }
}

impl Stored {
    /// The element type of an array that holds such a tensor, if MLX has one.
    pub(super) fn array_dtype(self) -> Option<Dtype> {
        Some(match self {
            Stored::Bool => Dtype::Bool,
            // MLX has no such type: `from_fp8` reads the codes.
            Stored::U8 | Stored::F8E4M3 => Dtype::Uint8,
            Stored::I8 => Dtype::Int8,
            Stored::U16 => Dtype::Uint16,
            Stored::I16 => Dtype::Int16,
            Stored::U32 => Dtype::Uint32,
            Stored::I32 => Dtype::Int32,
            Stored::U64 => Dtype::Uint64,
            Stored::I64 => Dtype::Int64,
            Stored::F16 => Dtype::Float16,
            Stored::BF16 => Dtype::Bfloat16,
            Stored::F32 => Dtype::Float32,
            _ => return None,
        })
    }

    /// How an array of this type is stored, if the format has such a type.
    pub fn of_array(dtype: Dtype) -> Option<Stored> {
        let mut all = Stored::ALL.iter().copied();
        // 8-bit floats are read as their codes, which are stored as bytes.
        all.find(|stored| *stored != Stored::F8E4M3 && stored.array_dtype() == Some(dtype))
    }
}
