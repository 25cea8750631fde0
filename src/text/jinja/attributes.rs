//! Attributes, elements and slices, looked up as Jinja does in transformers' immutable sandbox.

use std::rc::Rc;

use super::text::Str;
use super::value::{Missing, Object, Span, Value, View};
use super::{Error, Result, print};

const STR: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const LIST: &[&str] = &["copy", "count", "index"];
const TUPLE: &[&str] = &["count", "index"];
const DICT: &[&str] = &["copy", "fromkeys", "get", "items", "keys", "values"];
const INT: &[&str] = &[
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "is_integer",
];
const FLOAT: &[&str] = &["as_integer_ratio", "conjugate", "hex", "is_integer"];
const LOOP: &[&str] = &["changed", "cycle"];
const CYCLER: &[&str] = &["next", "reset"];
const FROMKEYS: &[&str] = &["fromkeys"];
const VIEW: &[&str] = &["isdisjoint"];
/// What would change a list, which the sandbox forbids.
const CHANGES_LIST: &[&str] = &[
    "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort",
];
const CHANGES_DICT: &[&str] = &["clear", "pop", "popitem", "setdefault", "update"];

/// The method of this name that a value has.
pub fn method(of: &Value, name: &str) -> Option<&'static str> {
    let names = match of {
        Value::Str(_) => STR,
        Value::List(_) => LIST,
        Value::Tuple(_) | Value::Range(_) => TUPLE,
        Value::Dict(_) => DICT,
        Value::Int(_) | Value::Bool(_) => INT,
        Value::Float(_) => FLOAT,
        Value::View(View::Keys | View::Items, _) => VIEW,
        Value::Object(object) => match &**object {
            Object::Loop(_) => LOOP,
            Object::Cycler(..) => CYCLER,
            Object::Function("dict") => FROMKEYS,
            _ => return None,
        },
        _ => return None,
    };
    names.iter().find(|known| **known == name).copied()
}

/// An attribute that Python itself finds.
fn own(of: &Value, name: &Str) -> Option<Value> {
    let forbidden = || {
        let text = format!(
            "access to attribute '{}' of '{}' object is unsafe.",
            &**name,
            of.type_name()
        );
        Some(Value::Undefined(Rc::new(Missing::Said(text))))
    };
    if name.starts_with("__") && name.ends_with("__") && name.len() > 4 {
        const EVERYWHERE: [&str; 12] = [
            "__class__",
            "__init__",
            "__dict__",
            "__doc__",
            "__module__",
            "__subclasses__",
            "__getattribute__",
            "__eq__",
            "__hash__",
            "__str__",
            "__repr__",
            "__reduce__",
        ];
        if EVERYWHERE.contains(&&**name) {
            return forbidden();
        }
    }
    if let Some(method) = method(of, name) {
        return Some(Value::object(Object::Method(of.clone(), method)));
    }
    match of {
        Value::List(_) if CHANGES_LIST.contains(&&**name) => forbidden(),
        Value::Dict(_) if CHANGES_DICT.contains(&&**name) => forbidden(),
        Value::Int(n) => match &**name {
            "real" | "numerator" => Some(Value::Int(*n)),
            "imag" => Some(Value::Int(0)),
            "denominator" => Some(Value::Int(1)),
            _ => None,
        },
        Value::Float(n) => match &**name {
            "real" => Some(Value::Float(*n)),
            "imag" => Some(Value::Float(0.0)),
            _ => None,
        },
        Value::Range(span) => match &**name {
            "start" => Some(Value::Int(span.start)),
            "stop" => Some(Value::Int(span.stop)),
            "step" => Some(Value::Int(span.step)),
            _ => None,
        },
        Value::Tuple(items) if items.group => match &**name {
            "grouper" => items.first().cloned(),
            "list" => items.get(1).cloned(),
            _ => None,
        },
        Value::Object(object) => match &**object {
            Object::Namespace(names) => names.borrow().get_str(name).cloned(),
            Object::Loop(of) => {
                let (at, n) = (of.at.get(), of.items.len());
                Some(match &**name {
                    "index" => Value::count(at + 1),
                    "index0" => Value::count(at),
                    "revindex" => Value::count(n - at.min(n)),
                    "revindex0" => Value::count(n - (at + 1).min(n)),
                    "first" => Value::Bool(at == 0),
                    "last" => Value::Bool(at + 1 >= n),
                    "length" => Value::count(n),
                    "depth" => Value::count(of.depth + 1),
                    "depth0" => Value::count(of.depth),
                    "previtem" => match at.checked_sub(1).and_then(|at| of.items.get(at)) {
                        Some(item) => item.clone(),
                        None => Value::missing("there is no previous item"),
                    },
                    "nextitem" => match of.items.get(at + 1) {
                        Some(item) => item.clone(),
                        None => Value::missing("there is no next item"),
                    },
                    _ => return None,
                })
            }
            Object::Cycler(items, at) if &**name == "current" => items.get(at.get()).cloned(),
            _ => None,
        },
        _ => None,
    }
}

