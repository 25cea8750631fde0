//! Mixtures of experts in layouts that mlx-lm does not read, and settings that are refused.

mod common;

use std::collections::BTreeMap;

use common::golden::{Case, case};
use pensieve::cache::Batch;
use pensieve::checkpoint::{LoadResult, Source, WeightsAs, safetensors};
use pensieve::mlx::{Device, Dtype, Runtime};
use pensieve::models::{self, Loaded};
use serde_json::{Map, Value, json};

/// A file's tensors, all in float32: their shapes and bytes.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn read(file: &[u8]) -> Tensors {
    let tensors = safetensors::parse(file).unwrap().tensors.into_iter();
    tensors
        .map(|(name, info)| {
            assert_eq!(info.dtype.name(), "F32");
            (name, (info.shape, file[info.range].to_vec()))
        })
        .collect()
}

fn written(tensors: Tensors) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, (shape, bytes)) in tensors {
        let begin = data.len();
        data.extend(bytes);
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name, entry);
    }
    let header = Value::from(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), &data].concat()
}

/// `[E, rows, columns]` to `[E, columns, rows]`.
fn turn((shape, bytes): &mut (Vec<usize>, Vec<u8>)) {
    let (rows, columns) = (shape[1], shape[2]);
    let element = |at: usize| {
        let (expert, at) = (at / (rows * columns), at % (rows * columns));
        let from = (expert * rows + at % rows) * columns + at / rows;
        bytes[4 * from..4 * from + 4].to_vec()
    };
    *bytes = (0..bytes.len() / 4).flat_map(element).collect();
    shape.swap(1, 2);
}

/// The largest difference over the prompt from what mlx-lm computed.
fn distance(case: &Case, Loaded { model, .. }: &Loaded) -> f32 {
    let batch = Batch::single(&case.prompt, 0).unwrap();
    let hidden = model.forward(&batch, &mut model.caches()).unwrap();
    let logits = model.unembed(&hidden).unwrap();
    let logits = logits.astype(Dtype::Float32).unwrap();
    let rows: Vec<f32> = logits.log_softmax().unwrap().to_vec().unwrap();
    let pairs = rows.iter().zip(&case.logprobs);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The case's model with its tensors and its settings changed.
fn load_changed(
    case: &Case,
    change: impl Fn(&mut Tensors),
    settings: impl Fn(&mut Value),
) -> LoadResult<Loaded> {
    let checkpoint = case.checkpoint();
    let path = checkpoint.path().join("model.safetensors");
    let mut tensors = read(&std::fs::read(&path).unwrap());
    change(&mut tensors);
    std::fs::write(&path, written(tensors)).unwrap();
    // It has the old names.
    let _ = std::fs::remove_file(path.with_extension("safetensors.index.json"));
    let mut config = case.config.clone();
    settings(&mut config);
    std::fs::write(checkpoint.path().join("config.json"), config.to_string()).unwrap();
    let source = Source::Directory(checkpoint.path().to_path_buf());
    models::load(&source, WeightsAs::Stored, &|_, _| {})
}

#[test]
fn fused_experts_load_as_transformers_5_saves_them() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = case("qwen3-vl-moe-hf");
    let turn_all = |tensors: &mut Tensors, ending: &str| {
        let chosen = tensors
            .iter_mut()
            .filter(|(name, _)| name.ends_with(ending));
        chosen.for_each(|(_, tensor)| turn(tensor));
    };
    let as_saved = |tensors: &mut Tensors| {
        turn_all(tensors, ".experts.gate_up_proj");
        turn_all(tensors, ".experts.down_proj");
    };
    // It also writes a default into the text tower's settings that the whole model's overrule.
    let loaded = load_changed(&case, as_saved, |config| {
        assert_eq!(config["tie_word_embeddings"], false);
        config["text_config"]["tie_word_embeddings"] = true.into();
    });
    assert!(distance(&case, &loaded.unwrap()) < 1e-3);

    // One of the two turned is no layout.
    let half = |tensors: &mut Tensors| turn_all(tensors, ".experts.down_proj");
    let message = load_changed(&case, half, |_| {}).err().unwrap().to_string();
    assert!(message.contains("gate_up_proj"), "{message}");
}

/// transformers' own names in memory, which it writes if told not to keep the published layout.
#[test]
fn mixtrals_experts_may_be_fused_under_mlp() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = case("mixtral-base");
    let fuse = |tensors: &mut Tensors| {
        for layer in 0..2 {
            let old = format!("model.layers.{layer}.block_sparse_moe");
            let new = format!("model.layers.{layer}.mlp");
            let mut take = |name: &str| tensors.remove(&format!("{old}.{name}.weight")).unwrap();
            let (mut shape, gate) = take("switch_mlp.gate_proj");
            let (_, up) = take("switch_mlp.up_proj");
            let (down, router) = (take("switch_mlp.down_proj"), take("gate"));
            let each = gate.len() / shape[0];
            let pairs = gate.chunks(each).zip(up.chunks(each));
            let both = pairs.flat_map(|(gate, up)| [gate, up].concat()).collect();
            shape[1] *= 2;
            tensors.insert(format!("{new}.experts.gate_up_proj"), (shape, both));
            tensors.insert(format!("{new}.experts.down_proj"), down);
            tensors.insert(format!("{new}.gate.weight"), router);
        }
    };
    let loaded = load_changed(&case, fuse, |_| {});
    assert!(distance(&case, &loaded.unwrap()) < 1e-3);
}

#[test]
fn settings_that_change_a_mixture_are_honoured_or_refused() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let refused = [
        ("qwen3-moe-base", "num_experts_per_tok", json!(7)),
        ("qwen3-moe-base", "num_experts_per_tok", json!(0)),
        ("qwen3-moe-base", "decoder_sparse_step", json!(0)),
        ("qwen3-moe-base", "mlp_only_layers", Value::Null),
        ("qwen3-moe-base", "hidden_act", json!("gelu")),
        ("qwen2-moe-base", "use_sliding_window", json!(true)),
        ("olmoe-base", "clip_qkv", json!(8.0)),
        ("granitemoe-base", "logits_scaling", json!(0.0)),
    ];
    for (name, key, value) in refused {
        let loaded = load_changed(&case(name), |_| {}, |config| config[key] = value.clone());
        let message = loaded.err().unwrap().to_string();
        assert!(message.contains(key), "{name}: {message}");
    }
    // What transformers reads and mlx-lm does not.
    let honoured = [
        ("mixtral-base", json!({"sliding_window": 8})),
        (
            "mixtral-base",
            json!({"rope_scaling": {"type": "linear", "factor": 4.0}}),
        ),
        (
            "qwen3-moe-base",
            json!({"sliding_window": 8, "use_sliding_window": true}),
        ),
        ("qwen2-moe-base", json!({"norm_topk_prob": true})),
    ];
    for (name, settings) in honoured {
        let case = case(name);
        let loaded = load_changed(
            &case,
            |_| {},
            |config| {
                for (key, value) in settings.as_object().unwrap() {
                    config[key] = value.clone();
                }
            },
        );
        assert!(distance(&case, &loaded.unwrap()) > 0.1, "{name} {settings}");
    }
}
