//! How to load and run a model.

use std::path::PathBuf;
use std::time::Duration;

use super::machine::MemoryLimit;
use crate::checkpoint::{Source, WeightsAs};
use crate::mlx::{Device, Dtype, has_cpu_kernels};
use crate::nn::plan::Effort;

/// What becomes of the weights, as a user asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightsMode {
    /// What is fastest on the device: on a CPU matrices as stored and all else in float32; on a GPU
    /// unpacked if products were measured to be faster so and it takes no more than a quarter of the
    /// memory; else the stored form.
    #[default]
    Auto,
    /// As stored, packed ones included.
    Keep,
    /// Unpacked, as this type.
    Dense(Dtype),
}

/// How products with packed weights are planned ([`crate::nn::plan`]).
#[derive(Clone, Debug, Default)]
pub struct Planning {
    /// How much is measured.
    pub effort: Effort,
    /// The folder where what was measured is kept; none to keep nothing.
    pub folder: Option<PathBuf>,
}

/// How to load and run a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name it is served under.
    pub id: String,
    /// Tokens that end an answer, beside those that the model's configuration names.
    pub eos_ids: Vec<u32>,
    /// What it runs on; the best there is if not given.
    pub device: Option<Device>,
    /// What becomes of the weights.
    pub weights: WeightsMode,
    /// The directory of a fine-tune (`adapters.safetensors`), if there is one.
    pub adapters: Option<Source>,
    /// Tokens that one round computes at most, of prompts and answers together; what suits the device if
    /// not given.
    pub prefill_chunk: Option<usize>,
    /// Tokens of prompt and answer together; the model's own limit if not given.
    pub context_length: Option<usize>,
    /// Requests that may wait beside the running ones.
    pub queue_limit: usize,
    /// Requests that run at a time.
    pub max_running: usize,
    /// Bytes that the prefix cache may take, 0 for none; a quarter of the memory that is left beside
    /// the weights if not given.
    pub prefix_cache: Option<usize>,
    /// How much memory all may take: weights, caches, and what a step computes with.
    pub memory: MemoryLimit,
    /// Tokens of an answer that memory is reserved for before its request runs, at most. Behind them
    /// an answer goes on as long as there is memory.
    pub answer_reserve: usize,
    /// Whether the system must keep the weights in memory (Metal).
    pub wire_weights: bool,
    /// Whether kernels are compiled before the first request comes.
    pub warm_up: bool,
    /// How products with packed weights are planned.
    pub plan: Planning,
    /// How long a step may take before it counts as hanging; for ever if not given.
    pub watchdog: Option<Duration>,
    /// Whether the process ends when a step hangs, with code 70.
    pub watchdog_exit: bool,
}

/// Requests that run at a time by default.
pub fn default_max_running(device: Device) -> usize {
    match device {
        // A step of more takes longer for each, since nothing there is idle.
        Device::Cpu => 8,
        Device::Gpu => 32,
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            id: "model".into(),
            eos_ids: Vec::new(),
            device: None,
            weights: WeightsMode::default(),
            adapters: None,
            prefill_chunk: None,
            context_length: None,
            queue_limit: 64,
            max_running: 8,
            prefix_cache: Some(0),
            memory: MemoryLimit::Auto,
            answer_reserve: 4096,
            wire_weights: false,
            warm_up: true,
            plan: Planning::default(),
            watchdog: None,
            watchdog_exit: false,
        }
    }
}

impl WeightsMode {
    /// What becomes of them on `device`, where unpacked ones may be `faster`.
    ///
    /// # Errors
    /// What `faster` says.
    pub(super) fn on<E>(
        self,
        device: Device,
        faster: impl FnOnce() -> Result<bool, E>,
    ) -> Result<WeightsAs, E> {
        Ok(match self {
            WeightsMode::Keep => WeightsAs::Stored,
            WeightsMode::Dense(dtype) => WeightsAs::Dense(dtype),
            WeightsMode::Auto if device == Device::Cpu && has_cpu_kernels() => WeightsAs::Matrices,
            // MLX's CPU backend multiplies packed and 16-bit weights several times slower.
            WeightsMode::Auto if device == Device::Cpu => WeightsAs::Dense(Dtype::Float32),
            WeightsMode::Auto if faster()? => WeightsAs::Unpacked,
            WeightsMode::Auto => WeightsAs::Stored,
        })
    }
}
