//! Reasoning in generated text: what the model says to itself between two marks, before it answers.
//!
//! Invariants, for any text and however it is cut: what comes out does not depend on the cuts, and text and reasoning
//! together are what went in without the marks and the white space around them. Marks that are ordinary text count only
//! where reasoning is expected, at the start of an answer; those that are control tokens count anywhere.

use serde_json::{Map, Value};

use super::tools::Output;

/// How a family of models marks its reasoning.
#[derive(Debug)]
pub struct Marks {
    /// The name of the notation.
    pub name: &'static str,
    /// What opens it.
    pub open: &'static str,
    /// What closes it.
    pub close: &'static str,
    /// Whose it is.
    pub models: &'static str,
    /// Whether it may open anywhere.
    anywhere: bool,
    /// What ends it as well, and belongs to what follows.
    cut: &'static [&'static str],
}

const fn marks(
    name: &'static str,
    open: &'static str,
    close: &'static str,
    anywhere: bool,
    models: &'static str,
) -> Marks {
    Marks {
        name,
        open,
        close,
        models,
        anywhere,
        cut: &[],
    }
}

/// The notations, the more particular first.
pub static MARKS: &[Marks] = &[
    marks("gemma4", "<|channel>thought", "<channel|>", true, "Gemma 4"),
    marks(
        "seed_oss",
        "<seed:think>",
        "</seed:think>",
        false,
        "Seed OSS",
    ),
    marks(
        "longcat",
        "<longcat_think>",
        "</longcat_think>",
        false,
        "LongCat",
    ),
    marks(
        "mistral",
        "[THINK]",
        "[/THINK]",
        false,
        "Magistral, Ministral 3",
    ),
    marks(
        "cohere",
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        true,
        "Command R7B, Command A",
    ),
    marks(
        "apertus",
        "<|inner_prefix|>",
        "<|inner_suffix|>",
        true,
        "Apertus",
    ),
    marks(
        "kimi_k3",
        "<|open|>think<|sep|>",
        "<|close|>think<|sep|>",
        true,
        "Kimi K3",
    ),
    marks(
        "exaone_deep",
        "<thought>",
        "</thought>",
        false,
        "EXAONE Deep",
    ),
    marks(
        "granite",
        "Here is my thought process:",
        "Here is my response:",
        false,
        "Granite 3.2",
    ),
    Marks {
        // Kimi K2 begins its calls in the middle of a thought.
        cut: &["<|tool_calls_section_begin|>"],
        ..marks(
            "think",
            "<think>",
            "</think>",
            false,
            "DeepSeek, Qwen 3, GLM, MiniMax, Kimi K2, Nemotron, SmolLM 3 and many more",
        )
    },
];

/// The notation of this name.
pub fn by_name(name: &str) -> Option<&'static Marks> {
    MARKS.iter().find(|marks| marks.name == name)
}

/// The notation that a chat template shows, by one of its marks.
pub fn detect(template: &str) -> Option<&'static Marks> {
    MARKS
        .iter()
        .find(|marks| template.contains(marks.open) || template.contains(marks.close))
}

