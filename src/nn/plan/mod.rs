//! The plan: which of the ways that compute the same product is taken, for each shape of a packed matrix
//! and each number of rows, as measured on the device itself.
//!
//! A thread that has [begun](begin) a plan notes which products come up while it warms a model up,
//! [measures](measure) them, and takes from then on what was fastest. What was measured is kept in a file
//! for each device and version of MLX, so that a device is measured once and the same way is taken after a
//! restart: the ways differ in rounding. Without a plan, and for what was never measured, the
//! [usual way](Way::usual) is taken.
//!
//! Invariants: a way takes another's place only if it is clearly faster; after [`close`] nothing is
//! measured and no way changes. Numbers of rows are taken together up to the next power of two.

mod measure;
mod residence;
mod store;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

pub use residence::{Residence, Stored, residence};
pub use store::file_for;

use crate::mlx::{
    Array, Dtype, QuantMode, Quantized, Result, Way, current_device, quantized_matmul_by,
};

/// The column of a matrix that was unpacked when it was loaded.
pub const UNPACKED: &str = "unpacked";
/// Another way has to take less than this share of the usual one's time.
const CLEARLY: f64 = 0.9;
/// Rows from which more make no difference to which way is fastest.
const MANY: usize = 4096;
/// Matrices of a shape that are measured in turn, so that none is in a cache.
const IN_TURN: usize = 8;

/// How much is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// Nothing, and nothing that was is used.
    #[default]
    Rule,
    /// What is not known yet and takes moments.
    Missing,
    /// Everything anew, also ways that nobody would take, and those whose kernels take minutes to compile.
    Everything,
}

/// How a thread plans.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// How much is measured.
    pub effort: Effort,
    /// The file of what was measured; none to keep nothing.
    pub file: Option<PathBuf>,
}

/// A packed matrix `[out, in]` and the type of what it is multiplied with, as far as speed is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// Rows of the matrix.
    pub out: i32,
    /// Columns, unpacked.
    pub inner: i32,
    /// How it is packed.
    pub mode: QuantMode,
    /// Bits of a weight.
    pub bits: i32,
    /// Weights that share a scale.
    pub group_size: i32,
    /// The type of the input.
    pub x: Dtype,
}

impl Shape {
    /// That of an `[.., in]` of `x`'s type times the transpose of `w [out, in]`.
    fn of(x: &Array, w: &Quantized) -> Result<Self> {
        Ok(Self {
            out: w.weight.dim(0)?,
            inner: w.scales.dim(-1)? * w.group_size,
            mode: w.mode,
            bits: w.bits,
            group_size: w.group_size,
            x: x.dtype(),
        })
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape {
            out,
            inner,
            mode,
            bits,
            group_size,
            x,
        } = self;
        write!(
            f,
            "{out} x {inner}, {mode} {bits} bits in groups of {group_size}, {x}"
        )
    }
}

/// Seconds of a product by the ways' names.
pub type Times = BTreeMap<String, f64>;

/// What was measured of a product, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The product.
    pub shape: Shape,
    /// Rows it was measured with; it stands for less than twice as many.
    pub rows: usize,
    /// The way that is taken, if this run came across the product.
    pub way: Option<Way>,
    /// What each way took.
    pub times: Times,
}

/// A product that came up, and some of the matrices it came up with.
struct Wanted {
    shape: Shape,
    rows: usize,
    matrices: Vec<Quantized>,
}

struct Plan {
    settings: Settings,
    /// Bytes that measuring may take.
    room: usize,
    times: BTreeMap<(Shape, usize), Times>,
    /// The products that decided how weights are kept.
    decisive: Vec<(Shape, usize)>,
    /// The ways taken so far.
    taken: HashMap<(Shape, usize), Way>,
    /// Whether products that come up are noted.
    open: bool,
    wanted: Vec<Wanted>,
    /// Whether there is something that the file lacks.
    changed: bool,
}

