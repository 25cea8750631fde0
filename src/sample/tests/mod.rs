//! The sampler: a batch against its rows alone, and what is drawn.

mod reference;

use std::collections::BTreeSet;

use super::noise::{Purpose, step_bits, unit};
use super::*;
use crate::mlx::{Array, Device, Dtype, Runtime};

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    /// From 0 to 1.
    fn unit(&mut self) -> f32 {
        self.0 += 1;
        unit(step_bits(77, self.0, Purpose::Token))
    }

    fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f32) as usize
    }

    fn now_and_then(&mut self) -> bool {
        self.unit() < 0.4
    }

    fn logits(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| 5.0 * (self.unit() + self.unit() + self.unit() - 1.5))
            .collect()
    }

    fn window(&mut self) -> Window {
        match self.now_and_then() {
            true => Window::Answer,
            false => Window::Last(1 + self.below(9)),
        }
    }

    /// Each setting is used now and then.
    fn params(&mut self) -> Params {
        let mut p = Params {
            seed: self.0,
            ..Params::default()
        };
        if self.unit() < 0.8 {
            p.temperature = 0.1 + 2.0 * self.unit();
        }
        if self.now_and_then() {
            p.top_p = 0.05 + 0.9 * self.unit();
        }
        if self.now_and_then() {
            p.top_k = 1 + self.below(70) as u32;
        }
        if self.now_and_then() {
            p.min_p = 0.5 * self.unit();
        }
        if self.now_and_then() {
            p.typical_p = 0.05 + 0.9 * self.unit();
        }
        if self.now_and_then() {
            p.xtc.probability = self.unit();
            p.xtc.threshold = 0.3 * self.unit();
        }
        if self.now_and_then() {
            p.repetition.strength = 0.5 + 2.0 * self.unit();
            p.repetition.window = self.window();
        }
        if self.now_and_then() {
            p.presence.strength = 4.0 * self.unit() - 2.0;
            p.presence.window = self.window();
        }
        if self.now_and_then() {
            p.frequency.strength = 4.0 * self.unit() - 2.0;
            p.frequency.window = self.window();
        }
        if self.now_and_then() {
            let bias = |n: &mut Self| (n.below(V) as u32, 8.0 * n.unit() - 4.0);
            p.logit_bias = (0..1 + self.below(5)).map(|_| bias(self)).collect();
        }
        p.min_tokens = self.below(4);
        p.ignore_eos = self.now_and_then();
        p
    }

    fn demand(&mut self) -> Option<Demand> {
        self.now_and_then().then(|| Demand {
            mask: self
                .now_and_then()
                .then(|| vec![0x0f0f_1234 | 1 << self.below(32), 0x0000_ffff]),
            biases: (0..self.below(4))
                .map(|i| (7 * i as u32 + 1, -3.0 * self.unit()))
                .collect(),
        })
    }
}

/// Tokens in the vocabulary of most tests; no multiple of a mask's 32.
const V: usize = 61;
const EOS: [u32; 2] = [3, 40];
const STOP: [u32; 1] = [11];

fn row(params: &Params, drawn: u64, demand: Option<Demand>) -> Row<'_> {
    Row {
        params,
        eos_ids: &EOS,
        stop_ids: &STOP,
        drawn,
        demand,
    }
}

fn array(rows: &[Vec<f32>]) -> Array {
    let flat: Vec<f32> = rows.concat();
    Array::from_slice(
        &flat,
        &[rows.len() as i32, (flat.len() / rows.len()) as i32],
    )
    .unwrap()
}

/// A sequence of the batch test: alone, and in whatever batch it is.
struct Twice {
    params: Params,
    prompt: Vec<u32>,
    alone: Option<Sampler>,
    together: Option<Kept>,
    drawn: u64,
}

