//! The trie has each token's bytes, and nothing that text must not spell.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::super::{Constraint, FormErrorKind, Forms};
use super::{MODELS, ids, shipped};
use crate::sample::{Allowed, Form};
use crate::text::tests::{added, byte_fallback, byte_level, with_template, word_piece};
use crate::text::{Text, Tokenizer};

fn first_mask(form: &Form) -> Vec<u32> {
    match form.start().unwrap().allowed().unwrap() {
        Allowed::These(mask) => ids(&mask),
        Allowed::Nothing => Vec::new(),
        Allowed::Any => panic!("a form allows not everything"),
    }
}

fn joined(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<u8> {
    ids.iter()
        .flat_map(|&id| tokenizer.token_bytes(id))
        .collect()
}

/// The decoder's text is that of the bytes; it may drop one space at the beginning.
fn same(tokenizer: &Tokenizer, ids: &[u32]) -> Result<(), TestCaseError> {
    let Ok(text) = String::from_utf8(joined(tokenizer, ids)) else {
        return Ok(());
    };
    let decoded = tokenizer.decode(ids, false);
    let first = text.strip_prefix(' ').unwrap_or(&text);
    prop_assert!(
        decoded == text || decoded == first,
        "{decoded:?} is not {text:?}: {ids:?}"
    );
    Ok(())
}

static SHIPPED: LazyLock<Text> = LazyLock::new(shipped);

proptest! {
    #[test]
    fn bytes_are_what_decoding_gives(ids in prop::collection::vec(0u32..4096, 0..40)) {
        same(SHIPPED.tokenizer(), &ids)?;
        for model in &MODELS[..3] {
            let size = model.tokenizer.vocab_size() as u32;
            let ids: Vec<u32> = ids.iter().map(|id| id % size).collect();
            same(&model.tokenizer, &ids)?;
        }
    }

    #[test]
    fn any_text_is_spelled_by_its_tokens(text in "\\PC{0,40}") {
        for (model, spaces) in MODELS.iter().zip([false, true, true, false]) {
            let ids = model.tokenizer.encode(&text, false).unwrap();
            let bytes = joined(&model.tokenizer, &ids);
            let expected = match spaces && !text.is_empty() {
                true => format!(" {text}"),
                false => text.clone(),
            };
            let bytes = String::from_utf8(bytes).unwrap();
            // Text of control tokens is theirs; a metaspace merges with a space that is there.
            prop_assert!(bytes == expected || bytes == text, "{:?} is not {:?}", bytes, text);
        }
    }
}

#[test]
fn added_tokens_are_decoded_like_others() {
    let mut file = byte_fallback(false);
    let id = file["model"]["vocab"].as_object().unwrap().len();
    file["added_tokens"]
        .as_array_mut()
        .unwrap()
        .push(added(id, "▁▁▁", false));
    let text = with_template(&file, "");
    let tokenizer = text.tokenizer();
    assert_eq!(tokenizer.token_bytes(id as u32), b"   ");
    let he = tokenizer.id("he").unwrap();
    assert_eq!(tokenizer.decode(&[he, id as u32, he], false), "he   he");
}

#[test]
fn all_spellings_of_a_byte_are_allowed() {
    let model = &MODELS[1];
    let form = model.compile(&Constraint::Regex("h".into())).unwrap();
    let id = |token| model.tokenizer.id(token).unwrap();
    let mut both = [id("h"), id("<0x68>")];
    both.sort_unstable();
    assert_eq!(first_mask(&form), both);
    let form = model.compile(&Constraint::Regex(" he?".into())).unwrap();
    let mask = first_mask(&form);
    for token in ["▁", "▁he", "<0x20>"] {
        assert!(mask.contains(&id(token)), "{token}");
    }
}

#[test]
fn text_spells_no_control_token() {
    for model in &*MODELS {
        let form = model.compile(&Constraint::Regex("(?s:.*)".into())).unwrap();
        let mask = first_mask(&form);
        for id in 0..model.tokenizer.vocab_size() as u32 {
            if model.tokenizer.is_special(id) {
                assert_eq!(
                    mask.contains(&id),
                    id == model.eos,
                    "{id} of {}",
                    model.name
                );
            }
        }
        // A lone byte that no UTF-8 has.
        let never = (0..model.tokenizer.vocab_size() as u32)
            .find(|&id| model.tokenizer.token_bytes(id) == [0xFF]);
        assert!(never.is_none_or(|id| !mask.contains(&id)), "{}", model.name);
        assert!(mask.len() > 150, "{}", model.name);
    }
}

#[test]
fn an_end_of_sequence_that_is_no_special_token_is_not_text() {
    let mut file = byte_level();
    let id = file["added_tokens"].as_array().unwrap().len() + 260;
    file["added_tokens"]
        .as_array_mut()
        .unwrap()
        .push(added(id, "END", false));
    let text = with_template(&file, "");
    let end = text.tokenizer().id("END").unwrap();
    let forms = Forms::new(text.tokenizer(), text.tokenizer().vocab_size(), &[end]);
    let form = forms
        .compile(&Constraint::Regex("[A-Z]{3}".into()))
        .unwrap();
    assert!(!first_mask(&form).contains(&end));
}

#[test]
fn several_tokens_may_end_an_answer() {
    let text = shipped();
    let eos = [2, 0];
    let forms = Forms::new(text.tokenizer(), 4096, &eos);
    let form = forms.compile(&Constraint::Regex("a*".into())).unwrap();
    let mask = first_mask(&form);
    assert!(mask.contains(&0) && mask.contains(&2) && !mask.contains(&1));
    let mut guide = form.start().unwrap();
    guide.accept(0).unwrap();
    assert_eq!(guide.allowed(), Ok(Allowed::Nothing));
    assert!(guide.accept(2).is_err());
}

#[test]
fn without_an_end_of_sequence_forms_end_where_nothing_follows() {
    let text = shipped();
    let forms = Forms::new(text.tokenizer(), 4096, &[]);
    let form = forms
        .compile(&Constraint::Choice(vec!["a".into()]))
        .unwrap();
    let mut guide = form.start().unwrap();
    let a = text.tokenizer().id("a").unwrap();
    guide.accept(a).unwrap();
    assert_eq!(guide.allowed(), Ok(Allowed::Nothing));
}

#[test]
fn a_model_may_have_fewer_rows_than_its_tokenizer() {
    let text = shipped();
    let forms = Forms::new(text.tokenizer(), 300, &[2, 4000]);
    let form = forms.compile(&Constraint::Regex("(?s:.*)".into())).unwrap();
    let Allowed::These(mask) = form.start().unwrap().allowed().unwrap() else {
        panic!("something must come");
    };
    assert_eq!(mask.len(), 10);
    assert!(ids(&mask).iter().all(|&id| id < 300));
}

#[test]
fn a_token_that_does_not_fit_is_refused() {
    let model = &MODELS[0];
    let form = model
        .compile(&Constraint::Choice(vec!["ab".into()]))
        .unwrap();
    let mut guide = form.start().unwrap();
    let message = guide.accept(u32::from(b'b')).unwrap_err();
    assert!(
        message.contains("98") && message.contains("form"),
        "{message}"
    );
    let mut guide = form.start().unwrap();
    assert!(guide.accept(model.eos).is_err(), "too early");
    let mut guide = form.start().unwrap();
    assert!(guide.accept(1_000_000).is_err());
}

#[test]
fn tokens_without_a_text_of_their_own_are_refused() {
    let text = with_template(&word_piece(), "");
    let forms = Forms::new(text.tokenizer(), text.tokenizer().vocab_size(), &[]);
    let error = forms.compile(&Constraint::JsonObject).err().unwrap();
    assert_eq!(error.kind, FormErrorKind::Tokenizer);
    assert!(error.reason.contains("tokenizer.json"), "{error}");
    let mut file = byte_level();
    file["decoder"] = json!(null);
    let text = with_template(&file, "");
    let forms = Forms::new(text.tokenizer(), text.tokenizer().vocab_size(), &[]);
    let error = forms.compile(&Constraint::JsonObject).err().unwrap();
    assert_eq!(error.kind, FormErrorKind::Tokenizer);
}
