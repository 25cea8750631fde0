//! From processed logits to the next tokens, for all rows of a batch at once.
//!
//! Steps and their order are those of mlx-lm's `sample_utils`: top-p, min-p, XTC and top-k cut the
//! distribution, and temperature applies to what is left; typical-p, which mlx-lm lacks, comes first.
//! A step is built only if a row asks for it, from one column of numbers for all rows, and leaves
//! rows that do not ask for it as they are, bit for bit. So a row's token does not depend on its
//! batch.

use super::noise::{Purpose, gumbel, step_bits, unit};
use super::params::Params;
use crate::mlx::{Array, Dtype, Result};

/// The samplers of a batch: what its rows ask for, on the device. Made once for a batch and used
/// for each of its steps.
#[derive(Debug)]
pub struct Chain {
    /// Bool `[B, 1]`: rows that take the likeliest token; `None` if all do, or none.
    greedy: Option<Array>,
    /// Float32 `[B, 1]`; `None` if all rows are greedy.
    temperature: Option<Array>,
    typical: Option<Array>,
    top_p: Option<Array>,
    /// Logarithms.
    min_p: Option<Array>,
    top_k: Option<TopK>,
    /// How many of the likeliest tokens decide top-p and top-k.
    candidates: usize,
    xtc: bool,
    /// Top-k of the rows for which XTC comes before it.
    late_top_k: Option<TopK>,
    /// Bool `[1, vocab]`: tokens that XTC leaves alone.
    spared: Option<Array>,
}

/// How many tokens each row keeps.
#[derive(Debug)]
struct TopK {
    /// Uint32 `[B, 1]`; 0 keeps all.
    k: Array,
    /// The largest of them.
    most: usize,
}

