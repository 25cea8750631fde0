//! `format % values`

use super::arguments::count;
use super::format::{self, Spec};
use super::text::{Builder, Str};
use super::value::{Number, Value};
use super::{Error, Result, numbers, print, strings};

/// One conversion, as `%-5.2f` asks for it.
struct Field {
    spec: Spec,
    left: bool,
    zero: bool,
    kind: char,
}

/// `text % values`
///
/// # Errors
/// As Python's raises, or if a limit is reached.
pub fn format(text: &Str, values: &Value) -> Result<Value> {
    let mut out = Builder::default();
    let single = [values.clone()];
    let list: &[Value] = match values {
        Value::Tuple(items) => items,
        _ => &single,
    };
    let mut next = list.iter();
    let mut at = 0;
    while let Some(found) = text
        .get(at..)
        .and_then(|rest| rest.find('%'))
        .map(|found| found + at)
    {
        out.push(&text.part(at..found))?;
        let mut rest = text.get(found + 1..).unwrap_or_default();
        let named = by_key(&mut rest, values)?;
        let field = field(&mut rest, &mut next)?;
        at = text.len() - rest.len();
        if field.kind == '%' {
            out.push_str("%")?;
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => match next.next() {
                Some(value) => value.clone(),
                None => return Err(Error::runtime("not enough arguments for format string")),
            },
        };
        out.push(&converted(&value, field)?)?;
    }
    out.push(&text.part(at..text.len()))?;
    // What can be asked for by key is not counted.
    let counted = matches!(values, Value::Tuple(_) | Value::Str(_) | Value::None)
        || values.number().is_some();
    if counted && next.next().is_some() {
        return Err(Error::runtime(
            "not all arguments converted during string formatting",
        ));
    }
    Ok(Value::Str(out.finish()))
}

/// The value of the key in parentheses, if `rest` begins with one; `rest` goes on behind it.
fn by_key(rest: &mut &str, values: &Value) -> Result<Option<Value>> {
    let Some(named) = rest.strip_prefix('(') else {
        return Ok(None);
    };
    let mut open = 1;
    let end = named.char_indices().find(|(_, c)| {
        open += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        open == 0
    });
    let Some((end, _)) = end else {
        return Err(Error::runtime("incomplete format key"));
    };
    let Value::Dict(dict) = values else {
        return Err(Error::runtime("format requires a mapping"));
    };
    let key = named.get(..end).unwrap_or_default();
    let Some(found) = dict.get_str(&Str::from(key)) else {
        return Err(Error::runtime(format!("'{key}'")));
    };
    *rest = named.get(end + 1..).unwrap_or_default();
    Ok(Some(found.clone()))
}

/// The conversion that `rest` begins with, behind the `%` and the key; `rest` goes on behind it. What it
/// wants as `*` is taken from `next`.
fn field(rest: &mut &str, next: &mut std::slice::Iter<'_, Value>) -> Result<Field> {
    let mut spec = Spec::default();
    let (mut left, mut zero) = (false, false);
    while let Some(flag) = rest
        .chars()
        .next()
        .filter(|c| matches!(c, '-' | '+' | ' ' | '#' | '0'))
    {
        match flag {
            '-' => left = true,
            '0' => zero = true,
            '#' => spec.alternate = true,
            '+' => spec.sign = Some('+'),
            _ => spec.sign = spec.sign.or(Some(' ')),
        }
        *rest = rest.get(1..).unwrap_or_default();
    }
    if let Some(width) = size(rest, next)? {
        left |= width < 0;
        spec.width = count(width.saturating_abs());
    }
    if let Some(tail) = rest.strip_prefix('.') {
        *rest = tail;
        spec.precision = Some(count(size(rest, next)?.unwrap_or(0)));
    }
    *rest = rest.trim_start_matches(['h', 'l', 'L']);
    let Some(kind) = rest.chars().next() else {
        return Err(Error::runtime("incomplete format"));
    };
    *rest = rest.get(kind.len_utf8()..).unwrap_or_default();
    Ok(Field {
        spec,
        left,
        zero,
        kind,
    })
}

