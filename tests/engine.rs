//! The engine thread with a real (small) model: requests alone and together, cancelling, failing,
//! and returning what they took. `PENSIEVE_GOLDEN_DEVICE=gpu` runs it on the GPU.

mod common;

use std::time::{Duration, Instant};

use common::golden::{case, device};
use pensieve::cache::{Batch, LayerCache};
use pensieve::checkpoint::Source;
use pensieve::checkpoint::WeightsAs;
use pensieve::engine::{Engine, Event, FinishReason, MemoryLimit, Options, Request, SubmitError};
use pensieve::mlx::{Device, Runtime, memory, stream_count};
use pensieve::models;
use pensieve::sample::Params;
use tokio::sync::mpsc::Receiver;

/// Architectures for each kind of cache and their mixtures: full, sliding, latent, recurrent, shared,
/// with sinks, with queries that grow with their positions.
const BATCHED: &[&str] = &[
    "llama-base",
    "llama-sliding",
    "deepseek_v3-base",
    "mamba2-base",
    "lfm2-base",
    "qwen3_next-base",
    "nemotron_h-base",
    "gemma4_text-shared",
    "gpt_oss-base",
    "ministral3-sliding-tied",
];

/// MLX's counters are the process's own, so tests that read them, or load it, run one by one.
static ONE_BY_ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn start(options: Options) -> Engine {
    start_case("llama-base", options)
}

fn start_case(name: &str, options: Options) -> Engine {
    let options = Options {
        device: Some(device()),
        ..options
    };
    let checkpoint = case(name).checkpoint();
    let source = Source::Directory(checkpoint.path().to_path_buf());
    Engine::start(source, options, |_, _| {}).unwrap()
}

fn expected() -> (Vec<u32>, Vec<u32>) {
    let case = case("llama-base");
    (case.prompt, case.greedy)
}

fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        params: Params::default(),
        max_tokens,
        form: None,
        stop_ids: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
    }
}

struct Answer {
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    prompt: Vec<Option<f32>>,
    reason: FinishReason,
}

fn collect(mut events: Receiver<Event>) -> Answer {
    let (mut tokens, mut logprobs, mut prompt) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match events
            .blocking_recv()
            .expect("an end before the channel closes")
        {
            Event::Started(_) => {}
            Event::Prompt(scores) => {
                prompt = scores
                    .iter()
                    .map(|s| s.as_ref().map(|s| s.logprob))
                    .collect();
            }
            Event::Token { id, logprob } => {
                tokens.push(id);
                logprobs.extend(logprob.map(|scored| {
                    assert_eq!(scored.id, id);
                    scored.logprob
                }));
            }
            Event::Finished { reason, .. } => {
                assert!(events.blocking_recv().is_none(), "nothing after the end");
                return Answer {
                    tokens,
                    logprobs,
                    prompt,
                    reason,
                };
            }
            Event::Failed(message) => panic!("{message}"),
        }
    }
}

#[test]
fn greedy_text_is_the_reference_whatever_the_chunk() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (prompt, greedy) = expected();
    for prefill_chunk in [1, 7, 512] {
        let mut engine = start(Options {
            prefill_chunk: Some(prefill_chunk),
            ..Options::default()
        });
        let events = engine
            .handle
            .submit(request(&prompt, greedy.len()))
            .unwrap();
        let answer = collect(events);
        assert_eq!(answer.tokens, greedy);
        assert_eq!(answer.reason, FinishReason::Length);
        engine.stop().unwrap();
    }
}

#[test]
fn requests_together_are_as_alone() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    let engine = start(Options::default());
    let (prompt, _) = expected();
    let requests: Vec<Request> = (0..7u64)
        .map(|i| Request {
            params: Params {
                temperature: 0.9,
                top_p: 0.95,
                seed: i,
                ..Params::default()
            },
            logprobs: Some(3),
            ..request(&prompt[..prompt.len() - i as usize], 12)
        })
        .collect();
    let submit = |r: &Request| engine.handle.submit(r.clone()).unwrap();
    let alone: Vec<Answer> = requests.iter().map(|r| collect(submit(r))).collect();
    let together: Vec<_> = requests.iter().map(submit).collect();
    for (events, alone) in together.into_iter().zip(&alone) {
        let answer = collect(events);
        assert_eq!(answer.tokens, alone.tokens);
        // A batch rounds in another order.
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
        assert!(answer.logprobs.iter().zip(&alone.logprobs).all(close));
        assert_eq!(answer.logprobs.len(), answer.tokens.len());
    }
    let texts: std::collections::BTreeSet<_> = alone.iter().map(|a| &a.tokens).collect();
    assert!(texts.len() > 4, "different seeds give different texts");
}

