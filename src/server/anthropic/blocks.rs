//! Messages of content blocks, brought to the shape that chat templates take.
//!
//! A tool's result becomes a message of its own with the role `tool`; thinking becomes the
//! assistant's `reasoning_content`. Messages of one role in a row are joined, as the dialect has it,
//! because many templates want roles to alternate.

use serde_json::{Map, Value, json};

use crate::server::error::ApiError;
use crate::server::fields::{Fields, wrong_type};

/// The system prompt: a text, or text blocks, which stand apart like paragraphs.
///
/// # Errors
/// Anything else.
pub fn system(system: Value, ignored: &mut Vec<String>) -> Result<String, ApiError> {
    let blocks = match system {
        Value::String(text) => return Ok(text),
        Value::Array(blocks) => blocks,
        other => {
            let expected = "a string or an array of text blocks";
            return Err(wrong_type("system", &other, expected));
        }
    };
    paragraphs(blocks, "system", ignored)
}

fn paragraphs(
    blocks: Vec<Value>,
    path: &str,
    ignored: &mut Vec<String>,
) -> Result<String, ApiError> {
    let mut texts = Vec::with_capacity(blocks.len());
    for (index, block) in blocks.into_iter().enumerate() {
        let mut block = Fields::new(block, format!("{path}[{index}]"))?;
        match block.required_string("type")?.as_str() {
            "text" => texts.push(text(&mut block)?),
            other => return Err(unknown(&block, other, "a system prompt")),
        }
        finish(block, ignored)?;
    }
    texts.retain(|text| !text.is_empty());
    Ok(texts.join("\n\n"))
}

/// Adds all messages to `out`; returns whether the last is the beginning of the answer.
///
/// # Errors
/// A message or block that is malformed, or of a kind that a text model cannot read.
pub fn messages(
    messages: Vec<Value>,
    out: &mut Vec<Value>,
    ignored: &mut Vec<String>,
) -> Result<bool, ApiError> {
    if messages.is_empty() {
        let message = "`messages` is empty; give at least one message";
        return Err(ApiError::field("messages", message));
    }
    let mut calls = Vec::new();
    let count = messages.len();
    let mut continues = false;
    for (index, value) in messages.into_iter().enumerate() {
        let path = format!("messages[{index}]");
        let mut message = Fields::new(value, &path)?;
        let role = message.required_string("role")?;
        let content = content(&mut message)?;
        ignored.extend(message.rest());
        match role.as_str() {
            "user" => user(content, &path, &calls, out, ignored)?,
            "assistant" => {
                let last = index + 1 == count;
                assistant(content, &path, &mut calls, out, ignored)?;
                if last {
                    continues = check_beginning(&path, out)?;
                }
            }
            "system" => {
                let content = paragraphs(content, &format!("{path}.content"), ignored)?;
                out.push(json!({"role": "system", "content": content}));
            }
            _ => {
                let message =
                    format!("`{path}.role` is {role:?}, expected one of user, assistant, system");
                return Err(ApiError::field(format!("{path}.role"), message));
            }
        }
    }
    Ok(continues)
}

/// A message's blocks; a bare text is one block.
fn content(message: &mut Fields) -> Result<Vec<Value>, ApiError> {
    match message.take("content") {
        None => Err(message.missing("content")),
        Some(Value::String(text)) => Ok(vec![json!({"type": "text", "text": text})]),
        Some(Value::Array(blocks)) => Ok(blocks),
        Some(other) => {
            let expected = "a string or an array of blocks";
            Err(wrong_type(&message.path("content"), &other, expected))
        }
    }
}

fn user(
    blocks: Vec<Value>,
    path: &str,
    calls: &[String],
    out: &mut Vec<Value>,
    ignored: &mut Vec<String>,
) -> Result<(), ApiError> {
    if blocks.is_empty() {
        let path = format!("{path}.content");
        let message = format!("`{path}` is empty; give at least one block");
        return Err(ApiError::field(path, message));
    }
    let mut texts: Vec<String> = Vec::new();
    for (index, block) in blocks.into_iter().enumerate() {
        let mut block = Fields::new(block, format!("{path}.content[{index}]"))?;
        let kind = block.required_string("type")?;
        match kind.as_str() {
            "tool_result" => {
                if !texts.is_empty() {
                    add_user(out, std::mem::take(&mut texts).join("\n"));
                }
                out.push(tool_result(&mut block, calls, ignored)?);
            }
            _ => texts.push(readable(&mut block, &kind, "a user's message", ignored)?),
        }
        finish(block, ignored)?;
    }
    if !texts.is_empty() {
        add_user(out, texts.join("\n"));
    }
    Ok(())
}

