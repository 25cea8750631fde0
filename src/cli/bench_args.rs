//! The command line of `pensieve bench`.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::args::{Model, at_least};
use crate::bench::make::{GROUPS, WIDTHS};
use crate::bench::row::Format;
use crate::bench::shapes::{SHAPES, Shape};
use crate::bench::suite::{DIALOGUES, Dialogue};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Bench {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub grid: GridArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: TargetArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub scenario: ScenarioArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub explain: Explain,
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

/// What is measured instead of the model in this process, or beside it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Target")]
pub struct TargetArgs {
    /// Measure the server at this address, which has OpenAI's API, instead of --model: for instance
    /// http://127.0.0.1:8080/v1. Prompts are random letters then, about as many tokens as asked for
    #[arg(long, value_name = "URL", conflicts_with = "model")]
    pub url: Option<String>,
    /// What that server calls the model [default: the first it lists]
    #[arg(long, value_name = "NAME")]
    pub url_model: Option<String>,
    /// The key to give to servers
    #[arg(
        long,
        value_name = "KEY",
        env = "PENSIEVE_BENCH_API_KEY",
        hide_env_values = true
    )]
    pub api_key: Option<String>,
    /// Measure this too, in turn with the other, and print the ratios with their 95% ranges:
    /// `mlx-lm` on the same --model, `llama.cpp` on the file --gguf, or the address of a server
    #[arg(long, value_name = "mlx-lm|llama.cpp|URL", conflicts_with = "scenario")]
    pub against: Option<String>,
    /// The GGUF file that llama.cpp gets
    #[arg(long, value_name = "FILE", requires = "against")]
    pub gguf: Option<PathBuf>,
    /// The Python that has mlx-lm or llama-cpp-python
    #[arg(
        long,
        default_value = "python3",
        env = "PENSIEVE_PYTHON",
        value_name = "FILE"
    )]
    pub python: String,
}

/// A scenario instead of a grid.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Scenarios")]
pub struct ScenarioArgs {
    /// Measure this scenario instead of the grid; ends with code 1 if it misses its bar
    #[arg(long, value_enum, value_name = "NAME")]
    pub scenario: Option<Scenario>,
    /// Run every scenario of dialogues instead of the grid; ends with code 1 if a target is missed
    #[arg(long, value_enum, value_name = "NAME", conflicts_with_all = ["scenario", "against"])]
    pub suite: Option<Suite>,
    /// Tokens of the scenario's long prompt [default: 16384 for admission, 8192 for prefix, 64 for form,
    /// 20000 for agent, 16000 for long_context, less where the context is smaller]
    #[arg(long, value_name = "TOKENS", value_parser = at_least::<64>)]
    pub long_prompt: Option<usize>,
}

/// What is to be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// The grid.
    Grid,
    /// A scenario with a bar of its own.
    Bar(Bar),
    /// Dialogues, against the product's targets.
    Dialogues(Vec<Dialogue>),
}

/// Scenarios with a bar of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// What a long prompt costs a running stream.
    Admission,
    /// What a shared beginning saves.
    Prefix,
    /// What a form costs.
    Form,
}

impl ScenarioArgs {
    /// What is to be measured.
    pub fn work(&self) -> Work {
        let one = |dialogue| Work::Dialogues(vec![dialogue]);
        match (self.suite, self.scenario) {
            (Some(Suite::Acceptance), _) => Work::Dialogues(DIALOGUES.to_vec()),
            (None, None) => Work::Grid,
            (None, Some(scenario)) => match scenario {
                Scenario::Admission => Work::Bar(Bar::Admission),
                Scenario::Prefix => Work::Bar(Bar::Prefix),
                Scenario::Form => Work::Bar(Bar::Form),
                Scenario::SimpleQuery => one(Dialogue::SimpleQuery),
                Scenario::ComplexReasoning => one(Dialogue::ComplexReasoning),
                Scenario::CreativeWriting => one(Dialogue::CreativeWriting),
                Scenario::CodeGeneration => one(Dialogue::CodeGeneration),
                Scenario::Agent => one(Dialogue::Agent),
                Scenario::LongContext => one(Dialogue::LongContext),
                Scenario::JsonSchema => one(Dialogue::JsonSchema),
                Scenario::ConcurrentChat => one(Dialogue::ConcurrentChat),
            },
        }
    }
}

/// `--suite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// All scenarios from simple_query to concurrent_chat, against the product's targets
    Acceptance,
}

/// `--scenario`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// The worst gap in a running stream while a long prompt is admitted
    Admission,
    /// The first token of a prompt that shares 95% with an earlier one
    Prefix,
    /// Eight streams held to a JSON schema against eight free ones
    Form,
    /// A short question, 100 tokens
    #[value(name = "simple_query")]
    SimpleQuery,
    /// A sum to be reasoned about, 100 tokens
    #[value(name = "complex_reasoning")]
    ComplexReasoning,
    /// The opening of a story, 100 tokens
    #[value(name = "creative_writing")]
    CreativeWriting,
    /// A function to be written, 100 tokens
    #[value(name = "code_generation")]
    CodeGeneration,
    /// Ten turns with tool results over a shared beginning of 20000 tokens
    Agent,
    /// A question about a text of 16000 tokens
    #[value(name = "long_context")]
    LongContext,
    /// An answer that a JSON schema holds
    #[value(name = "json_schema")]
    JsonSchema,
    /// Sixteen chats that come at random, two a second
    #[value(name = "concurrent_chat")]
    ConcurrentChat,
}

/// An explanation instead of a measurement.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Plan")]
pub struct Explain {
    /// Load the model and say how its products are computed, and what was measured to decide that;
    /// with --plan measure everything is measured anew, also what nobody would take
    #[arg(long, conflicts_with_all = ["url", "against", "scenario", "suite", "make_model", "report"])]
    pub explain: bool,
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
    /// Write a page with the grid's rows and plots of them too
    #[arg(long, value_name = "FILE.html", conflicts_with_all = ["scenario", "suite"])]
    pub report: Option<PathBuf>,
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
