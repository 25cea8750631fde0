//! What a server that runs for long is asked: keys, metrics, readiness; and the small utilities.

use super::*;
use crate::server::{Allowed, Keys};

fn locked() -> Config {
    Config {
        keys: Keys::new(vec!["sk-secret".into()]).unwrap(),
        ..Config::default()
    }
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn keys_open_everything_but_health_which_is_open() {
    let (server, asked) = Server::recording_as("x", locked(), |_| {}).await;
    for path in ["/health", "/ready"] {
        assert_eq!(server.get(path).await.status, 200);
    }
    for path in ["/v1/models", "/metrics"] {
        let reply = server.get(path).await;
        assert_eq!(
            (reply.status, reply.header("www-authenticate")),
            (401, Some("Bearer"))
        );
        assert_eq!(reply.error()["code"], "invalid_api_key");
        assert_eq!(reply.error()["type"], "authentication_error");
        for key in [
            "authorization: Bearer sk-secret\r\n",
            "x-api-key: sk-secret\r\n",
        ] {
            assert_eq!(server.raw(get(path, key)).await.status, 200);
        }
        let wrong = get(path, "authorization: Bearer sk-secre\r\n");
        assert_eq!(server.raw(wrong).await.status, 401);
    }
    assert_eq!(server.chat(&hello(json!({}))).await.status, 401);
    let reply = server.post("/v1/messages", &json!({})).await;
    assert_eq!(reply.json()["error"]["type"], "authentication_error");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn browsers_are_told_of_allowed_origins_and_of_no_others() {
    let config = Config {
        allowed: Allowed {
            origins: vec!["https://ui.example".into()],
            ..Allowed::default()
        },
        ..Config::default()
    };
    let (server, _) = Server::recording_as("x", config, |_| {}).await;
    let preflight = |origin: &str| {
        server.raw(format!(
            "OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             origin: {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-headers: content-type, authorization\r\n\
             access-control-request-private-network: true\r\n\r\n"
        ))
    };
    let reply = preflight("https://ui.example").await;
    assert_eq!(reply.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://ui.example"),
        ("access-control-allow-methods", "POST, OPTIONS"),
        (
            "access-control-allow-headers",
            "content-type, authorization",
        ),
        ("access-control-allow-private-network", "true"),
        ("vary", "origin"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    let allowed = get("/v1/models", "origin: https://ui.example\r\n");
    let reply = server.raw(allowed).await;
    let origin = reply.header("access-control-allow-origin");
    assert_eq!((reply.status, origin), (200, Some("https://ui.example")));
    let reply = preflight("https://evil.example").await;
    assert_eq!(reply.status, 403);
    assert!(!reply.head.to_lowercase().contains("access-control"));
    // A page of this machine may send, as programs may, but its browser is told nothing.
    let reply = server
        .raw(get("/health", "origin: http://localhost:3000\r\n"))
        .await;
    assert_eq!(reply.status, 200);
    assert!(!reply.head.to_lowercase().contains("access-control"));
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let change = |app: &mut App| {
        app.gauges = Some(Arc::new(|| vec![("memory_active_bytes", "Held.", 5e9)]));
    };
    let (server, _) = Server::recording_as("abc", Config::default(), change).await;
    server.chat(&hello(json!({"n": 2}))).await;
    server
        .complete(&json!({"prompt": "a", "max_tokens": 2}))
        .await;
    server.chat(&hello(json!({"temperature": -1}))).await;
    server.get("/some/path").await;
    let reply = server.get("/metrics").await;
    let kind = reply.header("content-type");
    assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = reply.text();
    for line in [
        "pensieve_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 1",
        "pensieve_requests_total{route=\"/v1/chat/completions\",status=\"400\"} 1",
        "pensieve_requests_total{route=\"other\",status=\"404\"} 1",
        "pensieve_answers_total{end=\"stop\"} 2",
        "pensieve_answers_total{end=\"length\"} 1",
        "pensieve_answers_total{end=\"cancelled\"} 0",
        "pensieve_prompt_tokens_total 40",
        "pensieve_cached_tokens_total 10",
        "pensieve_completion_tokens_total 8",
        "pensieve_queue_length 0",
        "pensieve_batch_size 0",
        "pensieve_time_to_first_token_seconds_count 3",
        "pensieve_inter_token_seconds_count 5",
        "pensieve_weight_bytes 1000",
        "pensieve_memory_active_bytes 5000000000",
    ] {
        assert!(
            text.lines().any(|have| have == line),
            "{line} is not in\n{text}"
        );
    }
    // Each family is described before its first sample, once.
    let mut described = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(!described.contains(&name), "{name}");
            described.push(name);
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = described.last().unwrap();
            assert!(name.starts_with(family), "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok());
        }
    }
}

#[tokio::test]
async fn a_server_with_a_full_queue_is_healthy_but_not_ready() {
    let (handle, mut inbox) = Handle::new(facts(), 0);
    thread::spawn(move || {
        while let Some(command) = inbox.commands.blocking_recv() {
            if let Command::Ping(reply) = command {
                let _ = reply.send(());
            }
        }
    });
    let server = Server::start(handle, Config::default()).await;
    assert_eq!(server.get("/health").await.status, 200);
    let reply = server.get("/ready").await;
    let expected = json!({"status": "not ready", "reason": "the queue is full"});
    assert_eq!((reply.status, reply.json()), (503, expected));
}

#[tokio::test]
async fn utilities_answer_in_llama_servers_shapes() {
    let server = Server::saying("x").await;
    let ask = async |path: &str, body: Value| {
        let reply = server.post(path, &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let tokens = ask("/tokenize", json!({"content": "aé<eos>"})).await;
    assert_eq!(tokens, json!({"tokens": [97, 0xc3, 0xa9, 256]}));
    let tokens = ask("/tokenize", json!({"content": "a", "add_special": true})).await;
    assert_eq!(tokens, json!({"tokens": [BOS, 97]}));
    let plain = json!({"content": "<eos>", "parse_special": false});
    let tokens = ask("/tokenize", plain).await;
    assert_eq!(tokens, json!({"tokens": [60, 101, 111, 115, 62]}));
    let pieces = ask("/tokenize", json!({"content": "aé", "with_pieces": true})).await;
    let expected = json!([{"id": 97, "piece": "a"}, {"id": 0xc3, "piece": [0xc3]},
        {"id": 0xa9, "piece": [0xa9]}]);
    assert_eq!(pieces["tokens"], expected);
    let content = ask(
        "/detokenize",
        json!({"tokens": [97, 0xc3, 0xa9, 256, 9999]}),
    )
    .await;
    assert_eq!(content, json!({"content": "aé<eos>"}));
    let prompt = ask("/apply-template", hello(json!({"tools": []}))).await;
    assert_eq!(prompt, json!({"prompt": "[user]Hi[assistant]"}));
    for (path, body) in [
        ("/tokenize", json!({})),
        ("/detokenize", json!({"tokens": ["a"]})),
        ("/apply-template", json!({"messages": []})),
    ] {
        assert_eq!(server.post(path, &body).await.status, 400, "{path}");
    }
}

/// A stream that has nothing to say yet says that it lives.
#[tokio::test]
async fn silence_is_broken_by_signs_of_life() {
    let config = || Config {
        keep_alive: Duration::from_millis(20),
        ..Config::default()
    };
    let (handle, inbox) = Handle::new(facts(), 10);
    run(inbox, |submission| {
        thread::sleep(Duration::from_millis(150));
        say(&submission, b"a");
    });
    let server = Server::start(handle, config()).await;
    let reply = server.chat(&hello(json!({"stream": true}))).await;
    assert!(
        reply.text().contains("\n\n: still at it\n\n"),
        "{}",
        reply.text()
    );
    assert!(reply.text().ends_with("data: [DONE]\n\n"));
    let body = json!({"model": "tiny", "max_tokens": 9, "stream": true,
        "messages": [{"role": "user", "content": "a"}]});
    let events = server.post("/v1/messages", &body).await.named_events();
    assert_eq!(events[0]["type"], "message_start");
    assert_eq!(events[1]["type"], "ping");
    assert_eq!(events.last().unwrap()["type"], "message_stop");
}
