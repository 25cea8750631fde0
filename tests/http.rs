//! The server with the shipped model, from outside.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::Server;
use serde_json::{Value, json};

const PARIS: &str = "The capital of France is Paris.";

fn question() -> Value {
    json!({
        "model": "pensieve-tiny",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0
    })
}

fn with(mut body: Value, extra: Value) -> Value {
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[test]
fn chat_answers_plain_and_streamed() {
    let server = Server::start(&[]);
    let (status, reply) = server.post("/v1/chat/completions", &question());
    assert_eq!(status, 200, "{reply}");
    assert_eq!(reply["choices"][0]["message"]["content"], PARIS);
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    let body = with(
        question(),
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    );
    let events = server.stream("/v1/chat/completions", &body);
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, PARIS);
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!(usage["total_tokens"], reply["usage"]["total_tokens"]);
    let cached = &usage["prompt_tokens_details"]["cached_tokens"];
    assert!(cached.as_u64() > Some(0), "the same prompt again: {usage}");
}

#[test]
fn tools_are_called_and_their_answers_used() {
    let server = Server::start(&[]);
    let tools = json!([{"type": "function", "function": {
        "name": "get_weather",
        "description": "Get the current weather for a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    }}]);
    let mut messages = vec![json!({"role": "user", "content": "What is the weather in Oslo?"})];
    let ask = |messages: &[Value]| {
        let body = json!({"messages": messages, "tools": tools, "temperature": 0});
        let (status, reply) = server.post("/v1/chat/completions", &body);
        assert_eq!(status, 200, "{reply}");
        reply["choices"][0].clone()
    };
    let choice = ask(&messages);
    assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "get_weather");
    let arguments: Value =
        serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"city": "Oslo"}));
    messages.push(choice["message"].clone());
    messages.push(json!({
        "role": "tool", "tool_call_id": call["id"],
        "content": "{\"temperature\": 12, \"condition\": \"rainy\"}"
    }));
    let choice = ask(&messages);
    assert_eq!(choice["finish_reason"], "stop", "{choice}");
    let text = choice["message"]["content"].as_str().unwrap();
    assert!(text.contains("12") || text.contains("rainy"), "{text}");
}

#[test]
fn completions_score_and_echo() {
    let server = Server::start(&[]);
    let prompt = "The capital of France is Paris.";
    let body = json!({"prompt": prompt, "max_tokens": 0, "echo": true, "logprobs": 2});
    let (status, reply) = server.post("/v1/completions", &body);
    assert_eq!(status, 200, "{reply}");
    let choice = &reply["choices"][0];
    assert_eq!(choice["text"], prompt);
    let logprobs = &choice["logprobs"];
    let tokens = logprobs["tokens"].as_array().unwrap();
    let joined: String = tokens.iter().map(|t| t.as_str().unwrap()).collect();
    assert_eq!(joined, prompt);
    let scores = logprobs["token_logprobs"].as_array().unwrap();
    assert_eq!(scores.len(), tokens.len());
    assert!(scores[0].is_null());
    assert!(scores[1..].iter().all(|s| s.as_f64().unwrap() <= 0.0));
    assert_eq!(logprobs["text_offset"][0], 0);
    // Token ids as the prompt give the same scores.
    let (_, tokenized) = server.post(
        "/v1/completions",
        &json!({"prompt": prompt, "max_tokens": 1, "echo": true, "logprobs": 0}),
    );
    let first = &tokenized["choices"][0]["logprobs"]["token_logprobs"];
    for (a, b) in scores[1..].iter().zip(&first.as_array().unwrap()[1..]) {
        assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-3);
    }
    let ids = json!({"prompt": [5, 6, 7], "max_tokens": 3, "temperature": 0});
    assert_eq!(server.post("/v1/completions", &ids).0, 200);
}

