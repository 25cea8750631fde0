//! Connections that misbehave, engines that fail, and the end of the server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

/// Waits until nobody listens for the answer, counting that in `cancelled`.
fn wait_for_cancel(submission: &Submission, cancelled: &AtomicUsize) {
    while !submission.events.is_closed() {
        thread::sleep(Duration::from_millis(5));
    }
    cancelled.fetch_add(1, Ordering::SeqCst);
}

fn counter() -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let counter = Arc::new(AtomicUsize::new(0));
    (counter.clone(), counter)
}

#[tokio::test]
async fn clients_that_leave_cancel_their_requests() {
    let (seen, begun) = counter();
    let (gone, cancelled) = counter();
    let server = Server::with(move |submission| {
        begun.fetch_add(1, Ordering::SeqCst);
        wait_for_cancel(&submission, &cancelled);
    })
    .await;
    for (round, stream) in [(1, false), (2, true)] {
        let mut client = server.connect().await;
        let body = hello(json!({"stream": stream})).to_string();
        client
            .write_all(&post("/v1/chat/completions", body.as_bytes()))
            .await
            .unwrap();
        eventually("the request reaches the engine", || {
            seen.load(Ordering::SeqCst) == round
        })
        .await;
        assert_eq!(gone.load(Ordering::SeqCst), round - 1);
        drop(client);
        eventually("the request is cancelled", || {
            gone.load(Ordering::SeqCst) == round
        })
        .await;
    }
}

#[tokio::test]
async fn clients_that_leave_the_queue_cancel_their_requests() {
    let (handle, mut inbox) = Handle::new(facts(), 1);
    let server = Server::start(handle, Config::default()).await;
    let mut client = server.connect().await;
    let body = hello(json!({})).to_string();
    client
        .write_all(&post("/v1/chat/completions", body.as_bytes()))
        .await
        .unwrap();
    let Some(Command::Submit(submission)) = inbox.commands.recv().await else {
        panic!("no submission");
    };
    // Not taken up: the queue of one is full.
    let reply = server.chat(&hello(json!({"stream": true}))).await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (503, Some("1"))
    );
    let error = reply.error();
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("server_error"), &json!("queue_full"))
    );
    drop(client);
    eventually("the queued request is cancelled", || {
        submission.events.is_closed()
    })
    .await;
}

#[tokio::test]
async fn clients_that_do_not_read_are_dropped() {
    let (gone, cancelled) = counter();
    let (handle, inbox) = Handle::new(
        Facts {
            context_length: 100_000_000,
            ..facts()
        },
        10,
    );
    let (sent, sending) = counter();
    run(inbox, move |submission| {
        loop {
            let id = u32::from(b'x');
            let logprob = submission.request.logprobs.map(|top| score(id, top));
            if submission
                .events
                .blocking_send(Event::Token { id, logprob })
                .is_err()
            {
                cancelled.fetch_add(1, Ordering::SeqCst);
                return;
            }
            sending.fetch_add(1, Ordering::SeqCst);
        }
    });
    let config = Config {
        write_timeout: Duration::from_millis(300),
        ..Config::default()
    };
    let server = Server::start(handle, config).await;
    let mut client = server.connect().await;
    let tokens = 60_000;
    let body = hello(json!({"stream": true, "logprobs": true, "max_tokens": tokens}));
    let body = body.to_string();
    client
        .write_all(&post("/v1/chat/completions", body.as_bytes()))
        .await
        .unwrap();
    eventually("the request is cancelled", || {
        gone.load(Ordering::SeqCst) == 1
    })
    .await;
    // A few megabytes fit the sockets' buffers; beyond those, the channel holds max_tokens at most.
    assert!(sent.load(Ordering::SeqCst) < 2 * tokens + 10_000);
    assert_eq!(server.get("/health").await.status, 200);
    drop(client);
}

