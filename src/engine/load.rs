//! Loading a model within the memory budget: what does not fit is refused before it is read.

use std::time::Instant;

use super::handle::Handle;
use super::machine::Machine;
use super::memory::{Budget, Bytes};
use super::options::{Options, Planning};
use crate::checkpoint::{Adapters, LoadError, Module, Source, WeightsAs};
use crate::mlx::{self, Device, Runtime, on_cuda};
use crate::models::{self, Loaded};
use crate::nn::plan::{self, Residence, Shape, Stored};

/// Unpacked weights may take one part in so many of the memory.
const UNPACKED_SHARE: usize = 4;

/// Measuring may take one part in so many.
const PLAN_SHARE: usize = 8;
/// Bytes of unpacked weights from which they are faster on CUDA by experience: a smaller model's step takes
/// longer to launch than to compute.
const WORTH_UNPACKING: usize = 6 << 30;

/// A model in memory, on a thread that is bound to its device.
pub(super) struct Ready {
    pub runtime: Runtime,
    pub loaded: Loaded,
    /// Bytes that all may take together, and where the number comes from.
    pub budget: (usize, String),
    /// When loading began.
    pub started: Instant,
    /// What was found of unpacking the weights, if it came into question.
    pub residence: Option<Residence>,
}

/// Binds this thread to the device and loads the model, as `options` say.
///
/// # Errors
/// What loading says; also if the weights are larger than the memory budget, before they are read.
pub(super) fn load(
    source: &Source,
    options: &Options,
    progress: &dyn Fn(u64, u64),
) -> Result<Ready, LoadError> {
    let started = Instant::now();
    let device = options.device.unwrap_or_else(Device::best);
    let runtime = Runtime::enter(device)?;
    let adapters = options.adapters.as_ref().map(Adapters::open).transpose()?;
    let (budget, origin) = Machine::of(device)?.budget(options.memory);
    plan::begin(settings(&options.plan, device), budget / PLAN_SHARE);
    let mut found = None;
    let weights_as = options.weights.on(device, || {
        let (unpacked, plan) = models::survey(source, adapters.as_ref(), WeightsAs::Unpacked)?;
        if unpacked > budget / UNPACKED_SHARE {
            return Ok(false);
        }
        found = plan::residence(&packed(&plan.modules))?;
        Ok::<_, LoadError>(match &found {
            Some(found) => found.unpacks(),
            None => on_cuda() && unpacked >= WORTH_UNPACKING,
        })
    })?;
    let needed = models::resident_bytes(source, adapters.as_ref(), weights_as)?;
    if needed > budget {
        return Err(LoadError::Unsupported(format!(
            "its weights take {} in memory as they would be loaded, but the budget is {} ({origin}); \
             use a smaller model or one of fewer bits, keep the weights as they are stored \
             (--weights keep), or give it more memory (--memory)",
            Bytes(needed),
            Bytes(budget)
        )));
    }
    mlx::set_memory_limit(budget)?;
    mlx::set_cache_limit(Budget::pool_limit(budget))?;
    let loaded = models::load_adapted(source, adapters.as_ref(), weights_as, progress)?;
    Ok(Ready {
        runtime,
        loaded,
        budget: (budget, origin),
        started,
        residence: found,
    })
}

/// How this thread plans products, and where what is measured of the device is kept.
fn settings(planning: &Planning, device: Device) -> plan::Settings {
    let version = mlx::version().unwrap_or_default();
    let name = mlx::device_name(device).ok().flatten().unwrap_or_default();
    let file = |folder: &std::path::PathBuf| plan::file_for(folder, &name, &version);
    plan::Settings {
        effort: planning.effort,
        file: planning.folder.as_ref().map(file),
    }
}

/// The packed matrices that a step reads, by shape.
fn packed(modules: &[Module]) -> Vec<Stored> {
    let mut found: Vec<Stored> = Vec::new();
    for shape in modules.iter().filter_map(shape_of) {
        match found.iter_mut().find(|stored| stored.shape == shape) {
            Some(stored) => stored.count += 1,
            None => found.push(Stored { shape, count: 1 }),
        }
    }
    found
}

/// That of a packed matrix; none of others, and of stacks, which stay packed.
fn shape_of(module: &Module) -> Option<Shape> {
    let (scheme, x) = (module.scheme?, module.unpacks_to?);
    let [out, inner] = module.shape[..] else {
        return None;
    };
    Some(Shape {
        out: i32::try_from(out).ok()?,
        inner: i32::try_from(inner).ok()?,
        mode: scheme.mode,
        bits: scheme.bits as i32,
        group_size: scheme.group_size as i32,
        x,
    })
}

/// Refuses a model beside whose weights no sequence has room.
pub(super) fn room_for_one(budget: &Budget, origin: &str) -> Result<(), LoadError> {
    let (needed, available) = (budget.bytes(1), budget.capacity());
    if needed <= available {
        return Ok(());
    }
    let parts = budget.parts();
    Err(LoadError::Unsupported(format!(
        "its weights take {} and a step up to {} of the memory budget of {} ({origin}), which leaves \
         {} for sequences, but the shortest takes {}; use a smaller model, or give it more memory \
         (--memory)",
        Bytes(parts.weights),
        Bytes(parts.step_reserved),
        Bytes(parts.budget),
        Bytes(available),
        Bytes(needed)
    )))
}

/// Says in the log how the memory is divided.
pub(super) fn report(handle: &Handle, origin: &str) {
    let parts = handle.memory();
    let context = handle.facts().context_length;
    tracing::info!(
        "memory: {} ({origin}), of which weights {}, a step up to {}, and {} for sequences; one of \
         {context} tokens would take {}",
        Bytes(parts.budget),
        Bytes(parts.weights),
        Bytes(parts.step_reserved),
        Bytes(parts.kv_capacity),
        Bytes(handle.sequence_bytes(context))
    );
}
