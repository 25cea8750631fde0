//! Element types.

use std::fmt;

/// The type of an array's elements, with MLX's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Dtype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Float16,
    Float32,
    Float64,
    Bfloat16,
    Complex64,
}

use Dtype::*;

const TABLE: [(Dtype, mlx_sys::mlx_dtype, &str, usize); 14] = [
    (Bool, mlx_sys::mlx_dtype::MLX_BOOL, "bool", 1),
    (Uint8, mlx_sys::mlx_dtype::MLX_UINT8, "uint8", 1),
    (Uint16, mlx_sys::mlx_dtype::MLX_UINT16, "uint16", 2),
    (Uint32, mlx_sys::mlx_dtype::MLX_UINT32, "uint32", 4),
    (Uint64, mlx_sys::mlx_dtype::MLX_UINT64, "uint64", 8),
    (Int8, mlx_sys::mlx_dtype::MLX_INT8, "int8", 1),
    (Int16, mlx_sys::mlx_dtype::MLX_INT16, "int16", 2),
    (Int32, mlx_sys::mlx_dtype::MLX_INT32, "int32", 4),
    (Int64, mlx_sys::mlx_dtype::MLX_INT64, "int64", 8),
    (Float16, mlx_sys::mlx_dtype::MLX_FLOAT16, "float16", 2),
    (Float32, mlx_sys::mlx_dtype::MLX_FLOAT32, "float32", 4),
    (Float64, mlx_sys::mlx_dtype::MLX_FLOAT64, "float64", 8),
    (Bfloat16, mlx_sys::mlx_dtype::MLX_BFLOAT16, "bfloat16", 2),
    (Complex64, mlx_sys::mlx_dtype::MLX_COMPLEX64, "complex64", 8),
];

impl Dtype {
    pub(super) fn raw(self) -> mlx_sys::mlx_dtype {
        TABLE[self as usize].1
    }

    /// `None` for a number that this version of MLX does not define.
    pub(super) fn from_raw(raw: mlx_sys::mlx_dtype) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == raw).map(|row| row.0)
    }

    /// MLX's name of it, such as `bfloat16`.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].2
    }

    /// Bytes an element takes.
    pub fn size(self) -> usize {
        TABLE[self as usize].3
    }

    /// Whether it is one of the real floating-point types.
    pub fn is_float(self) -> bool {
        matches!(self, Float16 | Float32 | Float64 | Bfloat16)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
