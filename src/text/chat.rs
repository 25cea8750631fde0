//! A dialogue made ready for a template, and rendered.
//!
//! Invariants: what transformers does to messages before rendering is done here too (keys with null dropped, the names
//! for reasoning made alike, arguments of tool calls parsed); every string that came with the dialogue is marked.

use serde_json::{Map, Value, json};

use super::control::{ControlTokens, unmark};
use super::template::{Template, Templates};
use super::{Chat, TextError, Volatile};

/// The forms of `content` that a template takes for a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentStyle {
    /// Any: give it what came.
    Any,
    /// A string only.
    Text,
    /// A list of parts only.
    Parts,
}

/// Names of a message's reasoning; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
const CONTINUE_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";
/// Variables that the dialogue itself sets.
const RESERVED: [&str; 3] = ["messages", "tools", "add_generation_prompt"];

/// Renders the dialogue, with marks in it.
pub(super) fn render(
    templates: &Templates,
    control: &ControlTokens,
    chat: &Chat,
    volatile: Option<&Volatile>,
) -> Result<String, TextError> {
    if chat.messages.is_empty() {
        return refuse("there is no message; at least one is needed");
    }
    if chat.continue_final_message && chat.add_generation_prompt {
        return refuse(
            "the final message cannot be continued (continue_final_message) and a new one opened (add_generation_prompt) at once",
        );
    }
    let tools = chat.tools.clone().filter(|tools| !tools.is_null());
    let template = templates.choose(tools.is_some())?;

    let mut messages = Vec::with_capacity(chat.messages.len());
    for (at, message) in chat.messages.iter().enumerate() {
        let Value::Object(message) = message else {
            return refuse(&format!("message {at} is not an object"));
        };
        let mut message = normalise(message);
        if let Some(volatile) = volatile {
            volatile.normalise_message(&mut message);
        }
        fit_content(template, templates, &mut message, at)?;
        messages.push(control.mark_message(message));
    }
    let continued = match messages.last_mut() {
        Some(last) if chat.continue_final_message => Some(tag_final(template, last)?),
        _ => None,
    };

    let mut variables = templates.special.clone();
    for (name, value) in &chat.extra {
        if RESERVED.contains(&name.as_str()) {
            return refuse(&format!(
                "the template variable `{name}` is set by the dialogue itself; take it out of chat_template_kwargs"
            ));
        }
        let value = match name.ends_with("_token") {
            true => value.clone(),
            false => control.mark_value(value.clone()),
        };
        variables.insert(name.clone(), value);
    }
    variables.insert(
        "messages".into(),
        messages.into_iter().map(Value::Object).collect(),
    );
    variables.insert(
        "tools".into(),
        tools.map_or(Value::Null, |tools| control.mark_value(tools)),
    );
    if !variables.contains_key("documents") {
        variables.insert("documents".into(), Value::Null);
    }
    variables.insert(
        "add_generation_prompt".into(),
        chat.add_generation_prompt.into(),
    );
    let rendered = template.render(&variables)?;
    match continued {
        Some(text) => cut_at_tag(&rendered, &text),
        None => Ok(rendered),
    }
}

fn refuse<T>(reason: &str) -> Result<T, TextError> {
    Err(TextError::Chat {
        reason: reason.to_owned(),
    })
}

/// Null keys dropped, reasoning under all of its names, arguments parsed.
fn normalise(message: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    let reasoning = REASONING
        .iter()
        .find_map(|name| message.get(*name).filter(|value| !value.is_null()))
        .cloned();
    if let Some(reasoning) = &reasoning {
        out.insert("thinking".into(), reasoning.clone());
    }
    for (key, value) in message {
        if !value.is_null() {
            out.insert(key.clone(), value.clone());
        }
    }
    if let Some(reasoning) = reasoning {
        out.insert("reasoning_content".into(), reasoning);
    }
    if let Some(Value::Array(calls)) = out.get_mut("tool_calls") {
        for call in calls {
            parse_arguments(call);
        }
    }
    out
}

/// OpenAI writes arguments as a string of JSON, templates want the object; what does not parse stays a string.
fn parse_arguments(call: &mut Value) {
    let Some(arguments) = call
        .get_mut("function")
        .and_then(|function| function.get_mut("arguments"))
    else {
        return;
    };
    if let Value::String(text) = arguments
        && let Ok(parsed @ Value::Object(_)) = serde_json::from_str(text)
    {
        *arguments = parsed;
    }
}

