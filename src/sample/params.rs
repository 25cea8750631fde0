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

/// The largest [`Window::Last`].
pub const MAX_WINDOW: usize = 65_536;
/// The most entries of [`Params::logit_bias`].
pub const MAX_LOGIT_BIAS: usize = 1024;
/// The most entries of [`Dry::breakers`].
pub const MAX_DRY_BREAKERS: usize = 65_536;
/// Divided by less, differences between logits would drown any noise.
const LEAST_TEMPERATURE: f32 = 1e-5;

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
    /// Whether the likeliest token is always taken. A temperature below 1e-5 counts as 0.
    pub fn is_greedy(&self) -> bool {
        // Of the other cuts these two alone can take the likeliest token away.
        let only_one = self.top_k == 1 && self.typical_p >= 1.0 && self.xtc.probability <= 0.0;
        self.temperature < LEAST_TEMPERATURE || only_one
    }

    /// Of the tokens that end an answer, the model's `eos_ids` and the request's `stop_ids`, those
    /// that must not come after `drawn` others.
    pub fn banned<'a>(
        &self,
        eos_ids: &'a [u32],
        stop_ids: &'a [u32],
        drawn: u64,
    ) -> impl Iterator<Item = u32> + 'a {
        let early = self.is_early(drawn);
        let ignore_eos = self.ignore_eos;
        let eos_ids = eos_ids.iter().filter(move |_| ignore_eos || early);
        let stop_ids = stop_ids.iter().filter(move |_| early);
        eos_ids.chain(stop_ids).copied()
    }

    /// Whether an answer of `drawn` tokens must go on.
    pub fn is_early(&self, drawn: u64) -> bool {
        drawn < self.min_tokens as u64
    }

    /// Checks every range; the error is `(field, message)` so that each dialect can name the field.
    ///
    /// # Errors
    /// If a number is not finite or outside its range, or a list is too long. Ids are not compared
    /// with a vocabulary, nor `min_tokens` with `max_tokens`: neither is known here.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        within("temperature", self.temperature, 0.0, 100.0)?;
        share("top_p", self.top_p)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        share("typical_p", self.typical_p)?;
        within("xtc_probability", self.xtc.probability, 0.0, 1.0)?;
        within("xtc_threshold", self.xtc.threshold, 0.0, 0.5)?;
        within("dry_multiplier", self.dry.multiplier, 0.0, 100.0)?;
        within("dry_base", self.dry.base, 1.0, 100.0)?;
        count("dry_allowed_length", self.dry.allowed_length, 1)?;
        count("dry_penalty_last_n", self.dry.last_n.unwrap_or(1), 1)?;
        let breakers = self.dry.breakers.len();
        at_most("dry_sequence_breakers", breakers, MAX_DRY_BREAKERS)?;
        // A factor near 0 could overflow the logits.
        within("repetition_penalty", self.repetition.strength, 0.01, 100.0)?;
        within("presence_penalty", self.presence.strength, -100.0, 100.0)?;
        within("frequency_penalty", self.frequency.strength, -100.0, 100.0)?;
        let windows = [
            ("repetition_context_size", self.repetition.window),
            ("presence_context_size", self.presence.window),
            ("frequency_context_size", self.frequency.window),
        ];
        for (field, window) in windows {
            if let Window::Last(n) = window {
                count(field, n, 1)?;
                at_most(field, n, MAX_WINDOW)?;
            }
        }
        at_most("logit_bias", self.logit_bias.len(), MAX_LOGIT_BIAS)?;
        for (_, bias) in &self.logit_bias {
            within("logit_bias", *bias, -100.0, 100.0)?;
        }
        Ok(())
    }
}

type Checked = Result<(), (&'static str, String)>;

/// NaN is within nothing.
fn within(field: &'static str, value: f32, least: f32, most: f32) -> Checked {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err((
            field,
            format!("{field} is {value}, expected {least} to {most}"),
        )),
    }
}

/// A part of the whole that is not nothing.
fn share(field: &'static str, value: f32) -> Checked {
    match value > 0.0 && value <= 1.0 {
        true => Ok(()),
        false => {
            let message = format!("{field} is {value}, expected more than 0 and at most 1");
            Err((field, message))
        }
    }
}

fn count(field: &'static str, n: usize, least: usize) -> Checked {
    match n >= least {
        true => Ok(()),
        false => Err((field, format!("{field} is {n}, expected {least} or more"))),
    }
}

