//! The cache of full attention: every key and value, in buffers that grow in steps.
//!
//! Invariant: no handle to a buffer outlives `update` but the cache's own and the views of its own
//! step, so MLX writes new entries in place.

use super::KvView;
use crate::mlx::{Array, Error, Mask, Result};

/// Positions by which buffers grow.
const STEP: usize = 256;

/// Every key and value of a sequence.
#[derive(Debug, Default)]
pub struct FullCache {
    /// Keys and values, `[B, K, capacity, D]` each.
    buffers: Option<(Array, Array)>,
    len: usize,
}

impl FullCache {
    pub(super) fn update(&mut self, k: &Array, v: &Array, offset: usize) -> Result<KvView> {
        if offset != self.len {
            let message = format!(
                "the cache ends at {}, the batch starts at {offset}",
                self.len
            );
            return Err(Error::new("cache update", &[k, v], message));
        }
        let added = k.dim(2)? as usize;
        let end = self.len + added;
        // Taken out, so that the handles here are the only ones and the write is in place. After a
        // failure the cache is empty, and using it again is an error.
        let len = std::mem::take(&mut self.len);
        let (keys, values) = match self.buffers.take() {
            Some((keys, values)) => (grow(keys, len, end)?, grow(values, len, end)?),
            None => (room(k, end)?, room(v, end)?),
        };
        let keys = write(keys, k, len, end)?;
        let values = write(values, v, len, end)?;
        let view = KvView {
            k: keys.slice_axis(2, 0, end as i32)?,
            v: values.slice_axis(2, 0, end as i32)?,
            mask: if added == 1 { Mask::None } else { Mask::Causal },
        };
        self.buffers = Some((keys, values));
        self.len = end;
        Ok(view)
    }

    pub(super) fn rewind(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            let message = format!("cannot rewind to {len}: the cache ends at {}", self.len);
            return Err(Error::new("cache rewind", &[], message));
        }
        self.len = len;
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn nbytes(&self) -> usize {
        self.arrays().map(Array::nbytes).sum()
    }

    pub(super) fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.buffers
            .iter()
            .flat_map(|(keys, values)| [keys, values])
    }
}

/// Capacity for `len` positions.
fn capacity(len: usize) -> i32 {
    (len.div_ceil(STEP) * STEP) as i32
}

/// An empty buffer for entries like `like` (`[B, K, L, D]`).
fn room(like: &Array, len: usize) -> Result<Array> {
    let shape = [like.dim(0)?, like.dim(1)?, capacity(len), like.dim(3)?];
    Array::zeros(&shape, like.dtype())
}

fn grow(buffer: Array, len: usize, end: usize) -> Result<Array> {
    if capacity(end) <= buffer.dim(2)? {
        return Ok(buffer);
    }
    let kept = buffer.slice_axis(2, 0, len as i32)?;
    write(room(&buffer, end)?, &kept, 0, len)
}

fn write(buffer: Array, entries: &Array, start: usize, end: usize) -> Result<Array> {
    let mut stop = buffer.shape();
    stop[2] = end as i32;
    buffer.slice_update(entries, &[0, 0, start as i32, 0], &stop)
}
