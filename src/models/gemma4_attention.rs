//! Gemma 4's attention: heads of one size in full layers and of another in sliding ones, keys and
//! values normalised, and the layers behind that read the keys of the last before them of their type.

use super::{positive, positive_or, windows};
use crate::cache::{Attend, Batch, KvView, LayerCache};
use crate::checkpoint::{Config, Cursor, LoadResult};
use crate::mlx::{Array, Error, Result};
use crate::nn::{Linear, RmsNorm, Rope};

/// What the attention layers of a model have in common.
pub(super) struct Attentions {
    /// The types of the first layers; others follow the pattern.
    types: Vec<Kind>,
    /// Every so manieth layer is full.
    pattern: usize,
    d_model: usize,
    n_heads: usize,
    /// The first layer that reads the keys of another.
    pub first_shared: usize,
    eps: f32,
    full: Heads,
    sliding: Heads,
}

/// How far a layer sees.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Full,
    Sliding,
}

/// What the attention layers of one type have in common.
struct Heads {
    head_dim: usize,
    n_kv_heads: usize,
    /// Whether projected keys serve as values too.
    k_eq_v: bool,
    rope: Rope,
    window: Option<usize>,
}

impl Attentions {
    /// # Errors
    /// If a setting is missing or cannot be used.
    pub fn new(config: &Config) -> LoadResult<Self> {
        let n_layers = positive(config, "num_hidden_layers")?;
        let n_shared = config.usize("num_kv_shared_layers")?;
        let Some(first_shared) = n_layers.checked_sub(n_shared).filter(|&first| first > 0) else {
            let expected = format!("less than num_hidden_layers, which is {n_layers}");
            return Err(config.invalid("num_kv_shared_layers", expected).into());
        };
        let types = windows(config)?;
        let kind = |window: &Option<usize>| window.map_or(Kind::Full, |_| Kind::Sliding);
        let head_dim = positive(config, "head_dim")?;
        let global_head_dim = positive_or(config, "global_head_dim", head_dim)?;
        let k_eq_v = config.bool_or("attention_k_eq_v", false)?;
        let global_kv_heads = config.value("num_global_key_value_heads").is_some();
        Ok(Self {
            types: types.iter().map(kind).collect(),
            pattern: config.usize("sliding_window_pattern")?.max(1),
            d_model: positive(config, "hidden_size")?,
            n_heads: positive(config, "num_attention_heads")?,
            first_shared,
            eps: config.f32("rms_norm_eps")?,
            full: Heads {
                head_dim: global_head_dim,
                n_kv_heads: match k_eq_v && global_kv_heads {
                    true => kv_heads(config, "num_global_key_value_heads")?,
                    false => kv_heads(config, "num_key_value_heads")?,
                },
                k_eq_v,
                rope: rope(config, Kind::Full, global_head_dim)?,
                window: None,
            },
            sliding: Heads {
                head_dim,
                n_kv_heads: kv_heads(config, "num_key_value_heads")?,
                k_eq_v: false,
                rope: rope(config, Kind::Sliding, head_dim)?,
                window: Some(positive(config, "sliding_window")?),
            },
        })
    }

    /// The type of layer `i`.
    fn kind(&self, i: usize) -> Kind {
        match self.types.get(i) {
            Some(kind) => *kind,
            None if i % self.pattern == self.pattern - 1 => Kind::Full,
            None => Kind::Sliding,
        }
    }

    /// That of layer `i`, from its place.
    pub fn load(&self, config: &Config, i: usize, w: &Cursor) -> LoadResult<SelfAttention> {
        let (kind, d_model) = (self.kind(i), self.d_model);
        let heads = match kind {
            Kind::Full => &self.full,
            Kind::Sliding => &self.sliding,
        };
        let queries = self.n_heads.saturating_mul(heads.head_dim);
        let keys = heads.n_kv_heads.saturating_mul(heads.head_dim);
        let linear = |name| w.linear(name, [keys, d_model], false);
        let norm = |name| w.rms_norm(name, heads.head_dim, self.eps);
        let own = if i < self.first_shared {
            Some(Keys {
                k_proj: linear("k_proj")?,
                v_proj: (!heads.k_eq_v).then(|| linear("v_proj")).transpose()?,
                k_norm: norm("k_norm")?,
                v_norm: RmsNorm::new(None, self.eps),
                n_kv_heads: heads.n_kv_heads as i32,
            })
        } else {
            if !(0..self.first_shared).any(|j| self.kind(j) == kind) {
                let expected = "few enough that a layer of each type keeps its keys";
                let error = config.invalid("num_kv_shared_layers", expected);
                return Err(error.into());
            }
            for name in ["k_proj", "v_proj", "k_norm"] {
                w.skip(name);
            }
            None
        };
        Ok(SelfAttention {
            q_proj: w.linear("q_proj", [queries, d_model], false)?,
            q_norm: norm("q_norm")?,
            o_proj: w.linear("o_proj", [d_model, queries], false)?,
            own,
            kind,
            rope: heads.rope.clone(),
            window: heads.window,
            heads: [self.n_heads as i32, heads.head_dim as i32],
        })
    }
}

