//! Another program as a target: a script of peers/, in a Python process, fed requests line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use serde_json::{Value, json};

use super::target::Ask;
use super::trace::Trace;

/// What runs in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// mlx-lm, on a directory.
    MlxLm,
    /// llama.cpp by llama-cpp-python, on a GGUF file.
    LlamaCpp,
}

impl Kind {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Kind::MlxLm => "mlx-lm",
            Kind::LlamaCpp => "llama.cpp",
        }
    }

    /// Its script, so that the binary alone is enough.
    fn script(self) -> &'static str {
        match self {
            Kind::MlxLm => include_str!("../../peers/mlx_lm_bench.py"),
            Kind::LlamaCpp => include_str!("../../peers/llama_cpp_bench.py"),
        }
    }
}

/// A Python process in which another program has the model. It ends when this is dropped.
pub struct Peer {
    /// The program.
    pub kind: Kind,
    /// Rows of its embedding.
    pub vocab: usize,
    /// Seconds that loading took.
    pub load_seconds: f64,
    child: Child,
    pipes: Mutex<(Option<ChildStdin>, BufReader<ChildStdout>)>,
}

/// How the peer is started.
#[derive(Clone, Debug)]
pub struct PeerOptions<'a> {
    /// The program.
    pub kind: Kind,
    /// The Python that has it.
    pub python: &'a str,
    /// The model's directory, or its file.
    pub model: &'a Path,
    /// `cpu` or `gpu`, if one was asked for.
    pub device: Option<&'a str>,
    /// What weights are unpacked to, if they are.
    pub dtype: Option<&'a str>,
}

impl Peer {
    /// Starts Python and waits until the model is loaded.
    ///
    /// # Errors
    /// If Python does not start, or ends before it has the model; its own words are on standard error.
    pub fn start(options: &PeerOptions) -> Result<Peer, String> {
        let mut command = Command::new(options.python);
        let name = options.kind.name();
        command.args(["-c", options.kind.script(), "--serve"]);
        command.arg(options.model);
        for (flag, value) in [("--device", options.device), ("--dtype", options.dtype)] {
            if let Some(value) = value {
                command.args([flag, value]);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| {
            format!(
                "cannot start {}: {e}; give the Python that has {name} with --python",
                options.python
            )
        })?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the peer has no pipes".into());
        };
        let mut peer = Peer {
            kind: options.kind,
            vocab: 0,
            load_seconds: 0.0,
            child,
            pipes: Mutex::new((Some(to), BufReader::new(from))),
        };
        let facts = peer.line(None)?;
        let vocab = facts.get("vocab_size").and_then(Value::as_u64);
        peer.vocab = vocab.ok_or("the peer does not say vocab_size")? as usize;
        let load_seconds = facts.get("load_seconds").and_then(Value::as_f64);
        peer.load_seconds = load_seconds.unwrap_or(f64::NAN);
        Ok(peer)
    }

    /// Runs these at once; the traces come in their order.
    ///
    /// # Errors
    /// What the peer says, or that it is gone.
    pub fn together(&self, asks: &[Ask]) -> Result<Vec<Trace>, String> {
        if asks.iter().any(|ask| ask.delay > 0.0 || ask.form.is_some()) {
            let name = self.kind.name();
            return Err(format!("{name} can be measured on a grid only"));
        }
        let asks: Vec<Value> = asks
            .iter()
            .map(|ask| json!({"prompt": ask.prompt, "tokens": ask.tokens, "known": ask.known}))
            .collect();
        let answer = self.line(Some(json!({"asks": asks})))?;
        if let Some(error) = answer.get("error") {
            return Err(format!("{} failed: {error}", self.kind.name()));
        }
        let traces = answer.get("traces").and_then(Value::as_array);
        let traces = traces.ok_or("the peer's answer has no traces")?;
        traces.iter().map(trace).collect()
    }

    /// Sends a line, if there is one to send, and reads one.
    fn line(&self, send: Option<Value>) -> Result<Value, String> {
        let name = self.kind.name();
        let gone = |e: std::io::Error| format!("{name}'s process is gone: {e}");
        let mut pipes = self.pipes.lock().map_err(|e| e.to_string())?;
        let (to, from) = &mut *pipes;
        if let (Some(line), Some(to)) = (send, to) {
            writeln!(to, "{line}")
                .and_then(|()| to.flush())
                .map_err(gone)?;
        }
        let mut line = String::new();
        if from.read_line(&mut line).map_err(gone)? == 0 {
            return Err(format!("{name}'s process has ended; what it said is above"));
        }
        serde_json::from_str(&line).map_err(|e| format!("{name}'s process said {line:?}: {e}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // At the end of its input it ends by itself.
        if let Ok(pipes) = self.pipes.get_mut() {
            pipes.0 = None;
        }
        let _ = self.child.wait();
    }
}

fn trace(value: &Value) -> Result<Trace, String> {
    let count = |key: &str| value.get(key).and_then(Value::as_u64).map(|n| n as usize);
    let stamps = value.get("stamps").and_then(Value::as_array);
    let stamps = stamps.ok_or("a trace of the peer has no stamps")?;
    Ok(Trace {
        sent: value.get("sent").and_then(Value::as_f64).unwrap_or(0.0),
        stamps: stamps.iter().filter_map(Value::as_f64).collect(),
        prompt_tokens: count("prompt_tokens").unwrap_or(0),
        cached_tokens: count("cached_tokens"),
        tokens: count("tokens").unwrap_or(stamps.len()),
        peak_memory: count("peak_memory"),
        step: None,
    })
}
