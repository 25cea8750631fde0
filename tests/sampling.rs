//! Sampling and forms through the engine: seeds alone, in a batch and after a restart; rows that the
//! host must follow beside rows that run ahead.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::golden::case;
use pensieve::checkpoint::Source;
use pensieve::engine::{Engine, Event, FinishReason, Options, Request, SubmitError, TokenLogprob};
use pensieve::mlx::Device;
use pensieve::sample::{Allowed, Dry, Form, Guide, Params, Penalty, Window, Xtc};
use tokio::sync::mpsc::Receiver;

fn start(options: Options) -> Engine {
    let options = Options {
        device: Some(Device::Cpu),
        ..options
    };
    let checkpoint = case("llama-base").checkpoint();
    let source = Source::Directory(checkpoint.path().to_path_buf());
    Engine::start(source, options, |_, _| {}).unwrap()
}

fn eight() -> Options {
    Options {
        max_running: 8,
        ..Options::default()
    }
}

fn prompt() -> Vec<u32> {
    case("llama-base").prompt
}

fn request(params: Params, max_tokens: usize) -> Request {
    Request {
        prompt: prompt(),
        params,
        max_tokens,
        form: None,
        stop_ids: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
    }
}

fn warm(seed: u64) -> Params {
    Params {
        temperature: 1.0,
        seed,
        ..Params::default()
    }
}

#[derive(Debug, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    end: Result<FinishReason, String>,
}

/// The answer, and its log-probabilities.
fn scored(mut events: Receiver<Event>) -> (Answer, Vec<TokenLogprob>) {
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    loop {
        let end = match events
            .blocking_recv()
            .expect("an end before the channel closes")
        {
            Event::Started(_) | Event::Prompt(_) => continue,
            Event::Token { id, logprob } => {
                tokens.push(id);
                logprobs.extend(logprob);
                continue;
            }
            Event::Finished { reason, .. } => Ok(reason),
            Event::Failed(message) => Err(message),
        };
        assert!(events.blocking_recv().is_none(), "nothing after the end");
        return (Answer { tokens, end }, logprobs);
    }
}

fn answer(engine: &Engine, request: &Request) -> Answer {
    scored(engine.handle.submit(request.clone()).unwrap()).0
}

/// All at once.
fn answers(engine: &Engine, requests: &[Request]) -> Vec<Answer> {
    let submit = |r: &Request| engine.handle.submit(r.clone()).unwrap();
    let events: Vec<_> = requests.iter().map(submit).collect();
    events.into_iter().map(|events| scored(events).0).collect()
}

/// Every setting at once.
fn everything(seed: u64) -> Params {
    let penalty = |strength, window| Penalty { strength, window };
    Params {
        temperature: 1.3,
        top_p: 0.97,
        top_k: 60,
        min_p: 0.001,
        typical_p: 0.98,
        xtc: Xtc {
            probability: 0.4,
            threshold: 0.05,
        },
        dry: Dry {
            multiplier: 0.8,
            allowed_length: 1,
            ..Dry::default()
        },
        repetition: penalty(1.2, Window::Last(20)),
        presence: penalty(0.3, Window::Answer),
        frequency: penalty(0.2, Window::Last(7)),
        logit_bias: vec![(5, 1.5), (9, -2.0)],
        min_tokens: 4,
        ignore_eos: true,
        seed,
    }
}

#[test]
fn a_seed_gives_one_text_alone_in_a_batch_and_after_a_restart() {
    let requests: Vec<Request> = (0..8)
        .map(|i| {
            let params = match i {
                0 | 1 => warm(i),
                2 => Params::default(),
                _ => everything(i),
            };
            let mut request = request(params, 10 + 3 * i as usize);
            request.prompt.truncate(12 + 2 * i as usize);
            request
        })
        .collect();
    let mut engine = start(eight());
    let alone: Vec<Answer> = requests.iter().map(|r| answer(&engine, r)).collect();
    assert_eq!(answers(&engine, &requests), alone);
    engine.stop().unwrap();
    let again = start(eight());
    assert_eq!(answers(&again, &requests), alone);
    let texts: std::collections::BTreeSet<_> = alone.iter().map(|a| &a.tokens).collect();
    assert_eq!(texts.len(), 8);
    for (answer, request) in alone.iter().zip(&requests) {
        assert_eq!(answer.tokens.len(), request.max_tokens);
    }
}

