//! Timing ways of one product against each other.

use std::time::Instant;

use super::{Effort, Times, UNPACKED};
use crate::mlx::{Array, Quantized, Result, Way, dequantize, eval, on_cuda, quantized_matmul_by};

/// Measurements of each way, in turn; the one in the middle counts.
const ROUNDS: usize = 5;
/// Seconds that a measurement is to take, so that starting and ending it matter little.
const LONG_ENOUGH: f64 = 3e-3;
/// Products that are asked for at once, at most.
const AT_ONCE: usize = 16;
/// A way that first takes so many times as long as another is not measured further.
const HOPELESS: f64 = 8.0;
/// Rows from which MLX on CUDA compiles a kernel for a packed matrix, for half a minute.
const COMPILED_FROM: i32 = 8;

/// A way of computing something: its name, and what it gives for the matrix of this number.
pub(super) type Entrant<'a> = (&'static str, Box<dyn Fn(usize) -> Result<Array> + 'a>);

/// Whether trying this way means waiting for a compiler.
pub(super) fn compiles_long(way: Way, rows: i32) -> bool {
    on_cuda() && way == Way::Packed && rows >= COMPILED_FROM
}

/// Seconds of `x` times each of `matrices`, all of one shape, by the ways that come into question beside
/// the `usual` one; nothing where none does. Takes about `room` bytes at most.
pub(super) fn product(
    x: &Array,
    matrices: &[Quantized],
    usual: Way,
    room: usize,
    effort: Effort,
) -> Result<Times> {
    let Some(first) = matrices.first() else {
        return Ok(Times::new());
    };
    let (out, rows) = (first.scales.dim(0)?, x.dim(0)?);
    let wide = x.dtype().size();
    let unpacked = x.dim(-1)? as usize * out as usize * wide;
    let answer = rows as usize * out as usize * wide;
    let everything = effort == Effort::Everything;
    let mut dense = Vec::new();
    if everything && unpacked.saturating_mul(matrices.len()) <= room / 2 {
        for w in matrices {
            let whole = dequantize(w, x.dtype())?;
            whole.eval()?;
            dense.push(whole.swap_last()?);
        }
    }
    let mut entrants: Vec<Entrant> = Vec::new();
    for way in Way::ALL {
        let likely = way == usual || (usual != Way::Kernel && !compiles_long(way, rows));
        let fits = way != Way::Unpack || way == usual || unpacked <= room / 4;
        if matrices.iter().all(|w| matches!(way.takes(x, w), Ok(true)))
            && (likely || everything)
            && fits
        {
            let one = move |i: usize| match matrices.get(i % matrices.len()) {
                Some(w) => quantized_matmul_by(way, x, w),
                None => Ok(x.clone()),
            };
            entrants.push((way.name(), Box::new(one)));
        }
    }
    if !dense.is_empty() {
        let dense = &dense;
        let one = move |i: usize| match dense.get(i % dense.len()) {
            Some(w) => x.matmul(w),
            None => Ok(x.clone()),
        };
        entrants.push((UNPACKED, Box::new(one)));
    }
    match entrants.len() {
        0 | 1 => Ok(Times::new()),
        _ => race(&entrants, (room / 4 / (answer + unpacked).max(1)).max(1)),
    }
}

/// Seconds of one product by each entrant, all in turn, at most so many products at once.
pub(super) fn race(entrants: &[Entrant], at_once: usize) -> Result<Times> {
    let timed = |entrant: &Entrant, n: usize| -> Result<f64> {
        let start = Instant::now();
        let made = (0..n).map(&entrant.1).collect::<Result<Vec<_>>>()?;
        eval(&made.iter().collect::<Vec<_>>())?;
        Ok(start.elapsed().as_secs_f64() / n as f64)
    };
    let mut first = Vec::new();
    for entrant in entrants {
        // Compiles, and brings in what the device does not have yet.
        timed(entrant, 1)?;
        first.push(timed(entrant, 1)?.min(timed(entrant, 1)?));
    }
    let best = first.iter().copied().fold(f64::INFINITY, f64::min);
    let mut seconds: Vec<Vec<f64>> = first.iter().map(|&first| vec![first]).collect();
    for round in 0..ROUNDS {
        for ((entrant, &first), seconds) in entrants.iter().zip(&first).zip(&mut seconds) {
            if first > best * HOPELESS {
                continue;
            }
            if round == 0 {
                seconds.clear();
            }
            let n = (LONG_ENOUGH / first.max(1e-9)) as usize;
            seconds.push(timed(entrant, n.clamp(1, AT_ONCE.min(at_once)))?);
        }
    }
    let middle = |mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied()
    };
    let named = entrants.iter().zip(seconds);
    Ok(named
        .filter_map(|((name, _), seconds)| Some(((*name).to_owned(), middle(seconds)?)))
        .collect())
}
