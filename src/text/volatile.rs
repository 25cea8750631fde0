//! Parts of system messages that change from request to request and say nothing to the model.
//!
//! A changing line near the front makes every prompt a new one from there on, so that nothing behind it
//! can be reused. Only system messages are touched: what users and models said stays as it is.

use std::borrow::Cow;

use regex::Regex;
use serde_json::{Map, Value};

use super::TextError;

/// What is removed unless told otherwise. docs/prefix-cache.md lists them.
const KNOWN: &[&str] = &[
    // `x-anthropic-billing-header: cc_version=2.1.37.fb2; cc_entrypoint=cli; cch=3a1f0;`, the first
    // line that Claude Code sends. Only its pairs, lest text that follows on the same line goes too.
    r"(?mi)^[ \t]*x-[a-z0-9-]*billing-header[ \t]*:(?:[ \t]*[\w-]+=[^;\s]*(?:;|$))*[ \t]*\n?",
    // `Request-Id: 7d0c…`, a line of its own.
    r"(?mi)^[ \t]*(?:x-)?(?:[a-z]+[-_ ])?(?:request|trace|correlation)[-_ ]?id[ \t]*[:=][ \t]*\S+[ \t]*(?:\n|\z)",
    // The seconds of `Current time: 2026-02-03 14:37:25`.
    r"(?mi)^[^\n]*\b(?:current|local|today)\b[^\n]*\b(?:date|time|datetime)\b[^\n]*?(?:^|[^\d:])\d{1,2}:\d{2}(:\d{2}(?:[.,]\d+)?)",
];

/// Rules that say what is volatile.
#[derive(Clone, Debug)]
pub struct Volatile {
    rules: Vec<Regex>,
}

impl Volatile {
    /// The known rules and `own` ones: regular expressions. What they match is removed, or, where they
    /// have groups, what the groups match.
    ///
    /// # Errors
    /// If one of `own` is no regular expression.
    pub fn new(own: &[String]) -> Result<Self, TextError> {
        let known = KNOWN.iter().copied();
        let rules = known.chain(own.iter().map(String::as_str)).map(|rule| {
            Regex::new(rule).map_err(|error| TextError::Rule {
                rule: rule.to_owned(),
                reason: error.to_string(),
            })
        });
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// The text without what is volatile in it.
    pub fn normalise<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for rule in &self.rules {
            let mut kept = String::new();
            let mut done = 0;
            for found in rule.captures_iter(&text) {
                let whole = usize::from(found.len() > 1);
                for part in found.iter().skip(whole).flatten() {
                    // A group within a group has gone with it.
                    kept.push_str(text.get(done..part.start()).unwrap_or_default());
                    done = done.max(part.end());
                }
            }
            if done > 0 {
                kept.push_str(text.get(done..).unwrap_or_default());
                text = Cow::Owned(kept);
            }
        }
        text
    }

    /// A message as in OpenAI's chat API without what is volatile in it, if it is a system message.
    pub(super) fn normalise_message(&self, message: &mut Map<String, Value>) {
        let role = message.get("role").and_then(Value::as_str);
        if !matches!(role, Some("system" | "developer")) {
            return;
        }
        match message.get_mut("content") {
            Some(Value::String(text)) => self.replace(text),
            Some(Value::Array(parts)) => {
                for part in parts {
                    if let Some(Value::String(text)) = part.get_mut("text") {
                        self.replace(text);
                    }
                }
            }
            _ => {}
        }
    }

    fn replace(&self, text: &mut String) {
        if let Cow::Owned(new) = self.normalise(text) {
            *text = new;
        }
    }
}
