//! Python's arithmetic, and how it writes and reads numbers.

use super::value::{Number, Value};
use super::{Error, Result};

/// A whole number, if it was not too large for us: Python's have no end.
///
/// # Errors
/// If it was.
pub fn checked(n: Option<i128>) -> Result<Value> {
    match n {
        Some(n) => Ok(Value::Int(n)),
        None => Err(Error::limit("127 bits of a number".into())),
    }
}

fn zero(what: &str) -> Error {
    Error::runtime(what)
}

/// `a op b`
///
/// # Errors
/// If it divides by zero or becomes too large.
pub fn math(op: &str, a: Number, b: Number) -> Result<Value> {
    if let (Number::Int(a), Number::Int(b)) = (a, b) {
        return match op {
            "+" => checked(a.checked_add(b)),
            "-" => checked(a.checked_sub(b)),
            "*" => checked(a.checked_mul(b)),
            "/" if b == 0 => Err(zero("division by zero")),
            "/" => Ok(Value::Float(a as f64 / b as f64)),
            "//" if b == 0 => Err(zero("integer division or modulo by zero")),
            "//" => {
                let (Some(quotient), Some(rest)) = (a.checked_div(b), a.checked_rem(b)) else {
                    return checked(None);
                };
                Ok(Value::Int(
                    quotient - i128::from(rest != 0 && (rest < 0) != (b < 0)),
                ))
            }
            "%" if b == 0 => Err(zero("integer modulo by zero")),
            "%" => {
                let rest = a.checked_rem(b).unwrap_or(0);
                Ok(Value::Int(if rest != 0 && (rest < 0) != (b < 0) {
                    rest + b
                } else {
                    rest
                }))
            }
            _ if b < 0 && a == 0 => Err(zero("0.0 cannot be raised to a negative power")),
            _ if b < 0 => Ok(Value::Float((a as f64).powf(b as f64))),
            _ => match u32::try_from(b) {
                Ok(b) => checked(a.checked_pow(b)),
                Err(_) if a == 0 || a == 1 => Ok(Value::Int(a)),
                Err(_) if a == -1 => Ok(Value::Int(if b % 2 == 0 { 1 } else { -1 })),
                Err(_) => checked(None),
            },
        };
    }
    let (a, b) = (a.float(), b.float());
    Ok(Value::Float(match op {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" if b == 0.0 => return Err(zero("float division by zero")),
        "/" => a / b,
        "//" if b == 0.0 => return Err(zero("float floor division by zero")),
        "//" => {
            let rest = modulo(a, b);
            ((a - rest) / b).round()
        }
        "%" if b == 0.0 => return Err(zero("float modulo")),
        "%" => modulo(a, b),
        _ if a == 0.0 && b < 0.0 => return Err(zero("0.0 cannot be raised to a negative power")),
        _ => {
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return Err(zero("(34, 'Numerical result out of range')"));
            }
            if power.is_nan() && !a.is_nan() && !b.is_nan() {
                return Err(zero("complex numbers are not known here"));
            }
            power
        }
    }))
}

fn modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
        rest + b
    } else if rest == 0.0 {
        0.0f64.copysign(b)
    } else {
        rest
    }
}

/// `repr` of a float.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let plain = format!("{value:?}");
    match plain.split_once('e') {
        None => plain,
        Some((digits, exponent)) => {
            exponential(digits.strip_suffix(".0").unwrap_or(digits), exponent)
        }
    }
}

/// An exponent as C writes it: a sign and two digits or more.
pub fn exponential(digits: &str, exponent: &str) -> String {
    let (sign, size) = match exponent.strip_prefix('-') {
        Some(size) => ('-', size),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{size:0>2}")
}

/// `int(text, base)`; `None` if the text is none.
///
/// # Errors
/// If it is too large.
pub fn parse_int(text: &str, base: i128) -> Result<Option<i128>> {
    let text = text.trim_matches(super::lexer::is_space);
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixes = [("0x", 16u32), ("0o", 8), ("0b", 2)];
    let prefix = prefixes
        .iter()
        .find(|(prefix, _)| lower.starts_with(prefix));
    let (radix, body) = match (base, prefix) {
        (0, Some((_, radix))) => (*radix, lower.get(2..).unwrap_or_default()),
        (0, None) => (10, &*lower),
        (2..=36, Some((_, radix))) if base == i128::from(*radix) => {
            (*radix, lower.get(2..).unwrap_or_default())
        }
        (2..=36, _) => (u32::try_from(base).unwrap_or(10), &*lower),
        _ => return Ok(None),
    };
    let body = match radix != 10 && prefix.is_some() {
        true => body.strip_prefix('_').unwrap_or(body),
        false => body,
    };
    if body.is_empty() || body.starts_with('_') || body.ends_with('_') || body.contains("__") {
        return Ok(None);
    }
    let digits: Option<Vec<u32>> = body
        .chars()
        .filter(|c| *c != '_')
        .map(|c| c.to_digit(radix))
        .collect();
    let Some(digits) = digits else {
        return Ok(None);
    };
    let mut n: i128 = 0;
    for digit in digits {
        let next = n
            .checked_mul(i128::from(radix))
            .and_then(|n| n.checked_add(i128::from(digit)));
        match next {
            Some(next) => n = next,
            None => return checked(None).map(|_| None),
        }
    }
    Ok(Some(if negative { -n } else { n }))
}

/// `float(text)`; `None` if the text is none.
pub fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(super::lexer::is_space);
    let plain = text.trim_start_matches(['-', '+']).to_ascii_lowercase();
    if text.len() - plain.len() > 1 {
        return None;
    }
    let special = matches!(plain.as_str(), "inf" | "infinity" | "nan");
    let begins = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !special && !begins {
        return None;
    }
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('_') {
        let digit = |at: Option<usize>| {
            at.and_then(|at| bytes.get(at))
                .is_some_and(u8::is_ascii_digit)
        };
        if !digit(at.checked_sub(1)) || !digit(at.checked_add(1)) {
            return None;
        }
    }
    text.replace('_', "").parse().ok()
}

/// A float as a whole number, towards zero; `None` if it is too large or none.
pub fn truncate(n: f64) -> Option<i128> {
    (n.is_finite() && n.abs() < 1.7e38).then(|| n.trunc() as i128)
}

/// `round(n, digits)` of a float: half to even, of the number as it is written exactly.
pub fn round(n: f64, digits: i128) -> f64 {
    if !n.is_finite() || digits > 320 {
        return n;
    }
    if digits >= 0 {
        // Formatting rounds the exact value, half to even.
        let digits = usize::try_from(digits).unwrap_or(0);
        return format!("{n:.digits$}").parse().unwrap_or(n);
    }
    if digits < -308 {
        return 0.0f64.copysign(n);
    }
    let unit = 10f64.powi(i32::try_from(-digits).unwrap_or(308));
    (n / unit).round_ties_even() * unit
}

/// `round(n, digits)` of a whole number.
pub fn round_int(n: i128, digits: i128) -> i128 {
    if digits >= 0 {
        return n;
    }
    let Some(unit) = u32::try_from(digits.unsigned_abs())
        .ok()
        .and_then(|digits| 10i128.checked_pow(digits))
    else {
        return 0;
    };
    let (low, rest) = (n.div_euclid(unit), n.rem_euclid(unit));
    let twice = rest.saturating_mul(2);
    let up = twice > unit || twice == unit && low % 2 != 0;
    (low + i128::from(up)).saturating_mul(unit)
}
