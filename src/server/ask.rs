//! What a request of any dialect asks of the engine: prompts, how they are continued, how often.
//!
//! Invariant: the jobs made of an [`Ask`] have passed the engine's own check.

use super::App;
use super::answer::{Answer, Calls};
use super::error::ApiError;
use crate::engine::Request;
use crate::sample::{Form, Params};

/// The most answers of one request, over all of its prompts.
const MAX_ANSWERS: usize = 2048;

/// A text to continue.
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// The request's field that it came from.
    pub param: String,
    /// Whether the answer goes on inside the prompt's last text, so that a space between them counts.
    pub continues: bool,
}

/// One request, whatever dialect it came in.
pub struct Ask {
    /// The texts to continue.
    pub prompts: Vec<Prompt>,
    /// Answers to each of them.
    pub n: usize,
    /// How tokens are chosen; each further answer has a seed derived from this one.
    pub params: Params,
    /// Tokens of each answer at most.
    pub max_tokens: usize,
    /// Strings that end an answer.
    pub stop: Vec<String>,
    /// Tokens that end an answer.
    pub stop_ids: Vec<u32>,
    /// The number of alternatives to report with each token's log-probability, if any are.
    pub logprobs: Option<usize>,
    /// Whether the prompt's tokens are scored too.
    pub prompt_logprobs: bool,
    /// The form that each answer must have.
    pub form: Option<Form>,
    /// How the answers' text is read.
    pub calls: Calls,
}

/// One prompt on its way to the engine, with the answer that it is to become.
pub struct Job {
    /// The place of its choice in the response.
    pub index: usize,
    /// The request's field that the prompt came from.
    pub param: String,
    /// What the engine is asked.
    pub request: Request,
    /// What its events become.
    pub answer: Answer,
}

impl Ask {
    /// One job an answer: those of the first prompt, then those of the next.
    ///
    /// # Errors
    /// If the engine could never serve one of them.
    pub fn jobs(self, app: &App) -> Result<Vec<Job>, ApiError> {
        let count = self.prompts.len().saturating_mul(self.n);
        if count > MAX_ANSWERS {
            let prompts = self.prompts.len();
            let message = format!(
                "`n` is {} for {prompts} prompts, expected at most {MAX_ANSWERS} answers in all",
                self.n
            );
            return Err(ApiError::field("n", message));
        }
        let tokenizer = app.text.tokenizer();
        let mut stop_ids = self.stop_ids.clone();
        // A special token never shows as text, so a stop string that spells one is looked for here.
        let spelled = self.stop.iter().filter_map(|text| tokenizer.id(text));
        stop_ids.extend(spelled.filter(|&id| tokenizer.is_special(id)));
        let mut jobs = Vec::with_capacity(count);
        for prompt in &self.prompts {
            for choice in 0..self.n {
                let stream = match prompt.continues {
                    true => app.text.stream_after(&prompt.ids, self.stop.clone()),
                    false => app.text.stream(self.stop.clone()),
                };
                // The prompt is paid for once.
                let cost = if choice == 0 { prompt.ids.len() } else { 0 };
                let request = Request {
                    prompt: prompt.ids.clone(),
                    params: Params {
                        seed: seed(self.params.seed, choice),
                        ..self.params.clone()
                    },
                    max_tokens: self.max_tokens,
                    form: self.form.clone(),
                    stop_ids: stop_ids.clone(),
                    logprobs: self.logprobs,
                    prompt_logprobs: self.prompt_logprobs,
                };
                let checked = app.engine.check(&request);
                checked.map_err(|error| ApiError::submit(error, &prompt.param))?;
                jobs.push(Job {
                    index: jobs.len(),
                    param: prompt.param.clone(),
                    request,
                    answer: Answer::new(&app.text, stream, &self.calls, &prompt.ids, cost),
                });
            }
        }
        Ok(jobs)
    }
}

/// The first choice has the request's own seed, so that asking for more does not change it; the
/// others' are spread by the golden ratio, as in SplitMix64 (Steele et al., 2014).
fn seed(seed: u64, choice: usize) -> u64 {
    seed.wrapping_add((choice as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}
