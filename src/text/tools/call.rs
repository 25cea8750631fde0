//! Calls written in JSON: `{"name": …, "arguments": {…}}`, alone or in a list.
//!
//! Invariant: what goes out as arguments is one JSON object, passed on as it comes. Arguments that come before the name
//! wait for it; arguments given as a string of JSON come out as the object that the string holds.

use super::json::Json;
use super::pieces::{Step, Unescape};
use super::scan::Sink;

/// What the members of a call are called.
#[derive(Debug)]
pub(super) struct Keys {
    pub name: &'static [&'static str],
    pub arguments: &'static [&'static str],
    pub id: &'static [&'static str],
    /// The object has one member instead: the function's name, with the arguments as its value.
    pub keyed: bool,
}

/// The usual names.
pub(super) const USUAL: Keys = Keys {
    name: &["name"],
    arguments: &["arguments", "parameters"],
    id: &["id"],
    keyed: false,
};

/// One object, the arguments, given as such or as a string of JSON.
#[derive(Clone, Debug)]
pub(super) struct Arguments {
    form: Form,
    json: Json,
    unescape: Unescape,
    /// Whether the object inside the string is complete.
    inner: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Unknown,
    Object,
    String,
    /// What is missing of `null`.
    Null(&'static str),
}

impl Arguments {
    pub fn new() -> Arguments {
        Arguments {
            form: Form::Unknown,
            json: Json::new(),
            unescape: Unescape::default(),
            inner: false,
        }
    }

    /// Takes a character and puts what is known of the object behind `out`.
    pub fn step(&mut self, c: char, out: &mut String) -> Step {
        match self.form {
            Form::Unknown if c.is_whitespace() => Step::More,
            Form::Unknown => {
                self.form = match c {
                    '{' => Form::Object,
                    '"' => Form::String,
                    'n' => Form::Null("ull"),
                    _ => return Step::Fail,
                };
                match self.form {
                    Form::Object => self.json.step(c, out),
                    _ => Step::More,
                }
            }
            Form::Object => self.json.step(c, out),
            Form::String if c == '"' && self.unescape.is_plain() => self.end_string(out),
            Form::String => self.in_string(c, out),
            Form::Null(rest) => match rest.strip_prefix(c) {
                Some("") => {
                    out.push_str("{}");
                    Step::Done
                }
                Some(rest) => {
                    self.form = Form::Null(rest);
                    Step::More
                }
                None => Step::Fail,
            },
        }
    }

    fn in_string(&mut self, c: char, out: &mut String) -> Step {
        let mut plain = String::new();
        if self.unescape.step(c, &mut plain).is_err() {
            return Step::Fail;
        }
        for c in plain.chars() {
            let blank = c.is_whitespace();
            if self.inner && blank {
                continue;
            }
            if self.inner || (self.json.is_new() && !blank && c != '{') {
                return Step::Fail;
            }
            match self.json.step(c, out) {
                Step::More => {}
                Step::Done => self.inner = true,
                _ => return Step::Fail,
            }
        }
        Step::More
    }

    fn end_string(&mut self, out: &mut String) -> Step {
        match (self.unescape.end().is_ok(), self.inner) {
            (true, true) => Step::Done,
            (true, false) if self.json.is_new() => {
                out.push_str("{}");
                Step::Done
            }
            _ => Step::Fail,
        }
    }
}

/// One call, or a list of calls.
#[derive(Debug)]
pub(super) struct Calls {
    keys: &'static Keys,
    state: State,
    listed: bool,
    key: String,
    value: String,
    json: Json,
    what: Member,
    name: Option<String>,
    id: Option<String>,
    arguments: Arguments,
    given: Given,
}

/// How far the arguments are.
#[derive(Debug)]
enum Given {
    Not,
    /// They came before the name.
    Early(String),
    Streaming,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Name,
    Arguments,
    Id,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `{`, or `[`.
    Start,
    /// `{` of a further call.
    Item,
    /// `{` or the list's end.
    FirstItem,
    FirstKey,
    Key,
    InKey,
    Colon,
    Value,
    AfterValue,
    AfterItem,
}

impl Calls {
    pub fn new(keys: &'static Keys) -> Calls {
        Calls {
            keys,
            state: State::Start,
            listed: false,
            key: String::new(),
            value: String::new(),
            json: Json::new(),
            what: Member::Other,
            name: None,
            id: None,
            arguments: Arguments::new(),
            given: Given::Not,
        }
    }

