//! config.json of what was converted, as mlx-lm writes it.

use serde_json::{Map, Value, json};

use super::choice::{Action, Recipe};
use crate::checkpoint::{Config, LoadResult, Scheme, Source};
use crate::mlx::Dtype;

/// The settings of the source, with the end tokens of generation_config.json, which count.
///
/// # Errors
/// If a file cannot be read.
pub fn settings(source: &Source) -> LoadResult<Map<String, Value>> {
    let mut values = Config::open(source)?.to_map();
    // mlx-lm goes on without one that it cannot read.
    if let Ok(Some(generation)) = Config::open_file(source, "generation_config.json")
        && let Some(ids) = generation
            .value("eos_token_id")
            .filter(|ids| says_something(ids))
    {
        values.insert("eos_token_id".into(), ids.clone());
    }
    let of_text = text(&values).and_then(|text| text.get("quantization_config").cloned());
    if let Some(of_text) = of_text
        && !values.contains_key("quantization_config")
    {
        values.insert("quantization_config".into(), of_text);
    }
    // gpt-oss as it was published: what Hugging Face calls so is MLX's mode of that name.
    let method = values
        .get("quantization_config")
        .and_then(|q| q.get("quant_method"));
    if !values.contains_key("quantization") && method.is_some_and(|method| method == "mxfp4") {
        let mxfp4 = json!({"group_size": 32, "bits": 4, "mode": "mxfp4"});
        values.insert("quantization".into(), mxfp4);
    }
    Ok(values)
}

/// Whether Python takes the value for true.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Array(ids) => !ids.is_empty(),
        Value::Number(id) => id.as_f64() != Some(0.0),
        _ => false,
    }
}

fn text(values: &Map<String, Value>) -> Option<&Map<String, Value>> {
    values.get("text_config")?.as_object()
}

/// The type that the settings ask for, where they name one that weights can have.
pub fn own_type(values: &Map<String, Value>) -> Option<Dtype> {
    let outer = values.get("torch_dtype").filter(|v| !v.is_null());
    let named = outer.or_else(|| text(values)?.get("dtype"));
    let all = [Dtype::Float16, Dtype::Bfloat16, Dtype::Float32];
    let name = named?.as_str()?;
    all.into_iter().find(|dtype| dtype.name() == name)
}

/// The settings of the result of `actions`: `values` with the quantization as it is now.
pub fn written(
    mut values: Map<String, Value>,
    actions: &[Action],
    unpack: bool,
    recipe: Option<Recipe>,
) -> Value {
    if unpack {
        drop_quantization(&mut values);
        let of_text = values.get_mut("text_config");
        if let Some(of_text) = of_text.and_then(Value::as_object_mut) {
            drop_quantization(of_text);
        }
    }
    if let Some(recipe) = recipe {
        let before = values.get("quantization").and_then(Value::as_object);
        // Beside matrices that stay as they were packed, each of ours is named.
        let beside = before.is_some();
        let mut quantization = before.cloned().unwrap_or_else(|| object(recipe.scheme));
        for action in actions {
            if let Some(scheme) = action.pack.filter(|_| beside || action.own_way) {
                quantization.insert(action.name.clone(), Value::Object(object(scheme)));
            }
        }
        values.insert("quantization".into(), Value::Object(quantization));
    }
    if let Some(quantization) = values.get("quantization").cloned() {
        values.insert("quantization_config".into(), quantization);
    }
    values.retain(|key, _| key != "_name_or_path" && key != "vision_config");
    let mut sorted: Vec<_> = values.into_iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    tagged(Value::Object(sorted.into_iter().collect()))
}

fn drop_quantization(values: &mut Map<String, Value>) {
    values.retain(|key, _| key != "quantization" && key != "quantization_config");
}

fn object(scheme: Scheme) -> Map<String, Value> {
    let values = [
        ("group_size", json!(scheme.group_size)),
        ("bits", json!(scheme.bits)),
        ("mode", json!(scheme.mode.name())),
    ];
    values
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

/// Numbers that JSON has not, which reading made strings of, in the form that transformers and mlx-lm have
/// for them.
fn tagged(value: Value) -> Value {
    match value {
        Value::String(word) if ["Infinity", "-Infinity", "NaN"].contains(&word.as_str()) => {
            json!({"__float__": word})
        }
        Value::Object(object) if object.len() == 1 && object.contains_key("__float__") => {
            Value::Object(object)
        }
        Value::Object(object) => {
            let values = object.into_iter().map(|(key, value)| (key, tagged(value)));
            Value::Object(values.collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(tagged).collect()),
        other => other,
    }
}
