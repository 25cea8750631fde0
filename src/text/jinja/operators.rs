//! Operators between values.

use super::numbers;
use super::text::Builder;
use super::value::{Number, Value};
use super::{Error, Result, meter, percent};

fn unsupported(op: &str, a: &Value, b: &Value) -> Error {
    for value in [a, b] {
        if let Value::Undefined(why) = value {
            return why.error();
        }
    }
    Error::runtime(format!(
        "unsupported operand type(s) for {op}: '{}' and '{}'",
        a.type_name(),
        b.type_name()
    ))
}

/// `a op b` of an arithmetic operator.
///
/// # Errors
/// If the types do not go together, or a limit is reached.
pub fn math(op: &'static str, a: &Value, b: &Value) -> Result<Value> {
    if let (Some(a), Some(b)) = (a.number(), b.number()) {
        return numbers::math(op, a, b);
    }
    match (op, a, b) {
        (_, Value::Undefined(why), _) => Err(why.error()),
        ("%", Value::Str(format), args) => percent::format(format, args),
        (_, _, Value::Undefined(why)) => Err(why.error()),
        ("+", Value::Str(a), Value::Str(b)) => {
            let mut out = Builder::default();
            out.push(a)?;
            out.push(b)?;
            Ok(Value::Str(out.finish()))
        }
        ("+", Value::Str(_), other) => Err(Error::runtime(format!(
            "can only concatenate str (not \"{}\") to str",
            other.type_name()
        ))),
        ("+", Value::List(x), Value::List(y)) | ("+", Value::Tuple(x), Value::Tuple(y)) => {
            let n = x.len() + y.len();
            meter::spend(n as u64)?;
            meter::allow_memory(n * size_of::<Value>())?;
            let items = x.iter().chain(y.iter()).cloned().collect();
            if matches!(a, Value::List(_)) {
                Value::list(items)
            } else {
                Value::tuple(items)
            }
        }
        ("*", text @ (Value::Str(_) | Value::List(_) | Value::Tuple(_)), times)
        | ("*", times, text @ (Value::Str(_) | Value::List(_) | Value::Tuple(_))) => {
            match times.int() {
                Some(times) => repeat(text, super::arguments::count(times)),
                None => Err(Error::runtime(format!(
                    "can't multiply sequence by non-int of type '{}'",
                    times.type_name()
                ))),
            }
        }
        ("-", Value::View(super::value::View::Keys, x), other) => {
            let theirs = other.iterate()?;
            let mut kept = Vec::new();
            for (key, _) in x.pairs() {
                let mut found = false;
                for other in &theirs {
                    found |= key.equals(other)?;
                }
                if !found {
                    kept.push(key.clone());
                }
            }
            Value::list(kept)
        }
        ("**", ..) => Err(unsupported("** or pow()", a, b)),
        _ => Err(unsupported(op, a, b)),
    }
}

fn repeat(value: &Value, times: usize) -> Result<Value> {
    match value {
        Value::Str(text) => {
            let mut out = Builder::default();
            out.repeat(text, times)?;
            Ok(Value::Str(out.finish()))
        }
        Value::List(items) | Value::Tuple(items) => {
            let n = items.len().saturating_mul(times);
            meter::allow_memory(n.saturating_mul(size_of::<Value>()))?;
            meter::spend(n as u64)?;
            let mut out = Vec::with_capacity(n);
            if n > 0 {
                (0..times).for_each(|_| out.extend(items.iter().cloned()));
            }
            if matches!(value, Value::List(_)) {
                Value::list(out)
            } else {
                Value::tuple(out)
            }
        }
        _ => Ok(Value::None),
    }
}

/// `-a`
///
/// # Errors
/// If it is no number.
pub fn negate(a: &Value) -> Result<Value> {
    match a.number() {
        Some(Number::Int(n)) => numbers::checked(n.checked_neg()),
        Some(Number::Float(n)) => Ok(Value::Float(-n)),
        None => Err(bad_unary("-", a)),
    }
}

/// `+a`
///
/// # Errors
/// If it is no number.
pub fn plus(a: &Value) -> Result<Value> {
    match a.number() {
        Some(Number::Int(n)) => Ok(Value::Int(n)),
        Some(Number::Float(n)) => Ok(Value::Float(n)),
        None => Err(bad_unary("+", a)),
    }
}

fn bad_unary(op: &str, a: &Value) -> Error {
    match a {
        Value::Undefined(why) => why.error(),
        other => Error::runtime(format!(
            "bad operand type for unary {op}: '{}'",
            other.type_name()
        )),
    }
}

/// `a op b` of a comparison.
///
/// # Errors
/// If the types do not go together, or a limit is reached.
pub fn compare(op: &str, a: &Value, b: &Value) -> Result<bool> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    Ok(match op {
        "==" => a.equals(b)?,
        "!=" => !a.equals(b)?,
        "in" => b.contains(a)?,
        "not in" => !b.contains(a)?,
        "<" => a.compare(b, op)? == Some(Less),
        "<=" => matches!(a.compare(b, op)?, Some(Less | Equal)),
        ">" => a.compare(b, op)? == Some(Greater),
        _ => matches!(a.compare(b, op)?, Some(Greater | Equal)),
    })
}
