//! `generation_config.json`: which tokens end a text, and how the model's makers sample from it.
//!
//! The file is optional, and so is each of its settings. Other settings in it belong to other
//! programs and are not read.

use serde_json::Value;

use super::config::Config;
use super::error::Result;
use super::files::Source;

/// Defaults that come with a model; a request's own parameters go before them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a text. From here, else from `config.json`, else from its `text_config`;
    /// may be empty.
    pub eos_token_id: Vec<u32>,
    /// Divides the logits; 0 or more.
    pub temperature: Option<f32>,
    /// Keep the likeliest tokens up to this total probability; in 0..=1.
    pub top_p: Option<f32>,
    /// Keep this many of the likeliest tokens; 0 keeps all, and so does -1, which reads as 0.
    pub top_k: Option<usize>,
    /// Keep tokens of at least this share of the likeliest one's probability; in 0..=1.
    pub min_p: Option<f32>,
    /// False: the makers take the likeliest token each time.
    pub do_sample: Option<bool>,
}

impl GenerationConfig {
    /// Reads `generation_config.json`, and takes from `config`, the model's `config.json`, the end
    /// tokens it leaves out.
    ///
    /// # Errors
    /// When the file is there and is not JSON, or a setting is of the wrong kind or range.
    pub fn open(source: &Source, config: &Config) -> Result<GenerationConfig> {
        let own = Config::open_file(source, "generation_config.json")?;
        GenerationConfig::new(own.as_ref(), config)
    }

    /// The settings of `own`, with the end tokens of `config` where `own` has none.
    ///
    /// # Errors
    /// When a setting is of the wrong kind or range.
    pub fn new(own: Option<&Config>, config: &Config) -> Result<GenerationConfig> {
        let mut generation = own.map(settings).transpose()?.unwrap_or_default();
        for config in [config, &config.text()?] {
            if generation.eos_token_id.is_empty() {
                generation.eos_token_id = tokens(config, "eos_token_id")?;
            }
        }
        Ok(generation)
    }
}

fn settings(own: &Config) -> Result<GenerationConfig> {
    Ok(GenerationConfig {
        eos_token_id: tokens(own, "eos_token_id")?,
        temperature: within(own, "temperature", f32::MAX)?,
        top_p: within(own, "top_p", 1.0)?,
        top_k: match own.value("top_k").and_then(Value::as_i64) {
            Some(-1) => Some(0),
            _ => own.usize_opt("top_k")?,
        },
        min_p: within(own, "min_p", 1.0)?,
        do_sample: own.bool_opt("do_sample")?,
    })
}

/// A number from 0 to `most`, if there.
fn within(config: &Config, key: &str, most: f32) -> Result<Option<f32>> {
    match config.f32_opt(key)? {
        Some(x) if !(0.0..=most).contains(&x) => Err(config.invalid(
            key,
            if most == 1.0 {
                "a number from 0 to 1"
            } else {
                "a finite number, 0 or more"
            },
        )),
        x => Ok(x),
    }
}

/// One token id or a list of them; empty where absent. A repeated id is kept once.
fn tokens(config: &Config, key: &str) -> Result<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match config.value(key) {
        None => Some(Vec::new()),
        Some(Value::Array(ids)) => ids.iter().map(id).collect(),
        Some(value) => id(value).map(|id| vec![id]),
    };
    let mut ids: Vec<u32> =
        ids.ok_or_else(|| config.invalid(key, "a token id or a list of them"))?;
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        Config::parse("config.json", json.as_bytes()).unwrap()
    }

    fn read(own: &str, model: &str) -> Result<GenerationConfig> {
        let own = Config::parse("generation_config.json", own.as_bytes())?;
        GenerationConfig::new(Some(&own), &config(model))
    }

    #[test]
    fn reads_every_setting() {
        let own = r#"{"eos_token_id": [151645, 151643, 151645], "temperature": 0.6, "top_p": 0.95, "top_k": 20,
            "min_p": 0.0, "do_sample": true, "transformers_version": "4.51.0"}"#;
        let expected = GenerationConfig {
            eos_token_id: vec![151645, 151643],
            temperature: Some(0.6),
            top_p: Some(0.95),
            top_k: Some(20),
            min_p: Some(0.0),
            do_sample: Some(true),
        };
        assert_eq!(read(own, r#"{"eos_token_id": 7}"#).unwrap(), expected);
    }

    #[test]
    fn end_tokens_come_from_the_first_file_that_has_them() {
        let eos = |own, model| read(own, model).unwrap().eos_token_id;
        assert_eq!(eos(r#"{"eos_token_id": 2}"#, r#"{"eos_token_id": 7}"#), [2]);
        assert_eq!(
            eos(
                "{}",
                r#"{"eos_token_id": 7, "text_config": {"eos_token_id": 8}}"#
            ),
            [7]
        );
        assert_eq!(
            eos(
                r#"{"eos_token_id": null}"#,
                r#"{"text_config": {"eos_token_id": [8, 9]}}"#
            ),
            [8, 9]
        );
        assert_eq!(eos("{}", "{}"), [] as [u32; 0]);
        assert_eq!(
            GenerationConfig::new(None, &config(r#"{"eos_token_id": 7}"#))
                .unwrap()
                .eos_token_id,
            [7]
        );
    }

    #[test]
    fn a_missing_file_is_no_error_and_a_broken_one_is() {
        let model = config(r#"{"eos_token_id": 7}"#);
        let none = GenerationConfig::open(&Source::Embedded(&[]), &model).unwrap();
        assert_eq!(
            none,
            GenerationConfig {
                eos_token_id: vec![7],
                ..Default::default()
            }
        );
        let broken = Source::Embedded(&[("generation_config.json", b"{")]);
        let error = GenerationConfig::open(&broken, &model)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("generation_config.json of the built-in model is not valid"),
            "{error}"
        );
    }

    #[test]
    fn wrong_settings_are_named() {
        for (own, expected) in [
            (
                r#"{"eos_token_id": "2"}"#,
                r#"eos_token_id is "2", expected a token id"#,
            ),
            (
                r#"{"eos_token_id": -1}"#,
                "eos_token_id is -1, expected a token id",
            ),
            (
                r#"{"eos_token_id": [1, 4294967296]}"#,
                "eos_token_id is a list of 2, expected a token id",
            ),
            (
                r#"{"temperature": -0.5}"#,
                "temperature is -0.5, expected a finite number",
            ),
            (
                r#"{"temperature": Infinity}"#,
                "temperature is \"Infinity\", expected a finite number",
            ),
            (
                r#"{"top_p": 1.5}"#,
                "top_p is 1.5, expected a number from 0 to 1",
            ),
            (
                r#"{"min_p": NaN}"#,
                "min_p is \"NaN\", expected a number from 0 to 1",
            ),
            (r#"{"top_k": -2}"#, "top_k is -2, expected a whole number"),
            (
                r#"{"do_sample": 1}"#,
                "do_sample is 1, expected true or false",
            ),
        ] {
            let error = read(own, "{}").unwrap_err().to_string();
            assert!(error.contains(expected), "{own}: {error}");
            assert!(error.starts_with("generation_config.json: "), "{error}");
        }
        assert_eq!(read(r#"{"top_k": -1}"#, "{}").unwrap().top_k, Some(0));
    }
}
