//! Which tokens a sequence has seen, counted on the device, and the penalties for them.
//!
//! The next step is built before the last token is read, so the host cannot count it: counts take the
//! drawn tokens as they are, still being computed. A row keeps what its penalties need and no more:
//! the counts of its answer's tokens, or its last tokens.

use super::chain::{bool_column, float_column};
use super::params::{Params, Penalty, Window};
use crate::mlx::{Array, Dtype, Result};

/// What a row has seen before it joins a batch.
#[derive(Clone, Debug)]
pub enum Seen<'a> {
    /// A prompt, and no answer yet.
    Prompt(&'a [u32]),
    /// What it kept in another batch.
    Kept(Kept),
}

/// A row's part of a `History`.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Float32 `[1, vocab]`.
    answer: Option<Array>,
    /// Uint32 `[1, n]`.
    recent: Option<Array>,
}

/// Counts of a batch, and what is done with them.
#[derive(Debug)]
pub struct History {
    vocab: i32,
    /// How often each token occurs in each answer: float32 `[B, vocab]`.
    answer: Option<Array>,
    /// The last tokens, oldest first, and `vocab` where there is none yet: uint32 `[B, n]`.
    recent: Option<Array>,
    views: Vec<View>,
    /// Each with its strengths, float32 `[B, 1]`, and the view it counts in.
    repetition: Option<(Array, usize)>,
    presence: Option<(Array, usize)>,
    frequency: Option<(Array, usize)>,
}

/// Where each row looks; penalties that look at the same places share it.
#[derive(Debug)]
struct View {
    windows: Vec<Window>,
    /// Bool `[B, 1]`: rows that look at their answer, if some do and some do not.
    in_answer: Option<Array>,
    /// Float32 `[B, n]`: 1 at those of the last tokens that count.
    weights: Option<Array>,
}

/// A kind of penalty: where it is, and the strength that changes nothing.
type Kind = (fn(&Params) -> Penalty, f32);

/// Repetition, presence, frequency.
const KINDS: [Kind; 3] = [
    (|params| params.repetition, 1.0),
    (|params| params.presence, 0.0),
    (|params| params.frequency, 0.0),
];

/// The penalties of a row that change something.
fn active(params: &Params) -> impl Iterator<Item = Penalty> + '_ {
    let penalties = KINDS.iter().map(|(of, neutral)| (of(params), *neutral));
    penalties
        .filter(|(penalty, neutral)| penalty.strength != *neutral)
        .map(|(penalty, _)| penalty)
}

/// How many of its last tokens a row must keep.
fn n_recent(params: &Params) -> usize {
    let last = |penalty: Penalty| match penalty.window {
        Window::Last(n) => n,
        Window::Answer => 0,
    };
    active(params).map(last).max().unwrap_or(0)
}

fn needs_answer(params: &Params) -> bool {
    active(params).any(|penalty| penalty.window == Window::Answer)
}

