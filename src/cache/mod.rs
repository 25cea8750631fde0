//! What a sequence remembers, layer by layer.
//!
//! Attention calls [`LayerCache::update`] and attends to the [`KvView`] that it gets; it never asks
//! which kind of cache it has, nor of how many sequences. Every kind counts positions, so all caches
//! of a sequence have the same length between steps.

mod arena;
mod buffer;
mod extents;
mod full;
mod growth;
pub mod prefix;
mod recurrent;
mod view;
mod window;

#[cfg(test)]
mod tests;

pub use arena::ArenaCache;
pub use full::{FullCache, LatentCache};
pub use growth::Growth;
pub use recurrent::RecurrentCache;
pub use view::{Attend, KvMask, KvView, RowView};
pub use window::{Reach, WindowCache};

use std::cell::{OnceCell, RefCell};

use crate::mlx::{Array, Dtype, Error, Result, on_cuda};

/// A window's reach, the first key and the position behind the last: what a mask depends on.
type MaskKey = (Reach, usize, usize);

/// For each row of a common store its first place and its length.
type Stretches = Vec<(usize, usize)>;

/// Numbers of tokens, and of how many.
type Ends = (Vec<i32>, i32);

/// One forward pass's input beside the caches: sequences that stand at the same position, or several
/// with one token each and positions of their own.
#[derive(Debug)]
pub struct Batch {
    /// Token ids, uint32 `[B, L]`.
    pub tokens: Array,
    /// For each row the position of its first token: what its caches hold already.
    offsets: Vec<usize>,
    /// The same on the device, int32 `[B]`, once a layer has asked for it.
    starts: OnceCell<Array>,
    /// Masks that layers of this pass share.
    masks: RefCell<Vec<(MaskKey, Array)>>,
    /// Where rows stand in stores, as layers of this pass share it.
    spans: RefCell<Vec<(Stretches, Array)>>,
    /// What [`Batch::triangle`] gave, by the number of tokens.
    triangles: RefCell<Vec<(i32, Array)>>,
    /// What [`Batch::ends`] gave.
    ends: RefCell<Vec<(Ends, [Array; 2])>>,
}

impl Batch {
    /// One sequence's tokens from position `offset` on.
    pub fn single(tokens: &[u32], offset: usize) -> Result<Self> {
        let tokens = Array::from_slice(tokens, &[1, tokens.len() as i32])?;
        Self::new(tokens, vec![offset])
    }

    /// Tokens, uint32 `[B, L]`, each row from its own position on.
    ///
    /// # Errors
    /// If there is not one position a row, or rows of different positions have several tokens.
    pub fn new(tokens: Array, offsets: Vec<usize>) -> Result<Self> {
        let (b, l) = (tokens.dim(0)?, tokens.dim(1)?);
        let batch = Self {
            tokens,
            offsets,
            starts: OnceCell::new(),
            masks: RefCell::default(),
            spans: RefCell::default(),
            triangles: RefCell::default(),
            ends: RefCell::default(),
        };
        if b as usize != batch.offsets.len() || (l > 1 && batch.offset().is_none()) {
            let positions = &batch.offsets;
            let message = format!(
                "it starts at {positions:?}; expected a position for each row, the same for all \
                 where rows have several tokens"
            );
            return Err(Error::new("batch", &[&batch.tokens], message));
        }
        Ok(batch)
    }

    /// For each row the position of its first token.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The position of the first token, if it is the same in all rows.
    pub fn offset(&self) -> Option<usize> {
        let first = *self.offsets.first()?;
        self.offsets
            .iter()
            .all(|&offset| offset == first)
            .then_some(first)
    }

    /// For each row the position of its first token, int32 `[B]`.
    pub fn starts(&self) -> Result<&Array> {
        if let Some(starts) = self.starts.get() {
            return Ok(starts);
        }
        let offsets: Vec<i32> = self.offsets.iter().map(|&offset| offset as i32).collect();
        let starts = on_device(Array::from_slice(&offsets, &[offsets.len() as i32])?)?;
        Ok(self.starts.get_or_init(|| starts))
    }

    /// How many tokens each row has.
    pub fn len(&self) -> Result<usize> {
        Ok(self.tokens.dim(1)? as usize)
    }

