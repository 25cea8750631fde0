//! Tool calls in generated text: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.
//!
//! Invariants: nothing is lost. What is not a valid call comes back as text, exactly; only white space directly before
//! a valid call is dropped. Text goes out as soon as it cannot be part of a call.

use serde_json::{Map, Value};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A part of the generated text.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolPiece {
    /// Ordinary text.
    Text(String),
    /// A whole, valid call.
    Call {
        /// The tool's name, not empty.
        name: String,
        /// The arguments, an object.
        arguments: Value,
    },
}

/// Finds tool calls in text that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct ToolCallParser {
    held: String,
    /// Where `OPEN` begins in `held`, once it is there.
    open: Option<usize>,
    /// A search for `CLOSE` goes on from here.
    searched: usize,
}

enum Body {
    Call {
        name: String,
        arguments: Value,
    },
    /// The text so far may still become a call.
    Unfinished,
    Malformed,
}

impl ToolCallParser {
    /// A parser at the start of a text.
    pub fn new() -> ToolCallParser {
        ToolCallParser::default()
    }

    /// Takes the next text and returns what is certain.
    pub fn push(&mut self, text: &str) -> Vec<ToolPiece> {
        self.held.push_str(text);
        let mut out = Vec::new();
        loop {
            let Some(open) = self.open else {
                if let Some(at) = self.held.find(OPEN) {
                    // White space before a call belongs to the call, if it is one.
                    let start = self.held[..at].trim_end().len();
                    emit(&mut out, self.held.drain(..start).collect());
                    self.open = Some(at - start);
                    self.searched = at - start + OPEN.len();
                    continue;
                }
                let end = certain(&self.held);
                emit(&mut out, self.held.drain(..end).collect());
                return out;
            };
            let body = open + OPEN.len();
            let first = self.held[body..].trim_start().chars().next();
            if first.is_some_and(|c| c != '{') {
                self.give_up(&mut out, body);
                continue;
            }
            let Some(at) = self.held[self.searched..].find(CLOSE) else {
                let mut from = self
                    .held
                    .len()
                    .saturating_sub(CLOSE.len() - 1)
                    .max(self.searched);
                while !self.held.is_char_boundary(from) {
                    from -= 1;
                }
                self.searched = from;
                return out;
            };
            let close = self.searched + at;
            match parse(&self.held[body..close]) {
                Body::Call { name, arguments } => {
                    out.push(ToolPiece::Call { name, arguments });
                    self.held.drain(..close + CLOSE.len());
                    self.open = None;
                }
                // The closing tag may stand in a string of the arguments.
                Body::Unfinished => self.searched = close + CLOSE.len(),
                Body::Malformed => self.give_up(&mut out, body),
            }
        }
    }

    /// What was held back; the text is at its end.
    pub fn finish(&mut self) -> Vec<ToolPiece> {
        let mut out = Vec::new();
        // An unfinished call may hide a whole one behind its opening tag.
        while let Some(open) = self.open {
            self.give_up(&mut out, open + OPEN.len());
            out.extend(self.push(""));
        }
        emit(&mut out, std::mem::take(&mut self.held));
        join_text(out)
    }

    /// The opening tag was text; what follows it is looked at afresh.
    fn give_up(&mut self, out: &mut Vec<ToolPiece>, body: usize) {
        emit(out, self.held.drain(..body).collect());
        self.open = None;
    }
}

fn emit(out: &mut Vec<ToolPiece>, text: String) {
    if !text.is_empty() {
        out.push(ToolPiece::Text(text));
    }
}

fn join_text(pieces: Vec<ToolPiece>) -> Vec<ToolPiece> {
    let mut out: Vec<ToolPiece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match (out.last_mut(), piece) {
            (Some(ToolPiece::Text(before)), ToolPiece::Text(text)) => before.push_str(&text),
            (_, piece) => out.push(piece),
        }
    }
    out
}

/// How much of `text` cannot belong to a call that follows.
fn certain(text: &str) -> usize {
    let tag = (1..OPEN.len())
        .rev()
        .find(|&n| text.ends_with(&OPEN[..n]))
        .unwrap_or(0);
    text[..text.len() - tag].trim_end().len()
}

