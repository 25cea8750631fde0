//! What somebody who means harm might send; the well-behaved are served all the same.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn compressed_bodies_are_refused_unread() {
    let server = Server::saying("x").await;
    // A gzip of zeros expands a thousandfold; what it holds does not matter if nobody unpacks it.
    let bomb = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    for coding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP"] {
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-encoding: {coding}\r\ncontent-length: {}\r\n\r\n",
            bomb.len()
        );
        let reply = server.raw([head.as_bytes(), &bomb].concat()).await;
        let code = &reply.error()["code"];
        assert_eq!(
            (reply.status, code),
            (415, &json!("compressed_body")),
            "{coding}"
        );
    }
    let body = hello(json!({})).to_string();
    let plain = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-encoding: identity\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(server.raw(plain).await.status, 200);
}

/// Two programs must not disagree on where a request ends: whatever could be read in two ways is
/// refused, and nothing behind it is answered.
#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_refused() {
    let server = Server::saying("x").await;
    let smuggled = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    for framing in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 0\r\ncontent-length: 4",
        "content-length: 0, 4",
        "content-length: +0",
        "content-length: -1",
        "content-length: 0x0",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity",
        "transfer-encoding : chunked",
        "transfer-encoding:\u{b}chunked",
        "x: y\r\n transfer-encoding: chunked",
    ] {
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n\
             0\r\n\r\n{smuggled}"
        );
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let reading = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes));
        let _ = reading.await.expect("the connection stayed open");
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 400"), "{framing:?}: {text}");
        // Of two lengths the chunks' counts, and the connection ends with the answer.
        let two = framing.contains("content-length: 4") && framing.contains("chunked");
        assert!(
            two || !text.contains("invalid_json"),
            "{framing:?}: the body was read"
        );
        assert!(!text.contains("\"object\":\"list\""), "{framing:?}: {text}");
    }
}

#[tokio::test]
async fn connections_that_do_nothing_keep_nobody_out() {
    let (handle, inbox) = Handle::new(facts(), 100);
    run(inbox, |submission| say(&submission, b"x"));
    let config = Config {
        max_connections: 16,
        ..Config::default()
    };
    let server = Server::start(handle, config).await;
    let mut idle = Vec::new();
    for number in 0..200 {
        let mut stream = server.connect().await;
        match number % 3 {
            0 => {}
            1 => stream.write_all(b"POST /v1/chat/comp").await.unwrap(),
            _ => {
                let request = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
                stream.write_all(request).await.unwrap();
            }
        }
        idle.push(stream);
        if number % 20 == 0 {
            let start = Instant::now();
            assert_eq!(server.chat(&hello(json!({}))).await.status, 200);
            assert!(start.elapsed() < Duration::from_secs(2));
        }
    }
    let open = || async {
        let metrics = server.get("/metrics").await;
        let lines: Vec<&str> = metrics.text().lines().collect();
        let line = lines
            .iter()
            .find(|line| line.starts_with("pensieve_connections "));
        line.unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse::<usize>()
            .unwrap()
    };
    assert!(open().await <= 16);
}

/// Raises this process' limit of open files as far as it may be, and says what it is then.
fn open_files() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    // macOS names no limit here, and takes none above OPEN_MAX.
    limit.current = Some(limit.maximum.unwrap_or(10_240).min(1 << 20));
    let _ = setrlimit(Resource::Nofile, limit);
    let limit = getrlimit(Resource::Nofile);
    limit.current.map_or(1 << 20, |most| most as usize)
}

/// Ten thousand, or as many as there may be open files for both ends of each: first within the limit of
/// connections, where each keeps its place, then far beyond it.
#[tokio::test]
async fn ten_thousand_idle_connections_cost_nobody_else_anything() {
    // Other tests have their files open too.
    let most = open_files().saturating_sub(800).min(20_000) / 2;
    for places in [most + 10, 100] {
        let config = Config {
            max_connections: places,
            ..Config::default()
        };
        let (server, _) = Server::recording_as("x", config, |_| {}).await;
        let mut idle = Vec::with_capacity(most);
        for number in 0..most {
            let mut stream = server.connect().await;
            if number % 2 == 0 {
                stream.write_all(b"GET /health HT").await.unwrap();
            }
            idle.push(stream);
        }
        for _ in 0..20 {
            assert_eq!(server.chat(&hello(json!({}))).await.status, 200);
        }
        let metrics = server.get("/metrics").await;
        let lines = metrics.text().lines();
        let open = lines.filter_map(|line| line.strip_prefix("pensieve_connections "));
        let open: Vec<usize> = open.map(|number| number.parse().unwrap()).collect();
        assert!(open[0] <= places, "{open:?}");
        // Those that have their place keep it.
        let last = idle.last_mut().unwrap();
        let rest = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let rest = if most.is_multiple_of(2) {
            &rest[..]
        } else {
            &rest[14..]
        };
        if places > most {
            assert!(open[0] > most, "{open:?}");
            last.write_all(rest).await.unwrap();
            let mut answer = Vec::new();
            last.read_to_end(&mut answer).await.unwrap();
            assert_eq!(parse(&answer).status, 200);
        }
    }
}

#[tokio::test]
async fn answers_under_way_keep_their_connection() {
    let (handle, inbox) = Handle::new(facts(), 100);
    let (may_end, ends) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(0)));
    let (held, begun) = (may_end.clone(), ends.clone());
    run(inbox, move |submission| {
        *begun.lock().unwrap() += 1;
        while !*held.lock().unwrap() {
            thread::sleep(Duration::from_millis(5));
        }
        say(&submission, b"late");
    });
    let config = Config {
        max_connections: 2,
        ..Config::default()
    };
    let server = Server::start(handle, config).await;
    let mut busy = server.connect().await;
    let body = hello(json!({"stream": true})).to_string();
    let request = post("/v1/chat/completions", body.as_bytes());
    busy.write_all(&request).await.unwrap();
    eventually("the request runs", || *ends.lock().unwrap() == 1).await;
    for _ in 0..20 {
        assert_eq!(server.get("/health").await.status, 200);
        drop(server.connect().await);
    }
    // With every place at work, a further one waits.
    let mut second = server.connect().await;
    second.write_all(&request).await.unwrap();
    eventually("the second runs", || *ends.lock().unwrap() == 2).await;
    let third = server.get("/health");
    assert!(
        tokio::time::timeout(Duration::from_millis(100), third)
            .await
            .is_err()
    );
    *may_end.lock().unwrap() = true;
    for stream in [busy, second] {
        let chunks = reply(stream).await.chunks();
        assert_eq!(chunks.len(), 6);
    }
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_template_that_never_ends_is_stopped() {
    for bomb in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(90000) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% set n = namespace(s='xxxxxxxx') %}{% for a in range(90) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    ] {
        let change = |app: &mut App| app.text = text_with(bomb);
        let (server, asked) = Server::recording_as("x", Config::default(), change).await;
        let start = Instant::now();
        let reply = server.chat(&hello(json!({}))).await;
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(start.elapsed() < Duration::from_secs(7));
        assert!(asked.lock().unwrap().is_empty());
        assert_eq!(server.complete(&json!({"prompt": "a"})).await.status, 200);
    }
}
