//! Attention, norms and gates against the definitions in `f64`, and the promises: the same bits from
//! all instructions, and for a query alone.

mod common;

use common::{Dice, KINDS, Kind, Numbers, alone, here, same};
use pensieve_kernels::{Attention, Floats, FloatsMut, attention, rms_norm, set_threads, swiglu};
use proptest::prelude::*;

/// Everything an attention is made of.
struct Case {
    q: Numbers,
    k: Numbers,
    v: Numbers,
    sinks: Option<Numbers>,
    mask: Option<Vec<u8>>,
    kv_heads: usize,
    shared: usize,
    queries: usize,
    keys: usize,
    room: usize,
    head_dim: usize,
    value_dim: usize,
    causal: bool,
    window: Option<usize>,
}

impl Case {
    fn new(dice: &mut Dice, kind: Kind, [kv_heads, shared, queries, keys]: [usize; 4]) -> Case {
        let (room, head_dim, value_dim) = (keys + 3, 20, 12);
        Case {
            q: Numbers::new(kind, dice.floats(kv_heads * shared * queries * head_dim)),
            k: Numbers::new(kind, dice.floats(kv_heads * room * head_dim)),
            v: Numbers::new(kind, dice.floats(kv_heads * room * value_dim)),
            sinks: None,
            mask: None,
            kv_heads,
            shared,
            queries,
            keys,
            room,
            head_dim,
            value_dim,
            causal: false,
            window: None,
        }
    }

    fn attention(&self) -> Attention<'_> {
        Attention {
            q: self.q.slice(),
            k: self.k.slice(),
            v: self.v.slice(),
            heads: self.kv_heads * self.shared,
            kv_heads: self.kv_heads,
            queries: self.queries,
            keys: self.keys,
            key_room: self.room,
            head_dim: self.head_dim,
            value_dim: self.value_dim,
            scale: 0.5,
            causal: self.causal,
            window: self.window,
            mask: self.mask.as_deref(),
            sinks: self.sinks.as_ref().map(Numbers::slice),
        }
    }

    /// Whether a query sees a key, by the definition.
    fn sees(&self, i: usize, key: usize) -> bool {
        let own = (self.keys + i) as isize - self.queries as isize;
        let key_ = key as isize;
        let masked = |mask: &Vec<u8>| mask[i * self.keys + key] == 0;
        !(self.causal && key_ > own
            || self.window.is_some_and(|w| key_ <= own - w as isize)
            || self.mask.as_ref().is_some_and(masked))
    }

    /// One number of the result.
    fn reference(&self, head: usize, i: usize, c: usize) -> f64 {
        let (d, kv) = (self.head_dim, head / self.shared);
        let (mut weights, mut sum) = (0.0, 0.0);
        if let Some(sinks) = &self.sinks {
            weights += sinks.at(head).exp();
        }
        for key in (0..self.keys).filter(|key| self.sees(i, *key)) {
            let score: f64 = (0..d)
                .map(|x| {
                    self.q.at((head * self.queries + i) * d + x)
                        * self.k.at((kv * self.room + key) * d + x)
                })
                .sum();
            let weight = (0.5 * score).exp();
            weights += weight;
            sum += weight * self.v.at((kv * self.room + key) * self.value_dim + c);
        }
        if weights == 0.0 { 0.0 } else { sum / weights }
    }

    fn check(&self) {
        let heads = self.kv_heads * self.shared;
        let mut first: Option<Numbers> = None;
        for isa in here() {
            assert!(isa.force());
            let mut out = Numbers::room(self.q.kind, heads * self.queries * self.value_dim);
            attention(&self.attention(), out.slice_mut());
            match &first {
                None => first = Some(out),
                Some(first) => assert!(same(first, &out), "{isa}"),
            }
        }
        let out = first.unwrap();
        for head in 0..heads {
            for i in 0..self.queries {
                for c in 0..self.value_dim {
                    let found = out.at((head * self.queries + i) * self.value_dim + c);
                    let wanted = self.reference(head, i, c);
                    assert!(
                        (found - wanted).abs() <= 2e-6 + out.rounding(),
                        "head {head}, query {i}, {c}: {found}, not {wanted}"
                    );
                }
            }
        }
    }
}

#[test]
fn prompts_and_steps_of_every_length() {
    let _alone = alone();
    let dice = &mut Dice(11);
    let lengths: &[usize] = match cfg!(miri) {
        true => &[1, 5],
        false => &[1, 2, 15, 16, 17, 63, 64, 65, 130, 200],
    };
    for &keys in lengths {
        for kind in KINDS {
            let mut case = Case::new(dice, kind, [2, 3, 1, keys]);
            case.causal = true;
            case.check();
            let mut case = Case::new(dice, kind, [1, 2, keys.min(70), keys]);
            case.causal = true;
            case.check();
        }
    }
}

