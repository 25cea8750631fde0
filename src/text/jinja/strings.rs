//! Methods of strings.

use super::arguments::{self, Arguments, count};
use super::dict::Dict;
use super::lexer::is_space;
use super::run::Run;
use super::text::{Builder, Str, allow_parts};
use super::value::Value;
use super::{Error, Result, format, meter, print};

/// Calls a method of a string.
///
/// # Errors
/// As Python's raises, or if a limit is reached.
pub fn call(
    run: &mut Run<'_>,
    text: &Str,
    name: &'static str,
    arguments: Arguments,
) -> Result<Value> {
    meter::spend_bytes(text.len())?;
    if let Some(test) = test(name) {
        let [] = arguments.plain(name, 0)?;
        return Ok(Value::Bool(test(text)));
    }
    if let Some(change) = change(name) {
        let [] = arguments.plain(name, 0)?;
        return Ok(Value::Str(text.map(change)));
    }
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = arguments.plain(name, 0)?;
            let chars = arguments::text(chars, "strip arg")?;
            Ok(Value::Str(strip(
                text,
                chars.as_deref(),
                name != "rstrip",
                name != "lstrip",
            )))
        }
        "split" | "rsplit" => {
            let [separator, limit] = arguments.take(name, ["sep", "maxsplit"], 0)?;
            let separator = arguments::text(separator, "separator")?;
            let limit = arguments::int(limit)?.unwrap_or(-1);
            let limit = if limit < 0 { usize::MAX } else { count(limit) };
            split(text, separator.as_deref(), limit, name == "rsplit")
        }
        "splitlines" => {
            let [ends] = arguments.take(name, ["keepends"], 0)?;
            let lines = lines(text, ends.is_some_and(|ends| ends.truth()));
            allow_parts(lines.len())?;
            Value::list(
                lines
                    .into_iter()
                    .map(|line| Value::Str(text.slice(line)))
                    .collect(),
            )
        }
        "partition" | "rpartition" => {
            let [separator] = arguments.plain(name, 1)?;
            let separator = needed(separator, name)?;
            if separator.is_empty() {
                return Err(Error::runtime("empty separator"));
            }
            let found = match name {
                "rpartition" => text.rsplit_once(&*separator),
                _ => text.split_once(&*separator),
            };
            let empty = || Str::constant("");
            let parts = match found {
                Some((head, tail)) => [text.slice(head), separator.clone(), text.slice(tail)],
                None if name == "rpartition" => [empty(), empty(), text.clone()],
                None => [text.clone(), empty(), empty()],
            };
            Value::tuple(parts.map(Value::Str).to_vec())
        }
        "removeprefix" | "removesuffix" => {
            let [part] = arguments.plain(name, 1)?;
            let part = needed(part, name)?;
            let left = match name {
                "removeprefix" => text.strip_prefix(&*part),
                _ => text.strip_suffix(&*part),
            };
            Ok(Value::Str(text.slice(left.unwrap_or(text))))
        }
        "startswith" | "endswith" => {
            let [part, start, stop] = arguments.plain(name, 1)?;
            let part = part.unwrap_or(Value::None);
            let Some((window, _)) = window(text, start, stop)? else {
                return Ok(Value::Bool(false));
            };
            let has = |part: &Value| match part {
                Value::Str(part) if name == "startswith" => Ok(window.starts_with(&**part)),
                Value::Str(part) => Ok(window.ends_with(&**part)),
                Value::Undefined(why) => Err(why.error()),
                other => Err(Error::runtime(format!(
                    "{name} first arg must be str or a tuple of str, not {}",
                    other.type_name()
                ))),
            };
            match &part {
                Value::Tuple(parts) => {
                    for part in parts.iter() {
                        if has(part)? {
                            return Ok(Value::Bool(true));
                        }
                    }
                    Ok(Value::Bool(false))
                }
                one => has(one).map(Value::Bool),
            }
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [part, start, stop] = arguments.plain(name, 1)?;
            let part = needed(part, name)?;
            let window = window(text, start, stop)?;
            if name == "count" {
                let n = window.map_or(0, |(window, _)| match part.is_empty() {
                    true => window.chars().count() + 1,
                    false => window.matches(&*part).count(),
                });
                return Ok(Value::count(n));
            }
            let found = window.and_then(|(window, before)| {
                let at = if name.starts_with('r') {
                    window.rfind(&*part)
                } else {
                    window.find(&*part)
                };
                Some(before + window.get(..at?)?.chars().count())
            });
            match found {
                Some(at) => Ok(Value::count(at)),
                None if name.ends_with("index") => Err(Error::runtime("substring not found")),
                None => Ok(Value::Int(-1)),
            }
        }
        "replace" => {
            let [old, new, n] = arguments.plain(name, 2)?;
            let n = arguments::int(n)?.unwrap_or(-1);
            replace(text, &needed(old, name)?, &needed(new, name)?, n).map(Value::Str)
        }
        "join" => {
            let [parts] = arguments.plain(name, 1)?;
            let mut out = Builder::default();
            for (at, part) in parts.unwrap_or(Value::None).iterate()?.iter().enumerate() {
                let Value::Str(part) = part else {
                    return Err(Error::runtime(format!(
                        "sequence item {at}: expected str instance, {} found",
                        part.type_name()
                    )));
                };
                if at > 0 {
                    out.push(text)?;
                }
                out.push(part)?;
            }
            Ok(Value::Str(out.finish()))
        }
        "ljust" | "rjust" | "center" => {
            let [width, fill] = arguments.plain(name, 1)?;
            let fill =
                arguments::text(fill, "the fill character")?.unwrap_or_else(|| Str::constant(" "));
            if fill.chars().count() != 1 {
                return Err(Error::runtime(
                    "The fill character must be exactly one character long",
                ));
            }
            pad(
                text,
                count(arguments::int(width)?.unwrap_or(0)),
                &fill,
                name,
            )
            .map(Value::Str)
        }
        "zfill" => {
            let [width] = arguments.plain(name, 1)?;
            let missing =
                count(arguments::int(width)?.unwrap_or(0)).saturating_sub(text.chars_len());
            let sign = usize::from(text.starts_with(['-', '+']));
            let mut out = Builder::default();
            out.push(&text.part(0..sign))?;
            out.repeat(&Str::constant("0"), missing)?;
            out.push(&text.part(sign..text.len()))?;
            Ok(Value::Str(out.finish()))
        }
        "expandtabs" => {
            let [size] = arguments.take(name, ["tabsize"], 0)?;
            expand_tabs(text, count(arguments::int(size)?.unwrap_or(8))).map(Value::Str)
        }
        "format" => format::format(run, text, &arguments).map(Value::Str),
        "format_map" => {
            let [map] = arguments.plain(name, 1)?;
            let mut named = Vec::new();
            if let Some(Value::Dict(dict)) = &map {
                for (key, value) in dict.pairs() {
                    if let Value::Str(key) = key {
                        named.push((key.clone(), value.clone()));
                    }
                }
            }
            format::format(
                run,
                text,
                &Arguments {
                    positional: Vec::new(),
                    named,
                },
            )
            .map(Value::Str)
        }
        "maketrans" => {
            let [from, to, drop] = arguments.plain(name, 1)?;
            make_table(&from.unwrap_or(Value::None), to, drop)
        }
        "translate" => {
            let [table] = arguments.plain(name, 1)?;
            translate(text, &table.unwrap_or(Value::None)).map(Value::Str)
        }
        other => Err(Error::runtime(format!("str.{other} is not known here"))),
    }
}