#[test]
fn a_batch_draws_what_its_rows_draw_alone() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let numbers = &mut Numbers(0);
    let mut drawn = BTreeSet::new();
    for _ in 0..60 {
        let mut all: Vec<Twice> = (0..1 + numbers.below(9))
            .map(|_| Twice {
                params: numbers.params(),
                prompt: (0..numbers.below(12))
                    .map(|_| numbers.below(V) as u32)
                    .collect(),
                alone: None,
                together: None,
                drawn: 0,
            })
            .collect();
        // Rows come, go and change their places.
        for _ in 0..3 {
            let shift = numbers.below(all.len());
            all.rotate_left(shift);
            if all.len() > 1 && numbers.now_and_then() {
                all.pop();
            }
            let mut batch: Option<Sampler> = None;
            for _ in 0..3 {
                let logits: Vec<Vec<f32>> = all.iter().map(|_| numbers.logits(V)).collect();
                let demands: Vec<_> = all.iter().map(|_| numbers.demand()).collect();
                let mut expected = Vec::new();
                for ((one, logits), demand) in all.iter_mut().zip(&logits).zip(&demands) {
                    let rows = [row(&one.params, one.drawn, demand.clone())];
                    let alone = one.alone.get_or_insert_with(|| {
                        Sampler::new(&rows, &[Seen::Prompt(&one.prompt)], V).unwrap()
                    });
                    let token = alone
                        .draw(&array(std::slice::from_ref(logits)), &rows)
                        .unwrap();
                    expected.push(token.item::<u32>().unwrap());
                }
                let rows: Vec<Row<'_>> = all
                    .iter()
                    .zip(&demands)
                    .map(|(one, demand)| row(&one.params, one.drawn, demand.clone()))
                    .collect();
                let sampler = batch.get_or_insert_with(|| {
                    let seen: Vec<Seen<'_>> = all
                        .iter()
                        .map(|one| match &one.together {
                            Some(kept) => Seen::Kept(kept.clone()),
                            None => Seen::Prompt(&one.prompt),
                        })
                        .collect();
                    Sampler::new(&rows, &seen, V).unwrap()
                });
                let tokens = sampler.draw(&array(&logits), &rows).unwrap();
                assert_eq!(tokens.shape(), [all.len() as i32]);
                assert_eq!(tokens.to_vec::<u32>().unwrap(), expected);
                drawn.extend(expected);
                all.iter_mut().for_each(|one| one.drawn += 1);
            }
            for (i, one) in all.iter_mut().enumerate() {
                one.together = batch.as_ref().map(|batch| batch.kept(i).unwrap());
            }
        }
    }
    assert!(drawn.len() > V / 2, "the rows are not trivial");
}

/// The tokens that `params` draw from these probabilities in 300 steps.
fn drawn(probabilities: &[f32], params: &Params) -> BTreeSet<u32> {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
    let logits = array(&[logits]);
    let rows = |drawn| [row(params, drawn, None)];
    let seen = [Seen::Prompt(&[0])];
    let mut sampler = Sampler::new(&rows(0), &seen, probabilities.len()).unwrap();
    let mut draw = |step| sampler.draw(&logits, &rows(step)).unwrap().item().unwrap();
    (0..300).map(&mut draw).collect()
}

fn warm() -> Params {
    Params {
        temperature: 1.0,
        seed: 5,
        ..Params::default()
    }
}

const P: [f32; 5] = [0.1, 0.4, 0.05, 0.25, 0.2];

#[test]
fn greedy_takes_the_likeliest_and_no_cut_leaves_all() {
    assert_eq!(drawn(&P, &Params::default()), BTreeSet::from([1]));
    assert_eq!(drawn(&P, &warm()).len(), 5);
    for temperature in [0.01, 1e-5, 1e-9, f32::MIN_POSITIVE] {
        let cold = Params {
            temperature,
            ..warm()
        };
        assert_eq!(drawn(&P, &cold), BTreeSet::from([1]), "{temperature}");
    }
}

#[test]
fn each_cut_keeps_what_it_says() {
    let top_k = |top_k| drawn(&P, &Params { top_k, ..warm() });
    assert_eq!(top_k(1), BTreeSet::from([1]));
    assert_eq!(top_k(3), BTreeSet::from([1, 3, 4]));
    assert_eq!(top_k(5).len(), 5);
    assert_eq!(top_k(1000).len(), 5);
    let top_p = |top_p| drawn(&P, &Params { top_p, ..warm() });
    assert_eq!(top_p(0.0001), BTreeSet::from([1]));
    assert_eq!(top_p(0.39), BTreeSet::from([1]));
    assert_eq!(top_p(0.6), BTreeSet::from([1, 3]));
    assert_eq!(top_p(0.8), BTreeSet::from([1, 3, 4]));
    let min_p = |min_p| drawn(&P, &Params { min_p, ..warm() });
    assert_eq!(min_p(0.9), BTreeSet::from([1]));
    assert_eq!(min_p(0.45), BTreeSet::from([1, 3, 4]));
    assert_eq!(min_p(1.0), BTreeSet::from([1]));
    // The entropy is 1.415; surprises are 2.30, 0.92, 3.00, 1.39 and 1.61.
    let typical_p = |typical_p| {
        drawn(
            &P,
            &Params {
                typical_p,
                ..warm()
            },
        )
    };
    assert_eq!(typical_p(0.2), BTreeSet::from([3]));
    assert_eq!(typical_p(0.4), BTreeSet::from([3, 4]));
    assert_eq!(typical_p(0.8), BTreeSet::from([1, 3, 4]));
    assert_eq!(typical_p(0.9), BTreeSet::from([0, 1, 3, 4]));
}

