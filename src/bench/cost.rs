//! What a decode step has to read and compute, by the checkpoint's shapes: the roofline's numbers.
//!
//! An estimate: weights, keys and values are counted, each once a step; activations, norms and a
//! recurrent state are left out. Of experts those count that a step is expected to draw if each token
//! draws them evenly.

use serde_json::Value;

use crate::checkpoint::{Config, Dtype, Quantization, Result, Shards, Source};

/// A model's shapes, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes and parameters that every step reads.
    shared: Part,
    /// The same of all experts together.
    experts: Part,
    n_experts: f64,
    top_k: f64,
    /// Numbers that each position leaves in the caches of layers that keep all.
    kept: f64,
    /// The same of layers with a window.
    kept_in_window: f64,
    window: f64,
    /// Operations that a token spends on each position it looks at, in all layers.
    looking: f64,
    looking_in_window: f64,
    /// Bytes of one number in a cache.
    number: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Part {
    bytes: f64,
    parameters: f64,
}

/// One decode step of several streams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Bytes to read.
    pub bytes: f64,
    /// Floating-point operations, a multiplication and an addition counted as two.
    pub flops: f64,
}

impl Cost {
    /// Of the model at `source`, whose weights take `weight_bytes` in memory.
    ///
    /// # Errors
    /// When config.json or the shards cannot be read.
    pub fn of(source: &Source, weight_bytes: usize) -> Result<Cost> {
        let config = Config::open(source)?;
        let quantization = Quantization::new(&config)?;
        let shards = Shards::open(source)?;
        // As loaded they may be unpacked.
        let growth = weight_bytes as f64 / (shards.total_bytes() as f64).max(1.0);
        let text = config.text()?;
        let number = |key: &str| text.value(key).and_then(Value::as_f64);
        let mut cost = Cost {
            n_experts: ["num_experts", "n_routed_experts", "num_local_experts"]
                .into_iter()
                .find_map(number)
                .unwrap_or(1.0),
            top_k: number("num_experts_per_tok").unwrap_or(1.0),
            number: if growth > 1.5 { 4.0 } else { 2.0 },
            ..Cost::default()
        };
        let has_head = shards.names().any(|name| name.contains("lm_head."));
        for tensor in shards.iter() {
            if has_head && is_embedding(tensor.name) {
                continue;
            }
            let count = |shape: &[usize]| shape.iter().map(|&dim| dim as f64).product::<f64>();
            let part = match is_of_experts(tensor.name) {
                true => &mut cost.experts,
                false => &mut cost.shared,
            };
            part.bytes += tensor.bytes.len() as f64 * growth;
            let module = tensor.name.strip_suffix(".scales");
            part.parameters += match (module, &quantization) {
                (Some(module), Some(quantization)) => {
                    let scheme = quantization.for_path(module);
                    let scheme = scheme.unwrap_or(quantization.default_scheme());
                    count(tensor.shape) * scheme.group_size as f64
                }
                // Packed words count with their scales; vectors are no products.
                _ if tensor.shape.len() < 2 || tensor.dtype == Dtype::U32 => 0.0,
                _ if tensor.name.ends_with(".biases") => 0.0,
                _ => count(tensor.shape),
            };
        }
        cost.caches(&text);
        Ok(cost)
    }

    fn caches(&mut self, text: &Config) {
        let number = |key: &str| text.value(key).and_then(Value::as_f64);
        let (Some(n_layers), Some(n_heads)) =
            (number("num_hidden_layers"), number("num_attention_heads"))
        else {
            return;
        };
        let d_model = number("hidden_size").unwrap_or(0.0);
        let head_dim = number("head_dim").unwrap_or(d_model / n_heads.max(1.0));
        let (kept, looking) = match number("kv_lora_rank") {
            Some(rank) => {
                let rope = number("qk_rope_head_dim").unwrap_or(0.0);
                (rank + rope, 2.0 * n_heads * (2.0 * rank + rope))
            }
            None => {
                let n_kv_heads = number("num_key_value_heads").unwrap_or(n_heads);
                (2.0 * n_kv_heads * head_dim, 4.0 * n_heads * head_dim)
            }
        };
        let kinds = text.value("layer_types").and_then(Value::as_array);
        let of_kind = |kind: &str| {
            let kinds = kinds?.iter().filter(|k| k.as_str() == Some(kind));
            Some(kinds.count() as f64)
        };
        let pattern = number("sliding_window_pattern").filter(|&n| n >= 1.0);
        let with_window = match (of_kind("sliding_attention"), pattern) {
            (Some(count), _) => count,
            (None, Some(pattern)) => n_layers - (n_layers / pattern).floor(),
            (None, None) => 0.0,
        };
        let whole = of_kind("full_attention").unwrap_or(n_layers - with_window);
        self.window = number("sliding_window").unwrap_or(f64::INFINITY);
        (self.kept, self.looking) = (kept * whole, looking * whole);
        self.kept_in_window = kept * with_window;
        self.looking_in_window = looking * with_window;
    }

