//! Checkpoints of published shapes with random weights, in MLX's format, so that measuring needs no
//! download.
//!
//! Packed matrices are made as such: random words, and scales and biases with which the numbers have
//! mean 0 and variance 1 / inputs, so that activations stay finite and logits spread. A tensor depends
//! on the seed, its name and its shape alone. One tensor is in memory at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::thread;

use serde_json::{Map, Value, json};

use super::layout::{Part, Role};
use super::shapes::Shape;
use super::vocabulary;
use crate::checkpoint::write::{Entry, Layout, write_json, write_shards};
use crate::checkpoint::{CheckpointError, Dtype};

/// How matrices are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// As bfloat16.
    Dense,
    /// Packed, MLX's `affine` mode.
    Packed {
        /// Of one number: one of [`WIDTHS`].
        bits: usize,
        /// Numbers that share a scale: one of [`GROUPS`].
        group_size: usize,
    },
}

/// The bits of packed numbers that MLX takes.
pub const WIDTHS: [usize; 6] = [2, 3, 4, 5, 6, 8];
/// The group sizes that MLX takes.
pub const GROUPS: [usize; 3] = [32, 64, 128];

/// The fewest rows of an embedding: those of the tokenizer that is written.
pub const LEAST_VOCAB: usize = vocabulary::LEAST;

/// How `mlp.gate` is packed whatever the rest has, as mlx-lm's converters do.
const WIDE: (usize, usize) = (8, 64);
/// Small, so that files are checked and read as those of large models are.
const SHARD_BYTES: u64 = 2 << 30;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Tensors, those of packed matrices counted one by one.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Numbers of the model, however they are stored.
    pub parameters: u64,
}

/// Writes a checkpoint of `shape` to the directory `to`, which must be there: config.json, weights,
/// and a tokenizer whose vocabulary is as large as the model's. `progress` is told the bytes written
/// so far and in all.
///
/// # Errors
/// What the system says while writing.
pub fn make(
    shape: Shape,
    storage: Storage,
    seed: u64,
    to: &Path,
    progress: impl Fn(u64, u64),
) -> Result<Made, CheckpointError> {
    let plan = Plan::new(&shape, storage);
    let total = plan.entries.iter().map(Entry::bytes).sum();
    let layout = Layout {
        format: "mlx",
        shard_bytes: SHARD_BYTES,
        parameters: plan.parameters,
    };
    let (mut written, mut buffer) = (0, Vec::new());
    write_shards(to, &plan.entries, layout, |entry| {
        let bytes = plan.content(entry, seed, std::mem::take(&mut buffer));
        written += bytes.len() as u64;
        progress(written, total);
        Ok::<_, CheckpointError>(Cow::from(bytes))
    })?;
    vocabulary::write(to, shape.vocab())?;
    // Last, so that a directory with it is whole.
    write_json(to, "config.json", &Value::Object(plan.config))?;
    Ok(Made {
        tensors: plan.entries.len(),
        bytes: total,
        parameters: plan.parameters,
    })
}

/// What is to be written.
struct Plan {
    entries: Vec<Entry>,
    fills: BTreeMap<String, Fill>,
    config: Map<String, Value>,
    parameters: u64,
}

/// How a tensor gets its numbers.
#[derive(Clone, Debug)]
enum Fill {
    /// Any bits.
    Words,
    /// Uniform in this range.
    Between(f32, f32),
    /// `times` what the tensor `of` has, which is uniform within a quarter of `middle`.
    Scales { of: String, middle: f32, times: f32 },
}

