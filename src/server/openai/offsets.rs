//! Where tokens start in a text, in characters: the legacy API's `text_offset`.

use crate::text::Tokenizer;

/// Counts the characters that a sequence of tokens' bytes has completed. A byte that belongs to no
/// character counts as one, as it is shown as U+FFFD.
#[derive(Clone, Debug, Default)]
pub struct Characters {
    complete: usize,
    partial: Vec<u8>,
}

impl Characters {
    /// A count that starts after `complete` characters.
    pub fn from(complete: usize) -> Self {
        let partial = Vec::new();
        Self { complete, partial }
    }

    /// Characters completed so far; the next byte belongs to the one after them.
    pub fn complete(&self) -> usize {
        self.complete
    }

    /// Takes a token's bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        loop {
            let (valid, wrong) = match std::str::from_utf8(&self.partial) {
                Ok(text) => (text.len(), 0),
                Err(error) => (error.valid_up_to(), error.error_len().unwrap_or(0)),
            };
            let text = std::str::from_utf8(&self.partial[..valid]).unwrap_or_default();
            self.complete += text.chars().count() + wrong.min(1);
            self.partial.drain(..valid + wrong);
            if wrong == 0 {
                return;
            }
        }
    }
}

/// The character at which each token of a prompt starts in the prompt's text.
///
/// Tokens are matched to the text byte for byte. Those that the tokenizer added (a beginning of
/// sequence) take no room; where it normalized the text, offsets are as close as lengths allow.
pub fn of_prompt(tokenizer: &Tokenizer, text: &str, ids: &[u32]) -> Vec<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut characters = Characters::default();
    let mut offsets = Vec::with_capacity(ids.len());
    for &id in ids {
        offsets.push(characters.complete());
        let token = tokenizer.token_bytes(id);
        let rest = &bytes[at..];
        let width = if rest.starts_with(&token) {
            token.len()
        } else if tokenizer.is_special(id) {
            0
        } else if token.first() == Some(&b' ') && rest.starts_with(&token[1..]) {
            // A space that the tokenizer put before the text.
            token.len() - 1
        } else {
            token.len().min(rest.len())
        };
        characters.push(&rest[..width]);
        at += width;
    }
    offsets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Characters;

    #[test]
    fn a_character_in_pieces_counts_when_complete() {
        let mut characters = Characters::from(3);
        let counts: Vec<usize> = "é€"
            .bytes()
            .map(|byte| {
                characters.push(&[byte]);
                characters.complete()
            })
            .collect();
        assert_eq!(counts, [3, 4, 4, 4, 5]);
    }

    #[test]
    fn wrong_bytes_count_as_one_each() {
        let mut characters = Characters::default();
        characters.push(b"a\xffb\xfe");
        assert_eq!(characters.complete(), 4);
    }

    proptest! {
        #[test]
        fn pieces_count_as_the_whole(text in ".*", size in 1usize..5) {
            let mut characters = Characters::default();
            for piece in text.as_bytes().chunks(size) {
                characters.push(piece);
            }
            prop_assert_eq!(characters.complete(), text.chars().count());
        }
    }
}