    /// The position behind the last token, in the row that goes furthest.
    pub fn end(&self) -> Result<usize> {
        Ok(self.offsets.iter().copied().max().unwrap_or(0) + self.len()?)
    }

    /// Where each token stands, int32 `[B, L]`.
    pub fn positions(&self) -> Result<Array> {
        let steps = Array::arange(0, self.len()? as i32, Dtype::Int32)?;
        self.starts()?.expand_dims(-1)?.add(&steps)
    }

    /// Of `l` tokens those up to each token, ones and zeros in float32 `[l, l]`: 1 at `[i, j]` where j does
    /// not come after i. Layers of this pass share them.
    pub fn triangle(&self, l: i32) -> Result<Array> {
        let mut known = self.triangles.borrow_mut();
        if let Some((_, triangle)) = known.iter().find(|(of, _)| *of == l) {
            return Ok(triangle.clone());
        }
        let triangle = Array::full(&[l, l], 1.0, Dtype::Float32)?.tril(0)?;
        known.push((l, triangle.clone()));
        Ok(triangle)
    }

    /// For each of several numbers of tokens, of `l`: which token is the last of so many, int32 `[K]`, and
    /// the triangle's row for it, `[K, l, 1, 1, 1]`. Layers of this pass share them.
    pub fn ends(&self, ends: &[i32], l: i32) -> Result<[Array; 2]> {
        let mut known = self.ends.borrow_mut();
        let same = |(of, n): &Ends| of == ends && *n == l;
        if let Some((_, arrays)) = known.iter().find(|(of, _)| same(of)) {
            return Ok(arrays.clone());
        }
        let last: Vec<i32> = ends.iter().map(|end| end - 1).collect();
        let last = on_device(Array::from_slice(&last, &[ends.len() as i32])?)?;
        let rows = self.triangle(l)?.take(&last, 0)?;
        let arrays = [last, rows.reshape(&[-1, l, 1, 1, 1])?];
        known.push(((ends.to_vec(), l), arrays.clone()));
        Ok(arrays)
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.size() == 0
    }

    /// First places and lengths on the device, int32 `[B, 2]`.
    fn spans(&self, stretches: &[(usize, usize)]) -> Result<Array> {
        let mut known = self.spans.borrow_mut();
        if let Some((_, spans)) = known.iter().find(|(of, _)| of == stretches) {
            return Ok(spans.clone());
        }
        let numbers = stretches
            .iter()
            .flat_map(|&(first, n)| [first as i32, n as i32]);
        let numbers: Vec<i32> = numbers.collect();
        let spans = on_device(Array::from_slice(&numbers, &[stretches.len() as i32, 2])?)?;
        known.push((stretches.to_vec(), spans.clone()));
        Ok(spans)
    }

    fn memo(&self, key: MaskKey, make: impl FnOnce() -> Result<Array>) -> Result<Array> {
        let known = self.masks.borrow().iter().find(|(k, _)| *k == key).cloned();
        if let Some((_, mask)) = known {
            return Ok(mask);
        }
        let mask = make()?;
        self.masks.borrow_mut().push((key, mask.clone()));
        Ok(mask)
    }
}

/// A copy in the device's memory where that is not the host's: each layer reads it.
fn on_device(array: Array) -> Result<Array> {
    match on_cuda() {
        true => array.copied(),
        false => Ok(array),
    }
}

/// What one layer remembers of a sequence, or of several that take their steps together.
#[derive(Debug)]
pub enum LayerCache {
    /// Every key and value.
    Full(FullCache),
    /// Every latent.
    Latent(LatentCache),
    /// The keys and values within reach.
    Window(WindowCache),
    /// A state of fixed size.
    Recurrent(RecurrentCache),
    /// A cache for each row of a batch.
    Rows(Vec<LayerCache>),
    /// A stretch of a common store for each row of a batch.
    Arena(ArenaCache),
}

impl LayerCache {
    /// Empty, for full attention.
    pub fn full() -> Self {
        LayerCache::Full(FullCache::default())
    }

    /// Empty, for latent attention.
    pub fn latent() -> Self {
        LayerCache::Latent(LatentCache::default())
    }

    /// Empty, for attention to the last `window` positions.
    pub fn sliding(window: usize) -> Self {
        LayerCache::Window(WindowCache::new(Reach::Sliding(window)))
    }

