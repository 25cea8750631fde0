//! The command line as it is typed. Flags have mlx-lm's names where it has them.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand, ValueEnum};

use super::bench_args::Bench;
use super::convert_args::Convert;
use super::form::FormArgs;
use super::hub_args::{Doctor, List, Pull, Rm, Show};
use super::manual::{Completions, Man};
use super::sampling::Sampling;
use super::{exit, size};
use crate::checkpoint::Source;
use crate::engine::{MemoryLimit, WeightsMode};
use crate::mlx::{Device, Dtype};
use crate::nn::plan::Effort;
use crate::text::{reasoning, tools};

/// Runs language models in MLX format on this machine: one answer, a dialogue, or an HTTP server.
#[derive(Debug, Parser)]
#[command(name = "pensieve", version, about, after_help = exit::TABLE)]
pub struct Args {
    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as
    /// `pensieve::server=debug`
    #[arg(long, global = true, env = "PENSIEVE_LOG", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How log lines are written
    #[arg(long, global = true, env = "PENSIEVE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
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
    /// Serve OpenAI's and Anthropic's APIs over HTTP
    ///
    /// Each option is also read from the environment, as PENSIEVE_ and its name in capitals, and
    /// from the file of --config, under its name. The command line counts before the environment,
    /// and that before the file.
    #[command(after_help = exit::TABLE)]
    Serve(Serve),
    /// Measure how well a model foretells a text
    #[command(after_help = exit::TABLE)]
    Perplexity(Perplexity),
    /// Merge a fine-tune into its model: write a checkpoint that needs no adapter
    #[command(after_help = exit::TABLE)]
    Fuse(Fuse),
    /// Write a checkpoint in MLX format from one in Hugging Face's layout, or from another one: quantized,
    /// unpacked, or cast
    #[command(after_help = exit::TABLE)]
    Convert(Convert),
    /// Check a model's files: settings, names and shapes, and every number for NaN and infinity
    #[command(after_help = exit::TABLE)]
    Check(Check),
    /// Measure speed, or make a model with random weights to measure with
    #[command(after_help = exit::TABLE)]
    Bench(Box<Bench>),
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
    /// Print a shell's completions of this command line
    Completions(Completions),
    /// Write the manual pages
    #[command(hide = true)]
    Man(Man),
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
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: FormArgs,
}

/// Arguments of `chat`.
#[derive(Debug, clap::Args)]
pub struct Chat {
    /// Print the line of measurements after each answer
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reuse: Reuse,
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
    /// Requests that run at a time [default: 32 on a GPU, 8 on a CPU]
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub max_running: Option<usize>,
    /// Tokens of an answer that memory is reserved for before its request runs; a longer answer goes
    /// on as long as there is memory, and else ends with `length`
    #[arg(long, default_value_t = 4096, value_name = "TOKENS")]
    pub answer_reserve: usize,
    /// Report a step that takes longer, and answer /health with 503 while it does; 0 never does
    /// [default: 120 on a GPU, 600 on a CPU]
    #[arg(long, value_name = "SECONDS")]
    pub watchdog: Option<u64>,
    /// End with code 70 when a step takes longer than --watchdog
    #[arg(long)]
    pub watchdog_exit: bool,
    /// A further name that requests may call the model by (may be repeated; `*` is any)
    #[arg(long, value_name = "NAME")]
    pub model_alias: Vec<String>,
    /// The field of OpenAI's messages that reasoning is given in
    #[arg(long, default_value = "reasoning_content", value_parser = ["reasoning_content", "reasoning"], value_name = "NAME")]
    pub reasoning_field: String,
    /// Refuse requests with fields that nobody knows, instead of ignoring those
    #[arg(long)]
    pub strict: bool,
    /// A TOML file with options by their names, such as `port = 8080`
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// A key that requests must have (may be repeated); visible to other users of this machine, so
    /// better in the environment or a file
    #[arg(
        long,
        env = "PENSIEVE_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = "Safety"
    )]
    pub api_key: Vec<String>,
    /// A file with such keys, one a line
    #[arg(long, value_name = "FILE", help_heading = "Safety")]
    pub api_key_file: Option<PathBuf>,
    /// A further name by which clients may address this server (may be repeated; `*` is any)
    #[arg(long, value_name = "HOST", help_heading = "Safety")]
    pub allowed_host: Vec<String>,
    /// An origin whose web pages may use this server, such as https://ui.example (may be repeated;
    /// `*` is any)
    #[arg(long, value_name = "ORIGIN", help_heading = "Safety")]
    pub allowed_origin: Vec<String>,
    /// Connections at a time; for a further one the one that is idle longest has to leave
    #[arg(
        long,
        default_value_t = 1024,
        value_name = "N",
        help_heading = "Limits"
    )]
    pub max_connections: usize,
    /// The largest request body, in bytes
    #[arg(long, default_value_t = 16 * 1024 * 1024, value_name = "BYTES", help_heading = "Limits")]
    pub max_body: usize,
    /// The largest head of a request, in bytes
    #[arg(long, default_value_t = 32 * 1024, value_name = "BYTES", help_heading = "Limits", value_parser = at_least::<8192>)]
    pub max_head: usize,
    /// Seconds for a request's head to arrive, and for an idle connection's next one
    #[arg(
        long,
        default_value_t = 30,
        value_name = "SECONDS",
        help_heading = "Limits"
    )]
    pub header_timeout: u64,
    /// Seconds for a request's body to arrive
    #[arg(
        long,
        default_value_t = 60,
        value_name = "SECONDS",
        help_heading = "Limits"
    )]
    pub body_timeout: u64,
    /// Seconds for a client to take at least something of its answer
    #[arg(
        long,
        default_value_t = 30,
        value_name = "SECONDS",
        help_heading = "Limits"
    )]
    pub write_timeout: u64,
    /// Seconds of silence in a stream after which a sign of life is sent
    #[arg(long, default_value_t = 15, value_name = "SECONDS", help_heading = "Limits", value_parser = clap::value_parser!(u64).range(1..))]
    pub keep_alive: u64,
    /// Seconds that running requests get to finish after SIGINT or SIGTERM
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub drain: u64,
    /// Leave out of system messages what this regular expression matches, or its groups if it has any,
    /// so that text that changes with each request does not keep its prompt from being reused (may
    /// be repeated). Known such lines are left out anyway: see docs/prefix-cache.md
    #[arg(long, value_name = "REGEX")]
    pub volatile: Vec<String>,
    /// Give system messages to the model as they are
    #[arg(long, conflicts_with = "volatile")]
    pub keep_volatile: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reuse: Reuse,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub notations: Notations,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: Model,
}

