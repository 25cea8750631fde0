//! What sequences of tokens left in their caches, kept for those that begin with the same tokens.
//!
//! Entries of full and latent layers are held for every position, once however many sequences share
//! them. Window layers' are held likewise, but those that no sequence is likely to go on from are given
//! up first. Recurrent layers' states are held where they were stored.
//!
//! Invariants: everything held is computed and has buffers of its own, so giving it up frees its
//! bytes at once; the bytes never exceed the budget.

mod layers;
mod parts;
mod tree;
#[cfg(test)]
mod tree_tests;

pub use tree::{Needs, Part, Pin, Tree, Walk};

use super::buffer::Buffer;
use super::{LayerCache, Reach};
use crate::mlx::{Error, Result, async_eval};
use layers::{Layers, Places};

/// Tokens of a node at most: what is given up at a time.
const NODE: usize = 512;

/// How far a sequence of tokens is known, and where it can go on.
pub struct Lookup {
    /// Tokens that an earlier sequence began with too.
    pub known: usize,
    /// What can be used of them, if it is anything.
    pub found: Option<Found>,
}

/// Where a sequence can go on.
pub struct Found {
    /// Tokens that need not be computed.
    pub len: usize,
    /// A cache for each layer that holds them.
    pub caches: Vec<LayerCache>,
    /// Keeps what was found while it lives.
    pub pin: Pin,
}

/// Caches of sequences that have been, of one model.
pub struct PrefixCache {
    tree: Tree<Layers>,
    /// The model's caches, empty.
    empty: Vec<LayerCache>,
    budget: usize,
    changes: u64,
    /// For each [`Kind`] where the layers' arrays stand in what was stored last.
    places: [Places; 3],
}

/// How what a layer remembers is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Entries,
    Window,
    State,
}

impl PrefixCache {
    /// An empty one, of at most `budget` bytes, for a model whose caches are `empty`.
    pub fn new(empty: Vec<LayerCache>, budget: usize) -> Self {
        let mut reaches: Vec<Reach> = Vec::new();
        for reach in empty.iter().filter_map(LayerCache::reach) {
            if !reaches.contains(&reach) {
                reaches.push(reach);
            }
        }
        let state = empty.iter().any(|cache| cache.kind() == Kind::State);
        Self {
            tree: Tree::new(Needs { reaches, state }),
            empty,
            budget,
            changes: 0,
            places: Default::default(),
        }
    }

    /// Whether a sequence can only go on where one was stored, as one with recurrent layers.
    pub fn goes_on_where_stored(&self) -> bool {
        self.tree.needs().state
    }

