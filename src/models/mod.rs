//! The architectures, one a file, and the table that names them.

mod cohere2;
mod decoder;
mod deepseek_v3;
mod ernie4_5;
mod exaone4;
mod gated_attention;
mod gated_delta_net;
mod gemma2;
mod gemma3;
mod gemma4;
mod gemma4_attention;
mod gemma4_layer;
mod glm4;
mod glm4_moe;
mod gpt_oss;
mod granite;
mod granitemoe;
mod granitemoehybrid;
mod grouped_moe;
mod helium;
mod hunyuan_v1_dense;
mod hybrid;
mod lfm2;
mod llama;
mod mamba2;
mod ministral3;
mod mistral3;
mod mixtral;
mod nemotron_h;
mod olmo2;
mod olmo3;
mod olmoe;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;
mod qwen3_next;
mod qwen3_vl;
mod relu2;
mod seed_oss;
mod settings;
mod smollm3;
mod starcoder2;

use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{
    Adapters, Config, GenerationConfig, LoadError, LoadResult, Plan, Quantization, Shards, Source,
    Tap, Weights, WeightsAs,
};
use crate::mlx::{Array, Postponed, Result};
use settings::{heads, nested_theta_first, only, positive, positive_or, rotary_dims, windows};

/// A language model on the engine's thread.
///
/// `forward` and `unembed` are apart so that prefill computes logits for the last position only.
pub trait Model {
    /// Hidden states `[B, L, d_model]` after the final norm, for `batch.tokens [B, L]`; the caches
    /// advance by L.
    fn forward(&self, batch: &Batch, caches: &mut [LayerCache]) -> Result<Array>;

    /// Logits `[.., vocab]` of hidden states `[.., d_model]`.
    fn unembed(&self, hidden: &Array) -> Result<Array>;

    /// Empty caches for a new sequence, in the order in which `forward` uses them.
    fn caches(&self) -> Vec<LayerCache>;

    /// What is known of it.
    fn facts(&self) -> &ModelFacts;
}

/// Numbers of a model that the engine needs.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Positions it was trained for, if the configuration says so.
    pub context_length: Option<usize>,
    /// Bytes of its weights in memory.
    pub weight_bytes: usize,
}

impl ModelFacts {
    /// From the configuration; the weights' bytes are filled in when they are loaded.
    fn new(config: &Config, vocab_size: usize) -> LoadResult<Self> {
        Ok(Self {
            vocab_size,
            context_length: config.usize_opt("max_position_embeddings")?,
            weight_bytes: 0,
        })
    }
}

/// Builds a model from its configuration and weights.
type Load = fn(&Config, &mut Weights) -> LoadResult<Box<dyn Model>>;

/// One architecture: a file of this room, and the names that checkpoints have for it.
struct Architecture {
    file: &'static str,
    names: &'static [&'static str],
    load: Load,
}

/// A line for each file: its name, then the `model_type`s that it loads.
macro_rules! architectures {
    ($($file:ident: $($name:literal),+;)*) => {
        &[$(Architecture {
            file: stringify!($file),
            names: &[$($name),+],
            load: $file::load,
        },)*]
    };
}

static ARCHITECTURES: &[Architecture] = architectures! {
    cohere2: "cohere2";
    deepseek_v3: "deepseek_v3", "joyai_llm_flash", "kimi_k2";
    ernie4_5: "ernie4_5";
    exaone4: "exaone4";
    gemma2: "gemma2";
    gemma3: "gemma3", "gemma3_text";
    gemma4: "gemma4", "gemma4_text", "gemma4_unified";
    glm4: "glm4";
    glm4_moe: "glm4_moe";
    gpt_oss: "gpt_oss";
    granite: "granite";
    granitemoe: "granitemoe";
    granitemoehybrid: "granitemoehybrid";
    helium: "helium";
    hunyuan_v1_dense: "hunyuan_v1_dense";
    lfm2: "lfm2";
    llama: "iquestcoder", "llama", "mistral", "xverse";
    mamba2: "mamba2";
    ministral3: "ministral3";
    mistral3: "llava", "mistral3";
    mixtral: "mixtral";
    nemotron_h: "nemotron_h";
    olmo2: "olmo2";
    olmo3: "olmo3";
    olmoe: "olmoe";
    phi3: "phi3";
    qwen2: "qwen2";
    qwen2_moe: "qwen2_moe";
    qwen3: "qwen3";
    qwen3_5: "qwen3_5", "qwen3_5_moe";
    qwen3_moe: "qwen3_moe";
    qwen3_next: "qwen3_next";
    qwen3_vl: "qwen3_vl", "qwen3_vl_moe";
    seed_oss: "seed_oss";
    smollm3: "smollm3";
    starcoder2: "starcoder2";
};

/// All architectures that can be loaded: the file, and the `model_type`s.
pub fn architectures() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    ARCHITECTURES.iter().map(|a| (a.file, a.names))
}

