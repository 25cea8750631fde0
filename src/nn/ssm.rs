//! State-space layers as in Mamba 2 (Dao and Gu, "Transformers are SSMs", 2024).
//!
//! Each head carries a state `S [P, N]` from token to token: `S = exp(dt · a) · S + dt · x bᵀ`, and
//! answers `y = S c + d · x`. Several tokens at once are attention with a decay in place of a softmax
//! (the paper's dual form), in chunks, because its matrices grow with the square of the length; one
//! token is one step of the recurrence. Both compute in float32 whatever the weights are, and the state
//! stays float32.
//!
//! Shapes: H heads of P features in G groups of R; a group shares `b` and `c`, of N features each.

use super::{Activation, Conv1d, Linear, softplus};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Cursor, LoadResult};
use crate::mlx::{Array, Dtype, Result, rms_norm};

/// Tokens a chunk of the dual form, as mlx-lm has it.
const CHUNK: i32 = 256;

/// The sizes of a Mamba 2 layer, and what its families differ in.
#[derive(Clone, Copy, Debug)]
pub struct Mamba2Shape {
    /// Features of the residual stream.
    pub d_model: usize,
    /// Heads, H.
    pub n_heads: usize,
    /// Features of a head, P.
    pub head_dim: usize,
    /// Groups of heads, G; divides `n_heads`.
    pub n_groups: usize,
    /// Features of the state for each feature of a head, N.
    pub state_size: usize,
    /// Taps of the convolution.
    pub kernel: usize,
    /// Whether `in_proj` and `out_proj` have biases.
    pub proj_bias: bool,
    /// Whether the convolution has one.
    pub conv_bias: bool,
    /// Of the norm of the gated output.
    pub eps: f32,
    /// Parts that this norm takes one by one: 1, or the groups.
    pub norm_groups: usize,
    /// The smallest and the largest time step.
    pub time_step_limit: [f32; 2],
}

/// A Mamba 2 layer.
#[derive(Clone, Debug)]
pub struct Mamba2 {
    in_proj: Linear,
    conv1d: Conv1d,
    ssm: Ssm,
    norm: GatedNorm,
    out_proj: Linear,
    inner: i32,
    n_heads: i32,
    n_groups: i32,
    state_size: i32,
}

impl Mamba2 {
    /// `in_proj`, `conv1d`, `A_log`, `D`, `dt_bias`, `norm` and `out_proj` under `w`.
    pub fn load(w: &Cursor, shape: Mamba2Shape) -> LoadResult<Self> {
        let Mamba2Shape {
            d_model, n_heads, ..
        } = shape;
        let inner = n_heads * shape.head_dim;
        let convolved = inner + 2 * shape.n_groups * shape.state_size;
        let projected = inner + convolved + n_heads;
        let in_proj = w.linear("in_proj", [projected, d_model], shape.proj_bias)?;
        let a_log = w.tensor("A_log", &[n_heads])?;
        let a = a_log.astype(Dtype::Float32)?.exp()?.negative()?;
        a.eval()?;
        Ok(Self {
            in_proj,
            conv1d: w.conv1d("conv1d", convolved, shape.kernel, shape.conv_bias)?,
            ssm: Ssm {
                a,
                d: w.tensor("D", &[n_heads])?,
                dt_bias: w.tensor("dt_bias", &[n_heads])?,
                time_step_limit: shape.time_step_limit,
            },
            norm: GatedNorm {
                weight: w.at("norm").tensor("weight", &[inner])?,
                eps: shape.eps,
                groups: shape.norm_groups as i32,
            },
            out_proj: w.linear("out_proj", [d_model, inner], shape.proj_bias)?,
            inner: inner as i32,
            n_heads: n_heads as i32,
            n_groups: shape.n_groups as i32,
            state_size: shape.state_size as i32,
        })
    }

