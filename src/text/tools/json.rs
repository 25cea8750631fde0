//! JSON, checked one character at a time and passed on as it comes.
//!
//! Invariant: what was put into `out` from the first character to the last is one valid JSON value. The one liberty
//! taken: control characters inside strings, which models write and JSON forbids, come out escaped.

use super::pieces::{Step, escape};

/// Deeper values are refused; readers refuse them too.
const MOST_DEPTH: usize = 120;

/// One JSON value.
#[derive(Clone, Debug)]
pub(super) struct Json {
    state: State,
    /// Of each open container whether it is an object.
    stack: Vec<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value; white space may precede it.
    Value,
    /// The first value of an array, or its end.
    First,
    /// The first key of an object, or its end.
    FirstKey,
    Key,
    Colon,
    /// Behind a value in a container.
    After,
    String(Place),
    Number(Number),
    Word(&'static str),
    Over,
}

/// Where in a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    key: bool,
    escape: Escape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    No,
    Slash,
    /// Digits so far and the number; whether a low surrogate is due.
    Hex(u8, u32, bool),
    /// The backslash of a low surrogate is due, then its `u`.
    LowSlash,
    LowU,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
}

impl Number {
    fn complete(self) -> bool {
        matches!(
            self,
            Number::Zero | Number::Digits | Number::Fraction | Number::Exponent
        )
    }

    fn next(self, c: char) -> Option<Number> {
        use Number::*;
        Some(match (self, c) {
            (Minus, '0') => Zero,
            (Minus, '1'..='9') | (Digits, '0'..='9') => Digits,
            (Zero | Digits, '.') => Point,
            (Point | Fraction, '0'..='9') => Fraction,
            (Zero | Digits | Fraction, 'e' | 'E') => E,
            (E, '+' | '-') => ESign,
            (E | ESign | Exponent, '0'..='9') => Exponent,
            _ => return None,
        })
    }
}

impl Json {
    /// At the start of a value.
    pub fn new() -> Json {
        Json {
            state: State::Value,
            stack: Vec::new(),
        }
    }

    /// Takes a character and puts it behind `out`.
    pub fn step(&mut self, c: char, out: &mut String) -> Step {
        let step = self.advance(c);
        match (step, self.state) {
            (Step::More, State::Value) if self.stack.is_empty() => {}
            (Step::More | Step::Done, _) => match c {
                c if (c as u32) < 0x20 && matches!(self.state, State::String(_)) => escape(c, out),
                c => out.push(c),
            },
            _ => {}
        }
        step
    }

    /// Whether nothing but white space has come.
    pub fn is_new(&self) -> bool {
        self.state == State::Value && self.stack.is_empty()
    }

    /// Whether the value is complete if the text ends here, as a number may be.
    pub fn complete(&self) -> bool {
        match self.state {
            State::Over => true,
            State::Number(number) => self.stack.is_empty() && number.complete(),
            _ => false,
        }
    }

    fn advance(&mut self, c: char) -> Step {
        let blank = matches!(c, ' ' | '\t' | '\n' | '\r');
        match self.state {
            State::Value
            | State::First
            | State::FirstKey
            | State::Key
            | State::Colon
            | State::After
                if blank => {}
            State::First if c == ']' => return self.close(false),
            State::Value | State::First => return self.value(c),
            State::FirstKey if c == '}' => return self.close(true),
            State::FirstKey | State::Key if c == '"' => self.state = string(true),
            State::Colon if c == ':' => self.state = State::Value,
            State::After => match (c, self.stack.last()) {
                (',', Some(true)) => self.state = State::Key,
                (',', Some(false)) => self.state = State::Value,
                (']', Some(false)) => return self.close(false),
                ('}', Some(true)) => return self.close(true),
                _ => return Step::Fail,
            },
            State::String(place) => return self.string(place, c),
            State::Number(number) => match number.next(c) {
                Some(next) => self.state = State::Number(next),
                None if !number.complete() => return Step::Fail,
                None => {
                    if self.over() == Step::Done {
                        return Step::Before;
                    }
                    return self.advance(c);
                }
            },
            State::Word(rest) => {
                let Some(rest) = rest.strip_prefix(c) else {
                    return Step::Fail;
                };
                if rest.is_empty() {
                    return self.over();
                }
                self.state = State::Word(rest);
            }
            State::Over => return Step::Before,
            State::FirstKey | State::Key | State::Colon => return Step::Fail,
        }
        Step::More
    }

