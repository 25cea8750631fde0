//! One point's measurements, and how rows are written: a table, Markdown, CSV, or JSON lines.

use serde_json::{Map, Value, json};

use super::grid::Point;
use super::stats::{Summary, rounded};
use super::system::{CpuTime, GpuUse};
use super::target::TargetFacts;
use super::trace::{Trace, aggregate_rate, prefill_rate, total_rate};
use crate::engine::Rates;

/// What was measured at one point, one number a stream, a gap or a repetition.
#[derive(Clone, Debug, Default)]
pub struct Measures {
    /// Milliseconds from sending to the first token, of each stream. What lies before the prompt is
    /// known by then, and kernels are warm.
    pub ttft_ms: Vec<f64>,
    /// The same of the first run of all, of which nothing was known.
    pub ttft_cold_ms: Vec<f64>,
    /// Computed tokens of prompts a second until all streams have their first token, of each
    /// repetition.
    pub prefill_tps: Vec<f64>,
    /// Tokens a second after the first, of each stream.
    pub decode_tps: Vec<f64>,
    /// Milliseconds between a stream's tokens.
    pub itl_ms: Vec<f64>,
    /// Tokens a second of all streams while all decode, of each repetition in which they do.
    pub aggregate_tps: Vec<f64>,
    /// Tokens a second of all streams from the first request to the last token, of each repetition.
    pub total_tps: Vec<f64>,
    /// Tokens of each answer.
    pub tokens: Vec<f64>,
    /// Tokens of each prompt.
    pub prompt_tokens: Vec<f64>,
    /// Those of them that were not computed, where that is known.
    pub cached_tokens: Vec<f64>,
    /// Answers with fewer tokens than asked for.
    pub ended_early: usize,
    /// Milliseconds of processor time of this process a token of the answers, of each repetition.
    pub cpu_ms_per_token: Vec<f64>,
    /// The same of the engine's thread: the host's part.
    pub engine_cpu_ms_per_token: Vec<f64>,
    /// Milliseconds of a decoding step in which the host built and started the next, of each stream.
    pub step_host_ms: Vec<f64>,
    /// Milliseconds of a decoding step in which the host waited for the device, of each stream.
    pub step_wait_ms: Vec<f64>,
    /// The most bytes that MLX held so far.
    pub peak_memory: Option<usize>,
}

impl Measures {
    /// Adds one repetition of `point`.
    pub fn add(&mut self, point: &Point, traces: &[Trace], used: Option<CpuTime>) {
        for trace in traces {
            self.ttft_ms.extend(trace.first().map(|s| 1e3 * s));
            self.decode_tps.extend(trace.decode_rate());
            self.itl_ms.extend(trace.gaps().map(|s| 1e3 * s));
            self.tokens.push(trace.tokens as f64);
            self.ended_early += usize::from(trace.tokens < point.answer);
            self.prompt_tokens.push(trace.prompt_tokens as f64);
            self.cached_tokens
                .extend(trace.cached_tokens.map(|n| n as f64));
            self.peak_memory = self.peak_memory.max(trace.peak_memory);
            if let Some((host, wait)) = trace.step {
                self.step_host_ms.push(1e3 * host);
                self.step_wait_ms.push(1e3 * wait);
            }
        }
        self.prefill_tps.extend(prefill_rate(traces));
        self.aggregate_tps.extend(aggregate_rate(traces));
        self.total_tps.extend(total_rate(traces));
        let tokens: usize = traces.iter().map(|trace| trace.tokens).sum();
        if let (Some(used), true) = (used, tokens > 0) {
            let each = |seconds: f64| 1e3 * seconds / tokens as f64;
            self.cpu_ms_per_token.push(each(used.process));
            self.engine_cpu_ms_per_token.extend(used.engine.map(each));
        }
    }

