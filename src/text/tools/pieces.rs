//! Small machines that formats are made of; each takes one character at a time.

/// What a machine says of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It belongs to it, and more may.
    More,
    /// It belongs to it and completes it.
    Done,
    /// It was complete before this character, which does not belong to it.
    Before,
    /// The text is not of this form.
    Fail,
}

/// The most characters of a name, a key, or a header.
pub(super) const MOST_NAME: usize = 512;

/// White space, then one of a few markers.
#[derive(Clone, Debug, Default)]
pub(super) struct Markers {
    held: String,
}

/// What [`Markers`] has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing for certain.
    More,
    /// The marker of this index.
    One(usize),
    /// None of them can follow.
    Nothing,
}

impl Markers {
    /// Takes a character, looking for one of `of`; none of them is the beginning of another.
    pub fn step(&mut self, c: char, of: &[&str]) -> Seen {
        if self.held.is_empty() && c.is_whitespace() {
            return Seen::More;
        }
        self.held.push(c);
        if let Some(at) = of.iter().position(|marker| *marker == self.held) {
            self.held.clear();
            return Seen::One(at);
        }
        match of.iter().any(|marker| marker.starts_with(&self.held)) {
            true => Seen::More,
            false => {
                self.held.clear();
                Seen::Nothing
            }
        }
    }

    /// Whether nothing but white space came since the last marker.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// Text up to one of a few markers.
#[derive(Clone, Debug, Default)]
pub(super) struct Until {
    text: String,
}

impl Until {
    /// Takes a character; the text and the marker's index once there is one, `Err` if the text gets too long.
    pub fn step(&mut self, c: char, ends: &[&str]) -> Result<Option<(String, usize)>, ()> {
        self.text.push(c);
        for (at, end) in ends.iter().enumerate() {
            if let Some(text) = self.text.strip_suffix(end) {
                let text = text.to_owned();
                self.text.clear();
                return Ok(Some((text, at)));
            }
        }
        match self.text.len() > MOST_NAME {
            true => Err(()),
            false => Ok(None),
        }
    }
}

/// A function's name as it stands bare in a notation: without white space and signs that notations are made of.
pub(super) fn bare_name(text: &str) -> Option<String> {
    let name = text.trim();
    let sign = |c: char| c.is_whitespace() || c.is_control() || "<>{}[]()\"'`\\,=|".contains(c);
    (!name.is_empty() && !name.contains(sign)).then(|| name.to_owned())
}

/// Puts `c` behind `out` as it stands in a JSON string.
pub(super) fn escape(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if (c as u32) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\u{:04x}", c as u32)),
        c => out.push(c),
    }
}

/// `text` as a JSON string with its quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    text.chars().for_each(|c| escape(c, &mut out));
    out.push('"');
    out
}

/// The escapes of a string, undone one character at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Unescape {
    state: Escape,
    /// A high surrogate that waits for its other half.
    high: Option<u32>,
    /// Whether Python's further escapes are known.
    python: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// Behind a backslash.
    Slash,
    /// Digits missing, and the number so far.
    Hex(u32, u32),
}

impl Unescape {
    /// With Python's escapes, an unknown one standing for itself.
    pub fn python() -> Unescape {
        Unescape {
            python: true,
            ..Unescape::default()
        }
    }

    /// Whether the next character stands for itself, so that a quote ends the string.
    pub fn is_plain(&self) -> bool {
        self.state == Escape::None
    }

    /// Puts what `c` stands for behind `out`; `Err` on what is no escape.
    pub fn step(&mut self, c: char, out: &mut String) -> Result<(), ()> {
        match self.state {
            Escape::None if c == '\\' => self.state = Escape::Slash,
            Escape::None => {
                self.lone()?;
                out.push(c);
            }
            Escape::Slash => return self.letter(c, out),
            Escape::Hex(missing, number) => {
                let digit = c.to_digit(16).ok_or(())?;
                let number = number << 4 | digit;
                self.state = match missing {
                    1 => Escape::None,
                    _ => Escape::Hex(missing - 1, number),
                };
                if missing == 1 {
                    return self.code(number, out);
                }
            }
        }
        Ok(())
    }

    /// The string is over: `Err` if a surrogate has no other half.
    pub fn end(&self) -> Result<(), ()> {
        self.lone()
    }

    fn letter(&mut self, c: char, out: &mut String) -> Result<(), ()> {
        self.state = match c {
            'u' => Escape::Hex(4, 0),
            'x' if self.python => Escape::Hex(2, 0),
            'U' if self.python => Escape::Hex(8, 0),
            _ => Escape::None,
        };
        if self.state != Escape::None {
            return Ok(());
        }
        self.lone()?;
        let plain = match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '\'' if self.python => '\'',
            '0' if self.python => '\0',
            'a' if self.python => '\u{7}',
            'v' if self.python => '\u{b}',
            // A line that goes on in the next.
            '\n' if self.python => return Ok(()),
            other if self.python => {
                out.push('\\');
                other
            }
            _ => return Err(()),
        };
        out.push(plain);
        Ok(())
    }

    fn code(&mut self, number: u32, out: &mut String) -> Result<(), ()> {
        match (self.high.take(), number) {
            (Some(high), 0xDC00..=0xDFFF) => {
                let code = 0x10000 + ((high - 0xD800) << 10) + (number - 0xDC00);
                out.push(char::from_u32(code).ok_or(())?);
            }
            (None, 0xD800..=0xDBFF) => self.high = Some(number),
            (None, _) => out.push(char::from_u32(number).ok_or(())?),
            (Some(_), _) => return Err(()),
        }
        Ok(())
    }

    fn lone(&self) -> Result<(), ()> {
        match self.high {
            Some(_) => Err(()),
            None => Ok(()),
        }
    }
}
