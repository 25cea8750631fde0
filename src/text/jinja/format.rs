//! `str.format` and its little language.

use super::arguments::{Arguments, count};
use super::run::Run;
use super::text::{Builder, Str};
use super::value::{Number, Value};
use super::{Error, Result, attributes, meter, numbers, print, strings};

/// Digits behind the point that anything is written with at most.
pub const PRECISION: usize = 4096;

/// `text.format(…)`
///
/// # Errors
/// As Python's raises, or if a limit is reached.
pub fn format(run: &mut Run<'_>, text: &Str, arguments: &Arguments) -> Result<Str> {
    let mut out = Builder::default();
    let mut next = Some(0);
    fill(run, text, arguments, &mut next, 2, &mut out)?;
    Ok(out.finish())
}

/// `next` is the number of the next unnamed field, `None` once fields were numbered by hand.
fn fill(
    run: &mut Run<'_>,
    text: &Str,
    arguments: &Arguments,
    next: &mut Option<usize>,
    depth: usize,
    out: &mut Builder,
) -> Result<()> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Error::runtime("Max string recursion exceeded"));
    };
    let whole: &str = text;
    let mut at = 0;
    while let Some(found) = whole
        .get(at..)
        .and_then(|rest| rest.find(['{', '}']))
        .map(|found| found + at)
    {
        out.push(&text.part(at..found))?;
        let rest = whole.get(found..).unwrap_or_default();
        if rest.starts_with("{{") || rest.starts_with("}}") {
            out.push(&text.part(found..found + 1))?;
            at = found + 2;
            continue;
        }
        if rest.starts_with('}') {
            return Err(Error::runtime("Single '}' encountered in format string"));
        }
        let mut open = 0;
        let mut end = None;
        for (offset, c) in rest.char_indices() {
            match c {
                '{' => open += 1,
                '}' => open -= 1,
                _ => {}
            }
            if open == 0 {
                end = Some(offset);
                break;
            }
        }
        let Some(end) = end else {
            return Err(Error::runtime(match rest.len() {
                1 => "Single '{' encountered in format string",
                _ => "expected '}' before end of string",
            }));
        };
        let field = rest.get(1..end).unwrap_or_default();
        let stop = field.find(['!', ':']).unwrap_or(field.len());
        // A bracket may hold these.
        let stop = match field.find('[').filter(|open| *open < stop) {
            Some(_) => field.find(']').map_or(stop, |close| {
                let tail = field.get(close..).unwrap_or_default();
                tail.find(['!', ':']).map_or(field.len(), |at| close + at)
            }),
            None => stop,
        };
        let (name, tail) = field.split_at(stop);
        let (conversion, spec) = match tail.strip_prefix('!') {
            Some(tail) => {
                let kind = tail.chars().next();
                let after = tail
                    .get(kind.map_or(0, char::len_utf8)..)
                    .unwrap_or_default();
                match (kind, after.strip_prefix(':'), after.is_empty()) {
                    (Some(kind @ ('r' | 's' | 'a')), Some(spec), _) => (Some(kind), spec),
                    (Some(kind @ ('r' | 's' | 'a')), None, true) => (Some(kind), ""),
                    _ => return Err(Error::runtime("Unknown conversion specifier")),
                }
            }
            None => (None, tail.strip_prefix(':').unwrap_or("")),
        };
        let value = lookup(name, arguments, next)?;
        let value = match conversion {
            Some('s') => Value::Str(print::string(&value)?),
            Some(kind) => Value::Str(ascii_if(kind == 'a', print::repr(&value)?)),
            None => value,
        };
        let spec = match spec.contains(['{', '}']) {
            true => {
                let mut inner = Builder::default();
                fill(run, &Str::from(spec), arguments, next, depth, &mut inner)?;
                inner.finish()
            }
            false => Str::from(spec),
        };
        out.push(&one(&value, &spec)?)?;
        at = found + end + 1;
        run.room()?;
    }
    out.push(&text.part(at..text.len()))
}

/// The text with everything beyond ASCII escaped, if `yes`.
pub fn ascii_if(yes: bool, text: Str) -> Str {
    if !yes || text.is_ascii() {
        return text;
    }
    let escape = |c: char| match u32::from(c) {
        0..0x80 => c.to_string(),
        code @ 0x80..0x100 => format!("\\x{code:02x}"),
        code @ 0x100..0x10000 => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    };
    text.chars().map(escape).collect::<String>().into()
}

