//! The weights cursor: a model asks for its tensors by path, and every one is checked.
//!
//! Invariants: a tensor has exactly the shape the model asked for; at the end every tensor of the
//! checkpoint was asked for. No weight is ever made up. Each matrix is evaluated as it is loaded,
//! so that loading needs the memory of the result and of a few matrices more.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use super::foreign::SCALE_INV;
use super::index::Tensor;
use super::plan::{Module, Plan};
use super::quantization::Scheme;
use super::tap::{Tap, Written};
use super::{Adapters, CheckpointError, Quantization, Shards};
use crate::mlx::{self, Array, Device, Dtype, Order, Quantized, dequantize};
use crate::nn::Matrix;

/// Bytes that a GPU may be behind by.
const BEHIND: usize = 512 << 20;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The files are wrong.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A tensor that the model needs is not there.
    #[error(
        "the checkpoint has no tensor {name}, which this architecture needs{near}; \
         check that config.json belongs to these weights"
    )]
    Missing {
        /// The tensor's full name.
        name: String,
        /// Names that look like it, as the end of a sentence.
        near: String,
    },
    /// A tensor has another shape than the model needs.
    #[error(
        "tensor {name} has shape {found:?}, expected {expected:?} by config.json; \
         check that config.json belongs to these weights"
    )]
    Shape {
        /// The tensor's full name.
        name: String,
        /// Its shape in the checkpoint.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A tensor has a type that weights cannot have.
    #[error("tensor {name} is {found}, expected {expected}")]
    Type {
        /// The tensor's full name.
        name: String,
        /// Its type in the checkpoint.
        found: &'static str,
        /// The types that can be used.
        expected: &'static str,
    },
    /// Tensors that no part of the model asked for.
    #[error(
        "the checkpoint has {count} tensors that this architecture does not use, such as {examples}; \
         check that config.json belongs to these weights"
    )]
    Unused {
        /// How many.
        count: usize,
        /// A few of their names.
        examples: String,
    },
    /// A fine-tune does not fit the model.
    #[error("{file}: {problem}; check that it was made from this model")]
    Adapter {
        /// The file of the fine-tune's tensors.
        file: String,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// The checkpoint is fine but asks for what is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// MLX failed.
    #[error(transparent)]
    Mlx(#[from] mlx::Error),
}

/// What loading returns.
pub type LoadResult<T> = std::result::Result<T, LoadError>;

/// What becomes of the weights on their way into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightsAs {
    /// As they are stored, packed ones included.
    Stored,
    /// As they are stored, but matrices unpacked in the type of their scales; stacks of them, as experts
    /// have them, stay packed.
    Unpacked,
    /// Matrices as they are stored, which the CPU kernels take; all else, activations included, in
    /// float32. Packed in another form than `affine`, they are unpacked to bfloat16, which is exact.
    Matrices,
    /// Unpacked and cast to this type.
    Dense(Dtype),
}

/// Replaces the first `from` in a stored name by `to`.
pub type Rename = (&'static str, &'static str);

/// A checkpoint being loaded.
pub struct Weights<'a> {
    shards: &'a Shards,
    quantization: Option<&'a Quantization>,
    weights_as: WeightsAs,
    /// Stored names by the names that the model asks for.
    names: BTreeMap<String, String>,
    used: RefCell<BTreeSet<String>>,
    pub(super) adapters: Option<&'a Adapters>,
    /// A fine-tune's own names by the names that the model asks for.
    pub(super) adapter_names: BTreeMap<String, String>,
    pub(super) adapters_used: RefCell<BTreeSet<String>>,
    /// Whether zeros that take no memory stand for what is stored, and nothing is computed with them.
    dry: Option<mlx::Postponed>,
    pub(super) tap: Option<&'a dyn Tap>,
    pub(super) written: Written,
    pub(super) modules: RefCell<Vec<Module>>,
    /// Modules with a change whose matrix is not stored by itself.
    pub(super) apart: RefCell<Vec<String>>,
    ignored: Box<dyn Fn(&str) -> bool>,
    text_only: bool,
    loaded: Cell<u64>,
    resident: Cell<usize>,
    /// Bytes that a GPU may still be computing.
    behind: Cell<usize>,
    progress: &'a dyn Fn(u64, u64),
}

