//! The prefix cache through the engine: what is reused gives the answer that computing it would, for
//! each kind of layer; what is stored keeps to its budget and is given back.

mod common;

use std::time::Duration;

use common::golden::case;
use pensieve::cache::prefix::PrefixCache;
use pensieve::cache::{Batch, LayerCache};
use pensieve::checkpoint::{Source, WeightsAs};
use pensieve::engine::{Engine, Event, Options, Request, Stats};
use pensieve::mlx::{Array, Device, Dtype, Runtime, clear_cache, memory};
use pensieve::sample::Params;
use tokio::sync::mpsc::Receiver;

/// An architecture for each kind of cache and mixture: full, sliding beside full, sliding alone,
/// latent, recurrent, and recurrent beside full.
const CASES: &[&str] = &[
    "llama-base",
    "gpt_oss-base",
    "llama-sliding",
    "gemma4_text-shared",
    "deepseek_v3-base",
    "mamba2-base",
    "lfm2-base",
    "qwen3_next-base",
    "nemotron_h-base",
];
/// Those of them that go on only where they were stored.
const RECURRENT: &[&str] = &[
    "mamba2-base",
    "lfm2-base",
    "qwen3_next-base",
    "nemotron_h-base",
];
/// Tokens before a prompt's end where those are stored.
const TAIL: usize = 16;
const CHUNK: usize = 13;
const PLENTY: usize = 1 << 30;

/// MLX's counters are the process's own, so the tests run one by one.
static ONE_BY_ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner())
}

fn start(name: &str, options: Options) -> Engine {
    let options = Options {
        device: Some(Device::Cpu),
        ..options
    };
    let checkpoint = case(name).checkpoint();
    let source = Source::Directory(checkpoint.path().to_path_buf());
    Engine::start(source, options, |_, _| {}).unwrap()
}

fn with_cache(name: &str, bytes: usize) -> Engine {
    start(
        name,
        Options {
            prefill_chunk: Some(CHUNK),
            prefix_cache: Some(bytes),
            ..Options::default()
        },
    )
}

fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        params: Params::default(),
        max_tokens,
        form: None,
        stop_ids: Vec::new(),
        logprobs: Some(0),
        prompt_logprobs: false,
    }
}

#[derive(Debug, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    stats: Stats,
}

fn collect(mut events: Receiver<Event>) -> Answer {
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    loop {
        match events.blocking_recv().expect("an end") {
            Event::Started(_) | Event::Prompt(_) => {}
            Event::Token { id, logprob } => {
                tokens.push(id);
                logprobs.push(logprob.unwrap().logprob);
            }
            Event::Finished { stats, .. } => {
                return Answer {
                    tokens,
                    logprobs,
                    stats,
                };
            }
            Event::Failed(message) => panic!("{message}"),
        }
    }
}

fn ask(engine: &Engine, prompt: &[u32], max_tokens: usize) -> Answer {
    collect(engine.handle.submit(request(prompt, max_tokens)).unwrap())
}

/// Waits until the engine has done what it does behind an answer's last event.
fn settle(engine: &Engine) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    assert!(runtime.block_on(engine.handle.ping(Duration::from_secs(60))));
}

fn agree(a: &Answer, b: &Answer, what: &str) {
    assert_eq!(a.tokens, b.tokens, "{what}");
    for (a, b) in a.logprobs.iter().zip(&b.logprobs) {
        assert!((a - b).abs() < 2e-3, "{what}: {a} {b}");
    }
}

/// Ids that the case's vocabulary has, as long as asked for, other for another `seed`.
fn ids(name: &str, n: usize, seed: u64) -> Vec<u32> {
    let vocab = case(name).vocab as u64;
    let id = |i: u64| (i * i * 31 + i * (7 + seed) + seed * 13) % vocab;
    (0..n as u64).map(|i| id(i) as u32).collect()
}

