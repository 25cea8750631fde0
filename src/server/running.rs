//! The requests to the engine that one HTTP request stands for, running side by side.
//!
//! Dropping a [`Running`] cancels what is not finished. Memory is bounded by the engine's channels:
//! nothing is taken from them faster than [`Running::poll_next`] is called.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::Sleep;

use super::answer::{Answer, Part};
use super::error::ApiError;
use crate::engine::{Event, Handle, Request, SubmitError};

/// How long to wait before the queue is tried again for the rest of a request with many prompts.
const RETRY: Duration = Duration::from_millis(50);

/// A prompt to run, with the answer it is to become.
pub struct Ask {
    /// The place of its choice in the response.
    pub index: usize,
    /// What the engine is asked.
    pub request: Request,
    /// What its events become.
    pub answer: Answer,
}

struct Active {
    index: usize,
    answer: Answer,
    events: Receiver<Event>,
}

/// Requests that run, and those that wait for a place in the queue.
pub struct Running {
    engine: Handle,
    id: String,
    waiting: VecDeque<Ask>,
    active: Vec<Active>,
    ready: VecDeque<(usize, Part)>,
    retry: Option<Pin<Box<Sleep>>>,
}

impl Running {
    /// Submits as many of `asks` as the queue takes, at least one; `prompt` is the dialect's name
    /// of the prompt's field and `id` the HTTP request's identifier, for the log.
    pub fn start(
        engine: &Handle,
        asks: Vec<Ask>,
        prompt: &str,
        id: &str,
    ) -> Result<Self, ApiError> {
        let mut running = Self {
            engine: engine.clone(),
            id: id.to_owned(),
            waiting: asks.into(),
            active: Vec::new(),
            ready: VecDeque::new(),
            retry: None,
        };
        match running.submit() {
            Err(error) if error.passes() && !running.active.is_empty() => {}
            Err(error) => return Err(ApiError::submit(error, prompt)),
            Ok(()) => {}
        }
        Ok(running)
    }

    fn submit(&mut self) -> Result<(), SubmitError> {
        while let Some(ask) = self.waiting.pop_front() {
            match self.engine.submit(ask.request.clone()) {
                Ok(events) => self.active.push(Active {
                    index: ask.index,
                    answer: ask.answer,
                    events,
                }),
                Err(error) => {
                    self.waiting.push_front(ask);
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
                    let ready = &mut self.ready;
                    let index = active.index;
                    active
                        .answer
                        .take(event, |part| ready.push_back((index, part)));
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
            && let Some(ask) = self.waiting.pop_front()
        {
            self.waiting.clear();
            self.ready
                .push_back((ask.index, Part::Failed(error.to_string())));
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
