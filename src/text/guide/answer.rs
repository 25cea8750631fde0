//! One answer held to its form, token by token.

use llguidance::Matcher;
use llguidance::api::StopReason;

use super::refine;
use crate::sample::{Allowed, Guide};

/// What llguidance says where no token fits.
const NONE_FITS: &str = "NoExtensionBias";

/// The state of an answer.
pub(super) struct Answer {
    matcher: Matcher,
    eos_ids: std::sync::Arc<[u32]>,
}

impl Answer {
    /// An answer without a token yet; `matcher` is its own.
    pub fn new(matcher: Matcher, eos_ids: std::sync::Arc<[u32]>) -> Self {
        Self { matcher, eos_ids }
    }

    /// Another answer in the same state, which shares nothing that either changes: whether an answer stays within
    /// the limits must not depend on those before it.
    pub fn again(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
            eos_ids: self.eos_ids.clone(),
        }
    }

    fn ended(&self) -> bool {
        matches!(
            self.matcher.stop_reason(),
            StopReason::NoExtension | StopReason::EndOfSentence
        )
    }
}

impl Guide for Answer {
    fn accept(&mut self, id: u32) -> Result<(), String> {
        if self.ended() {
            return Err(format!("token {id} comes after the end of the form"));
        }
        self.matcher
            .consume_token(id)
            .map_err(|e| format!("token {id} does not fit the form: {}", refine(&e)))
    }

    fn allowed(&mut self) -> Result<Allowed, String> {
        let failed = |e| {
            format!(
                "what the form allows next cannot be computed: {}",
                refine(&e)
            )
        };
        // An empty list asks only whether anything can follow, which a new answer has not been asked yet.
        self.matcher.consume_tokens(&[]).map_err(failed)?;
        if self.ended() {
            return Ok(Allowed::Nothing);
        }
        let accepting = self.matcher.is_accepting().map_err(failed)?;
        let mut mask = match self.matcher.compute_mask() {
            Ok(mask) => mask,
            Err(e) if e.to_string().starts_with(NONE_FITS) => {
                return match accepting {
                    true => Ok(Allowed::Nothing),
                    false => Err("no token of the model can continue the form here".into()),
                };
            }
            Err(e) => return Err(failed(e)),
        };
        // A grammar's token ranges may cover them.
        if !accepting {
            let n_tokens = mask.len();
            for &id in self.eos_ids.iter().filter(|&&id| (id as usize) < n_tokens) {
                mask.disallow_token(id);
            }
            if mask.is_zero() {
                return Err("the form allows nothing here but an end that would be early".into());
            }
        }
        let mut words = mask.as_slice().to_vec();
        words.truncate(mask.len().div_ceil(32));
        Ok(Allowed::These(words))
    }
}
