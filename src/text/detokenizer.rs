//! Ids to text, one token at a time.
//!
//! Invariants: the pieces and what `finish` returns, put together, equal `decode` of all ids without special tokens, but
//! for those that are to be shown, whose spelling stands where they do; a piece never ends inside a character.
//!
//! Most vocabularies spell bytes, and text is the tokens' bytes put together. Other decoders look at their first token in
//! a way of its own (they may drop a leading space), so for them each step decodes a short window: tokens already shown,
//! for context, and the new ones.

use std::collections::HashSet;

use super::tokenizer::{Spelling, Tokenizer};

/// Tokens after which the window is cut even if its context is only white space.
const WINDOW_LIMIT: usize = 64;
/// Tokens kept as context by such a cut.
const CONTEXT: usize = 16;

/// Turns a stream of ids into text.
pub struct Detokenizer {
    tokenizer: Tokenizer,
    way: Way,
    /// Control tokens that show as text.
    shown_tokens: HashSet<u32>,
}

enum Way {
    /// The bytes that may be the beginning of a character.
    Bytes(Vec<u8>),
    Window(Window),
}

#[derive(Default)]
struct Window {
    tokens: Vec<u32>,
    /// The window's text up to here was given out.
    shown: String,
    /// The window's first `read` tokens are behind a boundary at which all text was given out.
    read: usize,
}

impl Detokenizer {
    /// A detokenizer at the start of a text.
    pub fn new(tokenizer: Tokenizer) -> Detokenizer {
        let way = match tokenizer.joins_bytes() {
            true => Way::Bytes(Vec::new()),
            false => Way::Window(Window::default()),
        };
        Detokenizer {
            tokenizer,
            way,
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
        let tail = &prompt[prompt.len().saturating_sub(CONTEXT)..];
        // An unfinished character at the prompt's end belongs to what follows.
        match &mut detokenizer.way {
            Way::Bytes(_) => {
                for &id in tail {
                    detokenizer.push(id);
                }
            }
            Way::Window(window) => {
                let context = detokenizer.tokenizer.decode(tail, true);
                window.tokens = tail.to_vec();
                window.shown = context.trim_end_matches('\u{FFFD}').to_owned();
            }
        }
        detokenizer
    }

    /// Takes the next id and returns the text that is now certain.
    pub fn push(&mut self, id: u32) -> String {
        let Some(token) = self.tokenizer.token(id) else {
            return String::new();
        };
        if self.shows(id) {
            return match &mut self.way {
                Way::Bytes(held) => whole(std::mem::take(held)),
                Way::Window(window) => window.settle(&self.tokenizer),
            } + &token;
        }
        if self.tokenizer.is_special_spelling(&token) {
            return String::new();
        }
        match &mut self.way {
            Way::Bytes(held) => {
                held.extend(self.tokenizer.bytes_of(token));
                certain(held)
            }
            Way::Window(window) => window.push(id, &self.tokenizer),
        }
    }

    /// What was held back; the stream is at its end.
    pub fn finish(&mut self) -> String {
        match &mut self.way {
            Way::Bytes(held) => whole(std::mem::take(held)),
            Way::Window(window) => std::mem::take(window).rest(&self.tokenizer).1,
        }
    }
}

/// The text of bytes to which nothing is added any more.
fn whole(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Takes out of `held` what is text whatever follows, with U+FFFD for what is none.
fn certain(held: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(held.len());
    let mut from = 0;
    for chunk in held.utf8_chunks() {
        text.push_str(chunk.valid());
        from += chunk.valid().len();
        let invalid = chunk.invalid();
        let ends = from + invalid.len() == held.len();
        let unfinished = || std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none());
        if ends && !invalid.is_empty() && unfinished() {
            break;
        }
        if !invalid.is_empty() {
            text.push('\u{FFFD}');
            from += invalid.len();
        }
    }
    held.drain(..from);
    text
}

impl Window {
    fn push(&mut self, id: u32, tokenizer: &Tokenizer) -> String {
        self.tokens.push(id);
        if tokenizer.is_fallback_byte(id) {
            // Whether these bytes are text or garbage depends on the whole run.
            return String::new();
        }
        let full = tokenizer.decode(&self.tokens, true);
        if !full.starts_with(&self.shown) {
            return String::new();
        }
        let settled = match tokenizer.spelling() {
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
            self.advance(tokenizer);
        } else if self.tokens.len() > WINDOW_LIMIT {
            self.cut_garbage(&full, tokenizer);
        }
        piece
    }

    /// What was held back, because something follows that is no part of the window.
    fn settle(&mut self, tokenizer: &Tokenizer) -> String {
        let (full, rest) = self.rest(tokenizer);
        // Only whole text can be context of what follows.
        match full.ends_with('\u{FFFD}') {
            true => {
                self.tokens.clear();
                self.shown.clear();
            }
            false => self.shown = full,
        }
        self.read = self.tokens.len();
        rest
    }

    /// The window's text, and what of it was not given out.
    fn rest(&self, tokenizer: &Tokenizer) -> (String, String) {
        let full = tokenizer.decode(&self.tokens, true);
        let same = full
            .char_indices()
            .zip(self.shown.chars())
            .find(|((_, a), b)| a != b);
        let from = same.map_or(self.shown.len(), |((at, _), _)| at);
        let rest = full.get(from..).unwrap_or_default().to_owned();
        (full, rest)
    }

    /// Drops the tokens before the last boundary, where the ones after it are context enough.
    fn advance(&mut self, tokenizer: &Tokenizer) {
        let mut from = self.read;
        if self.tokens.len() > WINDOW_LIMIT {
            from = from.max(self.tokens.len() - CONTEXT);
        }
        let context = tokenizer.decode(&self.tokens[from..], true);
        // A decoder that drops spaces at the start would drop those of a context that is nothing else.
        let enough = context.chars().any(|c| !c.is_whitespace());
        if from > 0 && (enough || self.tokens.len() > WINDOW_LIMIT) {
            self.tokens.drain(..from);
            self.shown = context;
        }
        self.read = self.tokens.len();
    }

    /// Shortens a long window of bytes that make no text, at a place where both halves decode as they do together.
    fn cut_garbage(&mut self, full: &str, tokenizer: &Tokenizer) {
        let at = self.tokens.len() - CONTEXT;
        for cut in at..(at + 4).min(self.tokens.len()) {
            let head = tokenizer.decode(&self.tokens[..cut], true);
            let tail = tokenizer.decode(&self.tokens[cut..], true);
            if head.len() <= self.shown.len()
                && full.strip_prefix(head.as_str()) == Some(tail.as_str())
            {
                self.shown.drain(..head.len());
                self.tokens.drain(..cut);
                self.read = 0;
                return;
            }
        }
    }
}
