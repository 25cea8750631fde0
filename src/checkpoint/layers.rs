//! Whole layers from the weights cursor, whichever way a converter laid them out.

use super::weights::{Cursor, LoadResult};
use crate::mlx::Array;
use crate::nn::{Conv1d, Embedding, LayerNorm, Linear, Matrix, RmsNorm, SwitchLinear};

impl Cursor<'_> {
    /// A weight matrix `[.., out, in]` under this path, for products, rows and nothing else: in the order
    /// in which the device likes it best.
    fn factor(&self, shape: &[usize]) -> LoadResult<Matrix> {
        let matrix = self.matrix(shape)?;
        Ok(match self.arranges() {
            true => matrix.arranged()?,
            false => matrix,
        })
    }

    /// A linear layer `name` from `inner` to `out` features. With `bias` there must be one.
    pub fn linear(&self, name: &str, [out, inner]: [usize; 2], bias: bool) -> LoadResult<Linear> {
        let here = self.at(name);
        let weight = here.factor(&[out, inner])?;
        Ok(Linear {
            bias: here.bias(&[out], bias)?,
            adapter: here.linear_adapter([out, inner], &weight)?,
            weight,
        })
    }

    fn bias(&self, shape: &[usize], wanted: bool) -> LoadResult<Option<Array>> {
        wanted.then(|| self.tensor("bias", shape)).transpose()
    }

    /// Linear layers that are stored as one, `name`, their rows one after the other.
    pub fn split_linear<const N: usize>(
        &self,
        name: &str,
        outs: [usize; N],
        inner: usize,
        bias: bool,
    ) -> LoadResult<[Linear; N]> {
        let all = outs
            .iter()
            .fold(0, |all: usize, out| all.saturating_add(*out));
        let fused = self.linear(name, [all, inner], bias)?;
        let mut end = 0;
        let ranges = outs.map(|out| {
            end += out;
            (end - out, end)
        });
        let mut parts = Vec::with_capacity(N);
        for (start, end) in ranges {
            let bias = match &fused.bias {
                Some(bias) => Some(bias.slice_axis(0, start as i32, end as i32)?.contiguous()?),
                None => None,
            };
            let adapter = fused.adapter.as_ref();
            parts.push(Linear {
                weight: fused.weight.rows(start, end)?,
                bias,
                adapter: adapter
                    .map(|adapter| adapter.columns(start as i32, end as i32))
                    .transpose()?,
            });
        }
        // As many parts as ranges.
        Ok(<[Linear; N]>::try_from(parts).unwrap_or_else(|_| unreachable!()))
    }

    /// The linear layers `name` of all experts: stacked as `switch_mlp.name`, `[E, out, in]`, or one
    /// by one as `experts.{e}.name`.
    pub fn experts(
        &self,
        name: &str,
        [n_experts, out, inner]: [usize; 3],
        bias: bool,
    ) -> LoadResult<SwitchLinear> {
        let stacked = self.at("switch_mlp").at(name);
        if stacked.has("weight") || !self.index("experts", 0).at(name).has("weight") {
            return self
                .at("switch_mlp")
                .stacked(name, [n_experts, out, inner], bias);
        }
        let place = |e| self.index("experts", e);
        let one = |e| place(e).untold().linear(name, [out, inner], bias);
        if stacked.is_tapped() {
            return stacked.told_experts(n_experts, one);
        }
        let singles = (0..n_experts).map(one).collect::<LoadResult<Vec<_>>>()?;
        let adapter = stacked.experts_adapter([n_experts, out, inner], |e| place(e).at(name))?;
        Ok(SwitchLinear {
            adapter,
            ..stack(&singles)?
        })
    }

    /// The linear layers of all experts in one stack `name`, `[E, out, in]`.
    pub fn stacked(&self, name: &str, shape: [usize; 3], bias: bool) -> LoadResult<SwitchLinear> {
        let here = self.at(name);
        Ok(SwitchLinear {
            weight: here.factor(&shape)?,
            bias: here.bias(&shape[..2], bias)?,
            adapter: here.stack_adapter(shape)?,
        })
    }

    /// An embedding `name` of `vocab` rows of `d_model` features.
    pub fn embedding(&self, name: &str, vocab: usize, d_model: usize) -> LoadResult<Embedding> {
        let here = self.at(name);
        let table = here.factor(&[vocab, d_model])?;
        let adapter = here.embedding_adapter([vocab, d_model], &table)?;
        Ok(Embedding::new(table)
            .with_rows_as(self.activations())
            .with_adapter(adapter))
    }

    /// A root-mean-square norm `name` over `d` features.
    pub fn rms_norm(&self, name: &str, d: usize, eps: f32) -> LoadResult<RmsNorm> {
        let weight = self.at(name).tensor("weight", &[d])?;
        Ok(RmsNorm::new(Some(weight), eps))
    }

    /// The same where the stored scale is 1 less than the scale (Gemma's way).
    pub fn rms_norm_plus_one(&self, name: &str, d: usize, eps: f32) -> LoadResult<RmsNorm> {
        let stored = self.at(name).tensor("weight", &[d])?;
        let weight = stored.add(&stored.scalar_like(1.0)?)?;
        weight.eval()?;
        Ok(RmsNorm::new(Some(weight), eps))
    }

    /// The same where mlx-lm's converter adds the 1, in the stored type, and not the model.
    pub fn rms_norm_one_less(&self, name: &str, d: usize, eps: f32) -> LoadResult<RmsNorm> {
        let add_one = |stored: Array| stored.add(&stored.scalar_like(1.0)?);
        let weight = self.at(name).tensor_with("weight", &[d], add_one)?;
        Ok(RmsNorm::new(Some(weight), eps))
    }

    /// A mean and variance norm `name` over `d` features; with `bias` it has an offset.
    pub fn layer_norm(&self, name: &str, d: usize, eps: f32, bias: bool) -> LoadResult<LayerNorm> {
        let here = self.at(name);
        let weight = here.tensor("weight", &[d])?;
        Ok(LayerNorm::new(Some(weight), here.bias(&[d], bias)?, eps))
    }

    /// A depthwise convolution `name` of `channels` filters of length `kernel`, stored as
    /// `[C, K, 1]` or, as PyTorch has it, `[C, 1, K]`.
    pub fn conv1d(
        &self,
        name: &str,
        channels: usize,
        kernel: usize,
        bias: bool,
    ) -> LoadResult<Conv1d> {
        let here = self.at(name);
        let torch = [channels, 1, kernel];
        let untold = here.untold();
        let weight = match here.shape_of("weight") {
            Some(shape) if kernel > 1 && shape == torch => {
                let weight = untold.tensor("weight", &torch)?.swap_last()?.contiguous()?;
                weight.eval()?;
                weight
            }
            _ => untold.tensor("weight", &[channels, kernel, 1])?,
        };
        let weight = here.told("weight", weight)?;
        Ok(Conv1d::new(weight, here.bias(&[channels], bias)?)?)
    }

    /// The gate, up and down projections of all experts as transformers lays them out under
    /// `experts`: `gate_up_proj [E, 2 d_ff, d_model]`, gate first, and `down_proj
    /// [E, d_model, d_ff]`; older files have the last two dimensions of both the other way round.
    pub fn fused_experts(
        &self,
        [n_experts, d_ff, d_model]: [usize; 3],
    ) -> LoadResult<[SwitchLinear; 3]> {
        let here = self.at("experts").untold();
        let both = d_ff.saturating_mul(2);
        let stored = [
            ("gate_up_proj", [n_experts, both, d_model]),
            ("down_proj", [n_experts, d_model, d_ff]),
        ];
        // No sizes make both of them fit both ways round.
        let turned = stored.iter().all(|&(name, [e, out, inner])| {
            let shape = here.shape_of(name);
            shape.is_some_and(|shape| shape == [e, inner, out])
        });
        let [gate_up, down] = stored.map(|(name, [e, out, inner])| -> LoadResult<Matrix> {
            Ok(Matrix::from(match turned {
                true => here.tensor(name, &[e, inner, out])?.swap_last()?,
                false => here.tensor(name, &[e, out, inner])?,
            }))
        });
        let (gate_up, down) = (gate_up?, down?);
        let into = self.at("switch_mlp");
        let part = |name: &str, weight: Matrix, [out, inner]: [usize; 2]| {
            let adapter = into.at(name).stack_adapter([n_experts, out, inner])?;
            let part = SwitchLinear {
                adapter,
                ..SwitchLinear::plain(weight)
            };
            into.told_stack(name, part)
        };
        Ok([
            part("gate_proj", gate_up.rows(0, d_ff)?, [d_ff, d_model])?,
            part("up_proj", gate_up.rows(d_ff, both)?, [d_ff, d_model])?,
            part("down_proj", down.rows(0, d_model)?, [d_model, d_ff])?,
        ])
    }

    /// Tells of the experts that `one` reads, one by one, as of the stack here.
    fn told_experts(
        &self,
        n_experts: usize,
        one: impl Fn(usize) -> LoadResult<Linear>,
    ) -> LoadResult<SwitchLinear> {
        let mut biases = Vec::new();
        let mut parts = (0..n_experts).map(|e| {
            let Linear { weight, bias, .. } = one(e)?;
            biases.extend(bias);
            Ok(weight)
        });
        let weight = self.told_parts(Some(n_experts), &mut parts)?;
        let biases: Vec<&Array> = biases.iter().collect();
        let bias = match biases.as_slice() {
            [] => None,
            all => Some(self.told("bias", Array::stack(all, 0)?)?),
        };
        let stacked = |part: &Array| {
            let shape = part.shape().into_iter();
            Array::zeros(
                &std::iter::once(n_experts as i32)
                    .chain(shape)
                    .collect::<Vec<_>>(),
                part.dtype(),
            )
        };
        Ok(SwitchLinear {
            weight: weight.map(stacked)?,
            bias,
            adapter: None,
        })
    }
}

/// Layers of one shape and kind as one.
fn stack(singles: &[Linear]) -> LoadResult<SwitchLinear> {
    let join = |parts: &[&Array]| {
        let joined = Array::stack(parts, 0)?;
        joined.eval()?;
        Ok(joined)
    };
    let weights: Vec<&Matrix> = singles.iter().map(|single| &single.weight).collect();
    let weight = Matrix::joined(&weights, join)?.ok_or_else(|| {
        super::LoadError::Unsupported(
            "experts of one layer are quantized in different ways; expected one way".into(),
        )
    })?;
    let biases: Vec<&Array> = singles.iter().filter_map(|s| s.bias.as_ref()).collect();
    Ok(SwitchLinear {
        weight,
        bias: (!biases.is_empty()).then(|| join(&biases)).transpose()?,
        adapter: None,
    })
}
