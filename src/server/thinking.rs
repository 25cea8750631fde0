//! Reasoning before an answer: how long it may be, and that a form begins only behind it.
//!
//! Both are one guide around the form's own. It follows the text of the tokens that were drawn, as marks
//! of reasoning may be spelled with several tokens. A budget that is used up is enforced by drawing what
//! closes the reasoning, token by token; until then nothing is held back.

use std::collections::VecDeque;
use std::sync::Arc;

use super::App;
use super::ask::Prompt;
use crate::sample::{Allowed, Form, Guide};
use crate::text::{Span, Tokenizer};

/// What all guides of one request share.
struct Rules {
    tokenizer: Tokenizer,
    span: Span,
    /// What opens and what closes, as tokens.
    open: Vec<u32>,
    close: Vec<u32>,
    /// Every token but those that end an answer: one bit each.
    going_on: Vec<u32>,
    /// Tokens of reasoning at most.
    budget: Option<usize>,
    /// What follows it.
    form: Option<Form>,
}

/// The form of a request whose answer may begin with reasoning: `form` behind it, and at most `budget`
/// tokens of it. The form itself if the answer to `prompt` has no place for reasoning.
pub fn around(
    app: &App,
    prompt: &Prompt,
    form: Option<Form>,
    budget: Option<usize>,
) -> Option<Form> {
    if form.is_none() && budget.is_none() {
        return None;
    }
    let Some(span) = app.text.reasoning_span(&prompt.ids) else {
        return form;
    };
    let tokenizer = app.text.tokenizer();
    let encode = |text: &str| tokenizer.encode(text, false).unwrap_or_default();
    let facts = app.engine.facts();
    let mut going_on = vec![u32::MAX; facts.vocab_size.div_ceil(32)];
    for id in &facts.eos_ids {
        if let Some(word) = going_on.get_mut(*id as usize / 32) {
            *word &= !(1 << (id % 32));
        }
    }
    let rules = Arc::new(Rules {
        open: encode(&span.open),
        close: encode(&span.closing),
        tokenizer: tokenizer.clone(),
        span,
        going_on,
        budget,
        form,
    });
    Some(Form::new(move || {
        let inside = rules.span.open.is_empty();
        let inner = match &rules.form {
            Some(form) => Some(form.start()?),
            None => None,
        };
        Ok(Box::new(Thinking {
            place: if inside { Place::Inside } else { Place::Before },
            rules: rules.clone(),
            inner,
            tail: VecDeque::new(),
            spent: 0,
            done: 0,
        }))
    }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing but what opens the reasoning, if anything, was drawn.
    Before,
    Inside,
    /// The budget is used up.
    Closing,
    Behind,
}

struct Thinking {
    rules: Arc<Rules>,
    place: Place,
    inner: Option<Box<dyn Guide>>,
    /// The last bytes, as many as the longer mark has.
    tail: VecDeque<u8>,
    /// Tokens of reasoning.
    spent: usize,
    /// Tokens drawn of what is being opened or closed.
    done: usize,
}

impl Thinking {
    /// Whether the text ends with `mark` once this token is part of it.
    fn completes(&mut self, id: u32, mark: &str) -> bool {
        let most = self.rules.span.open.len().max(self.rules.span.close.len());
        self.tail.extend(self.rules.tokenizer.token_bytes(id));
        while self.tail.len() > most {
            self.tail.pop_front();
        }
        let skipped = self.tail.len().checked_sub(mark.len());
        skipped.is_some_and(|skipped| self.tail.iter().skip(skipped).eq(mark.as_bytes()))
    }

    fn inside(&mut self) {
        self.place = Place::Inside;
        self.tail.clear();
        self.done = 0;
        if self.rules.budget == Some(0) {
            self.place = Place::Closing;
        }
    }

    fn one(&self, id: u32) -> Allowed {
        let mut mask = vec![0; self.rules.going_on.len()];
        if let Some(word) = mask.get_mut(id as usize / 32) {
            *word |= 1 << (id % 32);
        }
        Allowed::These(mask)
    }
}

impl Guide for Thinking {
    fn accept(&mut self, id: u32) -> Result<(), String> {
        let rules = self.rules.clone();
        match self.place {
            Place::Before if self.inner.is_none() => {
                if self.completes(id, &rules.span.open) {
                    self.inside();
                }
            }
            Place::Before => {
                if rules.open.get(self.done) == Some(&id) {
                    self.done += 1;
                    if self.done == rules.open.len() {
                        self.inside();
                    }
                } else {
                    self.place = Place::Behind;
                    return self.accept(id);
                }
            }
            Place::Inside => {
                self.spent += 1;
                if self.completes(id, &rules.span.close) {
                    self.place = Place::Behind;
                } else if rules.budget.is_some_and(|budget| self.spent >= budget) {
                    self.place = Place::Closing;
                }
            }
            Place::Closing => {
                self.done += 1;
                if self.done >= rules.close.len() {
                    self.place = Place::Behind;
                }
            }
            Place::Behind => {
                if let Some(inner) = &mut self.inner {
                    return inner.accept(id);
                }
            }
        }
        Ok(())
    }

    fn allowed(&mut self) -> Result<Allowed, String> {
        let rules = self.rules.clone();
        match (self.place, &mut self.inner) {
            (Place::Before | Place::Inside | Place::Behind, None) => Ok(Allowed::Any),
            (Place::Behind, Some(inner)) => inner.allowed(),
            (Place::Inside, Some(_)) => Ok(Allowed::These(rules.going_on.clone())),
            (Place::Closing, _) => match rules.close.get(self.done) {
                Some(&id) => Ok(self.one(id)),
                None => Err("the mark that closes reasoning has no tokens".into()),
            },
            (Place::Before, Some(inner)) => {
                let Some(&next) = rules.open.get(self.done) else {
                    return inner.allowed();
                };
                if self.done > 0 {
                    return Ok(self.one(next));
                }
                match inner.allowed()? {
                    Allowed::These(mut mask) => {
                        if let Some(word) = mask.get_mut(next as usize / 32) {
                            *word |= 1 << (next % 32);
                        }
                        Ok(Allowed::These(mask))
                    }
                    other => Ok(other),
                }
            }
        }
    }
}