    /// Every measure with its name, in the order in which they are written.
    pub fn named(&self) -> [(&'static str, &[f64]); 11] {
        [
            ("ttft_ms", &self.ttft_ms),
            ("ttft_cold_ms", &self.ttft_cold_ms),
            ("prefill_tps", &self.prefill_tps),
            ("decode_tps", &self.decode_tps),
            ("itl_ms", &self.itl_ms),
            ("aggregate_tps", &self.aggregate_tps),
            ("total_tps", &self.total_tps),
            ("cpu_ms_per_token", &self.cpu_ms_per_token),
            ("engine_cpu_ms_per_token", &self.engine_cpu_ms_per_token),
            ("step_host_ms", &self.step_host_ms),
            ("step_wait_ms", &self.step_wait_ms),
        ]
    }
}

/// One point, measured.
#[derive(Clone, Debug)]
pub struct Row {
    /// Where in the grid.
    pub point: Point,
    /// Repetitions.
    pub reps: usize,
    /// What was measured.
    pub target: TargetFacts,
    /// The measurements.
    pub measures: Measures,
    /// What the GPU did meanwhile.
    pub gpu: Option<GpuUse>,
    /// The most bytes that this process has had in RAM.
    pub resident: Option<u64>,
    /// Ratios to another target's row, by measure.
    pub versus: Option<Map<String, Value>>,
}

impl Row {
    /// As one object.
    pub fn json(&self) -> Value {
        let (point, target) = (&self.point, &self.target);
        let mut object = Map::new();
        let mut say = |key: &str, value: Value| {
            object.insert(key.to_owned(), value);
        };
        say("target", json!(target.name));
        say("model", json!(target.model));
        say("prompt", json!(point.prompt));
        say("gen", json!(point.answer));
        say("depth", json!(point.depth));
        say("concurrency", json!(point.concurrency));
        say("reps", json!(self.reps));
        for (name, values) in self.measures.named() {
            say(name, Summary::of(values).map_or(Value::Null, |s| s.json()));
        }
        let mean = |values: &[f64]| Summary::of(values).map(|s| rounded(s.mean));
        say("tokens", json!(mean(&self.measures.tokens)));
        say("ended_early", json!(self.measures.ended_early));
        say("prompt_tokens", json!(mean(&self.measures.prompt_tokens)));
        say("cached_tokens", json!(mean(&self.measures.cached_tokens)));
        say("peak_memory_bytes", json!(self.measures.peak_memory));
        say("resident_bytes", json!(self.resident));
        let gpu = self.gpu.unwrap_or_default();
        say("gpu_utilization", json!(gpu.utilization.map(rounded)));
        say("gpu_watts", json!(gpu.watts.map(rounded)));
        say("gpu_memory_bytes", json!(gpu.memory));
        say("weight_bytes", json!(target.weight_bytes));
        say("load_seconds", json!(target.load_seconds.map(rounded)));
        if let Some(roof) = self.roof() {
            say("step_bytes", json!(rounded(roof.bytes)));
            say("step_flops", json!(rounded(roof.flops)));
            say(
                "bytes_per_second",
                json!(rounded(roof.bytes / roof.seconds)),
            );
            say(
                "flops_per_second",
                json!(rounded(roof.flops / roof.seconds)),
            );
            say(
                "device_bytes_per_second",
                json!(rounded(roof.rates.bytes_per_second)),
            );
            say(
                "device_flops_per_second",
                json!(rounded(roof.rates.flops_per_second)),
            );
            say("bandwidth_share", json!(rounded(roof.bandwidth_share())));
            say("flops_share", json!(rounded(roof.flops_share())));
        }
        if let Some(versus) = &self.versus {
            say("versus", Value::Object(versus.clone()));
        }
        Value::Object(object)
    }

    /// The median decode step, under the device's roof.
    fn roof(&self) -> Option<Roof> {
        let (cost, rates) = self.target.roofline.as_ref()?;
        let point = &self.point;
        let rate = Summary::of(&self.measures.aggregate_tps)?.p50;
        let context = point.depth + point.prompt + point.answer / 2;
        let step = cost.step(point.concurrency, context);
        Some(Roof {
            bytes: step.bytes,
            flops: step.flops,
            seconds: point.concurrency as f64 / rate,
            rates: *rates,
        })
    }

