//! Many streams at a time, beside clients that do not behave; and that streams lose nothing.

use proptest::prelude::*;

use super::*;
use crate::server::fuzzing::{Piece, events, nothing_is_lost};

/// What the answer to a seed says.
fn answer(seed: u64) -> String {
    (0..60)
        .map(|place| format!("{} ", (seed * 31 + place * 7) % 1000))
        .collect()
}

fn paths(seed: u64) -> (&'static str, Value) {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    match seed % 3 {
        0 => ("/v1/chat/completions", json!({"messages": messages})),
        1 => ("/v1/completions", json!({"prompt": "Hi"})),
        _ => (
            "/v1/messages",
            json!({"model": "tiny", "messages": messages}),
        ),
    }
}

/// The text of a stream that is whole.
fn said(seed: u64, reply: &Reply) -> String {
    assert!(reply.status == 200 && reply.complete, "{reply:?}");
    let events = events(reply.text()).unwrap();
    let last = &events.last().unwrap().1;
    assert!(last == "[DONE]" || last.contains("message_stop"), "{last}");
    let texts = events.iter().filter(|(_, data)| data != "[DONE]");
    let text = texts.map(|(_, data)| {
        let data: Value = serde_json::from_str(data).unwrap();
        let text = match seed % 3 {
            0 => &data["choices"][0]["delta"]["content"],
            1 => &data["choices"][0]["text"],
            _ => &data["delta"]["text"],
        };
        text.as_str().unwrap_or_default().to_owned()
    });
    text.collect()
}

fn request(seed: u64, max_tokens: usize) -> Vec<u8> {
    let (path, mut body) = paths(seed);
    body["stream"] = json!(true);
    body["seed"] = json!(seed);
    body["max_tokens"] = json!(max_tokens);
    post(path, body.to_string().as_bytes())
}

/// What the measurement in `benches/streams.rs` does for long and with many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_behave_are_served_beside_those_that_do_not() {
    const ENDLESS: u64 = 3_000_000;
    let (handle, inbox) = Handle::new(
        Facts {
            context_length: 10_000_000,
            ..facts()
        },
        1000,
    );
    run(inbox, |submission| {
        let seed = submission.request.params.seed;
        if seed < ENDLESS {
            return say(&submission, answer(seed).as_bytes());
        }
        let token = Event::Token {
            id: u32::from(b'x'),
            logprob: None,
        };
        while submission.events.blocking_send(token.clone()).is_ok() {}
    });
    let config = Config {
        write_timeout: Duration::from_millis(500),
        body_timeout: Duration::from_millis(500),
        ..Config::default()
    };
    let server = Arc::new(Server::start(handle, config).await);
    let mut strange = Vec::new();
    for number in 0..32_u64 {
        let server = server.clone();
        strange.push(tokio::spawn(async move {
            let mut stream = server.connect().await;
            let request = request(ENDLESS + number, 60_000);
            let mut some = [0; 64];
            let sent = if number % 4 == 2 {
                request.len() / 2
            } else {
                request.len()
            };
            stream.write_all(&request[..sent]).await.unwrap();
            match number % 4 {
                // Reads slowly, for as long as the others are there.
                0 => {
                    while stream
                        .read(&mut some[..16])
                        .await
                        .is_ok_and(|read| read > 0)
                    {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                // Reads nothing, or sends no more, without hanging up.
                1 | 2 => tokio::time::sleep(Duration::from_secs(60)).await,
                // Hangs up with bytes unread, which is a reset.
                _ => {
                    let _ = stream.read_exact(&mut some).await;
                }
            }
        }));
    }
    let mut well = Vec::new();
    for number in 0..48_u64 {
        let server = server.clone();
        well.push(tokio::spawn(async move {
            for round in 0..4 {
                let seed = number + round * 48;
                let reply = server.raw(request(seed, 1000)).await;
                assert_eq!(said(seed, &reply), answer(seed));
            }
        }));
    }
    for client in well {
        client.await.unwrap();
    }
    for client in strange {
        client.abort();
    }
    let metrics = async || server.get("/metrics").await.text().to_owned();
    for _ in 0..500 {
        let text = metrics().await;
        let has = |line: &str| text.lines().any(|have| have == line);
        if has("pensieve_batch_size 0") && has("pensieve_connections 1") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("something is still held: {}", metrics().await);
}

fn text() -> impl Strategy<Value = String> {
    ".{0,12}|[\r\n\u{2028}\u{85}\0: \"\\\\]{0,6}|data: .{0,3}\n\n|\u{1f600}{0,2}"
}

fn piece() -> impl Strategy<Value = Piece> {
    let arguments = (text(), text(), 0..9_usize).prop_map(|(name, value, cut)| {
        let whole = json!({name: value}).to_string();
        let cut = whole.char_indices().nth(cut).map_or(0, |(at, _)| at);
        vec![whole[..cut].to_owned(), whole[cut..].to_owned()]
    });
    let arguments = prop_oneof![Just(Vec::new()), arguments.boxed()];
    prop_oneof![
        text().prop_map(Piece::Text),
        text().prop_map(Piece::Reasoning),
        (text(), arguments).prop_map(|(name, arguments)| Piece::Call(name, arguments)),
    ]
}

#[test]
fn every_dialects_stream_and_whole_answer_say_what_went_in() {
    let (engine, _inbox) = Handle::new(facts(), 1);
    let app = app(engine);
    proptest!(|(pieces in prop::collection::vec(piece(), 0..10))| {
        let lost = nothing_is_lost(&app, &pieces);
        prop_assert!(lost.is_ok(), "{lost:?}");
    });
}
