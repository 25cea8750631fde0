//! Which requests warm a model up: kernels are compiled for the shapes that come first.
//!
//! They run like any others, so whatever a request needs is there when the first one comes: the
//! forward pass, the caches' own operations, and sampling.

use super::request::Request;
use crate::mlx::Device;
use crate::sample::Params;

/// The phases of loading a model, each with how far it has come, and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    /// Bytes of the weights.
    Weights(u64, u64),
    /// Shapes that kernels are compiled for.
    WarmUp(u64, u64),
}

/// Tokens of a short prompt.
const SHORT: usize = 8;
/// Tokens of the answers: the first comes with the prompt, the second from a step of its own, and one
/// more with the step built ahead.
const ANSWER: usize = 3;

/// Requests that are to run together, round after round: on a GPU a short prompt, a whole chunk, and
/// steps of 2, 4, 8 … `max_running` sequences; on a CPU, where little is compiled and much takes long,
/// a short prompt alone. Nothing is longer than `context`.
pub fn rounds(
    device: Device,
    chunk: usize,
    max_running: usize,
    context: usize,
) -> Vec<Vec<Request>> {
    let answer = ANSWER.min(context.saturating_sub(1));
    let longest = context.saturating_sub(answer).max(1);
    let request = |tokens: usize, params: Params| Request {
        prompt: vec![0; tokens.min(longest)],
        params: Params {
            // An answer that ends at once would leave the steps cold.
            ignore_eos: true,
            ..params
        },
        form: None,
        max_tokens: answer,
        stop_ids: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
    };
    let greedy = |tokens| request(tokens, Params::default());
    let mut rounds = vec![vec![greedy(SHORT)]];
    if device == Device::Cpu {
        return rounds;
    }
    let drawn = Params {
        temperature: 0.8,
        top_p: 0.95,
        top_k: 20,
        min_p: 0.05,
        ..Params::default()
    };
    rounds.push(vec![request(SHORT, drawn.clone())]);
    rounds.push(vec![greedy(chunk)]);
    let sizes = std::iter::successors(Some(2usize), |n| n.checked_mul(2));
    let sizes = sizes.take_while(|&n| n < max_running);
    for n in sizes.chain((max_running > 1).then_some(max_running)) {
        rounds.push(vec![request(SHORT, drawn.clone()); n]);
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_warmed_for_what_comes_first() {
        let rounds = rounds(Device::Gpu, 512, 12, 4096);
        let sizes: Vec<usize> = rounds.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 1, 1, 2, 4, 8, 12]);
        assert_eq!(rounds[2][0].prompt.len(), 512);
        assert!(rounds.iter().flatten().all(|r| r.params.check().is_ok()));
        assert_eq!(super::rounds(Device::Gpu, 512, 1, 4096).len(), 3);
    }

    #[test]
    fn a_cpu_is_not_kept_waiting() {
        let rounds = rounds(Device::Cpu, 512, 12, 4096);
        assert_eq!((rounds.len(), rounds[0].len()), (1, 1));
    }

    #[test]
    fn nothing_is_longer_than_the_context() {
        for context in [1, 2, 5, 100] {
            for request in rounds(Device::Gpu, 512, 4, context).iter().flatten() {
                assert!(!request.prompt.is_empty());
                assert!(request.prompt.len() + request.max_tokens <= context);
            }
        }
    }
}
