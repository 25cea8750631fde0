//! The gated delta rule: linear attention with a state that decays and corrects itself.
//!
//! A head's state S `[Dk, Dv]` maps keys to values. A token with decay g and rate β makes it
//! `S ← g·S`, then `S ← S + k (β (v − kᵀS))`, and reads `y = qᵀS` (Yang et al., 2024, "Gated Delta
//! Networks: Improving Mamba2 with Delta Rule").
//!
//! A prompt goes in chunks, whose tokens are computed together (Yang et al., 2024, "Parallelizing
//! Linear Transformers with the Delta Rule over Sequence Length"). With D the decay from token i to
//! token t of a chunk, G that from its start, and A what a token's key finds of earlier writes,
//! `A[t, i] = β[t] D[t, i] k[t]·k[i]` for i < t, the corrections U are `(I + A)⁻¹ β (v − G k S)`,
//! and the chunk's outputs `G q S + (D ∘ q kᵀ) U`. All but S is computed for all chunks at once.
//!
//! Invariants: all is float32, in chunks and token by token; no decay is more than 1, because each
//! is the exponential of a sum of logarithms that are at most 0 and never of a difference of sums,
//! which would lose small decays beside large ones.

use crate::mlx::{Array, Dtype, Result, fused};

/// Tokens that are computed together, at most; a power of two.
const CHUNK: i32 = 64;

/// What the rule reads, for L tokens; H is a multiple of K, and the value heads of a key head are
/// neighbours.
#[derive(Clone, Copy, Debug)]
pub struct GatedDelta<'a> {
    /// Queries `[B, L, K, Dk]`, scaled as the outputs shall be.
    pub q: &'a Array,
    /// Keys `[B, L, K, Dk]`, no longer than 1.
    pub k: &'a Array,
    /// Values `[B, L, H, Dv]`.
    pub v: &'a Array,
    /// The logarithm of each token's decay `[B, L, H]`, at most 0.
    pub log_decay: &'a Array,
    /// How much of what is missing a token writes, `[B, L, H]`, from 0 to 1.
    pub beta: &'a Array,
}

