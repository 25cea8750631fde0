//! What the fuzz targets, and the tests of the same invariants, need of the dialects.

use serde_json::Value;

use super::answer::{End, Part, Usage};
use super::reply::{Prepare, Prepared};
use super::sse::Sse;
use super::{App, anthropic, body, openai};
use crate::engine::{Event, FinishReason, Stats};

/// Chat, completions, messages.
const DIALECTS: [Prepare; 3] = [
    openai::chat_request::prepare,
    openai::completions_request::prepare,
    anthropic::prepare,
];

/// Reads `bytes` as each dialect's body, and answers what is one with `answer`: what a stream of it is,
/// and the whole answer. Says why where it is none.
pub fn dialects(app: &App, bytes: &[u8], answer: &[u32]) -> Vec<Result<(String, String), String>> {
    let read = |prepare: Prepare| {
        let mut answers = Vec::new();
        for stream in [true, false] {
            let fields = body::parse(bytes).map_err(|error| error.to_string())?;
            let mut prepared = prepare(app, fields, "req_0").map_err(|error| error.to_string())?;
            let mut out = Sse::default();
            prepared.reply.open(&mut out);
            for mut job in prepared.jobs {
                let started = Event::Started(Stats::default());
                let tokens = answer.iter().map(|&id| Event::Token { id, logprob: None });
                let finished = Event::Finished {
                    reason: FinishReason::Stop,
                    stats: Stats::default(),
                };
                for event in [started].into_iter().chain(tokens).chain([finished]) {
                    job.answer.take(event, |part| match stream {
                        true => prepared.reply.part(job.index, part, &mut out),
                        false => prepared.reply.keep(job.index, part),
                    });
                }
            }
            answers.push(match stream {
                true => {
                    prepared.reply.close(&mut out);
                    out.into_text()
                }
                false => prepared.reply.whole().to_string(),
            });
        }
        let whole = answers.pop().unwrap_or_default();
        Ok((answers.pop().unwrap_or_default(), whole))
    };
    DIALECTS.into_iter().map(read).collect()
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text.
    Text(String),
    /// What the model thinks.
    Reasoning(String),
    /// A call of this function, and its arguments in pieces.
    Call(String, Vec<String>),
}

/// The events of a stream, as the standard has them read: the data of each, with its name.
///
/// # Errors
/// A line that is no field of an event, or an event that is cut.
pub fn events(stream: &str) -> Result<Vec<(String, String)>, String> {
    let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
    let Some(lines) = lines.strip_suffix("\n\n") else {
        return Err(format!("the last event has no end: {stream:?}"));
    };
    let mut events = Vec::new();
    for event in lines.split("\n\n") {
        let (mut name, mut data) = (String::new(), Vec::new());
        for line in event.split('\n') {
            match line.split_once(": ") {
                Some(("event", value)) => name = value.to_owned(),
                Some(("data", value)) => data.push(value),
                Some(("", _)) => {}
                _ => return Err(format!("a line that is no field: {line:?}")),
            }
        }
        events.push((name, data.join("\n")));
    }
    Ok(events)
}

/// Writes an answer of these pieces in each dialect, as a stream and whole, reads both back, and compares
/// them with what went in.
///
/// # Errors
/// What is not as it was.
pub fn nothing_is_lost(app: &App, pieces: &[Piece]) -> Result<(), String> {
    const BODY: &[u8] = br#"{"model": "default", "messages": [{"role": "user", "content": "Hi"}],
        "prompt": "Hi", "max_tokens": 9}"#;
    let said = |error: super::ApiError| error.to_string();
    for (dialect, prepare) in DIALECTS.into_iter().enumerate() {
        let fresh = || prepare(app, body::parse(BODY)?, "req_0");
        let mut out = Sse::default();
        let mut prepared = fresh().map_err(said)?;
        prepared.reply.open(&mut out);
        feed(&mut prepared, pieces, |prepared, part| {
            prepared.reply.part(0, part, &mut out);
        });
        prepared.reply.close(&mut out);
        let events = events(&out.into_text())?;
        let mut prepared = fresh().map_err(said)?;
        feed(&mut prepared, pieces, |prepared, part| {
            prepared.reply.keep(0, part);
        });
        let whole = prepared.reply.whole();
        let read = match dialect {
            0 => [chat_events(&events)?, chat_whole(&whole)],
            1 => [text_events(&events)?, text_whole(&whole)],
            _ => [message_events(&events)?, message_whole(&whole)],
        };
        let expected = match dialect {
            0 => sorted(pieces),
            1 => text_only(pieces),
            _ => joined(pieces),
        };
        for read in read {
            if read != expected {
                return Err(format!(
                    "dialect {dialect}: {read:?} was read, expected {expected:?}"
                ));
            }
        }
    }
    Ok(())
}

