//! Filters of one value; those of sequences are in [`sequences`] and [`selections`].

use super::arguments::{self, Arguments, count};
use super::run::Run;
use super::text::{Builder, Str};
use super::value::{Number, Value};
use super::{
    Error, Result, attributes, is_tests, json, layout, meter, numbers, percent, print, selections,
    sequences, strings,
};

const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

/// Whether there is a filter of this name.
pub fn known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// `value | name(arguments)`
///
/// # Errors
/// If there is no such filter, it does not take the value, or a limit is reached.
pub fn apply(run: &mut Run<'_>, name: &str, value: Value, arguments: Arguments) -> Result<Value> {
    meter::spend(1)?;
    let changed = |text: Str, change: fn(&str) -> String| -> Result<Value> {
        meter::spend_bytes(text.len())?;
        Ok(Value::Str(text.map(change)))
    };
    match name {
        "tojson" => json::tojson(&value, arguments),
        "d" | "default" => {
            let [default, boolean] = arguments.take(name, ["default_value", "boolean"], 0)?;
            let wanted = matches!(value, Value::Undefined(_))
                || boolean.is_some_and(|flag| flag.truth()) && !value.truth();
            Ok(if wanted {
                default.unwrap_or_else(|| Value::str(""))
            } else {
                value
            })
        }
        "string" | "safe" => {
            let [] = arguments.plain(name, 0)?;
            print::string(&value).map(Value::Str)
        }
        "trim" => {
            let [chars] = arguments.take(name, ["chars"], 0)?;
            let chars = arguments::text(chars, "strip arg")?;
            let text = print::string(&value)?;
            meter::spend_bytes(text.len())?;
            Ok(Value::Str(strings::strip(
                &text,
                chars.as_deref(),
                true,
                true,
            )))
        }
        "upper" | "lower" | "capitalize" | "title" => {
            let [] = arguments.plain(name, 0)?;
            let text = print::string(&value)?;
            changed(
                text,
                match name {
                    "upper" => str::to_uppercase,
                    "lower" => str::to_lowercase,
                    "capitalize" => strings::capitalize,
                    _ => title,
                },
            )
        }
        "e" | "escape" | "forceescape" => {
            let [] = arguments.plain(name, 0)?;
            let text = print::string(&value)?;
            changed(text, |text| {
                let text = text
                    .replace('&', "&amp;")
                    .replace('<', "&lt;")
                    .replace('>', "&gt;");
                text.replace('\'', "&#39;").replace('"', "&#34;")
            })
        }
        "replace" => {
            let [old, new, n] = arguments.take(name, ["old", "new", "count"], 2)?;
            let text = print::string(&value)?;
            let old = print::string(&old.unwrap_or(Value::None))?;
            let new = print::string(&new.unwrap_or(Value::None))?;
            let n = match n {
                None | Some(Value::None) => -1,
                n => arguments::int(n)?.unwrap_or(-1),
            };
            meter::spend_bytes(text.len())?;
            strings::replace(&text, &old, &new, n).map(Value::Str)
        }
        "format" => {
            let text = Value::Str(print::string(&value)?);
            let values = match (arguments.positional.is_empty(), arguments.named.is_empty()) {
                (false, false) => {
                    return Err(Error::runtime(
                        "can't handle positional and keyword arguments at the same time",
                    ));
                }
                (true, false) => {
                    let mut dict = super::dict::Dict::new();
                    for (name, value) in arguments.named {
                        dict.insert(Value::Str(name), value)?;
                    }
                    Value::dict(dict)
                }
                _ => Value::tuple(arguments.positional)?,
            };
            match &text {
                Value::Str(text) => percent::format(text, &values),
                _ => Ok(text),
            }
        }
        "indent" => indent(value, arguments),
        "center" => {
            let [width] = arguments.take(name, ["width"], 0)?;
            let text = print::string(&value)?;
            let width = arguments::int(width)?.unwrap_or(80);
            strings::pad(&text, count(width), &Str::constant(" "), "center").map(Value::Str)
        }
        "truncate" => truncate(&value, arguments),
        "wordcount" => {
            let [] = arguments.plain(name, 0)?;
            let text = print::string(&value)?;
            meter::spend_bytes(text.len())?;
            let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
            Ok(Value::count(words.filter(|word| !word.is_empty()).count()))
        }
        "wordwrap" => layout::wordwrap(&value, arguments),
        "striptags" => {
            let [] = arguments.plain(name, 0)?;
            layout::striptags(&print::string(&value)?)
        }
        "urlencode" => {
            let [] = arguments.plain(name, 0)?;
            layout::urlencode(&value)
        }
        "filesizeformat" => {
            let [binary] = arguments.take(name, ["binary"], 0)?;
            file_size(&value, binary.is_some_and(|flag| flag.truth()))
        }
        "pprint" => json::pprint(&value),
        "attr" => {
            let [name] = arguments.take("attr", ["name"], 1)?;
            let Some(name) = arguments::text(name, "attribute name")? else {
                return Err(Error::runtime(
                    "attribute name must be string, not 'NoneType'",
                ));
            };
            // Elements are not looked at, but a namespace has its attributes.
            match value {
                Value::Dict(_) if attributes::method(&value, &name).is_none() => Ok(
                    Value::missing(format!("'dict object' has no attribute '{}'", &*name)),
                ),
                value => attributes::attr(&value, &name),
            }
        }
        "abs" => {
            let [] = arguments.plain(name, 0)?;
            match (value.number(), &value) {
                (Some(Number::Int(n)), _) => numbers::checked(n.checked_abs()),
                (Some(Number::Float(n)), _) => Ok(Value::Float(n.abs())),
                (None, Value::Undefined(why)) => Err(why.error()),
                (None, other) => Err(Error::runtime(format!(
                    "bad operand type for abs(): '{}'",
                    other.type_name()
                ))),
            }
        }
        "int" => {
            let [default, base] = arguments.take(name, ["default", "base"], 0)?;
            int(
                &value,
                default.unwrap_or(Value::Int(0)),
                arguments::int(base)?.unwrap_or(10),
            )
        }
        "float" => {
            let [default] = arguments.take(name, ["default"], 0)?;
            if let Value::Undefined(why) = &value {
                return Err(why.error());
            }
            Ok(to_float(&value)
                .map(Value::Float)
                .or(default)
                .unwrap_or(Value::Float(0.0)))
        }
        "round" => round(&value, arguments),
        "xmlattr" => {
            let [space] = arguments.take(name, ["autospace"], 0)?;
            xml_attributes(&value, space.is_none_or(|flag| flag.truth()))
        }
        "urlize" | "random" => Err(Error::runtime(format!(
            "the filter {name} is not known here"
        ))),
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => {
            selections::apply(run, name, &value, arguments)
        }
        "batch" | "count" | "length" | "dictsort" | "first" | "last" | "groupby" | "items"
        | "join" | "list" | "max" | "min" | "reverse" | "slice" | "sort" | "sum" | "unique" => {
            sequences::apply(name, value, arguments)
        }
        other => Err(Error::runtime(format!("No filter named '{other}'."))),
    }
}

