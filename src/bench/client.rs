//! A server with OpenAI's API as a target: streamed completions, timed where their text arrives.
//!
//! Prompts are random letters, since a server need not take token ids. How many letters make a token
//! is asked of the server once.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::suite::Talk;
use super::target::{Ask, in_order};
use super::trace::Trace;

/// A prompt of a server's has ids below this: letters.
pub const LETTERS: usize = 26;
/// Letters of the prompt by which a server is asked how it counts.
const SAMPLE: usize = 512;

/// A way to a server.
#[derive(Clone, Debug)]
pub struct Client {
    /// `http://HOST:PORT/v1`, as it was given.
    address: String,
    authority: String,
    path: String,
    key: Option<String>,
    model: String,
    context_length: Option<usize>,
    /// Letters of a token.
    letters: f64,
}

impl Client {
    /// Asks the server at `url` (`http://HOST:PORT`, with or without a path such as `/v1`) for its
    /// model, unless one is named, and how it counts tokens.
    ///
    /// # Errors
    /// If the address cannot be used, or the server does not answer as OpenAI's API does.
    pub async fn connect(
        url: &str,
        model: Option<&str>,
        key: Option<String>,
    ) -> Result<Client, String> {
        let (authority, path) = split(url)?;
        let mut client = Client {
            address: url.trim_end_matches('/').to_owned(),
            authority,
            path,
            key,
            model: model.unwrap_or_default().to_owned(),
            context_length: None,
            letters: 1.0,
        };
        match (client.get("/models").await, model) {
            (Err(error), None) => return Err(error),
            // A server that has been told what to run need not list anything.
            (Err(_), Some(_)) => {}
            (Ok(models), _) => {
                let found = find(&models, model);
                client.context_length = found.and_then(context_length);
                if model.is_none() {
                    let id = found.and_then(|found| found.get("id")?.as_str());
                    let none = || format!("{url} lists no model; name one with --url-model");
                    client.model = id.ok_or_else(none)?.to_owned();
                }
            }
        }
        let sample = Ask::new((0..SAMPLE as u32).map(|i| i * 7 % 26).collect(), 2);
        let trace = client.follow(&sample, Instant::now()).await?;
        if trace.prompt_tokens > 0 {
            client.letters = SAMPLE as f64 / trace.prompt_tokens as f64;
        }
        Ok(client)
    }

    /// As it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What the server calls its model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Tokens of prompt and answer together, if the server says so.
    pub fn context_length(&self) -> Option<usize> {
        self.context_length
    }

    /// Whether the address is this machine's own.
    pub fn is_local(&self) -> bool {
        ["127.", "localhost:", "[::1]:"]
            .iter()
            .any(|host| self.authority.starts_with(host))
    }

    /// Sends these at once, each on a connection of its own.
    ///
    /// # Errors
    /// The first failure.
    pub async fn together(&self, asks: Vec<Ask>) -> Result<Vec<Trace>, String> {
        let origin = Instant::now();
        let mut tasks = JoinSet::new();
        for (i, ask) in asks.into_iter().enumerate() {
            if ask.form.is_some() {
                return Err("forms cannot be measured over HTTP".into());
            }
            let client = self.clone();
            tasks.spawn(async move {
                tokio::time::sleep(Duration::from_secs_f64(ask.delay.max(0.0))).await;
                let trace = client.follow(&ask, origin).await?;
                Ok::<_, String>((i, trace))
            });
        }
        in_order(tasks).await
    }

    /// Sends dialogues, each at its time.
    ///
    /// # Errors
    /// The first failure.
    pub async fn talk(&self, talks: Vec<Talk>) -> Result<Vec<Trace>, String> {
        let origin = Instant::now();
        let mut tasks = JoinSet::new();
        for (i, talk) in talks.into_iter().enumerate() {
            let client = self.clone();
            tasks.spawn(async move {
                tokio::time::sleep(Duration::from_secs_f64(talk.delay.max(0.0))).await;
                let mut body = json!({
                    "model": client.model,
                    "messages": talk.messages,
                    "max_tokens": talk.tokens,
                    "temperature": 0.0,
                    "stream": true,
                    "stream_options": {"include_usage": true},
                });
                match talk.schema {
                    None => body["ignore_eos"] = json!(true),
                    Some(schema) => {
                        body["response_format"] = json!({
                            "type": "json_schema",
                            "json_schema": {"name": "answer", "strict": true, "schema": schema},
                        });
                    }
                }
                let trace = client.stream("/chat/completions", &body, origin).await?;
                Ok::<_, String>((i, trace))
            });
        }
        in_order(tasks).await
    }

