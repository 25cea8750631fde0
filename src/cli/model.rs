//! From `--model` to a running engine and its text side.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::args::{Answer, Files, Load, Model};
use indicatif::{ProgressBar, ProgressStyle};

use super::progress::Progress;
use super::{Done, Failure, check, fetching};
use crate::builtin;
use crate::checkpoint::{CheckpointError, GenerationConfig, LoadError, LoadResult, Source};
use crate::engine::{Engine, Loading, Options, Planning};
use crate::hub::{HubError, Name};
use crate::kernels;
use crate::sample::Params;
use crate::text::Text;

/// A loaded model.
pub struct Opened {
    /// The engine that runs it.
    pub engine: Engine,
    /// Its tokenizer and chat template.
    pub text: Text,
}

impl Opened {
    /// Why an answer failed: the engine's own end, if it has ended.
    pub fn why(&mut self, failure: Failure) -> Failure {
        match self.engine.stop() {
            Ok(()) => failure,
            Err(e) => Failure::Engine(format!("the engine ended unexpectedly: {e}")),
        }
    }
}

/// Finds and loads the model, with a progress bar on a terminal. `change` sets what the subcommand has
/// its own ways of.
pub fn open(args: &Model, change: impl FnOnce(&mut Options)) -> Done<Opened> {
    let (source, own_name) = find(&args.load.files)?;
    let text = open_text(&source)?;
    check::before_loading(&source, &args.load)?;
    let mut options = Options {
        id: own_name,
        eos_ids: text.tokenizer().eos_token_id().into_iter().collect(),
        prefill_chunk: args.prefill_step_size,
        context_length: args.context_length,
        warm_up: !args.no_warm_up,
        wire_weights: args.wire_weights,
        ..options(&args.load)
    };
    change(&mut options);
    let progress = Progress::new();
    let shown = progress.clone();
    let started = Engine::start_showing(source.clone(), options, move |phase| shown.show(phase));
    progress.end();
    let engine = started.map_err(|e| cannot_load(&source, e))?;
    check_vocabulary(&engine, &text)?;
    if engine.handle.facts().text_only {
        let id = &engine.handle.facts().id;
        eprintln!("{id} has a vision tower; images are not supported yet, text only");
    }
    Ok(Opened { engine, text })
}

/// The tokenizer and chat template of the model at `source`.
pub fn open_text(source: &Source) -> Done<Text> {
    Text::open(|file| source.read(file))
        .map_err(|e| Failure::Model(format!("{}: {e}", source.label())))
}

/// How the weights are loaded; all else at its defaults. What the CPU's kernels are told is the
/// process's, and told here.
pub fn options(args: &Load) -> Options {
    kernels::set_fast(args.cpu_precision.fast_bits());
    kernels::set_threads(args.cpu_threads.map_or(0, NonZeroUsize::get));
    Options {
        device: args.device.device(),
        weights: args.weights.mode(),
        adapters: args.files.adapters(),
        plan: Planning {
            effort: args.plan.effort(),
            folder: own_cache(&|name| std::env::var(name).ok()),
        },
        memory: args.memory.unwrap_or_default(),
        ..Options::default()
    }
}

/// The folder for what can be made again, where the system has such folders.
fn own_cache(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let folder = |name| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let caches = match (folder("XDG_CACHE_HOME"), folder("HOME")) {
        (Some(caches), _) => caches,
        (None, Some(home)) if cfg!(target_os = "macos") => home.join("Library/Caches"),
        (None, Some(home)) => home.join(".cache"),
        (None, None) => return None,
    };
    Some(caches.join("pensieve"))
}

/// Calls `load` with what shows its progress on a terminal, and says of a failure what it was that
/// could not be loaded.
pub fn loading<T>(
    source: &Source,
    load: impl FnOnce(Box<dyn Fn(u64, u64) + Send>) -> LoadResult<T>,
) -> Done<T> {
    let progress = Progress::new();
    let shown = progress.clone();
    let loaded = load(Box::new(move |done, total| {
        shown.show(Loading::Weights(done, total));
    }));
    progress.end();
    loaded.map_err(|e| cannot_load(source, e))
}