impl History {
    /// Of rows with these parameters, which have seen this; `None` if no row has a penalty.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn new(rows: &[&Params], seen: &[Seen<'_>], vocab: usize) -> Result<Option<History>> {
        if rows.iter().all(|params| active(params).next().is_none()) {
            return Ok(None);
        }
        let n = rows.iter().map(|p| n_recent(p)).max().unwrap_or(0);
        let vocab = vocab as i32;
        let recent = match n {
            0 => None,
            _ => {
                let rows: Result<Vec<Array>> =
                    seen.iter().map(|seen| seen.recent(n, vocab)).collect();
                Some(Array::concatenate(&rows?.iter().collect::<Vec<_>>(), 0)?)
            }
        };
        let answer = match rows.iter().any(|params| needs_answer(params)) {
            false => None,
            true => {
                let rows: Result<Vec<Array>> = seen.iter().map(|seen| seen.answer(vocab)).collect();
                Some(Array::concatenate(&rows?.iter().collect::<Vec<_>>(), 0)?)
            }
        };
        let mut views = Vec::new();
        let mut penalty = |(of, neutral): Kind| {
            if rows.iter().all(|params| of(params).strength == neutral) {
                return Ok(None);
            }
            // A row without this penalty looks where its others do, so that they can share a view.
            let window = |params: &&Params| match of(params) {
                own if own.strength != neutral => own.window,
                _ => active(params)
                    .next()
                    .map_or(Window::Answer, |other| other.window),
            };
            let view = View::find(&mut views, rows.iter().map(window).collect(), n)?;
            let strengths = float_column(rows.iter().map(|params| of(params).strength))?;
            Ok(Some((strengths, view)))
        };
        let [repetition, presence, frequency] = KINDS;
        Ok(Some(History {
            vocab,
            answer,
            recent,
            repetition: penalty(repetition)?,
            presence: penalty(presence)?,
            frequency: penalty(frequency)?,
            views,
        }))
    }

    /// Applies the penalties to `logits [B, vocab]` in mlx-lm's order: repetition, presence,
    /// frequency.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn penalize(&self, logits: &Array) -> Result<Array> {
        let mut logits = logits.astype(Dtype::Float32)?;
        let zero = Array::from_f32(0.0)?;
        let counts: Result<Vec<Array>> = self.views.iter().map(|view| self.counts(view)).collect();
        let counts = counts?;
        let seen = |view: usize| zero.less(&counts[view]);
        if let Some((strength, view)) = &self.repetition {
            let below = logits.less(&zero)?;
            let weaker = below.select(&logits.multiply(strength)?, &logits.divide(strength)?)?;
            logits = seen(*view)?.select(&weaker, &logits)?;
        }
        if let Some((strength, view)) = &self.presence {
            let loss = seen(*view)?.astype(Dtype::Float32)?.multiply(strength)?;
            logits = logits.subtract(&loss)?;
        }
        if let Some((strength, view)) = &self.frequency {
            logits = logits.subtract(&counts[*view].multiply(strength)?)?;
        }
        Ok(logits)
    }

    /// How often each row's window has each token: float32 `[B, vocab]`.
    fn counts(&self, view: &View) -> Result<Array> {
        let recent = match (&self.recent, &view.weights) {
            (Some(recent), Some(weights)) => {
                // One place more, for what is no token.
                let shape = [recent.dim(0)?, self.vocab + 1];
                let zeros = Array::zeros(&shape, Dtype::Float32)?;
                let counts = zeros.scatter_add_axis(recent, weights, -1)?;
                Some(counts.slice_axis(-1, 0, self.vocab)?)
            }
            _ => None,
        };
        match (&self.answer, recent, &view.in_answer) {
            (Some(answer), Some(recent), Some(in_answer)) => in_answer.select(answer, &recent),
            (_, Some(recent), _) => Ok(recent),
            (Some(answer), None, _) => Ok(answer.clone()),
            // Not reached: a view looks at one of them at least, and then it is kept.
            (None, None, _) => Array::zeros(&[1, self.vocab], Dtype::Float32),
        }
    }

    /// Takes the tokens drawn last, uint32 `[B]`, which need not be computed yet.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn push(&mut self, tokens: &Array) -> Result<()> {
        let tokens = tokens.expand_dims(-1)?; // [B, 1]
        if let Some(recent) = &mut self.recent {
            let n = recent.dim(-1)?;
            let kept = recent.slice_axis(-1, 1, n)?;
            *recent = Array::concatenate(&[&kept, &tokens], -1)?;
        }
        if let Some(answer) = &mut self.answer {
            let ones = Array::full(&tokens.shape(), 1.0, Dtype::Float32)?;
            *answer = answer.scatter_add_axis(&tokens, &ones, -1)?;
        }
        Ok(())
    }

    /// What a row takes to another batch.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn kept(&self, row: usize) -> Result<Kept> {
        let row = row as i32;
        let cut = |array: &Option<Array>| match array {
            Some(array) => array.slice_axis(0, row, row + 1).map(Some),
            None => Ok(None),
        };
        Ok(Kept {
            answer: cut(&self.answer)?,
            recent: cut(&self.recent)?,
        })
    }
}

impl View {
    /// The place of the view with these windows, which is made if there is none.
    fn find(views: &mut Vec<View>, windows: Vec<Window>, n: usize) -> Result<usize> {
        if let Some(found) = views.iter().position(|view| view.windows == windows) {
            return Ok(found);
        }
        let in_answer: Vec<bool> = windows.iter().map(|w| *w == Window::Answer).collect();
        let all = in_answer.iter().all(|answer| *answer);
        let mixed = !all && in_answer.iter().any(|answer| *answer);
        let weights = windows.iter().flat_map(|window| {
            let counted = match window {
                Window::Answer => 0,
                Window::Last(last) => *last,
            };
            (0..n).map(move |i| f32::from(n - i <= counted))
        });
        views.push(View {
            in_answer: mixed.then(|| bool_column(&in_answer)).transpose()?,
            weights: match all {
                true => None,
                false => {
                    let weights: Vec<f32> = weights.collect();
                    let shape = [windows.len() as i32, n as i32];
                    Some(Array::from_slice(&weights, &shape)?)
                }
            },
            windows,
        });
        Ok(views.len() - 1)
    }
}

impl Seen<'_> {
    /// The last `n` tokens, uint32 `[1, n]`, filled up at the front.
    fn recent(&self, n: usize, vocab: i32) -> Result<Array> {
        let filled = |tokens: &[u32]| {
            let tokens = &tokens[tokens.len().saturating_sub(n)..];
            let mut row = vec![vocab as u32; n - tokens.len()];
            row.extend_from_slice(tokens);
            Array::from_slice(&row, &[1, n as i32])
        };
        match self {
            Seen::Prompt(prompt) => filled(prompt),
            Seen::Kept(Kept {
                recent: Some(recent),
                ..
            }) => {
                let (had, n) = (recent.dim(-1)?, n as i32);
                if had >= n {
                    return recent.slice_axis(-1, had - n, had);
                }
                let front = Array::full(&[1, n - had], vocab as f32, Dtype::Uint32)?;
                Array::concatenate(&[&front, recent], -1)
            }
            // It has no such penalty: what stands here does not count.
            Seen::Kept(_) => filled(&[]),
        }
    }

    /// Counts of the answer's tokens, float32 `[1, vocab]`.
    fn answer(&self, vocab: i32) -> Result<Array> {
        match self {
            Seen::Kept(Kept {
                answer: Some(answer),
                ..
            }) => Ok(answer.clone()),
            // No answer yet, or it has no such penalty.
            _ => Array::zeros(&[1, vocab], Dtype::Float32),
        }
    }
}
