//! A scripted engine behind the real server, for measuring what everything but the engine costs.
//!
//! Its answers are words of the shipped model's vocabulary that follow from the request's seed, so that a
//! client can tell whether it got the text that is its own.

#![allow(dead_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pensieve::engine::{Command, Event, Facts, FinishReason, Handle, Inbox, Stats, Submission};
use pensieve::sample::Params;
use pensieve::server::{App, Config, serve};
use pensieve::text::Text;
use rustix::time::{ClockId, clock_gettime};

/// The shipped model's text side.
pub fn text() -> Text {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/pensieve-tiny");
    let text = Text::open(|name| match std::fs::read(format!("{folder}/{name}")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    });
    text.unwrap()
}

/// Plain words with a space before them, with their ids: what answers consist of.
pub fn words(text: &Text) -> Vec<(u32, String)> {
    let tokenizer = text.tokenizer();
    let plain = |word: &str| {
        let letters = word.strip_prefix(' ').unwrap_or_default();
        letters.len() > 1 && letters.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    let all = (0..tokenizer.vocab_size() as u32).map(|id| (id, tokenizer.token_text(id)));
    let words: Vec<_> = all.filter(|(_, word)| plain(word)).take(61).collect();
    assert_eq!(words.len(), 61, "the vocabulary has too few plain words");
    words
}

/// The place in [`words`] of an answer's token.
pub fn word(seed: u64, place: usize) -> usize {
    ((seed % 61) as usize * 7 + place * (1 + seed as usize / 61 % 60)) % 61
}

/// The text of an answer with so many tokens.
pub fn expected(words: &[(u32, String)], seed: u64, tokens: usize) -> String {
    let all = (0..tokens).map(|place| words[word(seed, place)].1.as_str());
    all.collect()
}

/// Seconds on a clock of the system's.
pub fn clock(which: ClockId) -> f64 {
    let time = clock_gettime(which);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What the engine did.
#[derive(Default)]
pub struct Work {
    /// Tokens given out.
    pub tokens: AtomicU64,
    /// Steps taken.
    pub steps: AtomicU64,
    /// Processor time of its own thread, in microseconds.
    pub cpu: AtomicU64,
}

/// One reading of what was done and what it cost.
#[derive(Clone, Copy)]
pub struct Reading {
    at: Instant,
    tokens: u64,
    steps: u64,
    /// In microseconds.
    server: f64,
    engine: f64,
}

/// What lies between two readings.
pub struct Spent {
    /// Tokens given out.
    pub tokens: u64,
    /// Tokens a second.
    pub rate: f64,
    /// Steps a second.
    pub steps: f64,
    /// Processor time a token of everything but the engine's thread, in microseconds.
    pub server: f64,
    /// That of the engine's thread: handing tokens over, and waking who waits for them.
    pub engine: f64,
}

impl Work {
    /// Reads all counters now.
    pub fn read(&self) -> Reading {
        let engine = self.cpu.load(Ordering::Relaxed) as f64;
        Reading {
            at: Instant::now(),
            tokens: self.tokens.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
            server: clock(ClockId::ProcessCPUTime) * 1e6 - engine,
            engine,
        }
    }

    /// What was done since `from`.
    pub fn since(&self, from: Reading) -> Spent {
        let now = self.read();
        let tokens = now.tokens - from.tokens;
        let seconds = (now.at - from.at).as_secs_f64();
        Spent {
            tokens,
            rate: tokens as f64 / seconds,
            steps: (now.steps - from.steps) as f64 / seconds,
            server: (now.server - from.server) / tokens as f64,
            engine: (now.engine - from.engine) / tokens as f64,
        }
    }
}

/// A token for every answer each step, as a real engine has them.
fn engine(mut inbox: Inbox, work: &Work, words: &[(u32, String)], step: Duration) {
    let mut running: HashMap<u64, (Submission, usize)> = HashMap::new();
    let mut next = 0;
    let mut due = Instant::now();
    loop {
        loop {
            match inbox.commands.try_recv() {
                Ok(Command::Submit(submission)) => {
                    inbox.waiting.fetch_sub(1, Ordering::AcqRel);
                    let stats = Stats {
                        prompt_tokens: submission.request.prompt.len(),
                        ..Stats::default()
                    };
                    let _ = submission.events.try_send(Event::Started(stats));
                    running.insert(next, (submission, 0));
                    next += 1;
                }
                Ok(Command::Stop) => return,
                Ok(Command::Ping(reply)) => {
                    let _ = reply.send(());
                }
                Err(_) if inbox.commands.is_closed() => return,
                Err(_) => break,
            }
        }
        running.retain(|_, (submission, given)| {
            let seed = submission.request.params.seed;
            let token = Event::Token {
                id: words[word(seed, *given)].0,
                logprob: None,
            };
            if submission.events.try_send(token).is_err() {
                return false;
            }
            *given += 1;
            work.tokens.fetch_add(1, Ordering::Relaxed);
            if *given < submission.request.max_tokens {
                return true;
            }
            let stats = Stats {
                prompt_tokens: submission.request.prompt.len(),
                completion_tokens: *given,
                ..Stats::default()
            };
            let reason = FinishReason::Length;
            let _ = submission
                .events
                .try_send(Event::Finished { reason, stats });
            false
        });
        work.steps.fetch_add(1, Ordering::Relaxed);
        let cpu = clock(ClockId::ThreadCPUTime) * 1e6;
        work.cpu.store(cpu as u64, Ordering::Relaxed);
        due = (due + step).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// A server of such an engine.
pub struct Scripted {
    /// Where it listens.
    pub address: SocketAddr,
    /// What its engine did.
    pub work: Arc<Work>,
    _runtime: tokio::runtime::Runtime,
}

/// The server's, as `pensieve serve` makes it.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

impl Scripted {
    /// Starts one whose engine takes a step each `step`.
    pub fn start(step: Duration, config: Config) -> Self {
        let text = text();
        let words = words(&text);
        let facts = Facts {
            id: "scripted".into(),
            model_type: "none".into(),
            context_length: 1_000_000,
            vocab_size: text.tokenizer().vocab_size(),
            eos_ids: Vec::new(),
            weight_bytes: 0,
            text_only: false,
            load_seconds: 0.0,
            prefill_chunk: 512,
        };
        let (handle, inbox) = Handle::new(facts, 10_000);
        let work = Arc::new(Work::default());
        let own = work.clone();
        std::thread::spawn(move || engine(inbox, &own, &words, step));
        let runtime = runtime();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap();
        let app = App {
            engine: handle,
            text,
            defaults: Params::default(),
            aliases: Vec::new(),
            reasoning_field: "reasoning_content".into(),
            forms: None,
            gauges: None,
            created: 0,
        };
        runtime.spawn(serve(listener, app, config, std::future::pending()));
        Self {
            address,
            work,
            _runtime: runtime,
        }
    }
}

/// A dialect with streams.
#[derive(Clone, Copy, Debug)]
pub enum Dialect {
    /// OpenAI's chat API.
    Chat,
    /// OpenAI's legacy completions.
    Completions,
    /// Anthropic's messages.
    Messages,
}

/// All of them.
pub const DIALECTS: [Dialect; 3] = [Dialect::Chat, Dialect::Completions, Dialect::Messages];

impl Dialect {
    /// A streamed request for so many tokens, whose answer ends the connection.
    pub fn request(self, seed: u64, tokens: usize) -> String {
        let (path, prompt) = match self {
            Self::Chat => (
                "chat/completions",
                "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]",
            ),
            Self::Completions => ("completions", "\"prompt\": \"Hi\""),
            Self::Messages => (
                "messages",
                "\"model\": \"scripted\", \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]",
            ),
        };
        let body =
            format!("{{{prompt}, \"stream\": true, \"seed\": {seed}, \"max_tokens\": {tokens}}}");
        format!(
            "POST /v1/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// The text of a whole streamed answer.
    ///
    /// # Errors
    /// If it is not whole.
    pub fn read(self, answer: &[u8]) -> Result<String, String> {
        let text = String::from_utf8_lossy(answer);
        let body = dechunk(&text).ok_or_else(|| format!("the answer breaks off: {text:.300}"))?;
        let end = match self {
            Self::Chat | Self::Completions => "data: [DONE]\n\n",
            Self::Messages => "data: {\"type\":\"message_stop\"}\n\n",
        };
        if !body.ends_with(end) {
            return Err(format!("the answer has no end: {text:.300}"));
        }
        let mut said = String::new();
        for line in body.lines() {
            let Some(data) = line.strip_prefix("data: {") else {
                continue;
            };
            let data: serde_json::Value =
                serde_json::from_str(&format!("{{{data}")).map_err(|error| error.to_string())?;
            let piece = match self {
                Self::Chat => &data["choices"][0]["delta"]["content"],
                Self::Completions => &data["choices"][0]["text"],
                Self::Messages => &data["delta"]["text"],
            };
            said.push_str(piece.as_str().unwrap_or_default());
        }
        Ok(said)
    }
}

/// The body of a chunked answer, if it is whole.
fn dechunk(answer: &str) -> Option<String> {
    let (_, mut rest) = answer.split_once("\r\n\r\n")?;
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}
