//! What a sequence remembers, layer by layer.
//!
//! Attention calls [`LayerCache::update`] and never asks which kind of cache it has.

mod full;

pub use full::FullCache;

use crate::mlx::{Array, Mask, Result};

/// One forward pass's input beside the caches.
#[derive(Debug)]
pub struct Batch {
    /// Token ids, uint32 `[B, L]`.
    pub tokens: Array,
    /// The position of the first of them: what the caches hold already.
    pub offset: usize,
}

impl Batch {
    /// One sequence's tokens from position `offset` on.
    pub fn single(tokens: &[u32], offset: usize) -> Result<Self> {
        let tokens = Array::from_slice(tokens, &[1, tokens.len() as i32])?;
        Ok(Self { tokens, offset })
    }

    /// How many tokens each row has.
    pub fn len(&self) -> Result<usize> {
        Ok(self.tokens.dim(1)? as usize)
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.size() == 0
    }
}

/// The keys and values that queries attend to.
#[derive(Debug)]
pub struct KvView {
    /// `[B, K, S, D]`.
    pub k: Array,
    /// `[B, K, S, D]`.
    pub v: Array,
    /// Which of them a query sees.
    pub mask: Mask<'static>,
}

/// What one layer remembers of a sequence.
#[derive(Debug)]
pub enum LayerCache {
    /// Every key and value.
    Full(FullCache),
}

impl LayerCache {
    /// Adds keys and values (`[B, K, L, D]`) at `batch.offset` and shows all that queries may see.
    ///
    /// # Errors
    /// If the cache does not end at `batch.offset`.
    pub fn update(&mut self, k: &Array, v: &Array, batch: &Batch) -> Result<KvView> {
        match self {
            LayerCache::Full(cache) => cache.update(k, v, batch.offset),
        }
    }

    /// Forgets all from position `len` on; what is before stays.
    ///
    /// # Errors
    /// If the cache is shorter than that.
    pub fn rewind(&mut self, len: usize) -> Result<()> {
        match self {
            LayerCache::Full(cache) => cache.rewind(len),
        }
    }

    /// Positions that it holds.
    pub fn len(&self) -> usize {
        match self {
            LayerCache::Full(cache) => cache.len(),
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
        }
    }

    /// The arrays it holds, to be evaluated after a step that nothing else evaluates.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        match self {
            LayerCache::Full(cache) => cache.arrays(),
        }
    }
}
