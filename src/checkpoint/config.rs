//! `config.json`, with accessors that say which setting of which file is wrong, and what it should
//! be.
//!
//! `null` reads as absent, because Python writes its `None` so. `NaN`, `Infinity` and `-Infinity`,
//! which Python's JSON has and JSON has not, are read as numbers, bare or tagged. Keys are taken as they come, the
//! last of two equal ones, like Python.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use super::error::{CheckpointError, Result, cut, shown};
use super::files::Source;

/// The settings of one file, or one object within it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file, for messages.
    file: Arc<str>,
    /// Where this object is in the file; empty for the whole of it.
    path: String,
    values: Map<String, Value>,
    /// The paths that were asked for, of the whole file.
    read: Arc<Mutex<BTreeSet<String>>>,
}

/// Keys that say nothing about how a model computes: about its making, its training, other programs,
/// or (end tokens, `quantization_config` beside `quantization`) the same again.
const HARMLESS: &[&str] = &[
    "_name_or_path",
    "architectures",
    "auto_map",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "label2id",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "quantization_config",
    "return_dict",
    "router_aux_loss_coef",
    "torch_dtype",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
];

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// When it is missing, unreadable, or not a JSON object.
    pub fn open(source: &Source) -> Result<Config> {
        const NAME: &str = "config.json";
        Config::open_file(source, NAME)?.ok_or_else(|| CheckpointError::Missing {
            place: source.label(),
            name: NAME,
        })
    }

    /// Reads a JSON file of settings; none where it is not there.
    ///
    /// # Errors
    /// When it is unreadable, or not a JSON object.
    pub fn open_file(source: &Source, name: &str) -> Result<Option<Config>> {
        let file = source.label_of(name);
        match source.read(name) {
            Ok(Some(bytes)) => Config::parse(&file, &bytes).map(Some),
            Ok(None) => Ok(None),
            Err(source) => Err(CheckpointError::Io { file, source }),
        }
    }

    /// Parses the content of a file called `file` in messages.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Config> {
        let parsed = serde_json::from_slice::<Map<String, Value>>(bytes).or_else(|e| {
            match quote_python_numbers(bytes) {
                Cow::Borrowed(_) => Err(e),
                Cow::Owned(quoted) => serde_json::from_slice(&quoted),
            }
        });
        match parsed {
            Ok(values) => Ok(Config {
                file: file.into(),
                path: String::new(),
                values,
                read: Arc::default(),
            }),
            Err(e) => Err(CheckpointError::Json {
                file: file.to_owned(),
                problem: cut(e),
            }),
        }
    }

    /// These settings with those of the object `defaults` where a key is not here at all; `null` stays.
    pub fn with_defaults(&self, defaults: &Value) -> Config {
        let mut filled = self.clone();
        for (key, value) in defaults.as_object().into_iter().flatten() {
            if !filled.values.contains_key(key) {
                filled.values.insert(key.clone(), value.clone());
            }
        }
        filled
    }

    /// All settings as they are; numbers that JSON has not are strings.
    pub fn to_map(&self) -> Map<String, Value> {
        self.values.clone()
    }

    /// The file's name, as messages have it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The keys that are here, also those whose value is `null`, in the file's order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The value of `key` as it is; none when absent or `null`.
    pub fn value(&self, key: &str) -> Option<&Value> {
        if self.values.contains_key(key) {
            self.read_paths().insert(self.path_of(key));
        }
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn read_paths(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        // A set of names is whole whatever happened to who held it.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings, of the whole file, that nobody has asked for so far and that may matter: with
    /// dots those in an object of which others were read; `null` and keys known to be harmless left
    /// out. In the file's order.
    pub fn unread(&self) -> Vec<String> {
        let (read, mut unread) = (self.read_paths(), Vec::new());
        collect_unread(&self.values, &self.path, &read, &mut unread);
        unread
    }

    /// Where `key` is in the file, with dots: `rope_scaling.factor`.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The same settings with `key` set to `value`.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Config {
        self.values.insert(key.to_owned(), value.into());
        self
    }

    /// The error for a `key` whose value cannot be used, or is absent. `expected` says what it
    /// should be.
    pub fn invalid(&self, key: &str, expected: impl Into<String>) -> CheckpointError {
        self.invalid_at(self.path_of(key), self.value(key), expected.into())
    }

    fn invalid_at(&self, path: String, found: Option<&Value>, expected: String) -> CheckpointError {
        let (file, path) = (self.file.to_string(), shown_path(&path));
        match found {
            Some(found) => CheckpointError::Setting {
                file,
                path,
                found: shown_value(found),
                expected,
            },
            None => CheckpointError::MissingSetting {
                file,
                path,
                expected,
            },
        }
    }

    fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| self.invalid(key, expected)),
        }
    }

    fn list<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(items) =
            self.optional(key, &format!("a list, each {expected}"), Value::as_array)?
        else {
            return Ok(None);
        };
        let item = |(at, value)| {
            read(value).ok_or_else(|| {
                self.invalid_at(
                    format!("{}[{at}]", self.path_of(key)),
                    Some(value),
                    expected.to_owned(),
                )
            })
        };
        items
            .iter()
            .enumerate()
            .map(item)
            .collect::<Result<_>>()
            .map(Some)
    }
}

