//! Making arrays, and moving, cutting and gathering their elements.

use super::error::check;
use super::ops::op;
use super::{Array, Dtype, Error, Result};

/// A list of handles for a call; the arrays stay the caller's.
pub(super) struct ArrayVec(mlx_sys::mlx_vector_array);

impl ArrayVec {
    pub(super) fn empty() -> Self {
        // SAFETY: makes an empty vector, freed on drop.
        Self(unsafe { mlx_sys::mlx_vector_array_new() })
    }

    pub(super) fn of(arrays: &[&Array]) -> Self {
        let handles: Vec<_> = arrays.iter().map(|a| a.raw()).collect();
        // SAFETY: the handles are live; the vector shares what they point at.
        Self(unsafe { mlx_sys::mlx_vector_array_new_data(handles.as_ptr(), handles.len()) })
    }

    /// Wraps a vector that someone else frees.
    ///
    /// # Safety
    /// `raw` must be a live vector for as long as the value returned.
    pub(super) unsafe fn borrow(raw: mlx_sys::mlx_vector_array) -> std::mem::ManuallyDrop<Self> {
        std::mem::ManuallyDrop::new(Self(raw))
    }

    pub(super) fn raw(&self) -> mlx_sys::mlx_vector_array {
        self.0
    }

    pub(super) fn raw_mut(&mut self) -> *mut mlx_sys::mlx_vector_array {
        &mut self.0
    }

    /// Its arrays, each as a handle of its own.
    #[track_caller]
    pub(super) fn arrays(&self, op: &'static str) -> Result<Vec<Array>> {
        // SAFETY: the vector is live.
        let n = unsafe { mlx_sys::mlx_vector_array_size(self.0) };
        (0..n)
            .map(|i| {
                // SAFETY: makes an empty handle, which owns nothing yet.
                let mut out = unsafe { mlx_sys::mlx_array_new() };
                // SAFETY: the handle is fresh, the vector live, the index in range.
                check(op, &[], || unsafe {
                    mlx_sys::mlx_vector_array_get(&mut out, self.0, i)
                })?;
                Array::from_raw(op, out)
            })
            .collect()
    }
}

impl Drop for ArrayVec {
    fn drop(&mut self) {
        // SAFETY: the vector is ours and freed once.
        unsafe { mlx_sys::mlx_vector_array_free(self.0) };
    }
}

impl Array {
    /// All zeros.
    #[track_caller]
    pub fn zeros(shape: &[i32], dtype: Dtype) -> Result<Array> {
        op!(
            "zeros",
            [],
            mlx_zeros(shape.as_ptr(), shape.len(), dtype.raw())
        )
    }

    /// The same number everywhere.
    #[track_caller]
    pub fn full(shape: &[i32], value: f32, dtype: Dtype) -> Result<Array> {
        let value = Array::from_f32(value)?;
        op!(
            "full",
            [],
            mlx_full(shape.as_ptr(), shape.len(), value.raw(), dtype.raw())
        )
    }

    /// `start, start + 1, …, stop - 1`.
    #[track_caller]
    pub fn arange(start: i32, stop: i32, dtype: Dtype) -> Result<Array> {
        op!(
            "arange",
            [],
            mlx_arange(f64::from(start), f64::from(stop), 1.0, dtype.raw())
        )
    }

    /// The same elements in another shape; one dimension may be -1 and is worked out.
    #[track_caller]
    pub fn reshape(&self, shape: &[i32]) -> Result<Array> {
        op!(
            "reshape",
            [self],
            mlx_reshape(self.raw(), shape.as_ptr(), shape.len())
        )
    }

    /// The dimensions in another order.
    #[track_caller]
    pub fn transpose_axes(&self, axes: &[i32]) -> Result<Array> {
        op!(
            "transpose",
            [self],
            mlx_transpose_axes(self.raw(), axes.as_ptr(), axes.len())
        )
    }

    /// Two dimensions swapped.
    #[track_caller]
    pub fn swapaxes(&self, a: i32, b: i32) -> Result<Array> {
        op!("swapaxes", [self], mlx_swapaxes(self.raw(), a, b))
    }

    /// The last two dimensions swapped.
    #[track_caller]
    pub fn swap_last(&self) -> Result<Array> {
        self.swapaxes(-1, -2)
    }