    /// Empty, for attention within chunks of `size` positions.
    pub fn chunked(size: usize) -> Self {
        LayerCache::Window(WindowCache::new(Reach::Chunked(size)))
    }

    /// Empty, for a recurrent layer.
    pub fn recurrent() -> Self {
        LayerCache::Recurrent(RecurrentCache::default())
    }

    /// The caches of several sequences as one, for steps that they take together: a row each.
    ///
    /// # Errors
    /// If they are not of one kind, or an array cannot be joined.
    pub fn join(mut caches: Vec<LayerCache>) -> Result<Self> {
        let recurrent = caches.iter().map(|cache| match cache {
            LayerCache::Recurrent(cache) => Some(cache),
            _ => None,
        });
        if let Some(rows) = recurrent.collect::<Option<Vec<_>>>() {
            return Ok(LayerCache::Recurrent(RecurrentCache::join(&rows)?));
        }
        if on_cuda()
            && let Some(arena) = ArenaCache::of(&caches)?
        {
            return Ok(LayerCache::Arena(arena));
        }
        Ok(match caches.len() {
            1 => caches.remove(0),
            _ => LayerCache::Rows(caches),
        })
    }

    /// Adds a sequence as the last row.
    ///
    /// # Errors
    /// If it is of another kind. The cache may then have lost rows.
    pub fn push(&mut self, cache: LayerCache) -> Result<()> {
        match self {
            LayerCache::Rows(rows) => rows.push(cache),
            LayerCache::Arena(arena) => arena.push(&cache)?,
            one => {
                // An empty one stands in until both are joined.
                let before = std::mem::replace(one, LayerCache::full());
                *one = Self::join(vec![before, cache])?;
            }
        }
        Ok(())
    }

    /// Keeps these rows, at least one, in this order.
    ///
    /// # Errors
    /// If there are no such rows.
    pub fn keep(&mut self, rows: &[usize]) -> Result<()> {
        if rows.is_empty() || rows.iter().any(|&row| row >= self.n_rows()) {
            let message = format!("cannot keep rows {rows:?} of {}", self.n_rows());
            return Err(Error::new("cache keep", &[], message));
        }
        match self {
            LayerCache::Rows(all) => {
                let mut old: Vec<Option<LayerCache>> = all.drain(..).map(Some).collect();
                let mut kept: Vec<_> = rows.iter().filter_map(|&row| old[row].take()).collect();
                *self = match kept.len() {
                    1 => kept.remove(0),
                    _ => LayerCache::Rows(kept),
                };
                Ok(())
            }
            LayerCache::Arena(arena) => arena.keep(rows),
            LayerCache::Recurrent(cache) => cache.keep(rows),
            _ => Ok(()),
        }
    }

