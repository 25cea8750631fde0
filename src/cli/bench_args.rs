//! The command line of `pensieve bench`.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::args::{Model, at_least};
use crate::bench::make::{GROUPS, WIDTHS};
use crate::bench::row::Format;
use crate::bench::shapes::{SHAPES, Shape};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Bench {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub grid: GridArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: Output,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: Model,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub make: Make,
}

/// What is measured: every combination of these.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Grid")]
pub struct GridArgs {
    /// Tokens of a prompt; a list is measured one after the other
    #[arg(long, default_value = "128", value_name = "TOKENS", value_delimiter = ',', value_parser = at_least::<1>)]
    pub prompt: Vec<usize>,
    /// Tokens of an answer, 2 or more
    #[arg(long = "gen", default_value = "64", value_name = "TOKENS", value_delimiter = ',', value_parser = at_least::<2>)]
    pub answer: Vec<usize>,
    /// Tokens before the prompt that an earlier request of the same stream had too
    #[arg(long, default_value = "0", value_name = "TOKENS", value_delimiter = ',', value_parser = at_least::<0>)]
    pub depth: Vec<usize>,
    /// Requests at a time, each with a prompt of its own
    #[arg(long, default_value = "1", value_name = "N", value_delimiter = ',', value_parser = at_least::<1>)]
    pub concurrency: Vec<usize>,
    /// Measurements of each combination
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = at_least::<1>)]
    pub reps: usize,
    /// Runs of each combination before them, which do not count
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_least::<0>)]
    pub warm_up: usize,
    /// Makes other prompts
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
}

/// How rows are printed.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Print one JSON object a row, each measure with its percentiles
    #[arg(long, group = "format")]
    pub json: bool,
    /// Print comma-separated values, medians
    #[arg(long, group = "format")]
    pub csv: bool,
    /// Print a Markdown table, medians
    #[arg(long, group = "format")]
    pub markdown: bool,
}

impl Output {
    /// The format chosen.
    pub fn format(&self) -> Format {
        match (self.json, self.csv, self.markdown) {
            (true, ..) => Format::Json,
            (_, true, _) => Format::Csv,
            (.., true) => Format::Markdown,
            _ => Format::Table,
        }
    }
}

/// A model to be made.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Making a model")]
pub struct Make {
    /// Write a checkpoint of this published shape with random weights to --out, and end
    #[arg(long, value_name = "SHAPE", value_parser = shapes(), requires = "out")]
    pub make_model: Option<Shape>,
    /// The directory to write the model to; new or empty
    #[arg(long, value_name = "DIR", requires = "make_model")]
    pub out: Option<PathBuf>,
    /// Bits of a weight: 16 (bfloat16), or 2, 3, 4, 5, 6 or 8, packed in groups
    #[arg(long, default_value_t = 4, value_name = "BITS", value_parser = bits)]
    pub bits: usize,
    /// Packed weights that share a scale: 32, 64 or 128
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = group_size)]
    pub group_size: usize,
    /// Makes other weights
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub weights_seed: u64,
    /// Layers, to shrink the model [default: the shape's own]
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub layers: Option<usize>,
    /// Rows of the embedding, to shrink the model, 259 or more [default: the shape's own]
    #[arg(long, value_name = "N", value_parser = at_least::<{ crate::bench::make::LEAST_VOCAB }>)]
    pub vocab_size: Option<usize>,
}

fn shapes() -> impl TypedValueParser<Value = Shape> {
    let names = SHAPES
        .iter()
        .map(|shape| PossibleValue::new(shape.name).help(shape.about));
    PossibleValuesParser::new(names)
        .try_map(|name| Shape::named(&name).ok_or("there is no such shape"))
}

fn bits(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bits) if bits == 16 || WIDTHS.contains(&bits) => Ok(bits),
        _ => Err(format!("expected 16 or one of {WIDTHS:?}")),
    }
}

fn group_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if GROUPS.contains(&size) => Ok(size),
        _ => Err(format!("expected one of {GROUPS:?}")),
    }
}
