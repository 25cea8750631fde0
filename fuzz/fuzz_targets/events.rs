//! Any answer, in any pieces, is read back from every dialect's stream and whole answer as it was.
//!
//! Each line of the input is a piece: its first byte says of what kind, the rest is its text; in that of a
//! call, tabs part the name and the pieces of the arguments. Run with `cargo fuzz run -s none events`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pensieve::server::App;
use pensieve::server::fuzzing::{self, Piece};

mod app;

static APP: std::sync::LazyLock<App> = std::sync::LazyLock::new(app::new);

fuzz_target!(|input: &str| {
    let pieces = input.split('\u{1e}').map(|line| {
        let mut chars = line.chars();
        let kind = chars.next().map_or(0, u32::from);
        let text = chars.as_str();
        match kind % 3 {
            0 => Piece::Text(text.to_owned()),
            1 => Piece::Reasoning(text.to_owned()),
            _ => {
                let mut parts = text.split('\t').map(str::to_owned);
                let name = parts.next().unwrap_or_default();
                Piece::Call(name, arguments(parts.collect()))
            }
        }
    });
    let pieces: Vec<Piece> = pieces.collect();
    if let Err(reason) = fuzzing::nothing_is_lost(&APP, &pieces) {
        panic!("{reason}");
    }
});

/// What stands for arguments in a whole message that are no object, or are spelled in another way than JSON
/// is written here, cannot be told from it: such are a string of one.
fn arguments(pieces: Vec<String>) -> Vec<String> {
    let text = pieces.concat();
    let value = serde_json::from_str::<serde_json::Value>(&text);
    let as_written = value.is_ok_and(|value| {
        value.is_object() && value.to_string() == text && value.get("INVALID_JSON").is_none()
    });
    match as_written && text != "{}" {
        true => pieces,
        false => vec![serde_json::json!({"text": pieces.concat()}).to_string()],
    }
}
