//! Low-rank changes to a weight matrix: LoRA (Hu et al., 2021) and DoRA (Liu et al., 2024), computed
//! as mlx-lm's `tuner/lora.py` and `tuner/dora.py` do.
//!
//! One form serves linear layers, stacks of experts and embeddings: the matrix `W [.., out, in]`
//! changes by `scale · (down · up)ᵀ`. DoRA then gives each row of the sum a learned length.

use crate::mlx::{Array, Dtype, Result};

/// A change of rank `r` to a matrix. Boxed, because most layers have none.
#[derive(Clone, Debug)]
pub struct Adapter(Box<Change>);

#[derive(Clone, Debug)]
struct Change {
    /// `[.., in, r]`.
    down: Array,
    /// `[.., r, out]`.
    up: Array,
    scale: f32,
    magnitude: Option<Magnitude>,
}

/// DoRA's lengths of rows.
#[derive(Clone, Debug)]
struct Magnitude {
    /// The learned ones, `[out]`.
    learned: Array,
    /// These over the lengths that the changed rows have, `[out]`.
    factor: Array,
}

/// Rows whose lengths are computed at a time, so that a large matrix is not held twice in float32.
const ROWS: i32 = 4096;

impl Adapter {
    /// LoRA from `down [.., in, r]` and `up [.., r, out]`.
    pub fn new(down: Array, up: Array, scale: f32) -> Self {
        Self(Box::new(Change {
            down,
            up,
            scale,
            magnitude: None,
        }))
    }

    /// DoRA: the rows get the lengths `learned [out]`. `rows` gives the rows `start..end` of the
    /// matrix that is changed, `[end - start, in]`, unpacked.
    pub fn with_magnitude(
        mut self,
        learned: Array,
        rows: impl Fn(i32, i32) -> Result<Array>,
    ) -> Result<Self> {
        let out = learned.dim(0)?;
        let mut lengths = Vec::new();
        for start in (0..out).step_by(ROWS as usize) {
            let end = out.min(start + ROWS);
            let rows = rows(start, end)?.astype(Dtype::Float32)?;
            let changed = self.columns(start, end)?.changed(&rows)?;
            let length = lengths_of_rows(&changed)?;
            length.eval()?;
            lengths.push(length);
        }
        let found = Array::concatenate(&lengths.iter().collect::<Vec<_>>(), 0)?;
        let factor = learned.divide(&found)?;
        factor.eval()?;
        self.0.magnitude = Some(Magnitude { learned, factor });
        Ok(self)
    }

    /// The arrays that it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        let lengths = self.0.magnitude.iter();
        let lengths = lengths.flat_map(|m| [&m.learned, &m.factor]);
        [&self.0.down, &self.0.up]
            .into_iter()
            .chain(lengths)
            .collect()
    }

    /// What becomes of `y = x · Wᵀ`, `[.., out]`, of `x [.., in]`; a bias is added after it.
    pub fn linear(&self, y: &Array, x: &Array) -> Result<Array> {
        let change = x.matmul(&self.0.down)?.matmul(&self.0.up)?;
        let y = y.add(&change.scale(self.0.scale)?.astype(x.dtype())?)?;
        match &self.0.magnitude {
            Some(m) => m.factor.astype(x.dtype())?.multiply(&y),
            None => Ok(y),
        }
    }

    /// What becomes of the experts' answers `y [.., 1, out]` to `x [.., 1, in]`; as
    /// [`Array::gather_mm`] has `indices` and `sorted`.
    pub fn switch(&self, y: &Array, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        let low = x.gather_mm(&self.0.down, indices, sorted)?;
        let change = low.gather_mm(&self.0.up, indices, sorted)?;
        y.add(&change.scale(self.0.scale)?.astype(x.dtype())?)
    }

    /// What becomes of the rows `y [.., in]` of the matrix that `tokens [..]` (uint32) names.
    pub fn rows(&self, y: &Array, tokens: &Array) -> Result<Array> {
        let up = self.0.up.swap_last()?.take(tokens, 0)?; // [.., r]
        let change = up.matmul(&self.0.down.swap_last()?)?;
        let y = y.add(&change.scale(self.0.scale)?.astype(y.dtype())?)?;
        match &self.0.magnitude {
            Some(m) => {
                let factor = m.factor.take(tokens, 0)?.expand_dims(-1)?;
                y.multiply(&factor.astype(y.dtype())?)
            }
            None => Ok(y),
        }
    }

    /// The changed matrix of `weight [.., out, in]`, in its type: what `fuse` stores.
    pub fn merged(&self, weight: &Array) -> Result<Array> {
        let changed = self.changed(weight)?.astype(weight.dtype())?;
        let Some(m) = &self.0.magnitude else {
            return Ok(changed);
        };
        let factor = m.learned.divide(&lengths_of_rows(&changed)?)?;
        changed
            .multiply(&factor.expand_dims(-1)?)?
            .astype(weight.dtype())
    }

    /// The part that concerns the features `start..end` of `out`.
    pub fn columns(&self, start: i32, end: i32) -> Result<Self> {
        let cut = |array: &Array| {
            let part = array.slice_axis(-1, start, end)?.contiguous()?;
            part.eval()?;
            Ok(part)
        };
        let magnitude = match &self.0.magnitude {
            None => None,
            Some(m) => Some(Magnitude {
                learned: cut(&m.learned)?,
                factor: cut(&m.factor)?,
            }),
        };
        Ok(Self(Box::new(Change {
            down: self.0.down.clone(),
            up: cut(&self.0.up)?,
            scale: self.0.scale,
            magnitude,
        })))
    }

    /// What is left when the matrix `W [out, in]` becomes `change(W)`, which treats columns alike.
    pub fn map_rows(&self, change: impl Fn(&Array) -> Result<Array>) -> Result<Self> {
        let lengths = |array: &Array| change(&array.expand_dims(-1)?)?.squeeze(-1);
        let magnitude = self.0.magnitude.as_ref().map(|m| {
            Ok(Magnitude {
                learned: lengths(&m.learned)?,
                factor: lengths(&m.factor)?,
            })
        });
        Ok(Self(Box::new(Change {
            down: self.0.down.clone(),
            up: change(&self.0.up.swap_last()?.contiguous()?)?.swap_last()?,
            scale: self.0.scale,
            magnitude: magnitude.transpose()?,
        })))
    }

    /// The part of one expert of a stack.
    pub fn expert(&self, e: usize) -> Result<Self> {
        let one = |array: &Array| array.slice_axis(0, e as i32, e as i32 + 1)?.squeeze(0);
        Ok(Self::new(
            one(&self.0.down)?,
            one(&self.0.up)?,
            self.0.scale,
        ))
    }

    /// `weight [.., out, in]` and the change together, without new lengths. The change takes the
    /// weight's type before it is added, as in mlx-lm.
    fn changed(&self, weight: &Array) -> Result<Array> {
        let up = self.0.up.swap_last()?; // [.., out, r]
        let change = up
            .scale(self.0.scale)?
            .matmul(&self.0.down.swap_last()?)?
            .astype(weight.dtype())?;
        weight.add(&change)
    }
}

