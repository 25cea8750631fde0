//! Merging a fine-tune into its model: a new checkpoint, as `mlx_lm.fuse` writes one.
//!
//! The model's tensors keep their names and their order. Those that nothing changes are copied byte
//! for byte; a changed matrix is unpacked, merged, and packed again in the same way. One matrix is in
//! memory at a time. Unlike mlx-lm, a matrix with DoRA stays in the type that it had.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use crate::checkpoint::companions::{copy, copy_companions};
use crate::checkpoint::write::{self, Entry, Layout, write_shards};
use crate::checkpoint::{
    Adapters, CheckpointError, LoadError, LoadResult, Module, Scheme, Shards, Source, Tensor,
    safetensors,
};
use crate::mlx::{
    Array, Device, Dtype, Order, Quantized, Runtime, clear_cache, dequantize, quantize,
};
use crate::models;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fused {
    /// Matrices and tensors that the fine-tune changed.
    pub changed: usize,
    /// Tensors in all.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Merges the fine-tune `adapters` into the model at `source` and writes the result to the
/// directory `to`, which must be there and empty. With `unpack` nothing in it is packed. `progress`
/// is told the bytes written so far and in all.
///
/// # Errors
/// If the two do not fit, a changed matrix is stored in a layout that cannot be written again, or a
/// file cannot be read or written.
pub fn fuse(
    source: &Source,
    adapters: &Source,
    to: &Path,
    unpack: bool,
    device: Option<Device>,
    progress: &dyn Fn(u64, u64),
) -> LoadResult<Fused> {
    let _runtime = Runtime::enter(device.unwrap_or_else(Device::best))?;
    let adapters = Adapters::open(adapters)?;
    let job = Job::new(source, &adapters, unpack)?;
    let total = job.entries.iter().map(Entry::bytes).sum::<u64>();
    let layout = Layout {
        // A layout of others stays one.
        format: job.shards.metadata("format").unwrap_or("mlx"),
        shard_bytes: write::SHARD_BYTES,
        parameters: job.parameters,
    };
    let (mut written, mut last) = (0, None);
    write_shards(to, &job.entries, layout, |entry| {
        let bytes = job.content(entry, &mut last)?;
        written += bytes.len() as u64;
        progress(written, total);
        Ok::<_, LoadError>(bytes)
    })?;
    copy_companions(source, to)?;
    write_config(source, to, unpack)?;
    Ok(Fused {
        changed: job.changed,
        tensors: job.entries.len(),
        bytes: total,
    })
}

/// What is to be written, and from what.
struct Job<'a> {
    shards: Shards,
    adapters: &'a Adapters,
    entries: Vec<Entry>,
    /// The matrices that are computed, by the name of each of their tensors.
    modules: BTreeMap<String, Module>,
    /// The fine-tune's own names of tensors that take the place of stored ones.
    replaced: BTreeMap<String, String>,
    unpack: bool,
    parameters: u64,
    changed: usize,
}

/// The tensors of a matrix that was computed, by name: they are asked for one after the other.
type Computed = BTreeMap<String, Vec<u8>>;

