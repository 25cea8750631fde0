//! gpt-oss with the experts' gate and up in one tensor of plain numbers, which mlx-lm does not load in
//! the way that transformers saves it: the golden case's numbers, laid out anew, give the same.

mod common;

use std::collections::BTreeMap;

use common::golden::case;
use pensieve::cache::Batch;
use pensieve::checkpoint::{Shards, Source, WeightsAs};
use pensieve::mlx::{Device, Runtime};
use pensieve::models;
use serde_json::json;

/// Shape and float32 values.
type Tensor = (Vec<usize>, Vec<f32>);

/// `[E, R, C]` to `[E, C, R]`.
fn transposed((shape, values): &Tensor) -> Tensor {
    let (e, r, c) = (shape[0], shape[1], shape[2]);
    let at = |i: usize| values[(i / (r * c) * r + i % r) * c + i / r % c];
    (vec![e, c, r], (0..e * r * c).map(at).collect())
}

/// `[E, F, ..]` twice to `[E, 2F, ..]`, the rows in turn.
fn in_turn(gate: &Tensor, up: &Tensor) -> Tensor {
    let mut shape = gate.0.clone();
    let row: usize = shape[2..].iter().product();
    shape[1] *= 2;
    let rows = gate.1.chunks(row).zip(up.1.chunks(row));
    let values = rows.flat_map(|(gate, up)| gate.iter().chain(up)).copied();
    (shape, values.collect())
}

/// The tensors of mlx-lm's layout with each layer's experts in another one.
fn relaid(mut tensors: BTreeMap<String, Tensor>, transpose: bool) -> BTreeMap<String, Tensor> {
    let layers: Vec<String> = tensors
        .keys()
        .filter_map(|name| Some(name.strip_suffix("gate_proj.weight")?.to_string()))
        .collect();
    assert!(!layers.is_empty());
    for at in layers {
        let mut take = |name: &str| tensors.remove(&format!("{at}{name}")).unwrap();
        let weight = in_turn(&take("gate_proj.weight"), &take("up_proj.weight"));
        let bias = in_turn(&take("gate_proj.bias"), &take("up_proj.bias"));
        let (down, down_bias) = (take("down_proj.weight"), take("down_proj.bias"));
        tensors.insert(format!("{at}gate_up_proj_bias"), bias);
        tensors.insert(format!("{at}down_proj_bias"), down_bias);
        if transpose {
            tensors.insert(format!("{at}gate_up_proj"), transposed(&weight));
            tensors.insert(format!("{at}down_proj"), transposed(&down));
        } else {
            tensors.insert(format!("{at}gate_up_proj.weight"), weight);
            tensors.insert(format!("{at}down_proj.weight"), down);
        }
    }
    tensors
}

fn safetensors(tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (shape, values)) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &data].concat()
}

#[test]
fn fused_experts_give_the_same_in_either_direction() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let case = case("gpt_oss-base");
    let checkpoint = case.checkpoint();
    let source = Source::Directory(checkpoint.path().to_path_buf());
    let shards = Shards::open(&source).unwrap();
    let tensors = shards.iter().map(|tensor| {
        let words = tensor.bytes.chunks_exact(4);
        let values = words.map(|w| f32::from_le_bytes(w.try_into().unwrap()));
        (
            tensor.name.to_string(),
            (tensor.shape.to_vec(), values.collect()),
        )
    });
    let tensors: BTreeMap<String, Tensor> = tensors.collect();
    for transpose in [true, false] {
        let place = tempfile::tempdir().unwrap();
        let file = safetensors(&relaid(tensors.clone(), transpose));
        std::fs::write(place.path().join("model.safetensors"), file).unwrap();
        let config = case.config.to_string();
        std::fs::write(place.path().join("config.json"), config).unwrap();
        let source = Source::Directory(place.path().to_path_buf());
        let model = models::load(&source, WeightsAs::Stored, &|_, _| {})
            .unwrap()
            .model;
        let batch = Batch::single(&case.prompt, 0).unwrap();
        let hidden = model.forward(&batch, &mut model.caches()).unwrap();
        let logits = model.unembed(&hidden).unwrap();
        let found: Vec<f32> = logits.log_softmax().unwrap().to_vec().unwrap();
        assert_eq!(found.len(), case.logprobs.len());
        let worst = found.iter().zip(&case.logprobs).map(|(a, b)| (a - b).abs());
        let worst = worst.fold(0.0, f32::max);
        assert!(worst < 1e-3, "transposed {transpose}: {worst}");
        assert!(!found.iter().any(|x| x.is_nan()));
    }
}
