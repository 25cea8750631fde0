//! What is refused, with which status and words; the server goes on serving.

use super::*;

/// Sends each body and checks status, param, code and a piece of the message.
async fn refused(server: &Server, path: &str, cases: &[(Value, &str, &str)]) {
    for (body, param, words) in cases {
        let reply = server.post(path, body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
        let error = reply.error();
        assert_eq!(error["param"], *param, "{body}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
}

fn with(name: &str, value: Value) -> Value {
    hello(json!({name: value}))
}

fn message(message: Value) -> Value {
    hello(json!({"messages": [{"role": "user", "content": "a"}, message]}))
}

#[tokio::test]
async fn fields_of_both_dialects() {
    let server = Server::saying("x").await;
    let cases = [
        ("temperature", json!(-1), "temperature", "0 to 100"),
        (
            "temperature",
            json!("hot"),
            "temperature",
            "a string, expected a number",
        ),
        ("top_p", json!(0), "top_p", "more than 0"),
        ("min_p", json!(2), "min_p", "0 to 1"),
        ("top_k", json!(-2), "top_k", "-1 to 4294967295"),
        ("seed", json!(1.5), "seed", "expected an integer"),
        ("n", json!(129), "n", "from 1 to 128"),
        ("stop", json!(7), "stop", "a string or an array"),
        ("stop", json!(""), "stop", "empty string"),
        ("stop", json!(["a", 7]), "stop[1]", "expected a string"),
        ("stop", json!(vec!["a"; 65]), "stop", "at most 64"),
        ("stream", json!("yes"), "stream", "true or false"),
        (
            "stream_options",
            json!({}),
            "stream_options",
            "with `stream` true",
        ),
        (
            "frequency_penalty",
            json!(2.5),
            "frequency_penalty",
            "-2 to 2",
        ),
        (
            "presence_penalty",
            json!("0"),
            "presence_penalty",
            "a string, expected a number",
        ),
        (
            "logit_bias",
            json!({"999": 1}),
            "logit_bias.999",
            "below 259",
        ),
        ("logit_bias", json!({"x": 1}), "logit_bias.x", "no token id"),
        (
            "logit_bias",
            json!({"5": 101}),
            "logit_bias.5",
            "-100 to 100",
        ),
        ("logit_bias", json!({"5": "1"}), "logit_bias.5", "a string"),
        ("logit_bias", json!([[5, 1]]), "logit_bias", "an array"),
        (
            "repetition_penalty",
            json!(0),
            "repetition_penalty",
            "0.01 to 100",
        ),
        ("min_tokens", json!(-1), "min_tokens", "0 to"),
        (
            "stop_token_ids",
            json!(["a"]),
            "stop_token_ids[0]",
            "token id",
        ),
        ("regex", json!(5), "regex", "expected a string"),
        ("guided_choice", json!([]), "guided_choice", "is empty"),
        ("guided_json", json!("{"), "guided_json", "not valid JSON"),
        ("json_schema", json!(5), "json_schema", "a JSON schema"),
        (
            "grammar",
            json!("start: \"a\""),
            "grammar",
            "cannot constrain",
        ),
        (
            "structured_outputs",
            json!({"regex": "a", "choice": ["a"]}),
            "structured_outputs.choice",
            "both ask for a form",
        ),
        (
            "response_format",
            json!({"type": "xml"}),
            "response_format.type",
            "expected one of text",
        ),
        (
            "response_format",
            json!({"type": "json_schema"}),
            "response_format.json_schema",
            "missing",
        ),
        ("timings", json!(1), "timings", "true or false"),
        ("user", json!(5), "user", "expected a string"),
        ("model", json!(5), "model", "expected a string"),
    ];
    for (field, value, param, words) in cases {
        let case = (with(field, value.clone()), param, words);
        refused(&server, "/v1/chat/completions", &[case]).await;
        let case = (json!({"prompt": "a", field: value}), param, words);
        refused(&server, "/v1/completions", &[case]).await;
    }
    let option = with("stream_options", json!({"speed": 1}));
    let mut body = option.clone();
    body["stream"] = json!(true);
    let case = (body, "stream_options.speed", "not an option");
    refused(&server, "/v1/chat/completions", &[case]).await;
}

#[tokio::test]
async fn fields_of_the_chat_api() {
    let server = Server::saying("x").await;
    let tool = |function: Value| with("tools", json!([{"type": "function", "function": function}]));
    let format = json!({"type": "json_object"});
    let cases = [
        (with("max_tokens", json!(0)), "max_tokens", "1 or more"),
        (
            hello(json!({"max_tokens": 1, "max_completion_tokens": 2})),
            "max_tokens",
            "one of them",
        ),
        (
            with("top_logprobs", json!(21)),
            "top_logprobs",
            "from 0 to 20",
        ),
        (
            with("top_logprobs", json!(2)),
            "top_logprobs",
            "with `logprobs` true",
        ),
        (
            with("response_format", format),
            "response_format.type",
            "cannot constrain",
        ),
        (
            with("reasoning_effort", json!("low")),
            "reasoning_effort",
            "knows no `reasoning_effort`",
        ),
        (with("store", json!(true)), "store", "not kept"),
        (with("functions", json!([])), "functions", "use `tools`"),
        (
            with("tool_choice", json!("required")),
            "tool_choice",
            "`tools` is empty",
        ),
        (
            with("tool_choice", json!("maybe")),
            "tool_choice",
            "\"required\" or an object",
        ),
        (
            with(
                "tool_choice",
                json!({"type": "function", "function": {"name": "f"}}),
            ),
            "tool_choice",
            "not in `tools`",
        ),
        (
            with("tools", json!([{"type": "web"}])),
            "tools[0].type",
            "expected \"function\"",
        ),
        (
            with("tools", json!([{"type": "function"}])),
            "tools[0].function",
            "missing",
        ),
        (
            tool(json!({"name": ""})),
            "tools[0].function.name",
            "is empty",
        ),
        (
            tool(json!({"name": "f", "strict": true})),
            "tools",
            "cannot constrain",
        ),
        (
            with("chat_template_kwargs", json!({"messages": []})),
            "chat_template_kwargs.messages",
            "set by the server",
        ),
        (
            with("chat_template_kwargs", json!({"fail": true})),
            "messages",
            "no",
        ),
    ];
    refused(&server, "/v1/chat/completions", &cases).await;
}

#[tokio::test]
async fn messages() {
    let server = Server::saying("x").await;
    let call = |arguments: Value| {
        let function = json!({"name": "f", "arguments": arguments});
        let calls = json!([{"id": "c", "type": "function", "function": function}]);
        message(json!({"role": "assistant", "tool_calls": calls}))
    };
    let image = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]);
    let cases = [
        (json!({"model": "tiny"}), "messages", "missing"),
        (with("messages", json!([])), "messages", "is empty"),
        (
            with("messages", json!("hi")),
            "messages",
            "a string, expected an array",
        ),
        (message(json!("hi")), "messages[1]", "expected an object"),
        (
            message(json!({"content": "a"})),
            "messages[1].role",
            "missing",
        ),
        (
            message(json!({"role": "wizard"})),
            "messages[1].role",
            "system, developer, user",
        ),
        (
            message(json!({"role": "user"})),
            "messages[1].content",
            "missing",
        ),
        (
            message(json!({"role": "user", "content": 5})),
            "messages[1].content",
            "an integer",
        ),
        (
            message(json!({"role": "user", "content": image})),
            "messages[1].content[1].type",
            "images are not supported yet",
        ),
        (
            message(json!({"role": "assistant"})),
            "messages[1].content",
            "missing",
        ),
        (
            message(json!({"role": "tool", "content": "a"})),
            "messages[1].tool_call_id",
            "missing",
        ),
        (
            call(json!({})),
            "messages[1].tool_calls[0].function.arguments",
            "an object, expected a string",
        ),
        (
            with(
                "messages",
                json!([{"role": "user", "content": "a".repeat(5000)}]),
            ),
            "messages",
            "context",
        ),
    ];
    refused(&server, "/v1/chat/completions", &cases).await;
    let long = with(
        "messages",
        json!([{"role": "user", "content": "a".repeat(5000)}]),
    );
    let error = server.chat(&long).await.error();
    assert_eq!(error["code"], "context_length_exceeded");
}

#[tokio::test]
async fn fields_of_the_completions_api() {
    let server = Server::saying("x").await;
    let prompt = |prompt: Value| json!({"prompt": prompt});
    let cases = [
        (json!({}), "prompt", "missing"),
        (prompt(json!([])), "prompt", "empty"),
        (prompt(json!([[]])), "prompt", "empty"),
        (prompt(json!({})), "prompt", "an object"),
        (prompt(json!([1, "a"])), "prompt[1]", "expected a token id"),
        (prompt(json!(["a", 1])), "prompt[1]", "a string or an array"),
        (
            prompt(json!(["a", [1, -1]])),
            "prompt[1][1]",
            "expected a token id",
        ),
        (prompt(json!([1, 259])), "prompt", "below 259"),
        (
            prompt(json!(["a", [4_000_000_000_u32]])),
            "prompt[1]",
            "below 259",
        ),
        (prompt(json!(vec!["a"; 2049])), "prompt", "at most 2048"),
        (prompt(json!("a".repeat(CONTEXT))), "prompt", "context"),
        (
            json!({"prompt": "a", "max_tokens": -1}),
            "max_tokens",
            "0 or more",
        ),
        (
            json!({"prompt": "a", "logprobs": 21}),
            "logprobs",
            "from 0 to 20",
        ),
        (
            json!({"prompt": "a", "logprobs": true}),
            "logprobs",
            "a boolean",
        ),
        (
            json!({"prompt": "a", "suffix": "b"}),
            "suffix",
            "after a prompt",
        ),
        (json!({"prompt": "a", "best_of": 2}), "best_of", "equal `n`"),
    ];
    refused(&server, "/v1/completions", &cases).await;
    let fits =
        json!({"prompt": "a".repeat(CONTEXT - 1), "max_tokens": 0, "best_of": 1, "suffix": ""});
    assert_eq!(server.complete(&fits).await.status, 200);
}

#[tokio::test]
async fn models_by_name() {
    let server = Server::saying("x").await;
    let list = server.get("/v1/models").await.json();
    let model = json!({
        "id": "maker/tiny",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "pensieve",
        "meta": {
            "architecture": "toy",
            "context_length": CONTEXT,
            "vocab_size": VOCABULARY,
            "weight_bytes": 1000,
        },
    });
    assert_eq!(list, json!({"object": "list", "data": [model]}));
    for name in ["maker/tiny", "maker%2Ftiny", "tiny", "default"] {
        assert_eq!(
            server.get(&format!("/v1/models/{name}")).await.json(),
            model
        );
    }
    let error = server.get("/v1/models/other").await;
    assert_eq!(
        (error.status, &error.error()["code"]),
        (404, &json!("model_not_found"))
    );
    for name in ["", "default", "tiny", "maker/tiny"] {
        assert_eq!(
            server.chat(&with("model", json!(name))).await.status,
            200,
            "{name}"
        );
    }
    let reply = server.chat(&with("model", json!("gpt-4o"))).await;
    assert_eq!(reply.status, 404);
    let error = reply.error();
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("model_not_found"), &json!("model"))
    );
    assert!(error["message"].as_str().unwrap().contains("maker/tiny"));
}