/// Prompts of different lengths that start, end and are cancelled while others run: each answer is
/// what it is alone, whatever its layers remember.
#[test]
fn a_batch_of_n_equals_n_singles() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    for name in BATCHED {
        let case = case(name);
        let mut engine = start_case(
            name,
            Options {
                max_running: 5,
                prefill_chunk: Some(13),
                ..Options::default()
            },
        );
        let n = case.prompt.len();
        let requests: Vec<Request> = (0..9)
            .map(|i| request(&case.prompt[i..n - 3 * (i % 4)], 5 + 4 * i))
            .collect();
        let submit = |r: &Request| engine.handle.submit(r.clone()).unwrap();
        let alone: Vec<Answer> = requests.iter().map(|r| collect(submit(r))).collect();
        drop(submit(&request(&case.prompt, 30)));
        let together: Vec<_> = requests.iter().map(submit).collect();
        drop(submit(&request(&case.prompt, 30)));
        for (i, (events, alone)) in together.into_iter().zip(&alone).enumerate() {
            assert_eq!(collect(events).tokens, alone.tokens, "{name} {i}");
            assert_eq!(alone.tokens.len(), requests[i].max_tokens, "{name} {i}");
        }
        engine.stop().unwrap();
    }
}

#[test]
fn scoring_a_prompt_agrees_with_generating_it() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    let engine = start(Options {
        prefill_chunk: Some(9),
        ..Options::default()
    });
    let (prompt, greedy) = expected();
    let generated = collect(
        engine
            .handle
            .submit(Request {
                logprobs: Some(0),
                ..request(&prompt, greedy.len())
            })
            .unwrap(),
    );
    let whole = [prompt.clone(), greedy.clone()].concat();
    let scored = collect(
        engine
            .handle
            .submit(Request {
                logprobs: Some(5),
                prompt_logprobs: true,
                ..request(&whole, 0)
            })
            .unwrap(),
    );
    assert!(scored.tokens.is_empty());
    assert_eq!(scored.prompt.len(), whole.len());
    assert_eq!(scored.prompt[0], None);
    for (a, b) in scored.prompt[prompt.len()..]
        .iter()
        .zip(&generated.logprobs)
    {
        assert!((a.unwrap() - b).abs() < 2e-4);
    }
}

#[test]
fn a_stop_id_ends_the_answer_and_is_not_reported() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    let engine = start(Options::default());
    let (prompt, greedy) = expected();
    let stop = greedy[10];
    let first = greedy.iter().position(|id| *id == stop).unwrap();
    let events = engine.handle.submit(Request {
        stop_ids: vec![stop],
        ..request(&prompt, 32)
    });
    let answer = collect(events.unwrap());
    assert_eq!(answer.tokens, greedy[..first]);
    assert_eq!(answer.reason, FinishReason::Stop);
}

#[test]
fn what_cannot_be_served_is_refused_by_field() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    let engine = start(Options {
        context_length: Some(50),
        queue_limit: 2,
        ..Options::default()
    });
    let refused = |request: Request| match engine.handle.submit(request) {
        Err(SubmitError::Invalid { field, message, .. }) => (field, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("taken"),
    };
    assert_eq!(refused(request(&[], 1)).0, "prompt");
    let (field, message) = refused(request(&[1, 96], 1));
    assert_eq!(field, "prompt");
    assert!(
        message.contains("96") && message.contains("vocabulary"),
        "{message}"
    );
    let (_, message) = refused(request(&[1; 51], 1));
    assert!(
        message.contains("51 tokens") && message.contains("50"),
        "{message}"
    );
    assert_eq!(refused(request(&[1; 50], 1)).0, "prompt");
    // The rest of the context bounds the answer, however much is asked for.
    let answer = collect(engine.handle.submit(request(&[1; 45], usize::MAX)).unwrap());
    assert_eq!(
        (answer.tokens.len(), answer.reason),
        (5, FinishReason::Length)
    );
    let hot = Params {
        temperature: f32::NAN,
        ..Params::default()
    };
    let hot = Request {
        params: hot,
        ..request(&[1], 1)
    };
    assert_eq!(refused(hot).0, "temperature");
    let many = Request {
        logprobs: Some(21),
        ..request(&[1], 1)
    };
    assert_eq!(refused(many).0, "logprobs");
}

