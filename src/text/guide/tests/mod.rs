//! Forms over the tokenizers of tests and of the shipped model.

mod grammars;
mod hostile;
mod schemas;
mod tokens;

use std::sync::LazyLock;

use serde_json::Value;

use super::{Constraint, FormError, FormErrorKind, Forms};
use crate::sample::{Allowed, Form};
use crate::text::tests::{byte_fallback, byte_level, with_template};
use crate::text::{Text, Tokenizer};

/// A tokenizer, and the forms of a model that has it.
struct Model {
    name: &'static str,
    tokenizer: Tokenizer,
    /// The text of each token.
    texts: Vec<String>,
    eos: u32,
    forms: Forms,
}

/// Rows of a model beyond its tokenizer's ids, as padded embeddings have them.
const PADDING: usize = 77;

impl Model {
    fn new(name: &'static str, text: &Text, eos: &str) -> Self {
        let tokenizer = text.tokenizer().clone();
        let eos = tokenizer.id(eos).unwrap();
        let forms = Forms::new(&tokenizer, tokenizer.vocab_size() + PADDING, &[eos]);
        let texts = (0..tokenizer.vocab_size() as u32)
            .map(|id| tokenizer.token_text(id))
            .collect();
        Self {
            name,
            tokenizer,
            texts,
            eos,
            forms,
        }
    }

    /// Waits for its turn: tests run at the same time.
    fn compile(&self, constraint: &Constraint) -> Result<Form, FormError> {
        loop {
            match self.forms.compile(constraint) {
                Err(e) if e.kind == FormErrorKind::Busy => std::thread::yield_now(),
                compiled => return compiled,
            }
        }
    }
}

fn shipped() -> Text {
    let file: Value = serde_json::from_str(include_str!(
        "../../../../models/pensieve-tiny/tokenizer.json"
    ))
    .unwrap();
    with_template(&file, "")
}

static MODELS: LazyLock<[Model; 4]> = LazyLock::new(|| {
    [
        Model::new("bytes", &with_template(&byte_level(), ""), "</s>"),
        Model::new(
            "fallback",
            &with_template(&byte_fallback(false), ""),
            "</s>",
        ),
        Model::new(
            "metaspace",
            &with_template(&byte_fallback(true), ""),
            "</s>",
        ),
        Model::new("shipped", &shipped(), "<|im_end|>"),
    ]
});

/// Numbers that repeat with their seed (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

/// The ids of a mask.
fn ids(mask: &[u32]) -> Vec<u32> {
    let mut ids = Vec::new();
    for (n, word) in (0..).zip(mask) {
        let mut left = *word;
        while left != 0 {
            ids.push(n * 32 + left.trailing_zeros());
            left &= left - 1;
        }
    }
    ids
}

/// What a walk prefers among the tokens that are allowed.
type Taste<'a> = &'a dyn Fn(&str) -> u32;

/// Draws tokens until the form is complete; the ids, without the one that ends the answer.
///
/// The first tokens are drawn freely, later ones are those that close what is open.
fn walk(model: &Model, form: &Form, seed: u64, free: usize) -> Vec<u32> {
    walk_with(
        model,
        form,
        seed,
        free,
        &|text| match text.as_bytes().first() {
            Some(b'"') if text.len() == 1 => 3,
            Some(b'{' | b'[' | b'\\') => 0,
            Some(b) if b.is_ascii_punctuation() || b.is_ascii_digit() => 2,
            _ => 0,
        },
    )
}

fn walk_with(model: &Model, form: &Form, seed: u64, free: usize, taste: Taste) -> Vec<u32> {
    let mut random = Random::new(seed);
    let mut guide = form.start().unwrap();
    let mut drawn = Vec::new();
    for step in 0..4000 {
        let mask = match guide.allowed().unwrap() {
            Allowed::Nothing => return drawn,
            Allowed::Any => panic!("a form allows not everything"),
            Allowed::These(mask) => mask,
        };
        let rows = model.tokenizer.vocab_size() + PADDING;
        assert_eq!(mask.len(), rows.div_ceil(32));
        let mut allowed = ids(&mask);
        assert!(!allowed.is_empty(), "an empty mask after {drawn:?}");
        let ends = allowed.contains(&model.eos);
        if ends && (step >= free || random.below(8) == 0) {
            guide.accept(model.eos).unwrap();
            assert_eq!(guide.allowed(), Ok(Allowed::Nothing));
            return drawn;
        }
        allowed.retain(|&id| id != model.eos);
        if step >= free && !allowed.is_empty() && random.below(10) > 0 {
            let score = |id: &u32| taste(&model.texts[*id as usize]);
            let best = allowed.iter().map(score).max().unwrap();
            allowed.retain(|id| score(id) == best);
        }
        if allowed.is_empty() {
            continue; // Only the end was left; the next round takes it.
        }
        let id = allowed[random.below(allowed.len())];
        assert!((id as usize) < model.tokenizer.vocab_size(), "{id}");
        guide
            .accept(id)
            .unwrap_or_else(|e| panic!("{id} was allowed: {e}"));
        drawn.push(id);
    }
    panic!(
        "no end in 4000 tokens: {:?}",
        model.tokenizer.decode(&drawn, true)
    );
}

/// The text of a walk, which decoding gives as the tokens' bytes do.
fn text(model: &Model, ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids
        .iter()
        .flat_map(|&id| model.tokenizer.token_bytes(id))
        .collect();
    let text = String::from_utf8(bytes).expect("an answer is UTF-8");
    let decoded = model.tokenizer.decode(ids, true);
    let first = text.strip_prefix(' ').unwrap_or(&text);
    assert!(
        decoded == text || decoded == first,
        "{decoded:?} is not {text:?}"
    );
    text
}

fn compile(constraint: &Constraint) -> Result<Form, FormError> {
    MODELS[3].compile(constraint)
}
