//! Harmony, the channels of gpt-oss: an answer is a row of messages, each
//! `<|start|>assistant<|channel|>CHANNEL to=RECIPIENT <|constrain|>json<|message|>TEXT<|end|>`, the first without what
//! the prompt already says. `analysis` is reasoning; what is sent to `functions.NAME` is a call; the rest is text.

use super::call::Arguments;
use super::pieces::{MOST_NAME, Step, bare_name};
use super::scan::Sink;
use super::{Format, Opener};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const CONSTRAIN: &str = "<|constrain|>";
/// What ends a message.
const ENDS: [&str; 5] = ["<|end|>", "<|return|>", "<|call|>", START, CHANNEL];
/// Those of them that belong to the message that they end, and begin no further one.
const OWN_ENDS: usize = 3;

/// All control tokens of the notation.
pub(super) const MARKERS: [&str; 7] = [
    START, CHANNEL, MESSAGE, CONSTRAIN, ENDS[0], ENDS[1], ENDS[2],
];

pub(super) struct Harmony {
    state: State,
    /// Whether tools were offered, so that there can be calls.
    calls: bool,
}

enum State {
    Header(String),
    /// Text or reasoning, and what of it may be the end.
    Text {
        reasoning: bool,
        held: String,
    },
    Arguments(Arguments),
    /// Behind a call's arguments.
    After(String),
}

/// What a header says.
struct Header {
    reasoning: bool,
    recipient: Option<String>,
}

impl Header {
    fn read(text: &str) -> Header {
        // Harmony allows the recipient before the channel and behind it.
        let spaced = text
            .replace(CHANNEL, " <|channel|>")
            .replace(CONSTRAIN, " ");
        let mut words = spaced.split_whitespace();
        let channel = spaced
            .split_whitespace()
            .find_map(|word| word.strip_prefix(CHANNEL));
        let recipient = words.find_map(|word| word.strip_prefix("to="));
        Header {
            reasoning: channel == Some("analysis"),
            recipient: recipient.map(str::to_owned),
        }
    }
}

impl Harmony {
    pub fn new(calls: bool) -> Harmony {
        Harmony {
            state: State::Header(String::new()),
            calls,
        }
    }

    fn message(&mut self, header: &Header, sink: &mut Sink) -> Step {
        let recipient = header.recipient.as_deref().filter(|_| self.calls);
        if let Some(recipient) = recipient.filter(|name| *name != "assistant") {
            let name = recipient.strip_prefix("functions.").unwrap_or(recipient);
            let Some(name) = bare_name(name) else {
                return Step::Fail;
            };
            sink.start(name, None);
            self.state = State::Arguments(Arguments::new());
            return Step::More;
        }
        sink.settle();
        self.state = State::Text {
            reasoning: header.reasoning,
            held: String::new(),
        };
        Step::More
    }
}

impl Format for Harmony {
    fn openers(&self) -> Vec<Opener> {
        vec![
            Opener::anywhere(CHANNEL),
            Opener::anywhere(START),
            Opener::at_start("to="),
        ]
    }

    fn open(&mut self, opener: usize, _sink: &mut Sink) {
        let opener = self.openers().get(opener).map_or("", |opener| opener.text);
        self.state = State::Header(opener.to_owned());
    }

    fn step(&mut self, c: char, sink: &mut Sink) -> Step {
        match &mut self.state {
            State::Header(text) => {
                text.push(c);
                if let Some(header) = text.strip_suffix(MESSAGE) {
                    let header = Header::read(header);
                    return self.message(&header, sink);
                }
                match text.len() > MOST_NAME
                    || ENDS[..OWN_ENDS].iter().any(|end| text.ends_with(end))
                {
                    true => Step::Fail,
                    false => Step::More,
                }
            }
            State::Text { reasoning, held } => {
                held.push(c);
                let mut free = String::new();
                while !held.is_empty() && !ENDS.iter().any(|end| end.starts_with(held.as_str())) {
                    free.push(held.remove(0));
                }
                let end = ENDS.iter().position(|end| end == held);
                match *reasoning {
                    true => sink.reasoning(&free, held.len()),
                    false => sink.text(&free, held.len()),
                }
                match end {
                    None => Step::More,
                    Some(end) if end < OWN_ENDS => Step::Done,
                    Some(_) => {
                        let header = std::mem::take(held);
                        self.state = State::Header(header);
                        Step::More
                    }
                }
            }
            State::Arguments(arguments) => {
                let mut out = String::new();
                let step = arguments.step(c, &mut out);
                sink.arguments(&out);
                if step != Step::Done {
                    return step;
                }
                sink.end();
                self.state = State::After(String::new());
                Step::More
            }
            State::After(held) => {
                if held.is_empty() && c.is_whitespace() {
                    return Step::More;
                }
                held.push(c);
                match ENDS[..OWN_ENDS].iter().any(|end| end == held) {
                    true => Step::Done,
                    false
                        if ENDS[..OWN_ENDS]
                            .iter()
                            .any(|end| end.starts_with(held.as_str())) =>
                    {
                        Step::More
                    }
                    false => Step::Before,
                }
            }
        }
    }

    fn end(&mut self, sink: &mut Sink) -> bool {
        match &mut self.state {
            State::Text { reasoning, held } => {
                let held = std::mem::take(held);
                match *reasoning {
                    true => sink.reasoning(&held, 0),
                    false => sink.text(&held, 0),
                }
                true
            }
            State::After(held) => held.is_empty(),
            _ => false,
        }
    }
}
