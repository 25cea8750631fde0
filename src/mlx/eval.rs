//! Starting and awaiting computations.

use std::cell::Cell;
use std::marker::PhantomData;

use super::error::check;
use super::runtime::stream;
use super::shape::ArrayVec;
use super::{Array, Result};

thread_local! {
    static POSTPONED: Cell<usize> = const { Cell::new(0) };
}

/// While it lives, [`eval`] and [`Array::eval`] on this thread do nothing: for building a model whose
/// shapes alone are wanted, which would else compute what is dropped at once. What reads values
/// ([`Array::to_vec`]) computes them still.
#[derive(Debug)]
pub struct Postponed(PhantomData<*mut ()>);

impl Postponed {
    /// From now on.
    #[must_use]
    pub fn start() -> Self {
        POSTPONED.set(POSTPONED.get() + 1);
        Self(PhantomData)
    }

    pub(super) fn now() -> bool {
        POSTPONED.get() > 0
    }
}

impl Drop for Postponed {
    fn drop(&mut self) {
        POSTPONED.set(POSTPONED.get().saturating_sub(1));
    }
}

/// Computes several arrays in one go. Blocks. After an error their content is undefined: drop
/// them and do not try again.
#[track_caller]
pub fn eval(arrays: &[&Array]) -> Result<()> {
    if Postponed::now() {
        return Ok(());
    }
    let list = ArrayVec::of(arrays);
    // SAFETY: the vector is live.
    check("eval", arrays, || unsafe { mlx_sys::mlx_eval(list.raw()) })
}

/// Starts computing several arrays and returns at once; reading one later waits for it.
#[track_caller]
pub fn async_eval(arrays: &[&Array]) -> Result<()> {
    if Postponed::now() {
        return Ok(());
    }
    start(arrays)
}

/// Waits until everything asked for on this thread is done.
pub fn synchronize() -> Result<()> {
    let stream = stream("synchronize")?;
    // SAFETY: the stream handle is live while the thread's runtime is.
    check("synchronize", &[], || unsafe {
        mlx_sys::mlx_synchronize(stream)
    })
}

/// [`async_eval`], also while evaluation is put off.
#[track_caller]
pub(super) fn start(arrays: &[&Array]) -> Result<()> {
    let list = ArrayVec::of(arrays);
    // SAFETY: the vector is live; MLX keeps what it needs beyond the call.
    check("async_eval", arrays, || unsafe {
        mlx_sys::mlx_async_eval(list.raw())
    })
}
