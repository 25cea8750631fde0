//! Every golden case: log-probabilities and greedy tokens against mlx-lm's on the same checkpoint,
//! and the invariants that chunking, decoding and rewinding change nothing.
//!
//! `PENSIEVE_GOLDEN=llama,qwen3-q4` takes the cases of these families or beginnings of names alone.
//! `PENSIEVE_GOLDEN_DEVICE=gpu` computes on the GPU (where `MLX_ENABLE_TF32=0` keeps float32 whole).
//! `PENSIEVE_GOLDEN_REPORT=FILE` writes how far each case is from mlx-lm, one JSON object a line.

mod common;

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;

use common::golden::{Case, case, cases, device};
use common::portable;
use pensieve::cache::{Batch, LayerCache};
use pensieve::checkpoint::WeightsAs;
use pensieve::mlx::{Device, Dtype, Result, Runtime};
use pensieve::models::{self, Loaded, Model};
use serde_json::{Value, json};

/// The largest difference of a log-probability, in nats.
const TOLERANCE: f32 = 1e-3;
/// Positions that leave a cache and come back must be the same to rounding.
const SAME: f32 = 2e-4;
const FLOAT32: WeightsAs = WeightsAs::Dense(Dtype::Float32);

/// A value, or what is wrong with the case.
type Check<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Checks every case, and fails with all that failed.
fn each(check: impl Fn(&Case) -> Check<()>) {
    let (_runtime, cases) = (Runtime::enter(device()).unwrap(), cases());
    let failed: Vec<String> = cases
        .iter()
        .filter_map(|case| Some(format!("{}: {}", case.name, check(case).err()?)))
        .collect();
    let (count, all) = (failed.len(), cases.len());
    assert!(
        failed.is_empty(),
        "{count} of {all} cases:\n{}",
        failed.join("\n")
    );
}

/// Log-probabilities `[L, vocab]`, row-major, of `tokens` from position `offset` on.
fn logprobs(
    model: &dyn Model,
    caches: &mut [LayerCache],
    offset: usize,
    tokens: &[u32],
) -> Result<Vec<f32>> {
    let hidden = model.forward(&Batch::single(tokens, offset)?, caches)?;
    let logits = model.unembed(&hidden)?.astype(Dtype::Float32)?;
    logits.log_softmax()?.to_vec()
}

/// The same of the whole prompt, a chunk at a time.
fn by_chunks(model: &dyn Model, prompt: &[u32], chunk: usize) -> Result<Vec<f32>> {
    let (mut caches, mut rows) = (model.caches(), Vec::new());
    for (i, tokens) in prompt.chunks(chunk).enumerate() {
        rows.extend(logprobs(model, &mut caches, i * chunk, tokens)?);
    }
    Ok(rows)
}

/// The largest difference; infinite with a NaN, or if one is longer.
fn worst(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    a.iter().zip(b).fold(0.0, |worst, (x, y)| {
        let difference = (x - y).abs();
        // `max` would hide a NaN.
        if difference.is_nan() {
            f32::INFINITY
        } else {
            worst.max(difference)
        }
    })
}

fn argmax(row: &[f32]) -> u32 {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as u32
}

/// How far one way of computing a case is from mlx-lm.
struct Distance {
    model_type: String,
    prompt: f32,
    decode: f32,
    /// The first greedy step with another token.
    other_token: Option<usize>,
}

impl Distance {
    fn measure(case: &Case, weights_as: WeightsAs) -> Check<Self> {
        let Loaded {
            model, model_type, ..
        } = case.load(weights_as)?;
        let (mut caches, vocab) = (model.caches(), case.vocab);
        let whole = logprobs(model.as_ref(), &mut caches, 0, &case.prompt)?;
        let prompt = worst(&whole, &case.logprobs);
        let (mut decode, mut other_token) = (0.0f32, None);
        let mut row = whole[whole.len() - vocab..].to_vec();
        for (i, &expected) in case.greedy.iter().enumerate() {
            let reference = &case.greedy_logprobs[i * vocab..(i + 1) * vocab];
            decode = decode.max(worst(&row, reference));
            if argmax(&row) != expected {
                other_token = other_token.or(Some(i));
            }
            let offset = case.prompt.len() + i;
            row = logprobs(model.as_ref(), &mut caches, offset, &[expected])?;
        }
        Ok(Self {
            model_type,
            prompt,
            decode,
            other_token,
        })
    }

