//! The tensors that a checkpoint of a shape holds, by MLX's names and in its layout. No weights:
//! `make` draws those.

use super::shapes::{CONV_KERNEL, Dims, Family, Latent, Shape};

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

impl Shape {
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
