//! The engine thread: it loads the model, takes requests from the queue, and runs them together. Everything that is an array lives and dies here.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::decoding::{Decoding, Ended};
use super::explain::Explained;
use super::footprint::Footprint;
use super::handle::{Command, Facts, Handle, Inbox, Submission};
use super::load::{Ready, load, report, room_for_one};
use super::memory::{Admission, Budget, Bytes, Seen};
use super::options::Options;
use super::prefix::Prefixes;
use super::request::Event;
use super::schedule;
use super::sequence::{Progress, Sequence};
use super::warm::{self, Loading};
use super::watch::{Watch, Work};
use crate::cache::LayerCache;
use crate::checkpoint::{GenerationConfig, LoadError, Source};
use crate::mlx::{self, MemoryReport, Runtime, clear_cache, on_cuda};
use crate::models::{Loaded, Model};
use crate::nn::plan;

/// Memory from which a GPU counts as a large one.
const LARGE_GPU: usize = 32 << 30;

/// Tokens that one round computes at most: as many as keep a large GPU's matrix units busy, and elsewhere,
/// of `budget` bytes, as many as take little beside the model. What windows and recurrent layers remember
/// is kept at the ends of chunks only, and latent attention holds its scores, so theirs are short everywhere.
pub(super) fn chunk_for(model: &dyn Model, options: &Options, budget: usize) -> usize {
    let full = |cache: &LayerCache| matches!(cache, LayerCache::Full(_));
    let large = on_cuda() && budget >= LARGE_GPU;
    let default = match large && model.caches().iter().all(full) {
        true => 2048,
        false => 512,
    };
    options.prefill_chunk.unwrap_or(default).max(1)
}

/// The context length for a model whose configuration names none.
const DEFAULT_CONTEXT: usize = 4096;
/// How long nothing has run when buffers kept for reuse go back to the system: a request that follows
/// another finds them.
const IDLE: Duration = Duration::from_secs(1);
/// How often others get to see the memory's state while requests run.
const LOOK: Duration = Duration::from_millis(100);
/// What requests in progress are told when the engine ends in the middle of them.
pub(super) const PANICKED: &str = "the engine ended unexpectedly; restart the server";

/// What the thread owns. Fields drop in this order: the model's arrays before the runtime.
pub(super) struct EngineThread {
    /// Requests whose prompt is through.
    decoding: Decoding,
    /// Requests whose prompt is being computed, in the order in which they came.
    prefilling: Vec<Sequence>,
    /// Requests that wait for a place; their number is bounded by the handle.
    queue: VecDeque<Submission>,
    /// What earlier requests computed.
    prefixes: Prefixes,
    model: Box<dyn Model>,
    pub(super) generation: GenerationConfig,
    inbox: Inbox,
    prefill_chunk: usize,
    max_running: usize,
    /// When the memory's state was last noted for others.
    looked: Instant,
    /// For waiting a limited time; none if it could not be made.
    clock: Option<tokio::runtime::Runtime>,
    _runtime: Runtime,
}

impl EngineThread {
    pub(super) fn load(
        source: &Source,
        options: &Options,
        progress: &dyn Fn(Loading),
    ) -> Result<(Self, Handle), LoadError> {
        let ready = load(source, options, &|done, total| {
            progress(Loading::Weights(done, total));
        })?;
        Self::new(ready, options, progress)
    }

