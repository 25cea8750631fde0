//! The engine with a model that counts upwards: what fails, hangs, is cancelled, or has to wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::double::{FAILS, Gate, PANICS, STEP_BYTES, start, start_gated, until};
use super::handle::{Handle, Health, SubmitError};
use super::options::Options;
use super::request::{Event, FinishReason, Request};
use super::thread::PANICKED;
use crate::sample::Params;

const PLENTY: usize = 1 << 30;

fn options() -> Options {
    Options {
        prefill_chunk: Some(4),
        warm_up: false,
        ..Options::default()
    }
}

fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        params: Params::default(),
        form: None,
        max_tokens,
        stop_ids: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
    }
}

/// The tokens and how it ended, or the failure's message.
fn collect(mut events: Receiver<Event>) -> Result<(Vec<u32>, FinishReason), String> {
    let mut tokens = Vec::new();
    loop {
        match events.blocking_recv() {
            Some(Event::Token { id, .. }) => tokens.push(id),
            Some(Event::Finished { reason, .. }) => return Ok((tokens, reason)),
            Some(Event::Failed(message)) => return Err(message),
            Some(Event::Started(_) | Event::Prompt(_)) => {}
            None => panic!("the channel closed before the end"),
        }
    }
}

fn counted(from: u32, n: u32) -> (Vec<u32>, FinishReason) {
    ((from..from + n).collect(), FinishReason::Length)
}

fn health(handle: &Handle) -> Health {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(handle.health(Duration::from_secs(20)))
}

/// Opens its gate when the test ends, also by failing: the engine, dropped next, waits for its thread.
struct Keeper(Arc<Gate>);

impl std::ops::Deref for Keeper {
    type Target = Gate;

