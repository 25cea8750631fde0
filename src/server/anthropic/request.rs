//! Reading a messages request: everything but its messages.

use serde_json::{Map, Value, json};

use super::blocks;
use super::reply::{Frame, MessageReply};
use crate::server::ask::Ask;
use crate::server::constraint::{self, Wanted};
use crate::server::dialogue::{
    Choice, Dialogue, Thinking, template_variables, thinking_is_switchable,
};
use crate::server::error::ApiError;
use crate::server::fields::{Fields, wrong_type};
use crate::server::openai::models;
use crate::server::reply::Prepared;
use crate::server::{App, options};

/// Makes a messages request ready to run.
///
/// # Errors
/// What the client is to be told.
pub fn prepare(app: &App, mut fields: Fields, _id: &str) -> Result<Prepared, ApiError> {
    let mut ignored = Vec::new();
    let model = fields.required_string("model")?;
    model_is_served(&model, app)?;
    // 0 only brings the prompt into the cache.
    let Some(max_tokens) = fields.integer("max_tokens", 0..=i64::MAX)? else {
        return Err(fields.missing("max_tokens"));
    };
    let max_tokens = max_tokens as usize;
    let params = options::params(&mut fields, app)?;
    let stop = options::stops(&mut fields, "stop_sequences")?;
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let read = content(&mut fields, app, &mut ignored)?;
    if let Thinking::On(Some(budget)) = read.dialogue.thinking
        && budget >= max_tokens
    {
        let message = format!(
            "`thinking.budget_tokens` is {budget}, expected less than `max_tokens`, which is {max_tokens}"
        );
        return Err(ApiError::field("thinking.budget_tokens", message));
    }
    ignored.extend(fields.rest());
    let prompt = read.dialogue.encode(app)?;
    let budget = match read.dialogue.thinking {
        Thinking::On(budget) => budget,
        Thinking::Off | Thinking::Unset => None,
    };
    let form = read
        .dialogue
        .form(app, &prompt, read.form.as_ref(), budget)?;
    let frame = Frame {
        prompt: prompt.ids.len(),
        max_tokens,
        omit_thinking: read.omit_thinking,
        diagnosed: read.diagnosed.map(|previous| previous.is_some()),
    };
    let ask = Ask {
        prompts: vec![prompt],
        n: 1,
        params,
        max_tokens,
        stop,
        stop_ids: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
        form,
        calls: read.dialogue.calls(),
    };
    Ok(Prepared {
        jobs: ask.jobs(app)?,
        stream,
        reply: Box::new(MessageReply::new(app, frame)),
        ignored,
    })
}

/// Answers `/v1/messages/count_tokens`: the tokens of a request's prompt.
///
/// # Errors
/// What the client is to be told.
pub fn count(app: &App, mut fields: Fields) -> Result<(Value, Vec<String>), ApiError> {
    let mut ignored = Vec::new();
    let model = fields.required_string("model")?;
    model_is_served(&model, app)?;
    let read = content(&mut fields, app, &mut ignored)?;
    ignored.extend(fields.rest());
    let tokens = read.dialogue.encode(app)?.ids.len();
    Ok((json!({"input_tokens": tokens}), ignored))
}

/// Agents ask for Anthropic's models by name unless told otherwise, some of them for several: here
/// all of these are the one that is served.
fn model_is_served(name: &str, app: &App) -> Result<(), ApiError> {
    match name.starts_with("claude") {
        true => Ok(()),
        false => models::check(name, app),
    }
}

/// What makes up the prompt, and what its answer must be like.
struct Content {
    dialogue: Dialogue,
    form: Option<Wanted>,
    omit_thinking: bool,
    /// The message whose prompt this one's is to be compared with, if that is asked for.
    diagnosed: Option<Option<String>>,
}

