//! A hub of models on this machine: the parts of a hub's interface that `pensieve` and `huggingface_hub`
//! use, and a storage on another port that it sends them to. It can be told to fail in many ways.
//!
//! Written on plain sockets, because an HTTP library would not let it break off in the middle, stand
//! still, or claim what is not so.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

pub use super::file::{File, commit, git_hash, sha256};

/// A repository.
#[derive(Clone, Default)]
pub struct Repo {
    /// Branches and tags.
    pub references: BTreeMap<String, String>,
    /// Files by commit.
    pub commits: BTreeMap<String, Vec<File>>,
    /// Only for those with this token.
    pub token: Option<String>,
    /// Whether its terms have to be accepted: files are refused.
    pub gated: bool,
    /// The name that it has now.
    pub moved_to: Option<String>,
}

/// A way to fail.
#[derive(Clone, Debug)]
pub enum Fail {
    /// Answers with this status and header lines.
    Status(u16, &'static str),
    /// Ends the connection after so many bytes of the body.
    Truncate(usize),
    /// Sends nothing more after so many bytes of the body, and keeps the connection.
    Stall(usize),
    /// Changes the first byte of what it sends.
    Damage,
    /// Sends everything, whatever range was asked for.
    NoRange,
    /// Says that it sends another range.
    OtherRange,
    /// Claims that the file has so many bytes.
    Size(u64),
    /// Names another file's ETag.
    Etag(&'static str),
    /// Says that the file is of another commit.
    OtherCommit,
}

struct Rule {
    path: String,
    times: usize,
    fail: Fail,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub storage: bool,
    pub method: String,
    pub path: String,
    pub range: Option<Range<u64>>,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct Inner {
    repos: Mutex<BTreeMap<String, Repo>>,
    rules: Mutex<Vec<Rule>>,
    asked: Mutex<Vec<Asked>>,
    sent: AtomicU64,
    /// Bytes a second on each connection; 0 is no limit.
    speed: AtomicU64,
    /// The part of an address of the storage that makes it valid.
    signature: AtomicU64,
    storage: Mutex<String>,
    active: AtomicU64,
    most_active: AtomicU64,
    closed: AtomicBool,
}

/// A running hub. It ends with the process that tests it.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
    /// Its address.
    pub url: String,
}

impl Hub {
    /// Starts one without repositories.
    pub fn start() -> Hub {
        Hub::start_at("127.0.0.1:0").unwrap()
    }

    /// Starts one at another address of this machine, if it has it.
    pub fn start_at(address: &str) -> std::io::Result<Hub> {
        let inner: Arc<Inner> = Arc::default();
        let hub = listen(&inner, false, address)?;
        *inner.storage.lock().unwrap() = listen(&inner, true, address)?;
        Ok(Hub { inner, url: hub })
    }

    /// Puts a repository there, or changes it.
    pub fn put(&self, name: &str, repo: Repo) {
        self.inner
            .repos
            .lock()
            .unwrap()
            .insert(name.to_owned(), repo);
    }

    /// Puts a repository there with one commit, which is `main`.
    pub fn put_files(&self, name: &str, files: &[(&str, Vec<u8>)]) -> Repo {
        let files = files
            .iter()
            .map(|(name, bytes)| File::new(name, bytes.clone()));
        let mut repo = Repo::default();
        repo.references.insert("main".into(), commit('a'));
        repo.commits.insert(commit('a'), files.collect());
        self.put(name, repo.clone());
        repo
    }

    /// The next `times` requests whose address contains `path` fail so.
    pub fn fail(&self, path: &str, times: usize, fail: Fail) {
        let path = path.to_owned();
        self.inner
            .rules
            .lock()
            .unwrap()
            .push(Rule { path, times, fail });
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().unwrap().clone()
    }

    /// Forgets what was asked for and sent.
    pub fn forget(&self) {
        self.inner.asked.lock().unwrap().clear();
        self.inner.rules.lock().unwrap().clear();
        self.inner.sent.store(0, Ordering::SeqCst);
        self.inner.most_active.store(0, Ordering::SeqCst);
    }

    /// Bytes of bodies that were sent.
    pub fn sent(&self) -> u64 {
        self.inner.sent.load(Ordering::SeqCst)
    }

    /// Waits until so many more bytes were sent, or `ended` says so; gives whether it did.
    pub fn wait_for(&self, bytes: u64, mut ended: impl FnMut() -> bool) -> bool {
        let (began, until) = (Instant::now(), self.sent() + bytes);
        while self.sent() < until {
            if ended() {
                return true;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "nobody asks for more"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        ended()
    }

    /// The most bodies that the storage was sending at a time.
    pub fn most_active(&self) -> u64 {
        self.inner.most_active.load(Ordering::SeqCst)
    }

    /// Limits each connection to so many bytes a second; 0 does not.
    pub fn limit(&self, speed: u64) {
        self.inner.speed.store(speed, Ordering::SeqCst);
    }

    /// Makes all addresses of the storage that were given out invalid.
    pub fn expire(&self) {
        self.inner.signature.fetch_add(1, Ordering::SeqCst);
    }

    /// From now on large files lie at the hub's own address, as mirrors have it.
    pub fn keep_files(&self) {
        *self.inner.storage.lock().unwrap() = format!("{}/cdn", self.url);
    }

    /// Closes the hub: connections are not answered any more.
    pub fn close(&self) {
        self.inner.closed.store(true, Ordering::SeqCst);
    }
}

fn listen(inner: &Arc<Inner>, storage: bool, address: &str) -> std::io::Result<String> {
    let listener = TcpListener::bind(address)?;
    let url = format!("http://{}", listener.local_addr()?);
    let inner = Arc::clone(inner);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), inner) = (stream, Arc::clone(&inner)) else {
                continue;
            };
            // A client that goes away, or is killed, is nothing to fail at.
            std::thread::spawn(move || drop(serve(&inner, storage, stream)));
        }
    });
    Ok(url)
}

