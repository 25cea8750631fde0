//! Writing legacy completions: one object with a choice a prompt, or chunks.

use serde::Serialize;
use serde_json::{Value, json};

use super::completions_request::Echo;
use super::logprobs::Legacy;
use super::offsets::{self, Characters};
use super::{Extras, now, timings, usage};
use crate::engine::{Stats, TokenLogprob};
use crate::server::answer::{Part, Usage, visible};
use crate::server::error::{ApiError, Dialect};
use crate::server::reply::Reply;
use crate::server::sse::Sse;
use crate::server::{App, random};
use crate::text::Text;

const OBJECT: &str = "text_completion";

/// One prompt's answer: its place in the text.
struct Choice {
    echo: Option<Echo>,
    characters: Characters,
}

/// What one part adds to a choice.
#[derive(Default)]
struct Piece {
    text: String,
    logprobs: Legacy,
    end: Option<&'static str>,
}

/// A chunk: what goes out with every token, so that no tree is built for it.
#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Written<'a>; 1],
    /// Null in all chunks but the last, if the last is to tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<()>,
}

/// A choice as it goes out.
#[derive(Serialize)]
struct Written<'a> {
    text: &'a str,
    index: usize,
    logprobs: Option<Value>,
    finish_reason: Option<&'static str>,
}

/// What every object of one answer says, and how far each choice is.
pub struct CompletionsReply {
    id: String,
    created: u64,
    model: String,
    text: Text,
    extras: Extras,
    choices: Vec<Choice>,
    /// What is kept of each choice for the whole answer.
    kept: Vec<Piece>,
    usage: Usage,
    stats: Option<Stats>,
}

impl CompletionsReply {
    /// The frame of a new answer with `choices` choices, which start with `echoes` if there are any.
    pub fn new(app: &App, choices: usize, echoes: Vec<Echo>, extras: Extras) -> Self {
        let kept = (0..choices).map(|_| Piece::default()).collect();
        let mut echoes = echoes.into_iter();
        let choices = (0..choices).map(|_| {
            let echo = echoes.next();
            let length = echo.as_ref().map_or(0, |echo| echo.text.chars().count());
            Choice {
                echo,
                characters: Characters::from(length),
            }
        });
        Self {
            id: random::identifier("cmpl-"),
            created: now(),
            model: app.engine.facts().id.clone(),
            text: app.text.clone(),
            extras,
            choices: choices.collect(),
            kept,
            usage: Usage::default(),
            stats: None,
        }
    }

    fn piece(&mut self, index: usize, part: Part) -> Piece {
        let mut piece = Piece::default();
        match part {
            Part::Prompt(scores) => self.echo(index, &mut piece, &scores),
            Part::Text { text, tokens } => {
                piece.text = text;
                self.score(index, &mut piece, &tokens);
            }
            Part::End { end, usage, stats } => {
                self.usage += usage;
                self.stats = stats.or(self.stats.take());
                piece.end = Some(end.word());
            }
            // A completion's text is handed on as it is.
            Part::Started(_)
            | Part::Reasoning(_)
            | Part::TextWasReasoning
            | Part::Call { .. }
            | Part::CallAborted
            | Part::Arguments(_)
            | Part::Failed(_) => {}
        }
        piece
    }

    /// Writes the prompt, with the scores of its tokens if there are any.
    fn echo(&mut self, index: usize, piece: &mut Piece, scores: &[Option<TokenLogprob>]) {
        let Some(echo) = self.choices[index].echo.take() else {
            return;
        };
        if self.extras.logprobs {
            let tokenizer = self.text.tokenizer();
            let offsets = offsets::of_prompt(tokenizer, &echo.text, &echo.ids);
            for (place, (&id, offset)) in echo.ids.iter().zip(offsets).enumerate() {
                let score = scores.get(place).and_then(|score| score.as_ref());
                piece.logprobs.push(tokenizer, id, score, offset);
            }
        }
        piece.text.push_str(&echo.text);
    }

    fn score(&mut self, index: usize, piece: &mut Piece, tokens: &[TokenLogprob]) {
        let tokenizer = self.text.tokenizer();
        let characters = &mut self.choices[index].characters;
        for token in tokens {
            let offset = characters.complete();
            piece
                .logprobs
                .push(tokenizer, token.id, Some(token), offset);
            characters.push(&visible(tokenizer, token.id));
        }
    }

    fn object(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": OBJECT,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn logprobs(&self, logprobs: Legacy) -> Option<Value> {
        self.extras.logprobs.then(|| logprobs.json())
    }
}

impl Reply for CompletionsReply {
    fn open(&mut self, out: &mut Sse) {
        if self.extras.logprobs {
            return;
        }
        for index in 0..self.choices.len() {
            let mut piece = Piece::default();
            self.echo(index, &mut piece, &[]);
            self.chunk(index, piece, out);
        }
    }

    fn part(&mut self, index: usize, part: Part, out: &mut Sse) {
        let piece = self.piece(index, part);
        self.chunk(index, piece, out);
    }

    fn close(&mut self, out: &mut Sse) {
        if self.extras.usage || self.extras.timings {
            let mut chunk = self.object(Vec::new());
            self.add_cost(&mut chunk);
            out.data(&chunk);
        }
        out.done();
    }

    fn fail(&mut self, error: &ApiError, out: &mut Sse) {
        out.data(&error.envelope(Dialect::OpenAi, &self.id));
    }

    fn beat(&mut self, out: &mut Sse) {
        out.comment("still at it");
    }

    fn keep(&mut self, index: usize, part: Part) {
        let mut piece = self.piece(index, part);
        if !self.extras.logprobs {
            let text = std::mem::take(&mut piece.text);
            self.echo(index, &mut piece, &[]);
            piece.text.push_str(&text);
        }
        let kept = &mut self.kept[index];
        kept.text.push_str(&piece.text);
        kept.logprobs.append(piece.logprobs);
        kept.end = kept.end.or(piece.end);
    }

    fn whole(&mut self) -> Value {
        let kept = std::mem::take(&mut self.kept);
        let numbered = kept.into_iter().enumerate();
        let choices = numbered.map(|(index, piece)| {
            let Piece {
                text,
                logprobs,
                end,
            } = piece;
            let logprobs = self.logprobs(logprobs);
            json!({"text": text, "index": index, "logprobs": logprobs, "finish_reason": end})
        });
        let mut object = self.object(choices.collect());
        self.extras.usage = true;
        self.add_cost(&mut object);
        object
    }
}

impl CompletionsReply {
    fn add_cost(&self, object: &mut Value) {
        if self.extras.usage {
            object["usage"] = usage(self.usage);
        }
        if self.extras.timings {
            object["timings"] = timings(self.stats.as_ref());
        }
    }

    fn chunk(&self, index: usize, piece: Piece, out: &mut Sse) {
        if piece.text.is_empty() && piece.logprobs.is_empty() && piece.end.is_none() {
            return;
        }
        out.data(&Chunk {
            id: &self.id,
            object: OBJECT,
            created: self.created,
            model: &self.model,
            choices: [Written {
                text: &piece.text,
                index,
                logprobs: self.logprobs(piece.logprobs),
                finish_reason: piece.end,
            }],
            usage: self.extras.usage.then_some(()),
        });
    }
}
