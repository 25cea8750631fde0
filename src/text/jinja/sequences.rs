//! Filters of sequences.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::arguments::{self, Arguments, count};
use super::text::{Builder, Str};
use super::value::{Value, View};
use super::{Error, Result, attributes, meter, operators, print};

/// The parts of an attribute's name, as in `a.b.0`.
///
/// # Errors
/// If it is no name.
pub fn parts(name: &Value) -> Result<Vec<Value>> {
    Ok(match name {
        Value::None => Vec::new(),
        Value::Str(text) => {
            let part = |part: &str| match part.parse::<i128>() {
                Ok(n) if part.bytes().all(|b| b.is_ascii_digit()) => Value::Int(n),
                _ => Value::str(part),
            };
            text.split('.').map(part).collect()
        }
        other => vec![other.clone()],
    })
}

/// An attribute of an attribute.
///
/// # Errors
/// If there is none on the way.
pub fn attribute(item: &Value, parts: &[Value], default: Option<&Value>) -> Result<Value> {
    let mut value = item.clone();
    for part in parts {
        value = attributes::item(&value, part)?;
        if let (Some(default), Value::Undefined(_)) = (default, &value) {
            value = default.clone();
        }
    }
    Ok(value)
}

fn folded(value: Value, sensitive: bool) -> Value {
    match value {
        Value::Str(text) if !sensitive => Value::Str(text.map(str::to_lowercase)),
        other => other,
    }
}

/// The places of the keys in ascending order, or descending; equal ones stay as they are.
///
/// # Errors
/// If they have no order.
pub fn order(keys: Vec<Value>, reverse: bool) -> Result<Vec<usize>> {
    let n = keys.len() as u64;
    meter::spend(n.saturating_mul(u64::from(64 - n.leading_zeros())))?;
    let mut failed = None;
    let mut places: Vec<(usize, Value)> = keys.into_iter().enumerate().collect();
    places.sort_by(|(_, a), (_, b)| {
        if failed.is_some() {
            return Ordering::Equal;
        }
        let (a, b) = if reverse { (b, a) } else { (a, b) };
        match a.compare(b, "<") {
            Ok(order) => order.unwrap_or(Ordering::Equal),
            Err(e) => {
                failed = Some(e);
                Ordering::Equal
            }
        }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(places.into_iter().map(|(at, _)| at).collect()),
    }
}

fn sorted(items: Vec<Value>, keys: Vec<Value>, reverse: bool) -> Result<Vec<Value>> {
    let order = order(keys, reverse)?;
    Ok(order
        .into_iter()
        .filter_map(|at| items.get(at).cloned())
        .collect())
}

fn flag(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.truth())
}

/// Applies one of them.
///
/// # Errors
/// If the value is no sequence, arguments are wrong, or a limit is reached.
pub fn apply(name: &str, value: Value, arguments: Arguments) -> Result<Value> {
    match name {
        "join" => return join(&value, arguments),
        "sort" => return sort(&value, arguments),
        "dictsort" => return dictsort(&value, arguments),
        "unique" => return unique(&value, arguments),
        "min" | "max" => return extreme(name, &value, arguments),
        "sum" => return sum(&value, arguments),
        "groupby" => return groupby(&value, arguments),
        "batch" => return batch(&value, arguments),
        "slice" => return slices(&value, arguments),
        _ => {}
    }
    let [] = arguments.plain(name, 0)?;
    match name {
        "count" | "length" => match value.len() {
            Some(n) => Ok(Value::count(n)),
            None => Err(Error::runtime(format!(
                "object of type '{}' has no len()",
                value.type_name()
            ))),
        },
        "list" => Value::list(value.iterate()?),
        "items" => match &value {
            Value::Dict(dict) => Value::iter_of(Value::View(View::Items, dict.clone()).iterate()?),
            Value::Undefined(_) => Value::iter_of(Vec::new()),
            _ => Err(Error::runtime("Can only get item pairs from a mapping.")),
        },
        "first" => Ok(value
            .first()?
            .unwrap_or_else(|| Value::missing("No first item, sequence was empty."))),
        "last" => {
            let items = reversible(&value)?;
            Ok(items
                .last()
                .cloned()
                .unwrap_or_else(|| Value::missing("No last item, sequence was empty.")))
        }
        _ => reverse(&value),
    }
}

