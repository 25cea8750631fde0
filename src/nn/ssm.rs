//! State-space layers as in Mamba 2 (Dao and Gu, "Transformers are SSMs", 2024).
//!
//! Each head carries a state `S [P, N]` from token to token: `S = exp(dt · a) · S + dt · x bᵀ`, and
//! answers `y = S c + d · x`. Several tokens at once are attention with a decay in place of a softmax
//! (the paper's dual form), in chunks, because its matrices grow with the square of the length; one
//! token is one step of the recurrence. Both compute in float32 whatever the weights are, and the state
//! stays float32. The states behind several of a chunk's tokens come out of one product.
//!
//! On a GPU a pass of few hundred tokens takes as long as its operations take to launch, so what is
//! element-wise goes into few functions, each a kernel there, and tensors are laid out for them once.
//!
//! What token j brought has decayed by token i to the exponential of the sum of the logarithms between
//! them. Differences of running sums would lose the small ones behind a large one, so each logarithm
//! is cut in two: a multiple of 1/256, whose running sums are exact, and a rest of at most 1/512.
//!
//! Shapes: H heads of P features in G groups of R; a group shares `b` and `c`, of N features each. K is
//! states asked for, and 1 before there are several.

use super::{Activation, Conv1d, Linear, softplus};
use crate::cache::{Batch, LayerCache};
use crate::checkpoint::{Cursor, LoadResult};
use crate::mlx::{
    Array, Device, Dtype, Elementwise, Error, Result, current_device, eval, fused, fuses, rms_norm,
};

/// The least logarithm of a decay: its exponential is 0 in float32.
const GONE: f32 = -128.0;
/// What running sums are multiples of the inverse of: those of a chunk on a GPU have 24 bits.
const STEPS: f32 = 256.0;

/// Tokens a chunk of the dual form, at most. A GPU has time for large matrices while operations are
/// launched.
fn chunk() -> i32 {
    match current_device() {
        Some(Device::Gpu) => 512,
        _ => 64,
    }
}

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
        let (groups, heads) = (shape.n_groups as i32, n_heads as i32);
        let by_head = |name| -> LoadResult<Array> {
            let heads = w.tensor(name, &[n_heads])?.astype(Dtype::Float32)?;
            Ok(heads.reshape(&[groups, -1, 1])?) // [G, R, 1]
        };
        let [a_log, d, dt_bias] = [by_head("A_log")?, by_head("D")?, by_head("dt_bias")?];
        let a = a_log.exp()?.negative()?;
        eval(&[&a, &d, &dt_bias])?;
        Ok(Self {
            in_proj,
            conv1d: w.conv1d("conv1d", convolved, shape.kernel, shape.conv_bias)?,
            ssm: Ssm {
                a,
                d,
                dt_bias,
                time_step_limit: limit(shape.time_step_limit)?,
                n_groups: groups,
                per_group: heads / groups,
                head_dim: shape.head_dim as i32,
                state_size: shape.state_size as i32,
            },
            norm: GatedNorm {
                weight: w.at("norm").tensor("weight", &[inner])?,
                eps: shape.eps,
                groups: shape.norm_groups as i32,
            },
            out_proj: w.linear("out_proj", [d_model, inner], shape.proj_bias)?,
        })
    }

    /// `x [B, L, d_model]` to the same shape; `cache` is a recurrent one.
    pub fn forward(&self, x: &Array, batch: &Batch, cache: &mut LayerCache) -> Result<Array> {
        let cache = cache.as_recurrent()?;
        let ssm = &self.ssm;
        let sizes = [ssm.inner(), ssm.inner() + ssm.mixed(), ssm.n_heads()];
        let [gate, x, dt] = self.in_proj.forward(x)?.split(sizes, -1)?;
        let tokens = Tokens {
            convolved: self.conv1d.forward(&x, cache)?,
            dt,
            gate,
        };
        let y = cache.pass(batch, |ends, state| {
            ssm.forward(&tokens, batch, ends, state)
        })?;
        self.out_proj.forward(&self.norm.forward(&y)?)
    }
}

