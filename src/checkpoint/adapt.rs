//! Putting a fine-tune over the modules that a model loads: each low-rank change goes to the module
//! of its name, each whole tensor in the place of the model's.

use super::adapter::{Adapters, FineTune};
use super::index::Tensor;
use super::weights::{Cursor, LoadError, LoadResult, Weights};
use crate::mlx::Array;
use crate::nn::{Adapter, Matrix};

impl Weights<'_> {
    /// The fine-tune's tensor in the place of the model's `name`, which has this shape.
    pub(super) fn replaced(&self, name: &str, shape: &[usize]) -> LoadResult<Option<Tensor<'_>>> {
        let (Some(adapters), Some(own)) = (self.adapters, self.adapter_names.get(name)) else {
            return Ok(None);
        };
        let Some(tensor) = adapters.replaces(own) else {
            return Ok(None);
        };
        self.adapters_used.borrow_mut().insert(name.into());
        if tensor.shape != shape {
            let problem = format!("{own} is {:?}, the model's is {shape:?}", tensor.shape);
            return Err(misfit(adapters, problem));
        }
        Ok(Some(tensor))
    }

    /// Fails if a tensor of the fine-tune was left over.
    pub(super) fn finish_adapters(&self) -> LoadResult<()> {
        let Some(adapters) = self.adapters else {
            return Ok(());
        };
        let used = self.adapters_used.borrow();
        let left = self.adapter_names.iter();
        let left: Vec<&str> = left
            .filter(|(name, _)| !used.contains(*name))
            .map(|(_, own)| own.as_str())
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        let problem = format!(
            "{} tensors are of no module that this model has, or not of this kind of fine-tune, \
             such as {}",
            left.len(),
            left[..left.len().min(3)].join(", ")
        );
        Err(misfit(adapters, problem))
    }
}

/// The parts of a low-rank change as they are stored.
struct LowRank<'a> {
    adapters: &'a Adapters,
    a: Array,
    b: Array,
    scale: f32,
    dora: bool,
}

