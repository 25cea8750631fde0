//! Checkpoints of golden cases from their recipe (`tensors.json`), byte for byte what
//! tests/golden/portable.py makes. There the scheme is described.

use std::path::Path;

use serde_json::{Map, Value, json};

/// The increment of SplitMix64: 2^64 over the golden ratio.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// FNV-1a of 64 bits.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |value, byte| {
        (value ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// Output `i` of a SplitMix64 that starts at `state`.
fn output(state: u64, i: u64) -> u64 {
    let z = state.wrapping_add((i + 1).wrapping_mul(GAMMA));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The nearest bfloat16, ties to even. Not for NaN.
fn bf16(x: f32) -> u16 {
    let word = x.to_bits();
    ((word + 0x7FFF + ((word >> 16) & 1)) >> 16) as u16
}

/// The nearest float16, ties to even. For finite values below 65504.
fn f16(x: f32) -> u16 {
    let sign = ((x.to_bits() >> 16) & 0x8000) as u16;
    let exponent = ((x.to_bits() >> 23) & 0xFF) as i32 - 127;
    if exponent < -14 {
        // Subnormal, or zero: a multiple of 2^-24. The product is exact.
        let units = (f64::from(x.abs()) * f64::from(1 << 24)).round_ties_even();
        return sign | units as u16;
    }
    let mantissa = x.to_bits() & 0x007F_FFFF;
    let kept = ((exponent + 15) as u32) << 10 | mantissa >> 13;
    let rest = mantissa & 0x1FFF;
    let up = rest > 0x1000 || (rest == 0x1000 && kept & 1 == 1);
    sign | (kept + u32::from(up)) as u16
}

/// The little-endian bytes of a tensor `[name, dtype, shape, fill, ...]`.
pub fn content(tensor: &Value, seed: u64) -> Vec<u8> {
    let text = |i: usize| tensor[i].as_str().unwrap();
    let (name, dtype, fill) = (text(0), text(1), text(3));
    let float = |i: usize| tensor[i].as_f64().unwrap();
    let integer = |i: usize| tensor[i].as_i64().unwrap();
    let shape = tensor[2].as_array().unwrap();
    let count: u64 = shape.iter().map(|dim| dim.as_u64().unwrap()).product();
    let state = fnv1a(name.as_bytes()) ^ seed.wrapping_mul(GAMMA);
    let bits = (0..count).map(|i| output(state, i));
    match (fill, dtype) {
        ("uniform", _) => {
            let (center, spread) = (float(4), float(5));
            let values = bits.map(|x| {
                let unit = (x >> 40) as f64 / f64::from(1 << 24);
                (center + spread * (2.0 * unit - 1.0)) as f32
            });
            match dtype {
                "F32" => values.flat_map(f32::to_le_bytes).collect(),
                "F16" => values.flat_map(|x| f16(x).to_le_bytes()).collect(),
                "BF16" => values.flat_map(|x| bf16(x).to_le_bytes()).collect(),
                _ => panic!("{name}: no uniform fill for {dtype}"),
            }
        }
        ("words", "U32" | "I32") => bits
            .flat_map(|x| ((x >> 32) as u32).to_le_bytes())
            .collect(),
        ("integers", _) => {
            let (low, high) = (integer(4), integer(5));
            let width = match dtype {
                "U8" => 1,
                "U32" | "I32" => 4,
                "I64" => 8,
                _ => panic!("{name}: no integers fill for {dtype}"),
            };
            let value = |x: u64| low + (((x >> 32) * (high - low + 1) as u64) >> 32) as i64;
            bits.flat_map(|x| value(x).to_le_bytes().into_iter().take(width))
                .collect()
        }
        ("codes", "U32" | "U8" | "F8_E4M3") => {
            let high = integer(4) as u64;
            let lanes = if dtype == "U32" { 4 } else { 1 };
            let code =
                |draw: u64| (draw >> 8 & 0x80) as u8 | (((draw & 0x7FFF) * (high + 1)) >> 15) as u8;
            bits.flat_map(|x| (0..lanes).map(move |k| code(x >> (16 * k) & 0xFFFF)))
                .collect()
        }
        _ => panic!("{name}: no fill {fill} for {dtype}"),
    }
}

/// One safetensors file.
fn shard(tensors: &[Value], seed: u64, format: &str) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": format}));
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend(content(tensor, seed));
        let entry = json!({
            "dtype": tensor[1],
            "shape": tensor[2],
            "data_offsets": [start, data.len()],
        });
        header.insert(tensor[0].as_str().unwrap().into(), entry);
    }
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text.as_bytes());
    file.extend(data);
    file
}

/// Makes the fine-tune of a recipe, if it has one, in the folder `adapter` of `directory`.
fn write_adapter(recipe: &Value, directory: &Path) {
    let Some(adapter) = recipe.get("adapter") else {
        return;
    };
    let folder = directory.join("adapter");
    std::fs::create_dir(&folder).unwrap();
    let config = adapter["config"].to_string();
    std::fs::write(folder.join("adapter_config.json"), config).unwrap();
    // Another seed, so that a whole tensor differs from the model's of the same name.
    let seed = recipe["seed"].as_u64().unwrap() + 1000;
    let image = shard(adapter["tensors"].as_array().unwrap(), seed, "mlx");
    std::fs::write(folder.join("adapters.safetensors"), image).unwrap();
}

/// Writes config.json and the weights of a case's `recipe` (its tensors.json) to `directory`, and its
/// fine-tune, if it has one, to the folder `adapter` there.
pub fn write_checkpoint(config: &Value, recipe: &Value, directory: &Path) {
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let seed = recipe["seed"].as_u64().unwrap();
    let shards = recipe["shards"].as_u64().unwrap() as usize;
    let format = recipe["format"].as_str().unwrap();
    let tensors = recipe["tensors"].as_array().unwrap();
    let mut places = Map::new();
    for i in 0..shards {
        let part = &tensors[i * tensors.len() / shards..(i + 1) * tensors.len() / shards];
        let name = match shards {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{shards:05}.safetensors", i + 1),
        };
        std::fs::write(directory.join(&name), shard(part, seed, format)).unwrap();
        let names = part.iter().map(|tensor| tensor[0].as_str().unwrap());
        places.extend(names.map(|tensor| (tensor.to_string(), json!(name))));
    }
    if shards > 1 || format == "mlx" {
        let index = json!({"weight_map": places}).to_string();
        std::fs::write(directory.join("model.safetensors.index.json"), index).unwrap();
    }
    write_adapter(recipe, directory);
}