    fn fault(&self) -> Option<String> {
        let mut faults = Vec::new();
        if self.prompt.is_nan() || self.prompt >= TOLERANCE {
            faults.push(format!("the prompt differs by {:.1e}", self.prompt));
        }
        if self.decode.is_nan() || self.decode >= TOLERANCE {
            faults.push(format!("decoding differs by {:.1e}", self.decode));
        }
        if let Some(step) = self.other_token {
            faults.push(format!("greedy step {step} has another token"));
        }
        (!faults.is_empty()).then(|| faults.join(", "))
    }
}

#[test]
fn log_probabilities_and_greedy_tokens_are_mlx_lms() {
    let lines = RefCell::new(Vec::new());
    let report = std::env::var_os("PENSIEVE_GOLDEN_REPORT").map(|path| File::create(path).unwrap());
    if let Some(mut file) = report.as_ref() {
        for (file_name, names) in models::architectures() {
            writeln!(file, "{}", json!({"file": file_name, "names": names})).unwrap();
        }
    }
    each(|case| {
        let mut faults = Vec::new();
        // A checkpoint in float32 computes in it as it is stored; packed weights stay packed.
        let stored = case.stored.then_some(("stored", WeightsAs::Stored));
        let ways = [
            Some(("float32", FLOAT32)),
            stored,
            // As a CPU has them by default, and nothing else: MLX on CUDA rounds float32 to the packed
            // matrix's shorter type.
            (device() == Device::Cpu).then_some(("matrices", WeightsAs::Matrices)),
        ];
        for (way, weights_as) in ways.into_iter().flatten() {
            match Distance::measure(case, weights_as) {
                Err(e) => faults.push(format!("{way}: {e}")),
                Ok(distance) => {
                    let fault = distance.fault();
                    faults.extend(fault.map(|fault| format!("{way}: {fault}")));
                    let line = json!({
                        "case": case.name,
                        "family": case.family,
                        "layout": case.recipe["format"],
                        "model_type": distance.model_type,
                        "quantization": case.quantization(),
                        "way": way,
                        // JSON has no infinity: null says that the values cannot be compared.
                        "max_difference": distance.prompt.max(distance.decode),
                    });
                    println!("{line}");
                    // At once, so that a failing case does not keep the others from the report.
                    if let Some(mut file) = report.as_ref() {
                        writeln!(file, "{line}")?;
                    }
                    lines.borrow_mut().push(line);
                }
            }
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(faults.join("; ").into())
    });
    let lines = lines.into_inner();
    if std::env::var_os("PENSIEVE_GOLDEN").is_none() {
        let packed = |line: &&Value| line["way"] == "stored" && !line["quantization"].is_null();
        let packed = lines.iter().filter(packed).count();
        assert!(lines.len() > 40 && packed >= 8, "cases are missing");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let refused: [(&str, Value, &str); 3] = [
        ("rope_scaling", json!({"rope_type": "spiral"}), "spiral"),
        (
            "layer_types",
            json!(["full_attention", "odd_attention"]),
            "odd_attention",
        ),
        ("model_type", json!("no_such_model"), "no_such_model"),
    ];
    for (key, value, word) in refused {
        let mut case = case("llama-base");
        case.config[key] = value;
        let message = case.load(WeightsAs::Stored).err().unwrap();
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn chunks_make_no_difference() {
    each(|case| {
        let Loaded { model, .. } = case.load(FLOAT32)?;
        let whole = by_chunks(model.as_ref(), &case.prompt, case.prompt.len())?;
        for chunk in [1, 3, 16, case.prompt.len() - 1] {
            let rows = by_chunks(model.as_ref(), &case.prompt, chunk)?;
            let difference = worst(&rows, &whole);
            if difference >= SAME {
                return Err(format!("by {chunk}: {difference:.1e}").into());
            }
        }
        Ok(())
    });
}

#[test]
fn rewind_and_replay_equals_a_straight_run() {
    each(|case| {
        let Loaded { model, .. } = case.load(FLOAT32)?;
        let mut caches = model.caches();
        let straight = logprobs(model.as_ref(), &mut caches, 0, &case.prompt)?;
        // Other tokens in between, so that a replay which reads old entries shows.
        logprobs(model.as_ref(), &mut caches, case.prompt.len(), &case.greedy)?;
        let kept = case.prompt.len() / 3;
        let rewound: Result<()> = caches.iter_mut().try_for_each(|cache| cache.rewind(kept));
        if !case.rewinds {
            let refused = rewound.err().map(drop);
            return refused.ok_or_else(|| "every cache rewinds, expected.json denies it".into());
        }
        rewound?;
        let tail = &case.prompt[kept..];
        let replayed = logprobs(model.as_ref(), &mut caches, kept, tail)?;
        let difference = worst(&replayed, &straight[kept * case.vocab..]);
        if difference >= SAME {
            return Err(format!("{difference:.1e}").into());
        }
        if caches[0].rewind(1000).is_ok() {
            return Err("a cache rewinds to where it has not been".into());
        }
        Ok(())
    });
}

#[test]
fn a_cache_grows_past_its_first_buffer() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = case("llama-base");
    let Loaded { model, .. } = case.load(WeightsAs::Stored).unwrap();
    let long: Vec<u32> = case.prompt.iter().copied().cycle().take(600).collect();
    let whole = by_chunks(model.as_ref(), &long, long.len()).unwrap();
    let mut caches = model.caches();
    let mut rows = Vec::new();
    for (i, tokens) in long.chunks(77).enumerate() {
        rows.extend(logprobs(model.as_ref(), &mut caches, i * 77, tokens).unwrap());
    }
    assert!(worst(&rows, &whole) < SAME);
    let kept = caches.iter().map(LayerCache::nbytes).sum::<usize>();
    // Two layers' keys and values: 4 heads, 600 positions in steps of 256, 10 dims of 4 bytes.
    assert_eq!(kept, 2 * 2 * 4 * 768 * 10 * 4);
}

#[test]
fn a_batch_that_does_not_continue_the_cache_is_refused() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = case("llama-base");
    let Loaded { model, .. } = case.load(WeightsAs::Stored).unwrap();
    let batch = Batch::single(&case.prompt, 5).unwrap();
    let message = model.forward(&batch, &mut model.caches()).unwrap_err();
    assert!(
        message.to_string().contains("the batch starts at 5"),
        "{message}"
    );
}

/// The comparison fails when the model is wrong: another rope base, a norm or a bias dropped, a cap
/// skipped. Without the mutation it passes, so that it is the mutation that fails it.
#[test]
fn the_comparison_notices_mutations() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let notices = |name: &str, what: &str, mutate: &dyn Fn(&mut Case)| {
        let mut case = case(name);
        let fault = |case: &Case| Distance::measure(case, FLOAT32).unwrap().fault();
        assert_eq!(fault(&case), None, "{name}");
        mutate(&mut case);
        assert!(fault(&case).is_some(), "{name} passes with {what}");
    };
    let setting = |key: &'static str, value: Value| {
        move |case: &mut Case| {
            assert_ne!(case.config[key], value);
            case.config[key] = value.clone();
        }
    };
    // All values of the tensors with such a name become `value`: 1 drops a norm's scale, 0 a bias.
    let constant = |part: &'static str, value: f64| {
        move |case: &mut Case| {
            let mut found = 0;
            for tensor in case.recipe["tensors"].as_array_mut().unwrap() {
                if tensor[0].as_str().unwrap().contains(part) {
                    (tensor[4], tensor[5]) = (value.into(), 0.into());
                    found += 1;
                }
            }
            assert!(found > 0, "no tensor is called {part}");
        }
    };
    let linear = json!({"rope_type": "linear", "factor": 2.0});
    notices(
        "qwen3-base",
        "rope base",
        &setting("rope_theta", 500.into()),
    );
    notices(
        "qwen3-base",
        "epsilon",
        &setting("rms_norm_eps", 1.0.into()),
    );
    notices("qwen3-base", "scaling", &setting("rope_scaling", linear));
    notices("qwen3-base", "no q_norm", &constant("q_norm", 1.0));
    notices("qwen3-base", "no norms", &constant("input_layernorm", 1.0));
    notices("llama-bias", "no bias", &constant("q_proj.bias", 0.0));
    notices(
        "llama-sliding",
        "a window",
        &setting("sliding_window", 9.into()),
    );
}

#[test]
fn arrays_of_a_model_are_counted() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = case("llama-base");
    let Loaded { model, .. } = case.load(WeightsAs::Stored).unwrap();
    // Embedding and head; in each of two layers q, k, v, o, three of the MLP and two norms; a norm.
    let (d, ff, vocab) = (40, 64, 96);
    let floats = 2 * vocab * d + 2 * (4 * d * d + 3 * d * ff + 2 * d) + d;
    assert_eq!(model.facts().weight_bytes, 4 * floats);
}

#[test]
fn made_weights_are_those_that_python_makes() {
    let text = include_str!("golden/portable.json");
    let known: Vec<Value> = serde_json::from_str(text).unwrap();
    assert_eq!(known.len(), 9);
    for known in known {
        let bytes = portable::content(&known["tensor"], known["seed"].as_u64().unwrap());
        let starts: String = bytes[..16].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(known["starts"], starts, "{known}");
        let hash = format!("{:016x}", portable::fnv1a(&bytes));
        assert_eq!(known["fnv1a"], hash, "{known}");
    }
}