    /// Takes a character.
    pub fn step(&mut self, c: char, sink: &mut Sink) -> Step {
        let blank = c.is_whitespace();
        match self.state {
            State::InKey => return self.in_key(c),
            State::Value => return self.value(c, sink),
            _ if blank => return Step::More,
            State::Start | State::Item | State::FirstItem if c == '{' => {
                self.name = None;
                self.id = None;
                self.given = Given::Not;
                self.state = State::FirstKey;
            }
            State::Start if c == '[' => {
                self.listed = true;
                self.state = State::FirstItem;
            }
            State::FirstKey | State::Key if c == '"' => {
                self.key.clear();
                self.key.push(c);
                self.json = Json::new();
                let _ = self.json.step(c, &mut String::new());
                self.state = State::InKey;
            }
            State::Colon if c == ':' => {
                self.value.clear();
                self.json = Json::new();
                self.state = State::Value;
            }
            State::AfterValue if c == ',' => self.state = State::Key,
            State::AfterValue if c == '}' => return self.end(sink),
            State::AfterItem if c == ',' => self.state = State::Item,
            State::AfterItem if c == ']' => return Step::Done,
            _ => return Step::Fail,
        }
        Step::More
    }

    /// Whether calls are complete although their list is not.
    pub fn between_calls(&self) -> bool {
        self.state == State::AfterItem
    }

    fn in_key(&mut self, c: char) -> Step {
        match self.json.step(c, &mut self.key) {
            Step::More => return Step::More,
            Step::Done => {}
            _ => return Step::Fail,
        }
        let Ok(key) = serde_json::from_str::<String>(&self.key) else {
            return Step::Fail;
        };
        let keys = self.keys;
        let is = |names: &[&str]| names.contains(&key.as_str());
        self.what = if keys.keyed {
            if self.name.is_some() || key.is_empty() {
                return Step::Fail;
            }
            self.name = Some(key);
            Member::Arguments
        } else if is(keys.name) {
            Member::Name
        } else if is(keys.arguments) {
            Member::Arguments
        } else if is(keys.id) {
            Member::Id
        } else {
            Member::Other
        };
        let again = match self.what {
            Member::Name => self.name.is_some(),
            Member::Arguments => !matches!(self.given, Given::Not),
            _ => false,
        };
        if again {
            return Step::Fail;
        }
        self.arguments = Arguments::new();
        self.state = State::Colon;
        Step::More
    }

    fn value(&mut self, c: char, sink: &mut Sink) -> Step {
        if self.what == Member::Arguments {
            return self.argument(c, sink);
        }
        let step = self.json.step(c, &mut self.value);
        match step {
            Step::More => return Step::More,
            Step::Fail => return Step::Fail,
            Step::Done | Step::Before => {}
        }
        let text = serde_json::from_str::<String>(&self.value).ok();
        match self.what {
            Member::Name => {
                let Some(name) = text.filter(|name| !name.is_empty()) else {
                    return Step::Fail;
                };
                self.name = Some(name);
                if let Given::Early(early) = &self.given {
                    let early = early.clone();
                    self.start(sink);
                    sink.arguments(&early);
                    self.given = Given::All;
                }
            }
            Member::Id => self.id = text.filter(|id| !id.is_empty()),
            _ => {}
        }
        self.state = State::AfterValue;
        match step {
            Step::Before => self.step(c, sink),
            _ => Step::More,
        }
    }

    fn argument(&mut self, c: char, sink: &mut Sink) -> Step {
        let mut out = String::new();
        let step = self.arguments.step(c, &mut out);
        if step == Step::Fail {
            return step;
        }
        if matches!(self.given, Given::Not) {
            self.given = match self.name.is_some() {
                true if out.is_empty() => Given::Not,
                true => {
                    self.start(sink);
                    Given::Streaming
                }
                false => Given::Early(String::new()),
            };
        }
        match &mut self.given {
            Given::Early(early) => early.push_str(&out),
            _ => sink.arguments(&out),
        }
        if step == Step::Done {
            if matches!(self.given, Given::Streaming) {
                self.given = Given::All;
            }
            self.state = State::AfterValue;
        }
        Step::More
    }

    fn start(&mut self, sink: &mut Sink) {
        sink.start(self.name.clone().unwrap_or_default(), self.id.take());
    }

    fn end(&mut self, sink: &mut Sink) -> Step {
        match (&self.given, &self.name) {
            (Given::Not, Some(_)) => {
                self.start(sink);
                sink.arguments("{}");
            }
            (Given::All, Some(_)) => {}
            _ => return Step::Fail,
        }
        sink.end();
        self.state = State::AfterItem;
        match self.listed {
            true => Step::More,
            false => Step::Done,
        }
    }
}
