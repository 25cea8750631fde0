//! What a model on disk is, from its own files: architecture, quantization, context, licence, and what it
//! will take in memory.

use std::path::Path;

use serde_json::{Value, json};

use super::estimate::{self, Need};
use super::snapshot;

/// What a folder's files say. What they do not say is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Details {
    /// `model_type` of config.json.
    pub architecture: Option<String>,
    /// Such as `4 bits, groups of 64`; the numbers' type where nothing is quantized.
    pub quantization: Option<String>,
    /// Positions it was trained for.
    pub context: Option<u64>,
    /// As the model card names it.
    pub licence: Option<String>,
    /// Bytes of the weights' files.
    pub weights: u64,
    /// Files that it needs and has not.
    pub missing: Vec<String>,
    config: Value,
}

impl Details {
    /// Reads what is in `folder`.
    pub fn of(folder: &Path) -> Details {
        let config = std::fs::read(folder.join("config.json")).unwrap_or_default();
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let text = estimate::text(&config);
        let size = |name: &String| std::fs::metadata(folder.join(name)).map_or(0, |f| f.len());
        Details {
            architecture: config
                .get("model_type")
                .and_then(Value::as_str)
                .map(str::to_owned),
            quantization: quantization(&config),
            context: text.get("max_position_embeddings").and_then(Value::as_u64),
            licence: licence(folder),
            weights: snapshot::weights(folder).iter().map(size).sum(),
            missing: snapshot::missing(folder),
            config,
        }
    }

    /// What it takes in memory at `context` tokens; none if config.json does not say enough.
    pub fn need(&self, context: u64) -> Option<Need> {
        let cache = estimate::cache(&self.config, context)?;
        Some(Need::new(self.weights, cache))
    }

    /// The context at which to say what it takes: what is asked for, or else 8192, within its own.
    pub fn usual_context(&self, asked: Option<u64>) -> u64 {
        asked.unwrap_or_else(|| self.context.unwrap_or(u64::MAX).min(8192))
    }

    /// Memory at `context` tokens, as JSON; null where it is not known.
    pub fn need_json(&self, context: u64) -> Value {
        match self.need(context) {
            Some(need) => json!({
                "context_length": context,
                "weights_bytes": need.weights,
                "cache_bytes": need.cache,
                "total_bytes": need.total(),
            }),
            None => Value::Null,
        }
    }
}

fn quantization(config: &Value) -> Option<String> {
    let text = estimate::text(config);
    for config in [config, text] {
        for key in ["quantization", "quantization_config"] {
            let Some(scheme) = config.get(key).filter(|scheme| scheme.is_object()) else {
                continue;
            };
            let number = |key: &str| scheme.get(key).and_then(Value::as_u64);
            let mode = ["mode", "quant_method"]
                .iter()
                .find_map(|key| scheme.get(key)?.as_str());
            let mixed = scheme
                .as_object()
                .is_some_and(|all| all.values().any(Value::is_object));
            let mut parts = Vec::new();
            parts.extend(number("bits").map(|bits| format!("{bits} bits")));
            parts.extend(number("group_size").map(|size| format!("groups of {size}")));
            parts.extend(mode.filter(|mode| *mode != "affine").map(str::to_owned));
            parts.extend(mixed.then(|| "mixed".to_owned()));
            if !parts.is_empty() {
                return Some(parts.join(", "));
            }
        }
    }
    let dtype = |config: &Value| {
        let key = ["torch_dtype", "dtype"]
            .iter()
            .find_map(|key| config.get(key)?.as_str());
        key.map(str::to_owned)
    };
    dtype(config).or_else(|| dtype(text))
}

/// The licence that the head of the model card names.
fn licence(folder: &Path) -> Option<String> {
    let card = std::fs::read_to_string(folder.join("README.md")).ok()?;
    let mut lines = card.lines();
    (lines.next()?.trim() == "---").then_some(())?;
    let head: Vec<&str> = lines.take_while(|line| line.trim_end() != "---").collect();
    let value = |key: &str| {
        let line = head
            .iter()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let value = line.trim().trim_matches(['"', '\'']);
        let clean: String = value.chars().filter(|c| !c.is_control()).take(80).collect();
        (!clean.is_empty()).then_some(clean)
    };
    match value("license").as_deref() {
        Some("other") => value("license_name").or(Some("other".to_owned())),
        Some(licence) => Some(licence.to_owned()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(files: &[(&str, &str)]) -> Details {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        Details::of(folder.path())
    }

    #[test]
    fn a_models_files_say_what_it_is() {
        let config = r#"{"model_type": "qwen3", "max_position_embeddings": 40960,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 8, "hidden_size": 32,
            "quantization": {"group_size": 64, "bits": 4, "lm_head": {"bits": 6}}}"#;
        let found = details(&[
            ("config.json", config),
            (
                "README.md",
                "---\nlanguage: en\nlicense: \"apache-2.0\"\n---\nlicense: none\n",
            ),
            ("model.safetensors", "12345"),
        ]);
        assert_eq!(found.architecture.as_deref(), Some("qwen3"));
        assert_eq!(
            found.quantization.as_deref(),
            Some("4 bits, groups of 64, mixed")
        );
        assert_eq!(found.licence.as_deref(), Some("apache-2.0"));
        assert_eq!((found.context, found.weights), (Some(40960), 5));
        assert_eq!(found.missing, ["tokenizer.json"]);
        assert_eq!(found.usual_context(None), 8192);
        assert_eq!(found.usual_context(Some(7)), 7);
        let need = found.need(10).unwrap();
        assert_eq!((need.weights, need.cache), (5, 2 * 10 * 2 * 2 * 8 * 2));
        assert_eq!(found.need_json(10)["total_bytes"], need.total());
    }

    #[test]
    fn files_that_say_nothing_give_none() {
        for files in [
            &[][..],
            &[("config.json", "["), ("README.md", "# A model\n")],
        ] {
            let found = details(files);
            assert_eq!(found.architecture, None);
            assert_eq!(found.quantization, None);
            assert_eq!(found.licence, None);
            assert_eq!(found.need(10), None);
            assert!(found.need_json(10).is_null());
        }
        let card = [(
            "README.md",
            "---\nlicense: other\nlicense_name: llama3.2\n---\n",
        )];
        assert_eq!(details(&card).licence.as_deref(), Some("llama3.2"));
        let mode = r#"{"quantization": {"mode": "mxfp4", "bits": 4, "group_size": 32}}"#;
        let found = details(&[("config.json", mode)]);
        assert_eq!(
            found.quantization.as_deref(),
            Some("4 bits, groups of 32, mxfp4")
        );
        let plain = details(&[("config.json", r#"{"torch_dtype": "bfloat16"}"#)]);
        assert_eq!(plain.quantization.as_deref(), Some("bfloat16"));
    }
}