    fn value(&mut self, c: char) -> Step {
        self.state = match c {
            '{' | '[' => {
                if self.stack.len() >= MOST_DEPTH {
                    return Step::Fail;
                }
                self.stack.push(c == '{');
                if c == '{' {
                    State::FirstKey
                } else {
                    State::First
                }
            }
            '"' => string(false),
            '-' => State::Number(Number::Minus),
            '0' => State::Number(Number::Zero),
            '1'..='9' => State::Number(Number::Digits),
            't' => State::Word("rue"),
            'f' => State::Word("alse"),
            'n' => State::Word("ull"),
            _ => return Step::Fail,
        };
        Step::More
    }

    fn string(&mut self, place: Place, c: char) -> Step {
        let escape = match (place.escape, c) {
            (Escape::No, '"') if place.key => {
                self.state = State::Colon;
                return Step::More;
            }
            (Escape::No, '"') => return self.over(),
            (Escape::No, '\\') => Escape::Slash,
            (Escape::No, _) => Escape::No,
            (Escape::Slash, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => Escape::No,
            (Escape::Slash, 'u') => Escape::Hex(0, 0, false),
            (Escape::LowSlash, '\\') => Escape::LowU,
            (Escape::LowU, 'u') => Escape::Hex(0, 0, true),
            (Escape::Hex(digits, number, low), c) => {
                let Some(digit) = c.to_digit(16) else {
                    return Step::Fail;
                };
                let number = number << 4 | digit;
                match (digits, number, low) {
                    (0..3, _, _) => Escape::Hex(digits + 1, number, low),
                    (_, 0xDC00..=0xDFFF, true) => Escape::No,
                    (_, _, true) | (_, 0xDC00..=0xDFFF, false) => return Step::Fail,
                    (_, 0xD800..=0xDBFF, false) => Escape::LowSlash,
                    _ => Escape::No,
                }
            }
            _ => return Step::Fail,
        };
        self.state = State::String(Place { escape, ..place });
        Step::More
    }

    fn close(&mut self, object: bool) -> Step {
        match self.stack.pop() {
            Some(open) if open == object => self.over(),
            _ => Step::Fail,
        }
    }

    /// A value is complete.
    fn over(&mut self) -> Step {
        match self.stack.is_empty() {
            true => {
                self.state = State::Over;
                Step::Done
            }
            false => {
                self.state = State::After;
                Step::More
            }
        }
    }
}

fn string(key: bool) -> State {
    State::String(Place {
        key,
        escape: Escape::No,
    })
}

/// Whether `text` is one JSON value, white space around it aside.
pub(super) fn is_json(text: &str) -> bool {
    let mut json = Json::new();
    let mut out = String::new();
    let mut chars = text.trim().chars();
    let over = chars.by_ref().find_map(|c| match json.step(c, &mut out) {
        Step::More => None,
        step => Some(step),
    });
    match over {
        None => json.complete(),
        Some(Step::Done) => chars.next().is_none(),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_json_is() {
        for text in [
            "{}",
            "[]",
            " [1, -0.5e+3, {\"a\": null}] ",
            "0",
            "-12",
            "\"\\ud83d\\ude00 \\n\"",
            "true",
        ] {
            assert!(is_json(text), "{text}");
        }
        for text in [
            "",
            "{",
            "01",
            "1.",
            "-",
            "[1,]",
            "{\"a\"}",
            "{,}",
            "tru",
            "\"\\x\"",
            "\"\\ud83d\"",
            "\"\\ude00\"",
            "1 2",
            "{]",
            "'a'",
            "nul",
            "[1 2]",
            "{\"a\":1,}",
        ] {
            assert!(!is_json(text), "{text}");
        }
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(is_json(&deep(MOST_DEPTH)) && !is_json(&deep(MOST_DEPTH + 1)));
    }

    #[test]
    fn control_characters_come_out_escaped() {
        let mut json = Json::new();
        let mut out = String::new();
        let last = "\"a\nb\tc\"".chars().map(|c| json.step(c, &mut out)).last();
        assert_eq!((out.as_str(), last), ("\"a\\nb\\tc\"", Some(Step::Done)));
    }

    proptest! {
        #[test]
        fn agrees_with_serde(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ":", ",", "\"a\"", "1", "-", "0", ".5", "e9", "true", "null", " ", "\"\\u00e9\"", "\"\\ud83d\"", "\"\\ud83d\\ude00\"", "\"", "\\",
            ]), 0..10),
        ) {
            let text = pieces.concat();
            let serde: Result<serde_json::Value, _> = serde_json::from_str(&text);
            let huge = serde.as_ref().is_err_and(|e| e.to_string().contains("out of range"));
            prop_assert!(is_json(&text) == serde.is_ok() || huge, "{}", text);
        }
    }
}