fn needed(value: Option<Value>, who: &str) -> Result<Str> {
    match value {
        Some(Value::Str(text)) => Ok(text),
        Some(Value::Undefined(why)) => Err(why.error()),
        Some(other) => Err(Error::runtime(format!(
            "{who}() argument must be str, not {}",
            other.type_name()
        ))),
        None => Err(Error::runtime(format!("{who}() needs an argument"))),
    }
}

/// Whether all letters that have a case are upper or lower, and some are.
pub fn cased(text: &str, upper: bool) -> bool {
    let (mut some, mut none) = (false, true);
    for c in text.chars() {
        let (is, other) = if upper {
            (c.is_uppercase(), c.is_lowercase())
        } else {
            (c.is_lowercase(), c.is_uppercase())
        };
        some |= is;
        none &= !other;
    }
    some && none
}

fn test(name: &str) -> Option<fn(&str) -> bool> {
    Some(match name {
        "isupper" => |text| cased(text, true),
        "islower" => |text| cased(text, false),
        "isspace" => |text| !text.is_empty() && text.chars().all(is_space),
        "isalpha" => |text| !text.is_empty() && text.chars().all(char::is_alphabetic),
        "isalnum" => |text| !text.is_empty() && text.chars().all(char::is_alphanumeric),
        "isdecimal" => |text| !text.is_empty() && text.chars().all(is_decimal),
        "isdigit" => |text| {
            let raised = |c| matches!(c, '²' | '³' | '¹' | '\u{2070}' | '\u{2074}'..='\u{2079}' | '\u{2080}'..='\u{2089}');
            !text.is_empty() && text.chars().all(|c| is_decimal(c) || raised(c))
        },
        "isnumeric" => |text| !text.is_empty() && text.chars().all(char::is_numeric),
        "isascii" => str::is_ascii,
        "isidentifier" => |text| {
            let mut chars = text.chars();
            let first = chars.next().is_some_and(|c| c == '_' || c.is_alphabetic());
            first && chars.all(|c| c == '_' || c.is_alphanumeric())
        },
        "isprintable" => |text| text.chars().all(print::printable),
        "istitle" => |text| {
            let (mut some, mut inside) = (false, false);
            for c in text.chars() {
                if c.is_uppercase() && inside || c.is_lowercase() && !inside {
                    return false;
                }
                inside = c.is_uppercase() || c.is_lowercase();
                some |= inside;
            }
            some
        },
        _ => return None,
    })
}

