//! Fine-tunes in mlx-lm's format: `adapter_config.json` and `adapters.safetensors`.
//!
//! The file names its tensors by mlx-lm's module paths: `PATH.lora_a` and `PATH.lora_b`, for DoRA
//! `PATH.m` too; a full fine-tune has whole tensors of the model. Which modules are changed the
//! tensors say, so `keys` and `num_layers` of the configuration, by which mlx-lm builds the same
//! modules before it looks at the file, are not needed. `dropout` concerns training alone.
//!
//! Invariant: a tensor that no module takes is an error, as it is for mlx-lm.

use super::config::Config;
use super::error::{CheckpointError, Result};
use super::files::Source;
use super::index::{Shards, Tensor};

/// The file of the tensors.
pub const WEIGHTS: &str = "adapters.safetensors";
const CONFIG: &str = "adapter_config.json";

/// How a model was fine-tuned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FineTune {
    /// Low-rank changes to some matrices.
    LowRank {
        /// The changes are multiplied by it.
        scale: f32,
        /// Their rank.
        rank: usize,
        /// Whether rows have learned lengths too (DoRA).
        dora: bool,
    },
    /// Whole tensors in place of the model's.
    Full,
}

/// A fine-tune of some model.
#[derive(Debug)]
pub struct Adapters {
    kind: FineTune,
    tensors: Shards,
    file: String,
}

impl Adapters {
    /// Reads the configuration and maps the tensors.
    ///
    /// # Errors
    /// When a file is missing or wrong, or the kind of fine-tune is not known.
    pub fn open(source: &Source) -> Result<Adapters> {
        let Some(config) = Config::open_file(source, CONFIG)? else {
            return Err(CheckpointError::NoAdapter {
                place: source.label(),
                name: CONFIG,
            });
        };
        if !source.exists(WEIGHTS) {
            return Err(CheckpointError::NoAdapter {
                place: source.label(),
                name: WEIGHTS,
            });
        }
        let kind = match config.str_or("fine_tune_type", "lora")? {
            "full" => FineTune::Full,
            "lora" => low_rank(&config, false)?,
            "dora" => low_rank(&config, true)?,
            _ => return Err(config.invalid("fine_tune_type", "lora, dora or full")),
        };
        Ok(Adapters {
            kind,
            tensors: Shards::open_file(source, WEIGHTS)?,
            file: source.label_of(WEIGHTS),
        })
    }

    /// What kind of fine-tune it is.
    pub fn kind(&self) -> FineTune {
        self.kind
    }

    /// The file of the tensors, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Its tensors.
    pub fn tensors(&self) -> &Shards {
        &self.tensors
    }

    /// The tensor that takes the place of the model's `name`, of a full fine-tune.
    pub fn replaces(&self, name: &str) -> Option<Tensor<'_>> {
        match self.kind {
            FineTune::Full => self.tensors.get(name),
            FineTune::LowRank { .. } => None,
        }
    }
}

fn low_rank(config: &Config, dora: bool) -> Result<FineTune> {
    let Some(parameters) = config.object("lora_parameters")? else {
        return Err(config.invalid("lora_parameters", "an object with rank and scale"));
    };
    let rank = parameters.usize("rank")?;
    if rank == 0 {
        return Err(parameters.invalid("rank", "at least 1"));
    }
    let Some(scale) = parameters.f32_opt("scale")? else {
        let other = match parameters.value("alpha") {
            Some(_) => " (mlx-lm has no `alpha`: scale is alpha / rank)",
            None => "",
        };
        return Err(parameters.invalid("scale", format!("a number{other}")));
    };
    if !scale.is_finite() {
        return Err(parameters.invalid("scale", "a finite number"));
    }
    Ok(FineTune::LowRank { scale, rank, dora })
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::safetensors::Dtype;
    use super::*;

    fn open(config: Option<&str>, weights: bool) -> Result<Adapters> {
        let folder = tempfile::tempdir().unwrap();
        if let Some(config) = config {
            std::fs::write(folder.path().join(CONFIG), config).unwrap();
        }
        if weights {
            let image = fixture::file(&[("a.lora_a", Dtype::F32, &[2, 1])]);
            std::fs::write(folder.path().join(WEIGHTS), image).unwrap();
        }
        Adapters::open(&Source::Directory(folder.path().to_owned()))
    }

    #[test]
    fn reads_each_kind() {
        let parameters = r#""lora_parameters": {"rank": 8, "scale": 20.0, "dropout": 0.1}"#;
        let kind = |config: &str| open(Some(config), true).unwrap().kind();
        let expected = |dora| FineTune::LowRank {
            scale: 20.0,
            rank: 8,
            dora,
        };
        assert_eq!(kind(&format!("{{{parameters}}}")), expected(false));
        let dora = format!(r#"{{"fine_tune_type": "dora", {parameters}}}"#);
        assert_eq!(kind(&dora), expected(true));
        assert_eq!(kind(r#"{"fine_tune_type": "full"}"#), FineTune::Full);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let fails = |config: Option<&str>, weights: bool, parts: &[&str]| {
            let message = open(config, weights).unwrap_err().to_string();
            for part in parts {
                assert!(message.contains(part), "{part} in {message}");
            }
        };
        let full = r#"{"fine_tune_type": "full"}"#;
        fails(None, true, &[CONFIG]);
        fails(Some(full), false, &[WEIGHTS]);
        fails(Some(r#"{"fine_tune_type": "ia3"}"#), true, &["ia3", "dora"]);
        fails(Some("{}"), true, &["lora_parameters"]);
        let rank = r#"{"lora_parameters": {"rank": 0, "scale": 1}}"#;
        fails(Some(rank), true, &["rank", "at least 1"]);
        let alpha = r#"{"lora_parameters": {"rank": 8, "alpha": 16}}"#;
        fails(Some(alpha), true, &["lora_parameters.scale", "alpha"]);
    }
}
