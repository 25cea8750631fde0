//! Fine-tunes over a model, and merged into it. That they compute what mlx-lm does the golden cases
//! `adapter-*` say; here it is what else must be so.

mod common;

use std::path::Path;

use common::golden::{Case, case, load};
use common::{portable, run, stderr, tiny};
use pensieve::cache::Batch;
use pensieve::checkpoint::{Shards, Source, WeightsAs};
use pensieve::mlx::{Array, Device, Dtype, Runtime};
use pensieve::models::Loaded;
use serde_json::{Value, json};
use tempfile::TempDir;

const FLOAT32: WeightsAs = WeightsAs::Dense(Dtype::Float32);

/// Log-probabilities `[L, vocab]` of the case's prompt.
fn logprobs(directory: &Path, case: &Case, weights_as: WeightsAs) -> Array {
    let Loaded { model, .. } = load(directory, weights_as).unwrap();
    let batch = Batch::single(&case.prompt, 0).unwrap();
    let hidden = model.forward(&batch, &mut model.caches()).unwrap();
    let logits = model.unembed(&hidden).unwrap();
    let logits = logits.astype(Dtype::Float32).unwrap();
    let rows = logits.log_softmax().unwrap().squeeze(0).unwrap();
    rows.eval().unwrap();
    rows
}

fn expected(case: &Case) -> Array {
    let shape = [case.prompt.len() as i32, case.vocab as i32];
    Array::from_slice(&case.logprobs, &shape).unwrap()
}

fn edit(file: &Path, change: impl Fn(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(file, json.to_string()).unwrap();
}

/// The case's checkpoint, its fine-tune's configuration changed.
fn with_config(case: &Case, change: impl Fn(&mut Value)) -> TempDir {
    let folder = case.checkpoint();
    edit(&folder.path().join("adapter/adapter_config.json"), change);
    folder
}

#[test]
fn a_scale_of_zero_is_the_base_and_another_scale_is_another_model() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for name in ["adapter-lora", "adapter-lora-q4", "adapter-lora-moe"] {
        let case = case(name);
        let none = case.checkpoint();
        std::fs::remove_dir_all(none.path().join("adapter")).unwrap();
        let base = logprobs(none.path(), &case, FLOAT32);
        assert!(
            base.max_difference(&expected(&case)).unwrap() > 0.1,
            "{name}"
        );
        let scaled = |scale: f64| {
            let folder = with_config(&case, |c| c["lora_parameters"]["scale"] = scale.into());
            logprobs(folder.path(), &case, FLOAT32)
        };
        assert_eq!(scaled(0.0).max_difference(&base).unwrap(), 0.0, "{name}");
        let own = case.recipe["adapter"]["config"]["lora_parameters"]["scale"]
            .as_f64()
            .unwrap();
        let difference = |scale| scaled(scale).max_difference(&expected(&case)).unwrap();
        assert!(difference(own) < 1e-3, "{name}");
        assert!(difference(1.1 * own) > 1e-2, "{name}");
    }
}

#[test]
fn dora_without_its_lengths_is_another_model() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = case("adapter-dora");
    let folder = with_config(&case, |c| c["fine_tune_type"] = "lora".into());
    let message = load(folder.path(), FLOAT32).err().unwrap();
    assert!(message.contains("self_attn.q_proj.m"), "{message}");
    assert!(message.contains("adapters.safetensors"), "{message}");
}

/// The case's fine-tune with its tensors changed.
fn with_tensors(case: &Case, change: impl Fn(&mut Vec<Value>)) -> TempDir {
    let mut recipe = case.recipe.clone();
    change(recipe["adapter"]["tensors"].as_array_mut().unwrap());
    let folder = tempfile::tempdir().unwrap();
    portable::write_checkpoint(&case.config, &recipe, folder.path());
    folder
}