impl Cursor<'_> {
    /// Fails if a full fine-tune has the tensor `last` here, which is converted as it is loaded: the
    /// fine-tune's is converted already.
    pub(super) fn refuse_replaced(&self, last: &str) -> LoadResult<()> {
        let name = self.name(last);
        let own = self.weights.adapter_names.get(&name);
        match self.weights.adapters {
            Some(adapters) if own.is_some_and(|own| adapters.replaces(own).is_some()) => {
                let problem = format!(
                    "{name} is stored in another form in the model, which is not in MLX format: \
                     convert that first (pensieve convert)"
                );
                Err(misfit(adapters, problem))
            }
            _ => Ok(()),
        }
    }

    /// The change to a linear layer here: `lora_a [in, r]`, `lora_b [r, out]`, perhaps `m [out]`.
    pub(super) fn linear_adapter(
        &self,
        [out, inner]: [usize; 2],
        weight: &Matrix,
    ) -> LoadResult<Option<Adapter>> {
        let Some(parts) = self.low_rank(|rank| [vec![inner, rank], vec![rank, out]])? else {
            return Ok(None);
        };
        let adapter = Adapter::new(parts.a.clone(), parts.b.clone(), parts.scale);
        self.attach(self.with_magnitude(adapter, &parts, out, weight)?)
    }

    /// The change to an embedding here: `lora_a [vocab, r]`, `lora_b [r, d]`, perhaps `m [vocab]`.
    pub(super) fn embedding_adapter(
        &self,
        [vocab, d]: [usize; 2],
        table: &Matrix,
    ) -> LoadResult<Option<Adapter>> {
        let Some(parts) = self.low_rank(|rank| [vec![vocab, rank], vec![rank, d]])? else {
            return Ok(None);
        };
        let adapter = Adapter::new(parts.b.swap_last()?, parts.a.swap_last()?, parts.scale);
        self.attach(self.with_magnitude(adapter, &parts, vocab, table)?)
    }

    /// The change to a stack of experts here, `[E, out, in]`.
    pub fn stack_adapter(&self, shape: [usize; 3]) -> LoadResult<Option<Adapter>> {
        self.experts_adapter(shape, |_| self.clone())
    }

    /// The change to a stack of experts here: `lora_a [E, r, in]`, `lora_b [E, out, r]`. `place` says
    /// where an expert's matrix is, which is here too if all lie in one tensor.
    pub(super) fn experts_adapter(
        &self,
        [n_experts, out, inner]: [usize; 3],
        place: impl Fn(usize) -> Self,
    ) -> LoadResult<Option<Adapter>> {
        let shapes = |rank| [vec![n_experts, rank, inner], vec![n_experts, out, rank]];
        let Some(parts) = self.low_rank(shapes)? else {
            return Ok(None);
        };
        if parts.dora {
            let problem = format!(
                "{} is a stack of experts, for which there is no DoRA",
                self.path()
            );
            return Err(misfit(parts.adapters, problem));
        }
        let adapter = Adapter::new(parts.a.swap_last()?, parts.b.swap_last()?, parts.scale);
        if place(0).path() == self.path() {
            return self.attach(adapter);
        }
        self.keep(&adapter.arrays())?;
        for e in 0..n_experts {
            place(e).plan(&adapter.expert(e)?);
        }
        Ok(Some(adapter))
    }

    /// What the fine-tune says of the module here, of the shapes that `shapes` gives for its rank.
    fn low_rank(
        &self,
        shapes: impl Fn(usize) -> [Vec<usize>; 2],
    ) -> LoadResult<Option<LowRank<'_>>> {
        let Some(adapters) = self.weights.adapters else {
            return Ok(None);
        };
        let FineTune::LowRank { scale, rank, dora } = adapters.kind() else {
            return Ok(None);
        };
        let [a_shape, b_shape] = shapes(rank);
        let a = self.adapter_tensor(adapters, "lora_a", &a_shape)?;
        let b = self.adapter_tensor(adapters, "lora_b", &b_shape)?;
        match (a, b) {
            (None, None) => Ok(None),
            (Some(a), Some(b)) => Ok(Some(LowRank {
                adapters,
                a,
                b,
                scale,
                dora,
            })),
            _ => {
                let path = self.path();
                let problem = format!("{path} has one of lora_a and lora_b, expected both");
                Err(misfit(adapters, problem))
            }
        }
    }

    fn with_magnitude(
        &self,
        adapter: Adapter,
        parts: &LowRank,
        out: usize,
        weight: &Matrix,
    ) -> LoadResult<Adapter> {
        if !parts.dora {
            return Ok(adapter);
        }
        let Some(learned) = self.adapter_tensor(parts.adapters, "m", &[out])? else {
            let problem = format!("{} has no m, which DoRA needs", self.path());
            return Err(misfit(parts.adapters, problem));
        };
        let rows = |start: i32, end: i32| weight.rows(start as usize, end as usize)?.unpacked();
        Ok(adapter.with_magnitude(learned, rows)?)
    }

    /// Evaluates the change to the module here, counts it and notes it.
    fn attach(&self, adapter: Adapter) -> LoadResult<Option<Adapter>> {
        self.keep(&adapter.arrays())?;
        self.plan(&adapter);
        Ok(Some(adapter))
    }

    /// Notes the change for who wants to merge it.
    fn plan(&self, adapter: &Adapter) {
        let mut modules = self.weights.modules.borrow_mut();
        match modules.iter_mut().rfind(|m| m.path == self.path()) {
            Some(module) => module.adapter = Some(adapter.clone()),
            None => self.weights.apart.borrow_mut().push(self.path().into()),
        }
    }

    /// The fine-tune's tensor `last` of the module here.
    fn adapter_tensor(
        &self,
        adapters: &Adapters,
        last: &str,
        expected: &[usize],
    ) -> LoadResult<Option<Array>> {
        let name = self.name(last);
        let own = self.weights.adapter_names.get(&name);
        let Some(tensor) = own.and_then(|own| adapters.tensors().get(own)) else {
            return Ok(None);
        };
        let float = tensor.dtype.array_dtype().is_some_and(|d| d.is_float());
        if !float || tensor.shape != expected {
            let problem = format!(
                "{} is {} {:?}, expected floats {expected:?} by the model and the rank of \
                 adapter_config.json",
                tensor.name, tensor.dtype, tensor.shape
            );
            return Err(misfit(adapters, problem));
        }
        self.weights.adapters_used.borrow_mut().insert(name);
        Ok(Some(tensor.array()?))
    }
}

fn misfit(adapters: &Adapters, problem: String) -> LoadError {
    LoadError::Adapter {
        file: adapters.file().into(),
        problem,
    }
}