impl GatedDelta<'_> {
    /// The outputs `[B, L, H, Dv]` in the queries' type, and the states behind the first so many tokens,
    /// float32 `[B, K, H / K, Dk, Dv]`, for each of `ends`, which ascend to all of them. Without
    /// `state` it starts at zero.
    pub fn forward(&self, state: Option<&Array>, ends: &[i32]) -> Result<(Array, Vec<Array>)> {
        let (n_k_heads, d_k) = (self.k.dim(2)?, self.k.dim(3)?);
        let (n_heads, d_v) = (self.v.dim(2)?, self.v.dim(3)?);
        let state = match state {
            Some(state) => state.clone(),
            None => {
                let per_key = n_heads / n_k_heads.max(1);
                let shape = [self.q.dim(0)?, n_k_heads, per_key, d_k, d_v];
                Array::zeros(&shape, Dtype::Float32)?
            }
        };
        let (y, states) = match self.q.dim(1)? {
            1 => self.step(&state)?,
            _ => self.chunks(&state, ends)?,
        };
        Ok((y.astype(self.q.dtype())?, states))
    }

    /// One token by the rule as it is.
    fn step(&self, state: &Array) -> Result<(Array, Vec<Array>)> {
        let (n_heads, d_v) = (self.v.dim(2)?, self.v.dim(3)?);
        let lay = Lay::new(self, 1, &[1])?;
        let one = |x: &Array| lay.out(x)?.squeeze(0);
        let (q, k, v) = (one(self.q)?, one(self.k)?, one(self.v)?); // [B, K, R, 1, D]
        let decay = one(&self.log_decay.expand_dims(-1)?)?.exp()?;
        let beta = one(&self.beta.expand_dims(-1)?)?;
        let state = state.multiply(&decay)?;
        let correction = v.subtract(&k.matmul(&state)?)?.multiply(&beta)?;
        let state = state.add(&k.swap_last()?.multiply(&correction)?)?;
        let y = q.matmul(&state)?; // [B, K, R, 1, Dv]
        let y = y.reshape(&[y.dim(0)?, 1, n_heads, d_v])?;
        Ok((y, vec![state]))
    }

    /// Any number of tokens, in chunks.
    fn chunks(&self, state: &Array, ends: &[i32]) -> Result<(Array, Vec<Array>)> {
        let lay = Lay::new(self, CHUNK, ends)?;
        let (q, k, v) = (lay.out(self.q)?, lay.out(self.k)?, lay.out(self.v)?); // [N, B, K, R, C, D]
        let log_decay = lay.out_inert(&self.log_decay.expand_dims(-1)?)?; // [N, B, K, R, C, 1]
        let beta = lay.out_inert(&self.beta.expand_dims(-1)?)?;

        let between = decays(&log_decay)?; // [N, B, K, R, C, C]
        let so_far = log_decay.cumsum(-2, false, true)?.exp()?; // [N, B, K, R, C, 1]
        let last = lay.chunk - 1;
        let whole = so_far.slice_axis(-2, last, lay.chunk)?; // [N, B, K, R, 1, 1]
        let to_end = between.slice_axis(-2, last, lay.chunk)?.swap_last()?;

        let keys = k.swap_last()?;
        let found = k.matmul(&keys)?.multiply(&between)?.multiply(&beta)?;
        let solve = inverse(&found.tril(-1)?, lay.chunk)?.multiply(&beta.swap_last()?)?;
        let written = solve.matmul(&v)?; // [N, B, K, R, C, Dv]
        let known = solve.multiply(&so_far.swap_last()?)?.matmul(&k)?; // [N, B, K, R, C, Dk]
        let scores = q.matmul(&keys)?.multiply(&between)?;
        let queries = q.multiply(&so_far)?;
        let keys = k.multiply(&to_end)?.swap_last()?; // [N, B, K, R, Dk, C]

        let mut state = state.expand_dims(0)?; // [1, B, K, R, Dk, Dv]
        let (mut before, mut corrections, mut states) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..lay.count() {
            let nth = |x: &Array| x.slice_axis(0, n, n + 1);
            let correction = nth(&written)?.subtract(&nth(&known)?.matmul(&state)?)?;
            let added = nth(&keys)?.matmul(&correction)?;
            let [next] = fused(carried, &[&state, &nth(&whole)?, &added])?;
            before.push(std::mem::replace(&mut state, next));
            corrections.push(correction);
            if lay.ends.contains(&(n + 1)) {
                states.push(state.squeeze(0)?);
            }
        }
        let all = |parts: &[Array]| Array::concatenate(&parts.iter().collect::<Vec<_>>(), 0);
        let remembered = queries.matmul(&all(&before)?)?; // [N, B, K, R, C, Dv]
        let y = remembered.add(&scores.matmul(&all(&corrections)?)?)?;
        Ok((lay.back(&y)?, states))
    }
}

/// A state after a decay, and what was added.
fn carried(inputs: &[&Array]) -> Result<[Array; 1]> {
    Ok([inputs[0].multiply(inputs[1])?.add(inputs[2])?])
}

/// How tokens lie in chunks, of which the tokens that states are asked for are the last ones.
struct Lay {
    n_k_heads: i32,
    /// Tokens of a chunk, a power of two.
    chunk: i32,
    /// Numbers of chunks behind which states are asked for, the last of which is all of them.
    ends: Vec<i32>,
    /// Where chunks are not full.
    gaps: Option<Gaps>,
}

/// What leaves places free behind tokens and comes back from there; int32.
struct Gaps {
    /// For each place the token there; the first token in places that are free.
    tokens: Array,
    /// The same, one more than the last in places that are free.
    or_none: Array,
    /// For each token its place.
    places: Array,
}