#[test]
fn a_fine_tune_that_does_not_fit_is_refused_by_name() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let fails = |folder: TempDir, parts: &[&str]| {
        let message = load(folder.path(), FLOAT32).err().unwrap();
        for part in parts {
            assert!(message.contains(part), "{part} in {message}");
        }
    };
    let lora = case("adapter-lora");
    let extra = json!([
        "model.layers.9.self_attn.q_proj.lora_a",
        "F32",
        [40, 4],
        "uniform",
        0,
        1
    ]);
    fails(
        with_tensors(&lora, |tensors| tensors.push(extra.clone())),
        &["1 tensors", "model.layers.9.self_attn.q_proj.lora_a"],
    );
    fails(
        with_tensors(&lora, |tensors| drop(tensors.remove(0))),
        &["one of lora_a and lora_b"],
    );
    fails(
        with_config(&lora, |c| c["lora_parameters"]["rank"] = 8.into()),
        &["lora_a", "[96, 4]", "[96, 8]"],
    );
    let mut moe = case("adapter-lora-moe");
    moe.recipe["adapter"]["config"]["fine_tune_type"] = "dora".into();
    let experts_alone = |tensors: &mut Vec<Value>| {
        tensors.retain(|tensor| tensor[0].as_str().unwrap().contains("switch_mlp"));
    };
    fails(with_tensors(&moe, experts_alone), &["no DoRA"]);
    let without_m = |tensors: &mut Vec<Value>| {
        tensors.retain(|tensor| !tensor[0].as_str().unwrap().ends_with("q_proj.m"));
    };
    fails(
        with_tensors(&case("adapter-dora"), without_m),
        &["has no m"],
    );
    let full = case("adapter-full");
    fails(
        with_tensors(&full, |tensors| tensors[0][2] = json!([40, 41])),
        &["[40, 41]", "[40, 40]"],
    );
    fails(
        with_config(&full, |c| c["fine_tune_type"] = "ia3".into()),
        &["ia3", "lora, dora or full"],
    );
}

/// Merges the case's fine-tune by the command; the folder has the result as `fused`.
fn fuse(case: &Case, options: &[&str]) -> TempDir {
    let folder = case.checkpoint();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    std::fs::write(path("tokenizer.json"), "{}").unwrap();
    let (model, adapter, to) = (path(""), path("adapter"), path("fused"));
    let files = [
        "fuse",
        "--device",
        "cpu",
        "--model",
        &model,
        "--adapter-path",
        &adapter,
    ];
    let output = run(&[&files, &["--save-path", &to][..], options].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    folder
}

#[test]
fn a_merged_model_computes_what_the_two_did() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for name in [
        "adapter-lora",
        "adapter-lora-bias",
        "adapter-lora-moe",
        "adapter-lora-moe-hf",
        "adapter-dora",
        "adapter-dora-fused",
        "adapter-full",
    ] {
        let case = case(name);
        let folder = fuse(&case, &[]);
        let to = folder.path().join("fused");
        let apart = logprobs(folder.path(), &case, WeightsAs::Stored);
        let merged = logprobs(&to, &case, WeightsAs::Stored);
        let difference = merged.max_difference(&apart).unwrap();
        assert!(difference < 1e-4, "{name}: {difference:.1e}");
        let names = Source::Directory(to.clone()).names().unwrap();
        for file in [
            "config.json",
            "tokenizer.json",
            "model.safetensors.index.json",
        ] {
            assert!(names.iter().any(|name| name == file), "{name}: {names:?}");
        }
    }
}

