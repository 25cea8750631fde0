//! Feed-forward layers.

use super::{Activation, Linear};
use crate::checkpoint::{Cursor, LoadResult};
use crate::mlx::{Array, Result, packed_mlp};

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
}

impl GatedMlp {
    /// `gate_proj`, `up_proj` and `down_proj` under `w`, with SiLU as the activation.
    pub fn load(w: &Cursor, d_model: usize, d_ff: usize, bias: bool) -> LoadResult<Self> {
        Ok(Self {
            gate_proj: w.linear("gate_proj", [d_ff, d_model], bias)?,
            up_proj: w.linear("up_proj", [d_ff, d_model], bias)?,
            down_proj: w.linear("down_proj", [d_model, d_ff], bias)?,
            activation: Activation::Silu,
        })
    }

    /// The same with `gate_up_proj`, the first two in one matrix, gate first.
    pub fn load_fused(w: &Cursor, d_model: usize, d_ff: usize) -> LoadResult<Self> {
        let [gate_proj, up_proj] = w.split_linear("gate_up_proj", [d_ff, d_ff], d_model, false)?;
        Ok(Self {
            gate_proj,
            up_proj,
            down_proj: w.linear("down_proj", [d_model, d_ff], false)?,
            activation: Activation::Silu,
        })
    }

    /// The same of a file that has the first two in one matrix, which MLX's format has apart.
    pub fn load_parted(w: &Cursor, d_model: usize, d_ff: usize) -> LoadResult<Self> {
        let mlp = Self::load_fused(&w.untold(), d_model, d_ff)?;
        Ok(Self {
            gate_proj: w.told_linear("gate_proj", mlp.gate_proj)?,
            up_proj: w.told_linear("up_proj", mlp.up_proj)?,
            down_proj: w.told_linear("down_proj", mlp.down_proj)?,
            activation: mlp.activation,
        })
    }

    /// `x [.., d_model]` to the same shape.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        if let Some(fed) = self.at_once(x) {
            return fed;
        }
        let gate = self.gate_proj.forward(x)?;
        let up = self.up_proj.forward(x)?;
        self.down_proj.forward(&self.activation.gated(&gate, &up)?)
    }

    /// As one operation, where there is one.
    fn at_once(&self, x: &Array) -> Option<Result<Array>> {
        let gate = self.gate_proj.packed()?;
        let (up, down) = (self.up_proj.packed()?, self.down_proj.packed()?);
        match self.activation {
            Activation::Silu => packed_mlp(x, gate, up, down),
            _ => None,
        }
    }
}
