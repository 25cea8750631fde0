//! Dialogues as users have them, and what each must reach: the acceptance suite and its scenarios.
//!
//! The targets are the product's own, for its reference machine: first token within 300 ms (200 to 300
//! is what is meant to be usual), 25 tokens a second, 100 tokens within 10 s, 10 GB, loaded within 8 s,
//! a GPU in use 80% of the time. A better value passes.

use serde_json::{Value, json};

use super::make::mix;
use super::stats::Summary;
use super::system::{GpuWatch, resident_bytes};
use super::target::Target;
use super::trace::Trace;
use super::verdict::{Bound, Check};

/// A dialogue to be answered.
#[derive(Clone, Debug, Default)]
pub struct Talk {
    /// The messages, as in OpenAI's chat API.
    pub messages: Vec<Value>,
    /// Tokens of the answer; without a schema no end-of-sequence token ends it earlier.
    pub tokens: usize,
    /// Seconds after the first of its group at which it is sent.
    pub delay: f64,
    /// The JSON schema that the answer must have.
    pub schema: Option<Value>,
}

/// A scenario of dialogues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialogue {
    /// A short question.
    SimpleQuery,
    /// A sum to be reasoned about.
    ComplexReasoning,
    /// The opening of a story.
    CreativeWriting,
    /// A function to be written.
    CodeGeneration,
    /// Turns over a long shared beginning, each with a tool's result at its end.
    Agent,
    /// A question about a long text.
    LongContext,
    /// An answer that a JSON schema holds.
    JsonSchema,
    /// Chats that come at random.
    ConcurrentChat,
}

/// Every scenario of the suite.
pub const DIALOGUES: [Dialogue; 8] = [
    Dialogue::SimpleQuery,
    Dialogue::ComplexReasoning,
    Dialogue::CreativeWriting,
    Dialogue::CodeGeneration,
    Dialogue::Agent,
    Dialogue::LongContext,
    Dialogue::JsonSchema,
    Dialogue::ConcurrentChat,
];

impl Dialogue {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Dialogue::SimpleQuery => "simple_query",
            Dialogue::ComplexReasoning => "complex_reasoning",
            Dialogue::CreativeWriting => "creative_writing",
            Dialogue::CodeGeneration => "code_generation",
            Dialogue::Agent => "agent",
            Dialogue::LongContext => "long_context",
            Dialogue::JsonSchema => "json_schema",
            Dialogue::ConcurrentChat => "concurrent_chat",
        }
    }

    /// The question, of those that ask one.
    fn question(self) -> Option<&'static str> {
        Some(match self {
            Dialogue::SimpleQuery => "What is the capital of France, and what is it known for?",
            Dialogue::ComplexReasoning => {
                "Three friends share a bill of 84 euros. Ana pays twice what Ben pays, and Cleo pays \
                 12 euros less than Ana. What does each of them pay? Reason step by step, and check \
                 the sum."
            }
            Dialogue::CreativeWriting => {
                "Write the opening of a story about a lighthouse keeper who finds a letter that is \
                 addressed to somebody who will be born in a hundred years."
            }
            Dialogue::CodeGeneration => {
                "Write a Python function that merges two sorted lists into one sorted list without \
                 using sorted(), with a docstring, type hints, and a few tests."
            }
            _ => return None,
        })
    }
}

/// How the scenarios are run.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Draws the times at which chats come.
    pub seed: u64,
    /// Tokens that a long prompt has at most, for slow machines.
    pub longest: Option<usize>,
}

/// Tokens of an answer whose time counts.
const ANSWER: usize = 100;
const LEAST_RATE: Bound = Bound::AtLeast(25.0);
const FIRST_MS: Bound = Bound::AtMost(300.0);
/// Tokens that an agent's turns share, its turns, and tokens of an answer of its.
const AGENT_PREFIX: usize = 20_000;
const AGENT_TURNS: usize = 10;
const AGENT_ANSWER: usize = 32;
/// Letters of a tool's result.
const RESULT: usize = 200;
/// Tokens that a turn of the agent adds at most beside its result: the model's call, and what the
/// template puts around messages.
const AROUND: usize = 48;
/// Tokens of the long text.
const LONG: usize = 16_000;
/// Chats that come one after the other, and the mean time between them in seconds.
pub const CHATS: usize = 16;
const BETWEEN: f64 = 0.5;
const CHAT_ANSWER: usize = 64;
/// Tokens of an answer that a schema holds, at most.
const SCHEMA_ANSWER: usize = 200;
/// Tokens of a context that is not known.
const UNKNOWN_CONTEXT: usize = 32_768;

