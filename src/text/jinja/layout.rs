//! Filters that lay text out, and take it apart.

use super::arguments::{self, Arguments, count};
use super::text::{Builder, Str};
use super::value::Value;
use super::{Error, Result, meter, print, strings};

/// Python's `textwrap`, for text whose words have no hyphens inside.
///
/// # Errors
/// If an argument is wrong, or a limit is reached.
pub fn wordwrap(value: &Value, arguments: Arguments) -> Result<Value> {
    let names = [
        "width",
        "break_long_words",
        "wrapstring",
        "break_on_hyphens",
    ];
    let [width, long, wrap, hyphens] = arguments.take("wordwrap", names, 0)?;
    let width = count(arguments::int(width)?.unwrap_or(79));
    let long = long.is_none_or(|flag| flag.truth());
    let hyphens = hyphens.is_none_or(|flag| flag.truth());
    let wrap = arguments::text(wrap, "wrapstring")?.unwrap_or_else(|| Str::constant("\n"));
    if width == 0 {
        return Err(Error::runtime("invalid width 0 (must be > 0)"));
    }
    let text = print::string(value)?;
    meter::spend_bytes(text.len())?;
    let mut out = Builder::default();
    for (at, line) in strings::lines(&text, false).into_iter().enumerate() {
        if at > 0 {
            out.push(&wrap)?;
        }
        let mut chunks: std::collections::VecDeque<&str> = chunks(line, hyphens).into();
        let mut begun = false;
        while !chunks.is_empty() {
            let mut row: Vec<&str> = Vec::new();
            let mut used = 0;
            if begun && chunks.front().is_some_and(|chunk| chunk.trim().is_empty()) {
                chunks.pop_front();
            }
            while let Some(chunk) = chunks.front().copied() {
                let n = chunk.chars().count();
                if used + n > width {
                    if n > width && long {
                        let room = width - used;
                        let stop = chunk
                            .char_indices()
                            .nth(room.max(usize::from(used == 0)))
                            .map_or(chunk.len(), |(at, _)| at);
                        let (head, tail) = chunk.split_at(stop);
                        chunks.pop_front();
                        if !tail.is_empty() {
                            chunks.push_front(tail);
                        }
                        row.push(head);
                    } else if n > width && row.is_empty() {
                        row.push(chunk);
                        chunks.pop_front();
                    }
                    break;
                }
                used += n;
                row.push(chunk);
                chunks.pop_front();
            }
            if row.last().is_some_and(|chunk| chunk.trim().is_empty()) {
                row.pop();
            }
            if !row.is_empty() {
                if begun {
                    out.push(&wrap)?;
                }
                begun = true;
                for chunk in row {
                    out.push(&text.slice(chunk))?;
                }
            }
        }
    }
    Ok(Value::Str(out.finish()))
}

/// Words and the white space between them; words may be broken behind hyphens between letters.
fn chunks(line: &str, hyphens: bool) -> Vec<&str> {
    let mut out = Vec::new();
    let mut from = 0;
    let mut before = None;
    let chars: Vec<(usize, char)> = line.char_indices().collect();
    for (n, (at, c)) in chars.iter().enumerate() {
        let space = c.is_ascii_whitespace();
        if let Some((last, was_space)) = before {
            let letter = |at: Option<usize>| {
                at.and_then(|at| chars.get(at))
                    .is_some_and(|(_, c)| c.is_alphabetic())
            };
            let hyphen = hyphens && last == '-' && letter(Some(n)) && letter(n.checked_sub(2));
            if was_space != space || hyphen {
                out.push(line.get(from..*at).unwrap_or_default());
                from = *at;
            }
        }
        before = Some((*c, space));
    }
    if from < line.len() {
        out.push(line.get(from..).unwrap_or_default());
    }
    out
}

/// The text without tags and comments, its entities resolved, white space made one blank.
///
/// # Errors
/// If a limit is reached.
pub fn striptags(text: &Str) -> Result<Value> {
    meter::spend_bytes(text.len())?;
    let mut plain = text.to_string();
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        let mut kept = String::new();
        let mut rest = plain.as_str();
        while let Some(at) = rest.find(open) {
            let tag = rest.get(at..).unwrap_or_default();
            let Some(end) = tag.find(close) else { break };
            kept.push_str(rest.get(..at).unwrap_or_default());
            rest = tag.get(end + close.len()..).unwrap_or_default();
        }
        kept.push_str(rest);
        plain = kept;
    }
    let words: Vec<&str> = plain.split_whitespace().collect();
    let text = words
        .join(" ")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&#39;", "'");
    Ok(Value::str(
        text.replace("&#34;", "\"")
            .replace("&quot;", "\"")
            .replace("&amp;", "&"),
    ))
}

fn quoted(value: &Value, query: bool) -> Result<String> {
    let text = print::string(value)?;
    meter::spend_bytes(text.len() * 3)?;
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(char::from(byte))
            }
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    Ok(out)
}

/// Text, or pairs of names and values, as a URL has them.
///
/// # Errors
/// If pairs are no pairs, or a limit is reached.
pub fn urlencode(value: &Value) -> Result<Value> {
    let pairs = match value {
        Value::Dict(dict) => dict.pairs().to_vec(),
        Value::List(_) | Value::Tuple(_) | Value::View(..) | Value::Iter(..) => {
            let mut pairs = Vec::new();
            for pair in value.iterate()? {
                match &pair.iterate()?[..] {
                    [key, value] => pairs.push((key.clone(), value.clone())),
                    _ => return Err(Error::runtime("too many values to unpack (expected 2)")),
                }
            }
            pairs
        }
        other => return Ok(Value::str(quoted(other, false)?)),
    };
    let mut parts = Vec::new();
    for (key, value) in pairs {
        parts.push(format!("{}={}", quoted(&key, true)?, quoted(&value, true)?));
    }
    Ok(Value::str(parts.join("&")))
}