/// The norm of the gated output.
#[derive(Clone, Debug)]
struct GatedNorm {
    weight: Array,
    eps: f32,
    groups: i32,
}

impl GatedNorm {
    fn forward(&self, x: &Array) -> Result<Array> {
        if self.groups == 1 {
            return rms_norm(x, Some(&self.weight), self.eps);
        }
        let parts = x.unflatten(-1, &[self.groups, -1])?;
        let normed = rms_norm(&parts, None, self.eps)?.flatten(-2, -1)?;
        normed.multiply(&self.weight)
    }
}

/// The least and the largest time step as scalars; none where time steps, which are positive, have no
/// limit.
fn limit(limit: [f32; 2]) -> Result<Option<[Array; 2]>> {
    let [least, most] = limit;
    if least <= 0.0 && most == f32::INFINITY {
        return Ok(None);
    }
    Ok(Some([Array::from_f32(least)?, Array::from_f32(most)?]))
}

/// What the heads of a layer learned, float32 `[G, R, 1]` each, and their sizes.
#[derive(Clone, Debug)]
struct Ssm {
    /// Decay rates, negative.
    a: Array,
    /// The share of the input that passes by.
    d: Array,
    dt_bias: Array,
    time_step_limit: Option<[Array; 2]>,
    /// G.
    n_groups: i32,
    /// R.
    per_group: i32,
    /// P.
    head_dim: i32,
    /// N.
    state_size: i32,
}

/// What tokens ask of the state.
struct Tokens {
    /// Before the activation: inputs and a group's `b` and `c`, `[B, L, H * P + 2 * G * N]`.
    convolved: Array,
    /// Time steps before bias and softplus, `[B, L, H]`.
    dt: Array,
    /// The gate of the answers, `[B, L, H * P]`.
    gate: Array,
}

impl Tokens {
    /// Those of a range.
    fn part(&self, start: i32, end: i32) -> Result<Self> {
        let part = |array: &Array| array.slice_axis(1, start, end);
        Ok(Self {
            convolved: part(&self.convolved)?,
            dt: part(&self.dt)?,
            gate: part(&self.gate)?,
        })
    }
}

/// Tokens' logarithms of decays, the sums up to each, in two parts.
struct Sums([Array; 2]);

impl Sums {
    fn map(&self, change: impl Fn(&Array) -> Result<Array>) -> Result<Self> {
        let [steps, rest] = &self.0;
        Ok(Self([change(steps)?, change(rest)?]))
    }
}

impl Ssm {
    fn n_heads(&self) -> i32 {
        self.n_groups * self.per_group
    }

    /// Features of all heads.
    fn inner(&self) -> i32 {
        self.n_heads() * self.head_dim
    }

    /// Features of what groups share, `b` and `c`.
    fn mixed(&self) -> i32 {
        2 * self.n_groups * self.state_size
    }

    /// Gated answers `[B, L, H * P]`, and the states `[B, 1, G, R, P, N]` behind the first so many
    /// tokens, for each of `ends`, which ascend to all of them.
    fn forward(
        &self,
        tokens: &Tokens,
        batch: &Batch,
        ends: &[i32],
        state: Option<Array>,
    ) -> Result<(Array, Vec<Array>)> {
        let (b, l) = (tokens.dt.dim(0)?, tokens.dt.dim(1)?);
        let mut state = match state {
            Some(state) => state,
            None => {
                let Self {
                    n_groups,
                    per_group,
                    head_dim,
                    state_size,
                    ..
                } = *self;
                let shape = [b, 1, n_groups, per_group, head_dim, state_size];
                Array::zeros(&shape, Dtype::Float32)?
            }
        };
        let (mut answers, mut states, mut start) = (Vec::with_capacity(1), Vec::new(), 0);
        while start < l {
            let end = l.min(start + chunk());
            let part = match (start, end) {
                (0, end) if end == l => tokens,
                _ => &tokens.part(start, end)?,
            };
            let within = ends.iter().filter(|&&at| start < at && at < end);
            let mut stops: Vec<i32> = within.map(|at| at - start).collect();
            stops.push(end - start);
            let (answer, mut behind) = match end - start {
                1 => self.step(part, &state)?,
                _ => self.dual(part, batch, &stops, &state)?,
            };
            answers.push(answer);
            if let Some(last) = behind.last() {
                state = last.clone();
            }
            if !ends.contains(&end) {
                behind.pop();
            }
            states.extend(behind);
            start = end;
        }
        let answers = match answers.len() {
            1 => answers.remove(0),
            _ => Array::concatenate(&answers.iter().collect::<Vec<_>>(), 1)?,
        };
        Ok((answers, states))
    }

