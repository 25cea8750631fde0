//! What the server has done and is doing, in Prometheus' text format (version 0.0.4).
//!
//! Counting never waits: counters are atomic, and the one lock, on requests by endpoint and status,
//! is taken once a request.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::App;
use super::answer::{End, Usage};
use crate::engine::Stats;

/// Upper bounds of waiting and whole answers, in seconds.
const SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Upper bounds of the time between two tokens, in seconds.
const BETWEEN: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0,
];
const BOUNDS: usize = 14;

/// How often each range of durations was seen.
struct Histogram {
    bounds: &'static [f64; BOUNDS],
    counts: [AtomicU64; BOUNDS],
    over: AtomicU64,
    /// In microseconds, so that it can be added to without a lock.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64; BOUNDS]) -> Self {
        Self {
            bounds,
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            over: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    fn observe(&self, seconds: f64) {
        let place = self.bounds.iter().position(|&bound| seconds <= bound);
        let count = place.and_then(|place| self.counts.get(place));
        count.unwrap_or(&self.over).fetch_add(1, Relaxed);
        self.sum.fetch_add((seconds * 1e6) as u64, Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, help, "histogram");
        let mut total = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            total += count.load(Relaxed);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        total += self.over.load(Relaxed);
        let sum = self.sum.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {total}");
        let _ = writeln!(out, "{name}_sum {sum}\n{name}_count {total}");
    }
}

/// All that is counted.
pub struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    ends: [AtomicU64; 4],
    failed: AtomicU64,
    cancelled: AtomicU64,
    /// Answers submitted and not ended.
    under_way: AtomicUsize,
    /// Open connections.
    pub connections: AtomicUsize,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    reasoning_tokens: AtomicU64,
    queue: Histogram,
    first: Histogram,
    between: Histogram,
    whole: Histogram,
}

/// OpenAI's words for how an answer ended, in the order of `ends`.
const ENDS: [&str; 4] = ["stop", "stop_string", "length", "tool_calls"];

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            ends: std::array::from_fn(|_| AtomicU64::new(0)),
            failed: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            prompt_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
            reasoning_tokens: AtomicU64::new(0),
            queue: Histogram::new(&SECONDS),
            first: Histogram::new(&SECONDS),
            between: Histogram::new(&BETWEEN),
            whole: Histogram::new(&SECONDS),
        }
    }
}

impl Metrics {
    /// A request to this route was answered.
    pub fn request(&self, route: &'static str, status: u16) {
        if let Ok(mut requests) = self.requests.lock() {
            *requests.entry((route, status)).or_default() += 1;
        }
    }

    /// An answer was submitted.
    pub fn submitted(&self) {
        self.under_way.fetch_add(1, Relaxed);
    }

    /// The engine took it up.
    pub fn started(&self, stats: &Stats) {
        self.queue.observe(stats.queued);
        self.cached_tokens
            .fetch_add(stats.cached_tokens as u64, Relaxed);
        self.prompt_tokens
            .fetch_add(stats.prompt_tokens as u64, Relaxed);
    }

    /// A token came `seconds` after the answer was submitted, if it is its first, or after the one
    /// before.
    pub fn token(&self, first: bool, seconds: f64) {
        let histogram = if first { &self.first } else { &self.between };
        histogram.observe(seconds);
    }

    /// It ended.
    pub fn ended(&self, end: &End, usage: Usage, seconds: f64) {
        let place = match end {
            End::Stop => 0,
            End::StopString(_) => 1,
            End::Length => 2,
            End::ToolCalls => 3,
        };
        self.ends[place].fetch_add(1, Relaxed);
        self.completion_tokens
            .fetch_add(usage.completion as u64, Relaxed);
        self.reasoning_tokens
            .fetch_add(usage.reasoning as u64, Relaxed);
        self.whole.observe(seconds);
    }

    /// It failed.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// Nobody waits for it any more, ended or not.
    pub fn left(&self, cancelled: bool) {
        self.under_way.fetch_sub(1, Relaxed);
        self.cancelled.fetch_add(u64::from(cancelled), Relaxed);
    }

