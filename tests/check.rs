//! `pensieve check`, and what loading says of settings that nothing reads.

mod common;

use std::path::Path;

use common::golden::case;
use common::{run, stderr, stdout};
use pensieve::checkpoint::{Shards, Source};
use serde_json::{Value, json};

/// Overwrites the first elements of a tensor of the checkpoint in `directory`.
fn poison(directory: &Path, tensor: &str, bytes: &[u8]) {
    let at = {
        let shards = Shards::open(&Source::Directory(directory.to_path_buf())).unwrap();
        let all = shards.iter().map(|t| (t.name.to_string(), t.bytes.len()));
        let before = all.take_while(|(name, _)| name != tensor);
        before.map(|(_, n)| n).sum::<usize>()
    };
    let path = directory.join("model.safetensors");
    let mut file = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    file[8 + header + at..][..bytes.len()].copy_from_slice(bytes);
    std::fs::write(&path, file).unwrap();
}

fn check(directory: &Path, options: &[&str]) -> std::process::Output {
    run(&[&["check", "--model", directory.to_str().unwrap()], options].concat())
}

#[test]
fn a_sound_model_passes() {
    let output = run(&["check"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("every number is finite"));
}

#[test]
fn numbers_that_are_none_are_counted_by_tensor() {
    let nan = f32::NAN.to_le_bytes();
    let infinite = f32::NEG_INFINITY.to_le_bytes();
    let folder = case("llama-q4-g64").checkpoint();
    let path = folder.path();
    poison(path, "model.norm.weight", &[nan, infinite, nan].concat());
    poison(path, "model.layers.1.mlp.up_proj.biases", &infinite);
    let output = check(path, &[]);
    assert_eq!(output.status.code(), Some(1));
    let lines = stdout(&output);
    assert!(
        lines.contains("model.norm.weight: 2 NaN and 1 infinite of 128\n"),
        "{lines}"
    );
    assert!(lines.contains("model.layers.1.mlp.up_proj.biases: 0 NaN and 1 infinite"));
    assert_eq!(lines.lines().count(), 2);
    assert!(stderr(&output).contains("2 of "), "{}", stderr(&output));
}

#[test]
fn a_flag_checks_before_a_model_is_loaded() {
    let output = run(&["run", "--check", "--max-tokens", "1", "--quiet", "Hello"]);
    assert!(output.status.success(), "{}", stderr(&output));

    let folder = case("llama-base").checkpoint();
    let infinite = f32::INFINITY.to_le_bytes();
    poison(folder.path(), "model.norm.weight", &infinite);
    let tokenizer = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/models/pensieve-tiny/tokenizer.json"
    );
    std::fs::copy(tokenizer, folder.path().join("tokenizer.json")).unwrap();
    let model = folder.path().to_str().unwrap();
    let output = run(&[
        "run",
        "--check",
        "--model",
        model,
        "--ignore-chat-template",
        "a",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(
        told.contains("model.norm.weight: 0 NaN and 1 infinite"),
        "{told}"
    );
    assert!(stdout(&output).is_empty());
}

#[test]
fn bytes_that_are_scales_are_looked_at_as_such() {
    // 0x7F is NaN among e4m3 scales, and a power of two like others elsewhere.
    for (name, byte, code) in [
        ("llama-nvfp4", 0x7F, 1),
        ("llama-mxfp4", 0x7F, 0),
        ("llama-mxfp4", 0xFF, 1),
        ("llama-mxfp8", 0xFF, 1),
    ] {
        let folder = case(name).checkpoint();
        poison(folder.path(), "model.layers.0.mlp.up_proj.scales", &[byte]);
        let output = check(folder.path(), &[]);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{name}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_fine_tune_is_checked_too() {
    let folder = case("adapter-lora").checkpoint();
    let adapter = folder.path().join("adapter");
    let options = ["--adapter-path", adapter.to_str().unwrap()];
    assert!(check(folder.path(), &options).status.success());
    let path = adapter.join("adapters.safetensors");
    let mut file = std::fs::read(&path).unwrap();
    let end = file.len();
    file[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, file).unwrap();
    let output = check(folder.path(), &options);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("lora_b: 1 NaN"),
        "{}",
        stdout(&output)
    );
}

fn edit_config(directory: &Path, change: impl Fn(&mut Value)) {
    let path = directory.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn files_that_do_not_fit_are_3() {
    let folder = case("llama-base").checkpoint();
    edit_config(folder.path(), |c| c["num_hidden_layers"] = 3.into());
    let output = check(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("model.layers.2"),
        "{}",
        stderr(&output)
    );

    let folder = case("llama-q4-g64").checkpoint();
    let path = "model.layers.0.mlp.up_proj";
    edit_config(folder.path(), |c| c["quantization"][path] = false.into());
    let output = check(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(3));
    let message = stderr(&output);
    assert!(
        message.contains(path) && message.contains("scales"),
        "{message}"
    );
}

#[test]
fn settings_that_nothing_reads_are_named_once() {
    let folder = case("llama-rope-llama3").checkpoint();
    // There is no tokenizer, but that is looked at before the weights: give it the shipped one.
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(common::tiny().join(file), folder.path().join(file)).unwrap();
    }
    edit_config(folder.path(), |c| {
        c["flux_capacitor"] = json!(1.21);
        c["rope_scaling"]["warp"] = json!(9);
        c["attention_dropout"] = json!(0.1);
        c["transformers_version"] = json!("4.0.0");
        c["nothing"] = Value::Null;
    });
    let model = folder.path().to_str().unwrap();
    let options = ["run", "--ignore-chat-template", "-m", "1", "--model", model];
    let log = |level: &str| {
        let prompt = "x";
        stderr(&run(
            &[&options, &["--log-level", level, prompt][..]].concat()
        ))
    };
    let shown = log("info");
    let lines: Vec<&str> = shown
        .lines()
        .filter(|l| l.contains("nothing here reads"))
        .collect();
    assert_eq!(lines.len(), 1, "{shown}");
    let (_, keys) = lines[0].split_once("reads: ").unwrap();
    assert_eq!(keys, "hidden_act, rope_scaling.warp, flux_capacitor");
    assert!(!log("warn").contains("flux_capacitor"));
}
