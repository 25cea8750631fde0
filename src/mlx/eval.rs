//! Starting and awaiting computations.

use super::error::check;
use super::shape::ArrayVec;
use super::{Array, Result};

/// Computes several arrays in one go. Blocks. After an error their content is undefined: drop
/// them and do not try again.
#[track_caller]
pub fn eval(arrays: &[&Array]) -> Result<()> {
    let list = ArrayVec::of(arrays);
    // SAFETY: the vector is live.
    check("eval", arrays, || unsafe { mlx_sys::mlx_eval(list.raw()) })
}

/// Starts computing several arrays and returns at once; reading one later waits for it.
#[track_caller]
pub fn async_eval(arrays: &[&Array]) -> Result<()> {
    let list = ArrayVec::of(arrays);
    // SAFETY: the vector is live; MLX keeps what it needs beyond the call.
    check("async_eval", arrays, || unsafe {
        mlx_sys::mlx_async_eval(list.raw())
    })
}
