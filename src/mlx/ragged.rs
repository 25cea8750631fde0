//! Keys and values of many sequences in one store, each in a stretch of its own, and the attention
//! of one query token of each.
//!
//! Sequences of different lengths would need a mask in MLX's fused attention, and on CUDA a mask
//! turns it off. There a kernel of our own takes each row's stretch as it is, and stores the row's
//! newest key and value on the way; elsewhere rows attend one by one.
//!
//! Invariant: on CUDA the store's arrays are changed in place, which MLX does not know of. So nothing
//! outside this file gets a handle to them, what is read from them is copied and started at once,
//! and a [`Ragged`] is used before its store's next change.

use std::ffi::CStr;

use super::kernel::{Constant, CudaKernel, Launch, Views, on_cuda};
use super::{Array, Dtype, Error, Result, async_eval};

/// Threads of a block.
const THREADS: i32 = 256;
/// Blocks that keep a large GPU busy; fewer are split along the entries.
const BUSY: usize = 528;
/// Entries that are worth a block of their own.
const PART: usize = 256;
/// So few rows of so few entries take the time of one block: its heads are shared out to as many blocks.
const FEW: i32 = 2;
const SHORT: usize = 512;
/// Bytes of a block's shared memory that its heads may take.
const SHARED: i32 = 40 << 10;

/// A kernel's source, which C wants with a NUL behind it.
macro_rules! source {
    ($file:literal) => {
        match CStr::from_bytes_with_nul(concat!(include_str!($file), "\0").as_bytes()) {
            Ok(source) => source,
            Err(_) => panic!("a kernel's source has a NUL in it"),
        }
    };
}

const WRITE: &CStr = source!("kernels/ragged_write.cu");
const ATTENTION: &CStr = source!("kernels/ragged_attention.cu");
const MERGE: &CStr = source!("kernels/ragged_merge.cu");

struct Kernels {
    write: CudaKernel,
    attention: CudaKernel,
    merge: CudaKernel,
}

thread_local! {
    static KERNELS: Kernels = Kernels {
        write: CudaKernel::new(
            (c"pensieve_ragged_write", "ragged_write"),
            &[c"new_keys", c"new_values", c"keys", c"values", c"span"],
            &[c"done"],
            WRITE,
            Views::Copied,
        ),
        attention: CudaKernel::new(
            (c"pensieve_ragged_attention", "ragged_attention"),
            &[
                c"queries", c"new_keys", c"new_values", c"keys", c"values", c"spans", c"sinks",
            ],
            &[c"attended", c"stats"],
            ATTENTION,
            Views::AsTheyAre,
        ),
        merge: CudaKernel::new(
            (c"pensieve_ragged_merge", "ragged_merge"),
            &[c"parts", c"stats", c"sinks"],
            &[c"attended"],
            MERGE,
            Views::Copied,
        ),
    };
}

/// Keys `[places, K, D]` and values `[places, K, V]`.
#[derive(Debug)]
pub struct KvStore {
    keys: Array,
    /// None where values are the first features of the keys.
    values: Option<Array>,
    sizes: Sizes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Sizes {
    n_kv_heads: i32,
    key: i32,
    value: i32,
    dtype: Dtype,
}

/// What a step's queries see of a store: a stretch for each row, its newest entry included.
#[derive(Clone, Debug)]
pub struct Ragged {
    keys: Array,
    values: Option<Array>,
    newest: (Array, Array),
    /// int32 `[B, 2]`: first place and length.
    spans: Array,
    /// The same on the host.
    stretches: Vec<(usize, usize)>,
    sizes: Sizes,
}

impl KvStore {
    /// Room for `places` entries like `k [1, K, L, D]` and `v [1, K, L, V]`; values that are the
    /// first features of the keys (`within`) take no room.
    pub fn like(k: &Array, v: &Array, within: bool, places: usize) -> Result<Self> {
        let sizes = Sizes {
            n_kv_heads: k.dim(1)?,
            key: k.dim(3)?,
            value: v.dim(3)?,
            dtype: k.dtype(),
        };
        Self::with_room(sizes, within, places)
    }

