//! One request on its way through the model: prefill in chunks, then a token a step.

use std::time::Instant;

use super::handle::Submission;
use super::request::{Event, FinishReason, Request, Stats, TokenLogprob};
use super::step::{Pending, draw};
use crate::cache::{Batch, LayerCache};
use crate::mlx::{Array, Result, eval, memory};
use crate::models::Model;
use crate::sample::{Scores, score};
use tokio::sync::mpsc::Sender;

/// Whether a sequence goes on after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    Going,
    /// It has reported its end.
    Done,
}

/// A request in progress.
pub struct Sequence {
    pub(super) request: Request,
    pub(super) caches: Vec<LayerCache>,
    /// Its part of the step being computed; none before its prompt is through.
    pub(super) pending: Option<Pending>,
    /// Tokens drawn so far, the pending one included: the number of the next random key.
    pub(super) drawn: u64,
    events: Sender<Event>,
    eos_ids: Vec<u32>,
    /// Whether its listener knows that it has been taken up.
    announced: bool,
    /// Tokens of the prompt that the caches hold.
    prefilled: usize,
    prompt_scores: Vec<Option<TokenLogprob>>,
    started: Instant,
    first_token: Option<Instant>,
    stats: Stats,
}

impl Sequence {
    /// A sequence that has not begun, for a request taken from the queue.
    pub fn new(submission: Submission, model: &dyn Model, eos_ids: &[u32]) -> Self {
        let Submission {
            request,
            events,
            at,
        } = submission;
        let stats = Stats {
            prompt_tokens: request.prompt.len(),
            queued: at.elapsed().as_secs_f64(),
            ..Stats::default()
        };
        Self {
            request,
            caches: model.caches(),
            pending: None,
            drawn: 0,
            events,
            eos_ids: eos_ids.to_vec(),
            announced: false,
            prefilled: 0,
            prompt_scores: Vec::new(),
            started: Instant::now(),
            first_token: None,
            stats,
        }
    }

    /// Whether nobody waits for its events any more.
    pub fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Tells the listener that the request failed.
    pub fn fail(self, message: String) {
        self.report(Event::Failed(message));
    }

    /// Tokens of the prompt still to be computed.
    pub fn prompt_left(&self) -> usize {
        self.request.prompt.len() - self.prefilled
    }

    /// The position of the pending token.
    pub fn position(&self) -> usize {
        self.request.prompt.len() + self.stats.completion_tokens
    }

    /// Whether a token may come after the pending one.
    pub fn goes_on(&self) -> bool {
        self.stats.completion_tokens + 1 < self.request.max_tokens
    }

    /// Computes up to `tokens` more of the prompt; at its end starts drawing the first token.
    ///
    /// # Errors
    /// If MLX fails; the sequence's caches are then undefined and it must be dropped.
    pub fn prefill(&mut self, model: &dyn Model, tokens: usize) -> Result<Progress> {
        if !std::mem::replace(&mut self.announced, true) {
            self.report(Event::Started(self.stats.clone()));
        }
        let prompt = &self.request.prompt;
        let end = (self.prefilled + tokens.max(1)).min(prompt.len());
        let last = end == prompt.len();
        let batch = Batch::single(&prompt[self.prefilled..end], self.prefilled)?;
        let hidden = model.forward(&batch, &mut self.caches)?;
        if self.request.prompt_logprobs {
            self.score_prompt(model, &hidden, self.prefilled)?;
        }
        self.prefilled = end;
        if !last {
            // Nothing else asks for the caches yet; evaluating them bounds the graph's size.
            let arrays = self.caches.iter().flat_map(LayerCache::arrays);
            eval(&arrays.collect::<Vec<_>>())?;
            return Ok(Progress::Going);
        }
        if self.request.prompt_logprobs {
            let scores = std::mem::take(&mut self.prompt_scores);
            self.report(Event::Prompt(scores));
        }
        if self.request.max_tokens == 0 {
            return self.finish(FinishReason::Length);
        }
        let l = hidden.dim(1)?;
        let hidden = hidden.slice_axis(1, l - 1, l)?; // [1, 1, d_model]
        draw(model, &hidden, &mut [self])?;
        Ok(Progress::Going)
    }

    /// Scores the prompt's tokens from `start` on under the hidden states before each.
    fn score_prompt(&mut self, model: &dyn Model, hidden: &Array, start: usize) -> Result<()> {
        if start == 0 {
            self.prompt_scores.push(None); // Nothing stands before the first token.
        }
        let prompt = &self.request.prompt;
        let end = (start + hidden.dim(1)? as usize).min(prompt.len() - 1);
        let n = (end - start) as i32;
        if n == 0 {
            return Ok(());
        }
        let targets = &prompt[start + 1..=end];
        let tokens = Array::from_slice(targets, &[n])?;
        let hidden = hidden.slice_axis(1, 0, n)?.squeeze(0)?; // [n, d_model]
        let top = self.request.logprobs.unwrap_or(0);
        let scores = score(&model.unembed(&hidden)?, &tokens, top)?;
        self.prompt_scores
            .extend(read_scores(&scores, targets)?.into_iter().map(Some));
        Ok(())
    }

    /// Reports the token that `current` is, waiting for it.
    ///
    /// # Errors
    /// If the step that drew it failed.
    pub fn take(&mut self, current: &Pending) -> Result<Progress> {
        let id = current.id()?;
        let now = Instant::now();
        let first = *self.first_token.get_or_insert(now);
        self.stats.prefill = (first - self.started).as_secs_f64();
        self.stats.decode = (now - first).as_secs_f64();
        if self.eos_ids.contains(&id) || self.request.stop_ids.contains(&id) {
            return self.finish(FinishReason::Stop);
        }
        self.stats.completion_tokens += 1;
        let logprob = match &current.scores {
            Some(scores) => read_scores(scores, &[id])?.pop(),
            None => None,
        };
        self.report(Event::Token { id, logprob });
        if self.stats.completion_tokens == self.request.max_tokens {
            return self.finish(FinishReason::Length);
        }
        Ok(Progress::Going)
    }

    fn finish(&mut self, reason: FinishReason) -> Result<Progress> {
        self.stats.peak_memory = memory()?.peak;
        if self.first_token.is_none() {
            self.stats.prefill = self.started.elapsed().as_secs_f64();
        }
        let stats = self.stats.clone();
        self.report(Event::Finished { reason, stats });
        Ok(Progress::Done)
    }

    /// Sends without ever blocking: the channel has room for every event of a request, and a
    /// listener that is gone is noticed at the next step.
    fn report(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}

/// Reads scores of `tokens` from the device, the likeliest alternatives best first.
fn read_scores(scores: &Scores, tokens: &[u32]) -> Result<Vec<TokenLogprob>> {
    let chosen = scores.chosen.to_vec::<f32>()?;
    let (ids, logprobs) = match &scores.top {
        Some((ids, logprobs)) => (ids.to_vec::<u32>()?, logprobs.to_vec::<f32>()?),
        None => (Vec::new(), Vec::new()),
    };
    let width = ids.len() / tokens.len().max(1);
    let row = |i: usize| {
        let range = i * width..(i + 1) * width;
        let ids = ids[range.clone()].iter().copied();
        let mut top: Vec<(u32, f32)> = ids.zip(logprobs[range].iter().copied()).collect();
        // Equal ones in the order of their ids, so that a batch cannot change the answer.
        top.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        top
    };
    let scored = tokens.iter().zip(chosen).enumerate();
    Ok(scored
        .map(|(i, (&id, logprob))| TokenLogprob {
            id,
            logprob,
            top: row(i),
        })
        .collect())
}
