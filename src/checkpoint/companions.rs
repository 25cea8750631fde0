//! What goes with a model's weights: settings, tokenizer, templates, and code of its own that other
//! programs run.

use std::path::Path;

use super::error::{CheckpointError, Result};
use super::files::Source;
use super::index::INDEX;
use super::write;

/// Endings of such files.
const ENDINGS: [&str; 6] = [".json", ".txt", ".jinja", ".model", ".tiktoken", ".py"];

/// Such files that say of these weights what is not so of others made from them.
const OWN: [&str; 5] = [
    "config.json",
    INDEX,
    "hf_quant_config.json",
    "quantize_config.json",
    "quant_config.json",
];

/// Copies all that goes with the weights of `source` but its config.json to the directory `to`.
///
/// # Errors
/// What the system says.
pub fn copy_companions(source: &Source, to: &Path) -> Result<()> {
    let names = source.names().map_err(|e| CheckpointError::Io {
        file: source.label(),
        source: e,
    })?;
    let wanted = |name: &&String| {
        ENDINGS.iter().any(|end| name.ends_with(end))
            && !OWN.contains(&name.as_str())
            && !name.ends_with(".safetensors.index.json")
    };
    for name in names.iter().filter(wanted) {
        copy(source, to, name)?;
    }
    // The one folder that tokenizers have.
    let folder = "additional_chat_templates";
    if let Source::Directory(directory) = source {
        let templates = Source::Directory(directory.join(folder));
        if let Ok(names) = templates.names() {
            let into = to.join(folder);
            std::fs::create_dir_all(&into).map_err(|source| CheckpointError::Write {
                file: into.display().to_string(),
                source,
            })?;
            for name in names.iter().filter(|name| name.ends_with(".jinja")) {
                copy(&templates, &into, name)?;
            }
        }
    }
    Ok(())
}

/// Copies the file `name` of `source` to the directory `to`.
///
/// # Errors
/// What the system says.
pub fn copy(source: &Source, to: &Path, name: &str) -> Result<()> {
    let bytes = source.read(name).map_err(|e| CheckpointError::Io {
        file: source.label_of(name),
        source: e,
    })?;
    write::write_file(to, name, &bytes.unwrap_or_default())
}