    /// `x [B, L, d_model]` to the same shape; `cache` is a recurrent one.
    pub fn forward(&self, x: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let cache = cache.as_recurrent()?;
        let mixed = self.n_groups * self.state_size;
        let sizes = [self.inner, self.inner + 2 * mixed, self.n_heads];
        let [gate, x, dt] = self.in_proj.forward(x)?.split(sizes, -1)?;
        let convolved = Activation::Silu.apply(&self.conv1d.forward(&x, cache)?)?;
        let [x, b, c] = convolved.split([self.inner, mixed, mixed], -1)?;
        let groups = [self.n_groups, self.state_size];
        let tokens = Tokens {
            x: x.unflatten(-1, &[self.n_heads, -1])?, // [B, L, H, P]
            b: b.unflatten(-1, &groups)?,             // [B, L, G, N]
            c: c.unflatten(-1, &groups)?,             // [B, L, G, N]
            dt,
        };
        let y = cache.scan(batch, |part, state| {
            self.ssm.forward(&tokens.part(part)?, batch, state)
        })?;
        let y = y.flatten(2, 3)?; // [B, L, H * P]
        self.out_proj.forward(&self.norm.forward(&y, &gate)?)
    }
}

/// The norm of `silu(gate) · x`.
#[derive(Clone, Debug)]
struct GatedNorm {
    weight: Array,
    eps: f32,
    groups: i32,
}

impl GatedNorm {
    fn forward(&self, x: &Array, gate: &Array) -> Result<Array> {
        let x = Activation::Silu.gated(gate, x)?;
        if self.groups == 1 {
            return rms_norm(&x, Some(&self.weight), self.eps);
        }
        let parts = x.unflatten(-1, &[self.groups, -1])?;
        let normed = rms_norm(&parts, None, self.eps)?.flatten(-2, -1)?;
        normed.multiply(&self.weight)
    }
}

/// What the heads of a layer learned, `[H]` each.
#[derive(Clone, Debug)]
struct Ssm {
    /// Decay rates, negative, float32.
    a: Array,
    /// The share of the input that passes by.
    d: Array,
    dt_bias: Array,
    time_step_limit: [f32; 2],
}

/// What tokens ask of the state.
struct Tokens {
    /// `[B, L, H, P]`.
    x: Array,
    /// `[B, L, G, N]`.
    b: Array,
    /// `[B, L, G, N]`.
    c: Array,
    /// Time steps before bias and softplus, `[B, L, H]`.
    dt: Array,
}

impl Tokens {
    /// Those of a range.
    fn part(&self, range: std::ops::Range<i32>) -> Result<Self> {
        let part = |array: &Array| array.slice_axis(1, range.start, range.end);
        Ok(Self {
            x: part(&self.x)?,
            b: part(&self.b)?,
            c: part(&self.c)?,
            dt: part(&self.dt)?,
        })
    }
}

impl Ssm {
    /// Answers `[B, L, H, P]`; `state [B, G, R, P, N]` moves behind the last token.
    fn forward(&self, tokens: &Tokens, batch: &Batch, state: &mut Option<Array>) -> Result<Array> {
        let x = tokens.x.astype(Dtype::Float32)?;
        let (l, n_heads, n_groups) = (x.dim(1)?, x.dim(2)?, tokens.b.dim(2)?);
        let groups = [n_groups, n_heads / n_groups];
        let dt = self.time_steps(&tokens.dt)?; // [B, L, H]
        let by_group = |y: &Array| -> Result<Array> {
            y.astype(Dtype::Float32)?
                .transpose_axes(&[0, 2, 1, 3])?
                .expand_dims(2)
        };
        let parts = Chunk {
            x: x.multiply(&dt.expand_dims(-1)?)?
                .transpose_axes(&[0, 2, 1, 3])?
                .unflatten(1, &groups)?, // [B, G, R, L, P]
            b: by_group(&tokens.b)?, // [B, G, 1, L, N]
            c: by_group(&tokens.c)?, // [B, G, 1, L, N]
            decay: dt.multiply(&self.a)?.swap_last()?.unflatten(1, &groups)?, // [B, G, R, L]
        };
        let y = match l {
            1 => parts.step(state)?,
            _ => parts.by_chunks(l, batch, state)?,
        };
        let y = y.flatten(1, 2)?.transpose_axes(&[0, 2, 1, 3])?; // [B, L, H, P]
        let passed = x.multiply(&self.d.astype(Dtype::Float32)?.expand_dims(-1)?)?;
        y.add(&passed)?.astype(tokens.x.dtype())
    }