    /// One token.
    fn step(&self, tokens: &Tokens, state: &Array) -> Result<(Array, Vec<Array>)> {
        let b = tokens.dt.dim(0)?;
        let Self {
            n_groups,
            per_group,
            head_dim,
            state_size,
            ..
        } = *self;
        let [activated] = fused(silu, &[&tokens.convolved])?;
        let sizes = [self.inner(), self.mixed() / 2, self.mixed() / 2];
        let [x, by, c] = activated.split(sizes, -1)?;
        let x = x.reshape(&[b, 1, n_groups, per_group, head_dim, 1])?;
        let by = by.reshape(&[b, 1, n_groups, 1, 1, state_size])?;
        let c = c.reshape(&[b, 1, n_groups, state_size, 1])?;
        let dt = self
            .time_steps(&tokens.dt)?
            .reshape(&[b, 1, n_groups, per_group, 1, 1])?;
        let [next] = fused(stepped, &[state, &dt, &self.a.expand_dims(-1)?, &x, &by])?;
        let y = next.flatten(3, 4)?.matmul(&c)?; // [B, 1, G, R * P, 1]
        let [x, y] = [x, y].map(|array| array.reshape(&[b, 1, 1, n_groups, per_group, head_dim]));
        let y = self.gated([direct, gated_direct], &[&y?, &x?, &self.d], &tokens.gate)?;
        Ok((y, vec![next]))
    }

    /// Several tokens by matrix products.
    fn dual(
        &self,
        tokens: &Tokens,
        batch: &Batch,
        stops: &[i32],
        state: &Array,
    ) -> Result<(Array, Vec<Array>)> {
        let (batched, l) = (tokens.dt.dim(0)?, tokens.dt.dim(1)?);
        let Self {
            n_groups,
            per_group,
            head_dim,
            state_size,
            ..
        } = *self;
        let [x, mixed] = tokens.convolved.split([self.inner(), self.mixed()], -1)?;
        let x = x
            .reshape(&[batched, l, 1, n_groups, per_group, head_dim])?
            .transpose_axes(&[0, 2, 3, 4, 1, 5])?;
        let [x] = fused(silu, &[&x])?; // [B, 1, G, R, L, P]
        let mixed = mixed
            .reshape(&[batched, l, 1, 2 * n_groups, state_size])?
            .transpose_axes(&[0, 2, 3, 1, 4])?;
        let [mixed] = fused(silu, &[&mixed])?;
        let [b, c] = mixed.split([n_groups; 2], 2)?; // [B, 1, G, L, N]

        let dt = self.time_steps(&tokens.dt)?; // [B, 1, L, G, R, 1]
        let sums = Sums(fused(in_two, &[&dt, &self.a])?);
        let sums = sums.map(|part| part.cumsum(2, false, true))?;
        let Sums([steps_to, rest_to]) =
            sums.map(|part| part.transpose_axes(&[0, 1, 3, 4, 2, 5]))?;
        let across = |array: &Array| array.transpose_axes(&[0, 1, 3, 4, 5, 2]); // [B, 1, G, R, 1, L]
        let Sums([steps_from, rest_from]) = sums.map(across)?;
        let scores = c.matmul(&b.swap_last()?)?.expand_dims(3)?; // [B, 1, G, 1, L, L]
        let inputs = [
            &scores,
            &batch.triangle(l)?,
            &steps_to,
            &steps_from,
            &rest_to,
            &rest_from,
            &across(&dt)?,
        ];
        let [weights] = fused(weights, &inputs)?; // [B, 1, G, R, L, L]
        let within = weights.matmul(&x)?.transpose_axes(&[0, 1, 4, 2, 3, 5])?;
        let before = c
            .matmul(&state.flatten(3, 4)?.swap_last()?)? // [B, 1, G, L, R * P]
            .unflatten(-1, &[per_group, head_dim])?
            .transpose_axes(&[0, 1, 3, 2, 4, 5])?;
        let x = x.transpose_axes(&[0, 1, 4, 2, 3, 5])?; // [B, 1, L, G, R, P]
        let Sums([steps, rest]) = &sums;
        let parts = [&within, &x, &self.d, &before, steps, rest];
        let y = self.gated([answers, gated_answers], &parts, &tokens.gate)?;

        let (at, brought) = match stops {
            [_] => {
                let at = sums.map(|part| part.slice_axis(2, l - 1, l))?; // [B, K, 1, G, R, 1]
                let Sums([steps_at, rest_at]) = &at;
                let [brought] = fused(fading, &[steps_at, steps, rest_at, rest, &dt, &x])?;
                (at, brought)
            }
            _ => {
                let [rows, upto] = batch.ends(stops, l)?;
                let at = sums.map(|part| part.take(&rows, 2)?.swapaxes(1, 2))?;
                let Sums([steps_at, rest_at]) = &at;
                let parts = [&upto, steps_at, steps, rest_at, rest, &dt, &x];
                let [brought] = fused(fading_upto, &parts)?;
                (at, brought)
            }
        };
        let brought = brought
            .flatten(-2, -1)? // [B, K, L, G, R * P]
            .transpose_axes(&[0, 1, 3, 4, 2])?
            .matmul(&b)? // [B, K, G, R * P, N]
            .unflatten(3, &[per_group, head_dim])?;
        // [B, K, G, R, 1, 1]
        let Sums([steps_at, rest_at]) = at.map(|part| part.transpose_axes(&[0, 1, 3, 4, 2, 5]))?;
        let [states] = fused(carried, &[state, &steps_at, &rest_at, &brought])?;
        let states = match stops.len() {
            1 => vec![states],
            n => {
                let states = (0..n as i32).map(|k| states.slice_axis(1, k, k + 1));
                states.collect::<Result<_>>()?
            }
        };
        Ok((y, states))
    }

