//! Grammars in llguidance's variant of Lark's language: checked, and what stands inside them brought under the same
//! rules as a schema of its own; choices and regular expressions as grammars.

use llguidance::api::TopLevelGrammar;
use llguidance::derivre::RegexBuilder;
use serde_json::{Deserializer, Value};

use super::{FormError, limits, refine, schema};
use crate::text::Tokenizer;

/// One of these texts, as a grammar.
pub(super) fn choice(texts: &[String]) -> Result<String, FormError> {
    if texts.is_empty() {
        return Err(FormError::invalid(
            "",
            "no choice is given; give at least one text",
        ));
    }
    if texts.len() > limits::CHOICES {
        let reason = format!(
            "{} choices, at most {} are taken",
            texts.len(),
            limits::CHOICES
        );
        return Err(FormError::too_complex("", reason));
    }
    // As one terminal: rules would be tried one by one.
    let alternatives: Vec<String> = texts.iter().map(|text| literal(text)).collect();
    Ok(format!(
        "start: CHOICE\nCHOICE: {}\n",
        alternatives.join(" | ")
    ))
}

/// A text as Lark's string.
fn literal(text: &str) -> String {
    // JSON may leave this character as it is, Lark's strings may not.
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A regular expression that the whole text matches, as a grammar.
pub(super) fn regex(regex: &str) -> Result<TopLevelGrammar, FormError> {
    let regex = unanchored(regex);
    if regex.is_empty() {
        return Ok(TopLevelGrammar::from_lark("start: \"\"".into()));
    }
    // As it stands: bringing it into a grammar may hide a mistake.
    match RegexBuilder::new().mk_regex(regex) {
        Ok(_) => Ok(TopLevelGrammar::from_regex(regex)),
        Err(e) => Err(FormError::invalid("", regex_error(&e))),
    }
}

/// What is wrong with a regular expression, in one line.
pub(super) fn regex_error(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let what = refine(&text.rsplit("error: ").next().unwrap_or_default());
    format!("the regular expression cannot be followed: {what}")
}

/// Without the anchors at both ends, which say nothing where the whole must match.
fn unanchored(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        Some(rest) if rest.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 0 => rest,
        _ => regex,
    }
}

