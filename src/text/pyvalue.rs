//! Values as Python has them: dictionaries and lists from JSON, `str()`, `repr()`, `json.dumps`.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectExt as _, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use serde_json::Value as Json;

use super::budget::{self, LARGEST};
use super::control::MARK;

/// A dictionary in the order of its making; attributes are its methods first, as in Python.
#[derive(Debug)]
struct Dict {
    pairs: Vec<(Value, Value)>,
    index: HashMap<String, usize>,
}

#[derive(Debug)]
struct List(Vec<Value>);

/// A method that was looked up but not called.
#[derive(Debug)]
struct BoundMethod(&'static str);

/// How deep values are printed: a namespace may hold itself, and JSON from outside is not nested deeper.
const MAX_DEPTH: usize = 150;

const DICT_METHODS: [&str; 11] = [
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = self.index.get(key.as_str()?)?;
        Some(self.pairs[*at].1.clone())
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if let Some(name) = DICT_METHODS.iter().find(|name| **name == key) {
            return Some(Value::from_object(BoundMethod(name)));
        }
        self.index.get(key).map(|at| self.pairs[*at].1.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_key_value_enumerator(|dict| Box::new(dict.pairs.iter().cloned()))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.pairs.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&repr(&Value::from_dyn_object(self.clone())))
    }
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&repr(&Value::from_dyn_object(self.clone())))
    }
}

impl Object for BoundMethod {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {} of dict object>", self.0)
    }
}

/// A list.
pub(super) fn list(items: Vec<Value>) -> Value {
    Value::from_object(List(items))
}

/// The template's view of a JSON value.
pub(super) fn from_json(json: Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(n), _, _) => Value::from(n),
            (_, Some(n), _) => Value::from(n),
            (_, _, n) => Value::from(n.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text),
        Json::Array(items) => list(items.into_iter().map(from_json).collect()),
        Json::Object(map) => {
            let mut dict = Dict {
                pairs: Vec::with_capacity(map.len()),
                index: HashMap::with_capacity(map.len()),
            };
            for (key, value) in map {
                dict.index.insert(key.clone(), dict.pairs.len());
                dict.pairs.push((Value::from(key), from_json(value)));
            }
            Value::from_object(dict)
        }
    }
}

/// The pairs of a dictionary; `None` for anything else.
pub(super) fn pairs(value: &Value) -> Option<Vec<(Value, Value)>> {
    if value.kind() != ValueKind::Map {
        return None;
    }
    Some(value.as_object()?.try_iter_pairs()?.collect())
}

/// The items of a list, tuple or other iterable object; `None` for anything else.
pub(super) fn items(value: &Value) -> Option<Vec<Value>> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return None;
    }
    Some(value.try_iter().ok()?.collect())
}

/// A float as Python writes it.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let plain = format!("{value:?}");
    match plain.split_once('e') {
        None => plain,
        Some((digits, exponent)) => {
            let (sign, size) = match exponent.strip_prefix('-') {
                Some(size) => ('-', size),
                None => ('+', exponent),
            };
            format!(
                "{}e{sign}{size:0>2}",
                digits.strip_suffix(".0").unwrap_or(digits)
            )
        }
    }
}

fn as_float(value: &Value) -> Option<f64> {
    (value.is_number() && !value.is_integer())
        .then(|| f64::try_from(value.clone()).ok())
        .flatten()
}

/// Python's `str(value)`.
pub(super) fn str(value: &Value) -> String {
    match value.kind() {
        ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
        ValueKind::Undefined => String::new(),
        _ => repr(value),
    }
}

/// Python's `repr(value)`.
pub(super) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, MAX_DEPTH, &mut out);
    out
}

