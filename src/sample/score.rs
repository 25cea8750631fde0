//! Log-probabilities under the model's own distribution, before anything a request asks for.

use crate::mlx::{Array, Dtype, Result};

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

    #[test]
    fn scores_are_log_probabilities() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let logits: Vec<f32> = [0.1f32, 0.4, 0.05, 0.25, 0.2]
            .iter()
            .map(|p| p.ln() + 3.0)
            .collect();
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