fn feed(prepared: &mut Prepared, pieces: &[Piece], mut take: impl FnMut(&mut Prepared, Part)) {
    take(prepared, Part::Started(Usage::default()));
    for piece in pieces.iter().cloned() {
        match piece {
            Piece::Text(text) => {
                let tokens = Vec::new();
                take(prepared, Part::Text { text, tokens });
            }
            Piece::Reasoning(text) => take(prepared, Part::Reasoning(text)),
            Piece::Call(name, arguments) => {
                take(prepared, Part::Call { name, id: None });
                for text in arguments {
                    take(prepared, Part::Arguments(text));
                }
            }
        }
    }
    let end = Part::End {
        end: End::Stop,
        usage: Usage::default(),
        stats: None,
    };
    take(prepared, end);
}

/// Pieces of one kind in a row are one, and empty ones none.
fn joined(pieces: &[Piece]) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (out.last_mut(), piece) {
            (_, Piece::Text(text) | Piece::Reasoning(text)) if text.is_empty() => {}
            (Some(Piece::Text(last)), Piece::Text(more)) => last.push_str(more),
            (Some(Piece::Reasoning(last)), Piece::Reasoning(more)) => last.push_str(more),
            (_, Piece::Call(name, arguments)) => {
                out.push(Piece::Call(name.clone(), vec![arguments.concat()]));
            }
            (_, other) => out.push(other.clone()),
        }
    }
    out
}

/// The text, the reasoning, then the calls: a dialect of fields does not keep their order.
fn sorted(pieces: &[Piece]) -> Vec<Piece> {
    let all = || pieces.iter().cloned();
    let texts = all().filter(|piece| matches!(piece, Piece::Text(_)));
    let thoughts = all().filter(|piece| matches!(piece, Piece::Reasoning(_)));
    let calls = all().filter(|piece| matches!(piece, Piece::Call(..)));
    joined(&texts.chain(thoughts).chain(calls).collect::<Vec<_>>())
}