impl<'a> Job<'a> {
    fn new(source: &Source, adapters: &'a Adapters, unpack: bool) -> LoadResult<Self> {
        let plan = models::plan(source, Some(adapters))?;
        let shards = Shards::open(source)?;
        if let Some(path) = plan.apart.first() {
            return Err(LoadError::Unsupported(format!(
                "{path} is not stored in a form that a change could be merged into; convert the \
                 model to MLX format first (pensieve convert), and fuse with that"
            )));
        }
        let foreign = |name: &&str| name.ends_with("weight_scale_inv") || name.ends_with("_blocks");
        if let Some(name) = shards.names().find(foreign).filter(|_| unpack) {
            return Err(LoadError::Unsupported(format!(
                "{name} is packed in a way that is not MLX's, and cannot be unpacked here; convert \
                 the model to MLX format first (pensieve convert)"
            )));
        }
        let mut job = Self {
            shards,
            adapters,
            entries: Vec::new(),
            modules: BTreeMap::new(),
            replaced: BTreeMap::new(),
            unpack,
            parameters: 0,
            changed: 0,
        };
        for (name, own) in &plan.adapter_names {
            if let Some(stored) = plan.names.get(name)
                && adapters.replaces(own).is_some()
            {
                job.replaced.insert(stored.clone(), own.clone());
                job.changed += 1;
            }
        }
        let mut of_tensor = BTreeMap::new();
        for (i, module) in plan.modules.iter().enumerate() {
            let parts = [
                Some(&module.weight),
                module.scales.as_ref(),
                module.biases.as_ref(),
            ];
            of_tensor.extend(parts.into_iter().flatten().map(|name| (name.clone(), i)));
        }
        let mut done = BTreeSet::new();
        let names: Vec<String> = job.shards.iter().map(|t| t.name.to_owned()).collect();
        for name in names {
            match of_tensor.get(&name) {
                // All parts of a matrix together, so that it is computed once.
                Some(&i) if done.insert(i) => job.add_module(&plan.modules[i])?,
                Some(_) => {}
                None => job.add_tensor(&name)?,
            }
        }
        Ok(job)
    }

    /// Whether the matrix is computed rather than copied.
    fn computes(&self, module: &Module) -> bool {
        module.adapter.is_some() || (self.unpack && module.scheme.is_some())
    }

    fn add_module(&mut self, module: &Module) -> LoadResult<()> {
        let logical = module.shape.iter().map(|&d| d as u64).product::<u64>();
        let parts = [
            Some(&module.weight),
            module.scales.as_ref(),
            module.biases.as_ref(),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().cloned().collect();
        self.changed += usize::from(module.adapter.is_some());
        if !self.computes(module) {
            for part in &parts {
                self.add_entry(part, None)?;
            }
        } else if module.scheme.is_none() || !self.unpack {
            for part in parts {
                self.add_entry(&part, None)?;
                self.modules.insert(part, module.clone());
            }
        } else {
            let scales = module
                .scales
                .as_deref()
                .and_then(|name| self.shards.get(name));
            let dtype = match (&module.biases, scales) {
                (Some(_), Some(scales)) => scales.dtype,
                _ => safetensors::Dtype::BF16,
            };
            self.add_entry(&module.weight, Some((dtype, module.shape.clone())))?;
            self.modules.insert(module.weight.clone(), module.clone());
        }
        self.parameters += logical;
        Ok(())
    }

    fn add_tensor(&mut self, name: &str) -> LoadResult<()> {
        self.add_entry(name, None)?;
        if let Some(entry) = self.entries.last() {
            self.parameters += entry.shape.iter().map(|&d| d as u64).product::<u64>();
        }
        Ok(())
    }

    /// Announces the tensor as it is stored, or of another type and shape.
    fn add_entry(
        &mut self,
        name: &str,
        other: Option<(safetensors::Dtype, Vec<usize>)>,
    ) -> LoadResult<()> {
        let tensor = self.tensor(name)?;
        let (dtype, shape) = other.unwrap_or((tensor.dtype, tensor.shape.to_vec()));
        self.entries.push(Entry {
            name: name.into(),
            dtype,
            shape,
        });
        Ok(())
    }

    /// The tensor stored as `name`, or what the fine-tune has in its place.
    fn tensor(&self, name: &str) -> LoadResult<Tensor<'_>> {
        let own = self.replaced.get(name);
        let tensor = match own.and_then(|own| self.adapters.replaces(own)) {
            Some(tensor) => Some(tensor),
            None => self.shards.get(name),
        };
        tensor.ok_or_else(|| LoadError::Missing {
            name: name.into(),
            near: String::new(),
        })
    }

