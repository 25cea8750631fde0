//! The array: one handle to a lazily computed tensor.

use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;

use super::error::{check, install_handler};
use super::eval::Postponed;
use super::{Dtype, Error, Result, on_cuda, upload};

/// A handle to an MLX array. Cloning shares the data; dropping releases the handle.
///
/// An array belongs to the thread that made it, as its stream does:
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<pensieve::mlx::Array>();
/// ```
pub struct Array {
    /// What the handle holds: mlx-c's own pointer. Hence `!Send` and `!Sync`, and never null, so that
    /// an array that may be missing takes no more room.
    ctx: NonNull<c_void>,
}

/// A Rust type that an array's elements can be read as; only ever as their own type.
pub trait Element: Copy + Default {
    /// The matching element type.
    const DTYPE: Dtype;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(impl Element for $rust { const DTYPE: Dtype = Dtype::$dtype; })*
    };
}

elements! {
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f32 => Float32,
}

impl Array {
    /// Takes over a handle that mlx-c returned for `op`.
    #[track_caller]
    pub(super) fn from_raw(op: &'static str, raw: mlx_sys::mlx_array) -> Result<Self> {
        match NonNull::new(raw.ctx) {
            Some(ctx) => Ok(Self { ctx }),
            None => Err(Error::new(op, &[], "mlx-c returned no array")),
        }
    }

    pub(super) fn raw(&self) -> mlx_sys::mlx_array {
        let ctx = self.ctx.as_ptr();
        mlx_sys::mlx_array { ctx }
    }

