//! The server over real sockets, with a scripted engine and a tokenizer whose tokens are bytes.

mod anthropic;
mod attacks;
mod chat;
mod completions;
mod connections;
mod extensions;
mod fields;
mod notations;
mod operation;
mod protocol;
mod refusals;
mod strange_bodies;
mod streams;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{App, Config, serve};
use crate::engine::{
    Command, Event, Facts, FinishReason, Handle, Inbox, Request, Stats, Submission, TokenLogprob,
};
use crate::sample::Params;
use crate::text::Text;

const BOS: u32 = 257;
const VOCABULARY: usize = 259;
const CONTEXT: usize = 4096;
const TEMPLATE: &str = "{% if tools %}tools:{{ tools | tojson }}\n{% endif %}\
    {% for m in messages %}[{{ m.role }}]{{ m.content or '' }}\
    {% if m.tool_calls %}{{ m.tool_calls[0].function.arguments | tojson }}{% endif %}{% endfor %}\
    {% if fail %}{{ raise_exception('no') }}{% endif %}\
    {% if note %}note:{{ note }}{% endif %}\
    {% if add_generation_prompt %}[assistant]{% endif %}";

/// A tokenizer without merges: ids below 256 are bytes, 256 to 258 are special.
fn text() -> Text {
    text_with(TEMPLATE)
}

fn text_with(template: &str) -> Text {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut vocabulary = Map::new();
    let mut next = 256;
    for byte in 0..256_u32 {
        let spelled = if printable(byte) { byte } else { next };
        next += u32::from(!printable(byte));
        let spelled = char::from_u32(spelled).unwrap();
        vocabulary.insert(spelled.to_string(), json!(byte));
    }
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(256, "<eos>"), special(BOS, "<bos>"), special(258, "<end>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": []},
    });
    let config = json!({"eos_token": "<eos>", "bos_token": "<bos>", "chat_template": template});
    Text::open(|name| {
        Ok(match name {
            "tokenizer.json" => Some(tokenizer.to_string().into_bytes()),
            "tokenizer_config.json" => Some(config.to_string().into_bytes()),
            _ => None,
        })
    })
    .unwrap()
}

fn facts() -> Facts {
    Facts {
        id: "maker/tiny".into(),
        model_type: "toy".into(),
        context_length: CONTEXT,
        vocab_size: VOCABULARY,
        eos_ids: vec![256],
        weight_bytes: 1000,
        text_only: false,
        load_seconds: 0.5,
        prefill_chunk: 512,
    }
}

/// A score that can be recomputed from the token: -id/100, then the ids that follow it.
fn score(id: u32, top: usize) -> TokenLogprob {
    let of = |id: u32| -(id as f32) / 100.0;
    let top = (0..top as u32).map(|more| (id + more, of(id + more)));
    TokenLogprob {
        id,
        logprob: of(id),
        top: top.collect(),
    }
}

/// Tokens of every prompt that the scripted engine takes from a cache.
const CACHED: usize = 4;

/// Answers with the bytes of `answer`, as many as the request wants.
fn say(submission: &Submission, answer: &[u8]) {
    let request = &submission.request;
    let send = |event| submission.events.blocking_send(event).is_ok();
    let mut stats = Stats {
        prompt_tokens: request.prompt.len(),
        cached_tokens: request.prompt.len().min(CACHED),
        ..Stats::default()
    };
    send(Event::Started(stats.clone()));
    if let (true, Some(top)) = (request.prompt_logprobs, request.logprobs) {
        let numbered = request.prompt.iter().enumerate();
        let scores = numbered.map(|(place, &id)| (place > 0).then(|| score(id, top)));
        send(Event::Prompt(scores.collect()));
    }
    let given = answer.len().min(request.max_tokens);
    for &byte in &answer[..given] {
        let id = u32::from(byte);
        let logprob = request.logprobs.map(|top| score(id, top));
        if !send(Event::Token { id, logprob }) {
            return;
        }
    }
    let reason = match given < answer.len() || request.max_tokens == 0 {
        true => FinishReason::Length,
        false => FinishReason::Stop,
    };
    stats.completion_tokens = given;
    send(Event::Finished { reason, stats });
}

/// Takes up every submission at once, each on a thread of its own that runs `script`.
fn run(mut inbox: Inbox, script: impl Fn(Submission) + Send + Sync + 'static) {
    let script = Arc::new(script);
    thread::spawn(move || {
        while let Some(command) = inbox.commands.blocking_recv() {
            match command {
                Command::Submit(submission) => {
                    inbox
                        .waiting
                        .fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
                    let script = script.clone();
                    thread::spawn(move || script(submission));
                }
                Command::Ping(reply) => {
                    let _ = reply.send(());
                }
                Command::Stop => break,
            }
        }
    });
}

fn app(engine: Handle) -> App {
    let defaults = Params {
        temperature: 0.5,
        top_p: 0.9,
        top_k: 7,
        min_p: 0.1,
        ..Params::default()
    };
    App {
        engine,
        text: text(),
        defaults,
        aliases: Vec::new(),
        reasoning_field: "reasoning_content".into(),
        forms: None,
        gauges: None,
        created: 1_700_000_000,
    }
}

