//! CUDA kernels of our own, which MLX compiles at first use and keeps as PTX.

use std::ffi::{CStr, CString};

use super::error::check;
use super::runtime::{Device, current_device, stream};
use super::shape::ArrayVec;
use super::{Array, Dtype, Error, Result};

/// Whether this thread computes with CUDA.
pub fn on_cuda() -> bool {
    !cfg!(target_os = "macos") && current_device() == Some(Device::Gpu)
}

/// What a kernel gets for an input that is a view of an array, such as a part of its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Views {
    /// A copy in row-major order, made for each launch.
    Copied,
    /// Itself; the kernel reads its strides.
    AsTheyAre,
}

/// The source without comments and indents: MLX puts it together with its constants, hashes and searches
/// it at each launch.
fn without_comments(source: &CStr) -> CString {
    let text = source.to_string_lossy();
    let lines = text.lines().map(|line| {
        let code = line.split_once("//").map_or(line, |(code, _)| code);
        code.trim()
    });
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    // It was a C string before.
    CString::new(lines.join("\n")).unwrap_or_else(|_| source.to_owned())
}

/// A constant that a kernel is compiled for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Constant {
    Type(Dtype),
    Int(i32),
    Bool(bool),
}

/// How a kernel is launched.
pub(super) struct Launch<'a> {
    /// What it writes: shapes and types.
    pub outputs: &'a [(&'a [i32], Dtype)],
    /// Blocks in x, y and z.
    pub blocks: [i32; 3],
    /// Threads of a block, all in x.
    pub threads: i32,
    /// What it is compiled for. Always the same names in the same order.
    pub constants: &'a [(&'a CStr, Constant)],
}

/// A kernel's source: the body of a function whose arguments are named pointers.
pub(super) struct CudaKernel {
    raw: mlx_sys::mlx_fast_cuda_kernel,
    op: &'static str,
}

/// A list of names for a call.
struct Names(mlx_sys::mlx_vector_string);

impl Names {
    fn of(names: &[&CStr]) -> Self {
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the pointers are NUL-terminated and live for the call, which copies them.
        Self(unsafe { mlx_sys::mlx_vector_string_new_data(pointers.as_mut_ptr(), pointers.len()) })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: the vector is ours and freed once.
        unsafe { mlx_sys::mlx_vector_string_free(self.0) };
    }
}

impl CudaKernel {
    /// From its name and source; nothing is compiled yet.
    pub fn new(
        (name, op): (&CStr, &'static str),
        inputs: &[&CStr],
        outputs: &[&CStr],
        source: &CStr,
        views: Views,
    ) -> Self {
        let (inputs, outputs) = (Names::of(inputs), Names::of(outputs));
        let source = without_comments(source);
        // SAFETY: all strings are NUL-terminated and copied; the lists are live.
        let raw = unsafe {
            mlx_sys::mlx_fast_cuda_kernel_new(
                name.as_ptr(),
                inputs.0,
                outputs.0,
                source.as_ptr(),
                c"".as_ptr(),
                views == Views::Copied,
                0,
            )
        };
        Self { raw, op }
    }

    /// What it writes, given its inputs in their order.
    #[track_caller]
    pub fn call(&self, inputs: &[&Array], launch: &Launch) -> Result<Vec<Array>> {
        let op = self.op;
        if self.raw.ctx.is_null() {
            return Err(Error::new(op, inputs, "the kernel could not be made"));
        }
        let stream = stream(op)?;
        let config = Config::of(op, launch)?;
        let list = ArrayVec::of(inputs);
        let mut outputs = ArrayVec::empty();
        // SAFETY: all handles are live, and `outputs` is a fresh vector that the call fills.
        check(op, inputs, || unsafe {
            mlx_sys::mlx_fast_cuda_kernel_apply(
                outputs.raw_mut(),
                self.raw,
                list.raw(),
                config.0,
                stream,
            )
        })?;
        outputs.arrays(op)
    }
}

impl Drop for CudaKernel {
    fn drop(&mut self) {
        // SAFETY: the kernel is ours and freed once.
        unsafe { mlx_sys::mlx_fast_cuda_kernel_free(self.raw) };
    }
}

struct Config(mlx_sys::mlx_fast_cuda_kernel_config);

impl Config {
    fn of(op: &'static str, launch: &Launch) -> Result<Self> {
        // SAFETY: makes an empty configuration, freed on drop.
        let config = Self(unsafe { mlx_sys::mlx_fast_cuda_kernel_config_new() });
        let raw = config.0;
        for (shape, dtype) in launch.outputs {
            // SAFETY: the configuration is live and the shape outlives the call.
            check(op, &[], || unsafe {
                mlx_sys::mlx_fast_cuda_kernel_config_add_output_arg(
                    raw,
                    shape.as_ptr(),
                    shape.len(),
                    dtype.raw(),
                )
            })?;
        }
        let [x, y, z] = launch.blocks;
        let threads = launch.threads;
        // MLX counts the grid in threads. SAFETY: as above.
        check(op, &[], || unsafe {
            mlx_sys::mlx_fast_cuda_kernel_config_set_grid(raw, x * threads, y, z)
        })?;
        // SAFETY: as above.
        check(op, &[], || unsafe {
            mlx_sys::mlx_fast_cuda_kernel_config_set_thread_group(raw, threads, 1, 1)
        })?;
        for (name, constant) in launch.constants {
            let name = name.as_ptr();
            // SAFETY: the name is NUL-terminated and copied.
            check(op, &[], || unsafe {
                match *constant {
                    Constant::Type(dtype) => {
                        mlx_sys::mlx_fast_cuda_kernel_config_add_template_arg_dtype(
                            raw,
                            name,
                            dtype.raw(),
                        )
                    }
                    Constant::Int(value) => {
                        mlx_sys::mlx_fast_cuda_kernel_config_add_template_arg_int(raw, name, value)
                    }
                    Constant::Bool(value) => {
                        mlx_sys::mlx_fast_cuda_kernel_config_add_template_arg_bool(raw, name, value)
                    }
                }
            })?;
        }
        Ok(config)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: the configuration is ours and freed once.
        unsafe { mlx_sys::mlx_fast_cuda_kernel_config_free(self.0) };
    }
}
