//! Scenarios with a bar: what a long prompt costs running streams, what a shared prefix saves, and
//! what a form costs.

use serde_json::{Map, Value, json};

use super::stats::{Summary, median, rounded};
use super::target::{Ask, Target, random_ids};
use super::trace::Trace;
use crate::sample::Form;
use crate::text::guide::Constraint;

/// How scenarios are run.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Tokens of the long prompt.
    pub prompt: usize,
    /// Tokens that the engine computes in one go.
    pub chunk: usize,
    /// Measurements.
    pub reps: usize,
    /// Makes other prompts.
    pub seed: u64,
}

/// What a scenario found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name, its measurements, and what was asked of them.
    pub object: Map<String, Value>,
    /// Whether it reached the bar.
    pub passed: bool,
}

impl Outcome {
    fn new(name: &str, bar: &str, passed: bool, measured: Value) -> Self {
        let mut object = Map::new();
        object.insert("scenario".into(), json!(name));
        if let Value::Object(measured) = measured {
            object.extend(measured);
        }
        object.insert("bar".into(), json!(bar));
        object.insert("passed".into(), json!(passed));
        Self { object, passed }
    }

    /// For people: a line each.
    pub fn text(&self) -> String {
        let lines = self.object.iter().map(|(key, value)| match value {
            Value::Object(parts) => {
                let part = |key: &str| parts.get(key).cloned().unwrap_or(Value::Null);
                format!(
                    "  {key}: p50 {}, p90 {}, max {}\n",
                    part("p50"),
                    part("p90"),
                    part("max")
                )
            }
            Value::String(text) if key == "scenario" => format!("{text}\n"),
            value => format!("  {key}: {value}\n"),
        });
        lines.collect()
    }
}

/// Milliseconds, or an error that says what did not happen.
fn summary(what: &str, seconds: &[f64]) -> Result<Summary, String> {
    let milliseconds: Vec<f64> = seconds.iter().map(|s| 1e3 * s).collect();
    Summary::of(&milliseconds).ok_or(format!("{what} was not measured: no token came"))
}

/// Tokens that the running stream has before the long prompt comes.
const BEFORE: usize = 16;

/// The worst gap between a running stream's tokens while a long prompt is admitted, against the time
/// of one chunk of that prompt alone. The bar is twice the mean chunk.
///
/// # Errors
/// What a request said that failed; if the running stream ended before the prompt was through.
pub async fn admission(target: &Target, setting: Setting) -> Result<Outcome, String> {
    let vocab = target.vocab();
    let chunks = setting.prompt.div_ceil(setting.chunk).max(1);
    let mut seed = setting.seed;
    let mut ids = |n: usize| {
        seed = seed.wrapping_add(1);
        random_ids(n, vocab, seed)
    };
    let (mut whole, mut shorter, mut worst, mut usual) = (vec![], vec![], vec![], vec![]);
    // The first is the warm-up.
    for rep in 0..=setting.reps {
        let alone = target
            .together(vec![Ask::new(ids(setting.prompt), 2)])
            .await?;
        let less = setting.prompt.saturating_sub(setting.chunk).max(1);
        let before = target.together(vec![Ask::new(ids(less), 2)]).await?;
        // How long the running stream takes to get going.
        let start = target.together(vec![Ask::new(ids(32), BEFORE)]).await?;
        let delay = start.first().and_then(|trace| trace.stamps.last().copied());
        // A token comes with each chunk, and some more go by until the prompt is seen and after it.
        let running = Ask::new(ids(32), 3 * BEFORE + 2 * chunks + 64);
        let long = Ask {
            delay: delay.unwrap_or(0.0),
            ..Ask::new(ids(setting.prompt), 2)
        };
        let both = target.together(vec![running, long]).await?;
        let [running, long] = &both[..] else {
            return Err("two requests were sent, and not two came back".into());
        };
        if rep == 0 {
            continue;
        }
        whole.extend(alone.iter().filter_map(Trace::first));
        shorter.extend(before.iter().filter_map(Trace::first));
        let (gaps, others) = gaps_during(running, long)?;
        worst.extend(gaps.into_iter().max_by(f64::total_cmp));
        usual.extend(others);
    }
    let chunk = |seconds: Option<f64>| seconds.map_or(f64::NAN, |s| 1e3 * s);
    let mean_chunk = chunk(median(&whole).map(|s| s / chunks as f64));
    let last_chunk = chunk(median(&whole).zip(median(&shorter)).map(|(a, b)| a - b));
    let worst = summary("the worst gap", &worst)?;
    let ratio = worst.p50 / mean_chunk;
    let measured = json!({
        "prompt": setting.prompt,
        "chunk": setting.chunk,
        "prompt_alone_ms": summary("the long prompt", &whole)?.json(),
        "chunk_ms": rounded(mean_chunk),
        "last_chunk_ms": rounded(last_chunk),
        "worst_gap_ms": worst.json(),
        "gap_without_ms": summary("the running stream", &usual)?.json(),
        "ratio": rounded(ratio),
    });
    let bar = "worst gap of a running stream at most 2 x one chunk's time";
    Ok(Outcome::new("admission", bar, ratio <= 2.0, measured))
}