#[test]
fn logprobs_in_a_batch_are_those_alone_however_many_others_want() {
    let engine = start(eight());
    let requests: Vec<Request> = [Some(0), None, Some(3), Some(20), Some(1), None]
        .into_iter()
        .zip(0..)
        .map(|(logprobs, seed)| Request {
            logprobs,
            ..request(everything(seed), 12)
        })
        .collect();
    let submit = |r: &Request| engine.handle.submit(r.clone()).unwrap();
    let alone: Vec<_> = requests.iter().map(|r| scored(submit(r))).collect();
    let together: Vec<_> = requests.iter().map(submit).collect();
    for ((events, alone), request) in together.into_iter().zip(alone).zip(&requests) {
        let (answer, scores) = scored(events);
        assert_eq!(answer, alone.0);
        let wanted = request.logprobs.map_or(0, |_| 12);
        assert_eq!((scores.len(), alone.1.len()), (wanted, wanted));
        for ((score, alone), id) in scores.iter().zip(&alone.1).zip(&answer.tokens) {
            assert_eq!((score.id, alone.id), (*id, *id));
            assert!((score.logprob - alone.logprob).abs() < 1e-4);
            assert_eq!(score.top.len(), request.logprobs.unwrap());
            assert_eq!(score.top.len(), alone.top.len());
            // The model's own distribution, whatever the request does with it.
            assert!(score.top.iter().all(|(_, logprob)| *logprob <= 0.0));
            assert!(score.top.windows(2).all(|two| two[0].1 >= two[1].1));
        }
    }
}

/// Even tokens only, then the end: as a token, or as nothing more.
struct Evens {
    left: usize,
    vocab: u32,
    eos: Option<u32>,
    trouble: Option<Trouble>,
}

#[derive(Clone, Copy)]
enum Trouble {
    Error,
    Panic,
    Refuse,
}

impl Guide for Evens {
    fn accept(&mut self, id: u32) -> Result<(), String> {
        if id % 2 == 1 {
            return Err(format!("{id} is odd"));
        }
        if self.left == 1 && matches!(self.trouble, Some(Trouble::Refuse)) {
            return Err(format!("{id} is refused"));
        }
        self.left -= 1;
        Ok(())
    }

    fn allowed(&mut self) -> Result<Allowed, String> {
        let mut words = vec![0u32; self.vocab.div_ceil(32) as usize];
        let mut allow = |id: u32| words[id as usize / 32] |= 1 << (id % 32);
        match (self.left, self.trouble, self.eos) {
            (0, Some(Trouble::Error), _) => return Err("too complex".into()),
            (0, Some(Trouble::Panic), _) => panic!("a bug in the grammar"),
            (0, _, None) => return Ok(Allowed::Nothing),
            (0, _, Some(eos)) => allow(eos),
            _ => (0..self.vocab).step_by(2).for_each(&mut allow),
        }
        Ok(Allowed::These(words))
    }
}

fn evens(n: usize, eos: Option<u32>, trouble: Option<Trouble>) -> Option<Form> {
    Some(Form::new(move || {
        Ok(Box::new(Evens {
            left: n,
            vocab: 96,
            eos,
            trouble,
        }))
    }))
}

fn is_even(answer: &Answer) -> bool {
    answer.tokens.iter().all(|id| id % 2 == 0)
}

#[test]
fn forms_hold_in_a_batch_with_free_rows() {
    // An odd end-of-sequence token, which no answer would come to by itself.
    let engine = start(Options {
        eos_ids: vec![95],
        ..eight()
    });
    let formed = |params, n, eos| Request {
        form: evens(n, eos, None),
        logprobs: Some(2),
        ..request(params, 12)
    };
    let free = |seed| Request {
        params: Params {
            ignore_eos: true,
            ..warm(seed)
        },
        ..request(warm(seed), 20)
    };
    let requests = [
        free(1),
        formed(Params::default(), 5, None),
        formed(warm(2), 5, Some(95)),
        free(3),
        formed(everything(4), 7, None),
        formed(everything(5), 30, None),
        Request {
            params: Params::default(),
            ..free(6)
        },
        formed(warm(7), 0, None),
    ];
    let alone: Vec<Answer> = requests.iter().map(|r| answer(&engine, r)).collect();
    assert_eq!(answers(&engine, &requests), alone);
    let end = |i: usize| (alone[i].tokens.len(), alone[i].end.clone());
    use FinishReason::{Length, Stop};
    assert_eq!(end(1), (5, Ok(Stop)));
    assert_eq!(end(2), (5, Ok(Stop)));
    assert_eq!(end(4), (7, Ok(Stop)));
    assert_eq!(end(5), (12, Ok(Length)), "cut short before it was complete");
    assert_eq!(end(7), (0, Ok(Stop)));
    for i in [1, 2, 4, 5] {
        assert!(is_even(&alone[i]), "{:?}", alone[i]);
    }
    for i in [0, 3, 6] {
        assert_eq!(end(i), (20, Ok(Length)));
    }
    assert!(
        !is_even(&alone[0]) && !is_even(&alone[6]),
        "the free ones are free"
    );
    // Free rows are what they are without any form beside them.
    let others = [
        requests[0].clone(),
        requests[3].clone(),
        requests[6].clone(),
    ];
    let without = answers(&engine, &others);
    assert_eq!(
        without.iter().collect::<Vec<_>>(),
        [&alone[0], &alone[3], &alone[6]]
    );
}

