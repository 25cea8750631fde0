//! Every golden case: log-probabilities and greedy tokens against mlx-lm's on the same checkpoint,
//! and the invariants that chunking, decoding and rewinding change nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pensieve::cache::{Batch, LayerCache};
use pensieve::checkpoint::{Source, WeightsAs, safetensors};
use pensieve::mlx::{Device, Dtype, Result, Runtime};
use pensieve::models::{self, Loaded, Model};

/// The largest difference of a log-probability, in nats.
const TOLERANCE: f32 = 1e-3;
/// Positions that leave a cache and come back must be the same to rounding.
const SAME: f32 = 2e-4;

/// The case whose architecture asks for what is not supported yet.
const REFUSED: &str = "llama-sliding";

struct Case {
    name: String,
    source: Source,
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    /// `[prompt, vocab]`, row-major.
    logprobs: Vec<f32>,
    /// `[greedy, vocab]`, row-major.
    greedy_logprobs: Vec<f32>,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expected.json").exists())
        .collect();
    folders.sort();
    assert!(folders.len() >= 20, "the golden cases are missing");
    folders.retain(|folder| !folder.ends_with(REFUSED));
    folders.iter().map(|folder| Case::open(folder)).collect()
}

impl Case {
    fn open(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ids = |key: &str| -> Vec<u32> {
            let list = expected[key].as_array().unwrap();
            list.iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let file = std::fs::read(folder.join("expected.safetensors")).unwrap();
        let mut tensors = floats(&file);
        Self {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            source: Source::Directory(folder.to_path_buf()),
            prompt: ids("prompt"),
            greedy: ids("greedy"),
            logprobs: tensors.remove("logprobs").unwrap(),
            greedy_logprobs: tensors.remove("greedy_logprobs").unwrap(),
        }
    }

    fn load(&self, weights_as: WeightsAs) -> Loaded {
        models::load(&self.source, weights_as, &|_, _| {})
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

fn floats(file: &[u8]) -> BTreeMap<String, Vec<f32>> {
    let header = safetensors::parse(file).unwrap();
    let read = |bytes: &[u8]| -> Vec<f32> {
        let words = bytes.chunks_exact(4);
        words
            .map(|w| f32::from_le_bytes(w.try_into().unwrap()))
            .collect()
    };
    let tensors = header.tensors.into_iter();
    tensors
        .map(|(name, info)| (name, read(&file[info.range])))
        .collect()
}

/// Log-probabilities `[L, vocab]`, row-major, of `tokens` that start where the caches end.
fn logprobs(model: &dyn Model, caches: &mut [LayerCache], tokens: &[u32]) -> Result<Vec<f32>> {
    let hidden = model.forward(&Batch::single(tokens, caches[0].len())?, caches)?;
    let logits = model.unembed(&hidden)?.astype(Dtype::Float32)?;
    logits.log_softmax()?.to_vec()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
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

#[test]
fn log_probabilities_and_greedy_tokens_are_mlx_lms() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let (mut tested, mut packed) = (0, 0);
    for case in cases() {
        let is_packed = case.name.contains("-q");
        let stored = !case.name.contains("16") && !case.name.contains("mixed");
        let mut ways = vec![WeightsAs::Dense(Dtype::Float32)];
        // A checkpoint in float32 computes in it as it is stored; packed weights stay packed.
        if stored {
            ways.push(WeightsAs::Stored);
            packed += usize::from(is_packed);
        }
        for weights_as in ways {
            let Loaded { model, .. } = case.load(weights_as);
            let mut caches = model.caches();
            let whole = logprobs(model.as_ref(), &mut caches, &case.prompt).unwrap();
            let difference = worst(&whole, &case.logprobs);
            println!("{:28} {weights_as:?}: {difference:.1e}", case.name);
            assert!(difference < TOLERANCE, "{}: {difference}", case.name);
            decode_follows(&case, model.as_ref(), &mut caches, &whole);
            tested += 1;
        }
    }
    assert!(tested > 40 && packed >= 8, "{tested} ways, {packed} packed");
}

/// After the prompt, token by token: the same distributions and the same greedy tokens.
fn decode_follows(case: &Case, model: &dyn Model, caches: &mut [LayerCache], whole: &[f32]) {
    let vocab = model.facts().vocab_size;
    let mut row = whole[whole.len() - vocab..].to_vec();
    for (i, &expected) in case.greedy.iter().enumerate() {
        let reference = &case.greedy_logprobs[i * vocab..(i + 1) * vocab];
        let difference = worst(&row, reference);
        assert!(
            difference < TOLERANCE,
            "{} step {i}: {difference}",
            case.name
        );
        assert_eq!(argmax(&row), expected, "{} step {i}", case.name);
        row = logprobs(model, caches, &[expected]).unwrap();
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases");
    let source = Source::Directory(root.join(REFUSED));
    let loaded = models::load(&source, WeightsAs::Stored, &|_, _| {});
    let message = loaded.err().unwrap().to_string();
    assert!(message.contains("sliding_attention"), "{message}");
}

#[test]
fn chunks_make_no_difference() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for case in cases() {
        let Loaded { model, .. } = case.load(WeightsAs::Dense(Dtype::Float32));
        let whole = logprobs(model.as_ref(), &mut model.caches(), &case.prompt).unwrap();
        for chunk in [1, 3, 16, case.prompt.len() - 1] {
            let mut caches = model.caches();
            let mut rows = Vec::new();
            for tokens in case.prompt.chunks(chunk) {
                rows.extend(logprobs(model.as_ref(), &mut caches, tokens).unwrap());
            }
            let difference = worst(&rows, &whole);
            assert!(difference < SAME, "{} by {chunk}: {difference}", case.name);
        }
    }
}

#[test]
fn rewind_and_replay_equals_a_straight_run() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for case in cases() {
        let Loaded { model, .. } = case.load(WeightsAs::Dense(Dtype::Float32));
        let mut caches = model.caches();
        let straight = logprobs(model.as_ref(), &mut caches, &case.prompt).unwrap();
        let vocab = model.facts().vocab_size;
        // Other tokens in between, so that a replay which reads old entries shows.
        logprobs(model.as_ref(), &mut caches, &case.greedy).unwrap();
        let kept = case.prompt.len() / 3;
        for cache in &mut caches {
            cache.rewind(kept).unwrap();
        }
        let replayed = logprobs(model.as_ref(), &mut caches, &case.prompt[kept..]).unwrap();
        let difference = worst(&replayed, &straight[kept * vocab..]);
        assert!(difference < SAME, "{}: {difference}", case.name);
        assert!(caches[0].rewind(1000).is_err());
    }
}

#[test]
fn a_cache_grows_past_its_first_buffer() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = cases()
        .into_iter()
        .find(|c| c.name == "llama-base")
        .unwrap();
    let Loaded { model, .. } = case.load(WeightsAs::Stored);
    let long: Vec<u32> = case.prompt.iter().copied().cycle().take(600).collect();
    let whole = logprobs(model.as_ref(), &mut model.caches(), &long).unwrap();
    let mut caches = model.caches();
    let mut rows = Vec::new();
    for tokens in long.chunks(77) {
        rows.extend(logprobs(model.as_ref(), &mut caches, tokens).unwrap());
    }
    assert!(worst(&rows, &whole) < SAME);
    let kept = caches.iter().map(LayerCache::nbytes).sum::<usize>();
    assert!(kept > 0);
}

#[test]
fn a_batch_that_does_not_continue_the_cache_is_refused() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = cases()
        .into_iter()
        .find(|c| c.name == "llama-base")
        .unwrap();
    let Loaded { model, .. } = case.load(WeightsAs::Stored);
    let batch = Batch::single(&case.prompt, 5).unwrap();
    let message = model.forward(&batch, &mut model.caches()).unwrap_err();
    assert!(
        message.to_string().contains("the batch starts at 5"),
        "{message}"
    );
}

