//! What the server itself costs, and how it bears clients of all kinds: a scripted engine behind the
//! real server, and clients in a process of their own.
//!
//! `cargo bench --bench streams -- [STREAMS] [SECONDS]` (256 and 30 unless given) prints the CPU time
//! that everything but the engine takes for each streamed token, while that many clients read, others
//! read slowly, stop in the middle of a request or hang up; and the memory held at its beginning,
//! middle and end. It fails if a client that behaves gets anything but its whole answer.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pensieve::engine::{
    Command as Told, Event, Facts, FinishReason, Handle, Inbox, Stats, Submission,
};
use pensieve::sample::Params;
use pensieve::server::{App, Config, serve};
use pensieve::text::Text;
use rustix::time::{ClockId, clock_gettime};

/// Tokens of an answer, and how long the engine takes for one of each.
const TOKENS: usize = 200;
const STEP: Duration = Duration::from_millis(20);
/// Of every kind of client that does not behave.
const STRANGE: usize = 32;

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = given.iter().filter_map(|word| word.parse().ok()).collect();
    let number = |at: usize, default: u64| numbers.get(at).copied().unwrap_or(default);
    let (streams, seconds) = (number(0, 256), number(1, 30));
    match given
        .iter()
        .find_map(|word| word.strip_prefix("--clients="))
    {
        Some(address) => clients(address.parse().unwrap(), streams as usize, seconds),
        None => measure(streams, seconds),
    }
}

/// Seconds on a clock of the system's.
fn clock(which: ClockId) -> f64 {
    let time = clock_gettime(which);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Kilobytes of this process in memory; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

/// What the engine did.
#[derive(Default)]
struct Work {
    tokens: AtomicU64,
    /// Of its own thread, in microseconds.
    cpu: AtomicU64,
}

/// A token for every answer each step, as a real engine has them.
fn engine(mut inbox: Inbox, work: &Work, word: u32) {
    let mut running: HashMap<u64, (Submission, usize)> = HashMap::new();
    let mut next = 0;
    loop {
        let started = Instant::now();
        loop {
            match inbox.commands.try_recv() {
                Ok(Told::Submit(submission)) => {
                    inbox.waiting.fetch_sub(1, Ordering::AcqRel);
                    let _ = submission.events.try_send(Event::Started(Stats::default()));
                    running.insert(next, (submission, 0));
                    next += 1;
                }
                Ok(Told::Stop) => return,
                Ok(_) => {}
                Err(_) if inbox.commands.is_closed() => return,
                Err(_) => break,
            }
        }
        running.retain(|_, (submission, given)| {
            let token = Event::Token {
                id: word,
                logprob: None,
            };
            if submission.events.try_send(token).is_err() {
                return false;
            }
            *given += 1;
            work.tokens.fetch_add(1, Ordering::Relaxed);
            if *given < submission.request.max_tokens.min(TOKENS) {
                return true;
            }
            let _ = submission.events.try_send(Event::Finished {
                reason: FinishReason::Length,
                stats: Stats::default(),
            });
            false
        });
        let cpu = clock(ClockId::ThreadCPUTime) * 1e6;
        work.cpu.store(cpu as u64, Ordering::Relaxed);
        std::thread::sleep(STEP.saturating_sub(started.elapsed()));
    }
}

fn measure(streams: u64, seconds: u64) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/pensieve-tiny");
    let text = Text::open(|name| match std::fs::read(format!("{folder}/{name}")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    });
    let text = text.unwrap();
    let word = text.tokenizer().encode(" word", false).unwrap()[0];
    let facts = Facts {
        id: "scripted".into(),
        model_type: "none".into(),
        context_length: 100_000,
        vocab_size: text.tokenizer().vocab_size(),
        eos_ids: Vec::new(),
        weight_bytes: 0,
        text_only: false,
        load_seconds: 0.0,
    };
    let (handle, inbox) = Handle::new(facts, 10_000);
    let work = Arc::new(Work::default());
    let own = work.clone();
    std::thread::spawn(move || engine(inbox, &own, word));
    let runtime = tokio::runtime::Runtime::new().unwrap();
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
    let config = Config {
        write_timeout: Duration::from_secs(5),
        ..Config::default()
    };
    runtime.spawn(serve(listener, app, config, std::future::pending()));

    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg(format!("--clients={address}"))
        .args([streams.to_string(), seconds.to_string()])
        .stdout(Stdio::inherit())
        .spawn()
        .unwrap();
    let sample = || {
        let tokens = work.tokens.load(Ordering::Relaxed);
        let all = clock(ClockId::ProcessCPUTime) * 1e6;
        (tokens, all - work.cpu.load(Ordering::Relaxed) as f64)
    };
    // Connections are made and first answers begun.
    std::thread::sleep(Duration::from_secs(3));
    let (first_tokens, first_cpu) = sample();
    let early = resident();
    std::thread::sleep(Duration::from_secs(seconds / 2));
    let middle = resident();
    let status = child.wait().unwrap();
    let late = resident();
    let (tokens, cpu) = sample();
    let tokens = tokens - first_tokens;
    println!(
        "{streams} streams, {seconds} s: {tokens} tokens, {:.1} µs of CPU each beside the engine's; \
         resident {early} kB, {middle} kB, {late} kB",
        (cpu - first_cpu) / tokens as f64,
    );
    assert!(status.success(), "a client that behaves was not served");
}

fn request(more: &str) -> String {
    let body = format!(
        "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hi\"}}], \"stream\": true{more}}}"
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// A whole answer, read as it comes.
fn whole(address: SocketAddr) -> std::io::Result<usize> {
    let mut stream = connect(address)?;
    stream.write_all(request("").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    match text.contains("data: [DONE]") {
        true => Ok(text.matches("\"content\":\" word\"").count()),
        false => Err(std::io::Error::other(format!(
            "the answer is not whole: {text:.200}"
        ))),
    }
}

/// Does harm in one of three ways; what comes of it does not matter.
fn strange(address: SocketAddr, kind: usize, running: &AtomicBool) -> std::io::Result<()> {
    let mut stream = connect(address)?;
    let mut some = [0; 64];
    match kind {
        // Reads a byte now and then, of an answer without end.
        0 => {
            stream.write_all(request(", \"logprobs\": false").as_bytes())?;
            while running.load(Ordering::Relaxed) {
                if stream.read(&mut some[..1])? == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        // Says half of what it wants, and waits.
        1 => {
            let request = request("");
            stream.write_all(&request.as_bytes()[..request.len() / 2])?;
            stream.read_exact(&mut some[..1])?;
        }
        // Hangs up in the middle.
        _ => {
            stream.write_all(request("").as_bytes())?;
            stream.read_exact(&mut some)?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

fn clients(address: SocketAddr, streams: usize, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let running = AtomicBool::new(true);
    let (answers, errors) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..streams {
            scope.spawn(|| {
                while Instant::now() < end {
                    match whole(address) {
                        Ok(TOKENS) => answers.fetch_add(1, Ordering::Relaxed),
                        Ok(words) => {
                            eprintln!("an answer has {words} words, expected {TOKENS}");
                            errors.fetch_add(1, Ordering::Relaxed)
                        }
                        Err(error) => {
                            eprintln!("{error}");
                            errors.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
                running.store(false, Ordering::Relaxed);
            });
        }
        for number in 0..3 * STRANGE {
            let running = &running;
            scope.spawn(move || {
                while Instant::now() < end {
                    let _ = strange(address, number % 3, running);
                }
            });
        }
    });
    let errors = errors.into_inner();
    println!("{} whole answers, {errors} errors", answers.into_inner());
    assert_eq!(errors, 0);
}
