//! The asynchronous side's way to the engine thread: a bounded queue of requests, and for each
//! request a bounded channel of events. A request that can never have the memory it needs is refused
//! before it waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::explain::Explained;
use super::memory::{Budget, Bytes, Claim, MemoryParts, Refusal};
use super::request::{Event, Request};
use super::watch::{Stall, Watch};

/// How often whoever waits for the engine's answer looks whether it hangs.
const GLANCE: Duration = Duration::from_millis(100);

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
    /// Tokens that one round computes at most.
    pub prefill_chunk: usize,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full; trying again later is right.
    #[error("the server is busy: {0} requests are waiting, which is the limit; try again shortly")]
    Full(usize),
    /// Requests wait whose memory will take too long to come by; trying again later is right.
    #[error(
        "the server is busy: this request needs {} of memory, and those that wait for it already \
         need {} of at most {}; try again shortly", Bytes(*needed), Bytes(*waiting), Bytes(*limit)
    )]
    Crowded {
        /// Bytes it needs.
        needed: usize,
        /// Bytes that the waiting requests need.
        waiting: usize,
        /// What they may need together.
        limit: usize,
    },
    /// It needs more memory than there is, even alone.
    #[error(
        "the request needs {} of memory for {prompt} tokens of prompt and {answer} of answer, but \
         there are {} for all requests together, enough for {most} tokens; shorten the prompt, lower \
         max_tokens, or start the server with more --memory or a smaller model",
        Bytes(*needed), Bytes(*available)
    )]
    TooLarge {
        /// Bytes it needs.
        needed: usize,
        /// Bytes there are.
        available: usize,
        /// Tokens of its prompt.
        prompt: usize,
        /// Tokens of its answer at most.
        answer: usize,
        /// Tokens of prompt and answer for which there is memory.
        most: usize,
    },
    /// The engine is gone; restarting the server is right.
    #[error("the engine has stopped; restart the server")]
    Stopped,
    /// The request can never be served; `field` is the request's part that is wrong.
    #[error("{message}")]
    Invalid {
        /// Which part of the request: `prompt`, `max_tokens`, `logprobs`, or a sampling parameter.
        field: &'static str,
        /// What is wrong with it.
        reason: Reason,
        /// What was expected.
        message: String,
    },
}

impl SubmitError {
    /// Whether the same request may be taken later.
    pub fn passes(&self) -> bool {
        matches!(self, SubmitError::Full(_) | SubmitError::Crowded { .. })
    }
}

/// What can be wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The prompt has no token.
    Empty,
    /// A token id is outside the vocabulary.
    Vocabulary,
    /// The context cannot hold the prompt.
    Context,
    /// A number is outside its range.
    Range,
}

/// A request on its way to the engine thread, with the channel for its events.
pub struct Submission {
    /// What is asked.
    pub request: Request,
    /// Where events go. It holds `max_tokens + 3` entries, so that the engine never blocks on it;
    /// a closed channel means that nobody listens and the request is cancelled.
    pub events: mpsc::Sender<Event>,
    /// When it was submitted.
    pub at: Instant,
    /// The memory it will need.
    pub claim: Claim,
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
    budget: Arc<Budget>,
    watch: Arc<Watch>,
    explained: Arc<OnceLock<Explained>>,
}

/// How the engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered.
    Well,
    /// It is at a step that takes too long, and may hang.
    Stalled(Stall),
    /// It did not answer in time; it does between steps.
    Silent,
    /// Its thread has ended.
    Stopped,
}

/// The engine thread's end of a [`Handle`].
pub struct Inbox {
    /// Commands in the order they came.
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// To be lowered by one for each submission taken up or found to be cancelled.
    pub waiting: Arc<AtomicUsize>,
    /// To be cleared when the thread ends or panics.
    pub healthy: Arc<AtomicBool>,
    /// Whose memory is whose.
    pub budget: Arc<Budget>,
    /// To be told what the thread is at.
    pub watch: Arc<Watch>,
}

impl Handle {
    /// A handle and the inbox that serves it; at most `queue_limit` submissions wait, and memory is
    /// no concern.
    pub fn new(facts: Facts, queue_limit: usize) -> (Handle, Inbox) {
        Self::within(facts, queue_limit, Budget::unlimited(), Watch::new(None))
    }