/// What the engine was asked.
type Asked = Arc<Mutex<Vec<Request>>>;

/// A server that runs until it is dropped or stopped.
struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    done: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(engine: Handle, config: Config) -> Self {
        Self::start_app(app(engine), config).await
    }

    async fn start_app(app: App, config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(serve(listener, app, config, async {
            let _ = stopped.await;
        }));
        let stop = Some(stop);
        Self { addr, stop, done }
    }

    /// A server whose engine runs `script` for each request.
    async fn with(script: impl Fn(Submission) + Send + Sync + 'static) -> Self {
        let (handle, inbox) = Handle::new(facts(), 100);
        run(inbox, script);
        Self::start(handle, Config::default()).await
    }

    /// A server whose engine always says the same.
    async fn saying(answer: &'static str) -> Self {
        Self::with(move |submission| say(&submission, answer.as_bytes())).await
    }

    /// As [`Server::saying`], with what the engine was asked.
    async fn recording(answer: &'static str) -> (Self, Asked) {
        Self::recording_as(answer, Config::default(), |_| {}).await
    }

    /// As [`Server::recording`], with other settings.
    async fn recording_as(
        answer: &'static str,
        config: Config,
        change: impl FnOnce(&mut App),
    ) -> (Self, Asked) {
        let asked = Asked::default();
        let record = asked.clone();
        let (handle, inbox) = Handle::new(facts(), 100);
        run(inbox, move |submission| {
            record.lock().unwrap().push(submission.request.clone());
            say(&submission, answer.as_bytes());
        });
        let mut app = app(handle);
        change(&mut app);
        (Self::start_app(app, config).await, asked)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends bytes and reads the one response to them.
    async fn raw(&self, bytes: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        reply(stream).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.raw(format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        ))
        .await
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        self.raw(post(path, body.to_string().as_bytes())).await
    }

    async fn chat(&self, body: &Value) -> Reply {
        self.post("/v1/chat/completions", body).await
    }

    async fn complete(&self, body: &Value) -> Reply {
        self.post("/v1/completions", body).await
    }
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A chat of one message, with `more` fields.
fn hello(more: Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// OpenAI's usage, without reasoning.
fn usage(prompt: usize, completion: usize) -> Value {
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": prompt.min(CACHED)},
        "completion_tokens_details": {"reasoning_tokens": 0},
    })
}

/// One response, its body without the chunked coding.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Whether the body ended as announced.
    complete: bool,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(have, _)| have.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The data of each server-sent event.
    fn events(&self) -> Vec<&str> {
        assert_eq!(
            self.header("content-type"),
            Some("text/event-stream; charset=utf-8")
        );
        let text = self.text();
        let events = text.strip_suffix("\n\n").unwrap_or(text).split("\n\n");
        events
            .map(|event| event.strip_prefix("data: ").unwrap())
            .collect()
    }

    /// The events of Anthropic's streams, each of which says its name twice.
    fn named_events(&self) -> Vec<Value> {
        let text = self.text().strip_suffix("\n\n").unwrap();
        let event = |event: &str| {
            let (name, data) = event.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        };
        text.split("\n\n").map(event).collect()
    }

    /// The chunks of a stream that is complete.
    fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        assert_eq!(events.pop(), Some("[DONE]"));
        events
            .iter()
            .map(|event| serde_json::from_str(event).unwrap())
            .collect()
    }

    fn error(&self) -> Value {
        let json = self.json();
        assert_eq!(json.as_object().unwrap().len(), 1);
        let error = &json["error"];
        let names: Vec<&String> = error.as_object().unwrap().keys().collect();
        assert_eq!(names, ["message", "type", "param", "code"]);
        error.clone()
    }
}

async fn reply(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let patience = Duration::from_secs(60);
    let reading = tokio::time::timeout(patience, stream.read_to_end(&mut bytes));
    // A reset after the response is as good as an end.
    let _ = reading.await.expect("the response did not end");
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let raw = &bytes[end + 4..];
    let mut reply = Reply {
        status,
        head,
        body: raw.to_vec(),
        complete: true,
    };
    if reply.header("transfer-encoding").is_some() {
        (reply.body, reply.complete) = dechunk(raw);
    }
    reply
}

fn dechunk(mut raw: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = raw.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&raw[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let start = end + 2;
        if raw.len() < start + size + 2 {
            break;
        }
        body.extend_from_slice(&raw[start..start + size]);
        raw = &raw[start + size + 2..];
    }
    (body, false)
}

/// Replaces what differs from answer to answer, after checking its shape.
fn settle(mut value: Value, prefix: &str) -> Value {
    assert!(value["id"].as_str().unwrap().starts_with(prefix), "{value}");
    assert!(value["created"].as_u64().unwrap() > 1_600_000_000);
    value["id"] = json!("ID");
    value["created"] = json!(0);
    value
}

/// Waits until `done` holds.
async fn eventually(what: &str, done: impl Fn() -> bool) {
    for _ in 0..3000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}
