//! CPU kernels over plain slices: products with packed and dense weights, several threads each.
//!
//! Knows no arrays and imports nothing of the project. What holds for every function here:
//! * A row of the result depends on that row of `x` and on the weights alone: not on how many rows
//!   there are, nor on the number of threads. So a batch gives each sequence what it gets alone.
//! * Sums are in `f32`, whatever the slices hold.
//! * Lengths are the caller's duty. [`Packed::check`] tells it about weights; a slice of the wrong
//!   length is a panic, never a read or write outside.

#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod blocked;
mod input;
mod isa;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod order;
mod panel;
mod pool;
mod product;
mod rope;
mod simple;
mod tile;
mod types;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use input::{Input, Layout, Way};
use product::{Out, Product, Weights};
use simple::{Gate, Norm};

pub use attention::Attention;
pub use isa::Isa;
pub use order::to_blocks;
pub use rope::{Heads, Turn, rope};
pub use types::{Floats, FloatsMut, Mismatch, Order, Packed, Precision, Scales};

static THREADS: AtomicUsize = AtomicUsize::new(0);
static FAST: AtomicU8 = AtomicU8::new(0);

/// How many threads a call uses at most, the calling one among them: what [`set_threads`] said, or
/// as many as the machine runs at once.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            // Asking the system takes files and a tenth of a millisecond.
            static CORES: OnceLock<usize> = OnceLock::new();
            *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
        }
        n => n,
    }
}

/// Sets [`threads`]; 0 is the machine's own number.
pub fn set_threads(n: usize) {
    THREADS.store(n, Ordering::Relaxed);
}

/// How [`packed_matmul`] computes with weights of `bits` bits: as [`set_fast`] said, or exactly.
pub fn precision(bits: u8) -> Precision {
    match bits <= FAST.load(Ordering::Relaxed) {
        true => Precision::Fast,
        false => Precision::Exact,
    }
}

/// Has the whole process compute with weights of up to `bits` bits in [`Precision::Fast`]: 0 for
/// none, 8 for all.
pub fn set_fast(bits: u8) {
    FAST.store(bits, Ordering::Relaxed);
}

/// `out = x · wᵀ` with a packed `w`, computed as [`precision`] says.
///
/// `x` is `[m, w.cols]`, `out` is `[m, w.rows]`, both row after row.
///
/// # Panics
/// If a length disagrees or [`Packed::check`] refuses `w`.
pub fn packed_matmul(x: Floats, m: usize, w: &Packed, out: FloatsMut) {
    packed_matmul_as(precision(w.bits), x, m, w, out);
}

/// [`packed_matmul`] of the same `x` with several matrices: in one go, if they are packed alike.
///
/// # Panics
/// As [`packed_matmul`].
pub fn packed_matmuls<const K: usize>(x: Floats, m: usize, products: [(&Packed, FloatsMut); K]) {
    let Some((first, _)) = products.first() else {
        return;
    };
    let packing = |w: &Packed| (w.bits, w.group_size, w.cols, w.order);
    let (like, precision) = (packing(first), precision(first.bits));
    if products.iter().any(|(w, _)| packing(w) != like) {
        for (w, out) in products {
            packed_matmul(x, m, w, out);
        }
        return;
    }
    packed_alike(precision, x, m, products);
}

/// As [`packed_matmul`], computed as `precision` says.
///
/// # Panics
/// As [`packed_matmul`].
pub fn packed_matmul_as(precision: Precision, x: Floats, m: usize, w: &Packed, out: FloatsMut) {
    packed_alike(precision, x, m, [(w, out)]);
}

/// Products with matrices that are packed alike.
fn packed_alike<const K: usize>(
    precision: Precision,
    x: Floats,
    m: usize,
    products: [(&Packed, FloatsMut); K],
) {
    for (w, out) in &products {
        if let Err(mismatch) = w.check() {
            panic!("packed_matmul: {mismatch}");
        }
        assert_eq!(x.len(), m * w.cols, "packed_matmul: x is not [m, k]");
        assert_eq!(out.len(), m * w.rows, "packed_matmul: out is not [m, n]");
    }
    let Some(&(w, _)) = products.first() else {
        return;
    };
    let layout = Layout {
        m,
        k: w.cols,
        tile: 0,
        group: w.group_size,
        per_byte: panel::per_byte(w.bits),
        precision,
        way: Way::Panels,
        unit: 0,
        room: m,
    };
    let weights = products.each_ref().map(|(w, _)| Weights::Packed(**w));
    let outs = products.map(|(w, out)| (w.rows, Out::from(out)));
    compute(x, layout, weights, outs);
}