impl<'a> Weights<'a> {
    /// Starts loading. `progress` is told the bytes read so far and in all.
    pub fn new(
        shards: &'a Shards,
        quantization: Option<&'a Quantization>,
        weights_as: WeightsAs,
        progress: &'a dyn Fn(u64, u64),
    ) -> Self {
        let names = shards
            .names()
            .map(|name| (name.to_owned(), name.to_owned()));
        Self {
            shards,
            quantization,
            weights_as,
            names: names.collect(),
            used: RefCell::default(),
            adapters: None,
            adapter_names: BTreeMap::new(),
            adapters_used: RefCell::default(),
            dry: None,
            tap: None,
            written: Written::default(),
            modules: RefCell::default(),
            apart: RefCell::default(),
            ignored: Box::new(|_| false),
            text_only: false,
            loaded: Cell::new(0),
            resident: Cell::new(0),
            behind: Cell::new(0),
            progress,
        }
    }

    /// Loads with a fine-tune over the checkpoint. To be called before the model renames tensors: its
    /// rules hold for the fine-tune's names too.
    pub fn adapt(&mut self, adapters: &'a Adapters) {
        let names = adapters.tensors().names();
        self.adapter_names = names.map(|name| (name.into(), name.into())).collect();
        self.adapters = Some(adapters);
    }

    /// Checks names and shapes, but reads no data: what the model gets is zeros.
    pub fn dry(&mut self) {
        self.dry = Some(mlx::Postponed::start());
    }

    /// Says which tensors some converters leave in and this architecture never uses, by the names
    /// that [`Weights::rename`] made.
    pub fn ignoring(&mut self, ignored: impl Fn(&str) -> bool + 'static) {
        self.ignored = Box::new(ignored);
    }

    /// Leaves out the tensors of what is not the text tower, a vision or audio tower and what ties it
    /// to the text, by their names so far.
    pub fn leave_out_towers(&mut self, of_tower: fn(&str) -> bool) {
        let count = self.names.len();
        self.names.retain(|name, _| !of_tower(name));
        self.text_only |= self.names.len() < count;
    }

    /// Whether [`Weights::leave_out_towers`] left out any.
    pub fn text_only(&self) -> bool {
        self.text_only
    }

    /// Applies every rule to every name, in turn: how the layouts of other converters become the
    /// one that the model asks for. A tensor that already has the new name stays.
    pub fn rename(&mut self, rules: &[Rename]) {
        for names in [&mut self.names, &mut self.adapter_names] {
            let mut renamed = BTreeMap::new();
            for (name, stored) in std::mem::take(names) {
                let name = rules
                    .iter()
                    .fold(name, |name, (from, to)| name.replacen(from, to, 1));
                renamed.entry(name).or_insert(stored);
            }
            *names = renamed;
        }
    }

