//! What MLX knows of a device.

use std::ffi::CStr;

use super::error::check;
use super::{Device, Result};

const OP: &str = "device_info";

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

/// What is known of a device; empty of one that is not there.
struct Info {
    raw: mlx_sys::mlx_device_info,
    device: mlx_sys::mlx_device,
}

impl Info {
    fn of(device: Device) -> Result<Self> {
        let kind = match device {
            Device::Cpu => mlx_sys::mlx_device_type::MLX_CPU,
            Device::Gpu => mlx_sys::mlx_device_type::MLX_GPU,
        };
        // SAFETY: makes two handles, which the value owns; the call fills one from the other.
        unsafe {
            let mut info = Self {
                raw: mlx_sys::mlx_device_info_new(),
                device: mlx_sys::mlx_device_new_type(kind, 0),
            };
            check(OP, &[], || {
                mlx_sys::mlx_device_info_get(&mut info.raw, info.device)
            })?;
            Ok(info)
        }
    }

    /// Whether the value of `key` is a text; none where there is no such key.
    fn is_text(&self, key: &CStr) -> Result<Option<bool>> {
        let (mut exists, mut is_text) = (false, false);
        // SAFETY: the handle is live, the key NUL-terminated, and results go to places of their types.
        unsafe {
            check(OP, &[], || {
                mlx_sys::mlx_device_info_has_key(&mut exists, self.raw, key.as_ptr())
            })?;
            if exists {
                check(OP, &[], || {
                    mlx_sys::mlx_device_info_is_string(&mut is_text, self.raw, key.as_ptr())
                })?;
            }
        }
        Ok(exists.then_some(is_text))
    }

    /// A number of bytes that is not 0.
    fn bytes(&self, key: &CStr) -> Result<Option<usize>> {
        if self.is_text(key)? != Some(false) {
            return Ok(None);
        }
        let mut bytes = 0;
        // SAFETY: as in `is_text`.
        check(OP, &[], || unsafe {
            mlx_sys::mlx_device_info_get_size(&mut bytes, self.raw, key.as_ptr())
        })?;
        Ok(Some(bytes).filter(|&bytes| bytes > 0))
    }

    fn text(&self, key: &CStr) -> Result<Option<String>> {
        if self.is_text(key)? != Some(true) {
            return Ok(None);
        }
        let mut text = std::ptr::null();
        // SAFETY: as in `is_text`; the text lives as long as the handle, and is copied.
        unsafe {
            check(OP, &[], || {
                mlx_sys::mlx_device_info_get_string(&mut text, self.raw, key.as_ptr())
            })?;
            let text = (!text.is_null()).then(|| CStr::from_ptr(text));
            Ok(text.map(|text| text.to_string_lossy().into_owned()))
        }
    }
}

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: both handles are the value's own, freed once.
        unsafe {
            mlx_sys::mlx_device_info_free(self.raw);
            mlx_sys::mlx_device_free(self.device);
        }
    }
}

/// What the device calls itself; none of one that is not there.
pub fn device_name(device: Device) -> Result<Option<String>> {
    match device.is_available() {
        true => Info::of(device)?.text(c"device_name"),
        false => Ok(None),
    }
}

/// The memory of `device`; nothing is known of one that is not there.
pub fn device_memory(device: Device) -> Result<DeviceMemory> {
    if !device.is_available() {
        return Ok(DeviceMemory::default());
    }
    let info = Info::of(device)?;
    Ok(DeviceMemory {
        total: match info.bytes(c"total_memory")? {
            Some(bytes) => Some(bytes),
            None => info.bytes(c"memory_size")?,
        },
        free: info.bytes(c"free_memory")?,
        recommended: info.bytes(c"max_recommended_working_set_size")?,
    })
}
