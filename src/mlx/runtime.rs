//! The device and the stream that a thread's operations run on.

use std::cell::Cell;
use std::marker::PhantomData;

use super::error::{check, install_handler};
use super::{Error, Result};

/// What operations run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The host's processor.
    Cpu,
    /// Metal on macOS, CUDA on Linux.
    Gpu,
}

thread_local! {
    static CURRENT: Cell<Option<Entered>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Entered {
    device: Device,
    stream: mlx_sys::mlx_stream,
}

/// While it lives, operations on this thread run on one device's stream.
///
/// A thread has one stream for as long as it lives: streams are never handed back to MLX, so
/// threads that compute must be few and long-lived.
pub struct Runtime {
    device: Device,
    not_send: PhantomData<*mut ()>,
}

impl Runtime {
    /// Binds this thread to a device.
    ///
    /// # Errors
    /// If the device is not there, or the thread is bound already.
    pub fn enter(device: Device) -> Result<Self> {
        let op = "enter";
        install_handler();
        if CURRENT.get().is_some() {
            return Err(Error::new(
                op,
                &[],
                "this thread has entered a runtime already",
            ));
        }
        let kind = match device {
            Device::Cpu => mlx_sys::mlx_device_type::MLX_CPU,
            Device::Gpu => mlx_sys::mlx_device_type::MLX_GPU,
        };
        if !device.is_available() {
            let message = "MLX sees no GPU here; use the CPU";
            return Err(Error::new(op, &[], message));
        }
        // SAFETY: plain calls; both handles are checked by their return codes and freed once. The
        // stream handle stays with the thread until the runtime is dropped.
        let stream = unsafe {
            let raw_device = mlx_sys::mlx_device_new_type(kind, 0);
            let mut stream = mlx_sys::mlx_stream_new();
            let done =
                check(op, &[], || mlx_sys::mlx_set_default_device(raw_device)).and_then(|()| {
                    check(op, &[], || {
                        mlx_sys::mlx_get_default_stream(&mut stream, raw_device)
                    })
                });
            mlx_sys::mlx_device_free(raw_device);
            done?;
            stream
        };
        if stream.ctx.is_null() {
            return Err(Error::new(op, &[], "mlx-c returned no stream"));
        }
        CURRENT.set(Some(Entered { device, stream }));
        Ok(Self {
            device,
            not_send: PhantomData,
        })
    }

    /// The device that this thread computes on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Waits until everything asked for on this thread is done.
    pub fn synchronize(&self) -> Result<()> {
        super::synchronize()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Work in flight may still need the stream; a failure here has nobody to go to.
        let _ = self.synchronize();
        if let Some(entered) = CURRENT.take() {
            // SAFETY: the handle is live and nothing can reach it any more.
            unsafe { mlx_sys::mlx_stream_free(entered.stream) };
        }
    }
}

/// The stream of this thread's runtime.
#[track_caller]
pub(super) fn stream(op: &'static str) -> Result<mlx_sys::mlx_stream> {
    match CURRENT.get() {
        Some(entered) => Ok(entered.stream),
        None => Err(Error::new(
            op,
            &[],
            "this thread has not entered a runtime (Runtime::enter)",
        )),
    }
}

/// The device of this thread's runtime.
pub fn current_device() -> Option<Device> {
    CURRENT.get().map(|entered| entered.device)
}

impl Device {
    /// Whether MLX can compute on it here.
    pub fn is_available(self) -> bool {
        if self == Device::Cpu {
            return true;
        }
        let (mut metal, mut cuda) = (false, false);
        // SAFETY: both write one bool through a valid pointer.
        unsafe {
            mlx_sys::mlx_metal_is_available(&mut metal);
            mlx_sys::mlx_cuda_is_available(&mut cuda);
        }
        metal || cuda
    }

    /// The best device here: the GPU if there is one.
    pub fn best() -> Self {
        if Device::Gpu.is_available() {
            Device::Gpu
        } else {
            Device::Cpu
        }
    }
}

/// How many streams MLX holds, over all threads.
pub fn stream_count() -> Result<usize> {
    // SAFETY: a fresh vector that the call fills; freed once.
    unsafe {
        let mut streams = mlx_sys::mlx_vector_stream_new();
        let done = check("get_streams", &[], || {
            mlx_sys::mlx_get_streams(&mut streams)
        });
        let count = match &done {
            Ok(()) => mlx_sys::mlx_vector_stream_size(streams),
            Err(_) => 0,
        };
        mlx_sys::mlx_vector_stream_free(streams);
        done.map(|()| count)
    }
}

/// The version of the MLX library in use, such as `0.32.2`.
pub fn version() -> Result<String> {
    // SAFETY: a fresh string that the call fills; read before it is freed.
    unsafe {
        let mut text = mlx_sys::mlx_string_new();
        let done = check("version", &[], || mlx_sys::mlx_version(&mut text));
        let version = match mlx_sys::mlx_string_data(text) {
            data if data.is_null() => String::new(),
            data => std::ffi::CStr::from_ptr(data)
                .to_string_lossy()
                .into_owned(),
        };
        mlx_sys::mlx_string_free(text);
        done.map(|()| version)
    }
}

/// Whether threads that have computed may end. On CUDA a thread that ends takes down what MLX 0.32.2
/// has of it, while a worker of MLX's may still use that.
pub fn threads_end() -> bool {
    let mut cuda = false;
    // SAFETY: writes one bool through a valid pointer.
    unsafe { mlx_sys::mlx_cuda_is_available(&mut cuda) };
    !cuda
}

/// To be called last on a thread that has computed: where such threads may not end, it stays and does
/// nothing.
pub fn leave_thread() {
    while !threads_end() {
        std::thread::park();
    }
}

/// Ends the process at once, without waiting for computations or running anything more: for when a
/// computation hangs, which an orderly end would wait for.
pub fn quit(code: i32) -> ! {
    unsafe extern "C" {
        fn _exit(code: i32) -> !;
    }
    // SAFETY: takes a number and does not return; what it skips is the process's own state.
    unsafe { _exit(code) }
}
