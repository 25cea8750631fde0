//! Large tensors on their way from a file to a GPU's own memory.
//!
//! An array made of bytes lies in memory that CUDA moves to the device page by page when a kernel first
//! reads it, at a fraction of the link's rate. MLX's loader copies whole tensors instead, from a reader;
//! so here a tensor is a safetensors file of its own, whose bytes several threads copy.
//!
//! Invariant: a reader outlives its call only as a shell. The bytes are taken from it before [`upload`]
//! returns, whatever MLX still holds.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::eval::start;
use super::ops::build;
use super::{Array, Dtype, Result};

/// Bytes from which a tensor is worth it.
pub(super) const LARGE: usize = 1 << 20;
/// Bytes that a copying thread is worth.
const SHARE: usize = 2 << 20;
/// Copying threads at most: a few use up the memory's rate.
const THREADS: usize = 8;

const NAME: &CStr = c"t";
const LABEL: &CStr = c"a tensor";

/// A file in memory: a header, and the bytes behind it as long as they are lent.
struct Source {
    header: Vec<u8>,
    bytes: RwLock<Option<&'static [u8]>>,
    position: AtomicUsize,
    /// Bytes behind the header that were read.
    taken: AtomicUsize,
}

impl Source {
    fn bytes(&self) -> RwLockReadGuard<'_, Option<&'static [u8]>> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.header.len() + self.bytes().map_or(0, <[u8]>::len)
    }

    /// Copies what there is from `at` on; tells how much.
    fn read(&self, at: usize, to: &mut [u8]) -> usize {
        let lent = self.bytes();
        let Some(bytes) = *lent else {
            return 0;
        };
        let head = self.header.get(at..).unwrap_or_default();
        let n = head.len().min(to.len());
        let (first, rest) = to.split_at_mut(n);
        first.copy_from_slice(&head[..n]);
        let from = (at + n).saturating_sub(self.header.len());
        let from = bytes.get(from..).unwrap_or_default();
        let m = from.len().min(rest.len());
        copy(&from[..m], &mut rest[..m]);
        self.taken.fetch_add(m, Ordering::Relaxed);
        n + m
    }
}

/// Copies by several threads: fresh memory is cleared by the system page by page as it is touched.
fn copy(from: &[u8], to: &mut [u8]) {
    let threads = (from.len() / SHARE).clamp(1, THREADS);
    let share = from.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let mut parts = from.chunks(share).zip(to.chunks_mut(share));
        let own = parts.next();
        for (from, to) in parts {
            scope.spawn(|| to.copy_from_slice(from));
        }
        if let Some((from, to)) = own {
            to.copy_from_slice(from);
        }
    });
}

unsafe extern "C" fn usable(source: *mut c_void) -> bool {
    // SAFETY: MLX calls with the source that the reader was made with, which lives until `free`.
    let source = unsafe { &*source.cast::<Source>() };
    source.bytes().is_some()
}

unsafe extern "C" fn tell(source: *mut c_void) -> usize {
    // SAFETY: as in `usable`.
    let source = unsafe { &*source.cast::<Source>() };
    source.position.load(Ordering::Relaxed)
}

unsafe extern "C" fn seek(source: *mut c_void, offset: i64, whence: c_int) -> c_int {
    // SAFETY: as in `usable`.
    let source = unsafe { &*source.cast::<Source>() };
    let from = match whence {
        0 => 0,
        1 => source.position.load(Ordering::Relaxed),
        _ => source.len(),
    };
    match from.checked_add_signed(offset as isize) {
        Some(position) => {
            source.position.store(position, Ordering::Relaxed);
            0
        }
        None => -1,
    }
}

unsafe extern "C" fn read(source: *mut c_void, data: *mut c_char, n: usize) -> usize {
    // SAFETY: as in `usable`; `data` has room for `n` bytes.
    let (at, got) = unsafe {
        let at = tell(source);
        (at, read_at(source, data, n, at))
    };
    // SAFETY: as in `usable`.
    let source = unsafe { &*source.cast::<Source>() };
    source.position.store(at + got, Ordering::Relaxed);
    got
}

unsafe extern "C" fn read_at(source: *mut c_void, data: *mut c_char, n: usize, at: usize) -> usize {
    // SAFETY: as in `usable`; `data` has room for `n` bytes, which are written before they are read.
    unsafe {
        let source = &*source.cast::<Source>();
        source.read(at, std::slice::from_raw_parts_mut(data.cast(), n))
    }
}

unsafe extern "C" fn label(_: *mut c_void) -> *const c_char {
    LABEL.as_ptr()
}

unsafe extern "C" fn free(source: *mut c_void) {
    // SAFETY: MLX calls it once, at the end; the pointer came from `Arc::into_raw`.
    drop(unsafe { Arc::from_raw(source.cast::<Source>().cast_const()) });
}

