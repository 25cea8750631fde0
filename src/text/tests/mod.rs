//! Tests of the text room as a whole, over small tokenizers made here.

mod calls;
mod control;
mod hostile;
mod matrix;
mod streaming;
mod templates;
mod volatile;

use serde_json::{Map, Value, json};

use super::{Chat, Text, TextError};

/// GPT-2's alphabet, in the order of the bytes.
fn byte_alphabet() -> Vec<char> {
    let printable = |b: &u32| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    (0..0x100)
        .map(|b| {
            let code = if printable(&b) {
                b
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap()
        })
        .collect()
}

pub(in crate::text) fn added(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special})
}

/// A byte-level BPE: bytes 0 to 255, a few merges, then special tokens and `<think>`, which is not special.
pub(in crate::text) fn byte_level() -> Value {
    let alphabet = byte_alphabet();
    let mut vocab = Map::new();
    for (id, c) in alphabet.iter().enumerate() {
        vocab.insert(c.to_string(), json!(id));
    }
    let space = alphabet[usize::from(b' ')];
    let half: String = [alphabet[0xF0], alphabet[0x9F]].iter().collect();
    let mut merges = Vec::new();
    for (a, b) in [
        ("h".to_owned(), "e".to_owned()),
        (space.to_string(), "he".to_owned()),
        ("i".to_owned(), "m".to_owned()),
    ] {
        vocab.insert(format!("{a}{b}"), json!(vocab.len()));
        merges.push(json!([a, b]));
    }
    vocab.insert(half, json!(vocab.len()));
    merges.push(json!([
        alphabet[0xF0].to_string(),
        alphabet[0x9F].to_string()
    ]));
    let specials = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|im_end|><s>"];
    let first = vocab.len();
    let mut tokens: Vec<Value> = specials
        .iter()
        .enumerate()
        .map(|(n, token)| added(first + n, token, true))
        .collect();
    tokens.push(added(first + specials.len(), "<think>", false));
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens,
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges},
    })
}

/// A BPE as Llama 2 has it: pieces with `▁` for a space, and single bytes for what has no piece.
pub(in crate::text) fn byte_fallback(metaspace: bool) -> Value {
    let mut vocab = Map::new();
    for token in ["<unk>", "<s>", "</s>"] {
        vocab.insert(token.to_owned(), json!(vocab.len()));
    }
    for byte in 0..256 {
        vocab.insert(format!("<0x{byte:02X}>"), json!(vocab.len()));
    }
    for piece in [
        "▁", "h", "e", "s", "a", "<", ">", "|", ".", "é", "▁▁", "he", "▁he", "▁a", "▁.", "\u{FFFD}",
    ] {
        vocab.insert(piece.to_owned(), json!(vocab.len()));
    }
    let merges = json!([["▁", "▁"], ["h", "e"], ["▁", "he"], ["▁", "a"], ["▁", "."]]);
    let tokens = json!([
        added(0, "<unk>", true),
        added(1, "<s>", true),
        added(2, "</s>", true)
    ]);
    let (normalizer, pre_tokenizer, decoder) = if metaspace {
        let space = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
        let decoder = json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, space]});
        (Value::Null, space, decoder)
    } else {
        let normalizer = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        (normalizer, Value::Null, decoder)
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": merges},
    })
}