/// How answers are read; found in the model's files if not given.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Answers")]
pub struct Notations {
    /// The notation of tool calls in the model's text
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(tools::FORMATS.iter().map(|known| known.name)))]
    pub tool_call_parser: Option<String>,
    /// The marks of reasoning in the model's text; `none` leaves it in the text
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(
        reasoning::MARKS.iter().map(|known| known.name).chain(["none"])))]
    pub reasoning_parser: Option<String>,
}

/// Arguments of `perplexity`.
#[derive(Debug, clap::Args)]
pub struct Perplexity {
    /// The text, in UTF-8. Of a file `*.jsonl` each line is an object with a `text`, and each text
    /// ends with the end-of-sequence token, as in mlx-lm
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Score the last answer of each dialogue alone, given what is before it. Each line of the file is
    /// an object with `messages`, and perhaps `tools`, or with `prompt` and `completion`, as mlx-lm's
    /// fine-tuning takes them
    #[arg(long, conflicts_with = "sequence_length")]
    pub mask_prompt: bool,
    /// Tokens of a sequence: the text is cut into such, and what is left over is not used
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = at_least::<2>)]
    pub sequence_length: usize,
    /// Sequences or dialogues, from the file's beginning [default: all]
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
pub(super) fn at_least<const LEAST: usize>(text: &str) -> Result<usize, String> {
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
    /// How much memory all may take, weights and everything else: a size such as 12GB or 8GiB, or a
    /// share of what the device has, such as 75%
    #[arg(long, value_name = "SIZE|PERCENT", value_parser = size::memory)]
    pub memory: Option<MemoryLimit>,
    /// How products with quantized weights are computed on a CPU
    #[arg(long, value_enum, default_value_t = PrecisionChoice::Auto)]
    pub cpu_precision: PrecisionChoice,
    /// How it is decided which of the ways of computing a product with quantized weights is taken
    #[arg(long, value_enum, default_value_t = PlanChoice::Auto)]
    pub plan: PlanChoice,
    /// Threads for products on a CPU; as many as it has cores if not given
    #[arg(long, value_name = "N")]
    pub cpu_threads: Option<NonZeroUsize>,
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
    /// Tokens that are computed in one go, of prompts and answers together; while answers are in
    /// progress 512 at most [default: 512; on a GPU with CUDA and
    /// 32 GiB or more 2048, for models whose layers all have full attention]
    #[arg(long, value_name = "TOKENS", value_parser = at_least::<1>)]
    pub prefill_step_size: Option<usize>,
    /// Do not run anything before the first request comes, which then waits for kernels to be compiled
    #[arg(long)]
    pub no_warm_up: bool,
    /// Have the system keep the weights in memory, them and nothing else (macOS 15 and later)
    #[arg(long)]
    pub wire_weights: bool,
}

/// What is kept of earlier requests.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct Reuse {
    /// Memory for what earlier prompts and answers left, so that those that begin alike need not be
    /// computed again: bytes, or a number with K, M, G; 0 keeps nothing [default: a quarter of the
    /// memory that is left beside the weights]
    #[arg(long, value_name = "SIZE", value_parser = size::or_none)]
    pub prefix_cache: Option<usize>,
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
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sampling: Sampling,
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
    /// What is fastest: on a CPU matrices as stored and the rest in float32; on a GPU unpacked if
    /// products are measured to be faster so and it takes a quarter of the memory at most, else as stored
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

/// `--cpu-precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionChoice {
    /// Fast for weights of up to 6 bits, which are rounded more than that themselves
    Auto,
    /// With activations rounded to 8 bits
    Fast,
    /// With activations in float32
    Exact,
}

impl PrecisionChoice {
    /// The widest weights, in bits, that products are computed the fast way with.
    pub fn fast_bits(self) -> u8 {
        match self {
            PrecisionChoice::Auto => 6,
            PrecisionChoice::Fast => 8,
            PrecisionChoice::Exact => 0,
        }
    }
}

/// `--plan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanChoice {
    /// By measuring them on the device, once: what was measured is kept for the next start
    Auto,
    /// By measuring all of them anew, also those whose kernels take minutes to compile
    Measure,
    /// By rules, without measuring
    Rule,
}

impl PlanChoice {
    /// As the engine calls it.
    pub fn effort(self) -> Effort {
        match self {
            PlanChoice::Auto => Effort::Missing,
            PlanChoice::Measure => Effort::Everything,
            PlanChoice::Rule => Effort::Rule,
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
