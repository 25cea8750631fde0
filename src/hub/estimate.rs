//! What a model takes in memory, from its settings and the size of its files, without loading it.
//!
//! An estimate: the weights count as they are stored, the cache as 16-bit keys and values for every
//! position that a layer sees, and all else as [`REST`]. States of fixed size (recurrent layers,
//! convolutions) count nothing.

use serde_json::Value;

/// Bytes of a number in the cache.
pub const CACHE_ELEMENT: u64 = 2;
/// Bytes for everything beside the weights and the cache: what a step computes, and the program.
pub const REST: u64 = 400_000_000;

/// Bytes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The weights.
    pub weights: u64,
    /// Keys and values of one sequence.
    pub cache: u64,
}

impl Need {
    /// From the two that vary.
    pub fn new(weights: u64, cache: u64) -> Need {
        Need { weights, cache }
    }

    /// All in all.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(REST)
    }
}

/// The part of a machine's memory that a model may take: macOS leaves the GPU about three quarters, and
/// other programs want to live too.
pub fn budget(memory: u64) -> u64 {
    memory / 10 * 7
}

/// Bytes of keys and values of one sequence of `context` tokens; none if `config` (`config.json`) does not
/// say how many layers or heads there are.
pub fn cache(config: &Value, context: u64) -> Option<u64> {
    let config = text(config);
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let n_layers = number("num_hidden_layers").or_else(|| number("n_layer"))?;
    // A number that no model has would only make this loop long.
    if n_layers > 100_000 {
        return None;
    }
    if config.get("model_type").and_then(Value::as_str) == Some("mamba2") {
        return Some(0);
    }
    let n_layers = n_layers.saturating_sub(number("num_kv_shared_layers").unwrap_or(0));
    let n_heads = number("num_attention_heads")?;
    let d_model = number("hidden_size")?;
    let per_layer = |full: bool| -> Option<u64> {
        if let Some(rank) = number("kv_lora_rank") {
            return rank.checked_add(number("qk_rope_head_dim")?);
        }
        let own = |key: &str| full.then(|| number(key)).flatten();
        let heads = own("num_global_key_value_heads")
            .or_else(|| number("num_key_value_heads"))
            .unwrap_or(n_heads);
        let size = own("global_head_dim").or_else(|| number("head_dim"));
        let size = size.or_else(|| d_model.checked_div(n_heads))?;
        heads.checked_mul(size)?.checked_mul(2)
    };
    let mut total = 0u64;
    for layer in 0..n_layers {
        let (positions, full) = match kind(config, layer) {
            Kind::Full => (context, true),
            Kind::Window(window) => (context.min(window), false),
            Kind::Fixed => continue,
        };
        let bytes = per_layer(full)?.checked_mul(CACHE_ELEMENT)?;
        total = total.checked_add(positions.checked_mul(bytes)?)?;
    }
    Some(total)
}

/// The settings of the text tower.
pub fn text(config: &Value) -> &Value {
    match config.get("text_config") {
        Some(text) if text.is_object() => text,
        _ => config,
    }
}

enum Kind {
    Full,
    Window(u64),
    Fixed,
}

/// What a layer remembers.
fn kind(config: &Value, layer: u64) -> Kind {
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let window = || number("sliding_window").map_or(Kind::Full, Kind::Window);
    let at = usize::try_from(layer).unwrap_or(usize::MAX);
    for key in ["layer_types", "layers_block_type"] {
        if let Some(types) = config.get(key).and_then(Value::as_array) {
            return match types.get(at).and_then(Value::as_str) {
                Some("sliding_attention") => window(),
                Some("chunked_attention") => {
                    number("attention_chunk_size").map_or(Kind::Full, Kind::Window)
                }
                Some("linear_attention" | "conv" | "mamba" | "recurrent" | "mlp" | "moe") => {
                    Kind::Fixed
                }
                _ => Kind::Full,
            };
        }
    }
    if let Some(pattern) = config
        .get("hybrid_override_pattern")
        .and_then(Value::as_str)
    {
        return match pattern.as_bytes().get(at) {
            Some(b'*') => Kind::Full,
            _ => Kind::Fixed,
        };
    }
    if let Some(full) = config.get("full_attn_idxs").and_then(Value::as_array) {
        return match full.iter().any(|index| index.as_u64() == Some(layer)) {
            true => Kind::Full,
            false => Kind::Fixed,
        };
    }
    let nth = |key: &str| number(key).filter(|&n| n > 0);
    if let Some(n) = nth("full_attention_interval") {
        return match (layer + 1) % n {
            0 => Kind::Full,
            _ => Kind::Fixed,
        };
    }
    if let Some(n) = nth("sliding_window_pattern") {
        return match (layer + 1) % n {
            0 => Kind::Full,
            _ => window(),
        };
    }
    Kind::Full
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn full_attention_counts_every_position() {
        let config = json!({
            "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 128, "hidden_size": 2560
        });
        assert_eq!(cache(&config, 1000), Some(147_456_000));
        let nested = json!({"text_config": config, "num_hidden_layers": 1});
        assert_eq!(cache(&nested, 1000), Some(147_456_000));
        let derived = json!({
            "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64
        });
        assert_eq!(cache(&derived, 10), Some(2 * 2 * 2 * 64 * 10));
    }

    #[test]
    fn windows_and_states_count_less() {
        let base = json!({
            "num_hidden_layers": 4, "num_attention_heads": 1, "num_key_value_heads": 1,
            "head_dim": 1, "hidden_size": 1, "sliding_window": 10
        });
        let with = |key: &str, value: Value| {
            let mut config = base.clone();
            config[key] = value;
            cache(&config, 100).unwrap()
        };
        // 4 bytes a position and layer.
        assert_eq!(cache(&base, 100), Some(1600));
        let types = json!([
            "sliding_attention",
            "full_attention",
            "linear_attention",
            "conv"
        ]);
        assert_eq!(with("layer_types", types), 40 + 400);
        assert_eq!(with("sliding_window_pattern", json!(2)), 2 * 40 + 2 * 400);
        assert_eq!(with("full_attention_interval", json!(4)), 400);
        assert_eq!(with("hybrid_override_pattern", json!("M-*M")), 400);
        assert_eq!(with("full_attn_idxs", json!([0, 3])), 800);
        assert_eq!(with("num_kv_shared_layers", json!(3)), 400);
        assert_eq!(with("model_type", json!("mamba2")), 0);
    }

    #[test]
    fn latent_attention_counts_the_latent() {
        let config = json!({
            "num_hidden_layers": 3, "num_attention_heads": 128, "hidden_size": 7168,
            "kv_lora_rank": 512, "qk_rope_head_dim": 64
        });
        assert_eq!(cache(&config, 10), Some(3 * 576 * 2 * 10));
    }

    #[test]
    fn settings_that_say_nothing_or_too_much_give_none() {
        for config in [
            json!({}),
            json!({"num_hidden_layers": 2}),
            json!({"num_hidden_layers": 2, "num_attention_heads": 0, "hidden_size": 8}),
            json!({"num_hidden_layers": u64::MAX, "num_attention_heads": 1, "hidden_size": 8}),
            json!({"num_hidden_layers": 2, "num_attention_heads": u64::MAX, "hidden_size": 8, "head_dim": 3}),
            json!([1]),
        ] {
            assert_eq!(cache(&config, u64::MAX), None, "{config}");
        }
        let config = json!({"num_hidden_layers": 2, "num_attention_heads": 1, "hidden_size": 8});
        assert_eq!(cache(&config, u64::MAX), None);
    }
}