    /// Sends one and follows it to its end.
    async fn follow(&self, ask: &Ask, origin: Instant) -> Result<Trace, String> {
        let body = json!({
            "model": self.model,
            "prompt": self.text(&ask.prompt),
            "max_tokens": ask.tokens,
            "temperature": 0.0,
            "ignore_eos": true,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        self.stream("/completions", &body, origin).await
    }

    /// As many letters as make so many tokens.
    fn text(&self, prompt: &[u32]) -> String {
        let count = (prompt.len() as f64 * self.letters).round().max(1.0) as usize;
        let letter = |id: &u32| char::from(b'a' + (id % LETTERS as u32) as u8);
        prompt.iter().map(letter).cycle().take(count).collect()
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let bytes = response.into_body().collect().await;
        let bytes = bytes.map_err(|e| self.broken(&e))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|e| self.broken(&e))
    }

    /// Posts `body` and stamps each event that brings text.
    ///
    /// # Errors
    /// If the server refuses, breaks off, or sends an error among the events.
    pub async fn stream(&self, path: &str, body: &Value, origin: Instant) -> Result<Trace, String> {
        let mut trace = Trace {
            sent: origin.elapsed().as_secs_f64(),
            ..Trace::default()
        };
        let body = Bytes::from(body.to_string());
        let mut body = self.send(Method::POST, path, body).await?.into_body();
        let mut events = Events::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| self.broken(&e))?;
            let at = origin.elapsed().as_secs_f64();
            for event in events.take(frame.data_ref().map_or(&[][..], |data| data)) {
                let event: Value = serde_json::from_slice(&event).map_err(|e| self.broken(&e))?;
                note(&mut trace, &event, at)?;
            }
        }
        if trace.tokens == 0 {
            trace.tokens = trace.stamps.len();
        }
        Ok(trace)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let stream = TcpStream::connect(&self.authority).await;
        let stream = stream.map_err(|e| format!("cannot reach {}: {e}", self.address))?;
        // Small writes must not wait for one another.
        stream.set_nodelay(true).map_err(|e| self.broken(&e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.broken(&e))?;
        // Its errors come out of the request too.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.path))
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request.body(Full::new(body)).map_err(|e| self.broken(&e))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|e| self.broken(&e))?;
        let status = response.status();
        if !status.is_success() {
            let said = response.into_body().collect().await;
            let said = said.map(|said| said.to_bytes()).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            return Err(format!("{} answers {status}: {said}", self.address));
        }
        Ok(response)
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> String {
        format!("{} does not answer as it should: {error}", self.address)
    }
}

/// The entry of this model in a list of models; the first without a name.
fn find<'a>(models: &'a Value, model: Option<&str>) -> Option<&'a Value> {
    let mut data = models.get("data")?.as_array()?.iter();
    data.find(|entry| model.is_none_or(|model| entry.get("id").is_some_and(|id| id == model)))
}

/// Tokens of a model's context: Pensieve's word for it, vLLM's, or llama-server's.
fn context_length(model: &Value) -> Option<usize> {
    ["/context_length", "/max_model_len", "/meta/n_ctx"]
        .iter()
        .find_map(|pointer| model.pointer(pointer)?.as_u64())
        .map(|tokens| tokens as usize)
}

