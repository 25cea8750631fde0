//! Reasoning and tool calls as each dialect hands them on.

use super::*;
use crate::sample::{Allowed, Form, Guide};
use crate::text::guide::{Constraint, Forms};

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

/// Every token of the answers that a guide leaves one choice in, and what it allows where it leaves more.
#[tokio::test]
async fn reasoning_ends_when_its_budget_is_used_up_and_a_form_begins_behind_it() {
    let change = |app: &mut App| {
        app.text = text().with_notations(None, Some("think")).unwrap();
        app.forms = Some(Arc::new({
            let forms = Forms::new(app.text.tokenizer(), VOCABULARY, &[256]);
            move |constraint: &Constraint| forms.compile(constraint)
        }));
    };
    let (server, asked) = Server::recording_as("x", Config::default(), change).await;
    let form = async |body: Value| {
        let reply = server.chat(&hello(body)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        asked.lock().unwrap().pop().unwrap().form
    };
    let bits = |allowed: Allowed| -> Vec<u32> {
        let Allowed::These(words) = allowed else {
            panic!("{allowed:?}");
        };
        let set = |id: &u32| words[*id as usize / 32] & (1 << (id % 32)) != 0;
        (0..VOCABULARY as u32).filter(set).collect()
    };
    let say = |guide: &mut Box<dyn Guide>, text: &str| {
        for byte in text.bytes() {
            guide.accept(u32::from(byte)).unwrap();
        }
    };
    assert!(form(json!({})).await.is_none());

    let budget = form(json!({"thinking_budget": 3})).await.unwrap();
    let mut guide = budget.start().unwrap();
    for text in ["<think>", "a", "b"] {
        assert_eq!(guide.allowed(), Ok(Allowed::Any));
        say(&mut guide, text);
    }
    say(&mut guide, "c");
    for byte in "</think>".bytes() {
        assert_eq!(bits(guide.allowed().unwrap()), [u32::from(byte)]);
        guide.accept(u32::from(byte)).unwrap();
    }
    assert_eq!(guide.allowed(), Ok(Allowed::Any));
    let mut guide = budget.start().unwrap();
    say(
        &mut guide,
        "<think>a</think>, and much more without any reasoning",
    );
    assert_eq!(guide.allowed(), Ok(Allowed::Any));

    let formed = form(json!({"choice": ["yes", "no"]})).await.unwrap();
    let begin = [u32::from(b'<'), u32::from(b'n'), u32::from(b'y')];
    let mut guide = formed.start().unwrap();
    assert_eq!(bits(guide.allowed().unwrap()), begin);
    say(&mut guide, "<think>");
    assert_eq!(bits(guide.allowed().unwrap()).len(), VOCABULARY - 1);
    say(&mut guide, "anything < at all </think>");
    assert_eq!(bits(guide.allowed().unwrap()), begin[1..]);
    say(&mut guide, "yes");
    assert!(matches!(
        guide.allowed().unwrap(),
        Allowed::Nothing | Allowed::These(_)
    ));
    let mut guide = formed.start().unwrap();
    say(&mut guide, "n");
    assert_eq!(bits(guide.allowed().unwrap()), [u32::from(b'o')]);
}

#[tokio::test]
async fn calls_of_strict_tools_are_held_to_their_schema_once_they_begin() {
    let change = |app: &mut App| {
        let forms = Forms::new(app.text.tokenizer(), VOCABULARY, &[256]);
        app.forms = Some(Arc::new(move |constraint: &Constraint| {
            forms.compile(constraint)
        }));
    };
    let (server, asked) = Server::recording_as("x", Config::default(), change).await;
    let mut body = with_tools(json!({}));
    body["tools"][0]["function"]["strict"] = json!(true);
    let reply = server.chat(&body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let form = asked.lock().unwrap().pop().unwrap().form.unwrap();
    let mut guide = form.start().unwrap();
    for text in ["I may say < or <tool", " whatever I like. ", "<tool_call"] {
        text.bytes()
            .for_each(|b| guide.accept(u32::from(b)).unwrap());
        assert_eq!(guide.allowed(), Ok(Allowed::Any));
    }
    guide.accept(u32::from(b'>')).unwrap();
    assert_ne!(guide.allowed(), Ok(Allowed::Any));
    let call = "\n{\"name\": \"weather\", \"arguments\": {";
    call.bytes()
        .for_each(|b| guide.accept(u32::from(b)).unwrap());
    assert!(guide.accept(u32::from(b'7')).is_err());
}
