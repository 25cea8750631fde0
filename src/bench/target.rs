//! What is measured: an engine in this process.

use std::time::Instant;

use tokio::task::JoinSet;

use super::make::mix;
use super::trace::Trace;
use crate::engine::{Event, Handle, Request};
use crate::sample::{Form, Params};

/// A request to be timed.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// Tokens of the answer; no end-of-sequence token ends it earlier.
    pub tokens: usize,
    /// The form of the answer, if it must have one; then it may end earlier.
    pub form: Option<Form>,
}

impl Ask {
    /// For this prompt and so many tokens.
    pub fn new(prompt: Vec<u32>, tokens: usize) -> Self {
        Self {
            prompt,
            tokens,
            form: None,
        }
    }

    /// As the engine takes it.
    pub fn request(self) -> Request {
        Request {
            prompt: self.prompt,
            params: Params {
                ignore_eos: self.form.is_none(),
                ..Params::default()
            },
            form: self.form,
            max_tokens: self.tokens,
            stop_ids: Vec::new(),
            logprobs: None,
            prompt_logprobs: false,
        }
    }
}

/// What is known of what is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetFacts {
    /// What it is.
    pub name: String,
    /// The model's name.
    pub model: String,
    /// Bytes of the weights in memory.
    pub weight_bytes: Option<usize>,
    /// Seconds that loading took.
    pub load_seconds: Option<f64>,
}

/// What is measured.
pub struct Target {
    facts: TargetFacts,
    handle: Handle,
}

impl Target {
    /// An engine in this process.
    pub fn engine(handle: Handle) -> Self {
        let facts = handle.facts();
        let facts = TargetFacts {
            name: "pensieve".into(),
            model: facts.id.clone(),
            weight_bytes: Some(facts.weight_bytes),
            load_seconds: Some(facts.load_seconds),
        };
        Self { facts, handle }
    }

    /// What is known of it.
    pub fn facts(&self) -> &TargetFacts {
        &self.facts
    }

    /// Prompts have ids below this.
    pub fn vocab(&self) -> usize {
        self.handle.facts().vocab_size
    }

    /// Whether it computes in this process.
    pub fn is_here(&self) -> bool {
        true
    }

    /// Sends these at once and waits until all have ended. The traces come in the order of the asks.
    ///
    /// # Errors
    /// The first refusal or failure, as the target says it.
    pub async fn together(&self, asks: Vec<Ask>) -> Result<Vec<Trace>, String> {
        together(&self.handle, asks).await
    }
}

/// `n` token ids below `vocab`, the same for the same `seed`.
pub fn random_ids(n: usize, vocab: usize, seed: u64) -> Vec<u32> {
    let id = |i: usize| {
        let draw = mix(mix(seed).wrapping_add(i as u64)) >> 32;
        ((draw * vocab as u64) >> 32) as u32
    };
    (0..n).map(id).collect()
}

async fn together(handle: &Handle, asks: Vec<Ask>) -> Result<Vec<Trace>, String> {
    let origin = Instant::now();
    let mut streams = Vec::with_capacity(asks.len());
    for ask in asks {
        let sent = origin.elapsed().as_secs_f64();
        let events = handle.submit(ask.request()).map_err(|e| e.to_string())?;
        streams.push((sent, events));
    }
    let mut tasks = JoinSet::new();
    for (i, (sent, mut events)) in streams.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut trace = Trace {
                sent,
                ..Trace::default()
            };
            while let Some(event) = events.recv().await {
                match event {
                    Event::Token { .. } => trace.stamps.push(origin.elapsed().as_secs_f64()),
                    Event::Started(_) | Event::Prompt(_) => {}
                    Event::Finished { stats, .. } => {
                        trace.prompt_tokens = stats.prompt_tokens;
                        trace.cached_tokens = Some(stats.cached_tokens);
                        trace.tokens = stats.completion_tokens;
                        trace.peak_memory = Some(stats.peak_memory);
                        return Ok((i, trace));
                    }
                    Event::Failed(message) => return Err(message),
                }
            }
            Err("the engine has stopped; see the log".to_owned())
        });
    }
    let mut traces = vec![Trace::default(); tasks.len()];
    while let Some(done) = tasks.join_next().await {
        let (i, trace) = done.map_err(|e| e.to_string())??;
        if let Some(place) = traces.get_mut(i) {
            *place = trace;
        }
    }
    Ok(traces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_repeat_with_the_seed_and_stay_below_the_vocabulary() {
        let ids = random_ids(1000, 50, 3);
        assert_eq!(ids, random_ids(1000, 50, 3));
        assert_eq!(ids[..10], random_ids(10, 50, 3));
        assert_ne!(ids[..10], random_ids(10, 50, 4));
        assert!((0..50).all(|id| ids.contains(&id)) && ids.iter().all(|&id| id < 50));
    }
}
