//! Instructions that the host spends on a decode step: callgrind's counts, which a busy machine does
//! not change.
//!
//!     cargo bench --bench instructions -- [--model DIR] [--streams 1] [--most N] [--python PYTHON] [--keep DIR]
//!
//! The model is 28 layers of Qwen3, 64 wide, so that the device has next to nothing to do. This program
//! runs itself under `valgrind --tool=callgrind` for a short and for a long answer; the difference over
//! the difference of their tokens is a step, without loading and prompt. What counts as the host's is
//! the thread that calls `mlx::core::async_eval`: MLX's CPU backend computes on threads of its own. With
//! `--python`, a Python that has mlx-lm, peers/mlx_lm_bench.py is counted too, in one process that has
//! callgrind count after its imports (callgrind_control), and the ratio must be 0.25 or less. `--most` is
//! a bar of its own; a missed one ends with code 1. `--keep` leaves callgrind's files for
//! callgrind_annotate.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use pensieve::bench::make::{Storage, make};
use pensieve::bench::shapes::Shape;
use pensieve::checkpoint::Source;
use pensieve::engine::{Engine, Event, Options, Request};
use pensieve::mlx::Device;
use pensieve::sample::Params;

/// Tokens of the two answers.
const LENGTHS: [usize; 2] = [16, 64];
const PROMPT: usize = 8;
/// What mlx-lm's count is multiplied with to be the bar.
const SHARE: f64 = 0.25;
/// A function of MLX's that the host calls once a step, and no thread of MLX's own.
const HOSTS: &str = "mlx::core::async_eval(";

#[derive(Parser)]
struct Args {
    /// A directory in MLX format; the narrow shape if not given
    #[arg(long)]
    model: Option<PathBuf>,
    /// Answers that are decoded together
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Instructions of the host a step at most
    #[arg(long)]
    most: Option<f64>,
    /// A Python that has mlx-lm, to be counted too
    #[arg(long)]
    python: Option<PathBuf>,
    /// Where callgrind's files stay
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Decode so many tokens and end: what runs under valgrind
    #[arg(long, hide = true)]
    tokens: Option<usize>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let (Some(model), Some(tokens)) = (&args.model, args.tokens) {
        decode(model, args.streams, tokens);
        return ExitCode::SUCCESS;
    }
    let known = Command::new("valgrind").arg("--version").output();
    if !known.is_ok_and(|output| output.status.success()) {
        eprintln!("valgrind is not installed, so no instructions are counted");
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let model = args.model.clone().unwrap_or_else(|| {
        let model = folder.path().join("model");
        std::fs::create_dir(&model).expect("a directory");
        let shape = Shape::named("qwen3-narrow").expect("a known shape");
        make(shape, Storage::Dense, 0, &model, |_, _| ()).expect("a model");
        model
    });
    let files = args.keep.clone().unwrap_or(folder.path().join("counts"));
    let ours = ours(&files.join("pensieve"), &model, args.streams);
    ours.print("pensieve");
    let mut bars = Vec::new();
    bars.extend(args.most.map(|most| ("--most", most)));
    if let Some(python) = &args.python {
        let theirs = theirs(&files.join("mlx-lm"), python, &model, args.streams);
        theirs.print("mlx-lm");
        println!("ratio      {:.3}", ours.host / theirs.host);
        bars.push(("a quarter of mlx-lm's", SHARE * theirs.host));
    }
    let missed = bars.iter().filter(|(_, most)| ours.host > *most);
    let missed: Vec<&str> = missed.map(|(name, _)| *name).collect();
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("the host's instructions are above {}", missed.join(" and "));
    ExitCode::FAILURE
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Instructions, of a step or of an answer.
struct Step {
    host: f64,
    others: f64,
}

impl Step {
    fn print(&self, name: &str) {
        let Self { host, others } = self;
        println!("{name:10} {host:>12.0} a step on the host, {others:>12.0} on other threads");
    }
}

/// What a token more costs, by what the two answers cost.
fn step([short, long]: [Step; 2]) -> Step {
    let more = (LENGTHS[1] - LENGTHS[0]) as f64;
    Step {
        host: (long.host - short.host) / more,
        others: (long.others - short.others) / more,
    }
}

fn ours(files: &Path, model: &Path, streams: usize) -> Step {
    let this = std::env::current_exe().expect("this program");
    step(LENGTHS.map(|tokens| {
        let folder = files.join(tokens.to_string());
        let numbers = format!("--streams {streams} --tokens {tokens}");
        let mut command = vec![text(&this), "--model".into(), text(model)];
        command.extend(numbers.split(' ').map(String::from));
        callgrind(&folder, &[], &command);
        counts(&folder, "out-")
    }))
}

fn theirs(files: &Path, python: &Path, model: &Path, streams: usize) -> Step {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/mlx_lm_bench.py");
    let options = format!(
        "--callgrind --device cpu --dtype float32 --prompt {PROMPT} --gen {},{} --concurrency {streams}",
        LENGTHS[0], LENGTHS[1]
    );
    let mut command = vec![text(python), text(&script), text(model)];
    command.extend(options.split(' ').map(String::from));
    callgrind(files, &["--instr-atstart=no"], &command);
    step(["out.1-", "out.2-"].map(|dump| counts(files, dump)))
}

/// Runs a command; the counts of its threads come into files of their own.
fn callgrind(folder: &Path, options: &[&str], command: &[String]) {
    std::fs::create_dir_all(folder).expect("a directory");
    for old in std::fs::read_dir(folder).expect("its files").flatten() {
        std::fs::remove_file(old.path()).expect("an old file goes");
    }
    let status = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}/out", text(folder)))
        .args(options)
        .args(command)
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("valgrind").success(), "{command:?} failed");
}

