//! What a request may ask of the sampler: plain numbers, no arrays.
//!
//! Invariant: a `Params` that exists is valid; [`Params::check`] is called where a request enters.

/// How the next token is chosen from the logits.
///
/// Defaults are greedy decoding. Names and meanings follow mlx-lm's `sample_utils`.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// 0 chooses the most likely token; otherwise logits are divided by it.
    pub temperature: f32,
    /// Keeps the smallest set of tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Drops tokens less likely than this share of the likeliest one; 0 drops none.
    pub min_p: f32,
    /// Fixes the random sequence. The same seed, prompt and parameters give the same text.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: 0,
        }
    }
}

impl Params {
    /// Checks every range; the error is `(field, message)` so that each dialect can name the field.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let outside = |field, value: f32, range: &str| {
            Err((field, format!("{field} is {value}, expected {range}")))
        };
        if !(0.0..=100.0).contains(&self.temperature) {
            return outside("temperature", self.temperature, "0 to 100");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return outside("top_p", self.top_p, "more than 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return outside("min_p", self.min_p, "0 to 1");
        }
        Ok(())
    }
}