/// Whether a character is a decimal digit of some script.
fn is_decimal(c: char) -> bool {
    // Blocks of digits begin where these are, ten each.
    const ZEROS: [u32; 14] = [
        0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xe50,
        0xff10,
    ];
    let code = u32::from(c);
    ZEROS.iter().any(|zero| (*zero..zero + 10).contains(&code))
}

fn change(name: &str) -> Option<fn(&str) -> String> {
    Some(match name {
        "upper" => str::to_uppercase,
        "lower" => str::to_lowercase,
        "casefold" => |text| text.to_lowercase().replace('ß', "ss").replace('ς', "σ"),
        "capitalize" => capitalize,
        "title" => |text| {
            let mut out = String::with_capacity(text.len());
            let mut inside = false;
            for c in text.chars() {
                match inside {
                    true => out.extend(c.to_lowercase()),
                    false => out.extend(c.to_uppercase()),
                }
                inside = c.is_uppercase() || c.is_lowercase();
            }
            out
        },
        "swapcase" => |text| {
            let swap = |c: char| match c.is_uppercase() {
                true => c.to_lowercase().collect::<String>(),
                false => c.to_uppercase().collect(),
            };
            text.chars().map(swap).collect()
        },
        _ => return None,
    })
}

/// `str.capitalize`
pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first
            .to_uppercase()
            .chain(chars.as_str().to_lowercase().chars())
            .collect(),
        None => String::new(),
    }
}

/// `str.strip` and its one-sided forms; `chars` is a set of characters.
pub fn strip(text: &Str, chars: Option<&str>, left: bool, right: bool) -> Str {
    let strips = |c: char| match chars {
        Some(chars) => chars.contains(c),
        None => is_space(c),
    };
    let mut part: &str = text;
    if left {
        part = part.trim_start_matches(strips);
    }
    if right {
        part = part.trim_end_matches(strips);
    }
    text.slice(part)
}

fn split(text: &Str, separator: Option<&str>, limit: usize, right: bool) -> Result<Value> {
    let mut parts: Vec<&str> = Vec::new();
    match separator {
        Some("") => return Err(Error::runtime("empty separator")),
        Some(separator) if right => parts.extend(text.rsplitn(limit.saturating_add(1), separator)),
        Some(separator) => parts.extend(text.splitn(limit.saturating_add(1), separator)),
        None => {
            let mut rest: &str = match right {
                true => text.trim_end_matches(is_space),
                false => text.trim_start_matches(is_space),
            };
            while !rest.is_empty() {
                let found = if right {
                    rest.rfind(is_space)
                } else {
                    rest.find(is_space)
                };
                let Some(at) = found.filter(|_| parts.len() < limit) else {
                    // The last part keeps its inner white space; only its outer end is trimmed.
                    parts.push(rest);
                    break;
                };
                let (head, tail) = rest.split_at(at);
                if right {
                    let width = tail.chars().next().map_or(0, char::len_utf8);
                    parts.push(tail.get(width..).unwrap_or_default());
                    rest = head.trim_end_matches(is_space);
                } else {
                    parts.push(head);
                    rest = tail.trim_start_matches(is_space);
                }
            }
        }
    }
    if right {
        parts.reverse();
    }
    meter::spend(parts.len() as u64)?;
    allow_parts(parts.len())?;
    Value::list(
        parts
            .into_iter()
            .map(|part| Value::Str(text.slice(part)))
            .collect(),
    )
}

