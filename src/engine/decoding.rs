//! The sequences that take their steps together, and their caches: a row each.

use std::time::{Duration, Instant};

use super::draw::Pending;
use super::sequence::{Progress, Sequence};
use super::step;
use crate::cache::LayerCache;
use crate::mlx::{Error, Result};
use crate::models::Model;

/// Sequences whose prompt is through. Each has a pending token; row `i` of every layer's cache is
/// that of sequence `i`.
pub struct Decoding {
    sequences: Vec<Sequence>,
    caches: Vec<LayerCache>,
    /// Whether those that end well get their caches back.
    gives_back: bool,
    /// How long the last step was waited for.
    waited: Duration,
}

/// A sequence that takes part no more, and how it ended.
pub type Ended = (Sequence, Result<()>);

impl Decoding {
    /// None yet. Sequences that end well leave with their caches if `gives_back`.
    pub fn new(gives_back: bool) -> Self {
        Self {
            sequences: Vec::new(),
            caches: Vec::new(),
            gives_back,
            waited: Duration::ZERO,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Bytes of their caches.
    pub fn nbytes(&self) -> usize {
        self.caches.iter().map(LayerCache::nbytes).sum()
    }

    /// Gives all of them up.
    pub fn drain(&mut self) -> impl Iterator<Item = Sequence> {
        self.caches.clear();
        self.sequences.drain(..)
    }

    /// Sees to it that there is memory for the next step of each; see [`Sequence::secure`].
    pub fn secure(&mut self, evict: &mut dyn FnMut(usize)) {
        for sequence in &mut self.sequences {
            sequence.secure(evict);
        }
    }

    /// Takes in a sequence that has its first pending token.
    ///
    /// If its caches cannot join the others, all sequences end with that error.
    pub fn admit(&mut self, mut sequence: Sequence) -> Vec<Ended> {
        let caches = std::mem::take(&mut sequence.caches);
        self.sequences.push(sequence);
        let joined = if self.caches.is_empty() {
            let joined = caches
                .into_iter()
                .map(|cache| LayerCache::join(vec![cache]));
            joined
                .collect::<Result<_>>()
                .map(|joined| self.caches = joined)
        } else {
            let mut pairs = self.caches.iter_mut().zip(caches);
            pairs.try_for_each(|(all, cache)| all.push(cache))
        };
        match joined {
            Ok(()) => Vec::new(),
            Err(error) => self.give_up(&error),
        }
    }

    /// Lets those go that `gone` names.
    pub fn remove(&mut self, gone: impl Fn(&Sequence) -> bool) -> Vec<Ended> {
        let outcomes = self.sequences.iter().map(|s| gone(s).then_some(Ok(())));
        self.end(outcomes.collect())
    }

    /// One step of all: reports each one's pending token and starts the next. Returns those that
    /// ended.
    ///
    /// An error ends those that take part in the step and no others.
    pub fn step(&mut self, model: &dyn Model) -> Vec<Ended> {
        // Those whose pending token is the last that may come take no part in the step.
        let last = self.remove(|sequence| !sequence.goes_on());
        let mut sequences: Vec<&mut Sequence> = self.sequences.iter_mut().collect();
        let began = Instant::now();
        let started = match sequences.is_empty() {
            true => Ok(Vec::new()),
            false => step::advance(model, &mut sequences, &mut self.caches),
        };
        let built = Instant::now();
        for sequence in sequences {
            sequence.note_step(built - began, self.waited);
        }
        let last = last.into_iter().map(|(mut sequence, outcome)| {
            let pending = sequence.pending.take();
            let outcome = outcome.and_then(|()| take(&mut sequence, pending).unwrap_or(Ok(())));
            (sequence, outcome)
        });
        let mut ended: Vec<Ended> = last.collect();
        ended.extend(match started {
            Ok(current) => {
                let pairs = self.sequences.iter_mut().zip(current);
                let outcomes = pairs.map(|(sequence, pending)| take(sequence, pending));
                let outcomes = outcomes.collect();
                self.waited = built.elapsed();
                self.end(outcomes)
            }
            Err(error) => self.give_up(&error),
        });
        ended
    }

    /// Lets those go that have an outcome.
    fn end(&mut self, outcomes: Vec<Option<Result<()>>>) -> Vec<Ended> {
        if outcomes.iter().all(Option::is_none) {
            return Vec::new();
        }
        let (mut stay, mut rows, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        let sequences = self.sequences.drain(..).zip(outcomes);
        for (row, (mut sequence, outcome)) in sequences.enumerate() {
            match outcome {
                Some(outcome) => {
                    if self.gives_back && outcome.is_ok() {
                        let row = self.caches.iter().map(|cache| cache.row(row));
                        // Without its caches it only has nothing to leave to later ones.
                        sequence.caches = row.collect::<Result<_>>().unwrap_or_default();
                    }
                    ended.push((sequence, outcome));
                }
                None => {
                    rows.push(row);
                    stay.push(sequence);
                }
            }
        }
        self.sequences = stay;
        if rows.is_empty() {
            self.caches.clear();
            return ended;
        }
        let mut caches = self.caches.iter_mut();
        if let Err(error) = caches.try_for_each(|cache| cache.keep(&rows)) {
            ended.extend(self.give_up(&error));
        }
        ended
    }

    /// After an error all sequences' caches are undefined: they end with it.
    fn give_up(&mut self, error: &Error) -> Vec<Ended> {
        self.caches.clear();
        let sequences = self.sequences.drain(..);
        sequences
            .map(|sequence| (sequence, Err(error.clone())))
            .collect()
    }
}

/// Reports a sequence's token, waiting for it; something if that ends the sequence.
fn take(sequence: &mut Sequence, pending: Option<Pending>) -> Option<Result<()>> {
    match pending.map(|pending| sequence.take(&pending)) {
        Some(Ok(Progress::Going)) => None,
        Some(Ok(Progress::Done)) | None => Some(Ok(())),
        Some(Err(error)) => Some(Err(error)),
    }
}
