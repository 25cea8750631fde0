//! Jinja's filters and tests where minijinja's differ from them.

use minijinja::value::{Kwargs, Rest, Tuple, ValueKind};
use minijinja::{Environment, Error, Value};

use super::budget;
use super::pymethods::strip;
use super::pyvalue::{JsonStyle, dumps, items, list, pairs, str as py_str, type_error};

/// Puts the filters and tests into `env`.
pub(super) fn install(env: &mut Environment<'_>) {
    env.add_filter("tojson", tojson);
    env.add_filter("string", |value: &Value| charged(py_str(value)));
    env.add_filter("trim", |value: &Value, chars: Option<Value>| {
        let chars = chars.filter(|chars| !chars.is_none());
        let chars = chars.as_ref().and_then(Value::as_str);
        strip(&py_str(value), chars, true, true).to_owned()
    });
    env.add_filter("upper", |value: &Value| {
        charged(py_str(value).to_uppercase())
    });
    env.add_filter("lower", |value: &Value| {
        charged(py_str(value).to_lowercase())
    });
    env.add_filter("capitalize", |value: &Value| {
        let text = py_str(value);
        let mut chars = text.chars();
        match chars.next() {
            Some(first) => first
                .to_uppercase()
                .chain(chars.flat_map(char::to_lowercase))
                .collect(),
            None => text,
        }
    });
    for name in ["e", "escape"] {
        env.add_filter(name, |value: &Value| {
            let text = py_str(value)
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;");
            charged(text.replace('\'', "&#39;").replace('"', "&#34;"))
        });
    }
    env.add_filter("wordcount", |value: &Value| {
        let text = py_str(value);
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.filter(|word| !word.is_empty()).count()
    });
    env.add_filter("replace", replace);
    env.add_filter("join", join);
    env.add_filter("length", length);
    env.add_filter("count", length);
    env.add_filter("list", |value: &Value| iterate(value).map(list));
    env.add_filter("items", |value: &Value| match pairs(value) {
        Some(pairs) => Ok(list(
            pairs
                .into_iter()
                .map(|(key, value)| Value::from(Tuple::from([key, value])))
                .collect(),
        )),
        None if value.is_undefined() => Ok(list(Vec::new())),
        None => Err(type_error("can only get item pairs from a mapping")),
    });
    env.add_filter("int", int);
    env.add_filter("first", |value: &Value| {
        iterate(value).map(|items| items.into_iter().next().unwrap_or(Value::UNDEFINED))
    });
    env.add_filter("last", |value: &Value| {
        iterate(value).map(|items| items.into_iter().next_back().unwrap_or(Value::UNDEFINED))
    });

    env.add_test("number", |value: &Value| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
    });
    env.add_test("iterable", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq
                | ValueKind::Iterable
                | ValueKind::Map
                | ValueKind::String
                | ValueKind::Undefined
        )
    });
    env.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq
                | ValueKind::Iterable
                | ValueKind::Map
                | ValueKind::String
                | ValueKind::Undefined
        )
    });
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

/// The text, paid for.
fn charged(text: String) -> Result<String, Error> {
    budget::charge(text.len())?;
    Ok(text)
}

/// The items that Python's `iter` gives.
fn iterate(value: &Value) -> Result<Vec<Value>, Error> {
    match value.kind() {
        ValueKind::None => Err(type_error("'NoneType' object is not iterable")),
        _ => {
            let items: Vec<Value> = value.try_iter()?.collect();
            budget::charge(items.len().saturating_mul(size_of::<Value>()))?;
            Ok(items)
        }
    }
}

fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    match value.len() {
        Some(length) => Ok(length),
        None => items(value)
            .map(|items| items.len())
            .ok_or_else(|| type_error(format!("object of kind {} has no length", value.kind()))),
    }
}

fn replace(value: &Value, old: &Value, new: &Value, count: Option<i64>) -> Result<String, Error> {
    let (text, old, new) = (py_str(value), py_str(old), py_str(new));
    budget::check_replace(&text, &old, &new)?;
    let replaced = match count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) => text.replacen(&old, &new, count),
        None => text.replace(&old, &new),
    };
    charged(replaced)
}

fn join(value: &Value, separator: Option<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get::<Option<Value>>("d")?,
    };
    let separator = separator.map_or_else(String::new, |separator| py_str(&separator));
    let attribute = kwargs.get::<Option<Value>>("attribute")?;
    kwargs.assert_all_used()?;
    let mut out = String::new();
    for (at, item) in iterate(value)?.into_iter().enumerate() {
        if at > 0 {
            out.push_str(&separator);
        }
        match &attribute {
            Some(attribute) => out.push_str(&py_str(&item.get_item(attribute)?)),
            None => out.push_str(&py_str(&item)),
        }
        budget::check_product(1, out.len())?;
    }
    charged(out)
}

fn int(
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = match default {
        Some(default) => default,
        None => kwargs
            .get::<Option<Value>>("default")?
            .unwrap_or_else(|| Value::from(0)),
    };
    let base = match base {
        Some(base) => base,
        None => kwargs.get::<Option<u32>>("base")?.unwrap_or(10),
    };
    kwargs.assert_all_used()?;
    if let Some(text) = value.as_str() {
        let text = strip(text, None, true, true).replace('_', "");
        let digits = match base {
            16 => text.trim_start_matches("0x").trim_start_matches("0X"),
            8 => text.trim_start_matches("0o"),
            2 => text.trim_start_matches("0b"),
            3..=36 => &text,
            _ => return Ok(default),
        };
        return Ok(match i64::from_str_radix(digits, base) {
            Ok(number) => Value::from(number),
            Err(_) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Value::from(number as i64),
                _ => default,
            },
        });
    }
    Ok(match value.kind() {
        ValueKind::Bool => Value::from(i64::from(value.is_true())),
        ValueKind::Number if value.is_integer() => value.clone(),
        ValueKind::Number => match f64::try_from(value.clone()) {
            Ok(number) if number.is_finite() => Value::from(number as i64),
            _ => default,
        },
        _ => default,
    })
}

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn tojson(value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let given = match args.get(at) {
            Some(given) => Some(given.clone()),
            None => kwargs.get::<Option<Value>>(name)?,
        };
        Ok(given.filter(|given| !given.is_none() && !given.is_undefined()))
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|flag| flag.is_true());
    let indent = match argument(1, "indent")? {
        None => None,
        Some(indent) => Some(match (indent.as_str(), indent.as_i64()) {
            (Some(text), _) => text.to_owned(),
            (_, Some(width)) => " ".repeat(usize::try_from(width).unwrap_or(0).min(64)),
            _ => return Err(type_error("tojson: indent is a number or a string")),
        }),
    };
    let (comma, colon) = match argument(2, "separators")? {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(separators) => match items(&separators).as_deref() {
            Some([comma, colon]) => (py_str(comma), py_str(colon)),
            _ => return Err(type_error("tojson: separators are two strings")),
        },
    };
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|flag| flag.is_true());
    kwargs.assert_all_used()?;
    let text = dumps(
        value,
        &JsonStyle {
            ensure_ascii,
            indent,
            comma,
            colon,
            sort_keys,
        },
    )?;
    charged(text)
}
