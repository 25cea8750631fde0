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
mod doctor;
mod exit;
mod fetching;
mod form;
mod fuse;
mod hub_args;
mod list;
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

use std::process::ExitCode;

use args::{Command, LogFormat};
use exit::Failure;

/// Parses the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    let args = match config::parse(std::env::args_os().collect()) {
        Ok(args) => args,
        Err(failure) => return failure.report(),
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
        Command::Check(args) => check::run(args),
        Command::Bench(args) => bench::run(*args),
        Command::Pull(args) => pull::run(args),
        Command::List(args) => list::run(args),
        Command::Show(args) => show::run(args),
        Command::Rm(args) => rm::run(args),
        Command::Doctor(args) => doctor::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
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