fn lookup(name: &str, arguments: &Arguments, next: &mut Option<usize>) -> Result<Value> {
    let stop = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut rest) = name.split_at(stop);
    let index = |at: usize| match arguments.positional.get(at) {
        Some(value) => Ok(value.clone()),
        None => Err(Error::runtime(format!(
            "Replacement index {at} out of range for positional args tuple"
        ))),
    };
    let mut value = if first.is_empty() {
        let Some(at) = *next else {
            return Err(Error::runtime(
                "cannot switch from manual field specification to automatic field numbering",
            ));
        };
        *next = Some(at + 1);
        index(at)?
    } else if first.bytes().all(|b| b.is_ascii_digit()) {
        if next.is_some_and(|at| at > 0) {
            return Err(Error::runtime(
                "cannot switch from automatic field numbering to manual field specification",
            ));
        }
        *next = None;
        index(first.parse().unwrap_or(usize::MAX))?
    } else {
        let found = arguments.named.iter().find(|(known, _)| **known == *first);
        match found {
            Some((_, value)) => value.clone(),
            None => return Err(Error::runtime(format!("'{first}'"))),
        }
    };
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix('.') {
            let stop = tail.find(['.', '[']).unwrap_or(tail.len());
            let (attribute, after) = tail.split_at(stop);
            value = attributes::attr(&value, &Str::from(attribute))?;
            rest = after;
        } else if let Some((key, after)) =
            rest.strip_prefix('[').and_then(|tail| tail.split_once(']'))
        {
            let key = match key.parse::<i128>() {
                Ok(n) if key.bytes().all(|b| b.is_ascii_digit()) => Value::Int(n),
                _ => Value::str(key),
            };
            value = attributes::item(&value, &key)?;
            rest = after;
        } else {
            return Err(Error::runtime(
                "Only '.' or '[' may follow ']' in format field specifier",
            ));
        }
    }
    Ok(value)
}

/// A specification taken apart.
#[derive(Default)]
pub struct Spec {
    /// What fills the width
    pub fill: Option<char>,
    /// `<`, `>`, `^` or `=`
    pub align: Option<char>,
    /// `+`, `-` or a space
    pub sign: Option<char>,
    /// `#`
    pub alternate: bool,
    /// The width
    pub width: usize,
    /// `,` or `_`
    pub grouping: Option<char>,
    /// Digits
    pub precision: Option<usize>,
    /// The presentation
    pub kind: Option<char>,
}

impl Spec {
    fn parse(text: &str) -> Result<Spec> {
        let chars: Vec<char> = text.chars().collect();
        let mut spec = Spec::default();
        let mut at = 0;
        let aligns = |at: usize| {
            chars
                .get(at)
                .copied()
                .filter(|c| matches!(c, '<' | '>' | '^' | '='))
        };
        if let Some(align) = aligns(1) {
            spec.fill = chars.first().copied();
            spec.align = Some(align);
            at = 2;
        } else if let Some(align) = aligns(0) {
            spec.align = Some(align);
            at = 1;
        }
        let mut take = |wanted: &[char]| {
            let found = chars.get(at).copied().filter(|c| wanted.contains(c));
            at += usize::from(found.is_some());
            found
        };
        spec.sign = take(&['+', '-', ' ']);
        take(&['z']);
        spec.alternate = take(&['#']).is_some();
        if take(&['0']).is_some() && spec.align.is_none() {
            spec.fill = Some('0');
            spec.align = Some('=');
        }
        let digits = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];
        let number = |take: &mut dyn FnMut(&[char]) -> Option<char>| {
            let mut n: Option<usize> = None;
            while let Some(digit) = take(&digits).and_then(|c| c.to_digit(10)) {
                n = Some(
                    n.unwrap_or(0)
                        .saturating_mul(10)
                        .saturating_add(digit as usize),
                );
            }
            n
        };
        spec.width = number(&mut take).unwrap_or(0);
        spec.grouping = take(&[',', '_']);
        if take(&['.']).is_some() {
            match number(&mut take) {
                Some(n) => spec.precision = Some(n),
                None => return Err(Error::runtime("Format specifier missing precision")),
            }
        }
        spec.kind = chars.get(at).copied();
        match chars.len() > at + 1 {
            true => Err(Error::runtime(format!("Invalid format specifier '{text}'"))),
            false => Ok(spec),
        }
    }
}

