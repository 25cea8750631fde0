//! Random numbers, always from an explicit key: without one MLX seeds itself from the clock.

use super::error::check;
use super::ops::op;
use super::{Array, Dtype, Result};

impl Array {
    /// The random key (uint32 `[2]`) of a seed.
    #[track_caller]
    pub fn random_key(seed: u64) -> Result<Array> {
        let op = "random_key";
        // SAFETY: makes an empty handle, which owns nothing yet.
        let mut out = unsafe { mlx_sys::mlx_array_new() };
        // SAFETY: the handle is fresh, and the call fills it.
        check(op, &[], || unsafe {
            mlx_sys::mlx_random_key(&mut out, seed)
        })?;
        Array::from_raw(op, out)
    }

    /// `n` keys (uint32 `[n, 2]`) drawn from this one.
    #[track_caller]
    pub fn random_split(&self, n: i32) -> Result<Array> {
        op!("random_split", [self], mlx_random_split_num(self.raw(), n))
    }

    /// Numbers of the normal distribution with this mean and standard deviation.
    #[track_caller]
    pub fn random_normal(
        shape: &[i32],
        dtype: Dtype,
        mean: f32,
        deviation: f32,
        key: &Array,
    ) -> Result<Array> {
        op!(
            "random_normal",
            [key],
            mlx_random_normal(
                shape.as_ptr(),
                shape.len(),
                dtype.raw(),
                mean,
                deviation,
                key.raw(),
            )
        )
    }
}
