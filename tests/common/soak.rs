//! Many short requests from many clients, some of which leave: every answer must be the one that its
//! prompt gets alone, and everything taken must come back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pensieve::builtin;
use pensieve::engine::{Engine, Event, Options, Request, SubmitError};
use pensieve::mlx::{memory, stream_count};
use pensieve::sample::Params;
use pensieve::text::{Chat, Text};
use serde_json::{Value, json};

/// How much of what.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub requests: usize,
    pub clients: usize,
    /// Of a hundred requests so many are left by their client, somewhere on the way.
    pub dropped_percent: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub completed: usize,
    pub dropped: usize,
    /// Times that a client was told to come again.
    pub busy: usize,
    pub tokens: usize,
    pub seconds: f64,
    /// Bytes of arrays before and after.
    pub before: usize,
    pub after: usize,
    /// The most bytes of arrays at a time.
    pub peak: usize,
    /// MLX's streams before and after.
    pub streams: (usize, usize),
}

const QUESTIONS: &[&str] = &[
    "What is the capital of France?",
    "What is the capital of Japan?",
    "What does 27 + 73 equal?",
    "What is 12 + 30?",
    "Name the day before Thursday",
    "Which day comes after Monday?",
    "What is the opposite of hot?",
    "Turn 3000 millimetres into meters.",
    "Hello!",
    "Tell me about the capital of Egypt, please.",
];

/// Greedy and drawn answers of several lengths to every question.
fn asked(engine: &Engine, text: &Text) -> Vec<Request> {
    let mut requests = Vec::new();
    for (i, question) in QUESTIONS.iter().enumerate() {
        let chat = Chat {
            messages: vec![json!({"role": "user", "content": question})],
            add_generation_prompt: true,
            ..Chat::default()
        };
        let prompt = text.encode_chat(&chat).unwrap();
        assert!(prompt.len() < engine.handle.facts().context_length);
        for j in 0..4 {
            let params = match j {
                0 | 1 => Params::default(),
                _ => Params {
                    temperature: 1.0,
                    top_p: 0.95,
                    seed: (10 * i + j) as u64,
                    ..Params::default()
                },
            };
            requests.push(Request {
                prompt: prompt.clone(),
                params,
                form: None,
                max_tokens: [3, 8, 1, 6][j],
                stop_ids: Vec::new(),
                logprobs: None,
                prompt_logprobs: false,
            });
        }
    }
    requests
}

/// The whole answer, or as much of it as came before the client left, after `leave` events.
fn answer(engine: &Engine, request: &Request, leave: Option<usize>, busy: &AtomicUsize) -> Answer {
    let mut events = loop {
        match engine.handle.submit(request.clone()) {
            Ok(events) => break events,
            Err(SubmitError::Full(_) | SubmitError::Crowded { .. }) => {
                busy.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{error}"),
        }
    };
    let mut tokens = Vec::new();
    for seen in 0.. {
        if leave == Some(seen) {
            return Answer::Left;
        }
        match events.blocking_recv() {
            Some(Event::Token { id, .. }) => tokens.push(id),
            Some(Event::Started(_) | Event::Prompt(_)) => {}
            Some(Event::Finished { .. }) => break,
            Some(Event::Failed(message)) => panic!("{message}"),
            None => panic!("a stream closed before its end"),
        }
    }
    Answer::Whole(tokens)
}

#[derive(Debug, PartialEq)]
enum Answer {
    Whole(Vec<u32>),
    Left,
}

/// Bytes of arrays and streams once nothing runs.
fn settled(engine: &Engine) -> (usize, usize) {
    let start = Instant::now();
    loop {
        let parts = engine.handle.memory();
        if (parts.kv_reserved, parts.waiting, engine.handle.waiting()) == (0, 0, 0) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{parts:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    // What was dropped last is let go of when a ping is answered.
    let clock = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    assert!(clock.block_on(engine.handle.ping(Duration::from_secs(60))));
    // MLX may still compute a step whose listeners have left, and holds its arrays until then.
    let (mut active, mut since) = (memory().unwrap().active, Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(5));
        let now = memory().unwrap().active;
        if now != active {
            (active, since) = (now, Instant::now());
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{active} bytes");
    }
    (active, stream_count().unwrap())
}

/// Runs the plan on the shipped model. Panics at the first answer that is not right.
pub fn run(plan: Plan, options: Options) -> Outcome {
    let source = builtin::source("tiny").expect("the built-in model");
    let text = Text::open(|file| source.read(file)).unwrap();
    let options = Options {
        eos_ids: text.tokenizer().eos_token_id().into_iter().collect(),
        ..options
    };
    let mut engine = Engine::start(source, options, |_, _| {}).unwrap();
    let requests = asked(&engine, &text);
    let busy = AtomicUsize::new(0);
    let alone: Vec<Answer> = requests
        .iter()
        .map(|request| answer(&engine, request, None, &busy))
        .collect();
    let (before, streams_before) = settled(&engine);
    let start = Instant::now();
    let next = AtomicUsize::new(0);
    let (completed, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let tokens = AtomicUsize::new(0);
    let wrong: Mutex<Vec<String>> = Mutex::default();
    let client = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.requests || !wrong.lock().unwrap().is_empty() {
                return;
            }
            // A fixed mixture, so that every run is the same but for the order of events.
            let dice = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
            let which = dice as usize % requests.len();
            let request = &requests[which];
            let leaves = (dice >> 8) as usize % 100 < plan.dropped_percent;
            let leave = leaves.then(|| (dice >> 16) as usize % (request.max_tokens + 1));
            match answer(&engine, request, leave, &busy) {
                Answer::Left => {
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
                whole => {
                    completed.fetch_add(1, Ordering::Relaxed);
                    if let Answer::Whole(ids) = &whole {
                        tokens.fetch_add(ids.len(), Ordering::Relaxed);
                    }
                    if whole != alone[which] {
                        let expected = &alone[which];
                        let text = format!("request {number}: {whole:?}, alone {expected:?}");
                        wrong.lock().unwrap().push(text);
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..plan.clients {
            scope.spawn(client);
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let seconds = start.elapsed().as_secs_f64();
    let (after, streams_after) = settled(&engine);
    let outcome = Outcome {
        completed: completed.into_inner(),
        dropped: dropped.into_inner(),
        busy: busy.into_inner(),
        tokens: tokens.into_inner(),
        seconds,
        before,
        after,
        peak: memory().unwrap().peak,
        streams: (streams_before, streams_after),
    };
    assert_eq!(outcome.completed + outcome.dropped, plan.requests);
    assert!(
        after.abs_diff(before) * 50 <= before,
        "memory is not back within 2%: {before} bytes before, {after} after"
    );
    assert_eq!(streams_before, streams_after, "streams");
    engine.stop().unwrap();
    outcome
}

impl Outcome {
    /// As one JSON object.
    pub fn json(&self) -> Value {
        json!({
            "completed": self.completed,
            "dropped": self.dropped,
            "busy": self.busy,
            "seconds": self.seconds,
            "requests_per_second": (self.completed + self.dropped) as f64 / self.seconds,
            "completion_tokens_per_second": self.tokens as f64 / self.seconds,
            "active_bytes_before": self.before,
            "active_bytes_after": self.after,
            "peak_bytes": self.peak,
            "streams": self.streams.1,
        })
    }
}
