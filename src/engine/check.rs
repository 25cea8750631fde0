//! Checking a model's files without running it: that they fit the architecture, and that every stored
//! number is one.

use std::collections::BTreeMap;

use crate::checkpoint::finite::{ByteScales, NonFinite};
use crate::checkpoint::{Adapters, LoadResult, Shards, Source};
use crate::mlx::{Device, QuantMode, Runtime};
use crate::models;

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checked {
    /// Tensors.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Tensors with numbers that are not finite.
    pub faults: Vec<Fault>,
}

/// A tensor with numbers that are not finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Its name in the files.
    pub tensor: String,
    /// How many of its elements are what.
    pub found: NonFinite,
    /// Its elements in all.
    pub elements: usize,
}

/// Checks the model at `source`, and a fine-tune of it: settings, names and shapes as loading does,
/// then every number. `progress` is told the bytes read so far and in all.
///
/// # Errors
/// What loading says.
pub fn check(
    source: &Source,
    adapters: Option<&Source>,
    progress: &dyn Fn(u64, u64),
) -> LoadResult<Checked> {
    let _runtime = Runtime::enter(Device::Cpu)?;
    let adapters = adapters.map(Adapters::open).transpose()?;
    let plan = models::plan(source, adapters.as_ref())?;
    let modes = plan.modules.iter().filter_map(|module| {
        let scales = module.scales.as_deref()?;
        Some((scales, module.scheme?.mode))
    });
    let modes: BTreeMap<&str, QuantMode> = modes.collect();
    let shards = Shards::open(source)?;
    let sets = [Some(&shards), adapters.as_ref().map(Adapters::tensors)];
    let total = sets.iter().flatten().map(|set| set.total_bytes()).sum();
    let mut checked = Checked::default();
    for tensor in sets.iter().flatten().flat_map(|set| set.iter()) {
        let scales = match modes.get(tensor.name) {
            Some(QuantMode::Nvfp4) => Some(ByteScales::E4m3),
            Some(QuantMode::Mxfp4 | QuantMode::Mxfp8) => Some(ByteScales::PowerOfTwo),
            Some(QuantMode::Affine) => None,
            // Of OpenAI's layout of 4-bit floats, which MLX does not have.
            None if tensor.name.ends_with("_scales") => Some(ByteScales::PowerOfTwo),
            None => None,
        };
        let found = NonFinite::of(&tensor, scales);
        if !found.is_none() {
            checked.faults.push(Fault {
                tensor: tensor.name.into(),
                found,
                elements: tensor.shape.iter().product(),
            });
        }
        checked.tensors += 1;
        checked.bytes += tensor.bytes.len() as u64;
        progress(checked.bytes, total);
    }
    Ok(checked)
}
