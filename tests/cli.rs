//! The command line, driven as a user would.

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::golden::case;
use common::{pensieve, run, stderr, stdout, tiny};
use serde_json::Value;

const CAPITAL: &str = "What is the capital of France?";

fn fails(arguments: &[&str], code: i32, parts: &[&str]) {
    let output = run(arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert_eq!(
        stdout(&output),
        "",
        "{arguments:?}: answers alone go to stdout"
    );
    for part in parts {
        assert!(message.contains(part), "{part:?} in {message}");
    }
}

#[test]
fn the_capital_question_is_answered() {
    let output = run(&["run", CAPITAL]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "The capital of France is Paris.\n");
    let summary = stderr(&output);
    for part in ["load", "first token", "tokens/s", "peak memory"] {
        assert!(summary.contains(part), "{summary}");
    }
}

#[test]
fn help_and_version_are_complete() {
    let help = stdout(&run(&["--help"]));
    let subcommands = ["run", "chat", "serve", "perplexity", "fuse", "check"];
    for part in [&subcommands[..], &["Exit codes", "--log-level"]].concat() {
        assert!(help.contains(part), "{help}");
    }
    for subcommand in subcommands {
        let help = stdout(&run(&[subcommand, "--help"]));
        for part in ["--model", "--adapter-path", "Exit codes"] {
            assert!(help.contains(part), "{help}");
        }
    }
    assert!(stdout(&run(&["--version"])).starts_with("pensieve "));
}

#[test]
fn completions_and_the_manual_know_every_subcommand_and_option() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&run(&["completions", shell]));
        for part in ["serve", "doctor", "prefix-cache"] {
            assert!(script.contains(part), "{shell}: {part}");
        }
    }
    fails(&["completions", "sh"], 2, &["bash", "zsh", "fish"]);
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("man1");
    let output = run(&["man", "--out", place.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = std::fs::read_to_string(place.join("pensieve-serve.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains("prefix"), "{page}");
    assert!(place.join("pensieve.1").exists());
    fails(&["man", "--out", "/proc/none/x"], 1, &["/proc/none/x"]);
}

#[test]
fn json_has_the_answer_and_the_measurements() {
    let output = run(&["run", "--json", CAPITAL]);
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["text"], "The capital of France is Paris.");
    assert_eq!(json["finish_reason"], "stop");
    for key in [
        "load_seconds",
        "first_token_seconds",
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "peak_memory_bytes",
    ] {
        assert!(json[key].as_f64().unwrap() > 0.0, "{key} in {json}");
    }
}

#[test]
fn the_prompt_may_come_from_standard_input() {
    for arguments in [&["run", "-q", "-"][..], &["run", "-q"]] {
        let mut child = pensieve()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(CAPITAL.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert_eq!(stdout(&output), "The capital of France is Paris.\n");
    }
}

#[test]
fn a_dialogue_remembers() {
    let mut child = pensieve()
        .args(["chat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(b"My name is Clara.\nWhat is my name?\n/exit\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = stdout(&output);
    assert!(text.trim_end().ends_with("Clara."), "{text}");
}

#[test]
fn stop_and_max_tokens_end_the_answer() {
    let output = run(&["run", "-q", "--stop", " France", CAPITAL]);
    assert_eq!(stdout(&output), "The capital of\n");
    let output = run(&["run", "--json", "-m", "2", CAPITAL]);
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["completion_tokens"], 2);
    assert_eq!(json["finish_reason"], "length");
}

#[test]
fn a_seed_repeats_an_answer() {
    let answer = |seed: &str| stdout(&run(&["run", "-q", "--temp", "30", "--seed", seed, "Hi"]));
    assert_eq!(answer("7"), answer("7"));
    assert_ne!(answer("7"), answer("8"));
}

#[test]
fn every_sampling_flag_changes_an_answer() {
    let whole = "The capital of France is Paris.\n";
    let answer = |flags: &[&str]| {
        let output = run(&[&["run", "-q", "-m", "20"], flags, &[CAPITAL]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    assert_eq!(answer(&[]), whole);
    let greedy: [&[&str]; 6] = [
        &[
            "--repetition-penalty",
            "50",
            "--repetition-context-size",
            "40",
        ],
        &["--presence-penalty", "90", "--presence-context-size", "40"],
        &[
            "--frequency-penalty",
            "-90",
            "--frequency-context-size",
            "9",
        ],
        &[
            "--dry-multiplier",
            "90",
            "--dry-base",
            "2",
            "--dry-allowed-length",
            "1",
        ],
        &["--min-tokens", "18"],
        &["--ignore-eos"],
    ];
    for flags in greedy {
        assert_ne!(answer(flags), whole, "{flags:?}");
    }
    let bias = |id: u32| answer(&["--logit-bias", &format!("{id}=100")]);
    assert_ne!(bias(300), whole);
    // A repetition of one token ends at the texts named, and outside the window.
    let dry = ["--dry-multiplier", "90", "--dry-allowed-length", "1"];
    assert_eq!(
        answer(&[&dry[..], &["--dry-penalty-last-n", "1"]].concat()),
        whole
    );
    // At a high temperature what is kept decides.
    let hot = |flags: &[&str]| answer(&[&["--temp", "30", "--seed", "7"], flags].concat());
    let free = hot(&[]);
    assert_ne!(hot(&["--typical-p", "0.01"]), free);
    assert_ne!(hot(&["--min-p", "0.9"]), free);
    let cold = |flags: &[&str]| answer(&[&["--temp", "0.1", "--seed", "7"], flags].concat());
    assert_eq!(cold(&[]), whole);
    assert_ne!(
        cold(&["--xtc-probability", "1", "--xtc-threshold", "0.000001"]),
        whole
    );
}

#[test]
fn weights_stay_packed_unless_told_otherwise() {
    let output = run(&["run", "--json", CAPITAL]);
    let kept: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let output = run(&["run", "--json", "--weights", "float32", CAPITAL]);
    let unpacked: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(kept["text"], unpacked["text"]);
    let bytes = |json: &Value| json["weight_bytes"].as_u64().unwrap();
    assert!(bytes(&kept) * 2 < bytes(&unpacked));
}

fn copy_of_tiny(to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(tiny().join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_directory_with_printf_fields_in_its_name_loads() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a%s%n b");
    copy_of_tiny(&folder);
    let output = run(&["run", "-q", "--model", folder.to_str().unwrap(), CAPITAL]);
    assert_eq!(stdout(&output), "The capital of France is Paris.\n");
}

#[test]
fn usage_errors_are_2() {
    fails(&["run", "--temp", "-1", "x"], 2, &[]);
    fails(&["run", "--top-p=0", "x"], 2, &["top_p", "more than 0"]);
    fails(
        &["run", "--xtc-threshold", "0.9", "x"],
        2,
        &["xtc_threshold", "0.5"],
    );
    fails(
        &["run", "--logit-bias", "7", "x"],
        2,
        &["logit-bias", "42=-5"],
    );
    fails(
        &["run", "--logit-bias", "7=101", "x"],
        2,
        &["logit_bias", "100"],
    );
    fails(
        &["run", "--repetition-context-size", "0", "x"],
        2,
        &["repetition_context_size"],
    );
    fails(&["run", "--device", "tpu", "x"], 2, &["tpu", "gpu"]);
    fails(
        &["run", "--prefill-step-size", "0", "x"],
        2,
        &["prefill-step-size"],
    );
    fails(
        &["run", "--chat-template-config", "[1]", "x"],
        2,
        &["JSON object"],
    );
    fails(&["fly"], 2, &["fly"]);
}

#[test]
fn refused_input_is_4() {
    fails(&["run", ""], 4, &["empty"]);
    fails(&["run", "-"], 4, &["empty"]);
    let long = "word ".repeat(5000);
    fails(&["run", &long], 4, &["tokens", "context", "shorten"]);
    let small = ["run", "--context-length", "8", CAPITAL];
    fails(&small, 4, &["context", "8"]);
    let mut child = pensieve()
        .args(["run", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"caf\xe9").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("UTF-8"));
}

#[test]
fn models_that_cannot_be_loaded_are_3() {
    fails(
        &["run", "--model", "builtin:huge", "x"],
        3,
        &["huge", "builtin:tiny"],
    );
    fails(
        &["run", "--model", "/nowhere", "x"],
        3,
        &["/nowhere", "directory"],
    );
    let no_tokenizer = case("llama-base").checkpoint();
    let path = no_tokenizer.path().to_str().unwrap();
    fails(&["run", "--model", path, "x"], 3, &["tokenizer.json"]);
}

/// Loads a copy of the shipped model after `damage`, and looks for `parts` in the message.
fn damaged(damage: impl Fn(&Path), parts: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    copy_of_tiny(root.path());
    damage(root.path());
    fails(
        &["run", "--model", root.path().to_str().unwrap(), "x"],
        3,
        parts,
    );
}

fn edit_config(folder: &Path, edit: impl Fn(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn damaged_models_say_what_is_wrong() {
    let truncate = |folder: &Path| {
        let file = folder.join("model.safetensors");
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    };
    damaged(truncate, &["model.safetensors", "truncated"]);
    let hostile = |folder: &Path| {
        let header = br#"{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,99999999999]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    };
    damaged(hostile, &["model.safetensors", "x"]);
    let remove =
        |name: &'static str| move |folder: &Path| std::fs::remove_file(folder.join(name)).unwrap();
    damaged(remove("config.json"), &["config.json"]);
    damaged(remove("model.safetensors"), &["model*.safetensors"]);
    damaged(remove("tokenizer.json"), &["tokenizer.json"]);
    let architecture = |folder: &Path| edit_config(folder, |c| c["model_type"] = "bert".into());
    damaged(architecture, &["bert", "llama", "qwen3"]);
    let wider = |folder: &Path| edit_config(folder, |c| c["hidden_size"] = 320.into());
    damaged(wider, &["model.norm.weight", "[256]", "[320]"]);
    let deeper = |folder: &Path| edit_config(folder, |c| c["num_hidden_layers"] = 7.into());
    damaged(deeper, &["model.layers.6", "needs"]);
    let shallower = |folder: &Path| edit_config(folder, |c| c["num_hidden_layers"] = 5.into());
    damaged(shallower, &["model.layers.5", "does not use"]);
    let text = |folder: &Path| edit_config(folder, |c| c["hidden_size"] = "wide".into());
    damaged(text, &["hidden_size", "wide"]);
    let bits = |folder: &Path| edit_config(folder, |c| c["quantization"]["bits"] = 7.into());
    damaged(bits, &["bits", "7"]);
    let rope = |folder: &Path| {
        edit_config(folder, |c| {
            c["rope_scaling"] = serde_json::json!({"rope_type": "spiral", "factor": 2});
        });
    };
    damaged(rope, &["spiral", "llama3"]);
    let not_json = |folder: &Path| std::fs::write(folder.join("config.json"), "{").unwrap();
    damaged(not_json, &["config.json"]);
}

#[test]
fn a_broken_template_is_the_inputs_error() {
    let root = tempfile::tempdir().unwrap();
    copy_of_tiny(root.path());
    let model = root.path().to_str().unwrap().to_string();
    let template = root.path().join("chat_template.jinja");
    std::fs::write(&template, "{% for m in messages %}").unwrap();
    fails(
        &["run", "--model", &model, "x"],
        4,
        &["chat_template.jinja", "line"],
    );
    std::fs::write(&template, "{{ raise_exception('no such role') }}").unwrap();
    fails(&["run", "--model", &model, "x"], 4, &["no such role"]);
    let output = run(&[
        "run",
        "-q",
        "--ignore-chat-template",
        "--model",
        &model,
        "-m",
        "1",
        "x",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_model_over_the_memory_budget_is_refused_with_the_numbers() {
    let output = common::run(&["run", "--memory", "2MB", "--device", "cpu", "Hello"]);
    assert_eq!(output.status.code(), Some(3));
    let text = common::stderr(&output);
    assert!(
        text.contains("2000 kB") && text.contains("--memory"),
        "{text}"
    );
    let output = common::run(&["run", "--memory", "lots", "Hello"]);
    assert_eq!(output.status.code(), Some(2));
}
