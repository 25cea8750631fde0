//! What is told of how products with packed weights are computed: text and numbers, no arrays.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::mlx::{self, Device};
use crate::nn::plan::{self, Residence};

/// How products with packed weights are computed on an engine's thread, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explained {
    /// What the device calls itself.
    pub device: String,
    /// The version of MLX.
    pub mlx: String,
    /// Where what was measured is kept.
    pub file: Option<PathBuf>,
    /// What the products of a step take with weights that stay packed and with weights that were unpacked
    /// as they were loaded, where that was measured.
    pub residence: Option<Residence>,
    /// The products.
    pub choices: Vec<Choice>,
}

/// How one product is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The matrix, and the type of what it is multiplied with.
    pub matrix: String,
    /// Rows of what it is multiplied with, up to less than twice as many.
    pub rows: usize,
    /// The way that is taken; none for products that were measured only to decide how weights are kept.
    pub way: Option<&'static str>,
    /// Seconds by the ways' names, as far as they were measured.
    pub seconds: BTreeMap<String, f64>,
}

impl Explained {
    /// What this thread has planned by now.
    pub(super) fn now(device: Device, residence: Option<Residence>) -> Self {
        let choices = plan::lines().into_iter().map(|line| Choice {
            matrix: line.shape.to_string(),
            rows: line.rows,
            way: line.way.map(mlx::Way::name),
            seconds: line.times,
        });
        Self {
            device: mlx::device_name(device).ok().flatten().unwrap_or_default(),
            mlx: mlx::version().unwrap_or_default(),
            file: plan::file(),
            residence,
            choices: choices.collect(),
        }
    }
}
