//! What MLX's allocator holds.

use super::Result;
use super::error::check;

/// Bytes held by MLX in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// In arrays that are alive.
    pub active: usize,
    /// In buffers kept for reuse.
    pub cache: usize,
    /// The most that was active at a time since the start or the last reset.
    pub peak: usize,
}

/// What MLX's allocator holds now.
pub fn memory() -> Result<MemoryReport> {
    let read = |op, getter: unsafe extern "C" fn(*mut usize) -> i32| -> Result<usize> {
        let mut bytes = 0;
        // SAFETY: writes one number through a valid pointer.
        check(op, &[], || unsafe { getter(&mut bytes) })?;
        Ok(bytes)
    };
    Ok(MemoryReport {
        active: read("get_active_memory", mlx_sys::mlx_get_active_memory)?,
        cache: read("get_cache_memory", mlx_sys::mlx_get_cache_memory)?,
        peak: read("get_peak_memory", mlx_sys::mlx_get_peak_memory)?,
    })
}

/// The bytes that MLX may hold before it slows down or refuses: its own share of the machine's memory
/// unless set.
pub fn memory_limit() -> Result<usize> {
    let mut bytes = 0;
    // SAFETY: writes one number through a valid pointer.
    check("get_memory_limit", &[], || unsafe {
        mlx_sys::mlx_get_memory_limit(&mut bytes)
    })?;
    Ok(bytes)
}

/// Gives the buffers kept for reuse back to the system.
pub fn clear_cache() -> Result<()> {
    // SAFETY: takes and returns nothing.
    check("clear_cache", &[], || unsafe { mlx_sys::mlx_clear_cache() })
}

/// Starts the peak anew.
pub fn reset_peak_memory() -> Result<()> {
    // SAFETY: takes and returns nothing.
    check("reset_peak_memory", &[], || unsafe {
        mlx_sys::mlx_reset_peak_memory()
    })
}
