//! `map`, `select`, `reject` and their forms for attributes.

use super::arguments::Arguments;
use super::run::Run;
use super::value::Value;
use super::{Error, Result, filters, is_tests, print, sequences};

/// Applies one of them.
///
/// # Errors
/// If its arguments are wrong, what it applies fails, or a limit is reached.
pub fn apply(run: &mut Run<'_>, name: &str, value: &Value, arguments: Arguments) -> Result<Value> {
    if !value.truth() {
        return Value::iter_of(Vec::new());
    }
    let items = value.iterate()?;
    let mut out = Vec::with_capacity(items.len());
    if name == "map" {
        return map(run, items, arguments);
    }
    let Arguments { positional, named } = arguments;
    let mut given = positional.into_iter();
    let attribute = match name.ends_with("attr") {
        true => match given.next() {
            Some(attribute) => Some(sequences::parts(&attribute)?),
            None => return Err(Error::runtime("Missing parameter for attribute name")),
        },
        false => None,
    };
    let test = match given.next() {
        Some(test) => Some(print::string(&test)?),
        None => None,
    };
    let rest: Vec<Value> = given.collect();
    let keep = name.starts_with("select");
    for item in items {
        run.room()?;
        let subject = match &attribute {
            Some(parts) => sequences::attribute(&item, parts, None)?,
            None => item.clone(),
        };
        let passes = match &test {
            Some(test) => {
                let arguments = Arguments {
                    positional: rest.clone(),
                    named: named.clone(),
                };
                is_tests::test(test, &subject, arguments)?
            }
            None => subject.truth(),
        };
        if passes == keep {
            out.push(item);
        }
    }
    Value::iter_of(out)
}

fn map(run: &mut Run<'_>, items: Vec<Value>, arguments: Arguments) -> Result<Value> {
    let Arguments { positional, named } = arguments;
    let mut out = Vec::with_capacity(items.len());
    if positional.is_empty() {
        let [attribute, default] =
            Arguments { positional, named }.take("map", ["attribute", "default"], 0)?;
        let Some(attribute) = attribute else {
            return Err(Error::runtime("map requires a filter argument"));
        };
        let parts = sequences::parts(&attribute)?;
        let default = default.filter(|default| !matches!(default, Value::None));
        for item in items {
            run.room()?;
            out.push(sequences::attribute(&item, &parts, default.as_ref())?);
        }
        return Value::iter_of(out);
    }
    let mut given = positional.into_iter();
    let filter = print::string(&given.next().unwrap_or(Value::None))?;
    let rest: Vec<Value> = given.collect();
    for item in items {
        run.room()?;
        let arguments = Arguments {
            positional: rest.clone(),
            named: named.clone(),
        };
        out.push(run.deeper(|run| filters::apply(run, &filter, item, arguments))?);
    }
    Value::iter_of(out)
}
