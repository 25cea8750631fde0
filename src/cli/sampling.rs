//! The sampler's flags beyond the common ones, and what they set.

use super::{Done, Failure};
use crate::sample::{Params, Penalty, Window};
use crate::text::{DRY_SEQUENCE_BREAKERS, Text};

/// How tokens are chosen, in detail.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// Keep the tokens whose surprise is nearest to the expected, up to this probability together
    /// [default: 1, which keeps all]
    #[arg(long, value_name = "P")]
    pub typical_p: Option<f32>,
    /// How often XTC leaves out the likeliest tokens, 0 to 1 [default: 0]
    #[arg(long, value_name = "P")]
    pub xtc_probability: Option<f32>,
    /// The probability above which XTC leaves out all tokens but the least likely of them, 0 to 0.5
    /// [default: 0.1]
    #[arg(long, value_name = "P")]
    pub xtc_threshold: Option<f32>,
    /// Divide the logits of tokens seen lately by this (multiply those below 0) [default: 1, which is off]
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f32>,
    /// How many of the last tokens that is, of prompt and answer [default: 20]
    #[arg(long, value_name = "TOKENS")]
    pub repetition_context_size: Option<usize>,
    /// Take this from the logits of tokens seen [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,
    /// Where they are looked for: so many of the last tokens of prompt and answer [default: the whole
    /// answer]
    #[arg(long, value_name = "TOKENS")]
    pub presence_context_size: Option<usize>,
    /// Take this from the logits of tokens for each time they were seen [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,
    /// Where they are looked for: so many of the last tokens of prompt and answer [default: the whole
    /// answer]
    #[arg(long, value_name = "TOKENS")]
    pub frequency_context_size: Option<usize>,
    /// Take this from the logit of a token that would go on with a repetition (DRY) [default: 0]
    #[arg(long, value_name = "X")]
    pub dry_multiplier: Option<f32>,
    /// Take this many times as much for each further token of the repetition [default: 1.75]
    #[arg(long, value_name = "X")]
    pub dry_base: Option<f32>,
    /// The longest repetition that DRY lets pass, in tokens [default: 2]
    #[arg(long, value_name = "TOKENS")]
    pub dry_allowed_length: Option<usize>,
    /// How many of the last tokens DRY looks at, of prompt and answer [default: all]
    #[arg(long, value_name = "TOKENS")]
    pub dry_penalty_last_n: Option<usize>,
    /// A text at which a repetition ends for DRY (may be repeated; an empty one alone is none)
    /// [default: a line's end, `:`, `"` and `*`]
    #[arg(long, value_name = "TEXT")]
    pub dry_sequence_breaker: Vec<String>,
    /// Add BIAS, from -100 to 100, to the logit of the token with this id (may be repeated)
    #[arg(long, value_name = "ID=BIAS", value_parser = bias)]
    pub logit_bias: Vec<(u32, f32)>,
    /// Tokens of the answer at least [default: 0]
    #[arg(long, value_name = "N")]
    pub min_tokens: Option<usize>,
    /// Do not let the model end the answer
    #[arg(long)]
    pub ignore_eos: bool,
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let parts = text.split_once('=');
    let read = parts.and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    read.ok_or_else(|| "expected a token's id, `=` and a number, such as 42=-5".into())
}

impl Sampling {
    /// Puts what was given in place of what is in `params`.
    ///
    /// # Errors
    /// If a text cannot be tokenized.
    pub fn apply(&self, params: &mut Params, text: &Text) -> Done {
        fn set<T: Copy>(place: &mut T, given: Option<T>) {
            *place = given.unwrap_or(*place);
        }
        fn penalty(place: &mut Penalty, strength: Option<f32>, last: Option<usize>) {
            set(&mut place.strength, strength);
            set(&mut place.window, last.map(Window::Last));
        }
        set(&mut params.typical_p, self.typical_p);
        set(&mut params.xtc.probability, self.xtc_probability);
        set(&mut params.xtc.threshold, self.xtc_threshold);
        let (strength, last) = (self.repetition_penalty, self.repetition_context_size);
        penalty(&mut params.repetition, strength, last);
        let (strength, last) = (self.presence_penalty, self.presence_context_size);
        penalty(&mut params.presence, strength, last);
        let (strength, last) = (self.frequency_penalty, self.frequency_context_size);
        penalty(&mut params.frequency, strength, last);
        let dry = &mut params.dry;
        set(&mut dry.multiplier, self.dry_multiplier);
        set(&mut dry.base, self.dry_base);
        set(&mut dry.allowed_length, self.dry_allowed_length);
        dry.last_n = self.dry_penalty_last_n.or(dry.last_n);
        if dry.multiplier != 0.0 {
            let tokenizer = text.tokenizer();
            let breakers = match self.dry_sequence_breaker.is_empty() {
                true => tokenizer.dry_breakers(&DRY_SEQUENCE_BREAKERS),
                false => tokenizer.dry_breakers(&self.dry_sequence_breaker),
            };
            dry.breakers = breakers.map_err(|e| Failure::Usage(e.to_string()))?;
        }
        params.logit_bias.extend(&self.logit_bias);
        set(&mut params.min_tokens, self.min_tokens);
        params.ignore_eos |= self.ignore_eos;
        Ok(())
    }
}
