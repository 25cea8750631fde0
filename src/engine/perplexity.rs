//! How well a model foretells a text: perplexity over sequences of tokens, as mlx-lm's
//! `perplexity.py` computes it.
//!
//! Runs on the calling thread, without the engine's. Memory is bounded: a batch of sequences goes
//! through the model in chunks of positions, and its logits are made and reduced a few rows at a
//! time. Neither changes the result but for rounding.

use std::time::Instant;

use super::load::{Ready, load};
use super::options::Options;
use super::thread::chunk_for;
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{LoadResult, Source};
use crate::mlx::{Array, Dtype, Error, Result, Runtime, eval, memory};
use crate::models::{Loaded, Model};

/// Logits that are held at a time, in bytes of float32.
const LOGITS_BYTES: usize = 64 << 20;

/// A loaded model that scores texts. Fields drop in this order: arrays before the runtime.
pub struct Scorer {
    model: Box<dyn Model>,
    chunk: usize,
    _runtime: Runtime,
}

/// What a model made of a text. All logarithms are natural, so figures are in nats a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Perplexity {
    /// The mean of the tokens' negative log-likelihoods.
    pub mean_nll: f64,
    /// e to that power.
    pub perplexity: f64,
    /// The standard error of `perplexity`: that of the mean (from the sample variance over tokens)
    /// times `perplexity`, which is the delta method's first term. None for a single token.
    pub standard_error: Option<f64>,
    /// Tokens that were foretold.
    pub tokens: usize,
    /// Seconds that it took, loading aside.
    pub seconds: f64,
    /// The most bytes that arrays took at a time.
    pub peak_memory: usize,
}

/// Tokens that a model is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence<'a> {
    /// All of them, from the first that the model sees.
    pub tokens: &'a [u32],
    /// The place of the first one that is scored, 1 or later; what is before it is only seen.
    pub scored_from: usize,
}

impl<'a> Sequence<'a> {
    /// `tokens`, all but the first of which are scored.
    pub fn whole(tokens: &'a [u32]) -> Self {
        Self {
            tokens,
            scored_from: 1,
        }
    }
}

impl Scorer {
    /// Loads a model on this thread. Of `options` those count that say how to load it, and
    /// `prefill_chunk`, the positions computed in one go.
    ///
    /// # Errors
    /// What loading says; also if this thread computes on a device already.
    pub fn open(
        source: &Source,
        options: &Options,
        progress: &dyn Fn(u64, u64),
    ) -> LoadResult<Self> {
        let Ready {
            runtime,
            loaded: Loaded { model, .. },
            budget: (budget, _),
            ..
        } = load(source, options, progress)?;
        Ok(Self {
            chunk: chunk_for(model.as_ref(), options, budget),
            model,
            _runtime: runtime,
        })
    }

    /// Rows of its embedding: token ids must be below this.
    pub fn vocab_size(&self) -> usize {
        self.model.facts().vocab_size
    }

    /// Positions the model was trained for, if its configuration says so.
    pub fn context_length(&self) -> Option<usize> {
        self.model.facts().context_length
    }

    /// The perplexity of `sequences`, `batch_size` of them at a time, each on its own from its
    /// first token on. `progress` is told how many are done.
    ///
    /// # Errors
    /// If there is no sequence, or one in which nothing is scored, or MLX fails.
    pub fn perplexity(
        &self,
        sequences: &[Sequence],
        batch_size: usize,
        progress: &dyn Fn(usize),
    ) -> Result<Perplexity> {
        let op = "perplexity";
        let scores = |s: &Sequence| (1..s.tokens.len()).contains(&s.scored_from);
        if sequences.is_empty() || !sequences.iter().all(scores) {
            let message =
                "expected one or more sequences, each with a token to score after its first";
            return Err(Error::new(op, &[], message));
        }
        let started = Instant::now();
        let mut losses = Losses::default();
        let mut done = 0;
        for batch in sequences.chunks(batch_size.max(1)) {
            self.score(batch, &mut losses)?;
            done += batch.len();
            progress(done);
        }
        let seconds = started.elapsed().as_secs_f64();
        let (mean, deviation) = (losses.mean(), losses.deviation());
        let perplexity = mean.exp();
        let error = deviation.map(|d| perplexity * d / (losses.count as f64).sqrt());
        Ok(Perplexity {
            mean_nll: mean,
            perplexity,
            standard_error: error,
            tokens: losses.count,
            seconds,
            peak_memory: memory()?.peak,
        })
    }