    fn time_steps(&self, dt: &Array) -> Result<Array> {
        let dt = softplus(&dt.astype(Dtype::Float32)?.add(&self.dt_bias)?)?;
        let [least, most] = self.time_step_limit;
        dt.maximum(&dt.scalar_like(least)?)?
            .minimum(&dt.scalar_like(most)?)
    }
}

/// Tokens in float32, by groups.
struct Chunk {
    /// Inputs times their time steps, `[B, G, R, L, P]`.
    x: Array,
    /// `[B, G, 1, L, N]`.
    b: Array,
    /// `[B, G, 1, L, N]`.
    c: Array,
    /// The logarithm of each token's decay, `[B, G, R, L]`.
    decay: Array,
}

impl Chunk {
    /// One token: `[B, G, R, 1, P]`.
    fn step(&self, state: &mut Option<Array>) -> Result<Array> {
        let mut next = self.x.swap_last()?.multiply(&self.b)?; // [B, G, R, P, N]
        if let Some(state) = state {
            let kept = self.decay.exp()?.expand_dims(-1)?; // [B, G, R, 1, 1]
            next = state.multiply(&kept)?.add(&next)?;
        }
        let y = next.matmul(&self.c.swap_last()?)?; // [B, G, R, P, 1]
        *state = Some(next);
        y.swap_last()
    }

    /// L tokens, a chunk at a time: `[B, G, R, L, P]`.
    fn by_chunks(&self, l: i32, batch: &Batch, state: &mut Option<Array>) -> Result<Array> {
        if l <= CHUNK {
            return self.dual(l, batch, state);
        }
        let mut answers = Vec::new();
        for start in (0..l).step_by(CHUNK as usize) {
            let end = l.min(start + CHUNK);
            let part = Chunk {
                x: self.x.slice_axis(-2, start, end)?,
                b: self.b.slice_axis(-2, start, end)?,
                c: self.c.slice_axis(-2, start, end)?,
                decay: self.decay.slice_axis(-1, start, end)?,
            };
            answers.push(part.dual(end - start, batch, state)?);
        }
        Array::concatenate(&answers.iter().collect::<Vec<_>>(), -2)
    }