#[test]
fn a_full_queue_says_so_and_cancelled_requests_leave_it() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    let engine = start(Options {
        queue_limit: 3,
        max_running: 1,
        ..Options::default()
    });
    let (prompt, _) = expected();
    let mut taken = Vec::new();
    let full = (0..50).find_map(|_| match engine.handle.submit(request(&prompt, 400)) {
        Ok(events) => {
            taken.push(events);
            None
        }
        Err(error) => Some(error),
    });
    assert_eq!(full, Some(SubmitError::Full(3)));
    assert!((3..=4).contains(&taken.len()), "{}", taken.len());
    taken.clear();
    let patience = Instant::now();
    let events = loop {
        match engine.handle.submit(request(&prompt, 3)) {
            Ok(events) => break events,
            Err(_) if patience.elapsed() < Duration::from_secs(20) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(collect(events).tokens.len(), 3);
}

#[test]
fn the_engine_answers_pings_while_all_places_are_taken() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    let mut engine = start(Options {
        max_running: 1,
        ..Options::default()
    });
    let (prompt, _) = expected();
    let busy = engine.handle.submit(request(&prompt, 400)).unwrap();
    let waiting = engine.handle.submit(request(&prompt, 400)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    assert!(runtime.block_on(engine.handle.ping(Duration::from_secs(20))));
    // Stopping waits for nobody: the channels close without an end.
    let (mut busy, mut waiting) = (busy, waiting);
    engine.stop().unwrap();
    while let Some(event) = busy.blocking_recv() {
        assert!(matches!(event, Event::Started(_) | Event::Token { .. }));
    }
    assert!(waiting.blocking_recv().is_none());
    let refused = engine.handle.submit(request(&prompt, 1)).err();
    assert_eq!(refused, Some(SubmitError::Stopped));
}

/// A thousand steps give back every array and make no stream.
#[test]
fn a_thousand_steps_leak_nothing() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    let engine = start(Options::default());
    let (prompt, _) = expected();
    let generate = |n: usize, seed| {
        let params = Params {
            temperature: 1.0,
            top_k: 20,
            seed,
            ..Params::default()
        };
        let request = Request {
            params,
            logprobs: Some(2),
            ..request(&prompt, n)
        };
        assert_eq!(
            collect(engine.handle.submit(request).unwrap()).tokens.len(),
            n
        );
    };
    let settled = || {
        // The sequence is dropped right after its last event; a ping shows that this is done.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        assert!(runtime.block_on(engine.handle.ping(Duration::from_secs(20))));
        (memory().unwrap().active, stream_count().unwrap())
    };
    generate(50, 0);
    let before = settled();
    for seed in 1..=5 {
        generate(200, seed);
    }
    assert_eq!(settled(), before);
}

/// What admission expects of a sequence is what its caches weigh, for every kind of cache.
#[test]
fn what_a_sequence_takes_is_foretold() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for name in BATCHED {
        let checkpoint = case(name).checkpoint();
        let source = Source::Directory(checkpoint.path().to_path_buf());
        let needed = models::resident_bytes(&source, None, WeightsAs::Stored).unwrap();
        let loaded = models::load(&source, WeightsAs::Stored, &|_, _| {}).unwrap();
        let model = loaded.model;
        assert_eq!(
            model.facts().weight_bytes,
            needed,
            "{name}: before and after loading"
        );
        let mut probe = model.caches();
        model
            .forward(&Batch::single(&[1], 0).unwrap(), &mut probe)
            .unwrap();
        let growths: Vec<_> = probe.iter().map(LayerCache::growth).collect();
        let mut caches = model.caches();
        let chunk = 90;
        for from in (0..540).step_by(chunk) {
            let batch = Batch::single(&vec![1; chunk], from).unwrap();
            model.forward(&batch, &mut caches).unwrap().eval().unwrap();
            let to = from + chunk;
            let real: usize = caches.iter().map(LayerCache::nbytes).sum();
            let foretold: usize = growths.iter().map(|g| g.bytes_at(to, chunk)).sum();
            assert!(real <= foretold, "{name} at {to}: {real} > {foretold}");
            // A window's room may be two steps less; there are no more than 1024 positions of it.
            assert!(
                foretold <= 2 * real,
                "{name} at {to}: {real}, foretold {foretold}"
            );
        }
    }
}

#[test]
fn weights_over_the_budget_are_refused_before_they_are_read() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    let checkpoint = case("llama-base").checkpoint();
    let source = Source::Directory(checkpoint.path().to_path_buf());
    let options = Options {
        device: Some(Device::Cpu),
        memory: MemoryLimit::Bytes(20_000),
        ..Options::default()
    };
    let read = |_, _| panic!("nothing is read");
    let error = Engine::start(source, options, read).err().unwrap();
    let text = error.to_string();
    for part in ["20 kB", "as told", "--memory"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn the_parts_of_memory_add_up() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(|e| e.into_inner());
    let engine = start(Options::default());
    let handle = &engine.handle;
    let (prompt, _) = expected();
    let length = handle.facts().context_length.min(prompt.len() + 400);
    let events = handle.submit(request(&prompt, length - prompt.len()));
    let mut events = events.unwrap();
    let patience = Instant::now();
    let running = loop {
        events.blocking_recv().unwrap();
        let parts = handle.memory();
        if parts.kv > 0 {
            break parts;
        }
        assert!(patience.elapsed() < Duration::from_secs(20));
    };
    assert_eq!(running.weights, handle.facts().weight_bytes);
    assert_eq!(running.kv_reserved, handle.sequence_bytes(length));
    assert!(running.kv <= running.kv_reserved, "{running:?}");
    let taken = running.weights + running.step_reserved + running.kv_capacity;
    assert_eq!(taken, running.budget);
    assert!(running.peak >= running.weights + running.kv, "{running:?}");
    drop(events);
    while handle.memory().kv_reserved > 0 {
        assert!(patience.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
}
