//! How markers are spelled to a grammar: control tokens by their ids, the rest as text.

use super::pieces::quoted;

/// The tokens that a text cannot spell, with their ids.
#[derive(Clone, Debug, Default)]
pub struct Spelling {
    /// The longest first.
    special: Vec<(String, u32)>,
}

impl Spelling {
    /// From the control tokens' texts and ids.
    pub fn new(special: impl IntoIterator<Item = (String, u32)>) -> Spelling {
        let mut special: Vec<(String, u32)> = special
            .into_iter()
            .filter(|(text, _)| !text.is_empty())
            .collect();
        special.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.cmp(b)));
        Spelling { special }
    }

    /// `text` as an expression of a Lark grammar.
    pub(super) fn lark(&self, text: &str) -> String {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let found = self
                .special
                .iter()
                .find_map(|(token, id)| Some((rest.strip_prefix(token.as_str())?, id)));
            match found {
                Some((behind, id)) => {
                    if !plain.is_empty() {
                        parts.push(quoted(&std::mem::take(&mut plain)));
                    }
                    parts.push(format!("<[{id}]>"));
                    rest = behind;
                }
                None => {
                    plain.push(c);
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
        if !plain.is_empty() {
            parts.push(quoted(&plain));
        }
        parts.join(" ")
    }

    /// The part of `text` before its first control token, and the rest.
    pub(super) fn split<'a>(&self, text: &'a str) -> (&'a str, &'a str) {
        let starts = self
            .special
            .iter()
            .filter_map(|(token, _)| text.find(token.as_str()));
        text.split_at(starts.min().unwrap_or(text.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_tokens_are_told_by_id() {
        let spelling = Spelling::new([("<|a|>".to_owned(), 7), ("<|a|>b".to_owned(), 8)]);
        assert_eq!(spelling.lark("x\"\n"), "\"x\\\"\\n\"");
        assert_eq!(spelling.lark("x<|a|>y<|a|>b"), "\"x\" <[7]> \"y\" <[8]>");
        assert_eq!(spelling.lark(""), "");
        assert_eq!(spelling.split("\nx<|a|>y"), ("\nx", "<|a|>y"));
        assert_eq!(spelling.split("xy"), ("xy", ""));
    }
}