/// `out = x · wᵀ`: `x` is `[m, k]`, `w` is `[n, k]`, `out` is `[m, n]`, all row after row.
///
/// # Panics
/// If a length disagrees.
pub fn dense_matmul(x: Floats, m: usize, w: Floats, n: usize, k: usize, out: FloatsMut) {
    assert_eq!(x.len(), m * k, "dense_matmul: x is not [m, k]");
    assert_eq!(w.len(), n * k, "dense_matmul: w is not [n, k]");
    assert_eq!(out.len(), m * n, "dense_matmul: out is not [m, n]");
    let layout = Layout {
        m,
        k,
        tile: 0,
        group: 0,
        per_byte: 1,
        precision: Precision::Exact,
        way: Way::Panels,
        unit: 0,
        room: m,
    };
    compute(x, layout, [Weights::Dense(w)], [(n, Out::from(out))]);
}

/// A cache line of floats.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line {
    _floats: [f32; 16],
}

thread_local! {
    /// Where this thread's last product had its `x`, for the next one.
    static ROOM: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Rows of `x` that are too few for a panel.
const FEW: usize = 4;

/// Products of fewer multiplications are not worth a second thread.
const WORTH: usize = 1 << 17;

/// Parts of a job for each thread: enough to even out, few enough to be read straight on.
const PARTS: usize = 8;

/// Calls `run` for parts of `count` things, on several threads if `work` is worth it.
fn share(count: usize, work: usize, run: &(dyn Fn(std::ops::Range<usize>) + Sync)) {
    let threads = match work / WORTH {
        0 | 1 => 1,
        _ => threads(),
    };
    let parts = match threads {
        1 => count.min(1),
        _ => (work / WORTH).min(PARTS * threads).min(count),
    };
    pool::run(threads, parts, &|part| {
        run(part * count / parts..(part + 1) * count / parts);
    });
}

/// Runs products of the same `x` on the threads. Lengths are checked; if weights are packed, then all are,
/// alike.
fn compute<const K: usize>(
    x: Floats,
    mut layout: Layout,
    weights: [Weights; K],
    outs: [(usize, Out); K],
) {
    let kernels = Isa::current().kernels();
    let (m, k) = (layout.m, layout.k);
    let n = outs
        .iter()
        .fold(0usize, |all, (n, _)| all.saturating_add(*n));
    if m == 0 || n == 0 {
        return;
    }
    (layout.tile, layout.unit) = (kernels.tile, kernels.unit);
    if let (Some(Weights::Packed(w)), Precision::Fast) = (weights.first(), layout.precision) {
        if m <= FEW && w.order == Order::Blocks {
            (layout.way, layout.tile) = (Way::Blocks, 1);
        } else if kernels.unit > 0 {
            (layout.way, layout.tile) = (Way::Unit, 1);
            layout.room = m.next_multiple_of(kernels.unit);
        }
    }
    let [values, others] = layout.sizes().map(|size| size.div_ceil(16));
    let mut room = ROOM.take();
    if room.len() < values + 2 * others {
        room.resize(values + 2 * others, Line { _floats: [0.0; 16] });
    }
    let base = room.as_mut_ptr().cast::<f32>();
    let products: [Product; K] = std::array::from_fn(|i| Product {
        x,
        layout,
        input: Input {
            values: base,
            steps: base.wrapping_add(16 * values),
            totals: base.wrapping_add(16 * (values + others)),
        },
        weights: weights[i],
        n: outs[i].0,
        out: outs[i].1,
    });
    // SAFETY: `Isa::current` is here; lengths are checked; parts are disjoint, and `x` is ready
    // before blocks begin.
    share(m.div_ceil(layout.tile), 16 * m * k, &|tiles| unsafe {
        (kernels.ready)(&products[0], tiles);
    });
    let count = |product: &Product| product.n.div_ceil(kernels.lanes);
    let work = m.saturating_mul(n).saturating_mul(k);
    share(products.iter().map(count).sum(), work, &|blocks| {
        let mut first = 0;
        for product in &products {
            let end = first + count(product);
            let own = blocks.start.clamp(first, end)..blocks.end.clamp(first, end);
            if !own.is_empty() {
                // SAFETY: as above.
                unsafe { (kernels.blocks)(product, own.start - first..own.end - first) };
            }
            first = end;
        }
    });
    ROOM.set(room);
}

/// Attention; `out` is `[heads, queries, value_dim]`. A query that sees no key gives zeros.
///
/// # Panics
/// If a length disagrees, or heads do not share keys evenly.
pub fn attention(attention: &Attention, out: FloatsMut) {
    attention.check(out.len());
    let job = attention::Job {
        attention: *attention,
        out: out.into(),
    };
    let products = attention.heads * attention.queries * attention.keys;
    let work = products.saturating_mul(attention.head_dim + attention.value_dim);
    let kernels = Isa::current().kernels();
    // SAFETY: `Isa::current` is here; lengths are checked; parts are disjoint.
    share(attention.units(), work, &|units| unsafe {
        (kernels.attend)(&job, units);
    });
}

/// Each row of `x [m, width]` over the root of its mean square and `eps`, times `weight [width]`.
///
/// # Panics
/// If a length disagrees.
pub fn rms_norm(x: Floats, width: usize, weight: Option<Floats>, eps: f32, out: FloatsMut) {
    assert_eq!(x.len(), out.len(), "rms_norm: out's length");
    if x.is_empty() {
        return;
    }
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "rms_norm: x is not [m, width]"
    );
    if let Some(weight) = &weight {
        assert_eq!(weight.len(), width, "rms_norm: the weight's length");
    }
    let (rows, work) = (x.len() / width, 4 * x.len());
    let job = Norm {
        x,
        width,
        weight,
        eps,
        out: out.into(),
    };
    let kernels = Isa::current().kernels();
    // SAFETY: `Isa::current` is here; lengths are checked; parts are disjoint.
    share(rows, work, &|rows| unsafe { (kernels.norm)(&job, rows) });
}