/// Three turns of a dialogue, a second dialogue that parts from it in the middle, and the first turn
/// again: each answer is as without the cache, and so much was reused.
#[test]
fn a_dialogue_reuses_all_but_the_last_tokens_and_answers_as_without() {
    let _alone = alone();
    for name in CASES {
        let cached = with_cache(name, PLENTY);
        let plain = with_cache(name, 0);
        let both = |prompt: &[u32], n: usize, what: &str| {
            let (a, b) = (ask(&cached, prompt, n), ask(&plain, prompt, n));
            agree(&a, &b, &format!("{name}: {what}"));
            assert_eq!(b.stats.cached_tokens, 0);
            assert_eq!(a.stats.prompt_tokens, prompt.len());
            (a.stats.cached_tokens, a.tokens)
        };
        let recurrent = RECURRENT.contains(name);
        let first = ids(name, 70, 1);
        let (reused, answer) = both(&first, 9, "first turn");
        assert_eq!(reused, 0, "{name}");
        // The answer's last token was never computed on.
        let known = first.len() + answer.len() - 1;
        let second = [&first[..], &answer[..], &ids(name, 20, 2)[..]].concat();
        let (reused, answer) = both(&second, 9, "second turn");
        assert_eq!(reused, known, "{name}: second turn");
        let known = second.len() + answer.len() - 1;
        let third = [&second[..], &answer[..], &ids(name, 5, 3)[..]].concat();
        let (reused, _) = both(&third, 9, "third turn");
        assert_eq!(reused, known, "{name}: third turn");
        // The same again: its end but for what opens an answer, or all but the last token.
        let (reused, _) = both(&second, 9, "second turn again");
        let least = second.len() - if recurrent { TAIL } else { 1 };
        let behind = least..second.len();
        assert!(behind.contains(&reused), "{name}: {reused}");
        // Parting in the middle, on no chunk's end: recurrent ones go back to the chunk's end.
        let other = [&first[..45], &ids(name, 40, 4)[..]].concat();
        let (reused, _) = both(&other, 9, "a parting");
        let expected = if recurrent { 3 * CHUNK } else { 45 };
        assert_eq!(reused, expected, "{name}: a parting");
    }
}

/// Where two prompts part far from any stored state, the second leaves one for the third.
#[test]
fn the_third_prompt_of_a_kind_reuses_all_that_two_shared() {
    let _alone = alone();
    for name in CASES {
        let options = Options {
            prefill_chunk: Some(512),
            prefix_cache: Some(PLENTY),
            ..Options::default()
        };
        let engine = start(name, options);
        let plain = with_cache(name, 0);
        let shared = ids(name, 50, 1);
        let prompt = |seed| [&shared[..], &ids(name, 40, seed)[..]].concat();
        let reused: Vec<usize> = (5..8)
            .map(|seed| {
                let answer = ask(&engine, &prompt(seed), 5);
                agree(&answer, &ask(&plain, &prompt(seed), 5), name);
                answer.stats.cached_tokens
            })
            .collect();
        let second = if RECURRENT.contains(name) { 0 } else { 50 };
        assert_eq!(reused, [0, second, 50], "{name}");
    }
}

/// A cache that is mixed up must show: with what another prompt left, the answer is another one.
#[test]
fn a_stale_cache_would_be_noticed() {
    let _alone = alone();
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for name in CASES {
        let model = case(name).load(WeightsAs::Stored).unwrap().model;
        let (own, others) = (ids(name, 40, 1), ids(name, 40, 9));
        let forward = |caches: &mut [LayerCache], tokens: &[u32], at: usize| {
            let hidden = model
                .forward(&Batch::single(tokens, at).unwrap(), caches)
                .unwrap();
            let l = hidden.dim(1).unwrap();
            let last = hidden.slice_axis(1, l - 1, l).unwrap();
            model.unembed(&last).unwrap().log_softmax().unwrap()
        };
        let mut kept = PrefixCache::new(model.caches(), PLENTY);
        let mut store = |tokens: &[u32]| {
            let mut caches = model.caches();
            forward(&mut caches, &tokens[..30], 0);
            kept.store(&tokens[..30], &caches, true).unwrap();
            let all = forward(&mut caches, &tokens[30..], 30);
            let mut restored = kept.find(tokens, 0).unwrap().found.unwrap();
            assert_eq!(restored.len, 30, "{name}");
            let again = forward(&mut restored.caches, &tokens[30..], 30);
            (all, again)
        };
        let (all, again) = store(&own);
        assert!(all.max_difference(&again).unwrap() < 1e-4, "{name}");
        store(&others);
        // What the others left under one's own tokens: further off than rounding ever is.
        let mut wrong = kept.find(&others, 0).unwrap().found.unwrap();
        let stale = forward(&mut wrong.caches, &own[30..], 30);
        assert!(all.max_difference(&stale).unwrap() > 1e-2, "{name}");
    }
}

