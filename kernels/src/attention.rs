//! Attention of few or many queries to the keys and values of a sequence, in `f32`.
//!
//! Queries that share keys go through them together. With many of them keys are turned once, so that
//! a vector holds a feature of neighbouring keys, and eight queries share each vector that is read.

use std::cell::Cell;

use crate::rows::{Heads, LANES, total};
use crate::versions::{Spread, exp, fma, versions};

/// Queries that share what is read.
const TALL: usize = 8;

/// Which keys a query sees.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// All.
    All,
    /// Those up to its own place; the last query stands at the last key.
    Causal,
    /// Those where a byte is not 0.
    Bytes {
        /// From the first byte to the last.
        data: &'a [u8],
        /// How far apart neighbours of B, H, L and S lie.
        strides: [usize; 4],
    },
}

/// `softmax(scale · queries · keysᵀ) · values`, to `out [B, L, H, V]`, for queries `[B, H, L, D]`, keys
/// `[B, K, S, D]` and values `[B, K, S, V]`, where H is a multiple of K. `sinks [H]` are scores without
/// values.
///
/// # Panics
/// If shapes or lengths disagree.
pub fn attention(
    (queries, keys, values): (Heads, Heads, Heads),
    scale: f32,
    seen: Seen,
    sinks: Option<&[f32]>,
    out: &mut [f32],
) {
    let ([b, h, l, d], [_, n_kv_heads, s, _]) = (queries.shape, keys.shape);
    let width = values.shape[3];
    assert_eq!(keys.shape, [b, n_kv_heads, s, d], "attention: keys");
    assert_eq!(values.shape, [b, n_kv_heads, s, width], "attention: values");
    assert!(
        n_kv_heads > 0 && h.is_multiple_of(n_kv_heads),
        "attention: heads"
    );
    assert!(
        sinks.is_none_or(|sinks| sinks.len() == h),
        "attention: sinks"
    );
    assert_eq!(out.len(), b * l * h * width, "attention: out");
    if matches!(seen, Seen::Causal) {
        assert!(s >= l, "attention: fewer keys than queries");
    }
    if out.is_empty() {
        return;
    }
    let group = h / n_kv_heads;
    let many = group * l >= TALL;
    let mut turned = TURNED.take();
    let blocks = s.div_ceil(LANES);
    if many {
        turned.resize(b * n_kv_heads * blocks * d * LANES, 0.0);
        let spread = Spread::new(&mut turned, d * LANES);
        spread.rows(d * LANES, |at, turned| {
            let (of, block) = (at / blocks, at % blocks);
            let (b, k) = (of / n_kv_heads, of % n_kv_heads);
            turned.fill(0.0);
            for lane in 0..LANES.min(s - block * LANES) {
                let key = keys.at(b, k, block * LANES + lane);
                for (place, x) in turned.iter_mut().skip(lane).step_by(LANES).zip(key) {
                    *place = *x;
                }
            }
        });
    }
    // A tile's queries are neighbours in position, then in the heads of a group.
    let tiles = (group * l).div_ceil(TALL);
    let place = Place {
        data: out.as_mut_ptr(),
    };
    let work = TALL * s * (d + width) / 4;
    let task = |tile: usize| {
        let place = &place;
        let (of, tile) = (tile / tiles, tile % tiles);
        let (b, k) = (of / n_kv_heads, of % n_kv_heads);
        let mut job = Job::new(tile * TALL, group * l);
        for (slot, i) in (job.from..job.to).enumerate() {
            let (at, head) = (i / group, k * group + i % group);
            job.limits[slot] = match seen {
                Seen::Causal => s - l + at + 1,
                _ => s,
            };
            job.sinks[slot] = sinks.map_or(f32::NEG_INFINITY, |sinks| sinks[head]);
            job.queries[slot] = queries.at(b, head, at);
            job.places[slot] = Some((at, head));
        }
        let most = job.limits.iter().copied().max().unwrap_or(0);
        let padded = most.next_multiple_of(LANES);
        let mut scores = SCORES.take();
        scores.resize(TALL * padded + TALL * d + TALL * width, 0.0);
        let (scored, rest) = scores.split_at_mut(TALL * padded);
        let (scaled, sums) = rest.split_at_mut(TALL * d);
        for (to, query) in scaled.chunks_exact_mut(d.max(1)).zip(job.queries) {
            to.fill(0.0);
            for (to, x) in to.iter_mut().zip(query) {
                *to = x * scale;
            }
        }
        if many {
            let first = of * blocks * d * LANES;
            let turned = &turned[first..][..padded * d];
            score_turned(scaled, turned, d, padded, scored);
        } else {
            let n = job.to - job.from;
            score_plain(&scaled[..n * d], (&keys, b, k), most, padded, scored);
        }
        for (slot, row) in scored.chunks_exact_mut(padded.max(1)).enumerate() {
            let Some((at, head)) = job.places[slot] else {
                row.fill(0.0);
                continue;
            };
            if let Seen::Bytes { data, strides } = seen {
                let [of_b, of_h, of_l, of_s] = strides;
                let from = b * of_b + head * of_h + at * of_l;
                for (key, score) in row[..s].iter_mut().enumerate() {
                    if data[from + key * of_s] == 0 {
                        *score = f32::NEG_INFINITY;
                    }
                }
            }
            soften(row, job.limits[slot], job.sinks[slot]);
        }
        let weigh = match job.to - job.from {
            ..=2 => weigh_two,
            3..=4 => weigh_four,
            _ => weigh_all,
        };
        weigh(scored, padded, (&values, b, k), most, sums);
        for (sums, found) in sums.chunks_exact(width).zip(job.places) {
            let Some((at, head)) = found else { continue };
            let row = (b * l + at) * h + head;
            // SAFETY: `out` has `b · l · h` rows, and each is of one query alone.
            let to = unsafe { std::slice::from_raw_parts_mut(place.data.add(row * width), width) };
            to.copy_from_slice(sums);
        }
        SCORES.set(scores);
    };
    let all = b * n_kv_heads * tiles;
    crate::versions::share(all, work, &task);
    TURNED.set(turned);
}

