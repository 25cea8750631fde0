//! The caches of full attention: every key and value, or every latent of which both are made.

use super::buffer::Buffer;
use super::{KvMask, RowView, continues, rewinds};
use crate::mlx::{Array, Result};

/// Every key and value of a sequence.
#[derive(Clone, Debug, Default)]
pub struct FullCache {
    keys: Buffer,
    values: Buffer,
    len: usize,
}

impl FullCache {
    /// From buffers that begin with `len` keys and values.
    pub(super) fn of(keys: Buffer, values: Buffer, len: usize) -> Self {
        Self { keys, values, len }
    }

    pub(super) fn update(&mut self, k: &Array, v: &Array, offset: usize) -> Result<RowView> {
        continues(self.len, offset, k)?;
        // Whatever fails from here on leaves the cache empty, and using it again is an error.
        let start = std::mem::take(&mut self.len);
        let added = k.dim(2)? as usize;
        self.keys.write(k, start)?;
        self.values.write(v, start)?;
        self.len = start + added;
        Ok(RowView {
            k: self.keys.view(0, self.len, k)?,
            v: self.values.view(0, self.len, v)?,
            mask: KvMask::causal(added),
        })
    }

    /// See [`super::LayerCache::write_with`].
    pub(super) fn write_with<T>(
        &mut self,
        entries: [i32; 4],
        write: impl FnOnce(Array, Array, usize) -> Result<(T, [Array; 2])>,
    ) -> Result<T> {
        // As above.
        let start = std::mem::take(&mut self.len);
        let keys = self.keys.take(entries, start)?;
        let values = self.values.take(entries, start)?;
        let (made, [keys, values]) = write(keys, values, start)?;
        (self.keys, self.values) = (Buffer::of(keys), Buffer::of(values));
        self.len = start + entries[2] as usize;
        Ok(made)
    }

    pub(super) fn rewind(&mut self, len: usize) -> Result<()> {
        rewinds(self.len, len)?;
        self.len = len;
        Ok(())
    }

    pub(super) fn snapshot(&self) -> Result<Self> {
        Ok(Self {
            keys: self.keys.compact(0, self.len)?,
            values: self.values.compact(0, self.len)?,
            len: self.len,
        })
    }

    /// Keys and values at `start..end`, views.
    pub(super) fn entries(&self, start: usize, end: usize) -> Result<[Option<Array>; 2]> {
        Ok([
            self.keys.entries(start, end)?,
            self.values.entries(start, end)?,
        ])
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Positions that it has room for.
    pub(super) fn capacity(&self) -> usize {
        self.keys.capacity().unwrap_or(0)
    }

    pub(super) fn nbytes(&self) -> usize {
        self.keys.nbytes() + self.values.nbytes()
    }

    pub(super) fn arrays(&self) -> Vec<&Array> {
        self.keys.arrays().chain(self.values.arrays()).collect()
    }
}

/// Every latent of a sequence (multi-head latent attention, DeepSeek-V2, 2024): one entry for all
/// heads, the compressed keys and values with the shared rotary key behind them.
#[derive(Clone, Debug, Default)]
pub struct LatentCache {
    latents: Buffer,
    /// Features of a latent that values are made of; 0 before the first update.
    rank: i32,
    len: usize,
}

impl LatentCache {
    /// From a buffer that begins with `len` latents, and the features of values in one, or 0.
    pub(super) fn of(latents: Buffer, rank: i32, len: usize) -> Self {
        Self { latents, rank, len }
    }

    /// Features of a latent that values are made of; 0 before the first update.
    pub(super) fn rank(&self) -> i32 {
        self.rank
    }

    pub(super) fn update(&mut self, latents: &Array, rank: i32, offset: usize) -> Result<RowView> {
        continues(self.len, offset, latents)?;
        self.rank = rank;
        let start = std::mem::take(&mut self.len);
        let added = latents.dim(2)? as usize;
        self.latents.write(latents, start)?;
        self.len = start + added;
        let k = self.latents.view(0, self.len, latents)?;
        Ok(RowView {
            v: k.slice_axis(-1, 0, rank)?,
            k,
            mask: KvMask::causal(added),
        })
    }

    pub(super) fn rewind(&mut self, len: usize) -> Result<()> {
        rewinds(self.len, len)?;
        self.len = len;
        Ok(())
    }

    pub(super) fn snapshot(&self) -> Result<Self> {
        Ok(Self {
            latents: self.latents.compact(0, self.len)?,
            rank: self.rank,
            len: self.len,
        })
    }

    /// The latents at `start..end`, a view.
    pub(super) fn entries(&self, start: usize, end: usize) -> Result<Option<Array>> {
        self.latents.entries(start, end)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Positions that it has room for.
    pub(super) fn capacity(&self) -> usize {
        self.latents.capacity().unwrap_or(0)
    }

    pub(super) fn nbytes(&self) -> usize {
        self.latents.nbytes()
    }

    pub(super) fn arrays(&self) -> Vec<&Array> {
        self.latents.arrays().collect()
    }
}
