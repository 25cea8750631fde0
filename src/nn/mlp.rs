//! The gated feed-forward layer.

use std::cell::OnceCell;

use super::Linear;
use crate::checkpoint::{Cursor, LoadResult};
use crate::mlx::{Array, Compiled, Device, Result, current_device};

/// `down(silu(gate(x)) * up(x))` (Shazeer, 2020).
#[derive(Debug)]
pub struct SwiGlu {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl SwiGlu {
    /// `gate_proj`, `up_proj` and `down_proj` under `w`.
    pub fn load(w: &Cursor, d_model: usize, d_ff: usize, bias: bool) -> LoadResult<Self> {
        Ok(Self {
            gate_proj: w.linear("gate_proj", [d_ff, d_model], bias)?,
            up_proj: w.linear("up_proj", [d_ff, d_model], bias)?,
            down_proj: w.linear("down_proj", [d_model, d_ff], bias)?,
        })
    }

    /// `x [.., d_model]` to the same shape.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let gate = self.gate_proj.forward(x)?;
        let up = self.up_proj.forward(x)?;
        self.down_proj.forward(&silu_mul(&gate, &up)?)
    }

    /// Bytes of the weights in memory.
    pub fn nbytes(&self) -> usize {
        self.gate_proj.nbytes() + self.up_proj.nbytes() + self.down_proj.nbytes()
    }
}

thread_local! {
    static COMPILED: OnceCell<Compiled> = const { OnceCell::new() };
}

/// `silu(gate) * up`, fused into one kernel on a GPU.
///
/// On a CPU MLX compiles by calling a C++ compiler at run time, which a user's machine may lack.
pub fn silu_mul(gate: &Array, up: &Array) -> Result<Array> {
    fn plain(inputs: &[Array]) -> Result<Array> {
        let (gate, up) = (&inputs[0], &inputs[1]);
        gate.multiply(&gate.sigmoid()?)?.multiply(up)
    }
    if current_device() != Some(Device::Gpu) {
        return plain(&[gate.clone(), up.clone()]);
    }
    COMPILED.with(|cell| {
        if cell.get().is_none() {
            // Another value cannot have been set in between: the cell is this thread's own.
            let _ = cell.set(Compiled::new(plain)?);
        }
        match cell.get() {
            Some(compiled) => compiled.call(&[gate, up]),
            None => plain(&[gate.clone(), up.clone()]),
        }
    })
}