/// What safetensors calls a type.
fn name(dtype: Dtype) -> Option<&'static str> {
    Some(match dtype {
        Dtype::Uint8 => "U8",
        Dtype::Uint16 => "U16",
        Dtype::Uint32 => "U32",
        Dtype::Int8 => "I8",
        Dtype::Int32 => "I32",
        Dtype::Float16 => "F16",
        Dtype::Float32 => "F32",
        Dtype::Bfloat16 => "BF16",
        _ => return None,
    })
}

/// An array of these bytes, as many as shape and type need, in the memory of the thread's device; none
/// if MLX's loader does not know the type. Blocks until the bytes are read, not until the device has
/// them.
#[track_caller]
pub(super) fn upload(bytes: &[u8], shape: &[i32], dtype: Dtype) -> Result<Option<Array>> {
    let op = "upload";
    let Some(dtype) = name(dtype) else {
        return Ok(None);
    };
    let (name, n) = (NAME.to_string_lossy(), bytes.len());
    let json =
        format!(r#"{{"{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{n}]}}}}"#);
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json.as_bytes());
    // SAFETY: the bytes are taken back below, before this function returns, under a lock that every
    // reading holds.
    let lent: &'static [u8] = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), n) };
    let source = Arc::new(Source {
        header,
        bytes: RwLock::new(Some(lent)),
        position: AtomicUsize::new(0),
        taken: AtomicUsize::new(0),
    });
    let array = load(op, source.clone()).and_then(|array| {
        // Also where evaluation is put off: the bytes are lent for now only. On a GPU they are read while
        // the copy is started, on a CPU maybe later.
        start(&[&array])?;
        if source.taken.load(Ordering::Relaxed) < n {
            array.compute()?;
        }
        Ok(array)
    });
    // Waits for whoever still reads.
    *source.bytes.write().unwrap_or_else(PoisonError::into_inner) = None;
    array.map(Some)
}

/// The one tensor of a source, not read yet.
#[track_caller]
fn load(op: &'static str, source: Arc<Source>) -> Result<Array> {
    let vtable = mlx_sys::mlx_io_vtable {
        is_open: Some(usable),
        good: Some(usable),
        tell: Some(tell),
        seek: Some(seek),
        read: Some(read),
        read_at_offset: Some(read_at),
        write: None,
        label: Some(label),
        free: Some(free),
    };
    // SAFETY: the reader takes the source over and frees it at its end, which is when no array needs
    // it any more; the maps are fresh, filled by the call, and freed here; `out` is a fresh handle.
    build(op, &[], |out, stream| unsafe {
        let source = Arc::into_raw(source).cast_mut();
        let reader = mlx_sys::mlx_io_reader_new(source.cast(), vtable);
        let mut arrays = mlx_sys::mlx_map_string_to_array_new();
        let mut about = mlx_sys::mlx_map_string_to_string_new();
        let loaded = mlx_sys::mlx_load_safetensors_reader(&mut arrays, &mut about, reader, stream);
        let found = match loaded {
            0 => mlx_sys::mlx_map_string_to_array_get(out, arrays, NAME.as_ptr()),
            code => code,
        };
        let freed = [
            mlx_sys::mlx_map_string_to_array_free(arrays),
            mlx_sys::mlx_map_string_to_string_free(about),
            mlx_sys::mlx_io_reader_free(reader),
        ];
        freed
            .into_iter()
            .fold(found, |a, b| if a == 0 { b } else { a })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::{Device, Runtime};

    #[test]
    fn what_is_uploaded_is_what_was_there() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let bytes: Vec<u8> = (0..6 * LARGE + 12).map(|i| (i % 251) as u8).collect();
        for (dtype, shape) in [
            (Dtype::Uint32, vec![3, 4]),
            (Dtype::Uint8, vec![0]),
            (Dtype::Bfloat16, vec![7]),
            (Dtype::Uint32, vec![2, (3 * LARGE / 4 + 1) as i32]),
            (Dtype::Uint8, vec![(6 * LARGE + 11) as i32]),
        ] {
            let n: i32 = shape.iter().product();
            // One that starts anywhere.
            let part = &bytes[1..][..n as usize * dtype.size()];
            let array = upload(part, &shape, dtype).unwrap().unwrap();
            assert_eq!((array.shape(), array.dtype()), (shape, dtype));
            assert!(array.to_bytes().unwrap() == part);
        }
        assert!(upload(&[0; 8], &[1], Dtype::Complex64).unwrap().is_none());
    }

    #[test]
    fn the_bytes_are_taken_back() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let bytes = vec![7u8; 64];
        let source = Arc::new(Source {
            header: Vec::new(),
            bytes: RwLock::new(None),
            position: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
        });
        assert_eq!(source.read(0, &mut [0; 4]), 0);
        assert!(load("upload", source).is_err());
        let array = upload(&bytes, &[64], Dtype::Uint8).unwrap().unwrap();
        drop(bytes);
        assert_eq!(array.to_vec::<u8>().unwrap(), [7; 64]);
    }
}
