//! The golden cases: what mlx-lm computed, and the checkpoints that it computed it from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pensieve::checkpoint::{Adapters, Source, WeightsAs, safetensors};
use pensieve::mlx::Device;
use pensieve::models::{self, Loaded};
use serde_json::Value;
use tempfile::TempDir;

use super::portable;

/// One case, without its checkpoint.
pub struct Case {
    /// The folder's name.
    pub name: String,
    /// The file in tests/golden/families that it comes from.
    pub family: String,
    /// Its config.json.
    pub config: Value,
    /// How its weights are made: tensors.json.
    pub recipe: Value,
    /// Token ids.
    pub prompt: Vec<u32>,
    /// The greedy continuation.
    pub greedy: Vec<u32>,
    /// `[prompt, vocab]`, row-major.
    pub logprobs: Vec<f32>,
    /// `[greedy, vocab]`, row-major: what each greedy token was drawn from.
    pub greedy_logprobs: Vec<f32>,
    /// Columns of both.
    pub vocab: usize,
    /// Whether the weights as they are stored give the same in float32.
    pub stored: bool,
    /// Whether every cache can go back.
    pub rewinds: bool,
}

/// The folder of cases; `PENSIEVE_GOLDEN_CASES` names another one.
fn root() -> PathBuf {
    match std::env::var_os("PENSIEVE_GOLDEN_CASES") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases"),
    }
}

/// The cases that `PENSIEVE_GOLDEN` selects, all without it: a comma-separated list of families and
/// of beginnings of names.
pub fn cases() -> Vec<Case> {
    let mut names: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let all = names.iter().map(|name| case(name));
    let Ok(wanted) = std::env::var("PENSIEVE_GOLDEN") else {
        return all.collect();
    };
    let wanted: Vec<&str> = wanted.split(',').map(str::trim).collect();
    let chosen: Vec<Case> = all
        .filter(|case| {
            let mut wanted = wanted.iter();
            wanted.any(|word| case.family == *word || case.name.starts_with(word))
        })
        .collect();
    assert!(!chosen.is_empty(), "PENSIEVE_GOLDEN={wanted:?} names none");
    chosen
}

/// The case of this name.
pub fn case(name: &str) -> Case {
    let folder = root().join(name);
    let json = |file: &str| -> Value {
        let path = folder.join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| {
            panic!(
                "{}: {e}; tests/golden/generate.py writes it",
                path.display()
            )
        });
        // Python writes an infinity bare, JSON has none; a string of its name reads as one too.
        serde_json::from_str(&text.replace("Infinity", "\"Infinity\"")).unwrap()
    };
    let expected = json("expected.json");
    let ids = |key: &str| -> Vec<u32> {
        let list = expected[key].as_array().unwrap();
        list.iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let file = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let mut tensors = floats(&file);
    let (prompt, greedy) = (ids("prompt"), ids("greedy"));
    let logprobs = tensors.remove("logprobs").unwrap();
    Case {
        name: name.to_string(),
        family: expected["family"].as_str().unwrap().to_string(),
        config: json("config.json"),
        recipe: json("tensors.json"),
        vocab: logprobs.len() / prompt.len(),
        logprobs,
        greedy_logprobs: tensors.remove("greedy_logprobs").unwrap(),
        prompt,
        greedy,
        stored: expected["stored"].as_bool().unwrap(),
        rewinds: expected["rewinds"].as_bool().unwrap(),
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

/// Loads the checkpoint in `directory`, with the fine-tune in its folder `adapter` if there is one.
///
/// # Errors
/// What loading says.
pub fn load(directory: &Path, weights_as: WeightsAs) -> Result<Loaded, String> {
    let source = Source::Directory(directory.to_path_buf());
    let adapter = directory.join("adapter");
    let adapters = match adapter.is_dir() {
        true => Some(Adapters::open(&Source::Directory(adapter)).map_err(|e| e.to_string())?),
        false => None,
    };
    models::load_adapted(&source, adapters.as_ref(), weights_as, &|_, _| {})
        .map_err(|e| e.to_string())
}

impl Case {
    /// Makes its checkpoint, and its fine-tune in the folder `adapter`; gone when dropped.
    pub fn checkpoint(&self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        portable::write_checkpoint(&self.config, &self.recipe, directory.path());
        directory
    }

    /// Makes its checkpoint and loads it.
    ///
    /// # Errors
    /// What loading says.
    pub fn load(&self, weights_as: WeightsAs) -> Result<Loaded, String> {
        load(self.checkpoint().path(), weights_as)
    }

    /// How it is quantized, such as `affine-4-g64`; `None` if it is not.
    pub fn quantization(&self) -> Option<String> {
        let settings = self.config.get("quantization")?;
        let mode = settings["mode"].as_str().unwrap_or("affine");
        Some(format!(
            "{mode}-{}-g{}",
            settings["bits"], settings["group_size"]
        ))
    }
}

/// Where models run: on a CPU, or where `PENSIEVE_GOLDEN_DEVICE` says.
pub fn device() -> Device {
    match std::env::var("PENSIEVE_GOLDEN_DEVICE").as_deref() {
        Ok("gpu") => Device::Gpu,
        Ok("cpu") | Err(_) => Device::Cpu,
        Ok(other) => panic!("PENSIEVE_GOLDEN_DEVICE is cpu or gpu, not {other}"),
    }
}
