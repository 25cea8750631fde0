//! Starting an engine thread, and ending it.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::handle::Handle;
use super::options::Options;
use super::thread::EngineThread;
use super::warm::Loading;
use super::watch::{Watch, Watchdog};
use crate::checkpoint::{GenerationConfig, LoadError, Source};
use crate::mlx;

/// How an engine thread ended: with the message of its panic, if it panicked.
type Outcome = Result<(), String>;

/// A running engine thread. Dropping it ends the thread and waits for that: the process must not
/// end while MLX computes, because MLX's own threads would outlive its global state.
pub struct Engine {
    /// The way to it.
    pub handle: Handle,
    /// The end-of-sequence tokens and sampling defaults that came with the model.
    pub generation: GenerationConfig,
    /// The thread, and word of its end.
    thread: Option<(JoinHandle<()>, Mutex<Receiver<Outcome>>)>,
    _watchdog: Option<Watchdog>,
}

/// The watchdog of an engine thread; without one if it cannot start.
fn watchdog(watch: &Arc<Watch>, exit: bool) -> Option<Watchdog> {
    let stalled = move || {
        if exit {
            tracing::error!("the process ends because a step hangs (--watchdog-exit)");
            mlx::quit(70);
        }
    };
    let started = Watchdog::start(watch, stalled);
    started.unwrap_or_else(|error| {
        tracing::error!("there is no watchdog, its thread cannot start: {error}");
        None
    })
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
        Self::start_showing(source, options, move |phase| {
            if let Loading::Weights(done, total) = phase {
                progress(done, total);
            }
        })
    }

    /// The same; `progress` is told of every phase.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_showing(
        source: Source,
        options: Options,
        progress: impl Fn(Loading) + Send + 'static,
    ) -> Result<Engine, LoadError> {
        let exit = options.watchdog_exit;
        let load = move || EngineThread::load(&source, &options, &progress);
        Self::spawn(load, exit)
    }

    /// Starts a thread that serves what `load` makes on it.
    pub(super) fn spawn(
        load: impl FnOnce() -> Result<(EngineThread, Handle), LoadError> + Send + 'static,
        watchdog_exit: bool,
    ) -> Result<Engine, LoadError> {
        let (loaded, wait) = std::sync::mpsc::channel();
        let (ended, end) = std::sync::mpsc::channel::<Outcome>();
        let body = move || {
            let engine = match load() {
                Ok((engine, handle)) => {
                    let generation = engine.generation.clone();
                    let watch = handle.watch().clone();
                    // The starter may have gone; then the handle's drop ends the loop at once.
                    let _ = loaded.send(Ok((handle, generation, watch)));
                    engine
                }
                Err(error) => {
                    let _ = loaded.send(Err(error));
                    return mlx::leave_thread();
                }
            };
            // Nobody may wait for it.
            let _ = ended.send(engine.run());
            mlx::leave_thread();
        };
        let started = std::thread::Builder::new()
            .name("engine".into())
            .spawn(body);
        let thread = started
            .map_err(|e| LoadError::Unsupported(format!("the engine thread cannot start: {e}")))?;
        match wait.recv() {
            Ok(Ok((handle, generation, watch))) => Ok(Engine {
                handle,
                generation,
                thread: Some((thread, Mutex::new(end))),
                _watchdog: watchdog(&watch, watchdog_exit),
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
        let Some((thread, end)) = self.thread.take() else {
            return Ok(());
        };
        let end = end.into_inner().unwrap_or_else(PoisonError::into_inner);
        let outcome = end.recv();
        if mlx::threads_end() {
            let joined = thread.join();
            joined.map_err(|_| "a panic while it ended".to_string())?;
        }
        outcome.unwrap_or_else(|_| Err("it gave no word of its end".into()))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(message) = self.stop() {
            tracing::error!("the engine ended unexpectedly: {message}");
        }
    }
}