fn reverse(value: &Value) -> Result<Value> {
    if let Value::Str(text) = value {
        let mut out = Builder::default();
        for (at, c) in text.char_indices().rev() {
            out.push(&text.part(at..at + c.len_utf8()))?;
        }
        return Ok(Value::Str(out.finish()));
    }
    let mut items = value.iterate()?;
    items.reverse();
    // Of what cannot be gone through backwards Jinja makes a list.
    match value {
        Value::Iter(..) => Value::list(items),
        _ => Value::iter_of(items),
    }
}

fn join(value: &Value, arguments: Arguments) -> Result<Value> {
    let [separator, by] = arguments.take("join", ["d", "attribute"], 0)?;
    let separator = match separator {
        Some(separator) => print::string(&separator)?,
        None => Str::constant(""),
    };
    let by = match by {
        None | Some(Value::None) => None,
        Some(by) => Some(parts(&by)?),
    };
    let mut out = Builder::default();
    for (at, item) in value.iterate()?.into_iter().enumerate() {
        if at > 0 {
            out.push(&separator)?;
        }
        match &by {
            Some(parts) => print::write(&attribute(&item, parts, None)?, &mut out)?,
            None => print::write(&item, &mut out)?,
        }
    }
    Ok(Value::Str(out.finish()))
}

fn sort(value: &Value, arguments: Arguments) -> Result<Value> {
    let [reverse, sensitive, by] =
        arguments.take("sort", ["reverse", "case_sensitive", "attribute"], 0)?;
    let sensitive = flag(sensitive);
    let items = value.iterate()?;
    let by: Vec<Vec<Value>> = match by {
        None | Some(Value::None) => vec![Vec::new()],
        Some(Value::Str(text)) => text
            .split(',')
            .map(|part| parts(&Value::str(part)))
            .collect::<Result<_>>()?,
        Some(other) => vec![parts(&other)?],
    };
    let mut keys = Vec::with_capacity(items.len());
    for item in &items {
        let mut key = Vec::new();
        for parts in &by {
            key.push(folded(attribute(item, parts, None)?, sensitive));
        }
        keys.push(Value::list(key)?);
    }
    Value::list(sorted(items, keys, flag(reverse))?)
}

fn dictsort(value: &Value, arguments: Arguments) -> Result<Value> {
    let [sensitive, by, reverse] =
        arguments.take("dictsort", ["case_sensitive", "by", "reverse"], 0)?;
    let by = arguments::text(by, "by")?.unwrap_or_else(|| Str::constant("key"));
    let place = match &*by {
        "key" => 0,
        "value" => 1,
        _ => {
            return Err(Error::runtime(
                "You can only sort by either \"key\" or \"value\"",
            ));
        }
    };
    let Value::Dict(dict) = value else {
        return Err(match value {
            Value::Undefined(why) => why.error(),
            other => Error::runtime(format!(
                "'{}' object has no attribute 'items'",
                other.type_name()
            )),
        });
    };
    let sensitive = flag(sensitive);
    let keys = dict.pairs().iter().map(|(key, value)| {
        folded(
            if place == 0 {
                key.clone()
            } else {
                value.clone()
            },
            sensitive,
        )
    });
    let keys = keys.collect();
    let items = Value::View(View::Items, dict.clone()).iterate()?;
    Value::list(sorted(items, keys, flag(reverse))?)
}

fn unique(value: &Value, arguments: Arguments) -> Result<Value> {
    let [sensitive, by] = arguments.take("unique", ["case_sensitive", "attribute"], 0)?;
    let by = parts(&by.unwrap_or(Value::None))?;
    let sensitive = flag(sensitive);
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for item in value.iterate()? {
        let key = folded(attribute(&item, &by, None)?, sensitive);
        if seen.insert(key.key()?) {
            out.push(item);
        }
    }
    Value::iter_of(out)
}

