//! What MLX knows of a device's memory.

use std::ffi::CStr;

use super::error::check;
use super::{Device, Result};

/// A device's memory in bytes, as far as its backend says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// All of it: the card's on CUDA, the machine's on Metal. Of a CPU it is not known.
    pub total: Option<usize>,
    /// What no process had taken when MLX looked (CUDA).
    pub free: Option<usize>,
    /// What the system recommends to use at most (Metal).
    pub recommended: Option<usize>,
}

/// The memory of `device`; nothing is known of one that is not there.
pub fn device_memory(device: Device) -> Result<DeviceMemory> {
    if !device.is_available() {
        return Ok(DeviceMemory::default());
    }
    let op = "device_info";
    let kind = match device {
        Device::Cpu => mlx_sys::mlx_device_type::MLX_CPU,
        Device::Gpu => mlx_sys::mlx_device_type::MLX_GPU,
    };
    // SAFETY: both handles are fresh, filled by checked calls, and freed once; keys are
    // NUL-terminated and results are written through valid pointers.
    unsafe {
        let raw_device = mlx_sys::mlx_device_new_type(kind, 0);
        let mut info = mlx_sys::mlx_device_info_new();
        let found = check(op, &[], || {
            mlx_sys::mlx_device_info_get(&mut info, raw_device)
        });
        let read = |key: &CStr| -> Result<Option<usize>> {
            let (mut exists, mut is_text, mut bytes) = (false, true, 0);
            let key = key.as_ptr();
            check(op, &[], || {
                mlx_sys::mlx_device_info_has_key(&mut exists, info, key)
            })?;
            if !exists {
                return Ok(None);
            }
            check(op, &[], || {
                mlx_sys::mlx_device_info_is_string(&mut is_text, info, key)
            })?;
            if is_text {
                return Ok(None);
            }
            check(op, &[], || {
                mlx_sys::mlx_device_info_get_size(&mut bytes, info, key)
            })?;
            Ok(Some(bytes).filter(|&bytes| bytes > 0))
        };
        let memory = found.and_then(|()| {
            Ok(DeviceMemory {
                total: match read(c"total_memory")? {
                    Some(bytes) => Some(bytes),
                    None => read(c"memory_size")?,
                },
                free: read(c"free_memory")?,
                recommended: read(c"max_recommended_working_set_size")?,
            })
        });
        mlx_sys::mlx_device_info_free(info);
        mlx_sys::mlx_device_free(raw_device);
        memory
    }
}
