//! What the engine thread is at, for others to see, and a watchdog that reports a step that hangs.
//!
//! A step on the device cannot be interrupted; what can be done is to say where it hangs, to answer
//! that the engine is not well for as long as it does, and to end the process if that is wanted.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One step's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// So many tokens of a prompt.
    Prefill {
        /// How many.
        tokens: usize,
        /// The position of the first of them.
        offset: usize,
    },
    /// A token for each of so many sequences.
    Decode {
        /// How many.
        sequences: usize,
    },
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Prefill { tokens, offset } => {
                write!(
                    f,
                    "the prefill of {tokens} tokens from position {offset} on"
                )
            }
            Work::Decode { sequences } => write!(f, "the decoding of {sequences} sequences"),
        }
    }
}

/// A step that has taken too long and is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// What it is.
    pub work: Work,
    /// How long it has taken so far.
    pub lasted: Duration,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lasted.as_secs_f64();
        write!(f, "{} has taken {seconds:.0} s so far", self.work)
    }
}

/// What the engine thread is at.
#[derive(Debug)]
pub struct Watch {
    /// How long a step may take; for ever if not given.
    patience: Option<Duration>,
    step: Mutex<Option<(Instant, Work)>>,
}

impl Watch {
    /// For steps that take `patience` at most.
    pub fn new(patience: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            patience,
            step: Mutex::new(None),
        })
    }

    /// Notes that a step begins; it ends when what is returned is dropped.
    pub fn begin(self: &Arc<Self>, work: Work) -> Working {
        *self.step() = Some((Instant::now(), work));
        Working(self.clone())
    }

    /// The step that has taken too long, while it does.
    pub fn stall(&self) -> Option<Stall> {
        let (since, work) = (*self.step())?;
        let lasted = since.elapsed();
        (lasted > self.patience?).then_some(Stall { work, lasted })
    }

    fn step(&self) -> MutexGuard<'_, Option<(Instant, Work)>> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step in progress.
pub struct Working(Arc<Watch>);

impl Drop for Working {
    fn drop(&mut self) {
        *self.0.step() = None;
    }
}

/// A thread that looks at a [`Watch`] now and then. It ends when this is dropped.
pub struct Watchdog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts looking; nothing if no step can take too long. A stall is logged when it is seen, then
    /// `stalled` is called, and its end is logged too.
    ///
    /// # Errors
    /// If the thread cannot start.
    pub fn start(
        watch: &Arc<Watch>,
        stalled: impl Fn() + Send + 'static,
    ) -> std::io::Result<Option<Self>> {
        let Some(patience) = watch.patience else {
            return Ok(None);
        };
        let tick = (patience / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let (watch, stop) = (watch.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let body = move || {
            let mut seen: Option<Stall> = None;
            while !stopped.load(Ordering::Acquire) {
                std::thread::park_timeout(tick);
                match (watch.stall(), seen) {
                    (Some(stall), None) => {
                        tracing::error!("a step hangs: {stall}");
                        seen = Some(stall);
                        stalled();
                    }
                    (None, Some(stall)) => {
                        tracing::warn!("the step that hung is over: it was {}", stall.work);
                        seen = None;
                    }
                    _ => {}
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(body)?;
        Ok(Some(Self {
            stop,
            thread: Some(thread),
        }))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It calls nothing that panics but what it was given; a panic there is on record.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_seen_while_it_lasts_and_reported_once() {
        let watch = Watch::new(Some(Duration::from_millis(500)));
        let (told, reports) = std::sync::mpsc::channel();
        let dog = Watchdog::start(&watch, move || told.send(()).unwrap()).unwrap();
        for _ in 0..20 {
            // Short steps, one after the other, are none.
            let _working = watch.begin(Work::Decode { sequences: 1 });
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(reports.try_recv().is_err());
        let (tokens, offset) = (512, 1024);
        let working = watch.begin(Work::Prefill { tokens, offset });
        reports.recv_timeout(Duration::from_secs(20)).unwrap();
        let stall = watch.stall().unwrap();
        assert_eq!(stall.work, Work::Prefill { tokens, offset });
        assert!(stall.to_string().contains("512 tokens from position 1024"));
        drop(working);
        assert_eq!(watch.stall(), None);
        drop(dog);
        assert!(reports.try_recv().is_err(), "once");
    }

    #[test]
    fn without_patience_nothing_is_watched() {
        let watch = Watch::new(None);
        assert!(Watchdog::start(&watch, || {}).unwrap().is_none());
        let _working = watch.begin(Work::Decode { sequences: 1 });
        assert_eq!(watch.stall(), None);
    }
}