    /// A step of `streams` tokens, each of which looks at `context` positions.
    pub fn step(&self, streams: usize, context: usize) -> Step {
        let (streams, context) = (streams as f64, context as f64);
        let n_experts = self.n_experts.max(1.0);
        let drawn = (self.top_k / n_experts).min(1.0);
        // A token leaves an expert out with 1 - drawn; of all of them none draws it with its power.
        let read = 1.0 - (1.0 - drawn).powf(streams);
        let near = context.min(self.window);
        let kept = self.kept * context + self.kept_in_window * near;
        let looked = self.looking * context + self.looking_in_window * near;
        let active = self.shared.parameters + self.experts.parameters * drawn;
        Step {
            bytes: self.shared.bytes + self.experts.bytes * read + streams * kept * self.number,
            flops: streams * (2.0 * active + looked),
        }
    }
}

fn is_embedding(name: &str) -> bool {
    [".embed_tokens.", ".embeddings.", ".wte."]
        .iter()
        .any(|part| name.contains(part))
}

fn is_of_experts(name: &str) -> bool {
    name.contains(".switch_mlp.") || name.contains(".experts.")
}

#[cfg(test)]
mod tests {
    use super::super::make::{Storage, make};
    use super::super::shapes::Shape;
    use super::*;

    fn made(name: &str, layers: usize, storage: Storage) -> (Cost, u64) {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape::named(name).unwrap();
        let shape = shape.with_layers(layers).with_vocab(512);
        let made = make(shape, storage, 0, folder.path(), |_, _| ()).unwrap();
        let source = Source::Directory(folder.path().to_owned());
        (Cost::of(&source, made.bytes as usize).unwrap(), made.bytes)
    }

    const PACKED: Storage = Storage::Packed {
        bits: 4,
        group_size: 64,
    };

    #[test]
    fn a_dense_models_step_is_its_weights_and_its_keys_and_values() {
        let (cost, bytes) = made("qwen3-0.6b", 1, PACKED);
        let empty = cost.step(1, 0);
        assert_eq!(empty.bytes, bytes as f64, "tied: all of it is read");
        // q, k, v, o: 1024 × (2048 + 1024 + 1024) + 2048 × 1024; three of 1024 × 3072; the head.
        let parameters = 1024.0 * (4096.0 + 2048.0 + 9216.0 + 512.0);
        assert_eq!(empty.flops, 2.0 * parameters);
        let deep = cost.step(4, 1000);
        assert_eq!(
            deep.bytes - empty.bytes,
            4.0 * 1000.0 * 2.0 * 8.0 * 128.0 * 2.0
        );
        assert_eq!(
            deep.flops - 4.0 * empty.flops,
            4.0 * 1000.0 * 4.0 * 16.0 * 128.0
        );
        let (dense, _) = made("qwen3-0.6b", 1, Storage::Dense);
        assert_eq!(dense.step(1, 0).flops, empty.flops);
    }

    #[test]
    fn windows_end_and_experts_are_drawn() {
        let (gemma, _) = made("gemma3-1b", 6, PACKED);
        let at = |context| gemma.step(1, context).bytes;
        let each = 2.0 * 256.0 * 2.0;
        assert_eq!(at(512) - at(0), 6.0 * 512.0 * each);
        assert_eq!(at(1512) - at(512), 1000.0 * each);
        let (mixture, bytes) = made("deepseek-v3-mini", 2, PACKED);
        let all = mixture.shared.bytes + mixture.experts.bytes;
        assert!(all < bytes as f64, "an embedding of its own is not read");
        let one = mixture.step(1, 0).bytes - mixture.shared.bytes;
        assert!((one / mixture.experts.bytes - 0.25).abs() < 1e-9);
        let many = mixture.step(64, 0).bytes;
        assert!(many > 0.999 * all && many <= all);
    }
}
