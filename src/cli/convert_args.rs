//! Arguments of `convert`. Flags have mlx-lm's names too.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::PossibleValuesParser;

use super::args::DeviceChoice;
use super::size;
use crate::mlx::{Dtype, QuantMode};

/// Arguments of `convert`.
#[derive(Debug, clap::Args)]
pub struct Convert {
    /// What to convert: a directory, ORG/NAME, ORG/NAME@REVISION or a short name (see `pensieve pull`),
    /// fetched if it is not here, or `builtin:tiny`
    #[arg(long, alias = "hf-path", value_name = "DIR|NAME")]
    pub model: String,
    /// The directory to write to
    #[arg(
        long,
        alias = "mlx-path",
        value_name = "DIR",
        default_value = "mlx_model"
    )]
    pub out: PathBuf,
    /// Replace what is at the place of --out
    #[arg(long)]
    pub overwrite: bool,
    /// Pack the matrices
    #[arg(short, long)]
    pub quantize: bool,
    /// How they are packed
    #[arg(long, value_enum, default_value_t = Mode::Affine, requires = "quantize")]
    pub q_mode: Mode,
    /// Bits of a number: 2, 3, 4, 5, 6 or 8 for affine (4 if not given); the other modes have one width
    #[arg(long, value_name = "BITS", requires = "quantize")]
    pub q_bits: Option<usize>,
    /// Numbers that share a scale: 32, 64 or 128 for affine (64 if not given); the other modes have one size
    #[arg(long, value_name = "SIZE", requires = "quantize")]
    pub q_group_size: Option<usize>,
    /// Two widths: the higher one for what matters more; with affine
    #[arg(long, value_name = "RECIPE", requires = "quantize",
          value_parser = PossibleValuesParser::new(["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"]))]
    pub quant_predicate: Option<String>,
    /// Unpack what is packed, to pack it anew
    #[arg(long, requires = "quantize")]
    pub requantize: bool,
    /// Unpack what is packed
    #[arg(short, long, conflicts_with = "quantize")]
    pub dequantize: bool,
    /// The type of what is not packed; what config.json names if not given
    #[arg(long, value_enum)]
    pub dtype: Option<Type>,
    /// The most bytes of a file, such as 5GiB
    #[arg(long, value_name = "SIZE", value_parser = size::bytes, default_value = "5GiB")]
    pub max_shard_size: usize,
    /// What to compute on
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// mlx-lm's; no model needs it here
    #[arg(long, hide = true)]
    pub trust_remote_code: bool,
    /// mlx-lm's
    #[arg(long, hide = true, value_name = "REPO")]
    pub upload_repo: Option<String>,
}

/// `--q-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// A scale and an offset for each group
    Affine,
    /// 4-bit floats, a power of two for 32 of them
    Mxfp4,
    /// 4-bit floats, an 8-bit float for 16 of them
    Nvfp4,
    /// 8-bit floats, a power of two for 32 of them
    Mxfp8,
}

impl From<Mode> for QuantMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Affine => QuantMode::Affine,
            Mode::Mxfp4 => QuantMode::Mxfp4,
            Mode::Nvfp4 => QuantMode::Nvfp4,
            Mode::Mxfp8 => QuantMode::Mxfp8,
        }
    }
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Type {
    /// 16 bits, of which 5 are exponent
    Float16,
    /// 16 bits, of which 8 are exponent
    Bfloat16,
    /// 32 bits
    Float32,
}

impl From<Type> for Dtype {
    fn from(dtype: Type) -> Self {
        match dtype {
            Type::Float16 => Dtype::Float16,
            Type::Bfloat16 => Dtype::Bfloat16,
            Type::Float32 => Dtype::Float32,
        }
    }
}