fn element(of: &Value, index: &Value) -> Result<Option<Value>> {
    Ok(match of {
        Value::Dict(dict) => match index.key() {
            Ok(key) => dict.get(&key).cloned(),
            Err(_) => None,
        },
        Value::List(items) | Value::Tuple(items) => {
            let Some(at) = index.int() else {
                return Ok(None);
            };
            place(at, items.len()).and_then(|at| items.get(at).cloned())
        }
        Value::Str(text) => {
            let Some(at) = index.int() else {
                return Ok(None);
            };
            super::meter::spend_bytes(text.len())?;
            let Some(at) = place(at, text.chars_len()) else {
                return Ok(None);
            };
            let found = text.char_indices().nth(at);
            found.map(|(at, c)| Value::Str(text.part(at..at + c.len_utf8())))
        }
        Value::Range(span) => {
            let Some(at) = index.int() else {
                return Ok(None);
            };
            place(at, span.len()).map(|at| Value::Int(span.at(at)))
        }
        _ => None,
    })
}

fn place(at: i128, len: usize) -> Option<usize> {
    let len = i128::try_from(len).ok()?;
    let at = if at < 0 { at.checked_add(len)? } else { at };
    usize::try_from(at).ok().filter(|_| at < len)
}

/// `of.name`
///
/// # Errors
/// If `of` is undefined.
pub fn attr(of: &Value, name: &Str) -> Result<Value> {
    if let Value::Undefined(why) = of {
        return Err(why.error());
    }
    if let Some(found) = own(of, name) {
        return Ok(found);
    }
    if let Value::Dict(dict) = of
        && let Some(found) = dict.get_str(name)
    {
        return Ok(found.clone());
    }
    Ok(Value::Undefined(Rc::new(Missing::Attribute(
        of.described(),
        name.clone(),
    ))))
}

/// `of[index]`
///
/// # Errors
/// If `of` is undefined, or a limit is reached.
pub fn item(of: &Value, index: &Value) -> Result<Value> {
    if let Value::Undefined(why) = of {
        return Err(why.error());
    }
    if let Some(found) = element(of, index)? {
        return Ok(found);
    }
    if let Value::Str(name) = index {
        if let Some(found) = own(of, name) {
            return Ok(found);
        }
        return Ok(Value::Undefined(Rc::new(Missing::Attribute(
            of.described(),
            name.clone(),
        ))));
    }
    let name = print::repr(index)?;
    Ok(Value::Undefined(Rc::new(Missing::Element(
        of.described(),
        name.to_string(),
    ))))
}

/// `of[start:stop:step]`, each `None` if absent.
///
/// # Errors
/// If there is no such slice of it.
pub fn slice(of: &Value, start: &Value, stop: &Value, step: &Value) -> Result<Value> {
    if let Value::Undefined(why) = of {
        return Err(why.error());
    }
    let len = match of {
        Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Range(_) => of.len().unwrap_or(0),
        Value::Dict(_) => return Err(Error::runtime("unhashable type: 'slice'")),
        other => {
            return Err(Error::runtime(format!(
                "'{}' object is not subscriptable",
                other.type_name()
            )));
        }
    };
    let span = bounds(len, start, stop, step)?;
    super::meter::spend(1 + span.len() as u64)?;
    let places = || (0..span.len()).filter_map(|at| usize::try_from(span.at(at)).ok());
    Ok(match of {
        Value::Str(text) => {
            super::meter::spend_bytes(text.len())?;
            if span.step == 1 {
                let byte = |at: i128| -> usize {
                    let at = usize::try_from(at).unwrap_or(0);
                    match text.is_ascii() {
                        true => at.min(text.len()),
                        false => text
                            .char_indices()
                            .nth(at)
                            .map_or(text.len(), |(byte, _)| byte),
                    }
                };
                let from = byte(span.start);
                Value::Str(text.part(from..byte(span.stop.max(span.start)).max(from)))
            } else {
                let ends: Vec<(usize, char)> = text.char_indices().collect();
                let mut out = super::text::Builder::default();
                for at in places() {
                    if let Some((at, c)) = ends.get(at) {
                        out.push(&text.part(*at..at + c.len_utf8()))?;
                    }
                }
                Value::Str(out.finish())
            }
        }
        Value::List(items) => {
            Value::list(places().filter_map(|at| items.get(at).cloned()).collect())?
        }
        Value::Tuple(items) => {
            Value::tuple(places().filter_map(|at| items.get(at).cloned()).collect())?
        }
        Value::Range(range) => {
            let at = |place: i128| range.start.saturating_add(place.saturating_mul(range.step));
            Value::Range(Span {
                start: at(span.start),
                stop: at(span.stop),
                step: range.step.saturating_mul(span.step),
            })
        }
        _ => Value::None,
    })
}

fn bounds(len: usize, start: &Value, stop: &Value, step: &Value) -> Result<Span> {
    let number = |value: &Value| -> Result<Option<i128>> {
        match (value, value.int()) {
            (Value::None, _) => Ok(None),
            (_, Some(n)) => Ok(Some(n)),
            (Value::Undefined(_), _) | (_, None) => Err(Error::runtime(
                "slice indices must be integers or None or have an __index__ method",
            )),
        }
    };
    let len = i128::try_from(len).unwrap_or(i128::MAX);
    let step = number(step)?.unwrap_or(1).clamp(-(1 << 64), 1 << 64);
    if step == 0 {
        return Err(Error::runtime("slice step cannot be zero"));
    }
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let bound = |value: Option<i128>, default: i128| match value {
        None => default,
        Some(at) if at < 0 => at.saturating_add(len).clamp(low, high),
        Some(at) => at.clamp(low, high),
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    Ok(Span {
        start: bound(number(start)?, first),
        stop: bound(number(stop)?, last),
        step,
    })
}
