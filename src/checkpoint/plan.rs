//! How a model's matrices lie in its checkpoint: what loading one found out about the files.

use std::collections::BTreeMap;

use super::Scheme;
use crate::mlx::Dtype;
use crate::nn::Adapter;

/// A matrix `[.., out, in]` of the model, and the tensors that hold it.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its place as the model has it, such as `model.layers.3.mlp.up_proj`.
    pub path: String,
    /// The matrix's shape, unpacked.
    pub shape: Vec<usize>,
    /// How it is packed; none where it is not.
    pub scheme: Option<Scheme>,
    /// The type that it unpacks to, if it is packed.
    pub unpacks_to: Option<Dtype>,
    /// The stored name of its values.
    pub weight: String,
    /// The stored name of its scales, if it is packed.
    pub scales: Option<String>,
    /// The stored name of the groups' offsets, if its packing has such.
    pub biases: Option<String>,
    /// What a fine-tune changes of it.
    pub adapter: Option<Adapter>,
}

/// A checkpoint as a model reads it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every matrix that the model took.
    pub modules: Vec<Module>,
    /// The paths of matrices that a fine-tune changes, but that no tensor holds by itself in a form
    /// that could be written again.
    pub apart: Vec<String>,
    /// Stored names by the names that the model asks for.
    pub names: BTreeMap<String, String>,
    /// A fine-tune's own names by the names that the model asks for.
    pub adapter_names: BTreeMap<String, String>,
}