/// Gives `content` the form that the template takes.
fn fit_content(
    template: &Template,
    templates: &Templates,
    message: &mut Map<String, Value>,
    at: usize,
) -> Result<(), TextError> {
    let role = message
        .get("role")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let Some(content @ (Value::String(_) | Value::Array(_))) = message.get_mut("content") else {
        return Ok(());
    };
    let style = content_style(template, templates, &role);
    match (style, &mut *content) {
        (ContentStyle::Text, Value::Array(parts)) => {
            let mut text = String::new();
            for (n, part) in parts.iter().enumerate() {
                let Some(part) = part.as_str().or_else(|| part.get("text")?.as_str()) else {
                    let kind = part
                        .get("type")
                        .and_then(Value::as_str)
                        .unwrap_or("unknown");
                    return refuse(&format!(
                        "part {n} of message {at} is of type {kind:?}, but the model's chat template takes text only in a message of role {role:?}"
                    ));
                };
                if n > 0 {
                    text.push('\n');
                }
                text.push_str(part);
            }
            *content = Value::String(text);
        }
        (ContentStyle::Parts, Value::String(text)) => {
            *content = json!([{"type": "text", "text": text}])
        }
        _ => {}
    }
    Ok(())
}

/// Finds out by rendering small dialogues which forms of content come through.
fn content_style(template: &Template, templates: &Templates, role: &str) -> ContentStyle {
    let known = |styles: &std::collections::HashMap<_, _>| styles.get(role).copied();
    if let Some(style) = template.styles.lock().ok().as_deref().and_then(known) {
        return style;
    }
    const PROBE: &str = "pr0be";
    let try_content = |content: Value, filler: Value| -> Option<String> {
        let messages = match role {
            "user" => json!([{"role": "user", "content": content}]),
            "assistant" => json!([
                {"role": "user", "content": filler},
                {"role": "assistant", "content": content},
                {"role": "user", "content": filler},
            ]),
            "tool" => json!([
                {"role": "user", "content": filler},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": {}}}]},
                {"role": "tool", "name": "f", "tool_call_id": "call00001", "content": content},
            ]),
            _ => json!([{"role": role, "content": content}, {"role": "user", "content": filler}]),
        };
        let mut variables = templates.special.clone();
        variables.insert("messages".into(), messages);
        for name in ["tools", "documents"] {
            variables.insert(name.into(), Value::Null);
        }
        variables.insert("add_generation_prompt".into(), false.into());
        template
            .render(&variables)
            .ok()
            .filter(|text| text.contains(PROBE))
    };
    let parts = |text: &str| json!([{"type": "text", "text": text}]);
    let filler = |text: &str| match role == "user"
        || content_style(template, templates, "user") != ContentStyle::Parts
    {
        true => json!(text),
        false => parts(text),
    };
    let from_text = try_content(json!(PROBE), filler("x"));
    // A list that was printed as such shows its keys.
    let keys = |text: &str| text.matches("'type'").count() + text.matches("\"type\"").count();
    let from_parts = try_content(parts(PROBE), filler("x"))
        .filter(|text| keys(text) <= from_text.as_deref().map_or(0, keys));
    let style = match (from_text.is_some(), from_parts.is_some()) {
        (true, false) => ContentStyle::Text,
        (false, true) => ContentStyle::Parts,
        _ => ContentStyle::Any,
    };
    // Roles come from outside: do not remember any number of them.
    if ["system", "developer", "user", "assistant", "tool"].contains(&role)
        && let Ok(mut styles) = template.styles.lock()
    {
        styles.insert(role.to_owned(), style);
    }
    style
}

/// Puts the tag behind the text of the final message, and returns that text.
fn tag_final(template: &Template, last: &mut Map<String, Value>) -> Result<String, TextError> {
    if !template.source().contains("content") {
        return refuse(
            "the final message cannot be continued: the model's chat template does not read `content`",
        );
    }
    let tagged = match last.get_mut("content") {
        Some(Value::String(text)) => Some(text),
        Some(Value::Array(parts)) => {
            parts
                .iter_mut()
                .rev()
                .find_map(|part| match part.get_mut("text") {
                    Some(Value::String(text)) => Some(text),
                    _ => None,
                })
        }
        _ => None,
    };
    let Some(text) = tagged else {
        return refuse("the final message cannot be continued: it has no text");
    };
    let before = text.clone();
    text.push_str(CONTINUE_TAG);
    Ok(before)
}

/// The rendered text up to the end of the final message.
fn cut_at_tag(rendered: &str, text: &str) -> Result<String, TextError> {
    let at = rendered.rfind(CONTINUE_TAG.trim_end());
    let (Some(at), true) = (at, unmark(rendered).contains(unmark(text).trim())) else {
        return refuse(
            "the final message cannot be continued: it does not appear in the rendered text, as the model's chat template removes parts of it",
        );
    };
    let (before, after) = rendered.split_at(at);
    Ok(if after.starts_with(CONTINUE_TAG) {
        before.to_owned()
    } else {
        before.trim_end().to_owned()
    })
}
