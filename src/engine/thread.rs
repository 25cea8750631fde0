//! The engine thread: it loads the model, takes requests from the queue, and runs them together. Everything that is an array lives and dies here.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;

use super::handle::{Command, Facts, Handle, Inbox, Submission};
use super::schedule;
use super::sequence::{Progress, Sequence};
use super::step;
use crate::cache::Batch;
use crate::checkpoint::{Adapters, GenerationConfig, LoadError, Source, WeightsAs};
use crate::mlx::{self, Device, Dtype, Runtime, clear_cache};
use crate::models::{self, Loaded, Model};

/// What becomes of the weights, as a user asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightsMode {
    /// What is fastest on the device: stored form on a GPU, float32 on a CPU.
    #[default]
    Auto,
    /// As stored, packed ones included.
    Keep,
    /// Unpacked, as this type.
    Dense(Dtype),
}

/// How to load and run a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name it is served under.
    pub id: String,
    /// Tokens that end an answer, beside those that the model's configuration names.
    pub eos_ids: Vec<u32>,
    /// What it runs on; the best there is if not given.
    pub device: Option<Device>,
    /// What becomes of the weights.
    pub weights: WeightsMode,
    /// The directory of a fine-tune (`adapters.safetensors`), if there is one.
    pub adapters: Option<Source>,
    /// Tokens that one round computes at most, of prompts and answers together.
    pub prefill_chunk: usize,
    /// Tokens of prompt and answer together; the model's own limit if not given.
    pub context_length: Option<usize>,
    /// Requests that may wait beside the running ones.
    pub queue_limit: usize,
    /// Requests that run at a time.
    pub max_running: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            id: "model".into(),
            eos_ids: Vec::new(),
            device: None,
            weights: WeightsMode::default(),
            adapters: None,
            prefill_chunk: 512,
            context_length: None,
            queue_limit: 64,
            max_running: 4,
        }
    }
}

impl WeightsMode {
    fn on(self, device: Device) -> WeightsAs {
        match self {
            WeightsMode::Keep => WeightsAs::Stored,
            WeightsMode::Dense(dtype) => WeightsAs::Dense(dtype),
            // MLX's CPU backend multiplies packed and 16-bit weights several times slower.
            WeightsMode::Auto if device == Device::Cpu => WeightsAs::Dense(Dtype::Float32),
            WeightsMode::Auto => WeightsAs::Stored,
        }
    }
}

/// Binds this thread to the device and loads the model, as `options` say.
pub(super) fn load(
    source: &Source,
    options: &Options,
    progress: &dyn Fn(u64, u64),
) -> Result<(Runtime, Loaded), LoadError> {
    let device = options.device.unwrap_or_else(Device::best);
    let runtime = Runtime::enter(device)?;
    let adapters = options.adapters.as_ref().map(Adapters::open).transpose()?;
    let weights_as = options.weights.on(device);
    let loaded = models::load_adapted(source, adapters.as_ref(), weights_as, progress)?;
    Ok((runtime, loaded))
}

/// The context length for a model whose configuration names none.
const DEFAULT_CONTEXT: usize = 4096;

