//! The command line as it is typed. Flags have mlx-lm's names where it has them.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::exit;
use super::hub_args::{Doctor, List, Pull, Rm, Show};
use crate::checkpoint::Source;
use crate::engine::WeightsMode;
use crate::mlx::{Device, Dtype};

/// Runs language models in MLX format on this machine: one answer, a dialogue, or an HTTP server.
#[derive(Debug, Parser)]
#[command(name = "pensieve", version, about, after_help = exit::TABLE)]
pub struct Args {
    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as
    /// `pensieve::server=debug`
    #[arg(long, global = true, env = "PENSIEVE_LOG", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer one prompt and end
    #[command(after_help = exit::TABLE)]
    Run(Run),
    /// Hold a dialogue at the terminal
    #[command(after_help = exit::TABLE)]
    Chat(Chat),
    /// Serve an OpenAI-compatible API over HTTP
    #[command(after_help = exit::TABLE)]
    Serve(Serve),
    /// Measure how well a model foretells a text
    #[command(after_help = exit::TABLE)]
    Perplexity(Perplexity),
    /// Merge a fine-tune into its model: write a checkpoint that needs no adapter
    #[command(after_help = exit::TABLE)]
    Fuse(Fuse),
    /// Check a model's files: settings, names and shapes, and every number for NaN and infinity
    #[command(after_help = exit::TABLE)]
    Check(Check),
    /// Fetch models from the hub, or list some that fit this machine
    #[command(after_help = exit::TABLE)]
    Pull(Pull),
    /// List the models on this machine
    #[command(after_help = exit::TABLE)]
    List(List),
    /// Say what a model on this machine is, and what memory it takes
    #[command(after_help = exit::TABLE)]
    Show(Show),
    /// Remove models from this machine
    #[command(after_help = exit::TABLE)]
    Rm(Rm),
    /// Look for what keeps models from being fetched, loaded or served here, and say what to do
    #[command(after_help = exit::TABLE)]
    Doctor(Doctor),
}

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The prompt; `-` or nothing reads it from standard input
    pub prompt: Option<String>,
    /// Print one JSON object with the answer and the measurements instead of the text
    #[arg(long)]
    pub json: bool,
    /// Give the prompt to the model as it is, without the chat template
    #[arg(long)]
    pub ignore_chat_template: bool,
    /// Do not print the line of measurements
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: Model,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub answer: Answer,
}

/// Arguments of `chat`.
#[derive(Debug, clap::Args)]
pub struct Chat {
    /// Print the line of measurements after each answer
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: Model,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub answer: Answer,
}

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The address to listen on; anything but loopback can be reached by others
    #[arg(long, default_value = "127.0.0.1", env = "PENSIEVE_HOST")]
    pub host: String,
    /// The port to listen on; 0 picks a free one, which is then printed
    #[arg(long, default_value_t = 8080, env = "PENSIEVE_PORT")]
    pub port: u16,
    /// The name the model is served under; the directory's name if not given
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// Requests that may wait beside the running ones; further ones get 503
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub queue: usize,
    /// Requests that run at a time
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub max_running: usize,
    /// Connections at a time
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub max_connections: usize,
    /// The largest request body, in bytes
    #[arg(long, default_value_t = 16 * 1024 * 1024, value_name = "BYTES")]
    pub max_body: usize,
    /// A further name by which clients may address this server (may be repeated; `*` is any)
    #[arg(long, value_name = "HOST")]
    pub allowed_host: Vec<String>,
    /// Seconds that running requests get to finish after SIGINT or SIGTERM
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub drain: u64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: Model,
}

/// Arguments of `perplexity`.
#[derive(Debug, clap::Args)]
pub struct Perplexity {
    /// The text, in UTF-8. Of a file `*.jsonl` each line is an object with a `text`, and each text
    /// ends with the end-of-sequence token, as in mlx-lm
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Tokens of a sequence: the text is cut into such, and what is left over is not used
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = at_least::<2>)]
    pub sequence_length: usize,
    /// Sequences, from the text's beginning [default: all]
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub num_samples: Option<usize>,
    /// Sequences that are computed at a time
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = at_least::<1>)]
    pub batch_size: usize,
    /// Tokens of each sequence that are computed in one go
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = at_least::<1>)]
    pub prefill_step_size: usize,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub load: Load,
}

/// Arguments of `fuse`.
#[derive(Debug, clap::Args)]
pub struct Fuse {
    /// The directory to write to; new or empty
    #[arg(long, value_name = "DIR")]
    pub save_path: PathBuf,
    /// Leave nothing packed; otherwise changed matrices are packed again as they were
    #[arg(long)]
    pub dequantize: bool,
    /// What to compute on
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub files: Files,
}

