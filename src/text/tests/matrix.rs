//! Templates against what transformers made of them: `tests/templates/reference.py` wrote that down.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::template::Template;
use super::super::{Chat, TextError, control};
use super::{byte_level, with_template};

/// The difference between a rendering and what it should be; none if they agree.
fn difference(got: &Result<String, TextError>, expected: &Value) -> Option<String> {
    let agree = match (got, &expected["text"], &expected["refused"]) {
        (Ok(text), Value::String(wanted), _) => text == wanted,
        (Err(TextError::Refused { message, .. }), _, Value::String(wanted)) => message == wanted,
        (Err(TextError::Refused { .. }), ..) => false,
        // Python's own errors have other words.
        (Err(_), Value::Null, Value::Null) => true,
        _ => false,
    };
    (!agree).then(|| format!("expected {expected}\n     got {got:?}"))
}

#[test]
fn what_jinja_can_do_comes_out_as_in_transformers() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/templates/golden.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let variables: &Map<String, Value> = golden["variables"].as_object().unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 500, "{}", cases.len());
    let mut differences = String::new();
    for case in cases {
        let source = case["template"].as_str().unwrap();
        let template = Template::new(source, "golden");
        let got = template.and_then(|template| template.render(variables));
        let got = got.map(|text| control::unmark(&text));
        let mut expected = case.clone();
        expected.as_object_mut().unwrap().shift_remove("template");
        if let Some(difference) = difference(&got, &expected) {
            let _ = writeln!(differences, "{source}\n{difference}");
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

/// The file holds other people's templates.
#[test]
#[ignore = "needs a file of renderings: cargo xtask templates --dir"]
fn dialogues_come_out_as_in_transformers() {
    let file = std::env::var_os("PENSIEVE_TEMPLATES");
    let file = file.expect(
        "PENSIEVE_TEMPLATES names no file of renderings; `cargo xtask templates --dir` sets it",
    );
    let matrix = std::fs::read_to_string(Path::new(&file)).unwrap();
    let matrix: Value = serde_json::from_str(&matrix).unwrap();
    let (mut n, mut refused, mut differ) = (0, 0, 0);
    for (name, source) in matrix["templates"].as_object().unwrap() {
        let text = with_template(&byte_level(), source.as_str().unwrap());
        let cases = matrix["cases"].as_array().unwrap().iter();
        let mut shown = 0;
        for case in cases.filter(|case| case["of"] == json!(name)) {
            let given = &case["chat"];
            let chat = Chat {
                messages: given["messages"].as_array().unwrap().clone(),
                tools: Some(given["tools"].clone()),
                add_generation_prompt: given["add_generation_prompt"] == json!(true),
                continue_final_message: given["continue_final_message"] == json!(true),
                extra: given["extra"].as_object().unwrap().clone(),
            };
            let mut expected = case.clone();
            for key in ["of", "name", "chat"] {
                expected.as_object_mut().unwrap().shift_remove(key);
            }
            n += 1;
            refused += usize::from(expected.get("text").is_none());
            if let Some(difference) = difference(&text.render_chat(&chat), &expected) {
                differ += 1;
                shown += 1;
                if shown <= 3 {
                    println!("{name}: {}\n{difference}", case["name"]);
                }
            }
        }
    }
    println!("{n} renderings, {refused} of them refused by transformers too, {differ} differ");
    assert_eq!(differ, 0);
}
