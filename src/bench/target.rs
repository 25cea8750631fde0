//! What is measured: an engine in this process, a server, or another program by a script.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use super::client::{Client, LETTERS};
use super::cost::Cost;
use super::make::mix;
use super::peer::Peer;
use super::suite::Talk;
use super::trace::Trace;
use crate::engine::{Event, Handle, Rates, Request};
use crate::sample::{Form, Params};
use crate::text::guide::{Constraint, Forms};
use crate::text::{Chat, Text};

/// A request to be timed.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// Tokens of the answer; no end-of-sequence token ends it earlier.
    pub tokens: usize,
    /// The form of the answer, if it must have one; then it may end earlier.
    pub form: Option<Form>,
    /// Seconds after the first of its group at which it is sent.
    pub delay: f64,
    /// Leading tokens of the prompt that an earlier request had too.
    pub known: usize,
}

impl Ask {
    /// For this prompt and so many tokens.
    pub fn new(prompt: Vec<u32>, tokens: usize) -> Self {
        Self {
            prompt,
            tokens,
            form: None,
            delay: 0.0,
            known: 0,
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
    /// What a step of it costs, and what the device can do.
    pub roofline: Option<(Cost, Rates)>,
}

/// What is measured.
pub struct Target {
    facts: TargetFacts,
    vocab: usize,
    context_length: Option<usize>,
    kind: Kind,
}

enum Kind {
    Engine(Box<Local>),
    Http(Client),
    Peer(Peer),
}

/// An engine, and what dialogues need beside it.
struct Local {
    handle: Handle,
    text: Option<(Text, Forms)>,
}

impl Target {
    /// An engine in this process.
    pub fn engine(handle: Handle, roofline: Option<(Cost, Rates)>) -> Self {
        let facts = handle.facts();
        Self {
            vocab: facts.vocab_size,
            context_length: Some(facts.context_length),
            facts: TargetFacts {
                name: "pensieve".into(),
                model: facts.id.clone(),
                weight_bytes: Some(facts.weight_bytes),
                load_seconds: Some(facts.load_seconds),
                roofline,
            },
            kind: Kind::Engine(Box::new(Local { handle, text: None })),
        }
    }

    /// Tokens of prompts that it computes in one go, where that is known.
    pub fn prefill_chunk(&self) -> Option<usize> {
        match &self.kind {
            Kind::Engine(local) => Some(local.handle.facts().prefill_chunk),
            Kind::Http(_) | Kind::Peer(_) => None,
        }
    }

    /// With the tokenizer and chat template that dialogues with an engine need.
    pub fn with_text(mut self, text: Text) -> Self {
        if let Kind::Engine(local) = &mut self.kind {
            let facts = local.handle.facts();
            let forms = Forms::new(text.tokenizer(), facts.vocab_size, &facts.eos_ids);
            local.text = Some((text, forms));
        }
        self
    }

    /// A server with OpenAI's API. Its prompts are texts.
    pub fn http(client: Client) -> Self {
        Self {
            vocab: LETTERS,
            context_length: client.context_length(),
            facts: TargetFacts {
                name: client.address().to_owned(),
                model: client.model().to_owned(),
                ..TargetFacts::default()
            },
            kind: Kind::Http(client),
        }
    }

    /// Another program in a process of its own; `model` is the model's name.
    pub fn peer(peer: Peer, model: String) -> Self {
        Self {
            vocab: peer.vocab,
            context_length: None,
            facts: TargetFacts {
                name: peer.kind.name().into(),
                model,
                load_seconds: Some(peer.load_seconds),
                ..TargetFacts::default()
            },
            kind: Kind::Peer(peer),
        }
    }

    /// What is known of it.
    pub fn facts(&self) -> &TargetFacts {
        &self.facts
    }

    /// Prompts have ids below this.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Tokens of prompt and answer together that it takes at most, if that is known.
    pub fn context_length(&self) -> Option<usize> {
        self.context_length
    }

    /// Whether it computes in this process.
    pub fn is_here(&self) -> bool {
        matches!(self.kind, Kind::Engine(_))
    }

    /// Whether it computes on this machine, as far as its address tells.
    pub fn is_on_this_machine(&self) -> bool {
        match &self.kind {
            Kind::Engine(_) | Kind::Peer(_) => true,
            Kind::Http(client) => client.is_local(),
        }
    }

    /// Sends these at once and waits until all have ended. The traces come in the order of the asks.
    ///
    /// # Errors
    /// The first refusal or failure, as the target says it.
    pub async fn together(&self, asks: Vec<Ask>) -> Result<Vec<Trace>, String> {
        match &self.kind {
            Kind::Engine(local) => together(&local.handle, asks).await,
            Kind::Http(client) => client.together(asks).await,
            Kind::Peer(peer) => peer.together(&asks),
        }
    }

    /// Sends these dialogues, each at its time, and waits until all have ended. The traces come in
    /// their order.
    ///
    /// # Errors
    /// The first refusal or failure, as the target says it.
    pub async fn talk(&self, talks: Vec<Talk>) -> Result<Vec<Trace>, String> {
        match &self.kind {
            Kind::Engine(local) => {
                let asks: Result<Vec<Ask>, String> =
                    talks.iter().map(|talk| local.encode(talk)).collect();
                together(&local.handle, asks?).await
            }
            Kind::Http(client) => client.talk(talks).await,
            Kind::Peer(peer) => Err(format!(
                "{} can be measured on a grid only",
                peer.kind.name()
            )),
        }
    }
}

impl Local {
    /// A dialogue's tokens, by the chat template if there is one.
    fn encode(&self, talk: &Talk) -> Result<Ask, String> {
        let Some((text, forms)) = &self.text else {
            return Err("dialogues need the model's tokenizer".into());
        };
        let prompt = match text.has_template() {
            true => text.encode_chat(&Chat {
                messages: talk.messages.clone(),
                add_generation_prompt: true,
                ..Chat::default()
            }),
            false => {
                let content = |message: &Value| message["content"].as_str().map(str::to_owned);
                let whole: Vec<String> = talk.messages.iter().filter_map(content).collect();
                text.tokenizer().encode(&whole.join("\n"), true)
            }
        };
        let form = talk
            .schema
            .clone()
            .map(|schema| forms.compile(&Constraint::JsonSchema(schema)));
        Ok(Ask {
            form: form.transpose().map_err(|e| e.at("the schema"))?,
            delay: talk.delay,
            ..Ask::new(prompt.map_err(|e| e.to_string())?, talk.tokens)
        })
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
    let mut tasks = JoinSet::new();
    for (i, ask) in asks.into_iter().enumerate() {
        let handle = handle.clone();
        tasks.spawn(async move {
            if ask.delay > 0.0 {
                tokio::time::sleep(Duration::from_secs_f64(ask.delay)).await;
            }
            let trace = follow(&handle, ask.request(), origin).await?;
            Ok::<_, String>((i, trace))
        });
    }
    in_order(tasks).await
}

/// The traces in the order of the requests that they are of.
pub(super) async fn in_order(
    mut tasks: JoinSet<Result<(usize, Trace), String>>,
) -> Result<Vec<Trace>, String> {
    let mut traces = vec![Trace::default(); tasks.len()];
    while let Some(done) = tasks.join_next().await {
        let (i, trace) = done.map_err(|e| e.to_string())??;
        if let Some(place) = traces.get_mut(i) {
            *place = trace;
        }
    }
    Ok(traces)
}

/// Sends a request and follows it to its end.
async fn follow(handle: &Handle, request: Request, origin: Instant) -> Result<Trace, String> {
    let mut trace = Trace {
        sent: origin.elapsed().as_secs_f64(),
        ..Trace::default()
    };
    let mut events = handle.submit(request).map_err(|e| e.to_string())?;
    while let Some(event) = events.recv().await {
        match event {
            Event::Token { .. } => trace.stamps.push(origin.elapsed().as_secs_f64()),
            Event::Started(_) | Event::Prompt(_) => {}
            Event::Finished { stats, .. } => {
                trace.prompt_tokens = stats.prompt_tokens;
                trace.cached_tokens = Some(stats.cached_tokens);
                trace.tokens = stats.completion_tokens;
                trace.peak_memory = Some(stats.peak_memory);
                let each = |seconds: f64| seconds / stats.steps as f64;
                let step = (each(stats.building), each(stats.waiting));
                trace.step = (stats.steps > 0).then_some(step);
                return Ok(trace);
            }
            Event::Failed(message) => return Err(message),
        }
    }
    Err("the engine has stopped; see the log".to_owned())
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
