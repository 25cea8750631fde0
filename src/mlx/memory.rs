//! What MLX's allocator holds, and what it may hold. All of it is the process's own.

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

/// Asks MLX to give kept buffers back before it holds more than `bytes` in all. Beyond that it goes
/// on allocating as long as the system has memory. Returns the limit so far.
pub fn set_memory_limit(bytes: usize) -> Result<usize> {
    set("set_memory_limit", bytes, mlx_sys::mlx_set_memory_limit)
}

/// Bounds the buffers that are kept for reuse. Returns the limit so far.
pub fn set_cache_limit(bytes: usize) -> Result<usize> {
    set("set_cache_limit", bytes, mlx_sys::mlx_set_cache_limit)
}

/// Keeps up to `bytes` of arrays where the system cannot page them out (Metal, macOS 15 and later;
/// elsewhere it does nothing). Returns the limit so far.
///
/// # Errors
/// If the system allows less.
pub fn set_wired_limit(bytes: usize) -> Result<usize> {
    set("set_wired_limit", bytes, mlx_sys::mlx_set_wired_limit)
}

/// The limit in use, of the setting that `set_memory_limit` changes.
pub fn memory_limit() -> Result<usize> {
    let mut bytes = 0;
    // SAFETY: writes one number through a valid pointer.
    check("get_memory_limit", &[], || unsafe {
        mlx_sys::mlx_get_memory_limit(&mut bytes)
    })?;
    Ok(bytes)
}

fn set(
    op: &'static str,
    bytes: usize,
    setter: unsafe extern "C" fn(*mut usize, usize) -> i32,
) -> Result<usize> {
    let mut before = 0;
    // SAFETY: writes one number through a valid pointer.
    check(op, &[], || unsafe { setter(&mut before, bytes) })?;
    Ok(before)
}