fn extreme(name: &str, value: &Value, arguments: Arguments) -> Result<Value> {
    let [sensitive, by] = arguments.take(name, ["case_sensitive", "attribute"], 0)?;
    let by = parts(&by.unwrap_or(Value::None))?;
    let sensitive = flag(sensitive);
    let mut best: Option<(Value, Value)> = None;
    let op = if name == "min" { "<" } else { ">" };
    for item in value.iterate()? {
        let key = folded(attribute(&item, &by, None)?, sensitive);
        let better = match &best {
            Some((_, than)) => operators::compare(op, &key, than)?,
            None => true,
        };
        if better {
            best = Some((item, key));
        }
    }
    Ok(best.map_or_else(
        || Value::missing("No aggregated item, sequence was empty."),
        |(item, _)| item,
    ))
}

fn sum(value: &Value, arguments: Arguments) -> Result<Value> {
    let [by, start] = arguments.take("sum", ["attribute", "start"], 0)?;
    let by = parts(&by.unwrap_or(Value::None))?;
    let mut total = start.unwrap_or(Value::Int(0));
    if let Value::Str(_) = total {
        return Err(Error::runtime(
            "sum() can't sum strings [use ''.join(seq) instead]",
        ));
    }
    for item in value.iterate()? {
        total = operators::math("+", &total, &attribute(&item, &by, None)?)?;
    }
    Ok(total)
}

fn groupby(value: &Value, arguments: Arguments) -> Result<Value> {
    let [by, default, sensitive] =
        arguments.take("groupby", ["attribute", "default", "case_sensitive"], 1)?;
    let by = parts(&by.unwrap_or(Value::None))?;
    let default = default.filter(|default| !matches!(default, Value::None));
    let sensitive = flag(sensitive);
    let items = value.iterate()?;
    let mut keys = Vec::with_capacity(items.len());
    for item in &items {
        keys.push(folded(attribute(item, &by, default.as_ref())?, sensitive));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for at in order(keys.clone(), false)? {
        let (Some(key), Some(item)) = (keys.get(at), items.get(at)) else {
            continue;
        };
        match groups.last_mut() {
            Some((last, group)) if last.equals(key)? => group.push(item.clone()),
            _ => groups.push((key.clone(), vec![item.clone()])),
        }
    }
    let mut out = Vec::with_capacity(groups.len());
    for (key, group) in groups {
        // Shown as the first of the group has it.
        let shown = match (sensitive, group.first()) {
            (false, Some(first)) => attribute(first, &by, default.as_ref())?,
            _ => key,
        };
        out.push(Value::group(shown, Value::list(group)?)?);
    }
    Value::list(out)
}

fn batch(value: &Value, arguments: Arguments) -> Result<Value> {
    let [size, fill] = arguments.take("batch", ["linecount", "fill_with"], 1)?;
    let size = count(arguments::int(size)?.unwrap_or(0));
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let mut out = Vec::new();
    let mut row: Vec<Value> = Vec::new();
    for item in value.iterate()? {
        if row.len() == size {
            out.push(Value::list(std::mem::take(&mut row))?);
        }
        row.push(item);
    }
    if !row.is_empty() {
        if let Some(fill) = fill {
            let missing = size.saturating_sub(row.len());
            meter::allow_memory(missing.saturating_mul(size_of::<Value>()))?;
            meter::spend(missing as u64)?;
            row.resize(row.len() + missing, fill);
        }
        out.push(Value::list(row)?);
    }
    Value::iter_of(out)
}

fn slices(value: &Value, arguments: Arguments) -> Result<Value> {
    let [slices, fill] = arguments.take("slice", ["slices", "fill_with"], 1)?;
    let slices = count(arguments::int(slices)?.unwrap_or(0));
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let items = value.iterate()?;
    if slices == 0 {
        return Err(Error::runtime("integer division or modulo by zero"));
    }
    meter::allow_memory(slices.saturating_mul(128))?;
    meter::spend(slices as u64)?;
    let (each, extra) = (items.len() / slices, items.len() % slices);
    let mut out = Vec::with_capacity(slices);
    let mut at = 0;
    for n in 0..slices {
        let size = each + usize::from(n < extra);
        let mut part: Vec<Value> = items.get(at..at + size).unwrap_or_default().to_vec();
        at += size;
        if let (Some(fill), true) = (&fill, n >= extra) {
            part.push(fill.clone());
        }
        out.push(Value::list(part)?);
    }
    Value::iter_of(out)
}

fn reversible(value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Iter(..) => Err(Error::runtime("'generator' object is not reversible")),
        other => other.iterate(),
    }
}