    /// The ratios to another target's row, for people; empty without any.
    pub fn ratios(&self) -> String {
        let Some(versus) = &self.versus else {
            return String::new();
        };
        let lines = versus.iter().map(|(name, ratio)| {
            let part = |key: &str| {
                let part = ratio.get(key).and_then(Value::as_f64);
                part.map_or(f64::NAN, three_digits)
            };
            let (low, high) = (part("low"), part("high"));
            format!("  {name}: x{} ({low} to {high})\n", part("ratio"))
        });
        lines.collect()
    }

    /// The columns of a table, of a Markdown table and of a CSV file.
    fn cells(&self) -> Vec<(&'static str, String)> {
        let point = &self.point;
        let measures = &self.measures;
        let number = |x: Option<f64>| x.map_or_else(String::new, |x| rounded(x).to_string());
        let p50 = |values: &[f64]| number(Summary::of(values).map(|s| three_digits(s.p50)));
        let itl = Summary::of(&measures.itl_ms);
        let gigabytes = |bytes: usize| three_digits(bytes as f64 / 1e9);
        let percent = |roof: Roof| three_digits(100.0 * roof.bandwidth_share());
        let rate_percent = |roof: Roof| three_digits(100.0 * roof.flops_share());
        let megabytes = |roof: Roof| three_digits(roof.bytes / 1e6);
        let gigaflops = |roof: Roof| three_digits(roof.flops / 1e9);
        vec![
            ("target", self.target.name.clone()),
            ("prompt", point.prompt.to_string()),
            ("gen", point.answer.to_string()),
            ("depth", point.depth.to_string()),
            ("streams", point.concurrency.to_string()),
            ("ttft ms", p50(&measures.ttft_ms)),
            ("prefill t/s", p50(&measures.prefill_tps)),
            ("decode t/s", p50(&measures.decode_tps)),
            ("all t/s", p50(&measures.aggregate_tps)),
            ("total t/s", p50(&measures.total_tps)),
            ("itl ms", number(itl.map(|s| three_digits(s.p50)))),
            ("p99", number(itl.map(|s| three_digits(s.p99)))),
            ("max", number(itl.map(|s| three_digits(s.max)))),
            ("host ms", p50(&measures.step_host_ms)),
            ("wait ms", p50(&measures.step_wait_ms)),
            ("peak GB", number(measures.peak_memory.map(gigabytes))),
            ("step MB", number(self.roof().map(megabytes))),
            ("GFLOP", number(self.roof().map(gigaflops))),
            ("bandw %", number(self.roof().map(percent))),
            ("flops %", number(self.roof().map(rate_percent))),
        ]
    }
}

/// A step's cost and time.
struct Roof {
    bytes: f64,
    flops: f64,
    seconds: f64,
    rates: Rates,
}

impl Roof {
    fn bandwidth_share(&self) -> f64 {
        self.bytes / self.seconds / self.rates.bytes_per_second
    }

