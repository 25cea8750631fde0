//! What the targets about the server have in common.

use pensieve::engine::{Facts, Handle};
use pensieve::sample::Params;
use pensieve::server::App;
use pensieve::text::Text;

/// An app of the shipped model's text side, whose engine is never asked.
pub fn new() -> App {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/pensieve-tiny");
    let text = Text::open(|name| match std::fs::read(format!("{folder}/{name}")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    });
    let text = text.unwrap();
    let facts = Facts {
        id: "tiny".into(),
        model_type: "none".into(),
        context_length: 4096,
        vocab_size: text.tokenizer().vocab_size(),
        eos_ids: vec![2],
        weight_bytes: 0,
        text_only: false,
        load_seconds: 0.0,
        prefill_chunk: 512,
    };
    App {
        engine: Handle::new(facts, 1).0,
        text,
        defaults: Params::default(),
        aliases: Vec::new(),
        reasoning_field: "reasoning_content".into(),
        forms: None,
        gauges: None,
        created: 0,
    }
}