fn said(role: &str, content: impl Into<String>) -> Value {
    json!({"role": role, "content": content.into()})
}

fn ask(content: impl Into<String>, tokens: usize) -> Talk {
    Talk {
        messages: vec![said("user", content)],
        tokens,
        ..Talk::default()
    }
}

/// Runs these scenarios on `target`, and checks what holds for all of them.
///
/// # Errors
/// What a request said that failed.
pub async fn run(
    target: &Target,
    scenarios: &[Dialogue],
    conditions: Conditions,
) -> Result<Vec<Check>, String> {
    let mut suite = Suite {
        target,
        conditions,
        checks: Vec::new(),
        peak: 0,
        gpu: Vec::new(),
    };
    // Whatever comes first is not to pay for first uses.
    suite.talk(vec![ask("Hello", 8)]).await?;
    for scenario in scenarios {
        match scenario {
            Dialogue::Agent => suite.agent().await?,
            Dialogue::LongContext => suite.long_context().await?,
            Dialogue::JsonSchema => suite.json_schema().await?,
            Dialogue::ConcurrentChat => suite.concurrent_chat().await?,
            _ => suite.question(*scenario).await?,
        }
    }
    suite.whole();
    Ok(suite.checks)
}

struct Suite<'a> {
    target: &'a Target,
    conditions: Conditions,
    checks: Vec<Check>,
    /// The most bytes that MLX held.
    peak: usize,
    /// Percent of the time in which the GPU was in use, while one answer after the other was given.
    gpu: Vec<f64>,
}

