//! Functions of the environment, and what else can be called.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;

use super::arguments::{self, Arguments};
use super::dict::Dict;
use super::run::Run;
use super::text::{Builder, Str};
use super::value::{Loop, Object, Span, Value};
use super::{Error, Kind, Result, methods, print, strings};

/// The names of the functions.
pub const FUNCTIONS: [&str; 7] = [
    "range",
    "dict",
    "namespace",
    "cycler",
    "joiner",
    "raise_exception",
    "strftime_now",
];

/// Numbers that a range may have.
const MAX_RANGE: usize = 100_000;

/// Whether a value can be called.
///
/// # Errors
/// If not.
pub fn callable(value: &Value) -> Result<()> {
    let fine = match value {
        Value::Undefined(why) => return Err(why.error()),
        Value::Object(object) => match &**object {
            Object::Macro(..)
            | Object::Function(_)
            | Object::Method(..)
            | Object::Joiner(..)
            | Object::Block(_)
            | Object::Loop(_) => true,
            Object::Namespace(_) | Object::Cycler(..) => false,
        },
        _ => false,
    };
    match fine {
        true => Ok(()),
        false => Err(Error::runtime(format!(
            "'{}' object is not callable",
            value.type_name()
        ))),
    }
}

/// Calls a value.
///
/// # Errors
/// If it cannot be called, or fails.
pub fn call(run: &mut Run<'_>, callee: &Value, arguments: Arguments) -> Result<Value> {
    callable(callee)?;
    let Value::Object(object) = callee else {
        return Err(Error::runtime("that cannot be called"));
    };
    match &**object {
        Object::Macro(at, scope) => run.call_macro(*at, scope, arguments),
        Object::Function(name) => function(run, name, arguments),
        Object::Method(of, name) => call_method(run, of, name, arguments),
        Object::Joiner(separator, used) => {
            let [] = arguments.plain("joiner", 0)?;
            Ok(match used.replace(true) {
                true => Value::Str(separator.clone()),
                false => Value::str(""),
            })
        }
        Object::Block(at) => {
            let [] = arguments.plain("block", 0)?;
            run.block_text(*at)
        }
        Object::Loop(of) => {
            let [items] = arguments.plain("loop", 1)?;
            match &of.again {
                Some((at, scope)) => run.deeper(|run| {
                    let mut out = Builder::default();
                    let items = items.unwrap_or(Value::None);
                    run.go_through(*at, &items, of.depth + 1, scope, &mut out)?;
                    Ok(Value::Str(out.finish()))
                }),
                None => Err(Error::runtime(
                    "The loop must have the 'recursive' marker to be called recursively.",
                )),
            }
        }
        Object::Namespace(_) | Object::Cycler(..) => Err(Error::runtime("that cannot be called")),
    }
}

/// Calls a method.
///
/// # Errors
/// If it fails.
pub fn call_method(
    run: &mut Run<'_>,
    of: &Value,
    name: &'static str,
    arguments: Arguments,
) -> Result<Value> {
    match of {
        Value::Str(text) => strings::call(run, text, name, arguments),
        Value::Object(object) => match &**object {
            Object::Loop(of) => loop_method(of, name, arguments),
            Object::Cycler(items, at) => {
                let [] = arguments.plain(name, 0)?;
                if name == "reset" {
                    at.set(0);
                    return Ok(Value::None);
                }
                let now = items.get(at.get()).cloned().unwrap_or(Value::None);
                at.set((at.get() + 1) % items.len().max(1));
                Ok(now)
            }
            Object::Function("dict") => {
                let [keys, value] = arguments.plain(name, 1)?;
                let mut dict = Dict::new();
                for key in keys.unwrap_or(Value::None).iterate()? {
                    dict.insert(key, value.clone().unwrap_or(Value::None))?;
                }
                Ok(Value::dict(dict))
            }
            _ => Err(Error::runtime(format!("{name} cannot be called"))),
        },
        _ => methods::call(of, name, arguments),
    }
}

fn loop_method(of: &Loop, name: &str, arguments: Arguments) -> Result<Value> {
    if name == "cycle" {
        let items = arguments.positional;
        if items.is_empty() {
            return Err(Error::runtime("no items for cycling given"));
        }
        let at = of.at.get() % items.len();
        return Ok(items.get(at).cloned().unwrap_or(Value::None));
    }
    let now = Value::tuple(arguments.positional)?;
    let changed = match &*of.last.borrow() {
        Some(last) => !last.equals(&now)?,
        None => true,
    };
    if changed && !of.over.get() {
        let old = of.last.replace(Some(now));
        drop(old);
    }
    Ok(Value::Bool(changed))
}

/// Whether a namespace may have an attribute of this name.
///
/// # Errors
/// If not.
pub fn check_attribute(name: &Str) -> Result<()> {
    match name.starts_with('_') {
        true => Err(Error::runtime(format!(
            "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '{}'. Please rename the attribute.",
            &**name
        ))),
        false => Ok(()),
    }
}

