//! Host work around the model: building graphs, sampling, and the text path.
//!
//!     cargo bench --bench host

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pensieve::builtin;
use pensieve::mlx::{Array, Device, Dtype, Runtime};
use pensieve::sample::{Params, Row, Sampler, Seen};
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

criterion_group!(benches, wrapper, text);
criterion_main!(benches);
