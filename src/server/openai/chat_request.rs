//! Reading a chat request: messages, tools and the fields of the chat API.

use serde_json::{Map, Value, json};

use super::Common;
use super::chat_reply::ChatReply;
use crate::server::App;
use crate::server::ask::Ask;
use crate::server::dialogue::{
    Choice, Dialogue, Thinking, template_variables, thinking_is_switchable,
};
use crate::server::error::ApiError;
use crate::server::fields::{Fields, wrong_type};
use crate::server::reply::Prepared;

/// Makes a chat request ready to run.
///
/// # Errors
/// What the client is to be told.
pub fn prepare(app: &App, mut fields: Fields, _id: &str) -> Result<Prepared, ApiError> {
    let mut ignored = Vec::new();
    let mut common = Common::read(&mut fields, app, &mut ignored)?;
    let max_tokens = max_tokens(&mut fields)?;
    let logprobs = logprobs(&mut fields)?;
    common.extras.logprobs = logprobs.is_some();
    common.extras.tier = service_tier(&mut fields)?;
    refuse_the_rest(&mut fields)?;
    let dialogue = dialogue(&mut fields, app, &mut ignored)?;
    dialogue.check_choice()?;
    let prompt = dialogue.encode(app)?;
    let budget = fields.integer("thinking_budget", 0..=i64::MAX)?;
    let budget = budget.map(|tokens| tokens as usize);
    ignored.extend(fields.rest());
    let form = dialogue.form(app, &prompt, common.form.as_ref(), budget)?;
    let ask = Ask {
        prompts: vec![prompt],
        n: common.n,
        params: common.params,
        max_tokens: max_tokens.unwrap_or(usize::MAX),
        stop: common.stop,
        stop_ids: common.stop_ids,
        logprobs,
        prompt_logprobs: false,
        form,
        calls: dialogue.calls(),
    };
    Ok(Prepared {
        jobs: ask.jobs(app)?,
        stream: common.stream,
        reply: Box::new(ChatReply::new(app, common.n, common.extras)),
        ignored,
    })
}

/// Takes what makes up the prompt; `/apply-template` takes the same.
///
/// # Errors
/// Messages or tools that are malformed, or a wish that the model's template cannot grant.
pub fn dialogue(
    fields: &mut Fields,
    app: &App,
    ignored: &mut Vec<String>,
) -> Result<Dialogue, ApiError> {
    let messages = messages(fields, ignored)?;
    let mut dialogue = Dialogue {
        messages,
        extra: template_variables(fields)?,
        ..Dialogue::default()
    };
    tools(fields, &mut dialogue, ignored)?;
    effort(fields, app, &mut dialogue)?;
    dialogue.continues = fields.boolean("continue_final_message")?.unwrap_or(false);
    let opens = fields.boolean("add_generation_prompt")?;
    if opens == Some(dialogue.continues) {
        let message = "`add_generation_prompt` must be the opposite of `continue_final_message`; leave it out";
        return Err(ApiError::field("add_generation_prompt", message));
    }
    Ok(dialogue)
}

fn max_tokens(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let old = fields.integer("max_tokens", 1..=i64::MAX)?;
    let new = fields.integer("max_completion_tokens", 1..=i64::MAX)?;
    match (old, new) {
        (Some(old), Some(new)) if old != new => Err(ApiError::field(
            "max_tokens",
            format!("`max_tokens` is {old} and `max_completion_tokens` {new}; give one of them"),
        )),
        (old, new) => Ok(new.or(old).map(|number| number as usize)),
    }
}

fn logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let most = crate::engine::MAX_TOP_LOGPROBS as i64;
    let top = fields.integer("top_logprobs", 0..=most)?;
    match (wanted, top) {
        (false, Some(1..)) => Err(ApiError::field(
            "top_logprobs",
            "`top_logprobs` is only taken with `logprobs` true",
        )),
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0) as usize)),
    }
}

/// Whether the answer is to say how it was served: as all are.
fn service_tier(fields: &mut Fields) -> Result<bool, ApiError> {
    match fields.string("service_tier")?.as_deref() {
        None => Ok(false),
        Some("auto" | "default") => Ok(true),
        Some(other) => {
            let message =
                format!("`service_tier` is {other:?}, expected auto or default; leave it out");
            Err(ApiError::field("service_tier", message).code("unsupported_value"))
        }
    }
}

