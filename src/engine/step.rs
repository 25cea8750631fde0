//! A decoding step of several sequences in one forward pass.
//!
//! The graph for the next tokens is built from the device-side values of the current ones and
//! started before the current ones are read, so that the device never waits for the host.

use std::rc::Rc;

use super::draw::{Pending, draw};
use super::sequence::Sequence;
use crate::cache::{Batch, LayerCache};
use crate::mlx::{Array, Result};
use crate::models::Model;

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
    draw(model, &hidden, sequences, &current)?;
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