impl Suite<'_> {
    async fn talk(&mut self, talks: Vec<Talk>) -> Result<Vec<Trace>, String> {
        let traces = self.target.talk(talks).await?;
        let peak = traces.iter().filter_map(|trace| trace.peak_memory).max();
        self.peak = self.peak.max(peak.unwrap_or(0));
        Ok(traces)
    }

    fn check(
        &mut self,
        (scenario, measure): (&'static str, &'static str),
        value: Option<f64>,
        bound: Option<Bound>,
        note: Option<String>,
    ) {
        self.checks.push(Check {
            scenario,
            measure,
            value,
            spread: None,
            bound,
            note,
        });
    }

    /// Checks the median.
    fn check_all(
        &mut self,
        (scenario, measure): (&'static str, &'static str),
        values: impl Iterator<Item = f64>,
        bound: Option<Bound>,
        note: Option<String>,
    ) {
        let spread = Summary::of(&values.collect::<Vec<_>>());
        self.checks.push(Check {
            scenario,
            measure,
            value: spread.map(|spread| spread.p50),
            spread,
            bound,
            note,
        });
    }

    /// The median rate of answers.
    fn rate(&mut self, scenario: Dialogue, traces: &[Trace], note: Option<String>) {
        let rates = traces.iter().filter_map(Trace::decode_rate);
        let name = (scenario.name(), "decode, tokens/s");
        self.check_all(name, rates, Some(LEAST_RATE), note);
    }

    /// The median time to the first token.
    fn first(
        &mut self,
        name: (&'static str, &'static str),
        traces: &[Trace],
        bound: Option<Bound>,
        note: Option<String>,
    ) {
        let firsts = traces.iter().filter_map(Trace::first);
        self.check_all(name, firsts.map(|s| 1e3 * s), bound, note);
    }

    async fn question(&mut self, scenario: Dialogue) -> Result<(), String> {
        let question = scenario.question().unwrap_or_default();
        let here = self.target.is_on_this_machine();
        let gpu = here.then(GpuWatch::start).flatten();
        let traces = self.talk(vec![ask(question, ANSWER)]).await?;
        let used = gpu.and_then(|gpu| gpu.take());
        self.gpu.extend(used.and_then(|used| used.utilization));
        self.first(
            (scenario.name(), "first token, ms"),
            &traces,
            Some(FIRST_MS),
            None,
        );
        self.rate(scenario, &traces, None);
        let tokens = traces.first().map_or(0, |trace| trace.tokens);
        let whole = traces.first().filter(|_| tokens >= ANSWER);
        let whole = whole.and_then(|trace| Some(trace.stamps.last()? - trace.sent));
        let short = || format!("the answer ended after {tokens} tokens");
        let note = whole.is_none().then(short);
        let name = (scenario.name(), "100 tokens, s");
        self.check(name, whole, Some(Bound::AtMost(10.0)), note);
        Ok(())
    }

    /// Letters of [`lines`] that make a token.
    async fn letters(&mut self) -> Result<f64, String> {
        let text = lines(400, "tool");
        let traces = self.talk(vec![ask(text.clone(), 2)]).await?;
        let tokens = traces.first().map_or(0, |trace| trace.prompt_tokens);
        Ok(match tokens {
            // A server that does not count: English has about four.
            0 => 4.0,
            tokens => text.len() as f64 / tokens as f64,
        })
    }

    /// As many of `wanted` tokens as there is room for beside `others`, and what to say if those are
    /// fewer. None if there is no room at all; then the scenario is not measured.
    fn fitting(
        &mut self,
        scenario: Dialogue,
        wanted: usize,
        others: usize,
    ) -> Option<(usize, Option<String>)> {
        let context = self.target.context_length().unwrap_or(UNKNOWN_CONTEXT);
        // What is asked for in letters may come out a little longer in tokens.
        let room = context.saturating_sub(others) / 10 * 9;
        let tokens = wanted.min(room);
        let tokens = self.conditions.longest.map_or(tokens, |n| n.min(tokens));
        if tokens == 0 {
            let note = format!("the context of {context} has no room beside {others} tokens");
            let name = (scenario.name(), "decode, tokens/s");
            self.check(name, None, Some(LEAST_RATE), Some(note));
            return None;
        }
        let why = match tokens < room {
            true => "--long-prompt says so".to_owned(),
            false => format!("the context holds {context}"),
        };
        let note = || format!("about {tokens} tokens instead of {wanted}: {why}");
        Some((tokens, (tokens < wanted).then(note)))
    }

    async fn agent(&mut self) -> Result<(), String> {
        let scenario = Dialogue::Agent;
        let letters = self.letters().await?;
        let result = (RESULT as f64 / letters).ceil() as usize;
        let others = AGENT_TURNS * (result + AROUND) + AGENT_ANSWER;
        let Some((tokens, note)) = self.fitting(scenario, AGENT_PREFIX, others) else {
            return Ok(());
        };
        let shared = lines((tokens as f64 * letters) as usize, "tool");
        let mut messages = vec![said("system", shared)];
        let mut turns = Vec::new();
        for turn in 0..AGENT_TURNS {
            let result = lines(RESULT, &format!("result of turn {turn}, line"));
            messages.push(said("user", result));
            let talk = Talk {
                messages: messages.clone(),
                tokens: AGENT_ANSWER,
                ..Talk::default()
            };
            turns.extend(self.talk(vec![talk]).await?);
            let call = format!("I call the tool with entry {turn}.");
            messages.push(said("assistant", call));
        }
        let (cold, warm) = turns.split_at(turns.len().min(1));
        let name = scenario.name();
        self.first((name, "first turn's token, ms"), cold, None, note.clone());
        self.first((name, "later turns' token, ms"), warm, Some(FIRST_MS), note);
        self.rate(scenario, &turns, None);
        let reused = warm.iter().filter_map(|trace| {
            let cached = trace.cached_tokens? as f64;
            (trace.prompt_tokens > 0).then(|| 100.0 * cached / trace.prompt_tokens as f64)
        });
        self.check_all((name, "prompt reused later, %"), reused, None, None);
        Ok(())
    }

    async fn long_context(&mut self) -> Result<(), String> {
        let scenario = Dialogue::LongContext;
        let letters = self.letters().await?;
        let Some((tokens, note)) = self.fitting(scenario, LONG, ANSWER + AROUND) else {
            return Ok(());
        };
        let text = lines((tokens as f64 * letters) as usize, "line");
        let question = format!("{text}\nWhat is line 7 about?");
        let traces = self.talk(vec![ask(question, ANSWER)]).await?;
        let name = (scenario.name(), "first token, ms");
        self.first(name, &traces, None, note);
        self.rate(scenario, &traces, None);
        Ok(())
    }

    async fn json_schema(&mut self) -> Result<(), String> {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 40},
                "age": {"type": "integer", "minimum": 0, "maximum": 150},
                "languages": {
                    "type": "array",
                    "items": {"enum": ["Rust", "Python", "C"]},
                    "minItems": 1,
                    "maxItems": 3,
                },
            },
            "required": ["name", "age", "languages"],
            "additionalProperties": false,
        });
        let talk = Talk {
            schema: Some(schema),
            ..ask("Describe a programmer as JSON.", SCHEMA_ANSWER)
        };
        let traces = self.talk(vec![talk]).await?;
        let name = (Dialogue::JsonSchema.name(), "first token, ms");
        self.first(name, &traces, Some(FIRST_MS), None);
        self.rate(Dialogue::JsonSchema, &traces, None);
        Ok(())
    }

    /// Beginnings are exponentially far apart (a Poisson process).
    async fn concurrent_chat(&mut self) -> Result<(), String> {
        let scenario = Dialogue::ConcurrentChat;
        let gaps = (0..CHATS).map(|i| gap(self.conditions.seed, i));
        let times = gaps.scan(0.0, |at, gap| {
            *at += gap;
            Some(*at)
        });
        let talks = times.enumerate().map(|(i, delay)| Talk {
            delay,
            ..ask(
                format!("Tell me something about the number {i}."),
                CHAT_ANSWER,
            )
        });
        let talks = talks.collect();
        let traces = self.talk(talks).await?;
        let name = (scenario.name(), "first token, ms");
        self.first(name, &traces, Some(FIRST_MS), None);
        let slowest = traces.iter().filter_map(Trace::first);
        let slowest = slowest.max_by(f64::total_cmp).map(|s| 1e3 * s);
        let name = (scenario.name(), "slowest first token, ms");
        self.check(name, slowest, None, None);
        self.rate(scenario, &traces, None);
        Ok(())
    }

    /// What holds for all scenarios together.
    fn whole(&mut self) {
        let memory = match self.target.is_here() {
            // What MLX holds on a GPU is not always counted as the process's.
            true => resident_bytes().unwrap_or(0).max(self.peak as u64),
            false => self.peak as u64,
        };
        let memory = (memory > 0).then_some(memory as f64 / 1e9);
        let elsewhere = || "only known of a model in this process".to_owned();
        let note = memory.is_none().then(elsewhere);
        let most = Bound::AtMost(10.0);
        self.check(("all", "memory, GB"), memory, Some(most), note);
        let load = self.target.facts().load_seconds;
        let note = load.is_none().then(elsewhere);
        let most = Bound::AtMost(8.0);
        self.check(("all", "load, s"), load, Some(most), note);
        let used = Summary::of(&self.gpu).map(|summary| summary.mean);
        let note = used.is_none().then(|| "no GPU was seen at work".to_owned());
        let least = Bound::AtLeast(80.0);
        self.check(("all", "GPU use, %"), used, Some(least), note);
    }
}

