//! `pensieve serve`: the HTTP server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;

use super::args::Serve;
use super::model::{self, Opened};
use super::{Done, Failure};
use crate::mlx::memory;
use crate::server::{Allowed, App, Config, Keys, serve};

/// Runs the subcommand until SIGINT or SIGTERM.
pub fn run(args: Serve) -> Done {
    let keys = keys(&args)?;
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Work(format!("cannot start the event loop: {e}")))?;
    // Bound before the model is loaded, so that an address in use is said at once.
    let listener = runtime.block_on(bind(&args.host, args.port))?;
    let name = args.served_model_name.clone();
    let opened = model::open(&args.model, name, args.queue, args.max_running)?;
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

/// What MLX holds, for `/metrics`.
fn gauges() -> Vec<(&'static str, &'static str, f64)> {
    let Ok(held) = memory() else {
        return Vec::new();
    };
    vec![
        (
            "mlx_active_bytes",
            "Bytes of arrays that are alive.",
            held.active as f64,
        ),
        (
            "mlx_cache_bytes",
            "Bytes of buffers kept for reuse.",
            held.cache as f64,
        ),
        (
            "mlx_peak_bytes",
            "The most bytes that were active at a time.",
            held.peak as f64,
        ),
    ]
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
    let app = App {
        defaults: model::defaults(&engine.generation),
        engine: engine.handle.clone(),
        text,
        aliases: args.model_alias,
        reasoning_field: args.reasoning_field,
        forms: None,
        gauges: Some(Arc::new(gauges)),
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
