//! The fields that the official clients' newest types have and that are easily forgotten: each is honoured, or
//! refused by name.

use super::*;
use crate::text::guide::{Constraint, FormError, FormErrorKind};

fn functions(names: &[&str]) -> Value {
    let function = |name: &&str| json!({"type": "function", "function": {"name": name}});
    names.iter().map(function).collect()
}

fn decoded(asked: &Asked, at: usize) -> String {
    let asked = asked.lock().unwrap();
    text().tokenizer().decode(&asked[at].prompt, false)
}

#[tokio::test]
async fn of_allowed_tools_the_model_is_told_and_of_no_others() {
    let (server, asked) = Server::recording("x").await;
    let choice = |mode: &str, names: &[&str]| {
        let allowed = json!({"mode": mode, "tools": functions(names)});
        hello(json!({
            "tools": functions(&["first", "second", "third"]),
            "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed},
        }))
    };
    let reply = server.chat(&choice("auto", &["third", "first"])).await;
    assert_eq!(
        (reply.status, reply.header("x-pensieve-ignored")),
        (200, None)
    );
    let prompt = decoded(&asked, 0);
    assert!(
        prompt.contains("first") && prompt.contains("third"),
        "{prompt}"
    );
    assert!(!prompt.contains("second"), "{prompt}");
    for (body, param) in [
        (
            choice("never", &["first"]),
            "tool_choice.allowed_tools.mode",
        ),
        (
            choice("auto", &["first", "fourth"]),
            "tool_choice.allowed_tools.tools[1].function.name",
        ),
        (choice("required", &[]), "tool_choice"),
        (
            hello(json!({"tools": functions(&["first"]),
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}})),
            "tool_choice.allowed_tools.tools",
        ),
        (
            hello(
                json!({"tools": functions(&["first"]), "tool_choice": {"type": "custom", "custom": {"name": "first"}}}),
            ),
            "tool_choice.type",
        ),
        (
            hello(json!({"tools": [{"type": "custom", "custom": {"name": "first"}}]})),
            "tools[0].type",
        ),
    ] {
        let reply = server.chat(&body).await;
        assert_eq!(
            (reply.status, &reply.error()["param"]),
            (400, &json!(param))
        );
    }
}

#[tokio::test]
async fn required_calls_are_of_allowed_tools() {
    let compiled = Arc::new(Mutex::new(Vec::new()));
    let seen = compiled.clone();
    let change = |app: &mut App| {
        app.forms = Some(Arc::new(move |constraint: &Constraint| {
            seen.lock().unwrap().push(format!("{constraint:?}"));
            Err(FormError {
                kind: FormErrorKind::Invalid,
                path: String::new(),
                reason: "not in this test".to_owned(),
            })
        }));
    };
    let (server, _) = Server::recording_as("x", Config::default(), change).await;
    let allowed = json!({"mode": "required", "tools": functions(&["second"])});
    let body = hello(json!({
        "tools": functions(&["first", "second"]),
        "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed},
    }));
    assert_eq!(server.chat(&body).await.status, 400);
    let compiled = compiled.lock().unwrap().join("\n");
    assert!(
        compiled.contains("second") && !compiled.contains("first"),
        "{compiled}"
    );
}

#[tokio::test]
async fn the_tier_of_service_is_told_if_it_was_asked_for() {
    let server = Server::saying("ab").await;
    for asked in ["auto", "default"] {
        let body = |stream: bool| hello(json!({"service_tier": asked, "stream": stream}));
        let whole = server.chat(&body(false)).await.json();
        assert_eq!(whole["service_tier"], "default");
        let chunks = server.chat(&body(true)).await.chunks();
        assert!(
            chunks
                .iter()
                .all(|chunk| chunk["service_tier"] == "default"),
            "{chunks:?}"
        );
    }
    let whole = server.chat(&hello(json!({}))).await.json();
    assert_eq!(whole.get("service_tier"), None);
    let chunks = server.chat(&hello(json!({"stream": true}))).await.chunks();
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk.get("service_tier").is_none())
    );
    for (field, value) in [
        ("service_tier", json!("flex")),
        ("service_tier", json!("priority")),
        ("prompt_cache_options", json!({"mode": "explicit"})),
        ("prompt_cache_options", json!({"ttl": "30m"})),
        ("prompt_cache_retention", json!("24h")),
        ("moderation", json!({"model": "m"})),
        ("prediction", json!({"type": "content", "content": "x"})),
        ("modalities", json!(["text", "audio"])),
        ("web_search_options", json!({})),
        ("verbosity", json!("low")),
    ] {
        let reply = server.chat(&hello(json!({field: value}))).await;
        assert_eq!(
            (reply.status, &reply.error()["param"]),
            (400, &json!(field))
        );
    }
}

