//! Python's literals, turned into JSON one character at a time.
//!
//! Invariant: what was put into `out` from the first character to the last is one valid JSON value. JSON's `true`,
//! `false` and `null` are taken beside Python's words, as templates write containers in JSON; a tuple is an array.

use super::json::is_json;
use super::pieces::{MOST_NAME, Step, Unescape, escape};

const MOST_DEPTH: usize = 120;

/// One literal.
#[derive(Clone, Debug)]
pub(super) struct Literal {
    state: State,
    /// The characters that close the open containers.
    stack: Vec<char>,
    unescape: Unescape,
    word: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    /// A value, or the container's end.
    First,
    FirstKey,
    Colon,
    After,
    /// Behind a comma: a value, or the end.
    Next,
    NextKey,
    /// In a string that this quote ends; whether it is a key.
    String(char, bool),
    /// A number or a word; whether it is a key.
    Word(bool),
    Over,
}

impl Literal {
    pub fn new() -> Literal {
        Literal {
            state: State::Value,
            stack: Vec::new(),
            unescape: Unescape::python(),
            word: String::new(),
        }
    }

    /// Takes a character and puts what is known of the JSON behind `out`.
    pub fn step(&mut self, c: char, out: &mut String) -> Step {
        let blank = c.is_whitespace();
        match self.state {
            State::String(quote, key) => return self.string(quote, key, c, out),
            State::Word(key) => {
                if c.is_ascii_alphanumeric() || "_.+-".contains(c) {
                    self.word.push(c);
                    return match self.word.len() > MOST_NAME {
                        true => Step::Fail,
                        false => Step::More,
                    };
                }
                let Some(json) = word(&self.word, key) else {
                    return Step::Fail;
                };
                out.push_str(&json);
                return match self.over(key) {
                    Step::Done => Step::Before,
                    _ => self.step(c, out),
                };
            }
            State::Over => return Step::Before,
            _ if blank => {}
            State::First | State::Next | State::FirstKey | State::NextKey | State::After
                if self.stack.last() == Some(&c) =>
            {
                return self.close(out);
            }
            State::Value | State::First | State::Next => {
                if self.state == State::Next {
                    out.push_str(", ");
                }
                return self.value(c, out);
            }
            State::FirstKey | State::NextKey => {
                if self.state == State::NextKey {
                    out.push_str(", ");
                }
                return self.key(c, out);
            }
            State::Colon if c == ':' => {
                out.push_str(": ");
                self.state = State::Value;
            }
            State::After if c == ',' => {
                self.state = match self.stack.last() {
                    Some('}') => State::NextKey,
                    _ => State::Next,
                };
            }
            State::Colon | State::After => return Step::Fail,
        }
        Step::More
    }

    fn value(&mut self, c: char, out: &mut String) -> Step {
        match c {
            '[' | '(' | '{' => {
                if self.stack.len() >= MOST_DEPTH {
                    return Step::Fail;
                }
                let (close, json, state) = match c {
                    '[' => (']', '[', State::First),
                    '(' => (')', '[', State::First),
                    _ => ('}', '{', State::FirstKey),
                };
                self.stack.push(close);
                out.push(json);
                self.state = state;
            }
            '"' | '\'' => {
                out.push('"');
                self.state = State::String(c, false);
            }
            c if c.is_ascii_alphanumeric() || "+-.".contains(c) => {
                self.word.clear();
                self.word.push(c);
                self.state = State::Word(false);
            }
            _ => return Step::Fail,
        }
        Step::More
    }

    fn key(&mut self, c: char, out: &mut String) -> Step {
        match c {
            '"' | '\'' => {
                out.push('"');
                self.state = State::String(c, true);
            }
            c if c.is_ascii_alphanumeric() || c == '-' => {
                self.word.clear();
                self.word.push(c);
                self.state = State::Word(true);
            }
            _ => return Step::Fail,
        }
        Step::More
    }

