//! Reading settings: kinds, defaults, and errors that name the place.

use proptest::prelude::*;

use super::*;

fn config(json: &str) -> Config {
    Config::parse("config.json", json.as_bytes()).unwrap()
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn reads_every_kind() {
    let c = config(
        r#"{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "n": 7, "whole": 8192.0, "x": 1e-6,
        "on": true, "none": null, "dims": [1, 2], "factors": [1, 0.5], "rope": {"type": "yarn", "deep": {"n": 1}}}"#,
    );
    assert_eq!(c.model_type().unwrap(), "qwen3");
    assert_eq!(c.architectures().unwrap(), ["Qwen3ForCausalLM"]);
    assert_eq!(
        (
            c.usize("n").unwrap(),
            c.usize("whole").unwrap(),
            c.usize_or("none", 3).unwrap()
        ),
        (7, 8192, 3)
    );
    assert_eq!(
        (
            c.f32("x").unwrap(),
            c.f32("n").unwrap(),
            c.f32_or("absent", 0.5).unwrap()
        ),
        (1e-6, 7.0, 0.5)
    );
    assert_eq!(
        (
            c.bool("on").unwrap(),
            c.bool_or("none", true).unwrap(),
            c.bool_opt("none").unwrap()
        ),
        (true, true, None)
    );
    assert_eq!(
        (
            c.str_or("absent", "silu").unwrap(),
            c.str_opt("none").unwrap()
        ),
        ("silu", None)
    );
    assert_eq!(c.usize_list("dims").unwrap().unwrap(), [1, 2]);
    assert_eq!(c.f32_list("factors").unwrap().unwrap(), [1.0, 0.5]);
    assert_eq!(c.str_list("none").unwrap(), None);
    let rope = c.object("rope").unwrap().unwrap();
    assert_eq!(rope.str("type").unwrap(), "yarn");
    assert_eq!(rope.object("deep").unwrap().unwrap().usize("n").unwrap(), 1);
    assert!(c.object("none").unwrap().is_none());
    assert!(c.value("none").is_none() && c.value("n").is_some());
    assert_eq!(rope.keys().collect::<Vec<_>>(), ["type", "deep"]);
}

#[test]
fn errors_name_file_path_value_and_expectation() {
    let c = config(
        r#"{"n": -1, "x": "1", "half": 0.5, "null": null, "big": 1e300, "list": [1, "b"],
        "rope_scaling": {"factor": "x", "deep": {"on": [1]}}}"#,
    );
    let rope = c.object("rope_scaling").unwrap().unwrap();
    assert_eq!(
        message(rope.f32("factor")),
        r#"config.json: rope_scaling.factor is "x", expected a number"#
    );
    assert_eq!(
        message(rope.usize("n")),
        "config.json: rope_scaling.n is missing, expected a whole number, 0 or more"
    );
    let deep = rope.object("deep").unwrap().unwrap();
    assert_eq!(
        message(deep.bool("on")),
        "config.json: rope_scaling.deep.on is a list of 1, expected true or false"
    );
    assert_eq!(
        message(c.usize("n")),
        "config.json: n is -1, expected a whole number, 0 or more"
    );
    assert_eq!(
        message(c.usize_or("half", 1)),
        "config.json: half is 0.5, expected a whole number, 0 or more"
    );
    assert_eq!(
        message(c.f32("x")),
        r#"config.json: x is "1", expected a number"#
    );
    assert_eq!(
        message(c.str("null")),
        "config.json: null is missing, expected a string"
    );
    assert_eq!(
        message(c.f32("big")),
        "config.json: big is 1e+300, expected a number"
    );
    assert_eq!(
        message(c.usize_list("list")),
        r#"config.json: list[1] is "b", expected a whole number, 0 or more"#
    );
    assert_eq!(
        message(c.str_list("n")),
        "config.json: n is -1, expected a list, each a string"
    );
    assert_eq!(
        message(c.object("n")),
        "config.json: n is -1, expected an object"
    );
    assert_eq!(
        message(c.model_type()),
        "config.json: model_type is missing, expected a string"
    );
}

