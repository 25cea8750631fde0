//! A dialogue of any dialect, brought to the one shape that chat templates take: OpenAI's messages
//! and tools.

use serde_json::{Map, Value, json};

use super::App;
use super::answer::Calls;
use super::ask::Prompt;
use super::calling;
use super::constraint::Wanted;
use super::error::ApiError;
use super::fields::Fields;
use super::thinking;
use crate::sample::Form;
use crate::text::guide::Constraint;
use crate::text::{Chat, TextError};

/// Variables of a template that are not the client's to set.
const RESERVED: [&str; 3] = ["messages", "tools", "add_generation_prompt"];
/// Variables with which templates let thinking be switched on and off.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];

/// Whether the model is to call tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// It is not told of any.
    None,
    /// As it likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// Whether the model is to think before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Thinking {
    /// As its template has it.
    #[default]
    Unset,
    /// It is not.
    Off,
    /// It is, with so many tokens if a number is given.
    On(Option<usize>),
}

/// What is to be answered.
#[derive(Clone, Debug, Default)]
pub struct Dialogue {
    /// Messages as in OpenAI's chat API, contents as templates take them.
    pub messages: Vec<Value>,
    /// Tools as in OpenAI's chat API.
    pub tools: Vec<Value>,
    /// Whether they are to be called.
    pub choice: Choice,
    /// Whether calls must have the form that their tools' schemas say.
    pub strict: bool,
    /// Whether one answer may call several.
    pub parallel: bool,
    /// Whether the answer goes on with the last message.
    pub continues: bool,
    /// Whether and how much to think.
    pub thinking: Thinking,
    /// How hard to think, for templates with `reasoning_effort`.
    pub effort: Option<&'static str>,
    /// Further variables for the template.
    pub extra: Map<String, Value>,
}

impl Dialogue {
    /// Whether the model is told of tools.
    fn offers_tools(&self) -> bool {
        !self.tools.is_empty() && self.choice != Choice::None
    }

    /// How the answer is read.
    pub fn calls(&self) -> Calls {
        let offered = self.offers_tools();
        Calls::Parsed {
            tools: offered.then(|| Value::Array(self.tools.clone())),
            one: !self.parallel,
        }
    }

    /// Refuses what the choice of tools asks for and cannot be had.
    ///
    /// # Errors
    /// A choice of a tool that is not given, or of any if there is none.
    pub fn check_choice(&self) -> Result<(), ApiError> {
        let names = || {
            let names = self.tools.iter();
            names.filter_map(|tool| tool["function"]["name"].as_str())
        };
        match &self.choice {
            Choice::None | Choice::Auto => Ok(()),
            Choice::Required if !self.tools.is_empty() => Ok(()),
            Choice::Required => Err(ApiError::field(
                "tool_choice",
                "`tool_choice` asks for a call, but `tools` is empty",
            )),
            Choice::Named(name) if names().any(|given| given == name) => Ok(()),
            Choice::Named(name) => {
                let message = format!(
                    "`tool_choice` names {name:?}, which is not in `tools`: {}",
                    names().collect::<Vec<_>>().join(", ")
                );
                Err(ApiError::field("tool_choice", message))
            }
        }
    }

    /// The form of the answer to `prompt`: the one that is `wanted`, or one that makes sure of the calls
    /// that are asked for. Reasoning comes before it, `budget` tokens of it at most.
    ///
    /// # Errors
    /// If answers cannot be held to such a form.
    pub fn form(
        &self,
        app: &App,
        prompt: &Prompt,
        wanted: Option<&Wanted>,
        budget: Option<usize>,
    ) -> Result<Option<Form>, ApiError> {
        let calls = matches!(self.choice, Choice::Required | Choice::Named(_));
        match wanted {
            Some(wanted) if calls => {
                let param = &wanted.param;
                let message = format!(
                    "`{param}` asks for a form, but `tool_choice` for a call; give one of them"
                );
                Err(ApiError::field(param, message))
            }
            // The calls' own grammar has a place for reasoning.
            None if calls => self.calls_form(app, &prompt.ids),
            None if self.strict && self.offers_tools() => self.strict_form(app, budget),
            None => Ok(thinking::around(app, prompt, None, budget)),
            Some(wanted) => {
                let form = wanted.compile(app)?;
                Ok(thinking::around(app, prompt, Some(form), budget))
            }
        }
    }

    /// The form that makes sure of calls if the model makes any.
    fn strict_form(&self, app: &App, budget: Option<usize>) -> Result<Option<Form>, ApiError> {
        if budget.is_some() {
            let message =
                "a budget for reasoning and `strict` tools cannot be had together; leave one out";
            return Err(ApiError::field("tools", message).code("unsupported_value"));
        }
        // What came before a call does not matter to it.
        let Some(calls) = self.calls_form(app, &[])? else {
            return Ok(None);
        };
        let notation = app.text.notation();
        let form = calling::within(app.text.tokenizer(), &notation.openers(), calls);
        if form.is_none() {
            let message = format!(
                "`strict` tools need marks around calls, which this model's notation ({}) has not; leave `strict` out, or use `tool_choice`",
                notation.name
            );
            return Err(ApiError::field("tools", message).code("unsupported_value"));
        }
        Ok(form)
    }