    /// A row as a cache of its own, which later steps do not change.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn row(&self, row: usize) -> Result<Self> {
        match self {
            LayerCache::Arena(arena) => arena.row(row),
            LayerCache::Recurrent(cache) => Ok(LayerCache::Recurrent(cache.row(row)?)),
            LayerCache::Rows(rows) if row < rows.len() => rows[row].fork(),
            one if row == 0 => one.fork(),
            _ => Err(Error::new(
                "cache row",
                &[],
                format!("there is no row {row}"),
            )),
        }
    }

    /// Rows: sequences that it remembers.
    pub fn n_rows(&self) -> usize {
        match self {
            LayerCache::Rows(rows) => rows.len(),
            LayerCache::Arena(arena) => arena.n_rows(),
            LayerCache::Recurrent(cache) => cache.n_rows(),
            _ => 1,
        }
    }

    /// A cache of its own with the same content. It shares the arrays, and copies one when either
    /// changes it.
    pub fn fork(&self) -> Result<Self> {
        Ok(match self {
            LayerCache::Full(cache) => LayerCache::Full(cache.clone()),
            LayerCache::Latent(cache) => LayerCache::Latent(cache.clone()),
            LayerCache::Window(cache) => LayerCache::Window(cache.clone()),
            LayerCache::Recurrent(cache) => LayerCache::Recurrent(cache.clone()),
            LayerCache::Rows(_) | LayerCache::Arena(_) => {
                let rows = (0..self.n_rows()).map(|row| self.row(row));
                LayerCache::Rows(rows.collect::<Result<_>>()?)
            }
        })
    }

    /// Adds keys and values (`[B, K, L, D]`) at the batch's positions and shows all that queries may
    /// see.
    ///
    /// # Errors
    /// If the cache does not end there, or is of a kind without keys and values.
    pub fn update(&mut self, k: &Array, v: &Array, batch: &Batch) -> Result<KvView> {
        if let LayerCache::Rows(rows) = self {
            return each_row(rows, batch, |row, i, offset| {
                row.update_row(&row_of(k, i)?, &row_of(v, i)?, offset, batch)
            });
        }
        if let LayerCache::Arena(arena) = self {
            return arena.update(k, v, batch);
        }
        let offset = only_offset(batch)?;
        Ok(KvView::from(self.update_row(k, v, offset, batch)?))
    }

    fn update_row(
        &mut self,
        k: &Array,
        v: &Array,
        offset: usize,
        batch: &Batch,
    ) -> Result<RowView> {
        match self {
            LayerCache::Full(cache) => cache.update(k, v, offset),
            LayerCache::Window(cache) => cache.update(k, v, offset, batch),
            _ => Err(Error::new("cache update", &[k, v], "it holds no keys")),
        }
    }

    /// Has `write` put `entries` of float32 (`[1, K, L, D]`, keys and values alike) at the batch's position
    /// into the buffers that it gets, `[1, K, room, D]`, with the place of the first one; it returns them
    /// beside its result. Nothing, and nothing done, if this is not a cache of all keys of one sequence.
    pub fn write_with<T>(
        &mut self,
        entries: [i32; 4],
        batch: &Batch,
        write: impl FnOnce(Array, Array, usize) -> Result<(T, [Array; 2])>,
    ) -> Option<Result<T>> {
        match self {
            LayerCache::Full(cache) if batch.offsets() == [cache.len()] => {
                Some(cache.write_with(entries, write))
            }
            _ => None,
        }
    }

    /// Adds latents (`[B, 1, L, R + P]`) at the batch's positions; the view's keys are the whole of
    /// them, its values their first `rank` features.
    ///
    /// # Errors
    /// If the cache does not end there, or is of another kind.
    pub fn update_latent(&mut self, latents: &Array, rank: i32, batch: &Batch) -> Result<KvView> {
        if let LayerCache::Rows(rows) = self {
            return each_row(rows, batch, |row, i, offset| {
                row.update_latent_row(&row_of(latents, i)?, rank, offset)
            });
        }
        if let LayerCache::Arena(arena) = self {
            let v = latents.slice_axis(-1, 0, rank)?;
            return arena.update(latents, &v, batch);
        }
        let offset = only_offset(batch)?;
        Ok(KvView::from(self.update_latent_row(latents, rank, offset)?))
    }

    fn update_latent_row(&mut self, latents: &Array, rank: i32, offset: usize) -> Result<RowView> {
        match self {
            LayerCache::Latent(cache) => cache.update(latents, rank, offset),
            _ => Err(Error::new(
                "cache update",
                &[latents],
                "it holds no latents",
            )),
        }
    }

    /// The cache of a recurrent layer.
    ///
    /// # Errors
    /// If it is of another kind.
    pub fn as_recurrent(&mut self) -> Result<&mut RecurrentCache> {
        match self {
            LayerCache::Recurrent(cache) => Ok(cache),
            _ => Err(Error::new("cache update", &[], "it holds no state")),
        }
    }

    /// Says at which positions within the next pass a recurrent layer's state is to be kept too, in
    /// ascending order, and forgets what was kept of the last pass. For other layers it means nothing.
    pub fn mark(&mut self, positions: &[usize]) {
        if let LayerCache::Recurrent(cache) = self {
            cache.mark(positions);
        }
    }

    /// Forgets all from position `len` on; what is before stays.
    ///
    /// # Errors
    /// If the cache is shorter than that, or what the next position needs is gone: a window has
    /// moved on, a state has been overwritten. The cache is then as it was.
    pub fn rewind(&mut self, len: usize) -> Result<()> {
        match self {
            LayerCache::Full(cache) => cache.rewind(len),
            LayerCache::Latent(cache) => cache.rewind(len),
            LayerCache::Window(cache) => cache.rewind(len),
            LayerCache::Recurrent(cache) => cache.rewind(len),
            LayerCache::Rows(rows) => rows.iter_mut().try_for_each(|row| row.rewind(len)),
            LayerCache::Arena(_) => {
                let message = "rows of a common store go back one by one: take a row first";
                Err(Error::new("cache rewind", &[], message))
            }
        }
    }

    /// A copy that takes no more bytes than it needs and that later steps do not change. To go back
    /// to it, fork it.
    pub fn snapshot(&self) -> Result<Self> {
        Ok(match self {
            LayerCache::Full(cache) => LayerCache::Full(cache.snapshot()?),
            LayerCache::Latent(cache) => LayerCache::Latent(cache.snapshot()?),
            LayerCache::Window(cache) => LayerCache::Window(cache.snapshot()?),
            LayerCache::Recurrent(cache) => LayerCache::Recurrent(cache.clone()),
            LayerCache::Rows(rows) => {
                let rows = rows.iter().map(LayerCache::snapshot);
                LayerCache::Rows(rows.collect::<Result<_>>()?)
            }
            LayerCache::Arena(_) => self.fork()?,
        })
    }

    /// The position behind its last entry; of several rows the furthest.
    pub fn len(&self) -> usize {
        match self {
            LayerCache::Full(cache) => cache.len(),
            LayerCache::Latent(cache) => cache.len(),
            LayerCache::Window(cache) => cache.len(),
            LayerCache::Recurrent(cache) => cache.len(),
            LayerCache::Rows(rows) => rows.iter().map(LayerCache::len).max().unwrap_or(0),
            LayerCache::Arena(arena) => arena.len(),
        }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes it takes, unused room included.
    pub fn nbytes(&self) -> usize {
        match self {
            LayerCache::Full(cache) => cache.nbytes(),
            LayerCache::Latent(cache) => cache.nbytes(),
            LayerCache::Window(cache) => cache.nbytes(),
            LayerCache::Recurrent(cache) => cache.nbytes(),
            LayerCache::Rows(rows) => rows.iter().map(LayerCache::nbytes).sum(),
            LayerCache::Arena(arena) => arena.nbytes(),
        }
    }

    /// The arrays it holds, to be evaluated after a step that nothing else evaluates.
    pub fn arrays(&self) -> Vec<&Array> {
        match self {
            LayerCache::Full(cache) => cache.arrays(),
            LayerCache::Latent(cache) => cache.arrays(),
            LayerCache::Window(cache) => cache.arrays(),
            LayerCache::Recurrent(cache) => cache.arrays(),
            LayerCache::Rows(rows) => rows.iter().flat_map(LayerCache::arrays).collect(),
            // Its writes are started where they are made.
            LayerCache::Arena(_) => Vec::new(),
        }
    }
}

