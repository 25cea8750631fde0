//! What families refuse, and what is left out of their checkpoints, over the golden cases' models.

mod common;

use common::golden::case;
use common::{run, stderr, tiny};
use pensieve::checkpoint::WeightsAs;
use pensieve::mlx::{Device, Runtime};
use serde_json::{Value, json};

/// The setting at a path of keys.
fn at<'a>(config: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(config, |config, key| &mut config[key])
}

/// Loads the case with another setting (null: as if absent) and returns what is said.
fn refusal(name: &str, path: &str, value: &Value) -> String {
    let mut case = case(name);
    *at(&mut case.config, path) = value.clone();
    let Err(message) = case.load(WeightsAs::Stored) else {
        panic!("{name} with {path} {value} is loaded");
    };
    message
}

#[test]
fn settings_that_a_family_cannot_use_are_refused_by_name() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let refused = [
        ("ernie4_5-base", "rope_theta", Value::Null),
        ("ernie4_5-base", "use_bias", Value::Null),
        ("ernie4_5-base", "tie_word_embeddings", Value::Null),
        ("hunyuan_v1_dense-base", "rope_scaling.alpha", json!(0.0)),
        ("hunyuan_v1_dense-base", "rope_scaling.factor", Value::Null),
        ("hunyuan_v1_dense-base", "rope_scaling.type", Value::Null),
        ("hunyuan_v1_dense-base", "head_dim", json!(2)),
        (
            "hunyuan_v1_dense-rope-parameters",
            "rope_parameters.rope_type",
            json!("yarn"),
        ),
        ("ministral3-base", "rope_parameters", Value::Null),
        (
            "ministral3-base",
            "rope_parameters.original_max_position_embeddings",
            json!(0),
        ),
        (
            "ministral3-base",
            "rope_parameters.llama_4_scaling_beta",
            Value::Null,
        ),
        ("ministral3-base", "rope_parameters.rope_theta", Value::Null),
        ("mistral3-base", "text_config", Value::Null),
        ("mistral3-base", "text_config.model_type", json!("mistral4")),
        ("qwen2-base", "num_key_value_heads", Value::Null),
        ("qwen2-base", "hidden_size", json!(2)),
        ("seed_oss-base", "head_dim", Value::Null),
        ("seed_oss-base", "num_key_value_heads", json!(0)),
        ("smollm3-base", "no_rope_layers", json!([1, 0])),
        ("smollm3-interval", "no_rope_layer_interval", json!(0)),
    ];
    for (name, path, value) in refused {
        let message = refusal(name, path, &value);
        assert!(message.contains(path), "{name}: {path} {value}: {message}");
    }
}

#[test]
fn what_belongs_to_a_vision_tower_is_left_out_and_said() {
    let load = |name: &str| {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        case(name).load(WeightsAs::Stored).unwrap().text_only
    };
    // The same family without a vision tower's weights: a converter left them out.
    assert!(load("mistral3-hf") && !load("mistral3-ministral3"));

    let checkpoint = case("mistral3-hf").checkpoint();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(tiny().join(file), checkpoint.path().join(file)).unwrap();
    }
    let path = checkpoint.path().to_str().unwrap();
    let message = stderr(&run(&["run", "--model", path, "x"]));
    let said = message.matches("images are not supported yet");
    assert_eq!(said.count(), 1, "{message}");
}

#[test]
fn the_page_of_models_has_every_architecture() {
    let page = include_str!("../docs/models.md");
    for (file, names) in pensieve::models::architectures() {
        for name in names {
            let row = format!("| {name} | {file}.rs | ");
            assert!(page.contains(&row), "no row for {name}: cargo xtask models");
        }
    }
}