impl Chain {
    /// For rows of these parameters, over logits of `vocab` tokens; XTC leaves `spared` alone.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn new(rows: &[&Params], spared: &[u32], vocab: usize) -> Result<Chain> {
        let is_greedy: Vec<bool> = rows.iter().map(|p| p.is_greedy()).collect();
        let all_greedy = is_greedy.iter().all(|greedy| *greedy);
        let column = |unused: f32, value: &dyn Fn(&Params) -> Option<f32>| {
            let values = rows.iter().map(|p| value(p).filter(|_| !p.is_greedy()));
            let values: Vec<Option<f32>> = values.collect();
            match values.iter().any(Option::is_some) {
                true => float_column(values.iter().map(|v| v.unwrap_or(unused))).map(Some),
                false => Ok(None),
            }
        };
        let top_k = |late: bool| -> Result<Option<TopK>> {
            let of = |p: &&Params| match !p.is_greedy() && has_xtc(p) == late {
                true => effective_top_k(p, vocab).unwrap_or(0),
                false => 0,
            };
            let counts: Vec<u32> = rows.iter().map(|p| of(p) as u32).collect();
            let most = counts.iter().copied().max().unwrap_or(0);
            let k = || Array::from_slice(&counts, &[counts.len() as i32, 1]);
            match most {
                0 => Ok(None),
                _ => Ok(Some(TopK {
                    k: k()?,
                    most: most as usize,
                })),
            }
        };
        let top_k = (top_k(false)?, top_k(true)?);
        // Where a row keeps its likeliest k at the end, top-p cannot matter beyond these; unless
        // XTC takes some of them away before.
        let unbounded = |p: &&&Params| {
            let bounded = effective_top_k(p, vocab).is_some() && !has_xtc(p);
            !p.is_greedy() && p.top_p < 1.0 && !bounded
        };
        let candidates = match rows.iter().find(unbounded) {
            Some(_) => vocab,
            None => top_k.0.as_ref().map_or(0, |top_k| top_k.most),
        };
        let xtc = rows.iter().any(|p| !p.is_greedy() && has_xtc(p));
        let spared: Vec<u32> = spared
            .iter()
            .copied()
            .filter(|id| (*id as usize) < vocab)
            .collect();
        Ok(Chain {
            greedy: match is_greedy.iter().any(|greedy| *greedy) && !all_greedy {
                true => Some(bool_column(&is_greedy)?),
                false => None,
            },
            temperature: column(1.0, &|p| Some(p.temperature))?,
            typical: column(f32::INFINITY, &|p| {
                (p.typical_p < 1.0).then_some(p.typical_p)
            })?,
            top_p: column(f32::INFINITY, &|p| (p.top_p < 1.0).then_some(p.top_p))?,
            min_p: column(f32::NEG_INFINITY, &|p| {
                (p.min_p > 0.0).then(|| p.min_p.ln())
            })?,
            top_k: top_k.0,
            candidates,
            xtc,
            late_top_k: top_k.1,
            spared: match xtc && !spared.is_empty() {
                true => Some(marked(&spared, vocab)?),
                false => None,
            },
        })
    }

    /// Draws a token for each row (uint32 `[B]`) from `logits [B, vocab]`. `rows` are those the
    /// chain was made for, each with the number of its step.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn draw(&self, logits: &Array, rows: &[(&Params, u64)]) -> Result<Array> {
        let Some(temperature) = &self.temperature else {
            return logits.argmax();
        };
        let logits = logits.astype(Dtype::Float32)?;
        let key = |(params, step): &(&Params, u64)| step_bits(params.seed, *step, Purpose::Token);
        let keys: Vec<u64> = rows.iter().map(key).collect();
        let noisy = self
            .cut(&logits, rows)?
            .divide(temperature)?
            .add(&gumbel(&keys, logits.dim(-1)?)?)?;
        match &self.greedy {
            Some(greedy) => greedy.select(&logits, &noisy)?.argmax(),
            None => noisy.argmax(),
        }
    }

    /// Log-probabilities (float32 `[B, vocab]`) of what may come: minus infinity for all else.
    pub(super) fn cut(&self, logits: &Array, rows: &[(&Params, u64)]) -> Result<Array> {
        let mut logprobs = logits.log_softmax()?;
        if let Some(mass) = &self.typical {
            logprobs = typical(&logprobs, mass)?;
        }
        if let Some(threshold) = self.threshold(&logprobs)? {
            logprobs = drop_where(&logprobs, &logprobs.less(&threshold)?)?;
        }
        if let Some(threshold) = self.xtc_threshold(rows)? {
            logprobs = xtc(&logprobs, &threshold, self.spared.as_ref())?;
        }
        if let Some(top_k) = &self.late_top_k {
            let threshold = top_k.threshold(&ascending(&logprobs, top_k.most)?)?;
            logprobs = drop_where(&logprobs, &logprobs.less(&threshold)?)?;
        }
        Ok(logprobs)
    }

    /// What top-p, min-p and top-k keep is at least as likely as this: float32 `[B, 1]`.
    fn threshold(&self, logprobs: &Array) -> Result<Option<Array>> {
        let mut thresholds = Vec::new();
        if let Some(least) = &self.min_p {
            thresholds.push(logprobs.max_axis(-1, true)?.add(least)?);
        }
        if self.candidates > 0 {
            let ascending = ascending(logprobs, self.candidates)?;
            if let Some(p) = &self.top_p {
                thresholds.push(top_p_threshold(logprobs, &ascending, p)?);
            }
            if let Some(top_k) = &self.top_k {
                thresholds.push(top_k.threshold(&ascending)?);
            }
        }
        let mut thresholds = thresholds.into_iter();
        let first = thresholds.next();
        let Some(first) = first else {
            return Ok(None);
        };
        thresholds
            .try_fold(first, |most, threshold| most.maximum(&threshold))
            .map(Some)
    }

    /// The thresholds (float32 `[B, 1]`) of rows in which XTC acts in this step; in the others above
    /// every probability. `None` if it acts in no row.
    fn xtc_threshold(&self, rows: &[(&Params, u64)]) -> Result<Option<Array>> {
        let acts = |(params, step): &(&Params, u64)| {
            let chance = unit(step_bits(params.seed, *step, Purpose::Xtc));
            !params.is_greedy() && chance < params.xtc.probability
        };
        if !self.xtc || !rows.iter().any(acts) {
            return Ok(None);
        }
        let thresholds = rows.iter().map(|row| match acts(row) {
            true => row.0.xtc.threshold,
            false => 2.0,
        });
        float_column(thresholds).map(Some)
    }
}

fn has_xtc(params: &Params) -> bool {
    params.xtc.probability > 0.0
}

/// How many tokens a row keeps, if not all.
fn effective_top_k(params: &Params, vocab: usize) -> Option<usize> {
    let k = params.top_k as usize;
    (k > 0 && k < vocab).then_some(k)
}

/// Float32 `[B, 1]`.
pub fn float_column(values: impl Iterator<Item = f32>) -> Result<Array> {
    let values: Vec<f32> = values.collect();
    Array::from_slice(&values, &[values.len() as i32, 1])
}

/// Bool `[B, 1]`.
pub fn bool_column(values: &[bool]) -> Result<Array> {
    let bytes: Vec<u8> = values.iter().map(|v| u8::from(*v)).collect();
    Array::from_bytes(&bytes, &[values.len() as i32, 1], Dtype::Bool)
}

