//! How many bytes the caches of one sequence take, for any architecture.

use crate::cache::{Batch, Growth};
use crate::mlx::{Result, on_cuda};
use crate::models::Model;

/// What the caches of a sequence take, by the positions they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Kinds of layers, and how many there are of each.
    layers: Vec<(Growth, usize)>,
    /// Positions that are added at a time, at most.
    chunk: usize,
    /// Whether sequences share a store, which has up to a quarter more room than it needs.
    shared: bool,
}

impl Footprint {
    /// Of caches that grow like this; prompts are computed up to `chunk` tokens at a time.
    pub fn new(layers: impl IntoIterator<Item = Growth>, chunk: usize) -> Self {
        let mut kinds: Vec<(Growth, usize)> = Vec::new();
        for layer in layers {
            match kinds.iter_mut().find(|(growth, _)| *growth == layer) {
                Some((_, count)) => *count += 1,
                None => kinds.push((layer, 1)),
            }
        }
        Self {
            layers: kinds,
            chunk,
            shared: false,
        }
    }

    /// Of a model's own caches: what they weigh behind one token shows how they grow. Builds the
    /// graph of that token and computes nothing.
    ///
    /// # Errors
    /// If the graph cannot be built.
    pub fn of(model: &dyn Model, chunk: usize) -> Result<Self> {
        let mut caches = model.caches();
        model.forward(&Batch::single(&[0], 0)?, &mut caches)?;
        let own = Self::new(caches.iter().map(|cache| cache.growth()), chunk);
        Ok(Self {
            shared: on_cuda(),
            ..own
        })
    }

    /// Bytes that a sequence takes at most while it holds up to `positions` positions.
    pub fn bytes(&self, positions: usize) -> usize {
        let layers = self.layers.iter();
        let bytes = layers.map(|(growth, count)| {
            let each = growth.bytes_at(positions, self.chunk);
            each.saturating_mul(*count)
        });
        let bytes = bytes.fold(0, usize::saturating_add);
        match self.shared {
            true => bytes.saturating_add(bytes / 4),
            false => bytes,
        }
    }

    /// The most positions that fit in so many bytes; at most `limit`.
    pub fn positions(&self, bytes: usize, limit: usize) -> usize {
        // Bytes never shrink with positions.
        let (mut fits, mut too_many) = (0, limit.saturating_add(1));
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            match self.bytes(middle) <= bytes {
                true => fits = middle,
                false => too_many = middle,
            }
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Reach;
    use proptest::prelude::*;

    #[test]
    fn layers_add_up() {
        let window = Growth::Window {
            bytes: 10,
            reach: Reach::Sliding(300),
        };
        let layers = [Growth::Positions(100), window, Growth::Fixed(7), window];
        let footprint = Footprint::new(layers, 512);
        assert_eq!(footprint.bytes(0), 0);
        // One step of room; windows have one more.
        assert_eq!(footprint.bytes(1), 256 * 100 + 2 * 512 * 10 + 7);
        assert_eq!(footprint.bytes(257), 512 * 100 + 2 * 768 * 10 + 7);
        // Windows have stopped: 300 + 512 + 256 positions, rounded up.
        let windows = 2 * 1280 * 10;
        assert_eq!(footprint.bytes(100_000), 100_096 * 100 + windows + 7);
        assert_eq!(footprint.bytes(usize::MAX), usize::MAX);
    }

    proptest! {
        #[test]
        fn positions_is_the_most_that_fits(
            each in 0usize..5000, window in 0usize..5000, reach in 1usize..3000,
            fixed in 0usize..100_000, bytes in 0usize..50_000_000, limit in 0usize..100_000,
        ) {
            let window = Growth::Window { bytes: window, reach: Reach::Sliding(reach) };
            let layers = [Growth::Positions(each), window, Growth::Fixed(fixed)];
            let footprint = Footprint::new(layers, 512);
            let most = footprint.positions(bytes, limit);
            prop_assert!(most <= limit);
            prop_assert!(footprint.bytes(most) <= bytes);
            prop_assert!(most == limit || footprint.bytes(most + 1) > bytes);
        }
    }
}
