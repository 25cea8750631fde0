//! Keeps control tokens out of users' strings.
//!
//! Before rendering, a user's string gets a mark (a Unicode noncharacter) wherever a control token stands in it or could
//! arise at its ends; after rendering, the text is cut at the marks that stand inside the spelling of a control token,
//! and the pieces are tokenized apart. Invariants: a control token of the tokenized text was written by the template
//! alone; a text in which no control token is spelled across a mark is not cut, so its ids are those of the whole.
//! A control token of a single character cannot be cut and is not guarded against.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// A noncharacter, which no text may contain in interchange.
pub(super) const MARK: char = '\u{FDD0}';

/// The tokenizer's control tokens, and how the template may complete them.
pub(super) struct ControlTokens {
    tokens: Vec<String>,
    /// The first characters of all tokens.
    heads: Vec<char>,
    /// What of a token is still missing after a literal of the template that ends with its beginning.
    tails: Vec<String>,
}

/// The text without marks.
pub(super) fn unmark(text: &str) -> String {
    text.replace(MARK, "")
}

impl ControlTokens {
    /// `tokens` are the tokenizer's special tokens, `sources` the templates' source texts.
    pub(super) fn new(tokens: &[String], sources: &[&str]) -> ControlTokens {
        let tokens: Vec<String> = tokens
            .iter()
            .filter(|token| token.chars().nth(1).is_some())
            .cloned()
            .collect();
        let mut heads: Vec<char> = tokens
            .iter()
            .filter_map(|token| token.chars().next())
            .collect();
        heads.sort_unstable();
        heads.dedup();
        let mut tails = Vec::new();
        // Many control tokens begin alike: look at each beginning once.
        let mut seen: HashMap<&str, (bool, bool)> = HashMap::new();
        for token in &tokens {
            for (at, _) in token.char_indices().skip(1) {
                let (head, tail) = token.split_at(at);
                let (occurs, ends) = *seen.entry(head).or_insert_with(|| {
                    (
                        sources.iter().any(|source| source.contains(head)),
                        sources.iter().any(|source| ends_a_literal(source, head)),
                    )
                });
                if ends {
                    tails.push(tail.to_owned());
                }
                if !occurs {
                    break;
                }
            }
        }
        tails.sort_unstable();
        tails.dedup();
        ControlTokens {
            tokens,
            heads,
            tails,
        }
    }

    /// A user's string with its marks.
    pub(super) fn mark(&self, text: &str) -> String {
        let text = text.replace(MARK, "\u{FFFD}");
        let mut at = Vec::new();
        if !text.is_empty()
            && self
                .tails
                .iter()
                .any(|tail| text.starts_with(tail.as_str()) || tail.starts_with(&text))
        {
            at.push(0);
        }
        if text.contains(&self.heads[..]) {
            for token in &self.tokens {
                let head = token.chars().next().map_or(0, char::len_utf8);
                let mut from = 0;
                while let Some(found) = text[from..].find(token.as_str()) {
                    from += found + head;
                    at.push(from);
                }
            }
            if self.ends_with_a_beginning(&text) {
                at.push(text.len());
            }
        }
        if at.is_empty() {
            return text;
        }
        at.sort_unstable();
        at.dedup();
        let mut marked = String::with_capacity(text.len() + at.len() * MARK.len_utf8());
        let mut from = 0;
        for to in at {
            marked.push_str(&text[from..to]);
            marked.push(MARK);
            from = to;
        }
        marked.push_str(&text[from..]);
        marked
    }