    /// The dimensions `start..=end` joined into one.
    #[track_caller]
    pub fn flatten(&self, start: i32, end: i32) -> Result<Array> {
        op!("flatten", [self], mlx_flatten(self.raw(), start, end))
    }

    /// One dimension cut into several; one of these may be -1 and is worked out.
    #[track_caller]
    pub fn unflatten(&self, axis: i32, shape: &[i32]) -> Result<Array> {
        op!(
            "unflatten",
            [self],
            mlx_unflatten(self.raw(), axis, shape.as_ptr(), shape.len())
        )
    }

    /// Each slice along an axis `n` times in a row.
    #[track_caller]
    pub fn repeat(&self, n: i32, axis: i32) -> Result<Array> {
        op!("repeat", [self], mlx_repeat_axis(self.raw(), n, axis))
    }

    /// The same bytes read as another type; the last dimension changes with its size.
    #[track_caller]
    pub fn view(&self, dtype: Dtype) -> Result<Array> {
        op!("view", [self], mlx_view(self.raw(), dtype.raw()))
    }

    /// A new dimension of size 1.
    #[track_caller]
    pub fn expand_dims(&self, axis: i32) -> Result<Array> {
        op!("expand_dims", [self], mlx_expand_dims(self.raw(), axis))
    }

    /// Without a dimension of size 1.
    #[track_caller]
    pub fn squeeze(&self, axis: i32) -> Result<Array> {
        op!("squeeze", [self], mlx_squeeze_axis(self.raw(), axis))
    }

    /// Repeated along new or size-1 dimensions to a shape.
    #[track_caller]
    pub fn broadcast_to(&self, shape: &[i32]) -> Result<Array> {
        op!(
            "broadcast_to",
            [self],
            mlx_broadcast_to(self.raw(), shape.as_ptr(), shape.len())
        )
    }

    /// Row-major in memory.
    #[track_caller]
    pub fn contiguous(&self) -> Result<Array> {
        op!("contiguous", [self], mlx_contiguous(self.raw(), false))
    }

    /// Row-major in a buffer of its own, of just its size. [`Array::contiguous`] shares the buffer of a
    /// view that is row-major already, however large that is.
    #[track_caller]
    pub fn copied(&self) -> Result<Array> {
        let shape = self.shape();
        let Some(axis) = shape.iter().position(|&dim| dim > 1) else {
            return Array::concatenate(&[self, &self.slice_axis(0, 0, 0)?], 0);
        };
        let (axis, dim) = (axis as i32, shape[axis]);
        let halves = [
            self.slice_axis(axis, 0, dim / 2)?,
            self.slice_axis(axis, dim / 2, dim)?,
        ];
        Array::concatenate(&halves.each_ref(), axis)
    }

    /// `self[start[0]..stop[0], start[1]..stop[1], …]`, one range for each dimension.
    #[track_caller]
    pub fn slice(&self, start: &[i32], stop: &[i32]) -> Result<Array> {
        let ones = vec![1; start.len()];
        op!(
            "slice",
            [self],
            mlx_slice(
                self.raw(),
                start.as_ptr(),
                start.len(),
                stop.as_ptr(),
                stop.len(),
                ones.as_ptr(),
                ones.len(),
            )
        )
    }

    /// `start..stop` along one axis and all of the others; negative axes count from the end.
    #[track_caller]
    pub fn slice_axis(&self, axis: i32, start: i32, stop: i32) -> Result<Array> {
        let mut ends = self.shape();
        let mut starts = vec![0; ends.len()];
        self.dim(axis)?;
        let i = if axis < 0 {
            axis + ends.len() as i32
        } else {
            axis
        } as usize;
        (starts[i], ends[i]) = (start, stop);
        self.slice(&starts, &ends)
    }

    /// Every `step`-th slice along one axis, from `start` on.
    #[track_caller]
    pub fn slice_step(&self, axis: i32, start: i32, step: i32) -> Result<Array> {
        let stop = self.shape();
        let mut starts = vec![0; stop.len()];
        let mut steps = vec![1; stop.len()];
        self.dim(axis)?;
        let i = axis.rem_euclid(stop.len() as i32) as usize;
        (starts[i], steps[i]) = (start, step);
        op!(
            "slice",
            [self],
            mlx_slice(
                self.raw(),
                starts.as_ptr(),
                starts.len(),
                stop.as_ptr(),
                stop.len(),
                steps.as_ptr(),
                steps.len(),
            )
        )
    }