const WHOLE: &str = "a whole number, 0 or more";
const NUMBER: &str = "a number";
const BOOL: &str = "true or false";
const TEXT: &str = "a string";

/// Accessors. `x` needs the key to be there, `x_opt` gives none and `x_or` a default when it is
/// absent or `null`; each is an error when the value is of another kind.
impl Config {
    /// A whole number, also written as a float without a fraction.
    pub fn usize(&self, key: &str) -> Result<usize> {
        self.usize_opt(key)?.ok_or_else(|| self.invalid(key, WHOLE))
    }

    /// A whole number, if there.
    pub fn usize_opt(&self, key: &str) -> Result<Option<usize>> {
        self.optional(key, WHOLE, as_usize)
    }

    /// A whole number, or `default`.
    pub fn usize_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.usize_opt(key)?.unwrap_or(default))
    }

    /// A number.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.f32_opt(key)?.ok_or_else(|| self.invalid(key, NUMBER))
    }

    /// A number, if there.
    pub fn f32_opt(&self, key: &str) -> Result<Option<f32>> {
        self.optional(key, NUMBER, as_f32)
    }

    /// A number, or `default`.
    pub fn f32_or(&self, key: &str, default: f32) -> Result<f32> {
        Ok(self.f32_opt(key)?.unwrap_or(default))
    }

    /// True or false.
    pub fn bool(&self, key: &str) -> Result<bool> {
        self.bool_opt(key)?.ok_or_else(|| self.invalid(key, BOOL))
    }

    /// True or false, if there.
    pub fn bool_opt(&self, key: &str) -> Result<Option<bool>> {
        self.optional(key, BOOL, Value::as_bool)
    }

    /// True or false, or `default`.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.bool_opt(key)?.unwrap_or(default))
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.str_opt(key)?.ok_or_else(|| self.invalid(key, TEXT))
    }

    /// A string, if there.
    pub fn str_opt(&self, key: &str) -> Result<Option<&str>> {
        self.optional(key, TEXT, Value::as_str)
    }

    /// A string, or `default`.
    pub fn str_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.str_opt(key)?.unwrap_or(default))
    }

    /// An object, with these accessors, if there.
    pub fn object(&self, key: &str) -> Result<Option<Config>> {
        let values = self.optional(key, "an object", Value::as_object)?;
        Ok(values.map(|values| Config {
            file: self.file.clone(),
            path: self.path_of(key),
            values: values.clone(),
            read: self.read.clone(),
        }))
    }

    /// A list of whole numbers, if there.
    pub fn usize_list(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.list(key, WHOLE, as_usize)
    }

    /// A list of numbers, if there.
    pub fn f32_list(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.list(key, NUMBER, as_f32)
    }

    /// A list of strings, if there.
    pub fn str_list(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.list(key, TEXT, Value::as_str)
    }

    /// `model_type`: the architecture's name, for example `qwen3`.
    pub fn model_type(&self) -> Result<&str> {
        self.str("model_type")
    }

    /// `architectures`: the class names of the model in transformers; empty where there are none.
    pub fn architectures(&self) -> Result<Vec<&str>> {
        Ok(self.str_list("architectures")?.unwrap_or_default())
    }

    /// The language model's own settings: `text_config` where a model of several parts nests them,
    /// else all of these.
    pub fn text(&self) -> Result<Config> {
        Ok(self.object("text_config")?.unwrap_or_else(|| self.clone()))
    }
}