#[test]
fn defaults_fill_what_is_absent_and_not_what_is_null() {
    let c = config(r#"{"n": 7, "none": null}"#);
    let c = c.with_defaults(&serde_json::json!({"n": 1, "none": 2, "absent": 3}));
    assert_eq!(c.usize("n").unwrap(), 7);
    assert_eq!(c.usize_opt("none").unwrap(), None);
    assert_eq!(c.usize("absent").unwrap(), 3);
    assert_eq!(c.with("none", 4).usize("none").unwrap(), 4);
}

#[test]
fn the_language_model_may_be_nested() {
    let plain = config(r#"{"hidden_size": 1}"#);
    assert_eq!(plain.text().unwrap().usize("hidden_size").unwrap(), 1);
    let nested = config(r#"{"hidden_size": 1, "text_config": {"hidden_size": 2}}"#)
        .text()
        .unwrap();
    assert_eq!(nested.usize("hidden_size").unwrap(), 2);
    assert!(message(nested.usize("vocab_size")).contains("text_config.vocab_size is missing"));
    assert!(config(r#"{"text_config": 1}"#).text().is_err());
}

#[test]
fn reads_numbers_that_python_writes() {
    let c = config(
        r#"{"limit": [0.0, Infinity], "low": -Infinity, "nan": NaN, "text": "a \" NaN, Infinity"}"#,
    );
    assert_eq!(c.f32_list("limit").unwrap().unwrap(), [0.0, f32::INFINITY]);
    assert_eq!(c.f32("low").unwrap(), f32::NEG_INFINITY);
    assert!(c.f32("nan").unwrap().is_nan());
    assert_eq!(c.str("text").unwrap(), "a \" NaN, Infinity");
    assert!(c.usize("low").is_err());
    let tagged = r#"{"limit": [0.0, {"__float__": "Infinity"}], "other": {"__float__": 1}}"#;
    let tagged = config(tagged);
    assert_eq!(
        tagged.f32_list("limit").unwrap().unwrap(),
        [0.0, f32::INFINITY]
    );
    assert!(tagged.f32("other").is_err());
    for wrong in [
        r#"{"a": NaNs}"#,
        r#"{"a": --Infinity}"#,
        r#"{"a": Infinit}"#,
        r#"{NaN: }"#,
        r#"{"a": NaN"#,
    ] {
        assert!(
            Config::parse("config.json", wrong.as_bytes()).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn opens_and_says_what_is_wrong_with_the_file() {
    let source = Source::Embedded(&[
        ("config.json", br#"{"model_type": "llama"}"#),
        ("other.json", b"[1]"),
    ]);
    assert_eq!(
        Config::open(&source).unwrap().model_type().unwrap(),
        "llama"
    );
    assert!(Config::open_file(&source, "absent.json").unwrap().is_none());
    assert!(
        message(Config::open_file(&source, "other.json"))
            .starts_with("other.json of the built-in model is not valid")
    );
    let missing = message(Config::open(&Source::Embedded(&[])));
    assert!(
        missing.starts_with("the built-in model has no config.json: "),
        "{missing}"
    );
    let deep = format!(r#"{{"a": {}"#, "[".repeat(100_000));
    for wrong in [
        "",
        "[]",
        "{",
        "null",
        "\u{feff}{}",
        "{\"a\": 1e400}",
        deep.as_str(),
    ] {
        assert!(
            matches!(
                Config::parse("c", wrong.as_bytes()),
                Err(CheckpointError::Json { .. })
            ),
            "{wrong:.20}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_settings_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{}:,\"NaInfity0-9e.\\\\-]{0,48}") {
        for input in [bytes.as_slice(), text.as_bytes()] {
            match Config::parse("c", input) {
                Ok(config) => {
                    for key in config.keys() {
                        let _ = (config.f32_opt(key), config.usize_list(key), config.object(key));
                    }
                }
                Err(e) => prop_assert!(matches!(e, CheckpointError::Json { .. }), "{:?}", e),
            }
        }
    }

    #[test]
    fn numbers_are_quoted_outside_strings_only(text in ".{0,24}", key in "[a-z]{1,5}") {
        let value = Value::from(text.as_str());
        let c = config(&format!(r#"{{"{key}s": {value}, "{key}": [NaN, -Infinity]}}"#));
        let expected = format!("{key}s");
        prop_assert_eq!(c.str(&expected).unwrap(), text);
        prop_assert_eq!(c.f32_list(&key).unwrap().unwrap()[1], f32::NEG_INFINITY);
    }
}
