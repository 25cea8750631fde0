//! Activations, alone and as gates.
//!
//! On a GPU a gate is one compiled kernel.

use std::f32::consts::{PI, SQRT_2};

use crate::mlx::{Array, Device, Elementwise, Result, current_device, fused, silu_gate};

/// The two constants of gpt-oss's activation.
const OAI_ALPHA: f32 = 1.702;
const OAI_LIMIT: f32 = 7.0;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)` (Elfwing et al., 2017).
    Silu,
    /// `x · Φ(x)`, by the error function (Hendrycks and Gimpel, 2016).
    Gelu,
    /// The same by a hyperbolic tangent.
    GeluTanh,
    /// `max(x, 0)²` (So et al., 2021).
    Relu2,
    /// `g · sigmoid(1.702 g)` with `g = min(x, 7)`. As a gate it multiplies `clip(up, -7, 7) + 1`
    /// (gpt-oss; OpenAI, 2025).
    SwigluOai,
}

impl Activation {
    /// Of each element of `x`.
    pub fn apply(self, x: &Array) -> Result<Array> {
        match self {
            Activation::Silu => x.multiply(&x.sigmoid()?),
            Activation::Gelu => {
                // Divided, not multiplied by the inverse: in bfloat16 their rounding differs.
                let (one, root) = (x.scalar_like(1.0)?, x.scalar_like(SQRT_2)?);
                let twice_phi = x.divide(&root)?.erf()?.add(&one)?;
                x.multiply(&twice_phi)?.scale(0.5)
            }
            Activation::GeluTanh => {
                let cube = x.multiply(&x.square()?)?.scale(0.044_715)?;
                let inner = x.add(&cube)?.scale((2.0 / PI).sqrt())?;
                let one = x.scalar_like(1.0)?;
                x.multiply(&inner.tanh()?.add(&one)?)?.scale(0.5)
            }
            Activation::Relu2 => x.maximum(&x.scalar_like(0.0)?)?.square(),
            Activation::SwigluOai => {
                let gate = x.minimum(&x.scalar_like(OAI_LIMIT)?)?;
                gate.multiply(&gate.scale(OAI_ALPHA)?.sigmoid()?)
            }
        }
    }

    /// `self(gate) · up` (Shazeer, 2020).
    pub fn gated(self, gate: &Array, up: &Array) -> Result<Array> {
        if current_device() != Some(Device::Gpu) {
            if self == Activation::Silu
                && let Some(gated) = silu_gate(gate, up)
            {
                return gated;
            }
            return self.gate(gate, up);
        }
        let [gated] = fused(self.gate_function(), &[gate, up])?;
        Ok(gated)
    }

    fn gate(self, gate: &Array, up: &Array) -> Result<Array> {
        let gate = self.apply(gate)?;
        match self {
            Activation::SwigluOai => {
                let up = up.minimum(&up.scalar_like(OAI_LIMIT)?)?;
                let up = up.maximum(&up.scalar_like(-OAI_LIMIT)?)?;
                gate.multiply(&up.add(&up.scalar_like(1.0)?)?)
            }
            _ => gate.multiply(up),
        }
    }

    /// A plain function each, because that is what MLX compiles.
    fn gate_function(self) -> Elementwise<1> {
        fn gate(activation: Activation, inputs: &[&Array]) -> Result<[Array; 1]> {
            Ok([activation.gate(inputs[0], inputs[1])?])
        }
        match self {
            Activation::Silu => |inputs| gate(Activation::Silu, inputs),
            Activation::Gelu => |inputs| gate(Activation::Gelu, inputs),
            Activation::GeluTanh => |inputs| gate(Activation::GeluTanh, inputs),
            Activation::Relu2 => |inputs| gate(Activation::Relu2, inputs),
            Activation::SwigluOai => |inputs| gate(Activation::SwigluOai, inputs),
        }
    }
}

/// `log(1 + exp(x))` of each element.
pub fn softplus(x: &Array) -> Result<Array> {
    x.logaddexp(&x.scalar_like(0.0)?)
}