    /// Cut along an axis into parts of these sizes, which must add up to the dimension.
    #[track_caller]
    pub fn split<const N: usize>(&self, sizes: [i32; N], axis: i32) -> Result<[Array; N]> {
        let whole = self.dim(axis)?;
        if sizes.iter().sum::<i32>() != whole {
            let message = format!("parts of {sizes:?} do not add up to {whole}");
            return Err(Error::new("split", &[self], message));
        }
        let mut start = 0;
        let parts = sizes.iter().map(|size| {
            start += size;
            self.slice_axis(axis, start - size, start)
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        <[Array; N]>::try_from(parts)
            .map_err(|_| Error::new("split", &[self], "as many parts as sizes"))
    }

    /// This array with `update` in place of `start..stop`. Takes the array by value: as long as no
    /// other handle to it lives, MLX writes in place instead of copying all of it.
    #[track_caller]
    pub fn slice_update(self, update: &Array, start: &[i32], stop: &[i32]) -> Result<Array> {
        let ones = vec![1; start.len()];
        op!(
            "slice_update",
            [&self, update],
            mlx_slice_update(
                self.raw(),
                update.raw(),
                start.as_ptr(),
                start.len(),
                stop.as_ptr(),
                stop.len(),
                ones.as_ptr(),
                ones.len(),
            )
        )
    }

    /// Rows (or other slices) along `axis` at `indices`.
    #[track_caller]
    pub fn take(&self, indices: &Array, axis: i32) -> Result<Array> {
        op!(
            "take",
            [self, indices],
            mlx_take_axis(self.raw(), indices.raw(), axis)
        )
    }

    /// Elements along an axis, at indices that have the other dimensions too.
    #[track_caller]
    pub fn take_along_axis(&self, indices: &Array, axis: i32) -> Result<Array> {
        op!(
            "take_along_axis",
            [self, indices],
            mlx_take_along_axis(self.raw(), indices.raw(), axis)
        )
    }

    /// This array with `values` at `indices` along an axis.
    #[track_caller]
    pub fn put_along_axis(&self, indices: &Array, values: &Array, axis: i32) -> Result<Array> {
        op!(
            "put_along_axis",
            [self, indices, values],
            mlx_put_along_axis(self.raw(), indices.raw(), values.raw(), axis)
        )
    }

    /// This array with `updates [n, 1, ..]` in place of its slices along an axis at `indices [n]`,
    /// which must differ.
    #[track_caller]
    pub fn scatter(self, indices: &Array, updates: &Array, axis: i32) -> Result<Array> {
        op!(
            "scatter",
            [&self, indices, updates],
            mlx_scatter_single(self.raw(), indices.raw(), updates.raw(), axis)
        )
    }

    /// This array with `values` added at `indices` along an axis; at one place as often as it is named.
    #[track_caller]
    pub fn scatter_add_axis(&self, indices: &Array, values: &Array, axis: i32) -> Result<Array> {
        op!(
            "scatter_add_axis",
            [self, indices, values],
            mlx_scatter_add_axis(self.raw(), indices.raw(), values.raw(), axis)
        )
    }

    /// Arrays of one shape joined along a new axis.
    #[track_caller]
    pub fn stack(arrays: &[&Array], axis: i32) -> Result<Array> {
        let list = ArrayVec::of(arrays);
        crate::mlx::ops::build("stack", arrays, |out, stream| {
            // SAFETY: `out` is a fresh handle and the vector is live.
            unsafe { mlx_sys::mlx_stack_axis(out, list.raw(), axis, stream) }
        })
    }

    /// Arrays joined along an axis.
    #[track_caller]
    pub fn concatenate(arrays: &[&Array], axis: i32) -> Result<Array> {
        let list = ArrayVec::of(arrays);
        crate::mlx::ops::build("concatenate", arrays, |out, stream| {
            // SAFETY: `out` is a fresh handle and the vector is live.
            unsafe { mlx_sys::mlx_concatenate_axis(out, list.raw(), axis, stream) }
        })
    }
}
