//! The shipped model answers held-out prompts of its skills, through our own binary.
//!
//! A sample in the ordinary tests; all prompts by `cargo xtask eval`, which sets
//! `PENSIEVE_EVAL=all` and builds for speed.

mod common;

use std::collections::BTreeMap;

use common::Server;
use serde_json::{Value, json};

/// The share of prompts that must be answered to the letter.
const BAR: f64 = 0.95;

/// An answer as the held-out file writes it: text, or a call in the common form.
fn answer(message: &Value) -> String {
    let content = message["content"].as_str().unwrap_or_default();
    let mut parts = vec![content.to_string()];
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let function = &call["function"];
        let arguments: Value =
            serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        let call = json!({"name": function["name"], "arguments": arguments});
        parts.push(call.to_string());
    }
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

/// The expected text with calls written as `answer` writes them.
fn expected(text: &str) -> String {
    let Some(inner) = text
        .trim()
        .strip_prefix("<tool_call>")
        .and_then(|rest| rest.strip_suffix("</tool_call>"))
    else {
        return text.to_string();
    };
    let call: Value = serde_json::from_str(inner.trim()).unwrap();
    json!({"name": call["name"], "arguments": call["arguments"]}).to_string()
}

/// The dialogue as a client sends it: calls have ids, and arguments are JSON text.
fn on_the_wire(messages: &Value) -> Value {
    let mut messages = messages.clone();
    for message in messages.as_array_mut().unwrap() {
        if message["role"] == "tool" && message.get("tool_call_id").is_none() {
            message["tool_call_id"] = "call_0".into();
        }
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for (i, call) in calls.into_iter().flatten().enumerate() {
            call["id"] = format!("call_{i}").into();
            call["type"] = "function".into();
            let arguments = &mut call["function"]["arguments"];
            if !arguments.is_string() {
                *arguments = arguments.to_string().into();
            }
        }
    }
    messages
}

#[test]
fn held_out_prompts_are_answered() {
    let path = common::tiny().join("heldout.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let prompts: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // A step that is no multiple of the number of skills takes all of them.
    let step = match std::env::var("PENSIEVE_EVAL").as_deref() {
        Ok("all") => 1,
        _ => 7,
    };
    let server = Server::start(&[]);
    let mut scores: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for prompt in prompts.iter().step_by(step) {
        let mut body = json!({"messages": on_the_wire(&prompt["messages"]), "temperature": 0, "max_tokens": 256});
        if let Some(tools) = prompt.get("tools").filter(|tools| !tools.is_null()) {
            body["tools"] = tools.clone();
        }
        let (status, reply) = server.post("/v1/chat/completions", &body);
        assert_eq!(status, 200, "{reply}");
        let got = answer(&reply["choices"][0]["message"]);
        let wanted = expected(prompt["answer"].as_str().unwrap());
        let skill = prompt["skill"].as_str().unwrap();
        let (right, all) = scores.entry(skill).or_default();
        *all += 1;
        if got == wanted {
            *right += 1;
        } else {
            println!(
                "{skill}: {}\n  expected {wanted}\n  got      {got}",
                prompt["messages"]
            );
        }
    }
    let (mut right, mut all) = (0, 0);
    for (skill, (r, a)) in &scores {
        println!("{skill:14} {r:4} of {a:4}");
        (right, all) = (right + r, all + a);
    }
    let share = right as f64 / all as f64;
    println!("{:14} {right:4} of {all:4}: {:.1}%", "all", share * 100.0);
    assert!(share >= BAR, "{right} of {all} right, the bar is {BAR}");
}
