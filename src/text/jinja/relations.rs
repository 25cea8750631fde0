//! How values stand to each other: equality, order, membership.

use std::cmp::Ordering;
use std::rc::Rc;

use super::value::{Items, Number, Object, Value, View};
use super::{Error, Result, meter};

impl Value {
    /// `self == other`
    ///
    /// # Errors
    /// If a limit is reached.
    pub fn equals(&self, other: &Value) -> Result<bool> {
        meter::spend(1)?;
        if let (Some(a), Some(b)) = (self.number(), other.number()) {
            return Ok(compare_numbers(&a, &b) == Some(Ordering::Equal));
        }
        let sequences = |a: &Items, b: &Items| -> Result<bool> {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b.iter()) {
                if !a.is(b) && !a.equals(b)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        Ok(match (self, other) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
            (Value::Str(a), Value::Str(b)) => {
                meter::spend_bytes(a.len().min(b.len()))?;
                a == b
            }
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
                Rc::ptr_eq(a, b) || sequences(a, b)?
            }
            (Value::Dict(a), Value::Dict(b)) => {
                if Rc::ptr_eq(a, b) {
                    return Ok(true);
                }
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (key, value) in a.pairs() {
                    let Some(theirs) = b.get(&key.key()?) else {
                        return Ok(false);
                    };
                    if !value.is(theirs) && !value.equals(theirs)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Range(a), Value::Range(b)) => {
                a.len() == b.len()
                    && (a.len() == 0 || a.start == b.start && (a.len() == 1 || a.step == b.step))
            }
            (Value::View(View::Keys, a), Value::View(View::Keys, b)) => {
                a.len() == b.len() && a.within(b)
            }
            (Value::Object(a), Value::Object(b)) => match (&**a, &**b) {
                (Object::Function(a), Object::Function(b)) => a == b,
                (Object::Method(a, name), Object::Method(b, other)) => name == other && a.is(b),
                _ => Rc::ptr_eq(a, b),
            },
            (Value::View(View::Items, a), Value::View(View::Items, b)) => {
                Value::Dict(a.clone()).equals(&Value::Dict(b.clone()))?
            }
            (Value::View(a, of), Value::View(b, other)) => a == b && Rc::ptr_eq(of, other),
            (Value::Iter(_, a), Value::Iter(_, b)) => Rc::ptr_eq(a, b),
            _ => false,
        })
    }

    /// `self is other`
    pub fn is(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::None, Value::None) => true,
            (Value::Undefined(a), Value::Undefined(b)) => Rc::ptr_eq(a, b),
            (Value::Bool(a), Value::Bool(b)) => a == b,
            // As CPython has it for small numbers and for short texts of the template.
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
                Rc::ptr_eq(a, b)
                    || (a.is_empty() && b.is_empty() && matches!(self, Value::Tuple(_)))
            }
            (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
            (Value::Iter(_, a), Value::Iter(_, b)) => Rc::ptr_eq(a, b),
            (Value::Object(a), Value::Object(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// How it stands to `other`; `sign` is the operator, for the error.
    ///
    /// # Errors
    /// If their types have no order.
    pub fn compare(&self, other: &Value, sign: &str) -> Result<Option<Ordering>> {
        meter::spend(1)?;
        if let (Some(a), Some(b)) = (self.number(), other.number()) {
            return Ok(compare_numbers(&a, &b));
        }
        match (self, other) {
            (Value::Undefined(why), _) | (_, Value::Undefined(why)) => Err(why.error()),
            (Value::Str(a), Value::Str(b)) => {
                meter::spend_bytes(a.len().min(b.len()))?;
                Ok(Some((**a).cmp(&**b)))
            }
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.is(b) && !a.equals(b)? {
                        return a.compare(b, sign);
                    }
                }
                Ok(Some(a.len().cmp(&b.len())))
            }
            _ => Err(Error::runtime(format!(
                "'{sign}' not supported between instances of '{}' and '{}'",
                self.type_name(),
                other.type_name()
            ))),
        }
    }

    /// `item in self`
    ///
    /// # Errors
    /// If its type holds nothing.
    pub fn contains(&self, item: &Value) -> Result<bool> {
        match self {
            Value::Str(text) => match item {
                Value::Str(part) => {
                    meter::spend_bytes(text.len())?;
                    Ok(text.contains(&**part))
                }
                other => Err(Error::runtime(format!(
                    "'in <string>' requires string as left operand, not {}",
                    other.type_name()
                ))),
            },
            Value::Dict(dict) | Value::View(View::Keys, dict) => match item {
                Value::Undefined(_) => Ok(false),
                _ => Ok(dict.get(&item.key()?).is_some()),
            },
            Value::Range(span) => Ok(match item.number() {
                Some(Number::Int(n)) => {
                    let offset = n.saturating_sub(span.start);
                    let inside = match span.step > 0 {
                        true => n >= span.start && n < span.stop,
                        false => n <= span.start && n > span.stop,
                    };
                    inside && offset % span.step == 0
                }
                _ => false,
            }),
            Value::Iter(items, at) => {
                while at.get() < items.len() {
                    let next = items.get(at.get());
                    at.set(at.get() + 1);
                    if let Some(next) = next
                        && (next.is(item) || next.equals(item)?)
                    {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Value::List(items) | Value::Tuple(items) => {
                for other in items.iter() {
                    if other.is(item) || other.equals(item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Value::View(..) | Value::Undefined(_) => {
                for other in self.iterate()? {
                    if other.is(item) || other.equals(item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            other => Err(Error::runtime(format!(
                "argument of type '{}' is not iterable",
                other.type_name()
            ))),
        }
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(b)),
        (Number::Int(a), Number::Float(b)) => compare_mixed(*a, *b),
        (Number::Float(a), Number::Int(b)) => compare_mixed(*b, *a).map(Ordering::reverse),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(b),
    }
}

fn compare_mixed(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    if b.abs() >= 1.7e38 {
        return 0.0f64.partial_cmp(&b);
    }
    Some(a.cmp(&(b.floor() as i128)).then(match b.fract() == 0.0 {
        true => Ordering::Equal,
        false => Ordering::Less,
    }))
}
