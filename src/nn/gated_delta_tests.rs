//! Chunks against the rule token by token, and the triangular inverse against exact arithmetic.

use proptest::prelude::*;

use super::{GatedDelta, inverse};
use crate::mlx::{Array, Device, Dtype, Runtime};

/// Uniform numbers from 0 to 1, by the numerical recipes' generator.
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    fn array(&mut self, shape: &[i32], value: impl Fn(&mut Self) -> f32) -> Array {
        let size = shape.iter().product::<i32>();
        let values: Vec<f32> = (0..size).map(|_| value(self)).collect();
        Array::from_slice(&values, shape).unwrap()
    }
}

/// How strongly a case's tokens decay, and write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Decays from 0 (1e-40 and less) to 1, rates from 0 to 1.
    Mixed,
    /// Nothing decays, all is written in full, and keys recur.
    Keeping,
    /// Decays near 0.
    Forgetting,
    /// Long runs of slow decay with a token in between that wipes the state.
    Wiping,
}

#[derive(Clone, Debug)]
struct Case {
    kind: Kind,
    seed: u64,
    batch: i32,
    len: i32,
    n_k_heads: i32,
    per_key: i32,
    d_k: i32,
    d_v: i32,
    started: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![
        Just(Kind::Mixed),
        Just(Kind::Keeping),
        Just(Kind::Forgetting),
        Just(Kind::Wiping)
    ];
    let len = prop_oneof![2..20i32, 60..70i32, 120..200i32];
    let sizes = (1..3i32, 1..3i32, 1..4i32, 1..20i32, 1..12i32);
    (kind, any::<u64>(), len, sizes, any::<bool>()).prop_map(|(kind, seed, len, sizes, started)| {
        let (batch, n_k_heads, per_key, d_k, d_v) = sizes;
        Case {
            kind,
            seed,
            batch,
            len,
            n_k_heads,
            per_key,
            d_k,
            d_v,
            started,
        }
    })
}

struct Inputs {
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    beta: Array,
    state: Option<Array>,
}

impl Inputs {
    fn of(case: &Case) -> Self {
        let mut random = Uniform(case.seed);
        let Case {
            batch,
            len,
            n_k_heads,
            per_key,
            d_k,
            d_v,
            ..
        } = *case;
        let n_heads = n_k_heads * per_key;
        let unit = |x: Array| {
            let sum = x.square().unwrap().sum_axis(-1, true).unwrap();
            x.multiply(&sum.rsqrt().unwrap()).unwrap()
        };
        let centred = |r: &mut Uniform| r.next() - 0.5;
        let kind = case.kind;
        // One key for all tokens is the worst case for the inverse.
        let keys = if kind == Kind::Keeping { 1 } else { len };
        let k = unit(random.array(&[batch, keys, n_k_heads, d_k], centred));
        let k = k.broadcast_to(&[batch, len, n_k_heads, d_k]).unwrap();
        let q = unit(random.array(&[batch, len, n_k_heads, d_k], centred));
        let v = random.array(&[batch, len, n_heads, d_v], |r| 2.0 * centred(r));
        let log_decay = random.array(&[batch, len, n_heads], |r| match (kind, r.next()) {
            (Kind::Mixed, x) if x < 0.2 => 0.0,
            (Kind::Mixed, x) if x < 0.4 => -1e-6 * r.next(),
            (Kind::Mixed, x) if x < 0.8 => -r.next(),
            (Kind::Mixed, _) => -100.0 * r.next(),
            (Kind::Keeping, _) => 0.0,
            (Kind::Forgetting, x) => -20.0 - 1e4 * x,
            (Kind::Wiping, x) if x < 0.05 => -1e5,
            (Kind::Wiping, _) => -0.01 * r.next(),
        });
        let beta = random.array(&[batch, len, n_heads], |r| match (kind, r.next()) {
            (Kind::Keeping, _) => 1.0,
            (_, x) if x < 0.2 => 0.0,
            (_, x) if x < 0.4 => 1.0,
            _ => r.next(),
        });
        let shape = [batch, n_k_heads, per_key, d_k, d_v];
        let state = case.started.then(|| random.array(&shape, centred));
        Self {
            q,
            k,
            v,
            log_decay,
            beta,
            state,
        }
    }

    fn all(&self) -> GatedDelta<'_> {
        GatedDelta {
            q: &self.q,
            k: &self.k,
            v: &self.v,
            log_decay: &self.log_decay,
            beta: &self.beta,
        }
    }

    /// Outputs and the state behind each token, a token at a time.
    fn token_by_token(&self) -> (Array, Vec<Array>) {
        let len = self.q.dim(1).unwrap();
        let (mut outputs, mut states, mut state) = (Vec::new(), Vec::new(), self.state.clone());
        for t in 0..len {
            let at = |x: &Array| x.slice_axis(1, t, t + 1).unwrap();
            let (q, k, v) = (at(&self.q), at(&self.k), at(&self.v));
            let (log_decay, beta) = (at(&self.log_decay), at(&self.beta));
            let step = GatedDelta {
                q: &q,
                k: &k,
                v: &v,
                log_decay: &log_decay,
                beta: &beta,
            };
            let (y, mut after) = step.forward(state.as_ref(), &[1]).unwrap();
            outputs.push(y);
            state = after.pop();
            states.extend(state.clone());
        }
        let y = Array::concatenate(&outputs.iter().collect::<Vec<_>>(), 1).unwrap();
        (y, states)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn chunks_equal_token_by_token(case in cases(), stops in prop::collection::btree_set(1..200i32, 0..4)) {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let inputs = Inputs::of(&case);
        let (y, states) = inputs.token_by_token();
        let within = stops.into_iter().filter(|&stop| stop < case.len);
        let ends: Vec<i32> = within.chain([case.len]).collect();
        let (chunked, behind) = inputs.all().forward(inputs.state.as_ref(), &ends).unwrap();
        let outputs = y.max_difference(&chunked).unwrap();
        prop_assert!(outputs < 1e-5, "{outputs:e}");
        prop_assert_eq!(behind.len(), ends.len());
        for (end, state) in ends.iter().zip(&behind) {
            let state = state.max_difference(&states[*end as usize - 1]).unwrap();
            prop_assert!(state < 1e-5, "{end}: {state:e}");
        }
    }
}