    /// Copies `data` into a new array of this shape.
    ///
    /// # Errors
    /// If `shape` does not have as many elements as `data`.
    #[track_caller]
    pub fn from_slice<T: Element>(data: &[T], shape: &[i32]) -> Result<Self> {
        // SAFETY: any initialised slice of plain numbers is readable as bytes.
        let bytes = unsafe {
            std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), std::mem::size_of_val(data))
        };
        Self::from_bytes(bytes, shape, T::DTYPE)
    }

    /// Copies native-endian `bytes` into a new array of this shape and type.
    ///
    /// # Errors
    /// If a dimension is negative, or the bytes are not exactly as many as shape and type need.
    #[track_caller]
    pub fn from_bytes(bytes: &[u8], shape: &[i32], dtype: Dtype) -> Result<Self> {
        let op = "array";
        let needed = shape.iter().try_fold(dtype.size(), |n, &d| {
            n.checked_mul(usize::try_from(d).ok()?)
        });
        if needed != Some(bytes.len()) {
            let message = format!("{} bytes given for {dtype}{shape:?}", bytes.len());
            return Err(Error::new(op, &[], message));
        }
        if bytes.len() >= upload::LARGE
            && on_cuda()
            && let Some(array) = upload::upload(bytes, shape, dtype)?
        {
            return Ok(array);
        }
        // mlx-c reads through a pointer of the element's type; a memory-mapped tensor may start
        // anywhere, so a misaligned one goes through an aligned copy.
        let aligned;
        let data = if (bytes.as_ptr() as usize).is_multiple_of(dtype.size()) {
            bytes.as_ptr()
        } else {
            let mut words = vec![0u64; bytes.len().div_ceil(8)];
            // SAFETY: `words` has at least as many bytes, and the two do not overlap.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    bytes.as_ptr(),
                    words.as_mut_ptr().cast::<u8>(),
                    bytes.len(),
                )
            };
            aligned = words;
            aligned.as_ptr().cast()
        };
        install_handler();
        let dim = shape.len() as i32;
        // SAFETY: `data` holds exactly what shape and type need, as checked, and is copied.
        let raw =
            unsafe { mlx_sys::mlx_array_new_data(data.cast(), shape.as_ptr(), dim, dtype.raw()) };
        Self::from_raw(op, raw)
    }

    /// A scalar, of shape `[]`.
    #[track_caller]
    pub fn from_f32(value: f32) -> Result<Self> {
        Self::from_slice(&[value], &[])
    }

    /// A scalar, of shape `[]`.
    #[track_caller]
    pub fn from_i32(value: i32) -> Result<Self> {
        Self::from_slice(&[value], &[])
    }

    /// Its dimensions.
    pub fn shape(&self) -> Vec<i32> {
        // SAFETY: the handle is live; mlx-c's pointer is valid for `ndim` numbers until it is
        // freed. A scalar's pointer may be null or dangling, so it is not read.
        unsafe {
            match mlx_sys::mlx_array_ndim(self.raw()) {
                0 => Vec::new(),
                n => std::slice::from_raw_parts(mlx_sys::mlx_array_shape(self.raw()), n).to_vec(),
            }
        }
    }

    /// The number of its dimensions.
    pub fn ndim(&self) -> usize {
        // SAFETY: the handle is live.
        unsafe { mlx_sys::mlx_array_ndim(self.raw()) }
    }

    /// One dimension; negative axes count from the end.
    ///
    /// # Errors
    /// If there is no such axis.
    #[track_caller]
    pub fn dim(&self, axis: i32) -> Result<i32> {
        let ndim = self.ndim() as i32;
        let index = if axis < 0 { axis + ndim } else { axis };
        if !(0..ndim).contains(&index) {
            let message = format!("no axis {axis} among {ndim}");
            return Err(Error::new("dim", &[self], message));
        }
        // SAFETY: the handle is live and the axis exists.
        Ok(unsafe { mlx_sys::mlx_array_dim(self.raw(), index) })
    }

    /// Its element type.
    pub fn dtype(&self) -> Dtype {
        // SAFETY: the handle is live.
        let raw = unsafe { mlx_sys::mlx_array_dtype(self.raw()) };
        Dtype::from_raw(raw).unwrap_or(Dtype::Bool)
    }

    /// The number of its elements.
    pub fn size(&self) -> usize {
        // SAFETY: the handle is live.
        unsafe { mlx_sys::mlx_array_size(self.raw()) }
    }

    /// The bytes its elements take.
    pub fn nbytes(&self) -> usize {
        // SAFETY: the handle is live.
        unsafe { mlx_sys::mlx_array_nbytes(self.raw()) }
    }

    /// Computes the array and returns its one element. Blocks.
    ///
    /// # Errors
    /// If it has another type or more than one element, or the computation fails.
    #[track_caller]
    pub fn item<T: Element>(&self) -> Result<T> {
        let values = self.to_vec::<T>()?;
        match values[..] {
            [value] => Ok(value),
            _ => Err(Error::new("item", &[self], "expected exactly one element")),
        }
    }

    /// Computes the array and copies its elements out, in row-major order. Blocks.
    ///
    /// # Errors
    /// If it has another type, or the computation fails.
    #[track_caller]
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let op = "to_vec";
        if self.dtype() != T::DTYPE {
            let message = format!("cannot be read as {}; cast it first", T::DTYPE);
            return Err(Error::new(op, &[self], message));
        }
        let n = self.size();
        if n == 0 {
            return Ok(Vec::new());
        }
        self.compute()?;
        let mut row_major = false;
        // SAFETY: the handle is live and evaluated; one bool is written through a valid pointer.
        check(op, &[self], || unsafe {
            mlx_sys::_mlx_array_is_row_contiguous(&mut row_major, self.raw())
        })?;
        // A transposed or broadcast view has no row-major data to copy. Where it has, a copy made
        // by MLX would wait for all work queued since, and so undo what runs ahead.
        let copy;
        let dense = if row_major {
            self
        } else {
            copy = self.contiguous()?;
            copy.compute()?;
            &copy
        };
        // SAFETY: the array is evaluated, row-major and of this very type; every typed getter of
        // mlx-c returns the same data pointer. The copy is made before the handle is dropped.
        let data = unsafe { mlx_sys::mlx_array_data_uint8(dense.raw()) };
        if data.is_null() {
            return Err(Error::new(op, &[self], "evaluated, but without data"));
        }
        let mut values = vec![T::default(); n];
        // SAFETY: as above; `values` has `n` elements of the same size.
        unsafe { std::ptr::copy_nonoverlapping(data.cast::<T>(), values.as_mut_ptr(), n) };
        Ok(values)
    }

    /// Computes the array and copies its elements' bytes out, in row-major order and the machine's
    /// byte order, whatever their type. Blocks.
    ///
    /// # Errors
    /// If the computation fails.
    #[track_caller]
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.reshape(&[-1])?.view(Dtype::Uint8)?.to_vec::<u8>()
    }

    /// Computes the array. Blocks. After an error the array's content is undefined: drop it.
    #[track_caller]
    pub fn eval(&self) -> Result<()> {
        match Postponed::now() {
            true => Ok(()),
            false => self.compute(),
        }
    }

    #[track_caller]
    pub(super) fn compute(&self) -> Result<()> {
        // SAFETY: the handle is live.
        check("eval", &[self], || unsafe {
            mlx_sys::mlx_array_eval(self.raw())
        })
    }
}

impl Clone for Array {
    fn clone(&self) -> Self {
        // SAFETY: `raw` is a fresh handle that `mlx_array_set` points at the same array.
        let raw = unsafe {
            let mut raw = mlx_sys::mlx_array_new();
            mlx_sys::mlx_array_set(&mut raw, self.raw());
            raw
        };
        // Sharing allocates one small C++ object; failing at that is out of memory.
        let ctx = NonNull::new(raw.ctx).expect("mlx-c could not share an array");
        Self { ctx }
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        // SAFETY: the handle is live and owned by this value alone.
        unsafe { mlx_sys::mlx_array_free(self.raw()) };
    }
}

impl fmt::Debug for Array {
    /// Type and shape; never the values, which would force an evaluation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype(), self.shape())
    }
}
