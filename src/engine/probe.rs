//! What the device itself can do: bytes and operations a second, by MLX's own simplest operations, for
//! measurements to be compared with.

use std::time::Instant;

use crate::mlx::{self, Array, Device, Dtype, Runtime, clear_cache, reset_peak_memory};

/// What a device was seen to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Bytes read and written a second while a large array is negated.
    pub bytes_per_second: f64,
    /// Floating-point operations a second in a large square product: bfloat16 on a GPU, float32 on a
    /// CPU.
    pub flops_per_second: f64,
}

/// Sizes that take a moment and no more.
struct Sizes {
    elements: i32,
    side: i32,
    dtype: Dtype,
    times: usize,
}

/// Measures `device`, or the best there is, on a thread of its own. To be called before
/// an engine starts: MLX's peak memory counts anew after it.
///
/// # Errors
/// What MLX says, for instance that there is no such device.
pub fn probe(device: Option<Device>) -> Result<Rates, String> {
    let device = device.unwrap_or_else(Device::best);
    let (result, measured) = std::sync::mpsc::channel();
    let run = move || {
        // The receiver waits for it.
        let _ = result.send(measure(device).map_err(|e| e.to_string()));
        mlx::leave_thread();
    };
    let thread = std::thread::Builder::new().name("probe".into()).spawn(run);
    thread.map_err(|e| format!("the probe's thread cannot start: {e}"))?;
    measured
        .recv()
        .unwrap_or_else(|_| Err("the probe's thread panicked".into()))
}

fn measure(device: Device) -> mlx::Result<Rates> {
    let _runtime = Runtime::enter(device)?;
    let sizes = match device {
        Device::Gpu => Sizes {
            elements: 1 << 27,
            side: 8192,
            dtype: Dtype::Bfloat16,
            times: 10,
        },
        Device::Cpu => Sizes {
            elements: 1 << 24,
            side: 256,
            dtype: Dtype::Float32,
            times: 4,
        },
    };
    let long = Array::zeros(&[sizes.elements], Dtype::Float32)?;
    let seconds = best(sizes.times, &long, || long.negative())?;
    let moved = 2.0 * 4.0 * f64::from(sizes.elements);
    let square = Array::zeros(&[sizes.side, sizes.side], sizes.dtype)?;
    let product = best(sizes.times, &square, || square.matmul(&square))?;
    let side = f64::from(sizes.side);
    drop((long, square));
    clear_cache()?;
    reset_peak_memory()?;
    Ok(Rates {
        bytes_per_second: moved / seconds,
        flops_per_second: 2.0 * side.powi(3) / product,
    })
}

/// The fewest seconds of several runs after one that does not count.
fn best(
    times: usize,
    input: &Array,
    operation: impl Fn() -> mlx::Result<Array>,
) -> mlx::Result<f64> {
    input.eval()?;
    operation()?.eval()?;
    let mut least = f64::INFINITY;
    for _ in 0..times {
        let start = Instant::now();
        operation()?.eval()?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_moves_bytes_and_multiplies() {
        let rates = probe(Some(Device::Cpu)).unwrap();
        for rate in [rates.bytes_per_second, rates.flops_per_second] {
            assert!((1e6..1e15).contains(&rate), "{rates:?}");
        }
    }
}