    /// The top of the tree of names.
    pub fn root(&self) -> Cursor<'_> {
        Cursor {
            weights: self,
            path: String::new(),
            untold: false,
        }
    }

    /// Whether the checkpoint has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Bytes in memory of all that was handed out.
    pub fn resident_bytes(&self) -> usize {
        self.resident.get()
    }

    /// To be called when the model is complete.
    ///
    /// # Errors
    /// If a tensor was left over, the checkpoint's or the fine-tune's, or the device failed.
    pub fn finish(&self) -> LoadResult<()> {
        if self.dry.is_none() {
            mlx::synchronize()?;
        }
        self.finish_adapters()?;
        let used = self.used.borrow();
        let left: Vec<&str> = self
            .names
            .keys()
            .map(String::as_str)
            .filter(|name| !used.contains(*name) && !(self.ignored)(name))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(LoadError::Unused {
            count: left.len(),
            examples: left[..left.len().min(3)].join(", "),
        })
    }

    /// How the model's matrices are stored, after it was loaded.
    pub fn into_plan(self) -> Plan {
        Plan {
            modules: self.modules.into_inner(),
            apart: self.apart.into_inner(),
            names: self.names,
            adapter_names: self.adapter_names,
        }
    }

    fn tensor(&self, name: &str) -> LoadResult<Tensor<'_>> {
        let stored = self.names.get(name);
        let Some(tensor) = stored.and_then(|stored| self.shards.get(stored)) else {
            return Err(LoadError::Missing {
                name: name.into(),
                near: self.near_misses(name),
            });
        };
        if self.used.borrow_mut().insert(name.to_string()) {
            self.loaded
                .set(self.loaded.get() + tensor.bytes.len() as u64);
            (self.progress)(self.loaded.get(), self.shards.total_bytes());
        }
        Ok(self.replaced(name, tensor.shape)?.unwrap_or(tensor))
    }

    /// Up to three names that share the longest ending or beginning with the missing one.
    fn near_misses(&self, name: &str) -> String {
        let likeness = |other: &str| {
            let same =
                |a: &mut dyn Iterator<Item = (u8, u8)>| a.take_while(|(x, y)| x == y).count();
            let front = same(&mut name.bytes().zip(other.bytes()));
            let back = same(&mut name.bytes().rev().zip(other.bytes().rev()));
            front + back
        };
        let mut names: Vec<&str> = self.names.keys().map(String::as_str).collect();
        names.sort_by_key(|other| std::cmp::Reverse(likeness(other)));
        names.retain(|other| likeness(other) * 3 >= name.len() * 2);
        names.truncate(3);
        match names.as_slice() {
            [] => String::new(),
            near => format!("; it has {}", near.join(", ")),
        }
    }
}

/// A place in the tree of names, such as `model.layers.3.mlp`.
#[derive(Clone)]
pub struct Cursor<'w> {
    pub(super) weights: &'w Weights<'w>,
    pub(super) path: String,
    /// Whether a tap is not told of what is read here.
    pub(super) untold: bool,
}

