//! Published shapes: the configuration of a model, and the tensors that its checkpoint holds in MLX's
//! layout. No weights: `make` draws those.
//!
//! Values are those of the models' own config.json on Hugging Face, but for what a name says is not
//! published.

mod published;

pub use published::SHAPES;

use serde_json::{Map, Value, json};

/// A shape with a name.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    dims: Dims,
}

/// One tensor of a checkpoint, before anything is packed.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its name, with `.weight` or the like at the end.
    pub name: String,
    /// Dims, outermost first.
    pub shape: Vec<usize>,
    /// What its numbers are.
    pub role: Role,
}

/// What a tensor's numbers are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// A matrix, or a stack of them, over its last dim; packed when the checkpoint is quantized, with
    /// 8 bits if `wide`.
    Matrix {
        /// Whether converters keep it at 8 bits or more.
        wide: bool,
    },
    /// Never packed: uniform numbers of this range, bfloat16.
    Between(f32, f32),
    /// The same in float32.
    Between32(f32, f32),
}

#[derive(Clone, Copy, Debug)]
struct Dims {
    d_model: usize,
    n_layers: usize,
    d_ff: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    vocab: usize,
    tied: bool,
    context: usize,
    theta: f64,
    eps: f64,
    family: Family,
}

#[derive(Clone, Copy, Debug)]
enum Family {
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
struct Latent {
    q_lora_rank: Option<usize>,
    kv_lora_rank: usize,
    nope: usize,
    rope: usize,
    v: usize,
    n_experts: usize,
    top_k: usize,
    d_expert: usize,
    n_shared: usize,
    first_dense: usize,
    n_group: usize,
    topk_group: usize,
    scaling: f64,
}

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

    /// Every tensor of the checkpoint, in the order of computation.
    pub fn parts(&self) -> Vec<Part> {
        let d = &self.dims;
        let mut parts = Parts(Vec::new());
        let (root, embedding, last) = match d.family {
            Family::Mamba2 { .. } => ("backbone", "embeddings", "norm_f"),
            _ => ("model", "embed_tokens", "norm"),
        };
        parts.matrix(format!("{root}.{embedding}"), &[d.vocab, d.d_model]);
        for i in 0..d.n_layers {
            d.layer(&mut parts, &format!("{root}.layers.{i}"), i);
        }
        parts.norm(format!("{root}.{last}"), d.d_model, d.plus_one());
        if !d.tied {
            parts.matrix("lm_head".into(), &[d.vocab, d.d_model]);
        }
        parts.0
    }
}

/// Mamba's convolution.
const CONV_KERNEL: usize = 4;

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

impl Dims {
    /// Whether norms add one to what is stored.
    fn plus_one(&self) -> bool {
        matches!(self.family, Family::Gemma3 { .. })
    }

    fn layer(&self, parts: &mut Parts, layer: &str, i: usize) {
        let d = self.d_model;
        let norm = |parts: &mut Parts, name: &str| {
            parts.norm(format!("{layer}.{name}"), d, self.plus_one());
        };
        if let Family::Mamba2 { state } = self.family {
            norm(parts, "norm");
            return self.mixer(parts, &format!("{layer}.mixer"), state);
        }
        norm(parts, "input_layernorm");
        match self.family {
            Family::DeepseekV3(latent) => self.latent_attention(parts, layer, latent),
            _ => self.attention(parts, &format!("{layer}.self_attn")),
        }
        norm(parts, "post_attention_layernorm");
        let mlp = format!("{layer}.mlp");
        match self.family {
            Family::Phi3 => {
                parts.matrix(format!("{mlp}.gate_up_proj"), &[2 * self.d_ff, d]);
                parts.matrix(format!("{mlp}.down_proj"), &[d, self.d_ff]);
            }
            Family::Qwen3Moe {
                n_experts,
                d_expert,
                ..
            } => {
                parts.wide(format!("{mlp}.gate"), &[n_experts, d]);
                parts.gated(&format!("{mlp}.switch_mlp"), &[n_experts], d, d_expert);
            }
            Family::DeepseekV3(l) if i >= l.first_dense => {
                let router = (3.0 / d as f32).sqrt();
                let gate = format!("{mlp}.gate");
                let role = Role::Between(-router, router);
                parts.push(format!("{gate}.weight"), &[l.n_experts, d], role);
                let role = Role::Between32(-0.01, 0.01);
                let name = format!("{gate}.e_score_correction_bias");
                parts.push(name, &[l.n_experts], role);
                parts.gated(&format!("{mlp}.switch_mlp"), &[l.n_experts], d, l.d_expert);
                let shared = l.n_shared * l.d_expert;
                parts.gated(&format!("{mlp}.shared_experts"), &[], d, shared);
            }
            _ => parts.gated(&mlp, &[], d, self.d_ff),
        }
        if let Family::Gemma3 { .. } = self.family {
            norm(parts, "pre_feedforward_layernorm");
            norm(parts, "post_feedforward_layernorm");
        }
    }

