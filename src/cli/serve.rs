//! `pensieve serve`: the HTTP server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;

use super::args::Serve;
use super::model::{self, Opened};
use super::{Done, Failure};
use crate::engine::{Handle, Options, default_max_running};
use crate::mlx::Device;
use crate::server::{Allowed, App, Config, Keys, serve};
use crate::text::Volatile;
use crate::text::guide::Forms;

/// Runs the subcommand until SIGINT or SIGTERM.
pub fn run(args: Serve) -> Done {
    let keys = keys(&args)?;
    allow_many_files();
    // One thread has no others to wake and none of the engine's cores to take; whatever takes long runs
    // beside it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| Failure::Work(format!("cannot start the event loop: {e}")))?;
    let volatile = match args.keep_volatile {
        true => None,
        false => {
            let rules = Volatile::new(&args.volatile);
            Some(rules.map_err(|e| Failure::Usage(format!("--volatile: {e}")))?)
        }
    };
    // Bound before the model is loaded, so that an address in use is said at once.
    let listener = runtime.block_on(bind(&args.host, args.port))?;
    let mut opened = model::open(&args.model, |options| set(options, &args))?;
    if let Some(volatile) = volatile {
        opened.text = opened.text.without_volatile(volatile);
    }
    runtime.block_on(serve_until_told(args, keys, listener, opened))
}

/// The keys of the command line and of the file.
fn keys(args: &Serve) -> Done<Keys> {
    let mut keys = args.api_key.clone();
    if let Some(file) = &args.api_key_file {
        let name = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|e| Failure::Usage(format!("--api-key-file: cannot read {name}: {e}")))?;
        let before = keys.len();
        let lines = text.lines().map(str::trim);
        keys.extend(lines.filter(|line| !line.is_empty()).map(String::from));
        if keys.len() == before {
            // Else an empty file would open the server to everybody.
            return Err(Failure::Usage(format!(
                "--api-key-file: {name} has no key; write one a line"
            )));
        }
    }
    Keys::new(keys).map_err(Failure::Usage)
}

/// A connection is an open file, and many systems allow a program few of them unless it asks.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    // macOS takes no more, whatever it calls the limit.
    const MOST: u64 = 10_240;
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(MOST, |maximum| maximum.min(MOST));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!("the limit of open files stays as it is: {error}");
        }
    }
}

/// Where the memory is, for `/metrics`.
fn gauges(engine: &Handle) -> Vec<(&'static str, &'static str, f64)> {
    let parts = engine.memory();
    let gauge = |name, help, bytes: usize| (name, help, bytes as f64);
    vec![
        gauge(
            "memory_budget_bytes",
            "Bytes that all of it may take.",
            parts.budget,
        ),
        gauge(
            "memory_weights_bytes",
            "Bytes of the weights.",
            parts.weights,
        ),
        gauge(
            "memory_kv_bytes",
            "Bytes of running sequences' caches.",
            parts.kv,
        ),
        gauge(
            "memory_prefix_bytes",
            "Bytes of kept beginnings of prompts.",
            parts.prefix_cache,
        ),
        gauge(
            "memory_other_bytes",
            "Bytes of all other arrays.",
            parts.other,
        ),
        gauge(
            "memory_pool_bytes",
            "Bytes of buffers kept for reuse.",
            parts.pool,
        ),
        gauge(
            "memory_peak_bytes",
            "The most bytes of arrays at a time.",
            parts.peak,
        ),
    ]
}

/// What the server's arguments say of the engine.
fn set(options: &mut Options, args: &Serve) {
    if let Some(name) = &args.served_model_name {
        options.id.clone_from(name);
    }
    let device = options.device.unwrap_or_else(Device::best);
    options.queue_limit = args.queue;
    options.max_running = args
        .max_running
        .unwrap_or_else(|| default_max_running(device));
    options.answer_reserve = args.answer_reserve;
    options.prefix_cache = args.reuse.prefix_cache;
    let patience = args.watchdog.unwrap_or(match device {
        Device::Gpu => 120,
        // A chunk of a large model's prompt takes minutes there.
        Device::Cpu => 600,
    });
    options.watchdog = (patience > 0).then(|| Duration::from_secs(patience));
    options.watchdog_exit = args.watchdog_exit;
}

async fn bind(host: &str, port: u16) -> Done<TcpListener> {
    let listener = TcpListener::bind((host, port)).await;
    listener.map_err(|e| {
        Failure::Work(format!(
            "cannot listen on {host} port {port}: {e}; choose another with --host and --port"
        ))
    })
}

