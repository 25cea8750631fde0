//! Which thread fetches what: the files of a model, cut into parts, handed out in order.
//!
//! Invariants: a chunk is handed out once until it comes back, so no two threads write it; a file is
//! handed out for checking when all its chunks are there and none is out; a file that another process
//! fetches is asked about again after a while. The first failure ends everything: what is here stays for
//! the next time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::HubError;
use super::lock::Lock;
use super::partial::Partial;

/// Chunks of a part at most.
const LONGEST_PART: usize = 256;
/// Between two looks at a file that another process fetches.
const RECHECK: Duration = Duration::from_millis(300);

/// Something for a thread to do with file `file`.
#[derive(Debug)]
pub enum Task {
    /// Lock it and see what of it is here.
    Open {
        /// The file's number.
        file: usize,
    },
    /// Fetch these chunks.
    Part {
        /// The file's number.
        file: usize,
        /// Where they go.
        partial: Arc<Partial>,
        /// Which.
        chunks: Range<usize>,
    },
    /// Fetch the file in one go, because the storage has no ranges; write these chunks of it.
    Whole {
        /// The file's number.
        file: usize,
        /// Where they go.
        partial: Arc<Partial>,
        /// Which.
        chunks: Vec<Range<usize>>,
    },
    /// All its chunks are there: see whether they are right.
    Verify {
        /// The file's number.
        file: usize,
        /// Where they are.
        partial: Arc<Partial>,
    },
}

#[derive(Debug)]
enum State {
    /// To be opened, not before this time.
    Waiting(Option<Instant>),
    /// With a thread that opens it.
    Opening,
    /// Being fetched, or being verified when nothing is left to fetch.
    Open(Open),
    /// Finished.
    Done,
}

#[derive(Debug)]
struct Open {
    partial: Arc<Partial>,
    /// Held until the file is finished.
    _lock: Option<Lock>,
    todo: VecDeque<Range<usize>>,
    out: usize,
    whole: bool,
    verifying: bool,
}

#[derive(Debug)]
struct Inner {
    files: Vec<State>,
    failure: Option<HubError>,
}

/// The files and who has what.
#[derive(Debug)]
pub struct Board {
    inner: Mutex<Inner>,
    changed: Condvar,
    threads: usize,
}

impl Board {
    /// With `files` to be fetched by `threads`.
    pub fn new(files: usize, threads: usize) -> Board {
        let files = (0..files).map(|_| State::Waiting(None)).collect();
        Board {
            inner: Mutex::new(Inner {
                files,
                failure: None,
            }),
            changed: Condvar::new(),
            threads: threads.max(1),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What is behind it is whole between any two statements.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next thing to do; waits until there is one. None when all is done or something failed.
    pub fn take(&self) -> Option<Task> {
        let mut inner = self.inner();
        loop {
            if inner.failure.is_some() || inner.files.iter().all(|f| matches!(f, State::Done)) {
                self.changed.notify_all();
                return None;
            }
            let next = (0..inner.files.len()).find_map(|file| inner.task(file));
            if let Some(task) = next {
                return Some(task);
            }
            // Wakes by itself for files that another process has.
            let waited = self.changed.wait_timeout(inner, RECHECK / 3);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn change(&self, file: usize, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.inner().files.get_mut(file) {
            change(state);
        }
        self.changed.notify_all();
    }

    /// Another process has the file.
    pub fn elsewhere(&self, file: usize) {
        let later = Instant::now() + RECHECK;
        self.change(file, |state| *state = State::Waiting(Some(later)));
    }

    /// The file is locked and open; `there` are the chunks that are here.
    pub fn opened(&self, file: usize, partial: Partial, lock: Option<Lock>, there: &[bool]) {
        let todo = parts(there, self.threads);
        self.change(file, |state| {
            *state = State::Open(Open {
                partial: Arc::new(partial),
                _lock: lock,
                todo,
                out: 0,
                whole: false,
                verifying: false,
            });
        });
    }

    /// A part came back; `rest` is what of it is still to be fetched.
    pub fn returned(&self, file: usize, rest: Range<usize>) {
        self.change(file, |state| {
            if let State::Open(open) = state {
                open.out = open.out.saturating_sub(1);
                if !rest.is_empty() {
                    open.todo.push_front(rest);
                }
            }
        });
    }

    /// The file's storage has no ranges.
    pub fn make_whole(&self, file: usize) {
        self.change(file, |state| {
            if let State::Open(open) = state {
                open.whole = true;
            }
        });
    }

    /// The file was wrong; all its chunks are to be fetched again.
    pub fn again(&self, file: usize, chunks: usize) {
        let todo = parts(&vec![false; chunks], self.threads);
        self.change(file, |state| {
            if let State::Open(open) = state {
                open.todo = todo;
                open.verifying = false;
            }
        });
    }

    /// The file is finished.
    pub fn done(&self, file: usize) {
        self.change(file, |state| *state = State::Done);
    }

    /// Something failed for good. The first failure is kept.
    pub fn fail(&self, error: HubError) {
        self.inner().failure.get_or_insert(error);
        self.changed.notify_all();
    }

    /// Whether something failed, so that going on is of no use.
    pub fn failed(&self) -> bool {
        self.inner().failure.is_some()
    }

    /// What failed, if something did.
    pub fn failure(self) -> Option<HubError> {
        let inner = self.inner.into_inner();
        inner.unwrap_or_else(PoisonError::into_inner).failure
    }
}

impl Inner {
    /// What there is to do with a file now.
    fn task(&mut self, file: usize) -> Option<Task> {
        let state = self.files.get_mut(file)?;
        match state {
            State::Waiting(until) if until.is_none_or(|until| until <= Instant::now()) => {
                *state = State::Opening;
                Some(Task::Open { file })
            }
            State::Waiting(_) | State::Opening | State::Done => None,
            State::Open(open) => {
                let partial = Arc::clone(&open.partial);
                if open.todo.is_empty() {
                    if open.out > 0 || open.verifying {
                        return None;
                    }
                    open.verifying = true;
                    return Some(Task::Verify { file, partial });
                }
                if open.whole {
                    if open.out > 0 {
                        return None;
                    }
                    open.out = 1;
                    let chunks = open.todo.drain(..).collect();
                    return Some(Task::Whole {
                        file,
                        partial,
                        chunks,
                    });
                }
                let chunks = open.todo.pop_front()?;
                open.out += 1;
                Some(Task::Part {
                    file,
                    partial,
                    chunks,
                })
            }
        }
    }
}

/// The missing chunks in runs, so many that all threads have something to do.
fn parts(there: &[bool], threads: usize) -> VecDeque<Range<usize>> {
    let missing = there.iter().filter(|there| !**there).count();
    let longest = missing.div_ceil(threads.max(1)).clamp(1, LONGEST_PART);
    let mut parts: VecDeque<Range<usize>> = VecDeque::new();
    for (chunk, _) in there.iter().enumerate().filter(|(_, there)| !**there) {
        match parts.back_mut() {
            Some(part) if part.end == chunk && part.len() < longest => part.end += 1,
            _ => parts.push_back(chunk..chunk + 1),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(board: &Board, folder: &tempfile::TempDir, chunks: u64) {
        let Some(Task::Open { file }) = board.take() else {
            panic!("a file is to be opened");
        };
        let size = chunks * super::super::partial::CHUNK;
        let blob = folder.path().join(file.to_string());
        let (partial, there) = Partial::open(&blob, size).unwrap();
        board.opened(file, partial, None, &there);
    }

    #[test]
    fn missing_chunks_are_cut_into_parts() {
        let cut = |there: &str, threads| -> Vec<Range<usize>> {
            let there: Vec<bool> = there.chars().map(|c| c == '#').collect();
            parts(&there, threads).into()
        };
        assert_eq!(cut("......", 2), [0..3, 3..6]);
        assert_eq!(cut("..#...", 1), [0..2, 3..6]);
        assert_eq!(cut("#.#.##", 8), [1..2, 3..4]);
        assert!(cut("###", 8).is_empty());
        let long = parts(&vec![false; 1000], 2);
        assert!(long.iter().all(|part| part.len() <= LONGEST_PART));
        assert_eq!(long.iter().map(Range::len).sum::<usize>(), 1000);
    }

    #[test]
    fn a_file_is_verified_when_every_part_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let board = Board::new(1, 2);
        open(&board, &folder, 2);
        let mut out = Vec::new();
        while out.len() < 2 {
            match board.take() {
                Some(Task::Part { chunks, .. }) => out.push(chunks),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(out, [0..1, 1..2]);
        // One fails: its chunk comes again before anything is verified.
        board.returned(0, 0..1);
        let Some(Task::Part { chunks, .. }) = board.take() else {
            panic!("the chunk that came back");
        };
        assert_eq!(chunks, 0..1);
        board.returned(0, 0..0);
        board.returned(0, 0..0);
        assert!(matches!(board.take(), Some(Task::Verify { file: 0, .. })));
        board.again(0, 2);
        assert!(matches!(board.take(), Some(Task::Part { .. })));
        board.done(0);
        assert!(board.take().is_none());
        assert!(board.failure().is_none());
    }

    #[test]
    fn without_ranges_one_thread_has_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let board = Board::new(2, 2);
        open(&board, &folder, 4);
        let Some(Task::Part { chunks, .. }) = board.take() else {
            panic!("a part");
        };
        board.make_whole(0);
        // Not while the part is out; the other file meanwhile.
        assert!(matches!(board.take(), Some(Task::Open { file: 1 })));
        board.done(1);
        board.returned(0, chunks);
        let Some(Task::Whole { chunks, .. }) = board.take() else {
            panic!("the whole");
        };
        assert_eq!(chunks, [0..2, 2..4]);
    }

    #[test]
    fn a_file_of_another_process_is_asked_about_later() {
        let board = Board::new(1, 1);
        assert!(matches!(board.take(), Some(Task::Open { .. })));
        let asked = Instant::now();
        board.elsewhere(0);
        assert!(matches!(board.take(), Some(Task::Open { .. })));
        assert!(asked.elapsed() >= RECHECK);
        board.fail(HubError::Busy { repo: "a".into() });
        board.fail(HubError::Busy { repo: "b".into() });
        assert!(board.take().is_none());
        assert!(matches!(board.failure(), Some(HubError::Busy { repo }) if repo == "a"));
    }
}
