//! The published shapes.

use super::*;

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
