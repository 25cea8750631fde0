//! Compiled functions: MLX traces one once and fuses its element-wise operations.
//!
//! MLX keeps compiled functions in a cache of the thread, keyed by a number. The number here comes
//! from a counter of our own, so that a freed address is never mistaken for a living function.

use std::cell::RefCell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::check;
use super::runtime::{Device, current_device};
use super::shape::ArrayVec;
use super::{Array, Error, Result};

/// A function of arrays, compiled for every shape and for the thread it was made on. It is never freed:
/// there are few, and at a thread's end MLX's cache may be gone before.
#[derive(Clone, Copy)]
struct Compiled {
    closure: mlx_sys::mlx_closure,
    not_send: PhantomData<*mut ()>,
}

/// A function of arrays by element-wise operations alone, which must not depend on shapes.
pub type Elementwise<const N: usize> = fn(&[&Array]) -> Result<[Array; N]>;

/// What `function` makes of `inputs`. On a GPU its operations are one kernel, as far as MLX can fuse
/// them: it looks eleven operations back from a result, of which those with two operands count
/// twice. On a CPU MLX compiles by calling a C++ compiler at run time, which a user's machine may
/// lack, so there the operations run one by one.
#[track_caller]
pub fn fused<const N: usize>(function: Elementwise<N>, inputs: &[&Array]) -> Result<[Array; N]> {
    thread_local! {
        static COMPILED: RefCell<Vec<(usize, Compiled)>> = const { RefCell::new(Vec::new()) };
    }
    if !fuses() {
        return function(inputs);
    }
    let address = function as usize;
    let compiled = COMPILED.with_borrow_mut(|known| {
        if let Some((_, compiled)) = known.iter().find(|(of, _)| *of == address) {
            return Ok(*compiled);
        }
        let compiled = Compiled::new(function)?;
        known.push((address, compiled));
        Ok(compiled)
    });
    compiled?.call(inputs)
}

/// Whether [`fused`] makes one kernel of several operations on this thread.
pub fn fuses() -> bool {
    current_device() == Some(Device::Gpu) || everywhere()
}

#[cfg(not(test))]
fn everywhere() -> bool {
    false
}

#[cfg(test)]
mod everywhere {
    use std::cell::Cell;

    thread_local! {
        static EVERYWHERE: Cell<bool> = const { Cell::new(false) };
    }

    /// Lets this thread compile on a CPU too, for tests of what a GPU computes.
    pub fn compile_everywhere(yes: bool) {
        EVERYWHERE.set(yes);
    }

    pub(super) fn everywhere() -> bool {
        EVERYWHERE.get()
    }
}

#[cfg(test)]
pub use everywhere::compile_everywhere;
#[cfg(test)]
use everywhere::everywhere;

/// Called by MLX when it traces the function.
unsafe extern "C" fn trace<const N: usize>(
    out: *mut mlx_sys::mlx_vector_array,
    inputs: mlx_sys::mlx_vector_array,
    payload: *mut c_void,
) -> i32 {
    // SAFETY: the payload is the function pointer that `new` gave; a plain `fn` has no state.
    let function: Elementwise<N> = unsafe { std::mem::transmute(payload) };
    // SAFETY: mlx-c's vector is live for the call and stays its own.
    let inputs = unsafe { ArrayVec::borrow(inputs) };
    let run = || function(&inputs.arrays("compile")?.iter().collect::<Vec<_>>());
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(results)) => {
            let results = results.each_ref().map(|result| result.raw());
            // SAFETY: `out` is mlx-c's own vector; it shares the arrays.
            unsafe { mlx_sys::mlx_vector_array_set_data(out, results.as_ptr(), N) }
        }
        // The failed operation's message is kept by mlx-c's caller; a panic must not cross C.
        _ => 1,
    }
}

impl Compiled {
    /// Compiles a function that does not depend on its inputs' shapes.
    #[track_caller]
    fn new<const N: usize>(function: Elementwise<N>) -> Result<Self> {
        static NEXT_ID: AtomicUsize = AtomicUsize::new(1);
        let op = "compile";
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the payload is a function pointer and needs no destructor; the plain closure is
        // freed once. MLX's compiled closure keeps what it needs of the plain one.
        unsafe {
            let plain = mlx_sys::mlx_closure_new_func_payload(
                Some(trace::<N>),
                function as *mut c_void,
                None,
            );
            let mut closure = mlx_sys::mlx_closure_new();
            let done = check(op, &[], || {
                mlx_sys::mlx_detail_compile(&mut closure, plain, id, true, std::ptr::null(), 0)
            });
            mlx_sys::mlx_closure_free(plain);
            done?;
            Ok(Self {
                closure,
                not_send: PhantomData,
            })
        }
    }

    /// Applies it.
    #[track_caller]
    fn call<const N: usize>(&self, inputs: &[&Array]) -> Result<[Array; N]> {
        let op = "compiled function";
        super::runtime::stream(op)?;
        let list = ArrayVec::of(inputs);
        let mut out = ArrayVec::empty();
        // SAFETY: the closure is live, the vectors are ours.
        check(op, inputs, || unsafe {
            mlx_sys::mlx_closure_apply(out.raw_mut(), self.closure, list.raw())
        })?;
        let results = <[Array; N]>::try_from(out.arrays(op)?);
        results.map_err(|_| Error::new(op, inputs, "it returned another number of arrays"))
    }
}