#[test]
fn a_form_that_fails_fails_its_own_request() {
    let engine = start(eight());
    let broken = |trouble| Request {
        form: evens(3, None, Some(trouble)),
        ..request(warm(4), 12)
    };
    let impossible = Request {
        form: Some(Form::new(|| Err("this grammar has no start".into()))),
        ..request(warm(4), 12)
    };
    let outside = Request {
        form: Some(Form::new(|| {
            Ok(Box::new(Evens {
                left: 0,
                vocab: 200,
                eos: Some(150),
                trouble: None,
            }))
        })),
        ..request(warm(4), 12)
    };
    let requests = [
        request(warm(1), 20),
        broken(Trouble::Error),
        broken(Trouble::Panic),
        broken(Trouble::Refuse),
        impossible,
        outside,
        request(everything(2), 20),
    ];
    let alone: Vec<Answer> = requests.iter().map(|r| answer(&engine, r)).collect();
    assert_eq!(answers(&engine, &requests), alone);
    let expected = [
        (1, 3, "too complex"),
        (2, 3, "a bug in the grammar"),
        (3, 3, "is refused"),
        (4, 0, "this grammar has no start"),
        (5, 0, "no token of the model's vocabulary"),
    ];
    for (i, n, text) in expected {
        let message = alone[i].end.as_ref().unwrap_err();
        assert!(
            message.contains(text) && message.contains("form"),
            "{message}"
        );
        assert_eq!(alone[i].tokens.len(), n);
    }
    for i in [0, 6] {
        assert_eq!(alone[i].end, Ok(FinishReason::Length));
    }
}

/// Takes its time, and sees how many do so with it.
struct Counts(Arc<[AtomicUsize; 2]>);

impl Guide for Counts {
    fn accept(&mut self, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn allowed(&mut self) -> Result<Allowed, String> {
        assert_eq!(std::thread::current().name(), Some("guide"));
        let [now, peak] = &*self.0;
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        now.fetch_sub(1, Ordering::SeqCst);
        Ok(Allowed::These(vec![u32::MAX; 3]))
    }
}

#[test]
fn guides_of_several_rows_work_at_the_same_time_off_the_engines_thread() {
    let engine = start(eight());
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let shared = counts.clone();
    let form = Form::new(move || Ok(Box::new(Counts(shared.clone()))));
    let requests = [1, 2, 3].map(|seed| Request {
        form: Some(form.clone()),
        ..request(warm(seed), 6)
    });
    for answer in answers(&engine, &requests) {
        assert_eq!(answer.tokens.len(), 6);
    }
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 3));
    assert_eq!(counts[1].load(Ordering::SeqCst), threads);
}

/// Others get on, and the engine answers, while a form is being made.
#[test]
fn nobody_waits_for_the_beginning_of_anothers_form() {
    let engine = start(eight());
    let (go, wait) = std::sync::mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let form = Form::new(move || {
        let go = wait.lock().unwrap().recv_timeout(Duration::from_secs(60));
        go.map_err(|_| "nobody else got on")?;
        Ok(Box::new(Evens {
            left: 3,
            vocab: 96,
            eos: None,
            trouble: None,
        }))
    });
    let slow = Request {
        form: Some(form),
        ..request(warm(1), 10)
    };
    let slow = engine.handle.submit(slow).unwrap();
    for seed in 2..5 {
        assert_eq!(answer(&engine, &request(warm(seed), 20)).tokens.len(), 20);
    }
    go.send(()).unwrap();
    let (slow, _) = scored(slow);
    assert_eq!(
        (slow.tokens.len(), slow.end.clone()),
        (3, Ok(FinishReason::Stop))
    );
    assert!(is_even(&slow));
}