fn text_only(pieces: &[Piece]) -> Vec<Piece> {
    let texts = pieces
        .iter()
        .filter(|piece| matches!(piece, Piece::Text(_)));
    joined(&texts.cloned().collect::<Vec<_>>())
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn call(function: &Value) -> Piece {
    Piece::Call(
        string(&function["name"]),
        vec![string(&function["arguments"])],
    )
}

/// The data of OpenAI's events, which end as they should.
fn openai_events(events: &[(String, String)]) -> Result<Vec<Value>, String> {
    let Some(((_, last), events)) = events.split_last() else {
        return Err("there are no events".into());
    };
    if last != "[DONE]" {
        return Err(format!("the stream ends with {last:?}"));
    }
    let data = events.iter().map(|(_, data)| serde_json::from_str(data));
    data.collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

fn chat_events(events: &[(String, String)]) -> Result<Vec<Piece>, String> {
    let mut pieces: Vec<Piece> = Vec::new();
    for chunk in openai_events(events)? {
        let delta = &chunk["choices"][0]["delta"];
        pieces.push(Piece::Text(string(&delta["content"])));
        pieces.push(Piece::Reasoning(string(&delta["reasoning_content"])));
        let called = &delta["tool_calls"][0];
        let at = called["index"].as_u64().unwrap_or_default() as usize;
        let mut calls = pieces.iter_mut().filter_map(|piece| match piece {
            Piece::Call(_, arguments) => Some(arguments),
            _ => None,
        });
        if called.is_object() {
            match calls.nth(at) {
                Some(arguments) => arguments.push(string(&called["function"]["arguments"])),
                None => pieces.push(call(&called["function"])),
            }
        }
    }
    Ok(sorted(&pieces))
}

fn chat_whole(whole: &Value) -> Vec<Piece> {
    let message = &whole["choices"][0]["message"];
    let mut pieces = vec![
        Piece::Text(string(&message["content"])),
        Piece::Reasoning(string(&message["reasoning_content"])),
    ];
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    pieces.extend(calls.map(|made| call(&made["function"])));
    joined(&pieces)
}

fn text_events(events: &[(String, String)]) -> Result<Vec<Piece>, String> {
    let chunks = openai_events(events)?;
    let texts = chunks.iter().map(|chunk| &chunk["choices"][0]["text"]);
    let pieces: Vec<Piece> = texts.map(|text| Piece::Text(string(text))).collect();
    Ok(joined(&pieces))
}

fn text_whole(whole: &Value) -> Vec<Piece> {
    joined(&[Piece::Text(string(&whole["choices"][0]["text"]))])
}

fn message_events(events: &[(String, String)]) -> Result<Vec<Piece>, String> {
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut open, mut ended) = (None, false);
    for (name, data) in events {
        let data: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
        if ended || data["type"] != name.as_str() {
            return Err(format!("{data} came as {name:?}, or after the end"));
        }
        let index = data["index"].as_u64();
        match name.as_str() {
            "content_block_start" => {
                let block = &data["content_block"];
                if open.is_some() || index != Some(pieces.len() as u64) {
                    return Err(format!("{data} comes inside of a block, or out of turn"));
                }
                open = index;
                pieces.push(match block["type"].as_str() {
                    Some("text") => Piece::Text(string(&block["text"])),
                    Some("thinking") => Piece::Reasoning(string(&block["thinking"])),
                    _ => Piece::Call(string(&block["name"]), Vec::new()),
                });
            }
            "content_block_delta" => {
                let delta = &data["delta"];
                match (pieces.last_mut(), delta["type"].as_str()) {
                    _ if open != index => return Err(format!("{data} has no block")),
                    (Some(Piece::Text(text)), Some("text_delta")) => {
                        text.push_str(&string(&delta["text"]));
                    }
                    (Some(Piece::Reasoning(text)), Some("thinking_delta")) => {
                        text.push_str(&string(&delta["thinking"]));
                    }
                    (Some(Piece::Call(_, arguments)), Some("input_json_delta")) => {
                        arguments.push(string(&delta["partial_json"]));
                    }
                    (Some(Piece::Reasoning(_)), Some("signature_delta")) => {}
                    _ => return Err(format!("{data} does not belong to its block")),
                }
            }
            "content_block_stop" if open.take() != index => {
                return Err(format!("{data} ends another block"));
            }
            "message_stop" => ended = true,
            _ => {}
        }
    }
    match ended && open.is_none() {
        true => Ok(joined(&pieces)),
        false => Err("the message has no end".into()),
    }
}

fn message_whole(whole: &Value) -> Vec<Piece> {
    let blocks = whole["content"].as_array().into_iter().flatten();
    let piece = |block: &Value| match block["type"].as_str() {
        Some("text") => Piece::Text(string(&block["text"])),
        Some("thinking") => Piece::Reasoning(string(&block["thinking"])),
        _ => {
            let input = &block["input"];
            let invalid = input["INVALID_JSON"].as_str().map(str::to_owned);
            let text = invalid.unwrap_or_else(|| match input.as_object() {
                Some(map) if map.is_empty() => String::new(),
                _ => input.to_string(),
            });
            Piece::Call(string(&block["name"]), vec![text])
        }
    };
    joined(&blocks.map(piece).collect::<Vec<_>>())
}