    /// A thread's engine for a model that is loaded.
    pub(super) fn new(
        ready: Ready,
        options: &Options,
        progress: &dyn Fn(Loading),
    ) -> Result<(Self, Handle), LoadError> {
        let Ready {
            runtime,
            loaded,
            budget: (budget, origin),
            started,
            residence,
        } = ready;
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
        let chunk = chunk_for(model.as_ref(), options, budget);
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
            prefill_chunk: chunk,
        };
        let footprint = Footprint::of(model.as_ref(), chunk)?;
        let reserve = options.answer_reserve;
        let budget = Budget::new(budget, facts.weight_bytes, footprint, reserve);
        room_for_one(&budget, &origin)?;
        if options.wire_weights
            && let Err(error) = mlx::set_wired_limit(facts.weight_bytes)
        {
            tracing::warn!("the weights are not wired: {error}");
        }
        let watch = Watch::new(options.watchdog);
        let (handle, inbox) = Handle::within(facts, options.queue_limit, budget, watch);
        let prefixes = Prefixes::new(model.as_ref(), options.prefix_cache, &inbox.budget);
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let mut engine = Self {
            decoding: Decoding::new(prefixes.is_kept()),
            prefilling: Vec::new(),
            queue: VecDeque::new(),
            prefixes,
            model,
            generation,
            inbox,
            prefill_chunk: chunk,
            max_running: options.max_running.max(1),
            looked: started,
            clock: clock.ok(),
            _runtime: runtime,
        };
        mlx::reset_peak_memory()?;
        if options.warm_up {
            engine.warm_up(&handle, progress)?;
        }
        plan::close();
        handle.explain(Explained::now(engine._runtime.device(), residence));
        room_for_one(&engine.inbox.budget, &origin)?;
        engine.look(true);
        report(&handle, &origin);
        Ok((engine, handle))
    }

    /// Runs what [`warm::rounds`] gives, as requests like any others.
    fn warm_up(&mut self, handle: &Handle, progress: &dyn Fn(Loading)) -> Result<(), LoadError> {
        let started = Instant::now();
        let device = self._runtime.device();
        let context = handle.facts().context_length;
        let context = context.min(self.inbox.budget.positions(context));
        let rounds = warm::rounds(device, self.prefill_chunk, self.max_running, context);
        let total = rounds.len() as u64;
        let failed = |why: String| LoadError::Unsupported(format!("warming up failed: {why}"));
        for (done, requests) in rounds.into_iter().enumerate() {
            progress(Loading::WarmUp(done as u64, total));
            let mut listeners = Vec::new();
            for request in requests {
                let claim = handle.claim(&request, false);
                let claim = claim.map_err(|e| failed(e.to_string()))?;
                let (events, listener) = mpsc::channel(request.max_tokens + 3);
                listeners.push(listener);
                self.queue.push_back(Submission {
                    request,
                    events,
                    at: Instant::now(),
                    claim,
                });
            }
            self.inbox
                .waiting
                .fetch_add(listeners.len(), Ordering::AcqRel);
            while self.running() > 0 || !self.queue.is_empty() {
                self.admit();
                self.round();
            }
            if let Err(error) = plan::measure() {
                tracing::warn!("products are computed the usual way: {error}");
            }
            for mut listener in listeners {
                while let Ok(event) = listener.try_recv() {
                    if let Event::Failed(message) = event {
                        return Err(failed(message));
                    }
                }
            }
        }
        // What it computed is of no use to anybody.
        self.prefixes.evict(usize::MAX);
        progress(Loading::WarmUp(total, total));
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!("warmed up {total} shapes in {seconds:.1} s");
        Ok(())
    }

    /// Serves until the last handle is gone. A panic is caught, marks the engine as stopped and
    /// closes every stream.
    pub(super) fn run(mut self) -> Result<(), String> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.serve()));
        self.inbox.healthy.store(false, Ordering::Release);
        outcome.map_err(|panic| {
            self.fail_all();
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            text.unwrap_or("no message").to_string()
        })
    }

    /// Tells every request that the engine has ended.
    fn fail_all(&mut self) {
        for sequence in self.decoding.drain().chain(self.prefilling.drain(..)) {
            sequence.fail(PANICKED.into());
        }
        self.inbox.commands.close();
        let mut waiting: Vec<Submission> = self.queue.drain(..).collect();
        while let Ok(command) = self.inbox.commands.try_recv() {
            if let Command::Submit(submission) = command {
                waiting.push(submission);
            }
        }
        for submission in waiting {
            // Nobody may be listening any more.
            let _ = submission.events.try_send(Event::Failed(PANICKED.into()));
        }
    }

    fn serve(&mut self) {
        let mut seen = 0;
        while self.take_commands() {
            self.round();
            let running = self.running();
            self.look(running == 0 || running != seen);
            seen = running;
        }
    }

    /// Notes where the memory is, for others to see: now, since something has begun or ended, or if it has been
    /// a while.
    fn look(&mut self, now: bool) {
        if !now && self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let budget = &self.inbox.budget;
        let prompts = self.prefilling.iter().flat_map(|sequence| &sequence.caches);
        let prompts: usize = prompts.map(LayerCache::nbytes).sum();
        match mlx::memory() {
            Ok(memory) => budget.set_seen(Seen {
                active: memory.active,
                pool: memory.cache,
                peak: memory.peak,
                kv: self.decoding.nbytes() + prompts,
            }),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// The next command, none when no handle is left. When nothing has come for a while, buffers kept
    /// for reuse go back to the system.
    fn wait(&mut self) -> Option<Command> {
        let commands = &mut self.inbox.commands;
        if let Some(clock) = &self.clock {
            // The timer belongs to the clock, so it is made inside.
            let next = clock.block_on(async { tokio::time::timeout(IDLE, commands.recv()).await });
            if let Ok(command) = next {
                return command;
            }
        }
        if let Err(error) = clear_cache() {
            tracing::warn!("{error}");
        }
        self.look(true);
        self.inbox.commands.blocking_recv()
    }

    /// Takes what has come, waiting if there is nothing else to do. False when the thread is to
    /// end: it was told so, or there is nothing to do and no handle is left.
    fn take_commands(&mut self) -> bool {
        let mut connected = true;
        if self.running() == 0 && self.queue.is_empty() {
            match self.wait() {
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
        self.admit();
        connected || self.running() > 0 || !self.queue.is_empty()
    }

    /// Lets waiting requests run, in the order in which they came: one that has to wait for memory
    /// is not overtaken.
    fn admit(&mut self) {
        let waiting = self.queue.len();
        self.queue
            .retain(|submission| !submission.events.is_closed());
        let mut left = waiting - self.queue.len();
        while self.running() < self.max_running && !self.queue.is_empty() {
            let running = self.running();
            let Some(first) = self.queue.front_mut() else {
                break;
            };
            let prefixes = &mut self.prefixes;
            let mut admission = first.claim.admit(&mut |bytes| prefixes.evict(bytes));
            if admission == Admission::Wait {
                if running > 0 {
                    break;
                }
                // Nothing runs whose end it could wait for.
                admission = first.claim.refused();
            }
            left += 1;
            let Some(submission) = self.queue.pop_front() else {
                break;
            };
            if let Admission::Never { needed, available } = admission {
                let (needed, available) = (Bytes(needed), Bytes(available));
                let message = format!(
                    "the request needs {needed} of memory, but only {available} are left for \
                     requests since a step took more than expected; shorten it, or start the server \
                     with more --memory"
                );
                // Nobody may be listening any more.
                let _ = submission.events.try_send(Event::Failed(message));
                continue;
            }
            let eos_ids = &self.generation.eos_token_id;
            let sequence = Sequence::new(submission, self.model.as_ref(), eos_ids);
            self.prefilling.push(sequence);
        }
        self.inbox.waiting.fetch_sub(left, Ordering::AcqRel);
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

    /// Requests in progress.
    fn running(&self) -> usize {
        self.decoding.len() + self.prefilling.len()
    }

    /// A token for every answer in progress, and prompts as far as the round's budget goes.
    fn round(&mut self) {
        let before = mlx::memory();
        self.prefilling.retain(|sequence| !sequence.is_abandoned());
        let gone = self.decoding.remove(Sequence::is_abandoned);
        self.end(gone);
        for sequence in &mut self.prefilling {
            self.prefixes.start(sequence);
        }
        let (ready, mut unfinished) = self.ready_and_waiting();
        let left: Vec<usize> = ready.iter().map(Sequence::prompt_left).collect();
        let shares = schedule::share(&left, self.decoding.len(), self.prefill_chunk);
        self.decode();
        for (mut sequence, tokens) in ready.into_iter().zip(shares) {
            if tokens == 0 {
                unfinished.push(sequence);
                continue;
            }
            match self.prefill(&mut sequence, tokens) {
                Ok(Progress::Going) if sequence.pending.is_some() => {
                    let ended = self.decoding.admit(sequence);
                    self.end(ended);
                }
                Ok(Progress::Going) => unfinished.push(sequence),
                Ok(Progress::Done) => self.end(vec![(sequence, Ok(()))]),
                Err(error) => self.end(vec![(sequence, Err(error))]),
            }
        }
        unfinished.sort_by_key(Sequence::began);
        self.prefilling = unfinished;
        if let (Ok(before), Ok(after)) = (before, mlx::memory()) {
            self.note_step(before, after);
        }
    }

    /// Notes what a round took in passing, from the memory before and after it.
    fn note_step(&self, before: MemoryReport, after: MemoryReport) {
        if after.peak <= before.peak {
            return;
        }
        // What was there neither before nor after passed by.
        let passing = after.peak - before.active.max(after.active).min(after.peak);
        if self.inbox.budget.set_step(passing) {
            let budget = &self.inbox.budget;
            let (step, left) = (Bytes(passing), Bytes(budget.capacity()));
            tracing::debug!(
                "a step took {step} in passing, more than expected; {left} are left for sequences"
            );
        }
    }

    /// Prompts that can get on, and those at whose end a form is not ready yet: nobody else waits
    /// for it.
    fn ready_and_waiting(&mut self) -> (Vec<Sequence>, Vec<Sequence>) {
        // With no answer to get on with, the loop must not spin; commands still come soon enough.
        let idle = self.decoding.len() == 0;
        let mut patience = Duration::from_millis(if idle { 2 } else { 0 });
        let (mut ready, mut waiting) = (Vec::new(), Vec::new());
        for mut sequence in std::mem::take(&mut self.prefilling) {
            match sequence.waits_for_host(self.prefill_chunk, patience) {
                true => {
                    patience = Duration::ZERO;
                    waiting.push(sequence);
                }
                false => ready.push(sequence),
            }
        }
        (ready, waiting)
    }

    /// A step of all answers in progress.
    fn decode(&mut self) {
        let sequences = self.decoding.len();
        if sequences == 0 {
            return;
        }
        let _working = self.inbox.watch.begin(Work::Decode { sequences });
        let prefixes = &mut self.prefixes;
        self.decoding.secure(&mut |bytes| prefixes.evict(bytes));
        let ended = self.decoding.step(self.model.as_ref());
        self.end(ended);
    }

    fn prefill(&mut self, sequence: &mut Sequence, tokens: usize) -> mlx::Result<Progress> {
        let offset = sequence.held();
        let _working = self.inbox.watch.begin(Work::Prefill { tokens, offset });
        let model = self.model.as_ref();
        let alone = self.decoding.len() == 0;
        self.prefixes.prefill(model, sequence, tokens, alone)
    }

    /// Takes leave of sequences: those that failed are told, what the others computed is kept for
    /// later ones.
    fn end(&mut self, ended: Vec<Ended>) {
        for (sequence, outcome) in ended {
            match outcome {
                Ok(()) => self.prefixes.end(&sequence),
                Err(error) => {
                    tracing::error!("a request failed: {error}");
                    sequence.fail(format!("the model failed on this request: {error}"));
                }
            }
        }
    }
}
