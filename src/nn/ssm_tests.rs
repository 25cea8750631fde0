use super::*;
use crate::mlx::{Runtime, compile_everywhere};

const GROUPS: i32 = 2;
const PER_GROUP: i32 = 3;
const HEAD_DIM: i32 = 5;
const STATE: i32 = 7;
const TOKENS: i32 = 600;

fn random(shape: &[i32], seed: u64) -> Array {
    let key = Array::random_key(seed).unwrap();
    Array::random_normal(shape, Dtype::Float32, 0.0, 1.0, &key).unwrap()
}

/// Decays from a millionth to nearly 1 a token.
fn ssm(seed: u64, time_step_limit: [f32; 2]) -> Ssm {
    let by_head = [GROUPS, PER_GROUP, 1];
    let a = random(&by_head, seed).scale(1.5).unwrap();
    Ssm {
        a: a.exp().unwrap().negative().unwrap(),
        d: random(&by_head, seed + 1),
        dt_bias: random(&by_head, seed + 2),
        time_step_limit: limit(time_step_limit).unwrap(),
        n_groups: GROUPS,
        per_group: PER_GROUP,
        head_dim: HEAD_DIM,
        state_size: STATE,
    }
}

/// For two sequences. The gate lets all through.
fn tokens(ssm: &Ssm, seed: u64) -> Tokens {
    let gate = [2, TOKENS, ssm.inner()];
    Tokens {
        convolved: random(&[2, TOKENS, ssm.inner() + ssm.mixed()], seed),
        dt: random(&[2, TOKENS, ssm.n_heads()], seed + 3),
        gate: Array::full(&gate, 1.278_464_5, Dtype::Float32).unwrap(),
    }
}

/// The answers to all tokens, so many at a time, and the state behind the last.
fn by(ssm: &Ssm, all: &Tokens, lengths: impl Iterator<Item = i32>) -> (Array, Array) {
    let (mut state, mut answers, mut start) = (None, Vec::new(), 0);
    let batch = Batch::single(&[0], 0).unwrap();
    for length in lengths {
        let end = TOKENS.min(start + length);
        let part = all.part(start, end).unwrap();
        let (answer, mut states) = ssm.forward(&part, &batch, &[end - start], state).unwrap();
        assert_eq!(states.len(), 1);
        answers.push(answer);
        state = states.pop();
        state.as_ref().unwrap().eval().unwrap();
        start = end;
        if start == TOKENS {
            break;
        }
    }
    let answers = Array::concatenate(&answers.iter().collect::<Vec<_>>(), 1).unwrap();
    (answers, state.unwrap())
}

/// The largest difference, as a share of the largest element.
fn difference(a: &Array, b: &Array) -> f32 {
    let [a, b] = [a, b].map(|array| array.astype(Dtype::Float32).unwrap());
    let largest = b.abs().unwrap().max_all().unwrap();
    let largest = largest.item::<f32>().unwrap();
    a.max_difference(&b).unwrap() / largest
}

const LIMITS: [(u64, [f32; 2]); 3] = [
    (1, [0.0, f32::INFINITY]),
    (2, [0.001, 100.0]),
    (3, [0.3, 0.9]),
];

#[test]
fn chunks_equal_the_recurrence() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for (seed, limit) in LIMITS {
        let ssm = ssm(seed * 10, limit);
        let tokens = tokens(&ssm, seed * 100);
        let (steps, end) = by(&ssm, &tokens, std::iter::repeat(1));
        for lengths in [
            vec![TOKENS],
            vec![chunk(), 1, 2, 90, 1, chunk() + 1, TOKENS],
            vec![17; 40],
        ] {
            let (chunks, state) = by(&ssm, &tokens, lengths.iter().copied());
            let worst = difference(&chunks, &steps).max(difference(&state, &end));
            assert!(worst < 1e-5, "{seed} by {lengths:?}: {worst:e}");
        }
    }
}