fn collect_unread(
    values: &Map<String, Value>,
    path: &str,
    read: &BTreeSet<String>,
    unread: &mut Vec<String>,
) {
    for (key, value) in values {
        let harmless =
            HARMLESS.contains(&key.as_str()) || key.contains("dropout") || key.ends_with("_pdrop");
        if harmless || value.is_null() {
            continue;
        }
        let own = match path {
            "" => key.clone(),
            path => format!("{path}.{key}"),
        };
        if !read.contains(&own) {
            unread.push(shown_path(&own));
        } else if let Value::Object(inner) = value {
            // An object that was taken whole has no paths below it.
            let below = format!("{own}.");
            if read
                .range(below.clone()..)
                .next()
                .is_some_and(|p| p.starts_with(&below))
            {
                collect_unread(inner, &own, read, unread);
            }
        }
    }
}

/// A whole number from 0 that `usize` holds; a float counts when it has no fraction and is exact.
pub(super) fn as_usize(value: &Value) -> Option<usize> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    match value.as_u64() {
        Some(n) => usize::try_from(n).ok(),
        None => value
            .as_f64()
            .filter(|x| (0.0..=EXACT).contains(x) && x.fract() == 0.0)
            .map(|x| x as usize),
    }
}

/// A number, Python's infinities and NaN among them; none when finite but beyond `f32`.
fn as_f32(value: &Value) -> Option<f32> {
    match value {
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f32::NAN),
            "Infinity" => Some(f32::INFINITY),
            "-Infinity" => Some(f32::NEG_INFINITY),
            _ => None,
        },
        // transformers 5 writes them as `{"__float__": "Infinity"}`.
        Value::Object(tagged) if tagged.len() == 1 => tagged
            .get("__float__")
            .filter(|tag| tag.is_string())
            .and_then(as_f32),
        _ => value.as_f64().map(|x| x as f32).filter(|x| x.is_finite()),
    }
}

/// Puts Python's bare `NaN`, `Infinity` and `-Infinity` in quotes; borrowed when there are none.
fn quote_python_numbers(json: &[u8]) -> Cow<'_, [u8]> {
    let mut quoted = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    let mut in_string = false;
    while at < json.len() {
        match json[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' | b'-' if !in_string => {
                let rest = &json[at..];
                let word = ["NaN", "Infinity", "-Infinity"]
                    .into_iter()
                    .find(|word| rest.starts_with(word.as_bytes()));
                if let Some(word) = word {
                    quoted.extend_from_slice(&json[copied..at]);
                    quoted.push(b'"');
                    quoted.extend_from_slice(word.as_bytes());
                    quoted.push(b'"');
                    copied = at + word.len();
                    at = copied - 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    quoted.extend_from_slice(&json[copied..]);
    Cow::Owned(quoted)
}

/// A value for a message: what it is, without its contents where those may be long.
fn shown_value(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => cut(value),
    }
}

/// A path for a message, escaped and cut, but without quotes: its keys are the file's text.
fn shown_path(path: &str) -> String {
    cut(path.escape_debug())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