/// The comparison itself fails when the model is wrong: a norm dropped, a rope base changed.
#[test]
fn the_comparison_notices_mutations() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = cases()
        .into_iter()
        .find(|c| c.name == "qwen3-base")
        .unwrap();
    let Source::Directory(folder) = &case.source else {
        unreachable!("cases are folders")
    };
    let mutate = |edit: &dyn Fn(&mut serde_json::Value)| -> f32 {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        edit(&mut config);
        std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
        let source = Source::Directory(copy.path().to_path_buf());
        let loaded = models::load(&source, WeightsAs::Stored, &|_, _| {}).unwrap();
        let model = loaded.model;
        let rows = logprobs(model.as_ref(), &mut model.caches(), &case.prompt).unwrap();
        worst(&rows, &case.logprobs)
    };
    assert!(mutate(&|_| {}) < TOLERANCE);
    assert!(mutate(&|c| c["rope_theta"] = 500.into()) > TOLERANCE);
    assert!(mutate(&|c| c["rms_norm_eps"] = 1.0.into()) > TOLERANCE);
    let scaling = serde_json::json!({"rope_type": "linear", "factor": 2.0});
    assert!(mutate(&|c| c["rope_scaling"] = scaling.clone()) > TOLERANCE);
}

#[test]
fn arrays_of_a_model_are_counted() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = cases()
        .into_iter()
        .find(|c| c.name == "llama-base")
        .unwrap();
    let Loaded { model, .. } = case.load(WeightsAs::Stored);
    let on_disk = std::fs::metadata(match &case.source {
        Source::Directory(folder) => folder.join("model.safetensors"),
        Source::Embedded(_) => unreachable!("cases are folders"),
    });
    let (held, stored) = (model.facts().weight_bytes, on_disk.unwrap().len() as usize);
    // The file has a header beside the weights.
    assert!(
        held <= stored && held + 20_000 > stored,
        "{held} of {stored}"
    );
}