#[tokio::test]
async fn marks_of_what_to_keep_are_taken() {
    let (server, _) = Server::recording_as(
        "x",
        Config {
            strict: true,
            ..Config::default()
        },
        |_| {},
    )
    .await;
    let part =
        json!({"type": "text", "text": "Hi", "prompt_cache_breakpoint": {"mode": "explicit"}});
    let body = hello(json!({
        "messages": [{"role": "user", "content": [part]}],
        "prompt_cache_options": {"mode": "implicit"},
        "prompt_cache_key": "k",
        "safety_identifier": "s",
    }));
    let reply = server.chat(&body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let message = |control: Value| {
        let content = json!([{"type": "text", "text": "Hi", "cache_control": control}]);
        json!({"model": "tiny", "max_tokens": 5, "messages": [{"role": "user", "content": content}]})
    };
    for control in [
        json!({"type": "ephemeral"}),
        json!({"type": "ephemeral", "ttl": "1h"}),
        Value::Null,
    ] {
        let reply = server.post("/v1/messages", &message(control)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    for (control, name) in [
        (
            json!({"type": "forever"}),
            "`messages[0].content[0].cache_control.type`",
        ),
        (json!({}), "`messages[0].content[0].cache_control.type`"),
        (
            json!({"type": "ephemeral", "ttl": "9h"}),
            "`messages[0].content[0].cache_control.ttl`",
        ),
        (json!("ephemeral"), "`messages[0].content[0].cache_control`"),
    ] {
        let reply = server.post("/v1/messages", &message(control)).await;
        let said = reply.json()["error"]["message"].to_string();
        assert!(reply.status == 400 && said.contains(name), "{said}");
    }
}

#[tokio::test]
async fn why_a_cache_was_missed_is_told_as_far_as_it_is_known() {
    let server = Server::saying("x").await;
    let ask = async |diagnostics: Value, stream: bool| {
        let body = json!({"model": "tiny", "max_tokens": 5, "stream": stream, "diagnostics": diagnostics,
            "messages": [{"role": "user", "content": "Hi"}]});
        let reply = server.post("/v1/messages", &body).await;
        assert_eq!(
            (reply.status, reply.header("x-pensieve-ignored")),
            (200, None)
        );
        match stream {
            true => reply.named_events()[0]["message"].clone(),
            false => reply.json(),
        }
    };
    for stream in [false, true] {
        let first = ask(json!({"previous_message_id": null}), stream).await;
        assert_eq!(first["diagnostics"], json!({"cache_miss_reason": null}));
        let next = ask(json!({"previous_message_id": "msg_1"}), stream).await;
        let reason = json!({"cache_miss_reason": {"type": "unavailable"}});
        assert_eq!(next["diagnostics"], reason);
        assert_eq!(ask(Value::Null, stream).await.get("diagnostics"), None);
    }
}

#[tokio::test]
async fn what_anthropics_tools_say_of_themselves_reaches_the_model_or_is_refused() {
    let (server, asked) = Server::recording("x").await;
    let ask = async |more: Value| {
        let mut tool = json!({"name": "weather", "input_schema": {"type": "object"}});
        for (name, value) in more.as_object().unwrap() {
            tool[name] = value.clone();
        }
        let body = json!({"model": "tiny", "max_tokens": 5, "tools": [tool],
            "messages": [{"role": "user", "content": "Hi"}]});
        server.post("/v1/messages", &body).await
    };
    let taken = json!({"description": "Tells the weather.", "defer_loading": false, "type": "custom",
        "input_examples": [{"city": "Oslo"}, {"city": "Rome"}], "eager_input_streaming": true,
        "allowed_callers": ["direct"], "cache_control": {"type": "ephemeral"}, "strict": false});
    let reply = ask(taken).await;
    assert_eq!(
        (reply.status, reply.header("x-pensieve-ignored")),
        (200, None)
    );
    let prompt = decoded(&asked, 0);
    for words in ["Tells the weather.\\nExample of an input", "Oslo", "Rome"] {
        assert!(prompt.contains(words), "{prompt}");
    }
    for (more, name) in [
        (json!({"defer_loading": true}), "`tools[0].defer_loading`"),
        (
            json!({"input_examples": [5]}),
            "`tools[0].input_examples[0]`",
        ),
        (
            json!({"allowed_callers": ["code_execution_20260521"]}),
            "`tools[0].allowed_callers`",
        ),
        (
            json!({"type": "browser_toolset_20260801"}),
            "`tools[0].type`",
        ),
    ] {
        let reply = ask(more).await;
        let said = reply.json()["error"]["message"].to_string();
        assert!(reply.status == 400 && said.contains(name), "{said}");
    }
    let call = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [
        {"type": "tool_use", "id": "t", "name": "f", "input": {}, "toolset_name": "browser"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]);
    let body = json!({"model": "tiny", "max_tokens": 5, "messages": call});
    let reply = server.post("/v1/messages", &body).await;
    let said = reply.json()["error"]["message"].to_string();
    assert!(
        reply.status == 400 && said.contains("toolset_name`"),
        "{said}"
    );
}