/// The rule written out in float64 for one head.
#[test]
fn a_token_decays_corrects_and_reads() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = Case {
        kind: Kind::Mixed,
        seed: 5,
        batch: 1,
        len: 9,
        n_k_heads: 1,
        per_key: 1,
        d_k: 3,
        d_v: 2,
        started: true,
    };
    let inputs = Inputs::of(&case);
    let list = |x: &Array| -> Vec<f64> {
        let values: Vec<f32> = x.contiguous().unwrap().to_vec().unwrap();
        values.into_iter().map(f64::from).collect()
    };
    let (q, k, v) = (list(&inputs.q), list(&inputs.k), list(&inputs.v));
    let (log_decay, beta) = (list(&inputs.log_decay), list(&inputs.beta));
    let mut s = list(inputs.state.as_ref().unwrap()); // [3, 2]
    let (y, states) = inputs.all().forward(inputs.state.as_ref(), &[9]).unwrap();
    let mut expected = Vec::new();
    for t in 0..9 {
        s.iter_mut().for_each(|x| *x *= log_decay[t].exp());
        for j in 0..2 {
            let found: f64 = (0..3).map(|i| k[3 * t + i] * s[2 * i + j]).sum();
            let correction = beta[t] * (v[2 * t + j] - found);
            (0..3).for_each(|i| s[2 * i + j] += k[3 * t + i] * correction);
            expected.push((0..3).map(|i| q[3 * t + i] * s[2 * i + j]).sum::<f64>());
        }
    }
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(near(&list(&y), &expected), "{y:?} {expected:?}");
    assert!(near(&list(&states[0]), &s));
}

#[test]
fn outputs_have_the_queries_type_and_states_are_float32() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for len in [1, 5] {
        let half = |shape: &[i32]| Array::full(shape, 0.25, Dtype::Bfloat16).unwrap();
        let (qk, v) = (half(&[2, len, 1, 4]), half(&[2, len, 3, 4]));
        let rate = half(&[2, len, 3]);
        let log_decay = Array::full(&[2, len, 3], -0.5, Dtype::Float32).unwrap();
        let input = GatedDelta {
            q: &qk,
            k: &qk,
            v: &v,
            log_decay: &log_decay,
            beta: &rate,
        };
        let (y, states) = input.forward(None, &[len]).unwrap();
        assert_eq!(
            (y.shape(), y.dtype()),
            (vec![2, len, 3, 4], Dtype::Bfloat16)
        );
        assert_eq!(states[0].shape(), [2, 1, 3, 4, 4]);
        assert_eq!(states[0].dtype(), Dtype::Float32);
    }
}

/// Equal keys that never decay are the worst case: the inverse is then 1 on the diagonal and −1
/// below it. Random triangles are compared with forward substitution in float64.
#[test]
fn the_inverse_is_accurate_in_the_worst_case_too() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let mut random = Uniform(3);
    for (worst, tolerance) in [(true, 1e-6), (false, 1e-5)] {
        let (n, size) = (64, 64 * 64);
        let mut a = vec![0.0f32; size];
        let keys: Vec<f32> = (0..n * 4).map(|_| random.next() - 0.5).collect();
        let length = |t: usize| (0..4).map(|d| keys[4 * t + d].powi(2)).sum::<f32>().sqrt();
        for t in 0..n {
            for i in 0..t {
                let dot: f32 = (0..4).map(|d| keys[4 * t + d] * keys[4 * i + d]).sum();
                a[n * t + i] = if worst {
                    1.0
                } else {
                    dot / length(t) / length(i)
                };
            }
        }
        let mut exact = vec![0.0f64; size];
        for t in 0..n {
            exact[n * t + t] = 1.0;
            for i in 0..t {
                let sum: f64 = (i..t)
                    .map(|j| f64::from(a[n * t + j]) * exact[n * j + i])
                    .sum();
                exact[n * t + i] = -sum;
            }
        }
        let a = Array::from_slice(&a, &[64, 64]).unwrap();
        let found: Vec<f32> = inverse(&a, 64).unwrap().to_vec().unwrap();
        let errors = found
            .iter()
            .zip(&exact)
            .map(|(x, y)| (f64::from(*x) - y).abs());
        let error = errors.fold(0.0, f64::max);
        println!("largest error {error:e}");
        assert!(error < tolerance, "{error:e}");
    }
}
