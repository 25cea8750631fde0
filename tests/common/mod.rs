//! Driving the binary from outside: as a command, and as a server.

#![allow(dead_code)] // Each test file uses its part.

pub mod golden;
pub mod portable;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// The binary under test, with nothing of the caller's settings.
pub fn pensieve() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pensieve"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PENSIEVE_") {
            command.env_remove(name);
        }
    }
    // What is measured here is no plan of the user's.
    command.env(
        "XDG_CACHE_HOME",
        concat!(env!("CARGO_TARGET_TMPDIR"), "/caches"),
    );
    command.stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str]) -> Output {
    pensieve().args(arguments).output().unwrap()
}

/// The shipped model's folder.
pub fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/pensieve-tiny")
}

/// What a command wrote to standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command wrote to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running `pensieve serve`, killed when dropped.
pub struct Server {
    child: Child,
    /// `http://ADDRESS`.
    pub url: String,
    agent: ureq::Agent,
}

impl Server {
    /// Starts a server with these arguments on a free port and waits until it serves.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = pensieve();
        command.args(["serve", "--port", "0"]).args(arguments);
        Self::run(command)
    }

    /// Starts the server that `command` is and waits until it serves.
    pub fn run(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = loop {
            let line = lines.next().expect("a line with the address").unwrap();
            if let Some((_, url)) = line.split_once(" on ") {
                break url.trim_end_matches("/v1").to_string();
            }
        };
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        let agent = config.into();
        Self { child, url, agent }
    }

    /// Posts a JSON body; returns the status and the JSON answer.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        let mut response = self.agent.post(&url).send_json(body).unwrap();
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (status, json)
    }

    /// Gets a path; returns the status and the JSON answer.
    pub fn get(&self, path: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        let mut response = self.agent.get(&url).call().unwrap();
        let status = response.status().as_u16();
        (status, response.body_mut().read_json().unwrap())
    }

    /// Posts a body and returns the server-sent events' data, `[DONE]` included.
    pub fn stream(&self, path: &str, body: &Value) -> Vec<String> {
        let url = format!("{}{path}", self.url);
        let mut response = self.agent.post(&url).send_json(body).unwrap();
        assert_eq!(response.status().as_u16(), 200);
        let mut text = String::new();
        let mut reader = response.body_mut().as_reader();
        reader.read_to_string(&mut text).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.map(String::from).collect()
    }

    /// Sends a signal by name and waits for the end; returns the exit code.
    pub fn end_by(mut self, signal: &str) -> Option<i32> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