/// A window moves on while a long answer is written, so of its beginning there is nothing to store:
/// the end can be gone on from, the beginning not.
#[test]
fn a_long_answer_is_reused_as_far_as_its_windows_are_there() {
    let _alone = alone();
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for name in ["llama-sliding", "gpt_oss-base"] {
        let model = case(name).load(WeightsAs::Stored).unwrap().model;
        let tokens = ids(name, 900, 1);
        let forward = |caches: &mut [LayerCache], from: usize, to: usize| {
            let batch = Batch::single(&tokens[from..to], from).unwrap();
            let hidden = model.forward(&batch, caches).unwrap();
            hidden.eval().unwrap();
            hidden
        };
        let mut kept = PrefixCache::new(model.caches(), PLENTY);
        let mut caches = model.caches();
        forward(&mut caches, 0, 20);
        kept.store(&tokens[..20], &caches, true).unwrap();
        for from in (20..860).step_by(40) {
            forward(&mut caches, from, from + 40);
        }
        kept.store(&tokens[..860], &caches, true).unwrap();
        let expected = forward(&mut caches, 860, 900);
        let mut whole = kept.find(&tokens, 0).unwrap().found.unwrap();
        assert_eq!(whole.len, 860, "{name}");
        let again = forward(&mut whole.caches, 860, 900);
        assert!(expected.max_difference(&again).unwrap() < 1e-4, "{name}");
        let early = kept.find(&tokens[..200], 0).unwrap();
        assert_eq!(early.known, 200, "{name}");
        assert_eq!(early.found.map(|found| found.len), Some(20), "{name}");
    }
}

/// MLX's `contiguous` shares the buffer of a view of few bytes; what is kept has its own.
#[test]
fn a_few_entries_keep_no_buffer_alive() {
    let _alone = alone();
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    clear_cache().unwrap();
    let base = memory().unwrap().active;
    let mut caches = vec![LayerCache::latent()];
    let latents = Array::full(&[1, 1, 3, 8], 1.0, Dtype::Float32).unwrap();
    let batch = Batch::single(&[1, 2, 3], 0).unwrap();
    caches[0].update_latent(&latents, 4, &batch).unwrap();
    let mut kept = PrefixCache::new(vec![LayerCache::latent()], PLENTY);
    kept.store(&[1, 2, 3], &caches, true).unwrap();
    drop((caches, latents, batch));
    assert_eq!(kept.nbytes(), 3 * 8 * 4);
    assert_eq!(memory().unwrap().active - base, kept.nbytes());
}

/// What MLX holds beyond the start is what the cache says it has, also after nodes were cut, and all of
/// it comes back. MLX gives arrays whole pages.
#[test]
fn bytes_are_exact_and_come_back() {
    let _alone = alone();
    let runtime = Runtime::enter(Device::Cpu).unwrap();
    for name in [
        "llama-base",
        "llama-sliding",
        "deepseek_v3-base",
        "mamba2-base",
        "qwen3_next-base",
    ] {
        let model = case(name).load(WeightsAs::Stored).unwrap().model;
        let compute = |tokens: &[u32]| {
            let mut caches = model.caches();
            for (i, chunk) in tokens.chunks(300).enumerate() {
                let batch = Batch::single(chunk, i * 300).unwrap();
                model.forward(&batch, &mut caches).unwrap().eval().unwrap();
            }
            caches
        };
        drop(compute(&ids(name, 20, 1)));
        let mut kept = PrefixCache::new(model.caches(), PLENTY);
        let base = memory().unwrap().active;
        let held = || memory().unwrap().active - base;
        let holds = |bytes: usize| (bytes..=bytes + bytes / 6 + 65_536).contains(&held());
        let mut prompts = vec![ids(name, 800, 1), ids(name, 300, 2), ids(name, 1, 3)];
        prompts.push([&prompts[0][..600], &prompts[1][..]].concat());
        prompts.push(prompts[0][..250].to_vec());
        for prompt in &prompts {
            let caches = compute(prompt);
            kept.store(prompt, &caches, true).unwrap();
            drop(caches);
            clear_cache().unwrap();
            let bytes = kept.nbytes();
            assert!(bytes > 0 && holds(bytes), "{name}: {} for {bytes}", held());
        }
        // Finding takes nothing that stays.
        let found = kept.find(&[&prompts[0][..], &[1]].concat(), 0).unwrap();
        assert_eq!(found.found.map(|found| found.len), Some(800), "{name}");
        runtime.synchronize().unwrap();
        assert!(holds(kept.nbytes()), "{name}: {}", held());
        let mut bytes = kept.nbytes();
        while bytes > 0 {
            bytes = bytes * 2 / 3;
            assert!(kept.shrink(bytes));
            assert!(kept.nbytes() <= bytes);
            assert!(holds(kept.nbytes()), "{name}: {}", held());
        }
        assert_eq!(held(), 0, "{name}");
    }
}

