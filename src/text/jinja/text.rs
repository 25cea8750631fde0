//! Strings that remember where they were marked: where text of one source, such as a user, may not join the text around it.
//!
//! Invariants: marks stand beside the text, not in it, so no operation sees them; each operation hands on those of the
//! parts it keeps.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::Result;
use super::meter::{self, Held};

struct Inner {
    text: Box<str>,
    /// Positions of marks, in bytes, ascending.
    marks: Box<[usize]>,
    _held: Held,
}

/// Bytes that a string takes beside its text and marks.
const OVERHEAD: usize = 64;

/// Whether so many strings may be made at a time of texts that are there already.
///
/// # Errors
/// If there is no memory for them.
pub fn allow_parts(n: usize) -> Result<()> {
    meter::allow_memory(n.saturating_mul(OVERHEAD))
}

/// A string of a template.
#[derive(Clone)]
pub struct Str(Arc<Inner>);

impl Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.text
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Str {
    fn eq(&self, other: &Str) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl Eq for Str {}

impl Hash for Str {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Str {
        Str::new(text.to_owned(), Vec::new())
    }
}

impl From<String> for Str {
    fn from(text: String) -> Str {
        Str::new(text, Vec::new())
    }
}

impl Str {
    fn new(text: String, marks: Vec<usize>) -> Str {
        let bytes = text.len() + marks.len() * 8 + OVERHEAD;
        Str(Arc::new(Inner {
            text: text.into(),
            marks: marks.into(),
            _held: Held::new(bytes),
        }))
    }

    /// A text of the template itself, which no rendering holds.
    pub fn constant(text: &str) -> Str {
        Str(Arc::new(Inner {
            text: text.into(),
            marks: Box::default(),
            _held: Held::nothing(),
        }))
    }

    /// A text that has `mark` where its marks are.
    pub fn with_marks(text: &str, mark: char) -> Str {
        if !text.contains(mark) {
            return text.into();
        }
        let mut out = String::with_capacity(text.len());
        let mut marks = Vec::new();
        for (at, part) in text.split(mark).enumerate() {
            if at > 0 {
                marks.push(out.len());
            }
            out.push_str(part);
        }
        marks.dedup();
        Str::new(out, marks)
    }

    /// The text with `mark` in it where its marks are.
    pub fn marked(&self, mark: char) -> String {
        let mut out = String::with_capacity(self.len() + self.0.marks.len() * mark.len_utf8());
        let mut from = 0;
        for &at in &self.0.marks {
            out.push_str(self.get(from..at).unwrap_or_default());
            out.push(mark);
            from = at;
        }
        out.push_str(self.get(from..).unwrap_or_default());
        out
    }

    /// A part of it; empty if there is no such part.
    pub fn part(&self, range: Range<usize>) -> Str {
        let text = self.get(range.clone()).unwrap_or_default();
        if text.len() == self.len() {
            return self.clone();
        }
        let inside = |at: &&usize| range.contains(*at) || **at == range.end;
        let marks = self.0.marks.iter().filter(inside);
        Str::new(text.to_owned(), marks.map(|at| at - range.start).collect())
    }

    /// The part that `text`, a slice of this string, is.
    pub fn slice(&self, text: &str) -> Str {
        let start = (text.as_ptr() as usize).wrapping_sub(self.as_ptr() as usize);
        match start.checked_add(text.len()) {
            Some(end) if end <= self.len() => self.part(start..end),
            _ => text.into(),
        }
    }

    /// The text between marks, in order.
    pub fn stretches(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.marks.iter().copied().chain([self.len()]);
        let mut from = 0;
        ends.map(move |to| {
            let stretch = self.get(from..to).unwrap_or_default();
            from = to;
            stretch
        })
    }

    /// Each stretch between marks changed by itself, or the whole if there are no marks.
    pub fn map(&self, change: impl Fn(&str) -> String) -> Str {
        if self.0.marks.is_empty() {
            return change(self).into();
        }
        let mut text = String::new();
        let mut marks = Vec::new();
        for (at, stretch) in self.stretches().enumerate() {
            if at > 0 {
                marks.push(text.len());
            }
            text.push_str(&change(stretch));
        }
        Str::new(text, marks)
    }

    /// How many characters it has.
    pub fn chars_len(&self) -> usize {
        if self.is_ascii() {
            self.len()
        } else {
            self.chars().count()
        }
    }
}

/// A string in the making.
#[derive(Default)]
pub struct Builder {
    text: String,
    marks: Vec<usize>,
    counted: Option<Held>,
}

impl Builder {
    /// The bytes so far.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    fn room(&mut self, more: usize) -> Result<()> {
        let whole = self.text.len() + more;
        if whole > self.text.capacity() {
            meter::allow_text(whole)?;
            // What grows is counted too: a template may open many blocks at a time.
            self.counted = Some(Held::new(whole.saturating_mul(2)));
        }
        meter::spend_bytes(more)
    }

    /// Writes the text with its marks.
    ///
    /// # Errors
    /// If it becomes too long.
    pub fn push(&mut self, text: &Str) -> Result<()> {
        self.room(text.len())?;
        let before = self.text.len();
        self.text.push_str(text);
        for at in &text.0.marks {
            let at = before + at;
            if self.marks.last() != Some(&at) {
                self.marks.push(at);
            }
        }
        Ok(())
    }

    /// Writes text that has no marks.
    ///
    /// # Errors
    /// If it becomes too long.
    pub fn push_str(&mut self, text: &str) -> Result<()> {
        self.room(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    /// Marks the place.
    pub fn mark(&mut self) {
        if self.marks.last() != Some(&self.text.len()) {
            self.marks.push(self.text.len());
        }
    }

    /// Writes the text with its marks, and in the place of a character that `escape` has something for, that.
    ///
    /// # Errors
    /// If it becomes too long.
    pub fn push_escaped(
        &mut self,
        text: &Str,
        escape: impl Fn(char) -> Option<String>,
    ) -> Result<()> {
        for (number, stretch) in text.stretches().enumerate() {
            if number > 0 {
                self.mark();
            }
            let mut done = 0;
            for (at, c) in stretch.char_indices() {
                if let Some(escaped) = escape(c) {
                    self.push_str(stretch.get(done..at).unwrap_or_default())?;
                    self.push_str(&escaped)?;
                    done = at + c.len_utf8();
                }
            }
            self.push_str(stretch.get(done..).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Writes `text` so many times.
    ///
    /// # Errors
    /// If it becomes too long.
    pub fn repeat(&mut self, text: &Str, times: usize) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let more = text.len().checked_mul(times).unwrap_or(usize::MAX / 2);
        meter::allow_text(self.text.len().saturating_add(more))?;
        (0..times).try_for_each(|_| self.push(text))
    }

    /// The finished string.
    pub fn finish(self) -> Str {
        Str::new(self.text, self.marks)
    }
}
