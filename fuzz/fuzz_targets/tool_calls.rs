//! Any text, in any notation and cut anywhere, comes out the same, with nothing lost.
//!
//! The first byte says which notation, the second where the text is cut. Run with
//! `cargo fuzz run -s none tool_calls -- -dict=fuzz/tool_calls.dict`.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use pensieve::text::tools::{FORMATS, Notation, Output, Tools};
use serde_json::{Value, json};

static TOOLS: LazyLock<Arc<Tools>> = LazyLock::new(|| {
    Arc::new(Tools::new(
        &json!([{"type": "function", "function": {"name": "f", "parameters": {"properties": {
        "s": {"type": "string"}, "i": {"type": "integer"}, "b": {"type": "boolean"}, "a": {"type": "array"},
        "o": {"type": "object"}, "n": {"type": ["string", "null"]}}}}}]),
    ))
});

fuzz_target!(|input: &[u8]| {
    let [which, cut, text @ ..] = input else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let notation = FORMATS[usize::from(*which) % FORMATS.len()];
    let whole = run(notation, [text]);
    let chars: Vec<char> = text.chars().collect();
    let pieces = chars.chunks(usize::from(*cut).max(1));
    let pieces: Vec<String> = pieces.map(|piece| piece.iter().collect()).collect();
    assert_eq!(run(notation, pieces.iter().map(String::as_str)), whole);
    let mut rest = text.chars();
    let (mut said, mut calls) = (String::new(), 0);
    let mut arguments = String::new();
    for part in &whole {
        match part {
            Output::Text(text) => said.push_str(text),
            Output::CallStart { name, .. } => {
                assert!(!name.is_empty());
                arguments.clear();
            }
            Output::Arguments(more) => arguments.push_str(more),
            Output::CallEnd => {
                calls += 1;
                // A number too large for a float is JSON all the same.
                match serde_json::from_str::<Value>(&arguments) {
                    Ok(value) => assert!(value.is_object(), "{arguments}"),
                    Err(e) => assert!(e.to_string().contains("out of range"), "{e}: {arguments}"),
                }
            }
            _ => {}
        }
    }
    if notation.separates_reasoning() {
        return;
    }
    assert!(said.chars().all(|c| rest.any(|other| other == c)), "{said}");
    if calls == 0 {
        assert_eq!(said, text);
    }
});

fn run<'a>(notation: &Notation, pieces: impl IntoIterator<Item = &'a str>) -> Vec<Output> {
    let mut parser = notation.parser(&TOOLS);
    let mut out = Vec::new();
    for piece in pieces {
        parser
            .push(piece)
            .into_iter()
            .for_each(|part| Output::join(&mut out, part));
    }
    parser
        .finish()
        .into_iter()
        .for_each(|part| Output::join(&mut out, part));
    out
}