/// `out = silu(gate) * up`, number by number.
///
/// # Panics
/// If a length disagrees.
pub fn swiglu(gate: Floats, up: Floats, out: FloatsMut) {
    assert_eq!(gate.len(), up.len(), "swiglu: up's length");
    assert_eq!(gate.len(), out.len(), "swiglu: out's length");
    let (pieces, work) = (gate.len().div_ceil(simple::GATE), 16 * gate.len());
    let job = Gate {
        gate,
        up,
        out: out.into(),
    };
    let kernels = Isa::current().kernels();
    // SAFETY: `Isa::current` is here; lengths are checked; parts are disjoint.
    share(pieces, work, &|pieces| unsafe {
        (kernels.gate)(&job, pieces)
    });
}

/// The rows `ids` of `w`, unpacked, one after the other: an embedding. `out` is `[ids, w.cols]`.
///
/// # Panics
/// If a length disagrees, an id is not below `w.rows`, or [`Packed::check`] refuses `w`.
pub fn packed_rows(ids: &[u32], w: &Packed, out: FloatsMut) {
    if let Err(mismatch) = w.check() {
        panic!("packed_rows: {mismatch}");
    }
    assert_eq!(out.len(), ids.len() * w.cols, "packed_rows: out's length");
    if let Some(id) = ids.iter().find(|id| **id as usize >= w.rows) {
        panic!("packed_rows: id {id} of a matrix with {} rows", w.rows);
    }
    rows(ids, w, out);
}

fn rows(ids: &[u32], w: &Packed, mut out: FloatsMut) {
    let groups = w.groups();
    for (i, id) in ids.iter().enumerate() {
        let row = *id as usize;
        for col in 0..w.cols {
            let at = w.place(row, col / w.group_size, groups);
            let code = w.code(row, col) as f32;
            let value = code.mul_add(w.scales.get(at), w.biases.get(at));
            out.set(i * w.cols + col, value);
        }
    }
}
