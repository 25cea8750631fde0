//! The HTTP server: OpenAI's and Anthropic's dialects over one engine.
//!
//! Tokenizing, templates, detokenizing and JSON run here; arrays never do. Every buffer that a
//! client can fill is bounded: heads, bodies, connections, and the tokens that wait for a reader.

mod answer;
mod anthropic;
mod ask;
mod auth;
mod body;
mod calling;
mod connection;
mod constraint;
mod dialogue;
mod error;
mod fields;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod metrics;
mod openai;
mod options;
mod places;
mod random;
mod reply;
mod routes;
mod running;
mod sse;
#[cfg(test)]
mod tests;
mod thinking;
mod utilities;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::engine::Handle;
use crate::sample::Params;
use crate::text::Text;
pub use auth::Keys;
pub use constraint::Compile;
pub use error::ApiError;
pub use guard::Allowed;
use metrics::Metrics;
use places::Places;
pub use routes::{Endpoint, ROUTES};
pub use sse::Sse;

/// For a request to be parsed, rendered and tokenized.
const PREPARING: Duration = Duration::from_secs(60);

/// Limits and timeouts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the caller binds the listener that it gives to [`serve`].
    pub addr: SocketAddr,
    /// The most bytes of a request's body.
    pub body_limit: usize,
    /// The most bytes of a request's head.
    pub head_limit: usize,
    /// The most connections at a time; for a further one the one that has been idle longest has to
    /// leave, and if there is none it waits.
    pub max_connections: usize,
    /// For a request's head to arrive, and for an idle connection to send its next one.
    pub header_timeout: Duration,
    /// For a request's body to arrive.
    pub body_timeout: Duration,
    /// For a client to take at least something of what is being sent to it.
    pub write_timeout: Duration,
    /// For running requests to finish after the shutdown began.
    pub drain: Duration,
    /// For the engine to answer when its health is asked; it answers between steps, and one step
    /// of a long prompt may take seconds.
    pub ping_timeout: Duration,
    /// The longest silence in a stream; then a sign of life is sent.
    pub keep_alive: Duration,
    /// Who is let in beside those who address this server by its own names.
    pub allowed: Allowed,
    /// The keys that open it.
    pub keys: Keys,
    /// Whether a field that nobody knows is refused instead of ignored.
    pub strict: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 8080)),
            body_limit: 16 * 1024 * 1024,
            head_limit: 32 * 1024,
            max_connections: 1024,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(15),
            allowed: Allowed::default(),
            keys: Keys::default(),
            strict: false,
        }
    }
}

/// What is served.
#[derive(Clone)]
pub struct App {
    /// The way to the model.
    pub engine: Handle,
    /// Its tokenizer and chat template.
    pub text: Text,
    /// Sampling parameters for what a request leaves out; the seed is drawn anew for each request.
    pub defaults: Params,
    /// Further names that requests may call the model by; `*` is any.
    pub aliases: Vec<String>,
    /// The field of OpenAI's messages that reasoning is given in.
    pub reasoning_field: String,
    /// What compiles the forms that answers must have, if anything does.
    pub forms: Option<Compile>,
    /// Further gauges for `/metrics`: name without prefix, what it is, and its value.
    pub gauges: Option<Gauges>,
    /// When the model was loaded, in seconds since 1970.
    pub created: u64,
}

/// What reads gauges that the server knows nothing of.
pub type Gauges = Arc<dyn Fn() -> Vec<(&'static str, &'static str, f64)> + Send + Sync>;

/// What every handler sees.
struct State {
    app: App,
    config: Config,
    /// How many requests are parsed and tokenized at a time.
    preparing: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl State {
    /// Runs `work` off the reactor, as many at a time as there are cores. What takes longer than anything
    /// sensible is given up: it cannot be stopped, but nobody waits for it.
    async fn prepare<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let failed =
            || ApiError::internal("the request could not be prepared; see the server's log");
        let crowded = |_| {
            let message =
                "other requests have kept the server from reading this one; try again later";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).code("queue_full")
        };
        let permit = self.preparing.clone().acquire_owned();
        let permit = tokio::time::timeout(PREPARING, permit).await;
        let permit = permit.map_err(crowded)?.map_err(|_| failed())?;
        let state = self.clone();
        let working = tokio::task::spawn_blocking(move || {
            // Held by the work itself, which runs on when its client is gone.
            let _permit = permit;
            work(&state.app)
        });
        let worked = tokio::time::timeout(PREPARING, working).await;
        let worked = worked.map_err(|_| {
            tracing::error!("preparing a request took longer than {PREPARING:?}");
            let message = format!(
                "the request could not be prepared within {PREPARING:?}; shorten it, or look at the model's chat template"
            );
            ApiError::internal(message).code("preparing_took_too_long")
        })?;
        worked.map_err(|error| {
            tracing::error!("preparing a request failed: {error}");
            failed()
        })?
    }
}

/// Serves `app` on `listener` until `shutdown` completes, then lets running requests finish for
/// `config.drain` and ends the rest. Idle connections close at once.
///
/// Errors of single connections, and of accepting them, are logged and survived; the error
/// returned is one of the listener itself.
pub async fn serve(
    listener: TcpListener,
    app: App,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let drain = config.drain;
    let places = Places::new(config.max_connections);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let preparing = Arc::new(Semaphore::new(cores));
    let state = Arc::new(State {
        app,
        config,
        preparing,
        metrics: Arc::default(),
    });
    let (close, closing) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    tracing::info!(%address, model = state.app.engine.facts().id, "serving");
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if of_one_connection(&error) => continue,
            Err(error) => {
                // Mostly too many open files, which passes; accepting again at once would spin.
                tracing::error!("accepting a connection failed: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        // The place comes second: nobody has to leave before somebody else is there.
        let mut place = pin!(places.take());
        let place = loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break None,
                Some(ended) = connections.join_next() => report(ended),
                place = &mut place => break place,
            }
        };
        let Some(place) = place else {
            break;
        };
        let connection = connection::serve(stream, state.clone(), closing.clone(), place);
        connections.spawn(connection);
    }
    drop(listener);
    tracing::info!(connections = connections.len(), "shutting down");
    let _ = close.send(());
    let finishing = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(drain, finishing).await.is_err() {
        tracing::warn!("requests still running after {drain:?} are ended");
    }
    connections.shutdown().await;
    Ok(())
}

fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a connection's task failed: {error}");
    }
}
