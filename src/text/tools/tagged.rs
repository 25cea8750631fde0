//! Notations that write each argument between tags, its value bare; tags.rs lists them.
//!
//! A value becomes JSON by the type that the tool's schema gives it: a string streams as it comes, anything else when
//! it is complete.

use std::sync::Arc;

use super::pieces::{Markers, Seen, Step, Until, bare_name, escape, quoted};
use super::scan::Sink;
use super::schema::{Kinds, Tools};
use super::{Format, Opener};

/// The tags of a notation.
#[derive(Debug)]
pub(super) struct Tags {
    /// What a section of calls begins and ends with; empty where each call stands alone.
    pub section: &'static str,
    pub section_end: &'static str,
    /// What a call begins with, up to its name; empty if that is the section's opener.
    pub call: &'static str,
    /// Whether a call counts that stands in no section.
    pub bare: bool,
    /// What ends the name: the rest of the tag, or, if the first ends with a quote, attributes follow.
    pub name_end: &'static str,
    /// What ends the attributes of a tag.
    pub tag_end: &'static str,
    pub call_end: &'static str,
    /// What an argument begins with, up to its name.
    pub key: &'static str,
    pub key_end: &'static str,
    /// What the value begins with, if the argument's name does not stand in the value's tag.
    pub value: &'static str,
    pub value_end: &'static str,
    /// Whether a value has a line of its own, whose line ends are not part of it.
    pub padded: bool,
    /// Whether a value may be wrapped in `<![CDATA[…]]>`.
    pub cdata: bool,
    /// What a grammar writes between tags, and which attributes it gives a call, a text and another value.
    pub line: &'static str,
    pub call_attributes: &'static str,
    pub value_attributes: (&'static str, &'static str),
    /// What a value is of which the schema says nothing.
    pub untyped: Kinds,
}

const CDATA: &str = "<![CDATA[";

pub(super) struct Tagged {
    tags: &'static Tags,
    tools: Arc<Tools>,
    state: State,
    name: String,
    n_arguments: usize,
    /// A call was completed since the opener.
    called: bool,
}

enum State {
    Calls(Markers),
    Name(Until),
    NameAttributes(Until),
    Arguments(Markers),
    Key(Until),
    KeyAttributes(String, Until),
    Opening(Kinds, Markers),
    Value(Value),
}

/// A value under way.
struct Value {
    kinds: Kinds,
    /// What may be part of the closing tag, or of the opening of CDATA.
    held: String,
    /// What was read, unless it streams.
    text: String,
    end: String,
    padded: bool,
    /// Whether the value is yet to begin.
    first: bool,
    cdata: bool,
}

impl Tagged {
    pub fn new(tags: &'static Tags, tools: Arc<Tools>) -> Tagged {
        Tagged {
            tags,
            tools,
            state: State::Calls(Markers::default()),
            name: String::new(),
            n_arguments: 0,
            called: false,
        }
    }

    /// What ends a name: where a call has no tag of its own, also what follows it.
    fn name_ends(&self) -> Vec<&'static str> {
        let tags = self.tags;
        match tags.call.is_empty() {
            true => vec![tags.name_end, tags.key, tags.call_end],
            false => vec![tags.name_end],
        }
    }

    fn start(&mut self, sink: &mut Sink) {
        self.n_arguments = 0;
        sink.start(self.name.clone(), None);
    }

    fn end_call(&mut self, sink: &mut Sink) -> Step {
        sink.arguments(if self.n_arguments == 0 { "{}" } else { "}" });
        sink.end();
        self.called = true;
        self.state = State::Calls(Markers::default());
        match self.tags.section_end.is_empty() {
            true => Step::Done,
            false => Step::More,
        }
    }

    fn begin_argument(&mut self, key: &str, attributes: &str, sink: &mut Sink) {
        let open = match self.n_arguments {
            0 => "{",
            _ => ", ",
        };
        self.n_arguments += 1;
        sink.arguments(&format!("{open}{}: ", quoted(key)));
        let mut kinds = self.tools.kinds(&self.name, key);
        if attributes.contains("string=\"true\"") || attributes.contains("type=\"string\"") {
            kinds = Kinds::STRING;
        } else if attributes.contains("string=\"false\"")
            || (attributes.contains("type=\"") && kinds.is_unknown())
        {
            kinds = Kinds::JSON;
        } else if kinds.is_unknown() {
            kinds = self.tags.untyped;
        }
        self.state = match self.tags.value.is_empty() {
            true => self.value(kinds, sink),
            false => State::Opening(kinds, Markers::default()),
        };
    }

    fn value(&self, kinds: Kinds, sink: &mut Sink) -> State {
        if kinds.is_string() {
            sink.arguments("\"");
        }
        State::Value(Value {
            kinds,
            held: String::new(),
            text: String::new(),
            end: self.tags.value_end.to_owned(),
            padded: self.tags.padded,
            first: true,
            cdata: self.tags.cdata,
        })
    }
}

