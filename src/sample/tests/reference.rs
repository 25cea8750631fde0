//! Cuts and penalties against scalar references, written from their definitions.

use std::collections::BTreeSet;

use super::super::chain::Chain;
use super::super::history::History;
use super::super::noise::{Purpose, step_bits, unit};
use super::*;

/// Log-probabilities after the cuts, in scalars and double precision.
fn cut(logits: &[f32], p: &Params, step: u64, spared: &[u32]) -> Vec<f64> {
    let normal = |x: &[f64]| {
        let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - most).exp()).sum();
        x.iter().map(|x| x - most - sum.ln()).collect::<Vec<f64>>()
    };
    let mut x = normal(&logits.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
    let order = |x: &[f64], key: &dyn Fn(f64) -> f64| {
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|a, b| key(x[*a]).total_cmp(&key(x[*b])));
        order
    };
    let keep = |x: &mut Vec<f64>, kept: &[usize]| {
        for (i, x) in x.iter_mut().enumerate() {
            if !kept.contains(&i) {
                *x = f64::NEG_INFINITY;
            }
        }
    };
    // The first tokens of an order, until they have this share.
    let until = |x: &[f64], order: &[usize], share: f64| {
        let mut sum = 0.0;
        let mut kept = Vec::new();
        for i in order {
            if sum >= share {
                break;
            }
            sum += x[*i].exp();
            kept.push(*i);
        }
        kept
    };
    if p.typical_p < 1.0 {
        let entropy: f64 = -x.iter().map(|x| x.exp() * x).sum::<f64>();
        let order = order(&x, &|x| (-x - entropy).abs());
        let kept = until(&x, &order, f64::from(p.typical_p));
        keep(&mut x, &kept);
    }
    if p.top_p < 1.0 {
        let total: f64 = x.iter().map(|x| x.exp()).sum();
        let kept = until(&x, &order(&x, &|x| -x), f64::from(p.top_p) * total);
        keep(&mut x, &kept);
    }
    if p.min_p > 0.0 {
        let least = x.iter().copied().fold(f64::MIN, f64::max) + f64::from(p.min_p).ln();
        let kept: Vec<usize> = (0..x.len()).filter(|i| x[*i] >= least).collect();
        keep(&mut x, &kept);
    }
    if unit(step_bits(p.seed, step, Purpose::Xtc)) < p.xtc.probability {
        let probs: Vec<f64> = normal(&x).iter().map(|x| x.exp()).collect();
        let top: Vec<usize> = (0..x.len())
            .filter(|i| probs[*i] > f64::from(p.xtc.threshold))
            .collect();
        let least = top
            .iter()
            .copied()
            .min_by(|a, b| probs[*a].total_cmp(&probs[*b]));
        for i in top {
            if Some(i) != least && !spared.contains(&(i as u32)) {
                x[i] = f64::NEG_INFINITY;
            }
        }
    }
    if p.top_k > 0 {
        let order = order(&x, &|x| -x);
        keep(&mut x, &order[..order.len().min(p.top_k as usize)]);
    }
    x
}

#[test]
fn cuts_are_those_of_the_scalar_reference() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let numbers = &mut Numbers(10_000);
    let (mut n_cut, mut n_kept) = (0, 0);
    for step in 0..80 {
        let params: Vec<Params> = (0..6).map(|_| numbers.params()).collect();
        let logits: Vec<Vec<f32>> = (0..6).map(|_| numbers.logits(V)).collect();
        let refs: Vec<&Params> = params.iter().collect();
        let rows: Vec<(&Params, u64)> = params.iter().map(|p| (p, step)).collect();
        let chain = Chain::new(&refs, &EOS, V).unwrap();
        let ours = chain
            .cut(&array(&logits), &rows)
            .unwrap()
            .to_vec::<f32>()
            .unwrap();
        for ((p, logits), ours) in params.iter().zip(&logits).zip(ours.chunks(V)) {
            if p.is_greedy() {
                continue;
            }
            let expected = cut(logits, p, step, &EOS);
            for (ours, expected) in ours.iter().zip(&expected) {
                let same = f64::from(*ours) == *expected;
                assert!(same || (f64::from(*ours) - expected).abs() < 1e-4, "{p:?}");
            }
            let kept = ours.iter().filter(|x| x.is_finite()).count();
            assert!(kept > 0);
            (n_cut, n_kept) = (n_cut + V - kept, n_kept + kept);
        }
    }
    assert!(n_cut > 2000 && n_kept > 2000, "{n_cut} {n_kept}");
}

