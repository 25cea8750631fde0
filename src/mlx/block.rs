//! A whole layer of a decoder as one operation, on the CPU: attention with its cache and the feed-forward
//! layer, each behind its norm and added to what it got.
//!
//! It runs the same kernels in the same order as [`super::layers`]' operations and MLX's between them, so
//! results are the same bits. The cache's arrays are changed in place where nobody else holds them.

use std::cell::OnceCell;
use std::ffi::CStr;

use super::call::{Computed, Constants, Function, Params, View, ViewMut, call_on};
use super::cpu::{ARRAYS, floats, packing, takes_packed};
use super::fused::{bits, float};
use super::layers::{FEW, Heading, ROOM, make_ready, matrix, parts, width};
use super::{Array, Dtype, Error, Quantized, Result, RopeFreqs};
use crate::kernels::{self, Floats, FloatsMut, Turn};

/// `h += o(attention(norm(h))); h += down(silu(gate(norm(h))) · up(norm(h)))`.
#[derive(Clone, Copy, Debug)]
pub struct PackedBlock<'a> {
    /// Scales `[d_model]` of both norms, and what is added to the mean squares.
    pub norms: [(Option<&'a Array>, f32); 2],
    /// Projections to queries, keys and values.
    pub qkv: [&'a Quantized; 3],
    /// What becomes of the heads.
    pub heading: Heading<'a>,
    /// Scores are multiplied by it.
    pub scale: f32,
    /// The projection of what the heads attended to.
    pub o: &'a Quantized,
    /// The gate, its partner, and the way back.
    pub mlp: [&'a Quantized; 3],
    /// All of these arrays, once they have met a step: they stay the same ones from then on.
    pub held: &'a Held,
}

/// The arrays of one layer as its steps read them, from the first on.
#[derive(Debug, Default)]
pub struct Held(OnceCell<Constants>);

const NORMS: u64 = 1 << 48;
const ROPE: u64 = 1 << 49;
const TABLE: u64 = 1 << 50;
const TRADITIONAL: u64 = 1 << 51;

impl PackedBlock<'_> {
    /// The entries that a step of one sequence's `h [1, L, d_model]` adds to its keys and to its values,
    /// `[1, K, L, D]`; nothing if the layer is none that [`PackedBlock::forward`] computes.
    pub fn entries(&self, h: &Array) -> Option<[i32; 4]> {
        let &[1, l, d_model] = &h.shape()[..] else {
            return None;
        };
        if !(1..=FEW).contains(&l) || h.dtype() != Dtype::Float32 {
            return None;
        }
        if self.held.0.get().is_none() {
            self.fits(h, d_model)?;
        }
        let d = self.heading.head_dim;
        let turns = self.heading.rope.as_ref().is_none_or(|turn| {
            let dims = turn.dims;
            let table = |t: &Array| t.dtype() == Dtype::Float32 && t.shape() == [dims / 2];
            let freqs = match turn.freqs {
                RopeFreqs::Base(base) => *base > 0.0,
                RopeFreqs::Table(t) => table(t),
            };
            freqs && dims >= 0 && dims % 2 == 0 && dims <= d && turn.start.is_ok()
        });
        let n_kv_heads = self.qkv[1].weight.dim(0).ok()?.checked_div(d)?;
        turns.then_some([1, n_kv_heads, l, d])
    }

    /// Whether matrices and norms are what is computed here, for `h [.., d_model]`.
    fn fits(&self, h: &Array, d_model: i32) -> Option<()> {
        let fits = |w: &Quantized, n: i32, k: i32| {
            (w.weight.dim(0).ok()? == n && width(w).ok()? == k && takes_packed(h, w)).then_some(())
        };
        let is_scale = |weight: Option<&Array>, n: i32| {
            weight.is_some_and(|w| w.dtype() == Dtype::Float32 && w.shape() == [n])
        };
        let d = self.heading.head_dim;
        let mut heads = [0; 3];
        for (heads, w) in heads.iter_mut().zip(self.qkv) {
            let n = w.weight.dim(0).ok()?;
            *heads = n.checked_div(d).filter(|heads| heads * d == n)?;
            fits(w, n, d_model)?;
        }
        let [n_heads, n_kv_heads, _] = heads;
        let shared = n_kv_heads > 0 && n_heads % n_kv_heads == 0 && heads[2] == n_kv_heads;
        let d_ff = self.mlp[0].weight.dim(0).ok()?;
        fits(self.o, d_model, n_heads * d)?;
        fits(self.mlp[0], d_ff, d_model)?;
        fits(self.mlp[1], d_ff, d_model)?;
        fits(self.mlp[2], d_model, d_ff)?;
        let normed = self.norms.iter().all(|(w, _)| is_scale(*w, d_model));
        let heads_normed = self.heading.norms.iter().flatten();
        let heads_normed = heads_normed.into_iter().all(|(w, _)| is_scale(*w, d));
        (shared && normed && heads_normed).then_some(())
    }

    /// The matrices' arrays, then the norms', the heads' after them.
    fn hold(&self, op: &'static str) -> Result<&Constants> {
        if let Some(held) = self.held.0.get() {
            return Ok(held);
        }
        let weights = self.qkv.iter().chain([&self.o]).chain(&self.mlp);
        let mut arrays: Vec<&Array> = weights.flat_map(|w| parts(w)).collect();
        let norms = self.norms.iter();
        let norms = norms.chain(self.heading.norms.iter().flatten());
        arrays.extend(norms.filter_map(|(weight, _)| *weight));
        let held = Constants::new(op, &arrays)?;
        Ok(self.held.0.get_or_init(|| held))
    }

    /// `h` after the layer, and the `keys` and `values` `[1, K, room, D]` with this step's written from
    /// place `len` on. The arrays are to have no other handle, or they are copied.
    ///
    /// # Errors
    /// If it is none that [`PackedBlock::entries`] takes, or there is no room.
    #[track_caller]
    pub fn forward(&self, h: &Array, keys: Array, values: Array, len: usize) -> Result<[Array; 3]> {
        let op = "packed_block";
        let refuse = |message: &str| Error::new(op, &[h, &keys, &values], message.to_owned());
        let entries = self
            .entries(h)
            .ok_or_else(|| refuse("it is of another form"))?;
        let [_, n_kv_heads, l, d] = entries;
        for buffer in [&keys, &values] {
            let room = buffer.shape().get(2).copied().unwrap_or(0);
            let fits =
                buffer.shape() == [1, n_kv_heads, room, d] && room as usize >= len + l as usize;
            if !fits || buffer.dtype() != Dtype::Float32 {
                return Err(refuse("the cache has no room for such entries"));
            }
        }
        let mut params: Params = [0; 8];
        for (i, w) in self.qkv.iter().chain([&self.o]).enumerate() {
            params[0] |= packing(w) << (16 * i);
        }
        for (i, w) in self.mlp.iter().enumerate() {
            params[1] |= packing(w) << (16 * i);
        }
        let norms = self.norms.iter().zip([(2, 0), (2, 32)]);
        let heads = self.heading.norms.iter().flatten().zip([(3, 0), (3, 32)]);
        for ((_, eps), (word, shift)) in norms.chain(heads) {
            params[word] |= bits(*eps) << shift;
        }
        let mut table = None;
        params[4] = d as u64;
        params[6] = (len as u64) << 32;
        params[7] = bits(self.scale);
        if self.heading.norms.is_some() {
            params[1] |= NORMS;
        }
        if let Some(turn) = &self.heading.rope {
            params[1] |= ROPE | if turn.traditional { TRADITIONAL } else { 0 };
            params[4] |= (turn.dims as u64) << 32;
            params[5] = bits(turn.scale);
            params[6] |= u64::from(turn.start.unwrap_or(0) as u32);
            match turn.freqs {
                RopeFreqs::Base(base) => params[5] |= bits(*base) << 32,
                RopeFreqs::Table(freqs) => {
                    params[1] |= TABLE;
                    table = Some(freqs);
                }
            }
        }
        let shapes = [h.shape(), keys.shape(), values.shape()];
        let outputs = shapes.each_ref().map(|shape| (&shape[..], Dtype::Float32));
        // A table differs with the length of what is read, and is last of the inputs.
        let inputs = [Some(h), Some(&keys), Some(&values), table];
        let inputs: Vec<&Array> = inputs.into_iter().flatten().collect();
        let held = Some(self.hold(op)?);
        let states = [(1, 1), (2, 2)];
        let made = call_on::<Block>(op, &inputs, held, &outputs, &states, params)?;
        <[Array; 3]>::try_from(made).map_err(|_| refuse("it returned fewer arrays"))
    }
}

struct Block;

impl Function for Block {
    const NAME: &'static CStr = c"PackedBlock";

    fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
        let ([h, _, _, rest @ ..], [out, all_keys, all_values]) = (inputs, outputs) else {
            return Err(ARRAYS.into());
        };
        let (table, rest) = rest
            .split_at_checked(usize::from(params[1] & TABLE != 0))
            .ok_or(ARRAYS)?;
        let (weights, rest) = rest.split_at_checked(21).ok_or(ARRAYS)?;
        let packing = |i: usize| params[i / 4] >> (16 * (i % 4));
        let w = |i: usize| matrix(packing(i), &weights[3 * i..3 * i + 3]);
        let (q, k, v, o) = (w(0)?, w(1)?, w(2)?, w(3)?);
        let (gate, up, down) = (w(4)?, w(5)?, w(6)?);
        let mut rest = rest.iter();
        let mut next = || rest.next().ok_or_else(|| String::from(ARRAYS));
        let halves = |word: u64| [word & 0xffff_ffff, word >> 32];
        let [eps, eps_fed] = halves(params[2]).map(float);
        let (norm, norm_fed) = (floats(next()?)?, floats(next()?)?);
        let flags = params[1];
        let mut norms = [None; 2];
        if flags & NORMS != 0 {
            for (norm, eps) in norms.iter_mut().zip(halves(params[3])) {
                *norm = Some((floats(next()?)?, float(eps)));
            }
        }
        let [d, dims] = halves(params[4]).map(|n| n as usize);
        let [scale, base] = halves(params[5]).map(float);
        let [start, len] = halves(params[6]);
        let (start, len) = ([start as u32 as i32], len as usize);
        let turn = Turn {
            dims,
            traditional: flags & TRADITIONAL != 0,
            freqs: match table.first() {
                None => None,
                Some(table) => Some(table.slice::<f32>()?),
            },
            base,
            scale,
        };
        let turn = (flags & ROPE != 0).then_some((&turn, &start[..]));
        let &[_, l, _] = h.shape() else {
            return Err(ARRAYS.into());
        };
        let &[_, n_kv_heads, room, _] = all_keys.shape() else {
            return Err(ARRAYS.into());
        };
        let [l, n_kv_heads, key_room] = [l, n_kv_heads, room].map(|n| n as usize);
        let heads = q.rows.checked_div(d).unwrap_or(0);
        let h = h.slice::<f32>()?;
        let out = out.slice::<f32>()?;
        let (all_keys, all_values) = (all_keys.slice::<f32>()?, all_values.slice::<f32>()?);

        let sizes = [
            h.len(),
            l * q.rows,
            l * k.rows,
            l * v.rows,
            l * q.rows.max(k.rows),
            l * q.rows,
            l * k.rows,
            l * gate.rows,
            l * gate.rows,
            l * gate.rows,
        ];
        let mut memory = ROOM.take();
        memory.resize(memory.len().max(sizes.iter().sum()), 0.0);
        let mut left = &mut memory[..];
        let pieces = sizes.map(|n| {
            let (piece, others) = std::mem::take(&mut left).split_at_mut(n);
            left = others;
            piece
        });
        let [
            normed,
            queries,
            keys,
            values,
            spare,
            turned,
            entries,
            gates,
            ups,
            fed,
        ] = pieces;

        kernels::rms_norm(
            Floats::F32(h),
            q.cols,
            Some(norm),
            eps,
            FloatsMut::F32(normed),
        );
        let products = [
            (&q, FloatsMut::F32(queries)),
            (&k, FloatsMut::F32(keys)),
            (&v, FloatsMut::F32(values)),
        ];
        kernels::packed_matmuls(Floats::F32(normed), l, products);
        make_ready(queries, [1, heads, l, d], norms[0], turn, spare, turned);
        let shape = [1, n_kv_heads, l, d];
        make_ready(keys, shape, norms[1], turn, spare, entries);
        write(entries, all_keys, l * d, (key_room * d, len * d))?;
        make_ready(values, shape, None, None, spare, entries);
        write(entries, all_values, l * d, (key_room * d, len * d))?;
        let attention = kernels::Attention {
            q: Floats::F32(turned),
            k: Floats::F32(all_keys),
            v: Floats::F32(all_values),
            heads,
            kv_heads: n_kv_heads,
            queries: l,
            keys: len + l,
            key_room,
            head_dim: d,
            value_dim: d,
            scale: float(params[7]),
            causal: l > 1,
            window: None,
            mask: None,
            sinks: None,
        };
        let attended = queries;
        kernels::attention(&attention, FloatsMut::F32(attended));
        for (i, head) in attended.chunks_exact(d).enumerate() {
            let at = (i % l * heads + i / l) * d; // [L, H, D]
            turned[at..][..d].copy_from_slice(head);
        }
        kernels::packed_matmul(Floats::F32(turned), l, &o, FloatsMut::F32(normed));
        add(out, h, normed);

        kernels::rms_norm(
            Floats::F32(out),
            gate.cols,
            Some(norm_fed),
            eps_fed,
            FloatsMut::F32(normed),
        );
        let products = [(&gate, FloatsMut::F32(gates)), (&up, FloatsMut::F32(ups))];
        kernels::packed_matmuls(Floats::F32(normed), l, products);
        kernels::swiglu(Floats::F32(gates), Floats::F32(ups), FloatsMut::F32(fed));
        kernels::packed_matmul(Floats::F32(fed), l, &down, FloatsMut::F32(normed));
        for (out, more) in out.iter_mut().zip(&*normed) {
            *out += more;
        }
        ROOM.set(memory);
        Ok(())
    }
}

/// `out = a + b`.
fn add(out: &mut [f32], a: &[f32], b: &[f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a + b;
    }
}

/// Writes `each` numbers of every head into the heads of `to`, which lie `stride` apart, from `at` on.
fn write(from: &[f32], to: &mut [f32], each: usize, (stride, at): (usize, usize)) -> Computed {
    for (head, from) in from.chunks_exact(each.max(1)).enumerate() {
        let begin = head * stride + at;
        let to = to.get_mut(begin..begin + each);
        to.ok_or("the cache has no room")?.copy_from_slice(from);
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
#[path = "block_tests.rs"]
mod tests;
