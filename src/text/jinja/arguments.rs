//! Arguments of calls, and how they meet parameters.

use super::text::Str;
use super::value::Value;
use super::{Error, Result};

/// Evaluated arguments.
#[derive(Default)]
pub struct Arguments {
    /// In order
    pub positional: Vec<Value>,
    /// By name
    pub named: Vec<(Str, Value)>,
}

impl Arguments {
    /// Positional ones.
    pub fn of(positional: Vec<Value>) -> Arguments {
        Arguments {
            positional,
            named: Vec::new(),
        }
    }

    /// Their values in the order of `names`; the first `required` of them must be there.
    ///
    /// # Errors
    /// If there are too many, too few, twice the same, or unknown ones.
    pub fn take<const N: usize>(
        self,
        who: &str,
        names: [&str; N],
        required: usize,
    ) -> Result<[Option<Value>; N]> {
        if self.positional.len() > N {
            return Err(Error::runtime(format!(
                "{who}() takes at most {N} arguments ({} given)",
                self.positional.len()
            )));
        }
        let mut values = [const { None }; N];
        for (slot, value) in values.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let found = names.iter().position(|known| **known == *name);
            match found.and_then(|at| values.get_mut(at)) {
                Some(slot @ None) => *slot = Some(value),
                Some(Some(_)) => {
                    return Err(Error::runtime(format!(
                        "{who}() got multiple values for argument '{}'",
                        &*name
                    )));
                }
                None => {
                    return Err(Error::runtime(format!(
                        "{who}() got an unexpected keyword argument '{}'",
                        &*name
                    )));
                }
            }
        }
        let missing = names
            .iter()
            .zip(&values)
            .take(required)
            .find(|(_, value)| value.is_none());
        match missing {
            Some((name, _)) => Err(Error::runtime(format!(
                "{who}() missing required argument: '{name}'"
            ))),
            None => Ok(values),
        }
    }

    /// Like [`Arguments::take`], for functions of Python's that take no names.
    ///
    /// # Errors
    /// As there.
    pub fn plain<const N: usize>(self, who: &str, required: usize) -> Result<[Option<Value>; N]> {
        match self.named.is_empty() {
            true => self.take(who, [""; N], required),
            false => Err(Error::runtime(format!(
                "{who}() takes no keyword arguments"
            ))),
        }
    }
}

/// What a parameter that is text, or absent, or `None` holds.
///
/// # Errors
/// If it is something else.
pub fn text(value: Option<Value>, what: &str) -> Result<Option<Str>> {
    match value {
        None | Some(Value::None) => Ok(None),
        Some(Value::Str(text)) => Ok(Some(text)),
        Some(Value::Undefined(why)) => Err(why.error()),
        Some(other) => Err(Error::runtime(format!(
            "{what} must be str, not {}",
            other.type_name()
        ))),
    }
}

/// What a parameter that is a whole number, or absent, holds.
///
/// # Errors
/// If it is something else.
pub fn int(value: Option<Value>) -> Result<Option<i128>> {
    match value {
        None => Ok(None),
        Some(value) => match (value.int(), value) {
            (Some(n), _) => Ok(Some(n)),
            (_, Value::Undefined(why)) => Err(why.error()),
            (_, other) => Err(Error::runtime(format!(
                "'{}' object cannot be interpreted as an integer",
                other.type_name()
            ))),
        },
    }
}

/// A number as a count: none below 0, many above.
pub fn count(n: i128) -> usize {
    usize::try_from(n.max(0)).unwrap_or(usize::MAX)
}
