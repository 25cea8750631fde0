//! Threads that share the parts of one job: they spin for a moment after each, then sleep.
//!
//! One job at a time. Each thread has a run of neighbouring parts, so that it reads memory straight on,
//! and then takes what is left of the others': a thread that the system holds back delays the job by
//! one part at most, and one that has not woken yet is not waited for. The calling thread works too; a
//! second caller, or a job within a job, works alone. No allocation a job.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a thread without work looks for more before it sleeps.
const SPIN: Duration = Duration::from_micros(200);

/// The most threads there are, whatever is asked for.
const MOST: usize = 256;

/// In [`Pool::state`]: the threads at work on the job, besides the caller.
const JOINED: u64 = (1 << 16) - 1;
/// In [`Pool::state`]: no thread may join any more.
const CLOSED: u64 = 1 << 16;
/// In [`Pool::state`]: the number of the job, from this bit up.
const JOB: u64 = 1 << 17;

/// What the threads do: called with the number of a part.
type Task = dyn Fn(usize) + Sync;

#[derive(Clone, Copy)]
struct Job {
    task: *const Task,
    parts: usize,
    /// Threads that may work on it, its caller among them.
    threads: usize,
}

impl Job {
    /// The parts that thread `i` takes first.
    fn run(&self, i: usize) -> Range<usize> {
        i * self.parts / self.threads..(i + 1) * self.parts / self.threads
    }
}

/// The next part of a thread's run, in a cache line of its own.
#[repr(align(64))]
struct Next(AtomicUsize);

struct Pool {
    /// Held while a job runs; counts the threads that were started.
    started: Mutex<usize>,
    /// Written only while closed and nobody has joined.
    job: UnsafeCell<Option<Job>>,
    state: AtomicU64,
    next: [Next; MOST],
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
    /// Whether the caller sleeps until all that joined have left.
    waits: AtomicBool,
    left: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written by the holder of `started` alone, before it opens `state` (release) and
// after all that joined have left (acquire); threads read it only while they have joined. The task
// behind its pointer is `Sync` and outlives the job, because the caller waits.
unsafe impl Sync for Pool {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Pool {}

static POOL: OnceLock<Pool> = OnceLock::new();

/// Calls `task` with every number below `parts`, each once, on up to `threads` threads.
///
/// # Panics
/// If `task` does, on whichever thread; all others have ended by then.
pub(crate) fn run(threads: usize, parts: usize, task: &(dyn Fn(usize) + Sync)) {
    let alone = || (0..parts).for_each(task);
    let threads = threads.min(parts).min(MOST);
    if threads <= 1 {
        return alone();
    }
    let pool = POOL.get_or_init(Pool::new);
    let mut started = match pool.started.try_lock() {
        Ok(started) => started,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return alone(),
    };
    while *started < threads - 1 {
        let guest = *started;
        let thread = std::thread::Builder::new().name(format!("kernels-{guest}"));
        // A machine that gives no more threads gets along with fewer.
        if thread.spawn(move || pool.guest(guest)).is_err() {
            break;
        }
        *started += 1;
    }
    pool.serve(Job {
        // SAFETY: only the lifetime changes; `serve` returns after the last use.
        task: unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Task>(task)
        },
        parts,
        threads,
    });
}

impl Pool {
    fn new() -> Pool {
        Pool {
            started: Mutex::new(0),
            job: UnsafeCell::new(None),
            state: AtomicU64::new(CLOSED),
            next: [const { Next(AtomicUsize::new(0)) }; MOST],
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            waits: AtomicBool::new(false),
            left: Condvar::new(),
            panic: Mutex::new(None),
        }
    }

    /// Runs a job to its end; the caller holds `started`.
    fn serve(&self, job: Job) {
        // SAFETY: closed, and nobody has joined: the last job's caller saw to it.
        unsafe { *self.job.get() = Some(job) };
        for (i, next) in self.next[..job.threads].iter().enumerate() {
            next.0.store(job.run(i).start, Ordering::Relaxed);
        }
        let last = self.state.load(Ordering::Relaxed);
        self.state
            .store((last | JOINED | CLOSED) + 1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.bed.lock().unwrap_or_else(PoisonError::into_inner));
            self.bell.notify_all();
        }
        self.work(job, 0);
        self.state.fetch_or(CLOSED, Ordering::Relaxed);
        self.wait_for_guests();
        let mut panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(panic) = panic.take() {
            resume_unwind(panic);
        }
    }

