//! How the server bears clients of all kinds: a scripted engine behind it, and clients in a process of their
//! own.
//!
//! `cargo bench --bench streams -- [STREAMS] [SECONDS]` (256 and 30 unless given): that many clients stream
//! answers for so long, first alone, then beside others that read slowly, stop reading, stop in the middle of
//! a request, or hang up. Prints what came whole, what the engine did in both halves, and the memory held,
//! second by second. Fails if a client that behaves gets anything but every byte of its own answer, or if
//! memory grows.

mod scripted;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pensieve::server::Config;
use scripted::{DIALECTS, Dialect, Scripted, Spent};

/// Tokens of an answer, and how long the engine takes for one of each.
const TOKENS: usize = 200;
const STEP: Duration = Duration::from_millis(20);
/// Of every kind of client that does not behave.
const STRANGE: usize = 32;
/// Kilobytes by which the memory held may end above what it was when all clients were there.
const GROWTH: u64 = 8 << 10;

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = given.iter().filter_map(|word| word.parse().ok()).collect();
    let number = |at: usize, default: u64| numbers.get(at).copied().unwrap_or(default);
    let (streams, seconds) = (number(0, 256), number(1, 30));
    let address = given
        .iter()
        .find_map(|word| word.strip_prefix("--clients="));
    match address {
        Some(address) => clients(
            address.parse().unwrap(),
            streams as usize,
            seconds,
            given.iter().any(|word| word == "--strange"),
        ),
        None => measure(streams, seconds),
    }
}

/// Kilobytes of this process in memory; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

fn measure(streams: u64, seconds: u64) {
    let config = Config {
        write_timeout: Duration::from_secs(5),
        ..Config::default()
    };
    let server = Scripted::start(STEP, config);
    println!(
        "{streams} streams of {TOKENS} tokens, a step each {STEP:?}, {seconds} s alone and {seconds} s beside {} others",
        4 * STRANGE
    );
    for strange in [false, true] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.arg(format!("--clients={}", server.address));
        child.args([streams.to_string(), seconds.to_string()]);
        if strange {
            child.arg("--strange");
        }
        let mut child = child.stdout(Stdio::inherit()).spawn().unwrap();
        // Connections are made and first answers begun.
        std::thread::sleep(Duration::from_secs(3));
        let from = server.work.read();
        let mut held = Vec::new();
        for _ in 3..seconds {
            held.push(resident());
            std::thread::sleep(Duration::from_secs(1));
        }
        let Spent {
            tokens,
            rate,
            steps,
            server: cpu,
            engine,
        } = server.work.since(from);
        let status = child.wait().unwrap();
        let (first, last) = (held[0], held[held.len() - 1]);
        let most = held.iter().max().copied().unwrap_or(0);
        println!(
            "{}: {tokens} tokens, {rate:.0} a second in {steps:.1} steps a second; processor time a token: server \
             {cpu:.1} µs, engine's hand-over {engine:.1} µs\n  memory held: {first} kB at first, {most} kB at most, \
             {last} kB at last; each second: {held:?}",
            if strange { "beside others" } else { "alone" },
        );
        assert!(
            status.success(),
            "a client that behaves was not served as it should be"
        );
        assert!(last < first + GROWTH, "memory grew");
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// A whole answer, read as it comes.
fn whole(address: SocketAddr, dialect: Dialect, seed: u64) -> Result<String, String> {
    let said = |error: std::io::Error| error.to_string();
    let mut stream = connect(address).map_err(said)?;
    let request = dialect.request(seed, TOKENS);
    stream.write_all(request.as_bytes()).map_err(said)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(said)?;
    dialect.read(&answer)
}

/// Does harm in one of four ways; what comes of it does not matter.
fn strange(address: SocketAddr, kind: usize, end: Instant) -> std::io::Result<()> {
    let mut stream = connect(address)?;
    let mut some = [0; 64];
    let request = Dialect::Chat.request(1, 5000);
    match kind {
        // Reads a few bytes now and then, of an answer that takes longer than the measurement.
        0 => {
            stream.write_all(request.as_bytes())?;
            while Instant::now() < end && stream.read(&mut some[..16])? > 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        // Reads nothing at all, as one that is no longer there: no end and no reset comes from it.
        1 => {
            stream.write_all(request.as_bytes())?;
            let left = end.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_secs(12)));
        }
        // Says half of what it wants, and waits.
        2 => {
            stream.write_all(&request.as_bytes()[..request.len() / 2])?;
            let left = end.saturating_duration_since(Instant::now());
            stream.set_read_timeout(Some(left + Duration::from_millis(1)))?;
            stream.read_exact(&mut some[..1])?;
        }
        // Hangs up in the middle, with bytes unread, which makes it a reset.
        _ => {
            stream.write_all(request.as_bytes())?;
            stream.read_exact(&mut some)?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

fn clients(address: SocketAddr, streams: usize, seconds: u64, with_strange: bool) {
    let words = scripted::words(&scripted::text());
    let end = Instant::now() + Duration::from_secs(seconds);
    let (answers, errors, bytes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let strangers = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..streams {
            let (words, answers, errors, bytes) = (&words, &answers, &errors, &bytes);
            scope.spawn(move || {
                let dialect = DIALECTS[number % DIALECTS.len()];
                let mut seed = number as u64;
                while Instant::now() < end {
                    seed += streams as u64;
                    match whole(address, dialect, seed) {
                        Ok(text) if text == scripted::expected(words, seed, TOKENS) => {
                            answers.fetch_add(1, Ordering::Relaxed);
                            bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
                            continue;
                        }
                        Ok(text) => eprintln!("{dialect:?}, seed {seed}: not its answer: {text:?}"),
                        Err(error) => eprintln!("{dialect:?}, seed {seed}: {error}"),
                    }
                    errors.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let kinds = if with_strange { 4 } else { 0 };
        for number in 0..kinds * STRANGE {
            let strangers = &strangers;
            scope.spawn(move || {
                while Instant::now() < end {
                    strangers.fetch_add(1, Ordering::Relaxed);
                    let _ = strange(address, number % 4, end);
                }
            });
        }
    });
    let errors = errors.into_inner();
    println!(
        "{} whole answers of {} bytes of text, {errors} errors; {} strange connections",
        answers.into_inner(),
        bytes.into_inner(),
        strangers.into_inner()
    );
    assert_eq!(errors, 0);
}