/// The API's fields that this server does not act on.
fn refuse_the_rest(fields: &mut Fields) -> Result<(), ApiError> {
    let never = |_: &Value| false;
    let is_false = |value: &Value| *value == Value::Bool(false);
    let one_of = |words: &'static [&'static str]| {
        move |value: &Value| value.as_str().is_some_and(|word| words.contains(&word))
    };
    fields.refuse("audio", never, "answers are text; leave it out")?;
    fields.refuse("function_call", never, "use `tool_choice`")?;
    fields.refuse("functions", never, "use `tools`")?;
    fields.refuse(
        "chat_template",
        never,
        "the model's own is used; leave it out",
    )?;
    fields.refuse("moderation", never, "leave it out")?;
    fields.refuse(
        "modalities",
        |value| *value == json!(["text"]),
        "answers are text; leave it out",
    )?;
    fields.refuse("prediction", never, "leave it out")?;
    // Every prompt is kept as long as there is room, and no longer.
    let implicit = |value: &Value| *value == json!({}) || *value == json!({"mode": "implicit"});
    fields.refuse("prompt_cache_options", implicit, "leave it out")?;
    fields.refuse("prompt_cache_retention", never, "leave it out")?;
    fields.refuse("store", is_false, "answers are not kept; leave it out")?;
    fields.refuse("verbosity", one_of(&["medium"]), "leave it out")?;
    fields.refuse("web_search_options", never, "leave it out")?;
    // They say who asks and what for, which changes no answer.
    fields.object("metadata")?;
    fields.string("prompt_cache_key")?;
    fields.string("safety_identifier")?;
    Ok(())
}

/// How hard to think, as far as the model's template knows such a thing.
fn effort(fields: &mut Fields, app: &App, dialogue: &mut Dialogue) -> Result<(), ApiError> {
    let Some(effort) = fields.string("reasoning_effort")? else {
        return Ok(());
    };
    let graded = app.text.template_reads("reasoning_effort");
    let switchable = thinking_is_switchable(app);
    let level = match effort.as_str() {
        "none" => None,
        // Templates that have levels have these three.
        "minimal" | "low" => Some("low"),
        "medium" => Some("medium"),
        "high" | "xhigh" | "max" => Some("high"),
        _ => {
            let message = format!(
                "`reasoning_effort` is {effort:?}, expected one of none, minimal, low, medium, high, xhigh, max"
            );
            return Err(ApiError::field("reasoning_effort", message));
        }
    };
    let honoured = match level {
        None => switchable || !graded,
        Some(_) => switchable || graded,
    };
    if !honoured {
        let message = match level {
            None => {
                "`reasoning_effort` is \"none\", but this model's template always lets it think"
            }
            Some(_) => "this model's template knows no `reasoning_effort`; leave it out",
        };
        return Err(ApiError::field("reasoning_effort", message).code("unsupported_value"));
    }
    dialogue.effort = level;
    dialogue.thinking = match level {
        None => Thinking::Off,
        Some(_) => Thinking::On(None),
    };
    Ok(())
}

fn tools(
    fields: &mut Fields,
    dialogue: &mut Dialogue,
    ignored: &mut Vec<String>,
) -> Result<(), ApiError> {
    dialogue.tools = fields.array("tools")?.unwrap_or_default();
    dialogue.parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    dialogue.choice = match fields.take("tool_choice") {
        None => Choice::Auto,
        Some(Value::String(choice)) if choice == "auto" => Choice::Auto,
        Some(Value::String(choice)) if choice == "none" => Choice::None,
        Some(Value::String(choice)) if choice == "required" => Choice::Required,
        Some(choice @ Value::Object(_)) => {
            let mut choice = Fields::new(choice, "tool_choice")?;
            if let Some(allowed) = choice.object("allowed_tools")? {
                dialogue.choice = allow_tools(allowed, &mut dialogue.tools, ignored)?;
                ignored.extend(
                    choice
                        .rest()
                        .into_iter()
                        .filter(|path| path != "tool_choice.type"),
                );
                return check_tools(dialogue, ignored);
            }
            expect_function(&mut choice)?;
            let Some(mut function) = choice.object("function")? else {
                return Err(choice.missing("function"));
            };
            Choice::Named(function.required_string("name")?)
        }
        Some(other) => {
            let message = format!(
                "`tool_choice` is {other}, expected \"none\", \"auto\", \"required\" or an object that names a function"
            );
            return Err(ApiError::field("tool_choice", message));
        }
    };
    check_tools(dialogue, ignored)
}