    fn deref(&self) -> &Gate {
        &self.0
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// An engine behind a gate that is shut now, and the passes that went through before.
fn gated(capacity: usize, options: Options) -> (super::Engine, Keeper, usize) {
    let gate = Arc::new(Gate::default());
    let engine = start_gated(capacity, options, gate.clone()).unwrap();
    gate.close();
    let passed = gate.passed();
    (engine, Keeper(gate), passed)
}

#[test]
fn it_counts() {
    let engine = start(PLENTY, Options::default()).unwrap();
    let events = engine.handle.submit(request(&[3, 7], 5)).unwrap();
    assert_eq!(collect(events), Ok(counted(8, 5)));
}

#[test]
fn a_cancelled_prefill_ends_within_a_chunk() {
    let (engine, gate, before) = gated(PLENTY, options());
    let events = engine.handle.submit(request(&[1; 400], 5)).unwrap();
    gate.let_through(3);
    gate.wait_for(before + 3);
    drop(events);
    gate.open();
    assert_eq!(health(&engine.handle), Health::Well);
    until(|| engine.handle.memory().kv_reserved == 0);
    let passes = gate.passed() - before;
    assert!(passes <= 5, "{passes} of 100 chunks were computed");
}

#[test]
fn a_cancelled_answer_ends_within_a_step() {
    let (engine, gate, before) = gated(PLENTY, options());
    let mut events = engine.handle.submit(request(&[1; 4], 200)).unwrap();
    gate.let_through(6);
    gate.wait_for(before + 6);
    assert!(matches!(events.blocking_recv(), Some(Event::Started(_))));
    assert!(matches!(
        events.blocking_recv(),
        Some(Event::Token { id: 2, .. })
    ));
    drop(events);
    gate.open();
    assert_eq!(health(&engine.handle), Health::Well);
    until(|| engine.handle.memory().kv_reserved == 0);
    let passes = gate.passed() - before;
    assert!(passes <= 8, "{passes} of 200 steps were computed");
}

#[test]
fn a_failing_prefill_fails_its_request_only() {
    let engine = start(PLENTY, options()).unwrap();
    let well = engine.handle.submit(request(&[10], 60)).unwrap();
    let ill = engine.handle.submit(request(&[5, 6, FAILS], 9)).unwrap();
    let message = collect(ill).unwrap_err();
    assert!(message.contains("reshape"), "{message}");
    assert_eq!(collect(well), Ok(counted(11, 60)));
    let after = engine.handle.submit(request(&[40], 3)).unwrap();
    assert_eq!(collect(after), Ok(counted(41, 3)));
    assert_eq!(health(&engine.handle), Health::Well);
    until(|| engine.handle.memory().kv_reserved == 0);
}

/// Of three running requests two are in the step that fails; the third's prompt is still computed.
#[test]
fn a_failing_step_fails_the_requests_that_took_part() {
    let (engine, gate, _) = gated(PLENTY, options());
    let submit = |r| engine.handle.submit(r).unwrap();
    let ill = [submit(request(&[FAILS - 2], 30)), submit(request(&[9], 30))];
    let long = submit(request(&[20; 60], 8));
    gate.open();
    for events in ill {
        let message = collect(events).unwrap_err();
        assert!(message.contains("reshape"), "{message}");
    }
    assert_eq!(collect(long), Ok(counted(21, 8)));
    until(|| engine.handle.memory().kv_reserved == 0);
}

#[test]
fn a_panic_is_told_to_everyone() {
    let options = Options {
        max_running: 2,
        ..options()
    };
    let (mut engine, gate, _) = gated(PLENTY, options);
    let submit = |prompt: &[u32]| engine.handle.submit(request(prompt, 30)).unwrap();
    let told = [
        submit(&[1; 100]),
        submit(&[PANICS]),
        // These wait.
        submit(&[3]),
        submit(&[4]),
    ];
    gate.open();
    for events in told {
        assert_eq!(collect(events), Err(PANICKED.to_string()));
    }
    until(|| health(&engine.handle) == Health::Stopped);
    let refused = engine.handle.submit(request(&[1], 1)).err();
    assert_eq!(refused, Some(SubmitError::Stopped));
    let why = engine.stop().unwrap_err();
    assert!(why.contains("told to panic"), "{why}");
    assert_eq!(engine.handle.memory().kv_reserved, 0);
    assert_eq!(engine.handle.memory().waiting, 0);
}

#[test]
fn a_step_that_hangs_makes_the_engine_unwell_until_it_ends() {
    let options = Options {
        watchdog: Some(Duration::from_millis(100)),
        ..options()
    };
    let (engine, gate, _) = gated(PLENTY, options);
    assert_eq!(health(&engine.handle), Health::Well);
    let events = engine.handle.submit(request(&[1, 2, 3], 2)).unwrap();
    until(|| match health(&engine.handle) {
        Health::Stalled(stall) => {
            let text = stall.to_string();
            assert!(text.contains("the prefill of 3 tokens"), "{text}");
            true
        }
        _ => false,
    });
    gate.open();
    assert_eq!(collect(events), Ok(counted(4, 2)));
    until(|| health(&engine.handle) == Health::Well);
}

#[test]
fn what_can_never_fit_is_refused_at_once_with_the_numbers() {
    let engine = start(4 * STEP_BYTES, options()).unwrap();
    let refused = engine.handle.submit(request(&[1; 1000], 100)).err();
    let Some(error @ SubmitError::TooLarge { .. }) = refused else {
        panic!("{refused:?}");
    };
    let text = error.to_string();
    // 5 steps of room for 1100 positions; there are 4, for 1024.
    for part in [
        "10 kB",
        "8192 bytes",
        "1000 tokens",
        "100 of answer",
        "1024 tokens",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!error.passes());
    assert_eq!(engine.handle.memory().waiting, 0);
    let fits = engine.handle.submit(request(&[1; 1000], 24)).unwrap();
    assert_eq!(collect(fits).unwrap().0.len(), 24);
}

/// A request that has to wait for memory is not overtaken by smaller ones, however many come.
#[test]
fn the_queue_keeps_its_order() {
    let (engine, gate, _) = gated(4 * STEP_BYTES, options());
    let submit = |r| engine.handle.submit(r).unwrap();
    let small = |first| request(&[first], 5);
    let running = submit(request(&[1; 300], 100)); // 2 steps of room
    gate.let_through(80);
    until(|| engine.handle.memory().kv_reserved == 2 * STEP_BYTES);
    let mut big = submit(request(&[2; 600], 50)); // 3
    let mut others: Vec<_> = (0..5).map(|i| submit(small(10 + i))).collect(); // 1 each
    gate.let_through(20);
    assert_eq!(health(&engine.handle), Health::Well);
    for events in others.iter_mut().chain([&mut big]) {
        assert_eq!(events.try_recv().err(), Some(TryRecvError::Empty));
    }
    let parts = engine.handle.memory();
    assert_eq!(parts.kv_reserved, 2 * STEP_BYTES);
    assert_eq!(parts.waiting, 8 * STEP_BYTES);
    gate.open();
    assert_eq!(collect(running).unwrap().0.len(), 100);
    assert_eq!(collect(big).unwrap().0.len(), 50);
    for (i, events) in others.into_iter().enumerate() {
        assert_eq!(collect(events), Ok(counted(11 + i as u32, 5)));
    }
    until(|| engine.handle.memory().kv_reserved == 0);
    assert_eq!(engine.handle.memory().waiting, 0);
    assert_eq!(engine.handle.waiting(), 0);
}

#[test]
fn a_cancelled_request_frees_the_memory_that_others_wait_for() {
    let (engine, gate, _) = gated(4 * STEP_BYTES, options());
    let first = engine.handle.submit(request(&[1; 800], 100)).unwrap();
    gate.let_through(2);
    until(|| engine.handle.memory().kv_reserved == 4 * STEP_BYTES);
    let cancelled = engine.handle.submit(request(&[2; 900], 100)).unwrap();
    let second = engine.handle.submit(request(&[30; 700], 4)).unwrap();
    drop(cancelled);
    drop(first);
    gate.open();
    assert_eq!(collect(second), Ok(counted(31, 4)));
    until(|| engine.handle.memory().kv_reserved == 0);
    assert_eq!(engine.handle.memory().waiting, 0);
}

/// Of long answers only the beginning is reserved. When there is no memory for more, one ends with what
/// it has, and the other goes on.
#[test]
fn a_long_answer_goes_on_while_there_is_memory() {
    let options = Options {
        answer_reserve: 100,
        prefill_chunk: Some(512),
        ..options()
    };
    let engine = start(8 * STEP_BYTES, options).unwrap();
    let submit = |n| engine.handle.submit(request(&[1; 100], n)).unwrap();
    // Alone it gets what it asks for, beyond what was reserved.
    assert_eq!(collect(submit(1900)).unwrap().0.len(), 1900);
    let two = [submit(1900), submit(1900)];
    let lengths = two.map(|events| {
        let (tokens, reason) = collect(events).unwrap();
        assert_eq!(reason, FinishReason::Length);
        tokens.len()
    });
    assert!(lengths.contains(&1900) || lengths.iter().sum::<usize>() >= 1500);
    assert!(lengths.iter().any(|n| *n < 1900), "{lengths:?}");
    assert!(lengths.iter().all(|n| *n >= 100), "{lengths:?}");
    until(|| engine.handle.memory().kv_reserved == 0);
}

#[test]
fn warming_up_leaves_nothing_behind() {
    let options = Options {
        warm_up: true,
        ..options()
    };
    let engine = start(PLENTY, options).unwrap();
    let parts = engine.handle.memory();
    assert_eq!((parts.kv_reserved, parts.waiting, parts.kv), (0, 0, 0));
    assert_eq!(engine.handle.waiting(), 0);
    let events = engine.handle.submit(request(&[3], 2)).unwrap();
    assert_eq!(collect(events), Ok(counted(4, 2)));
}

#[test]
fn a_model_that_leaves_no_room_is_refused_with_the_numbers() {
    let error = start(STEP_BYTES - 1, options()).err().unwrap().to_string();
    assert!(
        error.contains("2047 bytes") && error.contains("--memory"),
        "{error}"
    );
}