/// A width or a precision: digits, or `*` for the next value.
fn size(rest: &mut &str, next: &mut std::slice::Iter<'_, Value>) -> Result<Option<i128>> {
    if let Some(tail) = rest.strip_prefix('*') {
        *rest = tail;
        return match next.next().and_then(Value::int) {
            Some(n) => Ok(Some(n)),
            None => Err(Error::runtime("* wants int")),
        };
    }
    let stop = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(stop);
    *rest = tail;
    match digits.is_empty() {
        true => Ok(None),
        false => Ok(Some(digits.parse().unwrap_or(i128::MAX))),
    }
}

fn converted(value: &Value, field: Field) -> Result<Str> {
    let Field {
        spec,
        left,
        zero,
        kind,
    } = field;
    let text = match kind {
        's' | 'r' | 'a' => {
            let whole = match kind {
                's' => print::string(value)?,
                kind => format::ascii_if(kind == 'a', print::repr(value)?),
            };
            let end = spec
                .precision
                .and_then(|n| whole.char_indices().nth(n))
                .map_or(whole.len(), |(at, _)| at);
            whole.part(0..end)
        }
        'c' => match (value, value.int()) {
            (Value::Str(text), _) if text.chars().count() == 1 => text.clone(),
            (_, Some(code)) => {
                let c = u32::try_from(code).ok().and_then(char::from_u32);
                let c = c.ok_or_else(|| Error::runtime("%c arg not in range(0x110000)"))?;
                Str::from(c.to_string())
            }
            _ => return Err(Error::runtime("%c requires int or char")),
        },
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            return numeric(value, kind, spec, left, zero);
        }
        other => {
            return Err(Error::runtime(format!(
                "unsupported format character '{other}' ({:#x})",
                u32::from(other)
            )));
        }
    };
    let side = if left { "ljust" } else { "rjust" };
    strings::pad(&text, spec.width, &Str::constant(" "), side)
}

fn numeric(value: &Value, kind: char, mut spec: Spec, left: bool, zero: bool) -> Result<Str> {
    let Some(mut n) = value.number() else {
        return Err(match value {
            Value::Undefined(why) => why.error(),
            other if matches!(kind, 'd' | 'i' | 'u') => Error::runtime(format!(
                "%{kind} format: a real number is required, not {}",
                other.type_name()
            )),
            other if matches!(kind, 'o' | 'x' | 'X') => Error::runtime(format!(
                "%{kind} format: an integer is required, not {}",
                other.type_name()
            )),
            other => Error::runtime(format!("must be real number, not {}", other.type_name())),
        });
    };
    let whole = matches!(kind, 'd' | 'i' | 'u' | 'o' | 'x' | 'X');
    if whole {
        n = match n {
            Number::Int(n) => Number::Int(n),
            Number::Float(_) if matches!(kind, 'o' | 'x' | 'X') => {
                return Err(Error::runtime(format!(
                    "%{kind} format: an integer is required, not float"
                )));
            }
            Number::Float(n) => match numbers::truncate(n) {
                Some(n) => Number::Int(n),
                None => return Err(Error::runtime("cannot convert float to integer")),
            },
        };
    } else {
        n = Number::Float(n.float());
    }
    spec.kind = Some(match kind {
        'i' | 'u' => 'd',
        other => other,
    });
    spec.align = Some(match (left, zero) {
        (true, _) => '<',
        (_, true) => '=',
        _ => '>',
    });
    spec.fill = (zero && !left).then_some('0');
    if whole && let Some(least) = spec.precision.take() {
        // Of a whole number, how many digits at least.
        let Number::Int(value) = n else {
            return Ok(Str::constant(""));
        };
        let digits = Spec {
            kind: spec.kind,
            alternate: spec.alternate,
            ..Spec::default()
        };
        let mut inner = Spec {
            width: least.min(format::PRECISION),
            fill: Some('0'),
            align: Some('='),
            ..digits
        };
        inner.sign = spec.sign;
        inner.width += usize::from(value < 0 || spec.sign.is_some());
        let text = format::number(n, &inner)?;
        return strings::pad(
            &text,
            spec.width,
            &Str::constant(" "),
            if left { "ljust" } else { "rjust" },
        );
    }
    format::number(n, &spec)
}
