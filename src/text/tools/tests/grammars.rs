//! Whatever a grammar allows is read back as complete calls, and nothing is left over.
//!
//! Answers are drawn at random among the tokens that the grammar allows, preferring those that close what is open, over
//! bytes and a few longer tokens; once with the notations' marks as control tokens and once without.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::super::{Demand, FORMATS, Notation, Output, Spelling, Tools};
use super::{Answer, assemble};
use crate::text::reasoning::{Place, ReasoningParser, by_name};

/// Tokens of an answer at most; a longer one is given up.
const MOST: usize = 1500;

fn tools() -> Value {
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    Value::Array(vec![
        tool(
            "weather",
            json!({
                "type": "object",
                "properties": {
                    "city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 9},
                    "unit": {"type": "string", "enum": ["c", "f"]}, "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
                    "where": {"type": "object", "properties": {"x": {"type": "number"}, "name": {"$ref": "#/$defs/N"}},
                        "required": ["x"], "additionalProperties": false},
                    "note": {"type": ["string", "null"]},
                },
                "$defs": {"N": {"type": "string"}}, "required": ["city", "days"], "additionalProperties": false,
            }),
        ),
        json!({"type": "function", "function": {"name": "get-time"}}),
        tool(
            "opt",
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "additionalProperties": false}),
        ),
    ])
}

/// A vocabulary: bytes, a few words, the end, and perhaps control tokens.
struct Vocabulary {
    tokens: Vec<Vec<u8>>,
    end: u32,
    spelling: Spelling,
    factory: ParserFactory,
}

impl Vocabulary {
    fn new(control: &[String]) -> Vocabulary {
        let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
        let words = [
            "the",
            " the",
            "\": ",
            "\n</",
            "param",
            "{\"",
            "\"}",
            ">\n",
            "</",
            "tool_call>",
            "}}",
        ];
        tokens.extend(words.iter().map(|word| word.as_bytes().to_vec()));
        let end = tokens.len() as u32;
        let marked = |text: &str| [&[0xFF], text.as_bytes()].concat();
        tokens.push(marked("<eos>"));
        let mut special = Vec::new();
        for text in control {
            special.push((text.clone(), tokens.len() as u32));
            tokens.push(marked(text));
        }
        let trie = TokTrie::from(&TokRxInfo::new(tokens.len() as u32, end), &tokens);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        Vocabulary {
            tokens,
            end,
            spelling: Spelling::new(special),
            factory: ParserFactory::new_simple(&env).unwrap(),
        }
    }

    /// The bytes that a token stands for.
    fn bytes(&self, token: u32) -> &[u8] {
        let bytes = &self.tokens[token as usize];
        bytes.strip_prefix(&[0xFF]).unwrap_or(bytes)
    }

    /// An answer that the grammar allows, if one comes to its end.
    fn draw(&self, lark: &str, marks: &[&str], mut seed: u64) -> Option<String> {
        let parser = self
            .factory
            .create_parser(TopLevelGrammar::from_lark(lark.to_owned()));
        let mut matcher = Matcher::new(Ok(parser.unwrap_or_else(|e| panic!("{e} in\n{lark}"))));
        let mut below = |n: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % n
        };
        let mut text: Vec<u8> = Vec::new();
        for _ in 0..MOST {
            if matcher.is_stopped() {
                return String::from_utf8(text).ok();
            }
            let mask = matcher
                .compute_mask()
                .unwrap_or_else(|e| panic!("{e} in\n{lark}"));
            let mut allowed = Vec::new();
            mask.iter_set_entries(|token| allowed.push(token as u32));
            if allowed.contains(&self.end) && below(3) == 0 {
                return String::from_utf8(text).ok();
            }
            allowed.retain(|&token| token != self.end);
            let plain = |byte: &u8| (0x20..0x7F).contains(byte) || *byte == b'\n';
            // Marks that are not ASCII leave nothing printable.
            if allowed
                .iter()
                .any(|&token| self.bytes(token).iter().all(plain))
            {
                allowed.retain(|&token| self.bytes(token).iter().all(plain));
            }
            assert!(
                !allowed.is_empty(),
                "nothing is allowed after {text:?} in\n{lark}"
            );
            let closing: Vec<u32> = allowed
                .iter()
                .copied()
                .filter(|&token| {
                    self.bytes(token).len() > 1 || b"\"}])</>|\n".contains(&self.bytes(token)[0])
                })
                .collect();
            let pool = if closing.is_empty() || below(3) == 0 {
                &allowed
            } else {
                &closing
            };
            let token = match below(12) {
                0 => None,
                _ => self.going_on(&text, &allowed, marks),
            };
            let token = token.unwrap_or(pool[below(pool.len())]);
            matcher.consume_token(token).unwrap();
            text.extend_from_slice(self.bytes(token));
        }
        None
    }

    /// The longest token that goes on with a mark which the text ends with the beginning of.
    fn going_on(&self, text: &[u8], allowed: &[u32], marks: &[&str]) -> Option<u32> {
        let rests = marks.iter().flat_map(|mark| {
            let mark = mark.as_bytes();
            (1..mark.len())
                .filter(move |&at| text.ends_with(&mark[..at]))
                .map(move |at| &mark[at..])
        });
        rests
            .flat_map(|rest| {
                allowed
                    .iter()
                    .copied()
                    .filter(move |&token| rest.starts_with(self.bytes(token)))
            })
            .max_by_key(|&token| self.bytes(token).len())
    }
}