/// As many tokens as a chunk has on a GPU, and more than that many steps of decay among them.
#[test]
fn a_long_chunk_equals_the_recurrence() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for (seed, limit) in LIMITS {
        let ssm = ssm(seed * 10, limit);
        let all = tokens(&ssm, seed * 100);
        // Now and then a decay that leaves nothing, which must not blur the small ones beside it.
        let burst: Vec<f32> = (0..TOKENS)
            .map(|t| if t % 97 == 50 { 1e4 } else { 0.0 })
            .collect();
        let burst = Array::from_slice(&burst, &[1, TOKENS, 1]).unwrap();
        let all = Tokens {
            dt: all.dt.add(&burst).unwrap(),
            ..all
        };
        let tokens = all.part(0, 512).unwrap();
        let batch = Batch::single(&[0], 0).unwrap();
        let start = random(&[2, 1, GROUPS, PER_GROUP, HEAD_DIM, STATE], seed);
        let (chunk, state) = ssm.dual(&tokens, &batch, &[512], &start).unwrap();
        let (mut end, mut steps) = (start, Vec::new());
        for t in 0..512 {
            let (y, mut next) = ssm.step(&all.part(t, t + 1).unwrap(), &end).unwrap();
            end = next.remove(0);
            end.eval().unwrap();
            steps.push(y);
        }
        let steps = Array::concatenate(&steps.iter().collect::<Vec<_>>(), 1).unwrap();
        let heads = [2, 512, GROUPS * PER_GROUP, HEAD_DIM];
        // The tokens of a burst are much larger than others; each token is held to its own size.
        let (chunk, steps) = (
            chunk.reshape(&heads).unwrap(),
            steps.reshape(&heads).unwrap(),
        );
        for t in 0..512 {
            let token = |y: &Array| y.slice_axis(1, t, t + 1).unwrap().contiguous().unwrap();
            let worst = difference(&token(&chunk), &token(&steps));
            assert!(worst < 2e-5, "{seed} at {t}: {worst:e}");
        }
        let worst = difference(&state[0], &end);
        assert!(worst < 1e-5, "{seed}: {worst:e}");
    }
}

#[test]
fn states_within_a_pass_are_those_of_passes_that_end_there() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let ssm = ssm(7, [0.0, f32::INFINITY]);
    let tokens = tokens(&ssm, 70);
    let batch = Batch::single(&[0], 0).unwrap();
    let ends = [
        1,
        3,
        chunk() - 1,
        chunk(),
        chunk() + 1,
        3 * chunk() + 5,
        590,
        TOKENS,
    ];
    let (answers, states) = ssm.forward(&tokens, &batch, &ends, None).unwrap();
    assert_eq!(states.len(), ends.len());
    let (alone, _) = ssm.forward(&tokens, &batch, &[TOKENS], None).unwrap();
    assert_eq!(answers.max_difference(&alone).unwrap(), 0.0);
    for (end, state) in ends.iter().zip(&states) {
        let part = tokens.part(0, *end).unwrap();
        let (_, last) = ssm.forward(&part, &batch, &[*end], None).unwrap();
        let worst = difference(&state.contiguous().unwrap(), &last[0].contiguous().unwrap());
        assert!(worst < 1e-6, "{end}: {worst:e}");
    }
}

/// What a GPU computes, compiled for the CPU.
#[test]
#[ignore = "MLX calls a C++ compiler, for minutes on a busy machine"]
fn kernels_equal_the_operations_that_they_are_made_of() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        for (seed, limit) in LIMITS {
            let ssm = ssm(seed, limit);
            let Tokens {
                convolved,
                dt,
                gate,
            } = tokens(&ssm, seed);
            let tokens = Tokens {
                convolved: convolved.astype(dtype).unwrap(),
                dt: dt.astype(dtype).unwrap(),
                gate: gate.astype(dtype).unwrap(),
            };
            let run = || {
                let batch = Batch::single(&[0], 0).unwrap();
                let part = tokens.part(0, 40).unwrap();
                let (y, mut states) = ssm.forward(&part, &batch, &[3, 29, 40], None).unwrap();
                let part = tokens.part(40, 41).unwrap();
                let (last, state) = ssm.forward(&part, &batch, &[1], states.pop()).unwrap();
                states.extend(state);
                let y = Array::concatenate(&[&y, &last], 1).unwrap();
                y.eval().unwrap();
                states.iter().for_each(|state| state.eval().unwrap());
                (y, states)
            };
            let (plain, states) = run();
            compile_everywhere(true);
            let (compiled, again) = run();
            compile_everywhere(false);
            assert_eq!(plain.dtype(), dtype);
            let most = if dtype == Dtype::Float32 { 1e-6 } else { 1e-2 };
            assert!(difference(&compiled, &plain) < most);
            for (compiled, plain) in again.iter().zip(&states) {
                assert!(difference(compiled, plain) < 1e-6);
            }
        }
    }
}

#[test]
fn the_time_step_stays_within_its_limit() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let narrow = ssm(5, [0.3, 0.9]);
    let tokens = tokens(&narrow, 50);
    let steps = narrow.time_steps(&tokens.dt).unwrap();
    let steps = steps.contiguous().unwrap().to_vec::<f32>().unwrap();
    let (least, most) = steps
        .iter()
        .fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
    assert_eq!((least, most), (0.3, 0.9));
}