#[test]
fn a_seed_gives_the_same_text_alone_and_among_others() {
    let server = Server::start(&[]);
    let body = with(
        question(),
        json!({"temperature": 2.5, "seed": 11, "max_tokens": 24}),
    );
    let text = |body: &Value| {
        let (status, reply) = server.post("/v1/chat/completions", body);
        assert_eq!(status, 200, "{reply}");
        reply["choices"][0]["message"]["content"].to_string()
    };
    let alone = text(&body);
    let together: Vec<String> = std::thread::scope(|scope| {
        let run = |seed: i32| {
            let body = with(body.clone(), json!({"seed": seed}));
            scope.spawn(move || text(&body))
        };
        let threads: Vec<_> = [11, 12, 11, 13].into_iter().map(run).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(together[0], alone);
    assert_eq!(together[2], alone);
    assert_ne!(together[1], alone);
}

#[test]
fn models_and_health_answer() {
    let server = Server::start(&[]);
    let (status, models) = server.get("/v1/models");
    assert_eq!(
        (status, &models["data"][0]["id"]),
        (200, &json!("pensieve-tiny"))
    );
    assert_eq!(server.get("/v1/models/pensieve-tiny").0, 200);
    assert_eq!(server.get("/v1/models/other").0, 404);
    assert_eq!(server.get("/health"), (200, json!({"status": "ok"})));
}

/// Each bad request gets its status and names its field, and the server goes on serving.
#[test]
fn bad_requests_are_refused_by_name() {
    let server = Server::start(&[]);
    let long = "word ".repeat(20_000);
    let cases = [
        (json!({"messages": []}), 400, "messages"),
        (json!({"messages": "hi"}), 400, "messages"),
        (
            with(question(), json!({"temperature": "hot"})),
            400,
            "temperature",
        ),
        (
            with(question(), json!({"temperature": -1})),
            400,
            "temperature",
        ),
        (with(question(), json!({"n": 0})), 400, "n"),
        (
            with(question(), json!({"top_logprobs": 50, "logprobs": true})),
            400,
            "top_logprobs",
        ),
        (
            with(question(), json!({"response_format": {"type": "xml"}})),
            400,
            "response_format",
        ),
        (with(question(), json!({"model": "gpt-4"})), 404, "model"),
        (
            json!({"messages": [{"role": "wizard", "content": "x"}]}),
            400,
            "role",
        ),
        (
            json!({"messages": [{"role": "user", "content": long}]}),
            400,
            "messages",
        ),
    ];
    for (body, expected, param) in cases {
        let (status, reply) = server.post("/v1/chat/completions", &body);
        assert_eq!(status, expected, "{reply}");
        let named = reply["error"]["param"].as_str().unwrap_or_default();
        assert!(named.contains(param), "{param}: {reply}");
        assert!(!reply["error"]["message"].as_str().unwrap().is_empty());
    }
    for (prompt, name) in [
        (json!([1, 4096]), "prompt"),
        (json!(""), "prompt"),
        (json!([]), "prompt"),
    ] {
        let (status, reply) = server.post("/v1/completions", &json!({"prompt": prompt}));
        assert_eq!(status, 400, "{reply}");
        assert!(
            reply["error"]["param"].as_str().unwrap().starts_with(name),
            "{reply}"
        );
    }
    assert_eq!(server.get("/health").0, 200);
}

/// With little memory a long prompt is refused with the numbers, a short one answered.
#[test]
fn a_prompt_beyond_the_memory_is_refused_with_the_numbers() {
    let server = Server::start(&["--memory", "27MB", "--weights", "float32"]);
    let body = json!({"prompt": vec![7; 1500], "max_tokens": 8});
    let (status, reply) = server.post("/v1/completions", &body);
    assert_eq!(status, 413, "{reply}");
    assert_eq!(reply["error"]["code"], "request_too_large", "{reply}");
    let message = reply["error"]["message"].as_str().unwrap();
    assert!(message.contains("1500 tokens of prompt") && message.contains("--memory"));
    let (status, reply) = server.post("/v1/chat/completions", &question());
    assert_eq!(status, 200, "{reply}");
    assert_eq!(reply["choices"][0]["message"]["content"], PARIS);
}

fn raw(server: &Server, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // The server may refuse before it has read all.
    let _ = socket.write_all(request);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn broken_bytes_lose_nothing() {
    let server = Server::start(&[]);
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let body = |body: &[u8]| {
        let length = format!("Content-Length: {}\r\n\r\n", body.len());
        raw(
            &server,
            &[head.as_bytes(), length.as_bytes(), body].concat(),
        )
    };
    assert!(body(b"{\"messages\": [").starts_with("HTTP/1.1 400"));
    assert!(body(b"{\"messages\": \"\xff\xfe\"}").starts_with("HTTP/1.1 400"));
    let huge = format!("{head}Content-Length: {}\r\n\r\n", 100 << 20);
    assert!(raw(&server, huge.as_bytes()).starts_with("HTTP/1.1 413"));
    raw(&server, b"\x16\x03\x01garbage\r\n\r\n");
    let rebound = "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(raw(&server, rebound.as_bytes()).starts_with("HTTP/1.1 403"));
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let server = Server::start(&["--max-running", "1", "--queue", "1"]);
    let body = with(
        question(),
        json!({"stream": true, "temperature": 5, "max_tokens": 2000}),
    );
    let text = body.to_string();
    for _ in 0..6 {
        let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        socket.write_all((head + &text).as_bytes()).unwrap();
        let mut some = [0; 64];
        socket.read_exact(&mut some).unwrap();
    }
    let patience = std::time::Instant::now();
    loop {
        let (status, reply) = server.post("/v1/chat/completions", &question());
        if status == 200 {
            assert_eq!(reply["choices"][0]["message"]["content"], PARIS);
            break;
        }
        assert_eq!(status, 503, "{reply}");
        assert!(patience.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn signals_end_the_server_in_order() {
    for signal in ["-TERM", "-INT"] {
        let server = Server::start(&["--drain", "5"]);
        assert_eq!(server.post("/v1/chat/completions", &question()).0, 200);
        assert_eq!(server.end_by(signal), Some(0), "{signal}");
    }
}

#[test]
fn an_address_in_use_is_said_at_once() {
    let server = Server::start(&[]);
    let port = server.url.rsplit(':').next().unwrap();
    let output = common::run(&["serve", "--port", port]);
    assert_eq!(output.status.code(), Some(1));
    assert!(common::stderr(&output).contains(port));
}

/// The command line counts before the environment, that before the file, and that before what is
/// built in.
#[test]
fn settings_have_their_precedence() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pensieve.toml");
    let text =
        "port = 0\nserved-model-name = 'from-file'\nmodel-alias = ['from-file']\nstrict = true\n";
    std::fs::write(&file, text).unwrap();
    let serve = |environment: &[(&str, &str)], arguments: &[&str]| {
        let mut command = common::pensieve();
        command.arg("serve").arg("--config").arg(&file);
        Server::run({
            command.args(arguments).envs(environment.iter().copied());
            command
        })
    };
    let name = |server: &Server| server.get("/v1/models").1["data"][0]["id"].clone();
    let server = serve(&[], &[]);
    assert_eq!(name(&server), "from-file");
    let strange = with(question(), json!({"model": "from-file", "strange": 1}));
    assert_eq!(server.post("/v1/chat/completions", &strange).0, 400);
    let environment = [
        ("PENSIEVE_SERVED_MODEL_NAME", "from-env"),
        ("PENSIEVE_STRICT", "false"),
    ];
    let server = serve(&environment, &[]);
    assert_eq!(name(&server), "from-env");
    assert_eq!(server.post("/v1/chat/completions", &strange).0, 200);
    let server = serve(&environment, &["--served-model-name", "typed"]);
    assert_eq!(name(&server), "typed");

    std::fs::write(&file, "prot = 1").unwrap();
    let output = common::run(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(common::stderr(&output).contains("no option is called \"prot\""));
}

#[test]
fn keys_come_from_a_file_and_an_empty_one_opens_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    std::fs::write(&file, "sk-one\n\n  sk-two\n").unwrap();
    let server = Server::start(&["--api-key-file", file.to_str().unwrap()]);
    let address = server.url.trim_start_matches("http://");
    let get = |key: &str| {
        let head = format!(
            "GET /v1/models HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nx-api-key: {key}\r\n\r\n"
        );
        raw(&server, head.as_bytes())
    };
    assert!(get("sk-two").starts_with("HTTP/1.1 200"));
    assert!(get("sk-three").starts_with("HTTP/1.1 401"));
    std::fs::write(&file, "\n").unwrap();
    let output = common::run(&[
        "serve",
        "--port",
        "0",
        "--api-key-file",
        file.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(common::stderr(&output).contains("has no key"));
}

#[test]
fn metrics_tell_where_the_memory_is() {
    let server = Server::start(&[]);
    assert_eq!(server.post("/v1/chat/completions", &question()).0, 200);
    let head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let text = raw(&server, head.as_bytes());
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("pensieve_memory_weights_bytes ") > 0.0);
    assert!(value("pensieve_memory_peak_bytes ") > 0.0);
    assert_eq!(value("pensieve_answers_total{end=\"stop\"} "), 1.0);
    assert!(value("pensieve_time_to_first_token_seconds_sum ") > 0.0);
}
