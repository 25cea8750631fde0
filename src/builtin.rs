//! The model that ships inside the binary.

use crate::checkpoint::Source;

/// The files of `models/pensieve-tiny` that loading reads.
#[cfg(feature = "builtin-model")]
static TINY: &[(&str, &[u8])] = &[
    (
        "config.json",
        include_bytes!("../models/pensieve-tiny/config.json"),
    ),
    (
        "generation_config.json",
        include_bytes!("../models/pensieve-tiny/generation_config.json"),
    ),
    (
        "model.safetensors",
        include_bytes!("../models/pensieve-tiny/model.safetensors"),
    ),
    (
        "tokenizer.json",
        include_bytes!("../models/pensieve-tiny/tokenizer.json"),
    ),
    (
        "tokenizer_config.json",
        include_bytes!("../models/pensieve-tiny/tokenizer_config.json"),
    ),
];

/// A built-in model by the name after `builtin:`.
pub fn source(name: &str) -> Option<Source> {
    match name {
        #[cfg(feature = "builtin-model")]
        "tiny" => Some(Source::Embedded(TINY)),
        _ => None,
    }
}
