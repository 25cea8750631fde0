//! Holding calls to their tools' schemas where the model is free not to call any.
//!
//! Nothing is held back until the text shows what opens a call in the model's notation; from there on the
//! grammar of calls says what may come.

use std::sync::Arc;

use crate::sample::{Allowed, Form, Guide};
use crate::text::Tokenizer;

/// An answer in which calls, if there are any, have the form `calls`: it is followed from those of
/// `openers` on that it may begin with. `None` if there is no such one.
pub fn within(tokenizer: &Tokenizer, openers: &[&str], calls: Form) -> Option<Form> {
    let tokenizer = tokenizer.clone();
    let begins = |opener: &str| -> Option<()> {
        let mut guide = calls.start().ok()?;
        let ids = tokenizer.encode(opener, false).ok()?;
        ids.into_iter().try_for_each(|id| guide.accept(id)).ok()
    };
    let openers = openers.iter().filter(|opener| begins(opener).is_some());
    let openers: Arc<[String]> = openers.map(|&opener| opener.to_owned()).collect();
    if openers.is_empty() {
        return None;
    }
    Some(Form::new(move || {
        Ok(Box::new(Calling {
            tokenizer: tokenizer.clone(),
            openers: openers.clone(),
            calls: calls.clone(),
            drawn: Vec::new(),
            guide: None,
        }))
    }))
}

struct Calling {
    tokenizer: Tokenizer,
    openers: Arc<[String]>,
    calls: Form,
    /// The last tokens, as many as could make an opener, with their bytes.
    drawn: Vec<(u32, Vec<u8>)>,
    /// Follows the calls once they have begun.
    guide: Option<Box<dyn Guide>>,
}

impl Calling {
    /// The tokens that an opener at the end of the text consists of. One that begins inside of a token is
    /// none: no model's notation is written so.
    fn opener(&self) -> Option<Vec<u32>> {
        let mut text = Vec::new();
        let mut ids = Vec::new();
        for (id, bytes) in self.drawn.iter().rev() {
            text.splice(..0, bytes.iter().copied());
            ids.insert(0, *id);
            if self.openers.iter().any(|opener| opener.as_bytes() == text) {
                return Some(ids);
            }
        }
        None
    }
}

impl Guide for Calling {
    fn accept(&mut self, id: u32) -> Result<(), String> {
        if let Some(guide) = &mut self.guide {
            return guide.accept(id);
        }
        let longest = self.openers.iter().map(String::len).max().unwrap_or(0);
        self.drawn.push((id, self.tokenizer.token_bytes(id)));
        let excess = self.drawn.len().saturating_sub(longest);
        self.drawn.drain(..excess);
        if let Some(ids) = self.opener() {
            let mut guide = self.calls.start()?;
            for id in ids {
                guide.accept(id)?;
            }
            self.guide = Some(guide);
        }
        Ok(())
    }

    fn allowed(&mut self) -> Result<Allowed, String> {
        match &mut self.guide {
            Some(guide) => guide.allowed(),
            None => Ok(Allowed::Any),
        }
    }
}
