//! One request on its way through the model: prefill in chunks, then a token a step.

use std::time::{Duration, Instant};

use super::draw::{Pending, Place, draw, read_scores};
use super::handle::Submission;
use super::memory::Claim;
use super::prefix::Reuse;
use super::request::{Event, FinishReason, Request, Stats, TokenLogprob};
use crate::cache::{Batch, LayerCache};
use crate::mlx::{Array, Result, eval, memory};
use crate::models::Model;
use crate::sample::{Demand, Host, NoDraw, Row, score};
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
    /// Whether the pending token has been reported.
    told: bool,
    /// Tokens drawn so far, the pending one included: the number of the next random key.
    pub(super) drawn: u64,
    /// Its row in the batch that drew last.
    pub(super) place: Option<Place>,
    /// The host's part in its draws, if it needs one.
    pub(super) host: Option<Host>,
    /// Why no token may come after those drawn, the pending one not counted.
    verdict: Option<NoDraw>,
    /// Tokens of the answer that have been read, the ending one included.
    pub(super) generated: Vec<u32>,
    /// Its part of the prefix cache.
    pub(super) reuse: Reuse,
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
    /// The memory of its caches; given back after them.
    claim: Claim,
}

impl Sequence {
    /// A sequence that has not begun, for a request taken from the queue.
    pub fn new(submission: Submission, model: &dyn Model, eos_ids: &[u32]) -> Self {
        let Submission {
            request,
            events,
            at,
            claim,
        } = submission;
        let stats = Stats {
            prompt_tokens: request.prompt.len(),
            queued: at.elapsed().as_secs_f64(),
            ..Stats::default()
        };
        // Its guide works while the prompt is computed.
        let host = Host::new(&request.params, request.form.as_ref(), &request.prompt);
        Self {
            host,
            place: None,
            verdict: None,
            request,
            caches: model.caches(),
            pending: None,
            told: false,
            drawn: 0,
            generated: Vec::new(),
            reuse: Reuse::default(),
            events,
            eos_ids: eos_ids.to_vec(),
            announced: false,
            prefilled: 0,
            prompt_scores: Vec::new(),
            started: Instant::now(),
            first_token: None,
            stats,
            claim,
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

    /// When it was taken from the queue.
    pub fn began(&self) -> Instant {
        self.started
    }

    /// Goes on from `caches`, which hold the prompt's first `len` tokens.
    pub fn start_at(&mut self, len: usize, caches: Vec<LayerCache>) {
        self.stats.cached_tokens += len - self.prefilled;
        self.prefilled = len;
        self.caches = caches;
    }

    /// Tokens of the prompt that the caches hold.
    pub fn prefilled(&self) -> usize {
        self.prefilled
    }

    /// Tokens of the prompt still to be computed.
    pub fn prompt_left(&self) -> usize {
        self.request.prompt.len() - self.prefilled
    }

    /// Tokens of the answer before the pending one.
    fn answered(&self) -> usize {
        self.stats.completion_tokens - usize::from(self.told)
    }

    /// The position of the pending token.
    pub fn position(&self) -> usize {
        self.request.prompt.len() + self.answered()
    }

    /// Positions that its caches hold.
    pub fn held(&self) -> usize {
        self.prefilled + self.answered()
    }

    /// Sees to it that there is memory for the next step. If there is none, the pending token is the
    /// answer's last.
    pub fn secure(&mut self, evict: &mut dyn FnMut(usize)) {
        let (prompt, answer) = (self.request.prompt.len(), self.request.max_tokens);
        let most = prompt.saturating_add(answer);
        if self.goes_on() && !self.claim.cover(self.position() + 1, most, evict) {
            tracing::warn!(
                "an answer ends after {} tokens: there is no memory for more",
                self.answered() + 1
            );
            self.request.max_tokens = self.answered() + 1;
        }
    }

    /// Whether a token may come after the pending one.
    pub fn goes_on(&self) -> bool {
        self.answered() + 1 < self.request.max_tokens
    }

    /// Whether the prompt's end, if it is within `tokens`, must wait for the form's first mask, which
    /// may come within `patience`. A form can take long to begin with; nobody else is to wait for it.
    pub fn waits_for_host(&mut self, tokens: usize, patience: Duration) -> bool {
        let ends = tokens >= self.prompt_left() && self.request.max_tokens > 0;
        ends && self
            .host
            .as_mut()
            .is_some_and(|host| !host.is_ready(patience))
    }

    /// Computes up to `tokens` more of the prompt, and marks the caches at positions `marks` within
    /// them; at its end starts drawing the first token.
    ///
    /// # Errors
    /// If MLX fails; the sequence's caches are then undefined and it must be dropped.
    pub fn prefill(
        &mut self,
        model: &dyn Model,
        tokens: usize,
        marks: &[usize],
    ) -> Result<Progress> {
        if !std::mem::replace(&mut self.announced, true) {
            self.report(Event::Started(self.stats.clone()));
        }
        let prompt = &self.request.prompt;
        let end = (self.prefilled + tokens.max(1)).min(prompt.len());
        let last = end == prompt.len();
        let batch = Batch::single(&prompt[self.prefilled..end], self.prefilled)?;
        self.caches.iter_mut().for_each(|cache| cache.mark(marks));
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
        draw(model, &hidden, &mut [self], &[])?;
        self.heed_verdict()
    }

    /// Its row of a step.
    pub(super) fn row(&self, demand: Option<Demand>) -> Row<'_> {
        Row {
            params: &self.request.params,
            eos_ids: &self.eos_ids,
            stop_ids: &self.request.stop_ids,
            drawn: self.drawn,
            demand,
        }
    }

    /// Gives the token that was drawn last to the host's part. False if it ends the answer, and
    /// nothing is to be asked.
    pub(super) fn tell_host(&mut self, id: u32) -> bool {
        let goes_on = !self.ends_with(id);
        if let Some(host) = self.host.as_mut().filter(|_| goes_on) {
            host.take(id);
        }
        goes_on
    }

    /// What the host asks of the next draw; `None` also if there is none, which is kept as the
    /// verdict.
    pub(super) fn ask_host(&mut self, vocab: usize) -> Option<Demand> {
        let Request {
            params, stop_ids, ..
        } = &self.request;
        let banned = params.banned(&self.eos_ids, stop_ids, self.drawn);
        match self.host.as_mut()?.demand(banned, vocab) {
            Ok(demand) => Some(demand),
            Err(verdict) => {
                self.verdict = Some(verdict);
                None
            }
        }
    }

    /// Ends the answer if no token may come.
    fn heed_verdict(&mut self) -> Result<Progress> {
        match self.verdict.take() {
            None => Ok(Progress::Going),
            Some(NoDraw::Complete) => self.finish(FinishReason::Stop),
            Some(NoDraw::Failed(message)) => {
                let message = format!("the answer cannot be held to its form: {message}");
                self.report(Event::Failed(message));
                Ok(Progress::Done)
            }
        }
    }

    fn ends_with(&self, id: u32) -> bool {
        self.eos_ids.contains(&id) || self.request.stop_ids.contains(&id)
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

    /// Takes note of a step that was built in `building`, after one that was waited for in `waiting`.
    pub fn note_step(&mut self, building: Duration, waiting: Duration) {
        self.stats.steps += 1;
        self.stats.building += building.as_secs_f64();
        self.stats.waiting += waiting.as_secs_f64();
    }

    /// Reports the first token while it is still pending, waiting for it: where nobody else waits, that is
    /// sooner than behind all that makes the next step ready.
    ///
    /// # Errors
    /// As [`Sequence::take`].
    pub fn tell_first(&mut self) -> Result<Progress> {
        let Some(pending) = self.pending.take() else {
            return Ok(Progress::Going);
        };
        let progress = self.take(&pending)?;
        self.told = progress == Progress::Going;
        self.pending = Some(pending);
        Ok(progress)
    }

    /// Reports the token that `current` is, if it has not been, waiting for it.
    ///
    /// # Errors
    /// If the step that drew it failed.
    pub fn take(&mut self, current: &Pending) -> Result<Progress> {
        if std::mem::take(&mut self.told) {
            return self.heed_verdict();
        }
        let id = current.id()?;
        let now = Instant::now();
        let first = *self.first_token.get_or_insert(now);
        self.stats.prefill = (first - self.started).as_secs_f64();
        self.stats.decode = (now - first).as_secs_f64();
        self.generated.push(id);
        if self.ends_with(id) {
            return self.finish(FinishReason::Stop);
        }
        self.stats.completion_tokens += 1;
        let logprob = match self.request.logprobs {
            Some(top) => current.logprob(top)?,
            None => None,
        };
        self.report(Event::Token { id, logprob });
        if self.stats.completion_tokens == self.request.max_tokens {
            return self.finish(FinishReason::Length);
        }
        self.heed_verdict()
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

impl Drop for Sequence {
    fn drop(&mut self) {
        // Whoever listens must not take the channel's end for the answer's.
        if std::thread::panicking() {
            self.report(Event::Failed(super::thread::PANICKED.into()));
        }
    }
}