#[test]
fn an_answer_has_its_least_length_and_then_ends() {
    let engine = start(Options {
        // All tokens but one end an answer.
        eos_ids: (1..96).collect(),
        ..eight()
    });
    let with = |min_tokens, ignore_eos| Params {
        min_tokens,
        ignore_eos,
        logit_bias: vec![(0, -100.0)],
        ..Params::default()
    };
    let requests = [
        request(with(0, false), 9),
        request(with(4, false), 9),
        request(with(9, false), 9),
        request(with(0, true), 9),
        Request {
            stop_ids: vec![0],
            ..request(with(0, true), 9)
        },
    ];
    let ends: Vec<_> = answers(&engine, &requests)
        .into_iter()
        .map(|answer| (answer.tokens.len(), answer.end.unwrap()))
        .collect();
    use FinishReason::{Length, Stop};
    assert_eq!(
        ends,
        [(0, Stop), (4, Stop), (9, Length), (9, Length), (0, Stop)]
    );
}

#[test]
fn dry_and_penalties_keep_an_answer_from_repeating_itself() {
    let engine = start(eight());
    let dry = Dry {
        multiplier: 100.0,
        allowed_length: 1,
        ..Dry::default()
    };
    let distinct = Params {
        presence: Penalty {
            strength: 100.0,
            window: Window::Answer,
        },
        ..Params::default()
    };
    let never_twice = request(distinct, 60);
    let no_pair = Request {
        prompt: vec![3, 1],
        ..request(
            Params {
                dry,
                ..Params::default()
            },
            60,
        )
    };
    let [once, pairs] = answers(&engine, &[never_twice, no_pair])
        .try_into()
        .unwrap();
    let all: std::collections::BTreeSet<_> = once.tokens.iter().collect();
    assert_eq!(all.len(), 60);
    let text = [&[3, 1], &pairs.tokens[..]].concat();
    let two: std::collections::BTreeSet<_> = text.windows(2).collect();
    assert_eq!(two.len(), text.len() - 1, "no pair of tokens comes twice");
}

#[test]
fn what_no_vocabulary_or_answer_has_is_refused() {
    let engine = start(eight());
    let refused = |request: Request| match engine.handle.submit(request) {
        Err(SubmitError::Invalid { field, message, .. }) => (field, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("taken"),
    };
    let biased = |id| Params {
        logit_bias: vec![(id, 1.0)],
        ..Params::default()
    };
    let (field, message) = refused(request(biased(96), 5));
    assert_eq!(field, "logit_bias");
    assert!(
        message.contains("96") && message.contains("vocabulary"),
        "{message}"
    );
    assert_eq!(answer(&engine, &request(biased(95), 5)).tokens.len(), 5);
    let least = |min_tokens| Params {
        min_tokens,
        ..Params::default()
    };
    let (field, message) = refused(request(least(6), 5));
    assert_eq!(field, "min_tokens");
    assert!(message.contains('6') && message.contains('5'), "{message}");
}

/// A client that leaves while its guide works takes nothing with it.
#[test]
fn a_request_with_a_form_can_be_cancelled() {
    struct Slow;
    impl Guide for Slow {
        fn accept(&mut self, _: u32) -> Result<(), String> {
            Ok(())
        }
        fn allowed(&mut self) -> Result<Allowed, String> {
            std::thread::sleep(Duration::from_millis(20));
            Ok(Allowed::These(vec![u32::MAX; 3]))
        }
    }
    let engine = start(eight());
    let form = Form::new(|| Ok(Box::new(Slow)));
    let slow = Request {
        form: Some(form),
        ..request(warm(1), 400)
    };
    let expected = answer(&engine, &request(warm(2), 20));
    drop(engine.handle.submit(slow.clone()).unwrap());
    let mut cancelled = engine.handle.submit(slow).unwrap();
    assert!(matches!(cancelled.blocking_recv(), Some(Event::Started(_))));
    assert!(matches!(
        cancelled.blocking_recv(),
        Some(Event::Token { .. })
    ));
    drop(cancelled);
    assert_eq!(answer(&engine, &request(warm(2), 20)), expected);
}