fn function(run: &mut Run<'_>, name: &'static str, arguments: Arguments) -> Result<Value> {
    match name {
        "range" => range(arguments),
        "dict" => Ok(Value::dict(dict(arguments)?)),
        "namespace" => {
            let names = dict(arguments)?;
            for (key, _) in names.pairs() {
                match key {
                    Value::Str(name) => check_attribute(name)?,
                    _ => return Err(Error::runtime("attribute name must be string")),
                }
            }
            let space = Value::Object(Rc::new(Object::Namespace(RefCell::new(names))));
            run.keep_space(&space);
            Ok(space)
        }
        "cycler" => {
            if arguments.positional.is_empty() {
                return Err(Error::runtime("at least one item has to be provided"));
            }
            match Value::tuple(arguments.positional)? {
                Value::Tuple(items) => Ok(Value::object(Object::Cycler(items, Cell::new(0)))),
                other => Ok(other),
            }
        }
        "joiner" => {
            let [separator] = arguments.take(name, ["sep"], 0)?;
            let separator = match separator {
                Some(separator) => print::string(&separator)?,
                None => Str::constant(", "),
            };
            Ok(Value::object(Object::Joiner(separator, Cell::new(false))))
        }
        "strftime_now" => {
            let [format] = arguments.take(name, ["format"], 1)?;
            let Some(format) = arguments::text(format, "strftime() argument 1")? else {
                return Err(Error::runtime(
                    "strftime() argument 1 must be str, not None",
                ));
            };
            now(&format)
        }
        _ => {
            let [message] = arguments.take(name, ["message"], 1)?;
            let message = print::string(&message.unwrap_or(Value::None))?;
            Err(Error::new(Kind::Raised, message.to_string(), 0))
        }
    }
}

fn now(format: &str) -> Result<Value> {
    if format.len() > 4096 {
        return Err(Error::limit("4 KiB of a date's format".into()));
    }
    let mut out = String::new();
    let now = chrono::Local::now();
    // What Python's `datetime.now()` has no word for, having no time zone, is empty; unknown codes stay as they are.
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(rest.get(..at).unwrap_or_default());
        let code = rest.get(at..).unwrap_or_default();
        let mut width = 1 + code.chars().nth(1).map_or(0, char::len_utf8);
        if matches!(
            code.as_bytes().get(1),
            Some(b'-' | b'_' | b'0' | b'^' | b'#')
        ) {
            width += code
                .get(width..)
                .and_then(|rest| rest.chars().next())
                .map_or(0, char::len_utf8);
        }
        let code_text = code.get(..width).unwrap_or(code);
        match code_text {
            "%z" | "%Z" | "%:" => {}
            "%f" => {
                let _ = write!(out, "{:06}", now.timestamp_subsec_micros().min(999_999));
            }
            // In C's locale.
            "%c" => {
                let _ = write!(out, "{}", now.format("%a %b %e %H:%M:%S %Y"));
            }
            "%x" => {
                let _ = write!(out, "{}", now.format("%m/%d/%y"));
            }
            "%r" => {
                let _ = write!(out, "{}", now.format("%I:%M:%S %p"));
            }
            code => {
                let mut text = String::new();
                match write!(text, "{}", now.format(code)) {
                    Ok(()) => out.push_str(&text),
                    Err(_) => out.push_str(code),
                }
            }
        }
        rest = code.get(width..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(Value::str(out))
}

fn range(arguments: Arguments) -> Result<Value> {
    let [a, b, c] = arguments.plain("range", 1)?;
    let one_only = b.is_none();
    let (a, b, step) = (
        arguments::int(a)?,
        arguments::int(b)?,
        arguments::int(c)?.unwrap_or(1),
    );
    let (start, stop) = match one_only {
        true => (0, a.unwrap_or(0)),
        false => (a.unwrap_or(0), b.unwrap_or(0)),
    };
    if step == 0 {
        return Err(Error::runtime("range() arg 3 must not be zero"));
    }
    let span = Span { start, stop, step };
    match span.len() > MAX_RANGE {
        true => Err(Error::runtime(format!(
            "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MAX_RANGE})."
        ))),
        false => Ok(Value::Range(span)),
    }
}

/// `dict(…)`
fn dict(arguments: Arguments) -> Result<Dict> {
    let Arguments { positional, named } = arguments;
    let mut given = positional.into_iter();
    let mut dict = match given.next() {
        None => Dict::new(),
        Some(Value::Dict(from)) => from.copy()?,
        Some(other) => {
            let mut dict = Dict::new();
            for (at, pair) in other.iterate()?.into_iter().enumerate() {
                match &pair.iterate()?[..] {
                    [key, value] => dict.insert(key.clone(), value.clone())?,
                    other => {
                        return Err(Error::runtime(format!(
                            "dictionary update sequence element #{at} has length {}; 2 is required",
                            other.len()
                        )));
                    }
                }
            }
            dict
        }
    };
    if given.next().is_some() {
        return Err(Error::runtime("dict expected at most 1 argument"));
    }
    for (name, value) in named {
        dict.insert(Value::Str(name), value)?;
    }
    Ok(dict)
}