    fn string(&mut self, quote: char, key: bool, c: char, out: &mut String) -> Step {
        let mut plain = String::new();
        if c == quote && self.unescape.is_plain() {
            if self.unescape.end().is_err() {
                return Step::Fail;
            }
            out.push('"');
            return self.over(key);
        }
        if self.unescape.step(c, &mut plain).is_err() {
            return Step::Fail;
        }
        plain.chars().for_each(|c| escape(c, out));
        Step::More
    }

    fn close(&mut self, out: &mut String) -> Step {
        let Some(close) = self.stack.pop() else {
            return Step::Fail;
        };
        out.push(if close == '}' { '}' } else { ']' });
        self.over(false)
    }

    fn over(&mut self, key: bool) -> Step {
        self.state = match (key, self.stack.is_empty()) {
            (true, _) => State::Colon,
            (false, true) => State::Over,
            (false, false) => State::After,
        };
        match self.state {
            State::Over => Step::Done,
            _ => Step::More,
        }
    }
}

/// The JSON of a number or a word; as a key, of a string that spells it.
fn word(text: &str, key: bool) -> Option<String> {
    let json = match text {
        "True" | "true" => "true".to_owned(),
        "False" | "false" => "false".to_owned(),
        "None" | "null" => "null".to_owned(),
        _ => number(text)?,
    };
    Some(if key { format!("\"{json}\"") } else { json })
}

fn number(text: &str) -> Option<String> {
    let plain = text.replace('_', "");
    let plain = plain.strip_prefix('+').unwrap_or(&plain);
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", plain),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    for (prefix, radix) in [
        ("0x", 16),
        ("0X", 16),
        ("0o", 8),
        ("0O", 8),
        ("0b", 2),
        ("0B", 2),
    ] {
        if let Some(digits) = digits.strip_prefix(prefix) {
            let number = i128::from_str_radix(digits, radix).ok()?;
            return (!digits.starts_with(['+', '-'])).then(|| format!("{sign}{number}"));
        }
    }
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => digits.split_at(at),
        None => (digits, ""),
    };
    let mantissa = match mantissa {
        "." => return None,
        _ if mantissa.starts_with('.') => format!("0{mantissa}"),
        _ if mantissa.ends_with('.') => format!("{mantissa}0"),
        _ => mantissa.to_owned(),
    };
    let json = format!("{sign}{mantissa}{exponent}");
    is_json(&json).then_some(json)
}

/// The JSON of a whole literal.
pub(super) fn to_json(text: &str) -> Option<String> {
    let mut literal = Literal::new();
    let mut out = String::new();
    let mut chars = text.trim().chars().chain(std::iter::once('\n'));
    loop {
        match literal.step(chars.next()?, &mut out) {
            Step::More => {}
            Step::Fail => return None,
            Step::Done => return chars.all(char::is_whitespace).then_some(out),
            Step::Before => return chars.next().is_none().then_some(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_json() {
        for (python, json) in [
            ("1", "1"),
            ("-1_000", "-1000"),
            ("+.5", "0.5"),
            ("5.", "5.0"),
            ("1e-3", "1e-3"),
            ("0xff", "255"),
            ("True", "true"),
            ("None", "null"),
            ("null", "null"),
            ("'it\\'s \"x\"\\n\\x41\\u00e9'", "\"it's \\\"x\\\"\\nAé\""),
            ("\"a\\/b\\d\"", "\"a/b\\\\d\""),
            ("[1, 'a', (2, 3), ]", "[1, \"a\", [2, 3]]"),
            (
                "{'a': {1: None}, \"b\": []}",
                "{\"a\": {\"1\": null}, \"b\": []}",
            ),
            ("{}", "{}"),
            ("\"\\ud83d\\ude00\"", "\"😀\""),
        ] {
            assert_eq!(to_json(python).as_deref(), Some(json), "{python}");
            assert!(is_json(json));
        }
        for python in [
            "",
            "x",
            "f(1)",
            "[",
            "1 2",
            "{'a'}",
            "{[]: 1}",
            "nan",
            "01",
            "'a' 'b'",
            "[1 2]",
            "--1",
            "0x",
            "0x-1",
            ".",
            "'\\ud83d'",
            "[,]",
            "1e",
        ] {
            assert_eq!(to_json(python), None, "{python}");
        }
    }
}
