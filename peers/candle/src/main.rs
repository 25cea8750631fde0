//! Measures candle on a GGUF file: one stream, the same measures and JSON rows as `pensieve bench`.
//!
//!     cargo run --release -- MODEL.gguf [--prompt 64] [--gen 32] [--reps 3] [--warm-up 1]
//!
//! candle's own quantized Llama and Qwen3; peers/gguf_shape.py writes such a file of a model's shape with
//! random weights. Prompts are random ids; the likeliest token follows.

use std::error::Error;
use std::fs::File;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen3};
use serde_json::{Value, json};

type Done<T> = Result<T, Box<dyn Error>>;

enum Model {
    Llama(quantized_llama::ModelWeights),
    Qwen3(quantized_qwen3::ModelWeights),
}

impl Model {
    /// The model in a file, and its vocabulary's size.
    fn open(path: &str, device: &Device) -> Done<(Model, u32)> {
        let mut file = File::open(path).map_err(|e| format!("{path}: {e}"))?;
        let content = Content::read(&mut file)?;
        let architecture = match content.metadata.get("general.architecture") {
            Some(name) => name.to_string()?.clone(),
            None => return Err(format!("{path} does not say general.architecture").into()),
        };
        let embedding = content.tensor_infos.get("token_embd.weight");
        let embedding = embedding.ok_or("there is no token_embd.weight")?;
        let vocab = embedding.shape.dims2()?.0 as u32;
        let model = match architecture.as_str() {
            "llama" => Model::Llama(quantized_llama::ModelWeights::from_gguf(
                content, &mut file, device,
            )?),
            "qwen3" => Model::Qwen3(quantized_qwen3::ModelWeights::from_gguf(
                content, &mut file, device,
            )?),
            other => return Err(format!("{other} is neither llama nor qwen3").into()),
        };
        Ok((model, vocab))
    }

    /// The likeliest token after `tokens`, which come after `position` others.
    fn next(&mut self, tokens: &[u32], position: usize, device: &Device) -> Done<u32> {
        let input = Tensor::new(tokens, device)?.unsqueeze(0)?; // [1, L]
        let logits = match self {
            Model::Llama(model) => model.forward(&input, position)?,
            Model::Qwen3(model) => model.forward(&input, position)?,
        };
        let logits = logits.flatten_all()?.to_dtype(DType::F32)?; // [vocab]
        Ok(logits.argmax(0)?.to_scalar()?)
    }

    fn forget(&mut self) {
        match self {
            Model::Llama(model) => model.clear_kv_cache(),
            Model::Qwen3(model) => model.clear_kv_cache(),
        }
    }
}

struct Options {
    model: String,
    prompt: usize,
    answer: usize,
    reps: usize,
    warm_up: usize,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        model: String::new(),
        prompt: 64,
        answer: 32,
        reps: 3,
        warm_up: 1,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let place = match word.as_str() {
            "--prompt" => &mut options.prompt,
            "--gen" => &mut options.answer,
            "--reps" => &mut options.reps,
            "--warm-up" => &mut options.warm_up,
            file if !file.starts_with('-') && options.model.is_empty() => {
                options.model = file.to_owned();
                continue;
            }
            other => return Err(format!("{other} is not known")),
        };
        let value = words.next().and_then(|value| value.parse().ok());
        *place = value.ok_or(format!("{word} needs a number"))?;
    }
    let complete = !options.model.is_empty() && options.prompt > 0 && options.reps > 0;
    if !complete || options.answer < 2 {
        return Err(
            "expected MODEL.gguf, and of --prompt and --reps 1 or more, of --gen 2 or more".into(),
        );
    }
    Ok(options)
}

fn main() -> Done<()> {
    let options = options()?;
    let device = if cfg!(feature = "metal") {
        Device::new_metal(0)?
    } else if cfg!(feature = "cuda") {
        Device::new_cuda(0)?
    } else {
        Device::Cpu
    };
    let start = Instant::now();
    let (mut model, vocab) = Model::open(&options.model, &device)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let mut draw = 0u64;
    let runs = (0..options.warm_up + options.reps).map(|_| -> Done<Vec<f64>> {
        let prompt: Vec<u32> = (0..options.prompt)
            .map(|_| {
                // A linear congruential generator's upper bits (Knuth's MMIX).
                draw = draw
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                ((draw >> 33) % u64::from(vocab)) as u32
            })
            .collect();
        model.forget();
        let start = Instant::now();
        let mut stamps = Vec::with_capacity(options.answer);
        let mut token = model.next(&prompt, 0, &device)?;
        stamps.push(start.elapsed().as_secs_f64());
        while stamps.len() < options.answer {
            let position = prompt.len() + stamps.len() - 1;
            token = model.next(&[token], position, &device)?;
            stamps.push(start.elapsed().as_secs_f64());
        }
        Ok(stamps)
    });
    let runs = runs.collect::<Done<Vec<Vec<f64>>>>()?;
    let runs = &runs[options.warm_up..];
    let of = |f: &dyn Fn(&[f64]) -> f64| summary(runs.iter().map(|run| f(run)).collect());
    let last = options.answer - 1;
    let gaps = runs.iter().flat_map(|run| run.windows(2));
    let row = json!({
        "target": "candle",
        "model": options.model,
        "prompt": options.prompt,
        "gen": options.answer,
        "depth": 0,
        "concurrency": 1,
        "reps": options.reps,
        "ttft_ms": of(&|run| 1e3 * run[0]),
        "prefill_tps": of(&|run| options.prompt as f64 / run[0]),
        "decode_tps": of(&|run| last as f64 / (run[last] - run[0])),
        "itl_ms": summary(gaps.map(|pair| 1e3 * (pair[1] - pair[0])).collect()),
        "load_seconds": load_seconds,
    });
    println!("{row}");
    Ok(())
}

/// Percentiles, by linear interpolation between neighbours as numpy has them.
fn summary(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let percentile = |percent: f64| {
        let place = percent / 100.0 * (values.len() - 1) as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        values[below] + (values[above] - values[below]) * place.fract()
    };
    json!({
        "p5": percentile(5.0),
        "p50": percentile(50.0),
        "p90": percentile(90.0),
        "p99": percentile(99.0),
        "n": values.len(),
    })
}
