//! Python's methods of strings, lists and dictionaries, as templates call them.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, State, Value};

use super::budget;
use super::pyvalue::{items, list, pairs, repr, str as py_str, type_error};

/// Calls `method` of `value`; what is not here is looked for among minijinja's own Python methods.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        let word = |at: usize| args.get(at).and_then(Value::as_str).unwrap_or_default();
        match method {
            "replace" => budget::check_replace(text, word(0), word(1))?,
            "format" => budget::check_format(text)?,
            _ => {}
        }
    }
    let result = call_unlimited(state, value, method, args)?;
    budget::charge_value(&result)?;
    Ok(result)
}

fn call_unlimited(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => string(value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Seq | ValueKind::Iterable => sequence(value, method, args)?,
        ValueKind::Map => mapping(value, method, args)?,
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn mapping(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let Some(pairs) = pairs(value) else {
        return Ok(None);
    };
    Ok(Some(match method {
        "copy" => {
            let () = from_args(args)?;
            value.clone()
        }
        "items" => {
            let () = from_args(args)?;
            list(
                pairs
                    .into_iter()
                    .map(|(key, value)| Value::from(Tuple::from([key, value])))
                    .collect(),
            )
        }
        "keys" => {
            let () = from_args(args)?;
            list(pairs.into_iter().map(|(key, _)| key).collect())
        }
        "values" => {
            let () = from_args(args)?;
            list(pairs.into_iter().map(|(_, value)| value).collect())
        }
        _ => return Ok(None),
    }))
}

fn sequence(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let Some(all) = items(value) else {
        return Ok(None);
    };
    Ok(Some(match method {
        "copy" => {
            let () = from_args(args)?;
            list(all)
        }
        "index" => {
            let (item,): (Value,) = from_args(args)?;
            match all.iter().position(|other| *other == item) {
                Some(at) => Value::from(at),
                None => return Err(type_error(format!("{} is not in list", repr(&item)))),
            }
        }
        _ => return Ok(None),
    }))
}

/// What Python's `str.isspace` calls white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Python's `str.strip` and its one-sided forms; `chars` is a set of characters.
pub(super) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let strips = |c: char| match chars {
        Some(chars) => chars.contains(c),
        None => is_space(c),
    };
    let text = if left {
        text.trim_start_matches(strips)
    } else {
        text
    };
    if right {
        text.trim_end_matches(strips)
    } else {
        text
    }
}

/// Python's `str.title`: every run of letters begins with a capital.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_alphabetic();
    }
    out
}

fn splitlines(text: &str, keepends: bool) -> Vec<Value> {
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends) {
        let mut width = rest[at..].chars().next().map_or(1, char::len_utf8);
        if rest[at..].starts_with("\r\n") {
            width = 2;
        }
        lines.push(Value::from(if keepends {
            &rest[..at + width]
        } else {
            &rest[..at]
        }));
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    lines
}

fn split(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator, limit, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get::<Option<Value>>("sep")?,
    };
    let limit = match limit {
        Some(limit) => limit,
        None => kwargs.get::<Option<i64>>("maxsplit")?.unwrap_or(-1),
    };
    kwargs.assert_all_used()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = Vec::new();
    match separator.as_ref().filter(|separator| !separator.is_none()) {
        Some(separator) => {
            let Some(separator) = separator.as_str().filter(|separator| !separator.is_empty())
            else {
                return Err(type_error(
                    "split needs a separator that is a string and not empty",
                ));
            };
            let pieces = limit.saturating_add(1);
            if from_right {
                parts.extend(text.rsplitn(pieces, separator));
                parts.reverse();
            } else {
                parts.extend(text.splitn(pieces, separator));
            }
        }
        None if from_right => {
            let mut rest = text.trim_end_matches(is_space);
            while !rest.is_empty() {
                match rest.rfind(is_space) {
                    Some(at) if parts.len() < limit => {
                        let width = rest[at..].chars().next().map_or(1, char::len_utf8);
                        parts.push(&rest[at + width..]);
                        rest = rest[..at].trim_end_matches(is_space);
                    }
                    _ => {
                        parts.push(rest);
                        rest = "";
                    }
                }
            }
            parts.reverse();
        }
        None => {
            let mut rest = text.trim_start_matches(is_space);
            while !rest.is_empty() {
                match rest.find(is_space) {
                    Some(at) if parts.len() < limit => {
                        parts.push(&rest[..at]);
                        rest = rest[at..].trim_start_matches(is_space);
                    }
                    _ => {
                        parts.push(rest);
                        rest = "";
                    }
                }
            }
        }
    }
    Ok(list(parts.into_iter().map(Value::from).collect()))
}

fn pad(text: &str, args: &[Value], left: bool, right: bool) -> Result<Value, Error> {
    let (width, fill): (usize, Option<&str>) = from_args(args)?;
    let fill = fill.unwrap_or(" ");
    let missing = width.saturating_sub(text.chars().count());
    if width > 1 << 16 || fill.chars().count() != 1 {
        return Err(type_error(
            "padding takes a width up to 65536 and one fill character",
        ));
    }
    let before = match (left, right) {
        (true, true) => missing / 2 + (missing & width & 1),
        (true, false) => missing,
        _ => 0,
    };
    let out = format!(
        "{}{text}{}",
        fill.repeat(before),
        fill.repeat(missing - before)
    );
    Ok(Value::from(out))
}

fn partition(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(args)?;
    let found = match from_right {
        true => text.rsplit_once(separator),
        false => text.split_once(separator),
    };
    let parts = match found {
        Some((head, tail)) => [head, separator, tail],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

fn string(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let value = match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(strip(text, chars, method != "rstrip", method != "lstrip"))
        }
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "split" => split(text, args, false)?,
        "rsplit" => split(text, args, true)?,
        "splitlines" => {
            let (keepends, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
            let keepends = match keepends {
                Some(keepends) => keepends,
                None => kwargs.get::<Option<bool>>("keepends")?.unwrap_or(false),
            };
            kwargs.assert_all_used()?;
            list(splitlines(text, keepends))
        }
        "partition" => partition(text, args, false)?,
        "rpartition" => partition(text, args, true)?,
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(text.to_lowercase())
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swap = |c: char| -> String {
                if c.is_uppercase() {
                    c.to_lowercase().collect()
                } else {
                    c.to_uppercase().collect()
                }
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "ljust" => pad(text, args, false, true)?,
        "rjust" => pad(text, args, true, false)?,
        "center" => pad(text, args, true, true)?,
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = match text.strip_prefix(['-', '+']) {
                Some(digits) => text.split_at(text.len() - digits.len()),
                None => ("", text),
            };
            if width > 1 << 16 {
                return Err(type_error("zfill takes a width up to 65536"));
            }
            let zeros = width.saturating_sub(text.chars().count());
            Value::from(format!("{sign}{}{digits}", "0".repeat(zeros)))
        }
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(args)?;
            let at = if method == "index" {
                text.find(part)
            } else {
                text.rfind(part)
            };
            match at {
                Some(at) => Value::from(text[..at].chars().count()),
                None => return Err(type_error("substring not found")),
            }
        }
        "join" => {
            let (parts,): (&Value,) = from_args(args)?;
            let mut out = String::new();
            for (at, part) in parts.try_iter()?.enumerate() {
                let Some(part) = part.as_str().map(str::to_owned) else {
                    return Err(type_error(format!(
                        "join: item {at} is {}, not a string",
                        py_str(&part)
                    )));
                };
                if at > 0 {
                    out.push_str(text);
                }
                out.push_str(&part);
                budget::check_product(1, out.len())?;
            }
            Value::from(out)
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}
