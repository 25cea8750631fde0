//! What was seen of requests that ran together: when each token came.
//!
//! Times are seconds from one origin, so that streams can be laid over each other.

/// One request's course.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// When it was sent.
    pub sent: f64,
    /// When tokens came, in order: one entry each, or each lot of tokens that came at once.
    pub stamps: Vec<f64>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that did not have to be computed, if that is known.
    pub cached_tokens: Option<usize>,
    /// Tokens of the answer.
    pub tokens: usize,
    /// The most memory that MLX held so far, in bytes, if that is known.
    pub peak_memory: Option<usize>,
    /// Seconds of a decoding step, the mean, in which the host built and started the next, and in which
    /// it waited for the device; if that is known.
    pub step: Option<(f64, f64)>,
}

impl Trace {
    /// Seconds from sending to the first token.
    pub fn first(&self) -> Option<f64> {
        Some(self.stamps.first()? - self.sent)
    }

    /// Tokens a second after the first.
    pub fn decode_rate(&self) -> Option<f64> {
        let (first, last) = (self.stamps.first()?, self.stamps.last()?);
        let after = self.tokens.checked_sub(1).filter(|&n| n > 0)?;
        (last > first).then(|| after as f64 / (last - first))
    }

    /// Seconds between tokens, or lots of them.
    pub fn gaps(&self) -> impl Iterator<Item = f64> {
        self.stamps.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// Tokens that one stamp stands for.
    fn weight(&self) -> f64 {
        self.tokens as f64 / self.stamps.len().max(1) as f64
    }
}

/// Tokens a second of all streams together, over the time in which each of them decodes: from when
/// the last of them has its first token to when the first of them has its last. None if there is no
/// such time, or it is shorter than two tokens of each.
pub fn aggregate_rate(traces: &[Trace]) -> Option<f64> {
    let firsts = traces.iter().map(|trace| trace.stamps.first().copied());
    let lasts = traces.iter().map(|trace| trace.stamps.last().copied());
    let start = firsts.collect::<Option<Vec<_>>>()?;
    let start = start.into_iter().max_by(f64::total_cmp)?;
    let end = lasts.collect::<Option<Vec<_>>>()?;
    let end = end.into_iter().min_by(f64::total_cmp)?;
    let within = |trace: &Trace| {
        let stamps = trace.stamps.iter();
        stamps.filter(|&&at| at > start && at <= end).count()
    };
    let tokens: f64 = traces.iter().map(|t| within(t) as f64 * t.weight()).sum();
    let enough = traces.iter().all(|trace| within(trace) >= 2);
    (enough && end > start).then(|| tokens / (end - start))
}

/// Tokens of answers a second, from the first request to the last token.
pub fn total_rate(traces: &[Trace]) -> Option<f64> {
    let tokens: usize = traces.iter().map(|trace| trace.tokens).sum();
    Some(tokens as f64 / span(traces, |trace| trace.stamps.last().copied())?)
}

/// Computed tokens of prompts a second, from the first request to when all have their first token.
pub fn prefill_rate(traces: &[Trace]) -> Option<f64> {
    let computed = |trace: &Trace| {
        let cached = trace.cached_tokens.unwrap_or(0);
        trace.prompt_tokens.saturating_sub(cached)
    };
    let tokens: usize = traces.iter().map(computed).sum();
    Some(tokens as f64 / span(traces, |trace| trace.stamps.first().copied())?)
}

/// Seconds from the first request to the latest `end`.
fn span(traces: &[Trace], end: impl Fn(&Trace) -> Option<f64>) -> Option<f64> {
    let start = traces
        .iter()
        .map(|trace| trace.sent)
        .min_by(f64::total_cmp)?;
    let end = traces.iter().filter_map(end).max_by(f64::total_cmp)?;
    (end > start).then_some(end - start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(sent: f64, stamps: &[f64]) -> Trace {
        Trace {
            sent,
            stamps: stamps.to_vec(),
            prompt_tokens: 10,
            tokens: stamps.len(),
            ..Trace::default()
        }
    }

    #[test]
    fn rates_of_one_stream() {
        let trace = trace(1.0, &[3.0, 3.5, 4.0, 5.0]);
        assert_eq!(trace.first(), Some(2.0));
        assert_eq!(trace.decode_rate(), Some(1.5));
        assert_eq!(trace.gaps().collect::<Vec<_>>(), [0.5, 0.5, 1.0]);
        let traces = [trace];
        assert_eq!(aggregate_rate(&traces), Some(1.5));
        assert_eq!(total_rate(&traces), Some(1.0));
        assert_eq!(prefill_rate(&traces), Some(5.0));
    }

    #[test]
    fn the_aggregate_counts_only_while_all_decode() {
        // Alone until 3, together from 3 to 5, the second alone until 7.
        let traces = [
            trace(0.0, &[1.0, 2.0, 3.0, 4.0, 5.0]),
            trace(0.0, &[3.0, 4.0, 5.0, 6.0, 7.0]),
        ];
        assert_eq!(aggregate_rate(&traces), Some(2.0));
        assert_eq!(total_rate(&traces), Some(10.0 / 7.0));
        assert_eq!(prefill_rate(&traces), Some(20.0 / 3.0));
        let apart = [trace(0.0, &[1.0, 2.0]), trace(0.0, &[3.0, 4.0])];
        assert_eq!(aggregate_rate(&apart), None);
        assert_eq!(aggregate_rate(&[trace(0.0, &[])]), None);
    }

    #[test]
    fn tokens_that_come_in_lots_count_in_full() {
        let mut lots = trace(0.0, &[1.0, 2.0, 3.0]);
        lots.tokens = 9;
        assert_eq!(lots.decode_rate(), Some(4.0));
        assert_eq!(aggregate_rate(&[lots]), Some(3.0));
    }

    #[test]
    fn cached_tokens_are_not_computed() {
        let mut warm = trace(0.0, &[2.0]);
        warm.cached_tokens = Some(8);
        assert_eq!(prefill_rate(&[warm]), Some(1.0));
    }
}
