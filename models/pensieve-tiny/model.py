"""Pensieve Tiny in PyTorch: a Qwen3 decoder whose weights carry the names of the published format."""
import torch
import torch.nn as nn
import torch.nn.functional as F

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "use_sliding_window": False,
}


def linear(inner, outer):
    return nn.Linear(inner, outer, bias=False)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.dim = (
            c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"])
        hidden = c["hidden_size"]
        self.q_proj = linear(hidden, self.heads * self.dim)
        self.k_proj = linear(hidden, self.kv_heads * self.dim)
        self.v_proj = linear(hidden, self.kv_heads * self.dim)
        self.o_proj = linear(self.heads * self.dim, hidden)
        self.q_norm = nn.RMSNorm(self.dim, c["rms_norm_eps"])
        self.k_norm = nn.RMSNorm(self.dim, c["rms_norm_eps"])

    def forward(self, x, rope, mask):
        rows, length, _ = x.shape

        def split(projected, heads):
            return projected.view(rows, length, heads, self.dim).transpose(1, 2)

        q = rotate(self.q_norm(split(self.q_proj(x), self.heads)), rope)
        k = rotate(self.k_norm(split(self.k_proj(x), self.kv_heads)), rope)
        v = split(self.v_proj(x), self.kv_heads)
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=mask)
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = linear(c["hidden_size"], c["intermediate_size"])
        self.up_proj = linear(c["hidden_size"], c["intermediate_size"])
        self.down_proj = linear(c["intermediate_size"], c["hidden_size"])

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = MLP(c)

    def forward(self, x, rope, mask):
        x = x + self.self_attn(self.input_layernorm(x), rope, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])


class Qwen3(nn.Module):
    def __init__(self, c=CONFIG):
        super().__init__()
        self.config = c
        self.model = Decoder(c)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens, mask):
        """Logits for rows of tokens; `mask` says which token may look at which."""
        x = self.model.embed_tokens(tokens)
        rope = angles(tokens.shape[1], self.config, tokens.device)
        for layer in self.model.layers:
            x = layer(x, rope, mask)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)


def angles(length, c, device):
    half = torch.arange(0, c["head_dim"], 2, device=device) / c["head_dim"]
    turn = torch.outer(torch.arange(length, device=device).float(), c["rope_theta"] ** -half)
    turn = torch.cat((turn, turn), -1)
    return turn.cos(), turn.sin()


def rotate(x, rope):
    cos, sin = rope
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin
