//! The model's tokenizer: `tokenizer.json` as the `tokenizers` crate runs it.
//!
//! Invariants: truncation and padding that a tokenizer file may carry are switched off, so `encode` never drops or adds
//! tokens; ids that the vocabulary lacks decode to nothing.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value as Json;

use super::TextError;

/// How the vocabulary spells bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's alphabet: one character a byte.
    ByteLevel,
    /// Plain text with `▁` for a space and `<0xNN>` for a byte.
    Sentencepiece,
    /// Plain text.
    Plain,
}

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    spelling: Spelling,
    byte_fallback: bool,
    joins_bytes: bool,
    prepends_space: bool,
    special_ids: HashSet<u32>,
    special_tokens: Vec<String>,
    vocab_size: usize,
    eos_token_id: Option<u32>,
}

/// A tokenizer; cheap to clone and shared between threads.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

impl Tokenizer {
    /// Parses the bytes of `tokenizer.json`; `eos_token` is the one that `tokenizer_config.json` names.
    pub(super) fn new(bytes: &[u8], eos_token: Option<&str>) -> Result<Tokenizer, TextError> {
        let broken = |reason: String| TextError::File {
            file: "tokenizer.json".to_owned(),
            reason,
        };
        let mut tokenizer =
            tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| broken(e.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|e| broken(e.to_string()))?;

        let types = decoder_types(&tokenizer);
        let spelling = if types.contains("ByteLevel") {
            Spelling::ByteLevel
        } else if types.contains("Metaspace") || types.contains("Replace") {
            Spelling::Sentencepiece
        } else {
            Spelling::Plain
        };
        let byte_fallback = types.contains("ByteFallback");
        let joins_bytes = types.len() == 1 && spelling == Spelling::ByteLevel;

        let added = tokenizer.get_added_tokens_decoder();
        let mut special_ids = HashSet::new();
        let mut special_tokens = Vec::new();
        for (id, token) in &added {
            if token.special && !token.content.is_empty() {
                special_ids.insert(*id);
                special_tokens.push(token.content.clone());
            }
        }
        special_tokens.sort();
        let vocab_size = tokenizer
            .get_vocab(true)
            .values()
            .max()
            .map_or(0, |&id| id as usize + 1);
        let eos_token_id = eos_token.and_then(|token| tokenizer.token_to_id(token));
        let prepends_space = tokenizer
            .encode_fast("a", false)
            .ok()
            .and_then(|encoding| tokenizer.id_to_token(*encoding.get_ids().first()?))
            .is_some_and(|token| token.starts_with(['▁', 'Ġ']));
        Ok(Tokenizer {
            inner: Arc::new(Inner {
                tokenizer,
                spelling,
                byte_fallback,
                joins_bytes,
                prepends_space,
                special_ids,
                special_tokens,
                vocab_size,
                eos_token_id,
            }),
        })
    }

    /// Tokenizes `text`; `add_special_tokens` adds what the tokenizer puts around a text, such as a leading BOS.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        self.inner
            .tokenizer
            .encode_fast(text, add_special_tokens)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|e| TextError::Encode {
                reason: e.to_string(),
            })
    }

    /// Tokenizes a text that continues another one: no space is put before it, no special token around it.
    pub(super) fn encode_continuation(&self, text: &str) -> Result<Vec<u32>, TextError> {
        if self.inner.prepends_space {
            // The space goes to what stands first, so let something else stand first and take it away again; a guard
            // that merged with the text shows by its ids.
            for guard in ["\n", "0", "a"] {
                let guard_ids = self.encode(guard, false)?;
                let ids = self.encode(&format!("{guard}{text}"), false)?;
                if let Some(rest) = ids.strip_prefix(&guard_ids[..]) {
                    return Ok(rest.to_vec());
                }
            }
        }
        self.encode(text, false)
    }

    /// The text of `ids`; ids that the vocabulary lacks are left out.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        self.inner
            .tokenizer
            .decode(ids, skip_special_tokens)
            .unwrap_or_default()
    }

    /// The vocabulary's own spelling of `id`.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }

    /// The text of this one token, with U+FFFD where it holds part of a character; empty for an unknown id.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.token_bytes(id)).into_owned()
    }

    /// The bytes that this one token stands for, a leading space included; empty for an unknown id.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        match self.token(id) {
            Some(token) => self.bytes_of(token),
            None => Vec::new(),
        }
    }

    /// The bytes that a token of this spelling stands for.
    pub(super) fn bytes_of(&self, token: String) -> Vec<u8> {
        // Decoders treat added tokens like all others, so that a tokenizer may add runs of `▁`.
        match self.inner.spelling {
            Spelling::ByteLevel => {
                let bytes: Option<Vec<u8>> = token.chars().map(byte_of_char).collect();
                bytes.unwrap_or_else(|| token.into_bytes())
            }
            Spelling::Sentencepiece => match self.fallback_byte(&token) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            },
            Spelling::Plain => token.into_bytes(),
        }
    }

    /// The id of a token in the vocabulary's own spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// The id of the `eos_token` of `tokenizer_config.json`.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.inner.eos_token_id
    }

    /// Whether `id` is an added token marked special, a control token.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special_ids.contains(&id)
    }

    /// The added tokens marked special, sorted.
    pub(super) fn special_tokens(&self) -> &[String] {
        &self.inner.special_tokens
    }

    /// Whether decoding skips a token of this spelling.
    pub(super) fn is_special_spelling(&self, token: &str) -> bool {
        self.inner
            .tokenizer
            .get_added_vocabulary()
            .is_special_token(token)
    }

    /// Whether a text is its tokens' bytes put together, and nothing else is done to it.
    pub(super) fn joins_bytes(&self) -> bool {
        self.inner.joins_bytes
    }

    pub(super) fn spelling(&self) -> Spelling {
        self.inner.spelling
    }

    /// Whether `id` stands for one byte of a run that only the whole run can decode.
    pub(super) fn is_fallback_byte(&self, id: u32) -> bool {
        self.inner.byte_fallback
            && self
                .token(id)
                .is_some_and(|token| self.fallback_byte(&token).is_some())
    }

    fn fallback_byte(&self, token: &str) -> Option<u8> {
        if !self.inner.byte_fallback {
            return None;
        }
        let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
        (digits.len() == 2)
            .then(|| u8::from_str_radix(digits, 16).ok())
            .flatten()
    }
}

/// The byte that a character of GPT-2's alphabet stands for: printable Latin-1 stands for itself, the other 68 bytes
/// follow from U+0100 on.
fn byte_of_char(c: char) -> Option<u8> {
    let code = u32::from(c);
    let printable = |b: u32| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    match code {
        0..0x100 => printable(code).then_some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121) as u8 + 0x7F),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// The `type` of each decoder step.
fn decoder_types(tokenizer: &tokenizers::Tokenizer) -> HashSet<String> {
    fn collect(value: &Json, types: &mut HashSet<String>) {
        match value {
            Json::Object(map) => {
                if let Some(Json::String(name)) = map.get("type") {
                    types.insert(name.clone());
                }
                map.values().for_each(|inner| collect(inner, types));
            }
            Json::Array(items) => items.iter().for_each(|inner| collect(inner, types)),
            _ => {}
        }
    }
    let mut types = HashSet::new();
    if let Some(decoder) = tokenizer.get_decoder()
        && let Ok(json) = serde_json::to_value(decoder)
    {
        collect(&json, &mut types);
    }
    types
}
