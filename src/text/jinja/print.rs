//! `str` and `repr`.

use std::rc::Rc;

use super::dict::Dict;
use super::text::{Builder, Str};
use super::value::{Object, Value, View};
use super::{Error, Result, meter, numbers};

/// How deep values are written.
const DEPTH: usize = meter::NESTING * 2;

/// Writes `str(value)`.
///
/// # Errors
/// If a limit is reached.
pub fn write(value: &Value, out: &mut Builder) -> Result<()> {
    match value {
        Value::Str(text) => out.push(text),
        Value::Undefined(_) => Ok(()),
        other => write_repr(other, out, &mut Vec::new(), 0),
    }
}

/// `str(value)`
///
/// # Errors
/// If a limit is reached.
pub fn string(value: &Value) -> Result<Str> {
    if let Value::Str(text) = value {
        return Ok(text.clone());
    }
    let mut out = Builder::default();
    write(value, &mut out)?;
    Ok(out.finish())
}

/// `repr(value)`
///
/// # Errors
/// If a limit is reached.
pub fn repr(value: &Value) -> Result<Str> {
    let mut out = Builder::default();
    write_repr(value, &mut out, &mut Vec::new(), 0)?;
    Ok(out.finish())
}

fn sequence(
    items: &[Value],
    out: &mut Builder,
    spaces: &mut Vec<usize>,
    depth: usize,
) -> Result<()> {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push_str(", ")?;
        }
        write_repr(item, out, spaces, depth + 1)?;
    }
    Ok(())
}

fn mapping(dict: &Dict, out: &mut Builder, spaces: &mut Vec<usize>, depth: usize) -> Result<()> {
    out.push_str("{")?;
    for (at, (key, value)) in dict.pairs().iter().enumerate() {
        if at > 0 {
            out.push_str(", ")?;
        }
        write_repr(key, out, spaces, depth + 1)?;
        out.push_str(": ")?;
        write_repr(value, out, spaces, depth + 1)?;
    }
    out.push_str("}")
}

fn write_repr(
    value: &Value,
    out: &mut Builder,
    spaces: &mut Vec<usize>,
    depth: usize,
) -> Result<()> {
    if depth > DEPTH {
        return Err(Error::runtime(
            "maximum recursion depth exceeded while getting the repr of an object",
        ));
    }
    meter::spend(1)?;
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(n) => out.push_str(&n.to_string()),
        Value::Float(n) => out.push_str(&numbers::float(*n)),
        Value::Str(text) => quote(text, out),
        Value::List(items) => {
            out.push_str("[")?;
            sequence(items, out, spaces, depth)?;
            out.push_str("]")
        }
        Value::Tuple(items) => {
            out.push_str("(")?;
            sequence(items, out, spaces, depth)?;
            out.push_str(if items.len() == 1 { ",)" } else { ")" })
        }
        Value::Dict(dict) => mapping(dict, out, spaces, depth),
        Value::Range(span) => {
            out.push_str(&format!("range({}, {}", span.start, span.stop))?;
            match span.step {
                1 => out.push_str(")"),
                step => out.push_str(&format!(", {step})")),
            }
        }
        Value::View(view, _) => {
            out.push_str(match view {
                View::Items => "dict_items([",
                View::Keys => "dict_keys([",
                View::Values => "dict_values([",
            })?;
            sequence(&value.iterate()?, out, spaces, depth)?;
            out.push_str("])")
        }
        Value::Iter(..) => out.push_str("<generator object>"),
        Value::Object(object) => match &**object {
            Object::Namespace(names) => {
                let this = Rc::as_ptr(object) as usize;
                if spaces.contains(&this) {
                    return out.push_str("<Namespace {...}>");
                }
                spaces.push(this);
                out.push_str("<Namespace ")?;
                mapping(&names.borrow(), out, spaces, depth)?;
                spaces.pop();
                out.push_str(">")
            }
            Object::Loop(of) => out.push_str(&format!(
                "<LoopContext {}/{}>",
                of.at.get() + 1,
                of.items.len()
            )),
            Object::Method(of, name) => out.push_str(&format!(
                "<built-in method {name} of {} object>",
                of.type_name()
            )),
            _ => out.push_str(&format!("<{}>", value.type_name())),
        },
    }
}

/// A string as Python writes it in source.
fn quote(text: &Str, out: &mut Builder) -> Result<()> {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push_str(quote.encode_utf8(&mut [0; 4]))?;
    out.push_escaped(text, |c| {
        Some(match c {
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            c if c == quote => format!("\\{c}"),
            c if printable(c) => return None,
            c => match u32::from(c) {
                code @ 0..0x100 => format!("\\x{code:02x}"),
                code @ 0x100..0x10000 => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            },
        })
    })?;
    out.push_str(quote.encode_utf8(&mut [0; 4]))
}

/// Python's `str.isprintable` of one character, but for characters that Unicode has not given away yet.
pub fn printable(c: char) -> bool {
    if c == ' ' {
        return true;
    }
    let format = matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}' | '\u{8e2}'
        | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}');
    let private = matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}');
    let noncharacter = u32::from(c) & 0xfffe == 0xfffe || matches!(c, '\u{fdd0}'..='\u{fdef}');
    !(c.is_control() || c.is_whitespace() || format || private || noncharacter)
}
