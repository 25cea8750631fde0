//! Reasoning and tool calls as each dialect hands them on.

use super::*;
use crate::sample::Form;
use crate::server::Constraint;

/// A server of a model that reasons between `<think>` and `</think>`.
async fn thinking(answer: &'static str) -> Server {
    let (handle, inbox) = Handle::new(facts(), 100);
    run(inbox, move |submission| say(&submission, answer.as_bytes()));
    let app = App {
        text: text().with_notations(None, Some("think")).unwrap(),
        ..app(handle)
    };
    Server::start_app(app, Config::default()).await
}

fn with_tools(more: Value) -> Value {
    let mut body = hello(
        json!({"tools": [{"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}}}}]}),
    );
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn reasoning_has_its_own_field() {
    let server = thinking("<think>\nWhy?\n</think>\n\nSo.").await;
    let json = server.chat(&hello(json!({}))).await.json();
    let message = &json["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("So."), &json!("Why?"))
    );
    let counted = &json["usage"]["completion_tokens_details"]["reasoning_tokens"];
    assert_eq!(counted, "\nWhy?\n</think>".len());

    let chunks = server.chat(&hello(json!({"stream": true}))).await.chunks();
    let joined = |name: &str| -> String {
        let deltas = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0]["delta"][name]);
        deltas.filter_map(Value::as_str).collect()
    };
    assert_eq!(
        (
            joined("content").as_str(),
            joined("reasoning_content").as_str()
        ),
        ("So.", "Why?")
    );
}

#[tokio::test]
async fn reasoning_that_was_never_opened_is_told_in_whole_answers() {
    let server = thinking("Why?</think>So.").await;
    let json = server.chat(&hello(json!({}))).await.json();
    let message = &json["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("So."), &json!("Why?"))
    );
}

#[tokio::test]
async fn anthropics_clients_get_thinking_blocks() {
    let server = thinking("<think>Why?</think>So.").await;
    let body = json!({"model": "tiny", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]});
    let content = server.post("/v1/messages", &body).await.json()["content"].clone();
    let told: Vec<&Value> = content
        .as_array()
        .unwrap()
        .iter()
        .map(|block| &block["type"])
        .collect();
    assert_eq!(told, ["thinking", "text"]);
    assert_eq!(
        (&content[0]["thinking"], &content[1]["text"]),
        (&json!("Why?"), &json!("So."))
    );
}

#[tokio::test]
async fn a_call_that_breaks_off_comes_back_as_text() {
    const BROKEN: &str = "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": oops";
    let server = Server::saying(BROKEN).await;
    let json = server.chat(&with_tools(json!({}))).await.json();
    let choice = &json["choices"][0];
    assert_eq!(choice["message"]["content"], BROKEN);
    assert_eq!(choice["message"].get("tool_calls"), None);
    assert_eq!(choice["finish_reason"], "stop");
    let body = json!({"model": "tiny", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"name": "weather", "input_schema": {"type": "object"}}]});
    let content = server.post("/v1/messages", &body).await.json()["content"].clone();
    assert_eq!(content, json!([{"type": "text", "text": BROKEN}]));
}

#[tokio::test]
async fn arguments_stream_in_pieces() {
    let server = Server::saying(
        "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}</tool_call>",
    )
    .await;
    let chunks = server
        .chat(&with_tools(json!({"stream": true})))
        .await
        .chunks();
    let pieces: Vec<&str> = chunks
        .iter()
        .filter_map(|chunk| {
            chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str()
        })
        .collect();
    assert!(pieces.len() > 10, "{pieces:?}");
    assert_eq!(pieces.concat(), "{\"city\": \"Oslo\"}");
}

#[tokio::test]
async fn a_call_that_is_asked_for_is_made_sure_of() {
    let (handle, inbox) = Handle::new(facts(), 100);
    run(inbox, |submission| say(&submission, b"x"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let record = asked.clone();
    let app = App {
        forms: Some(Arc::new(move |constraint: &Constraint| {
            record.lock().unwrap().push(constraint.clone());
            Ok(Form::new(|| Err("not run here".into())))
        })),
        ..app(handle)
    };
    let server = Server::start_app(app, Config::default()).await;
    for choice in [
        json!("required"),
        json!({"type": "function", "function": {"name": "weather"}}),
    ] {
        server
            .chat(&with_tools(json!({"tool_choice": choice})))
            .await;
    }
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    for constraint in asked.iter() {
        let Constraint::Lark(grammar) = constraint else {
            panic!("{constraint:?}");
        };
        assert!(
            grammar.starts_with("start:") && grammar.contains("weather"),
            "{grammar}"
        );
        assert!(grammar.contains("%json {\"type\":\"object\""), "{grammar}");
    }
}