impl Marks {
    /// All texts that a tokenizer may have as control tokens.
    pub(super) fn markers(&self) -> Vec<&'static str> {
        let cut = self.cut.iter().copied();
        [self.open, self.close].into_iter().chain(cut).collect()
    }

    /// Where a text that ends with `prompt` leaves the model: in its reasoning, behind it, or before.
    pub fn after(&self, prompt: &str) -> Place {
        let prompt = prompt.trim_end();
        if prompt.ends_with(self.open) {
            Place::Inside
        } else if prompt.ends_with(self.close) {
            Place::Behind
        } else {
            Place::Before
        }
    }

    /// Takes the reasoning that stands in the content of former answers out of it and puts it where templates look for
    /// it, in `reasoning_content`, unless the template handles the marks in the content itself: so what the model said to
    /// itself comes back to it only if its template asks.
    pub(super) fn settle(&self, template: &str, messages: &mut [Value]) {
        if template.contains(self.close) {
            return;
        }
        for message in messages {
            let Value::Object(message) = message else {
                continue;
            };
            if message.get("role").and_then(Value::as_str) == Some("assistant") {
                self.settle_one(message);
            }
        }
    }

    fn settle_one(&self, message: &mut Map<String, Value>) {
        let Some(Value::String(content)) = message.get_mut("content") else {
            return;
        };
        let Some((before, after)) = content.split_once(self.close) else {
            return;
        };
        let before = before.trim();
        let reasoning = before.strip_prefix(self.open).unwrap_or(before).trim();
        let reasoning = reasoning.to_owned();
        *content = after.trim_start().to_owned();
        let names = ["reasoning_content", "reasoning", "thinking"];
        if !reasoning.is_empty() && !names.iter().any(|name| message.contains_key(*name)) {
            message.insert("reasoning_content".into(), Value::String(reasoning));
        }
    }
}

/// Where in an answer a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Reasoning may open.
    Before,
    /// In it.
    Inside,
    /// It is over.
    Behind,
}

/// Takes generated text apart into reasoning and the rest.
pub struct ReasoningParser {
    marks: &'static Marks,
    place: Place,
    /// White space and what may become a mark.
    held: String,
    /// White space is dropped until something else comes.
    fresh: bool,
    /// Nothing but white space came so far.
    start: bool,
    /// Reasoning was closed once.
    closed: bool,
    out: Vec<Output>,
}

enum Found {
    Open,
    Close,
    Cut,
}

impl ReasoningParser {
    /// A parser for an answer to a prompt that left the model at `place`.
    pub fn new(marks: &'static Marks, place: Place) -> ReasoningParser {
        ReasoningParser {
            marks,
            place,
            held: String::new(),
            fresh: place == Place::Inside,
            start: true,
            closed: place == Place::Behind,
            out: Vec::new(),
        }
    }

    /// Whether the text so far ends in reasoning.
    pub fn inside(&self) -> bool {
        self.place == Place::Inside
    }