    /// Changes how many bytes it may hold; what is over goes when something is stored.
    pub fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
    }

    /// Bytes of all arrays held.
    pub fn nbytes(&self) -> usize {
        self.tree.nbytes()
    }

    /// A number that is another one after anything was stored.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Gives up what is needed least until at most `bytes` are held. Whether that could be reached:
    /// what is pinned stays.
    pub fn shrink(&mut self, bytes: usize) -> bool {
        self.tree.shrink(bytes)
    }

    /// Looks up where a sequence with these tokens can go on, behind position `beyond` and before the
    /// last token. The caches get room for all of the tokens, and their copying is started.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn find(&mut self, tokens: &[u32], beyond: usize) -> Result<Lookup> {
        let walk = self.tree.walk(tokens);
        let known = walk.len;
        let len = self.tree.resume(&walk, tokens.len().saturating_sub(1));
        let pin = self.tree.pin(&walk).filter(|_| len > beyond);
        let Some(pin) = pin else {
            return Ok(Lookup { known, found: None });
        };
        let caches = self.restore(&walk, len, tokens.len())?;
        self.tree.touch(&walk, len, true);
        let found = Found { len, caches, pin };
        Ok(Lookup {
            known,
            found: Some(found),
        })
    }

    /// Caches that hold the first `len` tokens of `walk`, with room for `room`.
    fn restore(&self, walk: &Walk, len: usize, room: usize) -> Result<Vec<LayerCache>> {
        let state = self.tree.state(walk, len);
        if self.tree.needs().state && state.is_none() {
            let message = format!("no state is kept for position {len}");
            return Err(Error::new("prefix", &[], message));
        }
        let first = self.tree.needs().first(len);
        let entries = self.tree.entries(walk, len);
        let entries = Layers::join(&entries, 0, len, Buffer::room(len, room))?;
        let windows = self.tree.windows(walk, first, len);
        let windows = Layers::join(&windows, first, len, Buffer::room(len - first, 0))?;
        let (mut entries, mut windows) = (entries.into_iter(), windows.into_iter());
        let mut states = 0..;
        let restored = self.empty.iter().map(|cache| {
            let mut part = || match cache.kind() {
                Kind::Entries => Ok(entries.next().flatten()),
                Kind::Window => Ok(windows.next().flatten()),
                Kind::State => match (state, states.next()) {
                    (Some(state), Some(i)) => state.get(i),
                    _ => Ok(None),
                },
            };
            let parts = (0..cache.part_count()).map(|_| part());
            cache.restored(parts.collect::<Result<Vec<_>>>()?, first, len)
        });
        let restored = restored.collect::<Result<Vec<_>>>()?;
        let arrays = restored.iter().flat_map(LayerCache::arrays);
        // Once under way they hold nothing that is stored.
        async_eval(&arrays.collect::<Vec<_>>())?;
        Ok(restored)
    }

    /// Keeps what `caches` hold of these tokens, and perhaps of more, as far as the budget allows. With `keep` a sequence is
    /// likely to go on from here; otherwise what only helps to go on from here is the first to be given
    /// up. Waits for the caches to be computed.
    ///
    /// # Errors
    /// If the caches hold fewer tokens, recurrent ones are not [marked](LayerCache::mark) there, or MLX
    /// fails; nothing of them is then kept.
    pub fn store(&mut self, tokens: &[u32], caches: &[LayerCache], keep: bool) -> Result<()> {
        let end = tokens.len();
        if let Some(cache) = caches.iter().find(|cache| !cache.reaches(end)) {
            let message = format!("{end} tokens to store, but a cache holds {}", cache.len());
            return Err(Error::new("prefix", &[], message));
        }
        if end == 0 || self.budget == 0 {
            return Ok(());
        }
        self.changes += 1;
        let (windows, state) = {
            let needs = self.tree.needs();
            (!needs.reaches.is_empty(), needs.state)
        };
        let mut walk = self.tree.walk(tokens);
        let last = walk.nodes.last().and_then(|&id| self.tree.describe(id));
        let bare = last.is_some_and(|(_, window, _)| windows && !window);
        if walk.len < end || state || bare {
            self.tree.end_at(&mut walk)?;
        }
        // The way there stays while room is made.
        let mut pin = self.tree.pin(&walk);
        // Where the window layers' entries that are still there begin.
        let held = caches.iter().map(LayerCache::first).max().unwrap_or(0);
        if windows {
            self.fill_windows(&walk, caches, held)?;
        }
        while walk.len < end {
            let from = walk.len;
            let to = end.min(from + NODE);
            let to = if from < held { to.min(held) } else { to };
            let entries = self.gather(Kind::Entries, caches, from, to)?;
            let window = match windows && from >= held {
                true => Some(self.gather(Kind::Window, caches, from, to)?),
                false => None,
            };
            let bytes = entries.nbytes() + window.as_ref().map_or(0, Layers::nbytes);
            if !self.make_room(bytes) {
                break;
            }
            entries.eval()?;
            window.iter().try_for_each(Layers::eval)?;
            let own = tokens.get(from..to).unwrap_or_default();
            self.tree.push(&mut walk, own, entries, window);
            pin = self.tree.pin(&walk);
        }
        if state && walk.len == end && self.tree.state(&walk, end).is_none() {
            let part = self.gather(Kind::State, caches, 0, end)?;
            if self.make_room(part.nbytes()) {
                part.eval()?;
                if let Some(&id) = walk.nodes.last() {
                    self.tree.set_state(id, part);
                }
            }
        }
        self.tree.touch(&walk, walk.len, keep);
        drop(pin);
        if let Some(&id) = walk.nodes.last() {
            self.tree.prune(id);
        }
        Ok(())
    }

    /// Gives nodes on the way, whose window entries were given up, those that are there again.
    fn fill_windows(&mut self, walk: &Walk, caches: &[LayerCache], held: usize) -> Result<()> {
        let first = self.tree.needs().first(walk.len);
        for &id in &walk.nodes {
            let Some((positions, false, _)) = self.tree.describe(id) else {
                continue;
            };
            if positions.start < held || positions.end <= first || positions.end > walk.len {
                continue;
            }
            let part = self.gather(Kind::Window, caches, positions.start, positions.end)?;
            if self.make_room(part.nbytes()) {
                part.eval()?;
                self.tree.set_window(id, part);
            }
        }
        Ok(())
    }

    /// Whether `bytes` more fit into the budget, when others have gone.
    fn make_room(&mut self, bytes: usize) -> bool {
        bytes <= self.budget && self.tree.shrink(self.budget - bytes)
    }

    /// Copies of the arrays of all layers of a kind.
    fn gather(
        &mut self,
        kind: Kind,
        caches: &[LayerCache],
        from: usize,
        to: usize,
    ) -> Result<Layers> {
        let mut arrays = Vec::new();
        for cache in caches.iter().filter(|cache| cache.kind() == kind) {
            arrays.extend(cache.parts(from, to)?);
        }
        let [entries, window, state] = &mut self.places;
        let places = match kind {
            Kind::Entries => entries,
            Kind::Window => window,
            Kind::State => state,
        };
        Layers::gather(&arrays, places)
    }
}