/// Words begin behind white space and brackets, hyphens too.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        let edge = c == '-' || super::lexer::is_space(c) || matches!(c, '(' | '{' | '[' | '<');
        match begins && !edge {
            true => out.extend(c.to_uppercase()),
            false => out.extend(c.to_lowercase()),
        }
        begins = edge;
    }
    out
}

fn indent(value: Value, arguments: Arguments) -> Result<Value> {
    let [width, first, blank] = arguments.take("indent", ["width", "first", "blank"], 0)?;
    let (first, blank) = (
        first.is_some_and(|flag| flag.truth()),
        blank.is_some_and(|flag| flag.truth()),
    );
    let unit = match width {
        Some(Value::Str(text)) => text,
        width => {
            let mut out = Builder::default();
            out.repeat(
                &Str::constant(" "),
                count(arguments::int(width)?.unwrap_or(4)),
            )?;
            out.finish()
        }
    };
    let text = match &value {
        Value::Str(text) => text,
        Value::Undefined(why) => return Err(why.error()),
        other => {
            return Err(Error::runtime(format!(
                "unsupported operand type(s) for +=: '{}' and 'str'",
                other.type_name()
            )));
        }
    };
    meter::spend_bytes(text.len())?;
    let whole: &str = text;
    let mut lines = strings::lines(whole, false);
    // As if a newline stood behind it.
    if whole.is_empty()
        || whole.ends_with([
            '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
            '\u{2029}',
        ])
    {
        // "\r" and the newline behind it are one end.
        if !whole.ends_with('\r') {
            lines.push("");
        }
    }
    let mut out = Builder::default();
    for (at, line) in lines.into_iter().enumerate() {
        if at > 0 {
            out.push_str("\n")?;
        }
        let indented = if at == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        if indented {
            out.push(&unit)?;
        }
        out.push(&text.slice(line))?;
    }
    Ok(Value::Str(out.finish()))
}