/// A path without its `%` escapes.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
        match byte {
            b'%' => {
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                bytes.push((high.unwrap() * 16 + low.unwrap()) as u8);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap()
}

struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Arc<Vec<u8>>,
    /// Whether ranges of the body may be asked for.
    ranges: bool,
}

impl Answer {
    fn error(status: u16, code: &str, message: &str) -> Answer {
        let mut headers = Vec::new();
        if !code.is_empty() {
            headers.push(format!("X-Error-Code: {code}"));
        }
        if !message.is_empty() {
            headers.push(format!("X-Error-Message: {message}"));
        }
        Answer {
            status,
            headers,
            body: Arc::default(),
            ranges: false,
        }
    }

    fn json(value: &serde_json::Value) -> Answer {
        Answer {
            status: 200,
            headers: vec!["Content-Type: application/json".into()],
            body: Arc::new(value.to_string().into_bytes()),
            ranges: false,
        }
    }
}

fn serve(inner: &Inner, storage: bool, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || inner.closed.load(Ordering::SeqCst) {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let Some((method, rest)) = head[0].split_once(' ') else {
            return Ok(());
        };
        let path = rest.split(' ').next().unwrap_or_default().to_owned();
        let header = |name: &str| {
            head[1..].iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            })
        };
        let range = header("range").and_then(|text| {
            let (start, last) = text.strip_prefix("bytes=")?.split_once('-')?;
            let last: u64 = last.parse().unwrap_or(u64::MAX - 1);
            Some(start.parse().ok()?..last + 1)
        });
        let authorization = header("authorization");
        inner.asked.lock().unwrap().push(Asked {
            storage,
            method: method.to_owned(),
            path: path.clone(),
            range: range.clone(),
            authorization: authorization.clone(),
        });
        let fail = {
            let mut rules = inner.rules.lock().unwrap();
            let rule = rules
                .iter_mut()
                .find(|rule| rule.times > 0 && path.contains(&rule.path));
            rule.map(|rule| {
                rule.times -= 1;
                rule.fail.clone()
            })
        };
        let answer = match storage {
            true => inner.storage(&path, authorization.as_deref()),
            false => inner.hub(&path, authorization.as_deref()),
        };
        let keep = send(inner, &mut stream, method, answer, range, fail, storage)?;
        if !keep {
            return Ok(());
        }
    }
}