/// A running engine thread. Dropping it ends the thread and waits for that: the process must not
/// end while MLX computes, because MLX's own threads would outlive its global state.
pub struct Engine {
    /// The way to it.
    pub handle: Handle,
    /// The end-of-sequence tokens and sampling defaults that came with the model.
    pub generation: GenerationConfig,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Engine {
    /// Starts a thread that loads the model at `source` and serves it. Blocks until it is loaded;
    /// `progress` is told the bytes read so far and in all, on that thread.
    ///
    /// # Errors
    /// What loading the model said.
    pub fn start(
        source: Source,
        options: Options,
        progress: impl Fn(u64, u64) + Send + 'static,
    ) -> Result<Engine, LoadError> {
        let (loaded, wait) = std::sync::mpsc::channel();
        let body = move || {
            let engine = match EngineThread::load(&source, &options, &progress) {
                Ok((engine, handle)) => {
                    let generation = engine.generation.clone();
                    // The starter may have gone; then the handle's drop ends the loop at once.
                    let _ = loaded.send(Ok((handle, generation)));
                    engine
                }
                Err(error) => {
                    let _ = loaded.send(Err(error));
                    return Ok(());
                }
            };
            engine.run()
        };
        let started = std::thread::Builder::new()
            .name("engine".into())
            .spawn(body);
        let thread = started
            .map_err(|e| LoadError::Unsupported(format!("the engine thread cannot start: {e}")))?;
        match wait.recv() {
            Ok(Ok((handle, generation))) => Ok(Engine {
                handle,
                generation,
                thread: Some(thread),
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let message = "the engine thread ended while it loaded the model (see above)";
                Err(LoadError::Unsupported(message.into()))
            }
        }
    }
}

impl Engine {
    /// Ends the thread and waits until it has; requests in progress see their channels close.
    ///
    /// # Errors
    /// The message of the panic that ended the thread, if one did.
    pub fn stop(&mut self) -> Result<(), String> {
        self.handle.stop();
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err("a panic while it ended".into()),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(message) = self.stop() {
            tracing::error!("the engine ended unexpectedly: {message}");
        }
    }
}

/// What the thread owns. Fields drop in this order: the model's arrays before the runtime.
struct EngineThread {
    /// Requests in progress, in the order in which they came.
    running: Vec<Sequence>,
    /// Requests that wait for a place; their number is bounded by the handle.
    queue: VecDeque<Submission>,
    model: Box<dyn Model>,
    generation: GenerationConfig,
    inbox: Inbox,
    prefill_chunk: usize,
    max_running: usize,
    _runtime: Runtime,
}

impl EngineThread {
    fn load(
        source: &Source,
        options: &Options,
        progress: &dyn Fn(u64, u64),
    ) -> Result<(Self, Handle), LoadError> {
        let started = Instant::now();
        let (runtime, loaded) = load(source, options, progress)?;
        let Loaded {
            model,
            model_type,
            mut generation,
            text_only,
        } = loaded;
        for id in &options.eos_ids {
            if !generation.eos_token_id.contains(id) {
                generation.eos_token_id.push(*id);
            }
        }
        if runtime.device() == Device::Gpu {
            warm_up(model.as_ref())?;
        }
        let facts = model.facts();
        let own = facts.context_length.unwrap_or(DEFAULT_CONTEXT);
        let facts = Facts {
            id: options.id.clone(),
            model_type,
            context_length: options.context_length.map_or(own, |asked| asked.min(own)),
            vocab_size: facts.vocab_size,
            eos_ids: generation.eos_token_id.clone(),
            weight_bytes: facts.weight_bytes,
            text_only,
            load_seconds: started.elapsed().as_secs_f64(),
        };
        let (handle, inbox) = Handle::new(facts, options.queue_limit);
        let engine = Self {
            running: Vec::new(),
            queue: VecDeque::new(),
            model,
            generation,
            inbox,
            prefill_chunk: options.prefill_chunk,
            max_running: options.max_running.max(1),
            _runtime: runtime,
        };
        Ok((engine, handle))
    }

    /// Serves until the last handle is gone. A panic is caught, marks the engine as stopped and
    /// closes every stream.
    fn run(mut self) -> Result<(), String> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.serve()));
        self.inbox.healthy.store(false, Ordering::Release);
        outcome.map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            text.unwrap_or("no message").to_string()
        })
    }

    fn serve(&mut self) {
        while self.take_commands() {
            self.round();
            if self.running.is_empty() {
                // Nothing runs: buffers kept for reuse go back to the system.
                if let Err(error) = clear_cache() {
                    tracing::warn!("{error}");
                }
            }
        }
    }

    /// Takes what has come, waiting if there is nothing else to do. False when the thread is to
    /// end: it was told so, or there is nothing to do and no handle is left.
    fn take_commands(&mut self) -> bool {
        let mut connected = true;
        if self.running.is_empty() && self.queue.is_empty() {
            match self.inbox.commands.blocking_recv() {
                Some(Command::Stop) | None => return false,
                Some(command) => self.take(command),
            }
        }
        // All of them, however many run: a ping must not wait for a place, and what was cancelled
        // must not take one in the queue.
        loop {
            match self.inbox.commands.try_recv() {
                Ok(Command::Stop) => return false,
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    connected = false;
                    break;
                }
            }
        }
        let waiting = self.queue.len();
        self.queue
            .retain(|submission| !submission.events.is_closed());
        let mut left = waiting - self.queue.len();
        while self.running.len() < self.max_running
            && let Some(submission) = self.queue.pop_front()
        {
            left += 1;
            let eos_ids = &self.generation.eos_token_id;
            let sequence = Sequence::new(submission, self.model.as_ref(), eos_ids);
            self.running.push(sequence);
        }
        self.inbox.waiting.fetch_sub(left, Ordering::AcqRel);
        connected || !self.running.is_empty()
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(submission) => self.queue.push_back(submission),
            Command::Ping(reply) => {
                // Nobody may be waiting any more.
                let _ = reply.send(());
            }
            Command::Stop => {}
        }
    }

    /// A token for every answer in progress, and prompts as far as the round's budget goes.
    fn round(&mut self) {
        self.running.retain(|sequence| !sequence.is_abandoned());
        let (decoding, prefilling): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|sequence| sequence.pending.is_some());
        let prefilling = self.without_waiting(prefilling, decoding.is_empty());
        let left: Vec<usize> = prefilling.iter().map(Sequence::prompt_left).collect();
        let shares = schedule::share(&left, decoding.len(), self.prefill_chunk);
        self.decode(decoding);
        let mut shares = shares.into_iter();
        for sequence in prefilling {
            match shares.next() {
                Some(tokens) => self.prefill(sequence, tokens),
                None => self.running.push(sequence),
            }
        }
    }

    /// Puts off those at the end of whose prompt a form is not ready yet, so that nobody else waits
    /// for it.
    fn without_waiting(&mut self, prefilling: Vec<Sequence>, idle: bool) -> Vec<Sequence> {
        // With no answer to get on with, the loop must not spin; commands still come soon enough.
        let mut patience = Duration::from_millis(if idle { 2 } else { 0 });
        let mut ready = Vec::with_capacity(prefilling.len());
        for mut sequence in prefilling {
            match sequence.waits_for_host(self.prefill_chunk, patience) {
                true => {
                    patience = Duration::ZERO;
                    self.running.push(sequence);
                }
                false => ready.push(sequence),
            }
        }
        ready
    }

    /// One step of all these. An error ends those that take part in it and no others.
    fn decode(&mut self, mut sequences: Vec<Sequence>) {
        // One step ahead, unless the pending token is the last that may come.
        let mut ahead: Vec<&mut Sequence> = sequences.iter_mut().filter(|s| s.goes_on()).collect();
        let mut current = match ahead.is_empty() {
            true => Ok(Vec::new()),
            false => step::advance(self.model.as_ref(), &mut ahead),
        }
        .map(Vec::into_iter);
        for mut sequence in sequences {
            let pending = match (sequence.goes_on(), &mut current) {
                // Its last token is not part of the step.
                (false, _) => Ok(sequence.pending.take()),
                (true, Ok(current)) => Ok(current.next().flatten()),
                (true, Err(error)) => Err(error.clone()),
            };
            let progress = pending.and_then(|pending| match pending {
                Some(pending) => sequence.take(&pending),
                None => Ok(Progress::Done),
            });
            self.keep(sequence, progress);
        }
    }

    fn prefill(&mut self, mut sequence: Sequence, tokens: usize) {
        let progress = sequence.prefill(self.model.as_ref(), tokens);
        self.keep(sequence, progress);
    }

    fn keep(&mut self, sequence: Sequence, progress: mlx::Result<Progress>) {
        match progress {
            Ok(Progress::Going) => self.running.push(sequence),
            Ok(Progress::Done) => {}
            Err(error) => {
                tracing::error!("a request failed: {error}");
                sequence.fail(format!("the model failed on this request: {error}"));
            }
        }
    }
}

/// Runs a prompt and a step, so that a GPU's kernels are compiled before the first request.
fn warm_up(model: &dyn Model) -> mlx::Result<()> {
    let mut caches = model.caches();
    for (tokens, offset) in [(&[0u32; 8][..], 0), (&[0u32][..], 8)] {
        let hidden = model.forward(&Batch::single(tokens, offset)?, &mut caches)?;
        let l = hidden.dim(1)?;
        let logits = model.unembed(&hidden.slice_axis(1, l - 1, l)?)?;
        logits.argmax()?.eval()?;
    }
    Ok(())
}
