//! Chat templates: Jinja as transformers' `apply_chat_template` renders it.
//!
//! Invariants: a template reads nothing but its variables; its instructions, recursion, memory, time and output are
//! bounded.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Mutex;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

use super::TextError;
use super::{budget, pycompat};

/// Instructions that one rendering may take; fewer in tests, which run slower.
const FUEL: u64 = if cfg!(test) { 1_000_000 } else { 20_000_000 };
/// Bytes of plain text that they may put together, as far as that leaves [`LEAST_FUEL`].
const PLAIN_TEXT: u64 = 1 << 30;
/// Instructions for the longest of dialogues.
const LEAST_FUEL: u64 = 500_000;
/// Bytes that one rendering may write.
const OUTPUT_LIMIT: usize = 8 << 20;
const NAME: &str = "chat_template";

/// One compiled template.
pub(super) struct Template {
    env: Environment<'static>,
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
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        let syntax = syntax.map_err(|e| failure(&e, file))?;
        env.set_syntax(syntax.clone());
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_undefined_behavior(UndefinedBehavior::Lenient);
        let plain = source.split(['{', '}']).map(str::len).max().unwrap_or(0);
        let most = PLAIN_TEXT / (plain as u64).max(1);
        env.set_fuel(Some(most.clamp(LEAST_FUEL, FUEL)));
        pycompat::install(&mut env);
        budget::install(&mut env);
        let charged = budget::charged(&plain_generation_tags(&source), syntax);
        env.add_template_owned(NAME, charged)
            .map_err(|e| TextError::Syntax {
                file: file.to_owned(),
                line: e.line().unwrap_or(1),
                reason: reason(&e),
            })?;
        Ok(Template {
            env,
            source,
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
        let template = self.env.get_template(NAME);
        template.is_ok_and(|template| template.undeclared_variables(false).contains(variable))
    }

    /// Renders the template with these variables.
    pub(super) fn render(&self, variables: Map<String, Value>) -> Result<String, TextError> {
        let context = variables
            .into_iter()
            .map(|(name, value)| (name, pycompat::from_json(value)));
        let context = minijinja::Value::from_pairs(context);
        let mut out = Limited(Vec::new());
        budget::begin();
        let template = self
            .env
            .get_template(NAME)
            .map_err(|e| failure(&e, &self.file))?;
        if let Err(e) = template.render_captured_to(context, &mut out) {
            return Err(if out.0.len() > OUTPUT_LIMIT {
                TextError::Limit {
                    limit: format!("{} MiB of text", OUTPUT_LIMIT >> 20),
                }
            } else {
                failure(&e, &self.file)
            });
        }
        Ok(String::from_utf8_lossy(&out.0).into_owned())
    }
}

struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        if self.0.len() > OUTPUT_LIMIT {
            return Err(io::Error::other("output limit"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

fn failure(error: &minijinja::Error, file: &str) -> TextError {
    let line = error.line().unwrap_or(1);
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut innermost = error;
    while let Some(current) = cause {
        if let Some(raised) = current.downcast_ref::<pycompat::Raised>() {
            return TextError::Refused {
                line,
                message: raised.0.clone(),
            };
        }
        if let Some(exhausted) = current.downcast_ref::<budget::Exhausted>() {
            return TextError::Limit {
                limit: exhausted.0.clone(),
            };
        }
        if let Some(inner) = current.downcast_ref::<minijinja::Error>() {
            innermost = inner;
        }
        cause = current.source();
    }
    if innermost.kind() == ErrorKind::OutOfFuel {
        return TextError::Limit {
            limit: "the steps that a dialogue takes at most".to_owned(),
        };
    }
    TextError::Render {
        file: file.to_owned(),
        line: innermost.line().unwrap_or(line),
        reason: reason(innermost),
    }
}

/// `{% generation %}` marks what the assistant wrote, for training; here it is a scope and nothing more.
fn plain_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let name = tag[2..end]
            .trim_start_matches(['-', '+'])
            .trim_end_matches(['-', '+'])
            .trim();
        match name {
            "generation" => out.push_str(&tag.replace("generation", "with")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endwith")),
            _ => {
                // The tag may hold "{%" in a string: go on right behind the opening.
                out.push_str("{%");
                rest = &rest[at + 2..];
                continue;
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
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
