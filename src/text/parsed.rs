//! Generated text taken apart: reasoning, text and tool calls, as the model's own notations mark them.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::reasoning::{self, Marks, Place, ReasoningParser};
use super::template::Templates;
use super::tokenizer::Tokenizer;
use super::tools::{self, Demand, Notation, Output, Spelling, ToolParser, Tools};
use super::{Text, TextError};

/// Tokens at a prompt's end that are looked at for a mark of reasoning.
const TAIL: usize = 16;

/// A model's notations.
#[derive(Clone)]
pub(super) struct Notations {
    calls: &'static Notation,
    /// `None` where nothing is known of it.
    reasoning: Option<&'static Marks>,
    /// The templates' sources.
    template: Arc<str>,
}

impl Notations {
    /// Finds them: what the model's files name, else what its template shows, else what its tokens tell; calls are in
    /// Hermes's notation if nothing tells another.
    pub(super) fn find(
        config: &Map<String, Value>,
        templates: Option<&Templates>,
        tokenizer: &Tokenizer,
    ) -> Notations {
        let sources: Vec<&str> = templates.map(Templates::sources).unwrap_or_default();
        let named = config.get("tool_parser_type").and_then(Value::as_str);
        let known = |tokens: &[&str]| tokens.iter().all(|token| tokenizer.id(token).is_some());
        let by_tokens = || {
            let name = if known(&["<|tool_call_start|>", "<|tool_call_end|>"]) {
                "lfm2"
            } else if known(&["<|open|>", "<|close|>", "<|sep|>"]) {
                "kimi_k3"
            } else {
                "hermes"
            };
            tools::by_name(name)
        };
        // The template for tools comes last.
        let mut by_template = sources
            .iter()
            .rev()
            .filter_map(|source| tools::detect(source));
        let calls = named
            .and_then(tools::by_name)
            .or_else(|| by_template.next())
            .or_else(by_tokens)
            .unwrap_or(tools::USUAL);
        let mut by_template = sources
            .iter()
            .filter_map(|source| reasoning::detect(source));
        let reasoning = by_template.next().or_else(|| {
            let mut all = reasoning::MARKS.iter();
            all.find(|marks| known(&[marks.open, marks.close]))
        });
        Notations {
            calls,
            reasoning,
            template: sources.join("\n").into(),
        }
    }
}

/// Takes an answer's text apart.
#[derive(Default)]
pub struct AnswerParser {
    reasoning: Option<ReasoningParser>,
    tools: Option<ToolParser>,
    /// The last part was reasoning.
    in_reasoning: bool,
    shown: HashSet<u32>,
}

impl AnswerParser {
    /// The control tokens that are to stand in the text, because they are marks of a notation.
    pub fn shown(&self) -> &HashSet<u32> {
        &self.shown
    }

    /// Whether the text so far ends in reasoning.
    pub fn in_reasoning(&self) -> bool {
        match &self.reasoning {
            Some(reasoning) => reasoning.inside(),
            None => self.in_reasoning,
        }
    }

    /// Takes the next text and returns what is certain.
    pub fn push(&mut self, text: &str) -> Vec<Output> {
        let parts = match &mut self.reasoning {
            Some(reasoning) => reasoning.push(text),
            None => vec![Output::Text(text.to_owned())],
        };
        let mut out = Vec::new();
        self.take(parts, &mut out);
        out
    }

    /// What was held back; the text is at its end.
    pub fn finish(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        if let Some(reasoning) = &mut self.reasoning {
            let parts = reasoning.finish();
            self.take(parts, &mut out);
        }
        if let Some(tools) = &mut self.tools {
            for part in tools.finish() {
                Output::join(&mut out, part);
            }
        }
        out
    }

    fn take(&mut self, parts: Vec<Output>, out: &mut Vec<Output>) {
        for part in parts {
            match (part, &mut self.tools) {
                (Output::Text(text), Some(tools)) => {
                    for part in tools.push(&text) {
                        self.in_reasoning = matches!(part, Output::Reasoning(_));
                        Output::join(out, part);
                    }
                }
                (part, _) => Output::join(out, part),
            }
        }
    }
}

/// Reasoning at the beginning of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What opens it; empty if it is open already.
    pub open: String,
    /// What it ends with.
    pub close: String,
    /// What to write in the middle of it to end it: `close`, and before that what must come first.
    pub closing: String,
}