thread_local! {
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// The number of rows that `rows` are taken together with.
fn bucket(rows: usize) -> usize {
    match rows {
        0 => 1,
        MANY.. => MANY,
        _ => 1 << rows.ilog2(),
    }
}

/// The fastest way, if it is clearly faster than the `usual` one.
fn choose(times: &Times, usual: Way) -> Way {
    // Ours compute the few rows of a step and the many of a prompt to the same bits; with any other way
    // beside them an answer would depend on what it is computed with.
    if usual == Way::Kernel {
        return usual;
    }
    let Some(&known) = times.get(usual.name()) else {
        return usual;
    };
    let timed = Way::ALL
        .into_iter()
        .filter_map(|way| Some((way, *times.get(way.name())?)));
    let fastest = timed.min_by(|(_, a), (_, b)| a.total_cmp(b));
    match fastest {
        Some((way, seconds)) if seconds < known * CLEARLY => way,
        _ => usual,
    }
}

impl Plan {
    /// The way planned for this product; none where nothing is known of it.
    fn way(&mut self, x: &Array, w: &Quantized) -> Result<Option<Way>> {
        let shape = Shape::of(x, w)?;
        let rows = bucket(x.size() / x.dim(-1)?.max(1) as usize);
        if let Some(way) = self.taken.get(&(shape, rows)) {
            return Ok(Some(*way));
        }
        if let Some(times) = self.times.get(&(shape, rows)) {
            let way = choose(times, Way::usual(x, w)?);
            // What the file says may be of another build.
            let way = if way.takes(x, w)? {
                way
            } else {
                Way::usual(x, w)?
            };
            self.taken.insert((shape, rows), way);
            return Ok(Some(way));
        }
        if self.open {
            self.want(shape, rows, w);
        }
        Ok(None)
    }

    fn want(&mut self, shape: Shape, rows: usize, w: &Quantized) {
        let same = |wanted: &&mut Wanted| (wanted.shape, wanted.rows) == (shape, rows);
        match self.wanted.iter_mut().find(same) {
            Some(wanted) if wanted.matrices.len() >= IN_TURN => {}
            Some(wanted) => wanted.matrices.push(w.clone()),
            None => self.wanted.push(Wanted {
                shape,
                rows,
                matrices: vec![w.clone()],
            }),
        }
    }
}

/// Starts planning on this thread, with what the file has. Measuring may take so many bytes. An effort of
/// [`Effort::Rule`] does without a plan.
pub fn begin(settings: Settings, room: usize) {
    if settings.effort == Effort::Rule {
        return PLAN.set(None);
    }
    let known = match (settings.effort, &settings.file) {
        (Effort::Missing, Some(file)) => store::read(file),
        _ => BTreeMap::new(),
    };
    PLAN.set(Some(Plan {
        settings,
        room,
        times: known,
        decisive: Vec::new(),
        taken: HashMap::new(),
        open: true,
        wanted: Vec::new(),
        changed: false,
    }));
}

/// `x · wᵀ`, as planned.
#[track_caller]
pub(super) fn times(x: &Array, w: &Quantized) -> Result<Array> {
    let planned = match w.weight.ndim() {
        2 => PLAN.with_borrow_mut(|plan| plan.as_mut().map(|plan| plan.way(x, w)).transpose())?,
        _ => None,
    };
    let way = match planned.flatten() {
        Some(way) => way,
        None => Way::usual(x, w)?,
    };
    quantized_matmul_by(way, x, w)
}

/// Notes products that are part of an operation of our kernels, with as many rows as `x`, for [`lines`].
pub(super) fn note<'a>(x: &Array, weights: impl IntoIterator<Item = &'a Quantized>) -> Result<()> {
    PLAN.with_borrow_mut(|plan| {
        let Some(plan) = plan.as_mut().filter(|plan| plan.open) else {
            return Ok(());
        };
        weights
            .into_iter()
            .try_for_each(|w| plan.way(x, w).map(drop))
    })
}

/// Measures the products that have come up since the last time; tells how many those were.
///
/// # Errors
/// What MLX says. What was measured before it counts.
pub fn measure() -> Result<usize> {
    let Some((wanted, room, effort)) = PLAN.with_borrow_mut(|plan| {
        let plan = plan.as_mut()?;
        let wanted = std::mem::take(&mut plan.wanted);
        Some((wanted, plan.room, plan.settings.effort))
    }) else {
        return Ok(0);
    };
    for product in &wanted {
        let shape = [product.rows as i32, product.shape.inner];
        let x = Array::full(&shape, 1.0, product.shape.x)?;
        let usual = match product.matrices.first() {
            Some(w) => Way::usual(&x, w)?,
            None => continue,
        };
        let times = measure::product(&x, &product.matrices, usual, room, effort)?;
        let key = (product.shape, product.rows);
        PLAN.with_borrow_mut(|plan| {
            if let Some(plan) = plan {
                plan.taken.insert(key, choose(&times, usual));
                if !times.is_empty() {
                    plan.times.insert(key, times);
                    plan.changed = true;
                }
            }
        });
    }
    Ok(wanted.len())
}

/// Ends measuring: from here on the ways stay. Writes the file if there is something new.
pub fn close() {
    PLAN.with_borrow_mut(|plan| {
        let Some(plan) = plan else { return };
        plan.open = false;
        plan.wanted = Vec::new();
        if !std::mem::take(&mut plan.changed) {
            return;
        }
        if let Some(file) = &plan.settings.file
            && let Err(error) = store::add(file, &plan.times)
        {
            tracing::warn!(
                "what was measured of the device cannot be kept in {}, and is measured again next time: {error}",
                file.display()
            );
        }
    });
}

/// What is known of the products that this thread came across, and of those that decided how weights are
/// kept.
pub fn lines() -> Vec<Line> {
    PLAN.with_borrow(|plan| {
        let Some(plan) = plan else { return Vec::new() };
        let mut keys: Vec<(Shape, usize)> =
            plan.taken.keys().chain(&plan.decisive).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        let line = |key: (Shape, usize)| Line {
            shape: key.0,
            rows: key.1,
            way: plan.taken.get(&key).copied(),
            times: plan.times.get(&key).cloned().unwrap_or_default(),
        };
        keys.into_iter().map(line).collect()
    })
}

/// The file of this thread's plan.
pub fn file() -> Option<PathBuf> {
    PLAN.with_borrow(|plan| plan.as_ref()?.settings.file.clone())
}

/// Whether this thread's device is one where how weights are kept is worth measuring: on a CPU our kernels
/// read packed matrices as fast as memory gives them.
fn is_open_to_unpacking() -> bool {
    current_device() == Some(crate::mlx::Device::Gpu)
}