    /// Time steps `[B, 1, L, G, R, 1]` of `dt [B, L, H]`.
    fn time_steps(&self, dt: &Array) -> Result<Array> {
        let (b, l) = (dt.dim(0)?, dt.dim(1)?);
        let dt = dt.reshape(&[b, 1, l, self.n_groups, self.per_group, 1])?;
        let [dt] = match &self.time_step_limit {
            None => fused(time_steps, &[&dt, &self.dt_bias]),
            Some([least, most]) => fused(limited_time_steps, &[&dt, &self.dt_bias, least, most]),
        }?;
        Ok(dt)
    }

    /// What `plain` makes of `parts`, `[B, 1, L, G, R, P]`, times the gate's SiLU: `[B, L, H * P]`.
    /// `gated` makes the same of the gate and the parts.
    fn gated(
        &self,
        [plain, gated]: [Elementwise<1>; 2],
        parts: &[&Array],
        gate: &Array,
    ) -> Result<Array> {
        let shape = gate.shape();
        if !fuses() {
            let [y] = plain(parts)?;
            let y = y.reshape(&shape)?.astype(gate.dtype())?;
            return Activation::Silu.gated(gate, &y);
        }
        let heads = [
            shape[0],
            1,
            shape[1],
            self.n_groups,
            self.per_group,
            self.head_dim,
        ];
        let gate = gate.reshape(&heads)?;
        let mut all = vec![&gate];
        all.extend(parts);
        let [y] = fused(gated, &all)?;
        y.reshape(&shape)
    }
}

/// SiLU, in float32 from here on.
fn silu(inputs: &[&Array]) -> Result<[Array; 1]> {
    Ok([Activation::Silu.apply(inputs[0])?.astype(Dtype::Float32)?])
}

/// Of steps before bias and softplus, and biases.
fn time_steps(inputs: &[&Array]) -> Result<[Array; 1]> {
    let dt = inputs[0].astype(Dtype::Float32)?;
    Ok([softplus(&dt.add(inputs[1])?)?])
}