    /// Waits until all that joined have left. One that the system holds back takes its time, and may
    /// need this thread's core: looking on would keep it from that.
    fn wait_for_guests(&self) {
        let start = Instant::now();
        loop {
            for _ in 0..32 {
                if self.state.load(Ordering::Acquire) & JOINED == 0 {
                    return;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= SPIN {
                break;
            }
        }
        let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the last look: either this thread sees the last guest leave or that one sees it wait.
        self.waits.store(true, Ordering::SeqCst);
        while self.state.load(Ordering::SeqCst) & JOINED != 0 {
            bed = self.left.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.waits.store(false, Ordering::Relaxed);
    }

    /// Takes parts until there are none left, as thread `me` of the job. A panic ends the job.
    fn work(&self, job: Job, me: usize) {
        // SAFETY: the job's caller waits for all that joined, and is one of them.
        let task = unsafe { &*job.task };
        let done = catch_unwind(AssertUnwindSafe(|| {
            for i in (me..job.threads).chain(0..me) {
                let (next, end) = (&self.next[i].0, job.run(i).end);
                loop {
                    let part = next.fetch_add(1, Ordering::Relaxed);
                    if part >= end {
                        break;
                    }
                    task(part);
                }
            }
        }));
        if let Err(panic) = done {
            for next in &self.next[..job.threads] {
                next.0.store(job.parts, Ordering::Relaxed);
            }
            let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(panic);
        }
    }

    /// The life of thread number `guest`.
    fn guest(&self, guest: usize) -> ! {
        let mut seen = 0;
        loop {
            let state = self.wait(seen);
            seen = state / JOB;
            if state & CLOSED != 0 {
                continue;
            }
            let joined =
                self.state
                    .compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
            if joined.is_err() {
                // Another joined at the same moment, or the job has ended: look again.
                seen = seen.wrapping_sub(1);
                continue;
            }
            // SAFETY: joined, so the job stays as it is until this thread leaves.
            if let Some(job) = unsafe { *self.job.get() }
                && guest + 1 < job.threads
            {
                self.work(job, guest + 1);
            }
            self.state.fetch_sub(1, Ordering::SeqCst);
            if self.waits.load(Ordering::SeqCst) {
                drop(self.bed.lock().unwrap_or_else(PoisonError::into_inner));
                self.left.notify_one();
            }
        }
    }

    /// Waits until the number of the job is not `seen`.
    fn wait(&self, seen: u64) -> u64 {
        let start = Instant::now();
        loop {
            for _ in 0..32 {
                let state = self.state.load(Ordering::Acquire);
                if state / JOB != seen {
                    return state;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() < SPIN {
                continue;
            }
            let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
            // Before the last look: either this thread sees the new job or its caller the sleeper.
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while self.state.load(Ordering::SeqCst) / JOB == seen {
                bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
            return self.state.load(Ordering::Acquire);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// Held by each test: jobs beside each other run alone, which is not what is tested.
    static ONE: Mutex<()> = Mutex::new(());

    fn one() -> std::sync::MutexGuard<'static, ()> {
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn each_part_is_done_once() {
        let _one = one();
        for round in 0..if cfg!(miri) { 3 } else { 2000 } {
            let parts = round % 37;
            let done: Vec<AtomicU32> = (0..parts).map(|_| AtomicU32::new(0)).collect();
            run(1 + round % 5, parts, &|part| {
                done[part].fetch_add(1, Ordering::Relaxed);
            });
            let done: Vec<u32> = done.iter().map(|n| n.load(Ordering::Relaxed)).collect();
            assert_eq!(done, vec![1; parts], "round {round}");
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let _one = one();
        for bad in 0..8 {
            let caught = catch_unwind(|| {
                run(3, 8, &|part| assert!(part != bad, "part {part}"));
            });
            let message = caught.unwrap_err();
            assert_eq!(message.downcast_ref(), Some(&format!("part {bad}")));
            let sum = AtomicUsize::new(0);
            run(3, 8, &|part| {
                sum.fetch_add(part, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 28);
        }
    }

    #[test]
    fn a_job_within_a_job_and_callers_at_once() {
        let _one = one();
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    run(2, 4, &|_| {
                        run(2, 4, &|part| {
                            sum.fetch_add(part, Ordering::Relaxed);
                        });
                    });
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 4 * 6);
    }

    #[test]
    fn sleepers_wake() {
        let _one = one();
        for _ in 0..3 {
            std::thread::sleep(SPIN * 4);
            let met = AtomicUsize::new(0);
            // Both parts wait for each other: one thread alone would not end.
            run(2, 2, &|_| {
                met.fetch_add(1, Ordering::SeqCst);
                while met.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            });
        }
    }
}