/// `format(value, spec)`
fn one(value: &Value, spec: &Str) -> Result<Str> {
    if spec.is_empty() {
        return print::string(value);
    }
    let parsed = Spec::parse(spec)?;
    match (value, value.number()) {
        (Value::Str(text), _) => string(text, &parsed),
        (Value::Bool(_), Some(_)) if parsed.kind.is_none() => {
            // As a number, in Python too.
            number(value.number().unwrap_or(Number::Int(0)), &parsed)
        }
        (_, Some(n)) => number(n, &parsed),
        (other, None) => Err(Error::runtime(format!(
            "unsupported format string passed to {}.__format__",
            other.type_name()
        ))),
    }
}

fn string(text: &Str, spec: &Spec) -> Result<Str> {
    if !matches!(spec.kind, None | Some('s')) {
        return Err(unknown(spec.kind, "str"));
    }
    if spec.sign.is_some() {
        return Err(Error::runtime(
            "Sign not allowed in string format specifier",
        ));
    }
    let align = match spec.align {
        Some('=') if spec.fill == Some('0') => '<',
        Some('=') => {
            return Err(Error::runtime(
                "'=' alignment not allowed in string format specifier",
            ));
        }
        Some(align) => align,
        None => '<',
    };
    let text = match spec.precision {
        Some(n) => {
            let end = text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
            text.part(0..end)
        }
        None => text.clone(),
    };
    aligned(&text, align, spec)
}

fn aligned(text: &Str, align: char, spec: &Spec) -> Result<Str> {
    let fill = Str::from(spec.fill.unwrap_or(' ').to_string());
    // `^` puts the odd one behind, unlike `center`.
    if align == '^' {
        let missing = spec.width.saturating_sub(text.chars_len());
        let mut out = Builder::default();
        out.repeat(&fill, missing / 2)?;
        out.push(text)?;
        out.repeat(&fill, missing - missing / 2)?;
        return Ok(out.finish());
    }
    strings::pad(
        text,
        spec.width,
        &fill,
        if align == '>' { "rjust" } else { "ljust" },
    )
}

fn unknown(kind: Option<char>, name: &str) -> Error {
    let kind = kind.unwrap_or(' ');
    Error::runtime(format!(
        "Unknown format code '{kind}' for object of type '{name}'"
    ))
}

/// A number as a specification wants it.
///
/// # Errors
/// If it cannot.
pub fn number(n: Number, spec: &Spec) -> Result<Str> {
    let (negative, body, prefix) = match (n, spec.kind) {
        (Number::Int(n), None | Some('d' | 'n' | 'b' | 'o' | 'x' | 'X' | 'c')) => {
            if spec.precision.is_some() {
                return Err(Error::runtime(
                    "Precision not allowed in integer format specifier",
                ));
            }
            let size = n.unsigned_abs();
            let (digits, prefix) = match spec.kind {
                Some('b') => (format!("{size:b}"), "0b"),
                Some('o') => (format!("{size:o}"), "0o"),
                Some('x') => (format!("{size:x}"), "0x"),
                Some('X') => (format!("{size:X}"), "0X"),
                Some('c') => {
                    let c = u32::try_from(n).ok().and_then(char::from_u32);
                    (
                        c.ok_or_else(|| Error::runtime("%c arg not in range(0x110000)"))?
                            .to_string(),
                        "",
                    )
                }
                _ => (size.to_string(), ""),
            };
            let every = if matches!(spec.kind, Some('b' | 'o' | 'x' | 'X')) {
                4
            } else {
                3
            };
            (
                n < 0,
                grouped(&digits, spec.grouping, every),
                if spec.alternate { prefix } else { "" },
            )
        }
        (n, kind) => {
            let value = n.float();
            let body = real(
                value.abs(),
                kind,
                spec.precision,
                spec.alternate,
                matches!(n, Number::Float(_)),
            )?;
            let split = body
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(body.len());
            let (whole, rest) = body.split_at(split);
            let body = format!("{}{rest}", grouped(whole, spec.grouping, 3));
            (value.is_sign_negative() && !value.is_nan(), body, "")
        }
    };
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (_, Some('+')) => "+",
        (_, Some(' ')) => " ",
        _ => "",
    };
    let align = spec.align.unwrap_or('>');
    if align == '=' {
        let missing = spec
            .width
            .saturating_sub(sign.len() + prefix.len() + body.chars().count());
        let mut out = Builder::default();
        out.push_str(sign)?;
        out.push_str(prefix)?;
        out.repeat(&Str::from(spec.fill.unwrap_or(' ').to_string()), missing)?;
        out.push_str(&body)?;
        return Ok(out.finish());
    }
    aligned(&Str::from(format!("{sign}{prefix}{body}")), align, spec)
}

