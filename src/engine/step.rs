//! A decoding step of several sequences in one forward pass.
//!
//! The graph for the next tokens is built from the device-side values of the current ones and
//! started before the current ones are read, so that the device never waits for the host.

use std::cell::OnceCell;
use std::rc::Rc;

use super::sequence::Sequence;
use crate::cache::{Batch, LayerCache};
use crate::mlx::{Array, Result, async_eval};
use crate::models::Model;
use crate::sample::{Params, Scores, sample, score};

/// The tokens that one step drew, a row for each of its sequences.
pub struct Drawn {
    /// uint32 `[B]`.
    tokens: Array,
    /// The same, once they have been read.
    ids: OnceCell<Vec<u32>>,
}

/// One sequence's part of a step that is being computed.
pub struct Pending {
    step: Rc<Drawn>,
    row: usize,
    /// The scores of its token, if it wants any.
    pub scores: Option<Scores>,
}

impl Pending {
    /// The token. Waits for the step.
    ///
    /// # Errors
    /// If the step's computation fails.
    pub fn id(&self) -> Result<u32> {
        if self.step.ids.get().is_none() {
            let ids = self.step.tokens.to_vec()?;
            // Another value cannot have been set in between: the cell is this thread's own.
            let _ = self.step.ids.set(ids);
        }
        let ids = self.step.ids.get().map_or(&[][..], Vec::as_slice);
        // As many tokens as rows.
        Ok(ids.get(self.row).copied().unwrap_or_default())
    }

    /// The token, still on the device: uint32 `[1]`.
    fn token(&self) -> Result<Array> {
        let row = self.row as i32;
        self.step.tokens.slice_axis(0, row, row + 1)
    }
}

/// Starts the step that follows the pending tokens of `sequences`, whose caches are the rows of
/// `caches`, and gives each its next pending one; the ones so far are returned in their order.
///
/// # Errors
/// If MLX fails; the caches of all these sequences are then undefined.
pub fn advance(
    model: &dyn Model,
    sequences: &mut [&mut Sequence],
    caches: &mut [LayerCache],
) -> Result<Vec<Option<Pending>>> {
    let current: Vec<Option<Pending>> = sequences.iter_mut().map(|s| s.pending.take()).collect();
    let batch = Batch::new(
        inputs(&current)?,
        sequences.iter().map(|s| s.position()).collect(),
    )?;
    let hidden = model.forward(&batch, caches)?;
    draw(model, &hidden, sequences)?;
    Ok(current)
}

/// The tokens of a step, uint32 `[B, 1]`.
fn inputs(pending: &[Option<Pending>]) -> Result<Array> {
    let rows: Vec<&Pending> = pending.iter().flatten().collect();
    if let Some(first) = rows.first() {
        let unchanged = |(i, p): (usize, &&Pending)| Rc::ptr_eq(&p.step, &first.step) && p.row == i;
        let size = first.step.tokens.size();
        if rows.len() == size && rows.iter().enumerate().all(unchanged) {
            return first.step.tokens.reshape(&[-1, 1]);
        }
    }
    let tokens = rows.iter().map(|p| p.token()).collect::<Result<Vec<_>>>()?;
    Array::concatenate(&tokens.iter().collect::<Vec<_>>(), 0)?.reshape(&[-1, 1])
}

/// Starts drawing a token for each sequence from its hidden state in `hidden [B, 1, d_model]`.
///
/// # Errors
/// If MLX fails.
pub fn draw(model: &dyn Model, hidden: &Array, sequences: &mut [&mut Sequence]) -> Result<()> {
    let logits = model.unembed(&hidden.squeeze(1)?)?; // [B, vocab]
    let row = |array: &Array, i: usize| array.slice_axis(0, i as i32, i as i32 + 1);
    let greedy = |s: &&mut Sequence| s.request.params.temperature == 0.0;
    let tokens = if sequences.iter().all(greedy) {
        sample(&logits, &Params::default(), 0)?
    } else {
        let draw =
            |(i, s): (usize, &&mut Sequence)| sample(&row(&logits, i)?, &s.request.params, s.drawn);
        let drawn = sequences.iter().enumerate().map(draw);
        let drawn = drawn.collect::<Result<Vec<_>>>()?;
        Array::concatenate(&drawn.iter().collect::<Vec<_>>(), 0)?
    };
    let step = Rc::new(Drawn {
        tokens,
        ids: OnceCell::new(),
    });
    for (i, sequence) in sequences.iter_mut().enumerate() {
        sequence.drawn += 1;
        let scores = match sequence.request.logprobs {
            Some(top) => Some(score(&row(&logits, i)?, &row(&step.tokens, i)?, top)?),
            None => None,
        };
        let step = step.clone();
        sequence.pending = Some(Pending {
            step,
            row: i,
            scores,
        });
    }
    let scores = sequences
        .iter()
        .filter_map(|s| s.pending.as_ref()?.scores.as_ref());
    let wanted = scores.flat_map(Scores::arrays).chain([&step.tokens]);
    async_eval(&wanted.collect::<Vec<_>>())
}