    /// Everything, as Prometheus reads it.
    pub fn text(&self, app: &App) -> String {
        let mut out = String::with_capacity(8192);
        let name = "pensieve_requests_total";
        head(&mut out, name, "HTTP requests answered.", "counter");
        if let Ok(requests) = self.requests.lock() {
            for ((route, status), count) in requests.iter() {
                let labels = format!("route=\"{route}\",status=\"{status}\"");
                let _ = writeln!(out, "{name}{{{labels}}} {count}");
            }
        }
        let name = "pensieve_answers_total";
        head(&mut out, name, "Answers by how they ended.", "counter");
        let ends = ENDS.iter().zip(&self.ends);
        let others = [("failed", &self.failed), ("cancelled", &self.cancelled)];
        for (end, count) in ends.map(|(end, count)| (*end, count)).chain(others) {
            let _ = writeln!(out, "{name}{{end=\"{end}\"}} {}", count.load(Relaxed));
        }
        let count = |counter: &AtomicU64| counter.load(Relaxed) as f64;
        for (name, help, value) in [
            ("prompt", "Tokens of prompts taken up.", &self.prompt_tokens),
            (
                "cached",
                "Those of them that were taken from the prefix cache.",
                &self.cached_tokens,
            ),
            ("completion", "Tokens generated.", &self.completion_tokens),
            (
                "reasoning",
                "Those of them that were spent on reasoning.",
                &self.reasoning_tokens,
            ),
        ] {
            let name = format!("pensieve_{name}_tokens_total");
            single(&mut out, &name, help, "counter", count(value));
        }
        let waiting = app.engine.waiting();
        let running = self.under_way.load(Relaxed).saturating_sub(waiting);
        for (name, help, value) in [
            ("queue_length", "Answers that wait for the engine.", waiting),
            ("batch_size", "Answers that the engine works on.", running),
            (
                "connections",
                "Open connections.",
                self.connections.load(Relaxed),
            ),
            (
                "weight_bytes",
                "Bytes of the model's weights in memory.",
                app.engine.facts().weight_bytes,
            ),
        ] {
            let name = format!("pensieve_{name}");
            single(&mut out, &name, help, "gauge", value as f64);
        }
        for (histogram, name, help) in [
            (
                &self.queue,
                "queue",
                "From submission to the engine's taking it up.",
            ),
            (
                &self.first,
                "time_to_first_token",
                "From submission to the first token.",
            ),
            (&self.between, "inter_token", "From one token to the next."),
            (&self.whole, "answer", "From submission to the end."),
        ] {
            histogram.write(&mut out, &format!("pensieve_{name}_seconds"), help);
        }
        if let Some(gauges) = &app.gauges {
            for (name, help, value) in gauges() {
                let name = format!("pensieve_{name}");
                single(&mut out, &name, help, "gauge", value);
            }
        }
        out
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn single(out: &mut String, name: &str, help: &str, kind: &str, value: f64) {
    head(out, name, help, kind);
    let _ = writeln!(out, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let histogram = Histogram::new(&SECONDS);
        for seconds in [0.0, 0.005, 0.006, 0.3, 299.0, 1e4] {
            histogram.observe(seconds);
        }
        let mut out = String::new();
        histogram.write(&mut out, "t", "h");
        let value = |label: &str| {
            let line = out.lines().find(|line| line.starts_with(label)).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        assert_eq!(value("t_bucket{le=\"0.005\"}"), 2.0);
        assert_eq!(value("t_bucket{le=\"0.01\"}"), 3.0);
        assert_eq!(value("t_bucket{le=\"300\"}"), 5.0);
        assert_eq!(value("t_bucket{le=\"+Inf\"}"), 6.0);
        assert_eq!(value("t_count"), 6.0);
        assert!((value("t_sum") - 10299.311).abs() < 0.01);
    }
}