fn at_most(field: &'static str, n: usize, most: usize) -> Checked {
    match n <= most {
        true => Ok(()),
        false => Err((field, format!("{field} has {n}, expected at most {most}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field that is refused, which its message names.
    fn refused(params: Params) -> Option<&'static str> {
        let (field, message) = params.check().err()?;
        assert!(message.starts_with(field), "{message}");
        assert!(message.contains("expected"), "{message}");
        Some(field)
    }

    #[test]
    fn every_number_has_its_range_and_not_a_number_is_in_none() {
        type Set = fn(&mut Params, f32);
        let fields: &[(&str, Set, &[f32], &[f32])] = &[
            (
                "temperature",
                |p, x| p.temperature = x,
                &[0.0, 100.0],
                &[-0.1, 100.5],
            ),
            ("top_p", |p, x| p.top_p = x, &[1e-6, 1.0], &[0.0, 1.01]),
            ("min_p", |p, x| p.min_p = x, &[0.0, 1.0], &[-0.1, 1.01]),
            (
                "typical_p",
                |p, x| p.typical_p = x,
                &[1e-6, 1.0],
                &[0.0, 1.01],
            ),
            (
                "xtc_probability",
                |p, x| p.xtc.probability = x,
                &[0.0, 1.0],
                &[-0.1, 1.01],
            ),
            (
                "xtc_threshold",
                |p, x| p.xtc.threshold = x,
                &[0.0, 0.5],
                &[-0.1, 0.51],
            ),
            (
                "dry_multiplier",
                |p, x| p.dry.multiplier = x,
                &[0.0, 100.0],
                &[-0.1, 101.0],
            ),
            (
                "dry_base",
                |p, x| p.dry.base = x,
                &[1.0, 100.0],
                &[0.9, 101.0],
            ),
            (
                "repetition_penalty",
                |p, x| p.repetition.strength = x,
                &[0.01, 100.0],
                &[0.0, -1.0],
            ),
            (
                "presence_penalty",
                |p, x| p.presence.strength = x,
                &[-100.0, 100.0],
                &[-101.0, 101.0],
            ),
            (
                "frequency_penalty",
                |p, x| p.frequency.strength = x,
                &[-100.0, 100.0],
                &[-101.0, 101.0],
            ),
            (
                "logit_bias",
                |p, x| p.logit_bias = vec![(3, x)],
                &[-100.0, 100.0],
                &[-101.0, 101.0],
            ),
        ];
        assert_eq!(refused(Params::default()), None);
        for (field, set, good, bad) in fields {
            let with = |x| {
                let mut params = Params::default();
                set(&mut params, x);
                refused(params)
            };
            for x in *good {
                assert_eq!(with(*x), None, "{field} {x}");
            }
            for x in bad
                .iter()
                .chain(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY])
            {
                assert_eq!(with(*x), Some(*field), "{field} {x}");
            }
        }
    }

    #[test]
    fn counts_and_lists_are_bounded() {
        type Set = fn(&mut Params, usize);
        let fields: &[(&str, Set, &[usize], &[usize])] = &[
            (
                "dry_allowed_length",
                |p, n| p.dry.allowed_length = n,
                &[1, usize::MAX],
                &[0],
            ),
            (
                "dry_penalty_last_n",
                |p, n| p.dry.last_n = Some(n),
                &[1, usize::MAX],
                &[0],
            ),
            (
                "dry_sequence_breakers",
                |p, n| p.dry.breakers = vec![1; n],
                &[0, MAX_DRY_BREAKERS],
                &[MAX_DRY_BREAKERS + 1],
            ),
            (
                "repetition_context_size",
                |p, n| p.repetition.window = Window::Last(n),
                &[1, MAX_WINDOW],
                &[0, MAX_WINDOW + 1, usize::MAX],
            ),
            (
                "presence_context_size",
                |p, n| p.presence.window = Window::Last(n),
                &[1, MAX_WINDOW],
                &[0, MAX_WINDOW + 1],
            ),
            (
                "frequency_context_size",
                |p, n| p.frequency.window = Window::Last(n),
                &[1, MAX_WINDOW],
                &[0, MAX_WINDOW + 1],
            ),
            (
                "logit_bias",
                |p, n| p.logit_bias = vec![(1, 0.5); n],
                &[0, MAX_LOGIT_BIAS],
                &[MAX_LOGIT_BIAS + 1],
            ),
        ];
        for (field, set, good, bad) in fields {
            for (numbers, expected) in [(good, None), (bad, Some(*field))] {
                for n in *numbers {
                    let mut params = Params::default();
                    set(&mut params, *n);
                    assert_eq!(refused(params), expected, "{field} {n}");
                }
            }
        }
    }

    #[test]
    fn what_ends_an_answer_is_banned_before_its_time() {
        let banned =
            |params: &Params, drawn| -> Vec<u32> { params.banned(&[1, 2], &[7], drawn).collect() };
        let plain = Params::default();
        assert!(banned(&plain, 0).is_empty());
        let late = Params {
            min_tokens: 3,
            ..Params::default()
        };
        assert_eq!(banned(&late, 2), [1, 2, 7]);
        assert!(banned(&late, 3).is_empty());
        let endless = Params {
            ignore_eos: true,
            ..late
        };
        assert_eq!(banned(&endless, 2), [1, 2, 7]);
        assert_eq!(banned(&endless, 3), [1, 2]);
    }
}
