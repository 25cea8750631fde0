//! The cache of recurrent layers: the last inputs of a convolution, and a state of fixed size.
//!
//! A state cannot be undone, so a rewind goes to the start or nowhere; a snapshot costs no copy.

use super::{Batch, continues, rewinds};
use crate::mlx::{Array, Error, Result};

/// What a recurrent layer carries from token to token.
#[derive(Clone, Debug, Default)]
pub struct RecurrentCache {
    /// `[B, K - 1, C]`.
    conv: Option<Array>,
    /// `[B, ..]`.
    state: Option<Array>,
    /// For each row how many tokens it has seen; empty is one row that has seen none.
    lens: Vec<usize>,
    /// What the next pass, or the last one, leaves at positions within it.
    marks: Vec<Mark>,
}

/// What a sequence is left with at a position that a pass goes beyond.
#[derive(Clone, Debug)]
struct Mark {
    /// The position.
    at: usize,
    conv: Option<Array>,
    state: Option<Array>,
}

impl RecurrentCache {
    /// Says at which positions within the next pass its layer's state is to be kept too, in ascending
    /// order; forgets what was kept. A pass over several sequences keeps nothing.
    pub(super) fn mark(&mut self, positions: &[usize]) {
        let marks = positions.iter().map(|&at| Mark {
            at,
            conv: None,
            state: None,
        });
        self.marks = marks.collect();
    }

    /// `x [B, L, C]` with the `kernel - 1` inputs before it in front, `[B, kernel - 1 + L, C]`: what
    /// a causal convolution reads. Keeps the last of them for the next call.
    pub fn conv_window(&mut self, x: &Array, kernel: usize) -> Result<Array> {
        let kept = kernel as i32 - 1;
        let before = match self.conv.take() {
            Some(conv) => conv,
            None => Array::zeros(&[x.dim(0)?, kept, x.dim(2)?], x.dtype())?,
        };
        let window = Array::concatenate(&[&before, x], 1)?;
        let len = self.len();
        for mark in &mut self.marks {
            let seen = mark.at.saturating_sub(len) as i32;
            mark.conv = Some(window.slice_axis(1, seen, seen + kept)?);
        }
        let end = window.dim(1)?;
        self.conv = Some(window.slice_axis(1, end - kept, end)?.contiguous()?);
        Ok(window)
    }

    /// Takes the state through `batch`'s tokens; the answers are what `layer` makes of them. It gets the
    /// state before them, which is none at the beginning, and numbers of tokens, ascending and the
    /// last of them all; it gives the answers and the state behind so many tokens, for each.
    ///
    /// # Errors
    /// What `layer` says; if the cache does not end where the batch starts.
    pub fn pass(
        &mut self,
        batch: &Batch,
        layer: impl FnOnce(&[i32], Option<Array>) -> Result<(Array, Vec<Array>)>,
    ) -> Result<Array> {
        let (len, all) = (self.len(), batch.len()? as i32);
        let before = self.state.take();
        let within = |mark: &Mark| mark.at.saturating_sub(len).min(all as usize) as i32;
        let mut ends: Vec<i32> = self.marks.iter().map(within).filter(|&n| n > 0).collect();
        ends.push(all);
        ends.dedup();
        let (answers, states) = layer(&ends, before.clone())?;
        for mark in &mut self.marks {
            let end = ends.iter().position(|&end| end == within(mark));
            mark.state = match end {
                Some(end) => states.get(end).cloned(),
                None => before.clone(),
            };
        }
        self.state = states.into_iter().next_back();
        self.advance(batch)?;
        Ok(answers)
    }

    /// The same for a layer that can only tell the state behind the last token that it is given. `part`
    /// answers the tokens of a range, `[B, l, ..]`, and leaves the state behind the last of them where it
    /// found that before the first. It is called for all tokens at once, or from mark to mark.
    ///
    /// # Errors
    /// As [`Self::pass`].
    pub fn scan(
        &mut self,
        batch: &Batch,
        mut part: impl FnMut(std::ops::Range<i32>, &mut Option<Array>) -> Result<Array>,
    ) -> Result<Array> {
        self.pass(batch, |ends, mut state| {
            let (mut answers, mut states, mut start) = (Vec::new(), Vec::new(), 0);
            for &end in ends {
                answers.push(part(start..end, &mut state)?);
                states.extend(state.clone());
                start = end;
            }
            let answers = match answers.len() {
                1 => answers.remove(0),
                _ => Array::concatenate(&answers.iter().collect::<Vec<_>>(), 1)?,
            };
            Ok((answers, states))
        })
    }