/// A WordPiece, whose decoder puts spaces between tokens and takes some away again.
pub(in crate::text) fn word_piece() -> Value {
    let mut vocab = Map::new();
    for token in [
        "[UNK]", "[CLS]", "do", "##g", "not", ".", "n't", "the", "##s", "!",
    ] {
        vocab.insert(token.to_owned(), json!(vocab.len()));
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [added(1, "[CLS]", true)],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

fn open(files: &[(&str, String)]) -> Result<Text, TextError> {
    Text::open(|name| {
        let found = files.iter().find(|(file, _)| *file == name);
        Ok(found.map(|(_, text)| text.clone().into_bytes()))
    })
}

pub(in crate::text) fn with_template(tokenizer: &Value, template: &str) -> Text {
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>", "special": true}, "unk_token": null});
    open(&[
        ("tokenizer.json", tokenizer.to_string()),
        ("tokenizer_config.json", config.to_string()),
        ("chat_template.jinja", template.to_owned()),
    ])
    .unwrap()
}

fn chat(messages: Value) -> Chat {
    Chat {
        messages: messages.as_array().unwrap().clone(),
        ..Chat::default()
    }
}

#[test]
fn a_missing_tokenizer_says_what_to_do() {
    let message = open(&[]).err().unwrap().to_string();
    assert!(
        message.contains("tokenizer.json") && message.contains("save_pretrained"),
        "{message}"
    );
}

#[test]
fn a_damaged_file_is_named() {
    for (file, text) in [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{\"version\": \"1.0\"}"),
        ("tokenizer_config.json", "[]"),
        ("special_tokens_map.json", "nonsense"),
        ("chat_template.json", "nonsense"),
    ] {
        let mut files = vec![(file, text.to_owned())];
        files.push(("tokenizer.json", byte_level().to_string()));
        let message = open(&files).err().unwrap().to_string();
        assert!(message.contains(file), "{message}");
    }
    let failing = Text::open(|_| Err(std::io::Error::other("disk on fire")));
    let message = failing.err().unwrap().to_string();
    assert!(
        message.contains("tokenizer.json") && message.contains("disk on fire"),
        "{message}"
    );
}

#[test]
fn the_vocabulary_answers() {
    let text = with_template(&byte_level(), "");
    let tokenizer = text.tokenizer();
    let ids = tokenizer.encode(" he é<s>", false).unwrap();
    assert_eq!(tokenizer.decode(&ids, false), " he é<s>");
    assert_eq!(tokenizer.decode(&ids, true), " he é");
    assert_eq!(tokenizer.token_bytes(ids[0]), b" he");
    assert_eq!(tokenizer.token(ids[0]).as_deref(), Some("Ġhe"));
    assert_eq!(tokenizer.token_text(ids[0]), " he");
    assert_eq!(tokenizer.token_bytes(0xC3), [0xC3]);
    assert_eq!(tokenizer.token_text(0xC3), "\u{FFFD}");
    assert_eq!(tokenizer.id("<s>"), ids.last().copied());
    assert_eq!(tokenizer.eos_token_id(), tokenizer.id("</s>"));
    assert_eq!(tokenizer.vocab_size(), 256 + 4 + 6);
    assert_eq!(tokenizer.token(tokenizer.vocab_size() as u32), None);
    for byte in 0..=255u8 {
        assert_eq!(tokenizer.token_bytes(u32::from(byte)), [byte]);
    }

    let text = with_template(&byte_fallback(false), "");
    let tokenizer = text.tokenizer();
    let id = |token: &str| tokenizer.id(token).unwrap();
    assert_eq!(tokenizer.token_bytes(id("▁he")), b" he");
    assert_eq!(tokenizer.token_bytes(id("<0xF0>")), [0xF0]);
    assert_eq!(tokenizer.token_bytes(id("<s>")), b"<s>");
}

#[test]
fn breakers_are_the_tokens_that_texts_end_with() {
    let text = open(&[("tokenizer.json", byte_level().to_string())]).unwrap();
    let breakers = text
        .tokenizer()
        .dry_breakers(&["\n", "", "he", "xi", ":"])
        .unwrap();
    let token = |text: &str| text.as_bytes()[text.len() - 1];
    let he = text.tokenizer().id("he").unwrap();
    // The alphabet of bytes is the first 256 tokens.
    assert_eq!(
        breakers,
        [token("\n").into(), he, token("i").into(), token(":").into()]
    );
}

#[test]
fn truncation_in_the_file_is_not_applied() {
    let mut file = byte_level();
    file["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
    let text = with_template(&file, "");
    assert_eq!(text.tokenizer().encode("abcd", false).unwrap().len(), 4);
}
