//! `json.dumps`, as transformers' `tojson` calls it.

use super::arguments::{Arguments, count};
use super::text::{Builder, Str};
use super::value::Value;
use super::{Error, Result, meter, numbers, print};

struct Style {
    ascii: bool,
    indent: Option<Str>,
    comma: Str,
    colon: Str,
    sorted: bool,
}

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
///
/// # Errors
/// If there is no JSON of the value.
pub fn tojson(value: &Value, arguments: Arguments) -> Result<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sorted] = arguments.take("tojson", names, 0)?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text),
        Some(other) => match other.int() {
            Some(width) => {
                let mut out = Builder::default();
                out.repeat(&Str::constant(" "), count(width))?;
                Some(out.finish())
            }
            None => {
                return Err(Error::runtime(format!(
                    "indent must be a number or str, not {}",
                    other.type_name()
                )));
            }
        },
    };
    let (comma, colon) = match separators {
        None | Some(Value::None) => {
            let comma = if indent.is_some() { "," } else { ", " };
            (Str::constant(comma), Str::constant(": "))
        }
        Some(pair) => match &pair.iterate()?[..] {
            [Value::Str(comma), Value::Str(colon)] => (comma.clone(), colon.clone()),
            _ => return Err(Error::runtime("separators must be two strings")),
        },
    };
    let truth = |flag: Option<Value>| flag.is_some_and(|flag| flag.truth());
    let style = Style {
        ascii: truth(ascii),
        indent,
        comma,
        colon,
        sorted: truth(sorted),
    };
    let mut out = Builder::default();
    dump(value, &style, 0, &mut out)?;
    Ok(Value::Str(out.finish()))
}

fn line(style: &Style, depth: usize, out: &mut Builder) -> Result<()> {
    match &style.indent {
        Some(indent) => {
            out.push_str("\n")?;
            out.repeat(indent, depth)
        }
        None => Ok(()),
    }
}

fn dump(value: &Value, style: &Style, depth: usize, out: &mut Builder) -> Result<()> {
    meter::spend(1)?;
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Int(n) => out.push_str(&n.to_string()),
        Value::Float(n) if n.is_nan() => out.push_str("NaN"),
        Value::Float(n) if n.is_infinite() => {
            out.push_str(if *n > 0.0 { "Infinity" } else { "-Infinity" })
        }
        Value::Float(n) => out.push_str(&numbers::float(*n)),
        Value::Str(text) => quote(text, style.ascii, out),
        Value::List(items) | Value::Tuple(items) => {
            out.push_str("[")?;
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(&style.comma)?;
                }
                line(style, depth + 1, out)?;
                dump(item, style, depth + 1, out)?;
            }
            if !items.is_empty() {
                line(style, depth, out)?;
            }
            out.push_str("]")
        }
        Value::Dict(dict) => {
            let mut pairs: Vec<&(Value, Value)> = dict.pairs().iter().collect();
            if style.sorted {
                let keys = pairs.iter().map(|pair| pair.0.clone()).collect();
                let order = super::sequences::order(keys, false)?;
                pairs = order
                    .into_iter()
                    .filter_map(|at| dict.pairs().get(at))
                    .collect();
            }
            out.push_str("{")?;
            for (at, (key, value)) in pairs.iter().enumerate() {
                if at > 0 {
                    out.push(&style.comma)?;
                }
                line(style, depth + 1, out)?;
                match key {
                    Value::Str(text) => quote(text, style.ascii, out)?,
                    Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                        out.push_str("\"")?;
                        dump(key, style, depth, out)?;
                        out.push_str("\"")?;
                    }
                    other => {
                        return Err(Error::runtime(format!(
                            "keys must be str, int, float, bool or None, not {}",
                            other.type_name()
                        )));
                    }
                }
                out.push(&style.colon)?;
                dump(value, style, depth + 1, out)?;
            }
            if !pairs.is_empty() {
                line(style, depth, out)?;
            }
            out.push_str("}")
        }
        other => Err(Error::runtime(format!(
            "Object of type {} is not JSON serializable",
            other.type_name()
        ))),
    }
}

fn quote(text: &Str, ascii: bool, out: &mut Builder) -> Result<()> {
    out.push_str("\"")?;
    out.push_escaped(text, |c| {
        Some(match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            '\u{8}' => "\\b".to_owned(),
            '\u{c}' => "\\f".to_owned(),
            c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
            c if ascii && !c.is_ascii() => {
                let units = c.encode_utf16(&mut [0; 2]).to_vec();
                units.iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }
            _ => return None,
        })
    })?;
    out.push_str("\"")
}

/// What `pprint` gives for values that fit a line; others are not laid out.
///
/// # Errors
/// If a limit is reached.
pub fn pprint(value: &Value) -> Result<Value> {
    print::repr(value).map(Value::Str)
}