/// A model with the settings that came with it.
pub struct Loaded {
    /// The model.
    pub model: Box<dyn Model>,
    /// Its `model_type`.
    pub model_type: String,
    /// The end-of-sequence tokens and sampling defaults.
    pub generation: GenerationConfig,
    /// Whether the checkpoint has weights for images or sound too, which were left out.
    pub text_only: bool,
}

/// Loads the model at `source`. `progress` is told the bytes read so far and in all.
///
/// # Errors
/// If a file is missing or wrong, the architecture is unknown, or a tensor is missing, misshapen
/// or left over.
pub fn load(
    source: &Source,
    weights_as: WeightsAs,
    progress: &dyn Fn(u64, u64),
) -> LoadResult<Loaded> {
    load_adapted(source, None, weights_as, progress)
}

/// Loads the model at `source` with a fine-tune over it.
///
/// # Errors
/// As [`load`]; also if the fine-tune does not fit the model.
pub fn load_adapted(
    source: &Source,
    adapters: Option<&Adapters>,
    weights_as: WeightsAs,
    progress: &dyn Fn(u64, u64),
) -> LoadResult<Loaded> {
    let files = Files::open(source)?;
    let generation = GenerationConfig::open(source, &files.config)?;
    let quantization = files.quantization.as_ref();
    let mut weights = Weights::new(&files.shards, quantization, weights_as, progress);
    let model = files.build(&mut weights, adapters)?;
    let unread = files.config.unread();
    if !unread.is_empty() {
        let (file, keys) = (files.config.file(), unread.join(", "));
        tracing::info!("{file} has settings that nothing here reads: {keys}");
    }
    Ok(Loaded {
        model,
        model_type: files.config.model_type()?.to_string(),
        generation,
        text_only: weights.text_only(),
    })
}

/// How the matrices of the model at `source` are stored, and what a fine-tune changes of them.
/// Checks all names and shapes, as [`load_adapted`] does, but reads none of the model's data.
///
/// # Errors
/// As [`load_adapted`].
pub fn plan(source: &Source, adapters: Option<&Adapters>) -> LoadResult<Plan> {
    Ok(survey(source, adapters, WeightsAs::Stored)?.1)
}

/// Tells `tap` of the parameters of the model at `source`, in mlx-lm's layout: of all their names and
/// shapes, and their values too if `read`.
///
/// # Errors
/// As [`load`]; also what `tap` says.
pub fn tell(source: &Source, tap: &dyn Tap, read: bool) -> LoadResult<()> {
    let files = Files::open(source)?;
    let quantization = files.quantization.as_ref();
    let mut weights = Weights::new(&files.shards, quantization, WeightsAs::Stored, &|_, _| {});
    let postponed = Postponed::start();
    if !read {
        weights.dry();
    }
    weights.tap(tap);
    let told = files.build(&mut weights, None).map(drop);
    drop(postponed);
    told
}

/// Bytes that the weights of the model at `source`, with a fine-tune over it, will take in memory.
/// Checks all names and shapes, as [`load_adapted`] does, but reads none of the model's data.
///
/// # Errors
/// As [`load_adapted`].
pub fn resident_bytes(
    source: &Source,
    adapters: Option<&Adapters>,
    weights_as: WeightsAs,
) -> LoadResult<usize> {
    Ok(survey(source, adapters, weights_as)?.0)
}

/// What [`resident_bytes`] and [`plan`] tell, in one go.
///
/// # Errors
/// As [`load_adapted`].
pub fn survey(
    source: &Source,
    adapters: Option<&Adapters>,
    weights_as: WeightsAs,
) -> LoadResult<(usize, Plan)> {
    let files = Files::open(source)?;
    let quantization = files.quantization.as_ref();
    let mut weights = Weights::new(&files.shards, quantization, weights_as, &|_, _| {});
    weights.dry();
    files.build(&mut weights, adapters)?;
    Ok((weights.resident_bytes(), weights.into_plan()))
}

/// A model's files, and what knows how to read them.
struct Files {
    config: Config,
    quantization: Option<Quantization>,
    shards: Shards,
    load: Load,
}

impl Files {
    fn open(source: &Source) -> LoadResult<Self> {
        let config = Config::open(source)?;
        let model_type = config.model_type()?;
        let named = |a: &&Architecture| a.names.contains(&model_type);
        let Some(architecture) = ARCHITECTURES.iter().find(named) else {
            let names = architectures().flat_map(|(_, names)| names);
            let known = names.copied().collect::<Vec<_>>().join(", ");
            return Err(LoadError::Unsupported(format!(
                "{}: the architecture (model_type) {model_type:?} is not supported; known are \
                 {known}",
                config.file()
            )));
        };
        Ok(Self {
            quantization: Quantization::new(&config)?,
            shards: Shards::open(source)?,
            load: architecture.load,
            config,
        })
    }

    fn build<'a>(
        &self,
        weights: &mut Weights<'a>,
        adapters: Option<&'a Adapters>,
    ) -> LoadResult<Box<dyn Model>> {
        if let Some(adapters) = adapters {
            weights.adapt(adapters);
        }
        let model = (self.load)(&self.config, weights)?;
        weights.finish()?;
        Ok(model)
    }
}
