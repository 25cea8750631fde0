//! `pensieve completions` and `pensieve man`: what a shell and a manual know of the command line, made
//! from the command line's own description.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Args;
use super::ask::print;
use super::{Done, Failure};

const NAME: &str = "pensieve";

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// The folder to write the pages to
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Prints the completions.
pub fn completions(args: Completions) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), NAME, &mut script);
    let script = String::from_utf8(script);
    let script = script.map_err(|e| Failure::Work(format!("the completions are no text: {e}")))?;
    print(&script)
}

/// Writes `pensieve.1` and a page for each subcommand.
pub fn man(args: &Man) -> Done {
    let failed = |e| Failure::Work(format!("cannot write pages to {}: {e}", args.out.display()));
    fs::create_dir_all(&args.out).map_err(failed)?;
    clap_mangen::generate_to(Args::command(), &args.out).map_err(failed)
}