impl Cursor<'_> {
    /// One step down; `name` may have dots.
    pub fn at(&self, name: &str) -> Self {
        Self {
            weights: self.weights,
            path: self.name(name),
            untold: self.untold,
        }
    }

    /// One step down, to a numbered child.
    pub fn index(&self, name: &str, i: usize) -> Self {
        self.at(&format!("{name}.{i}"))
    }

    /// The place itself, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether there is a tensor `name` here.
    pub fn has(&self, name: &str) -> bool {
        self.weights.has(&self.name(name))
    }

    /// Says that what is under `name` here is of no use, though some converters leave it in.
    pub fn skip(&self, name: &str) {
        let prefix = self.name(name) + ".";
        let names = self.weights.names.keys();
        let here = names.filter(|name| name.starts_with(&prefix));
        self.weights.used.borrow_mut().extend(here.cloned());
    }

    pub(super) fn name(&self, last: &str) -> String {
        match self.path.as_str() {
            "" => last.to_string(),
            path => format!("{path}.{last}"),
        }
    }

    /// A tensor of exactly this shape, in the type that the load asks for.
    pub fn tensor(&self, last: &str, shape: &[usize]) -> LoadResult<Array> {
        self.told(last, self.keep_dense(self.float(last, shape)?)?)
    }

    /// The same after `change`, which gets it in its stored type.
    pub fn tensor_with(
        &self,
        last: &str,
        shape: &[usize],
        change: impl FnOnce(Array) -> mlx::Result<Array>,
    ) -> LoadResult<Array> {
        self.refuse_replaced(last)?;
        self.told(last, self.keep_dense(change(self.float(last, shape)?)?)?)
    }

    /// A tensor of exactly this shape, in its stored type.
    fn float(&self, last: &str, shape: &[usize]) -> LoadResult<Array> {
        let array = self.raw(last, Some(shape))?;
        match array.dtype().is_float() {
            true => Ok(array),
            false => Err(self.wrong_type(last, "F32, F16 or BF16")),
        }
    }

    /// The error for a tensor here whose type does not do.
    pub(super) fn wrong_type(&self, last: &str, expected: &'static str) -> LoadError {
        let found = self.stored(last).map_or("not there", |t| t.dtype.name());
        LoadError::Type {
            name: self.name(last),
            found,
            expected,
        }
    }

    /// A matrix or vector in the type that the load asks for.
    pub(super) fn keep_dense(&self, array: Array) -> LoadResult<Array> {
        let array = match self.weights.weights_as {
            WeightsAs::Stored | WeightsAs::Unpacked => array,
            WeightsAs::Matrices if array.ndim() > 1 && array.dtype() != Dtype::Float64 => array,
            WeightsAs::Matrices => array.astype(Dtype::Float32)?,
            WeightsAs::Dense(dtype) => array.astype(dtype)?,
        };
        self.keep(&[&array])?;
        Ok(array)
    }

    /// The type that activations are to have, if the load says so.
    pub(super) fn activations(&self) -> Option<Dtype> {
        (self.weights.weights_as == WeightsAs::Matrices).then_some(Dtype::Float32)
    }

    /// Whether matrices may be kept in the order that the device likes best: they are there, and nobody
    /// writes them to a file.
    pub(super) fn arranges(&self) -> bool {
        self.weights.dry.is_none() && self.weights.tap.is_none()
    }

    /// A packed matrix in the form that the load asks for.
    pub(super) fn keep_packed(&self, mut packed: Quantized) -> LoadResult<Matrix> {
        let unpacked = match self.weights.weights_as {
            WeightsAs::Dense(dtype) => Some(dtype),
            WeightsAs::Unpacked if packed.weight.ndim() == 2 => Some(packed.dtype()),
            WeightsAs::Matrices if packed.biases.is_none() => Some(packed.dtype()),
            WeightsAs::Stored | WeightsAs::Unpacked | WeightsAs::Matrices => None,
        };
        let Some(dtype) = unpacked else {
            let parts = [
                Some(&packed.weight),
                Some(&packed.scales),
                packed.biases.as_ref(),
            ];
            self.keep(&parts.into_iter().flatten().collect::<Vec<_>>())?;
            return Ok(Matrix::Quant(packed));
        };
        // Cast before unpacking, so that unpacking is not rounded to a shorter type.
        if let Some(biases) = &packed.biases {
            packed.biases = Some(biases.astype(dtype)?);
            packed.scales = packed.scales.astype(dtype)?;
        }
        let weight = dequantize(&packed, dtype)?;
        self.keep(&[&weight])?;
        Ok(weight.into())
    }

    /// Evaluates and counts what the model will hold. A GPU computes it while the next is read; what it
    /// is behind by is bounded.
    pub(super) fn keep(&self, arrays: &[&Array]) -> LoadResult<()> {
        let bytes: usize = arrays.iter().map(|array| array.nbytes()).sum();
        let behind = self.weights.behind.get().saturating_add(bytes);
        if behind < BEHIND && mlx::current_device() == Some(Device::Gpu) {
            mlx::async_eval(arrays)?;
            self.weights.behind.set(behind);
        } else {
            mlx::eval(arrays)?;
            self.weights.behind.set(0);
        }
        let resident = &self.weights.resident;
        resident.set(resident.get() + bytes);
        Ok(())
    }

    /// A tensor as it is stored.
    pub(super) fn raw(&self, last: &str, expected: Option<&[usize]>) -> LoadResult<Array> {
        let name = self.name(last);
        let tensor = self.weights.tensor(&name)?;
        if let Some(expected) = expected.filter(|&expected| expected != tensor.shape) {
            return Err(LoadError::Shape {
                name,
                found: tensor.shape.to_vec(),
                expected: expected.to_vec(),
            });
        }
        let (dtype, shape) = tensor.array_type()?;
        if self.weights.dry.is_some() {
            return Ok(Array::zeros(&shape, dtype)?);
        }
        let array = Array::from_bytes(tensor.bytes, &shape, dtype)?;
        self.weights.shards.let_go(tensor.name);
        Ok(array)
    }

    /// Notes how the matrix here is stored.
    fn note(&self, shape: &[usize], scheme: Option<Scheme>) {
        let name = |last| self.stored(last).map(|tensor| tensor.name.to_owned());
        let Some(weight) = name("weight") else {
            return;
        };
        let packed = |last| scheme.and_then(|_| name(last));
        let unpacks_to = scheme.map(|scheme| {
            let scales = self.stored("scales").filter(|_| scheme.mode.has_biases());
            let dtype = scales.and_then(|scales| scales.dtype.array_dtype());
            dtype.unwrap_or(Dtype::Bfloat16)
        });
        self.weights.modules.borrow_mut().push(Module {
            path: self.path.clone(),
            shape: shape.to_vec(),
            scheme,
            unpacks_to,
            weight,
            scales: packed("scales"),
            biases: packed("biases"),
            adapter: None,
        });
    }

    /// The shape of a tensor here; none where there is no such tensor.
    pub fn shape_of(&self, last: &str) -> Option<Vec<usize>> {
        Some(self.stored(last)?.shape.to_vec())
    }

    /// A tensor here as its file has it, unread.
    pub(super) fn stored(&self, last: &str) -> Option<Tensor<'_>> {
        let stored = self.weights.names.get(&self.name(last))?;
        self.weights.shards.get(stored)
    }

    /// A weight matrix `[.., out, in]` under this path, packed or not.
    pub fn matrix(&self, shape: &[usize]) -> LoadResult<Matrix> {
        self.told_matrix(match self.has("scales") {
            true => self.keep_packed(self.quantized(shape)?)?,
            false => self.dense(shape)?.into(),
        })
    }

    /// A weight matrix here that is not packed, or is not kept so.
    pub(super) fn dense(&self, shape: &[usize]) -> LoadResult<Array> {
        if self.has(SCALE_INV) {
            return self.block_scaled(shape);
        }
        let weight = self.keep_dense(self.float("weight", shape)?)?;
        self.note(shape, None);
        Ok(weight)
    }

    /// A packed matrix `[.., out, in]` here, as it is stored.
    pub(super) fn quantized(&self, shape: &[usize]) -> LoadResult<Quantized> {
        let inner = shape.last().copied().unwrap_or(0);
        let scheme = self.scheme(inner)?;
        let of = |last| {
            let mut shape = shape.to_vec();
            shape.pop();
            shape.push(last);
            shape
        };
        let groups = of(inner / scheme.group_size.max(1));
        let weight = self.raw("weight", Some(&of(inner.saturating_mul(scheme.bits) / 32)))?;
        let scales = self.raw("scales", Some(&groups))?;
        let biases = match scheme.mode.has_biases() {
            true => Some(self.raw("biases", Some(&groups))?),
            false => None,
        };
        self.note(shape, Some(scheme));
        Ok(Quantized {
            weight,
            scales,
            biases,
            group_size: scheme.group_size as i32,
            bits: scheme.bits as i32,
            mode: scheme.mode,
            order: Order::Rows,
        })
    }

    /// How the matrix here is packed: as the configuration says of it by name, else as its tensors'
    /// shapes say, since converters leave out what they can tell from these.
    fn scheme(&self, inner: usize) -> LoadResult<Scheme> {
        let Some(quantization) = self.weights.quantization else {
            return Err(LoadError::Unsupported(format!(
                "{} has quantized weights, but config.json does not say how they are quantized: \
                 expected `quantization` with group_size and bits",
                self.path
            )));
        };
        let stored = self.weights.names.get(&self.name("weight"));
        let stored = stored.and_then(|name| name.strip_suffix(".weight"));
        let named = [Some(self.path.as_str()), stored]
            .into_iter()
            .flatten()
            .find_map(|path| quantization.override_for(path));
        match named {
            Some(Some(scheme)) => return Ok(scheme),
            Some(None) => {
                return Err(LoadError::Unsupported(format!(
                    "{}: config.json says that it is not quantized (false), but it has `scales`; \
                     check that config.json belongs to these weights",
                    self.path
                )));
            }
            None => {}
        }
        let last = |name| Some(*self.shape_of(name)?.last()?);
        let (words, groups) = (last("weight").unwrap_or(0), last("scales").unwrap_or(0));
        let biases = self.has("biases");
        Scheme::infer(inner, words, groups, biases).ok_or_else(|| {
            LoadError::Unsupported(format!(
                "{}: {words} words and {groups} scales for rows of {inner} fit no quantization \
                 that is supported; check that config.json belongs to these weights",
                self.path
            ))
        })
    }
}