impl Lay {
    fn new(input: &GatedDelta, longest: i32, ends: &[i32]) -> Result<Self> {
        let len = input.q.dim(1)?;
        let starts = std::iter::once(&0).chain(ends);
        let spans: Vec<_> = starts.zip(ends).map(|(&start, &end)| start..end).collect();
        let most = spans.iter().map(|span| span.len()).max().unwrap_or(0);
        let chunk = longest.min(most.max(1).next_power_of_two() as i32);
        let (mut tokens, mut places, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
        for span in spans {
            let first = tokens.len() as i32;
            places.extend((first..).take(span.len()));
            tokens.extend(span.map(Some));
            tokens.resize(tokens.len().next_multiple_of(chunk as usize), None);
            chunks.push(tokens.len() as i32 / chunk);
        }
        let numbers = |values: Vec<i32>| Array::from_slice(&values, &[values.len() as i32]);
        let token = |free: i32| tokens.iter().map(|token| token.unwrap_or(free)).collect();
        let gaps = match tokens.len() == places.len() {
            true => None,
            false => Some(Gaps {
                tokens: numbers(token(0))?,
                or_none: numbers(token(len))?,
                places: numbers(places)?,
            }),
        };
        Ok(Self {
            n_k_heads: input.k.dim(2)?,
            chunk,
            ends: chunks,
            gaps,
        })
    }

    /// Chunks.
    fn count(&self) -> i32 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// `x [B, L, heads, D]` as float32 `[N, B, K, heads / K, C, D]`. What is in places that are free is of
    /// no account.
    fn out(&self, x: &Array) -> Result<Array> {
        match &self.gaps {
            None => self.split(x),
            Some(gaps) => self.split(&x.take(&gaps.tokens, 1)?),
        }
    }

    /// The same with zeros in places that are free, which decay nothing and write nothing.
    fn out_inert(&self, x: &Array) -> Result<Array> {
        let Some(gaps) = &self.gaps else {
            return self.split(x);
        };
        let zero = Array::zeros(&[x.dim(0)?, 1, x.dim(2)?, x.dim(3)?], x.dtype())?;
        self.split(&Array::concatenate(&[x, &zero], 1)?.take(&gaps.or_none, 1)?)
    }

    fn split(&self, x: &Array) -> Result<Array> {
        x.astype(Dtype::Float32)?
            .unflatten(2, &[self.n_k_heads, -1])? // [B, N * C, K, R, D]
            .unflatten(1, &[self.count(), self.chunk])? // [B, N, C, K, R, D]
            .transpose_axes(&[1, 0, 3, 4, 2, 5])
    }

    /// The way back, without what is in free places.
    fn back(&self, y: &Array) -> Result<Array> {
        let y = y
            .transpose_axes(&[1, 0, 4, 2, 3, 5])? // [B, N, C, K, R, D]
            .flatten(3, 4)?
            .flatten(1, 2)?; // [B, N * C, H, D]
        match &self.gaps {
            None => Ok(y),
            Some(gaps) => y.take(&gaps.places, 1),
        }
    }
}

/// The decay from token i to a later or the same token t, `[.., t, i]`; 0 above the diagonal. From
/// the logarithm of each token's own, `[.., C, 1]`.
fn decays(log_decay: &Array) -> Result<Array> {
    let mut shape = log_decay.shape();
    if let Some(last) = shape.last_mut() {
        *last = log_decay.dim(-2)?;
    }
    log_decay
        .broadcast_to(&shape)?
        .tril(-1)?
        .cumsum(-2, false, true)?
        .exp()?
        .tril(0)
}

/// `(I + A)⁻¹` for `a [.., C, C]`, which is zero on the diagonal and above; C is a power of two.
///
/// Blocks on the diagonal are inverted first, then pairs of them: the inverse of `[P 0; A Q]` has
/// `−Q⁻¹ A P⁻¹` in its corner. The product `(I − A)(I + A²)(I + A⁴)…` needs fewer steps, but powers
/// of A grow like binomials (to 1e17 for equal keys) and cancel, while no part of the inverse here
/// exceeds 1 for keys and rates up to 1.
fn inverse(a: &Array, c: i32) -> Result<Array> {
    let places = || (0..c).flat_map(|t| (0..c).map(move |i| (t, i)));
    let mask = |chosen: &dyn Fn(i32, i32) -> bool| {
        let values: Vec<f32> = places()
            .map(|(t, i)| if chosen(t, i) { 1.0 } else { 0.0 })
            .collect();
        Array::from_slice(&values, &[c, c])
    };
    let mut inverse = mask(&|t, i| t == i)?;
    let mut block = 1;
    while block < c {
        // Row blocks of odd number, each with the block to the left of its diagonal one.
        let corners = mask(&|t, i| t / block % 2 == 1 && i / block == t / block - 1)?;
        let corner = a.multiply(&corners)?;
        let corner = match block {
            1 => corner,
            _ => inverse.matmul(&corner)?.matmul(&inverse)?,
        };
        inverse = inverse.subtract(&corner)?;
        block *= 2;
    }
    Ok(inverse)
}

#[cfg(test)]
#[path = "gated_delta_tests.rs"]
mod tests;
