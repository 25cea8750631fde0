//! The tests behind `is`.

use super::arguments::Arguments;
use super::value::{Number, Object, Value};
use super::{Error, Result, filters, numbers, operators, print, strings};

const NAMES: [&str; 39] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// Whether there is a test of this name.
pub fn known(name: &str) -> bool {
    NAMES.contains(&name)
}

fn remainder(value: &Value, of: Value) -> Result<Value> {
    operators::math("%", value, &of)
}

/// Whether `value` passes the test.
///
/// # Errors
/// If there is no such test, or it does not take the value.
pub fn test(name: &str, value: &Value, arguments: Arguments) -> Result<bool> {
    let comparison = match name {
        "==" | "eq" | "equalto" => Some("=="),
        "!=" | "ne" => Some("!="),
        "<" | "lt" | "lessthan" => Some("<"),
        "<=" | "le" => Some("<="),
        ">" | "gt" | "greaterthan" => Some(">"),
        ">=" | "ge" => Some(">="),
        "in" => Some("in"),
        _ => None,
    };
    if let Some(op) = comparison {
        let [other] = arguments.plain(name, 1)?;
        return operators::compare(op, value, &other.unwrap_or(Value::None));
    }
    match name {
        "sameas" => {
            let [other] = arguments.take(name, ["other"], 1)?;
            return Ok(value.is(&other.unwrap_or(Value::None)));
        }
        "divisibleby" => {
            let [n] = arguments.take(name, ["num"], 1)?;
            return remainder(value, n.unwrap_or(Value::None))?.equals(&Value::Int(0));
        }
        _ => {}
    }
    let [] = arguments.plain(name, 0)?;
    Ok(match name {
        "boolean" => matches!(value, Value::Bool(_)),
        "callable" => match value {
            // An undefined value has the method that fails.
            Value::Undefined(_) => true,
            Value::Object(object) => {
                !matches!(&**object, Object::Namespace(_) | Object::Cycler(..))
            }
            _ => false,
        },
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "escaped" => false,
        "even" => remainder(value, Value::Int(2))?.equals(&Value::Int(0))?,
        "odd" => remainder(value, Value::Int(2))?.equals(&Value::Int(1))?,
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "float" => matches!(value, Value::Float(_)),
        "integer" => matches!(value, Value::Int(_)),
        "number" => matches!(value.number(), Some(Number::Int(_) | Number::Float(_))),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "none" => matches!(value, Value::None),
        "iterable" => match value {
            Value::Object(object) => matches!(&**object, Object::Loop(_)),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => false,
            _ => true,
        },
        "sequence" => matches!(
            value,
            Value::Undefined(_)
                | Value::Str(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Dict(_)
                | Value::Range(_)
        ),
        "lower" | "upper" => {
            let text = print::string(value)?;
            strings::cased(&text, name == "upper")
        }
        "filter" => match value {
            Value::Str(name) => filters::known(name),
            other => {
                other.key()?;
                false
            }
        },
        "test" => match value {
            Value::Str(name) => known(name),
            other => {
                other.key()?;
                false
            }
        },
        other => return Err(Error::runtime(format!("No test named '{other}' found."))),
    })
}

/// `int(value)` of a number; `None` of anything else.
pub fn whole(value: &Value) -> Option<i128> {
    match value.number()? {
        Number::Int(n) => Some(n),
        Number::Float(n) => numbers::truncate(n),
    }
}
