//! The asynchronous side's way to the engine thread: a bounded queue of requests, and for each
//! request a bounded channel of events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::request::{Event, Request};

/// What is known of a loaded model without touching an array.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The name it is served under.
    pub id: String,
    /// The architecture (`model_type`).
    pub model_type: String,
    /// Tokens of prompt and answer together that it takes at most.
    pub context_length: usize,
    /// Rows of its embedding: token ids are below this.
    pub vocab_size: usize,
    /// Token ids that end an answer.
    pub eos_ids: Vec<u32>,
    /// Bytes of the weights as held in memory.
    pub weight_bytes: usize,
    /// Whether its checkpoint takes images or sound too, for which there is no support.
    pub text_only: bool,
    /// Seconds that loading took.
    pub load_seconds: f64,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full; trying again later is right.
    #[error("the server is busy: {0} requests are waiting, which is the limit; try again shortly")]
    Full(usize),
    /// The engine is gone; restarting the server is right.
    #[error("the engine has stopped; restart the server")]
    Stopped,
    /// The request can never be served; `field` is the request's part that is wrong.
    #[error("{message}")]
    Invalid {
        /// Which part of the request: `prompt`, `max_tokens`, `logprobs`, or a sampling parameter.
        field: &'static str,
        /// What was expected.
        message: String,
    },
}

/// A request on its way to the engine thread, with the channel for its events.
pub struct Submission {
    /// What is asked.
    pub request: Request,
    /// Where events go. It holds `max_tokens + 2` entries, so that the engine never blocks on it;
    /// a closed channel means that nobody listens and the request is cancelled.
    pub events: mpsc::Sender<Event>,
    /// When it was submitted.
    pub at: Instant,
}

/// What the engine thread is told.
#[allow(clippy::large_enum_variant)] // The largest is by far the most common.
pub enum Command {
    /// Serve this request.
    Submit(Submission),
    /// Answer at once, to show that the thread is alive.
    Ping(tokio::sync::oneshot::Sender<()>),
    /// End now: running and waiting requests are dropped, which closes their channels.
    Stop,
}

/// A cheap, cloneable way to submit requests to one engine thread. When the last handle is
/// dropped, the thread ends.
#[derive(Clone)]
pub struct Handle {
    facts: Arc<Facts>,
    commands: mpsc::UnboundedSender<Command>,
    waiting: Arc<AtomicUsize>,
    queue_limit: usize,
    healthy: Arc<AtomicBool>,
}

/// The engine thread's end of a [`Handle`].
pub struct Inbox {
    /// Commands in the order they came.
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// To be lowered by one for each submission taken up or found to be cancelled.
    pub waiting: Arc<AtomicUsize>,
    /// To be cleared when the thread ends or panics.
    pub healthy: Arc<AtomicBool>,
}

impl Handle {
    /// A handle and the inbox that serves it; at most `queue_limit` submissions wait.
    pub fn new(facts: Facts, queue_limit: usize) -> (Handle, Inbox) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let healthy = Arc::new(AtomicBool::new(true));
        let inbox = Inbox {
            commands: receiver,
            waiting: waiting.clone(),
            healthy: healthy.clone(),
        };
        let facts = Arc::new(facts);
        let handle = Handle {
            facts,
            commands,
            waiting,
            queue_limit,
            healthy,
        };
        (handle, inbox)
    }

    /// What is known of the model.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Checks a request and queues it; its events come through the receiver returned. Dropping
    /// the receiver cancels the request.
    ///
    /// `max_tokens` is lowered to what the context leaves after the prompt.
    pub fn submit(&self, mut request: Request) -> Result<mpsc::Receiver<Event>, SubmitError> {
        self.check(&request)?;
        let room = self.facts.context_length - request.prompt.len();
        request.max_tokens = request.max_tokens.min(room);
        if !self.healthy.load(Ordering::Acquire) {
            return Err(SubmitError::Stopped);
        }
        let limit = self.queue_limit;
        self.waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < limit).then_some(n + 1)
            })
            .map_err(|_| SubmitError::Full(limit))?;
        let (events, receiver) = mpsc::channel(request.max_tokens + 2);
        let at = Instant::now();
        let submission = Submission {
            request,
            events,
            at,
        };
        if self.commands.send(Command::Submit(submission)).is_err() {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(SubmitError::Stopped);
        }
        Ok(receiver)
    }

    /// Asks the engine thread to end, however many handles there are.
    pub(super) fn stop(&self) {
        // A thread that has ended already needs no telling.
        let _ = self.commands.send(Command::Stop);
    }

    /// Completes when the engine thread has ended.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    /// Whether the engine thread answers within `patience`.
    pub async fn ping(&self, patience: std::time::Duration) -> bool {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.healthy.load(Ordering::Acquire)
            && self.commands.send(Command::Ping(reply)).is_ok()
            && matches!(tokio::time::timeout(patience, answer).await, Ok(Ok(())))
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        let invalid = |field, message| Err(SubmitError::Invalid { field, message });
        let facts = &self.facts;
        let prompt = &request.prompt;
        if prompt.is_empty() {
            return invalid(
                "prompt",
                "the prompt is empty; give at least one token".into(),
            );
        }
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= facts.vocab_size) {
            let message = format!(
                "token id {id} in the prompt is outside the vocabulary of {}, whose ids are below {}",
                facts.id, facts.vocab_size
            );
            return invalid("prompt", message);
        }
        let room = facts.context_length;
        if prompt.len() > room || (prompt.len() == room && request.max_tokens > 0) {
            let message = format!(
                "the prompt has {} tokens, but the context of {} holds {room} for prompt and answer together; shorten the prompt",
                prompt.len(),
                facts.id
            );
            return invalid("prompt", message);
        }
        if let Some(n) = request.logprobs.filter(|&n| n > super::MAX_TOP_LOGPROBS) {
            let most = super::MAX_TOP_LOGPROBS;
            return invalid(
                "logprobs",
                format!("{n} alternatives asked for, at most {most} are given"),
            );
        }
        let params = &request.params;
        let outside = |(id, _): &&(u32, f32)| *id as usize >= facts.vocab_size;
        if let Some((id, _)) = params.logit_bias.iter().find(outside) {
            let (name, n) = (&facts.id, facts.vocab_size);
            let message = format!(
                "logit_bias names token {id}, which is outside the vocabulary of {name}, whose ids are below {n}"
            );
            return invalid("logit_bias", message);
        }
        if params.min_tokens > request.max_tokens {
            let (least, most) = (params.min_tokens, request.max_tokens);
            let message = format!("min_tokens is {least}, expected at most max_tokens, {most}");
            return invalid("min_tokens", message);
        }
        params
            .check()
            .or_else(|(field, message)| invalid(field, message))
    }
}
