//! Any text, with any marks of reasoning and cut anywhere, comes out the same, with nothing lost.
//!
//! The first byte says which marks, the second where the text is cut, the third where the prompt
//! leaves the model. Run with `cargo fuzz run -s none reasoning -- -dict=fuzz/tool_calls.dict`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pensieve::text::reasoning::{MARKS, Marks, Place, ReasoningParser};
use pensieve::text::tools::Output;

fuzz_target!(|input: &[u8]| {
    let [which, cut, place, text @ ..] = input else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let marks = &MARKS[usize::from(*which) % MARKS.len()];
    let place = [Place::Before, Place::Inside, Place::Behind][usize::from(*place) % 3];
    let whole = run(marks, place, [text]);
    let chars: Vec<char> = text.chars().collect();
    let pieces = chars.chunks(usize::from(*cut).max(1));
    let pieces: Vec<String> = pieces.map(|piece| piece.iter().collect()).collect();
    assert_eq!(run(marks, place, pieces.iter().map(String::as_str)), whole);
    let mut rest = text.chars();
    let (mut said, mut reasoned) = (String::new(), false);
    for part in &whole {
        let (Output::Text(text) | Output::Reasoning(text)) = part else {
            reasoned = true;
            continue;
        };
        reasoned |= matches!(part, Output::Reasoning(_));
        assert!(text.chars().all(|c| rest.any(|other| other == c)), "{text}");
        said.push_str(text);
    }
    let plain = |text: &str| -> String { text.split_whitespace().collect() };
    if !text.contains(marks.open) && !text.contains(marks.close) {
        assert_eq!(plain(&said), plain(text));
        assert!(!reasoned || place == Place::Inside);
    }
});

fn run<'a>(
    marks: &'static Marks,
    place: Place,
    pieces: impl IntoIterator<Item = &'a str>,
) -> Vec<Output> {
    let mut parser = ReasoningParser::new(marks, place);
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
