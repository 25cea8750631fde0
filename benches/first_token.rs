//! The first token of a prompt of which an earlier one had most: cold, and with the prefix cache.
//!
//!     cargo bench --bench first_token -- [MODEL..] [--prompt 8192] [--shared 95] [--reps 3] [--device cpu]
//!
//! A model is a directory in MLX format, or the name of a folder in tests/golden/cases, which gives a
//! small one with random weights. Prints a line for each: medians in seconds, their ratio, and how many
//! tokens were reused. Most of a small model's time goes into attention, which grows with the square of
//! the length: of its 8192 tokens the last 5% take nearly 10%.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use pensieve::checkpoint::Source;
use pensieve::engine::{Engine, Event, Options, Request};
use pensieve::mlx::Device;
use pensieve::sample::Params;
use serde_json::json;

/// A full, a sliding, a recurrent, a latent and a mixed architecture.
const CASES: [&str; 5] = [
    "llama-base",
    "llama-sliding",
    "mamba2-base",
    "deepseek_v3-base",
    "qwen3_next-base",
];

#[derive(Parser)]
struct Args {
    /// Directories in MLX format, or names of golden cases; some of those if none is given
    models: Vec<String>,
    /// Tokens of the prompts
    #[arg(long, default_value_t = 8192)]
    prompt: usize,
    /// Hundredths of them that both have
    #[arg(long, default_value_t = 95)]
    shared: usize,
    /// Measurements
    #[arg(long, default_value_t = 3)]
    reps: usize,
    /// `cpu` or `gpu`; the best there is if not given
    #[arg(long)]
    device: Option<String>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    println!(
        "{:18}{:>11}{:>11}{:>8}{:>9}",
        "", "cold", "shared", "ratio", "reused"
    );
    let known = CASES.map(String::from);
    let models = if args.models.is_empty() {
        &known[..]
    } else {
        &args.models
    };
    for model in models {
        if Path::new(model).is_dir() {
            measure(&args, model, PathBuf::from(model));
        } else {
            let mut case = common::golden::case(model);
            case.config["max_position_embeddings"] = json!(2 * args.prompt);
            let checkpoint = case.checkpoint();
            measure(&args, model, checkpoint.path().to_path_buf());
        }
    }
}

fn measure(args: &Args, name: &str, directory: PathBuf) {
    let options = Options {
        device: match args.device.as_deref() {
            None => None,
            Some("cpu") => Some(Device::Cpu),
            Some("gpu") => Some(Device::Gpu),
            Some(other) => panic!("--device is cpu or gpu, not {other}"),
        },
        context_length: Some(2 * args.prompt),
        prefix_cache: None,
        ..Options::default()
    };
    let engine = Engine::start(Source::Directory(directory), options, |_, _| {})
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let vocab = engine.handle.facts().vocab_size as u64;
    let prompt = |seed: u64, from: usize| -> Vec<u32> {
        let id = |i: usize| ((i as u64 * 2_654_435_761 + seed * 97) % vocab) as u32;
        (from..args.prompt).map(id).collect()
    };
    // Kernels are compiled at their first use.
    first_token(&engine, &prompt(90, args.prompt / 2));
    let (mut cold, mut shared, mut reused) = (Vec::new(), Vec::new(), 0);
    for repeat in 0..args.reps.max(1) as u64 {
        // No two start alike.
        let mut first = prompt(repeat, 0);
        first[0] = (repeat % vocab) as u32;
        cold.push(first_token(&engine, &first).0);
        let end = args.prompt * args.shared / 100;
        let other = [&first[..end], &prompt(repeat + 50, end)].concat();
        let (seconds, tokens) = first_token(&engine, &other);
        shared.push(seconds);
        reused = tokens;
    }
    let (cold, shared) = (median(&mut cold), median(&mut shared));
    let ratio = 100.0 * shared / cold;
    println!("{name:18}{cold:>10.3}s{shared:>10.3}s{ratio:>7.1}%{reused:>9}");
}

/// Seconds to the first token, and how many tokens were reused.
fn first_token(engine: &Engine, prompt: &[u32]) -> (f64, usize) {
    let request = Request {
        prompt: prompt.to_vec(),
        params: Params::default(),
        max_tokens: 2,
        form: None,
        stop_ids: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
    };
    let started = Instant::now();
    let mut events = engine.handle.submit(request).expect("a request that fits");
    let mut seconds = f64::NAN;
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Token { .. } if seconds.is_nan() => seconds = started.elapsed().as_secs_f64(),
            Event::Finished { stats, .. } => return (seconds, stats.cached_tokens),
            Event::Failed(message) => panic!("{message}"),
            Event::Started(_) | Event::Token { .. } | Event::Prompt(_) => {}
        }
    }
    panic!("the channel closed without an end");
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
