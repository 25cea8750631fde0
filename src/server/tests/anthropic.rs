//! Anthropic's messages, to the letter.

use super::*;

const CALL: &str = "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";

/// A request of one message, with `more` fields.
fn hello(more: Value) -> Value {
    let mut body = json!({"model": "tiny", "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn weather() -> Value {
    json!([{"name": "weather", "description": "d", "input_schema":
        {"type": "object", "properties": {"city": {"type": "string"}}}}])
}

/// Replaces the identifiers, after checking that they look as they should.
fn settle(mut message: Value) -> Value {
    assert!(message["id"].as_str().unwrap().starts_with("msg_"));
    message["id"] = json!("ID");
    for block in message["content"].as_array_mut().unwrap() {
        settle_block(block);
    }
    message
}

fn settle_block(block: &mut Value) {
    if block["type"] == "tool_use" {
        assert!(block["id"].as_str().unwrap().starts_with("toolu_"));
        block["id"] = json!("TOOL");
    }
}

fn cost(input: usize, read: usize, output: usize) -> Value {
    json!({"input_tokens": input, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": read, "output_tokens": output,
        "output_tokens_details": {"thinking_tokens": 0}})
}

impl Server {
    async fn message(&self, body: &Value) -> Reply {
        self.post("/v1/messages", body).await
    }
}

fn error_of(reply: &Reply) -> (u16, String, String) {
    let json = reply.json();
    assert_eq!(json["type"], "error");
    assert!(json["request_id"].as_str().unwrap().starts_with("req_"));
    assert_eq!(json.as_object().unwrap().len(), 3);
    let text = |name: &str| json["error"][name].as_str().unwrap().to_owned();
    (reply.status, text("type"), text("message"))
}

#[tokio::test]
async fn a_plain_answer_has_the_documented_shape() {
    let server = Server::saying("Hello").await;
    let reply = server.message(&hello(json!({}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("request-id"), reply.header("x-request-id"));
    let expected = json!({
        "id": "ID",
        "type": "message",
        "role": "assistant",
        "model": "maker/tiny",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": null,
        "usage": cost(19 - CACHED, CACHED, 5),
    });
    assert_eq!(settle(reply.json()), expected);
}

#[tokio::test]
async fn a_stream_has_its_events_in_their_order() {
    let server = Server::saying("Hé").await;
    let reply = server.message(&hello(json!({"stream": true}))).await;
    assert_eq!(
        reply.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    let mut events = reply.named_events();
    events[0]["message"] = settle(events[0]["message"].clone());
    let delta = |text: &str| {
        json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": text}})
    };
    let expected = [
        json!({"type": "message_start", "message": {
            "id": "ID", "type": "message", "role": "assistant", "model": "maker/tiny",
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": cost(19 - CACHED, CACHED, 0)}}),
        json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
        delta("H"),
        delta("é"),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": cost(19 - CACHED, CACHED, 3)}),
        json!({"type": "message_stop"}),
    ];
    assert_eq!(events, expected);
}

#[tokio::test]
async fn calls_are_blocks_of_their_own() {
    let server = Server::saying(CALL).await;
    let reply = server.message(&hello(json!({"tools": weather()}))).await;
    let message = settle(reply.json());
    let expected = json!([
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "TOOL", "name": "weather", "input": {"city": "Oslo"}},
    ]);
    assert_eq!(message["content"], expected);
    assert_eq!(message["stop_reason"], "tool_use");

    let body = hello(json!({"tools": weather(), "stream": true}));
    let events = server.message(&body).await.named_events();
    let kinds: Vec<&str> = events
        .iter()
        .filter_map(|event| event["type"].as_str())
        .filter(|kind| *kind != "content_block_delta")
        .collect();
    let expected = [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_stop",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(kinds, expected);
    let mut starts: Vec<Value> = events
        .iter()
        .filter(|event| event["type"] == "content_block_start")
        .map(|event| event["content_block"].clone())
        .collect();
    settle_block(&mut starts[1]);
    assert_eq!(
        starts[1],
        json!({"type": "tool_use", "id": "TOOL", "name": "weather", "input": {}})
    );
    let arguments: String = events
        .iter()
        .filter(|event| event["index"] == 1)
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    let arguments: Value = serde_json::from_str(&arguments).unwrap();
    assert_eq!(arguments, json!({"city": "Oslo"}));
    let end = &events[events.len() - 2]["delta"];
    assert_eq!(end["stop_reason"], "tool_use");
}

#[tokio::test]
async fn why_an_answer_ended_is_said() {
    let server = Server::saying("one two three").await;
    for (more, reason, sequence, text) in [
        (json!({"max_tokens": 3}), "max_tokens", Value::Null, "one"),
        (
            json!({"stop_sequences": ["zzz", " thr", " tw"]}),
            "stop_sequence",
            json!(" tw"),
            "one",
        ),
        (json!({}), "end_turn", Value::Null, "one two three"),
    ] {
        let message = server.message(&hello(more.clone())).await.json();
        assert_eq!(message["stop_reason"], reason);
        assert_eq!(message["stop_sequence"], sequence);
        assert_eq!(message["content"][0]["text"], text);
        let mut body = hello(more);
        body["stream"] = json!(true);
        let events = server.message(&body).await.named_events();
        let delta = &events[events.len() - 2];
        assert_eq!(delta["delta"]["stop_reason"], reason);
        assert_eq!(delta["delta"]["stop_sequence"], sequence);
        assert_eq!(delta["usage"]["cache_read_input_tokens"], CACHED);
    }
    let message = server
        .message(&hello(json!({"max_tokens": 0})))
        .await
        .json();
    assert_eq!(message["stop_reason"], "max_tokens");
    assert_eq!(message["content"], json!([]));
    let long: &'static str = "x".repeat(CONTEXT).leak();
    let server = Server::saying(long).await;
    let body = hello(json!({"max_tokens": 2 * CONTEXT}));
    let message = server.message(&body).await.json();
    assert_eq!(message["stop_reason"], "model_context_window_exceeded");
    let server = Server::saying("").await;
    let message = server.message(&hello(json!({}))).await.json();
    assert_eq!(
        (&message["content"], &message["stop_reason"]),
        (&json!([]), &json!("end_turn"))
    );
}

#[tokio::test]
async fn every_block_of_a_text_client_reaches_the_template() {
    let (server, asked) = Server::recording("x").await;
    let cached = json!({"type": "ephemeral", "ttl": "1h"});
    let body = hello(json!({
        "system": [
            {"type": "text", "text": "Be brief."},
            {"type": "text", "text": "Be kind.", "cache_control": cached},
        ],
        "cache_control": cached,
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "user", "content": [
                {"type": "text", "text": "b", "cache_control": cached, "citations": null},
                {"type": "document", "title": "T",
                    "source": {"type": "text", "media_type": "text/plain", "data": "doc"}},
                {"type": "search_result", "source": "s", "title": "t",
                    "content": [{"type": "text", "text": "found"}]},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "anything"},
                {"type": "redacted_thinking", "data": "secret"},
                {"type": "text", "text": "I call."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"},
                    "cache_control": cached},
                {"type": "tool_use", "id": "t2", "name": "weather", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
                {"type": "tool_result", "tool_use_id": "t2", "is_error": true,
                    "content": [{"type": "text", "text": "no city"}], "cache_control": cached},
                {"type": "text", "text": "<eos>"},
            ]},
        ],
        "tools": weather(),
    }));
    let reply = server.message(&body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-pensieve-ignored"), None);
    let asked = asked.lock().unwrap();
    let prompt = text().tokenizer().decode(&asked[0].prompt, true);
    let (tools, prompt) = prompt.split_once('\n').unwrap();
    let expected = json!([{"type": "function", "function": {"name": "weather",
        "description": "d", "parameters": weather()[0]["input_schema"]}}]);
    let tools = tools.strip_prefix("tools:").unwrap();
    assert_eq!(serde_json::from_str::<Value>(tools).unwrap(), expected);
    assert_eq!(
        prompt,
        "[system]Be brief.\n\nBe kind.[user]a\nb\nT\ndoc\nt (s)\nfound\
         [assistant]I call.{\"city\": \"Oslo\"}[tool]rain[tool]Error: no city[user]<eos>[assistant]",
        "and what users write is never a special token"
    );
}

#[tokio::test]
async fn a_last_message_of_the_assistant_is_gone_on_with() {
    let (server, asked) = Server::recording("x").await;
    let messages =
        json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "The"}]);
    let reply = server.message(&hello(json!({"messages": messages}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let asked = asked.lock().unwrap();
    let prompt = text().tokenizer().decode(&asked[0].prompt, true);
    assert_eq!(prompt, "[user]a[assistant]The");
}

#[tokio::test]
async fn tokens_are_counted_as_they_will_be() {
    let (server, asked) = Server::recording("x").await;
    let mut body = hello(json!({"tools": weather(), "system": "s"}));
    server.message(&body).await;
    body.as_object_mut().unwrap().remove("max_tokens");
    let counted = server.post("/v1/messages/count_tokens", &body).await;
    let prompt = asked.lock().unwrap()[0].prompt.len();
    assert_eq!(counted.json(), json!({"input_tokens": prompt}));
    let wrong = server.post("/v1/messages/count_tokens", &json!({})).await;
    assert_eq!(error_of(&wrong).0, 400);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_dialects_words() {
    let server = Server::saying("x").await;
    let message =
        |content: Value| hello(json!({"messages": [{"role": "user", "content": content}]}));
    let image = json!([{"type": "image", "source": {}}]);
    let orphan = json!([{"type": "tool_result", "tool_use_id": "t9", "content": "x"}]);
    let call = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content":
        [{"type": "tool_use", "id": "t", "name": "weather", "input": {}}]}]);
    let open = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b "}]);
    let mut bare = hello(json!({}));
    bare.as_object_mut().unwrap().remove("max_tokens");
    let budget = json!({"type": "enabled", "budget_tokens": 100});
    let cases = [
        (bare, "`max_tokens` is missing"),
        (hello(json!({"max_tokens": -1})), "0 or more"),
        (hello(json!({"messages": []})), "`messages` is empty"),
        (message(json!([])), "`messages[0].content` is empty"),
        (message(image), "images are not supported yet"),
        (message(orphan), "no `tool_use` block before it"),
        (hello(json!({"messages": call})), "nothing comes after it"),
        (
            hello(json!({"messages": open})),
            "must not end with white space",
        ),
        (
            hello(json!({"messages": [{"role": "tool", "content": "x"}]})),
            "expected one of user, assistant",
        ),
        (
            hello(json!({"system": 5})),
            "a string or an array of text blocks",
        ),
        (hello(json!({"thinking": budget})), "less than `max_tokens`"),
        (
            hello(json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]})),
            "`tools[0].type`",
        ),
        (
            hello(json!({"tools": [{"name": "a"}]})),
            "`tools[0].input_schema` is missing",
        ),
        (
            hello(json!({"tool_choice": {"type": "any"}})),
            "`tools` is empty",
        ),
        (
            hello(json!({"tools": weather(), "tool_choice": {"type": "tool", "name": "x"}})),
            "not in `tools`: weather",
        ),
        (hello(json!({"mcp_servers": [{}]})), "`mcp_servers`"),
        (hello(json!({"stop_sequences": [""]})), "an empty string"),
    ];
    for (body, words) in cases {
        let reply = server.message(&body).await;
        let (status, kind, message) = error_of(&reply);
        assert_eq!(
            (status, kind.as_str()),
            (400, "invalid_request_error"),
            "{message}"
        );
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
    let reply = server.message(&hello(json!({"model": "gpt-4"}))).await;
    assert_eq!(
        (error_of(&reply).0, error_of(&reply).1.as_str()),
        (404, "not_found_error")
    );
    let reply = server.get("/v1/messages").await;
    assert_eq!(
        (error_of(&reply).0, error_of(&reply).1.as_str()),
        (405, "invalid_request_error")
    );
    let reply = server.raw(post("/v1/messages", b"{")).await;
    assert_eq!(error_of(&reply).0, 400);
}

#[tokio::test]
async fn a_full_queue_is_an_overload() {
    let (handle, _inbox) = Handle::new(facts(), 0);
    let server = Server::start(handle, Config::default()).await;
    let reply = server.message(&hello(json!({}))).await;
    assert_eq!(
        (error_of(&reply).0, error_of(&reply).1.as_str()),
        (529, "overloaded_error")
    );
    assert_eq!(reply.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_failure_in_the_middle_is_an_event() {
    let server = Server::with(|submission| {
        let id = u32::from(b'a');
        let token = Event::Token { id, logprob: None };
        submission.events.blocking_send(token).unwrap();
        let failed = Event::Failed("broken".into());
        submission.events.blocking_send(failed).unwrap();
    })
    .await;
    let events = server
        .message(&hello(json!({"stream": true})))
        .await
        .named_events();
    let last = events.last().unwrap();
    assert_eq!(last["type"], "error");
    assert_eq!(
        last["error"],
        json!({"type": "api_error", "message": "broken"})
    );
    let reply = server.message(&hello(json!({}))).await;
    assert_eq!(
        (error_of(&reply).0, error_of(&reply).1.as_str()),
        (500, "api_error")
    );
}

/// What an agent sends to any server it is pointed at.
#[tokio::test]
async fn what_only_beta_versions_know_is_ignored_and_said() {
    let server = Server::saying("x").await;
    let body = hello(json!({
        "model": "claude-sonnet-4-5-20250929",
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "metadata": {"user_id": "u"},
    }));
    let bytes = body.to_string();
    let send = |version: &str| {
        server.raw(format!(
            "POST /v1/messages?beta=true HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             x-api-key: whatever\r\nanthropic-version: {version}\r\n\
             anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\n\
             content-length: {}\r\n\r\n{bytes}",
            bytes.len()
        ))
    };
    let reply = send("2023-06-01").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let ignored: Vec<&str> = reply
        .header("x-pensieve-ignored")
        .unwrap()
        .split(", ")
        .collect();
    for name in [
        "context_management",
        "thinking",
        "output_config.effort",
        "anthropic-beta:claude-code-20250219",
        "anthropic-beta:interleaved-thinking-2025-05-14",
    ] {
        assert!(ignored.contains(&name), "{name} is not in {ignored:?}");
    }
    assert_eq!(ignored.len(), 5, "{ignored:?}");
    assert_eq!(send("2026-10-21").await.status, 200);
    let reply = send("2020-01-01").await;
    assert!(error_of(&reply).2.contains("2023-06-01"));
}

#[tokio::test]
async fn models_have_the_dialects_shape_for_its_clients() {
    let server = Server::saying("x").await;
    let get = |path: &str| {
        server.raw(format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nanthropic-version: 2023-06-01\r\n\r\n"
        ))
    };
    let list = get("/v1/models").await.json();
    let model = &list["data"][0];
    assert_eq!(
        (&model["type"], &model["id"]),
        (&json!("model"), &json!("maker/tiny"))
    );
    assert_eq!(model["created_at"], "2023-11-14T22:13:20Z");
    assert_eq!(
        (&list["has_more"], &list["last_id"]),
        (&json!(false), &json!("maker/tiny"))
    );
    assert_eq!(&get("/v1/models/tiny").await.json(), model);
    assert_eq!(error_of(&get("/v1/models/other").await).0, 404);
}
