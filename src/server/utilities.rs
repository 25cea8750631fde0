//! `/tokenize`, `/detokenize` and `/apply-template`, with llama-server's shapes.

use serde_json::{Value, json};

use super::App;
use super::error::ApiError;
use super::fields::Fields;
use super::openai::chat_request;
use super::options::token_ids;
use crate::text::TextError;

/// A small question about text: its answer, and the fields that nobody knew.
pub type Question = fn(&App, Fields) -> Result<(Value, Vec<String>), ApiError>;

/// Text to tokens. Control tokens are read as such unless `parse_special` is false.
///
/// # Errors
/// What the client is to be told.
pub fn tokenize(app: &App, mut fields: Fields) -> Result<(Value, Vec<String>), ApiError> {
    let text = fields.required_string("content")?;
    let add_special = fields.boolean("add_special")?.unwrap_or(false);
    let parse_special = fields.boolean("parse_special")?.unwrap_or(true);
    let with_pieces = fields.boolean("with_pieces")?.unwrap_or(false);
    let tokenizer = app.text.tokenizer();
    let failed = |error: TextError| ApiError::field("content", error.to_string());
    let ids = match parse_special {
        true => tokenizer.encode(&text, add_special),
        false if add_special => {
            let message = "`add_special` is only taken with `parse_special` true; leave it out";
            return Err(ApiError::field("add_special", message));
        }
        false => app.text.encode_plain(&text),
    };
    let ids = ids.map_err(failed)?;
    let piece = |id: u32| {
        // Bytes where a token is no text by itself.
        let bytes = tokenizer.token_bytes(id);
        let piece = match std::str::from_utf8(&bytes) {
            Ok(text) => json!(text),
            Err(_) => json!(bytes),
        };
        json!({"id": id, "piece": piece})
    };
    let tokens = match with_pieces {
        true => ids.into_iter().map(piece).collect(),
        false => json!(ids),
    };
    Ok((json!({"tokens": tokens}), fields.rest()))
}

/// Tokens to text, control tokens included.
///
/// # Errors
/// What the client is to be told.
pub fn detokenize(app: &App, mut fields: Fields) -> Result<(Value, Vec<String>), ApiError> {
    let tokens = fields
        .array("tokens")?
        .ok_or_else(|| fields.missing("tokens"))?;
    let ids = token_ids(tokens, "tokens")?;
    let content = app.text.tokenizer().decode(&ids, false);
    Ok((json!({"content": content}), fields.rest()))
}

/// A dialogue as the model's template writes it; takes what a chat request takes.
///
/// # Errors
/// What the client is to be told.
pub fn apply_template(app: &App, mut fields: Fields) -> Result<(Value, Vec<String>), ApiError> {
    let mut ignored = Vec::new();
    let dialogue = chat_request::dialogue(&mut fields, app, &mut ignored)?;
    let prompt = dialogue.render(app)?;
    // Whatever else a chat request has does not change its prompt.
    Ok((json!({"prompt": prompt}), ignored))
}