impl Value {
    /// Takes a character; true if the value is complete.
    fn step(&mut self, c: char, sink: &mut Sink) -> bool {
        if std::mem::take(&mut self.first) && self.padded && c == '\n' {
            return false;
        }
        self.held.push(c);
        if self.cdata {
            if self.held == CDATA {
                self.held.clear();
                self.cdata = false;
                self.end.insert_str(0, "]]>");
                return false;
            }
            if CDATA.starts_with(&self.held) {
                return false;
            }
            self.cdata = false;
        }
        while !self.held.is_empty() {
            let line = match self.padded {
                true => self.held.strip_prefix('\n').unwrap_or(&self.held),
                false => &self.held,
            };
            if line == self.end {
                return true;
            }
            if self.end.starts_with(line) {
                return false;
            }
            let first = self.held.remove(0);
            self.put(first, sink);
        }
        false
    }

    fn put(&mut self, c: char, sink: &mut Sink) {
        if self.kinds.is_string() {
            let mut json = String::new();
            escape(c, &mut json);
            sink.arguments(&json);
        } else {
            self.text.push(c);
        }
    }

    fn end(&self, sink: &mut Sink) {
        match self.kinds.is_string() {
            true => sink.arguments("\""),
            false => sink.arguments(&self.kinds.json(&self.text)),
        }
    }
}

/// Whether what stands between a name and the tag's end is nothing or further attributes.
fn are_attributes(text: &str) -> bool {
    text.trim().is_empty() || (text.starts_with(' ') && text.ends_with('"') && !text.contains('<'))
}

impl Format for Tagged {
    fn openers(&self) -> Vec<Opener> {
        let tags = self.tags;
        let mut openers = Vec::new();
        if !tags.section.is_empty() {
            openers.push(Opener::anywhere(tags.section));
        }
        if tags.bare {
            openers.push(Opener::anywhere(tags.call));
        }
        openers
    }

    fn open(&mut self, opener: usize, _sink: &mut Sink) {
        self.called = false;
        let in_section = opener == 0 && !self.tags.section.is_empty();
        self.state = match in_section && !self.tags.call.is_empty() {
            true => State::Calls(Markers::default()),
            false => State::Name(Until::default()),
        };
    }

    fn step(&mut self, c: char, sink: &mut Sink) -> Step {
        let tags = self.tags;
        let ends = self.name_ends();
        match &mut self.state {
            State::Calls(markers) => {
                let called = self.called;
                let seen = match tags.call.is_empty() {
                    true => markers.step(c, &[tags.section_end]),
                    false => markers.step(c, &[tags.section_end, tags.call]),
                };
                match seen {
                    Seen::More => {}
                    // A section without a call is text.
                    _ if !called && seen != Seen::One(1) => return Step::Fail,
                    Seen::One(0) => return Step::Done,
                    Seen::One(_) => self.state = State::Name(Until::default()),
                    Seen::Nothing => return Step::Before,
                }
            }
            State::Name(until) => {
                let (text, at) = match until.step(c, &ends) {
                    Ok(Some(found)) => found,
                    Ok(None) => return Step::More,
                    Err(()) => return Step::Fail,
                };
                // Where the name ends with a line, the line may be empty before it.
                if tags.call.is_empty() && at == 0 && text.trim().is_empty() {
                    return Step::More;
                }
                let Some(name) = bare_name(&text) else {
                    return Step::Fail;
                };
                self.name = name;
                if tags.name_end.ends_with('"') {
                    self.state = State::NameAttributes(Until::default());
                    return Step::More;
                }
                self.start(sink);
                match at {
                    0 => self.state = State::Arguments(Markers::default()),
                    1 => self.state = State::Key(Until::default()),
                    _ => return self.end_call(sink),
                }
            }
            State::NameAttributes(until) => match until.step(c, &[tags.tag_end]) {
                Ok(None) => {}
                Ok(Some((text, _))) if !are_attributes(&text) => return Step::Fail,
                Ok(Some(_)) => {
                    self.start(sink);
                    self.state = State::Arguments(Markers::default());
                }
                Err(()) => return Step::Fail,
            },
            State::Arguments(markers) => match markers.step(c, &[tags.key, tags.call_end]) {
                Seen::More => {}
                Seen::One(0) => self.state = State::Key(Until::default()),
                Seen::One(_) => return self.end_call(sink),
                Seen::Nothing => return Step::Fail,
            },
            State::Key(until) => match until.step(c, &[tags.key_end]) {
                Ok(None) => {}
                Ok(Some((key, _))) if tags.key_end.ends_with('"') => {
                    self.state = State::KeyAttributes(key, Until::default());
                }
                Ok(Some((key, _))) => self.begin_argument(key.trim(), "", sink),
                Err(()) => return Step::Fail,
            },
            State::KeyAttributes(key, until) => match until.step(c, &[tags.tag_end]) {
                Ok(None) => {}
                Ok(Some((text, _))) if !are_attributes(&text) => return Step::Fail,
                Ok(Some((attributes, _))) => {
                    let key = std::mem::take(key);
                    self.begin_argument(&key, &attributes, sink);
                }
                Err(()) => return Step::Fail,
            },
            State::Opening(kinds, markers) => match markers.step(c, &[tags.value]) {
                Seen::More => {}
                Seen::One(_) => {
                    let kinds = *kinds;
                    self.state = self.value(kinds, sink);
                }
                Seen::Nothing => return Step::Fail,
            },
            State::Value(value) => {
                if value.step(c, sink) {
                    value.end(sink);
                    self.state = State::Arguments(Markers::default());
                }
            }
        }
        Step::More
    }

    fn end(&mut self, _sink: &mut Sink) -> bool {
        self.called && matches!(&self.state, State::Calls(markers) if markers.is_empty())
    }
}
