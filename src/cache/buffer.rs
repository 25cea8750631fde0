//! A buffer of entries along positions, which grows in steps and is written in place.
//!
//! Invariant: between calls the buffer's own handle is the only one that lives on, so MLX writes new
//! entries in place. After a failed call the buffer is empty.

use crate::mlx::{Array, Dtype, Error, Result};

/// Positions by which buffers grow.
pub(super) const STEP: usize = 256;

/// Entries `[B, K, capacity, D]`; which of them are in use its owner knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffer {
    array: Option<Array>,
}

impl Buffer {
    /// One that is full of these entries.
    pub fn of(entries: Array) -> Self {
        Self {
            array: Some(entries),
        }
    }

    /// Positions it has room for.
    pub fn capacity(&self) -> Result<usize> {
        match &self.array {
            Some(array) => Ok(array.dim(2)? as usize),
            None => Ok(0),
        }
    }

    /// Writes `entries [B, K, L, D]` from place `at` on, with more room where it lacks.
    pub fn write(&mut self, entries: &Array, at: usize) -> Result<()> {
        let end = at + entries.dim(2)? as usize;
        if end > self.capacity()? {
            self.regrow(entries, 0, at, end.next_multiple_of(STEP))?;
        }
        if let Some(array) = self.array.take() {
            let mut stop = array.shape();
            stop[2] = end as i32;
            self.array = Some(array.slice_update(entries, &[0, 0, at as i32, 0], &stop)?);
        }
        Ok(())
    }

    /// The buffer itself, with room for `entries` (`[B, K, L, D]`, float32) from place `at` on, to be
    /// changed in place; what comes of it is to be put back by [`Buffer::of`].
    pub fn take(&mut self, entries: [i32; 4], at: usize) -> Result<Array> {
        let end = at + entries[2] as usize;
        if end > self.capacity()? {
            let like = Array::zeros(&entries, Dtype::Float32)?;
            self.regrow(&like, 0, at, end.next_multiple_of(STEP))?;
        }
        let missing = || Error::new("cache update", &[], "there are no entries to add");
        self.array.take().ok_or_else(missing)
    }

    /// Moves the entries `start..end` to the front of a new buffer of `capacity` positions, shaped
    /// like `like`.
    pub fn regrow(
        &mut self,
        like: &Array,
        start: usize,
        end: usize,
        capacity: usize,
    ) -> Result<()> {
        let shape = [like.dim(0)?, like.dim(1)?, capacity as i32, like.dim(3)?];
        let room = Array::zeros(&shape, like.dtype())?;
        self.array = match self.array.take() {
            Some(old) if end > start => {
                let kept = old.slice_axis(2, start as i32, end as i32)?;
                let mut stop = room.shape();
                stop[2] = (end - start) as i32;
                Some(room.slice_update(&kept, &[0, 0, 0, 0], &stop)?)
            }
            _ => Some(room),
        };
        Ok(())
    }

    /// The entries `start..end`, a view; `empty` where nothing was ever written.
    pub fn view(&self, start: usize, end: usize, empty: &Array) -> Result<Array> {
        match &self.array {
            Some(array) => array.slice_axis(2, start as i32, end as i32),
            None => Ok(empty.clone()),
        }
    }

    /// A buffer of its own that holds just the entries `start..end`.
    pub fn compact(&self, start: usize, end: usize) -> Result<Self> {
        let copy = |array: &Array| array.slice_axis(2, start as i32, end as i32)?.contiguous();
        Ok(Self {
            array: self.array.as_ref().map(copy).transpose()?,
        })
    }

    /// The entries `start..end`, a view; none where nothing was ever written.
    pub fn entries(&self, start: usize, end: usize) -> Result<Option<Array>> {
        let entries = |array: &Array| array.slice_axis(2, start as i32, end as i32);
        self.array.as_ref().map(entries).transpose()
    }

    /// The capacity of a buffer for `len` entries, one more at least, and `room` if that is more.
    pub fn room(len: usize, room: usize) -> usize {
        room.max(len + 1).next_multiple_of(STEP)
    }

    /// Bytes it takes, unused room included.
    pub fn nbytes(&self) -> usize {
        self.array.as_ref().map_or(0, Array::nbytes)
    }

    /// What is to be evaluated.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.array.iter()
    }
}