impl Plan {
    fn new(shape: &Shape, storage: Storage) -> Self {
        let mut plan = Self {
            entries: Vec::new(),
            fills: BTreeMap::new(),
            config: shape.config(),
            parameters: 0,
        };
        plan.config.extend([
            ("eos_token_id".to_owned(), json!(vocabulary::END)),
            ("bos_token_id".to_owned(), Value::Null),
        ]);
        let mut quantization = Map::new();
        if let Storage::Packed { bits, group_size } = storage {
            quantization.insert("group_size".into(), json!(group_size));
            quantization.insert("bits".into(), json!(bits));
            quantization.insert("mode".into(), json!("affine"));
        }
        for part in shape.parts() {
            plan.parameters += part.shape.iter().map(|&dim| dim as u64).product::<u64>();
            let inner = part.shape.last().copied().unwrap_or(1);
            match (part.role, storage) {
                (Role::Between(low, high), _) => {
                    plan.push(part.name, Dtype::BF16, part.shape, Fill::Between(low, high));
                }
                (Role::Between32(low, high), _) => {
                    plan.push(part.name, Dtype::F32, part.shape, Fill::Between(low, high));
                }
                (Role::Matrix { wide }, Storage::Packed { bits, group_size }) => {
                    let (bits, group_size) = match wide {
                        true => WIDE,
                        false => (bits, group_size),
                    };
                    if !inner.is_multiple_of(group_size) {
                        plan.dense(part, inner);
                        continue;
                    }
                    if wide {
                        let module = part.name.trim_end_matches(".weight").to_owned();
                        let own = json!({"group_size": group_size, "bits": bits});
                        quantization.insert(module, own);
                    }
                    plan.packed(part, inner, bits, group_size);
                }
                (Role::Matrix { .. }, Storage::Dense) => plan.dense(part, inner),
            }
        }
        if !quantization.is_empty() {
            let quantization = Value::Object(quantization);
            // Under both names, as mlx-lm writes it.
            for key in ["quantization", "quantization_config"] {
                plan.config.insert(key.into(), quantization.clone());
            }
        }
        plan
    }

    fn push(&mut self, name: String, dtype: Dtype, shape: Vec<usize>, fill: Fill) {
        self.fills.insert(name.clone(), fill);
        self.entries.push(Entry { name, dtype, shape });
    }

    fn dense(&mut self, part: Part, inner: usize) {
        let most = (3.0 / inner as f32).sqrt();
        let fill = Fill::Between(-most, most);
        self.push(part.name, Dtype::BF16, part.shape, fill);
    }

    fn packed(&mut self, part: Part, inner: usize, bits: usize, group_size: usize) {
        let with_last = |last: usize| {
            let mut shape = part.shape.clone();
            if let Some(dim) = shape.last_mut() {
                *dim = last;
            }
            shape
        };
        // Whole numbers 0 to 2^bits - 1 vary by ((2^bits)² - 1) / 12 around their middle.
        let count = (1u32 << bits) as f32;
        let middle = 1.0 / (inner as f32 * (count * count - 1.0) / 12.0).sqrt();
        let module = part.name.trim_end_matches("weight").to_owned();
        let of = format!("{module}scales");
        let fill = |times| Fill::Scales {
            of: of.clone(),
            middle,
            times,
        };
        let groups = with_last(inner / group_size);
        let words = with_last(inner * bits / 32);
        self.push(part.name.clone(), Dtype::U32, words, Fill::Words);
        self.push(of.clone(), Dtype::BF16, groups.clone(), fill(1.0));
        let biases = fill(-(count - 1.0) / 2.0);
        self.push(format!("{module}biases"), Dtype::BF16, groups, biases);
    }

    /// The tensor's bytes; `buffer` may bring memory to reuse.
    fn content(&self, entry: &Entry, seed: u64, mut buffer: Vec<u8>) -> Vec<u8> {
        buffer.resize(entry.bytes() as usize, 0);
        let fill = self.fills.get(&entry.name).unwrap_or(&Fill::Words);
        let stream = match fill {
            Fill::Scales { of, .. } => stream(of, seed),
            _ => stream(&entry.name, seed),
        };
        fill_bytes(&mut buffer, fill, entry.dtype, stream);
        buffer
    }
}

