//! The model's tokens as bytes, in the trie that masks are computed over.
//!
//! Invariants: what the decoder makes of ordinary tokens is their bytes, joined; a token that text must not
//! spell (a control token, an end of sequence, an id that the tokenizer lacks) has no bytes, so no text matches
//! it; token ids are those of the model's logits.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::api::ParserLimits;
use llguidance::earley::SlicedBiasComputer;
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{ParserFactory, TokenParser, api::TopLevelGrammar};

use super::limits;
use super::{FormError, refine};
use crate::text::Tokenizer;

/// Tokens that are decoded in pairs to see whether the decoder joins bytes.
const PROBES: usize = 256;
/// The longest token that the trie takes, in bytes.
const LONGEST: usize = 1000;
/// Token ids that the trie can number.
const MOST_IDS: usize = 1 << 21;

/// The tokens of one model.
pub(super) struct Vocabulary {
    factory: ParserFactory,
}

impl Vocabulary {
    /// The tokens of `tokenizer` for logits of `vocab_size` places; `eos_ids` end an answer.
    pub fn new(
        tokenizer: &Tokenizer,
        vocab_size: usize,
        eos_ids: &[u32],
    ) -> Result<Self, FormError> {
        if vocab_size == 0 || vocab_size > MOST_IDS {
            return Err(FormError::tokenizer(format!(
                "a vocabulary of {vocab_size} tokens is outside 1 to {MOST_IDS}"
            )));
        }
        let words: Vec<Vec<u8>> = (0..vocab_size as u32)
            .map(|id| word(tokenizer, id, eos_ids))
            .collect();
        check_decoder(tokenizer, &words)?;
        let eos: Vec<u32> = eos_ids
            .iter()
            .copied()
            .filter(|&id| (id as usize) < vocab_size)
            .collect();
        Self::from_words(&words, &eos)
    }

    /// From the bytes of each token; `eos` are ids below the number of words.
    pub fn from_words(words: &[Vec<u8>], eos: &[u32]) -> Result<Self, FormError> {
        catch_unwind(AssertUnwindSafe(|| {
            let first = eos.first().copied().unwrap_or(INVALID_TOKEN);
            let mut trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, first), words);
            if !eos.is_empty() {
                trie = trie.with_eos_tokens(eos);
            }
            let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let slices = SlicedBiasComputer::json_slices();
            let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)?;
            factory.quiet();
            *factory.limits_mut() = ParserLimits {
                max_items_in_row: limits::ITEMS_IN_ROW,
                initial_lexer_fuel: limits::COMPILE_FUEL,
                step_lexer_fuel: limits::STEP_FUEL,
                step_max_items: limits::STEP_ITEMS,
                max_lexer_states: limits::LEXER_STATES,
                max_grammar_size: limits::GRAMMAR_SYMBOLS,
                precompute_large_lexemes: true,
                verbose_errors: false,
            };
            Ok(Self { factory })
        }))
        .map_err(|e| FormError::tokenizer(format!("its tokens make no trie: {}", refine(&e))))
    }

    /// The parser of a grammar, at the start of an answer.
    pub fn parser(&self, grammar: TopLevelGrammar) -> Result<TokenParser, String> {
        self.factory.create_parser(grammar).map_err(|e| refine(&e))
    }
}

/// The bytes that stand for `id` in text; none if text must not spell it.
fn word(tokenizer: &Tokenizer, id: u32, eos_ids: &[u32]) -> Vec<u8> {
    if tokenizer.is_special(id) || eos_ids.contains(&id) {
        return Vec::new();
    }
    let bytes = tokenizer.token_bytes(id);
    // The trie marks control tokens by 0xFF, which no UTF-8 text has.
    if bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER) || bytes.len() > LONGEST {
        return Vec::new();
    }
    bytes
}

/// Decodes some tokens in pairs and compares with their bytes: a decoder that puts spaces between tokens, or
/// changes them otherwise, would turn an answer of the right form into one of another.
fn check_decoder(tokenizer: &Tokenizer, words: &[Vec<u8>]) -> Result<(), FormError> {
    let texts: Vec<(u32, &str)> = words
        .iter()
        .enumerate()
        .filter_map(|(id, word)| {
            let id = id as u32;
            let text = std::str::from_utf8(word).ok().filter(|t| !t.is_empty())?;
            (!tokenizer.is_fallback_byte(id)).then_some((id, text))
        })
        .collect();
    let solid = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric());
    let Some(&(guard, before)) = texts.iter().find(|(_, text)| solid(text)) else {
        return Err(FormError::tokenizer(
            "none of its tokens is a letter or a digit".into(),
        ));
    };
    let probes: Vec<_> = texts
        .iter()
        .step_by(texts.len().div_ceil(PROBES).max(1))
        .collect();
    for pair in probes.windows(2) {
        let [(a, first), (b, second)] = pair else {
            continue;
        };
        let decoded = tokenizer.decode(&[guard, *a, *b], true);
        let joined = format!("{before}{first}{second}");
        if decoded != joined {
            return Err(FormError::tokenizer(format!(
                "its tokens have no text of their own: {before:?}, {first:?} and {second:?} decode to {decoded:?}"
            )));
        }
    }
    Ok(())
}
