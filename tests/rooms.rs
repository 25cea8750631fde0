//! Holds the rooms to their order: imports run one way, `unsafe` stays where it belongs, files stay
//! short and say what they are for.
//!
//! Sources are read as tokens, not compiled, so code behind any `cfg` counts. A path made by a macro
//! from pieces is not seen.

use std::fs;
use std::path::Path;

/// What each room may import, beside itself. `cli` and the two root files may import anything.
const ROOMS: &[(&str, &[&str])] = &[
    ("mlx", &["kernels"]),
    ("nn", &["mlx", "cache", "checkpoint"]),
    ("cache", &["mlx", "nn", "checkpoint"]),
    ("checkpoint", &["mlx", "nn", "cache"]),
    ("models", &["mlx", "nn", "cache", "checkpoint"]),
    ("sample", &["mlx"]),
    ("text", &[]),
    (
        "engine",
        &["mlx", "nn", "cache", "checkpoint", "models", "sample"],
    ),
    ("server", &["engine", "text", "sample"]),
    ("bench", &["checkpoint", "engine", "text", "sample"]),
    ("convert", &["mlx", "nn", "checkpoint", "models"]),
    ("builtin", &["checkpoint"]),
    ("hub", &["checkpoint"]),
];
/// Files and folders that know no arrays although a room they import, or their own, does.
const WITHOUT_ARRAYS: &[(&str, &[&str])] = &[
    ("src/sample/params.rs", &[]),
    ("src/sample/dry.rs", &[]),
    ("src/sample/guide.rs", &[]),
    ("src/sample/host.rs", &[]),
    ("src/sample/workers.rs", &[]),
    ("src/text/guide", &["sample"]),
    ("src/engine/request.rs", &["sample"]),
    ("src/engine/handle.rs", &["sample"]),
    ("src/engine/watch.rs", &[]),
    ("src/engine/schedule.rs", &["sample"]),
];
const ANYTHING: &[&str] = &["src/lib.rs", "src/main.rs", "src/cli"];
/// The file outside `src/mlx/` that may say `unsafe`, twice: mapping a file into memory, and letting go of
/// its pages.
const MAPS: &str = "src/checkpoint/map.rs";
const MOST_LINES: usize = 600;
/// Everything written by hand. `mlx-sys/bindings.rs` is generated.
const SOURCES: &[&str] = &[
    "build.rs",
    "src",
    "kernels/src",
    "kernels/tests",
    "kernels/benches",
    "xtask/src",
    "mlx-sys/build",
    "mlx-sys/src",
    "mlx-sys/tests",
    "tests",
    "benches",
    "fuzz/fuzz_targets",
];

#[test]
fn rooms_are_in_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for source in SOURCES {
        rust_files(&root.join(source), &mut files);
    }
    assert!(
        files.len() > 20,
        "sources not found under {}",
        root.display()
    );
    files.sort();
    let mut offences = Vec::new();
    for file in &files {
        let name = file.strip_prefix(root).unwrap_or(file);
        let name = name.to_str().expect("names are UTF-8").replace('\\', "/");
        let text = fs::read_to_string(file).expect("a source file can be read");
        offences.extend(check(&name, &text));
    }
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

fn rust_files(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder can be listed") {
            rust_files(&entry.expect("a folder can be listed").path(), found);
        }
    } else if path.is_file() && path.extension().is_some_and(|x| x == "rs") {
        found.push(path.to_path_buf());
    }
}