/// Logit bias and penalties in mlx-lm's order, as `make_logits_processors` defines them: on a list of
/// tokens, of which each looks at the last few.
fn processed(logits: &[f32], p: &Params, prompt: &[u32], answer: &[u32]) -> Vec<f32> {
    let mut x = logits.to_vec();
    for (id, bias) in &p.logit_bias {
        x[*id as usize] += bias;
    }
    let text = [prompt, answer].concat();
    let window = |penalty: &Penalty| match penalty.window {
        Window::Answer => answer.to_vec(),
        Window::Last(n) => text[text.len().saturating_sub(n)..].to_vec(),
    };
    let once = |tokens: Vec<u32>| tokens.into_iter().collect::<BTreeSet<u32>>();
    for id in once(window(&p.repetition)) {
        let x = &mut x[id as usize];
        *x = match *x < 0.0 {
            true => *x * p.repetition.strength,
            false => *x / p.repetition.strength,
        };
    }
    for id in once(window(&p.presence)) {
        x[id as usize] -= p.presence.strength;
    }
    for id in window(&p.frequency) {
        x[id as usize] -= p.frequency.strength;
    }
    x
}

#[test]
fn bias_and_penalties_are_those_of_the_scalar_reference() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let numbers = &mut Numbers(20_000);
    for _ in 0..40 {
        // Greedy rows: what is drawn is where the processed logits are largest.
        let mut params: Vec<Params> = (0..5).map(|_| numbers.params()).collect();
        params.iter_mut().for_each(|p| {
            (p.temperature, p.min_tokens, p.ignore_eos) = (0.0, 0, false);
        });
        let prompts: Vec<Vec<u32>> = (0..5)
            .map(|_| {
                (0..numbers.below(12))
                    .map(|_| numbers.below(V) as u32)
                    .collect()
            })
            .collect();
        let mut answers: Vec<Vec<u32>> = vec![Vec::new(); 5];
        let refs: Vec<&Params> = params.iter().collect();
        let seen: Vec<Seen<'_>> = prompts.iter().map(|prompt| Seen::Prompt(prompt)).collect();
        let rows = |drawn| {
            params
                .iter()
                .map(|p| row(p, drawn, None))
                .collect::<Vec<_>>()
        };
        let mut sampler = Sampler::new(&rows(0), &seen, V).unwrap();
        let mut history = History::new(&refs, &seen, V).unwrap();
        for step in 0..12 {
            let logits: Vec<Vec<f32>> = (0..5).map(|_| numbers.logits(V)).collect();
            let tokens = sampler.draw(&array(&logits), &rows(step)).unwrap();
            let tokens = tokens.to_vec::<u32>().unwrap();
            for (i, p) in params.iter().enumerate() {
                let expected = processed(&logits[i], p, &prompts[i], &answers[i]);
                let best = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let drawn = expected[tokens[i] as usize];
                assert!((drawn - best).abs() < 1e-5, "{p:?}");
            }
            if let Some(history) = &mut history {
                let ours = history
                    .penalize(&array(&logits))
                    .unwrap()
                    .to_vec::<f32>()
                    .unwrap();
                for (i, p) in params.iter().enumerate() {
                    let mut p = p.clone();
                    p.logit_bias.clear();
                    let expected = processed(&logits[i], &p, &prompts[i], &answers[i]);
                    for (ours, expected) in ours[i * V..].iter().zip(&expected) {
                        assert!((ours - expected).abs() < 1e-4, "{p:?}");
                    }
                }
                history
                    .push(&Array::from_slice(&tokens, &[5]).unwrap())
                    .unwrap();
            }
            for (answer, token) in answers.iter_mut().zip(tokens) {
                answer.push(token);
            }
        }
    }
}

/// Values that mlx-lm 0.32.2's processors give for these tokens and logits.
#[test]
fn penalties_have_mlx_lms_values() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let penalty = |strength, n| Penalty {
        strength,
        window: Window::Last(n),
    };
    let params = Params {
        repetition: penalty(1.5, 4),
        presence: penalty(0.25, 3),
        frequency: penalty(0.5, 5),
        ..Params::default()
    };
    let prompt = [0, 4, 2, 1, 2, 2];
    let seen = [Seen::Prompt(&prompt)];
    let history = History::new(&[&params], &seen, 5).unwrap().unwrap();
    let logits = array(&[vec![1.0, -2.0, 3.0, 0.5, 0.75]]);
    let ours = history.penalize(&logits).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(ours, MLX_LM);
}

const MLX_LM: [f32; 5] = [1.0, -3.75, 0.25, 0.5, 0.25];
