//! The one route table, and what happens around every route: access checks, identifiers, error
//! envelopes and the access log.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW,
    HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::body::{self, Body, Upload};
use super::error::{ApiError, Dialect};
use super::openai::{chat_request, completions_request, models};
use super::{State, anthropic, guard, random, reply, utilities};
use crate::engine::Health;

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Whether the engine answers.
    Health,
    /// The served models.
    Models,
    /// One model, named by the rest of the path.
    Model,
    /// OpenAI's chat API.
    Chat,
    /// OpenAI's legacy completions API.
    Completions,
    /// Anthropic's messages API.
    Messages,
    /// How many tokens a messages request has.
    CountTokens,
    /// Text to tokens.
    Tokenize,
    /// Tokens to text.
    Detokenize,
    /// A dialogue as the model's template writes it.
    ApplyTemplate,
    /// Whether a request would be taken up.
    Ready,
    /// What the server has done, for Prometheus.
    Metrics,
}

/// Method, path and endpoint; `*` at a path's end stands for any rest that is not empty. `GET`
/// includes `HEAD`.
pub const ROUTES: &[(Method, &str, Endpoint)] = &[
    // Claude Code looks here first, with HEAD and no key.
    (Method::GET, "/", Endpoint::Health),
    (Method::GET, "/health", Endpoint::Health),
    (Method::GET, "/v1/models", Endpoint::Models),
    (Method::GET, "/v1/models/*", Endpoint::Model),
    (Method::POST, "/v1/chat/completions", Endpoint::Chat),
    (Method::POST, "/v1/completions", Endpoint::Completions),
    (Method::POST, "/v1/messages", Endpoint::Messages),
    (
        Method::POST,
        "/v1/messages/count_tokens",
        Endpoint::CountTokens,
    ),
    (Method::POST, "/tokenize", Endpoint::Tokenize),
    (Method::POST, "/detokenize", Endpoint::Detokenize),
    (Method::POST, "/apply-template", Endpoint::ApplyTemplate),
    (Method::GET, "/ready", Endpoint::Ready),
    (Method::GET, "/metrics", Endpoint::Metrics),
];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Anthropic's name of the same.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

impl Endpoint {
    /// Whether anybody may ask, key or not: what watches over the server has none.
    fn is_open(self) -> bool {
        matches!(self, Self::Health | Self::Ready)
    }
}

/// Whose shapes a request wants.
fn dialect(path: &str, headers: &HeaderMap) -> Dialect {
    match path.starts_with("/v1/messages") || headers.contains_key("anthropic-version") {
        true => Dialect::Anthropic,
        false => Dialect::OpenAi,
    }
}

/// Answers one request, whatever it is.
pub async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
    local: IpAddr,
) -> Result<Response<Body>, Infallible> {
    let start = Instant::now();
    let id = random::identifier("req_");
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let dialect = dialect(&path, request.headers());
    let origin = state.config.allowed.origin(request.headers()).cloned();
    let route = route(&path);
    let metrics = state.metrics.clone();
    let answered = dispatch(state, request, local, dialect, &id).await;
    let mut response = answered.unwrap_or_else(|error| refusal(error, dialect, &id));
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        if dialect == Dialect::Anthropic {
            headers.insert(ANTHROPIC_REQUEST_ID, value.clone());
        }
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(VARY, HeaderValue::from_static("origin"));
        let exposed =
            HeaderValue::from_static("x-request-id, request-id, x-pensieve-ignored, retry-after");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    let status = response.status().as_u16();
    metrics.request(route, status);
    let ms = start.elapsed().as_millis() as u64;
    tracing::info!(request = id, %method, path, status, ms, "request");
    Ok(response)
}

/// The route that a path belongs to: of these there are few, of paths any number.
fn route(path: &str) -> &'static str {
    let routes = ROUTES.iter().map(|(_, pattern, _)| *pattern);
    let mut matching = routes.filter(|pattern| rest(pattern, path).is_some());
    matching.next().unwrap_or("other")
}

/// What stands at the place of a pattern's `*`, if the path matches it.
fn rest<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.strip_prefix(prefix).filter(|rest| !rest.is_empty()),
        None => (path == pattern).then_some(""),
    }
}

async fn dispatch(
    state: Arc<State>,
    request: Request<Incoming>,
    local: IpAddr,
    dialect: Dialect,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let path = request.uri().path().to_owned();
    let config = &state.config;
    let checked = guard::check(&request, local, &config.allowed);
    let found = checked.and_then(|()| find(request.method(), &path));
    let found = found.and_then(|found| match found {
        Found::Options(_) => Ok(found),
        Found::Route(endpoint, _) if endpoint.is_open() => Ok(found),
        Found::Route(..) => config.keys.check(request.headers()).map(|()| found),
    });
    let headers = request.headers().clone();
    let upload = Upload::new(request);
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            upload.discard();
            return Err(error);
        }
    };
    let (endpoint, rest) = match found {
        Found::Options(allow) => return Ok(options(&state, &headers, &allow)),
        Found::Route(endpoint, rest) => (endpoint, rest),
    };
    match endpoint {
        Endpoint::Health => Ok(health(&state).await),
        Endpoint::Models => Ok(models::list(&state.app, dialect)),
        Endpoint::Model => models::one(&state.app, rest, dialect),
        Endpoint::Chat => reply::answer(state, upload, id, Vec::new(), chat_request::prepare).await,
        Endpoint::Completions => {
            reply::answer(state, upload, id, Vec::new(), completions_request::prepare).await
        }
        Endpoint::Messages => {
            let betas = anthropic::head(&headers)?;
            reply::answer(state, upload, id, betas, anthropic::prepare).await
        }
        Endpoint::Tokenize => reply::ask(state, upload, id, utilities::tokenize).await,
        Endpoint::Detokenize => reply::ask(state, upload, id, utilities::detokenize).await,
        Endpoint::ApplyTemplate => reply::ask(state, upload, id, utilities::apply_template).await,
        Endpoint::Ready => Ok(ready(&state).await),
        Endpoint::Metrics => {
            let text = state.metrics.text(&state.app);
            Ok(body::text("text/plain; version=0.0.4; charset=utf-8", text))
        }
        Endpoint::CountTokens => {
            anthropic::head(&headers)?;
            reply::ask(state, upload, id, anthropic::count).await
        }
    }
}