/// Sends an answer. False if the connection ends with it.
fn send(
    inner: &Inner,
    stream: &mut TcpStream,
    method: &str,
    mut answer: Answer,
    range: Option<Range<u64>>,
    fail: Option<Fail>,
    storage: bool,
) -> std::io::Result<bool> {
    match &fail {
        Some(Fail::Status(status, headers)) => {
            answer = Answer::error(*status, "", "");
            answer.headers = headers.lines().map(str::to_owned).collect();
        }
        Some(Fail::Size(size)) => {
            answer
                .headers
                .retain(|line| !line.starts_with("X-Linked-Size"));
            answer.headers.push(format!("X-Linked-Size: {size}"));
        }
        Some(Fail::Etag(etag)) => {
            answer.headers.retain(|line| !line.contains("-Etag"));
            answer.headers.push(format!("X-Linked-Etag: {etag}"));
        }
        Some(Fail::OtherCommit) => {
            answer
                .headers
                .retain(|line| !line.starts_with("X-Repo-Commit"));
            answer
                .headers
                .push(format!("X-Repo-Commit: {}", commit('e')));
        }
        _ => {}
    }
    let size = answer.body.len() as u64;
    let mut part = 0..size;
    if let (Some(wanted), true, false) = (
        &range,
        answer.ranges && answer.status == 200,
        matches!(fail, Some(Fail::NoRange)),
    ) {
        if wanted.start >= size {
            answer = Answer::error(416, "", "");
            part = 0..0;
        } else {
            part = wanted.start..wanted.end.min(size);
            answer.status = 206;
            let shift = u64::from(matches!(fail, Some(Fail::OtherRange)));
            let (start, last) = (part.start + shift, part.end - 1 + shift);
            answer
                .headers
                .push(format!("Content-Range: bytes {start}-{last}/{size}"));
        }
    }
    let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
    for line in &answer.headers {
        head.push_str(&format!("{line}\r\n"));
    }
    head.push_str(&format!(
        "Content-Length: {}\r\n\r\n",
        part.end - part.start
    ));
    stream.write_all(head.as_bytes())?;
    if method == "HEAD" {
        return Ok(true);
    }
    let mut body = answer.body[part.start as usize..part.end as usize].to_vec();
    if let (Some(Fail::Damage), Some(first)) = (&fail, body.first_mut()) {
        *first ^= 1;
    }
    let stop = match fail {
        Some(Fail::Truncate(n) | Fail::Stall(n)) => n.min(body.len()),
        _ => body.len(),
    };
    if storage {
        let now = inner.active.fetch_add(1, Ordering::SeqCst) + 1;
        inner.most_active.fetch_max(now, Ordering::SeqCst);
    }
    let sent = paced(inner, stream, &body[..stop]);
    if storage {
        inner.active.fetch_sub(1, Ordering::SeqCst);
    }
    sent?;
    match fail {
        Some(Fail::Truncate(_)) => Ok(false),
        Some(Fail::Stall(_)) => {
            std::thread::sleep(Duration::from_secs(20));
            Ok(false)
        }
        _ => Ok(true),
    }
}