/// The gaps between a running stream's tokens that touch the time in which the other waits for its
/// first token, and the gaps before that time.
fn gaps_during(running: &Trace, long: &Trace) -> Result<(Vec<f64>, Vec<f64>), String> {
    let first = long.stamps.first().copied();
    let last = running.stamps.last().copied();
    let (Some(first), Some(last)) = (first, last) else {
        return Err("a stream got no token".into());
    };
    if last < first {
        return Err(
            "the running stream ended before the long prompt was through; its gaps say nothing"
                .into(),
        );
    }
    let pairs = running.stamps.windows(2).map(|pair| (pair[0], pair[1]));
    let touches = |&(a, b): &(f64, f64)| b > long.sent && a < first;
    let gap = |(a, b): (f64, f64)| b - a;
    let during = pairs.clone().filter(touches).map(gap).collect();
    let before = pairs.filter(|&(_, b)| b <= long.sent).map(gap).collect();
    Ok((during, before))
}

/// The share of the prompt that the later request has in common with the earlier.
const SHARED: f64 = 0.95;

/// The first token of a prompt that shares 95% with an earlier one, against a prompt that shares
/// nothing. The bar is a tenth.
///
/// # Errors
/// What a request said that failed.
pub async fn prefix(target: &Target, setting: Setting) -> Result<Outcome, String> {
    let vocab = target.vocab();
    let shared = (setting.prompt as f64 * SHARED) as usize;
    let (mut cold, mut warm, mut cached) = (vec![], vec![], vec![]);
    for rep in 0..=setting.reps {
        let seed = setting.seed.wrapping_add(1 + 2 * rep as u64);
        let first = random_ids(setting.prompt, vocab, seed);
        let mut second = first.get(..shared).unwrap_or(&first).to_vec();
        second.extend(random_ids(setting.prompt - second.len(), vocab, seed + 1));
        let first = target.together(vec![Ask::new(first, 2)]).await?;
        let second = Ask {
            known: shared,
            ..Ask::new(second, 2)
        };
        let second = target.together(vec![second]).await?;
        if rep > 0 {
            cold.extend(first.iter().filter_map(Trace::first));
            warm.extend(second.iter().filter_map(Trace::first));
            cached.extend(second.iter().filter_map(|trace| trace.cached_tokens));
        }
    }
    let (cold, warm) = (summary("cold", &cold)?, summary("warm", &warm)?);
    let ratio = warm.p50 / cold.p50;
    let measured = json!({
        "prompt": setting.prompt,
        "shared": shared,
        "cached_tokens": cached.iter().min(),
        "cold_ttft_ms": cold.json(),
        "warm_ttft_ms": warm.json(),
        "ratio": rounded(ratio),
    });
    let bar = "first token at most 10% of the cold time";
    Ok(Outcome::new("prefix", bar, ratio <= 0.1, measured))
}

/// Streams of the form scenario.
pub const STREAMS: usize = 8;
/// Tokens of its answers.
const ANSWER: usize = 128;

/// A form that no answer of so many tokens completes.
pub fn endless() -> Constraint {
    Constraint::JsonSchema(json!({
        "type": "array", "items": {"type": "integer"}, "minItems": 2 * ANSWER
    }))
}

/// The rate of eight streams that are held to a form, against that of as many free ones. The bar is
/// nine tenths.
///
/// # Errors
/// What a request said that failed.
pub async fn form(target: &Target, setting: Setting, form: Form) -> Result<Outcome, String> {
    let vocab = target.vocab();
    let (mut free, mut held) = (vec![], vec![]);
    for rep in 0..=setting.reps {
        for (rates, form) in [(&mut free, None), (&mut held, Some(&form))] {
            let asks = (0..STREAMS).map(|i| {
                let seed = setting.seed.wrapping_add((rep * STREAMS + i) as u64);
                let prompt = random_ids(setting.prompt, vocab, seed);
                Ask {
                    form: form.cloned(),
                    ..Ask::new(prompt, ANSWER)
                }
            });
            let traces = target.together(asks.collect()).await?;
            let all = traces.iter().map(|trace| {
                let (first, last) = trace.stamps.first().zip(trace.stamps.last())?;
                (last > first).then(|| (trace.stamps.len() - 1) as f64 / (last - first))
            });
            let rate: Option<f64> = all.sum();
            let rate = rate.ok_or("a stream got fewer than two tokens")?;
            if rep > 0 {
                rates.push(rate);
            }
        }
    }
    let rate = |rates: &[f64]| Summary::of(rates).ok_or("nothing was measured");
    let (free, held) = (rate(&free)?, rate(&held)?);
    let ratio = held.p50 / free.p50;
    let measured = json!({
        "streams": STREAMS,
        "prompt": setting.prompt,
        "answer": ANSWER,
        "free_tps": free.json(),
        "held_tps": held.json(),
        "ratio": rounded(ratio),
    });
    let bar = "streams held to a form at least 0.9 x as fast as free ones";
    Ok(Outcome::new("form", bar, ratio >= 0.9, measured))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_those_in_which_the_prompt_is_admitted() {
        let running = Trace {
            stamps: vec![1.0, 2.0, 3.0, 6.0, 7.0, 9.0, 10.0],
            ..Trace::default()
        };
        let mut long = Trace {
            sent: 2.5,
            stamps: vec![8.0],
            ..Trace::default()
        };
        let (during, before) = gaps_during(&running, &long).unwrap();
        assert_eq!(during, [1.0, 3.0, 1.0, 2.0]);
        assert_eq!(before, [1.0]);
        long.stamps = vec![11.0];
        assert!(gaps_during(&running, &long).is_err());
    }
}