    /// Takes the next text and returns what is certain.
    pub fn push(&mut self, text: &str) -> Vec<Output> {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let (plain, blank) = match self.held.trim_start().is_empty() {
                true => (self.plain(rest), rest.len() - rest.trim_start().len()),
                false => (0, 0),
            };
            let width = if plain > 0 { plain } else { blank };
            let (now, later) = rest.split_at(width.max(c.len_utf8()));
            self.held.push_str(now);
            if plain > 0 {
                let text = std::mem::take(&mut self.held);
                self.give(&text);
            } else {
                self.look();
            }
            rest = later;
        }
        std::mem::take(&mut self.out)
    }

    /// How many bytes at the beginning of `text` are part of no mark, whatever follows. They do not end in
    /// white space.
    fn plain(&self, text: &str) -> usize {
        let awaited = self.awaited();
        let begins = |c: char| awaited.iter().any(|(mark, _)| mark.starts_with(c));
        let end = text.find(begins).unwrap_or(text.len());
        text[..end].trim_end().len()
    }

    /// What was held back; the text is at its end.
    pub fn finish(&mut self) -> Vec<Output> {
        let held = std::mem::take(&mut self.held);
        if !(self.inside() && held.trim_start().is_empty()) {
            self.give(&held);
        }
        std::mem::take(&mut self.out)
    }

    /// The marks that count here.
    fn awaited(&self) -> Vec<(&'static str, Found)> {
        let marks = self.marks;
        let mut awaited = Vec::new();
        if self.inside() {
            awaited.push((marks.close, Found::Close));
            awaited.extend(marks.cut.iter().map(|&cut| (cut, Found::Cut)));
            // A model opens again what the prompt has opened.
            if self.fresh {
                awaited.push((marks.open, Found::Open));
            }
            return awaited;
        }
        if marks.anywhere || (self.place == Place::Before && self.start) {
            awaited.push((marks.open, Found::Open));
        }
        if !self.closed {
            awaited.push((marks.close, Found::Close));
        }
        awaited
    }

    fn look(&mut self) {
        while !self.held.is_empty() {
            let blank = self.held.len() - self.held.trim_start().len();
            let awaited = self.awaited();
            let candidate = &self.held[blank..];
            let Some(first) = candidate.chars().next() else {
                if self.fresh {
                    self.held.clear();
                } else if awaited.is_empty() {
                    let held = std::mem::take(&mut self.held);
                    self.give(&held);
                }
                return;
            };
            let mut whole = awaited.iter().filter(|(mark, _)| *mark == candidate);
            if let Some((mark, found)) = whole.next() {
                self.held.clear();
                match found {
                    Found::Open => self.place = Place::Inside,
                    Found::Close => {
                        if !self.inside() && !self.start {
                            self.out.push(Output::TextWasReasoning);
                        }
                        self.place = Place::Behind;
                        self.closed = true;
                    }
                    Found::Cut => {
                        self.place = Place::Behind;
                        self.closed = true;
                        self.give(mark);
                        return;
                    }
                }
                self.fresh = true;
                return;
            }
            if awaited.iter().any(|(mark, _)| mark.starts_with(candidate)) {
                return;
            }
            let text: String = self.held.drain(..blank + first.len_utf8()).collect();
            self.give(&text);
        }
    }

    fn give(&mut self, text: &str) {
        let text = match self.fresh {
            true => text.trim_start(),
            false => text,
        };
        if text.is_empty() {
            return;
        }
        self.fresh = false;
        let next = match self.inside() {
            true => Output::Reasoning(text.to_owned()),
            false => {
                self.start &= text.trim_start().is_empty();
                Output::Text(text.to_owned())
            }
        };
        Output::join(&mut self.out, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn run<'a>(name: &str, place: Place, pieces: impl IntoIterator<Item = &'a str>) -> Vec<Output> {
        let mut parser = ReasoningParser::new(by_name(name).unwrap(), place);
        let mut out = Vec::new();
        for piece in pieces {
            for next in parser.push(piece) {
                Output::join(&mut out, next);
            }
        }
        for next in parser.finish() {
            Output::join(&mut out, next);
        }
        out
    }

    fn text(text: &str) -> Output {
        Output::Text(text.into())
    }

    fn reasoning(text: &str) -> Output {
        Output::Reasoning(text.into())
    }

    #[test]
    fn reasoning_is_told_from_the_answer() {
        for (name, place, input, expected) in [
            (
                "think",
                Place::Before,
                "<think>\nwhy\n</think>\n\nso",
                vec![reasoning("why"), text("so")],
            ),
            (
                "think",
                Place::Before,
                "\n<think>\n\n</think>\n\nso ",
                vec![text("so ")],
            ),
            (
                "think",
                Place::Inside,
                "why </think>so</think>",
                vec![reasoning("why"), text("so</think>")],
            ),
            (
                "think",
                Place::Inside,
                "<think>\nwhy</think>so",
                vec![reasoning("why"), text("so")],
            ),
            (
                "think",
                Place::Inside,
                "cut off ",
                vec![reasoning("cut off")],
            ),
            (
                "think",
                Place::Behind,
                "a <think> b </think>",
                vec![text("a <think> b </think>")],
            ),
            ("think", Place::Before, "no marks ", vec![text("no marks ")]),
            (
                "think",
                Place::Before,
                "a <think> b",
                vec![text("a <think> b")],
            ),
            (
                "think",
                Place::Before,
                "why\n</think>\nso",
                vec![text("why"), Output::TextWasReasoning, text("so")],
            ),
            (
                "think",
                Place::Inside,
                "why</thin",
                vec![reasoning("why</thin")],
            ),
            (
                "think",
                Place::Inside,
                "why <|tool_calls_section_begin|>x",
                vec![reasoning("why"), text("<|tool_calls_section_begin|>x")],
            ),
            (
                "gemma4",
                Place::Before,
                "<|channel>thought\nwhy<channel|>so <|channel>thought\nbut<channel|>",
                vec![reasoning("why"), text("so"), reasoning("but")],
            ),
            (
                "mistral",
                Place::Before,
                "[THINK]why[/THINK]so",
                vec![reasoning("why"), text("so")],
            ),
            (
                "seed_oss",
                Place::Before,
                "<seed:think>why</seed:think>so",
                vec![reasoning("why"), text("so")],
            ),
            (
                "granite",
                Place::Before,
                "Here is my thought process: why\n\nHere is my response: so",
                vec![reasoning("why"), text("so")],
            ),
        ] {
            assert_eq!(run(name, place, [input]), expected, "{input}");
            let chars: Vec<String> = input.chars().map(String::from).collect();
            assert_eq!(
                run(name, place, chars.iter().map(String::as_str)),
                expected,
                "{input}"
            );
        }
    }

    #[test]
    fn the_prompts_end_says_where_the_model_is() {
        let think = by_name("think").unwrap();
        assert_eq!(think.after("<|im_start|>assistant\n"), Place::Before);
        assert_eq!(think.after("assistant\n<think>\n"), Place::Inside);
        assert_eq!(think.after("<think>\n\n</think>\n\n"), Place::Behind);
    }

    #[test]
    fn former_reasoning_is_taken_out_of_the_content() {
        let think = by_name("think").unwrap();
        let first = json!([
            {"role": "user", "content": "<think>x</think>"},
            {"role": "assistant", "content": "<think>\nwhy\n</think>\n\nso"},
            {"role": "assistant", "content": "why</think>so", "reasoning": "other"},
            {"role": "assistant", "content": "<think> open"},
        ]);
        let mut messages: Vec<Value> = first.as_array().unwrap().clone();
        think.settle("{{ message.content }}", &mut messages);
        let settled = json!([
            {"role": "user", "content": "<think>x</think>"},
            {"role": "assistant", "content": "so", "reasoning_content": "why"},
            {"role": "assistant", "content": "so", "reasoning": "other"},
            {"role": "assistant", "content": "<think> open"},
        ]);
        assert_eq!(Value::Array(messages), settled);
        let mut messages: Vec<Value> = first.as_array().unwrap().clone();
        think.settle("{{ content.split('</think>')[-1] }}", &mut messages);
        assert_eq!(Value::Array(messages), first);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_cuts_do_not_matter(
            at in 0..MARKS.len(),
            place in prop::sample::select(vec![Place::Before, Place::Inside, Place::Behind]),
            picks in prop::collection::vec(0usize..9, 0..16),
            cut in 1usize..7,
        ) {
            let marks = &MARKS[at];
            let half = |mark: &str| mark[..mark.len() / 2].to_owned();
            let words = [
                marks.open.to_owned(), marks.close.to_owned(), half(marks.open), half(marks.close),
                " ".into(), "\n".into(), "é".into(), "word".into(), "<|tool_calls_section_begin|>".into(),
            ];
            let input: String = picks.iter().map(|&pick| words[pick].as_str()).collect();
            let whole = run(marks.name, place, [input.as_str()]);
            let chars: Vec<char> = input.chars().collect();
            let pieces: Vec<String> = chars.chunks(cut).map(|piece| piece.iter().collect()).collect();
            prop_assert_eq!(&run(marks.name, place, pieces.iter().map(String::as_str)), &whole);
            // But for marks and white space, everything that went in comes out, in order.
            let out: String = whole.iter().map(|part| match part {
                Output::Text(text) | Output::Reasoning(text) => text.as_str(),
                _ => "",
            }).collect();
            let plain = |text: &str| -> String {
                text.replace(marks.open, "").replace(marks.close, "").split_whitespace().collect()
            };
            prop_assert_eq!(plain(&out), plain(&input));
        }
    }
}