/// The bytes that one draw makes, for any type.
const DRAW: usize = 8;
/// Draws that a thread makes at a time.
const STRETCH: usize = 1 << 16;

fn fill_bytes(bytes: &mut [u8], fill: &Fill, dtype: Dtype, stream: u64) {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let draws = bytes.len().div_ceil(DRAW);
    let each = draws.div_ceil(threads).max(STRETCH);
    thread::scope(|scope| {
        for (i, part) in bytes.chunks_mut(each * DRAW).enumerate() {
            let first = stream.wrapping_add(GAMMA.wrapping_mul((i * each) as u64));
            match part.len() == each * DRAW {
                true => {
                    scope.spawn(move || fill_part(part, fill, dtype, first));
                }
                // The last part, and small tensors as a whole.
                false => fill_part(part, fill, dtype, first),
            }
        }
    });
}

fn fill_part(bytes: &mut [u8], fill: &Fill, dtype: Dtype, first: u64) {
    let (low, width, times) = match fill {
        Fill::Words => {
            return each(bytes, first, |draw| draw.to_le_bytes());
        }
        Fill::Between(low, high) => (*low, high - low, 1.0),
        Fill::Scales { middle, times, .. } => (0.75 * middle, 0.5 * middle, *times),
    };
    match dtype {
        Dtype::F32 => each(bytes, first, |draw| {
            let [a, b] = [draw as u32, (draw >> 32) as u32].map(|bits| {
                let unit = (bits >> 8) as f32 / (1 << 24) as f32;
                ((low + width * unit) * times).to_le_bytes()
            });
            [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
        }),
        _ => each(bytes, first, |draw| {
            let [a, b, c, d] = [0, 16, 32, 48].map(|shift| {
                let unit = f32::from((draw >> shift) as u16) / 65536.0;
                let value = bf16(low + width * unit);
                // Of the rounded scale, so that the bias is the middle exactly or nearly so.
                let value = bf16(f32::from_bits(u32::from(value) << 16) * times);
                value.to_le_bytes()
            });
            [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
        }),
    }
}

/// Fills `bytes` with what `value` makes of each draw of SplitMix64 from `state`.
fn each(bytes: &mut [u8], mut state: u64, value: impl Fn(u64) -> [u8; DRAW]) {
    for place in bytes.chunks_mut(DRAW) {
        state = state.wrapping_add(GAMMA);
        let drawn = value(mix(state));
        place.copy_from_slice(&drawn[..place.len()]);
    }
}

/// The increment of SplitMix64: 2^64 over the golden ratio.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's output for a state (Steele et al., 2014).
pub(super) fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Where the draws of the tensor `name` begin: FNV-1a of its name, and the seed.
fn stream(name: &str, seed: u64) -> u64 {
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325, |value, byte| {
        (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    mix(hash ^ mix(seed))
}

/// The nearest bfloat16, ties to even. Not for NaN.
fn bf16(x: f32) -> u16 {
    let word = x.to_bits();
    (word.wrapping_add(0x7FFF + ((word >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::super::shapes::SHAPES;
    use super::*;
    use crate::checkpoint::{Shards, Source};
    use crate::engine::check;

    const PACKED: Storage = Storage::Packed {
        bits: 4,
        group_size: 64,
    };

    fn numbers(bytes: &[u8]) -> Vec<f32> {
        let pairs = bytes.chunks_exact(2);
        pairs
            .map(|pair| f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16))
            .collect()
    }

    fn moments(values: &[f32]) -> (f32, f32) {
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
        (mean, variance)
    }

    #[test]
    fn matrices_have_mean_0_and_variance_1_over_inputs() {
        let shape = Shape::named("qwen3-0.6b").unwrap().with_layers(1);
        let name = "model.layers.0.mlp.down_proj";
        for storage in [
            Storage::Dense,
            PACKED,
            Storage::Packed {
                bits: 8,
                group_size: 32,
            },
        ] {
            let plan = Plan::new(&shape, storage);
            let content = |end: &str| {
                let name = format!("{name}.{end}");
                let entry = plan.entries.iter().find(|entry| entry.name == name);
                plan.content(entry.unwrap(), 7, vec![1; 5])
            };
            let values = match storage {
                Storage::Dense => numbers(&content("weight")),
                Storage::Packed { bits, group_size } => {
                    let (scales, biases) = (content("scales"), content("biases"));
                    let (scales, biases) = (numbers(&scales), numbers(&biases));
                    let per_byte = 8 / bits;
                    let codes = content("weight").into_iter().flat_map(move |byte| {
                        (0..per_byte)
                            .map(move |k| (byte >> (k * bits)) & ((1u16 << bits) - 1) as u8)
                    });
                    let value = |(i, code)| {
                        scales[i / group_size] * f32::from(code) + biases[i / group_size]
                    };
                    codes.enumerate().map(value).collect()
                }
            };
            assert_eq!(values.len(), 1024 * 3072);
            let (mean, variance) = moments(&values);
            let expected = 1.0 / 3072.0;
            assert!(
                mean.abs() < 0.01 * f32::sqrt(expected),
                "{storage:?}: {mean}"
            );
            assert!(
                (variance / expected - 1.0).abs() < 0.05,
                "{storage:?}: {variance}"
            );
        }
    }

    #[test]
    fn a_tensor_depends_on_seed_and_name_not_on_threads() {
        let fill = Fill::Between(-1.0, 1.0);
        let (mut whole, mut alone) = (vec![0; 5 * STRETCH * DRAW + 6], vec![0; STRETCH]);
        fill_bytes(&mut whole, &fill, Dtype::BF16, stream("a", 1));
        fill_part(&mut alone, &fill, Dtype::BF16, stream("a", 1));
        assert_eq!(whole[..alone.len()], alone);
        let mut again = vec![0; whole.len()];
        fill_part(&mut again, &fill, Dtype::BF16, stream("a", 1));
        assert_eq!(whole, again);
        assert_ne!(stream("a", 1), stream("a", 2));
        assert_ne!(stream("a", 1), stream("b", 1));
    }

    #[test]
    fn what_is_made_says_how_it_is_packed() {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape::named("deepseek-v3-mini").unwrap();
        let shape = shape.with_layers(2).with_vocab(512);
        let last = std::cell::Cell::new((0, 0));
        let report = |done, all| last.set((done, all));
        let made = make(shape, PACKED, 1, folder.path(), report).unwrap();
        assert_eq!(last.get(), (made.bytes, made.bytes));
        let source = Source::Directory(folder.path().to_owned());
        let shards = Shards::open(&source).unwrap();
        assert_eq!(shards.len(), made.tensors);
        let config = std::fs::read(folder.path().join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["quantization"]["bits"], 4);
        assert_eq!(config["quantization"], config["quantization_config"]);
        assert_eq!(config["num_hidden_layers"], 2);
    }

    #[test]
    fn every_family_fits_its_architecture_and_is_finite() {
        let mut families = std::collections::BTreeSet::new();
        for shape in SHAPES {
            // Others of a family differ in numbers only.
            let new = families.insert(shape.config()["model_type"].to_string());
            if !new && shape.name != "moonlight-16b-a3b" {
                continue;
            }
            let small = shape.with_layers(1).with_vocab(512).with_few_experts();
            let folder = tempfile::tempdir().unwrap();
            let made = make(small, PACKED, 1, folder.path(), |_, _| ());
            let made = made.unwrap_or_else(|e| panic!("{}: {e}", shape.name));
            let source = Source::Directory(folder.path().to_owned());
            let checked = check(&source, None, &|_, _| ());
            let checked = checked.unwrap_or_else(|e| panic!("{}: {e}", shape.name));
            assert_eq!(checked.tensors, made.tensors, "{}", shape.name);
            assert!(checked.faults.is_empty(), "{}", shape.name);
        }
    }
}
