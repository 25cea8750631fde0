//! Any body is taken or refused in every dialect, and any answer to it is a stream of whole events and a
//! JSON object.
//!
//! The bytes before the first 0 are the body; the rest are the answer's tokens, two bytes each. Run with
//! `cargo fuzz run -s none bodies -- -dict=fuzz/bodies.dict`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pensieve::server::{App, fuzzing};
use serde_json::Value;

mod app;

static APP: LazyLock<App> = LazyLock::new(app::new);

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|&byte| byte == 0);
    let (body, answer) = input.split_at(end.unwrap_or(input.len()));
    let ids = answer.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
    let ids: Vec<u32> = ids.map(|id| u32::from(id) % 4200).collect();
    for answered in fuzzing::dialects(&APP, body, &ids) {
        match answered {
            Err(message) => assert!(!message.is_empty()),
            Ok((stream, whole)) => {
                let whole: Value = serde_json::from_str(&whole).unwrap();
                assert!(whole["usage"].is_object());
                for event in stream.strip_suffix("\n\n").unwrap().split("\n\n") {
                    let data = match event.strip_prefix("event: ") {
                        Some(named) => named.split_once('\n').unwrap().1,
                        None => event,
                    };
                    let data = data.strip_prefix("data: ").unwrap();
                    assert!(!data.contains(['\r', '\n']));
                    if data != "[DONE]" {
                        let data: Value = serde_json::from_str(data).unwrap();
                        assert!(data.is_object());
                    }
                }
            }
        }
    }
});