/// Adds to the user's message that is last, or begins one.
fn add_user(out: &mut Vec<Value>, text: String) {
    if let Some(last) = out.last_mut()
        && last["role"] == "user"
        && let Value::String(before) = &mut last["content"]
    {
        before.push('\n');
        before.push_str(&text);
        return;
    }
    out.push(json!({"role": "user", "content": text}));
}

/// The text of a block that a text model can read.
fn readable(
    block: &mut Fields,
    kind: &str,
    place: &str,
    ignored: &mut Vec<String>,
) -> Result<String, ApiError> {
    match kind {
        "text" => text(block),
        "document" => document(block, ignored),
        "search_result" => {
            let source = block.required_string("source")?;
            let title = block.required_string("title")?;
            block.refuse("citations", is_off, NO_CITATIONS)?;
            let path = block.path("content");
            let parts = block.array("content")?.unwrap_or_default();
            let text = texts(parts, &path, ignored)?;
            Ok(format!("{title} ({source})\n{text}"))
        }
        _ => Err(unknown(block, kind, place)),
    }
}

fn text(block: &mut Fields) -> Result<String, ApiError> {
    let text = block.required_string("text")?;
    // Where a text was taken from says nothing to the model.
    block.array("citations")?;
    Ok(text)
}

const NO_CITATIONS: &str = "answers do not cite; leave it out";

/// Whether citations are not asked for.
fn is_off(citations: &Value) -> bool {
    citations["enabled"] != Value::Bool(true)
}

fn document(block: &mut Fields, ignored: &mut Vec<String>) -> Result<String, ApiError> {
    let Some(mut source) = block.object("source")? else {
        return Err(block.missing("source"));
    };
    let text = match source.required_string("type")?.as_str() {
        "text" => {
            source.string("media_type")?;
            source.required_string("data")?
        }
        "content" => {
            let path = source.path("content");
            match source.take("content") {
                Some(Value::String(text)) => text,
                Some(Value::Array(parts)) => texts(parts, &path, ignored)?,
                Some(other) => {
                    let expected = "a string or an array of text blocks";
                    return Err(wrong_type(&path, &other, expected));
                }
                None => return Err(source.missing("content")),
            }
        }
        other => return Err(unknown(&source, other, "a document; give its text instead")),
    };
    ignored.extend(source.rest());
    let title = block.string("title")?;
    let context = block.string("context")?;
    block.refuse("citations", is_off, NO_CITATIONS)?;
    let parts = [title, context, Some(text)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Ok(parts.join("\n"))
}

/// Text blocks inside of another block.
fn texts(parts: Vec<Value>, path: &str, ignored: &mut Vec<String>) -> Result<String, ApiError> {
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::new(part, format!("{path}[{index}]"))?;
        let kind = part.required_string("type")?;
        let text = match kind.as_str() {
            "tool_reference" => part.required_string("tool_name")?,
            _ => readable(&mut part, &kind, "this place", ignored)?,
        };
        texts.push(text);
        finish(part, ignored)?;
    }
    Ok(texts.join("\n"))
}

fn tool_result(
    block: &mut Fields,
    calls: &[String],
    ignored: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let id = block.required_string("tool_use_id")?;
    if !calls.contains(&id) {
        let path = block.path("tool_use_id");
        let message = format!(
            "`{path}` is {id:?}, but no `tool_use` block before it has this id; give the result after its call"
        );
        return Err(ApiError::field(path, message));
    }
    let path = block.path("content");
    let mut content = match block.take("content") {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => texts(parts, &path, ignored)?,
        Some(other) => {
            let expected = "a string or an array of blocks";
            return Err(wrong_type(&path, &other, expected));
        }
    };
    // Templates have no place for this mark, so the model must read it.
    if block.boolean("is_error")?.unwrap_or(false) && !content.starts_with("Error") {
        content.insert_str(0, "Error: ");
    }
    Ok(json!({"role": "tool", "tool_call_id": id, "content": content}))
}

