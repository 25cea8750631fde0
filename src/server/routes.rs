//! The one route table, and what happens around every route: access checks, identifiers, error
//! envelopes and the access log.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::body::{self, Body, Upload};
use super::error::ApiError;
use super::openai::{chat, completions, models};
use super::{State, guard, random};
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
}

/// Method, path and endpoint; `*` at a path's end stands for any rest that is not empty. `GET`
/// includes `HEAD`.
pub const ROUTES: &[(Method, &str, Endpoint)] = &[
    (Method::GET, "/health", Endpoint::Health),
    (Method::GET, "/v1/models", Endpoint::Models),
    (Method::GET, "/v1/models/*", Endpoint::Model),
    (Method::POST, "/v1/chat/completions", Endpoint::Chat),
    (Method::POST, "/v1/completions", Endpoint::Completions),
];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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
    let mut response = dispatch(state, request, local, &id)
        .await
        .unwrap_or_else(refusal);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let status = response.status().as_u16();
    let ms = start.elapsed().as_millis() as u64;
    tracing::info!(request = id, %method, path, status, ms, "request");
    Ok(response)
}

async fn dispatch(
    state: Arc<State>,
    request: Request<Incoming>,
    local: IpAddr,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let path = request.uri().path().to_owned();
    let found = guard::check(&request, local, &state.config.allowed_hosts)
        .and_then(|()| find(request.method(), &path));
    let upload = Upload::new(request);
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            upload.discard();
            return Err(error);
        }
    };
    match found {
        // No CORS headers: a browser keeps pages of other origins out.
        Found::Options(allow) => {
            let mut response = body::empty(StatusCode::NO_CONTENT);
            insert(&mut response, ALLOW, &allow);
            Ok(response)
        }
        Found::Route(Endpoint::Health, _) => Ok(health(&state).await),
        Found::Route(Endpoint::Models, _) => Ok(models::list(&state.app)),
        Found::Route(Endpoint::Model, rest) => models::one(&state.app, rest),
        Found::Route(Endpoint::Chat, _) => chat::serve(state, upload, id).await,
        Found::Route(Endpoint::Completions, _) => completions::serve(state, upload, id).await,
    }
}

#[derive(Debug, PartialEq)]
enum Found<'a> {
    Route(Endpoint, &'a str),
    Options(String),
}

fn find<'a>(method: &Method, path: &'a str) -> Result<Found<'a>, ApiError> {
    let mut allowed = Vec::new();
    for (verb, pattern, endpoint) in ROUTES {
        let rest = match pattern.strip_suffix('*') {
            Some(prefix) => path.strip_prefix(prefix).filter(|rest| !rest.is_empty()),
            None => (path == *pattern).then_some(""),
        };
        let Some(rest) = rest else {
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

fn refusal(error: ApiError) -> Response<Body> {
    if error.status.is_server_error() {
        tracing::warn!(status = error.status.as_u16(), "{error}");
    }
    let mut response = body::json(error.status, &error.envelope());
    if let Some(allow) = &error.allow {
        insert(&mut response, ALLOW, allow);
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