fn check_tools(dialogue: &mut Dialogue, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    for (index, tool) in dialogue.tools.iter().enumerate() {
        dialogue.strict |= check_tool(tool, &format!("tools[{index}]"), ignored)?;
    }
    Ok(())
}

/// A choice among some of the tools: the model is told of no others.
fn allow_tools(
    mut allowed: Fields,
    tools: &mut Vec<Value>,
    ignored: &mut Vec<String>,
) -> Result<Choice, ApiError> {
    let choice = match allowed.required_string("mode")?.as_str() {
        "auto" => Choice::Auto,
        "required" => Choice::Required,
        other => {
            let path = allowed.path("mode");
            let message = format!("`{path}` is {other:?}, expected auto or required");
            return Err(ApiError::field(path, message));
        }
    };
    let path = allowed.path("tools");
    let Some(named) = allowed.array("tools")? else {
        return Err(allowed.missing("tools"));
    };
    let mut names = Vec::with_capacity(named.len());
    for (index, tool) in named.into_iter().enumerate() {
        let mut tool = Fields::new(tool, format!("{path}[{index}]"))?;
        expect_function(&mut tool)?;
        let Some(mut function) = tool.object("function")? else {
            return Err(tool.missing("function"));
        };
        let name = function.required_string("name")?;
        if !tools
            .iter()
            .any(|tool| tool["function"]["name"] == name.as_str())
        {
            let path = function.path("name");
            let message = format!("`{path}` is {name:?}, which is not in `tools`; add it there");
            return Err(ApiError::field(path, message));
        }
        names.push(name);
    }
    tools.retain(|tool| {
        let name = tool["function"]["name"].as_str();
        name.is_some_and(|name| names.iter().any(|allowed| allowed == name))
    });
    ignored.extend(allowed.rest());
    Ok(choice)
}

/// Whether calls of it must follow its schema.
fn check_tool(tool: &Value, path: &str, ignored: &mut Vec<String>) -> Result<bool, ApiError> {
    let mut tool = Fields::new(tool.clone(), path)?;
    expect_function(&mut tool)?;
    let Some(mut function) = tool.object("function")? else {
        return Err(tool.missing("function"));
    };
    if function.required_string("name")?.is_empty() {
        let path = function.path("name");
        return Err(ApiError::field(
            &path,
            format!("`{path}` is empty; name the function"),
        ));
    }
    function.string("description")?;
    function.object("parameters")?;
    let strict = function.boolean("strict")?.unwrap_or(false);
    ignored.extend(function.rest());
    ignored.extend(tool.rest());
    Ok(strict)
}

fn expect_function(fields: &mut Fields) -> Result<(), ApiError> {
    let kind = fields.required_string("type")?;
    if kind == "function" {
        return Ok(());
    }
    let path = fields.path("type");
    let message = format!("`{path}` is {kind:?}, expected \"function\"");
    Err(ApiError::field(path, message))
}

