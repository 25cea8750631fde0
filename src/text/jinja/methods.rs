//! Methods of lists, dictionaries and numbers. None of them changes what it is called on: the sandbox forbids those.

use super::arguments::Arguments;
use super::dict::Dict;
use super::value::{Value, View};
use super::{Error, Result, meter, numbers, print};

/// Calls a method.
///
/// # Errors
/// As Python's raises, or if a limit is reached.
pub fn call(of: &Value, name: &'static str, arguments: Arguments) -> Result<Value> {
    meter::spend(1)?;
    match of {
        Value::Dict(dict) => match name {
            "items" | "keys" | "values" => {
                let [] = arguments.plain(name, 0)?;
                let view = match name {
                    "items" => View::Items,
                    "keys" => View::Keys,
                    _ => View::Values,
                };
                Ok(Value::View(view, dict.clone()))
            }
            "get" => {
                let [key, default] = arguments.plain(name, 1)?;
                let key = match key {
                    Some(Value::Undefined(_)) => None,
                    key => dict.get(&key.unwrap_or(Value::None).key()?),
                };
                Ok(key.cloned().or(default).unwrap_or(Value::None))
            }
            "copy" => {
                let [] = arguments.plain(name, 0)?;
                Ok(of.clone())
            }
            _ => {
                let [keys, value] = arguments.plain(name, 1)?;
                let mut out = Dict::new();
                for key in keys.unwrap_or(Value::None).iterate()? {
                    out.insert(key, value.clone().unwrap_or(Value::None))?;
                }
                Ok(Value::dict(out))
            }
        },
        Value::List(_) | Value::Tuple(_) | Value::Range(_) => match name {
            "copy" => {
                let [] = arguments.plain(name, 0)?;
                Ok(of.clone())
            }
            "count" => {
                let [item] = arguments.plain(name, 1)?;
                let item = item.unwrap_or(Value::None);
                let mut n = 0;
                for other in of.iterate()? {
                    n += usize::from(other.is(&item) || other.equals(&item)?);
                }
                Ok(Value::count(n))
            }
            _ => {
                let [item, start, stop] = arguments.plain(name, 1)?;
                let item = item.unwrap_or(Value::None);
                let all = of.iterate()?;
                let n = i128::try_from(all.len()).unwrap_or(i128::MAX);
                let place = |at: i128| {
                    super::arguments::count(if at < 0 { at.saturating_add(n) } else { at })
                };
                let from = super::arguments::int(start)?.map_or(0, place);
                let to = super::arguments::int(stop)?.map_or(usize::MAX, place);
                for (at, other) in all.iter().enumerate() {
                    if at >= from && at < to && (other.is(&item) || other.equals(&item)?) {
                        return Ok(Value::count(at));
                    }
                }
                Err(Error::runtime(format!(
                    "{} is not in list",
                    &*print::repr(&item)?
                )))
            }
        },
        Value::View(..) => {
            let [other] = arguments.plain(name, 1)?;
            for item in other.unwrap_or(Value::None).iterate()? {
                if of.contains(&item)? {
                    return Ok(Value::Bool(false));
                }
            }
            Ok(Value::Bool(true))
        }
        Value::Int(_) | Value::Bool(_) => {
            let [] = arguments.plain(name, 0)?;
            let n = of.int().unwrap_or(0);
            let magnitude = n.unsigned_abs();
            Ok(match name {
                "bit_length" => Value::Int(i128::from(128 - magnitude.leading_zeros())),
                "bit_count" => Value::Int(magnitude.count_ones().into()),
                "is_integer" => Value::Bool(true),
                "as_integer_ratio" => Value::tuple(vec![Value::Int(n), Value::Int(1)])?,
                _ => Value::Int(n),
            })
        }
        Value::Float(n) => {
            let [] = arguments.plain(name, 0)?;
            match name {
                "is_integer" => Ok(Value::Bool(n.is_finite() && n.fract() == 0.0)),
                "conjugate" => Ok(Value::Float(*n)),
                other => Err(Error::runtime(format!(
                    "float.{other} is not known here ({})",
                    numbers::float(*n)
                ))),
            }
        }
        other => Err(Error::runtime(format!(
            "'{}' object has no method {name}",
            other.type_name()
        ))),
    }
}