/// Euclidean lengths of the rows of `[out, in]`, float32 `[out]`.
fn lengths_of_rows(matrix: &Array) -> Result<Array> {
    let squares = matrix.astype(Dtype::Float32)?.square()?;
    squares.sum_axis(-1, false)?.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::{Device, Runtime};

    /// Numbers that are nowhere alike.
    fn numbers(shape: &[i32], seed: i32) -> Array {
        let n = shape.iter().product::<i32>();
        let values: Vec<f32> = (0..n).map(|i| ((i * 7 + seed) as f32).sin()).collect();
        Array::from_slice(&values, shape).unwrap()
    }

    fn times(weight: &Array, x: &Array) -> Array {
        x.matmul(&weight.swap_last().unwrap()).unwrap()
    }

    fn same(a: &Array, b: &Array) {
        assert!(a.max_difference(b).unwrap() < 1e-5);
    }

    /// A matrix `[5, 4]` and a change of rank 2 with lengths of rows.
    fn dora() -> (Array, Adapter) {
        let weight = numbers(&[5, 4], 1);
        let lora = Adapter::new(numbers(&[4, 2], 2), numbers(&[2, 5], 3), 1.5);
        let rows = weight.clone();
        let dora = lora
            .with_magnitude(numbers(&[5], 9), |start, end| {
                rows.slice_axis(0, start, end)
            })
            .unwrap();
        (weight, dora)
    }

    #[test]
    fn the_merged_matrix_does_what_matrix_and_change_do() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let (weight, dora) = dora();
        let mut lora = dora.clone();
        lora.0.magnitude = None;
        let x = numbers(&[3, 4], 4);
        let tokens = Array::from_slice(&[4u32, 0, 2], &[3]).unwrap();
        for adapter in [lora, dora] {
            let merged = adapter.merged(&weight).unwrap();
            let y = adapter.linear(&times(&weight, &x), &x).unwrap();
            same(&y, &times(&merged, &x));
            let rows = weight.take(&tokens, 0).unwrap();
            let rows = adapter.rows(&rows, &tokens).unwrap();
            same(&rows, &merged.take(&tokens, 0).unwrap());
        }
    }

    #[test]
    fn merged_rows_have_the_learned_lengths() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let (weight, dora) = dora();
        let lengths = lengths_of_rows(&dora.merged(&weight).unwrap()).unwrap();
        same(&lengths, &numbers(&[5], 9).abs().unwrap());
    }

    #[test]
    fn a_part_changes_its_features_alone() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let (weight, dora) = dora();
        let x = numbers(&[3, 4], 4);
        let whole = dora.linear(&times(&weight, &x), &x).unwrap();
        let rows = weight.slice_axis(0, 1, 4).unwrap();
        let part = dora.columns(1, 4).unwrap();
        let part = part.linear(&times(&rows, &x), &x).unwrap();
        same(&part, &whole.slice_axis(-1, 1, 4).unwrap());
    }

    #[test]
    fn each_expert_has_its_own_change() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let weight = numbers(&[3, 5, 4], 1);
        let stack = Adapter::new(numbers(&[3, 4, 2], 2), numbers(&[3, 2, 5], 3), 0.5);
        let x = numbers(&[2, 1, 4], 4);
        let indices = Array::from_slice(&[2u32, 0], &[2]).unwrap();
        let y = x
            .gather_mm(&weight.swap_last().unwrap(), &indices, false)
            .unwrap();
        let y = stack.switch(&y, &x, &indices, false).unwrap(); // [2, 1, 5]
        let merged = stack.merged(&weight).unwrap();
        for (i, e) in [2, 0].into_iter().enumerate() {
            let row = |array: &Array, i: i32| {
                let row = array.slice_axis(0, i, i + 1).unwrap();
                row.squeeze(0).unwrap()
            };
            let (x, y) = (row(&x, i as i32), row(&y, i as i32));
            same(&y, &times(&row(&merged, e), &x));
            let alone = stack.expert(e as usize).unwrap();
            same(&alone.merged(&row(&weight, e)).unwrap(), &row(&merged, e));
        }
    }
}