fn paced(inner: &Inner, stream: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    for piece in body.chunks(16 * 1024) {
        let speed = inner.speed.load(Ordering::SeqCst);
        if speed > 0 {
            std::thread::sleep(Duration::from_secs_f64(piece.len() as f64 / speed as f64));
        }
        stream.write_all(piece)?;
        inner.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}

impl Inner {
    fn hub(&self, path: &str, authorization: Option<&str>) -> Answer {
        if let Some(file) = path.strip_prefix("/cdn") {
            return self.storage(file, None);
        }
        let path = path.split('?').next().unwrap_or_default();
        let path = decoded(path);
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (is_api, parts) = match parts.as_slice() {
            ["api", "models", rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let [org, model, rest @ ..] = parts else {
            return Answer::error(404, "", "");
        };
        let name = format!("{org}/{model}");
        let repos = self.repos.lock().unwrap();
        let token = authorization.and_then(|text| text.strip_prefix("Bearer "));
        if token == Some("expired") {
            return Answer::error(401, "", "Invalid credentials in Authorization header");
        }
        let Some(repo) = repos.get(&name) else {
            // Who has no account is not told what is there.
            let status = if token.is_some() { 404 } else { 401 };
            return Answer::error(status, "RepoNotFound", "Repository not found");
        };
        if repo.token.is_some() && repo.token.as_deref() != token {
            return Answer::error(401, "RepoNotFound", "Repository not found");
        }
        if let Some(new) = &repo.moved_to {
            let mut answer = Answer::error(307, "", "");
            answer
                .headers
                .push(format!("Location: {}", path.replacen(&name, new, 1)));
            return answer;
        }
        let commit_of = |revision: &str| {
            let known = repo.references.get(revision).cloned();
            known.or_else(|| {
                repo.commits
                    .contains_key(revision)
                    .then(|| revision.to_owned())
            })
        };
        let missing = || Answer::error(404, "RevisionNotFound", "Invalid rev id");
        if is_api {
            let revision = match rest {
                ["revision" | "tree", revision @ ..] => revision.join("/"),
                _ => "main".to_owned(),
            };
            let Some(commit) = commit_of(&revision) else {
                return missing();
            };
            return match rest {
                ["tree", ..] => tree(&repo.commits[&commit]),
                _ => listing(&name, &commit, &repo.commits[&commit], repo.gated),
            };
        }
        let ["resolve", rest @ ..] = rest else {
            return Answer::error(404, "", "");
        };
        // A revision may have folders: the longest that is known.
        let found = (1..rest.len()).rev().find_map(|n| {
            let commit = commit_of(&rest[..n].join("/"))?;
            Some((commit, rest[n..].join("/")))
        });
        let Some((commit, file)) = found else {
            return missing();
        };
        if repo.gated {
            let status = if token.is_some() { 403 } else { 401 };
            return Answer::error(status, "GatedRepo", "Access to this model is restricted.");
        }
        let file = repo.commits[&commit].iter().find(|f| f.name == file);
        let Some(file) = file else {
            let mut answer = Answer::error(404, "EntryNotFound", "Entry not found");
            answer.headers.push(format!("X-Repo-Commit: {commit}"));
            return answer;
        };
        self.resolved(&commit, file)
    }

    fn resolved(&self, commit: &str, file: &File) -> Answer {
        let mut answer = Answer {
            status: 200,
            headers: vec![
                format!("X-Repo-Commit: {commit}"),
                "Accept-Ranges: bytes".into(),
            ],
            body: Arc::clone(&file.bytes),
            ranges: true,
        };
        if file.large {
            let signature = self.signature.load(Ordering::SeqCst);
            let storage = self.storage.lock().unwrap();
            let hash = &file.etag;
            answer.headers.extend([
                format!("X-Linked-Etag: \"{hash}\""),
                format!("X-Linked-Size: {}", file.bytes.len()),
                "ETag: \"pointer\"".to_owned(),
                format!("Location: {storage}/{hash}?signature={signature}"),
            ]);
            answer.status = 302;
            answer.body = Arc::new(b"moved".to_vec());
        } else {
            answer.headers.push(format!("ETag: W/\"{}\"", file.etag));
        }
        answer
    }

    fn storage(&self, path: &str, authorization: Option<&str>) -> Answer {
        // As storages do: they take one kind of permission at a time.
        if authorization.is_some() {
            return Answer::error(400, "", "two kinds of authorization");
        }
        let (hash, query) = path
            .trim_start_matches('/')
            .split_once('?')
            .unwrap_or((path, ""));
        if query != format!("signature={}", self.signature.load(Ordering::SeqCst)) {
            return Answer::error(403, "", "Request has expired");
        }
        let repos = self.repos.lock().unwrap();
        let files = repos
            .values()
            .flat_map(|repo| repo.commits.values().flatten());
        let found = files.filter(|f| f.large).find(|file| file.etag == hash);
        match found {
            Some(file) => Answer {
                status: 200,
                headers: vec!["ETag: \"of the storage\"".into()],
                body: Arc::clone(&file.bytes),
                ranges: true,
            },
            None => Answer::error(404, "", ""),
        }
    }
}

fn listing(name: &str, commit: &str, files: &[File], gated: bool) -> Answer {
    let siblings: Vec<_> = files.iter().map(|f| json!({"rfilename": f.name})).collect();
    Answer::json(&json!({
        "_id": "1", "id": name, "modelId": name, "sha": commit, "private": false,
        "gated": gated, "disabled": false, "tags": [], "downloads": 0, "likes": 0,
        "lastModified": "2025-01-01T00:00:00.000Z", "siblings": siblings,
    }))
}

fn tree(files: &[File]) -> Answer {
    let entries = files.iter().map(|file| {
        let size = file.bytes.len();
        let mut entry = json!({
            "type": "file", "path": file.name, "size": size, "oid": git_hash(&file.bytes)
        });
        if file.large {
            entry["lfs"] = json!({"oid": file.etag, "size": size, "pointerSize": 130});
        }
        entry
    });
    Answer::json(&json!(entries.collect::<Vec<_>>()))
}