    fn with_room(sizes: Sizes, within: bool, places: usize) -> Result<Self> {
        let room = |width| {
            let room = Array::zeros(&[places as i32, sizes.n_kv_heads, width], sizes.dtype)?;
            async_eval(&[&room])?;
            Ok(room)
        };
        Ok(Self {
            keys: room(sizes.key)?,
            values: (!within).then(|| room(sizes.value)).transpose()?,
            sizes,
        })
    }

    /// Whether the kernel takes keys `k [.., D]` and values `v [.., V]`.
    pub fn takes(k: &Array, v: &Array) -> Result<bool> {
        let pack = 16 / k.dtype().size().max(1) as i32;
        let fits = |width: i32| width % pack == 0 && width / pack <= 128;
        Ok(k.dtype().is_float()
            && k.dtype() != Dtype::Float64
            && k.dtype() == v.dtype()
            && fits(k.dim(-1)?)
            && fits(v.dim(-1)?))
    }

    /// Entries that it has room for.
    pub fn places(&self) -> Result<usize> {
        Ok(self.keys.dim(0)? as usize)
    }

    /// Bytes it takes.
    pub fn nbytes(&self) -> usize {
        self.keys.nbytes() + self.values.as_ref().map_or(0, Array::nbytes)
    }

    /// Makes room for `places` entries, which must be no fewer than before.
    pub fn grow(&mut self, places: usize) -> Result<()> {
        let larger = Self::with_room(self.sizes, self.values.is_none(), places)?;
        let copy = |room: Array, old: &Array| {
            let copied = room.slice_update(old, &[0, 0, 0], &old.shape())?;
            async_eval(&[&copied])?;
            Ok::<_, Error>(copied)
        };
        self.keys = copy(larger.keys, &self.keys)?;
        self.values = match (larger.values, &self.values) {
            (Some(room), Some(old)) => Some(copy(room, old)?),
            _ => None,
        };
        Ok(())
    }

    /// Stores `k [1, K, L, D]` and `v [1, K, L, V]` from place `at` on.
    pub fn write(&mut self, k: &Array, v: &Array, at: usize) -> Result<()> {
        if on_cuda() {
            return self.write_in_place(k, v, at);
        }
        let put = |array: &Array, entries: &Array| {
            let entries = entries.squeeze(0)?.swapaxes(0, 1)?; // [L, K, D]
            let mut stop = array.shape();
            stop[0] = at as i32 + entries.dim(0)?;
            array
                .clone()
                .slice_update(&entries, &[at as i32, 0, 0], &stop)
        };
        self.keys = put(&self.keys, k)?;
        self.values = self
            .values
            .as_ref()
            .map(|values| put(values, v))
            .transpose()?;
        Ok(())
    }

    fn write_in_place(&mut self, k: &Array, v: &Array, at: usize) -> Result<()> {
        let Sizes {
            n_kv_heads,
            key,
            value,
            dtype,
        } = self.sizes;
        let length = k.dim(2)?;
        let span = Array::from_slice(&[at as i32, length], &[2])?;
        let elements = length as usize * n_kv_heads as usize * key as usize;
        let values = self.values.as_ref().unwrap_or(&self.keys);
        let launch = Launch {
            outputs: &[(&[1], Dtype::Int32)],
            blocks: [elements.div_ceil(1024).clamp(1, 1024) as i32, 1, 1],
            threads: 256,
            constants: &[
                (c"T", Constant::Type(dtype)),
                (c"N_KV", Constant::Int(n_kv_heads)),
                (c"DK", Constant::Int(key)),
                (c"DV", Constant::Int(value)),
                (c"WITHIN", Constant::Bool(self.values.is_none())),
            ],
        };
        let (k, v) = (k.astype(dtype)?, v.astype(dtype)?);
        let inputs = [&k, &v, &self.keys, values, &span];
        let done = KERNELS.with(|kernels| kernels.write.call(&inputs, &launch))?;
        // Started now: what comes later on this stream finds it done.
        async_eval(&done.iter().collect::<Vec<_>>())
    }

