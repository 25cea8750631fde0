//! The safe layer over mlx-c: arrays, the operations inference needs, and evaluation.
//!
//! Invariants, on which the rest of the program relies:
//! * An [`Array`] always holds a live handle, and never leaves its thread (`!Send + !Sync`).
//! * Every return code is checked; a failure carries the operation, its inputs' shapes, the caller's
//!   place and MLX's own message.
//! * Operations run on the stream of the thread's [`Runtime`]; without one they are an error.
//! * Nothing is read from an array before it is evaluated, nor as another type than its own.
//!
//! Operations keep MLX's names, so MLX's documentation is theirs. `unsafe` and `mlx_sys::` occur in
//! this folder alone.

mod array;
mod block;
mod call;
mod compile;
mod cpu;
mod device;
mod dtype;
mod error;
mod eval;
mod fast;
mod fused;
mod kernel;
mod layers;
mod memory;
mod ops;
mod quant;
mod ragged;
mod random;
mod runtime;
mod shape;
mod upload;

pub use array::{Array, Element};
pub use block::{Held, PackedBlock};
#[cfg(test)]
pub use compile::compile_everywhere;
pub use compile::{Elementwise, fused, fuses};
pub use cpu::has_cpu_kernels;
pub use device::{DeviceMemory, device_memory, device_name};
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use eval::{Postponed, async_eval, eval, synchronize};
pub use fast::{
    Mask, RopeFreqs, layer_norm, rms_norm, rope, rope_rows, scaled_dot_product_attention, silu_gate,
};
pub use kernel::on_cuda;
pub use layers::{Heading, Turning, packed_heads, packed_mlp};
pub use memory::{
    MemoryReport, clear_cache, memory, memory_limit, reset_peak_memory, set_cache_limit,
    set_memory_limit, set_wired_limit,
};
pub use quant::{
    Order, QuantMode, Quantized, Way, dense_matmul, dequantize, from_fp8, gather_dense, gather_qmm,
    quantize, quantized_matmul, quantized_matmul_by, quantized_rows,
};
pub use ragged::{KvStore, Ragged};
pub use runtime::{
    Device, Runtime, current_device, leave_thread, quit, stream_count, threads_end, version,
};

#[cfg(test)]
mod tests;
