//! HTTP as nobody's client library writes it: heads and bodies that are cut, padded, doubled or ambiguous.
//! What cannot be read in one way alone is refused, and nothing behind it is answered.

use super::*;

/// All that comes back for these bytes until the connection ends.
async fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect().await;
    // A refusal may come before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer));
    let _ = reading.await.expect("the connection stayed open");
    String::from_utf8_lossy(&answer).into_owned()
}

fn answers(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count() + text.matches("HTTP/1.0 ").count()
}

const SMUGGLED: &str = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn chunks_that_are_none_end_the_connection() {
    // A chunk may be announced that never comes whole.
    let config = Config {
        body_timeout: Duration::from_secs(2),
        ..Config::default()
    };
    let (server, asked) = Server::recording_as("x", config, |_| {}).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = hello(json!({})).to_string();
    let size = body.len();
    let long = "a".repeat(20_000);
    let trailers = "x: y\r\n".repeat(4000);
    for chunks in [
        format!("0x{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("-{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("+{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("fffffffffffffffff{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("ffffffffffffffff\r\n{body}\r\n0\r\n\r\n"),
        format!("{size:x};{long}\r\n{body}\r\n0\r\n\r\n"),
        format!("{size:x}\r\n{body}0\r\n\r\n"),
        format!("{size:x}\r\n{body}xx0\r\n\r\n"),
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", size - 1),
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", size + 1),
        format!("{size:x}\r\n{body}\r\n0\r\n{trailers}\r\n"),
        format!("{size:x}\r\n{body}\r\n0\r\nx y\r\n\r\n"),
    ] {
        let text = exchange(&server, format!("{head}{chunks}{SMUGGLED}").as_bytes()).await;
        let refused = ["HTTP/1.1 400", "HTTP/1.1 408"];
        let refused = refused.iter().any(|status| text.starts_with(status));
        assert!(refused, "{chunks:.80}: {text}");
        assert_eq!(answers(&text), 1, "{chunks:.80}: {text}");
    }
    assert!(asked.lock().unwrap().is_empty());
    // And as they should be, with what the standard lets stand with them.
    let (first, rest) = body.split_at(7);
    let chunks = format!(
        "7\r\n{first}\r\n{:X};name=value\r\n{rest}\r\n000\r\nx: y\r\n\r\n",
        rest.len()
    );
    let text = exchange(&server, format!("{head}{chunks}{SMUGGLED}").as_bytes()).await;
    assert_eq!(text.matches("HTTP/1.1 200").count(), 2, "{text}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn heads_that_are_none_are_refused() {
    let server = Server::saying("x").await;
    for head in [
        "GET  /health HTTP/1.1\r\nhost: localhost",
        "GET /health HTTP/1.1 \r\nhost: localhost",
        "GET /health HTTP/2.0\r\nhost: localhost",
        "GET /health HTTP/1.10\r\nhost: localhost",
        "GET /health http/1.1\r\nhost: localhost",
        "GET /health\r\nhost: localhost",
        "G@T /health HTTP/1.1\r\nhost: localhost",
        "GET /hea lth HTTP/1.1\r\nhost: localhost",
        "GET /health HTTP/1.1\r\nhost : localhost",
        "GET /health HTTP/1.1\r\nhost: localhost\r\n: none",
        "GET /health HTTP/1.1\r\nhost: localhost\r\nno colon",
        "GET /health HTTP/1.1\r\nhost: localhost\r\nx: a\0b",
        "GET /health HTTP/1.1\r\nhost: localhost\r\nx\u{1}: b",
        "GET /health HTTP/1.1\r\nhost: localhost\r\n folded: line",
        "GET /health HTTP/1.1\r\n host: localhost",
        "GET /health HTTP/1.1\r\nhost: localhost\r\nhost: localhost",
        "GET /health HTTP/1.1\r\nhost: localhost\r\nhost: evil.example",
        "GET /health HTTP/1.1\r\nx: y",
        "GET /health HTTP/1.1\r\nhost:",
        "GET /health HTTP/1.0\r\nhost: evil.example",
        "GET http://evil.example/health HTTP/1.1\r\nhost: localhost",
        "GET http://localhost@evil.example/health HTTP/1.1\r\nhost: localhost",
        "GET //evil.example/health HTTP/1.1\r\nhost: evil.example",
        "CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost",
        "CONNECT localhost:80 HTTP/1.1\r\nhost: localhost",
    ] {
        let request = format!("{head}\r\nconnection: close\r\n\r\n{SMUGGLED}");
        let text = exchange(&server, request.as_bytes()).await;
        let status = text.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "403", "404"].contains(&status), "{head:?}: {text}");
        assert_eq!(answers(&text), 1, "{head:?}: {text}");
    }
    let long = format!(
        "GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "a".repeat(80_000)
    );
    let text = exchange(&server, long.as_bytes()).await;
    assert!(
        text.starts_with("HTTP/1.1 414") || text.starts_with("HTTP/1.1 431"),
        "{text}"
    );
}

#[tokio::test]
async fn every_way_to_name_this_server_is_taken() {
    let server = Server::saying("x").await;
    let port = server.addr.port();
    for head in [
        "GET /health HTTP/1.0".to_owned(),
        "GET /health HTTP/1.0\r\nhost: localhost".to_owned(),
        "HEAD /health HTTP/1.1\r\nhost: localhost\r\nconnection: close".to_owned(),
        format!("GET http://localhost:{port}/health HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close"),
        format!("GET /health?x=/../..&y=%00 HTTP/1.1\r\nHOST:\t127.0.0.1:{port} \r\nconnection: close"),
        // What asks for another protocol goes on in this one.
        "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, close\r\nupgrade: websocket".to_owned(),
        "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close, upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__".to_owned(),
        // Bare line feeds end lines too; there is no second way to read them.
        "GET /health HTTP/1.1\nhost: localhost\nconnection: close\n".to_owned(),
    ] {
        let text = exchange(&server, format!("{head}\r\n\r\n").as_bytes()).await;
        let status = text.split(' ').nth(1).unwrap_or_default();
        assert_eq!((status, answers(&text)), ("200", 1), "{head:?}: {text}");
        let body = text.split_once("\r\n\r\n").unwrap().1;
        let expected = if head.starts_with("HEAD") { "" } else { "{\"status\":\"ok\"}" };
        assert_eq!(body, expected, "{head:?}");
    }
    let text = exchange(
        &server,
        b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(text.starts_with("HTTP/1.1 404"), "{text}");
}

/// A stream to a client of the old protocol, which knows no chunks, ends with its connection.
#[tokio::test]
async fn streams_to_old_clients_have_no_chunks() {
    let server = Server::saying("abc").await;
    let body = hello(json!({"stream": true})).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let text = exchange(&server, request.as_bytes()).await;
    assert!(text.starts_with("HTTP/1.0 200"), "{text}");
    assert!(!text.to_lowercase().contains("transfer-encoding"), "{text}");
    let events = text.split_once("\r\n\r\n").unwrap().1;
    assert!(
        events.starts_with("data: {") && events.ends_with("data: [DONE]\n\n"),
        "{text}"
    );
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_their_order() {
    let server = Server::saying("x").await;
    let mut all = Vec::new();
    for number in 0..50 {
        let path = if number % 2 == 0 {
            "/health"
        } else {
            "/v1/models"
        };
        all.extend(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes());
    }
    let body = hello(json!({"stream": true})).to_string();
    all.extend(post("/v1/chat/completions", body.as_bytes()));
    let text = exchange(&server, &all).await;
    assert_eq!(text.matches("HTTP/1.1 200").count(), 51);
    let order: Vec<bool> = text
        .match_indices("content-type: application/json")
        .map(|(at, _)| {
            text[at..]
                .split_once("\r\n\r\n")
                .unwrap()
                .1
                .starts_with("{\"status\"")
        })
        .collect();
    let expected: Vec<bool> = (0..50).map(|number| number % 2 == 0).collect();
    assert_eq!(order, expected);
    assert!(text.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{text}");
}

/// One that sends a byte now and then holds its connection for as long as a head and a body may take, and
/// no longer.
#[tokio::test]
async fn trickling_does_not_buy_time() {
    let patience = Duration::from_millis(300);
    let config = Config {
        header_timeout: patience,
        body_timeout: patience,
        ..Config::default()
    };
    let (server, asked) = Server::recording_as("x", config, |_| {}).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900\r\n\r\n";
    for (first, trickle) in [
        ("", "GET /health HTTP/1.1\r\nx: "),
        (head, "{\"prompt\": \""),
    ] {
        let (mut reader, mut writer) = server.connect().await.into_split();
        writer.write_all(first.as_bytes()).await.unwrap();
        let trickling = tokio::spawn(async move {
            for byte in trickle.bytes().chain(std::iter::repeat(b'a')) {
                if writer.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut answer = Vec::new();
        let ending = tokio::time::timeout(Duration::from_secs(60), reader.read_to_end(&mut answer));
        let _ = ending.await.expect("the connection stayed open");
        trickling.abort();
        let text = String::from_utf8_lossy(&answer);
        let expected = if first.is_empty() { "" } else { "HTTP/1.1 408" };
        assert!(text.starts_with(expected), "{text}");
    }
    assert!(asked.lock().unwrap().is_empty());
}

/// JSON as some write it, and as nobody should.
#[tokio::test]
async fn json_is_read_in_one_way() {
    let (server, asked) = Server::recording_as("x", Config::default(), |_| {}).await;
    let ask = async |more: &str| {
        let body = format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hi\"}}]{more}}}");
        server
            .raw(post("/v1/chat/completions", body.as_bytes()))
            .await
    };
    for more in [
        ", \"temperature\": NaN",
        ", \"temperature\": Infinity",
        ", \"temperature\": 1e999",
        ", \"temperature\": 0x1",
        ", \"temperature\": .5",
        ", \"temperature\": 01",
        ", \"seed\": 1e400",
        ", \"user\": \"\\ud800\"",
        ", \"user\": \"\\udc00\\ud800\"",
        ", \"user\": \"\\x41\"",
        ", \"user\": \"a\tb\"",
        ", 'user': 'a'",
        ", user: \"a\"",
        ",",
        "} {\"a\": 1",
        "/* a */",
        "\u{feff}",
    ] {
        let reply = ask(more).await;
        let code = &reply.error()["code"];
        assert_eq!(
            (reply.status, code),
            (400, &json!("invalid_json")),
            "{more}"
        );
    }
    for (more, param) in [
        (", \"max_tokens\": 1e30", "max_tokens"),
        (", \"max_tokens\": 9223372036854775808", "max_tokens"),
        (", \"max_tokens\": -1", "max_tokens"),
        (", \"max_tokens\": 1.5", "max_tokens"),
        (", \"temperature\": 1e300", "temperature"),
        (", \"temperature\": -1e300", "temperature"),
        (", \"n\": 99999999999999999999", "n"),
        (", \"top_k\": -99999999999999", "top_k"),
        (", \"logit_bias\": {\"1e3\": 1}", "logit_bias.1e3"),
        (", \"logit_bias\": {\"-1\": 1}", "logit_bias.-1"),
    ] {
        let reply = ask(more).await;
        assert_eq!(
            (reply.status, &reply.error()["param"]),
            (400, &json!(param)),
            "{more}"
        );
    }
    let nested = format!(
        ", \"metadata\": {}1{}",
        "{\"a\": ".repeat(5000),
        "}".repeat(5000)
    );
    assert_eq!(ask(&nested).await.error()["code"], "invalid_json");
    let nested = format!(
        ", \"metadata\": {}1{}",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    assert_eq!(ask(&nested).await.error()["code"], "invalid_json");
    assert!(asked.lock().unwrap().is_empty());
    // Of a name that comes twice the last counts, as with the parsers of most languages.
    let reply = ask(", \"max_tokens\": 9, \"max_tokens\": 7, \"\\u006dax_tokens\": 5").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(asked.lock().unwrap()[0].max_tokens, 5);
    // A pair of surrogates is one character, and a zero one too.
    let reply = ask(", \"user\": \"\\ud83d\\ude00\\u0000\"").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn paths_are_what_they_spell() {
    let server = Server::saying("x").await;
    for path in [
        "/v1/../health",
        "/./health",
        "/health/",
        "//health",
        "/%68ealth",
        "/HEALTH",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/..%5c..%5cwindows",
        "/v1/models/%00",
        "/v1/models/%ff",
        "/v1/models/tiny%00",
        "/v1/models//etc/passwd",
        "/v1/models/file:///etc/passwd",
        "/v1/models/builtin:tiny",
        "/v1/chat/completions/",
        "/v1/chat/completions%3f",
    ] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text());
    }
    for name in [
        "../tiny",
        "/etc/passwd",
        "tiny/..",
        "..\\tiny",
        "file:///etc",
        "tiny\0",
        "~",
        "$HOME",
        "maker/tiny/../tiny",
    ] {
        let reply = server.chat(&hello(json!({"model": name}))).await;
        assert_eq!(
            (reply.status, &reply.error()["code"]),
            (404, &json!("model_not_found")),
            "{name}"
        );
    }
}