/// The grammar as llguidance takes it.
///
/// # Errors
/// If it is too large, names a token that the model lacks, or asks for what is not supported.
pub(super) fn prepare(
    text: &str,
    tokenizer: &Tokenizer,
    eos_ids: &[u32],
) -> Result<String, FormError> {
    let mut scan = Scan {
        text,
        at: 0,
        out: String::with_capacity(text.len()),
        depth: 0,
        n_rules: 0,
        tokenizer,
        eos_ids,
    };
    while let Some(c) = scan.rest().chars().next() {
        scan.lexeme(c)?;
    }
    Ok(scan.out)
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    out: String,
    depth: usize,
    n_rules: usize,
    tokenizer: &'a Tokenizer,
    eos_ids: &'a [u32],
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn line(&self) -> String {
        let before = self.text.get(..self.at).unwrap_or_default();
        format!("line {}", before.matches('\n').count() + 1)
    }

    fn wrong<T>(&self, reason: impl Into<String>) -> Result<T, FormError> {
        Err(FormError::invalid(&self.line(), reason))
    }

    /// Copies the next `n` bytes.
    fn copy(&mut self, n: usize) {
        let taken = self.rest().get(..n).unwrap_or(self.rest());
        self.out.push_str(taken);
        self.at += taken.len();
    }

    /// Reads what begins with `c`.
    fn lexeme(&mut self, c: char) -> Result<(), FormError> {
        let rest = self.rest();
        match c {
            '#' => self.copy(rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("//") => self.copy(rest.find('\n').unwrap_or(rest.len())),
            '"' | '/' => self.copy(quoted(rest, c)),
            '<' => return self.token(),
            '%' => return self.directive(),
            '(' | '[' | '{' => {
                self.depth += 1;
                if self.depth > limits::NESTING {
                    let reason = format!("more than {} brackets in each other", limits::NESTING);
                    return Err(FormError::too_complex(&self.line(), reason));
                }
                self.copy(1);
            }
            ')' | ']' | '}' => {
                self.depth = self.depth.saturating_sub(1);
                self.copy(1);
            }
            ':' => {
                self.n_rules += 1;
                if self.n_rules > limits::RULES {
                    let reason = format!("more than {} rules", limits::RULES);
                    return Err(FormError::too_complex(&self.line(), reason));
                }
                self.copy(1);
            }
            c if c.is_ascii_alphabetic() || c == '_' => return self.name(),
            c => self.copy(c.len_utf8()),
        }
        Ok(())
    }

    /// `<name>` and `<[ids]>`; any token may be named, not only those that llguidance calls special.
    fn token(&mut self) -> Result<(), FormError> {
        let rest = self.rest();
        let Some(end) = rest
            .find('>')
            .filter(|&end| !rest[..end].contains(char::is_whitespace))
        else {
            self.copy(1);
            return Ok(());
        };
        let name = &rest[..=end];
        if name.starts_with("<[") {
            self.copy(name.len());
            return Ok(());
        }
        let Some(id) = self.tokenizer.id(name) else {
            return self.wrong(format!("the model has no token {name}"));
        };
        if self.eos_ids.contains(&id) {
            return self.wrong(format!(
                "{name} ends the answer; leave it out, it comes by itself where the grammar ends"
            ));
        }
        self.out.push_str(&format!("<[{id}]>"));
        self.at += name.len();
        Ok(())
    }

    /// `%json {…}`, `%llguidance {…}` and `%regex {…}` carry JSON.
    fn directive(&mut self) -> Result<(), FormError> {
        let rest = self.rest();
        let name_length = rest[1..].find(|c: char| !c.is_ascii_alphabetic());
        let word = &rest[..name_length.map_or(rest.len(), |n| n + 1)];
        self.copy(word.len());
        if !matches!(word, "%json" | "%llguidance" | "%regex") {
            return Ok(());
        }
        let mut stream = Deserializer::from_str(self.rest()).into_iter::<Value>();
        let value = match stream.next() {
            Some(Ok(value)) => value,
            Some(Err(e)) => return self.wrong(format!("after {word}: not JSON: {e}")),
            None => return self.wrong(format!("after {word}: JSON is missing")),
        };
        let length = stream.byte_offset();
        match word {
            "%json" => {
                let place = format!("{} %json", self.line());
                let prepared = schema::prepare(&value).map_err(|e| FormError {
                    path: match e.path.is_empty() {
                        true => place.clone(),
                        false => format!("{place}.{}", e.path),
                    },
                    ..e
                })?;
                self.out.push(' ');
                self.out.push_str(&prepared.to_string());
                self.at += length;
            }
            "%llguidance" => {
                for (option, value) in value.as_object().into_iter().flatten() {
                    let known = ["no_forcing", "allow_initial_skip", "ignore_once"];
                    let off = option == "allow_invalid_utf8" && value == &Value::Bool(false);
                    if !off && !known.contains(&option.as_str()) {
                        return self.wrong(format!("%llguidance.{option} is not supported"));
                    }
                }
                self.copy(length);
            }
            _ => self.copy(length),
        }
        Ok(())
    }

    /// A rule's, a terminal's or an attribute's name.
    fn name(&mut self) -> Result<(), FormError> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c));
        let name = &rest[..end.unwrap_or(rest.len())];
        let after = rest[name.len()..].trim_start();
        if let Some(value) = after.strip_prefix('=').map(str::trim_start) {
            if name == "temperature" {
                return self.wrong(
                    "temperature= is not supported; set the temperature of the whole request",
                );
            }
            if matches!(name, "stop" | "suffix") && value.starts_with("\"\"") {
                return self.wrong(format!(
                    "an empty {name}= is not supported; leave it out, a rule at the end of the grammar may \
                     end with the answer"
                ));
            }
        }
        self.copy(name.len());
        Ok(())
    }
}

/// The length of what stands between two of `quote`, both included.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}
