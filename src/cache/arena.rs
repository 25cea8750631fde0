//! The caches of sequences that decode together, as stretches of one store.
//!
//! A step writes an entry behind each row's last. A row that has used up its room gets more behind
//! it where that is free, or moves; a window leaves behind what no query sees any more. Rows come
//! and go without touching the others.

use super::buffer::{Buffer, STEP};
use super::extents::Extents;
use super::full::{FullCache, LatentCache};
use super::window::{Reach, WindowCache};
use super::{Batch, KvView, LayerCache, continues};
use crate::mlx::{Array, Error, KvStore, Result};

/// What a row's cache is when it is by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Full,
    Latent,
    Window(Reach),
}

#[derive(Clone, Copy, Debug)]
struct Row {
    kind: Kind,
    /// The place of its first entry.
    at: usize,
    /// Places that are its own.
    room: usize,
    /// The position of its first entry.
    start: usize,
    /// The position behind its last entry.
    len: usize,
}

impl Row {
    /// The first position that the query at `position` sees.
    fn first(&self, position: usize) -> usize {
        match self.kind {
            Kind::Window(reach) => reach.first(position).max(self.start),
            Kind::Full | Kind::Latent => self.start,
        }
    }

    /// The position of the first entry that a later query sees, or of the last entry.
    fn needed(&self) -> usize {
        self.first(self.len).min(self.len.saturating_sub(1))
    }
}

/// Keys and values of several sequences with full, latent or window attention.
#[derive(Debug)]
pub struct ArenaCache {
    store: KvStore,
    extents: Extents,
    rows: Vec<Row>,
}

impl ArenaCache {
    /// From the caches of single sequences; `None` if they are of other kinds, or of widths that
    /// the store does not take.
    pub(super) fn of(caches: &[LayerCache]) -> Result<Option<Self>> {
        let Some((_, k, v)) = caches.first().map(held).transpose()?.flatten() else {
            return Ok(None);
        };
        if !KvStore::takes(&k, &v)? {
            return Ok(None);
        }
        let within = matches!(caches.first(), Some(LayerCache::Latent(_)));
        let room = caches
            .iter()
            .map(|cache| Buffer::room(cache.len(), 0))
            .sum();
        let mut arena = Self {
            store: KvStore::like(&k, &v, within, room)?,
            extents: Extents::default(),
            rows: Vec::new(),
        };
        arena.extents.grow(room);
        for cache in caches {
            arena.push(cache)?;
        }
        Ok(Some(arena))
    }

    /// Adds a sequence as the last row.
    pub(super) fn push(&mut self, cache: &LayerCache) -> Result<()> {
        let Some((row, k, v)) = held(cache)? else {
            let message = "an empty cache, or one of another kind, cannot join";
            return Err(Error::new("cache join", &[], message));
        };
        let row = self.place(row, &k, &v)?;
        self.rows.push(row);
        Ok(())
    }

    /// Finds a place for a row's entries, and writes them there.
    fn place(&mut self, row: Row, k: &Array, v: &Array) -> Result<Row> {
        let room = Buffer::room(row.len - row.start, 0);
        let at = match self.extents.take(room) {
            Some(at) => at,
            None => {
                // At least a quarter more, so that growing costs little for each entry.
                let total = self.extents.total();
                let larger = (total + room.max(total / 4)).next_multiple_of(STEP);
                self.store.grow(larger)?;
                self.extents.grow(larger);
                let at = self.extents.take(room);
                at.ok_or_else(|| Error::new("cache join", &[k], "no room after growing"))?
            }
        };
        self.store.write(k, v, at)?;
        Ok(Row { at, room, ..row })
    }

    /// Keeps these rows, in this order.
    pub(super) fn keep(&mut self, rows: &[usize]) -> Result<()> {
        let kept: Vec<Row> = rows
            .iter()
            .filter_map(|&i| self.rows.get(i).copied())
            .collect();
        for (i, row) in self.rows.iter().enumerate() {
            if !rows.contains(&i) {
                self.extents.give(row.at..row.at + row.room);
            }
        }
        self.rows = kept;
        let total = self.extents.total();
        if total > 16 * STEP && self.extents.n_free() > total / 4 * 3 {
            self.shrink()?;
        }
        Ok(())
    }

