//! Text in and out of a model: tokenizer, chat template, streaming detokenizer, stop strings, tool calls, reasoning,
//! and the forms that an answer can be held to.
//!
//! Invariants: nothing here knows arrays or does I/O but through the reader given to [`Text::open`]; a string that a
//! user supplied never becomes a control token.

mod breakers;
mod chat;
mod control;
mod detokenizer;
pub mod guide;
mod jinja;
mod parsed;
pub mod reasoning;
mod stop;
mod template;
#[cfg(test)]
mod tests;
mod tokenizer;
pub mod tools;
mod volatile;

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use breakers::DRY_SEQUENCE_BREAKERS;
pub use detokenizer::Detokenizer;
pub use parsed::{AnswerParser, Span};
pub use stop::{Piece, StopStrings};
pub use tokenizer::Tokenizer;
pub use volatile::Volatile;

use control::ControlTokens;
use parsed::Notations;
use template::Templates;

/// What can go wrong between text and tokens.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TextError {
    /// A file of the model could not be read.
    #[error("cannot read {file}: {reason}")]
    Read {
        /// The file's name in the model's directory.
        file: String,
        /// The system's own words.
        reason: String,
    },
    /// A file of the model has not the content it should have.
    #[error(
        "cannot use {file}: {reason}; the file is damaged or of a kind this version does not know: fetch the model again, or use another"
    )]
    File {
        /// The file's name in the model's directory.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A rule about volatile text is no regular expression.
    #[error("cannot use the rule {rule:?} for volatile text: {reason}")]
    Rule {
        /// The rule.
        rule: String,
        /// The parser's own words.
        reason: String,
    },
    /// The model has no `tokenizer.json`.
    #[error(
        "the model has no tokenizer.json; only fast tokenizers are read: make one where the model came from, in Python \
         with transformers: AutoTokenizer.from_pretrained(MODEL).save_pretrained(DIRECTORY)"
    )]
    NoTokenizer,
    /// The tokenizer refused a text.
    #[error("cannot tokenize the text: {reason}")]
    Encode {
        /// The tokenizer's own words.
        reason: String,
    },
    /// The model has no chat template.
    #[error(
        "the model has no chat template (no chat_template.jinja, chat_template.json, or chat_template in \
         tokenizer_config.json): use plain completion, or add chat_template.jinja to the model's directory"
    )]
    NoTemplate,
    /// The template is not valid Jinja.
    #[error(
        "the model's chat template ({file}) does not compile, line {line}: {reason}; correct it in the model's directory"
    )]
    Syntax {
        /// Where the template stands.
        file: String,
        /// The template's line, from 1.
        line: usize,
        /// What the compiler says.
        reason: String,
    },
    /// The template itself refused the dialogue.
    #[error("the model's chat template refuses this dialogue (line {line}): {message}")]
    Refused {
        /// The template's line, from 1.
        line: usize,
        /// The template's own message.
        message: String,
    },
    /// The template could not be rendered with this dialogue.
    #[error("the model's chat template ({file}) fails on this dialogue, line {line}: {reason}")]
    Render {
        /// Where the template stands.
        file: String,
        /// The template's line, from 1.
        line: usize,
        /// What the renderer says.
        reason: String,
    },
    /// Rendering went over a limit.
    #[error(
        "the model's chat template takes too much: more than {limit}; shorten the dialogue, or correct the template"
    )]
    Limit {
        /// The limit, with its unit.
        limit: String,
    },
    /// A notation was named that is not known.
    #[error("there is no notation {name:?} for {what}; known are {}", known.join(", "))]
    Notation {
        /// What it is to be a notation for.
        what: &'static str,
        /// The name given.
        name: String,
        /// The names that are known.
        known: Vec<&'static str>,
    },
    /// The dialogue itself cannot be rendered.
    #[error("the dialogue cannot be rendered: {reason}")]
    Chat {
        /// What is wrong and what was expected.
        reason: String,
    },
}

/// A dialogue, and how it is to be rendered.
#[derive(Clone, Debug, Default)]
pub struct Chat {
    /// The messages, each an object as in OpenAI's chat API.
    pub messages: Vec<Value>,
    /// The tools, a list as in OpenAI's chat API.
    pub tools: Option<Value>,
    /// Whether the text ends with the opening of an assistant's message.
    pub add_generation_prompt: bool,
    /// Whether the text ends inside the last message, for the model to go on with it.
    pub continue_final_message: bool,
    /// Further variables for the template (`chat_template_kwargs`).
    pub extra: Map<String, Value>,
}

struct Inner {
    tokenizer: Tokenizer,
    templates: Option<Templates>,
    control: ControlTokens,
}

/// A model's text side; cheap to clone and shared between threads.
#[derive(Clone)]
pub struct Text {
    inner: Arc<Inner>,
    /// What is left out of system messages.
    volatile: Option<Arc<Volatile>>,
    notations: Notations,
}