/// Requests of all sorts, some cancelled, under a budget that holds a few of them: answers are right,
/// the budget is kept, and the end leaves nothing.
#[test]
fn random_traffic_keeps_to_the_budget_and_answers_as_without() {
    let _alone = alone();
    for name in [
        "llama-base",
        "gpt_oss-base",
        "deepseek_v3-base",
        "qwen3_next-base",
    ] {
        let before = memory().unwrap().active;
        let budget = 250_000;
        let mut engine = with_cache(name, budget);
        let plain = with_cache(name, 0);
        ask(&plain, &ids(name, 20, 0), 2);
        ask(&engine, &ids(name, 1, 0), 1);
        settle(&engine);
        settle(&plain);
        let base = memory().unwrap().active;
        let (mut reused, mut most) = (0, 0);
        for i in 0..24u64 {
            let stem = ids(name, 30 + (i as usize * 7) % 60, i % 3);
            let prompt = [&stem[..], &ids(name, 1 + i as usize % 5, i)[..]].concat();
            let cancelled = engine
                .handle
                .submit(request(&[&prompt[..], &stem].concat(), 20));
            let answer = engine.handle.submit(request(&prompt, 4)).unwrap();
            if i % 3 == 0 {
                drop(cancelled);
            } else {
                collect(cancelled.unwrap());
            }
            let answer = collect(answer);
            agree(&answer, &ask(&plain, &prompt, 4), name);
            reused += answer.stats.cached_tokens;
            settle(&engine);
            settle(&plain);
            let held = memory().unwrap().active.saturating_sub(base);
            // MLX gives arrays whole pages, and these are small.
            assert!(held <= budget * 3 / 2, "{name}: {held} bytes at {i}");
            most = held.max(most);
        }
        assert!(most > budget / 2, "{name}: {most}");
        assert!(reused > 200, "{name}: {reused}");
        engine.stop().unwrap();
        drop(plain);
        drop(engine);
        assert_eq!(memory().unwrap().active, before, "{name}");
    }
}

/// Several prompts that share a beginning and come at once: it is computed once.
#[test]
fn what_comes_together_is_computed_once() {
    let _alone = alone();
    for name in CASES {
        let engine = with_cache(name, PLENTY);
        let plain = with_cache(name, 0);
        let shared = ids(name, 8 * CHUNK, 1);
        let prompts: Vec<Vec<u32>> = (0..4)
            .map(|i| [&shared[..], &ids(name, 20, 10 + i)[..]].concat())
            .collect();
        let submit = |prompt: &Vec<u32>| engine.handle.submit(request(prompt, 5)).unwrap();
        let answers: Vec<_> = prompts.iter().map(submit).collect();
        let answers: Vec<Answer> = answers.into_iter().map(collect).collect();
        for (prompt, answer) in prompts.iter().zip(&answers) {
            agree(answer, &ask(&plain, prompt, 5), name);
        }
        for answer in &answers[1..] {
            assert!(
                answer.stats.cached_tokens >= shared.len(),
                "{name}: {answer:?}"
            );
        }
    }
}

/// A prompt that is cancelled half way leaves its chunks.
#[test]
fn a_cancelled_prompt_leaves_what_it_computed() {
    let _alone = alone();
    for name in CASES {
        let engine = start(
            name,
            Options {
                prefill_chunk: Some(3),
                prefix_cache: Some(PLENTY),
                ..Options::default()
            },
        );
        // Beside an answer, a token a round, the prompt gets the two others of the budget.
        let mut beside = engine.handle.submit(request(&[1, 2, 3], 40)).unwrap();
        beside.blocking_recv().unwrap();
        let prompt = ids(name, 150, 1);
        let cancelled = engine.handle.submit(request(&prompt, 3)).unwrap();
        for _ in 0..20 {
            beside.blocking_recv().unwrap();
        }
        drop(cancelled);
        collect(beside);
        settle(&engine);
        let again = ask(&engine, &prompt, 3);
        let plain = with_cache(name, 0);
        agree(&again, &ask(&plain, &prompt, 3), name);
        let reused = again.stats.cached_tokens;
        assert!((20..100).contains(&reused), "{name}: {reused}");
    }
}

#[test]
fn a_prompt_to_be_scored_is_computed() {
    let _alone = alone();
    let engine = with_cache("llama-base", PLENTY);
    let prompt = ids("llama-base", 50, 1);
    ask(&engine, &prompt, 3);
    let scored = Request {
        prompt_logprobs: true,
        ..request(&prompt, 0)
    };
    let mut events = engine.handle.submit(scored).unwrap();
    assert!(matches!(events.blocking_recv(), Some(Event::Started(_))));
    match events.blocking_recv() {
        Some(Event::Prompt(scores)) => assert_eq!(scores.len(), 50),
        other => panic!("{other:?}"),
    }
    assert_eq!(collect(events).stats.cached_tokens, 0);
}
