//! `pensieve serve`: the HTTP server.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;

use super::args::Serve;
use super::model::{self, Opened};
use super::{Done, Failure};
use crate::server::{Allowed, App, Config, serve};

/// Runs the subcommand until SIGINT or SIGTERM.
pub fn run(args: Serve) -> Done {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Work(format!("cannot start the event loop: {e}")))?;
    // Bound before the model is loaded, so that an address in use is said at once.
    let listener = runtime.block_on(bind(&args.host, args.port))?;
    let name = args.served_model_name.clone();
    let opened = model::open(&args.model, name, args.queue, args.max_running)?;
    runtime.block_on(serve_until_told(args, listener, opened))
}

async fn bind(host: &str, port: u16) -> Done<TcpListener> {
    let listener = TcpListener::bind((host, port)).await;
    listener.map_err(|e| {
        Failure::Work(format!(
            "cannot listen on {host} port {port}: {e}; choose another with --host and --port"
        ))
    })
}

async fn serve_until_told(args: Serve, listener: TcpListener, opened: Opened) -> Done {
    let failed = |e: std::io::Error| Failure::Work(format!("the server failed: {e}"));
    let addr: SocketAddr = listener.local_addr().map_err(failed)?;
    let Opened { mut engine, text } = opened;
    let notations = &args.notations;
    let (calls, reasoning) = (&notations.tool_call_parser, &notations.reasoning_parser);
    let text = text
        .with_notations(calls.as_deref(), reasoning.as_deref())
        .map_err(|e| Failure::Usage(e.to_string()))?;
    let facts = engine.handle.facts();
    if !addr.ip().is_loopback() {
        tracing::warn!("{addr} is not loopback: others can reach this server, and it has no keys");
    }
    eprintln!("serving {} on http://{addr}/v1", facts.id);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let app = App {
        defaults: model::defaults(&engine.generation),
        engine: engine.handle.clone(),
        text,
        aliases: Vec::new(),
        reasoning_field: "reasoning_content".into(),
        forms: None,
        created: now.map_or(0, |d| d.as_secs()),
    };
    let config = Config {
        addr,
        body_limit: args.max_body,
        max_connections: args.max_connections,
        allowed: Allowed {
            hosts: args.allowed_host,
            origins: Vec::new(),
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