fn cannot_load(source: &Source, error: LoadError) -> Failure {
    match error {
        LoadError::Checkpoint(e @ CheckpointError::Write { .. }) => Failure::Work(e.to_string()),
        e => Failure::Model(format!("cannot load {}: {e}", source.label())),
    }
}

/// The place of the model's files, and its name.
pub fn find(args: &Files) -> Done<(Source, String)> {
    if let Some(name) = args.model.strip_prefix("builtin:") {
        let source = builtin::source(name).ok_or_else(|| {
            let known = match builtin::source("tiny") {
                Some(_) => "builtin:tiny is",
                None => "none is: this binary was built without the feature `builtin-model`",
            };
            Failure::Model(format!("there is no built-in model {name:?}; {known}"))
        })?;
        return Ok((source, format!("pensieve-{name}")));
    }
    let directory = args.directory();
    if !directory.exists()
        && let Ok(name) = Name::parse(&args.model)
    {
        let folder = fetching::folder(&name).map_err(|e| {
            let either = match e {
                HubError::NoRepository { .. }
                | HubError::Network { .. }
                | HubError::Offline { .. } => {
                    format!(" (and there is no directory {} here)", args.model)
                }
                _ => String::new(),
            };
            Failure::Model(format!("{e}{either}"))
        })?;
        return Ok((Source::Directory(folder), name.to_string()));
    }
    if !directory.is_dir() {
        return Err(Failure::Model(format!(
            "{} is not a directory; --model takes a directory with config.json, *.safetensors and \
             tokenizer.json, a model's name such as ORG/NAME or one of those that `pensieve pull` \
             lists, or builtin:tiny",
            directory.display()
        )));
    }
    let name = name_of(&directory);
    Ok((Source::Directory(directory), name))
}

/// The directory's own name, also for `.` and paths that end in `..`.
fn name_of(directory: &Path) -> String {
    let whole = directory.canonicalize();
    let path = whole.as_deref().unwrap_or(directory);
    match path.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => "model".into(),
    }
}

/// A tokenizer may have fewer ids than the model has rows, never more.
fn check_vocabulary(engine: &Engine, text: &Text) -> Done {
    let (rows, ids) = (
        engine.handle.facts().vocab_size,
        text.tokenizer().vocab_size(),
    );
    if ids > rows {
        tracing::warn!(
            "tokenizer.json has {ids} tokens, but the model has {rows} rows; prompts with the \
             others will be refused"
        );
    }
    Ok(())
}

/// A bar that counts bytes, on a terminal.
pub fn bytes_bar(doing: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!(
        "{doing} {{bar:30}} {{bytes}}/{{total_bytes}} {{bytes_per_sec}} {{eta}}"
    ));
    let bar = ProgressBar::new(0);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The sampling parameters: the command line's, else the model's own, else greedy.
pub fn params(args: &Answer, opened: &Opened) -> Done<Params> {
    let own = defaults(&opened.engine.generation);
    let mut params = Params {
        temperature: args.temp.unwrap_or(own.temperature),
        top_p: args.top_p.unwrap_or(own.top_p),
        top_k: args.top_k.unwrap_or(own.top_k),
        min_p: args.min_p.unwrap_or(own.min_p),
        seed: args.seed.unwrap_or_else(random_seed),
        ..Params::default()
    };
    args.sampling.apply(&mut params, &opened.text)?;
    match params.check() {
        Ok(()) => Ok(params),
        Err((_, message)) => Err(Failure::Usage(message)),
    }
}

/// What the model's makers recommend; greedy where they say nothing or `do_sample` is false.
pub fn defaults(generation: &GenerationConfig) -> Params {
    let greedy = Params::default();
    if generation.do_sample == Some(false) {
        return greedy;
    }
    Params {
        temperature: generation
            .temperature
            .unwrap_or(match generation.do_sample {
                Some(true) => 1.0,
                _ => greedy.temperature,
            }),
        top_p: generation
            .top_p
            .filter(|p| *p > 0.0)
            .unwrap_or(greedy.top_p),
        top_k: generation.top_k.map_or(greedy.top_k, |k| k as u32),
        min_p: generation.min_p.unwrap_or(greedy.min_p),
        ..greedy
    }
}

/// A seed nobody chose.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's hasher is keyed with the system's randomness.
    RandomState::new().hash_one(std::process::id())
}
