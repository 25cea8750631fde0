//! Writing legacy completions: one object with a choice a prompt, or chunks.

use serde_json::{Value, json};

use super::completions_request::Echo;
use super::logprobs::Legacy;
use super::offsets::{self, Characters};
use super::{now, usage};
use crate::engine::TokenLogprob;
use crate::server::answer::{Part, Usage, visible};
use crate::server::sse::Chunks;
use crate::server::{App, random};
use crate::text::Text;

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

/// What every object of one answer says, and how far each choice is.
pub struct CompletionsReply {
    id: String,
    created: u64,
    model: String,
    text: Text,
    logprobs: bool,
    include_usage: bool,
    choices: Vec<Choice>,
    usage: Usage,
}

impl CompletionsReply {
    /// The frame of a new answer with `choices` choices, which start with `echoes` if there are any.
    pub fn new(
        app: &App,
        choices: usize,
        echoes: Vec<Echo>,
        logprobs: bool,
        include_usage: bool,
    ) -> Self {
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
            logprobs,
            include_usage,
            choices: choices.collect(),
            usage: Usage::default(),
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
            Part::End { end, usage, .. } => {
                self.usage.prompt += usage.prompt;
                self.usage.completion += usage.completion;
                piece.end = Some(end.word());
            }
            Part::Call { .. } | Part::Failed(_) => {}
        }
        piece
    }

    /// Writes the prompt, with the scores of its tokens if there are any.
    fn echo(&mut self, index: usize, piece: &mut Piece, scores: &[Option<TokenLogprob>]) {
        let Some(echo) = self.choices[index].echo.take() else {
            return;
        };
        if self.logprobs {
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
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn choice(&self, index: usize, text: String, logprobs: Legacy, end: Option<&str>) -> Value {
        let logprobs = match self.logprobs {
            true => logprobs.json(),
            false => Value::Null,
        };
        json!({"text": text, "index": index, "logprobs": logprobs, "finish_reason": end})
    }
}

/// Whole answers in the making.
pub struct Whole {
    reply: CompletionsReply,
    choices: Vec<Piece>,
}

impl Whole {
    /// Answers that consist of their echoes so far.
    pub fn new(mut reply: CompletionsReply) -> Self {
        let count = reply.choices.len();
        let mut choices: Vec<Piece> = (0..count).map(|_| Piece::default()).collect();
        if !reply.logprobs {
            for (index, piece) in choices.iter_mut().enumerate() {
                reply.echo(index, piece, &[]);
            }
        }
        Self { reply, choices }
    }

    /// Takes a part of a choice; an error if the choice failed.
    pub fn take(&mut self, index: usize, part: Part) -> Result<(), String> {
        if let Part::Failed(message) = part {
            return Err(message);
        }
        let piece = self.reply.piece(index, part);
        let choice = &mut self.choices[index];
        choice.text.push_str(&piece.text);
        choice.logprobs.append(piece.logprobs);
        choice.end = choice.end.or(piece.end);
        Ok(())
    }

    /// The answer.
    pub fn json(self) -> Value {
        let numbered = self.choices.into_iter().enumerate();
        let choices = numbered.map(|(index, piece)| {
            let Piece {
                text,
                logprobs,
                end,
            } = piece;
            self.reply.choice(index, text, logprobs, end)
        });
        let mut object = self.reply.object(choices.collect());
        object["usage"] = usage(self.reply.usage);
        object
    }
}

impl Chunks for CompletionsReply {
    fn opening(&mut self) -> Vec<Value> {
        if self.logprobs {
            return Vec::new();
        }
        let mut chunks = Vec::new();
        for index in 0..self.choices.len() {
            let mut piece = Piece::default();
            self.echo(index, &mut piece, &[]);
            chunks.extend(self.chunk(index, piece));
        }
        chunks
    }

    fn part(&mut self, index: usize, part: Part) -> Vec<Value> {
        let piece = self.piece(index, part);
        self.chunk(index, piece).into_iter().collect()
    }

    fn closing(&mut self) -> Vec<Value> {
        if !self.include_usage {
            return Vec::new();
        }
        let mut chunk = self.object(Vec::new());
        chunk["usage"] = usage(self.usage);
        vec![chunk]
    }
}

impl CompletionsReply {
    fn chunk(&self, index: usize, piece: Piece) -> Option<Value> {
        if piece.text.is_empty() && piece.logprobs.is_empty() && piece.end.is_none() {
            return None;
        }
        let choice = self.choice(index, piece.text, piece.logprobs, piece.end);
        let mut chunk = self.object(vec![choice]);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        Some(chunk)
    }
}
