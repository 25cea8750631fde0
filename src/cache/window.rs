//! The cache of attention that reaches back a limited way.
//!
//! The window slides over a buffer: new entries go behind the old ones, and when the room is used up
//! what can still be seen moves to the front of a new buffer. So entries lie in their order, a step
//! needs no mask, and a rewind works as far back as entries are still there.

use super::buffer::{Buffer, STEP};
use super::{Batch, KvMask, RowView, continues, rewinds};
use crate::mlx::{Array, Dtype, Error, Result};

/// How far back a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Itself and the positions before it, this many in all (Beltagy et al., 2020).
    Sliding(usize),
    /// The positions of its own chunk of this size up to itself (Llama 4, 2025).
    Chunked(usize),
}

impl Reach {
    /// The first position that the query at `position` sees.
    pub fn first(self, position: usize) -> usize {
        match self {
            Reach::Sliding(window) => (position + 1).saturating_sub(window.max(1)),
            Reach::Chunked(size) => position - position % size.max(1),
        }
    }

    /// Which keys `start..end` the queries `offset..end` see, boolean `[L, S]`.
    fn mask(self, start: usize, offset: usize, end: usize) -> Result<Array> {
        let positions = |from| Array::arange(from as i32, end as i32, Dtype::Int32);
        let queries = positions(offset)?.expand_dims(1)?; // [L, 1]
        let keys = positions(start)?.expand_dims(0)?; // [1, S]
        let near = match self {
            Reach::Sliding(window) => {
                let window = Array::from_i32(window.max(1) as i32)?;
                queries.less(&keys.add(&window)?)?
            }
            Reach::Chunked(size) => {
                let size = Array::from_i32(size.max(1) as i32)?;
                queries
                    .floor_divide(&size)?
                    .equal(&keys.floor_divide(&size)?)?
            }
        };
        queries.greater_equal(&keys)?.logical_and(&near)
    }
}

/// The keys and values that a sequence's next queries can see.
#[derive(Clone, Debug)]
pub struct WindowCache {
    reach: Reach,
    keys: Buffer,
    values: Buffer,
    /// The position of the buffers' first entry.
    start: usize,
    /// The position behind the last entry.
    len: usize,
}

impl WindowCache {
    /// An empty one.
    pub fn new(reach: Reach) -> Self {
        Self {
            reach,
            keys: Buffer::default(),
            values: Buffer::default(),
            start: 0,
            len: 0,
        }
    }

    /// From the entries of the positions `start..len`.
    pub(super) fn of(reach: Reach, keys: Buffer, values: Buffer, start: usize, len: usize) -> Self {
        Self {
            reach,
            keys,
            values,
            start,
            len,
        }
    }

    /// The position of the first entry that the next query sees, or of the last entry.
    pub(super) fn needed(&self) -> usize {
        let first = self.reach.first(self.len).max(self.start);
        first.min(self.len.saturating_sub(1))
    }

    pub(super) fn update(
        &mut self,
        k: &Array,
        v: &Array,
        offset: usize,
        batch: &Batch,
    ) -> Result<RowView> {
        continues(self.len, offset, k)?;
        let (start, len) = (
            std::mem::take(&mut self.start),
            std::mem::take(&mut self.len),
        );
        let added = k.dim(2)? as usize;
        let end = offset + added;
        let first = self.reach.first(offset);
        let start = if end - start > self.keys.capacity()? && first > start {
            let room = (end - first + STEP).next_multiple_of(STEP);
            self.keys.regrow(k, first - start, len - start, room)?;
            self.values.regrow(v, first - start, len - start, room)?;
            first
        } else {
            start
        };
        self.keys.write(k, len - start)?;
        self.values.write(v, len - start)?;
        (self.start, self.len) = (start, end);
        // The last query decides: where it sees all that the first one does, nothing is cut off.
        let mask = if added > 1 && self.reach.first(end - 1) > first {
            let reach = self.reach;
            KvMask::Array(batch.memo((reach, first, end), || reach.mask(first, offset, end))?)
        } else {
            KvMask::causal(added)
        };
        Ok(RowView {
            k: self.keys.view(first - start, end - start, k)?,
            v: self.values.view(first - start, end - start, v)?,
            mask,
        })
    }

    pub(super) fn rewind(&mut self, len: usize) -> Result<()> {
        rewinds(self.len, len)?;
        if len > 0 && self.reach.first(len) < self.start {
            let message = format!(
                "cannot rewind to {len}: what came before position {} is gone",
                self.start
            );
            return Err(Error::new("cache rewind", &[], message));
        }
        self.len = len;
        self.start = self.start.min(len);
        Ok(())
    }

    pub(super) fn snapshot(&self) -> Result<Self> {
        let first = self.reach.first(self.len).max(self.start).min(self.len);
        let (from, to) = (first - self.start, self.len - self.start);
        Ok(Self {
            reach: self.reach,
            keys: self.keys.compact(from, to)?,
            values: self.values.compact(from, to)?,
            start: first,
            len: self.len,
        })
    }

    /// How far back it reaches.
    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    /// The position of the first entry that it has.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Keys and values at positions `from..to`, views.
    pub(super) fn entries(&self, from: usize, to: usize) -> Result<[Option<Array>; 2]> {
        let (from, to) = (
            from.saturating_sub(self.start),
            to.saturating_sub(self.start),
        );
        Ok([self.keys.entries(from, to)?, self.values.entries(from, to)?])
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
