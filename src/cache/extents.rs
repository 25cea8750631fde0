//! Which places of a store are free: plain numbers.
//!
//! Invariant: the free stretches are in order, do not touch, and are not empty.

use std::ops::Range;

/// The free places among `0..total`.
#[derive(Clone, Debug, Default)]
pub(super) struct Extents {
    free: Vec<Range<usize>>,
    total: usize,
}

impl Extents {
    /// `n` places in a row, the first such there are.
    pub fn take(&mut self, n: usize) -> Option<usize> {
        let i = self.free.iter().position(|free| free.len() >= n)?;
        Some(self.cut(i, n))
    }

    /// The `n` places from `at` on, if they are free.
    pub fn take_at(&mut self, at: usize, n: usize) -> bool {
        let found = self.free.iter();
        let found = found.clone().position(|f| f.start == at && f.len() >= n);
        found.map(|i| self.cut(i, n)).is_some()
    }

    fn cut(&mut self, i: usize, n: usize) -> usize {
        let at = self.free[i].start;
        self.free[i].start += n;
        if self.free[i].is_empty() {
            self.free.remove(i);
        }
        at
    }

    /// Gives places back.
    pub fn give(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let i = self.free.partition_point(|free| free.start < range.start);
        self.free.insert(i, range);
        if i + 1 < self.free.len() && self.free[i].end == self.free[i + 1].start {
            self.free[i].end = self.free.remove(i + 1).end;
        }
        if i > 0 && self.free[i - 1].end == self.free[i].start {
            self.free[i - 1].end = self.free.remove(i).end;
        }
    }

    /// Adds places at the end, so that there are `total`.
    pub fn grow(&mut self, total: usize) {
        self.give(self.total..total);
        self.total = self.total.max(total);
    }

    /// All places.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Free places.
    pub fn n_free(&self) -> usize {
        self.free.iter().map(Range::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_have_one_owner_and_come_back(
            steps in prop::collection::vec((0usize..3, 1usize..40, any::<prop::sample::Index>()), 1..80),
        ) {
            let mut extents = Extents::default();
            let mut taken: Vec<Range<usize>> = Vec::new();
            for (kind, n, which) in steps {
                match kind {
                    0 => match extents.take(n) {
                        Some(at) => taken.push(at..at + n),
                        None => extents.grow(extents.total() + n),
                    },
                    1 if !taken.is_empty() => {
                        let i = which.index(taken.len());
                        if extents.take_at(taken[i].end, n) {
                            taken[i].end += n;
                        }
                    }
                    _ if !taken.is_empty() => {
                        let range = taken.swap_remove(which.index(taken.len()));
                        extents.give(range);
                    }
                    _ => {}
                }
                let mut all = extents.free.clone();
                prop_assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start));
                all.extend(taken.iter().cloned());
                all.sort_by_key(|range| range.start);
                prop_assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
                prop_assert_eq!(all.iter().map(Range::len).sum::<usize>(), extents.total());
            }
            for range in taken {
                extents.give(range);
            }
            prop_assert_eq!(extents.n_free(), extents.total());
        }
    }
}