/// Calls `update` for each row with its number and position.
fn each_row(
    rows: &mut [LayerCache],
    batch: &Batch,
    update: impl Fn(&mut LayerCache, usize, usize) -> Result<RowView>,
) -> Result<KvView> {
    if rows.len() != batch.offsets().len() {
        let message = format!("it has {} rows", rows.len());
        return Err(Error::new("cache update", &[&batch.tokens], message));
    }
    let rows = rows.iter_mut().zip(batch.offsets()).enumerate();
    let views = rows.map(|(i, (row, &offset))| update(row, i, offset));
    Ok(KvView::rows(views.collect::<Result<_>>()?))
}

fn row_of(array: &Array, i: usize) -> Result<Array> {
    array.slice_axis(0, i as i32, i as i32 + 1)
}

/// The position of a batch whose rows share one cache.
fn only_offset(batch: &Batch) -> Result<usize> {
    batch.offset().ok_or_else(|| {
        let message = "sequences at different positions need a cache each, joined";
        Error::new("cache update", &[&batch.tokens], message)
    })
}

/// Checks that new entries start where a cache of length `len` ends.
fn continues(len: usize, offset: usize, entries: &Array) -> Result<()> {
    if offset == len {
        return Ok(());
    }
    let message = format!("the cache ends at {len}, the batch starts at {offset}");
    Err(Error::new("cache update", &[entries], message))
}

/// Checks that a cache of length `len` has a position `to`.
fn rewinds(len: usize, to: usize) -> Result<()> {
    if to <= len {
        return Ok(());
    }
    let message = format!("cannot rewind to {to}: the cache ends at {len}");
    Err(Error::new("cache rewind", &[], message))
}
