//! Reuse of what earlier requests computed: when it is looked up, and where it is stored.
//!
//! A prompt is stored at the ends of its chunks and an answer at its end, so that the next turn of a
//! dialogue finds all of it. A model with recurrent layers can only go on exactly where it was stored:
//! its state is also kept shortly before a prompt's end, where a next turn that renders the last lines
//! otherwise still agrees, and where prompts part from earlier ones, where others are likely to part too.
//! Prompts look again before each chunk, so of several that share a beginning and come together only
//! the first computes it.

use std::sync::Arc;

use super::memory::Budget;
use super::sequence::{Progress, Sequence};
use crate::cache::LayerCache;
use crate::cache::prefix::{Pin, PrefixCache};
use crate::mlx::Result;
use crate::models::Model;

/// Tokens before a prompt's end where recurrent layers are stored: more than templates put behind the
/// last message to open an answer, and no more work than a step or two to compute again.
const TAIL: usize = 16;
/// Tokens that storing recurrent layers where prompts part must spare the next one.
const WORTH_A_STOP: usize = 32;
/// Of the memory that there is for sequences, one part in so many is for the prefix cache unless the
/// user says otherwise.
const DEFAULT_SHARE: usize = 4;

/// What a sequence has to do with the prefix cache.
#[derive(Default)]
pub struct Reuse {
    /// Keeps what it began with for later turns.
    pin: Option<Pin>,
    /// The cache's changes when it was looked up last.
    seen: Option<u64>,
    /// Positions of its prompt where it is to be stored beside the chunks' ends.
    stops: Vec<usize>,
}

/// The prefix cache of an engine, or none. It takes memory that sequences have no use for now, and
/// gives it back when they have.
pub struct Prefixes {
    cache: Option<PrefixCache>,
    /// Bytes that it takes at most.
    most: usize,
    budget: Arc<Budget>,
}

impl Prefixes {
    /// One of at most `most` bytes, or of a share of what there is for sequences; none if that is 0.
    pub fn new(model: &dyn Model, most: Option<usize>, budget: &Arc<Budget>) -> Self {
        let most = most.unwrap_or(budget.capacity() / DEFAULT_SHARE);
        Self {
            cache: (most > 0).then(|| PrefixCache::new(model.caches(), most)),
            most,
            budget: budget.clone(),
        }
    }

    /// Whether there is one.
    pub fn is_kept(&self) -> bool {
        self.cache.is_some()
    }

    /// Gives up so many bytes, if they are not in use.
    pub fn evict(&mut self, bytes: usize) {
        if let Some(cache) = &mut self.cache {
            cache.shrink(cache.nbytes().saturating_sub(bytes));
            self.budget.set_prefix(cache.nbytes());
        }
    }

    /// Lets a sequence that has not begun start where an earlier one has been.
    pub fn start(&mut self, sequence: &mut Sequence) {
        if sequence.reuse.seen.is_none() {
            self.resume(sequence);
        }
    }

    /// Moves a prompt on to where it need not be computed.
    fn resume(&mut self, sequence: &mut Sequence) {
        let Some(cache) = &mut self.cache else {
            return;
        };
        let changes = cache.changes();
        // Scores of the prompt take all of its hidden states.
        if sequence.request.prompt_logprobs || sequence.reuse.seen == Some(changes) {
            return;
        }
        let first_time = sequence.reuse.seen.replace(changes).is_none();
        let prompt = &sequence.request.prompt;
        let lookup = match cache.find(prompt, sequence.prefilled()) {
            Ok(lookup) => lookup,
            Err(error) => {
                tracing::warn!("a prompt is computed whole, the prefix cache failed: {error}");
                return;
            }
        };
        let len = lookup.found.as_ref().map_or(0, |found| found.len);
        if first_time && cache.goes_on_where_stored() {
            let tail = prompt.len().saturating_sub(TAIL);
            let parting = lookup.known >= len + WORTH_A_STOP && lookup.known < tail;
            let parting = parting.then_some(lookup.known);
            sequence.reuse.stops = parting.into_iter().chain([tail]).collect();
        }
        if let Some(found) = lookup.found {
            sequence.reuse.pin = Some(found.pin);
            sequence.start_at(found.len, found.caches);
        }
    }

    /// Gets a prompt on by at most `tokens` computed tokens, and stores what it comes to. The first token
    /// of one that is `alone` is reported before that.
    ///
    /// # Errors
    /// If MLX fails; the sequence must then be dropped.
    pub fn prefill(
        &mut self,
        model: &dyn Model,
        sequence: &mut Sequence,
        tokens: usize,
        alone: bool,
    ) -> Result<Progress> {
        self.resume(sequence);
        let from = sequence.prefilled();
        let to = from.saturating_add(tokens.max(1));
        let to = to.min(sequence.request.prompt.len());
        let stops = sequence.reuse.stops.iter().copied();
        let marks: Vec<usize> = stops.filter(|stop| (from + 1..to).contains(stop)).collect();
        let mut progress = sequence.prefill(model, to - from, &marks)?;
        if progress == Progress::Going && alone {
            progress = sequence.tell_first()?;
        }
        for &mark in &marks {
            self.store_prompt(sequence, mark);
        }
        sequence.caches.iter_mut().for_each(|cache| cache.mark(&[]));
        // The prompt's end waits for the answer's: storing takes time, and the first token is what is
        // waited for.
        if progress == Progress::Going && sequence.prompt_left() > 0 {
            self.store_prompt(sequence, to);
        }
        Ok(progress)
    }

    /// Stores the first `end` tokens of a sequence's prompt.
    fn store_prompt(&mut self, sequence: &Sequence, end: usize) {
        let tokens = sequence.request.prompt.get(..end).unwrap_or_default();
        let keep = sequence.reuse.stops.contains(&end);
        self.store(tokens, &sequence.caches, keep);
    }

    /// Stores what a sequence that has ended, or that nobody waits for any more, leaves behind.
    pub fn end(&mut self, sequence: &Sequence) {
        let mut tokens = sequence.request.prompt.clone();
        tokens.extend(&sequence.generated);
        // The last token of an answer for one is never computed further.
        let held = sequence.caches.first().map_or(0, LayerCache::len);
        if let Some(held) = tokens.get(..held) {
            self.store(held, &sequence.caches, true);
        }
    }

    /// Stores the first of what `caches` hold, within the budget. What cannot be stored is computed again
    /// when it is needed; the request goes on.
    fn store(&mut self, tokens: &[u32], caches: &[LayerCache], keep: bool) {
        let Some(cache) = &mut self.cache else {
            return;
        };
        let room = cache.nbytes().saturating_add(self.budget.prefix_room());
        cache.set_budget(self.most.min(room));
        let stored = cache.store(tokens, caches, keep);
        self.budget.set_prefix(cache.nbytes());
        if let Err(error) = stored {
            tracing::warn!("what was computed is not kept for the next turn: {error}");
        }
    }
}
