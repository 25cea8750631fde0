//! All that happens between the logits of a batch and its next tokens.
//!
//! In this order, each step only if a row asks for it: the form's mask; logit bias and the tokens that
//! may not end the answer yet; repetition, presence and frequency penalties; DRY; then the chain of
//! cuts and the draw. What depends on the batch's composition alone is on the device once and stays.

use std::collections::BTreeMap;

use super::chain::{Chain, drop_where};
use super::history::{History, Kept, Seen};
use super::host::Demand;
use super::params::Params;
use crate::mlx::{Array, Dtype, Result};

/// A row of a batch, as one step sees it.
#[derive(Debug)]
pub struct Row<'a> {
    /// What its request asks for.
    pub params: &'a Params,
    /// The model's end-of-sequence tokens.
    pub eos_ids: &'a [u32],
    /// The request's own.
    pub stop_ids: &'a [u32],
    /// Tokens drawn before this step.
    pub drawn: u64,
    /// What the host asks of this step.
    pub demand: Option<Demand>,
}

/// The sampler of a batch whose rows stay the same.
#[derive(Debug)]
pub struct Sampler {
    rows: usize,
    vocab: usize,
    chain: Chain,
    history: Option<History>,
    /// What is added to logits, and the state of the rows that it was made for.
    added: Option<Sparse>,
    states: Vec<RowState>,
}

/// On what a row's added numbers depend beside its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RowState {
    early: bool,
    masked: bool,
}

impl Sampler {
    /// For these rows, which have `seen` this, over logits of `vocab` tokens.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn new(rows: &[Row<'_>], seen: &[Seen<'_>], vocab: usize) -> Result<Sampler> {
        let params: Vec<&Params> = rows.iter().map(|row| row.params).collect();
        // The end-of-sequence tokens are the model's, so every row has the same.
        let spared = rows.first().map_or(&[][..], |row| row.eos_ids);
        Ok(Sampler {
            rows: rows.len(),
            vocab,
            chain: Chain::new(&params, spared, vocab)?,
            history: History::new(&params, seen, vocab)?,
            added: None,
            states: Vec::new(),
        })
    }

    /// The number of its rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What a row takes to another batch.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn kept(&self, row: usize) -> Result<Kept> {
        match &self.history {
            Some(history) => history.kept(row),
            None => Ok(Kept::default()),
        }
    }

    /// Draws the next tokens (uint32 `[B]`) from `logits [B, vocab]`; `rows` are those it was made
    /// for.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn draw(&mut self, logits: &Array, rows: &[Row<'_>]) -> Result<Array> {
        let mut logits = logits.clone();
        if let Some(mask) = mask(rows, self.vocab)? {
            logits = drop_where(&logits.astype(Dtype::Float32)?, &mask.logical_not()?)?;
        }
        self.update_added(rows)?;
        if let Some(added) = &self.added {
            logits = added.add_to(&logits)?;
        }
        if let Some(history) = &self.history {
            logits = history.penalize(&logits)?;
        }
        let demanded = rows.iter().map(|row| match &row.demand {
            Some(demand) => demand.biases.as_slice(),
            None => &[],
        });
        if let Some(demanded) = Sparse::new(demanded, self.vocab)? {
            logits = demanded.add_to(&logits)?;
        }
        let steps: Vec<(&Params, u64)> = rows.iter().map(|row| (row.params, row.drawn)).collect();
        let tokens = self.chain.draw(&logits, &steps)?;
        if let Some(history) = &mut self.history {
            history.push(&tokens)?;
        }
        Ok(tokens)
    }

    /// Makes `added` anew if a row has got as many tokens as it must, or got a mask or lost it.
    fn update_added(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let states: Vec<RowState> = rows.iter().map(RowState::of).collect();
        if states == self.states {
            return Ok(());
        }
        let sums = rows.iter().zip(&states).map(|(row, state)| {
            let mut sums = BTreeMap::new();
            for (id, bias) in &row.params.logit_bias {
                *sums.entry(*id).or_insert(0.0) += bias;
            }
            // A mask has the host's word on what may end the answer.
            if !state.masked {
                let banned = row.params.banned(row.eos_ids, row.stop_ids, row.drawn);
                sums.extend(banned.map(|id| (id, f32::NEG_INFINITY)));
            }
            sums.into_iter().collect::<Vec<(u32, f32)>>()
        });
        let sums: Vec<_> = sums.collect();
        self.added = Sparse::new(sums.iter().map(Vec::as_slice), self.vocab)?;
        self.states = states;
        Ok(())
    }
}

impl RowState {
    fn of(row: &Row<'_>) -> RowState {
        RowState {
            early: row.params.is_early(row.drawn),
            masked: row.demand.as_ref().is_some_and(|d| d.mask.is_some()),
        }
    }
}

/// Numbers to be added at a few places of each row.
#[derive(Debug)]
struct Sparse {
    /// Uint32 `[B, n]`.
    ids: Array,
    /// Float32 `[B, n]`.
    values: Array,
}

impl Sparse {
    /// Of each row's ids and values; an id occurs once. `None` if there are none. Ids outside the
    /// vocabulary are left out.
    fn new<'a>(
        rows: impl Iterator<Item = &'a [(u32, f32)]> + Clone,
        vocab: usize,
    ) -> Result<Option<Sparse>> {
        let n = rows.clone().map(<[_]>::len).max().unwrap_or(0);
        if n == 0 {
            return Ok(None);
        }
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        for row in rows {
            let known = row.iter().filter(|(id, _)| (*id as usize) < vocab);
            // Minus zero is the number that changes nothing, not even a zero's sign.
            let filling = std::iter::repeat(&(0, -0.0));
            for (id, value) in known.chain(filling).take(n) {
                ids.push(*id);
                values.push(*value);
            }
        }
        let shape = [(ids.len() / n) as i32, n as i32];
        Ok(Some(Sparse {
            ids: Array::from_slice(&ids, &shape)?,
            values: Array::from_slice(&values, &shape)?,
        }))
    }

    fn add_to(&self, logits: &Array) -> Result<Array> {
        let logits = logits.astype(Dtype::Float32)?;
        logits.scatter_add_axis(&self.ids, &self.values, -1)
    }
}

/// What the forms of the rows allow, bool `[B, vocab]`; rows without one allow all. `None` if no row
/// has one.
fn mask(rows: &[Row<'_>], vocab: usize) -> Result<Option<Array>> {
    let of = |row: &Row<'_>| row.demand.as_ref().and_then(|demand| demand.mask.clone());
    if rows.iter().all(|row| of(row).is_none()) {
        return Ok(None);
    }
    let n_words = vocab.div_ceil(32);
    let words = rows.iter().flat_map(|row| {
        let mut words = of(row).unwrap_or_else(|| vec![u32::MAX; n_words]);
        words.resize(n_words, 0);
        words
    });
    let words: Vec<u32> = words.collect();
    let shape = [rows.len() as i32, n_words as i32, 1];
    let words = Array::from_slice(&words, &shape)?;
    let places = Array::arange(0, 32, Dtype::Uint32)?;
    let one = Array::from_slice(&[1u32], &[])?;
    let bits = words.right_shift(&places)?.bitwise_and(&one)?; // [B, words, 32]
    bits.flatten(1, 2)?
        .slice_axis(-1, 0, vocab as i32)?
        .astype(Dtype::Bool)
        .map(Some)
}