#[test]
fn xtc_leaves_out_the_top_choices_but_the_least_and_spares_the_end() {
    let xtc = |probability, threshold| Params {
        xtc: Xtc {
            probability,
            threshold,
        },
        ..warm()
    };
    // Token 3 is an end-of-sequence token.
    assert_eq!(drawn(&P, &xtc(1.0, 0.15)), BTreeSet::from([0, 2, 3, 4]));
    assert_eq!(
        drawn(&P, &xtc(1.0, 0.3)).len(),
        5,
        "one top choice alone stays"
    );
    assert_eq!(drawn(&P, &xtc(1.0, 0.08)), BTreeSet::from([0, 2, 3]));
    assert_eq!(drawn(&P, &xtc(0.0, 0.08)).len(), 5);
    assert_eq!(drawn(&P, &xtc(0.5, 0.08)).len(), 5);
    let greedy = Params {
        temperature: 0.0,
        ..xtc(1.0, 0.08)
    };
    assert_eq!(drawn(&P, &greedy), BTreeSet::from([1]));
    // Of what XTC leaves, top-k keeps its share.
    let two = Params {
        top_k: 2,
        ..xtc(1.0, 0.08)
    };
    assert_eq!(drawn(&P, &two), BTreeSet::from([0, 3]));
}

#[test]
fn xtc_acts_as_often_as_it_should() {
    let acts = |step| unit(step_bits(9, step, Purpose::Xtc)) < 0.3;
    let n = (0..10_000).filter(|step| acts(*step)).count();
    assert!((2800..3200).contains(&n), "{n}");
}

#[test]
fn nothing_ends_an_answer_too_early() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let params = Params {
        min_tokens: 2,
        ..Params::default()
    };
    let endless = Params {
        ignore_eos: true,
        ..Params::default()
    };
    // An end-of-sequence token first, then a stop token, then another.
    let mut one = vec![0.0; V];
    (one[EOS[1] as usize], one[STOP[0] as usize], one[7]) = (9.0, 8.0, 7.0);
    let logits = array(&[one.clone(), one.clone(), one]);
    let seen = [const { Seen::Prompt(&[0]) }; 3];
    let rows = |drawn| {
        let mask = Demand {
            mask: Some(vec![u32::MAX; 2]),
            biases: Vec::new(),
        };
        [
            row(&params, drawn, None),
            row(&endless, drawn, None),
            row(&params, drawn, Some(mask)),
        ]
    };
    let mut sampler = Sampler::new(&rows(0), &seen, V).unwrap();
    let mut draw = |step| {
        sampler
            .draw(&logits, &rows(step))
            .unwrap()
            .to_vec::<u32>()
            .unwrap()
    };
    // A mask has been cleared of such tokens where it was made.
    assert_eq!(draw(0), [7, STOP[0], EOS[1]]);
    assert_eq!(draw(1), [7, STOP[0], EOS[1]]);
    assert_eq!(draw(2), [EOS[1], STOP[0], EOS[1]]);
}

#[test]
fn a_mask_is_kept_to_at_every_place() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let params = warm();
    let logits = array(&[vec![0.0; V]]);
    let seen = [Seen::Prompt(&[0])];
    for id in 0..V as u32 {
        let mut mask = vec![0; 2];
        mask[id as usize / 32] = 1 << (id % 32);
        let demand = Demand {
            mask: Some(mask),
            biases: vec![(id, -50.0)],
        };
        let rows = [row(&params, 0, Some(demand))];
        let mut sampler = Sampler::new(&rows, &seen, V).unwrap();
        assert_eq!(
            sampler.draw(&logits, &rows).unwrap().item::<u32>().unwrap(),
            id
        );
    }
}

#[test]
fn what_is_drawn_follows_the_distribution() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let params: Vec<Params> = (0..500).map(|seed| Params { seed, ..warm() }).collect();
    let logits: Vec<f32> = P.iter().map(|p| p.ln()).collect();
    let logits = array(&vec![logits; 500]);
    let rows = |drawn| {
        params
            .iter()
            .map(|p| row(p, drawn, None))
            .collect::<Vec<_>>()
    };
    let seen: Vec<Seen<'_>> = params.iter().map(|_| Seen::Prompt(&[0])).collect();
    let mut sampler = Sampler::new(&rows(0), &seen, 5).unwrap();
    let mut counts = [0u32; 5];
    for step in 0..40 {
        for token in sampler
            .draw(&logits, &rows(step))
            .unwrap()
            .to_vec::<u32>()
            .unwrap()
        {
            counts[token as usize] += 1;
        }
    }
    for (count, p) in counts.iter().zip(P) {
        let (share, deviation) = (*count as f32 / 20_000.0, (p * (1.0 - p) / 20_000.0).sqrt());
        assert!((share - p).abs() < 4.0 * deviation, "{counts:?}");
    }
}

#[test]
fn steps_are_unrelated_and_seeds_repeat() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let logits = Array::zeros(&[1, 64], Dtype::Float32).unwrap();
    let text = |seed| -> Vec<u32> {
        let params = Params { seed, ..warm() };
        let rows = |drawn| [row(&params, drawn, None)];
        let mut sampler = Sampler::new(&rows(0), &[Seen::Prompt(&[0])], 64).unwrap();
        (0..40)
            .map(|step| sampler.draw(&logits, &rows(step)).unwrap().item().unwrap())
            .collect()
    };
    assert_eq!(text(3), text(3));
    assert_ne!(text(3), text(4));
    assert_ne!(text(3)[1..], text(4)[..39], "a seed is no shift of another");
    assert!(text(3).iter().collect::<BTreeSet<_>>().len() > 20);
}