/// Seconds between the beginnings of chat `i` and the one before it.
fn gap(seed: u64, i: usize) -> f64 {
    let draw = mix(mix(seed).wrapping_add(i as u64)) >> 11;
    let unit = (draw as f64 + 0.5) / (1u64 << 53) as f64;
    -BETWEEN * unit.ln()
}

/// Lines that say something each, as tools' descriptions and files do.
fn lines(letters: usize, topic: &str) -> String {
    let mut text = String::new();
    let mut i = 0u64;
    while text.len() < letters {
        let draw = mix(i) % 9973;
        let limit = draw % 97;
        text.push_str(&format!(
            "{topic} {i}: entry {draw} takes a path and a limit of {limit} and returns lines.\n"
        ));
        i += 1;
    }
    text.truncate(letters);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_length_asked_for() {
        assert_eq!(lines(1000, "tool").len(), 1000);
        assert!(lines(300, "a").starts_with("a 0: entry "));
    }

    #[test]
    fn chats_come_as_a_poisson_process_does() {
        let gaps: Vec<f64> = (0..20_000).map(|i| gap(3, i)).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean / BETWEEN - 1.0).abs() < 0.03, "{mean}");
        // A gap is longer than its mean with 1/e.
        let long = gaps.iter().filter(|gap| **gap > BETWEEN).count() as f64 / gaps.len() as f64;
        assert!((long - (-1f64).exp()).abs() < 0.02, "{long}");
        assert!(gaps.iter().all(|gap| *gap > 0.0));
        assert_ne!(gap(1, 0), gap(2, 0));
    }

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        let mut names: Vec<&str> = DIALOGUES.iter().map(|d| d.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DIALOGUES.len());
    }
}
