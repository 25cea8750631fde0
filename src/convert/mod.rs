//! From a checkpoint in Hugging Face's layout, or in MLX's, to one in MLX format: cast, packed or unpacked.
//!
//! The model itself says what is to be written: it is loaded twice, once without data to learn what there
//! is, and once with it, each parameter being written as it is read ([`Tap`]). So no more than a matrix is in
//! memory at a time, and whatever can be loaded can be converted. For the same settings tensors are those of
//! mlx-lm's `convert.py`, bit for bit.
//!
//! Invariant: the directory has its name when all of it is on disk, and not before.

mod choice;
mod config;
mod place;

use std::cell::{Cell, RefCell};
use std::path::Path;

use choice::{Action, Found, Kind};
pub use choice::{Mixed, Recipe};
pub use place::Place;

use crate::checkpoint::companions::copy_companions;
use crate::checkpoint::write::{self, Entry, Layout, ShardWriter};
use crate::checkpoint::{LoadError, LoadResult, Packing, Scheme, Source, Tap};
use crate::mlx::{self, Array, Device, Dtype, Quantized, Runtime, dequantize, quantize};
use crate::models;
use crate::nn::Matrix;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The type that floats are cast to; else the one that config.json names.
    pub dtype: Option<Dtype>,
    /// How matrices are packed.
    pub recipe: Option<Recipe>,
    /// Whether what is packed is unpacked first.
    pub unpack: bool,
    /// The most bytes of tensors in a file.
    pub shard_bytes: u64,
    /// What computes; the best there is without one.
    pub device: Option<Device>,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Converted {
    /// Tensors in all.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Matrices that were packed.
    pub packed: usize,
    /// Bits for each number of the model.
    pub bits_per_weight: f64,
}

/// A conversion of which all is known but the values.
pub struct Job<'a> {
    _runtime: Runtime,
    source: &'a Source,
    settings: Settings,
    values: serde_json::Map<String, serde_json::Value>,
    actions: Vec<Action>,
}

impl<'a> Job<'a> {
    /// Looks at all names and shapes of the model at `source`. Reads none of its data.
    ///
    /// # Errors
    /// If the model cannot be loaded, or what is asked for makes no sense with it.
    pub fn new(source: &'a Source, settings: Settings) -> LoadResult<Self> {
        let runtime = Runtime::enter(settings.device.unwrap_or_else(Device::best))?;
        let survey = Survey::default();
        models::tell(source, &survey, false)?;
        let values = config::settings(source)?;
        let dtype = settings.dtype.or_else(|| config::own_type(&values));
        let (found, recipe) = (survey.found.into_inner(), settings.recipe);
        Ok(Self {
            _runtime: runtime,
            source,
            settings,
            values,
            actions: choice::choose(&found, dtype, settings.unpack, recipe)?,
        })
    }

    /// Bytes of the tensors that are to be written.
    pub fn bytes(&self) -> u64 {
        let entries = self.actions.iter().flat_map(|action| &action.entries);
        entries.map(Entry::bytes).sum()
    }

    /// Does it, in the directory `to`, which must be there. `progress` is told the bytes written so far.
    ///
    /// # Errors
    /// If a file cannot be read or written, or MLX fails.
    pub fn write(&self, to: &Path, progress: &dyn Fn(u64)) -> LoadResult<Converted> {
        let entries = self.actions.iter().flat_map(|action| &action.entries);
        let entries: Vec<Entry> = entries.cloned().collect();
        let parameters = choice::parameters(&self.actions);
        let layout = Layout {
            format: "mlx",
            shard_bytes: self.settings.shard_bytes,
            parameters,
        };
        let tap = Writing {
            actions: &self.actions,
            at: Cell::new(0),
            writer: RefCell::new(ShardWriter::new(to, &entries, layout)),
            written: Cell::new(0),
            progress,
        };
        models::tell(self.source, &tap, true)?;
        tap.writer.into_inner().finish()?;
        copy_companions(self.source, to)?;
        let Settings { unpack, recipe, .. } = self.settings;
        let config = config::written(self.values.clone(), &self.actions, unpack, recipe);
        // Last, because a directory without it is no model.
        write::write_json(to, "config.json", &config)?;
        let packed = self.actions.iter().filter(|action| action.pack.is_some());
        Ok(Converted {
            tensors: entries.len(),
            bytes: self.bytes(),
            packed: packed.count(),
            bits_per_weight: self.bytes() as f64 * 8.0 / parameters.max(1) as f64,
        })
    }
}

/// Notes what there is.
#[derive(Default)]
struct Survey {
    found: RefCell<Vec<Found>>,
}

fn dims(array: &Array) -> Vec<usize> {
    array.shape().iter().map(|&dim| dim as usize).collect()
}