fn truncate(value: &Value, arguments: Arguments) -> Result<Value> {
    let [length, kill, end, leeway] =
        arguments.take("truncate", ["length", "killwords", "end", "leeway"], 0)?;
    let length = count(arguments::int(length)?.unwrap_or(255));
    let end = arguments::text(end, "end")?.unwrap_or_else(|| Str::constant("..."));
    let leeway = match leeway {
        None | Some(Value::None) => 5,
        leeway => count(arguments::int(leeway)?.unwrap_or(5)),
    };
    if length < end.chars_len() {
        return Err(Error::runtime(format!(
            "expected length >= {}, got {length}",
            end.chars_len()
        )));
    }
    let text = match value {
        Value::Str(text) => text,
        Value::Undefined(_) => return Ok(value.clone()),
        other => {
            return Err(Error::runtime(format!(
                "object of type '{}' has no len()",
                other.type_name()
            )));
        }
    };
    if text.chars_len() <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let keep = length - end.chars_len();
    let stop = text
        .char_indices()
        .nth(keep)
        .map_or(text.len(), |(at, _)| at);
    let head = text.part(0..stop);
    let head = match (kill.is_some_and(|flag| flag.truth()), head.rsplit_once(' ')) {
        (false, Some((words, _))) => head.slice(words),
        _ => head.clone(),
    };
    let mut out = Builder::default();
    out.push(&head)?;
    out.push(&end)?;
    Ok(Value::Str(out.finish()))
}

fn file_size(value: &Value, binary: bool) -> Result<Value> {
    let Some(bytes) = to_float(value) else {
        return Err(Error::runtime("could not convert to float"));
    };
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok(Value::str("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::str(format!("{} Bytes", bytes.trunc())));
    }
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let mut unit = base;
    let mut text = String::new();
    for prefix in prefixes {
        unit *= base;
        let prefix = if binary {
            format!("{}iB", prefix.to_uppercase())
        } else {
            format!("{prefix}B")
        };
        text = format!("{:.1} {prefix}", base * bytes / unit);
        if bytes < unit {
            break;
        }
    }
    Ok(Value::str(text))
}

/// `float(value)`; `None` if it is none.
fn to_float(value: &Value) -> Option<f64> {
    match value {
        Value::Str(text) => numbers::parse_float(text),
        other => other.number().map(Number::float),
    }
}

fn int(value: &Value, default: Value, base: i128) -> Result<Value> {
    let found = match value {
        Value::Undefined(why) => return Err(why.error()),
        Value::Str(text) => match numbers::parse_int(text, base)? {
            Some(n) => Some(n),
            None => numbers::parse_float(text).and_then(numbers::truncate),
        },
        other => is_tests::whole(other),
    };
    Ok(found.map_or(default, Value::Int))
}

fn round(value: &Value, arguments: Arguments) -> Result<Value> {
    let [digits, method] = arguments.take("round", ["precision", "method"], 0)?;
    let digits = arguments::int(digits)?.unwrap_or(0);
    let method = arguments::text(method, "method")?.unwrap_or_else(|| Str::constant("common"));
    let Some(n) = value.number() else {
        return Err(match value {
            Value::Undefined(why) => why.error(),
            other => Error::runtime(format!(
                "type {} doesn't define __round__ method",
                other.type_name()
            )),
        });
    };
    let change: fn(f64) -> f64 = match (&*method, n) {
        ("common", Number::Int(n)) => return Ok(Value::Int(numbers::round_int(n, digits))),
        ("common", Number::Float(n)) => return Ok(Value::Float(numbers::round(n, digits))),
        ("ceil", _) => f64::ceil,
        ("floor", _) => f64::floor,
        _ => return Err(Error::runtime("method must be common, ceil or floor")),
    };
    let unit = 10f64.powi(i32::try_from(digits).unwrap_or(i32::MAX));
    let scaled = n.float() * unit;
    if !scaled.is_finite() {
        return Err(Error::runtime("cannot convert float infinity to integer"));
    }
    Ok(Value::Float(change(scaled) / unit))
}

fn xml_attributes(value: &Value, space: bool) -> Result<Value> {
    let Value::Dict(dict) = value else {
        return Err(Error::runtime(format!(
            "'{}' object has no attribute 'items'",
            value.type_name()
        )));
    };
    let escape = |value: &Value| -> Result<String> {
        let text = print::string(value)?
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        Ok(text.replace('\'', "&#39;").replace('"', "&#34;"))
    };
    let mut parts = Vec::new();
    for (key, value) in dict.pairs() {
        if !matches!(value, Value::None | Value::Undefined(_)) {
            parts.push(format!("{}=\"{}\"", escape(key)?, escape(value)?));
        }
    }
    let text = parts.join(" ");
    Ok(Value::str(if space && !text.is_empty() {
        format!(" {text}")
    } else {
        text
    }))
}
