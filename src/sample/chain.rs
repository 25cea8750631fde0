//! From logits to the next token, on the device.
//!
//! Steps and their order are those of mlx-lm's `sample_utils`: top-p, min-p and top-k cut the
//! model's own distribution, and temperature applies to what is left. The random key of a step is
//! made of the request's seed and the step's number alone, so a seed gives the same text whatever
//! else runs.

use super::Params;
use crate::mlx::{Array, Dtype, Result};

/// Draws the next token (uint32 `[1]`) from the logits `[1, vocab]` of step `step`.
pub fn sample(logits: &Array, params: &Params, step: u64) -> Result<Array> {
    if params.temperature == 0.0 {
        return logits.argmax();
    }
    let mut logprobs = logits.astype(Dtype::Float32)?.log_softmax()?;
    if params.top_p < 1.0 {
        logprobs = top_p(&logprobs, params.top_p)?;
    }
    if params.min_p > 0.0 {
        logprobs = min_p(&logprobs, params.min_p)?;
    }
    if params.top_k > 0 {
        logprobs = top_k(&logprobs, params.top_k)?;
    }
    let scaled = logprobs.divide(&Array::from_f32(params.temperature)?)?;
    scaled.categorical(&Array::random_key(step_seed(params.seed, step))?)
}

/// The seed of one step: splitmix64 (Steele et al., 2014), so that neighbours are unrelated.
fn step_seed(seed: u64, step: u64) -> u64 {
    let mut z = seed.wrapping_add((step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Minus infinity where `dropped`.
fn drop_where(logprobs: &Array, dropped: &Array) -> Result<Array> {
    dropped.select(&Array::from_f32(f32::NEG_INFINITY)?, logprobs)
}

/// Keeps the likeliest tokens until their sum reaches `p` of the whole (Holtzman et al., 2020);
/// always at least one.
fn top_p(logprobs: &Array, p: f32) -> Result<Array> {
    let ascending = logprobs.sort()?;
    let probs = ascending.exp()?;
    let above = probs.cumsum(-1, true, false)?; // the mass of likelier tokens, at each place
    let total = probs.sum_axis(-1, true)?;
    let reached = above.greater_equal(&total.multiply(&Array::from_f32(p)?)?)?;
    let n_dropped = reached.astype(Dtype::Uint32)?.sum_axis(-1, true)?;
    let threshold = ascending.take_along_axis(&n_dropped, -1)?;
    drop_where(logprobs, &logprobs.less(&threshold)?)
}

/// Drops tokens less likely than `p` times the likeliest.
fn min_p(logprobs: &Array, p: f32) -> Result<Array> {
    let threshold = logprobs
        .max_axis(-1, true)?
        .add(&Array::from_f32(p.ln())?)?;
    drop_where(logprobs, &logprobs.less(&threshold)?)
}

/// Keeps the `k` likeliest tokens.
fn top_k(logprobs: &Array, k: u32) -> Result<Array> {
    let vocab = logprobs.dim(-1)?;
    let k = i32::try_from(k).unwrap_or(i32::MAX);
    if k >= vocab {
        return Ok(logprobs.clone());
    }
    let order = logprobs.negative()?.argpartition(k - 1, -1)?;
    let dropped = order.slice_axis(-1, k, vocab)?;
    let nothing = Array::from_f32(f32::NEG_INFINITY)?.broadcast_to(&dropped.shape())?;
    logprobs.put_along_axis(&dropped, &nothing, -1)
}

/// Log-probabilities of chosen tokens and of the likeliest ones, still on the device.
#[derive(Debug)]
pub struct Scores {
    /// float32 `[n]`: of the chosen tokens.
    pub chosen: Array,
    /// The likeliest tokens, if any were asked for: ids (uint32) and log-probabilities (float32),
    /// `[n, top]` each, in no particular order.
    pub top: Option<(Array, Array)>,
}

impl Scores {
    /// Its arrays, for evaluation.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        let top = self.top.iter().flat_map(|(ids, logprobs)| [ids, logprobs]);
        std::iter::once(&self.chosen).chain(top)
    }
}

/// Scores `tokens` (uint32 `[n]`) under the logits `[n, vocab]`, with the `top` likeliest.
pub fn score(logits: &Array, tokens: &Array, top: usize) -> Result<Scores> {
    let logprobs = logits.astype(Dtype::Float32)?.log_softmax()?;
    let chosen = logprobs
        .take_along_axis(&tokens.expand_dims(-1)?, -1)?
        .squeeze(-1)?;
    let vocab = logprobs.dim(-1)?;
    let top = (top as i32).min(vocab);
    if top == 0 {
        return Ok(Scores { chosen, top: None });
    }
    let ids = logprobs
        .negative()?
        .argpartition(top - 1, -1)?
        .slice_axis(-1, 0, top)?;
    let values = logprobs.take_along_axis(&ids, -1)?;
    Ok(Scores {
        chosen,
        top: Some((ids, values)),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::mlx::{Device, Runtime};

    /// The tokens that `params` draw from these probabilities in 300 steps.
    fn drawn(probabilities: &[f32], params: &Params) -> BTreeSet<u32> {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let logits = Array::from_slice(&logits, &[1, logits.len() as i32]).unwrap();
        (0..300)
            .map(|step| {
                let token = sample(&logits, params, step).unwrap();
                assert_eq!(token.shape(), [1]);
                token.item::<u32>().unwrap()
            })
            .collect()
    }

    fn params() -> Params {
        Params {
            temperature: 1.0,
            seed: 5,
            ..Params::default()
        }
    }

    const P: [f32; 5] = [0.1, 0.4, 0.05, 0.25, 0.2];

    #[test]
    fn greedy_takes_the_likeliest() {
        assert_eq!(drawn(&P, &Params::default()), BTreeSet::from([1]));
    }

    #[test]
    fn without_cuts_everything_can_come() {
        assert_eq!(drawn(&P, &params()).len(), 5);
    }

    #[test]
    fn top_k_keeps_exactly_k() {
        let keep = |top_k| drawn(&P, &Params { top_k, ..params() });
        assert_eq!(keep(1), BTreeSet::from([1]));
        assert_eq!(keep(3), BTreeSet::from([1, 3, 4]));
        assert_eq!(keep(5).len(), 5);
        assert_eq!(keep(1000).len(), 5);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_p() {
        let keep = |top_p| drawn(&P, &Params { top_p, ..params() });
        assert_eq!(keep(0.0001), BTreeSet::from([1]));
        assert_eq!(keep(0.39), BTreeSet::from([1]));
        assert_eq!(keep(0.6), BTreeSet::from([1, 3]));
        assert_eq!(keep(0.8), BTreeSet::from([1, 3, 4]));
    }

    #[test]
    fn min_p_is_relative_to_the_likeliest() {
        let keep = |min_p| drawn(&P, &Params { min_p, ..params() });
        assert_eq!(keep(0.9), BTreeSet::from([1]));
        assert_eq!(keep(0.45), BTreeSet::from([1, 3, 4]));
        assert_eq!(keep(1.0), BTreeSet::from([1]));
    }

    #[test]
    fn a_low_temperature_is_nearly_greedy() {
        let temperature = 0.01;
        let cold = Params {
            temperature,
            ..params()
        };
        assert_eq!(drawn(&P, &cold), BTreeSet::from([1]));
    }

    #[test]
    fn steps_are_unrelated_and_seeds_repeat() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let logits = Array::zeros(&[1, 64], Dtype::Float32).unwrap();
        let text = |seed| -> Vec<u32> {
            let params = Params { seed, ..params() };
            (0..40)
                .map(|step| sample(&logits, &params, step).unwrap().item().unwrap())
                .collect()
        };
        assert_eq!(text(3), text(3));
        assert_ne!(text(3), text(4));
        assert_ne!(text(3)[1..], text(4)[..39], "a seed is no shift of another");
        assert!(text(3).iter().collect::<BTreeSet<_>>().len() > 20);
    }

    #[test]
    fn scores_are_log_probabilities() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let logits: Vec<f32> = P.iter().map(|p| p.ln() + 3.0).collect();
        let logits = Array::from_slice(&logits, &[1, 5]).unwrap();
        let tokens = Array::from_slice(&[4u32], &[1]).unwrap();
        let scores = score(&logits, &tokens, 2).unwrap();
        let chosen = scores.chosen.item::<f32>().unwrap();
        assert!((chosen - 0.2f32.ln()).abs() < 1e-5);
        let (ids, _) = scores.top.unwrap();
        let ids: BTreeSet<u32> = ids.to_vec().unwrap().into_iter().collect();
        assert_eq!(ids, BTreeSet::from([1, 3]));
        assert!(score(&logits, &tokens, 50).is_ok(), "more than there are");
    }
}