    fn flops_share(&self) -> f64 {
        self.flops / self.seconds / self.rates.flops_per_second
    }
}

/// To three significant digits, or to a whole number.
fn three_digits(x: f64) -> f64 {
    match x.abs() >= 100.0 {
        true => x.round(),
        false => {
            let scale = 10f64.powi(2 - x.abs().max(1e-9).log10().floor() as i32);
            (x * scale).round() / scale
        }
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Columns padded with spaces, medians.
    Table,
    /// A Markdown table of the same.
    Markdown,
    /// Comma-separated values of the same.
    Csv,
    /// One object a line, with all percentiles.
    Json,
}

impl Format {
    /// The text of a row; `first` says whether a heading goes before it.
    pub fn line(self, row: &Row, first: bool) -> String {
        let cells = row.cells();
        let titles = || cells.iter().map(|(title, _)| *title);
        let values = || cells.iter().map(|(_, value)| value.as_str());
        match self {
            Format::Json => format!("{}\n", row.json()),
            Format::Csv => {
                let values: Vec<String> = values().map(quoted).collect();
                let heading = titles().collect::<Vec<_>>().join(",");
                match first {
                    true => format!("{heading}\n{}\n", values.join(",")),
                    false => format!("{}\n", values.join(",")),
                }
            }
            Format::Markdown => {
                let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
                let rule = format!("|{}\n", "---|".repeat(cells.len()));
                let values = line(values().collect());
                match first {
                    true => line(titles().collect()) + &rule + &values,
                    false => values,
                }
            }
            Format::Table => {
                let widths = titles().enumerate().map(|(i, title)| match i {
                    0 => 10,
                    _ => title.len().max(7),
                });
                let widths: Vec<usize> = widths.collect();
                let line = |cells: Vec<&str>| {
                    let padded = cells
                        .iter()
                        .zip(&widths)
                        .map(|(cell, w)| format!("{cell:>w$}"));
                    padded.collect::<Vec<_>>().join(" ") + "\n"
                };
                match first {
                    true => line(titles().collect()) + &line(values().collect()),
                    false => line(values().collect()),
                }
            }
        }
    }
}

/// A CSV field.
fn quoted(field: &str) -> String {
    match field.contains([',', '"', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let mut measures = Measures::default();
        let trace = Trace {
            sent: 0.0,
            stamps: vec![0.5, 1.0, 1.5],
            prompt_tokens: 16,
            cached_tokens: Some(0),
            tokens: 3,
            peak_memory: Some(2_000_000_000),
            step: Some((0.1, 0.4)),
        };
        let used = CpuTime {
            process: 0.6,
            engine: Some(0.3),
        };
        let point = Point {
            prompt: 16,
            answer: 3,
            depth: 0,
            concurrency: 1,
        };
        measures.add(&point, &[trace], Some(used));
        Row {
            point,
            reps: 1,
            target: TargetFacts {
                name: "a,b".into(),
                model: "m".into(),
                weight_bytes: Some(5),
                load_seconds: None,
                roofline: None,
            },
            measures,
            gpu: None,
            resident: None,
            versus: None,
        }
    }

    #[test]
    fn a_row_has_each_measure_with_its_percentiles() {
        let json = row().json();
        for (name, median) in [
            ("ttft_ms", 500.0),
            ("prefill_tps", 32.0),
            ("decode_tps", 2.0),
            ("itl_ms", 500.0),
            ("aggregate_tps", 2.0),
            ("total_tps", 2.0),
            ("cpu_ms_per_token", 200.0),
            ("engine_cpu_ms_per_token", 100.0),
            ("step_host_ms", 100.0),
            ("step_wait_ms", 400.0),
        ] {
            assert_eq!(json[name]["p50"], median, "{name}");
            for part in ["p5", "p90", "p99", "max"] {
                assert_eq!(json[name][part], median, "{name} {part}");
            }
        }
        assert_eq!(json["gen"], 3);
        assert_eq!(json["tokens"], 3.0);
        assert_eq!(json["gpu_watts"], Value::Null);
        assert_eq!(json["ttft_cold_ms"], Value::Null);
    }

    #[test]
    fn formats_have_a_heading_once_and_as_many_cells() {
        let row = row();
        for format in [Format::Table, Format::Markdown, Format::Csv] {
            let (with, without) = (format.line(&row, true), format.line(&row, false));
            assert!(
                with.ends_with(&without) && with.contains("decode t/s"),
                "{with}"
            );
            assert!(!without.contains("decode t/s"));
        }
        let csv = Format::Csv.line(&row, true);
        let mut lines = csv.lines();
        let heading = lines.next().unwrap().split(',').count();
        assert!(
            lines
                .next()
                .unwrap()
                .starts_with("\"a,b\",16,3,0,1,500,32,2,2,2,")
        );
        assert_eq!(heading, row.cells().len());
        assert_eq!(row.ratios(), "");
        assert!(serde_json::from_str::<Value>(&Format::Json.line(&row, true)).is_ok());
    }

    #[test]
    fn numbers_in_tables_are_short() {
        for (x, short) in [
            (1234.5, 1235.0),
            (99.96, 100.0),
            (0.012345, 0.0123),
            (0.0, 0.0),
        ] {
            assert_eq!(three_digits(x), short);
        }
    }
}