/// The same within two limits.
fn limited_time_steps(inputs: &[&Array]) -> Result<[Array; 1]> {
    let [dt] = time_steps(&inputs[..2])?;
    Ok([dt.maximum(inputs[2])?.minimum(inputs[3])?])
}

/// The logarithms of decays, of time steps and rates, in two parts.
fn in_two(inputs: &[&Array]) -> Result<[Array; 2]> {
    let decay = inputs[0].multiply(inputs[1])?;
    let decay = decay.maximum(&decay.scalar_like(GONE)?)?;
    let steps = decay.scale(STEPS)?.round()?.scale(STEPS.recip())?;
    let rest = decay.subtract(&steps)?;
    Ok([steps, rest])
}

/// What decays leave: the exponential of sums up to a token less those up to an earlier one, steps and
/// rests of each. It is 1 where the other is not earlier.
fn left(sums: &[&Array]) -> Result<Array> {
    let (steps, rest) = (sums[0].subtract(sums[1])?, sums[2].subtract(sums[3])?);
    let sum = steps.add(&rest)?;
    sum.minimum(&sum.scalar_like(0.0)?)?.exp()
}

/// How much of each token's input each answer has: of scores, the triangle of ones, sums up to the one
/// and the other (steps, then rests), and the inputs' time steps.
fn weights(inputs: &[&Array]) -> Result<[Array; 1]> {
    let scores = inputs[0].multiply(inputs[1])?;
    Ok([scores
        .multiply(&left(&inputs[2..6])?)?
        .multiply(inputs[6])?])
}

/// Answers before the gate: what came since the state, the inputs and their share of it.
fn direct(inputs: &[&Array]) -> Result<[Array; 1]> {
    Ok([inputs[0].add(&inputs[1].multiply(inputs[2])?)?])
}

/// The same with what the state says, and the sums up to there.
fn answers(inputs: &[&Array]) -> Result<[Array; 1]> {
    let [y] = direct(&inputs[..3])?;
    let kept = inputs[4].add(inputs[5])?.exp()?;
    Ok([inputs[3].multiply(&kept)?.add(&y)?])
}

fn gate(gate: &Array, y: &Array) -> Result<[Array; 1]> {
    let y = y.astype(gate.dtype())?;
    Ok([Activation::Silu.apply(gate)?.multiply(&y)?])
}

fn gated_direct(inputs: &[&Array]) -> Result<[Array; 1]> {
    let [y] = direct(&inputs[1..])?;
    gate(inputs[0], &y)
}

fn gated_answers(inputs: &[&Array]) -> Result<[Array; 1]> {
    let [y] = answers(&inputs[1..])?;
    gate(inputs[0], &y)
}

/// What is left of inputs at a later token: sums up to there and up to each (steps, then rests), time
/// steps, inputs.
fn fading(inputs: &[&Array]) -> Result<[Array; 1]> {
    let left = left(&inputs[..4])?;
    Ok([inputs[5].multiply(inputs[4])?.multiply(&left)?])
}

/// The same at several tokens, of the inputs that come no later: ones for them come first.
fn fading_upto(inputs: &[&Array]) -> Result<[Array; 1]> {
    let left = left(&inputs[1..5])?.multiply(inputs[0])?;
    Ok([inputs[6].multiply(inputs[5])?.multiply(&left)?])
}

/// A state after decays of which the sums are given, and what was added.
fn carried(inputs: &[&Array]) -> Result<[Array; 1]> {
    let kept = inputs[1].add(inputs[2])?.exp()?;
    Ok([inputs[0].multiply(&kept)?.add(inputs[3])?])
}

/// A state after one more token: the state, time step, rate, input, `b`.
fn stepped(inputs: &[&Array]) -> Result<[Array; 1]> {
    let &[state, dt, rate, x, b] = inputs else {
        return Err(Error::new("step", inputs, "there are five inputs"));
    };
    let kept = state.multiply(&dt.multiply(rate)?.exp()?)?;
    Ok([kept.add(&x.multiply(dt)?.multiply(b)?)?])
}

#[cfg(test)]
#[path = "ssm_tests.rs"]
mod tests;
