//! The requests to the engine that one HTTP request stands for, running side by side.
//!
//! Dropping a [`Running`] cancels what is not finished. Memory is bounded by the engine's channels:
//! nothing is taken from them faster than [`Running::poll_next`] is called.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use tokio::time::Sleep;

use super::State;
use super::answer::{Answer, Part};
use super::ask::Job;
use super::error::ApiError;
use super::metrics::Metrics;
use crate::engine::{Event, Handle, SubmitError};

/// How long to wait before the queue is tried again for the rest of a request with many prompts.
const RETRY: Duration = Duration::from_millis(50);

struct Active {
    index: usize,
    answer: Answer,
    events: Receiver<Event>,
    metrics: Arc<Metrics>,
    submitted: Instant,
    /// When the last token came.
    last: Option<Instant>,
}

impl Active {
    fn new(job: Job, events: Receiver<Event>, metrics: Arc<Metrics>) -> Self {
        metrics.submitted();
        Self {
            index: job.index,
            answer: job.answer,
            events,
            metrics,
            submitted: Instant::now(),
            last: None,
        }
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::Started(stats) => self.metrics.started(stats),
            Event::Token { .. } => {
                let now = Instant::now();
                let before = self.last.replace(now);
                let seconds = (now - before.unwrap_or(self.submitted)).as_secs_f64();
                self.metrics.token(before.is_none(), seconds);
            }
            Event::Prompt(_) | Event::Finished { .. } | Event::Failed(_) => {}
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.metrics.left(!self.answer.ended());
    }
}

/// Requests that run, and those that wait for a place in the queue.
pub struct Running {
    engine: Handle,
    metrics: Arc<Metrics>,
    id: String,
    waiting: VecDeque<Job>,
    active: Vec<Active>,
    ready: VecDeque<(usize, Part)>,
    retry: Option<Pin<Box<Sleep>>>,
}

impl Running {
    /// Submits as many of `jobs` as the queue takes, at least one; `id` is the HTTP request's
    /// identifier, for the log.
    pub fn start(state: &State, jobs: Vec<Job>, id: &str) -> Result<Self, ApiError> {
        let prompt = jobs
            .first()
            .map_or("prompt".into(), |job| job.param.clone());
        let mut running = Self {
            engine: state.app.engine.clone(),
            metrics: state.metrics.clone(),
            id: id.to_owned(),
            waiting: jobs.into(),
            active: Vec::new(),
            ready: VecDeque::new(),
            retry: None,
        };
        match running.submit() {
            Err(error) if error.passes() && !running.active.is_empty() => {}
            Err(error) => return Err(ApiError::submit(error, &prompt)),
            Ok(()) => {}
        }
        Ok(running)
    }

    fn submit(&mut self) -> Result<(), SubmitError> {
        while let Some(job) = self.waiting.pop_front() {
            match self.engine.submit(job.request.clone()) {
                Ok(events) => {
                    let metrics = self.metrics.clone();
                    self.active.push(Active::new(job, events, metrics));
                }
                Err(error) => {
                    self.waiting.push_front(job);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The next part of any of the answers, with its choice's index; `None` when all have ended.
    pub async fn next(&mut self) -> Option<(usize, Part)> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Running::next`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, Part)>> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                self.log(&part);
                return Poll::Ready(Some(part));
            }
            if self.active.is_empty() && self.waiting.is_empty() {
                return Poll::Ready(None);
            }
            let mut progress = self.resubmit(context);
            for active in &mut self.active {
                if let Poll::Ready(event) = active.events.poll_recv(context) {
                    progress = true;
                    let gone =
                        "the engine stopped in the middle of this answer; restart the server";
                    let event = event.unwrap_or_else(|| Event::Failed(gone.into()));
                    active.count(&event);
                    let ready = &mut self.ready;
                    let (index, submitted) = (active.index, active.submitted);
                    let metrics = &self.metrics;
                    active.answer.take(event, |part| {
                        match &part {
                            Part::End { end, usage, .. } => {
                                metrics.ended(end, *usage, submitted.elapsed().as_secs_f64());
                            }
                            Part::Failed(_) => metrics.failed(),
                            _ => {}
                        }
                        ready.push_back((index, part));
                    });
                }
            }
            self.active.retain(|active| !active.answer.ended());
            if !progress {
                return Poll::Pending;
            }
        }
    }

    /// Tries the queue again for what waits; true if that changed anything.
    fn resubmit(&mut self, context: &mut Context<'_>) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let retry = self
            .retry
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(RETRY)));
        if retry.as_mut().poll(context).is_pending() {
            return false;
        }
        self.retry = None;
        if let Err(error) = self.submit()
            && !error.passes()
            && let Some(job) = self.waiting.pop_front()
        {
            self.waiting.clear();
            self.ready
                .push_back((job.index, Part::Failed(error.to_string())));
        }
        true
    }

    fn log(&self, (index, part): &(usize, Part)) {
        let id = &self.id;
        match part {
            Part::End { end, usage, stats } => {
                let (queued, prefill, decode) = stats.as_ref().map_or((0.0, 0.0, 0.0), |stats| {
                    (stats.queued, stats.prefill, stats.decode)
                });
                tracing::info!(
                    request = id,
                    index,
                    end = end.word(),
                    prompt_tokens = usage.prompt,
                    completion_tokens = usage.completion,
                    queued,
                    prefill,
                    decode,
                    "answered"
                );
            }
            Part::Failed(message) => tracing::error!(request = id, index, "failed: {message}"),
            _ => {}
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let unfinished = self.active.len() + self.waiting.len();
        if unfinished > 0 {
            tracing::info!(request = self.id, unfinished, "cancelled");
        }
    }
}