impl Text {
    /// Reads the model's text files through `read`, which returns `None` for a file that is absent: `tokenizer.json`
    /// (required), `tokenizer_config.json`, `special_tokens_map.json`, `chat_template.jinja`, `chat_template.json`,
    /// `additional_chat_templates/tool_use.jinja`.
    ///
    /// A template that does not compile is no error here but one of [`Text::render_chat`], so that such a model can
    /// still complete plain text.
    pub fn open(
        read: impl Fn(&str) -> std::io::Result<Option<Vec<u8>>>,
    ) -> Result<Text, TextError> {
        let file = |name: &str| {
            read(name).map_err(|e| TextError::Read {
                file: name.to_owned(),
                reason: e.to_string(),
            })
        };
        let object = |name: &str| -> Result<Map<String, Value>, TextError> {
            match file(name)? {
                None => Ok(Map::new()),
                Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| TextError::File {
                    file: name.to_owned(),
                    reason: e.to_string(),
                }),
            }
        };
        let tokenizer_json = file("tokenizer.json")?.ok_or(TextError::NoTokenizer)?;
        let config = object("tokenizer_config.json")?;
        let special = template::special_tokens(&config, &object("special_tokens_map.json")?);
        let eos_token = special.get("eos_token").and_then(Value::as_str);
        let tokenizer = Tokenizer::new(&tokenizer_json, eos_token)?;
        let templates = Templates::open(&file, &config, special)?;
        let sources: Vec<&str> = templates.iter().flat_map(Templates::sources).collect();
        let control = ControlTokens::new(tokenizer.special_tokens(), &sources);
        let notations = Notations::find(&config, templates.as_ref(), &tokenizer);
        Ok(Text {
            notations,
            inner: Arc::new(Inner {
                tokenizer,
                templates,
                control,
            }),
            volatile: None,
        })
    }

    /// The same, which leaves out of system messages what is volatile.
    pub fn without_volatile(self, volatile: Volatile) -> Self {
        let volatile = Some(Arc::new(volatile));
        Self { volatile, ..self }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    /// Whether the model has a chat template.
    pub fn has_template(&self) -> bool {
        self.inner.templates.is_some()
    }

    /// Renders the dialogue as the model's template wants it.
    pub fn render_chat(&self, chat: &Chat) -> Result<String, TextError> {
        Ok(control::unmark(&self.render_marked(chat)?))
    }

    /// Renders and tokenizes the dialogue; control tokens in users' strings become ordinary text.
    pub fn encode_chat(&self, chat: &Chat) -> Result<Vec<u32>, TextError> {
        self.encode_marked(&self.render_marked(chat)?)
    }

    /// Tokenizes a text in which control tokens are ordinary text.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TextError> {
        self.encode_marked(&self.inner.control.mark(text))
    }

    fn encode_marked(&self, marked: &str) -> Result<Vec<u32>, TextError> {
        let mut pieces = self.inner.control.cut(marked).into_iter();
        let mut ids = match pieces.next() {
            Some(first) => self.inner.tokenizer.encode(&first, false)?,
            None => Vec::new(),
        };
        for piece in pieces {
            ids.extend(self.inner.tokenizer.encode_continuation(&piece)?);
        }
        Ok(ids)
    }

    /// Whether a chat template of the model reads a variable of this name, which a dialogue may set
    /// in [`Chat::extra`].
    pub fn template_reads(&self, variable: &str) -> bool {
        let templates = self.inner.templates.as_ref();
        templates.is_some_and(|templates| templates.read(variable))
    }

    /// Turns ids into text, up to the first of the `stop` strings.
    pub fn stream(&self, stop: Vec<String>) -> TextStream {
        TextStream {
            detokenizer: Detokenizer::new(self.inner.tokenizer.clone()),
            stop: StopStrings::new(stop),
        }
    }

    /// Like [`Text::stream`], for ids that go on where the text of `prompt` ends: a completion.
    pub fn stream_after(&self, prompt: &[u32], stop: Vec<String>) -> TextStream {
        TextStream {
            detokenizer: Detokenizer::after(self.inner.tokenizer.clone(), prompt),
            stop: StopStrings::new(stop),
        }
    }

    fn render_marked(&self, chat: &Chat) -> Result<String, TextError> {
        let templates = self.inner.templates.as_ref().ok_or(TextError::NoTemplate)?;
        chat::render(
            templates,
            &self.inner.control,
            chat,
            self.volatile.as_deref(),
        )
    }
}

/// Ids to text, up to the first stop string.
pub struct TextStream {
    detokenizer: Detokenizer,
    stop: StopStrings,
}

impl TextStream {
    /// Shows these control tokens as text.
    pub fn show(&mut self, tokens: &HashSet<u32>) {
        self.detokenizer.show(tokens);
    }

    /// Whether the token is a control token that shows as text.
    pub fn shows(&self, id: u32) -> bool {
        self.detokenizer.shows(id)
    }

    /// Takes the next id and returns the text that is now certain; after a stop string, nothing more.
    pub fn push(&mut self, id: u32) -> Piece {
        let text = self.detokenizer.push(id);
        self.stop.push(&text)
    }

    /// The stop string that ended the text, if one did.
    pub fn matched(&self) -> Option<&str> {
        self.stop.matched()
    }

    /// What was held back; call it at the end unless stopped.
    pub fn finish(&mut self) -> String {
        let rest = self.detokenizer.finish();
        let mut text = self.stop.push(&rest).text;
        text.push_str(&self.stop.finish().text);
        text
    }
}