/// What a path takes. Browsers ask before they let a page of another origin send its request; only
/// origins that are allowed by name get an answer to that.
fn options(state: &State, headers: &HeaderMap, allow: &str) -> Response<Body> {
    let mut response = body::empty(StatusCode::NO_CONTENT);
    insert(&mut response, ALLOW, allow);
    if state.config.allowed.origin(headers).is_some() {
        insert(&mut response, ACCESS_CONTROL_ALLOW_METHODS, allow);
        insert(&mut response, ACCESS_CONTROL_MAX_AGE, "600");
        if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            let to = response.headers_mut();
            to.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        if headers.contains_key("access-control-request-private-network") {
            let name = HeaderName::from_static("access-control-allow-private-network");
            insert(&mut response, name, "true");
        }
    }
    response
}

#[derive(Debug, PartialEq)]
enum Found<'a> {
    Route(Endpoint, &'a str),
    Options(String),
}

fn find<'a>(method: &Method, path: &'a str) -> Result<Found<'a>, ApiError> {
    let mut allowed = Vec::new();
    for (verb, pattern, endpoint) in ROUTES {
        let Some(rest) = rest(pattern, path) else {
            continue;
        };
        if verb == method || (verb == Method::GET && method == Method::HEAD) {
            return Ok(Found::Route(*endpoint, rest));
        }
        allowed.push(verb.as_str());
        if verb == Method::GET {
            allowed.push("HEAD");
        }
    }
    if allowed.is_empty() {
        let routes: Vec<&str> = ROUTES.iter().map(|(_, path, _)| *path).collect();
        let routes = routes.join(", ");
        let message = format!("there is nothing at {path}; the paths are {routes}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, message).code("unknown_path"));
    }
    allowed.push("OPTIONS");
    let allowed = allowed.join(", ");
    if method == Method::OPTIONS {
        return Ok(Found::Options(allowed));
    }
    let message = format!("{path} does not take {method}; it takes {allowed}");
    let mut error =
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).code("method_not_allowed");
    error.allow = Some(allowed);
    Err(error)
}

async fn health(state: &State) -> Response<Body> {
    let engine = &state.app.engine;
    let (status, word, why) = match engine.health(state.config.ping_timeout).await {
        Health::Well => (StatusCode::OK, "ok", None),
        Health::Stalled(stall) => {
            let why = Some(stall.to_string());
            (StatusCode::SERVICE_UNAVAILABLE, "stalled", why)
        }
        Health::Silent | Health::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", None),
    };
    let mut answer = json!({"status": word});
    if let Some(why) = why {
        answer["reason"] = why.into();
    }
    body::json(status, &answer)
}

/// Unlike health, which says whether to restart the server, this says whether to send it more.
async fn ready(state: &State) -> Response<Body> {
    let engine = &state.app.engine;
    let reason = match () {
        () if !engine.has_room() => "the queue is full",
        () if !engine.ping(state.config.ping_timeout).await => "the engine does not answer",
        () => return body::json(StatusCode::OK, &json!({"status": "ready"})),
    };
    let status = json!({"status": "not ready", "reason": reason});
    body::json(StatusCode::SERVICE_UNAVAILABLE, &status)
}

fn refusal(error: ApiError, dialect: Dialect, id: &str) -> Response<Body> {
    let status = error.status(dialect);
    if status.is_server_error() {
        tracing::warn!(request = id, status = status.as_u16(), "{error}");
    }
    let mut response = body::json(status, &error.envelope(dialect, id));
    if let Some(allow) = &error.allow {
        insert(&mut response, ALLOW, allow);
    }
    if status == StatusCode::UNAUTHORIZED {
        insert(&mut response, WWW_AUTHENTICATE, "Bearer");
    }
    if let Some(seconds) = error.retry_after() {
        insert(&mut response, RETRY_AFTER, &seconds.to_string());
    }
    response
}

fn insert(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_own_path() {
        for (method, pattern, endpoint) in ROUTES {
            let path = pattern.replace('*', "some/name");
            let rest = if pattern.ends_with('*') {
                "some/name"
            } else {
                ""
            };
            let found = find(method, &path).unwrap();
            assert_eq!(found, Found::Route(*endpoint, rest));
        }
    }

    #[test]
    fn what_is_no_route_is_told_apart() {
        assert_eq!(find(&Method::GET, "/v1/models/").unwrap_err().status, 404);
        assert_eq!(find(&Method::GET, "/v1/modelsx").unwrap_err().status, 404);
        assert_eq!(
            find(&Method::HEAD, "/health"),
            Ok(Found::Route(Endpoint::Health, ""))
        );
        let error = find(&Method::GET, "/v1/completions").unwrap_err();
        assert_eq!(
            (error.status.as_u16(), error.allow.as_deref()),
            (405, Some("POST, OPTIONS"))
        );
    }
}