thread_local! {
    /// Room for turned keys, of the calling thread.
    static TURNED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// Room for a tile's scores, scaled queries, and sums.
    static SCORES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Where the result lies; its rows are written by one thread each.
struct Place {
    data: *mut f32,
}

// SAFETY: each row is written once, by the thread that has its query.
unsafe impl Sync for Place {}

/// Queries of a tile.
struct Job<'a> {
    from: usize,
    to: usize,
    queries: [&'a [f32]; TALL],
    /// Keys that each sees at most.
    limits: [usize; TALL],
    sinks: [f32; TALL],
    /// Position and head.
    places: [Option<(usize, usize)>; TALL],
}

impl Job<'_> {
    fn new(from: usize, all: usize) -> Self {
        Self {
            from,
            to: (from + TALL).min(all),
            queries: [&[]; TALL],
            limits: [0; TALL],
            sinks: [f32::NEG_INFINITY; TALL],
            places: [None; TALL],
        }
    }
}

versions! {
    /// Scores of [`TALL`] queries `[TALL, D]` with turned keys `[S / LANES, D, LANES]`.
    fn score_turned(queries: &[f32], turned: &[f32], d: usize, padded: usize, scores: &mut [f32]) {
        for (block, keys) in turned.chunks_exact(d * LANES).enumerate() {
            let (keys, _) = keys.as_chunks::<LANES>();
            let mut sums = [[0.0f32; LANES]; TALL];
            for (i, key) in keys.iter().enumerate() {
                for (t, sums) in sums.iter_mut().enumerate() {
                    let x = queries[t * d + i];
                    for (sum, key) in sums.iter_mut().zip(key) {
                        *sum = fma(x, *key, *sum);
                    }
                }
            }
            for (t, sums) in sums.iter().enumerate() {
                scores[t * padded + block * LANES..][..LANES].copy_from_slice(sums);
            }
        }
    }

    /// Scores of few queries with the first `n` keys as they lie.
    fn score_plain(
        queries: &[f32],
        keys: (&Heads, usize, usize),
        n: usize,
        padded: usize,
        scores: &mut [f32],
    ) {
        let (keys, b, k) = keys;
        let d = keys.shape[3];
        for at in 0..n {
            let (key, key_rest) = keys.at(b, k, at).as_chunks::<LANES>();
            for (t, query) in queries.chunks_exact(d.max(1)).enumerate() {
                let (query, query_rest) = query.as_chunks::<LANES>();
                let mut lanes = [0.0; LANES];
                for (q, k) in query.iter().zip(key) {
                    for (lane, (q, k)) in lanes.iter_mut().zip(q.iter().zip(k)) {
                        *lane = fma(*q, *k, *lane);
                    }
                }
                for (lane, (q, k)) in lanes.iter_mut().zip(query_rest.iter().zip(key_rest)) {
                    *lane = fma(*q, *k, *lane);
                }
                scores[t * padded + at] = total(lanes);
            }
        }
    }

    /// Scores of the first `limit` keys as weights that sum to 1 with the sink's, the rest as 0.
    fn soften(row: &mut [f32], limit: usize, sink: f32) {
        let (row, rest) = row.split_at_mut(limit);
        rest.fill(0.0);
        let most = row.iter().fold(sink, |most, x| most.max(*x));
        if most == f32::NEG_INFINITY {
            row.fill(0.0);
            return;
        }
        let mut lanes = [0.0; LANES];
        let (whole, rest) = row.as_chunks_mut::<LANES>();
        for xs in whole {
            for (lane, x) in lanes.iter_mut().zip(xs) {
                *x = exp(*x - most);
                *lane += *x;
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *x = exp(*x - most);
            *lane += *x;
        }
        let scale = 1.0 / (total(lanes) + (sink - most).exp());
        for x in row {
            *x *= scale;
        }
    }

    fn weigh_two(weights: &[f32], padded: usize, values: (&Heads, usize, usize), n: usize, sums: &mut [f32]) {
        weigh_tile::<2>(weights, padded, values, n, sums);
    }

    fn weigh_four(weights: &[f32], padded: usize, values: (&Heads, usize, usize), n: usize, sums: &mut [f32]) {
        weigh_tile::<4>(weights, padded, values, n, sums);
    }

    fn weigh_all(weights: &[f32], padded: usize, values: (&Heads, usize, usize), n: usize, sums: &mut [f32]) {
        weigh_tile::<TALL>(weights, padded, values, n, sums);
    }
}

/// Sums `[T, V]` of the first `n` values by weights `[T, padded]`.
#[inline(always)]
fn weigh_tile<const T: usize>(
    weights: &[f32],
    padded: usize,
    (values, b, k): (&Heads, usize, usize),
    n: usize,
    sums: &mut [f32],
) {
    let width = values.shape[3];
    let whole = width / LANES * LANES;
    for from in (0..whole).step_by(LANES) {
        let mut lanes = [[0.0f32; LANES]; T];
        for at in 0..n {
            let value: &[f32] = &values.at(b, k, at)[from..][..LANES];
            for (t, lanes) in lanes.iter_mut().enumerate() {
                let weight = weights[t * padded + at];
                for (lane, value) in lanes.iter_mut().zip(value) {
                    *lane = fma(weight, *value, *lane);
                }
            }
        }
        for (t, lanes) in lanes.iter().enumerate() {
            sums[t * width + from..][..LANES].copy_from_slice(lanes);
        }
    }
    for i in whole..width {
        for t in 0..T {
            let mut sum = 0.0;
            for at in 0..n {
                sum = fma(weights[t * padded + at], values.at(b, k, at)[i], sum);
            }
            sums[t * width + i] = sum;
        }
    }
}
