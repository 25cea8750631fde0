//! The second half of a step: from hidden states to the next tokens, which are left pending.
//!
//! A batch whose rows stay the same keeps one [`Sampler`], with all that its rows ask for on the
//! device. If a row needs the host (a form, DRY), the device starts on the logits; meanwhile the
//! tokens so far are read and the rows' guides work, and the draw is built when they are done.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use super::request::{MAX_TOP_LOGPROBS, TokenLogprob};
use super::sequence::Sequence;
use crate::mlx::{Array, Result, async_eval};
use crate::models::Model;
use crate::sample::{Demand, Row, Sampler, Scores, Seen, score};

/// What one step drew, a row for each of its sequences.
pub struct Drawn {
    /// uint32 `[B]`.
    pub(super) tokens: Array,
    /// The same, once they have been read.
    ids: OnceCell<Vec<u32>>,
    /// Of the rows that want scores, which ones.
    scored: Vec<usize>,
    /// Their scores.
    scores: Option<Scores>,
    /// The same, once they have been read.
    logprobs: OnceCell<Vec<TokenLogprob>>,
}

/// One sequence's part of a step that is being computed.
pub struct Pending {
    pub(super) step: Rc<Drawn>,
    pub(super) row: usize,
}

/// A sequence's row in the batch that drew its last token.
#[derive(Clone)]
pub struct Place {
    sampler: Rc<RefCell<Sampler>>,
    row: usize,
}

impl Drawn {
    /// The tokens, after waiting for the step.
    fn ids(&self) -> Result<&[u32]> {
        if self.ids.get().is_none() {
            // Another value cannot have been set in between: the cell is this thread's own.
            let _ = self.ids.set(self.tokens.to_vec()?);
        }
        Ok(self.ids.get().map_or(&[], Vec::as_slice))
    }

    /// Log-probabilities of the scored rows, after waiting for the step.
    fn logprobs(&self, scores: &Scores) -> Result<&[TokenLogprob]> {
        if self.logprobs.get().is_none() {
            let ids = self.ids()?;
            let ids = self.scored.iter().filter_map(|row| ids.get(*row).copied());
            let read = read_scores(scores, &ids.collect::<Vec<_>>())?;
            let _ = self.logprobs.set(read);
        }
        Ok(self.logprobs.get().map_or(&[], Vec::as_slice))
    }
}

impl Pending {
    /// The token. Waits for the step.
    ///
    /// # Errors
    /// If the step's computation fails.
    pub fn id(&self) -> Result<u32> {
        // As many tokens as rows.
        Ok(self.step.ids()?.get(self.row).copied().unwrap_or_default())
    }

    /// The token's log-probability with its `top` likeliest alternatives, if the step scored it. Waits
    /// for the step.
    ///
    /// # Errors
    /// If the step's computation fails.
    pub fn logprob(&self, top: usize) -> Result<Option<TokenLogprob>> {
        let Some(scores) = &self.step.scores else {
            return Ok(None);
        };
        let at = self.step.scored.iter().position(|row| *row == self.row);
        let all = self.step.logprobs(scores)?;
        Ok(at.and_then(|at| all.get(at)).map(|scored| TokenLogprob {
            top: scored.top.iter().take(top).copied().collect(),
            ..*scored
        }))
    }

    /// The token, still on the device: uint32 `[1]`.
    pub(super) fn token(&self) -> Result<Array> {
        row(&self.step.tokens, self.row)
    }
}

/// Starts drawing a token for each sequence from its hidden state in `hidden [B, 1, d_model]`;
/// `current` are the pending tokens so far, which have led to it.
///
/// A sequence whose form allows no further token, or whose guide fails, gets a token that does not
/// count, and its [`Sequence::verdict`].
///
/// # Errors
/// If MLX fails.
pub fn draw(
    model: &dyn Model,
    hidden: &Array,
    sequences: &mut [&mut Sequence],
    current: &[Option<Pending>],
) -> Result<()> {
    let logits = model.unembed(&hidden.squeeze(1)?)?; // [B, vocab]
    let vocab = logits.dim(-1)? as usize;
    let demands = demands(&logits, sequences, current)?;
    let rows: Vec<Row<'_>> = sequences
        .iter()
        .zip(demands)
        .map(|(sequence, demand)| sequence.row(demand))
        .collect();
    let sampler = match same_batch(sequences) {
        Some(sampler) => sampler,
        None => {
            let seen = sequences
                .iter()
                .map(|s| seen(s))
                .collect::<Result<Vec<_>>>()?;
            Rc::new(RefCell::new(Sampler::new(&rows, &seen, vocab)?))
        }
    };
    let tokens = sampler.borrow_mut().draw(&logits, &rows)?;
    drop(rows);
    let (scored, scores) = scores(&logits, &tokens, sequences)?;
    let step = Rc::new(Drawn {
        tokens,
        ids: OnceCell::new(),
        scored,
        scores,
        logprobs: OnceCell::new(),
    });
    for (row, sequence) in sequences.iter_mut().enumerate() {
        sequence.drawn += 1;
        let (step, sampler) = (step.clone(), sampler.clone());
        sequence.pending = Some(Pending { step, row });
        sequence.place = Some(Place { sampler, row });
    }
    let scores = step.scores.iter().flat_map(Scores::arrays);
    async_eval(&scores.chain([&step.tokens]).collect::<Vec<_>>())
}

