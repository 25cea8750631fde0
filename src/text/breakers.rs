//! Texts at which a repetition ends, as token ids.

use super::{TextError, Tokenizer};

/// Where the DRY sampler's author ends repetitions: at lines, and at the marks of lists and dialogue.
pub const DRY_SEQUENCE_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

impl Tokenizer {
    /// The tokens that these texts end with when they follow a letter, as DRY's reference takes them
    /// (p-e-w, oobabooga/text-generation-webui pull request 5677, 2024); empty texts have none.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn dry_breakers<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<u32>, TextError> {
        let texts = texts.iter().map(T::as_ref).filter(|text| !text.is_empty());
        let last = |text: &str| Ok(self.encode(&format!("a{text}"), false)?.last().copied());
        texts.filter_map(|text| last(text).transpose()).collect()
    }
}
