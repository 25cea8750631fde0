//! `GET /v1/models` and `GET /v1/models/{id}`.

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::server::App;
use crate::server::body::{self, Body};
use crate::server::error::{ApiError, Dialect};

/// Accepts the served model's name, its last path component, its aliases, `default` and nothing at
/// all: local programs often cannot know more. Other names are a 404 that says what is served; no
/// name is ever looked for among the files.
pub fn check(name: &str, app: &App) -> Result<(), ApiError> {
    let facts = app.engine.facts();
    let last = facts.id.rsplit('/').next().unwrap_or(&facts.id);
    let alias = || {
        app.aliases
            .iter()
            .any(|alias| alias == "*" || alias == name)
    };
    if name.is_empty() || name == "default" || name == facts.id || name == last || alias() {
        return Ok(());
    }
    let message = format!(
        "the model {name:?} is not served here; use {:?} or \"default\"",
        facts.id
    );
    Err(ApiError::new(StatusCode::NOT_FOUND, message).code("model_not_found"))
}

/// All models: the one.
pub fn list(app: &App, dialect: Dialect) -> Response<Body> {
    let model = model(app, dialect);
    let list = match dialect {
        Dialect::OpenAi => json!({"object": "list", "data": [model]}),
        Dialect::Anthropic => {
            let id = model["id"].clone();
            json!({"data": [model], "has_more": false, "first_id": id, "last_id": id})
        }
    };
    body::json(StatusCode::OK, &list)
}

/// The model that the path's rest names, percent-encoded or not.
pub fn one(app: &App, name: &str, dialect: Dialect) -> Result<Response<Body>, ApiError> {
    check(&percent_decoded(name), app)?;
    Ok(body::json(StatusCode::OK, &model(app, dialect)))
}

fn model(app: &App, dialect: Dialect) -> Value {
    let facts = app.engine.facts();
    if dialect == Dialect::Anthropic {
        let created = chrono::DateTime::from_timestamp(app.created as i64, 0).unwrap_or_default();
        return json!({
            "type": "model",
            "id": facts.id,
            "display_name": facts.id,
            "lifecycle": "active",
            "created_at": created.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            "max_input_tokens": facts.context_length,
            "max_tokens": facts.context_length,
        });
    }
    json!({
        "id": facts.id,
        "object": "model",
        "created": app.created,
        "owned_by": "pensieve",
        "meta": {
            "architecture": facts.model_type,
            "context_length": facts.context_length,
            "vocab_size": facts.vocab_size,
            "weight_bytes": facts.weight_bytes,
        },
    })
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text
            .get(at + 1..at + 3)
            .filter(|digits| bytes[at] == b'%' && digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::percent_decoded;

    #[test]
    fn percent_signs_stand_for_bytes() {
        assert_eq!(percent_decoded("a%2Fb%2fc"), "a/b/c");
        assert_eq!(percent_decoded("%C3%A9"), "é");
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%+1%zz"), "%+1%zz");
    }

    proptest! {
        #[test]
        fn any_path_decodes(text in ".*") {
            let decoded = percent_decoded(&text);
            prop_assert!(text.contains('%') || decoded == text);
        }
    }
}
