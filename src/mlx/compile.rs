//! Compiled functions: MLX traces one once and fuses its element-wise operations.
//!
//! MLX keeps compiled functions in a cache of the thread, keyed by a number. The number here comes
//! from a counter of our own, so that a freed address is never mistaken for a living function.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::check;
use super::shape::ArrayVec;
use super::{Array, Error, Result};

/// A function from arrays to one array, compiled for every shape and for the thread it was made on.
pub struct Compiled {
    closure: mlx_sys::mlx_closure,
    id: usize,
    not_send: PhantomData<*mut ()>,
}

type Function = fn(&[Array]) -> Result<Array>;

/// Called by MLX when it traces the function.
unsafe extern "C" fn trace(
    out: *mut mlx_sys::mlx_vector_array,
    inputs: mlx_sys::mlx_vector_array,
    payload: *mut c_void,
) -> i32 {
    // SAFETY: the payload is the function pointer that `new` gave; a plain `fn` has no state.
    let function: Function = unsafe { std::mem::transmute(payload) };
    // SAFETY: mlx-c's vector is live for the call and stays its own.
    let inputs = unsafe { ArrayVec::borrow(inputs) };
    let run = || function(&inputs.arrays("compile")?);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(result)) => {
            // SAFETY: `out` is mlx-c's own vector; it shares the array.
            unsafe { mlx_sys::mlx_vector_array_set_value(out, result.raw()) }
        }
        // The failed operation's message is kept by mlx-c's caller; a panic must not cross C.
        _ => 1,
    }
}

impl Compiled {
    /// Compiles a function that does not depend on its inputs' shapes.
    #[track_caller]
    pub fn new(function: Function) -> Result<Self> {
        static NEXT_ID: AtomicUsize = AtomicUsize::new(1);
        let op = "compile";
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the payload is a function pointer and needs no destructor; both closures are
        // freed once. MLX's compiled closure keeps what it needs of the plain one.
        unsafe {
            let plain =
                mlx_sys::mlx_closure_new_func_payload(Some(trace), function as *mut c_void, None);
            let mut closure = mlx_sys::mlx_closure_new();
            let done = check(op, &[], || {
                mlx_sys::mlx_detail_compile(&mut closure, plain, id, true, std::ptr::null(), 0)
            });
            mlx_sys::mlx_closure_free(plain);
            done?;
            Ok(Self {
                closure,
                id,
                not_send: PhantomData,
            })
        }
    }

    /// Applies it.
    #[track_caller]
    pub fn call(&self, inputs: &[&Array]) -> Result<Array> {
        let op = "compiled function";
        super::runtime::stream(op)?;
        let list = ArrayVec::of(inputs);
        let mut out = ArrayVec::empty();
        // SAFETY: the closure is live, the vectors are ours.
        check(op, inputs, || unsafe {
            mlx_sys::mlx_closure_apply(out.raw_mut(), self.closure, list.raw())
        })?;
        let result = out.arrays(op)?.into_iter().next();
        result.ok_or_else(|| Error::new(op, inputs, "it returned nothing"))
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: the closure is ours; its entry leaves this thread's cache with it.
        unsafe {
            mlx_sys::mlx_closure_free(self.closure);
            let mut cache = mlx_sys::mlx_compile_cache_new();
            if mlx_sys::mlx_detail_compile_cache(&mut cache) == 0 {
                mlx_sys::mlx_detail_compile_erase(cache, self.id);
            }
            mlx_sys::mlx_compile_cache_free(cache);
        }
    }
}