    /// Moves all rows to a store of just their size.
    fn shrink(&mut self) -> Result<()> {
        let mut alone = Vec::with_capacity(self.rows.len());
        for i in 0..self.rows.len() {
            alone.push(self.row(i)?);
        }
        if let Some(smaller) = Self::of(&alone)? {
            *self = smaller;
        }
        Ok(())
    }

    /// A row as a cache of its own.
    pub(super) fn row(&self, i: usize) -> Result<LayerCache> {
        let Some(row) = self.rows.get(i) else {
            let message = format!("there is no row {i} among {}", self.rows.len());
            return Err(Error::new("cache row", &[], message));
        };
        let first = row.needed();
        let (k, v) = self
            .store
            .read(row.at + first - row.start, row.len - first)?;
        Ok(match row.kind {
            Kind::Full => LayerCache::Full(FullCache::of(Buffer::of(k), Buffer::of(v), row.len)),
            Kind::Latent => {
                let rank = v.dim(-1)?;
                LayerCache::Latent(LatentCache::of(Buffer::of(k), rank, row.len))
            }
            Kind::Window(reach) => LayerCache::Window(WindowCache::of(
                reach,
                Buffer::of(k),
                Buffer::of(v),
                first,
                row.len,
            )),
        })
    }

    /// Adds an entry to each row (`k [B, K, 1, D]`, `v [B, K, 1, V]`) and shows what each sees.
    pub(super) fn update(&mut self, k: &Array, v: &Array, batch: &Batch) -> Result<KvView> {
        let offsets = batch.offsets();
        if offsets.len() != self.rows.len() {
            let message = format!("it has {} rows", self.rows.len());
            return Err(Error::new("cache update", &[&batch.tokens], message));
        }
        let mut stretches = Vec::with_capacity(offsets.len());
        for (i, &offset) in offsets.iter().enumerate() {
            continues(self.rows[i].len, offset, k)?;
            if self.rows[i].len - self.rows[i].start == self.rows[i].room {
                self.make_room(i)?;
            }
            let row = &mut self.rows[i];
            row.len += 1;
            let first = row.first(offset);
            stretches.push((row.at + first - row.start, row.len - first));
        }
        let spans = batch.spans(&stretches)?;
        let ragged = self.store.append(k, v, stretches, spans)?;
        Ok(KvView::ragged(ragged))
    }

    /// Gives a row that is full room for more.
    fn make_room(&mut self, i: usize) -> Result<()> {
        let row = self.rows[i];
        let first = row.needed();
        if first == row.start && self.extents.take_at(row.at + row.room, STEP) {
            self.rows[i].room += STEP;
            return Ok(());
        }
        let (k, v) = self
            .store
            .read(row.at + first - row.start, row.len - first)?;
        self.extents.give(row.at..row.at + row.room);
        self.rows[i] = self.place(
            Row {
                start: first,
                ..row
            },
            &k,
            &v,
        )?;
        Ok(())
    }

    /// The position behind the last entry of the row that goes furthest.
    pub(super) fn len(&self) -> usize {
        self.rows.iter().map(|row| row.len).max().unwrap_or(0)
    }

    /// How many rows it has.
    pub(super) fn n_rows(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn nbytes(&self) -> usize {
        self.store.nbytes()
    }
}

/// A single sequence's entries, `[1, K, L, D]` and `[1, K, L, V]`, and where they stand; nothing for
/// empty caches and for kinds without entries.
fn held(cache: &LayerCache) -> Result<Option<(Row, Array, Array)>> {
    let len = cache.len();
    if len == 0 {
        return Ok(None);
    }
    let (kind, start, [k, v]) = match cache {
        LayerCache::Full(cache) => (Kind::Full, 0, cache.entries(0, len)?),
        LayerCache::Latent(cache) => {
            let k = cache.entries(0, len)?;
            let v = k.as_ref().map(|k| k.slice_axis(-1, 0, cache.rank()));
            (Kind::Latent, 0, [k, v.transpose()?])
        }
        LayerCache::Window(cache) => {
            let first = cache.needed();
            (
                Kind::Window(cache.reach()),
                first,
                cache.entries(first, len)?,
            )
        }
        _ => return Ok(None),
    };
    let row = Row {
        kind,
        at: 0,
        room: 0,
        start,
        len,
    };
    Ok(k.zip(v).map(|(k, v)| (row, k, v)))
}
