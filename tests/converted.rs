//! `pensieve convert` against mlx-lm's: what tests/golden/convert.py wrote of small checkpoints in Hugging
//! Face's layout, tensor by tensor. And the command itself, on the shipped model.

mod common;

use std::path::{Path, PathBuf};

use common::{pensieve, portable, run, stderr, stdout};
use pensieve::cache::Batch;
use pensieve::checkpoint::{Scheme, Shards, Source, WeightsAs};
use pensieve::convert::{Job, Mixed, Place, Recipe, Settings};
use pensieve::mlx::{Device, Dtype, QuantMode, Runtime};
use pensieve::models;
use serde_json::{Map, Value, json};

fn cases() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/converted");
    let cases = std::fs::read_dir(folder).unwrap();
    let mut cases: Vec<PathBuf> = cases.map(|case| case.unwrap().path()).collect();
    cases.sort();
    cases
}

fn read(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap();
    // Python writes an infinity bare, JSON has none.
    serde_json::from_str(
        &text
            .replace(": Infinity", ": \"Infinity\"")
            .replace(" Infinity", " \"Infinity\""),
    )
    .unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// What mlx-lm's arguments ask for.
fn settings(way: &Value) -> Settings {
    let number = |key: &str| way[key].as_u64().map(|n| n as usize);
    let name = way["q_mode"].as_str().unwrap_or("affine");
    let mode = QuantMode::ALL
        .into_iter()
        .find(|m| m.name() == name)
        .unwrap();
    let recipe = Recipe {
        scheme: Scheme {
            group_size: number("q_group_size").unwrap_or(mode.group_sizes()[0]),
            bits: number("q_bits").unwrap_or(mode.widths()[0]),
            mode,
        },
        mixed: way["quant_predicate"].as_str().map(|name| {
            let mut all = Mixed::ALL.into_iter();
            all.find(|(own, _)| *own == name).unwrap().1
        }),
    };
    let types = [Dtype::Float16, Dtype::Bfloat16, Dtype::Float32];
    Settings {
        dtype: way["dtype"]
            .as_str()
            .map(|name| types.into_iter().find(|t| t.name() == name).unwrap()),
        recipe: (way["quantize"] == true).then_some(recipe),
        unpack: way["dequantize"] == true,
        shard_bytes: 5 << 30,
        device: Some(Device::Cpu),
    }
}

/// The settings with what reads the same written the same: no mode is affine, no size is the mode's, and
/// numbers that JSON has not are their names.
fn alike(value: &Value) -> Value {
    match value {
        Value::Object(object) if object.contains_key("__float__") => object["__float__"].clone(),
        Value::Object(object) => {
            let mut object: Map<String, Value> = object
                .iter()
                .map(|(key, value)| (key.clone(), alike(value)))
                .collect();
            if object.contains_key("bits") {
                object.entry("mode").or_insert(json!("affine"));
                if object["group_size"].is_null() {
                    object["group_size"] = json!(64);
                }
            }
            Value::Object(object)
        }
        Value::Array(values) => values.iter().map(alike).collect(),
        other => other.clone(),
    }
}

/// As `digest` in convert.py.
fn digest(tensor: &pensieve::checkpoint::Tensor) -> String {
    let dims: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
    let start = format!("{} {} ", tensor.dtype.name(), dims.join(","));
    let content = [start.as_bytes(), tensor.bytes].concat();
    let hash = ring::digest::digest(&ring::digest::SHA256, &content);
    hash.as_ref()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// How the checkpoint in `folder` differs from what mlx-lm made, whose tensors are in column `column`.
fn differences(folder: &Path, expected: &Value, tensors: &Value, column: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let shards = Shards::open(&Source::Directory(folder.to_owned())).unwrap();
    let tensors = tensors.as_object().unwrap();
    for (name, row) in tensors {
        let known = row.as_str().unwrap().split(' ').nth(column).unwrap();
        let found = shards
            .get(name)
            .map_or("-".to_owned(), |tensor| digest(&tensor));
        if found != known {
            let what = shards
                .get(name)
                .map(|t| format!("{} {:?}", t.dtype, t.shape));
            wrong.push(format!("{name} {what:?}: {found}, expected {known}"));
        }
    }
    let unknown = shards.names().filter(|name| !tensors.contains_key(*name));
    wrong.extend(unknown.map(|name| format!("{name}: not in mlx-lm's")));
    assert_eq!(shards.metadata("format"), Some("mlx"));
    let config = alike(&read(&folder.join("config.json")));
    for (key, value) in alike(&expected["config"]).as_object().unwrap() {
        if config.get(key) != Some(value) {
            wrong.push(format!(
                "config {key}: {:?}, expected {value}",
                config.get(key)
            ));
        }
    }
    for key in ["quantization", "quantization_config"] {
        if config.get(key).is_some() && expected["config"].get(key).is_none() {
            wrong.push(format!("config has {key}"));
        }
    }
    let index = read(&folder.join("model.safetensors.index.json"));
    if index["metadata"] != expected["metadata"] {
        wrong.push(format!(
            "{}, expected {}",
            index["metadata"], expected["metadata"]
        ));
    }
    wrong
}

/// `PENSIEVE_CONVERTED=llama,gemma3` takes these cases alone.
#[test]
fn each_way_of_converting_is_mlx_lms_bit_for_bit() {
    let chosen = std::env::var("PENSIEVE_CONVERTED").ok();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for case in cases() {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        if chosen
            .as_ref()
            .is_some_and(|c| !c.split(',').any(|own| own == name))
        {
            continue;
        }
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("source");
        std::fs::create_dir(&source).unwrap();
        let (config, recipe) = (
            read(&case.join("config.json")),
            read(&case.join("tensors.json")),
        );
        portable::write_checkpoint(&config, &recipe, &source);
        let expected = read(&case.join("expected.json"));
        for (column, (way, known)) in expected["ways"].as_object().unwrap().iter().enumerate() {
            let of = known["settings"]["of"].as_str().unwrap_or("source");
            let from = Source::Directory(place.path().join(of));
            let to = place.path().join(way);
            let made = Place::new(&to, false).unwrap();
            let done = Job::new(&from, settings(&known["settings"]))
                .and_then(|job| job.write(made.folder(), &|_| {}));
            compared += 1;
            match done {
                Err(e) => wrong.push(format!("{name} {way}: {e}")),
                Ok(_) => {
                    made.finish().unwrap();
                    let faults = differences(&to, known, &expected["tensors"], column);
                    wrong.extend(
                        faults
                            .into_iter()
                            .map(|fault| format!("{name} {way}: {fault}")),
                    );
                }
            }
        }
        computes_the_same(&source, &place.path().join("plain"), &name);
    }
    assert!(
        wrong.is_empty(),
        "{} faults:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(chosen.is_some() || compared > 150, "cases are missing");
}

/// What was converted and not packed has the same values.
fn computes_the_same(source: &Path, plain: &Path, name: &str) {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let logits = |folder: &Path| {
        let source = Source::Directory(folder.to_owned());
        let model = models::load(&source, WeightsAs::Dense(Dtype::Float32), &|_, _| {})
            .unwrap_or_else(|e| panic!("{name}: {e}"))
            .model;
        let batch = Batch::single(&[3, 1, 4, 1, 5, 9, 2, 6], 0).unwrap();
        let hidden = model.forward(&batch, &mut model.caches()).unwrap();
        model.unembed(&hidden).unwrap()
    };
    let difference = logits(source).max_difference(&logits(plain)).unwrap();
    assert!(difference < 1e-4, "{name}: {difference}");
}

fn convert(out: &Path, arguments: &[&str]) -> std::process::Output {
    let out = out.to_str().unwrap();
    let start = ["convert", "--device", "cpu", "--out", out];
    run(&[&start, arguments].concat())
}

fn succeeds(out: &Path, arguments: &[&str]) -> String {
    let output = convert(out, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        stderr(&output)
    );
    stderr(&output)
}

fn fails(out: &Path, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = convert(out, arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} in {message}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_command_converts_what_then_runs() {
    let place = tempfile::tempdir().unwrap();
    let (dense, four) = (place.path().join("dense"), place.path().join("new/four"));
    let from = dense.to_str().unwrap();
    let said = succeeds(
        &dense,
        &[
            "--model",
            "builtin:tiny",
            "-d",
            "--dtype",
            "bfloat16",
            "--max-shard-size",
            "4MB",
        ],
    );
    assert!(
        said.contains("16.0") && said.contains("bits a weight"),
        "{said}"
    );
    let shards = Shards::open(&Source::Directory(dense.clone())).unwrap();
    assert!(shards.shard_names().count() > 2);
    assert!(shards.iter().all(|tensor| tensor.dtype.name() == "BF16"));
    let said = succeeds(&four, &["--hf-path", from, "-q", "--q-mode", "mxfp8"]);
    assert!(said.contains("matrices packed"), "{said}");
    assert_eq!(names(place.path()), ["dense", "new"]);
    let made = four.to_str().unwrap();
    let checked = run(&["check", "--model", made]);
    assert!(checked.status.success(), "{}", stderr(&checked));
    let answer = run(&[
        "run",
        "-q",
        "--model",
        made,
        "What is the capital of France?",
    ]);
    assert_eq!(stdout(&answer), "The capital of France is Paris.\n");

    // What is packed stays so, unless it is asked for.
    let again = place.path().join("again");
    let quantize = ["--model", made, "-q", "--q-bits", "6"];
    fails(
        &again,
        &quantize,
        3,
        &["quantized already", "mxfp8", "--requantize"],
    );
    assert!(!again.exists(), "nothing is left of what failed");
    succeeds(&again, &[&quantize[..], &["--requantize"]].concat());
    let config = read(&again.join("config.json"));
    assert_eq!(
        config["quantization"],
        json!({"group_size": 64, "bits": 6, "mode": "affine"})
    );

    // What is there is not written over.
    fails(
        &again,
        &["--model", from],
        2,
        &["is there already", "--overwrite"],
    );
    assert_eq!(read(&again.join("config.json")), config);
    fails(
        &again,
        &["--model", again.to_str().unwrap(), "--overwrite", "-d"],
        2,
        &["is what is converted"],
    );
    succeeds(&again, &["--model", from, "--overwrite"]);
    assert!(
        read(&again.join("config.json"))
            .get("quantization")
            .is_none()
    );
    assert_eq!(names(place.path()), ["again", "dense", "new"]);
}

#[test]
fn what_cannot_be_converted_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let tiny = ["--model", "builtin:tiny"];
    let with = |more: &[&'static str]| [&tiny[..], more].concat();
    fails(
        &out,
        &with(&["-q", "--q-bits", "7"]),
        2,
        &["--q-bits is 7", "2, 3, 4, 5, 6, 8"],
    );
    fails(
        &out,
        &with(&["-q", "--q-mode", "nvfp4", "--q-group-size", "64"]),
        2,
        &["nvfp4 takes 16"],
    );
    fails(
        &out,
        &with(&["-q", "--q-mode", "mxfp4", "--quant-predicate", "mixed_3_6"]),
        2,
        &["affine"],
    );
    fails(&out, &with(&["-q", "-d"]), 2, &["cannot be used with"]);
    fails(&out, &with(&["--q-bits", "4"]), 2, &["--quantize"]);
    fails(
        &out,
        &with(&["--upload-repo", "me/model"]),
        2,
        &["hf upload me/model"],
    );
    fails(
        &out,
        &["--model", "/no/such/place"],
        3,
        &["is not a directory"],
    );
    let strange = place.path().join("strange");
    std::fs::create_dir(&strange).unwrap();
    std::fs::write(strange.join("config.json"), r#"{"model_type": "no_such"}"#).unwrap();
    fails(
        &out,
        &["--model", strange.to_str().unwrap()],
        3,
        &["no_such", "not supported"],
    );
    assert_eq!(names(place.path()), ["strange"]);
}

/// Whenever it is killed there is no directory of that name, and the next one is not disturbed.
#[test]
fn a_killed_conversion_leaves_nothing_that_looks_complete() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let arguments = [
        "convert",
        "--device",
        "cpu",
        "--model",
        "builtin:tiny",
        "-d",
        "--out",
    ];
    for milliseconds in [0, 40, 80, 120, 160, 200, 250, 300, 400, 600] {
        let mut child = pensieve()
            .args(arguments)
            .arg(&out)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        if out.exists() {
            let source = Source::Directory(out.clone());
            assert!(source.exists("tokenizer.json") && source.exists("config.json"));
            assert_eq!(
                Shards::open(&source).unwrap().len(),
                68,
                "killed too late to matter"
            );
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
    succeeds(&out, &["--model", "builtin:tiny", "-d"]);
    assert_eq!(names(place.path()), ["out"]);
}
