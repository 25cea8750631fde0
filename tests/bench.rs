//! `pensieve bench`, driven as a user would.

mod common;

use std::path::Path;

use common::{run, stderr, stdout};
use serde_json::Value;

fn rows(arguments: &[&str]) -> Vec<Value> {
    let output = run(&[&["bench", "--json"], arguments].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.collect()
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

/// A small model of this shape in `folder`.
fn made(folder: &Path, shape: &str) -> String {
    let model = folder.join("model").to_str().unwrap().to_owned();
    let make = words("bench --layers 1 --vocab-size 512 --make-model");
    let output = run(&[&make[..], &[shape, "--out", &model]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    model
}

#[test]
fn the_grid_gives_a_row_a_point_with_every_measure() {
    let folder = tempfile::tempdir().unwrap();
    let model = made(folder.path(), "qwen3-0.6b");
    let grid = "--prompt 3,5 --gen 4 --concurrency 1,2 --reps 2 --warm-up 0 --model";
    let report = folder.path().join("report.html");
    let report = report.to_str().unwrap();
    let rows = rows(&[&words(grid)[..], &[&model, "--report", report]].concat());
    let points: Vec<(u64, u64)> = rows
        .iter()
        .map(|row| {
            (
                row["concurrency"].as_u64().unwrap(),
                row["prompt"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(points, [(1, 3), (1, 5), (2, 3), (2, 5)]);
    let page = std::fs::read_to_string(report).unwrap();
    assert_eq!(page.matches("<svg").count(), 5, "{page}");
    for row in &rows {
        if row["concurrency"] == 1 {
            assert!(row["bandwidth_share"].as_f64().unwrap() > 0.0, "{row}");
        }
        for measure in [
            "ttft_ms",
            "prefill_tps",
            "decode_tps",
            "itl_ms",
            "total_tps",
        ] {
            let of = |part: &str| row[measure][part].as_f64().unwrap();
            assert!(of("p5") > 0.0, "{measure} in {row}");
            assert!(of("p5") <= of("p50") && of("p50") <= of("p90"), "{row}");
            assert!(of("p90") <= of("p99") && of("p99") <= of("max"), "{row}");
        }
        assert_eq!(row["prompt_tokens"], row["prompt"].as_f64().unwrap());
        assert!(row["peak_memory_bytes"].as_u64().unwrap() > 0);
        let streams = row["concurrency"].as_u64().unwrap();
        assert_eq!(row["ttft_ms"]["n"], 2 * streams);
        assert_eq!(row["tokens"], 4.0);
        assert_eq!(row["ended_early"], 0);
        assert_eq!(row["prefill_tps"]["n"], 2);
    }
}

#[test]
fn a_made_model_is_measured_and_served_without_further_files() {
    let folder = tempfile::tempdir().unwrap();
    let model = &made(folder.path(), "deepseek-v3-mini");
    let grid = words("--prompt 4 --gen 3 --reps 1 --depth 2 --model");
    let rows = rows(&[&grid[..], &[model]].concat());
    assert_eq!(rows[0]["depth"], 2);
    assert_eq!(rows[0]["prompt_tokens"], 6.0);
    let answer = run(&["run", "--model", model, "-q", "--max-tokens", "4", "Hello"]);
    assert!(answer.status.success(), "{}", stderr(&answer));
    let again = run(&["bench", "--make-model", "qwen3-0.6b", "--out", model]);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("not empty"));
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_runs() {
    for (arguments, part) in [
        (&["--gen", "1"][..], "2 or more"),
        (&["--prompt", "0"], "1 or more"),
        (&["--prompt", "100000"], "the context holds"),
        (&["--make-model", "gpt-5"], "possible values"),
        (&["--make-model", "qwen3-0.6b"], "--out"),
        (&["--json", "--csv"], "cannot be used with"),
        (
            &["--explain", "--suite", "acceptance"],
            "cannot be used with",
        ),
        (
            &["--suite", "acceptance", "--scenario", "prefix"],
            "cannot be used with",
        ),
        (&["--against", "mlx-lm"], "needs --model DIR"),
        (&["--against", "llama.cpp"], "needs --gguf FILE"),
    ] {
        let output = run(&[&["bench"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
fn how_products_are_computed_is_explained() {
    let output = run(&["bench", "--explain"]);
    let text = stdout(&output);
    assert!(text.contains("| matrix | rows | taken |"), "{text}");
    assert!(
        text.contains("256 x 256, affine 8 bits in groups of 64"),
        "{text}"
    );
    let output = run(&["bench", "--explain", "--plan", "measure", "--json"]);
    let lines = stdout(&output);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines[0]["mlx"].is_string(), "{lines:?}");
    let product = &lines[1];
    let times = product["microseconds"].as_object().unwrap();
    assert!(times.len() >= 2, "{product}");
    assert!(
        times.contains_key(product["way"].as_str().unwrap()),
        "{product}"
    );
    let output = run(&["bench", "--explain", "--plan", "rule"]);
    assert!(
        stdout(&output).contains("nothing is planned"),
        "{}",
        stdout(&output)
    );
    let output = run(&["bench", "--explain", "--csv"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn tables_have_one_heading() {
    let grid = "bench --prompt 4,5 --gen 3 --reps 1 --warm-up 0";
    for format in ["--csv", "--markdown"] {
        let output = run(&[&words(grid)[..], &[format]].concat());
        let text = stdout(&output);
        assert_eq!(text.matches("prefill t/s").count(), 1, "{text}");
        let separator = if format == "--csv" { ',' } else { '|' };
        let cells: Vec<usize> = text
            .lines()
            .map(|line| line.matches(separator).count())
            .collect();
        assert!(
            cells.len() >= 3 && cells.iter().all(|&n| n == cells[0]),
            "{text}"
        );
    }
}

#[test]
fn a_server_is_measured_by_the_same_rows() {
    let server = common::Server::start(&["--model", "builtin:tiny"]);
    let grid = words("--prompt 8 --gen 3 --reps 1 --warm-up 0 --concurrency 2 --url");
    let rows = rows(&[&grid[..], &[&server.url]].concat());
    assert_eq!(rows[0]["target"], server.url);
    assert_eq!(rows[0]["model"], "pensieve-tiny");
    assert!(rows[0]["prompt_tokens"].as_f64().unwrap() >= 2.0);
    let output = run(&["bench", "--url", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot reach"));
}

#[test]
fn a_scenario_says_whether_it_reached_its_bar() {
    let folder = tempfile::tempdir().unwrap();
    let model = made(folder.path(), "qwen3-0.6b");
    let scenario =
        words("bench --reps 1 --long-prompt 64 --prefill-step-size 32 --json --scenario");
    for (name, measures) in [
        ("admission", ["worst_gap_ms", "gap_without_ms"]),
        ("prefix", ["cold_ttft_ms", "warm_ttft_ms"]),
        ("form", ["free_tps", "held_tps"]),
    ] {
        let output = run(&[&scenario[..], &[name, "--model", &model]].concat());
        let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(json["scenario"], name);
        for measure in measures {
            assert!(json[measure]["p50"].as_f64().unwrap() > 0.0, "{json}");
        }
        let code = if json["passed"] == true { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    }
}

#[test]
fn the_suite_measures_every_scenario_and_passes_nothing_unmeasured() {
    let folder = tempfile::tempdir().unwrap();
    let model = made(folder.path(), "qwen3-narrow");
    let suite = words("bench --suite acceptance --json --long-prompt 64 --device cpu --model");
    let output = run(&[&suite[..], &[&model]].concat());
    let text = stdout(&output);
    let checks = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let checks: Vec<Value> = checks.collect();
    for scenario in [
        "simple_query",
        "complex_reasoning",
        "creative_writing",
        "code_generation",
        "agent",
        "long_context",
        "json_schema",
        "concurrent_chat",
    ] {
        let of = |measure| {
            let mut of = checks.iter().filter(|check| check["scenario"] == scenario);
            of.find(|check| check["measure"] == measure)
        };
        let rate = of("decode, tokens/s").unwrap_or_else(|| panic!("{scenario} in {text}"));
        assert!(rate["value"].as_f64().unwrap() > 0.0, "{rate}");
        assert_eq!(rate["passed"], rate["value"].as_f64().unwrap() >= 25.0);
    }
    let long = checks.iter().filter(|check| check["note"].is_string());
    let long: Vec<&str> = long.map(|check| check["note"].as_str().unwrap()).collect();
    assert!(
        long.iter().any(|note| note.contains("instead of 20000")),
        "{text}"
    );
    let all = |measure| {
        let mut all = checks.iter().filter(|check| check["scenario"] == "all");
        all.find(|check| check["measure"] == measure).unwrap()
    };
    assert!(all("load, s")["value"].as_f64().unwrap() > 0.0);
    assert!(all("memory, GB")["value"].as_f64().unwrap() > 0.0);
    for check in &checks {
        assert!(
            check["value"].is_number() || check["passed"].is_null(),
            "{check}"
        );
    }
    let missed = checks.iter().any(|check| check["passed"] == false);
    assert_eq!(output.status.success(), !missed, "{}", stderr(&output));
}

#[test]
fn a_dialogue_is_measured_alone_and_over_http() {
    let server = common::Server::start(&["--model", "builtin:tiny"]);
    let output = run(&[
        "bench",
        "--scenario",
        "code_generation",
        "--url",
        &server.url,
    ]);
    let text = stdout(&output);
    assert!(
        text.contains("code_generation") && !text.contains("simple_query"),
        "{text}"
    );
    // What only the model's own process knows.
    let load = text.lines().find(|line| line.contains("load, s")).unwrap();
    assert!(load.starts_with("not measured"), "{text}");
}