    /// The bytes of an announced tensor. `last` keeps the parts of the matrix computed last.
    fn content(&self, entry: &Entry, last: &mut Option<Computed>) -> LoadResult<Cow<'_, [u8]>> {
        let Some(module) = self.modules.get(&entry.name) else {
            return Ok(Cow::Borrowed(self.tensor(&entry.name)?.bytes));
        };
        if let Some(bytes) = last.as_mut().and_then(|parts| parts.remove(&entry.name)) {
            return Ok(bytes.into());
        }
        let mut parts = self.compute(module)?;
        clear_cache()?;
        let bytes = parts.remove(&entry.name).unwrap_or_default();
        *last = Some(parts);
        Ok(bytes.into())
    }

    /// The matrix, merged, and packed again unless it is to be unpacked.
    fn compute(&self, module: &Module) -> LoadResult<Computed> {
        let array = |name: &str| self.tensor(name)?.array();
        let weight = array(&module.weight)?;
        let dense = match (module.scheme, &module.scales) {
            (Some(scheme), Some(scales)) => {
                let biases = module.biases.as_deref();
                let packed = Quantized {
                    weight,
                    scales: array(scales)?,
                    biases: biases.map(array).transpose()?,
                    group_size: scheme.group_size as i32,
                    bits: scheme.bits as i32,
                    mode: scheme.mode,
                    order: Order::Rows,
                };
                dequantize(&packed, packed.dtype())?
            }
            _ => weight,
        };
        let merged = match &module.adapter {
            Some(adapter) => adapter.merged(&dense)?,
            None => dense,
        };
        let mut parts = Computed::new();
        match module.scheme.filter(|_| !self.unpack) {
            None => drop(parts.insert(module.weight.clone(), merged.to_bytes()?)),
            Some(scheme) => {
                let packed = pack(&merged, scheme)?;
                parts.insert(module.weight.clone(), packed.weight.to_bytes()?);
                let names = [module.scales.as_ref(), module.biases.as_ref()];
                let arrays = [Some(&packed.scales), packed.biases.as_ref()];
                for (name, array) in names.into_iter().zip(arrays) {
                    if let (Some(name), Some(array)) = (name, array) {
                        parts.insert(name.clone(), array.to_bytes()?);
                    }
                }
            }
        }
        Ok(parts)
    }
}

fn pack(matrix: &Array, scheme: Scheme) -> LoadResult<Quantized> {
    let (group_size, bits) = (scheme.group_size as i32, scheme.bits as i32);
    let packed = quantize(matrix, scheme.mode, group_size, bits)?;
    let float = packed.scales.dtype() != Dtype::Uint8;
    match float == scheme.mode.has_biases() {
        true => Ok(packed),
        false => Err(LoadError::Unsupported(format!(
            "MLX packed {} with scales of {}",
            scheme.mode,
            packed.scales.dtype()
        ))),
    }
}

/// The model's config.json as it is, or without the quantization where nothing is packed any more.
fn write_config(source: &Source, to: &Path, unpack: bool) -> LoadResult<()> {
    const NAME: &str = "config.json";
    if !unpack {
        return Ok(copy(source, to, NAME)?);
    }
    let file = source.label_of(NAME);
    let bytes = source.read(NAME).map_err(|source| CheckpointError::Io {
        file: file.clone(),
        source,
    })?;
    let parsed = serde_json::from_slice(&bytes.unwrap_or_default());
    let mut values: Map<String, Value> = parsed.map_err(|e| CheckpointError::Json {
        file,
        problem: e.to_string(),
    })?;
    let drop_from = |values: &mut Map<String, Value>| {
        values.retain(|key, _| key != "quantization" && key != "quantization_config");
    };
    drop_from(&mut values);
    let of_text = values.get_mut("text_config");
    if let Some(of_text) = of_text.and_then(Value::as_object_mut) {
        drop_from(of_text);
    }
    Ok(write::write_json(to, NAME, &Value::Object(values))?)
}
