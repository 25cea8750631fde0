//! Fetching contents: in ranges by several threads, taken up where an earlier try ended, and checked
//! before they get their name.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::Method;

use super::board::{Board, Task};
use super::error::{HubError, Result, io};
use super::lock::{Lock, Tried};
use super::machine;
use super::name::Name;
use super::partial::{CHUNK, Partial, span};
use super::remote::{self, Remote};
use super::settings::Settings;
use super::store::Store;
use super::watch::{Expected, Phase, Watch};
use super::web::{Fault, Follow, Reply, TRIES, Try, Web, backoff, shown};

/// What is left free on the disk.
const MARGIN: u64 = 64 << 20;

/// Fetches the contents that are not here. Gives the bytes that came.
///
/// # Errors
/// The first thing that failed for good.
pub fn download(
    web: &Web,
    settings: &Settings,
    name: &Name,
    store: &Store,
    files: &[Remote],
    watch: &dyn Watch,
) -> Result<u64> {
    let mut lacking: Vec<&Remote> = Vec::new();
    for file in files {
        // Two names may have one content.
        let twice = lacking.iter().any(|other| other.etag == file.etag);
        if store.blob(&file.etag).is_file() {
            Partial::forget(&store.blob(&file.etag))?;
        } else if !twice {
            lacking.push(file);
        }
    }
    if lacking.is_empty() {
        return Ok(0);
    }
    let to_come = |file: &&Remote| {
        file.size
            .saturating_sub(Partial::bytes_here(&store.blob(&file.etag), file.size))
    };
    let needed: u64 = lacking
        .iter()
        .map(to_come)
        .fold(MARGIN, u64::saturating_add);
    let free = machine::free(&settings.cache)?;
    if needed > free {
        return Err(HubError::Room {
            place: settings.cache.clone(),
            needed,
            free,
        });
    }
    let expected: Vec<Expected> = lacking
        .iter()
        .map(|file| Expected {
            name: file.name.clone(),
            size: file.size,
        })
        .collect();
    watch.expect(&expected);
    let threads = settings.connections.max(1);
    let job = Job {
        web,
        settings,
        name,
        store,
        places: lacking
            .iter()
            .map(|file| Mutex::new(file.url.clone()))
            .collect(),
        damaged: lacking.iter().map(|_| AtomicBool::new(false)).collect(),
        files: lacking,
        watch,
        board: Board::new(expected.len(), threads),
        fetched: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(task) = job.board.take() {
                    if let Err(error) = job.work(task) {
                        job.board.fail(error);
                    }
                }
            });
        }
    });
    match job.board.failure() {
        Some(HubError::Network {
            url, why, tries, ..
        }) => Err(HubError::Network {
            url,
            why,
            tries,
            kept: "; what has arrived is kept: the same command goes on from there",
        }),
        Some(error) => Err(error),
        None => Ok(job.fetched.into_inner()),
    }
}

/// What the threads of one model share.
struct Job<'a> {
    web: &'a Web,
    settings: &'a Settings,
    name: &'a Name,
    store: &'a Store,
    files: Vec<&'a Remote>,
    /// Where each file's bytes are, once the hub has said so.
    places: Vec<Mutex<String>>,
    /// Files that arrived wrong once.
    damaged: Vec<AtomicBool>,
    watch: &'a dyn Watch,
    board: Board,
    fetched: AtomicU64,
}