    /// The `n` entries from place `at` on, a copy: `[1, K, n, D]` and `[1, K, n, V]`.
    pub fn read(&self, at: usize, n: usize) -> Result<(Array, Array)> {
        let copy = |array: &Array| entries(array, at, n)?.copied();
        let k = copy(&self.keys)?;
        let v = match &self.values {
            Some(values) => copy(values)?,
            None => k.slice_axis(-1, 0, self.sizes.value)?,
        };
        // Started before a later step can change what is read.
        async_eval(&[&k, &v])?;
        Ok((k, v))
    }

    /// Adds one entry a row, `k [B, K, 1, D]` and `v [B, K, 1, V]`, at the end of each of
    /// `stretches` (first place and length, that entry included), which `spans` (int32 `[B, 2]`)
    /// repeats.
    pub fn append(
        &mut self,
        k: &Array,
        v: &Array,
        stretches: Vec<(usize, usize)>,
        spans: Array,
    ) -> Result<Ragged> {
        let dtype = self.sizes.dtype;
        let (k, v) = (k.astype(dtype)?, v.astype(dtype)?);
        if !on_cuda() {
            let places = stretches.iter().map(|(first, n)| (first + n - 1) as i32);
            let places: Vec<i32> = places.collect();
            let places = Array::from_slice(&places, &[places.len() as i32])?;
            let put = |array: &Array, entries: &Array| {
                let entries = entries.swapaxes(1, 2)?; // [B, 1, K, D]
                array.clone().scatter(&places, &entries, 0)
            };
            self.keys = put(&self.keys, &k)?;
            self.values = self
                .values
                .as_ref()
                .map(|values| put(values, &v))
                .transpose()?;
        }
        Ok(Ragged {
            keys: self.keys.clone(),
            values: self.values.clone(),
            newest: (k, v),
            spans,
            stretches,
            sizes: self.sizes,
        })
    }
}

/// The `n` entries from place `at` on, `[1, K, n, D]`.
fn entries(array: &Array, at: usize, n: usize) -> Result<Array> {
    let stretch = array.slice_axis(0, at as i32, (at + n) as i32)?;
    stretch.swapaxes(0, 1)?.expand_dims(0)
}

impl Ragged {
    /// Rows.
    pub fn len(&self) -> usize {
        self.stretches.len()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// What row `i` sees, `[1, K, S, D]` and `[1, K, S, V]`.
    ///
    /// # Errors
    /// On CUDA, where the newest entry may not be stored yet.
    pub fn row(&self, i: usize) -> Result<(Array, Array)> {
        let stretch = self.stretches.get(i).filter(|_| !on_cuda());
        let Some(&(first, n)) = stretch else {
            let message = format!("row {i} cannot be seen by itself");
            return Err(Error::new("ragged", &[&self.keys], message));
        };
        let k = entries(&self.keys, first, n)?;
        let v = match &self.values {
            Some(values) => entries(values, first, n)?,
            None => k.slice_axis(-1, 0, self.sizes.value)?,
        };
        Ok((k, v))
    }

    /// Attention of `queries [B, H, 1, D]`, where H is a multiple of K: `[B, H, 1, V]`. Scores are
    /// multiplied by `scale`, capped at `cap` and joined by `sinks [H]`. Needs CUDA.
    #[track_caller]
    pub fn attend(
        &self,
        queries: &Array,
        scale: f32,
        cap: Option<f32>,
        sinks: Option<&Array>,
    ) -> Result<Array> {
        let Sizes {
            n_kv_heads,
            key,
            value,
            dtype,
        } = self.sizes;
        let (b, n_heads, out) = (queries.dim(0)?, queries.dim(1)?, queries.dtype());
        let grouped = n_heads / n_kv_heads.max(1);
        if b as usize != self.len() || grouped * n_kv_heads != n_heads {
            let message = format!("{} rows of {n_kv_heads} key heads", self.len());
            return Err(Error::new("ragged_attention", &[queries], message));
        }
        let queries = queries.astype(dtype)?;
        // Without sinks anything may stand in their place; an array from the host would be read from
        // there by each launch.
        let weights = match sinks {
            Some(sinks) => sinks.astype(Dtype::Float32)?,
            None => self.spans.clone(),
        };
        let longest = self.stretches.iter().map(|&(_, n)| n).max().unwrap_or(1);
        let (heads, splits) = match b <= FEW && longest <= SHORT {
            true => (1, 1),
            false => {
                let heads = self.heads_of_a_block(grouped);
                let blocks = b as usize * (n_heads / heads) as usize;
                let splits = BUSY.div_ceil(blocks).min(longest.div_ceil(PART));
                (heads, splits.clamp(1, 64) as i32)
            }
        };
        let split = splits > 1;
        let partial = if split { Dtype::Float32 } else { out };
        let values = self.values.as_ref().unwrap_or(&self.keys);
        let (k, v) = &self.newest;
        let launch = Launch {
            outputs: &[
                (&[b, n_heads, splits, value], partial),
                (&[b, n_heads, splits, 2], Dtype::Float32),
            ],
            blocks: [splits, n_heads / heads, b],
            threads: THREADS,
            constants: &[
                (c"T", Constant::Type(dtype)),
                (c"O", Constant::Type(partial)),
                (c"N_HEADS", Constant::Int(n_heads)),
                (c"N_KV", Constant::Int(n_kv_heads)),
                (c"HEADS", Constant::Int(heads)),
                (c"DK", Constant::Int(key)),
                (c"DV", Constant::Int(value)),
                (c"THREADS", Constant::Int(THREADS)),
                (c"SCALE", Constant::Int(scale.to_bits() as i32)),
                (c"CAP", Constant::Int(cap.unwrap_or(0.0).to_bits() as i32)),
                (c"WITHIN", Constant::Bool(self.values.is_none())),
                (c"SINKS", Constant::Bool(sinks.is_some())),
                (c"SPLIT", Constant::Bool(split)),
            ],
        };
        let inputs = [&queries, k, v, &self.keys, values, &self.spans, &weights];
        let parts = KERNELS.with(|kernels| kernels.attention.call(&inputs, &launch))?;
        let [attended, stats] = &parts[..] else {
            let message = "the kernel returned too few arrays";
            return Err(Error::new("ragged_attention", &[&queries], message));
        };
        if !split {
            return Ok(attended.clone());
        }
        let launch = Launch {
            outputs: &[(&[b, n_heads, 1, value], out)],
            blocks: [b * n_heads, 1, 1],
            threads: THREADS,
            constants: &[
                (c"O", Constant::Type(out)),
                (c"N_HEADS", Constant::Int(n_heads)),
                (c"DV", Constant::Int(value)),
                (c"THREADS", Constant::Int(THREADS)),
                (c"SINKS", Constant::Bool(sinks.is_some())),
            ],
        };
        let inputs = [attended, stats, &weights];
        let merged = KERNELS.with(|kernels| kernels.merge.call(&inputs, &launch))?;
        let merged = merged.into_iter().next();
        merged.ok_or_else(|| {
            let message = "the kernel returned nothing";
            Error::new("ragged_attention", &[&queries], message)
        })
    }

    /// How many of the `grouped` query heads of a key head a block serves: as many as its threads
    /// have registers for, and its warps' results room.
    fn heads_of_a_block(&self, grouped: i32) -> i32 {
        let pack = 16 / self.sizes.dtype.size().max(1) as i32;
        let widest = self.sizes.key.max(self.sizes.value) / pack;
        let lanes = [4, 8, 16]
            .into_iter()
            .find(|&lanes| widest <= lanes)
            .unwrap_or(32);
        let each = |width: i32| (width / pack + lanes - 1) / lanes * pack;
        let a_head = each(self.sizes.key) + each(self.sizes.value);
        let room = SHARED / (THREADS / 32 * self.sizes.value * 4).max(1);
        let most = (128 / a_head).min(room).clamp(1, 8);
        (1..=most)
            .rev()
            .find(|heads| grouped % heads == 0)
            .unwrap_or(1)
    }
}
