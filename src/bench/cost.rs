//! What a decode step has to read and compute, by the checkpoint's shapes: the roofline's numbers.
//!
//! An estimate: weights, keys and values are counted, each once a step, and recurrent states, which are
//! read and written; activations, norms and convolutions are left out. Of experts those count that a step
//! is expected to draw if each token draws them evenly.

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
    /// Numbers of a stream's recurrent states, in float32.
    state: f64,
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
        let kinds = kinds(text);
        let product =
            |keys: [&str; 3]| Some(number(keys[0])? * number(keys[1])? * number(keys[2])?);
        self.state = STATES.into_iter().find_map(product).unwrap_or(0.0) * kinds.recurrent;
        let Some(n_heads) = number("num_attention_heads") else {
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
        self.window = number("sliding_window").unwrap_or(f64::INFINITY);
        (self.kept, self.looking) = (kept * kinds.whole, looking * kinds.whole);
        self.kept_in_window = kept * kinds.with_window;
        self.looking_in_window = looking * kinds.with_window;
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
        let states = streams * self.state;
        Step {
            bytes: self.shared.bytes
                + self.experts.bytes * read
                + streams * kept * self.number
                + states * 2.0 * 4.0,
            flops: streams * (2.0 * active + looked) + states * STATE_FLOPS,
        }
    }
}

/// What a number of a recurrent state takes: to decay, to have a product added, and to be multiplied and
/// summed up for the output.
const STATE_FLOPS: f64 = 5.0;

/// What a layer's state is the product of: Mamba 2's own names, Nemotron-H's, Granite's, and those of
/// gated delta nets.
const STATES: [[&str; 3]; 5] = [
    ["num_heads", "head_dim", "state_size"],
    ["num_heads", "head_dim", "ssm_state_size"],
    ["mamba_num_heads", "mamba_head_dim", "ssm_state_size"],
    ["mamba_n_heads", "mamba_d_head", "mamba_d_state"],
    [
        "linear_num_value_heads",
        "linear_key_head_dim",
        "linear_value_head_dim",
    ],
];

/// Layers by what they remember.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Kinds {
    whole: f64,
    with_window: f64,
    recurrent: f64,
}

fn kinds(text: &Config) -> Kinds {
    let number = |key: &str| text.value(key).and_then(Value::as_f64);
    let n_layers = number("num_hidden_layers").unwrap_or(0.0);
    if let Some(types) = text.value("layer_types").and_then(Value::as_array) {
        let count = |names: [&str; 2]| {
            let types = types.iter().filter_map(Value::as_str);
            types.filter(|name| names.contains(name)).count() as f64
        };
        return Kinds {
            whole: count(["full_attention", "attention"]),
            with_window: count(["sliding_attention", "chunked_attention"]),
            recurrent: count(["linear_attention", "mamba"]),
        };
    }
    if let Some(pattern) = text
        .value("hybrid_override_pattern")
        .and_then(Value::as_str)
    {
        return Kinds {
            whole: pattern.matches('*').count() as f64,
            with_window: 0.0,
            recurrent: pattern.matches('M').count() as f64,
        };
    }
    if number("num_attention_heads").is_none() {
        return Kinds {
            recurrent: n_layers,
            ..Kinds::default()
        };
    }
    let every = |key: &str| number(key).filter(|&n| n >= 1.0);
    if let Some(interval) = every("full_attention_interval") {
        let whole = (n_layers / interval).floor();
        return Kinds {
            whole,
            with_window: 0.0,
            recurrent: n_layers - whole,
        };
    }
    let whole = every("sliding_window_pattern").map(|n| (n_layers / n).floor());
    let whole = whole.unwrap_or(n_layers);
    Kinds {
        whole,
        with_window: n_layers - whole,
        recurrent: 0.0,
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
    fn of_a_mixture_the_router_counts_and_the_experts_drawn() {
        let (cost, _) = made("qwen3-30b-a3b", 1, PACKED);
        let attention = 2048.0 * (4096.0 + 512.0 + 512.0) + 4096.0 * 2048.0;
        let expert = 3.0 * 2048.0 * 768.0;
        let others = attention + 2048.0 * 128.0 + 512.0 * 2048.0;
        assert_eq!(cost.step(1, 0).flops, 2.0 * (others + 8.0 * expert));
        // 4.5 bits a number: a scale and a bias of 16 bits each 64 of them.
        let one = cost.step(1, 0).bytes - cost.shared.bytes;
        assert!((one - 8.0 * expert * 4.5 / 8.0).abs() < 1.0, "{one}");
        // Two streams draw 16 experts, less those that both draw: 128 × (1 - (120/128)²).
        let two = cost.step(2, 0).bytes - cost.shared.bytes;
        let expected = 15.5 * expert * 4.5 / 8.0;
        assert!((two - expected).abs() < 1.0, "{two} {expected}");
    }

    #[test]
    fn a_latent_cache_keeps_a_rank_and_the_rotated_part() {
        let (cost, _) = made("deepseek-v3-mini", 2, PACKED);
        let (empty, deep) = (cost.step(1, 0), cost.step(1, 100));
        assert_eq!(deep.bytes - empty.bytes, 2.0 * 100.0 * (256.0 + 32.0) * 2.0);
        // Each head: a product with the latent and the rotated part, and one with the latent.
        let looking = 2.0 * (256.0 + 32.0) + 2.0 * 256.0;
        assert_eq!(deep.flops - empty.flops, 2.0 * 100.0 * 16.0 * looking);
    }

    #[test]
    fn a_recurrent_model_reads_and_writes_its_state_at_any_depth() {
        let (cost, bytes) = made("mamba2-130m", 1, PACKED);
        let state = 24.0 * 64.0 * 128.0;
        let one = cost.step(1, 0);
        assert_eq!(one.bytes, bytes as f64 + 2.0 * 4.0 * state);
        assert_eq!(cost.step(1, 5000), one);
        // In: two of 1536, the state's B and C, a step a head; out; the head.
        let products = 768.0 * (2.0 * 1536.0 + 2.0 * 128.0 + 24.0) + 1536.0 * 768.0 + 512.0 * 768.0;
        let convolution = 4.0 * (1536.0 + 2.0 * 128.0);
        assert_eq!(one.flops, 2.0 * (products + convolution) + 5.0 * state);
    }

    #[test]
    fn layers_are_told_apart_by_whatever_names_them() {
        for (config, [whole, with_window, recurrent]) in [
            (
                r#"{"layer_types": ["mamba", "attention", "mamba"], "num_attention_heads": 1}"#,
                [1.0, 0.0, 2.0],
            ),
            (
                r#"{"layer_types": ["linear_attention", "full_attention", "sliding_attention"]}"#,
                [1.0, 1.0, 1.0],
            ),
            (
                r#"{"hybrid_override_pattern": "M-M*-", "num_attention_heads": 1}"#,
                [1.0, 0.0, 2.0],
            ),
            (
                r#"{"full_attention_interval": 4, "num_hidden_layers": 8, "num_attention_heads": 1}"#,
                [2.0, 0.0, 6.0],
            ),
            (
                r#"{"sliding_window_pattern": 6, "num_hidden_layers": 26, "num_attention_heads": 1}"#,
                [4.0, 22.0, 0.0],
            ),
            (r#"{"num_hidden_layers": 3}"#, [0.0, 0.0, 3.0]),
        ] {
            let expected = Kinds {
                whole,
                with_window,
                recurrent,
            };
            assert_eq!(
                kinds(&Config::parse("config.json", config.as_bytes()).unwrap()),
                expected,
                "{config}"
            );
        }
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
