//! Structured output over a vocabulary of 128 thousand tokens: compiling forms, and the masks of answers.
//!
//!     cargo bench --bench forms

use std::collections::BTreeSet;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pensieve::sample::{Allowed, Form};
use pensieve::text::Text;
use pensieve::text::guide::{Constraint, Forms};
use serde_json::{Map, Value, json};

const VOCABULARY: usize = 128_256;
const EOS: u32 = VOCABULARY as u32 - 1;

/// A byte-level tokenizer whose words are made up, of lengths as in Llama 3's: one to about ten characters, half of
/// them after a space, and JSON's marks in runs.
fn tokenizer() -> Text {
    let mut seed = 1u64;
    let mut below = move |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 33) as usize % n
    };
    // GPT-2's alphabet: printable bytes stand for themselves, the others follow from U+0100 on.
    let mut next = 0x100;
    let mut words: Vec<String> = Vec::with_capacity(VOCABULARY);
    for byte in 0..0x100u32 {
        let code = match byte {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => byte,
            _ => {
                next += 1;
                next - 1
            }
        };
        words.extend(char::from_u32(code).map(String::from));
    }
    let mut known: BTreeSet<String> = words.iter().cloned().collect();
    let letters: Vec<char> = "etaoinshrdlucmfwypvbgkjqxzETAOINSHRDLUCM0123456789"
        .chars()
        .collect();
    let marks: Vec<char> = "\"{}[],:_-./\\".chars().collect();
    while words.len() < VOCABULARY - 1 {
        let kind = below(16);
        let from = if kind == 0 { &marks } else { &letters };
        let mut word: String = (0..1 + below(4) + below(6))
            .map(|_| from[below(from.len())])
            .collect();
        if kind % 2 == 1 {
            word.insert(0, 'Ġ');
        }
        if known.insert(word.clone()) {
            words.push(word);
        }
    }
    let vocab: Map<String, Value> = words
        .into_iter()
        .enumerate()
        .map(|(id, word)| (word, json!(id)))
        .collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": EOS, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    let file = file.to_string();
    Text::open(|name| Ok((name == "tokenizer.json").then(|| file.clone().into_bytes())))
        .expect("a tokenizer")
}

/// An answer of up to `steps` tokens, each somewhere among those allowed.
fn answer(form: &Form, steps: usize) -> Vec<u32> {
    let mut guide = form.start().expect("a guide");
    let mut ids = Vec::new();
    for step in 0..steps {
        let Ok(Allowed::These(mask)) = guide.allowed() else {
            break;
        };
        let is_set = |id: &u32| mask[*id as usize / 32] >> (id % 32) & 1 == 1;
        let allowed: Vec<u32> = (0..EOS).filter(is_set).collect();
        let Some(&id) = allowed.get(step.wrapping_mul(7919) % allowed.len().max(1)) else {
            break;
        };
        guide.accept(id).expect("an allowed token");
        ids.push(id);
    }
    ids
}

/// Computes the mask before each token of an answer.
fn masks(form: &Form, ids: &[u32]) {
    let mut guide = form.start().expect("a guide");
    for &id in ids {
        black_box(guide.allowed()).expect("a mask");
        guide.accept(id).expect("an allowed token");
    }
}

fn forms(c: &mut Criterion) {
    let text = tokenizer();
    let object = json!({"type": "object", "properties": {
        "title": {"type": "string"}, "year": {"type": "integer", "minimum": 1900, "maximum": 2100},
        "tags": {"type": "array", "items": {"type": "string"}},
        "kind": {"enum": ["book", "film", "song"]}}, "required": ["title", "year", "tags", "kind"],
        "additionalProperties": false});
    let constraints = [
        ("schema", Constraint::JsonSchema(object.clone())),
        ("object", Constraint::JsonObject),
        ("regex", Constraint::Regex(r"[A-Z][a-z]+(, [A-Za-z0-9 ]+)*\.".into())),
        ("grammar", Constraint::Lark("start: sum\nsum: atom (/ ?[-+*] ?/ atom)*\natom: /[0-9]+/ | \"(\" sum \")\" | /[a-z_]+/".into())),
    ];
    let forms = Forms::new(text.tokenizer(), VOCABULARY, &[EOS]);
    let mut group = c.benchmark_group("forms over 128k tokens");
    group.sample_size(20);
    for (name, constraint) in &constraints {
        let form = forms.compile(constraint).expect("a form");
        let ids = answer(&form, 100);
        group.throughput(Throughput::Elements(ids.len() as u64));
        group.bench_function(format!("{name}: masks of an answer"), |b| {
            b.iter(|| masks(&form, &ids));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{name}: start"), |b| b.iter(|| form.start()));
    }
    let mut n = 0;
    group.bench_function("compile a schema", |b| {
        b.iter(|| {
            // Another one each time, since the same would be kept.
            n += 1;
            let mut schema = object.clone();
            schema["properties"]["year"]["maximum"] = json!(2100 + n);
            forms.compile(&Constraint::JsonSchema(schema))
        });
    });
    group.finish();
}

criterion_group!(benches, forms);
criterion_main!(benches);
