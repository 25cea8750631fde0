//! Which modules' weights are quantized, and how, from `config.json`.
//!
//! MLX's form, in `quantization` or `quantization_config`: `group_size`, `bits` and `mode` for all
//! modules, and beside them exceptions under the modules' paths, `false` for a module left as it
//! is, or an object of its own three. What such an object leaves out takes the default of its mode,
//! and its mode the default `affine`: not the values for all modules. mlx-lm reads it so, and mixed
//! models (mxfp4 experts, affine attention) rely on it.
//!
//! Of the methods that Hugging Face's `quant_method` names, `mxfp4` (gpt-oss's experts) is MLX's mode
//! of that name, and the tensors of `fp8` (DeepSeek-V3's, in blocks of 128 by 128) are unpacked as they
//! are loaded.
//!
//! This says how a quantized module is quantized. Whether a module is quantized its tensors say, by
//! their `scales`; and of a module that is not named here their shapes say how.

use std::collections::BTreeMap;

use serde_json::Value;

use super::config::Config;
use super::error::{CheckpointError, Result};
use crate::mlx::QuantMode;

/// How one module's weights are quantized; the values fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Weights that share a scale, along the last axis.
    pub group_size: usize,
    /// Bits of one weight.
    pub bits: usize,
    /// What a scale means.
    pub mode: QuantMode,
}

impl Scheme {
    /// The scheme of rows of `inner` weights that take `words` 32-bit words and `groups` scales, and
    /// as many biases or none.
    pub fn infer(inner: usize, words: usize, groups: usize, biases: bool) -> Option<Scheme> {
        let scheme = Scheme {
            group_size: inner.checked_div(groups)?,
            bits: words.checked_mul(32)?.checked_div(inner)?,
            mode: QuantMode::Affine,
        };
        let mode = QuantMode::ALL.into_iter().find(|mode| {
            mode.has_biases() == biases
                && mode.group_sizes().contains(&scheme.group_size)
                && mode.widths().contains(&scheme.bits)
        })?;
        Some(Scheme { mode, ..scheme })
    }
}

/// The quantization of all of a model's modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantization {
    default: Scheme,
    /// None for a module that is left unquantized.
    overrides: BTreeMap<String, Option<Scheme>>,
}

impl Quantization {
    /// What `config`, the model's whole `config.json`, says; none for a model that is not
    /// quantized.
    ///
    /// Looks at `quantization`, then `quantization_config`, then both in `text_config`.
    ///
    /// # Errors
    /// When a value is not one MLX takes, or the weights are quantized by another method.
    pub fn new(config: &Config) -> Result<Option<Quantization>> {
        for config in [config, &config.text()?] {
            for key in ["quantization", "quantization_config"] {
                let Some(object) = config.object(key)? else {
                    continue;
                };
                return match object.str_opt("quant_method")? {
                    None => read(config, key, &object).map(Some),
                    Some("mxfp4") => Ok(Some(Quantization::mxfp4())),
                    Some("fp8") => check_blocks(&object).map(|()| None),
                    Some(method) => Err(CheckpointError::QuantizationMethod {
                        file: config.file().to_owned(),
                        path: object.path_of("quant_method"),
                        method: method.to_owned(),
                    }),
                };
            }
        }
        Ok(None)
    }

    /// All packed modules as 4-bit floats.
    fn mxfp4() -> Quantization {
        Quantization {
            default: Scheme {
                group_size: 32,
                bits: 4,
                mode: QuantMode::Mxfp4,
            },
            overrides: BTreeMap::new(),
        }
    }

    /// How the module at `path`, as the model's files name it, is quantized if nothing but the
    /// configuration is known; none when it is explicitly left as it is.
    pub fn for_path(&self, path: &str) -> Option<Scheme> {
        self.override_for(path).unwrap_or(Some(self.default))
    }

    /// What is said of the module at `path` in particular: how it is quantized, or (`Some(None)`)
    /// that it is left as it is. None where nothing is said.
    pub fn override_for(&self, path: &str) -> Option<Option<Scheme>> {
        self.overrides.get(path).copied()
    }

