//! A tokenizer for checkpoints with random weights: a token for each byte, three special ones, and
//! made-up words for all further ids, so that whatever such a model draws has a text.
//!
//! Text is encoded byte by byte: a prompt of n ASCII characters has n tokens.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::checkpoint::CheckpointError;
use crate::checkpoint::write::{write_file, write_json};

/// The id of the token that ends an answer; the two of the chat template follow.
pub const END: usize = 256;
/// The fewest tokens of a vocabulary: bytes and special tokens.
pub const LEAST: usize = END + SPECIAL.len();

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
                        {{ message.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Writes tokenizer.json and tokenizer_config.json for `vocab` tokens, at least [`LEAST`].
///
/// # Errors
/// What the system says.
pub fn write(directory: &Path, vocab: usize) -> Result<(), CheckpointError> {
    let mut ids: Map<String, Value> = (0..=255u8)
        .map(|byte| (spelled(byte).to_string(), json!(byte)))
        .collect();
    ids.extend(
        (END..)
            .zip(SPECIAL)
            .map(|(id, token)| (token.to_owned(), json!(id))),
    );
    ids.extend((LEAST..vocab).map(|id| (word(id), json!(id))));
    let added = SPECIAL.iter().enumerate().map(|(i, token)| {
        json!({
            "id": END + i,
            "content": token,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": true,
        })
    });
    let byte_level = json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": false,
    });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": ids,
            "merges": [],
        },
    });
    write_file(
        directory,
        "tokenizer.json",
        tokenizer.to_string().as_bytes(),
    )?;
    let settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIAL[0],
        "bos_token": null,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 1_000_000,
    });
    write_json(directory, "tokenizer_config.json", &settings)
}

/// The character that stands for a byte in GPT-2's alphabet: itself where it can be printed.
fn spelled(byte: u8) -> char {
    let printed = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    match printed(&byte) {
        true => char::from(byte),
        false => {
            let before = (0..byte).filter(|byte| !printed(byte)).count() as u32;
            char::from_u32(256 + before).unwrap_or(' ')
        }
    }
}

/// A word of two letters or more that no other id has, with a space before it.
fn word(id: usize) -> String {
    let mut word = String::from("Ġ");
    let mut rest = id;
    while rest > 0 {
        word.push(char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    #[test]
    fn bytes_go_in_and_every_id_comes_out() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 2000).unwrap();
        let read =
            |file: &str| crate::checkpoint::Source::Directory(folder.path().into()).read(file);
        let text = Text::open(read).unwrap();
        let tokenizer = text.tokenizer();
        assert_eq!(tokenizer.vocab_size(), 2000);
        assert_eq!(tokenizer.eos_token_id(), Some(END as u32));
        let said = "Hello, wörld\n\u{0} ab";
        let ids = tokenizer.encode(said, true).unwrap();
        let bytes: Vec<u32> = said.bytes().map(u32::from).collect();
        assert_eq!(ids, bytes);
        assert!(text.has_template());
        let mut words: Vec<String> = (LEAST..2000).map(word).collect();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), 2000 - LEAST);
        assert!(words.iter().all(|word| word.len() >= 4));
    }
}