/// `str.splitlines`
pub fn lines(text: &str, ends: bool) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_end) {
        let (line, tail) = rest.split_at(at);
        let width = match tail.starts_with("\r\n") {
            true => 2,
            false => tail.chars().next().map_or(1, char::len_utf8),
        };
        lines.push(if ends {
            rest.get(..at + width).unwrap_or(line)
        } else {
            line
        });
        rest = tail.get(width..).unwrap_or_default();
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// The part of the text between two places, and how many characters are before it; `None` if it begins behind the end.
fn window(text: &Str, start: Option<Value>, stop: Option<Value>) -> Result<Option<(&str, usize)>> {
    let bound = |value: Option<Value>| match value {
        Some(Value::None) => Ok(None),
        other => arguments::int(other),
    };
    let (start, stop) = (bound(start)?, bound(stop)?);
    if start.is_none() && stop.is_none() {
        return Ok(Some((text, 0)));
    }
    let n = i128::try_from(text.chars_len()).unwrap_or(i128::MAX);
    let place = |at: i128| {
        if at < 0 {
            at.saturating_add(n).max(0)
        } else {
            at
        }
    };
    let (from, to) = (place(start.unwrap_or(0)), place(stop.unwrap_or(n)).min(n));
    if from > n || from > to {
        return Ok(None);
    }
    let byte = |at: i128| {
        text.char_indices()
            .nth(count(at))
            .map_or(text.len(), |(byte, _)| byte)
    };
    Ok(Some((
        text.get(byte(from)..byte(to)).unwrap_or_default(),
        count(from),
    )))
}

/// `text.replace(old, new, n)`; all if `n` is below 0.
///
/// # Errors
/// If a limit is reached.
pub fn replace(text: &Str, old: &Str, new: &Str, n: i128) -> Result<Str> {
    let limit = if n < 0 { usize::MAX } else { count(n) };
    let mut out = Builder::default();
    let mut done = 0;
    for (at, found) in text.match_indices(&**old).take(limit) {
        out.push(&text.part(done..at))?;
        out.push(new)?;
        done = at + found.len();
    }
    if done == 0 && out.len() == 0 {
        return Ok(text.clone());
    }
    out.push(&text.part(done..text.len()))?;
    Ok(out.finish())
}

/// `ljust`, `rjust` or `center`.
///
/// # Errors
/// If it becomes too long.
pub fn pad(text: &Str, width: usize, fill: &Str, side: &str) -> Result<Str> {
    let missing = width.saturating_sub(text.chars_len());
    let before = match side {
        "center" => missing / 2 + (missing & width & 1),
        "rjust" => missing,
        _ => 0,
    };
    let mut out = Builder::default();
    out.repeat(fill, before)?;
    out.push(text)?;
    out.repeat(fill, missing - before)?;
    Ok(out.finish())
}

fn expand_tabs(text: &Str, size: usize) -> Result<Str> {
    let mut out = Builder::default();
    let mut column = 0;
    for (at, c) in text.char_indices() {
        if c == '\t' {
            if size > 0 {
                let width = size - column % size;
                out.repeat(&Str::constant(" "), width)?;
                column += width;
            }
        } else {
            out.push(&text.part(at..at + c.len_utf8()))?;
            column = if matches!(c, '\n' | '\r') {
                0
            } else {
                column + 1
            };
        }
    }
    Ok(out.finish())
}

fn make_table(from: &Value, to: Option<Value>, drop: Option<Value>) -> Result<Value> {
    let code = |c: char| Value::Int(u32::from(c).into());
    let mut table = Dict::new();
    if let (Value::Dict(pairs), None) = (from, &to) {
        for (key, value) in pairs.pairs() {
            let key = match key {
                Value::Str(text) => code(text.chars().next().unwrap_or_default()),
                other => other.clone(),
            };
            table.insert(key, value.clone())?;
        }
        return Ok(Value::dict(table));
    }
    let (Value::Str(from), Some(Value::Str(to))) = (from, to) else {
        return Err(Error::runtime(
            "maketrans takes a dictionary or two strings",
        ));
    };
    if from.chars_len() != to.chars_len() {
        return Err(Error::runtime(
            "the first two maketrans arguments must have equal length",
        ));
    }
    for (from, to) in from.chars().zip(to.chars()) {
        table.insert(code(from), code(to))?;
    }
    if let Some(drop) = arguments::text(drop, "maketrans() argument 3")? {
        for c in drop.chars() {
            table.insert(code(c), Value::None)?;
        }
    }
    Ok(Value::dict(table))
}

fn translate(text: &Str, table: &Value) -> Result<Str> {
    let mut out = Builder::default();
    for (at, c) in text.char_indices() {
        let found = super::attributes::item(table, &Value::Int(u32::from(c).into()))?;
        match found {
            Value::None => {}
            Value::Str(text) => out.push(&text)?,
            Value::Int(code) => {
                let code = u32::try_from(code).ok().and_then(char::from_u32);
                out.push_str(code.unwrap_or('\u{fffd}').encode_utf8(&mut [0; 4]))?;
            }
            _ => out.push(&text.part(at..at + c.len_utf8()))?,
        }
    }
    Ok(out.finish())
}