/// A number of key heads, which divides that of query heads.
fn kv_heads(config: &Config, key: &str) -> LoadResult<usize> {
    let (n_heads, n_kv_heads) = (
        positive(config, "num_attention_heads")?,
        positive(config, key)?,
    );
    if !n_heads.is_multiple_of(n_kv_heads) {
        let expected = format!("a divisor of num_attention_heads, which is {n_heads}");
        return Err(config.invalid(key, expected).into());
    }
    Ok(n_kv_heads)
}

/// How the layers of a type turn, by `rope_parameters`.
fn rope(config: &Config, kind: Kind, dims: usize) -> LoadResult<Rope> {
    let key = match kind {
        Kind::Full => "full_attention",
        Kind::Sliding => "sliding_attention",
    };
    let traditional = config.bool_or("rope_traditional", false)?;
    let parameters = config.object("rope_parameters")?;
    let own = match &parameters {
        Some(parameters) => parameters.object(key)?,
        None => None,
    };
    match own {
        None => Ok(Rope::plain(dims, 10_000.0, traditional)),
        Some(own) => {
            let theta = own.f32_or("rope_theta", 10_000.0)?;
            Rope::plain(dims, theta, traditional).scaled(config, &own)
        }
    }
}

/// The keys and values that layers of each type show to later ones.
#[derive(Default)]
pub(super) struct Shown {
    full: Option<KvView>,
    sliding: Option<KvView>,
}

/// Attention with normalised queries, keys and values.
pub(super) struct SelfAttention {
    q_proj: Linear,
    q_norm: RmsNorm,
    o_proj: Linear,
    /// None where the layer reads the keys of another.
    own: Option<Keys>,
    kind: Kind,
    rope: Rope,
    window: Option<usize>,
    /// Query heads, and features of a head.
    heads: [i32; 2],
}

/// How a layer makes keys and values.
struct Keys {
    k_proj: Linear,
    /// None where projected keys serve as values too.
    v_proj: Option<Linear>,
    k_norm: RmsNorm,
    v_norm: RmsNorm,
    n_kv_heads: i32,
}

impl SelfAttention {
    /// An empty cache; none where the layer reads the keys of another.
    pub fn cache(&self) -> Option<LayerCache> {
        self.own.as_ref()?;
        Some(match self.window {
            Some(window) => LayerCache::sliding(window),
            None => LayerCache::full(),
        })
    }

    /// `x [B, L, d_model]` to the same shape. `caches` are those of this layer and of later ones.
    pub fn forward<'c>(
        &self,
        x: &Array,
        batch: &Batch,
        caches: &mut impl Iterator<Item = &'c mut LayerCache>,
        shown: &mut Shown,
    ) -> Result<Array> {
        let shown = match self.kind {
            Kind::Full => &mut shown.full,
            Kind::Sliding => &mut shown.sliding,
        };
        if let Some(own) = &self.own {
            let cache = caches.next();
            let cache = cache.ok_or_else(|| Error::new("attention", &[x], "too few caches"))?;
            let split = [own.n_kv_heads, self.heads[1]];
            let k = own.k_proj.forward(x)?.unflatten(-1, &split)?; // [B, L, K, D]
            let v = match &own.v_proj {
                Some(v_proj) => v_proj.forward(x)?.unflatten(-1, &split)?,
                None => k.clone(),
            };
            let k = own.k_norm.forward(&k)?.swapaxes(1, 2)?; // [B, K, L, D]
            let v = own.v_norm.forward(&v)?.swapaxes(1, 2)?;
            *shown = Some(cache.update(&self.rope.forward(&k, batch)?, &v, batch)?);
        }
        let view = shown.as_ref();
        let view = view.ok_or_else(|| Error::new("attention", &[x], "no keys to share"))?;
        let q = self.q_proj.forward(x)?.unflatten(-1, &self.heads)?; // [B, L, H, D]
        let q = self.q_norm.forward(&q)?.swapaxes(1, 2)?;
        let attended = view.attend(&self.rope.forward(&q, batch)?, Attend::scaled(1.0))?;
        self.o_proj
            .forward(&attended.swapaxes(1, 2)?.flatten(2, 3)?) // [B, L, H * D]
    }
}