impl Job<'_> {
    fn work(&self, task: Task) -> Result {
        match task {
            Task::Open { file } => self.open(file),
            Task::Part {
                file,
                partial,
                chunks,
            } => {
                let left = self.part(file, &partial, chunks)?;
                self.board.returned(file, left);
                Ok(())
            }
            Task::Whole {
                file,
                partial,
                chunks,
            } => {
                self.whole(file, &partial, &chunks)?;
                self.board.returned(file, 0..0);
                Ok(())
            }
            Task::Verify { file, partial } => self.verify(file, &partial),
        }
    }

    fn open(&self, file: usize) -> Result {
        let remote = self.files[file];
        let blob = self.store.blob(&remote.etag);
        let lock = match Lock::attempt(&self.store.lock(&remote.etag))? {
            Tried::Held(lock) => lock,
            Tried::Taken => {
                self.watch.phase(file, Phase::Elsewhere);
                self.board.elsewhere(file);
                return Ok(());
            }
        };
        if blob.is_file() {
            // Another process was faster.
            Partial::forget(&blob)?;
            self.watch.phase(file, Phase::Done);
            self.board.done(file);
            return Ok(());
        }
        let (partial, there) = Partial::open(&blob, remote.size)?;
        self.watch.phase(file, Phase::Fetching);
        let here = there.iter().enumerate().filter(|(_, there)| **there);
        let here = here.map(|(chunk, _)| span(&partial.range(chunk))).sum();
        if here > 0 {
            self.watch.arrived(file, here, true);
        }
        self.board.opened(file, partial, lock, &there);
        Ok(())
    }

    /// Fetches chunks. Gives those that are to be handed out again.
    fn part(&self, file: usize, partial: &Partial, chunks: Range<usize>) -> Result<Range<usize>> {
        let mut next = chunks.start;
        let mut tries = 0;
        while next < chunks.end && !self.board.failed() {
            let before = next;
            let outcome = self.range(file, partial, &mut next, chunks.end);
            match outcome {
                Ok(true) => {}
                Ok(false) => {
                    self.board.make_whole(file);
                    break;
                }
                Err(fault) => {
                    tries = if next > before { 1 } else { tries + 1 };
                    self.pause(file, fault, tries)?;
                }
            }
        }
        Ok(next..chunks.end)
    }

    /// Asks for the chunks from `next` to `end` and moves `next` on as they come. False if the storage
    /// does not give ranges.
    fn range(&self, file: usize, partial: &Partial, next: &mut usize, end: usize) -> Try<bool> {
        let size = self.files[file].size;
        let (start, stop) = (
            partial.range(*next).start,
            partial.range(end.saturating_sub(1)).end,
        );
        let reply = self.ask(file, Some(&(start..stop)))?;
        // All of it may come without being a range.
        let is_all = start == 0 && stop == size;
        match reply.status() {
            200 if is_all => {}
            200 => return Ok(false),
            _ => remote::check_range(&reply, start, stop, size)?,
        }
        let mut body = reply.into_reader();
        let mut buffer = vec![0; CHUNK as usize];
        while *next < end && !self.board.failed() {
            self.chunk(file, partial, *next, &mut body, &mut buffer)?;
            *next += 1;
        }
        Ok(true)
    }

    /// Fetches the file from its beginning, because the storage has no ranges, and keeps the chunks that
    /// are missing.
    fn whole(&self, file: usize, partial: &Partial, chunks: &[Range<usize>]) -> Result {
        let end = chunks.iter().map(|part| part.end).max().unwrap_or(0);
        let mut have = vec![true; end];
        for chunk in chunks.iter().cloned().flatten() {
            have[chunk] = false;
        }
        let mut tries = 0;
        loop {
            let missing = have.iter().filter(|have| !**have).count();
            if missing == 0 || self.board.failed() {
                return Ok(());
            }
            if let Err(fault) = self.stream(file, partial, &mut have) {
                let after = have.iter().filter(|have| !**have).count();
                tries = if after < missing { 1 } else { tries + 1 };
                self.pause(file, fault, tries)?;
            }
        }
    }

    fn stream(&self, file: usize, partial: &Partial, have: &mut [bool]) -> Try<()> {
        let reply = self.ask(file, None)?;
        let mut body = reply.into_reader();
        let mut buffer = vec![0; CHUNK as usize];
        for (index, have) in have.iter_mut().enumerate() {
            if self.board.failed() {
                break;
            }
            if *have {
                let known = &mut buffer[..span(&partial.range(index)) as usize];
                body.read_exact(known).map_err(broken)?;
            } else {
                self.chunk(file, partial, index, &mut body, &mut buffer)?;
                *have = true;
            }
        }
        Ok(())
    }

    /// Reads one chunk and keeps it.
    fn chunk(
        &self,
        file: usize,
        partial: &Partial,
        index: usize,
        body: &mut impl Read,
        buffer: &mut [u8],
    ) -> Try<()> {
        let bytes = &mut buffer[..span(&partial.range(index)) as usize];
        body.read_exact(bytes).map_err(broken)?;
        partial.write(index, bytes)?;
        let count = bytes.len() as u64;
        self.fetched.fetch_add(count, Ordering::Relaxed);
        self.watch.arrived(file, count, false);
        Ok(())
    }

    /// Asks for a file's bytes: where they were the last time, or else the hub.
    fn ask(&self, file: usize, range: Option<&Range<u64>>) -> Try<Reply> {
        let remote = self.files[file];
        let known = self.place(file).clone();
        let reply = self
            .web
            .send(&Method::GET, &known, range, Follow::Everywhere)?;
        let at_storage = known != remote.url;
        match reply.status() {
            200 | 206 => {
                *self.place(file) = reply.url.clone();
                Ok(reply)
            }
            // An address of a storage holds for a while only.
            status @ (400 | 401 | 403 | 404 | 410) if at_storage => {
                *self.place(file) = remote.url.clone();
                Err(Fault::again(format!("the storage answers {status}")))
            }
            // From a storage, at the end of the hub's redirect: not the hub's own refusal.
            status if reply.url != remote.url && reply.fault().is_none() => Err(Fault::again(
                format!("{} answers {status}", shown(&reply.url)),
            )),
            416 => Err(Fault::again(
                "the storage has not as many bytes as the hub says",
            )),
            _ => Err(remote::explained(self.web, self.settings, self.name, reply)),
        }
    }

    fn place(&self, file: usize) -> MutexGuard<'_, String> {
        self.places[file]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits before the next try, or gives up.
    fn pause(&self, file: usize, fault: Fault, tries: u32) -> Result {
        let (why, after) = match fault {
            Fault::Final(error) => return Err(error),
            Fault::Again { why, after } => (why, after),
        };
        let url = shown(&self.files[file].url);
        if tries >= TRIES {
            return Err(HubError::Network {
                url: url.to_owned(),
                why,
                tries,
                kept: "",
            });
        }
        // The hub is asked anew: where the bytes were they may be no longer.
        *self.place(file) = self.files[file].url.clone();
        let after = after.unwrap_or_else(|| backoff(tries));
        self.watch.retry(&self.files[file].name, &why, after);
        let until = Instant::now() + after;
        while Instant::now() < until && !self.board.failed() {
            std::thread::sleep(after.min(Duration::from_millis(100)));
        }
        Ok(())
    }

    fn verify(&self, file: usize, partial: &Partial) -> Result {
        let remote = self.files[file];
        let blob = self.store.blob(&remote.etag);
        if let Some(digest) = &remote.digest {
            self.watch.phase(file, Phase::Verifying);
            let mut content = partial.content()?;
            let found = digest
                .of(&mut content, remote.size)
                .map_err(io("read", &blob))?;
            if found != *digest {
                partial.reset()?;
                self.watch.again(file);
                if self.damaged[file].swap(true, Ordering::Relaxed) {
                    return Err(HubError::Corrupt {
                        file: remote.name.clone(),
                        kind: digest.kind(),
                        found: found.to_string(),
                        expected: digest.to_string(),
                    });
                }
                let why = format!("its {} is wrong", digest.kind());
                self.watch.retry(&remote.name, &why, Duration::ZERO);
                self.board.again(file, Partial::chunks_of(remote.size));
                return Ok(());
            }
        }
        partial.finish(&blob)?;
        self.watch.phase(file, Phase::Done);
        self.board.done(file);
        Ok(())
    }
}

fn broken(e: std::io::Error) -> Fault {
    match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Fault::again("the connection ended too early"),
        _ => Fault::again(format!("the connection broke: {e}")),
    }
}