#[test]
fn a_query_is_the_same_alone_and_on_any_number_of_threads() {
    let _alone = alone();
    let dice = &mut Dice(12);
    let keys = if cfg!(miri) { 9 } else { 300 };
    let mut case = Case::new(dice, Kind::F32, [2, 2, keys, keys]);
    case.causal = true;
    let (heads, dv, d) = (4, case.value_dim, case.head_dim);
    for isa in here() {
        assert!(isa.force());
        let mut all = vec![0f32; heads * keys * dv];
        set_threads(3);
        attention(&case.attention(), FloatsMut::F32(&mut all));
        let mut again = vec![0f32; heads * keys * dv];
        set_threads(1);
        attention(&case.attention(), FloatsMut::F32(&mut again));
        assert!(all == again, "{isa}");
        for i in [0, 1, keys / 2, keys - 1] {
            let q: Vec<f32> = (0..heads)
                .flat_map(|head| case.q.floats[(head * keys + i) * d..][..d].to_vec())
                .collect();
            let single = Attention {
                q: Floats::F32(&q),
                queries: 1,
                keys: i + 1,
                ..case.attention()
            };
            let mut out = vec![0f32; heads * dv];
            attention(&single, FloatsMut::F32(&mut out));
            for head in 0..heads {
                let wanted = &all[(head * keys + i) * dv..][..dv];
                assert!(
                    out[head * dv..][..dv] == *wanted,
                    "{isa}: query {i}, head {head}"
                );
            }
        }
    }
    set_threads(0);
}

#[test]
fn a_query_that_sees_nothing_gives_zeros() {
    let _alone = alone();
    let mut case = Case::new(&mut Dice(13), Kind::F32, [1, 2, 5, 3]);
    case.causal = true;
    case.check();
    let mut case = Case::new(&mut Dice(13), Kind::F32, [1, 2, 2, 0]);
    case.causal = true;
    case.check();
}

fn norm_and_gate(dice: &mut Dice, kind: Kind, m: usize, width: usize) {
    let x = Numbers::new(kind, dice.floats(m * width));
    let other = Numbers::new(kind, dice.floats(m * width));
    let weight = Numbers::new(kind, dice.floats(width));
    for weight in [None, Some(&weight)] {
        let mut first: Option<[Numbers; 2]> = None;
        for isa in here() {
            assert!(isa.force());
            let mut out = [0, 1].map(|_| Numbers::room(kind, m * width));
            let [normed, gated] = &mut out;
            rms_norm(
                x.slice(),
                width,
                weight.map(Numbers::slice),
                1e-5,
                normed.slice_mut(),
            );
            swiglu(x.slice(), other.slice(), gated.slice_mut());
            match &first {
                None => first = Some(out),
                Some(first) => assert!(same(&first[0], &out[0]) && same(&first[1], &out[1])),
            }
        }
        let [normed, gated] = first.unwrap();
        for i in 0..m {
            let squares: f64 = (0..width).map(|c| x.at(i * width + c).powi(2)).sum();
            let root = (squares / width as f64 + 1e-5).sqrt();
            for c in 0..width {
                let at = i * width + c;
                let wanted = x.at(at) / root * weight.map_or(1.0, |w| w.at(c));
                let allowed = 1e-6 + normed.rounding();
                assert!((normed.at(at) - wanted).abs() <= allowed * (1.0 + wanted.abs()));
                let wanted = x.at(at) / (1.0 + (-x.at(at)).exp()) * other.at(at);
                assert!(
                    (gated.at(at) - wanted).abs() <= allowed,
                    "{} {wanted}",
                    gated.at(at)
                );
            }
        }
    }
}

#[test]
fn norms_and_gates() {
    let _alone = alone();
    let dice = &mut Dice(14);
    for kind in KINDS {
        for (m, width) in [(1, 1), (3, 17), (2, 256), (1, 300), (0, 5)] {
            norm_and_gate(dice, kind, m, width);
        }
        if !cfg!(miri) {
            norm_and_gate(dice, kind, 9, 1031);
        }
    }
    for far in [-200f32, -88.0, 88.0, 200.0] {
        let mut out = [0f32];
        swiglu(
            Floats::F32(&[far]),
            Floats::F32(&[1.0]),
            FloatsMut::F32(&mut out),
        );
        assert_eq!(out[0], far.max(0.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 40 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_attention(
        seed: u64, kind in 0..3usize, heads in [1..4usize, 1..5usize],
        queries in 1..40usize, keys in 0..150usize,
        causal: bool, window in proptest::option::of(1..90usize), sinks: bool, mask: bool,
    ) {
        let _alone = alone();
        let dice = &mut Dice(seed);
        let mut case = Case::new(dice, KINDS[kind], [heads[0], heads[1], queries, keys]);
        case.causal = causal;
        case.window = window;
        if sinks {
            case.sinks = Some(Numbers::new(KINDS[kind], dice.floats(heads[0] * heads[1])));
        }
        if mask {
            case.mask = Some((0..queries * keys).map(|_| u8::from(!dice.next().is_multiple_of(4))).collect());
        }
        case.check();
    }
}
