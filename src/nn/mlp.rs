//! Feed-forward layers.

use super::{Activation, Joined, Linear, plan};
use crate::checkpoint::{Cursor, LoadResult};
use crate::mlx::{Array, Quantized, Result, packed_mlp};

/// `down(activation(gate(x)) · up(x))` (Shazeer, 2020).
#[derive(Clone, Debug)]
pub struct GatedMlp {
    /// `[d_ff, d_model]`.
    pub gate_proj: Linear,
    /// `[d_ff, d_model]`.
    pub up_proj: Linear,
    /// `[d_model, d_ff]`.
    pub down_proj: Linear,
    /// What the gate goes through.
    pub activation: Activation,
    /// The first two as one layer.
    gate_up: Option<Joined<2>>,
}

impl GatedMlp {
    /// `gate_proj`, `up_proj` and `down_proj` under `w`, with SiLU as the activation.
    pub fn load(w: &Cursor, d_model: usize, d_ff: usize, bias: bool) -> LoadResult<Self> {
        let gate_up = [
            w.linear("gate_proj", [d_ff, d_model], bias)?,
            w.linear("up_proj", [d_ff, d_model], bias)?,
        ];
        let down_proj = w.linear("down_proj", [d_model, d_ff], bias)?;
        Ok(Self::new(gate_up, down_proj)?)
    }

    /// From its projections, with SiLU as the activation.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn new(
        [mut gate_proj, mut up_proj]: [Linear; 2],
        down_proj: Linear,
    ) -> crate::mlx::Result<Self> {
        Ok(Self {
            gate_up: Joined::of([&mut gate_proj, &mut up_proj])?,
            gate_proj,
            up_proj,
            down_proj,
            activation: Activation::Silu,
        })
    }

    /// The same with `gate_up_proj`, the first two in one matrix, gate first.
    pub fn load_fused(w: &Cursor, d_model: usize, d_ff: usize) -> LoadResult<Self> {
        let gate_up = w.split_linear("gate_up_proj", [d_ff, d_ff], d_model, false)?;
        let down_proj = w.linear("down_proj", [d_model, d_ff], false)?;
        Ok(Self::new(gate_up, down_proj)?)
    }

    /// The same of a file that has the first two in one matrix, which MLX's format has apart.
    pub fn load_parted(w: &Cursor, d_model: usize, d_ff: usize) -> LoadResult<Self> {
        let mlp = Self::load_fused(&w.untold(), d_model, d_ff)?;
        Ok(Self {
            gate_proj: w.told_linear("gate_proj", mlp.gate_proj)?,
            up_proj: w.told_linear("up_proj", mlp.up_proj)?,
            down_proj: w.told_linear("down_proj", mlp.down_proj)?,
            ..mlp
        })
    }

    /// `x [.., d_model]` to the same shape.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        if let Some(fed) = self.at_once(x) {
            return fed;
        }
        let joined = self.gate_up.as_ref().map(|both| both.forward(x));
        let [gate, up] = match joined.transpose()?.flatten() {
            Some(both) => both,
            None => [self.gate_proj.forward(x)?, self.up_proj.forward(x)?],
        };
        self.down_proj.forward(&self.activation.gated(&gate, &up)?)
    }

    /// As one operation, where there is one.
    fn at_once(&self, x: &Array) -> Option<Result<Array>> {
        let weights = self.packed()?;
        let [gate, up, down] = weights;
        let made = packed_mlp(x, gate, up, down)?;
        Some(plan::note(x, weights).and(made))
    }

    /// Its matrices, if they are packed and all there is, and the activation is SiLU.
    pub(super) fn packed(&self) -> Option<[&Quantized; 3]> {
        let (gate, up) = (self.gate_proj.packed()?, self.up_proj.packed()?);
        let packed = [gate, up, self.down_proj.packed()?];
        matches!(self.activation, Activation::Silu).then_some(packed)
    }
}