fn messages(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<Vec<Value>, ApiError> {
    let messages = fields
        .array("messages")?
        .ok_or_else(|| fields.missing("messages"))?;
    if messages.is_empty() {
        let text = "`messages` is empty; give at least one message";
        return Err(ApiError::field("messages", text));
    }
    let numbered = messages.into_iter().enumerate();
    numbered
        .map(|(index, value)| message(value, format!("messages[{index}]"), ignored))
        .collect()
}

/// One message, as the template gets it.
fn message(value: Value, path: String, ignored: &mut Vec<String>) -> Result<Value, ApiError> {
    let mut fields = Fields::new(value, path)?;
    let mut message = Map::new();
    let role = fields.required_string("role")?;
    let role = match role.as_str() {
        // The newer name of the same thing; templates know the older one.
        "developer" => "system",
        "system" | "user" | "assistant" | "tool" => &role,
        _ => {
            let path = fields.path("role");
            let message = format!(
                "`{path}` is {role:?}, expected one of system, developer, user, assistant, tool"
            );
            return Err(ApiError::field(path, message));
        }
    };
    message.insert("role".into(), json!(role));
    let content = content(&mut fields, ignored)?;
    if role == "assistant" {
        let calls = tool_calls(&mut fields, ignored)?;
        if content.is_none() && calls.is_none() {
            return Err(fields.missing("content"));
        }
        message.insert("content".into(), content.map_or(Value::Null, Value::String));
        if let Some(calls) = calls {
            message.insert("tool_calls".into(), Value::Array(calls));
        }
        let names = ["reasoning_content", "reasoning"];
        for name in names {
            if let Some(reasoning) = fields.string(name)? {
                message.insert("reasoning_content".into(), Value::String(reasoning));
            }
        }
        fields.refuse("audio", |_| false, "answers are text; leave it out")?;
        fields.refuse("function_call", |_| false, "use `tool_calls`")?;
        fields.refuse("refusal", |_| false, "give its text as `content`")?;
    } else {
        let content = content.ok_or_else(|| fields.missing("content"))?;
        message.insert("content".into(), Value::String(content));
    }
    if role == "tool" {
        let id = fields.required_string("tool_call_id")?;
        message.insert("tool_call_id".into(), Value::String(id));
    }
    if let Some(name) = fields.string("name")? {
        message.insert("name".into(), Value::String(name));
    }
    ignored.extend(fields.rest());
    Ok(Value::Object(message))
}

/// A message's content as one string; text parts are joined by line ends.
fn content(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<Option<String>, ApiError> {
    let path = fields.path("content");
    let parts = match fields.take("content") {
        None => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(text)),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(wrong_type(&path, &other, "a string or an array of parts")),
    };
    if parts.is_empty() {
        return Err(ApiError::field(
            &path,
            format!("`{path}` is an empty array; give a string"),
        ));
    }
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::new(part, format!("{path}[{index}]"))?;
        let kind = part.required_string("type")?;
        if kind != "text" {
            let path = part.path("type");
            let images = match kind.as_str() {
                "image_url" | "input_image" | "image" => "images are not supported yet; ",
                _ => "",
            };
            let message =
                format!("`{path}` is {kind:?}; {images}only parts of type \"text\" are taken");
            return Err(ApiError::field(path, message).code("unsupported_content"));
        }
        texts.push(part.required_string("text")?);
        // Every prompt is kept, marked or not.
        part.object("prompt_cache_breakpoint")?;
        ignored.extend(part.rest());
    }
    Ok(Some(texts.join("\n")))
}

fn tool_calls(
    fields: &mut Fields,
    ignored: &mut Vec<String>,
) -> Result<Option<Vec<Value>>, ApiError> {
    let path = fields.path("tool_calls");
    let Some(calls) = fields
        .array("tool_calls")?
        .filter(|calls| !calls.is_empty())
    else {
        return Ok(None);
    };
    let mut read = Vec::with_capacity(calls.len());
    for (index, call) in calls.into_iter().enumerate() {
        let mut call = Fields::new(call, format!("{path}[{index}]"))?;
        expect_function(&mut call)?;
        let id = call.required_string("id")?;
        let Some(mut function) = call.object("function")? else {
            return Err(call.missing("function"));
        };
        let name = function.required_string("name")?;
        let text = function.required_string("arguments")?;
        // Templates loop over the arguments or write them as JSON themselves; text that is no
        // JSON object is what the model wrote and goes back to it as it is.
        let arguments = match serde_json::from_str(&text) {
            Ok(object @ Value::Object(_)) => object,
            _ => Value::String(text),
        };
        ignored.extend(function.rest());
        ignored.extend(call.rest());
        read.push(json!({
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }));
    }
    Ok(Some(read))
}