    /// Adds the losses of `batch`. The shorter ones are filled up at their ends, which nothing before sees.
    fn score(&self, batch: &[Sequence], losses: &mut Losses) -> Result<()> {
        let longest = batch.iter().map(|s| s.tokens.len()).max().unwrap_or(0);
        let mut filled = Vec::with_capacity(batch.len() * longest);
        for sequence in batch {
            let fill = longest - sequence.tokens.len();
            filled.extend_from_slice(sequence.tokens);
            filled.extend(std::iter::repeat_n(0, fill));
        }
        let tokens = Array::from_slice(&filled, &[batch.len() as i32, longest as i32])?;
        let mut caches = self.model.caches();
        let inputs = longest.saturating_sub(1);
        for start in (0..inputs).step_by(self.chunk) {
            let end = (start + self.chunk).min(inputs);
            let chunk = tokens.slice_axis(1, start as i32, end as i32)?;
            let chunk = Batch::new(chunk, vec![start; batch.len()])?;
            let hidden = self.model.forward(&chunk, &mut caches)?; // [B, L, d_model]
            // Evaluated before its rows are cut, or every piece would compute it anew.
            let states = caches.iter().flat_map(LayerCache::arrays);
            eval(&states.chain([&hidden]).collect::<Vec<_>>())?;
            let (rows, targets) = scored(batch, start, end);
            if rows.is_empty() {
                continue;
            }
            let n = rows.len() as i32;
            let rows = Array::from_slice(&rows, &[n])?;
            let hidden = hidden.flatten(0, 1)?.take(&rows, 0)?; // [N, d_model]
            self.add_losses(&hidden, &Array::from_slice(&targets, &[n])?, losses)?;
        }
        Ok(())
    }

    /// Adds the losses of `targets [N]` under hidden states `[N, d_model]`.
    fn add_losses(&self, hidden: &Array, targets: &Array, losses: &mut Losses) -> Result<()> {
        let (n, row_bytes) = (targets.dim(0)?, 4 * self.vocab_size().max(1));
        let rows = (LOGITS_BYTES / row_bytes).clamp(1, 1 << 20);
        for start in (0..n).step_by(rows) {
            let end = n.min(start + rows as i32);
            let logits = self.model.unembed(&hidden.slice_axis(0, start, end)?)?;
            let logits = logits.astype(Dtype::Float32)?; // [R, vocab]
            let targets = targets.slice_axis(0, start, end)?.expand_dims(-1)?;
            let chosen = logits.take_along_axis(&targets, -1)?;
            let loss = logits.logsumexp()?.subtract(&chosen)?;
            losses.add(&loss.to_vec::<f32>()?);
        }
        Ok(())
    }
}

/// Of the positions `start..end` of all sequences, row by row, those whose next token is scored: their
/// place among all `B * (end - start)`, and that token.
fn scored(batch: &[Sequence], start: usize, end: usize) -> (Vec<u32>, Vec<u32>) {
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (b, sequence) in batch.iter().enumerate() {
        let first = start.max(sequence.scored_from.saturating_sub(1));
        let last = end.min(sequence.tokens.len().saturating_sub(1));
        for at in first..last {
            rows.push((b * (end - start) + at - start) as u32);
            targets.extend(sequence.tokens.get(at + 1));
        }
    }
    (rows, targets)
}

/// Running mean and variance of losses (Welford, 1962): no list of them, and no cancellation.
#[derive(Default)]
struct Losses {
    count: usize,
    mean: f64,
    squares: f64,
}

impl Losses {
    fn add(&mut self, losses: &[f32]) {
        for &loss in losses {
            self.count += 1;
            let before = f64::from(loss) - self.mean;
            self.mean += before / self.count as f64;
            self.squares += before * (f64::from(loss) - self.mean);
        }
    }

    fn mean(&self) -> f64 {
        self.mean
    }

    /// The square root of the sample variance; none for fewer than two.
    fn deviation(&self) -> Option<f64> {
        (self.count > 1).then(|| (self.squares / (self.count - 1) as f64).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_the_whole() {
        let mut losses = Losses::default();
        assert_eq!(losses.deviation(), None);
        losses.add(&[2.0, 4.0, 4.0]);
        losses.add(&[4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(losses.count, 8);
        assert!((losses.mean() - 5.0).abs() < 1e-12);
        let deviation = losses.deviation().unwrap();
        assert!((deviation - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn chunks_have_the_rows_whose_next_token_is_scored() {
        let batch = [
            Sequence::whole(&[10, 11, 12]),
            Sequence {
                tokens: &[20, 21, 22, 23, 24],
                scored_from: 3,
            },
        ];
        // Of [10 11 | 12 fill] and [20 21 | 22 23].
        assert_eq!(scored(&batch, 0, 2), (vec![0, 1], vec![11, 12]));
        assert_eq!(scored(&batch, 2, 4), (vec![2, 3], vec![23, 24]));
        assert_eq!(scored(&batch[..1], 2, 4), (vec![], vec![]));
    }

    #[test]
    fn a_nan_is_not_swallowed() {
        let mut losses = Losses::default();
        losses.add(&[1.0, f32::NAN, 2.0]);
        assert!(losses.mean().is_nan());
    }
}