impl Text {
    /// Names the notations for calls and for reasoning instead of finding them in the model's files; `none` turns one
    /// off.
    ///
    /// # Errors
    /// If a name is not known.
    pub fn with_notations(
        mut self,
        calls: Option<&str>,
        reasoning: Option<&str>,
    ) -> Result<Text, TextError> {
        if let Some(name) = calls {
            self.notations.calls = tools::by_name(name).ok_or_else(|| TextError::Notation {
                what: "tool calls",
                name: name.to_owned(),
                known: tools::FORMATS.iter().map(|known| known.name).collect(),
            })?;
        }
        match reasoning {
            None => {}
            Some("none") => self.notations.reasoning = None,
            Some(name) => {
                let marks = reasoning::by_name(name).ok_or_else(|| TextError::Notation {
                    what: "reasoning",
                    name: name.to_owned(),
                    known: reasoning::MARKS.iter().map(|known| known.name).collect(),
                })?;
                self.notations.reasoning = Some(marks);
            }
        }
        Ok(self)
    }

    /// The model's notation for tool calls.
    pub fn notation(&self) -> &'static Notation {
        self.notations.calls
    }

    /// The model's marks of reasoning; `None` if it has none, or if its notation for calls tells reasoning itself.
    pub fn reasoning_marks(&self) -> Option<&'static Marks> {
        match self.notations.calls.separates_reasoning() {
            true => None,
            false => self.notations.reasoning,
        }
    }

    /// A parser for the answer to `prompt`; calls are looked for if `tools`, a list as in OpenAI's chat API, is given.
    pub fn answer_parser(&self, prompt: &[u32], tools: Option<&Value>) -> AnswerParser {
        let notation = self.notation();
        let marks = self.reasoning_marks();
        let reasoning = marks.map(|marks| ReasoningParser::new(marks, self.place(marks, prompt)));
        let parser = match tools {
            Some(tools) => Some(notation.parser(&Arc::new(Tools::new(tools)))),
            None => notation.parser_without_calls(),
        };
        let mut markers = Vec::new();
        if let Some(marks) = marks {
            markers.extend(marks.markers());
        }
        if parser.is_some() {
            markers.extend(notation.markers());
        }
        AnswerParser {
            reasoning,
            tools: parser,
            in_reasoning: false,
            shown: self.control_tokens_in(&markers),
        }
    }

    /// Where the answer to `prompt` may have reasoning at its beginning.
    pub fn reasoning_span(&self, prompt: &[u32]) -> Option<Span> {
        if self.notation().name == "harmony" {
            // Channels other than the final one come first, and say what they are.
            let last = "<|channel|>final<|message|>";
            return Some(Span {
                open: String::new(),
                close: last.into(),
                closing: format!("<|end|><|start|>assistant{last}"),
            });
        }
        let marks = self.reasoning_marks()?;
        let open = match self.place(marks, prompt) {
            Place::Inside => String::new(),
            Place::Before => marks.open.to_owned(),
            Place::Behind => return None,
        };
        Some(Span {
            open,
            close: marks.close.into(),
            closing: marks.close.into(),
        })
    }

    /// A grammar, in llguidance's Lark dialect, of answers to `prompt` that call one of `tools` (several if `parallel`),
    /// after reasoning where the model reasons.
    pub fn calls_grammar(&self, prompt: &[u32], tools: &Value, parallel: bool) -> String {
        let marks = self.reasoning_marks();
        let reasoning = marks.and_then(|marks| match self.place(marks, prompt) {
            Place::Inside => Some((String::new(), marks.close.to_owned())),
            Place::Before => Some((marks.open.to_owned(), marks.close.to_owned())),
            Place::Behind => None,
        });
        let tokenizer = self.tokenizer();
        let special = tokenizer.special_tokens().iter();
        let spelling =
            Spelling::new(special.filter_map(|token| Some((token.clone(), tokenizer.id(token)?))));
        let demand = Demand {
            tools: Tools::new(tools).0,
            parallel,
            reasoning,
        };
        self.notation().grammar(&demand, &spelling)
    }

    /// Takes reasoning out of the content of former answers, unless the template handles it there itself.
    pub fn settle_reasoning(&self, messages: &mut [Value]) {
        if let Some(marks) = self.reasoning_marks() {
            marks.settle(&self.notations.template, messages);
        }
    }

    fn place(&self, marks: &Marks, prompt: &[u32]) -> Place {
        let tail = &prompt[prompt.len().saturating_sub(TAIL)..];
        marks.after(&self.tokenizer().decode(tail, false))
    }

    fn control_tokens_in(&self, markers: &[&str]) -> HashSet<u32> {
        let tokenizer = self.tokenizer();
        let special = tokenizer.special_tokens().iter();
        special
            .filter(|token| markers.iter().any(|marker| marker.contains(token.as_str())))
            .filter_map(|token| tokenizer.id(token))
            .collect()
    }
}