    /// Ends the turn of a layer without a state.
    ///
    /// # Errors
    /// If the cache does not end where the batch starts.
    pub fn advance(&mut self, batch: &Batch) -> Result<()> {
        self.lens.resize(batch.offsets().len(), 0);
        for (len, &offset) in self.lens.iter_mut().zip(batch.offsets()) {
            continues(*len, offset, &batch.tokens)?;
            *len += batch.len()?;
        }
        Ok(())
    }

    /// Caches of several sequences as one, a row each. Either all have seen tokens or none has.
    pub(super) fn join(rows: &[&Self]) -> Result<Self> {
        let join = |parts: Vec<Option<&Array>>| -> Result<Option<Array>> {
            match parts.into_iter().collect::<Option<Vec<_>>>() {
                Some(parts) => Array::concatenate(&parts, 0).map(Some),
                None => Ok(None),
            }
        };
        Ok(Self {
            conv: join(rows.iter().map(|row| row.conv.as_ref()).collect())?,
            state: join(rows.iter().map(|row| row.state.as_ref()).collect())?,
            lens: rows
                .iter()
                .flat_map(|row| row.lens.iter().copied())
                .collect(),
            marks: Vec::new(),
        })
    }

    /// A row by itself.
    pub(super) fn row(&self, i: usize) -> Result<Self> {
        let Some(&len) = self.lens.get(i) else {
            let message = format!("there is no row {i} among {}", self.lens.len());
            return Err(Error::new("cache row", &[], message));
        };
        let row = |array: &Option<Array>| {
            let row = |array: &Array| array.slice_axis(0, i as i32, i as i32 + 1)?.copied();
            array.as_ref().map(row).transpose()
        };
        Ok(Self {
            conv: row(&self.conv)?,
            state: row(&self.state)?,
            lens: vec![len],
            marks: Vec::new(),
        })
    }

    /// Keeps these rows, in this order.
    pub(super) fn keep(&mut self, rows: &[usize]) -> Result<()> {
        let indices: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let indices = Array::from_slice(&indices, &[indices.len() as i32])?;
        let keep = |array: &Option<Array>| {
            let keep = |array: &Array| array.take(&indices, 0);
            array.as_ref().map(keep).transpose()
        };
        (self.conv, self.state) = (keep(&self.conv)?, keep(&self.state)?);
        self.marks.clear();
        self.lens = rows
            .iter()
            .filter_map(|&row| self.lens.get(row).copied())
            .collect();
        Ok(())
    }

    pub(super) fn n_rows(&self) -> usize {
        self.lens.len()
    }

    /// Whether it knows what it was left with at this position.
    pub(super) fn reaches(&self, at: usize) -> bool {
        at == self.len() || self.marks.iter().any(|mark| mark.at == at)
    }

    /// The convolution's inputs and the state as they were at a position that it [reaches](Self::reaches).
    pub(super) fn parts(&self, at: usize) -> [Option<Array>; 2] {
        match self.marks.iter().find(|mark| mark.at == at) {
            Some(mark) => [mark.conv.clone(), mark.state.clone()],
            None => [self.conv.clone(), self.state.clone()],
        }
    }

    /// One that has seen `len` tokens and was left with these.
    pub(super) fn restored(conv: Option<Array>, state: Option<Array>, len: usize) -> Self {
        Self {
            conv,
            state,
            lens: vec![len],
            marks: Vec::new(),
        }
    }

    pub(super) fn rewind(&mut self, len: usize) -> Result<()> {
        rewinds(self.len(), len)?;
        if len == 0 {
            *self = Self::default();
        } else if self.lens.iter().any(|&now| now != len) {
            let message = format!(
                "cannot rewind to {len}: a recurrent state exists for position {} only",
                self.len()
            );
            return Err(Error::new("cache rewind", &[], message));
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.lens.iter().copied().max().unwrap_or(0)
    }

    pub(super) fn nbytes(&self) -> usize {
        self.arrays().iter().map(|array| array.nbytes()).sum()
    }

    pub(super) fn arrays(&self) -> Vec<&Array> {
        self.conv.iter().chain(&self.state).collect()
    }
}