    /// How modules are quantized that have no override.
    pub fn default_scheme(&self) -> Scheme {
        self.default
    }

    /// The modules with an override, by path; none for those left unquantized.
    pub fn overrides(&self) -> impl Iterator<Item = (&str, Option<Scheme>)> {
        self.overrides
            .iter()
            .map(|(path, scheme)| (path.as_str(), *scheme))
    }
}

/// Keys of the values for all modules; every other key is a module's path.
const SETTINGS: [&str; 3] = ["group_size", "bits", "mode"];

/// Switches of MLX's that, when true, change how a module computes.
const COMPUTING: [&str; 2] = ["quantize_input", "global_scale"];

fn read(config: &Config, key: &str, object: &Config) -> Result<Quantization> {
    if object.value("group_size").is_none() && object.value("bits").is_none() {
        return Err(config.invalid(
            key,
            "MLX's group_size and bits in it (no other kind of quantization is supported: use an \
             MLX conversion of this model)",
        ));
    }
    object.usize("group_size")?;
    object.usize("bits")?;
    let default = scheme(object)?;

    let mut overrides = BTreeMap::new();
    for path in object.keys().filter(|key| !SETTINGS.contains(key)) {
        if COMPUTING.contains(&path) {
            check_off(object, path)?;
            continue;
        }
        let scheme = match object.value(path) {
            None | Some(Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(default),
            Some(Value::Object(_)) => object.object(path)?.as_ref().map(own_scheme).transpose()?,
            Some(_) => {
                return Err(object.invalid(
                    path,
                    "false, or an object of group_size and bits for this module",
                ));
            }
        };
        overrides.insert(path.to_owned(), scheme);
    }
    Ok(Quantization { default, overrides })
}

/// Checks that 8-bit floats are of the one kind that is supported.
fn check_blocks(object: &Config) -> Result<()> {
    if !matches!(object.str_opt("fmt")?, None | Some("e4m3")) {
        return Err(object.invalid("fmt", "e4m3"));
    }
    match object.usize_list("weight_block_size")?.as_deref() {
        Some([128, 128]) => Ok(()),
        _ => Err(object.invalid(
            "weight_block_size",
            "[128, 128] (no other 8-bit floats are supported: use an MLX conversion of this model)",
        )),
    }
}

/// A module's own values, and nothing that would change how it computes.
fn own_scheme(own: &Config) -> Result<Scheme> {
    for key in own.keys().filter(|key| !SETTINGS.contains(key)) {
        check_off(own, key)?;
    }
    scheme(own)
}

/// Refuses a setting that has no meaning here, unless it is false or `null`.
fn check_off(object: &Config, key: &str) -> Result<()> {
    match object.value(key) {
        None | Some(Value::Bool(false)) => Ok(()),
        Some(_) => {
            let known = SETTINGS.join(", ");
            Err(object.invalid(
                key,
                format!("false, or not there: only {known} are supported"),
            ))
        }
    }
}

fn scheme(object: &Config) -> Result<Scheme> {
    let mode = match object.str_opt("mode")? {
        None => QuantMode::Affine,
        Some(name) => QuantMode::ALL
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| {
                let names = QuantMode::ALL.map(QuantMode::name).join(", ");
                object.invalid("mode", format!("one of {names}"))
            })?,
    };
    Ok(Scheme {
        group_size: one_of(object, "group_size", mode, mode.group_sizes())?,
        bits: one_of(object, "bits", mode, mode.widths())?,
        mode,
    })
}

/// The value of `key`, which must be among `accepted`; the first of these where it is absent.
fn one_of(object: &Config, key: &str, mode: QuantMode, accepted: &[usize]) -> Result<usize> {
    let found = object.usize_opt(key)?.unwrap_or(accepted[0]);
    if accepted.contains(&found) {
        return Ok(found);
    }
    let mut sorted = accepted.to_vec();
    sorted.sort_unstable();
    let sorted = sorted
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    Err(object.invalid(key, format!("{sorted} for mode {mode}")))
}

#[cfg(test)]
#[path = "quantization_tests.rs"]
mod tests;
