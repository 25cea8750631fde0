//! What a request may ask of the sampler: plain numbers, no arrays.
//!
//! Invariant: a `Params` that exists is valid; [`Params::check`] is called where a request enters.

/// How the next token is chosen from the logits.
///
/// Defaults are greedy decoding. Names and meanings follow mlx-lm's `sample_utils` where it has
/// them.
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
    /// Keeps the most typical tokens whose probabilities reach this sum (Meister et al., 2023); 1
    /// keeps all.
    pub typical_p: f32,
    /// Leaves out the likeliest tokens now and then ("exclude top choices").
    pub xtc: Xtc,
    /// Makes what would repeat a sequence less likely ("don't repeat yourself").
    pub dry: Dry,
    /// Logits of tokens seen in the window are divided by it if positive, multiplied otherwise
    /// (CTRL, 2019); 1 changes nothing.
    pub repetition: Penalty,
    /// Subtracted once from logits of tokens seen in the window; 0 changes nothing.
    pub presence: Penalty,
    /// Subtracted from logits for each time a token is seen in the window; 0 changes nothing.
    pub frequency: Penalty,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Nothing ends the answer before it has this many tokens.
    pub min_tokens: usize,
    /// The end-of-sequence tokens of the model are never drawn.
    pub ignore_eos: bool,
    /// Fixes the random sequence. The same seed, prompt and parameters give the same text.
    pub seed: u64,
}

/// A penalty for tokens that were seen before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    /// How strong it is; which value changes nothing depends on the penalty.
    pub strength: f32,
    /// Where it looks for tokens.
    pub window: Window,
}

/// Which tokens count as seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// All of the answer so far, as OpenAI has it.
    Answer,
    /// The last so many of prompt and answer together, as mlx-lm has it.
    Last(usize),
}

/// "Exclude top choices": with a probability, all tokens above a threshold but the least likely of
/// them are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xtc {
    /// How often it acts; 0 is never.
    pub probability: f32,
    /// The probability from which on a token is a top choice.
    pub threshold: f32,
}

/// "Don't repeat yourself": a token that would lengthen a repetition of `allowed_length` or more
/// tokens loses `multiplier · base^(length - allowed_length)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// How strong it is; 0 is off.
    pub multiplier: f32,
    /// How fast the loss grows with the repetition's length.
    pub base: f32,
    /// The longest repetition that costs nothing.
    pub allowed_length: usize,
    /// How many of the last tokens of prompt and answer are looked at; all if not given.
    pub last_n: Option<usize>,
    /// Tokens at which a repetition ends.
    pub breakers: Vec<u32>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            typical_p: 1.0,
            xtc: Xtc {
                probability: 0.0,
                threshold: 0.1,
            },
            dry: Dry::default(),
            repetition: Penalty {
                strength: 1.0,
                window: Window::Last(20),
            },
            presence: Penalty {
                strength: 0.0,
                window: Window::Answer,
            },
            frequency: Penalty {
                strength: 0.0,
                window: Window::Answer,
            },
            logit_bias: Vec::new(),
            min_tokens: 0,
            ignore_eos: false,
            seed: 0,
        }
    }
}

impl Default for Dry {
    fn default() -> Self {
        Self {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            last_n: None,
            breakers: Vec::new(),
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
