//! `pensieve perplexity` against the figures of mlx-lm's own functions, which
//! tests/golden/perplexity.py wrote.

mod common;

use std::path::PathBuf;

use common::{run, stderr, stdout};
use serde_json::Value;

/// Relative.
const TOLERANCE: f64 = 1e-3;

fn golden(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(name).to_str().unwrap().to_string()
}

fn measure(file: &str, options: &[&str]) -> Value {
    let path = golden(file);
    let arguments = ["perplexity", "--json", "--device", "cpu", "--file", &path];
    let output = run(&[&arguments, options].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// The relative difference of one figure.
fn apart(a: &Value, b: &Value, key: &str) -> f64 {
    let (a, b) = (a[key].as_f64().unwrap(), b[key].as_f64().unwrap());
    ((a - b) / b).abs()
}

#[test]
fn figures_are_mlx_lms() {
    let known = std::fs::read_to_string(golden("perplexity.json")).unwrap();
    let known: Value = serde_json::from_str(&known).unwrap();
    let runs = known["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 5);
    for expected in runs {
        let number = |key: &str| expected[key].as_u64().map(|n| n.to_string());
        let mut options = vec!["--batch-size".to_string(), number("batch_size").unwrap()];
        match number("sequence_length") {
            Some(length) => options.extend(["--sequence-length".to_string(), length]),
            None => options.push("--mask-prompt".to_string()),
        }
        if let Some(n) = number("num_samples") {
            options.extend(["--num-samples".to_string(), n]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let found = measure(expected["file"].as_str().unwrap(), &options);
        for key in ["tokens", "samples"] {
            assert_eq!(found[key], expected[key], "{key} of {found}");
        }
        for key in [
            "perplexity",
            "standard_error",
            "mean_negative_log_likelihood",
        ] {
            let apart = apart(&found, expected, key);
            assert!(apart < TOLERANCE, "{key} is {apart:.1e} off: {found}");
        }
        assert!(found["tokens_per_second"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn neither_chunks_nor_batches_make_a_difference() {
    let length = ["--sequence-length", "64", "--num-samples", "5"];
    let with = |options: &[&str]| measure("perplexity.txt", &[&length, options].concat());
    let whole = with(&[]);
    let cut = with(&["--prefill-step-size", "7", "--batch-size", "2"]);
    for key in ["perplexity", "standard_error"] {
        let apart = apart(&cut, &whole, key);
        assert!(apart < 1e-5, "{key} is {apart:.1e} off");
    }
    let answers =
        |options: &[&str]| measure("answers.jsonl", &[&["--mask-prompt"], options].concat());
    let cut = answers(&["--prefill-step-size", "7", "--batch-size", "3"]);
    let apart_of_answers = apart(&cut, &answers(&["--batch-size", "1"]), "perplexity");
    assert!(apart_of_answers < 1e-5, "{apart_of_answers:.1e} off");
    // Packed weights are another way to compute the same.
    let packed = with(&["--weights", "keep"]);
    assert!(apart(&packed, &whole, "perplexity") < TOLERANCE);
}

#[test]
fn a_person_gets_one_line_of_figures() {
    let path = golden("perplexity.txt");
    let output = run(&["perplexity", "--file", &path, "--num-samples", "1"]);
    let (line, rate) = (stdout(&output), stderr(&output));
    assert!(
        line.starts_with("perplexity ") && line.contains(" ± "),
        "{line}"
    );
    assert!(line.contains("511 tokens in 1 sequences of 512"), "{line}");
    assert!(rate.contains("tokens/s"), "{rate}");
    let path = golden("answers.jsonl");
    let output = run(&["perplexity", "--mask-prompt", "--file", &path]);
    let line = stdout(&output);
    assert!(line.contains("the answers of 8 dialogues"), "{line}");
}

#[test]
fn texts_that_cannot_be_used_are_4() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| -> String {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    };
    let wrong = [
        (write("short.txt", b"Too short."), "fewer than one sequence"),
        (write("latin.txt", b"caf\xe9"), "UTF-8"),
        (write("keys.jsonl", b"\n{\"texts\": \"x\"}\n"), "line 2"),
        (write("broken.jsonl", b"{"), "line 1"),
        ("/nowhere/x.txt".to_string(), "/nowhere/x.txt"),
    ];
    for (file, part) in wrong {
        let output = run(&["perplexity", "--file", &file]);
        assert_eq!(output.status.code(), Some(4), "{file}");
        let message = stderr(&output);
        assert!(message.contains(part), "{part} in {message}");
    }
    let chat = r#"{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}"#;
    let output = run(&[
        "perplexity",
        "--file",
        &write("chat.jsonl", chat.as_bytes()),
    ]);
    assert_eq!(output.status.code(), Some(4));
    assert!(
        stderr(&output).contains("--mask-prompt"),
        "{}",
        stderr(&output)
    );
    let last =
        r#"{"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]}"#;
    let wrong = [
        (write("none.jsonl", b"\n\n"), "has no dialogue"),
        (write("last.jsonl", last.as_bytes()), "role `assistant`"),
        (write("text.jsonl", b"{\"text\": \"x\"}"), "line 1"),
    ];
    for (file, part) in wrong {
        let output = run(&["perplexity", "--mask-prompt", "--file", &file]);
        assert_eq!(output.status.code(), Some(4), "{file}");
        let message = stderr(&output);
        assert!(message.contains(part), "{part} in {message}");
    }
    for more in [
        &["--sequence-length", "1"][..],
        &["--sequence-length", "64", "--mask-prompt"],
    ] {
        let output = run(&[&["perplexity", "--file", "x"], more].concat());
        assert_eq!(output.status.code(), Some(2), "{more:?}");
    }
}