    fn attention(&self, parts: &mut Parts, at: &str) {
        let d = self.d_model;
        let (q, kv) = (
            self.n_heads * self.head_dim,
            self.n_kv_heads * self.head_dim,
        );
        match self.family {
            Family::Phi3 => parts.matrix(format!("{at}.qkv_proj"), &[q + 2 * kv, d]),
            _ => {
                for (name, out) in [("q", q), ("k", kv), ("v", kv)] {
                    parts.matrix(format!("{at}.{name}_proj"), &[out, d]);
                }
            }
        }
        if let Family::Qwen3 | Family::Qwen3Moe { .. } | Family::Gemma3 { .. } = self.family {
            for name in ["q_norm", "k_norm"] {
                parts.norm(format!("{at}.{name}"), self.head_dim, self.plus_one());
            }
        }
        parts.matrix(format!("{at}.o_proj"), &[d, q]);
    }

    fn latent_attention(&self, parts: &mut Parts, layer: &str, l: Latent) {
        let (at, d, heads) = (format!("{layer}.self_attn"), self.d_model, self.n_heads);
        let q = heads * (l.nope + l.rope);
        match l.q_lora_rank {
            None => parts.matrix(format!("{at}.q_proj"), &[q, d]),
            Some(rank) => {
                parts.matrix(format!("{at}.q_a_proj"), &[rank, d]);
                parts.norm(format!("{at}.q_a_layernorm"), rank, false);
                parts.matrix(format!("{at}.q_b_proj"), &[q, rank]);
            }
        }
        let rank = l.kv_lora_rank;
        parts.matrix(format!("{at}.kv_a_proj_with_mqa"), &[rank + l.rope, d]);
        parts.norm(format!("{at}.kv_a_layernorm"), rank, false);
        parts.matrix(format!("{at}.embed_q"), &[heads, rank, l.nope]);
        parts.matrix(format!("{at}.unembed_out"), &[heads, l.v, rank]);
        parts.matrix(format!("{at}.o_proj"), &[d, heads * l.v]);
    }

    fn mixer(&self, parts: &mut Parts, at: &str, state: usize) {
        let heads = self.n_heads;
        let inner = heads * self.head_dim;
        let conv = inner + 2 * state;
        parts.matrix(
            format!("{at}.in_proj"),
            &[inner + conv + heads, self.d_model],
        );
        let mut push = |name: &str, shape: &[usize], low, high| {
            parts.push(format!("{at}.{name}"), shape, Role::Between(low, high));
        };
        push("conv1d.weight", &[conv, CONV_KERNEL, 1], -0.8, 0.8);
        push("conv1d.bias", &[conv], -0.1, 0.1);
        // Time steps of 0.001 to 0.1 and decays of 1 to 16, as Mamba-2 starts its training.
        push("dt_bias", &[heads], -6.9, -2.25);
        push("A_log", &[heads], 0.0, 2.77);
        push("D", &[heads], 0.9, 1.1);
        parts.norm(format!("{at}.norm"), inner, false);
        parts.matrix(format!("{at}.out_proj"), &[self.d_model, inner]);
    }
}

struct Parts(Vec<Part>);

impl Parts {
    fn push(&mut self, name: String, shape: &[usize], role: Role) {
        self.0.push(Part {
            name,
            shape: shape.to_vec(),
            role,
        });
    }

    fn matrix(&mut self, module: String, shape: &[usize]) {
        let role = Role::Matrix { wide: false };
        self.push(format!("{module}.weight"), shape, role);
    }

    fn wide(&mut self, module: String, shape: &[usize]) {
        let role = Role::Matrix { wide: true };
        self.push(format!("{module}.weight"), shape, role);
    }

    fn norm(&mut self, module: String, dims: usize, plus_one: bool) {
        let role = match plus_one {
            true => Role::Between(-0.1, 0.1),
            false => Role::Between(0.9, 1.1),
        };
        self.push(format!("{module}.weight"), &[dims], role);
    }

    /// Gate, up and down projections, or stacks of them.
    fn gated(&mut self, at: &str, stack: &[usize], d: usize, d_ff: usize) {
        for (name, [out, inner]) in [("gate", [d_ff, d]), ("up", [d_ff, d]), ("down", [d, d_ff])] {
            self.matrix(
                format!("{at}.{name}_proj"),
                &[stack, &[out, inner]].concat(),
            );
        }
    }
}
