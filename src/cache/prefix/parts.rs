//! A layer's cache as the arrays that are stored of it, and back.

use super::{Kind, LayerCache, Reach};
use crate::cache::buffer::Buffer;
use crate::cache::{FullCache, LatentCache, RecurrentCache, WindowCache};
use crate::mlx::{Array, Error, Result};

impl LayerCache {
    pub(super) fn kind(&self) -> Kind {
        match self {
            LayerCache::Window(_) => Kind::Window,
            LayerCache::Recurrent(_) => Kind::State,
            LayerCache::Full(_)
            | LayerCache::Latent(_)
            | LayerCache::Rows(_)
            | LayerCache::Arena(_) => Kind::Entries,
        }
    }

    /// How far back it reaches, if there is a limit.
    pub(super) fn reach(&self) -> Option<Reach> {
        match self {
            LayerCache::Window(cache) => Some(cache.reach()),
            _ => None,
        }
    }

    /// The position of the first entry that it still has.
    pub(super) fn first(&self) -> usize {
        match self {
            LayerCache::Window(cache) => cache.start(),
            _ => 0,
        }
    }

    /// How many arrays [`LayerCache::parts`] gives.
    pub(super) fn part_count(&self) -> usize {
        match self {
            LayerCache::Latent(_) => 1,
            _ => 2,
        }
    }

    /// Whether it can tell what it was when it held `len` tokens.
    pub(super) fn reaches(&self, len: usize) -> bool {
        match self {
            LayerCache::Recurrent(cache) => cache.reaches(len),
            cache => cache.len() >= len,
        }
    }

    /// Its arrays: the entries at positions `from..to`, views, or the state at `to`.
    pub(super) fn parts(&self, from: usize, to: usize) -> Result<Vec<Option<Array>>> {
        match self {
            LayerCache::Full(cache) => Ok(cache.entries(from, to)?.into()),
            LayerCache::Latent(cache) => Ok(vec![cache.entries(from, to)?]),
            LayerCache::Window(cache) => Ok(cache.entries(from, to)?.into()),
            LayerCache::Recurrent(cache) => Ok(cache.parts(to).into()),
            LayerCache::Rows(_) | LayerCache::Arena(_) => {
                let message = "sequences in a batch are stored one by one; split them first";
                Err(Error::new("prefix", &[], message))
            }
        }
    }

    /// A cache of the same kind that holds `len` tokens. `parts` are its arrays in the order of
    /// [`LayerCache::parts`], with room behind their entries; those of a window begin at `first`.
    pub(super) fn restored(
        &self,
        parts: Vec<Option<Array>>,
        first: usize,
        len: usize,
    ) -> Result<LayerCache> {
        let mut parts = parts.into_iter();
        let mut part = || parts.next().flatten();
        let mut buffer = || part().map_or_else(Buffer::default, Buffer::of);
        Ok(match self {
            LayerCache::Full(_) => LayerCache::Full(FullCache::of(buffer(), buffer(), len)),
            // The next update tells the rank.
            LayerCache::Latent(_) => LayerCache::Latent(LatentCache::of(buffer(), 0, len)),
            LayerCache::Window(cache) => {
                let reach = cache.reach();
                let cache = WindowCache::of(reach, buffer(), buffer(), first, len);
                LayerCache::Window(cache)
            }
            LayerCache::Recurrent(_) => {
                LayerCache::Recurrent(RecurrentCache::restored(part(), part(), len))
            }
            LayerCache::Rows(_) | LayerCache::Arena(_) => {
                let message = "a batch is not restored; its sequences are, one by one";
                return Err(Error::new("prefix", &[], message));
            }
        })
    }
}
