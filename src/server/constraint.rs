//! The form that an answer must have, as the dialects ask for it: a JSON schema, any JSON object, a
//! regular expression, one of several texts, or a grammar.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::App;
use super::error::ApiError;
use super::fields::Fields;
use super::options::strings;
use crate::sample::Form;
use crate::text::guide::{Constraint, FormError, FormErrorKind};

/// The most texts of a choice.
const MAX_CHOICES: usize = 4096;

/// Compiles a form for the served model.
pub type Compile = Arc<dyn Fn(&Constraint) -> Result<Form, FormError> + Send + Sync>;

/// A form that was asked for, and the field that asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The form.
    pub constraint: Constraint,
    /// The field's path.
    pub param: String,
}

impl Wanted {
    /// The compiled form.
    ///
    /// # Errors
    /// If there is no compiler, or it does not take this form.
    pub fn compile(&self, app: &App) -> Result<Form, ApiError> {
        let param = &self.param;
        let Some(compile) = &app.forms else {
            let message =
                format!("`{param}` asks for a form, but this server cannot constrain answers");
            return Err(ApiError::field(param, message).code("unsupported_value"));
        };
        compile(&self.constraint).map_err(|error| {
            let mut refused = ApiError::field(param, error.at(param));
            match error.kind {
                FormErrorKind::Invalid | FormErrorKind::TooComplex => refused,
                FormErrorKind::Tokenizer => refused.code("unsupported_value"),
                FormErrorKind::Busy => {
                    refused.status = StatusCode::SERVICE_UNAVAILABLE;
                    refused.code("queue_full")
                }
            }
        })
    }
}

/// Takes the form out of a request's fields: OpenAI's `response_format` and the extensions of
/// llama-server and vLLM.
///
/// # Errors
/// More than one form, or one that is malformed.
pub fn read(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<Option<Wanted>, ApiError> {
    let mut found: Vec<Wanted> = Vec::new();
    let mut add = |param: String, constraint| found.push(Wanted { constraint, param });
    if let Some(format) = fields.object("response_format")?
        && let Some(wanted) = response_format(format, ignored)?
    {
        add(wanted.param, wanted.constraint);
    }
    extensions(fields, "", &mut add)?;
    extensions(fields, "guided_", &mut add)?;
    if let Some(mut outputs) = fields.object("structured_outputs")? {
        extensions(&mut outputs, "", &mut add)?;
        ignored.extend(outputs.rest());
    }
    if let [_, second, ..] = &found[..] {
        let message = format!(
            "`{}` and `{}` both ask for a form; give one of them",
            found[0].param, second.param
        );
        return Err(ApiError::field(&second.param, message));
    }
    Ok(found.pop())
}

fn extensions(
    fields: &mut Fields,
    prefix: &str,
    add: &mut impl FnMut(String, Constraint),
) -> Result<(), ApiError> {
    for kind in ["json_schema", "json"] {
        let name = format!("{prefix}{kind}");
        let path = fields.path(&name);
        let schema = match fields.take(&name) {
            // vLLM takes the schema's text too.
            Some(Value::String(text)) => serde_json::from_str(&text).map_err(|error| {
                ApiError::field(&path, format!("`{path}` is not valid JSON: {error}"))
            })?,
            Some(schema) => schema,
            None => continue,
        };
        add(path.clone(), schema_constraint(schema, &path)?);
    }
    let name = format!("{prefix}regex");
    if let Some(regex) = fields.string(&name)? {
        add(fields.path(&name), Constraint::Regex(regex));
    }
    let name = format!("{prefix}grammar");
    if let Some(grammar) = fields.string(&name)? {
        add(fields.path(&name), Constraint::Lark(grammar));
    }
    let name = format!("{prefix}choice");
    let path = fields.path(&name);
    if let Some(choices) = strings(fields, &name, MAX_CHOICES)? {
        if choices.is_empty() {
            let message = format!("`{path}` is empty; give at least one text");
            return Err(ApiError::field(path, message));
        }
        add(path, Constraint::Choice(choices));
    }
    Ok(())
}

/// OpenAI's `response_format`, or Anthropic's `output_config.format`; nothing for plain text.
///
/// # Errors
/// A type that is not known, or a schema that is none.
pub fn response_format(
    mut format: Fields,
    ignored: &mut Vec<String>,
) -> Result<Option<Wanted>, ApiError> {
    let kind = format.required_string("type")?;
    let mut param = format.path("type");
    let constraint = match kind.as_str() {
        "text" => None,
        "json_object" => {
            // llama-server takes a schema here.
            let path = format.path("schema");
            Some(match format.take("schema") {
                Some(schema) => {
                    let constraint = schema_constraint(schema, &path)?;
                    param = path;
                    constraint
                }
                None => Constraint::JsonObject,
            })
        }
        "json_schema" => {
            // Anthropic's `schema` stands beside the type, OpenAI's inside `json_schema`.
            let path = format.path("schema");
            if let Some(schema) = format.take("schema") {
                ignored.extend(format.rest());
                let constraint = schema_constraint(schema, &path)?;
                let param = path;
                return Ok(Some(Wanted { constraint, param }));
            }
            let Some(mut named) = format.object("json_schema")? else {
                return Err(format.missing("json_schema"));
            };
            named.string("name")?;
            named.string("description")?;
            // Without `strict` a schema may be ignored; it is followed all the same.
            named.boolean("strict")?;
            let path = named.path("schema");
            let schema = named.take("schema").unwrap_or_else(|| json!({}));
            ignored.extend(named.rest());
            let constraint = schema_constraint(schema, &path)?;
            param = path;
            Some(constraint)
        }
        "grammar" => Some(Constraint::Lark(format.required_string("grammar")?)),
        "regex" => Some(Constraint::Regex(format.required_string("pattern")?)),
        _ => {
            let path = format.path("type");
            let message = format!(
                "`{path}` is {kind:?}, expected one of text, json_object, json_schema, regex, grammar"
            );
            return Err(ApiError::field(path, message).code("unsupported_value"));
        }
    };
    ignored.extend(format.rest());
    Ok(constraint.map(|constraint| Wanted { constraint, param }))
}

fn schema_constraint(schema: Value, path: &str) -> Result<Constraint, ApiError> {
    match schema {
        Value::Object(_) | Value::Bool(_) => Ok(Constraint::JsonSchema(schema)),
        other => Err(super::fields::wrong_type(path, &other, "a JSON schema")),
    }
}