fn grouped(digits: &str, separator: Option<char>, every: usize) -> String {
    let Some(separator) = separator else {
        return digits.to_owned();
    };
    let n = digits.chars().count();
    let mut out = String::new();
    for (at, c) in digits.chars().enumerate() {
        if at > 0 && (n - at).is_multiple_of(every) {
            out.push(separator);
        }
        out.push(c);
    }
    out
}

/// A number that is not negative, written in one of `e f g % n` or as Python's `repr`.
///
/// # Errors
/// If the presentation is not known, or the digits too many.
pub fn real(
    n: f64,
    kind: Option<char>,
    precision: Option<usize>,
    alternate: bool,
    is_float: bool,
) -> Result<String> {
    if precision.is_some_and(|precision| precision > PRECISION) {
        return Err(Error::limit(format!("{PRECISION} digits")));
    }
    meter::spend_bytes(precision.unwrap_or(0))?;
    let upper = kind.is_some_and(char::is_uppercase);
    if !n.is_finite() {
        let text = if n.is_nan() { "nan" } else { "inf" };
        let text = if kind == Some('%') {
            format!("{text}%")
        } else {
            text.to_owned()
        };
        return Ok(if upper { text.to_uppercase() } else { text });
    }
    let text = match kind.map(|kind| kind.to_ascii_lowercase()) {
        Some('f') => format!("{n:.*}", precision.unwrap_or(6)),
        Some('%') => format!("{:.*}%", precision.unwrap_or(6), n * 100.0),
        Some('e') => scientific(n, precision.unwrap_or(6)),
        Some('g' | 'n') => general(n, precision.unwrap_or(6), alternate, false),
        None => match precision {
            Some(precision) => general(n, precision, alternate, true),
            None => numbers::float(n),
        },
        _ => return Err(unknown(kind, if is_float { "float" } else { "int" })),
    };
    let text = match alternate && !text.contains('.') && !text.contains('e') {
        true => text + ".",
        false => text,
    };
    Ok(if upper { text.to_uppercase() } else { text })
}

fn scientific(n: f64, precision: usize) -> String {
    let text = format!("{n:.precision$e}");
    match text.split_once('e') {
        Some((digits, exponent)) => numbers::exponential(digits, exponent),
        None => text,
    }
}

fn general(n: f64, precision: usize, alternate: bool, point: bool) -> String {
    let precision = precision.max(1);
    let text = format!("{n:.*e}", precision - 1);
    let exponent: i64 = text
        .split_once('e')
        .and_then(|(_, exponent)| exponent.parse().ok())
        .unwrap_or(0);
    // Without a presentation type, a float always shows that it is one.
    let most = i64::try_from(precision).unwrap_or(i64::MAX) - i64::from(point);
    let trim = |text: &str| -> String {
        match !alternate && text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text.to_owned(),
        }
    };
    if exponent < -4 || exponent >= most.max(i64::from(!point)) {
        let digits = text
            .split_once('e')
            .map_or(text.as_str(), |(digits, _)| digits);
        return numbers::exponential(&trim(digits), &exponent.to_string());
    }
    let decimals = count(i128::try_from(precision).unwrap_or(0) - 1 - i128::from(exponent));
    let text = trim(&format!("{n:.decimals$}"));
    match point && !text.contains('.') {
        true => text + ".0",
        false => text,
    }
}