fn parse(body: &str) -> Body {
    let value: Value = match serde_json::from_str(body.trim()) {
        Ok(value) => value,
        Err(e) if e.is_eof() => return Body::Unfinished,
        Err(_) => return Body::Malformed,
    };
    let Value::Object(mut call) = value else {
        return Body::Malformed;
    };
    let Some(Value::String(name)) = call.remove("name") else {
        return Body::Malformed;
    };
    let arguments = match call.remove("arguments") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(_) => return Body::Malformed,
        },
        Some(value) => value,
    };
    if name.is_empty() || !arguments.is_object() {
        return Body::Malformed;
    }
    Body::Call { name, arguments }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn run<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Vec<ToolPiece> {
        let mut parser = ToolCallParser::new();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(parser.push(piece));
        }
        out.extend(parser.finish());
        join_text(out)
    }

    fn text(text: &str) -> ToolPiece {
        ToolPiece::Text(text.to_owned())
    }

    fn call(name: &str, arguments: Value) -> ToolPiece {
        ToolPiece::Call {
            name: name.to_owned(),
            arguments,
        }
    }

    const TWO: &str = "Let me look.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"b\", \"arguments\": \"{\\\"y\\\": [2]}\"}\n</tool_call>";

    #[test]
    fn several_calls_and_the_text_before() {
        let expected = vec![
            text("Let me look."),
            call("a", json!({"x": 1})),
            call("b", json!({"y": [2]})),
        ];
        assert_eq!(run([TWO]), expected);
        let chars: Vec<String> = TWO.chars().map(String::from).collect();
        assert_eq!(run(chars.iter().map(String::as_str)), expected);
    }

    #[test]
    fn text_after_a_call_stays_with_its_white_space() {
        let input = "<tool_call>{\"name\":\"a\"}</tool_call>\n done\n";
        assert_eq!(run([input]), vec![call("a", json!({})), text("\n done\n")]);
    }

    #[test]
    fn text_is_passed_on_early() {
        let mut parser = ToolCallParser::new();
        assert_eq!(parser.push("hello wor"), vec![text("hello wor")]);
        assert_eq!(parser.push("ld \n<tool"), vec![text("ld")]);
        assert_eq!(parser.push("box>"), vec![text(" \n<toolbox>")]);
        assert_eq!(
            parser.push("<tool_call>no json"),
            vec![text("<tool_call>"), text("no json")]
        );
    }

    #[test]
    fn a_closing_tag_in_a_string_does_not_end_the_call() {
        let input =
            "<tool_call>{\"name\":\"w\",\"arguments\":{\"s\":\"</tool_call>\"}}</tool_call>";
        assert_eq!(run([input]), vec![call("w", json!({"s": "</tool_call>"}))]);
    }

    #[test]
    fn a_whole_call_behind_a_broken_one_is_found() {
        let good = "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>";
        assert_eq!(
            run(["<tool_call>oops ", good]),
            vec![text("<tool_call>oops"), call("a", json!({}))]
        );
        let broken = "<tool_call>{\"name\": \"x\", ";
        assert_eq!(
            run([broken, good]),
            vec![text(broken.trim_end()), call("a", json!({}))]
        );
    }

    #[test]
    fn malformed_and_unfinished_calls_are_text() {
        for input in [
            "a <tool_call>{\"name\": \"x\"",
            "<tool_call>{\"name\": 3}</tool_call> b",
            "<tool_call>[]</tool_call>",
            "<tool_call>{\"name\":\"x\",\"arguments\":7}</tool_call>",
            "<tool_call>{\"name\":\"x\",\"arguments\":\"oops\"}</tool_call>",
            "<tool_call>{\"name\":\"\"}</tool_call>",
            "</tool_call> \n",
            "<tool_call>",
            " \n ",
        ] {
            assert_eq!(run([input]), vec![text(input)], "{input}");
        }
    }

    proptest! {
        #[test]
        fn without_a_valid_call_nothing_changes(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "<tool_call>", "</tool_call>", "<tool", "_call>", "{\"name\": ", "\"f\"", "{", "}", "\"", " ", "\n", "é", "x", "<",
                ]),
                0..24,
            ),
        ) {
            let out = run(pieces.iter().copied());
            if out.iter().all(|piece| matches!(piece, ToolPiece::Text(_))) {
                let joined: String = out.iter().map(|piece| match piece {
                    ToolPiece::Text(text) => text.as_str(),
                    ToolPiece::Call { .. } => "",
                }).collect();
                prop_assert_eq!(joined, pieces.concat());
            }
        }

        #[test]
        fn cutting_the_input_changes_nothing(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "<tool_call>", "</tool_call>", "{\"name\":\"f\",\"arguments\":{\"é\":1}}", "{", " \n", "é", "<tool_c", "text",
                ]),
                0..12,
            ),
        ) {
            let whole = pieces.concat();
            let chars: Vec<String> = whole.chars().map(String::from).collect();
            prop_assert_eq!(run([whole.as_str()]), run(chars.iter().map(String::as_str)));
        }
    }
}
