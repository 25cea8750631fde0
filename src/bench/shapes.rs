//! Published shapes: what a model of a name is configured as. `layout` has the tensors of each.
//!
//! Values are those of the models' own config.json on Hugging Face, but for what a name says is not
//! published.

use serde_json::{Map, Value, json};

/// A shape with a name.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    pub(super) dims: Dims,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Dims {
    pub d_model: usize,
    pub n_layers: usize,
    pub d_ff: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub tied: bool,
    pub context: usize,
    pub theta: f64,
    pub eps: f64,
    pub family: Family,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Family {
    /// `rope_factor` is that of the `llama3` scaling.
    Llama {
        rope_factor: f64,
    },
    Mistral,
    Qwen3,
    Qwen3Moe {
        n_experts: usize,
        top_k: usize,
        d_expert: usize,
    },
    Phi3,
    Gemma3 {
        window: usize,
        pattern: usize,
    },
    Mamba2 {
        state: usize,
    },
    DeepseekV3(Latent),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Latent {
    pub q_lora_rank: Option<usize>,
    pub kv_lora_rank: usize,
    pub nope: usize,
    pub rope: usize,
    pub v: usize,
    pub n_experts: usize,
    pub top_k: usize,
    pub d_expert: usize,
    pub n_shared: usize,
    pub first_dense: usize,
    pub n_group: usize,
    pub topk_group: usize,
    pub scaling: f64,
}

const LLAMA: Dims = Dims {
    d_model: 4096,
    n_layers: 32,
    d_ff: 14336,
    n_heads: 32,
    n_kv_heads: 8,
    head_dim: 128,
    vocab: 128_256,
    tied: false,
    context: 131_072,
    theta: 500_000.0,
    eps: 1e-5,
    family: Family::Llama { rope_factor: 8.0 },
};

const QWEN3: Dims = Dims {
    d_model: 1024,
    n_layers: 28,
    d_ff: 3072,
    n_heads: 16,
    n_kv_heads: 8,
    head_dim: 128,
    vocab: 151_936,
    tied: true,
    context: 40_960,
    theta: 1e6,
    eps: 1e-6,
    family: Family::Qwen3,
};

const MAMBA2: Dims = Dims {
    d_model: 768,
    n_layers: 24,
    d_ff: 0,
    n_heads: 24,
    n_kv_heads: 24,
    head_dim: 64,
    vocab: 50_288,
    tied: true,
    // Not bounded; a number, because programs read one.
    context: 1 << 20,
    theta: 0.0,
    eps: 1e-5,
    family: Family::Mamba2 { state: 128 },
};

const DEEPSEEK: Dims = Dims {
    d_model: 1024,
    n_layers: 6,
    d_ff: 2816,
    n_heads: 16,
    n_kv_heads: 16,
    head_dim: 96,
    vocab: 32_768,
    tied: false,
    context: 131_072,
    theta: 10_000.0,
    eps: 1e-6,
    family: Family::DeepseekV3(Latent {
        q_lora_rank: Some(384),
        kv_lora_rank: 256,
        nope: 64,
        rope: 32,
        v: 64,
        n_experts: 16,
        top_k: 4,
        d_expert: 512,
        n_shared: 1,
        first_dense: 1,
        n_group: 4,
        topk_group: 2,
        scaling: 2.5,
    }),
};

/// Every shape.
pub const SHAPES: &[Shape] = &[
    Shape {
        name: "qwen3-0.6b",
        about: "Qwen3 0.6B",
        dims: QWEN3,
    },
    Shape {
        name: "qwen3-1.7b",
        about: "Qwen3 1.7B",
        dims: Dims {
            d_model: 2048,
            d_ff: 6144,
            ..QWEN3
        },
    },
    Shape {
        name: "qwen3-4b",
        about: "Qwen3 4B",
        dims: Dims {
            d_model: 2560,
            n_layers: 36,
            d_ff: 9728,
            n_heads: 32,
            ..QWEN3
        },
    },
    Shape {
        name: "qwen3-8b",
        about: "Qwen3 8B",
        dims: Dims {
            d_model: 4096,
            n_layers: 36,
            d_ff: 12_288,
            n_heads: 32,
            tied: false,
            ..QWEN3
        },
    },
    Shape {
        name: "qwen3-30b-a3b",
        about: "Qwen3 30B-A3B, a mixture of 128 experts of which 8 compute",
        dims: Dims {
            d_model: 2048,
            n_layers: 48,
            d_ff: 6144,
            n_heads: 32,
            n_kv_heads: 4,
            tied: false,
            family: Family::Qwen3Moe {
                n_experts: 128,
                top_k: 8,
                d_expert: 768,
            },
            ..QWEN3
        },
    },
    Shape {
        name: "qwen3-narrow",
        about: "Qwen3 0.6B's 28 layers, so narrow that a step is the host's work; not published",
        dims: Dims {
            d_model: 64,
            d_ff: 128,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 16,
            vocab: 512,
            ..QWEN3
        },
    },
    Shape {
        name: "llama-3.2-1b",
        about: "Llama 3.2 1B",
        dims: Dims {
            d_model: 2048,
            n_layers: 16,
            d_ff: 8192,
            head_dim: 64,
            tied: true,
            family: Family::Llama { rope_factor: 32.0 },
            ..LLAMA
        },
    },
    Shape {
        name: "llama-3.2-3b",
        about: "Llama 3.2 3B",
        dims: Dims {
            d_model: 3072,
            n_layers: 28,
            d_ff: 8192,
            n_heads: 24,
            tied: true,
            family: Family::Llama { rope_factor: 32.0 },
            ..LLAMA
        },
    },
    Shape {
        name: "llama-3.1-8b",
        about: "Llama 3.1 8B",
        dims: LLAMA,
    },
    Shape {
        name: "mistral-7b",
        about: "Mistral 7B v0.3",
        dims: Dims {
            vocab: 32_768,
            context: 32_768,
            theta: 1e6,
            family: Family::Mistral,
            ..LLAMA
        },
    },
    Shape {
        name: "phi-3-mini",
        about: "Phi-3 mini 4k, with fused projections",
        dims: Dims {
            d_model: 3072,
            d_ff: 8192,
            n_kv_heads: 32,
            head_dim: 96,
            vocab: 32_064,
            context: 4096,
            theta: 10_000.0,
            family: Family::Phi3,
            ..LLAMA
        },
    },
    Shape {
        name: "gemma3-1b",
        about: "Gemma 3 1B, five layers of six with a window of 512",
        dims: Dims {
            d_model: 1152,
            n_layers: 26,
            d_ff: 6912,
            n_heads: 4,
            n_kv_heads: 1,
            head_dim: 256,
            vocab: 262_144,
            tied: true,
            context: 32_768,
            theta: 1e6,
            eps: 1e-6,
            family: Family::Gemma3 {
                window: 512,
                pattern: 6,
            },
        },
    },
    Shape {
        name: "gemma3-4b",
        about: "Gemma 3 4B's text tower, five layers of six with a window of 1,024; positions unscaled",
        dims: Dims {
            d_model: 2560,
            n_layers: 34,
            d_ff: 10_240,
            n_heads: 8,
            n_kv_heads: 4,
            head_dim: 256,
            vocab: 262_208,
            tied: true,
            context: 131_072,
            theta: 1e6,
            eps: 1e-6,
            family: Family::Gemma3 {
                window: 1024,
                pattern: 6,
            },
        },
    },
    Shape {
        name: "mamba2-130m",
        about: "Mamba-2 130M, recurrent",
        dims: MAMBA2,
    },
    Shape {
        name: "mamba2-370m",
        about: "Mamba-2 370M, recurrent",
        dims: Dims {
            d_model: 1024,
            n_layers: 48,
            n_heads: 32,
            ..MAMBA2
        },
    },
    Shape {
        name: "mamba2-2.7b",
        about: "Mamba-2 2.7B, recurrent",
        dims: Dims {
            d_model: 2560,
            n_layers: 64,
            n_heads: 80,
            ..MAMBA2
        },
    },
    Shape {
        name: "mamba2-1.3b",
        about: "Mamba-2 1.3B, recurrent",
        dims: Dims {
            d_model: 2048,
            n_layers: 48,
            n_heads: 64,
            ..MAMBA2
        },
    },
    Shape {
        name: "deepseek-v3-mini",
        about: "DeepSeek-V3's layout with a latent cache, 0.2B; not published",
        dims: DEEPSEEK,
    },
    Shape {
        name: "moonlight-16b-a3b",
        about: "Moonlight 16B-A3B: DeepSeek-V3's layout, 64 experts of which 6 compute",
        dims: Dims {
            d_model: 2048,
            n_layers: 27,
            d_ff: 11_264,
            head_dim: 192,
            vocab: 163_840,
            context: 8192,
            theta: 50_000.0,
            eps: 1e-5,
            family: Family::DeepseekV3(Latent {
                q_lora_rank: None,
                kv_lora_rank: 512,
                nope: 128,
                rope: 64,
                v: 128,
                n_experts: 64,
                top_k: 6,
                d_expert: 1408,
                n_shared: 2,
                first_dense: 1,
                n_group: 1,
                topk_group: 1,
                scaling: 2.446,
            }),
            ..DEEPSEEK
        },
    },
];

impl Shape {
    /// The shape of this name.
    pub fn named(name: &str) -> Option<Shape> {
        SHAPES.iter().find(|shape| shape.name == name).copied()
    }

    /// With so many layers instead of its own.
    pub fn with_layers(mut self, n_layers: usize) -> Self {
        self.dims.n_layers = n_layers;
        self
    }

    /// With so many rows of the embedding instead of its own.
    pub fn with_vocab(mut self, vocab: usize) -> Self {
        self.dims.vocab = vocab;
        self
    }

    /// With no more experts than a token takes (of each group): all kinds of its tensors in few bytes.
    #[cfg(test)]
    pub(super) fn with_few_experts(mut self) -> Self {
        match &mut self.dims.family {
            Family::Qwen3Moe {
                n_experts, top_k, ..
            } => *n_experts = *top_k,
            Family::DeepseekV3(latent) => latent.n_experts = latent.n_group * latent.top_k,
            _ => {}
        }
        self
    }

    /// Rows of its embedding.
    pub fn vocab(&self) -> usize {
        self.dims.vocab
    }

    /// Its layers.
    pub fn n_layers(&self) -> usize {
        self.dims.n_layers
    }

    /// config.json, without what quantization adds.
    pub fn config(&self) -> Map<String, Value> {
        let d = &self.dims;
        let mut config = Map::new();
        let mut say = |settings: Value| {
            if let Value::Object(settings) = settings {
                config.extend(settings);
            }
        };
        let (model_type, architecture) = d.family.names();
        say(json!({
            "architectures": [architecture],
            "model_type": model_type,
            "hidden_size": d.d_model,
            "num_hidden_layers": d.n_layers,
            "vocab_size": d.vocab,
            "tie_word_embeddings": d.tied,
            "max_position_embeddings": d.context,
            "torch_dtype": "bfloat16",
        }));
        if !matches!(d.family, Family::Mamba2 { .. }) {
            say(json!({
                "intermediate_size": d.d_ff,
                "num_attention_heads": d.n_heads,
                "num_key_value_heads": d.n_kv_heads,
                "rms_norm_eps": d.eps,
                "rope_theta": d.theta,
                "attention_bias": false,
            }));
        }
        match d.family {
            Family::Llama { rope_factor } => say(json!({
                "head_dim": d.head_dim,
                "hidden_act": "silu",
                "mlp_bias": false,
                "rope_scaling": {
                    "factor": rope_factor,
                    "high_freq_factor": 4.0,
                    "low_freq_factor": 1.0,
                    "original_max_position_embeddings": 8192,
                    "rope_type": "llama3",
                },
            })),
            Family::Mistral => say(json!({"head_dim": d.head_dim, "hidden_act": "silu"})),
            Family::Phi3 => say(json!({"hidden_act": "silu"})),
            Family::Qwen3 => say(json!({"head_dim": d.head_dim, "hidden_act": "silu"})),
            Family::Qwen3Moe {
                n_experts,
                top_k,
                d_expert,
            } => say(json!({
                "head_dim": d.head_dim,
                "hidden_act": "silu",
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
                "moe_intermediate_size": d_expert,
                "norm_topk_prob": true,
                "num_experts": n_experts,
                "num_experts_per_tok": top_k,
            })),
            Family::Gemma3 { window, pattern } => say(json!({
                "head_dim": d.head_dim,
                "hidden_activation": "gelu_pytorch_tanh",
                "query_pre_attn_scalar": d.head_dim,
                "rope_local_base_freq": 10_000,
                "sliding_window": window,
                "sliding_window_pattern": pattern,
            })),
            Family::Mamba2 { state } => say(json!({
                "conv_kernel": CONV_KERNEL,
                "expand": 2,
                "head_dim": d.head_dim,
                "hidden_act": "silu",
                "intermediate_size": d.n_heads * d.head_dim,
                "layer_norm_epsilon": d.eps,
                "n_groups": 1,
                "num_heads": d.n_heads,
                "state_size": state,
                // The reference's upper limit is infinite, which JSON cannot say.
                "time_step_limit": [0.0, 1e30],
                "time_step_rank": "auto",
                "use_bias": false,
                "use_conv_bias": true,
            })),
            Family::DeepseekV3(l) => say(json!({
                "hidden_act": "silu",
                "first_k_dense_replace": l.first_dense,
                "kv_lora_rank": l.kv_lora_rank,
                "moe_intermediate_size": l.d_expert,
                "moe_layer_freq": 1,
                "n_group": l.n_group,
                "n_routed_experts": l.n_experts,
                "n_shared_experts": l.n_shared,
                "norm_topk_prob": true,
                "num_experts_per_tok": l.top_k,
                "q_lora_rank": l.q_lora_rank,
                "qk_nope_head_dim": l.nope,
                "qk_rope_head_dim": l.rope,
                "routed_scaling_factor": l.scaling,
                "scoring_func": "sigmoid",
                "topk_group": l.topk_group,
                "topk_method": "noaux_tc",
                "v_head_dim": l.v,
            })),
        }
        config
    }
}

/// Mamba's convolution.
pub(super) const CONV_KERNEL: usize = 4;

impl Family {
    /// `model_type`, and the class that Hugging Face's `architectures` names.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Family::Llama { .. } => ("llama", "LlamaForCausalLM"),
            Family::Mistral => ("mistral", "MistralForCausalLM"),
            Family::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
            Family::Qwen3Moe { .. } => ("qwen3_moe", "Qwen3MoeForCausalLM"),
            Family::Phi3 => ("phi3", "Phi3ForCausalLM"),
            Family::Gemma3 { .. } => ("gemma3_text", "Gemma3ForCausalLM"),
            Family::Mamba2 { .. } => ("mamba2", "Mamba2ForCausalLM"),
            Family::DeepseekV3(_) => ("deepseek_v3", "DeepseekV3ForCausalLM"),
        }
    }
}