/// What the host has to say to the draw of each sequence.
fn demands(
    logits: &Array,
    sequences: &mut [&mut Sequence],
    current: &[Option<Pending>],
) -> Result<Vec<Option<Demand>>> {
    if sequences.iter().all(|sequence| sequence.host.is_none()) {
        return Ok(sequences.iter().map(|_| None).collect());
    }
    let vocab = logits.dim(-1)? as usize;
    // The device gets on with the model while tokens are read and guides work.
    async_eval(&[logits])?;
    let mut goes_on = vec![true; sequences.len()];
    let rows = sequences.iter_mut().zip(current).zip(&mut goes_on);
    for ((sequence, current), goes_on) in rows {
        if let (Some(current), true) = (current, sequence.host.is_some()) {
            *goes_on = sequence.tell_host(current.id()?);
        }
    }
    let rows = sequences.iter_mut().zip(goes_on);
    let demands = rows.map(|(sequence, goes_on)| match goes_on {
        true => sequence.ask_host(vocab),
        false => None,
    });
    Ok(demands.collect())
}

/// The sampler that drew for exactly these sequences, in this order.
fn same_batch(sequences: &[&mut Sequence]) -> Option<Rc<RefCell<Sampler>>> {
    let first = &sequences.first()?.place.as_ref()?.sampler;
    let same = |(row, sequence): (usize, &&mut Sequence)| match &sequence.place {
        Some(place) => Rc::ptr_eq(&place.sampler, first) && place.row == row,
        None => false,
    };
    let all = first.borrow().rows() == sequences.len() && sequences.iter().enumerate().all(same);
    all.then(|| first.clone())
}

/// What a sequence brings to a new batch.
fn seen(sequence: &Sequence) -> Result<Seen<'_>> {
    match &sequence.place {
        Some(place) => place.sampler.borrow().kept(place.row).map(Seen::Kept),
        None => Ok(Seen::Prompt(&sequence.request.prompt)),
    }
}

/// Which rows want scores, and those.
fn scores(
    logits: &Array,
    tokens: &Array,
    sequences: &[&mut Sequence],
) -> Result<(Vec<usize>, Option<Scores>)> {
    let wanted = |(row, s): (usize, &&mut Sequence)| s.request.logprobs.map(|top| (row, top));
    let wanted: Vec<(usize, usize)> = sequences.iter().enumerate().filter_map(wanted).collect();
    let rows: Vec<usize> = wanted.iter().map(|(row, _)| *row).collect();
    if rows.is_empty() {
        return Ok((rows, None));
    }
    // Always as many, so that equals at the end of a row's list do not depend on other rows.
    let top = match wanted.iter().all(|(_, top)| *top == 0) {
        true => 0,
        false => MAX_TOP_LOGPROBS,
    };
    let picked = |array: &Array| match rows.len() == sequences.len() {
        true => Ok(array.clone()),
        false => {
            let picked = rows
                .iter()
                .map(|i| row(array, *i))
                .collect::<Result<Vec<_>>>()?;
            Array::concatenate(&picked.iter().collect::<Vec<_>>(), 0)
        }
    };
    let scores = score(&picked(logits)?, &picked(tokens)?, top)?;
    Ok((rows, Some(scores)))
}

fn row(array: &Array, row: usize) -> Result<Array> {
    array.slice_axis(0, row as i32, row as i32 + 1)
}

/// Reads scores of `tokens` from the device, the likeliest alternatives best first.
///
/// # Errors
/// If their computation fails.
pub fn read_scores(scores: &Scores, tokens: &[u32]) -> Result<Vec<TokenLogprob>> {
    let chosen = scores.chosen.to_vec::<f32>()?;
    let (ids, logprobs) = match &scores.top {
        Some((ids, logprobs)) => (ids.to_vec::<u32>()?, logprobs.to_vec::<f32>()?),
        None => (Vec::new(), Vec::new()),
    };
    let width = ids.len() / tokens.len().max(1);
    let row = |i: usize| {
        let range = i * width..(i + 1) * width;
        let ids = ids[range.clone()].iter().copied();
        let mut top: Vec<(u32, f32)> = ids.zip(logprobs[range].iter().copied()).collect();
        // Equal ones in the order of their ids, so that a batch cannot change the answer.
        top.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        top
    };
    let scored = tokens.iter().zip(chosen).enumerate();
    Ok(scored
        .map(|(i, (&id, logprob))| TokenLogprob {
            id,
            logprob,
            top: row(i),
        })
        .collect())
}