#[test]
fn packed_matrices_are_packed_again_or_stay_unpacked() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for name in ["adapter-lora-q4", "adapter-dora-q4", "adapter-lora-moe-q4"] {
        let case = case(name);
        let folder = fuse(&case, &["--dequantize"]);
        let to = folder.path().join("fused");
        let merged = logprobs(&to, &case, WeightsAs::Stored);
        let difference = merged.max_difference(&expected(&case)).unwrap();
        assert!(difference < 1e-3, "{name}: {difference:.1e}");
        let config = std::fs::read_to_string(to.join("config.json")).unwrap();
        assert!(!config.contains("quantization"), "{config}");
        let shards = Shards::open(&Source::Directory(to)).unwrap();
        assert!(shards.names().all(|name| !name.ends_with(".scales")));

        let folder = fuse(&case, &[]);
        let to = folder.path().join("fused");
        let open = |path: &Path| Shards::open(&Source::Directory(path.to_path_buf())).unwrap();
        let (before, after) = (open(folder.path()), open(&to));
        let form = |shards: &Shards| -> Vec<(String, String)> {
            let tensors = shards.iter();
            let mut form: Vec<_> = tensors
                .map(|t| (t.name.to_string(), format!("{} {:?}", t.dtype, t.shape)))
                .collect();
            form.sort();
            form
        };
        assert_eq!(form(&before), form(&after), "{name}");
        // Packing again rounds what was merged, so this is near and not the same.
        let packed = logprobs(&to, &case, WeightsAs::Stored);
        let none = case.checkpoint();
        std::fs::remove_dir_all(none.path().join("adapter")).unwrap();
        let base = logprobs(none.path(), &case, WeightsAs::Stored);
        let mean = |a: &Array| {
            let apart = a.subtract(&merged).unwrap().abs().unwrap().to_vec::<f32>();
            let apart = apart.unwrap();
            apart.iter().sum::<f32>() / apart.len() as f32
        };
        assert!(mean(&packed) < 0.5 * mean(&base), "{name}");
    }
}

#[test]
fn fusing_refuses_what_it_should() {
    let case = case("adapter-lora");
    let folder = case.checkpoint();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (model, adapter) = (path(""), path("adapter"));
    let fails = |options: &[&str], code: i32, part: &str| {
        let output = run(&[&["fuse", "--model", &model], options].concat());
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(message.contains(part), "{part} in {message}");
    };
    let to = path("new");
    fails(&["--save-path", &to], 2, "--adapter-path");
    fails(
        &["--save-path", &model, "--adapter-path", &adapter],
        2,
        "not empty",
    );
    fails(
        &["--save-path", &to, "--adapter-path", &model],
        3,
        "adapter_config.json",
    );
}

/// A small change to the shipped model, so that the commands can be run with it.
fn tiny_adapter(scale: f64) -> TempDir {
    let path = "model.layers.5.self_attn.o_proj";
    let recipe = json!({
        "seed": 1, "shards": 1, "format": "mlx", "tensors": [],
        "adapter": {
            "config": {"fine_tune_type": "lora", "num_layers": 1,
                       "lora_parameters": {"rank": 2, "scale": scale, "dropout": 0.0}},
            "tensors": [
                [format!("{path}.lora_a"), "F32", [256, 2], "uniform", 0.0, 1.0],
                [format!("{path}.lora_b"), "F32", [2, 256], "uniform", 0.0, 1.0],
            ],
        },
    });
    let folder = tempfile::tempdir().unwrap();
    portable::write_checkpoint(&json!({}), &recipe, folder.path());
    folder
}

#[test]
fn the_commands_take_an_adapter() {
    let file = tiny().join("../../tests/golden/perplexity.txt");
    let perplexity = |options: &[&str]| -> f64 {
        let file = file.to_str().unwrap();
        let fixed = [
            "perplexity",
            "--json",
            "--file",
            file,
            "--sequence-length",
            "32",
        ];
        let output = run(&[&fixed, &["--num-samples", "2"][..], options].concat());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            panic!("{}", stderr(&output));
        });
        json["perplexity"].as_f64().unwrap()
    };
    let (changed, same) = (tiny_adapter(1.0), tiny_adapter(0.0));
    let path = |folder: &TempDir| folder.path().join("adapter").to_str().unwrap().to_string();
    let base = perplexity(&[]);
    assert_eq!(perplexity(&["--adapter-path", &path(&same)]), base);
    let other = perplexity(&["--adapter-path", &path(&changed)]);
    assert!((other - base).abs() > 0.01 * base, "{other} and {base}");
    let answer = |options: &[&str]| {
        let output = run(&[&["run", "-q", "-m", "12", "Hello"], options].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        output.stdout
    };
    assert_eq!(answer(&["--adapter-path", &path(&same)]), answer(&[]));
    let output = run(&["run", "--adapter-path", "/nowhere", "Hello"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("adapter_config.json"));
}