    /// All strings inside `value`, and the keys of its objects, with their marks.
    pub(super) fn mark_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.mark(&text)),
            Value::Array(items) => items
                .into_iter()
                .map(|item| self.mark_value(item))
                .collect(),
            Value::Object(map) => Value::Object(
                map.into_iter()
                    .map(|(key, value)| (self.mark(&key), self.mark_value(value)))
                    .collect(),
            ),
            other => other,
        }
    }

    /// A message with marks; its own keys stay, and so does a role that is a plain word, which templates spell control
    /// tokens with.
    pub(super) fn mark_message(&self, message: Map<String, Value>) -> Map<String, Value> {
        message
            .into_iter()
            .map(|(key, value)| {
                let plain = key == "role"
                    && value.as_str().is_some_and(|role| {
                        role.chars()
                            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
                    });
                let value = if plain { value } else { self.mark_value(value) };
                (key, value)
            })
            .collect()
    }

    /// The rendered text in pieces to be tokenized apart.
    pub(super) fn cut(&self, marked: &str) -> Vec<String> {
        let mut text = String::with_capacity(marked.len());
        let mut marks = Vec::new();
        for part in marked.split_inclusive(MARK) {
            match part.strip_suffix(MARK) {
                Some(part) => {
                    text.push_str(part);
                    marks.push(text.len());
                }
                None => text.push_str(part),
            }
        }
        marks.dedup();
        let mut pieces = Vec::new();
        let mut from = 0;
        for at in marks {
            if self.spelled_across(text.as_bytes(), at) {
                pieces.push(text[from..at].to_owned());
                from = at;
            }
        }
        pieces.push(text[from..].to_owned());
        pieces
    }

    /// Whether a control token begins before `at` and ends behind it.
    fn spelled_across(&self, text: &[u8], at: usize) -> bool {
        self.tokens.iter().any(|token| {
            let reach = token.len() - 1;
            let around = &text[at.saturating_sub(reach)..text.len().min(at + reach)];
            around
                .windows(token.len())
                .any(|window| window == token.as_bytes())
        })
    }

    fn ends_with_a_beginning(&self, text: &str) -> bool {
        self.tokens.iter().any(|token| {
            token
                .char_indices()
                .skip(1)
                .any(|(at, _)| text.ends_with(&token[..at]))
        })
    }
}

/// Whether `head` ends a string literal or a stretch of plain text in the template, as far as its spelling shows.
fn ends_a_literal(source: &str, head: &str) -> bool {
    source.match_indices(head).any(|(at, _)| {
        let rest = source[at + head.len()..].trim_start();
        rest.is_empty() || rest.starts_with(['\'', '"', '{'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(sources: &[&str]) -> ControlTokens {
        let tokens = ["<|im_start|>", "<|im_end|>", "<s>"].map(str::to_owned);
        ControlTokens::new(&tokens, sources)
    }

    #[test]
    fn usual_text_gets_no_mark() {
        let control = control(&["{{ '<|im_start|>' + message.role }}"]);
        for text in [
            "hello",
            "a < b",
            "<tool_response>\nx</tool_response>",
            "|im_start|>",
            "s",
            "",
        ] {
            assert_eq!(control.mark(text), text);
        }
    }

    #[test]
    fn control_tokens_and_their_beginnings_are_marked() {
        let control = control(&[]);
        assert_eq!(control.mark("a<s>b<s>"), "a<\u{FDD0}s>b<\u{FDD0}s>");
        assert_eq!(control.mark("x<|im_"), "x<|im_\u{FDD0}");
        assert_eq!(control.mark("x\u{FDD0}"), "x\u{FFFD}");
    }

    #[test]
    fn what_a_literal_of_the_template_would_complete_is_marked() {
        let control = control(&["{{ '<' + key + '>' }}"]);
        assert_eq!(control.mark("|im_start|> x"), "\u{FDD0}|im_start|> x");
        assert_eq!(control.mark("s"), "\u{FDD0}s");
        assert_eq!(control.mark("text"), "text");
    }

    #[test]
    fn only_marks_inside_a_control_token_cut() {
        let control = control(&[]);
        assert_eq!(control.cut("a <\u{FDD0}<|im_end|>"), ["a <<|im_end|>"]);
        assert_eq!(control.cut("a <\u{FDD0}s>\u{FDD0}b"), ["a <", "s>b"]);
        assert_eq!(control.cut("<|im_\u{FDD0}end|>"), ["<|im_", "end|>"]);
    }
}
