//! Ids to text, one token at a time.
//!
//! Invariants: the pieces and what `finish` returns, put together, equal `decode` of all ids without special tokens, but
//! for those that are to be shown, whose spelling stands where they do; a piece never ends inside a character. A decoder looks at its first token in its own way (it may drop a leading
//! space), so each step decodes a short window: tokens already shown, for context, and the new ones.

use std::collections::HashSet;

use super::tokenizer::{Spelling, Tokenizer};

/// Tokens after which the window is cut even if its context is only white space.
const WINDOW_LIMIT: usize = 64;
/// Tokens kept as context by such a cut.
const CONTEXT: usize = 16;

/// Turns a stream of ids into text.
pub struct Detokenizer {
    tokenizer: Tokenizer,
    window: Vec<u32>,
    /// The window's text up to here was given out.
    shown: String,
    /// The window's first `read` tokens are behind a boundary at which all text was given out.
    read: usize,
    /// Control tokens that show as text.
    shown_tokens: HashSet<u32>,
}

impl Detokenizer {
    /// A detokenizer at the start of a text.
    pub fn new(tokenizer: Tokenizer) -> Detokenizer {
        Detokenizer {
            tokenizer,
            window: Vec::new(),
            shown: String::new(),
            read: 0,
            shown_tokens: HashSet::new(),
        }
    }

    /// Shows these control tokens as text.
    pub fn show(&mut self, tokens: &HashSet<u32>) {
        self.shown_tokens.extend(tokens);
    }

    /// Whether the token is a control token that shows as text.
    pub fn shows(&self, id: u32) -> bool {
        self.shown_tokens.contains(&id)
    }

    /// A detokenizer that goes on where `prompt` ends, so that a decoder which drops a space at the
    /// start of a text keeps the one between the prompt and what follows.
    pub fn after(tokenizer: Tokenizer, prompt: &[u32]) -> Detokenizer {
        let mut detokenizer = Detokenizer::new(tokenizer);
        detokenizer.window = prompt[prompt.len().saturating_sub(CONTEXT)..].to_vec();
        // An unfinished character at the prompt's end belongs to what follows.
        let context = detokenizer.tokenizer.decode(&detokenizer.window, true);
        detokenizer.shown = context.trim_end_matches('\u{FFFD}').to_owned();
        detokenizer
    }

    /// Takes the next id and returns the text that is now certain.
    pub fn push(&mut self, id: u32) -> String {
        let Some(token) = self.tokenizer.token(id) else {
            return String::new();
        };
        if self.shows(id) {
            return self.settle() + &token;
        }
        if self.tokenizer.is_special_spelling(&token) {
            return String::new();
        }
        self.window.push(id);
        if self.tokenizer.is_fallback_byte(id) {
            // Whether these bytes are text or garbage depends on the whole run.
            return String::new();
        }
        let full = self.tokenizer.decode(&self.window, true);
        if !full.starts_with(&self.shown) {
            return String::new();
        }
        let settled = match self.tokenizer.spelling() {
            // An unfinished character at the end shows as one U+FFFD.
            Spelling::ByteLevel => full.strip_suffix('\u{FFFD}').unwrap_or(&full),
            _ => &full,
        };
        let clean = settled.len() == full.len();
        let piece = settled
            .get(self.shown.len()..)
            .unwrap_or_default()
            .to_owned();
        self.shown.push_str(&piece);
        if clean {
            self.advance();
        } else if self.window.len() > WINDOW_LIMIT {
            self.cut_garbage(&full);
        }
        piece
    }

    /// What was held back; the stream is at its end.
    pub fn finish(&mut self) -> String {
        let (_, rest) = self.rest();
        self.window.clear();
        self.shown.clear();
        self.read = 0;
        rest
    }

    /// What was held back, because something follows that is no part of the window.
    fn settle(&mut self) -> String {
        let (full, rest) = self.rest();
        // Only whole text can be context of what follows.
        match full.ends_with('\u{FFFD}') {
            true => {
                self.window.clear();
                self.shown.clear();
            }
            false => self.shown = full,
        }
        self.read = self.window.len();
        rest
    }

    /// The window's text, and what of it was not given out.
    fn rest(&self) -> (String, String) {
        let full = self.tokenizer.decode(&self.window, true);
        let same = full
            .char_indices()
            .zip(self.shown.chars())
            .find(|((_, a), b)| a != b);
        let from = same.map_or(self.shown.len(), |((at, _), _)| at);
        let rest = full.get(from..).unwrap_or_default().to_owned();
        (full, rest)
    }

    /// Drops the tokens before the last boundary, where the ones after it are context enough.
    fn advance(&mut self) {
        let mut from = self.read;
        if self.window.len() > WINDOW_LIMIT {
            from = from.max(self.window.len() - CONTEXT);
        }
        let context = self.tokenizer.decode(&self.window[from..], true);
        // A decoder that drops spaces at the start would drop those of a context that is nothing else.
        let enough = context.chars().any(|c| !c.is_whitespace());
        if from > 0 && (enough || self.window.len() > WINDOW_LIMIT) {
            self.window.drain(..from);
            self.shown = context;
        }
        self.read = self.window.len();
    }

    /// Shortens a long window of bytes that make no text, at a place where both halves decode as they do together.
    fn cut_garbage(&mut self, full: &str) {
        let at = self.window.len() - CONTEXT;
        for cut in at..(at + 4).min(self.window.len()) {
            let head = self.tokenizer.decode(&self.window[..cut], true);
            let tail = self.tokenizer.decode(&self.window[cut..], true);
            if head.len() <= self.shown.len()
                && full.strip_prefix(head.as_str()) == Some(tail.as_str())
            {
                self.shown.drain(..head.len());
                self.window.drain(..cut);
                self.read = 0;
                return;
            }
        }
    }
}
