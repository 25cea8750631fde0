//! The cache of recurrent layers: the last inputs of a convolution, and a state of fixed size.
//!
//! A state cannot be undone, so a rewind goes to the start or nowhere; a snapshot costs no copy.

use super::{Batch, continues, rewinds};
use crate::mlx::{Array, Error, Result};

/// What a recurrent layer carries from token to token.
#[derive(Clone, Debug, Default)]
pub struct RecurrentCache {
    conv: Option<Array>,
    state: Option<Array>,
    len: usize,
}

impl RecurrentCache {
    /// `x [B, L, C]` with the `kernel - 1` inputs before it in front, `[B, kernel - 1 + L, C]`: what
    /// a causal convolution reads. Keeps the last of them for the next call.
    pub fn conv_window(&mut self, x: &Array, kernel: usize) -> Result<Array> {
        let kept = kernel as i32 - 1;
        let before = match self.conv.take() {
            Some(conv) => conv,
            None => Array::zeros(&[x.dim(0)?, kept, x.dim(2)?], x.dtype())?,
        };
        let window = Array::concatenate(&[&before, x], 1)?;
        let end = window.dim(1)?;
        self.conv = Some(window.slice_axis(1, end - kept, end)?.contiguous()?);
        Ok(window)
    }

    /// The state; none before the first token.
    pub fn state(&self) -> Option<&Array> {
        self.state.as_ref()
    }

    /// Ends a layer's turn: `state` (if the layer has one) is what `batch`'s tokens left behind.
    ///
    /// # Errors
    /// If the cache does not end where the batch starts.
    pub fn advance(&mut self, state: Option<Array>, batch: &Batch) -> Result<()> {
        continues(self.len, batch.offset, &batch.tokens)?;
        self.state = state;
        self.len += batch.len()?;
        Ok(())
    }

    pub(super) fn rewind(&mut self, len: usize) -> Result<()> {
        rewinds(self.len, len)?;
        match len {
            0 => *self = Self::default(),
            _ if len == self.len => {}
            _ => {
                let message = format!(
                    "cannot rewind to {len}: a recurrent state exists for position {} only",
                    self.len
                );
                return Err(Error::new("cache rewind", &[], message));
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn nbytes(&self) -> usize {
        self.arrays().iter().map(|array| array.nbytes()).sum()
    }

    pub(super) fn arrays(&self) -> Vec<&Array> {
        self.conv.iter().chain(&self.state).collect()
    }
}