async fn serve_until_told(args: Serve, keys: Keys, listener: TcpListener, opened: Opened) -> Done {
    let failed = |e: std::io::Error| Failure::Work(format!("the server failed: {e}"));
    let addr: SocketAddr = listener.local_addr().map_err(failed)?;
    let Opened { mut engine, text } = opened;
    let notations = &args.notations;
    let (calls, reasoning) = (&notations.tool_call_parser, &notations.reasoning_parser);
    let text = text
        .with_notations(calls.as_deref(), reasoning.as_deref())
        .map_err(|e| Failure::Usage(e.to_string()))?;
    let facts = engine.handle.facts();
    if !addr.ip().is_loopback() && keys.is_empty() {
        tracing::warn!(
            "{addr} is not loopback: others can reach this server, and it asks for no key; \
             give one with --api-key-file"
        );
    }
    eprintln!("serving {} on http://{addr}/v1", facts.id);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let forms = Forms::new(text.tokenizer(), facts.vocab_size, &facts.eos_ids);
    let app = App {
        defaults: model::defaults(&engine.generation),
        engine: engine.handle.clone(),
        text,
        aliases: args.model_alias,
        reasoning_field: args.reasoning_field,
        forms: Some(Arc::new(move |constraint| forms.compile(constraint))),
        gauges: Some(Arc::new({
            let engine = engine.handle.clone();
            move || gauges(&engine)
        })),
        created: now.map_or(0, |d| d.as_secs()),
    };
    let config = Config {
        addr,
        body_limit: args.max_body,
        head_limit: args.max_head,
        max_connections: args.max_connections,
        header_timeout: Duration::from_secs(args.header_timeout),
        body_timeout: Duration::from_secs(args.body_timeout),
        write_timeout: Duration::from_secs(args.write_timeout),
        keep_alive: Duration::from_secs(args.keep_alive),
        keys,
        strict: args.strict,
        allowed: Allowed {
            hosts: args.allowed_host,
            origins: args.allowed_origin,
        },
        drain: Duration::from_secs(args.drain),
        ..Config::default()
    };
    let handle = engine.handle.clone();
    let stop = async move {
        tokio::select! {
            () = told() => {}
            () = handle.ended() => tracing::error!("the engine has ended"),
        }
    };
    serve(listener, app, config, stop).await.map_err(failed)?;
    engine
        .stop()
        .map_err(|e| Failure::Engine(format!("the engine ended unexpectedly: {e}")))
}

/// Resolves at SIGINT or SIGTERM.
async fn told() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => {
            if interrupted.is_err() {
                std::future::pending::<()>().await;
            }
        }
        () = terminate => {}
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::builtin;
    use crate::cli::args::{Args, Command};
    use crate::engine::double::{PANICS, start};

    fn arguments(more: &[&str]) -> Serve {
        let words = ["pensieve", "serve", "--port", "0"].iter().chain(more);
        match Args::parse_from(words).command {
            Command::Serve(args) => args,
            other => panic!("{other:?}"),
        }
    }

    /// An engine's panic ends the server by itself, with the failure whose exit code is 70, and the
    /// stream in progress ends with an error.
    #[test]
    fn a_panicking_engine_ends_the_server() {
        let source = builtin::source("tiny").unwrap();
        let opened = Opened {
            engine: start(1 << 30, Options::default()).unwrap(),
            text: model::open_text(&source).unwrap(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(bind("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/v1/completions", listener.local_addr().unwrap());
        let client = std::thread::spawn(move || {
            let body = serde_json::json!({"prompt": [PANICS], "max_tokens": 5, "stream": true});
            let mut response = ureq::post(url).send_json(body).unwrap();
            response.body_mut().read_to_string().unwrap()
        });
        let done = runtime.block_on(serve_until_told(
            arguments(&[]),
            Keys::default(),
            listener,
            opened,
        ));
        let failure = done.unwrap_err();
        assert!(matches!(&failure, Failure::Engine(why) if why.contains("told to panic")));
        assert_eq!(failure.code(), 70);
        let events = client.join().unwrap();
        assert!(events.contains("the engine ended unexpectedly"), "{events}");
        assert!(!events.contains("[DONE]"), "{events}");
    }

    #[test]
    fn arguments_reach_the_engine() {
        let set_by = |more: &[&str], device| {
            let mut options = Options {
                device: Some(device),
                ..Options::default()
            };
            set(&mut options, &arguments(more));
            options
        };
        let cpu = set_by(&[], Device::Cpu);
        assert_eq!(
            (cpu.max_running, cpu.watchdog),
            (8, Some(Duration::from_secs(600)))
        );
        let gpu = set_by(&[], Device::Gpu);
        assert_eq!(
            (gpu.max_running, gpu.watchdog),
            (32, Some(Duration::from_secs(120)))
        );
        assert!(!gpu.watchdog_exit);
        let flags = ["--max-running", "3", "--watchdog", "0", "--watchdog-exit"];
        let told = set_by(&flags, Device::Gpu);
        assert_eq!((told.max_running, told.watchdog), (3, None));
        assert!(told.watchdog_exit);
    }
}