/// What one event says.
fn note(trace: &mut Trace, event: &Value, at: f64) -> Result<(), String> {
    if let Some(error) = event.get("error") {
        return Err(format!("the server sent an error: {error}"));
    }
    let text = |pointer: &str| {
        let text = event.pointer(pointer).and_then(Value::as_str);
        text.is_some_and(|text| !text.is_empty())
    };
    if [
        "/choices/0/text",
        "/choices/0/delta/content",
        "/choices/0/delta/reasoning_content",
        "/choices/0/delta/reasoning",
    ]
    .into_iter()
    .any(text)
        || event.pointer("/choices/0/delta/tool_calls/0").is_some()
    {
        trace.stamps.push(at);
    }
    let count = |pointer: &str| {
        let count = event.pointer(pointer).and_then(Value::as_u64);
        count.map(|n| n as usize)
    };
    trace.prompt_tokens = count("/usage/prompt_tokens").unwrap_or(trace.prompt_tokens);
    trace.tokens = count("/usage/completion_tokens").unwrap_or(trace.tokens);
    let cached = count("/usage/prompt_tokens_details/cached_tokens");
    trace.cached_tokens = cached.or(trace.cached_tokens);
    Ok(())
}

/// Cuts a stream of server-sent events into the data of each; `[DONE]` is left out.
#[derive(Default)]
struct Events {
    rest: Vec<u8>,
}

impl Events {
    fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        let data = whole.split(|&byte| byte == b'\n').filter_map(|line| {
            let data = line.strip_prefix(b"data:")?.trim_ascii();
            (data != b"[DONE]").then(|| data.to_vec())
        });
        data.collect()
    }
}

/// The address to connect to, and the path under which the API lies.
fn split(url: &str) -> Result<(String, String), String> {
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(format!(
            "{url}: expected an address like http://127.0.0.1:8080/v1 (without TLS)"
        ));
    };
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, path.trim_end_matches('/')),
        None => (rest, ""),
    };
    let port = host.rsplit_once(':').map(|(_, port)| port);
    let authority = match port.is_some_and(|port| port.parse::<u16>().is_ok()) {
        true => host.to_owned(),
        false => format!("{host}:80"),
    };
    let path = match path {
        "" => "/v1".to_owned(),
        path => format!("/{path}"),
    };
    Ok((authority, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split() {
        for (url, authority, path) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "/v1"),
            ("http://localhost:1234/v1/", "localhost:1234", "/v1"),
            ("http://host/api/v1", "host:80", "/api/v1"),
            ("http://[::1]:99", "[::1]:99", "/v1"),
        ] {
            assert_eq!(split(url).unwrap(), (authority.into(), path.into()));
        }
        assert!(split("https://host").is_err());
    }

    #[test]
    fn a_models_context_is_found_in_the_list() {
        let models = json!({"data": [
            {"id": "a", "meta": {"n_ctx": 4096}}, {"id": "b", "context_length": 8192}, {"id": "c"},
        ]});
        for (model, id, context) in [
            (None, Some("a"), Some(4096)),
            (Some("b"), Some("b"), Some(8192)),
            (Some("c"), Some("c"), None),
            (Some("d"), None, None),
        ] {
            let found = find(&models, model);
            assert_eq!(found.and_then(|found| found["id"].as_str()), id);
            assert_eq!(found.and_then(context_length), context);
        }
        assert_eq!(find(&json!({}), None), None);
    }

    #[test]
    fn events_may_be_cut_anywhere() {
        let stream = b"data: {\"a\":1}\n\n: ping\r\ndata:{\"b\":2}\r\n\r\ndata: [DONE]\n\n";
        for cut in 0..stream.len() {
            let mut events = Events::default();
            let mut found = events.take(&stream[..cut]);
            found.extend(events.take(&stream[cut..]));
            assert_eq!(
                found,
                [b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec()],
                "{cut}"
            );
        }
    }

    #[test]
    fn text_is_stamped_and_usage_counts() {
        let mut trace = Trace::default();
        for event in [
            json!({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
            json!({"choices": [{"delta": {"content": "a"}}]}),
            json!({"choices": [{"text": "b"}]}),
            json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5,
                   "prompt_tokens_details": {"cached_tokens": 3}}}),
        ] {
            note(&mut trace, &event, 1.5).unwrap();
        }
        assert_eq!(trace.stamps, [1.5, 1.5]);
        assert_eq!((trace.prompt_tokens, trace.tokens), (7, 5));
        assert_eq!(trace.cached_tokens, Some(3));
        assert!(note(&mut trace, &json!({"error": "no"}), 2.0).is_err());
    }
}
