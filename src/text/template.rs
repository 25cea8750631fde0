//! Chat templates: Jinja as transformers' `apply_chat_template` renders it.
//!
//! Invariants: a template reads nothing but its variables and the clock; everything that it takes is bounded.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Map, Value};

use super::TextError;
use super::control::MARK;
use super::jinja::{Error, Kind, Limits, Program};

/// What one rendering may take; fewer steps in tests, which run slower.
const LIMITS: Limits = Limits {
    steps: if cfg!(test) { 1_000_000 } else { 20_000_000 },
    memory: 256 << 20,
    text: 16 << 20,
    time: Duration::from_secs(10),
};

/// One compiled template.
pub(super) struct Template {
    program: Program,
    source: String,
    file: String,
    /// How the template takes the content of a message, by role, as far as asked.
    pub(super) styles: Mutex<HashMap<String, super::chat::ContentStyle>>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("file", &self.file)
            .finish()
    }
}

impl Template {
    /// Compiles `source`, which stands in `file`.
    pub(super) fn new(source: &str, file: &str) -> Result<Template, TextError> {
        let program = Program::new(source).map_err(|e| failure(e, file))?;
        Ok(Template {
            program,
            source: source.to_owned(),
            file: file.to_owned(),
            styles: Mutex::default(),
        })
    }

    /// The template's source text.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template reads a variable that it does not set itself.
    fn reads(&self, variable: &str) -> bool {
        self.program.reads(variable)
    }

    /// Renders the template with these variables.
    pub(super) fn render(&self, variables: &Map<String, Value>) -> Result<String, TextError> {
        let rendered = self.program.render(variables, MARK, LIMITS);
        rendered.map_err(|e| failure(e, &self.file))
    }
}

fn failure(error: Error, file: &str) -> TextError {
    let failure = error.failure();
    let (file, line) = (file.to_owned(), failure.line.max(1));
    match failure.kind {
        Kind::Syntax => TextError::Syntax {
            file,
            line,
            reason: failure.message,
        },
        Kind::Raised => TextError::Refused {
            line,
            message: failure.message,
        },
        Kind::Runtime => TextError::Render {
            file,
            line,
            reason: failure.message,
        },
        Kind::Limit => TextError::Limit {
            limit: failure.message,
        },
    }
}

/// A model's templates and the variables that they all see.
#[derive(Debug)]
pub(super) struct Templates {
    default: Option<Result<Template, TextError>>,
    tool_use: Option<Result<Template, TextError>>,
    /// The special tokens, by the names that templates use.
    pub(super) special: Map<String, Value>,
}

impl Templates {
    /// Finds the templates: the first source that has one wins.
    pub(super) fn open(
        file: &impl Fn(&str) -> Result<Option<Vec<u8>>, TextError>,
        config: &Map<String, Value>,
        special: Map<String, Value>,
    ) -> Result<Option<Templates>, TextError> {
        let text = |name: &str| -> Result<Option<String>, TextError> {
            file(name)?
                .map(|bytes| {
                    String::from_utf8(bytes).map_err(|e| TextError::File {
                        file: name.to_owned(),
                        reason: e.to_string(),
                    })
                })
                .transpose()
        };
        let mut templates = Templates {
            default: None,
            tool_use: None,
            special,
        };
        if let Some(source) = text("chat_template.jinja")? {
            templates.default = Some(Template::new(&source, "chat_template.jinja"));
            let name = "additional_chat_templates/tool_use.jinja";
            if let Some(source) = text(name)? {
                templates.tool_use = Some(Template::new(&source, name));
            }
            return Ok(Some(templates));
        }
        if let Some(json) = text("chat_template.json")? {
            let name = "chat_template.json";
            let value: Value = serde_json::from_str(&json).map_err(|e| TextError::File {
                file: name.to_owned(),
                reason: e.to_string(),
            })?;
            let value = value.get("chat_template").unwrap_or(&value);
            if templates.take(value, name)? {
                return Ok(Some(templates));
            }
        }
        if let Some(value) = config.get("chat_template")
            && templates.take(value, "tokenizer_config.json")?
        {
            return Ok(Some(templates));
        }
        Ok(None)
    }

    /// Takes a template or a list of named ones; false for null.
    fn take(&mut self, value: &Value, file: &str) -> Result<bool, TextError> {
        match value {
            Value::Null => Ok(false),
            Value::String(source) => {
                self.default = Some(Template::new(source, file));
                Ok(true)
            }
            Value::Array(named) => {
                for entry in named {
                    let (Some(name), Some(source)) =
                        (entry["name"].as_str(), entry["template"].as_str())
                    else {
                        return Err(TextError::File {
                            file: file.to_owned(),
                            reason: "an entry of chat_template has no `name` or no `template`"
                                .to_owned(),
                        });
                    };
                    match name {
                        "default" => self.default = Some(Template::new(source, file)),
                        "tool_use" => self.tool_use = Some(Template::new(source, file)),
                        _ => {}
                    }
                }
                Ok(self.default.is_some() || self.tool_use.is_some())
            }
            _ => Err(TextError::File {
                file: file.to_owned(),
                reason: "chat_template is neither a string nor a list of named templates"
                    .to_owned(),
            }),
        }
    }

    /// The template for a dialogue with or without tools.
    pub(super) fn choose(&self, tools: bool) -> Result<&Template, TextError> {
        let chosen = match (&self.tool_use, &self.default) {
            (Some(tool_use), _) if tools => tool_use,
            (_, Some(default)) => default,
            _ => return Err(TextError::NoTemplate),
        };
        chosen.as_ref().map_err(Clone::clone)
    }

    /// The source texts of all templates that compile.
    pub(super) fn sources(&self) -> Vec<&str> {
        self.compiled().map(Template::source).collect()
    }

    /// Whether a template reads this variable.
    pub(super) fn read(&self, variable: &str) -> bool {
        self.compiled().any(|template| template.reads(variable))
    }

    fn compiled(&self) -> impl Iterator<Item = &Template> {
        let templates = [&self.default, &self.tool_use];
        let templates = templates.into_iter().flatten();
        templates.filter_map(|template| template.as_ref().ok())
    }
}

/// The special tokens that templates see as variables, from `tokenizer_config.json` first, then
/// `special_tokens_map.json`: each `*_token` given as a string or as an object with `content`.
pub(super) fn special_tokens(
    config: &Map<String, Value>,
    map: &Map<String, Value>,
) -> Map<String, Value> {
    fn content(value: &Value) -> Option<&str> {
        value.as_str().or_else(|| value.get("content")?.as_str())
    }
    let mut tokens = Map::new();
    for source in [config, map] {
        let extra = source
            .get("extra_special_tokens")
            .and_then(Value::as_object);
        let top = source.iter().filter(|(name, _)| name.ends_with("_token"));
        for (name, value) in top.chain(extra.into_iter().flatten()) {
            if let Some(content) = content(value)
                && !tokens.contains_key(name)
            {
                tokens.insert(name.clone(), Value::String(content.to_owned()));
            }
        }
        if let Some(Value::Array(items)) = source.get("additional_special_tokens")
            && !tokens.contains_key("additional_special_tokens")
        {
            let items = items
                .iter()
                .filter_map(content)
                .map(|s| Value::String(s.to_owned()));
            tokens.insert("additional_special_tokens".to_owned(), items.collect());
        }
    }
    tokens
}
