//! Times a model directory from inside the process, like `tests/golden/speed.py` times mlx-lm:
//!
//!     cargo bench --bench speed -- MODEL_DIR [--prompt 128] [--tokens 64] [--reps 3] [--device cpu]
//!
//! Prints one JSON line with medians after one warm-up: `ttft_ms` from submission to the first
//! token, `decode_tps` the tokens a second after it.

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use pensieve::checkpoint::Source;
use pensieve::engine::{Engine, Event, Options, Request, WeightsMode};
use pensieve::mlx::Device;
use pensieve::sample::Params;

#[derive(Parser)]
struct Args {
    /// A directory in MLX format; no tokenizer is needed
    model: PathBuf,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 128)]
    prompt: usize,
    /// Tokens of the answer, 2 or more
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Measurements after the warm-up
    #[arg(long, default_value_t = 3)]
    reps: usize,
    /// `cpu` or `gpu`; the best there is if not given
    #[arg(long)]
    device: Option<String>,
    /// Keep weights as they are stored
    #[arg(long)]
    keep: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let options = Options {
        device: match args.device.as_deref() {
            None => None,
            Some("cpu") => Some(Device::Cpu),
            Some("gpu") => Some(Device::Gpu),
            Some(other) => panic!("--device is cpu or gpu, not {other}"),
        },
        weights: match args.keep {
            true => WeightsMode::Keep,
            false => WeightsMode::Auto,
        },
        ..Options::default()
    };
    let engine = Engine::start(Source::Directory(args.model.clone()), options, |_, _| {})
        .unwrap_or_else(|e| panic!("{}: {e}", args.model.display()));
    let vocab = engine.handle.facts().vocab_size as u64;
    // Any spread of ids will do; nothing may end the answer early.
    let id = |i: usize| ((i as u64 * 2_654_435_761 + 17) % vocab) as u32;
    let prompt: Vec<u32> = (0..args.prompt).map(id).collect();
    let measure = || {
        let request = Request {
            prompt: prompt.clone(),
            params: Params::default(),
            max_tokens: args.tokens,
            form: None,
            stop_ids: Vec::new(),
            logprobs: None,
            prompt_logprobs: false,
        };
        let start = Instant::now();
        let mut events = engine.handle.submit(request).expect("a request that fits");
        let mut stamps = Vec::with_capacity(args.tokens);
        while let Some(event) = events.blocking_recv() {
            match event {
                Event::Token { .. } => stamps.push(start.elapsed().as_secs_f64()),
                Event::Failed(message) => panic!("{message}"),
                Event::Started(_) | Event::Prompt(_) | Event::Finished { .. } => {}
            }
        }
        let n = stamps.len();
        assert!(
            n >= 2,
            "the model ended the answer after {n} tokens; try another prompt length"
        );
        (stamps[0], (n - 1) as f64 / (stamps[n - 1] - stamps[0]))
    };
    measure();
    let (mut firsts, mut rates): (Vec<f64>, Vec<f64>) = (0..args.reps).map(|_| measure()).unzip();
    println!(
        "{}",
        serde_json::json!({
            "ttft_ms": 1e3 * median(&mut firsts),
            "decode_tps": median(&mut rates),
            "prompt": args.prompt,
            "tokens": args.tokens,
            "reps": args.reps,
            "model": args.model.file_name().map(|name| name.to_string_lossy()),
        })
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
