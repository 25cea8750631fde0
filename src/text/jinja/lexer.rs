//! A template's source to tokens, with Jinja's white space control: `trim_blocks` and `lstrip_blocks` on, one newline
//! at the end dropped.

use super::text::Str;
use super::{Error, Result};

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// Plain text
    Data(Str),
    /// `{{`
    PrintBegin,
    /// `}}`
    PrintEnd,
    /// `{%`
    BlockBegin,
    /// `%}`
    BlockEnd,
    /// A name or a keyword
    Name(Str),
    /// A literal
    Str(Str),
    /// A literal
    Int(i128),
    /// A literal
    Float(f64),
    /// Punctuation
    Op(&'static str),
    /// The end
    End,
}

impl Token {
    /// How errors name it.
    pub fn describe(&self) -> String {
        match self {
            Token::Data(_) => "template data / text".into(),
            Token::PrintBegin => "begin of print statement".into(),
            Token::PrintEnd => "end of print statement".into(),
            Token::BlockBegin => "begin of statement block".into(),
            Token::BlockEnd => "end of statement block".into(),
            Token::Name(name) => name.to_string(),
            Token::Str(_) => "string".into(),
            Token::Int(_) => "integer".into(),
            Token::Float(_) => "float".into(),
            Token::Op(op) => (*op).into(),
            Token::End => "end of template".into(),
        }
    }
}

/// Longest first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";",
];

/// Splits the source; each token comes with its line, from 1.
///
/// # Errors
/// If something in it is no token or is left open.
pub fn tokens(source: &str) -> Result<Vec<(Token, usize)>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer {
        source,
        at: 0,
        line: 1,
        counted: 0,
        line_starting: true,
        out: Vec::new(),
    };
    lexer.root()?;
    let line = lexer.line_here();
    lexer.out.push((Token::End, line));
    Ok(lexer.out)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    counted: usize,
    line_starting: bool,
    out: Vec<(Token, usize)>,
}

fn spaces(text: &str) -> usize {
    text.len() - text.trim_start_matches(is_space).len()
}

