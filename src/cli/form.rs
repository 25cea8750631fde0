//! The form that an answer must have: `--json-schema` and its like, from arguments to a compiled form.

use std::path::Path;

use super::model::Opened;
use super::{Done, Failure};
use crate::sample::Form;
use crate::text::guide::{Constraint, Forms};

/// What an answer must be; one of these at most.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Form of the answer")]
#[group(multiple = false)]
pub struct FormArgs {
    /// The answer is JSON that this JSON schema describes: a file, or the schema itself
    #[arg(long, value_name = "FILE|JSON")]
    pub json_schema: Option<String>,
    /// The answer is a JSON object
    #[arg(long)]
    pub json_object: bool,
    /// The whole answer matches this regular expression
    #[arg(long, value_name = "REGEX")]
    pub regex: Option<String>,
    /// The answer is one of these texts; repeat it for each
    #[arg(long, value_name = "TEXT")]
    pub choice: Vec<String>,
    /// The answer is a text of this grammar in llguidance's variant of Lark: a file, or the grammar itself
    #[arg(long, value_name = "FILE|TEXT")]
    pub grammar: Option<String>,
}

impl FormArgs {
    /// The flag that was given, and what it asks for.
    fn constraint(&self) -> Done<Option<(&'static str, Constraint)>> {
        if let Some(text) = &self.json_schema {
            let text = match text.trim_start().starts_with('{') {
                true => text.clone(),
                false => read("--json-schema", text)?,
            };
            let schema = serde_json::from_str(&text)
                .map_err(|e| Failure::Usage(format!("--json-schema is not JSON: {e}")))?;
            return Ok(Some(("--json-schema", Constraint::JsonSchema(schema))));
        }
        if let Some(text) = &self.grammar {
            // Every grammar has a rule, and so a colon; a file's name may have one too.
            let text = match text.contains(':') && !Path::new(text).is_file() {
                true => text.clone(),
                false => read("--grammar", text)?,
            };
            return Ok(Some(("--grammar", Constraint::Lark(text))));
        }
        if let Some(regex) = &self.regex {
            return Ok(Some(("--regex", Constraint::Regex(regex.clone()))));
        }
        if !self.choice.is_empty() {
            return Ok(Some(("--choice", Constraint::Choice(self.choice.clone()))));
        }
        Ok(self
            .json_object
            .then_some(("--json-object", Constraint::JsonObject)))
    }

    /// The form, if one was asked for.
    pub fn form(&self, opened: &Opened) -> Done<Option<Form>> {
        let Some((flag, constraint)) = self.constraint()? else {
            return Ok(None);
        };
        let facts = opened.engine.handle.facts();
        let forms = Forms::new(opened.text.tokenizer(), facts.vocab_size, &facts.eos_ids);
        match forms.compile(&constraint) {
            Ok(form) => Ok(Some(form)),
            Err(e) => Err(Failure::Usage(e.at(flag))),
        }
    }
}

fn read(flag: &str, path: &str) -> Done<String> {
    std::fs::read_to_string(path)
        .map_err(|e| Failure::Usage(format!("{flag}: cannot read the file {path}: {e}")))
}
