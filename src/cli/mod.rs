//! The command line: one file a subcommand, raw arguments (`args`) apart from what they mean.
//!
//! Answers go to standard output, everything else to standard error.

mod args;
mod ask;
mod bench;
mod bench_args;
mod chat;
mod check;
mod config;
mod convert;
mod convert_args;
mod corpus;
mod doctor;
mod exit;
mod fetching;
mod form;
mod fuse;
mod hub_args;
mod kernels;
mod list;
mod manual;
mod model;
mod perplexity;
mod progress;
mod pull;
mod rm;
mod run;
mod sampling;
mod serve;
mod show;
mod size;

use std::io::Write;

use args::{Command, LogFormat};
use exit::Failure;

use crate::mlx;

/// Parses the command line, does what it says, and ends the process.
pub fn main() -> ! {
    let args = match config::parse(std::env::args_os().collect()) {
        Ok(args) => args,
        Err(failure) => end(failure.report()),
    };
    let default_level = match &args.command {
        Command::Serve(_) => "info",
        _ => "warn",
    };
    log_to_stderr(
        args.log_level.as_deref().unwrap_or(default_level),
        args.log_format,
    );
    let done = match args.command {
        Command::Run(args) => run::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Perplexity(args) => perplexity::run(args),
        Command::Fuse(args) => fuse::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Check(args) => check::run(args),
        Command::Bench(args) => bench::run(*args),
        Command::Pull(args) => pull::run(args),
        Command::List(args) => list::run(args),
        Command::Show(args) => show::run(args),
        Command::Rm(args) => rm::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(&args),
    };
    let code = match done {
        Ok(()) => 0,
        Err(failure) => failure.report(),
    };
    end(code)
}

/// Ends the process without running what C++ would run at its end: MLX's threads outlive the state
/// that they use, and on CUDA that crashes now and then.
fn end(code: u8) -> ! {
    let flushed = (std::io::stdout().flush(), std::io::stderr().flush());
    if let (Err(error), _) | (_, Err(error)) = flushed {
        tracing::debug!("the last output could not be written: {error}");
    }
    mlx::quit(i32::from(code))
}

fn log_to_stderr(level: &str, format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(level);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// What subcommands return.
type Done<T = ()> = Result<T, Failure>;