fn content(fields: &mut Fields, app: &App, ignored: &mut Vec<String>) -> Result<Content, ApiError> {
    let mut dialogue = Dialogue {
        parallel: true,
        extra: template_variables(fields)?,
        ..Dialogue::default()
    };
    if let Some(system) = fields.take("system") {
        let system = blocks::system(system, ignored)?;
        if !system.is_empty() {
            let message = json!({"role": "system", "content": system});
            dialogue.messages.push(message);
        }
    }
    let Some(messages) = fields.array("messages")? else {
        return Err(fields.missing("messages"));
    };
    dialogue.continues = blocks::messages(messages, &mut dialogue.messages, ignored)?;
    dialogue.tools = tools(fields, &mut dialogue.strict, ignored)?;
    tool_choice(fields, &mut dialogue, ignored)?;
    dialogue.check_choice()?;
    let omit_thinking = thinking(fields, app, &mut dialogue, ignored)?;
    let form = output(fields, app, &mut dialogue, ignored)?;
    the_rest(fields, ignored)?;
    let diagnosed = match fields.object("diagnostics")? {
        None => None,
        Some(mut diagnostics) => {
            let previous = diagnostics.string("previous_message_id")?;
            ignored.extend(diagnostics.rest());
            Some(previous)
        }
    };
    Ok(Content {
        dialogue,
        form,
        omit_thinking,
        diagnosed,
    })
}

/// Fields that change no answer here.
fn the_rest(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    // Prompts are kept for later ones that begin alike, whether or not a client marks them.
    blocks::cache_control(fields, ignored)?;
    if let Some(mut metadata) = fields.object("metadata")? {
        metadata.string("user_id")?;
        ignored.extend(metadata.rest());
    }
    fields.string("user_profile_id")?;
    let one_of = |words: &'static [&'static str]| {
        move |value: &Value| value.as_str().is_some_and(|word| words.contains(&word))
    };
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let tiers = one_of(&["auto", "standard_only"]);
    fields.refuse("service_tier", tiers, "leave it out")?;
    let places = one_of(&["global"]);
    fields.refuse(
        "inference_geo",
        places,
        "answers are made on this machine; leave it out",
    )?;
    fields.refuse("speed", one_of(&["standard"]), "leave it out")?;
    fields.refuse("container", |_| false, "there are none; leave it out")?;
    fields.refuse(
        "mcp_servers",
        empty,
        "the server calls no tools itself; leave it out",
    )
}

fn tools(
    fields: &mut Fields,
    strict: &mut bool,
    ignored: &mut Vec<String>,
) -> Result<Vec<Value>, ApiError> {
    let tools = fields.array("tools")?.unwrap_or_default();
    let numbered = tools.into_iter().enumerate();
    numbered
        .map(|(index, value)| tool(value, format!("tools[{index}]"), strict, ignored))
        .collect()
}

fn tool(
    value: Value,
    path: String,
    strict: &mut bool,
    ignored: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let mut tool = Fields::new(value, path)?;
    let kind = tool.string("type")?;
    if let Some(kind) = kind.filter(|kind| kind != "custom") {
        let path = tool.path("type");
        let message = format!(
            "`{path}` is {kind:?}, which is run or defined by Anthropic's own servers; give a tool with an `input_schema`"
        );
        return Err(ApiError::field(path, message).code("unsupported_value"));
    }
    let name = tool.required_string("name")?;
    if name.is_empty() {
        let path = tool.path("name");
        let message = format!("`{path}` is empty; name the tool");
        return Err(ApiError::field(path, message));
    }
    let mut description = tool.string("description")?;
    let Some(schema) = tool.object("input_schema")? else {
        return Err(tool.missing("input_schema"));
    };
    // Templates have no place for examples, so they stand where the model reads what the tool is for.
    let examples = tool.array("input_examples")?.unwrap_or_default();
    for (index, example) in examples.iter().enumerate() {
        if !example.is_object() {
            let path = format!("{}[{index}]", tool.path("input_examples"));
            return Err(wrong_type(&path, example, "an object"));
        }
        let text = description.get_or_insert_default();
        let before = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{before}Example of an input: {example}"));
    }
    let is_false = |value: &Value| *value == Value::Bool(false);
    tool.refuse("defer_loading", is_false, "the model is told of all tools")?;
    blocks::cache_control(&mut tool, ignored)?;
    // Arguments stream as they come anyway.
    tool.boolean("eager_input_streaming")?;
    *strict |= tool.boolean("strict")?.unwrap_or(false);
    let direct = |value: &Value| *value == json!(["direct"]);
    tool.refuse("allowed_callers", direct, "only the model calls tools")?;
    ignored.extend(tool.rest());
    let mut function = Map::new();
    function.insert("name".into(), json!(name));
    function.extend(description.map(|text| ("description".into(), Value::String(text))));
    function.insert("parameters".into(), Value::Object(schema.into_map()));
    Ok(json!({"type": "function", "function": function}))
}

