//! Host work around the model: building graphs, sampling, sharing out rounds, and the text path from
//! template to events. The prefix tree's is in benches/prefix.rs.
//!
//!     cargo bench --bench host

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pensieve::builtin;
use pensieve::engine::share;
use pensieve::mlx::{Array, Device, Dtype, Runtime};
use pensieve::sample::{Params, Row, Sampler, Seen};
use pensieve::server::Sse;
use pensieve::text::{Chat, Text};
use serde_json::json;

fn wrapper(c: &mut Criterion) {
    let _runtime = Runtime::enter(Device::Cpu).expect("a CPU");
    let x = Array::zeros(&[1, 1, 256], Dtype::Float32).expect("an array");
    c.bench_function("graph node (add)", |b| b.iter(|| black_box(x.add(&x))));
    let logits = Array::arange(0, 4096, Dtype::Float32)
        .and_then(|row| row.reshape(&[1, 4096]))
        .expect("an array");
    let warm = Params {
        temperature: 0.8,
        top_p: 0.9,
        top_k: 40,
        ..Params::default()
    };
    let rows = [Row {
        params: &warm,
        eos_ids: &[],
        stop_ids: &[],
        drawn: 3,
        demand: None,
    }];
    let mut sampler = Sampler::new(&rows, &[Seen::Prompt(&[1])], 4096).expect("a sampler");
    c.bench_function("sample 4096 logits", |b| {
        b.iter(|| {
            sampler
                .draw(&logits, &rows)
                .and_then(|token| token.item::<u32>())
        });
    });
}

fn text(c: &mut Criterion) {
    let source = builtin::source("tiny").expect("the built-in model");
    let text = Text::open(|file| source.read(file)).expect("its text files");
    let chat = Chat {
        messages: vec![json!({"role": "user", "content": "What is the capital of France?"})],
        add_generation_prompt: true,
        ..Chat::default()
    };
    c.bench_function("template and tokenizer", |b| {
        b.iter(|| text.encode_chat(&chat))
    });
    let ids = text
        .tokenizer()
        .encode("Paris is the capital of France. ", false);
    let ids = ids.expect("ids");
    c.bench_function("detokenizer, 1000 tokens with a stop string", |b| {
        b.iter(|| {
            let mut stream = text.stream(vec!["\n\n".into()]);
            for &id in ids.iter().cycle().take(1000) {
                black_box(stream.push(id));
            }
        });
    });
}

fn scheduler(c: &mut Criterion) {
    let left: Vec<usize> = (0..64).map(|i| 1 + i * 7919 % 4096).collect();
    c.bench_function("scheduler: a round of 64 prompts and 32 answers", |b| {
        b.iter(|| share(black_box(&left), 32, 512));
    });
}

fn events(c: &mut Criterion) {
    let chunk = json!({
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "pensieve-tiny",
        "choices": [{"index": 0, "delta": {"content": " capital"}, "finish_reason": null}],
    });
    c.bench_function("SSE: 1000 chunks of a chat", |b| {
        b.iter(|| {
            let mut out = Sse::default();
            for _ in 0..1000 {
                out.data(black_box(&chunk));
            }
            out.done();
            out.into_text()
        });
    });
}

criterion_group!(benches, wrapper, text, scheduler, events);
criterion_main!(benches);