/// Every offence of one file, each a line `path: what`.
fn check(file: &str, text: &str) -> Vec<String> {
    let mut offences = Vec::new();
    let mut offend = |line: usize, what: String| offences.push(format!("{file}:{line}: {what}"));
    if !text.starts_with("//!") {
        offend(
            1,
            "does not start with `//!` and what the file is for".into(),
        );
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        offend(lines, format!("{lines} lines, at most {MOST_LINES}"));
    }
    let tokens = tokens(text);
    if !file.starts_with("src/mlx/") && !file.starts_with("mlx-sys/") {
        let mut may = 2 * usize::from(file == MAPS);
        if file.starts_with("kernels/src/") {
            may = usize::MAX;
        }
        for (line, token) in &tokens {
            match token.as_str() {
                "unsafe" if may > 0 => may -= 1,
                "unsafe" => offend(*line, "`unsafe` outside src/mlx/ and kernels/src/".into()),
                "mlx_sys" => offend(*line, "`mlx_sys` outside src/mlx/".into()),
                _ => {}
            }
        }
    }
    if file.starts_with("src/") && !ANYTHING.iter().any(|any| within(file, any)) {
        let room = module(file)[0].clone();
        match allowed(file, &room) {
            None => offend(1, format!("`{room}` is no room that tests/rooms.rs knows")),
            Some(allowed) => {
                for (line, import) in imports(file, &tokens) {
                    if import != room && !allowed.contains(&import.as_str()) {
                        offend(line, format!("`{room}` must not import `{import}`"));
                    }
                }
            }
        }
    }
    offences
}

