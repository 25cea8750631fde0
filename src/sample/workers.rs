//! Threads for work that the engine's thread must not do itself.
//!
//! They start when there is work for them, as many as there are processors (two at least) and no
//! more, and stay. A panic in a piece of work ends neither the thread nor anything but that piece.
//! One thread is always free of work that may take long, for that which a step waits for.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Work = Box<dyn FnOnce() + Send>;

struct Pool {
    state: Mutex<State>,
    more: Condvar,
}

struct State {
    urgent: VecDeque<Work>,
    long: VecDeque<Work>,
    /// Threads, and of these those that wait for work and those that do long work.
    threads: usize,
    idle: usize,
    n_long: usize,
}

/// How long a piece of work may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A step waits for it.
    Urgent,
    /// Nothing waits for it but its own request.
    Long,
}

static POOL: Pool = Pool {
    state: Mutex::new(State {
        urgent: VecDeque::new(),
        long: VecDeque::new(),
        threads: 0,
        idle: 0,
        n_long: 0,
    }),
    more: Condvar::new(),
};

/// The result of a piece of work, once it is there.
pub struct Promise<T> {
    result: Receiver<Result<T, String>>,
    come: Option<Result<T, String>>,
}

impl<T> Promise<T> {
    /// Waits for it.
    ///
    /// # Errors
    /// If the work panicked or no thread could be started; the text says so.
    pub fn wait(self) -> Result<T, String> {
        let come = self.come.or_else(|| self.result.recv().ok());
        come.unwrap_or_else(|| Err(GONE.into()))
    }

    /// Whether it has come, or comes within `patience`.
    pub fn is_there(&mut self, patience: Duration) -> bool {
        if self.come.is_none() {
            self.come = match self.result.recv_timeout(patience) {
                Ok(result) => Some(result),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Err(GONE.into())),
            };
        }
        self.come.is_some()
    }
}

const GONE: &str = "the thread that worked on it is gone";

/// Has a piece of work done on another thread.
pub fn spawn<T: Send + 'static>(
    kind: Kind,
    work: impl FnOnce() -> T + Send + 'static,
) -> Promise<T> {
    let (done, result) = channel();
    let failed = done.clone();
    let work: Work = Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        // Nobody may be waiting any more.
        let _ = done.send(result.map_err(|panic| format!("a panic: {}", message(&*panic))));
    });
    if let Err(error) = POOL.add(kind, work) {
        let _ = failed.send(Err(format!("a thread cannot start: {error}")));
    }
    Promise { result, come: None }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// Threads at most.
fn most_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().max(2))
}

impl State {
    fn queue(&mut self, kind: Kind) -> &mut VecDeque<Work> {
        match kind {
            Kind::Urgent => &mut self.urgent,
            Kind::Long => &mut self.long,
        }
    }

    fn next(&mut self) -> Option<(Kind, Work)> {
        if let Some(work) = self.urgent.pop_front() {
            return Some((Kind::Urgent, work));
        }
        if self.n_long + 1 >= most_threads() {
            return None;
        }
        let work = self.long.pop_front()?;
        self.n_long += 1;
        Some((Kind::Long, work))
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Work runs outside the lock, so a panic cannot leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&'static self, kind: Kind, work: Work) -> std::io::Result<()> {
        let mut state = self.lock();
        state.queue(kind).push_back(work);
        let waiting = state.urgent.len() + state.long.len();
        if waiting > state.idle && state.threads < most_threads() {
            let builder = std::thread::Builder::new().name("guide".into());
            match builder.spawn(|| self.work()) {
                Ok(_) => state.threads += 1,
                // Another thread will come to it.
                Err(_) if state.threads > 1 => {}
                Err(error) => {
                    state.queue(kind).pop_back();
                    return Err(error);
                }
            }
        }
        drop(state);
        self.more.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            match state.next() {
                Some((kind, work)) => {
                    drop(state);
                    work();
                    state = self.lock();
                    state.n_long -= usize::from(kind == Kind::Long);
                }
                None => {
                    state.idle += 1;
                    let woken = self.more.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_piece_is_done_by_a_bounded_number_of_threads() {
        let most = most_threads();
        let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let promises: Vec<_> = (0..100)
            .map(|i| {
                let (now, peak) = (now.clone(), peak.clone());
                spawn(Kind::Urgent, move || {
                    peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(1));
                    now.fetch_sub(1, Ordering::SeqCst);
                    i
                })
            })
            .collect();
        let done: Vec<i32> = promises.into_iter().map(|p| p.wait().unwrap()).collect();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
        assert!(peak.load(Ordering::SeqCst) <= most);
        assert!(POOL.lock().threads <= most);
    }

    #[test]
    fn a_panic_is_told_and_the_next_piece_done() {
        for _ in 0..20 {
            let failed = spawn(Kind::Long, || -> u32 { panic!("number {}", 7) }).wait();
            assert_eq!(failed, Err("a panic: number 7".into()));
            assert_eq!(spawn(Kind::Urgent, || 3).wait(), Ok(3));
        }
    }

    #[test]
    fn a_result_can_be_waited_for_in_turns() {
        let (go, wait) = channel();
        let mut promise = spawn(Kind::Long, move || wait.recv().unwrap_or(0) + 1);
        assert!(!promise.is_there(Duration::ZERO));
        assert!(!promise.is_there(Duration::from_millis(5)));
        go.send(4).unwrap();
        assert!(promise.is_there(Duration::from_secs(20)));
        assert!(promise.is_there(Duration::ZERO));
        assert_eq!(promise.wait(), Ok(5));
    }

    #[test]
    fn long_work_never_takes_all_threads() {
        let (go, wait) = channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let long: Vec<_> = (0..3 * most_threads())
            .map(|_| {
                let wait = wait.clone();
                // Until the sender is gone.
                spawn(Kind::Long, move || {
                    wait.lock().map(|wait| wait.recv().is_err()).unwrap()
                })
            })
            .collect();
        for i in 0..20 {
            assert_eq!(spawn(Kind::Urgent, move || i).wait(), Ok(i));
        }
        drop(go);
        assert!(long.into_iter().all(|long| long.wait() == Ok(true)));
    }
}
