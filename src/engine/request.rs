//! What crosses the channel between the asynchronous side and the engine thread: plain data, never arrays.

use crate::sample;

/// One prompt to continue, as token ids.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt. Must not be empty; every id must be below the vocabulary size.
    pub prompt: Vec<u32>,
    /// How each next token is chosen.
    pub params: sample::Params,
    /// The form that the answer must have, if it must have one. An answer that `max_tokens` cuts
    /// short before its form is complete ends as [`FinishReason::Length`].
    pub form: Option<sample::Form>,
    /// Tokens to generate at most; 0 only scores the prompt.
    pub max_tokens: usize,
    /// Token ids that end the answer, beside the model's own end-of-sequence list.
    pub stop_ids: Vec<u32>,
    /// Log-probabilities with each token: the number of likeliest alternatives to report beside
    /// the chosen one (0 to [`MAX_TOP_LOGPROBS`]); `None` reports none.
    pub logprobs: Option<usize>,
    /// Also report them for the prompt's own tokens (the legacy API's `echo` with `logprobs`).
    pub prompt_logprobs: bool,
}

/// The most alternatives a request may ask for with each token.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// A token with its log-probability (natural logarithm) under the model's own distribution, that
/// is before temperature and truncation.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token that was chosen, or that stands in the prompt.
    pub id: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The likeliest tokens at this place, best first.
    pub top: Vec<(u32, f32)>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence token or one of the request's `stop_ids`, which is not reported; or the
    /// answer's form is complete and allows no further token.
    Stop,
    /// `max_tokens` or the model's context is used up.
    Length,
}

/// What one request cost. Durations in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were taken from the prefix cache instead of being computed.
    pub cached_tokens: usize,
    /// Tokens generated, the ending one not counted.
    pub completion_tokens: usize,
    /// From submission until the engine took it up.
    pub queued: f64,
    /// From taking it up until the first token was known.
    pub prefill: f64,
    /// From the first token to the last.
    pub decode: f64,
    /// Decoding steps that it took part in.
    pub steps: usize,
    /// In those, while the engine's thread built and started the next step: the host's part.
    pub building: f64,
    /// In those, while the engine's thread waited for the device.
    pub waiting: f64,
    /// The most memory MLX has held since the model was loaded, in bytes.
    pub peak_memory: usize,
}

/// What the engine reports for a request, in this order: one `Started` unless it failed before, at
/// most one `Prompt`, any number of `Token`, and exactly one `Finished` or `Failed`, after which the
/// channel closes.
#[derive(Clone, Debug)]
pub enum Event {
    /// The request was taken from the queue; the stats so far say how long it waited there and how
    /// much of the prompt need not be computed.
    Started(Stats),
    /// Log-probabilities of the prompt's tokens, if asked for; the first has none.
    Prompt(Vec<Option<TokenLogprob>>),
    /// One generated token.
    Token {
        /// Its id.
        id: u32,
        /// Present if the request asked for log-probabilities.
        logprob: Option<TokenLogprob>,
    },
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What it cost.
        stats: Stats,
    },
    /// The request failed; the text says what, on what, and what to do.
    Failed(String),
}