fn within(file: &str, folder: &str) -> bool {
    file.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn allowed(file: &str, room: &str) -> Option<&'static [&'static str]> {
    let special = WITHOUT_ARRAYS.iter().find(|(path, _)| within(file, path));
    let rule = special.or_else(|| ROOMS.iter().find(|(name, _)| *name == room));
    rule.map(|(_, allowed)| *allowed)
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are both the module `[a, b]`.
fn module(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = path.split('/').map(String::from).collect();
    if parts.len() > 1 && parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The names right under the crate's root that a file refers to, with the line of each; `*` is all.
fn imports(file: &str, tokens: &[(usize, String)]) -> Vec<(usize, String)> {
    let depth = module(file).len();
    // For each open brace, whether it is an inline module's.
    let mut braces: Vec<bool> = Vec::new();
    let mut found = Vec::new();
    let at = |i: usize| tokens.get(i).map_or("", |(_, token)| token.as_str());
    let mut i = 0;
    while i < tokens.len() {
        match at(i) {
            "{" => braces.push(i >= 2 && at(i - 2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" | "pensieve" if at(i + 1) == "::" => found.extend(names(tokens, i + 2)),
            // `pub(crate)` gives visibility; anything else could hide an import behind a new name.
            "crate" if at(i.wrapping_sub(1)) != "(" => found.push((tokens[i].0, "crate".into())),
            "super" if at(i.wrapping_sub(1)) != "::" => {
                let mut supers = 1;
                while at(i + 1) == "::" && at(i + 2) == "super" {
                    supers += 1;
                    i += 2;
                }
                let nested = braces.iter().filter(|inline| **inline).count();
                if at(i + 1) == "::" && supers >= depth + nested {
                    found.extend(names(tokens, i + 2));
                }
            }
            _ => {}
        }
        i += 1;
    }
    found
}

/// The first names of the use tree that starts at token `i`: one, or those of a `{…}`.
fn names(tokens: &[(usize, String)], i: usize) -> Vec<(usize, String)> {
    let Some((_, first)) = tokens.get(i) else {
        return Vec::new();
    };
    if first != "{" {
        return vec![tokens[i].clone()];
    }
    let (mut found, mut nesting, mut fresh) = (Vec::new(), 0, false);
    for (line, token) in &tokens[i..] {
        match token.as_str() {
            "{" => nesting += 1,
            "}" => nesting -= 1,
            "," => {}
            name if fresh && nesting == 1 => found.push((*line, name.to_string())),
            _ => {}
        }
        fresh = nesting == 1 && matches!(token.as_str(), "{" | ",");
        if nesting == 0 {
            break;
        }
    }
    found
}

/// Words, `::` and single signs, with their lines; comments, strings and characters left out.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let bytes: Vec<char> = text.chars().collect();
    let at = |i: usize| bytes.get(i).copied().unwrap_or('\0');
    let (mut found, mut line, mut i) = (Vec::new(), 1, 0);
    while i < bytes.len() {
        let start = i;
        match bytes[i] {
            '/' if at(i + 1) == '/' => {
                while i < bytes.len() && bytes[i] != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => i = after_block_comment(&bytes, i),
            '"' => i = after_string(&bytes, i),
            'r' if at(i + 1) == '"' || (at(i + 1) == '#' && matches!(at(i + 2), '"' | '#')) => {
                i = after_raw_string(&bytes, i + 1);
            }
            // A character; a lifetime has no closing quote there.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while i < bytes.len() && bytes[i] != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            ':' if at(i + 1) == ':' => {
                found.push((line, "::".to_string()));
                i += 2;
            }
            c if c.is_alphanumeric() || c == '_' => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                let word: String = bytes[start..i].iter().collect();
                // b"…", c"…" and br#"…"# start like words; their string follows.
                if matches!(word.as_str(), "br" | "cr") && matches!(at(i), '"' | '#') {
                    i = after_raw_string(&bytes, i);
                } else {
                    found.push((line, word));
                }
            }
            c => {
                if !c.is_whitespace() {
                    found.push((line, c.to_string()));
                }
                i += 1;
            }
        }
        let end = i.min(bytes.len());
        line += bytes[start..end].iter().filter(|c| **c == '\n').count();
    }
    found
}

fn after_block_comment(text: &[char], mut i: usize) -> usize {
    let mut nesting = 0;
    while i < text.len() {
        match (text[i], text.get(i + 1)) {
            ('/', Some('*')) => (nesting, i) = (nesting + 1, i + 2),
            ('*', Some('/')) => (nesting, i) = (nesting - 1, i + 2),
            _ => i += 1,
        }
        if nesting == 0 {
            break;
        }
    }
    i
}

fn after_string(text: &[char], mut i: usize) -> usize {
    i += 1;
    while i < text.len() && text[i] != '"' {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// `i` is at the first `#` or the quote.
fn after_raw_string(text: &[char], mut i: usize) -> usize {
    let hashes = text[i..].iter().take_while(|c| **c == '#').count();
    i += hashes + 1;
    while i < text.len() {
        if text[i] == '"' && text[i + 1..].iter().take(hashes).all(|c| *c == '#') {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

/// The checks themselves, on sources made for the purpose.
mod checks {
    use super::check;

    fn offences(file: &str, body: &str) -> Vec<String> {
        check(file, &format!("//! For a test.\n{body}"))
    }

    #[test]
    fn the_order_is_accepted() {
        for (file, body) in [
            ("src/nn/norm.rs", "use crate::mlx::Array;"),
            (
                "src/models/llama.rs",
                "use crate::{cache, mlx::Array, nn::{Linear, norm}};",
            ),
            ("src/engine/thread.rs", "use crate::models::Model;"),
            ("src/mlx/cpu.rs", "use crate::kernels::Packed;"),
            (
                "src/server/mod.rs",
                "use crate::engine::Handle; pub(crate) mod a;",
            ),
            (
                "src/cli/run.rs",
                "use crate::mlx::Device; use crate::server;",
            ),
            ("src/lib.rs", "pub mod mlx; use crate::mlx::Array;"),
            (
                "src/sample/chain.rs",
                "use super::params::Params; use crate::mlx::Array;",
            ),
            // One `super` out of an inline module leads back into the file.
            (
                "src/server/mod.rs",
                "mod tests { use super::*; use super::models; }",
            ),
            (
                "src/server/openai/chat.rs",
                "use super::models::Mlx; use super::super::routes;",
            ),
        ] {
            assert_eq!(offences(file, body), Vec::<String>::new(), "{file} {body}");
        }
    }

    #[test]
    fn a_reverse_edge_is_found_however_it_is_written() {
        for (file, body) in [
            ("src/mlx/array.rs", "use crate::nn::Linear;"),
            ("src/nn/linear.rs", "use crate::kernels::Packed;"),
            ("src/server/routes.rs", "use crate::mlx::Array;"),
            ("src/server/routes.rs", "fn f() { crate::models::load() }"),
            ("src/server/routes.rs", "use crate::{engine::Handle, mlx};"),
            (
                "src/server/routes.rs",
                "use crate::{\n    text::{Text, Chat},\n    cache::Full,\n};",
            ),
            (
                "src/server/routes.rs",
                "use super::super::checkpoint::Source;",
            ),
            ("src/server/mod.rs", "use super::nn;"),
            ("src/server/mod.rs", "mod tests { use super::super::nn; }"),
            ("src/server/routes.rs", "use crate::*;"),
            ("src/server/routes.rs", "use crate as all;"),
            ("src/text/mod.rs", "use crate::sample::Params;"),
            (
                "src/models/mod.rs",
                "#[cfg(test)] mod tests { use crate::engine; }",
            ),
            ("src/engine/request.rs", "use crate::mlx::Array;"),
            ("src/engine/schedule.rs", "use crate::cache::Batch;"),
            ("src/sample/params.rs", "use crate::mlx::Array;"),
            ("src/engine/thread.rs", "use crate::server::App;"),
            ("src/server/app.rs", "use pensieve::mlx;"),
            ("src/attic/mod.rs", ""),
        ] {
            assert_eq!(offences(file, body).len(), 1, "{file} {body}");
        }
    }

    #[test]
    fn the_offence_names_file_line_and_both_rooms() {
        let found = offences("src/server/routes.rs", "\nuse crate::mlx::Array;");
        assert_eq!(
            found,
            ["src/server/routes.rs:3: `server` must not import `mlx`"]
        );
    }

    #[test]
    fn unsafe_and_the_bindings_belong_to_mlx() {
        for (file, body, count) in [
            ("src/mlx/array.rs", "unsafe { mlx_sys::f() }", 0),
            ("mlx-sys/build/main.rs", "unsafe { f() }", 0),
            ("kernels/src/pool.rs", "unsafe { f() } unsafe { f() }", 0),
            ("kernels/src/pool.rs", "use mlx_sys::f;", 1),
            ("kernels/tests/exact.rs", "unsafe { f() }", 1),
            ("src/text/mod.rs", "unsafe { f() }", 1),
            ("src/cli/run.rs", "unsafe { f() }", 1),
            ("src/lib.rs", "pub use mlx_sys::mlx_array;", 1),
            ("xtask/src/main.rs", "unsafe { f() }", 1),
            ("src/checkpoint/map.rs", "unsafe { } unsafe { }", 0),
            (
                "src/checkpoint/map.rs",
                "unsafe { } unsafe { } unsafe { }",
                1,
            ),
        ] {
            assert_eq!(offences(file, body).len(), count, "{file} {body}");
        }
    }

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let quiet = r####"
            // unsafe crate::mlx
            /* unsafe /* unsafe */ unsafe */
            const A: &str = "unsafe \" unsafe";
            const B: &str = r#"unsafe " unsafe"#;
            const C: &[u8] = br"unsafe"; const D: &[u8] = b"unsafe";
            const E: [char; 3] = ['"', '\'', '\u{22}'];
            fn life<'a>(x: &'a str) -> &'a str { x }
        "####;
        assert_eq!(offences("src/text/mod.rs", quiet), Vec::<String>::new());
        // And the code after each of them is still seen.
        let loud = format!("{quiet}\nunsafe {{ f() }}");
        assert_eq!(offences("src/text/mod.rs", &loud).len(), 1);
    }

    #[test]
    fn long_files_and_files_without_a_purpose_are_named() {
        let lines = |n: usize| format!("//! Long.\n{}", "fn f() {}\n".repeat(n - 1));
        assert!(check("tests/long.rs", &lines(600)).is_empty());
        let long = check("tests/long.rs", &lines(601));
        assert_eq!(long, ["tests/long.rs:601: 601 lines, at most 600"]);
        assert_eq!(check("xtask/src/a.rs", "fn main() {}\n").len(), 1);
    }
}