    /// The same for a thread whose requests get memory from `budget` and that tells `watch` what it
    /// is at.
    pub fn within(
        facts: Facts,
        queue_limit: usize,
        budget: Arc<Budget>,
        watch: Arc<Watch>,
    ) -> (Handle, Inbox) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let healthy = Arc::new(AtomicBool::new(true));
        let inbox = Inbox {
            commands: receiver,
            waiting: waiting.clone(),
            healthy: healthy.clone(),
            budget: budget.clone(),
            watch: watch.clone(),
        };
        let facts = Arc::new(facts);
        let handle = Handle {
            facts,
            commands,
            waiting,
            queue_limit,
            healthy,
            budget,
            watch,
            explained: Arc::default(),
        };
        (handle, inbox)
    }

    /// What is known of the model.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How products with packed weights are computed; none before the thread has told.
    pub fn explained(&self) -> Option<&Explained> {
        self.explained.get()
    }

    /// Lets others know. Counts once.
    pub(super) fn explain(&self, explained: Explained) {
        let _ = self.explained.set(explained);
    }

    /// Checks a request and queues it; its events come through the receiver returned. Dropping
    /// the receiver cancels the request.
    ///
    /// `max_tokens` is lowered to what the context leaves after the prompt.
    ///
    /// # Errors
    /// If the request is wrong, its memory can never be had, too many wait, or the engine is gone.
    pub fn submit(&self, mut request: Request) -> Result<mpsc::Receiver<Event>, SubmitError> {
        self.check(&request)?;
        let room = self.facts.context_length - request.prompt.len();
        // Whoever asks for all that is left has no length in mind.
        let open = request.max_tokens >= room;
        request.max_tokens = request.max_tokens.min(room);
        if !self.healthy.load(Ordering::Acquire) {
            return Err(SubmitError::Stopped);
        }
        let claim = self.claim(&request, open)?;
        let limit = self.queue_limit;
        self.waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < limit).then_some(n + 1)
            })
            .map_err(|_| SubmitError::Full(limit))?;
        let (events, receiver) = mpsc::channel(request.max_tokens + 3);
        let at = Instant::now();
        let submission = Submission {
            request,
            events,
            at,
            claim,
        };
        if self.commands.send(Command::Submit(submission)).is_err() {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(SubmitError::Stopped);
        }
        Ok(receiver)
    }

    /// A place among those that wait for memory.
    pub(super) fn claim(&self, request: &Request, open: bool) -> Result<Claim, SubmitError> {
        let (prompt, answer) = (request.prompt.len(), request.max_tokens);
        self.budget
            .claim(prompt, answer, open)
            .map_err(|refusal| match refusal {
                Refusal::TooLarge { needed, available } => SubmitError::TooLarge {
                    needed,
                    available,
                    prompt,
                    answer,
                    most: self.budget.positions(self.facts.context_length),
                },
                Refusal::Crowded {
                    needed,
                    waiting,
                    limit,
                } => SubmitError::Crowded {
                    needed,
                    waiting,
                    limit,
                },
            })
    }

    /// Where the engine's memory is, as the engine saw it a moment ago.
    pub fn memory(&self) -> MemoryParts {
        self.budget.parts()
    }

    /// Bytes that a sequence of so many tokens, prompt and answer together, takes.
    pub fn sequence_bytes(&self, tokens: usize) -> usize {
        self.budget.bytes(tokens)
    }

    /// Requests that wait for a place or for memory.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// What the engine thread is at.
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
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
    pub async fn ping(&self, patience: Duration) -> bool {
        self.health(patience).await == Health::Well
    }

    /// How the engine is; it gets `patience` to answer. A step that takes too long is known at once.
    pub async fn health(&self, patience: Duration) -> Health {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        if !self.healthy.load(Ordering::Acquire)
            || self.commands.send(Command::Ping(reply)).is_err()
        {
            return Health::Stopped;
        }
        let start = Instant::now();
        loop {
            if let Some(stall) = self.watch.stall() {
                return Health::Stalled(stall);
            }
            let left = patience.saturating_sub(start.elapsed());
            match tokio::time::timeout(left.min(GLANCE), &mut answer).await {
                Ok(Ok(())) => return Health::Well,
                Ok(Err(_)) => return Health::Stopped,
                Err(_) if left.is_zero() => return Health::Silent,
                Err(_) => {}
            }
        }
    }

    /// Whether one more may wait.
    pub fn has_room(&self) -> bool {
        self.waiting() < self.queue_limit
    }

    /// Whether a request can be served at all, whatever else is going on.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`].
    pub fn check(&self, request: &Request) -> Result<(), SubmitError> {
        let invalid = |field, reason, message| {
            Err(SubmitError::Invalid {
                field,
                reason,
                message,
            })
        };
        let facts = &self.facts;
        let prompt = &request.prompt;
        if prompt.is_empty() {
            return invalid(
                "prompt",
                Reason::Empty,
                "the prompt is empty; give at least one token".into(),
            );
        }
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= facts.vocab_size) {
            let message = format!(
                "token id {id} in the prompt is outside the vocabulary of {}, whose ids are below {}",
                facts.id, facts.vocab_size
            );
            return invalid("prompt", Reason::Vocabulary, message);
        }
        let room = facts.context_length;
        if prompt.len() > room || (prompt.len() == room && request.max_tokens > 0) {
            let message = format!(
                "the prompt has {} tokens, but the context of {} holds {room} for prompt and answer together; shorten the prompt",
                prompt.len(),
                facts.id
            );
            return invalid("prompt", Reason::Context, message);
        }
        if let Some(n) = request.logprobs.filter(|&n| n > super::MAX_TOP_LOGPROBS) {
            let most = super::MAX_TOP_LOGPROBS;
            return invalid(
                "logprobs",
                Reason::Range,
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
            return invalid("logit_bias", Reason::Range, message);
        }
        if params.min_tokens > request.max_tokens {
            let (least, most) = (params.min_tokens, request.max_tokens);
            let message = format!("min_tokens is {least}, expected at most max_tokens, {most}");
            return invalid("min_tokens", Reason::Range, message);
        }
        params
            .check()
            .or_else(|(field, message)| invalid(field, Reason::Range, message))
    }
}
