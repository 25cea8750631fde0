//! Whether packed matrices stay packed in memory, or are unpacked as they are loaded.
//!
//! A step of one stream reads every matrix once, so it is the rate at which a device reads them either way
//! that decides; where both are equal, products of many rows do, which a packed matrix is unpacked for.
//! The rates are measured with matrices tall enough to keep a device busy, one for each number of columns.

use std::collections::BTreeMap;

use super::measure::{Entrant, compiles_long, race};
use super::{Effort, PLAN, Shape, Times, UNPACKED, is_open_to_unpacking};
use crate::mlx::{Array, Dtype, Order, Quantized, Result, Way, quantized_matmul_by};

/// Bytes of a packed matrix that is measured with: more than caches hold.
const TALL: usize = 64 << 20;
/// Its rows are a multiple of this.
const STEP: usize = 512;
/// Rows of the second measurement: that many streams.
const STREAMS: usize = 32;
/// Times that differ by less are equal.
const EQUAL: f64 = 0.05;

/// A matrix of a checkpoint, and how many like it there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its shape, and the type that it unpacks to.
    pub shape: Shape,
    /// How many of the checkpoint's matrices have it.
    pub count: usize,
}

/// Seconds that all products of a step take, and what follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residence {
    /// Of one row, with packed matrices.
    pub packed: f64,
    /// Of one row, with unpacked ones.
    pub unpacked: f64,
    /// Of 32 rows, with packed ones.
    pub packed_many: f64,
    /// Of 32 rows, with unpacked ones.
    pub unpacked_many: f64,
}

impl Residence {
    /// Whether unpacking as they are loaded is faster.
    pub fn unpacks(&self) -> bool {
        match self.unpacked / self.packed {
            ratio if ratio < 1.0 - EQUAL => true,
            ratio if ratio > 1.0 + EQUAL => false,
            _ => self.unpacked_many < self.packed_many * (1.0 - EQUAL),
        }
    }
}

/// What a step with all of these matrices takes, packed and unpacked; none without a plan, on a CPU, where
/// our kernels read packed matrices at the memory's rate, and where measuring has no room.
///
/// # Errors
/// What MLX says.
pub fn residence(matrices: &[Stored]) -> Result<Option<Residence>> {
    let settings = PLAN.with_borrow(|plan| {
        let plan = plan.as_ref()?;
        Some((plan.room, plan.settings.effort))
    });
    let Some((room, effort)) = settings.filter(|_| is_open_to_unpacking()) else {
        return Ok(None);
    };
    let mut sum = Residence {
        packed: 0.0,
        unpacked: 0.0,
        packed_many: 0.0,
        unpacked_many: 0.0,
    };
    // Numbers of rows in all, by what is measured once.
    let mut rows: BTreeMap<Shape, f64> = BTreeMap::new();
    for stored in matrices {
        let Some(tall) = tall(stored.shape) else {
            return Ok(None);
        };
        let share = f64::from(stored.shape.out) / f64::from(tall.out);
        *rows.entry(tall).or_default() += share * stored.count as f64;
    }
    for (shape, share) in rows {
        let (Some(one), Some(many)) = (
            known(shape, 1, room, effort)?,
            known(shape, STREAMS, room, effort)?,
        ) else {
            return Ok(None);
        };
        let packed = |times: &Times| {
            let ways = times.iter().filter(|(name, _)| *name != UNPACKED);
            ways.map(|(_, &seconds)| seconds)
                .fold(f64::INFINITY, f64::min)
        };
        let unpacked = |times: &Times| times.get(UNPACKED).copied().unwrap_or(f64::INFINITY);
        sum.packed += share * packed(&one);
        sum.unpacked += share * unpacked(&one);
        sum.packed_many += share * packed(&many);
        sum.unpacked_many += share * unpacked(&many);
    }
    Ok((!matrices.is_empty()).then_some(sum))
}

/// The same, so tall that a device is busy with it.
fn tall(shape: Shape) -> Option<Shape> {
    let row = (shape.inner as usize).checked_mul(shape.bits as usize)? / 8;
    let rows = TALL.checked_div(row)?.div_ceil(STEP).max(1) * STEP;
    Some(Shape {
        out: i32::try_from(rows).ok()?,
        ..shape
    })
}

/// What is known of this product, or measured now; none if there is no room.
fn known(shape: Shape, rows: usize, room: usize, effort: Effort) -> Result<Option<Times>> {
    let key = (shape, rows);
    let there = PLAN.with_borrow_mut(|plan| {
        let plan = plan.as_mut()?;
        plan.decisive.push(key);
        plan.times.get(&key).cloned()
    });
    // It may come from a run that had no reason to unpack it.
    if let Some(times) = there.filter(|times| times.contains_key(UNPACKED)) {
        return Ok(Some(times));
    }
    let (dtype, mode) = (shape.x, shape.mode);
    let bytes = shape.out as usize * shape.inner as usize * dtype.size();
    if bytes > room / 4 {
        return Ok(None);
    }
    let scales = [shape.out, shape.inner / shape.group_size.max(1)];
    let scale = || match mode.has_biases() {
        true => Array::zeros(&scales, dtype),
        false => Array::zeros(&scales, Dtype::Uint8),
    };
    let packed = Quantized {
        weight: Array::zeros(&[shape.out, shape.inner * shape.bits / 32], Dtype::Uint32)?,
        scales: scale()?,
        biases: mode.has_biases().then(scale).transpose()?,
        group_size: shape.group_size,
        bits: shape.bits,
        mode,
        order: Order::Rows,
    };
    let x = Array::full(&[rows as i32, shape.inner], 1.0, dtype)?;
    let dense = Array::zeros(&[shape.out, shape.inner], dtype)?;
    crate::mlx::eval(&[&packed.weight, &packed.scales, &x, &dense])?;
    let turned = dense.swap_last()?;
    let (x, packed, turned) = (&x, &packed, &turned);
    let mut entrants: Vec<Entrant> = vec![(UNPACKED, Box::new(move |_| x.matmul(turned)))];
    for way in [Way::Packed, Way::Unpack] {
        let long = compiles_long(way, rows as i32) && effort != Effort::Everything;
        if way.takes(x, packed)? && !long {
            let one = move |_| quantized_matmul_by(way, x, packed);
            entrants.push((way.name(), Box::new(one)));
        }
    }
    let times = race(&entrants, (room / 4 / bytes.max(1)).max(1))?;
    PLAN.with_borrow_mut(|plan| {
        if let Some(plan) = plan {
            plan.times.insert(key, times.clone());
            plan.changed = true;
        }
    });
    Ok(Some(times))
}