/// The sums of the files whose names begin so.
fn counts(folder: &Path, beginning: &str) -> Step {
    let mut sums = Step {
        host: 0.0,
        others: 0.0,
    };
    for file in std::fs::read_dir(folder).expect("its files").flatten() {
        if !file.file_name().to_string_lossy().starts_with(beginning) {
            continue;
        }
        // Names of functions need not be UTF-8.
        let counts = std::fs::read(file.path()).expect("callgrind's counts");
        let counts = String::from_utf8_lossy(&counts);
        let total = counts
            .lines()
            .find_map(|line| line.strip_prefix("totals: "));
        let total = total.map_or(0.0, |total| total.trim().parse().expect("a number"));
        match counts.contains(HOSTS) {
            true => sums.host += total,
            false => sums.others += total,
        }
    }
    let place = folder.display();
    assert!(sums.host > 0.0, "no thread in {place} calls {HOSTS}");
    sums
}

/// Decodes as the server does, without its HTTP.
fn decode(model: &Path, streams: usize, tokens: usize) {
    let options = Options {
        device: Some(Device::Cpu),
        warm_up: false,
        max_running: streams,
        queue_limit: streams,
        ..Options::default()
    };
    let source = Source::Directory(model.to_owned());
    let engine = Engine::start(source, options, |_, _| {}).expect("an engine");
    let requests = (0..streams).map(|stream| Request {
        prompt: (0..PROMPT).map(|i| (7 * i + stream) as u32).collect(),
        params: Params {
            ignore_eos: true,
            ..Params::default()
        },
        max_tokens: tokens,
        form: None,
        stop_ids: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
    });
    let answers: Vec<_> = requests
        .map(|request| engine.handle.submit(request).expect("a request that fits"))
        .collect();
    for mut events in answers {
        loop {
            match events.blocking_recv() {
                Some(Event::Finished { stats, .. }) => {
                    assert_eq!(stats.completion_tokens, tokens);
                    break;
                }
                Some(Event::Failed(message)) => panic!("{message}"),
                Some(_) => {}
                None => panic!("the channel closed without an end"),
            }
        }
    }
}
