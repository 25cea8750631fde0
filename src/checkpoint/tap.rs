//! Listening in on a load: what a model reads, as mlx-lm lays it out.
//!
//! A model file says by its reads what a checkpoint in MLX format has: which matrices there are, under
//! which names, and which parameters are no matrices. What mlx-lm's layout has apart and a file has in
//! one, or the other way round, the cursor puts right before it tells. So a converter needs no tables of
//! its own.
//!
//! Invariant: every parameter of the model is told once, in the same order at each load. What a model gets
//! while it is tapped is zeros, so that it holds no weights.

use super::weights::{Cursor, LoadResult, Rename, Weights};
use crate::mlx::Array;
use crate::nn::{Linear, Matrix, SwitchLinear};

/// Whether mlx-lm packs a matrix when it is asked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// As it is asked to.
    #[default]
    Usual,
    /// It is no layer of its own there: never.
    Never,
    /// What chooses experts, and other matrices that few bits would spoil: with 8 bits, by 64.
    EightBits,
}

impl Packing {
    /// [`Packing::EightBits`] if it holds, else the usual way.
    pub fn eight_bits_if(holds: bool) -> Self {
        match holds {
            true => Packing::EightBits,
            false => Packing::Usual,
        }
    }

    /// [`Packing::Never`] if it holds, else the usual way.
    pub fn never_if(holds: bool) -> Self {
        match holds {
            true => Packing::Never,
            false => Packing::Usual,
        }
    }
}

/// Who is told.
pub trait Tap {
    /// A matrix `[.., out, in]` at `path`; of a stack `[E, out, in]` perhaps one after the other, which
    /// `count` says.
    ///
    /// # Errors
    /// What reading the parts says, and what is done with them.
    fn matrix(
        &self,
        path: &str,
        packing: Packing,
        count: Option<usize>,
        parts: &mut dyn Iterator<Item = LoadResult<Matrix>>,
    ) -> LoadResult<()>;

    /// Any other parameter. `keeps_type` says that mlx-lm never casts it.
    ///
    /// # Errors
    /// What is done with it.
    fn tensor(&self, name: &str, keeps_type: bool, array: &Array) -> LoadResult<()>;
}

/// What mlx-lm's layout of a family is like, beside what the model's reads say.
#[derive(Default)]
pub(super) struct Written {
    names: Vec<Rename>,
    packing: Option<fn(&str) -> Packing>,
    keeps_type: Option<fn(&str) -> bool>,
}

impl Written {
    fn name(&self, name: String) -> String {
        let rules = self.names.iter();
        rules.fold(name, |name, (from, to)| name.replacen(from, to, 1))
    }
}

impl<'a> Weights<'a> {
    /// Tells `tap` what the model reads.
    pub fn tap(&mut self, tap: &'a dyn Tap) {
        self.tap = Some(tap);
    }

    /// Says by which rules, applied in turn, the names that the model asks for become mlx-lm's. An empty
    /// first part is found at the beginning.
    pub fn written_as(&mut self, rules: &[Rename]) {
        self.written.names.extend_from_slice(rules);
    }

    /// Says which matrices mlx-lm does not pack in the usual way, by its names for them.
    pub fn packed_by(&mut self, packing: fn(&str) -> Packing) {
        self.written.packing = Some(packing);
    }

    /// Says which parameters mlx-lm never casts, by its names for them.
    pub fn keeping_type(&mut self, keeps: fn(&str) -> bool) {
        self.written.keeps_type = Some(keeps);
    }
}

impl Cursor<'_> {
    /// The same place; what is read through this cursor is not told, because it is laid out otherwise in
    /// MLX's format: what is made of it is told by [`Cursor::told_matrix`] and its like.
    pub fn untold(&self) -> Self {
        Self {
            untold: true,
            ..self.clone()
        }
    }

    /// Who is to be told of what is read here.
    fn listener(&self) -> Option<&dyn Tap> {
        self.weights.tap.filter(|_| !self.untold)
    }

    /// Whether somebody is told of what is read here.
    pub(super) fn is_tapped(&self) -> bool {
        self.listener().is_some()
    }

    fn written(&self, name: String) -> String {
        self.weights.written.name(name)
    }

    /// Tells of the parameter `last` here, and gives back what the model is to hold.
    pub fn told(&self, last: &str, array: Array) -> LoadResult<Array> {
        let Some(tap) = self.listener() else {
            return Ok(array);
        };
        let name = self.written(self.name(last));
        let keeps_type = self.weights.written.keeps_type;
        tap.tensor(&name, keeps_type.is_some_and(|keeps| keeps(&name)), &array)?;
        nothing(&array)
    }

    /// The same of the matrix here.
    pub fn told_matrix(&self, matrix: Matrix) -> LoadResult<Matrix> {
        match self.is_tapped() {
            false => Ok(matrix),
            true => self.told_parts(None, &mut std::iter::once(Ok(matrix))),
        }
    }

    /// The same of a stack of matrices, one after the other if `count` says how many. What comes back is
    /// the first of them.
    pub(super) fn told_parts(
        &self,
        count: Option<usize>,
        parts: &mut dyn Iterator<Item = LoadResult<Matrix>>,
    ) -> LoadResult<Matrix> {
        let mut first = None;
        let mut held = parts.map(|part| {
            let part = part?.by_rows()?;
            if first.is_none() {
                first = Some(match &part {
                    Matrix::Dense(weight) => nothing(weight)?.into(),
                    Matrix::Quant(packed) => Matrix::Quant(packed.map(zeros)?),
                });
            }
            Ok(part)
        });
        if let Some(tap) = self.listener() {
            let path = self.written(self.path().to_owned());
            let packing = self.weights.written.packing;
            let packing = packing.map_or(Packing::Usual, |packing| packing(&path));
            tap.matrix(&path, packing, count, &mut held)?;
        }
        first.ok_or_else(|| {
            super::LoadError::Unsupported(format!("{} is a stack of no matrix", self.path()))
        })
    }

    /// The same of a layer `name`, its matrix and its bias.
    pub fn told_linear(&self, name: &str, layer: Linear) -> LoadResult<Linear> {
        let (weight, bias) = self.at(name).told_both(layer.weight, layer.bias)?;
        Ok(Linear {
            weight,
            bias,
            ..layer
        })
    }

    /// The same of a stack of layers `name`, its matrix and its bias.
    pub fn told_stack(&self, name: &str, layer: SwitchLinear) -> LoadResult<SwitchLinear> {
        let (weight, bias) = self.at(name).told_both(layer.weight, layer.bias)?;
        Ok(SwitchLinear {
            weight,
            bias,
            ..layer
        })
    }

    fn told_both(
        &self,
        weight: Matrix,
        bias: Option<Array>,
    ) -> LoadResult<(Matrix, Option<Array>)> {
        let weight = self.told_matrix(weight)?;
        let bias = bias.map(|bias| self.told("bias", bias)).transpose()?;
        Ok((weight, bias))
    }
}

fn zeros(like: &Array) -> crate::mlx::Result<Array> {
    Array::zeros(&like.shape(), like.dtype())
}

/// Zeros in the place of what was told.
fn nothing(array: &Array) -> LoadResult<Array> {
    Ok(zeros(array)?)
}