/// What Python calls white space.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn line_here(&mut self) -> usize {
        let text = self.source.get(self.counted..self.at).unwrap_or_default();
        self.line += text.matches('\n').count();
        self.counted = self.at;
        self.line
    }

    fn push(&mut self, token: Token) {
        let line = self.line_here();
        self.out.push((token, line));
    }

    fn error<T>(&mut self, text: String) -> Result<T> {
        let line = self.line_here();
        Err(Error::syntax(text, line))
    }

    fn moved(&mut self, by: usize) {
        self.at += by;
        let done = self.source.get(..self.at).unwrap_or_default();
        self.line_starting = done.ends_with('\n');
    }

    /// The text in front of a tag, as its sign and the settings leave it.
    fn before_tag(&self, text: &'a str, sign: Option<u8>, print: bool) -> &'a str {
        match sign {
            Some(b'-') => text.trim_end_matches(is_space),
            Some(b'+') => text,
            _ if print => text,
            _ => {
                let start = text.rfind('\n').map_or(0, |at| at + 1);
                let last = text.get(start..).unwrap_or_default();
                match (start > 0 || self.line_starting)
                    && !last.is_empty()
                    && last.chars().all(is_space)
                {
                    true => text.get(..start).unwrap_or_default(),
                    false => text,
                }
            }
        }
    }

    fn root(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            let mut from = 0;
            let found = loop {
                let Some(at) = rest
                    .get(from..)
                    .and_then(|text| text.find('{'))
                    .map(|at| at + from)
                else {
                    break None;
                };
                match rest.as_bytes().get(at + 1) {
                    Some(b'{' | b'%' | b'#') => break Some(at),
                    _ => from = at + 1,
                }
            };
            let Some(at) = found else {
                if !rest.is_empty() {
                    self.push(Token::Data(Str::constant(rest)));
                    self.moved(rest.len());
                }
                return Ok(());
            };
            let bytes = rest.as_bytes();
            let kind = bytes.get(at + 1).copied();
            let sign = bytes
                .get(at + 2)
                .copied()
                .filter(|sign| matches!(sign, b'-' | b'+'));
            let text = rest.get(..at).unwrap_or_default();
            let kept = self.before_tag(text, sign, kind == Some(b'{'));
            if !kept.is_empty() {
                self.push(Token::Data(Str::constant(kept)));
            }
            let open = at + 2 + usize::from(sign.is_some());
            let inner = rest.get(open..).unwrap_or_default();
            self.moved(open);
            match kind {
                Some(b'#') => self.comment(inner)?,
                Some(b'{') => {
                    self.push(Token::PrintBegin);
                    self.inside(true)?;
                }
                _ => {
                    let name = inner.trim_start_matches(is_space);
                    let raw = name
                        .strip_prefix("raw")
                        .map(|rest| rest.trim_start_matches(is_space));
                    let ends = |rest: &str| rest.starts_with("%}") || rest.starts_with("-%}");
                    if let Some(after) = raw.filter(|rest| ends(rest)) {
                        self.moved(inner.len() - after.len());
                        self.raw(after)?;
                    } else {
                        self.push(Token::BlockBegin);
                        self.inside(false)?;
                    }
                }
            }
        }
    }

    fn comment(&mut self, inner: &str) -> Result<()> {
        let Some(end) = inner.find("#}") else {
            return self.error("Missing end of comment tag".into());
        };
        self.moved(end);
        self.close(
            inner
                .get(..end)
                .unwrap_or_default()
                .as_bytes()
                .last()
                .copied(),
            false,
        );
        Ok(())
    }

    /// Passes the two characters of a closing mark, and the white space that goes with it.
    fn close(&mut self, sign: Option<u8>, print: bool) {
        let after = self.rest().get(2..).unwrap_or_default();
        let drop = match sign {
            Some(b'-') => spaces(after),
            Some(b'+') => 0,
            _ => usize::from(!print && after.starts_with('\n')),
        };
        self.moved(2 + drop);
    }

    fn raw(&mut self, after: &'a str) -> Result<()> {
        let dash = after.starts_with('-');
        let open = if dash { 3 } else { 2 };
        self.moved(open);
        let body = self.rest();
        let skip = if dash { spaces(body) } else { 0 };
        self.moved(skip);
        let body = self.rest();
        for (at, _) in body.match_indices("{%") {
            let tag = body.get(at + 2..).unwrap_or_default();
            let sign = tag
                .as_bytes()
                .first()
                .copied()
                .filter(|sign| matches!(sign, b'-' | b'+'));
            let name = tag
                .get(usize::from(sign.is_some())..)
                .unwrap_or_default()
                .trim_start_matches(is_space);
            let Some(end) = name
                .strip_prefix("endraw")
                .map(|end| end.trim_start_matches(is_space))
            else {
                continue;
            };
            let closing = end
                .as_bytes()
                .first()
                .copied()
                .filter(|sign| matches!(sign, b'-' | b'+'));
            let mark = end
                .get(usize::from(closing.is_some())..)
                .unwrap_or_default();
            if !mark.starts_with("%}") {
                continue;
            }
            let text = self.before_tag(body.get(..at).unwrap_or_default(), sign, false);
            if !text.is_empty() {
                self.push(Token::Data(Str::constant(text)));
            }
            self.moved(body.len() - mark.len());
            self.close(closing, false);
            return Ok(());
        }
        self.error("Missing end of raw directive".into())
    }

    fn inside(&mut self, print: bool) -> Result<()> {
        let end = if print { "}}" } else { "%}" };
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            let rest = self.rest();
            let Some(c) = rest.chars().next() else {
                let what = if print {
                    "end of print statement"
                } else {
                    "end of statement block"
                };
                // The parser says what it expected.
                return match open.last() {
                    Some(_) => self.error(format!("unexpected end of template, expected '{what}'")),
                    None => Ok(()),
                };
            };
            if open.is_empty() {
                let sign = rest.as_bytes().first().copied();
                let signed = match sign {
                    Some(b'-') => rest.get(1..).is_some_and(|rest| rest.starts_with(end)),
                    Some(b'+') => !print && rest.get(1..).is_some_and(|rest| rest.starts_with(end)),
                    _ => false,
                };
                if signed || rest.starts_with(end) {
                    self.push(if print {
                        Token::PrintEnd
                    } else {
                        Token::BlockEnd
                    });
                    if signed {
                        self.moved(1);
                    }
                    self.close(sign.filter(|_| signed), print);
                    return Ok(());
                }
            }
            if is_space(c) {
                self.moved(spaces(rest));
            } else if c.is_ascii_digit() {
                self.number(rest)?;
            } else if c == '_' || c.is_alphabetic() {
                let stop = rest
                    .find(|c: char| c != '_' && !c.is_alphanumeric())
                    .unwrap_or(rest.len());
                self.push(Token::Name(Str::constant(
                    rest.get(..stop).unwrap_or_default(),
                )));
                self.moved(stop);
            } else if c == '"' || c == '\'' {
                self.string(rest, c)?;
            } else if let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) {
                match *op {
                    "{" => open.push("}"),
                    "[" => open.push("]"),
                    "(" => open.push(")"),
                    "}" | "]" | ")" => match open.pop() {
                        None => return self.error(format!("unexpected '{op}'")),
                        Some(wanted) if wanted != *op => {
                            return self.error(format!("unexpected '{op}', expected '{wanted}'"));
                        }
                        Some(_) => {}
                    },
                    _ => {}
                }
                self.push(Token::Op(op));
                self.moved(op.len());
            } else {
                return self.error(format!("unexpected char {c:?} at {}", self.at));
            }
        }
    }

    fn number(&mut self, rest: &str) -> Result<()> {
        let digits = |text: &str, ok: fn(char) -> bool| -> usize {
            // Single underscores may stand between digits.
            let mut end = 0;
            let mut chars = text.char_indices().peekable();
            while let Some((at, c)) = chars.next() {
                if ok(c) {
                    end = at + 1;
                } else if c != '_' || !chars.peek().is_some_and(|(_, next)| ok(*next)) || end != at
                {
                    break;
                }
            }
            end
        };
        for (prefix, base) in [("0b", 2), ("0o", 8), ("0x", 16)] {
            let head = rest.get(..2).unwrap_or_default().to_ascii_lowercase();
            if head == prefix {
                let body = rest.get(2..).unwrap_or_default();
                let body = body.strip_prefix('_').unwrap_or(body);
                let ok: fn(char) -> bool = match base {
                    2 => |c| matches!(c, '0' | '1'),
                    8 => |c| matches!(c, '0'..='7'),
                    _ => |c| c.is_ascii_hexdigit(),
                };
                let width = digits(body, ok);
                if width > 0 {
                    let text = body.get(..width).unwrap_or_default().replace('_', "");
                    let whole = rest.len() - body.len() + width;
                    return match i128::from_str_radix(&text, base) {
                        Ok(n) => {
                            self.push(Token::Int(n));
                            self.moved(whole);
                            Ok(())
                        }
                        Err(_) => self.error("a number of more than 127 bits".into()),
                    };
                }
            }
        }
        let decimal: fn(char) -> bool = |c| c.is_ascii_digit();
        let whole = digits(rest, decimal);
        let mut end = whole;
        let mut float = false;
        let tail = rest.get(whole..).unwrap_or_default();
        if let Some(fraction) = tail.strip_prefix('.') {
            let width = digits(fraction, decimal);
            if width > 0 {
                end += 1 + width;
                float = true;
            }
        }
        let tail = rest.get(end..).unwrap_or_default();
        if let Some(exponent) = tail.strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let width = digits(exponent.get(sign..).unwrap_or_default(), decimal);
            if width > 0 {
                end += 1 + sign + width;
                float = true;
            }
        }
        // What stands directly behind the dot of an attribute, `a.0.1`, is whole.
        if float
            && self
                .source
                .get(..self.at)
                .is_some_and(|done| done.ends_with('.'))
        {
            float = false;
            end = whole;
        }
        if !float && rest.starts_with('0') {
            // 0 has no digits but 0 behind it.
            let zeros: fn(char) -> bool = |c| c == '0';
            end = digits(rest, zeros);
        }
        let text = rest.get(..end).unwrap_or_default().replace('_', "");
        let token = match float {
            true => text.parse().ok().map(Token::Float),
            false => text.parse().ok().map(Token::Int),
        };
        match token {
            Some(token) => {
                self.push(token);
                self.moved(end);
                Ok(())
            }
            None => self.error(format!("{text} is a number of more than 127 bits")),
        }
    }

    fn string(&mut self, rest: &str, quote: char) -> Result<()> {
        let mut out = String::new();
        let mut chars = rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.push(Token::Str(Str::constant(&out)));
                self.moved(at + 1);
                return Ok(());
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            let Some((_, escaped)) = chars.next() else {
                break;
            };
            let mut hex = |digits: usize| -> Option<char> {
                let mut code = 0u32;
                for _ in 0..digits {
                    let digit = chars.peek().and_then(|(_, c)| c.to_digit(16))?;
                    chars.next();
                    code = code.checked_mul(16)?.checked_add(digit)?;
                }
                char::from_u32(code)
            };
            let wide = match escaped {
                'x' => Some(hex(2)),
                'u' => Some(hex(4)),
                'U' => Some(hex(8)),
                _ => None,
            };
            match (escaped, wide) {
                (_, Some(Some(c))) => out.push(c),
                (_, Some(None)) => {
                    return self.error(format!("a string has a bad escape \\{escaped}"));
                }
                ('\n', _) => {}
                ('n', _) => out.push('\n'),
                ('t', _) => out.push('\t'),
                ('r', _) => out.push('\r'),
                ('a', _) => out.push('\u{7}'),
                ('b', _) => out.push('\u{8}'),
                ('f', _) => out.push('\u{c}'),
                ('v', _) => out.push('\u{b}'),
                ('\\' | '\'' | '"', _) => out.push(escaped),
                ('N', _) => return self.error("names of characters (\\N) are not known".into()),
                ('0'..='7', _) => {
                    let mut code = escaped.to_digit(8).unwrap_or(0);
                    for _ in 0..2 {
                        let Some(digit) = chars.peek().and_then(|(_, c)| c.to_digit(8)) else {
                            break;
                        };
                        chars.next();
                        code = code * 8 + digit;
                    }
                    out.extend(char::from_u32(code));
                }
                (other, _) => out.extend(['\\', other]),
            }
        }
        self.error(format!("unexpected char {quote:?} at {}", self.at))
    }
}