fn assistant(
    blocks: Vec<Value>,
    path: &str,
    calls: &mut Vec<String>,
    out: &mut Vec<Value>,
    ignored: &mut Vec<String>,
) -> Result<(), ApiError> {
    let mut content: Vec<String> = Vec::new();
    let mut thoughts: Vec<String> = Vec::new();
    let mut called: Vec<Value> = Vec::new();
    for (index, block) in blocks.into_iter().enumerate() {
        let mut block = Fields::new(block, format!("{path}.content[{index}]"))?;
        match block.required_string("type")?.as_str() {
            "text" => content.push(text(&mut block)?),
            "thinking" => {
                thoughts.push(block.required_string("thinking")?);
                // Thoughts are the client's to change: nothing here depends on them.
                block.string("signature")?;
            }
            // Another server's secret, of which no model here can make anything.
            "redacted_thinking" => {
                block.required_string("data")?;
            }
            "tool_use" => {
                let id = block.required_string("id")?;
                let name = block.required_string("name")?;
                let input = block.object("input")?.map(Fields::into_map);
                block.object("caller")?;
                calls.push(id.clone());
                called.push(json!({
                    "id": id,
                    "type": "function",
                    "function": {"name": name, "arguments": input.unwrap_or_default()},
                }));
            }
            other => return Err(unknown(&block, other, "an assistant's message")),
        }
        finish(block, ignored)?;
    }
    content.retain(|text| !text.is_empty());
    thoughts.retain(|text| !text.is_empty());
    let joins = out
        .last()
        .is_some_and(|last| last["role"] == "assistant" && last.get("tool_calls").is_none());
    let mut message = match joins {
        true => match out.pop() {
            Some(Value::Object(last)) => last,
            _ => Map::new(),
        },
        false => Map::from_iter([("role".into(), json!("assistant"))]),
    };
    for (name, parts) in [("content", content), ("reasoning_content", thoughts)] {
        let before = message.get(name).and_then(Value::as_str).map(String::from);
        let whole: Vec<String> = before.into_iter().chain(parts).collect();
        if !whole.is_empty() || name == "content" {
            message.insert(name.into(), Value::String(whole.join("\n")));
        }
    }
    if !called.is_empty() {
        message.insert("tool_calls".into(), Value::Array(called));
    }
    out.push(Value::Object(message));
    Ok(())
}

/// Whether the last message, an assistant's, is one to go on with.
fn check_beginning(path: &str, out: &[Value]) -> Result<bool, ApiError> {
    let Some(last) = out.last() else {
        return Ok(false);
    };
    if last.get("tool_calls").is_some() {
        let message = format!(
            "`{path}` has `tool_use` blocks but nothing comes after it; give a `tool_result` for each"
        );
        return Err(ApiError::field(path, message));
    }
    let text = last["content"].as_str().unwrap_or_default();
    if text.ends_with(char::is_whitespace) {
        let message =
            format!("`{path}` begins the answer and must not end with white space; take it away");
        return Err(ApiError::field(path, message));
    }
    Ok(!text.is_empty())
}

/// Takes what every block may have, and names what is left.
fn finish(mut block: Fields, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    cache_control(&mut block, ignored)?;
    block.refuse(
        "toolset_name",
        |_| false,
        "there are no toolsets; leave it out",
    )?;
    ignored.extend(block.rest());
    Ok(())
}

/// Takes a mark of what is to be kept, of which only the form matters: every prompt is.
///
/// # Errors
/// One that is malformed.
pub fn cache_control(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    let Some(mut control) = fields.object("cache_control")? else {
        return Ok(());
    };
    let kind = control.required_string("type")?;
    let ttl = control.string("ttl")?;
    for (name, value, known) in [
        ("type", Some(kind), &["ephemeral"][..]),
        ("ttl", ttl, &["5m", "1h"]),
    ] {
        if let Some(value) = value.filter(|value| !known.contains(&value.as_str())) {
            let path = control.path(name);
            let known = known.join(" or ");
            let message = format!("`{path}` is {value:?}, expected {known}");
            return Err(ApiError::field(path, message));
        }
    }
    ignored.extend(control.rest());
    Ok(())
}

fn unknown(block: &Fields, kind: &str, place: &str) -> ApiError {
    let path = block.path("type");
    let images = match kind {
        "image" => "; images are not supported yet",
        "base64" | "url" | "file" => "; only text is read",
        _ => "",
    };
    let message = format!("`{path}` is {kind:?}, which cannot stand in {place}{images}");
    ApiError::field(path, message).code("unsupported_content")
}