#[tokio::test]
async fn bodies_that_are_no_json_object() {
    let server = Server::saying("x").await;
    let deep = "{\"a\":".repeat(100_000);
    let cases: [(&[u8], &str); 6] = [
        (b"{\"model\": \n }", "line 2"),
        (b"", "EOF"),
        (b"[]", "expected a JSON object"),
        (b"\"\xff\"", "not UTF-8"),
        (b"a=b&c=d", "not valid JSON"),
        (deep.as_bytes(), "recursion limit"),
    ];
    for (body, words) in cases {
        for path in ["/v1/chat/completions", "/v1/completions"] {
            let reply = server.raw(post(path, body)).await;
            assert_eq!(reply.status, 400);
            let error = reply.error();
            assert!(
                error["message"].as_str().unwrap().contains(words),
                "{error}"
            );
        }
    }
    assert_eq!(server.chat(&hello(json!({}))).await.status, 200);
}

#[tokio::test]
async fn paths_methods_and_hosts() {
    let server = Server::saying("x").await;
    let send = |method: &str, path: &str, more: &str| {
        server.raw(format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n"
        ))
    };
    let reply = send("GET", "/nothing", "").await;
    assert_eq!(
        (reply.status, &reply.error()["code"]),
        (404, &json!("unknown_path"))
    );
    let reply = send("DELETE", "/v1/models", "").await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    reply.error();
    let reply = send("OPTIONS", "/v1/chat/completions", "").await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (204, Some("POST, OPTIONS"))
    );
    assert!(!reply.head.to_lowercase().contains("access-control"));
    let reply = send("HEAD", "/health", "").await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    let reply = send("GET", "/health", "").await;
    assert_eq!((reply.status, reply.json()), (200, json!({"status": "ok"})));
    let reply = send("GET", "/health", "origin: https://evil.example\r\n").await;
    assert_eq!(
        (reply.status, &reply.error()["code"]),
        (403, &json!("origin_not_allowed"))
    );
    let request = "GET /health HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    let reply = server.raw(request).await;
    assert_eq!(
        (reply.status, &reply.error()["type"]),
        (403, &json!("permission_error"))
    );
    let reply = server
        .raw("GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")
        .await;
    assert_eq!(reply.status, 400);
}
