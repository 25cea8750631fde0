//! Streamed text equals the text decoded at once.

use std::sync::LazyLock;
use std::time::Instant;

use proptest::prelude::*;
use serde_json::json;

use super::super::{Detokenizer, Text};
use super::{byte_fallback, byte_level, with_template, word_piece};

static BYTES: LazyLock<Text> = LazyLock::new(|| with_template(&byte_level(), ""));
/// The same bytes, put together by a decoder of which nothing is known.
static WRAPPED: LazyLock<Text> = LazyLock::new(|| {
    let mut file = byte_level();
    file["decoder"] = json!({"type": "Sequence", "decoders": [file["decoder"].clone()]});
    with_template(&file, "")
});
static FALLBACK: LazyLock<Text> = LazyLock::new(|| with_template(&byte_fallback(false), ""));
static METASPACE: LazyLock<Text> = LazyLock::new(|| with_template(&byte_fallback(true), ""));
static WORDS: LazyLock<Text> = LazyLock::new(|| with_template(&word_piece(), ""));

fn stream(text: &Text, ids: &[u32]) -> (Vec<String>, String) {
    let mut stream = text.stream(Vec::new());
    let pieces = ids.iter().map(|&id| stream.push(id).text).collect();
    (pieces, stream.finish())
}

fn check(text: &Text, ids: &[u32]) -> Result<(), TestCaseError> {
    let (pieces, rest) = stream(text, ids);
    prop_assert_eq!(
        pieces.concat() + &rest,
        text.tokenizer().decode(ids, true),
        "{:?}",
        ids
    );
    Ok(())
}

#[test]
fn a_character_comes_whole() {
    let text = with_template(&byte_level(), "");
    let ids = text.tokenizer().encode("a😀é!", false).unwrap();
    let (pieces, rest) = stream(&text, &ids);
    let shown: Vec<&str> = pieces
        .iter()
        .map(String::as_str)
        .filter(|piece| !piece.is_empty())
        .collect();
    assert_eq!(shown, ["a", "😀", "é", "!"]);
    assert_eq!(rest, "");
}

#[test]
fn an_unfinished_character_ends_as_replacement() {
    let text = with_template(&byte_level(), "");
    let (pieces, rest) = stream(&text, &[u32::from(b'a'), 0xE2, 0x82]);
    assert_eq!((pieces.concat().as_str(), rest.as_str()), ("a", "\u{FFFD}"));
}

#[test]
fn spaces_at_the_start_are_the_decoders_affair() {
    for metaspace in [false, true] {
        let text = with_template(&byte_fallback(metaspace), "");
        let id = |token: &str| text.tokenizer().id(token).unwrap();
        let ids = [
            id("▁he"),
            id("▁▁"),
            id("▁a"),
            id("▁"),
            id("▁"),
            id("<0xC3>"),
            id("<0xA9>"),
            id("▁he"),
        ];
        let (pieces, rest) = stream(&text, &ids);
        assert_eq!(pieces.concat() + &rest, "he   a  é he");
        assert_eq!(pieces[0], "he");
        assert_eq!(pieces[6], "");
    }
}

#[test]
fn a_long_stream_takes_linear_time() {
    let ids = [0xFF, 0xF0, u32::from(b' '), u32::from(b'x')];
    let all = [&BYTES, &WRAPPED].map(|text| ids.map(|id| (text, id)));
    for (text, id) in all.into_iter().flatten() {
        let mut detokenizer = Detokenizer::new(text.tokenizer().clone());
        let start = Instant::now();
        let mut shown = 0;
        for _ in 0..20_000 {
            shown += detokenizer.push(id).chars().count();
        }
        shown += detokenizer.finish().chars().count();
        assert_eq!(shown, 20_000, "{id}");
        // Quadratic work would take minutes.
        assert!(start.elapsed().as_secs() < 30, "{id}");
    }
}

#[test]
fn a_stop_string_ends_the_stream() {
    let text = with_template(&byte_level(), "");
    let ids = text.tokenizer().encode("one END two", false).unwrap();
    let mut stream = text.stream(vec![" END".to_owned(), String::new()]);
    let mut out = String::new();
    let mut stopped = false;
    for id in ids {
        let piece = stream.push(id);
        out.push_str(&piece.text);
        stopped |= piece.stopped;
    }
    assert_eq!((out.as_str(), stopped), ("one", true));

    let ids = text.tokenizer().encode("one EN", false).unwrap();
    let mut stream = text.stream(vec![" END".to_owned()]);
    let shown: String = ids.iter().map(|&id| stream.push(id).text).collect();
    assert_eq!((shown.as_str(), stream.finish().as_str()), ("one", " EN"));
}

proptest! {
    #[test]
    fn any_ids_over_bytes(ids in prop::collection::vec(0u32..270, 0..60), wrapped: bool) {
        check(if wrapped { &WRAPPED } else { &BYTES }, &ids)?;
    }

    #[test]
    fn broken_characters_over_bytes(
        ids in prop::collection::vec(prop::sample::select(vec![0x20, 0x61, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xFF, 259, 260]), 0..200),
        wrapped: bool,
    ) {
        check(if wrapped { &WRAPPED } else { &BYTES }, &ids)?;
    }

    #[test]
    fn any_ids_over_byte_fallback(
        ids in prop::collection::vec(
            prop_oneof![0u32..280, 259u32..275, prop::sample::select(vec![3 + 0xC3, 3 + 0xA9, 3 + 0xF0, 3 + 0x9F, 259u32])],
            0..120,
        ),
        metaspace: bool,
    ) {
        check(if metaspace { &METASPACE } else { &FALLBACK }, &ids)?;
    }

    #[test]
    fn any_ids_over_words(ids in prop::collection::vec(0u32..12, 0..40)) {
        check(&WORDS, &ids)?;
    }

    #[test]
    fn any_text_comes_back(input in "\\PC{0,40}") {
        let ids = BYTES.tokenizer().encode(&input, false).unwrap();
        check(&BYTES, &ids)?;
    }
}

#[test]
fn without_a_decoder_too() {
    let mut file = word_piece();
    file["decoder"] = json!(null);
    let text = with_template(&file, "");
    let (pieces, rest) = stream(&text, &[7, 2, 3, 5]);
    assert_eq!(
        pieces.concat() + &rest,
        text.tokenizer().decode(&[7, 2, 3, 5], true)
    );
}

#[test]
fn a_completion_goes_on_inside_of_a_character() {
    for text in [&*BYTES, &*WRAPPED] {
        let ids = [u32::from(b'a'), 0xE2, 0x82, 0xAC, u32::from(b'b')];
        for cut in 1..4 {
            let (prompt, rest) = ids.split_at(cut);
            let mut stream = text.stream_after(prompt, Vec::new());
            let mut after: String = rest.iter().map(|&id| stream.push(id).text).collect();
            after.push_str(&stream.finish());
            assert_eq!(after, "€b", "{cut}");
        }
    }
}

#[test]
fn a_completion_keeps_the_space_after_its_prompt() {
    let text = with_template(&byte_fallback(true), "");
    let tokenizer = text.tokenizer();
    let whole = tokenizer.encode("ab ab", false).unwrap();
    for cut in 1..whole.len() {
        let (prompt, rest) = whole.split_at(cut);
        let before = tokenizer.decode(prompt, true);
        let mut stream = text.stream_after(prompt, Vec::new());
        let mut after: String = rest.iter().map(|&id| stream.push(id).text).collect();
        after.push_str(&stream.finish());
        assert_eq!(before + &after, tokenizer.decode(&whole, true));
    }
}