fn write_repr(value: &Value, depth: usize, out: &mut String) {
    // What holds itself many times over has no end; what is too large is refused where it goes.
    if out.len() > LARGEST {
        return;
    }
    let Some(depth) = depth.checked_sub(1) else {
        out.push_str("...");
        return;
    };
    if let Some(text) = value.as_str() {
        quote_repr(text, out);
    } else if value.is_undefined() {
        out.push_str("Undefined");
    } else if let Some(number) = as_float(value) {
        out.push_str(&float(number));
    } else if let Some(pairs) = pairs(value) {
        out.push('{');
        for (at, (key, value)) in pairs.iter().enumerate() {
            if at > 0 {
                out.push_str(", ");
            }
            write_repr(key, depth, out);
            out.push_str(": ");
            write_repr(value, depth, out);
        }
        out.push('}');
    } else if let Some(items) = items(value) {
        let (open, close) = if value.is_tuple() {
            ('(', ')')
        } else {
            ('[', ']')
        };
        out.push(open);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push_str(", ");
            }
            write_repr(item, depth, out);
        }
        if value.is_tuple() && items.len() == 1 {
            out.push(',');
        }
        out.push(close);
    } else {
        let _ = write!(out, "{value}");
    }
}

fn quote_repr(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            MARK => out.push(c),
            c if c == quote => out.extend(['\\', c]),
            c if u32::from(c) < 0x100 && (c.is_control() || matches!(c, '\u{a0}' | '\u{ad}')) => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if matches!(c, '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{feff}') =>
            {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// How `json.dumps` lays out its text.
pub(super) struct JsonStyle {
    /// Write everything beyond ASCII as `\uXXXX`.
    pub(super) ensure_ascii: bool,
    /// What one level of nesting adds to a line's beginning; `None` for one line.
    pub(super) indent: Option<String>,
    /// Between items.
    pub(super) comma: String,
    /// Between key and value.
    pub(super) colon: String,
    /// Sort objects by key.
    pub(super) sort_keys: bool,
}

/// Python's `json.dumps(value)`.
pub(super) fn dumps(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut out = String::new();
    dump(value, style, 0, &mut out)?;
    Ok(out)
}

fn dump(value: &Value, style: &JsonStyle, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(no_json(&format!(
            "a value nested more than {MAX_DEPTH} deep"
        )));
    }
    budget::check_product(1, out.len())?;
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    };
    if let Some(text) = value.as_str() {
        quote_json(text, style.ensure_ascii, out);
        return Ok(());
    }
    if let Some(mut pairs) = pairs(value) {
        if style.sort_keys {
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
        out.push('{');
        for (at, (key, value)) in pairs.iter().enumerate() {
            if at > 0 {
                out.push_str(&style.comma);
            }
            line(depth + 1, out);
            match key.kind() {
                ValueKind::String => {
                    quote_json(key.as_str().unwrap_or_default(), style.ensure_ascii, out)
                }
                ValueKind::Number | ValueKind::Bool | ValueKind::None => {
                    out.push('"');
                    dump(key, style, depth, out)?;
                    out.push('"');
                }
                kind => return Err(no_json(&format!("a key of kind {kind}"))),
            }
            out.push_str(&style.colon);
            dump(value, style, depth + 1, out)?;
        }
        if !pairs.is_empty() {
            line(depth, out);
        }
        out.push('}');
        return Ok(());
    }
    if let Some(items) = items(value) {
        out.push('[');
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push_str(&style.comma);
            }
            line(depth + 1, out);
            dump(item, style, depth + 1, out)?;
        }
        if !items.is_empty() {
            line(depth, out);
        }
        out.push(']');
        return Ok(());
    }
    if let Some(number) = as_float(value) {
        out.push_str(&match float(number).as_str() {
            "nan" => "NaN".to_owned(),
            "inf" => "Infinity".to_owned(),
            "-inf" => "-Infinity".to_owned(),
            plain => plain.to_owned(),
        });
        return Ok(());
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let _ = write!(out, "{value}");
        }
        kind => return Err(no_json(&format!("a value of kind {kind}"))),
    }
    Ok(())
}

fn no_json(what: &str) -> Error {
    Error::new(
        ErrorKind::BadSerialization,
        format!("{what} is not JSON serializable"),
    )
}

fn quote_json(text: &str, ensure_ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            MARK => out.push(c),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c if ensure_ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The error of a call that Python would refuse.
pub(super) fn type_error(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.into())
}

/// What a formatter of `{{ … }}` writes.
pub(super) fn write(
    out: &mut minijinja::Output,
    _state: &mut State,
    value: &Value,
) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => {
            budget::charge(text.len())?;
            out.write_str(text)?;
        }
        None => {
            let text = str(value);
            budget::charge(text.len())?;
            out.write_str(&text)?;
        }
    }
    Ok(())
}
