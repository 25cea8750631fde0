//! The tokens of what `pensieve perplexity` is asked about: a text, texts line by line, or dialogues whose
//! last answer counts.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Done, Failure};
use crate::engine::Sequence;
use crate::text::{Chat, Text, TextError, Tokenizer};

/// The tokens of a dialogue, and where its last answer begins in them.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialogue {
    tokens: Vec<u32>,
    answer: usize,
}

impl Dialogue {
    /// The same with the answer alone to score.
    pub fn sequence(&self) -> Sequence<'_> {
        Sequence {
            tokens: &self.tokens,
            scored_from: self.answer,
        }
    }
}

/// The file's tokens: of a text all of it at once, of JSON lines text after text.
pub fn tokens(tokenizer: &Tokenizer, file: &Path) -> Done<Vec<u32>> {
    let text = read(file)?;
    let place = file.display();
    let encode = |text: &str| {
        let ids = tokenizer.encode(text, true);
        ids.map_err(|e| Failure::Input(format!("{place}: {e}")))
    };
    if file.extension().is_none_or(|end| end != "jsonl") {
        return encode(&text);
    }
    let mut tokens = Vec::new();
    for (at, object) in objects(&text, file) {
        let object = object?;
        let Some(text) = object.get("text").and_then(Value::as_str) else {
            let dialogue = object.contains_key("messages") || object.contains_key("prompt");
            let hint = match dialogue {
                true => "; of dialogues the answers are scored, with --mask-prompt",
                false => "",
            };
            return Err(Failure::Input(format!(
                "{place}, line {at}: expected an object with a string `text`{hint}"
            )));
        };
        let ids = encode(text)?;
        let ends = ids.last().copied();
        tokens.extend(ids);
        // As mlx-lm has it: each text ends with the token, but not twice.
        tokens.extend(tokenizer.eos_token_id().filter(|eos| ends != Some(*eos)));
    }
    Ok(tokens)
}

/// The file's dialogues, a line each, in the forms that mlx-lm's fine-tuning takes: `messages`, the last of which is
/// the assistant's, with or without `tools`, or a `prompt` and its `completion`. Of each the answer ends with a
/// token of `ends`; what a template puts behind that is left out.
pub fn dialogues(text: &Text, ends: &[u32], file: &Path) -> Done<Vec<Dialogue>> {
    let lines = read(file)?;
    objects(&lines, file)
        .map(|(at, object)| {
            let dialogue = messages(&object?)
                .and_then(|(messages, tools)| dialogue(text, ends, messages, tools));
            dialogue.map_err(|e| Failure::Input(format!("{}, line {at}: {e}", file.display())))
        })
        .collect()
}

/// The messages of a line, and its tools.
fn messages(object: &Map<String, Value>) -> Result<(Vec<Value>, Option<Value>), String> {
    let tools = object.get("tools").filter(|tools| !tools.is_null());
    let string = |key: &str| object.get(key).and_then(Value::as_str);
    let messages = match (
        object.get("messages"),
        string("prompt"),
        string("completion"),
    ) {
        (Some(Value::Array(messages)), None, None) => messages.clone(),
        (None, Some(prompt), Some(completion)) => vec![
            json!({"role": "user", "content": prompt}),
            json!({"role": "assistant", "content": completion}),
        ],
        _ => {
            return Err(
                "expected an object with a list `messages`, or with strings `prompt` and \
                 `completion`"
                    .into(),
            );
        }
    };
    match messages.last().and_then(|last| last["role"].as_str()) {
        Some("assistant") if messages.len() > 1 => Ok((messages, tools.cloned())),
        _ => Err("expected two or more messages, the last one of role `assistant`".into()),
    }
}

fn dialogue(
    text: &Text,
    ends: &[u32],
    messages: Vec<Value>,
    tools: Option<Value>,
) -> Result<Dialogue, String> {
    let encode = |messages: &[Value], add_generation_prompt| {
        text.encode_chat(&Chat {
            messages: messages.to_vec(),
            tools: tools.clone(),
            add_generation_prompt,
            ..Chat::default()
        })
    };
    let said = |e: TextError| e.to_string();
    let mut tokens = encode(&messages, false).map_err(said)?;
    let asked = messages.split_last().map_or(&[][..], |(_, asked)| asked);
    let prompt = encode(asked, true).map_err(said)?;
    // A template may write an answer in another way than it asks for one, as when it leaves old reasoning out.
    let answer = tokens
        .iter()
        .zip(&prompt)
        .take_while(|(a, b)| a == b)
        .count();
    let written = tokens.get(answer..).unwrap_or_default();
    if let Some(end) = written.iter().rposition(|id| ends.contains(id)) {
        tokens.truncate(answer + end + 1);
    }
    match answer > 0 && answer < tokens.len() {
        true => Ok(Dialogue { tokens, answer }),
        false => Err("the chat template writes nothing before the answer, or no answer".into()),
    }
}

fn read(file: &Path) -> Done<String> {
    let place = file.display();
    let bytes =
        std::fs::read(file).map_err(|e| Failure::Input(format!("cannot read {place}: {e}")))?;
    String::from_utf8(bytes).map_err(|e| Failure::Input(format!("{place} is not UTF-8: {e}")))
}

/// The objects of JSON lines, with the numbers of their lines.
fn objects<'a>(
    text: &'a str,
    file: &'a Path,
) -> impl Iterator<Item = (usize, Done<Map<String, Value>>)> + 'a {
    let lines = text.lines().enumerate();
    let filled = lines.filter(|(_, line)| !line.trim().is_empty());
    filled.map(move |(i, line)| {
        let object = serde_json::from_str(line);
        let place = file.display();
        let object = object.map_err(|e| Failure::Input(format!("{place}, line {}: {e}", i + 1)));
        (i + 1, object)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_messages_or_a_prompt_and_its_completion() {
        let of = |text: &str| {
            messages(
                serde_json::from_str::<Value>(text)
                    .unwrap()
                    .as_object()
                    .unwrap(),
            )
        };
        let chat = r#"{"messages": [{"role": "user"}, {"role": "assistant"}], "tools": [1]}"#;
        assert_eq!(of(chat).unwrap().1, Some(json!([1])));
        let (pair, tools) = of(r#"{"prompt": "a", "completion": "b", "tools": null}"#).unwrap();
        assert_eq!(pair[1], json!({"role": "assistant", "content": "b"}));
        assert_eq!(tools, None);
        for wrong in [
            "{}",
            r#"{"text": "a"}"#,
            r#"{"prompt": "a"}"#,
            r#"{"messages": []}"#,
            r#"{"messages": [{"role": "assistant"}]}"#,
            r#"{"messages": [{"role": "assistant"}, {"role": "user"}]}"#,
            r#"{"messages": [{"role": "user"}, {}]}"#,
            r#"{"messages": {}, "prompt": "a", "completion": "b"}"#,
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