/// Arguments of `check`. Ends with code 1 if a number is not finite.
#[derive(Debug, clap::Args)]
pub struct Check {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub files: Files,
}

/// Reads a count of `LEAST` or more.
fn at_least<const LEAST: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n >= LEAST => Ok(n),
        _ => Err(format!("expected a whole number, {LEAST} or more")),
    }
}

/// Which model, and which fine-tune of it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct Files {
    /// A directory with config.json, *.safetensors and tokenizer.json; or ORG/NAME, ORG/NAME@REVISION or
    /// a short name (see `pensieve pull`), fetched if it is not here; or `builtin:tiny`
    #[arg(
        long,
        env = "PENSIEVE_MODEL",
        default_value = "builtin:tiny",
        value_name = "DIR|NAME"
    )]
    pub model: String,
    /// A directory with adapter_config.json and adapters.safetensors, as mlx-lm writes them: a
    /// fine-tune of the model, LoRA, DoRA or full
    #[arg(long, value_name = "DIR")]
    pub adapter_path: Option<PathBuf>,
}

/// Which model, and how its weights are loaded.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct Load {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub files: Files,
    /// What to compute on
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// What becomes of the weights in memory
    #[arg(long, value_enum, default_value_t = WeightsChoice::Auto)]
    pub weights: WeightsChoice,
    /// Look at every number of the weights first, as `pensieve check` does, and stop at NaN or
    /// infinity
    #[arg(long)]
    pub check: bool,
}

/// Which model, and how it is loaded and run.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct Model {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub load: Load,
    /// Tokens of prompt and answer together; the model's own limit if not given
    #[arg(long, value_name = "TOKENS")]
    pub context_length: Option<usize>,
    /// Tokens that are computed in one go, of prompts and answers together
    #[arg(long, default_value_t = 512, value_name = "TOKENS")]
    pub prefill_step_size: usize,
}

/// How an answer is generated.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Answer")]
pub struct Answer {
    /// Tokens of the answer at most
    #[arg(long, short, default_value_t = 512, value_name = "N")]
    pub max_tokens: usize,
    /// 0 takes the likeliest token each time; higher is more varied [default: the model's own]
    #[arg(long, visible_alias = "temperature", value_name = "T")]
    pub temp: Option<f32>,
    /// Keep the likeliest tokens that together reach this probability [default: the model's own]
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Keep this many of the likeliest tokens; 0 keeps all [default: the model's own]
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,
    /// Drop tokens less likely than this share of the likeliest [default: the model's own]
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,
    /// Makes a random answer repeatable; drawn anew if not given
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// End the answer before this text (may be repeated)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// The system message
    #[arg(long, value_name = "TEXT")]
    pub system_prompt: Option<String>,
    /// Variables for the chat template, as a JSON object, such as '{"enable_thinking": false}'
    #[arg(long, value_name = "JSON")]
    pub chat_template_config: Option<String>,
}

/// `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// The GPU if there is one
    Auto,
    /// The processor
    Cpu,
    /// Metal or CUDA
    Gpu,
}

impl DeviceChoice {
    /// The device, if one was asked for.
    pub fn device(self) -> Option<Device> {
        match self {
            DeviceChoice::Auto => None,
            DeviceChoice::Cpu => Some(Device::Cpu),
            DeviceChoice::Gpu => Some(Device::Gpu),
        }
    }
}

/// `--weights`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WeightsChoice {
    /// What is fastest: as stored on a GPU, float32 on a CPU
    Auto,
    /// As stored; quantized ones stay so
    Keep,
    /// Unpacked, 32 bits each
    Float32,
    /// Unpacked, 16 bits each
    Float16,
    /// Unpacked, 16 bits each
    Bfloat16,
}

impl WeightsChoice {
    /// As the engine calls it.
    pub fn mode(self) -> WeightsMode {
        match self {
            WeightsChoice::Auto => WeightsMode::Auto,
            WeightsChoice::Keep => WeightsMode::Keep,
            WeightsChoice::Float32 => WeightsMode::Dense(Dtype::Float32),
            WeightsChoice::Float16 => WeightsMode::Dense(Dtype::Float16),
            WeightsChoice::Bfloat16 => WeightsMode::Dense(Dtype::Bfloat16),
        }
    }
}

impl Files {
    /// The fine-tune's place, if one is given.
    pub fn adapters(&self) -> Option<Source> {
        self.adapter_path.clone().map(Source::Directory)
    }

    /// The directory's path, for what is not built in.
    pub fn directory(&self) -> PathBuf {
        PathBuf::from(&self.model)
    }
}