    /// The form that makes sure of the calls that are asked for.
    fn calls_form(&self, app: &App, prompt: &[u32]) -> Result<Option<Form>, ApiError> {
        let named = match &self.choice {
            Choice::Named(name) => Some(name.as_str()),
            Choice::None | Choice::Auto | Choice::Required => None,
        };
        let param = match self.choice {
            Choice::Auto => "tools",
            _ => "tool_choice",
        };
        let tools = self.tools.iter();
        let tools = tools.filter(|tool| {
            named.is_none_or(|name| tool["function"]["name"].as_str() == Some(name))
        });
        let tools: Value = tools.cloned().collect();
        let grammar = app.text.calls_grammar(prompt, &tools, self.parallel);
        let wanted = Wanted {
            constraint: Constraint::Lark(grammar),
            param: param.into(),
        };
        wanted.compile(app).map(Some)
    }

    /// The prompt's text.
    ///
    /// # Errors
    /// If the model has no template, or its template refuses the dialogue.
    pub fn render(&self, app: &App) -> Result<String, ApiError> {
        let chat = self.chat(app)?;
        app.text.render_chat(&chat).map_err(refused)
    }

    /// The prompt's tokens.
    ///
    /// # Errors
    /// As [`Dialogue::render`].
    pub fn encode(&self, app: &App) -> Result<Prompt, ApiError> {
        let chat = self.chat(app)?;
        let ids = app.text.encode_chat(&chat).map_err(refused)?;
        Ok(Prompt {
            ids,
            param: "messages".into(),
            continues: self.continues,
        })
    }

    fn chat(&self, app: &App) -> Result<Chat, ApiError> {
        if !app.text.has_template() {
            let message = "this model has no chat template; use /v1/completions";
            return Err(ApiError::field("messages", message));
        }
        let mut messages = self.messages.clone();
        name_results(&mut messages);
        if !self.continues {
            app.text.settle_reasoning(&mut messages);
        }
        let tools = self.offers_tools();
        Ok(Chat {
            messages,
            tools: tools.then(|| Value::Array(self.tools.clone())),
            add_generation_prompt: !self.continues,
            continue_final_message: self.continues,
            extra: self.variables(app),
        })
    }

    /// The template's variables: the client's own, and those that its other wishes come to.
    fn variables(&self, app: &App) -> Map<String, Value> {
        let mut wishes: Vec<(&str, Value)> = Vec::new();
        match self.thinking {
            Thinking::Unset => {}
            Thinking::Off => wishes.extend(SWITCHES.map(|name| (name, json!(false)))),
            Thinking::On(budget) => {
                wishes.extend(SWITCHES.map(|name| (name, json!(true))));
                wishes.extend(budget.map(|tokens| ("thinking_budget", json!(tokens))));
            }
        }
        wishes.extend(
            self.effort
                .map(|effort| ("reasoning_effort", json!(effort))),
        );
        let mut variables = self.extra.clone();
        for (name, value) in wishes {
            if app.text.template_reads(name) {
                variables.entry(name).or_insert(value);
            }
        }
        variables
    }
}

/// Whether the served model's template lets thinking be switched on and off.
pub fn thinking_is_switchable(app: &App) -> bool {
    SWITCHES.iter().any(|name| app.text.template_reads(name))
}

/// Takes `chat_template_kwargs`.
///
/// # Errors
/// A variable that is set by the dialogue itself.
pub fn template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let Some(extra) = fields.object("chat_template_kwargs")? else {
        return Ok(Map::new());
    };
    let path = |name| extra.path(name);
    let paths = RESERVED.map(path);
    let extra = extra.into_map();
    match RESERVED.iter().position(|&name| extra.contains_key(name)) {
        None => Ok(extra),
        Some(at) => {
            let message = format!("`{}` is set by the server; leave it out", paths[at]);
            Err(ApiError::field(&paths[at], message))
        }
    }
}

/// Some templates need the function's name with its result, where clients give the call's id.
fn name_results(messages: &mut [Value]) {
    let mut names: Map<String, Value> = Map::new();
    for message in messages {
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            if let Some(id) = call["id"].as_str() {
                names.insert(id.to_owned(), call["function"]["name"].clone());
            }
        }
        if message["role"] == "tool"
            && message.get("name").is_none()
            && let Some(name) = message["tool_call_id"]
                .as_str()
                .and_then(|id| names.get(id))
        {
            message["name"] = name.clone();
        }
    }
}

fn refused(error: TextError) -> ApiError {
    match error {
        // The model's own fault, whatever the dialogue.
        TextError::Syntax { .. } => ApiError::internal(error.to_string()),
        _ => ApiError::field("messages", error.to_string()),
    }
}
