//! Reading a chat request: messages, tools and the fields of the chat API.

use serde_json::{Map, Value, json};

use super::{Common, fit};
use crate::engine::Request;
use crate::server::App;
use crate::server::answer::{Answer, Calls};
use crate::server::body;
use crate::server::error::ApiError;
use crate::server::fields::{Fields, wrong_type};
use crate::server::running::Ask;
use crate::text::{Chat, TextError};

/// Variables of a template that are not the client's to set.
const RESERVED: [&str; 3] = ["messages", "tools", "add_generation_prompt"];

/// A chat request, checked and tokenized.
pub struct ChatRequest {
    /// For the engine.
    pub ask: Ask,
    /// Whether to stream, and how.
    pub common: Common,
    /// Whether log-probabilities were asked for.
    pub logprobs: bool,
    /// Unknown fields' paths.
    pub ignored: Vec<String>,
}

impl ChatRequest {
    /// Reads a request's body.
    pub fn parse(app: &App, bytes: &[u8]) -> Result<Self, ApiError> {
        let mut fields = body::parse(bytes)?;
        let common = Common::read(&mut fields, app)?;
        let max_tokens = max_tokens(&mut fields)?;
        let logprobs = logprobs(&mut fields)?;
        let mut ignored = Vec::new();
        refuse_the_rest(&mut fields, &mut ignored)?;
        let messages = messages(&mut fields, &mut ignored)?;
        let (tools, calls) = tools(&mut fields, &mut ignored)?;
        let extra = template_variables(&mut fields)?;
        ignored.extend(fields.rest());
        if !app.text.has_template() {
            let message = "this model has no chat template; use /v1/completions";
            return Err(ApiError::field("messages", message));
        }
        let chat = Chat {
            messages,
            tools,
            add_generation_prompt: true,
            continue_final_message: false,
            extra,
        };
        let prompt = app.text.encode_chat(&chat).map_err(|error| match error {
            // The model's own fault, whatever the dialogue.
            TextError::Syntax { .. } => ApiError::internal(error.to_string()),
            _ => ApiError::field("messages", error.to_string()),
        })?;
        let max_tokens = max_tokens.unwrap_or(usize::MAX);
        fit(app.engine.facts(), &prompt, max_tokens, "messages")?;
        let answer = Answer::new(
            &app.text,
            app.text.stream(common.stop.clone()),
            calls,
            prompt.len(),
        );
        let request = Request {
            prompt,
            params: common.params.clone(),
            max_tokens,
            form: None,
            stop_ids: common.stop_ids.clone(),
            logprobs,
            prompt_logprobs: false,
        };
        Ok(Self {
            ask: Ask {
                index: 0,
                request,
                answer,
            },
            common,
            logprobs: logprobs.is_some(),
            ignored,
        })
    }
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

/// The API's fields that this server does not act on.
fn refuse_the_rest(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    let never = |_: &Value| false;
    let is_false = |value: &Value| *value == Value::Bool(false);
    let one_of = |words: &'static [&'static str]| {
        move |value: &Value| value.as_str().is_some_and(|word| words.contains(&word))
    };
    fields.refuse("audio", never, "answers are text; leave it out")?;
    fields.refuse("function_call", never, "use `tool_choice`")?;
    fields.refuse("functions", never, "use `tools`")?;
    fields.refuse("moderation", never, "leave it out")?;
    fields.refuse(
        "modalities",
        |value| *value == json!(["text"]),
        "answers are text; leave it out",
    )?;
    fields.refuse("prediction", never, "leave it out")?;
    fields.refuse("prompt_cache_options", never, "leave it out")?;
    fields.refuse("prompt_cache_retention", never, "leave it out")?;
    fields.refuse(
        "reasoning_effort",
        never,
        "pass what the model's template knows in `chat_template_kwargs`",
    )?;
    fields.refuse("service_tier", one_of(&["auto", "default"]), "leave it out")?;
    fields.refuse("store", is_false, "answers are not kept; leave it out")?;
    fields.refuse("verbosity", one_of(&["medium"]), "leave it out")?;
    fields.refuse("web_search_options", never, "leave it out")?;
    // They say who asks and what for, which changes no answer.
    fields.object("metadata")?;
    fields.string("prompt_cache_key")?;
    fields.string("safety_identifier")?;
    if let Some(mut format) = fields.object("response_format")? {
        let kind = format.required_string("type")?;
        if kind != "text" {
            let path = format.path("type");
            let message = format!("`{path}` is {kind:?}; only \"text\" is supported yet");
            return Err(ApiError::field("response_format", message).code("unsupported_value"));
        }
        ignored.extend(format.rest());
    }
    Ok(())
}

fn template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
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

fn tools(
    fields: &mut Fields,
    ignored: &mut Vec<String>,
) -> Result<(Option<Value>, Calls), ApiError> {
    let tools = fields.array("tools")?.unwrap_or_default();
    let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let offered = match fields.take("tool_choice") {
        None => true,
        Some(Value::String(choice)) if choice == "auto" => true,
        Some(Value::String(choice)) if choice == "none" => false,
        Some(other) => {
            let message =
                format!("`tool_choice` is {other}; only \"none\" and \"auto\" are supported");
            return Err(ApiError::field("tool_choice", message).code("unsupported_value"));
        }
    };
    for (index, tool) in tools.iter().enumerate() {
        check_tool(tool, &format!("tools[{index}]"), ignored)?;
    }
    if tools.is_empty() || !offered {
        return Ok((None, Calls::Ignored));
    }
    let calls = if parallel { Calls::Many } else { Calls::One };
    Ok((Some(Value::Array(tools)), calls))
}

fn check_tool(tool: &Value, path: &str, ignored: &mut Vec<String>) -> Result<(), ApiError> {
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
    let is_false = |value: &Value| *value == Value::Bool(false);
    function.refuse(
        "strict",
        is_false,
        "calls are not constrained to the schema yet",
    )?;
    ignored.extend(function.rest());
    ignored.extend(tool.rest());
    Ok(())
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
        if let Some(reasoning) = fields.string("reasoning_content")? {
            message.insert("reasoning_content".into(), Value::String(reasoning));
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
