//! What a sequence remembers, layer by layer.
//!
//! Attention calls [`LayerCache::update`] and attends to the [`KvView`] that it gets; it never asks
//! which kind of cache it has. Every kind counts positions, so all caches of a sequence have the
//! same length between steps.

mod buffer;
mod full;
mod recurrent;
mod view;
mod window;

#[cfg(test)]
mod tests;

pub use full::{FullCache, LatentCache};
pub use recurrent::RecurrentCache;
pub use view::{Attend, KvMask, KvView};
pub use window::{Reach, WindowCache};

use std::cell::RefCell;

use crate::mlx::{Array, Dtype, Error, Result};

/// A window's reach, the first key and the position behind the last: what a mask depends on.
type MaskKey = (Reach, usize, usize);

/// One forward pass's input beside the caches.
#[derive(Debug)]
pub struct Batch {
    /// Token ids, uint32 `[B, L]`.
    pub tokens: Array,
    /// The position of the first of them: what the caches hold already.
    pub offset: usize,
    /// Masks that layers of this pass share.
    masks: RefCell<Vec<(MaskKey, Array)>>,
}

impl Batch {
    /// One sequence's tokens from position `offset` on.
    pub fn single(tokens: &[u32], offset: usize) -> Result<Self> {
        Array::from_slice(tokens, &[1, tokens.len() as i32]).map(|t| Self::new(t, offset))
    }

    /// Tokens, uint32 `[B, L]`, from position `offset` on.
    pub fn new(tokens: Array, offset: usize) -> Self {
        Self {
            tokens,
            offset,
            masks: RefCell::default(),
        }
    }

    /// How many tokens each row has.
    pub fn len(&self) -> Result<usize> {
        Ok(self.tokens.dim(1)? as usize)
    }

    /// The position behind the last token.
    pub fn end(&self) -> Result<usize> {
        Ok(self.offset + self.len()?)
    }

    /// Where each token stands, int32, to be broadcast to `[B, L]`.
    pub fn positions(&self) -> Result<Array> {
        Array::arange(self.offset as i32, self.end()? as i32, Dtype::Int32)?.expand_dims(0)
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.size() == 0
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

/// What one layer remembers of a sequence. A clone shares the arrays and is a cache of its own.
#[derive(Clone, Debug)]
pub enum LayerCache {
    /// Every key and value.
    Full(FullCache),
    /// Every latent.
    Latent(LatentCache),
    /// The keys and values within reach.
    Window(WindowCache),
    /// A state of fixed size.
    Recurrent(RecurrentCache),
}

/// Calls the same method of whichever cache it is.
macro_rules! each {
    ($self:expr, $cache:ident => $call:expr) => {
        match $self {
            LayerCache::Full($cache) => $call,
            LayerCache::Latent($cache) => $call,
            LayerCache::Window($cache) => $call,
            LayerCache::Recurrent($cache) => $call,
        }
    };
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

    /// Adds keys and values (`[B, K, L, D]`) at `batch.offset` and shows all that queries may see.
    ///
    /// # Errors
    /// If the cache does not end at `batch.offset`, or is of a kind without keys and values.
    pub fn update(&mut self, k: &Array, v: &Array, batch: &Batch) -> Result<KvView> {
        match self {
            LayerCache::Full(cache) => cache.update(k, v, batch.offset),
            LayerCache::Window(cache) => cache.update(k, v, batch),
            LayerCache::Latent(_) | LayerCache::Recurrent(_) => {
                Err(Error::new("cache update", &[k, v], "it holds no keys"))
            }
        }
    }

    /// Adds latents (`[B, 1, L, R + P]`) at `batch.offset`; the view's keys are the whole of them,
    /// its values their first `rank` features.
    ///
    /// # Errors
    /// If the cache does not end at `batch.offset`, or is of another kind.
    pub fn update_latent(&mut self, latents: &Array, rank: i32, batch: &Batch) -> Result<KvView> {
        match self {
            LayerCache::Latent(cache) => cache.update(latents, rank, batch.offset),
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

    /// Forgets all from position `len` on; what is before stays.
    ///
    /// # Errors
    /// If the cache is shorter than that, or what the next position needs is gone: a window has
    /// moved on, a state has been overwritten. The cache is then as it was.
    pub fn rewind(&mut self, len: usize) -> Result<()> {
        each!(self, cache => cache.rewind(len))
    }

    /// A copy that takes no more bytes than it needs and that later steps do not change. To go back
    /// to it, clone it.
    pub fn snapshot(&self) -> Result<Self> {
        Ok(match self {
            LayerCache::Full(cache) => LayerCache::Full(cache.snapshot()?),
            LayerCache::Latent(cache) => LayerCache::Latent(cache.snapshot()?),
            LayerCache::Window(cache) => LayerCache::Window(cache.snapshot()?),
            LayerCache::Recurrent(cache) => LayerCache::Recurrent(cache.clone()),
        })
    }

    /// The position behind its last entry.
    pub fn len(&self) -> usize {
        each!(self, cache => cache.len())
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes it takes, unused room included.
    pub fn nbytes(&self) -> usize {
        each!(self, cache => cache.nbytes())
    }

    /// The arrays it holds, to be evaluated after a step that nothing else evaluates.
    pub fn arrays(&self) -> Vec<&Array> {
        each!(self, cache => cache.arrays())
    }
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
