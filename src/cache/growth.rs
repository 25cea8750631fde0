//! How many bytes a layer's cache takes at a length, known before it has that length.

use super::LayerCache;
use super::buffer::STEP;
use super::window::Reach;

/// How a cache grows with the positions it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// By so many bytes a position.
    Positions(usize),
    /// The same, but for the positions within reach only.
    Window {
        /// Bytes a position.
        bytes: usize,
        /// How far back a query sees.
        reach: Reach,
    },
    /// Not at all: so many bytes from the first token on.
    Fixed(usize),
}

impl Growth {
    /// Bytes that a cache takes at most while it holds up to `len` positions, which came up to
    /// `chunk` at a time. Exact for all but windows, whose room depends on how the chunks fell: they
    /// may take two steps and a chunk less.
    pub fn bytes_at(self, len: usize, chunk: usize) -> usize {
        // Lengths come from requests, so nothing here may overflow.
        let room = |positions: usize| positions.div_ceil(STEP).saturating_mul(STEP);
        match self {
            _ if len == 0 => 0,
            Growth::Fixed(bytes) => bytes,
            Growth::Positions(bytes) => bytes.saturating_mul(room(len)),
            Growth::Window { bytes, reach } => {
                let (Reach::Sliding(reach) | Reach::Chunked(reach)) = reach;
                // What a chunk's queries see together, and the step that a moved window adds.
                let seen = reach.saturating_add(chunk).min(len);
                bytes.saturating_mul(room(seen.saturating_add(STEP)))
            }
        }
    }
}

impl LayerCache {
    /// How it grows, as what it holds shows: it must hold something. Nothing is evaluated.
    pub fn growth(&self) -> Growth {
        let each = |capacity: usize| self.nbytes() / capacity.max(1);
        match self {
            LayerCache::Full(cache) => Growth::Positions(each(cache.capacity())),
            LayerCache::Latent(cache) => Growth::Positions(each(cache.capacity())),
            LayerCache::Window(cache) => Growth::Window {
                bytes: each(cache.capacity()),
                reach: cache.reach(),
            },
            LayerCache::Recurrent(_) | LayerCache::Rows(_) | LayerCache::Arena(_) => {
                Growth::Fixed(self.nbytes())
            }
        }
    }
}