#[tokio::test]
async fn failures_of_the_engine_are_told() {
    let server = Server::with(|submission| {
        let id = u32::from(b'a');
        let send = |event| submission.events.blocking_send(event);
        let _ = send(Event::Token { id, logprob: None });
        // Without a seed of 1 the thread just ends, as after a panic.
        if submission.request.params.seed == 1 {
            let _ = send(Event::Failed("out of memory on the device".into()));
        }
    })
    .await;
    for (seed, words) in [(1, "out of memory"), (2, "the engine stopped")] {
        let reply = server.chat(&hello(json!({"seed": seed}))).await;
        assert_eq!(
            (reply.status, &reply.error()["type"]),
            (500, &json!("server_error"))
        );
        assert!(reply.text().contains(words));
        let reply = server
            .complete(&json!({"prompt": ["a", "b"], "seed": seed}))
            .await;
        assert_eq!(reply.status, 500);
        let reply = server
            .chat(&hello(json!({"seed": seed, "stream": true})))
            .await;
        assert_eq!(reply.status, 200);
        let events = reply.events();
        let last: Value = serde_json::from_str(events[events.len() - 1]).unwrap();
        assert!(last["error"]["message"].as_str().unwrap().contains(words));
        assert!(!events.contains(&"[DONE]"));
        assert!(reply.complete);
    }
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_unhealthy() {
    let (handle, inbox) = Handle::new(facts(), 10);
    let config = Config {
        ping_timeout: Duration::from_millis(50),
        ..Config::default()
    };
    let server = Server::start(handle, config).await;
    let reply = server.get("/health").await;
    assert_eq!(
        (reply.status, reply.json()),
        (503, json!({"status": "unhealthy"}))
    );
    drop(inbox);
    assert_eq!(server.get("/health").await.status, 503);
    let reply = server.chat(&hello(json!({}))).await;
    assert_eq!(
        (reply.status, &reply.error()["code"]),
        (503, &json!("engine_stopped"))
    );
}

#[tokio::test]
async fn shutdown_lets_answers_finish_and_closes_idle_connections() {
    let (begun, begins) = counter();
    let (may_end, ends) = counter();
    let mut server = Server::with(move |submission| {
        begins.fetch_add(1, Ordering::SeqCst);
        while ends.load(Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        say(&submission, b"late");
    })
    .await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 4096];
    assert!(idle.read(&mut first).await.unwrap() > 0);
    let mut busy = server.connect().await;
    let body = hello(json!({"stream": true})).to_string();
    busy.write_all(&post("/v1/chat/completions", body.as_bytes()))
        .await
        .unwrap();
    eventually("the request runs", || begun.load(Ordering::SeqCst) == 1).await;
    server.stop.take().unwrap().send(()).unwrap();
    let closing = tokio::time::timeout(Duration::from_secs(5), idle.read(&mut first));
    assert_eq!(
        closing.await.expect("an idle connection stayed").unwrap(),
        0
    );
    may_end.fetch_add(1, Ordering::SeqCst);
    assert_eq!(reply(busy).await.chunks().len(), 6);
    server.done.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.addr).await.is_err());
}

#[tokio::test]
async fn shutdown_ends_what_takes_too_long() {
    let (begun, begins) = counter();
    let (gone, cancelled) = counter();
    let (handle, inbox) = Handle::new(facts(), 10);
    run(inbox, move |submission| {
        begins.fetch_add(1, Ordering::SeqCst);
        wait_for_cancel(&submission, &cancelled);
    });
    let config = Config {
        drain: Duration::from_millis(100),
        ..Config::default()
    };
    let mut server = Server::start(handle, config).await;
    let mut client = server.connect().await;
    let body = hello(json!({"stream": true})).to_string();
    client
        .write_all(&post("/v1/chat/completions", body.as_bytes()))
        .await
        .unwrap();
    eventually("the request runs", || begun.load(Ordering::SeqCst) == 1).await;
    server.stop.take().unwrap().send(()).unwrap();
    server.done.await.unwrap().unwrap();
    eventually("the request is cancelled", || {
        gone.load(Ordering::SeqCst) == 1
    })
    .await;
    assert!(!reply(client).await.complete);
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_while_they_come() {
    let server = Server::saying("x").await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let start = Instant::now();
    for (megabytes, chunked) in [(100, false), (100, true), (20, false)] {
        let size = megabytes << 20;
        let head = match chunked {
            false => format!("{head}content-length: {size}\r\n\r\n"),
            true => format!("{head}transfer-encoding: chunked\r\n\r\n{size:x}\r\n"),
        };
        let mut stream = server.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let megabyte = vec![b' '; 1 << 20];
        let mut sent = 0;
        while sent < megabytes && stream.write_all(&megabyte).await.is_ok() {
            sent += 1;
        }
        // The rest of a body of sensible size is taken, so that its sender gets to the answer.
        assert!(sent == megabytes || megabytes == 100);
        let reply = reply(stream).await;
        let code = &reply.error()["code"];
        assert_eq!((reply.status, code), (413, &json!("request_too_large")));
    }
    assert!(start.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn clients_that_wait_to_send_are_told_not_to() {
    let server = Server::saying("x").await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n";
    let large = server.raw(format!("{head}content-length: 100000000\r\n\r\n"));
    assert_eq!(large.await.status, 413);
    let mut stream = server.connect().await;
    let head = format!("{head}connection: close\r\ncontent-length: 15\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = [0; 25];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"prompt\": \"a\"}").await.unwrap();
    assert_eq!(reply(stream).await.status, 200);
}

#[tokio::test]
async fn slow_heads_and_bodies_are_given_up() {
    let (handle, _inbox) = Handle::new(facts(), 10);
    let config = Config {
        header_timeout: Duration::from_millis(100),
        body_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let server = Server::start(handle, config).await;
    let mut silent = server.connect().await;
    silent.write_all(b"GET /hea").await.unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
    assert_eq!(server.raw(head).await.status, 408);
}

#[tokio::test]
async fn bytes_that_are_no_request_do_no_harm() {
    let server = Server::saying("x").await;
    let long = format!(
        "GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "a".repeat(40_000)
    );
    assert_eq!(server.raw(long).await.status, 431);
    let many = "x: y\r\n".repeat(101);
    let many = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{many}\r\n");
    assert_eq!(server.raw(many).await.status, 431);
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
    ] {
        assert_eq!(server.raw(garbage).await.status, 400);
    }
    drop(server.connect().await);
    let mut two = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec();
    two.extend(post(
        "/v1/chat/completions",
        hello(json!({})).to_string().as_bytes(),
    ));
    let mut stream = server.connect().await;
    stream.write_all(&two).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2);
    assert!(text.contains("chat.completion"));
}