/// The parts of marks that tokenizers have as control tokens.
fn control_tokens(marks: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for mark in marks {
        let mut rest = *mark;
        while let Some(from) = rest.find(['<', '[']) {
            let close = if rest[from..].starts_with('<') {
                '>'
            } else {
                ']'
            };
            let Some(length) = rest[from..].find(close) else {
                break;
            };
            let token = &rest[from..=from + length];
            if token.len() > 3 && !found.iter().any(|known| known == token) {
                found.push(token.to_owned());
            }
            rest = &rest[from + length + 1..];
        }
    }
    found
}

fn check(notation: &Notation, answer: &str, parallel: bool, offered: &Arc<Tools>) {
    let mut parser = notation.parser(offered);
    let mut out = parser.push(answer);
    out.extend(parser.finish());
    let Answer {
        text,
        calls,
        aborted,
        ..
    } = assemble(&out);
    let name = notation.name;
    assert!(
        text.trim().is_empty() && aborted == 0,
        "{name}: {answer:?}\n{out:?}"
    );
    assert!(
        !calls.is_empty() && (parallel || calls.len() == 1),
        "{name}: {answer:?}"
    );
    for (called, _, arguments) in calls {
        if called != "weather" {
            continue;
        }
        assert!(
            arguments["city"].is_string() && arguments["days"].is_i64(),
            "{name}: {arguments}"
        );
        let unit = arguments.get("unit").and_then(Value::as_str);
        assert!(
            unit.is_none_or(|unit| ["c", "f"].contains(&unit)),
            "{name}: {arguments}"
        );
        let place = arguments.get("where");
        assert!(
            place.is_none_or(|place| place["x"].is_number()),
            "{name}: {arguments}"
        );
    }
}

#[test]
fn answers_that_a_grammar_allows_are_calls() {
    let offered = Tools::new(&tools());
    let think = by_name("think").unwrap();
    for notation in FORMATS {
        let mut marks = notation.markers();
        marks.extend([think.open, think.close]);
        let mut n_drawn = 0;
        for control in [Vec::new(), control_tokens(&marks)] {
            let vocabulary = Vocabulary::new(&control);
            for (place, parallel) in [
                (None, false),
                (None, true),
                (Some(Place::Inside), true),
                (Some(Place::Before), false),
            ] {
                let open = if place == Some(Place::Inside) {
                    ""
                } else {
                    think.open
                };
                let demand = Demand {
                    tools: offered.0.clone(),
                    parallel,
                    reasoning: place.map(|_| (open.to_owned(), think.close.to_owned())),
                };
                let lark = notation.grammar(&demand, &vocabulary.spelling);
                for seed in 0..3 {
                    let Some(drawn) = vocabulary.draw(&lark, &marks, seed * 77 + 13) else {
                        continue;
                    };
                    n_drawn += 1;
                    let mut answer = drawn.clone();
                    if let Some(place) = place {
                        let mut parser = ReasoningParser::new(think, place);
                        let parts = parser.push(&drawn).into_iter().chain(parser.finish());
                        let texts = parts.filter_map(|part| match part {
                            Output::Text(text) => Some(text),
                            _ => None,
                        });
                        answer = texts.collect();
                    }
                    check(notation, &answer, parallel, &Arc::new(offered.clone()));
                }
            }
        }
        assert!(
            n_drawn >= 6,
            "{}: only {n_drawn} answers came to an end",
            notation.name
        );
    }
}
