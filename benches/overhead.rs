//! What the server costs for each streamed token, beside the engine: processor time of every thread but the
//! engine's and its clients', which are a process of their own.
//!
//! `cargo bench --bench overhead -- [SECONDS] [RUNS]` (5 and 3 unless given) prints a table by dialect and number
//! of streams: medians of so many runs, taken in turn, and the least and the most. The floor is what cannot be
//! saved: the same bytes from a channel of the engine's to a socket, each token a write. Fails if a token costs
//! more than 20 µs where there are many streams.

mod scripted;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pensieve::server::Config;
use rustix::time::ClockId;
use scripted::{DIALECTS, Dialect, Scripted, Spent, clock};
use tokio::io::AsyncWriteExt;

const STEP: Duration = Duration::from_millis(10);
const STREAMS: [usize; 4] = [1, 32, 128, 256];
/// What a token may cost, in microseconds.
const LIMIT: f64 = 20.0;
/// About the bytes of an event.
const EVENT: usize = 220;

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = given.iter().filter_map(|word| word.parse().ok()).collect();
    if let Some(address) = given
        .iter()
        .find_map(|word| word.strip_prefix("--clients="))
    {
        let dialect = (numbers[2] > 0).then(|| DIALECTS[numbers[2] as usize - 1]);
        return clients(address.parse().unwrap(), numbers[0], numbers[1], dialect);
    }
    let seconds = numbers.first().copied().unwrap_or(5);
    let runs = numbers.get(1).copied().unwrap_or(3).max(1);
    let mut cells: Vec<Vec<Spent>> = Vec::new();
    cells.resize_with((DIALECTS.len() + 1) * STREAMS.len(), Vec::new);
    for _ in 0..runs {
        let cases = (0..=DIALECTS.len()).flat_map(|row| STREAMS.map(|streams| (row, streams)));
        for (cell, (row, streams)) in cells.iter_mut().zip(cases) {
            cell.push(match row.checked_sub(1) {
                None => floor(streams, seconds),
                Some(dialect) => served(dialect, streams, seconds),
            });
        }
    }
    println!("µs of processor time a streamed token: server's threads + the engine's handing over");
    println!(
        "| medians of {runs} runs of {seconds} s | {} |",
        STREAMS.map(|n| format!("{n} streams")).join(" | ")
    );
    println!("|---|{}", "---|".repeat(STREAMS.len()));
    let mut worst: f64 = 0.0;
    for (row, cells) in cells.chunks(STREAMS.len()).enumerate() {
        let name = match row.checked_sub(1) {
            None => "floor: a channel and a write".to_owned(),
            Some(dialect) => format!("{:?}", DIALECTS[dialect]),
        };
        let told = cells.iter().map(|cell| {
            let (server, engine) = (sorted(cell, |s| s.server), sorted(cell, |s| s.engine));
            let (least, most) = (server[0], server[server.len() - 1]);
            let (server, engine) = (server[server.len() / 2], engine[engine.len() / 2]);
            (
                format!("{server:.1} + {engine:.1} ({least:.1} to {most:.1})"),
                server + engine,
            )
        });
        let told: Vec<(String, f64)> = told.collect();
        let texts: Vec<&str> = told.iter().map(|(text, _)| text.as_str()).collect();
        println!("| {name} | {} |", texts.join(" | "));
        if row > 0 {
            worst = worst.max(told[STREAMS.len() - 1].1);
        }
    }
    assert!(
        worst < LIMIT,
        "a token costs {worst:.1} µs, expected less than {LIMIT}"
    );
}

fn sorted(runs: &[Spent], measure: impl Fn(&Spent) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = runs.iter().map(measure).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Runs clients in a process of their own while `measure` reads what is spent.
fn beside<T>(
    address: SocketAddr,
    streams: usize,
    seconds: u64,
    dialect: usize,
    measure: impl FnOnce() -> T,
) -> T {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.arg(format!("--clients={address}"));
    child.args([streams as u64, seconds + 2, dialect as u64].map(|number| number.to_string()));
    let mut child = child.spawn().unwrap();
    // Connections are made and answers begun.
    std::thread::sleep(Duration::from_secs(1));
    let measured = measure();
    child.kill().unwrap();
    child.wait().unwrap();
    measured
}

fn served(dialect: usize, streams: usize, seconds: u64) -> Spent {
    let server = Scripted::start(STEP, Config::default());
    beside(server.address, streams, seconds, dialect + 1, || {
        let from = server.work.read();
        std::thread::sleep(Duration::from_secs(seconds));
        server.work.since(from)
    })
}

/// An event a token from a channel to a socket, by the same runtime as the server's.
fn floor(streams: usize, seconds: u64) -> Spent {
    let runtime = scripted::runtime();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.unwrap();
    let address = listener.local_addr().unwrap();
    let work = Arc::new(scripted::Work::default());
    let own = work.clone();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || {
        use std::sync::atomic::Ordering::Relaxed;
        let mut senders = Vec::new();
        for _ in 0..streams {
            let (mut stream, _) = handle.block_on(listener.accept()).unwrap();
            stream.set_nodelay(true).unwrap();
            let (sender, mut receiver) = tokio::sync::mpsc::channel::<u32>(100_000);
            senders.push(sender);
            handle.spawn(async move {
                let event = [b'x'; EVENT];
                while receiver.recv().await.is_some() && stream.write_all(&event).await.is_ok() {}
            });
        }
        let mut due = Instant::now();
        loop {
            let mut gone = false;
            for sender in &senders {
                gone |= sender.try_send(1).is_err();
                work.tokens.fetch_add(1, Relaxed);
            }
            let cpu = clock(ClockId::ThreadCPUTime) * 1e6;
            work.cpu.store(cpu as u64, Relaxed);
            if gone {
                return;
            }
            due = (due + STEP).max(Instant::now());
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    });
    beside(address, streams, seconds, 0, || {
        let from = own.read();
        std::thread::sleep(Duration::from_secs(seconds));
        own.since(from)
    })
}

/// Reads streams, of a dialect or of plain bytes, until the process is ended.
fn clients(address: SocketAddr, streams: u64, seconds: u64, dialect: Option<Dialect>) {
    let end = Instant::now() + Duration::from_secs(seconds + 10);
    std::thread::scope(|scope| {
        for seed in 0..streams {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                if let Some(dialect) = dialect {
                    let request = dialect.request(seed, 100_000);
                    stream.write_all(request.as_bytes()).unwrap();
                }
                let mut some = [0; 16 << 10];
                while Instant::now() < end && stream.read(&mut some).is_ok_and(|read| read > 0) {}
            });
        }
    });
}