fn tool_choice(
    fields: &mut Fields,
    dialogue: &mut Dialogue,
    ignored: &mut Vec<String>,
) -> Result<(), ApiError> {
    let Some(mut choice) = fields.object("tool_choice")? else {
        return Ok(());
    };
    let kind = choice.required_string("type")?;
    dialogue.choice = match kind.as_str() {
        "auto" => Choice::Auto,
        "any" => Choice::Required,
        "none" => Choice::None,
        "tool" => Choice::Named(choice.required_string("name")?),
        _ => {
            let message =
                format!("`tool_choice.type` is {kind:?}, expected one of auto, any, tool, none");
            return Err(ApiError::field("tool_choice.type", message));
        }
    };
    let one = choice.boolean("disable_parallel_tool_use")?;
    dialogue.parallel = !one.unwrap_or(false);
    ignored.extend(choice.rest());
    Ok(())
}

/// Takes `thinking`; returns whether the thoughts are to be left out of the answer.
///
/// Absent it means what the dialect says, no thinking, as far as the template has a switch.
fn thinking(
    fields: &mut Fields,
    app: &App,
    dialogue: &mut Dialogue,
    ignored: &mut Vec<String>,
) -> Result<bool, ApiError> {
    dialogue.thinking = Thinking::Off;
    let Some(mut thinking) = fields.object("thinking")? else {
        return Ok(false);
    };
    let kind = thinking.required_string("type")?;
    let budget = thinking.integer("budget_tokens", 1..=i64::MAX)?;
    dialogue.thinking = match (kind.as_str(), budget) {
        ("disabled", _) => Thinking::Off,
        ("enabled", None) => return Err(thinking.missing("budget_tokens")),
        ("enabled", Some(budget)) => Thinking::On(Some(budget as usize)),
        ("adaptive" | "between_tools", _) => Thinking::On(None),
        _ => {
            let message = format!(
                "`thinking.type` is {kind:?}, expected one of enabled, disabled, adaptive, between_tools"
            );
            return Err(ApiError::field("thinking.type", message));
        }
    };
    let omit = match thinking.string("display")?.as_deref() {
        None | Some("summarized" | "full") => false,
        Some("omitted") => true,
        Some(other) => {
            let message = format!(
                "`thinking.display` is {other:?}, expected one of full, summarized, omitted"
            );
            return Err(ApiError::field("thinking.display", message));
        }
    };
    ignored.extend(thinking.rest());
    // Agents switch thinking on whatever the model; one that cannot think answers all the same.
    if matches!(dialogue.thinking, Thinking::On(_)) && !thinks(app) {
        ignored.push("thinking".into());
    }
    Ok(omit)
}

fn thinks(app: &App) -> bool {
    thinking_is_switchable(app) || app.text.template_reads("reasoning_effort")
}

/// Takes `output_config` and its older form `output_format`.
fn output(
    fields: &mut Fields,
    app: &App,
    dialogue: &mut Dialogue,
    ignored: &mut Vec<String>,
) -> Result<Option<Wanted>, ApiError> {
    let mut form = None;
    if let Some(format) = fields.object("output_format")? {
        form = constraint::response_format(format, ignored)?;
    }
    if let Some(mut config) = fields.object("output_config")? {
        if let Some(format) = config.object("format")? {
            form = constraint::response_format(format, ignored)?;
        }
        if let Some(effort) = config.take("effort") {
            dialogue.effort = match effort.as_str() {
                Some("low") => Some("low"),
                Some("medium") => Some("medium"),
                Some("high" | "xhigh" | "max") => Some("high"),
                _ => {
                    let expected = "one of low, medium, high, xhigh, max";
                    return Err(wrong_type("output_config.effort", &effort, expected));
                }
            };
            if !app.text.template_reads("reasoning_effort") {
                ignored.push("output_config.effort".into());
            }
        }
        ignored.extend(config.rest());
    }
    Ok(form)
}