impl Tap for Survey {
    fn matrix(
        &self,
        path: &str,
        packing: Packing,
        count: Option<usize>,
        parts: &mut dyn Iterator<Item = LoadResult<Matrix>>,
    ) -> LoadResult<()> {
        let mut first = None;
        for part in parts {
            let (shape, kind) = match part? {
                Matrix::Dense(weight) => (dims(&weight), Kind::Dense(weight.dtype(), packing)),
                Matrix::Quant(packed) => {
                    let scheme = scheme_of(&packed);
                    let mut shape = dims(&packed.weight);
                    let groups = dims(&packed.scales).last().copied().unwrap_or(0);
                    shape.pop();
                    shape.push(groups.saturating_mul(scheme.group_size));
                    let kind = Kind::Packed(packed.scales.dtype(), scheme, packing);
                    (shape, kind)
                }
            };
            match &first {
                None => first = Some((shape, kind)),
                Some(first) if *first == (shape, kind) => {}
                Some(_) => {
                    return Err(LoadError::Unsupported(format!(
                        "{path}: its experts are stored in different ways; expected one way"
                    )));
                }
            }
        }
        if let Some((mut shape, kind)) = first {
            shape.splice(0..0, count);
            let name = path.to_owned();
            self.found.borrow_mut().push(Found { name, shape, kind });
        }
        Ok(())
    }

    fn tensor(&self, name: &str, keeps_type: bool, array: &Array) -> LoadResult<()> {
        self.found.borrow_mut().push(Found {
            name: name.to_owned(),
            shape: dims(array),
            kind: Kind::Other(array.dtype(), keeps_type),
        });
        Ok(())
    }
}

fn scheme_of(packed: &Quantized) -> Scheme {
    Scheme {
        group_size: packed.group_size as usize,
        bits: packed.bits as usize,
        mode: packed.mode,
    }
}

/// Converts and writes what is told.
struct Writing<'a> {
    actions: &'a [Action],
    /// Which of them is next.
    at: Cell<usize>,
    writer: RefCell<ShardWriter<'a>>,
    written: Cell<u64>,
    progress: &'a dyn Fn(u64),
}

impl Writing<'_> {
    /// What is to be done with the next parameter, which is called `name`.
    fn next(&self, name: &str) -> LoadResult<&Action> {
        let at = self.at.replace(self.at.get() + 1);
        match self.actions.get(at).filter(|action| action.name == name) {
            Some(action) => Ok(action),
            None => Err(LoadError::Unsupported(format!(
                "{name} was not there at first; do not change the model while it is converted"
            ))),
        }
    }

    fn put(&self, entry: &Entry, bytes: &[u8]) -> LoadResult<()> {
        self.writer.borrow_mut().write(&entry.name, bytes)?;
        self.written.set(self.written.get() + bytes.len() as u64);
        (self.progress)(self.written.get());
        Ok(())
    }
}

impl Tap for Writing<'_> {
    fn matrix(
        &self,
        path: &str,
        _: Packing,
        _: Option<usize>,
        parts: &mut dyn Iterator<Item = LoadResult<Matrix>>,
    ) -> LoadResult<()> {
        let action = self.next(path)?;
        let Some((weight, others)) = action.entries.split_first() else {
            return Ok(());
        };
        // Scales and biases follow the whole matrix in the file; they are small.
        let mut later = vec![Vec::new(); others.len()];
        for part in parts {
            let made = convert(part?, action)?;
            for (i, array) in made.iter().enumerate() {
                let bytes = array.to_bytes()?;
                match i.checked_sub(1).and_then(|i| later.get_mut(i)) {
                    Some(later) => later.extend(bytes),
                    None => self.put(weight, &bytes)?,
                }
            }
            drop(made);
            mlx::clear_cache()?;
        }
        for (entry, bytes) in others.iter().zip(later) {
            self.put(entry, &bytes)?;
        }
        Ok(())
    }

    fn tensor(&self, name: &str, _: bool, array: &Array) -> LoadResult<()> {
        let action = self.next(name)?;
        let array = cast(array, action.cast)?;
        match action.entries.first() {
            Some(entry) => self.put(entry, &array.to_bytes()?),
            None => Ok(()),
        }
    }
}

fn cast(array: &Array, dtype: Option<Dtype>) -> mlx::Result<Array> {
    match dtype {
        Some(dtype) if array.dtype().is_float() => array.astype(dtype),
        _ => Ok(array.clone()),
    }
}

/// The tensors that a matrix becomes: itself, or packed with its scales and biases.
fn convert(matrix: Matrix, action: &Action) -> LoadResult<Vec<Array>> {
    let dense = match matrix {
        Matrix::Dense(weight) => cast(&weight, action.cast)?,
        Matrix::Quant(packed) => {
            let packed = Quantized {
                scales: cast(&packed.scales, action.cast)?,
                biases: match &packed.biases {
                    Some(biases) => Some(cast(biases, action.cast)?),
                    None => None,
                },
                ..packed
            };
            if !action.unpack {
                return Ok(arrays(packed));
            }
            dequantize(&packed, packed.dtype())?
        }
    };
    Ok(match action.pack {
        None => vec![dense],
        Some(Scheme {
            group_size,
            bits,
            mode,
        }) => arrays(quantize(&dense, mode, group_size as i32, bits as i32)?),
    })
}

fn arrays(packed: Quantized) -> Vec<Array> {
    let parts = [Some(packed.weight), Some(packed.scales), packed.biases];
    parts.into_iter().flatten().collect()
}
