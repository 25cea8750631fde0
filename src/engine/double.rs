//! A model for tests that counts upwards, and that fails, panics or hangs when it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::load::Ready;
use super::options::Options;
use super::start::Engine;
use super::thread::EngineThread;
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{GenerationConfig, LoadError};
use crate::mlx::{Array, Device, Dtype, Result, Runtime};
use crate::models::{Loaded, Model, ModelFacts};

pub const VOCAB: usize = 256;
/// The token behind which counting starts again.
const LAST: u32 = 199;
/// Tokens that make a forward pass fail in MLX, and panic.
pub const FAILS: u32 = 250;
pub const PANICS: u32 = 251;

/// Lets forward passes through one by one, once it is closed.
#[derive(Default)]
pub struct Gate {
    /// Passes that may go through; none counts while it is open.
    permits: Mutex<Option<usize>>,
    changed: Condvar,
    passed: AtomicUsize,
}

impl Gate {
    /// From now on passes wait.
    pub fn close(&self) {
        *self.permits.lock().unwrap() = Some(0);
    }

    /// Lets `n` more passes through.
    pub fn let_through(&self, n: usize) {
        let mut permits = self.permits.lock().unwrap();
        *permits = Some(permits.unwrap_or(0) + n);
        self.changed.notify_all();
    }

    pub fn open(&self) {
        *self.permits.lock().unwrap() = None;
        self.changed.notify_all();
    }

    /// Passes that have gone through.
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::Acquire)
    }

    /// Waits until so many have.
    pub fn wait_for(&self, passes: usize) {
        until(|| self.passed() >= passes);
    }

    fn pass(&self) {
        let mut permits = self.permits.lock().unwrap();
        while *permits == Some(0) {
            permits = self.changed.wait(permits).unwrap();
        }
        if let Some(left) = &mut *permits {
            *left -= 1;
        }
        self.passed.fetch_add(1, Ordering::AcqRel);
    }
}

/// Waits for what must come.
pub fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Counting {
    facts: ModelFacts,
    gate: Arc<Gate>,
}

impl Model for Counting {
    fn forward(&self, batch: &Batch, caches: &mut [LayerCache]) -> Result<Array> {
        self.gate.pass();
        let (b, l) = (batch.tokens.dim(0)?, batch.tokens.dim(1)?);
        let tokens = batch.tokens.contiguous()?.to_vec::<u32>()?;
        if tokens.contains(&FAILS) {
            batch.tokens.reshape(&[b * l + 1])?;
        }
        assert!(!tokens.contains(&PANICS), "the model was told to panic");
        let entry = batch
            .tokens
            .astype(Dtype::Float32)?
            .reshape(&[b, 1, l, 1])?;
        for cache in caches {
            cache.update(&entry, &entry, batch)?;
        }
        batch.tokens.astype(Dtype::Float32)?.expand_dims(-1)
    }

    /// The likeliest token is the one after the token that the hidden state is; after `LAST` it is 0.
    fn unembed(&self, hidden: &Array) -> Result<Array> {
        let one = Array::full(&[1], 1.0, Dtype::Float32)?;
        let last = Array::full(&[1], LAST as f32, Dtype::Float32)?;
        let over = hidden.equal(&last)?.astype(Dtype::Float32)?;
        let hidden = &hidden.add(&over.scale(-(LAST as f32) - 1.0)?)?;
        let ids = Array::arange(0, VOCAB as i32, Dtype::Float32)?;
        let off = ids.add(&hidden.add(&one)?.scale(-1.0)?)?;
        off.multiply(&off)?.scale(-1.0)
    }

    fn caches(&self) -> Vec<LayerCache> {
        vec![LayerCache::full()]
    }

    fn facts(&self) -> &ModelFacts {
        &self.facts
    }
}

/// Bytes of its cache for each 256 positions: a key and a value of one float32.
pub const STEP_BYTES: usize = 256 * 8;

/// An engine with the model, whose requests may take `capacity` bytes for their caches.
pub fn start(capacity: usize, options: Options) -> std::result::Result<Engine, LoadError> {
    start_gated(capacity, options, Arc::default())
}

/// The same with a gate before each forward pass.
pub fn start_gated(
    capacity: usize,
    options: Options,
    gate: Arc<Gate>,
) -> std::result::Result<Engine, LoadError> {
    // A sixteenth is for steps: more than tests that run beside this one take, since MLX counts for the
    // process.
    let total = 16 << 30;
    let weights = total - total / 16 - capacity;
    let load = move || {
        let model = Counting {
            facts: ModelFacts {
                vocab_size: VOCAB,
                context_length: Some(1 << 16),
                weight_bytes: weights,
            },
            gate,
        };
        let ready = Ready {
            runtime: Runtime::enter(Device::Cpu)?,
            loaded: Loaded {
                model: Box::new(model),
                model_type: "counting".into(),
                generation: GenerationConfig::default(),
                text_only: false,
            },
            budget: (total, "a test's".into()),
            started: Instant::now(),
            residence: None,
        };
        EngineThread::new(ready, &options, &|_| {})
    };
    Engine::spawn(load, false)
}