    /// The whole chunk by matrix products: `[B, G, R, L, P]`.
    fn dual(&self, l: i32, batch: &Batch, state: &mut Option<Array>) -> Result<Array> {
        // What is left at token i of what token j brought. The logarithms are summed afresh for each
        // pair: differences of running sums would lose the small ones behind a large one.
        let [before, upto] = batch.triangles(l)?;
        let left = self
            .decay
            .expand_dims(-1)?
            .multiply(&before)?
            .cumsum(-2, false, true)?
            .exp()?; // [B, G, R, L, L]
        let scores = self.c.matmul(&self.b.swap_last()?)?.multiply(&upto)?; // [B, G, 1, L, L]
        let mut y = scores.multiply(&left)?.matmul(&self.x)?; // [B, G, R, L, P]
        let at_end = left.slice_axis(-2, l - 1, l)?; // [B, G, R, 1, L]
        let mut next = self.x.swap_last()?.multiply(&at_end)?.matmul(&self.b)?; // [B, G, R, P, N]
        if let Some(state) = state {
            let kept = self.decay.cumsum(-1, false, true)?.exp()?.expand_dims(-1)?; // [B, G, R, L, 1]
            let before = self.c.matmul(&state.swap_last()?)?; // [B, G, R, L, P]
            y = y.add(&before.multiply(&kept)?)?;
            next = next.add(&state.multiply(&kept.slice_axis(-2, l - 1, l)?)?)?;
        }
        *state = Some(next);
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::{Device, Runtime};

    const HEADS: i32 = 6;
    const GROUPS: i32 = 2;
    const TOKENS: i32 = 600;

    fn random(shape: &[i32], seed: u64) -> Array {
        let key = Array::random_key(seed).unwrap();
        Array::random_normal(shape, Dtype::Float32, 0.0, 1.0, &key).unwrap()
    }

    /// Decays from a millionth to nearly 1 a token.
    fn ssm(seed: u64, time_step_limit: [f32; 2]) -> Ssm {
        let a = random(&[HEADS], seed).scale(1.5).unwrap();
        Ssm {
            a: a.exp().unwrap().negative().unwrap(),
            d: random(&[HEADS], seed + 1),
            dt_bias: random(&[HEADS], seed + 2),
            time_step_limit,
        }
    }

    /// For two sequences.
    fn tokens(seed: u64) -> Tokens {
        Tokens {
            x: random(&[2, TOKENS, HEADS, 5], seed),
            b: random(&[2, TOKENS, GROUPS, 7], seed + 1),
            c: random(&[2, TOKENS, GROUPS, 7], seed + 2),
            dt: random(&[2, TOKENS, HEADS], seed + 3),
        }
    }

    /// The answers to all tokens, so many at a time.
    fn by(ssm: &Ssm, all: &Tokens, lengths: impl Iterator<Item = i32>) -> (Array, Array) {
        let (mut state, mut answers, mut start) = (None, Vec::new(), 0);
        let batch = Batch::single(&[0], 0).unwrap();
        for length in lengths {
            let end = TOKENS.min(start + length);
            let cut = |part: &Array| part.slice_axis(1, start, end).unwrap();
            let part = Tokens {
                x: cut(&all.x),
                b: cut(&all.b),
                c: cut(&all.c),
                dt: cut(&all.dt),
            };
            answers.push(ssm.forward(&part, &batch, &mut state).unwrap());
            state.as_ref().unwrap().eval().unwrap();
            start = end;
            if start == TOKENS {
                break;
            }
        }
        let answers = Array::concatenate(&answers.iter().collect::<Vec<_>>(), 1).unwrap();
        (answers, state.unwrap())
    }

    #[test]
    fn chunks_equal_the_recurrence() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        for (seed, limit) in [
            (1, [0.0, f32::INFINITY]),
            (2, [0.001, 100.0]),
            (3, [0.3, 0.9]),
        ] {
            let (ssm, tokens) = (ssm(seed * 10, limit), tokens(seed * 100));
            let (steps, end) = by(&ssm, &tokens, std::iter::repeat(1));
            let largest = steps.abs().unwrap().max_all().unwrap();
            let largest = largest.item::<f32>().unwrap();
            for lengths in [
                vec![TOKENS],
                vec![CHUNK, 1, 2, 90, 1, CHUNK + 1],
                vec![17; 40],
            ] {
                let (chunks, state) = by(&ssm, &tokens, lengths.iter().copied());
                let difference = chunks.max_difference(&steps).unwrap() / largest;
                assert!(difference < 1e-5, "{seed} by {lengths:?}: {difference:e}");
                let difference = state.max_difference(&end).unwrap() / largest;
                assert!(difference < 1e-5, "{seed} by {lengths:?}: {difference:e}");
            }
        }
    }

    #[test]
    fn the_time_step_stays_within_its_limit() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let (narrow, tokens) = (ssm(5, [0.3, 0.9]), tokens(50));
        let steps = narrow.time_steps(&tokens.dt).unwrap();
        let steps = steps.contiguous().unwrap().to_vec::<f32>().unwrap();
        let (least, most) = steps
            .iter()
            .fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
        assert_eq!((least, most), (0.3, 0.9));
    }
}