/// Bool `[1, vocab]`: true at `ids`.
fn marked(ids: &[u32], vocab: usize) -> Result<Array> {
    let mut bytes = vec![0u8; vocab];
    for id in ids {
        if let Some(byte) = bytes.get_mut(*id as usize) {
            *byte = 1;
        }
    }
    Array::from_bytes(&bytes, &[1, vocab as i32], Dtype::Bool)
}

/// Minus infinity where `dropped`.
pub fn drop_where(logprobs: &Array, dropped: &Array) -> Result<Array> {
    dropped.select(&Array::from_f32(f32::NEG_INFINITY)?, logprobs)
}

/// The `n` largest of each row, ascending: `[B, n]`.
fn ascending(logprobs: &Array, n: usize) -> Result<Array> {
    match n < logprobs.dim(-1)? as usize {
        true => logprobs.topk(n as i32, -1)?.sort(),
        false => logprobs.sort(),
    }
}

/// The least likely of the smallest set of likeliest tokens whose sum reaches `p` of the whole
/// (Holtzman et al., 2020), at least one; minus infinity in rows whose `p` is infinite. The set must
/// lie within the likeliest tokens `ascending [B, n]`, or else their least is given.
fn top_p_threshold(logprobs: &Array, ascending: &Array, p: &Array) -> Result<Array> {
    let above = ascending.exp()?.cumsum(-1, true, false)?; // the mass of likelier tokens, at each place
    let total = logprobs.exp()?.sum_axis(-1, true)?;
    let reached = above.greater_equal(&total.multiply(p)?)?;
    let n_dropped = reached.astype(Dtype::Uint32)?.sum_axis(-1, true)?;
    let threshold = ascending.take_along_axis(&n_dropped, -1)?;
    let unused = p.greater_equal(&Array::from_f32(f32::INFINITY)?)?;
    drop_where(&threshold, &unused)
}

impl TopK {
    /// The least likely token that each row keeps, of the likeliest ones `ascending [B, n]`; minus
    /// infinity in rows that keep all. Tokens as likely as that one are kept too.
    fn threshold(&self, ascending: &Array) -> Result<Array> {
        let n = Array::from_slice(&[ascending.dim(-1)? as u32], &[])?;
        let one = Array::from_slice(&[1u32], &[])?;
        let place = n.subtract(&self.k.maximum(&one)?)?;
        let threshold = ascending.take_along_axis(&place, -1)?;
        drop_where(&threshold, &self.k.less(&one)?)
    }
}

/// Keeps the tokens whose surprise is nearest to the expected one, the entropy, until their sum
/// reaches `mass` (Meister et al., 2023); always at least one. Infinite mass keeps all.
fn typical(logprobs: &Array, mass: &Array) -> Result<Array> {
    let probs = logprobs.exp()?;
    let nothing = Array::from_f32(0.0)?;
    let surprise = nothing
        .less(&probs)?
        .select(&probs.multiply(logprobs)?, &nothing)?;
    // The sum is minus the entropy, so this is the distance between it and the surprise.
    let distance = surprise.sum_axis(-1, true)?.subtract(logprobs)?.abs()?;
    let order = distance.argsort()?;
    let reached = probs.take_along_axis(&order, -1)?.cumsum(-1, false, true)?;
    let n_short = reached
        .less(mass)?
        .astype(Dtype::Uint32)?
        .sum_axis(-1, true)?;
    let last = Array::from_slice(&[logprobs.dim(-1)? as u32 - 1], &[])?;
    let place = order.take_along_axis(&n_short.minimum(&last)?, -1)?;
    let farthest = distance.take_along_axis(&place, -1)?;
    // Where nothing is to be dropped, nothing is: the place of an infinite mass is the last one.
    drop_where(logprobs, &farthest.less(&distance)?)
}

/// Drops all tokens more likely than `threshold` but the least likely of them.
fn xtc(logprobs: &Array, threshold: &Array, spared: Option<&Array>) -> Result<Array> {
    let probs = logprobs.softmax()?;
    let infinity = Array::from_f32(f32::INFINITY)?;
    let least = threshold
        .less(&probs)?
        .select(&probs, &infinity)?
        .min_axis(-1, true)?;
    let mut dropped = least.less(&probs)?;
    if let Some(spared) = spared {
        dropped = dropped.logical_and(&spared.logical_not()?)?;
    }
    drop_where(logprobs, &dropped)
}
