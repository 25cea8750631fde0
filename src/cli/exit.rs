//! Exit codes, and the failures that lead to them.

use std::fmt;

/// The table of exit codes, as `--help` shows it. clap itself uses 2 for a wrong command line.
pub const TABLE: &str = "\
Exit codes:
  0    done
  1    the work failed (also: the address is in use, standard output is closed, `check` found
       numbers that are not finite, `doctor` found something wrong)
  2    the command line is wrong
  3    the model cannot be loaded
  4    the input is refused (empty, over the context, not UTF-8, or by the chat template)
  70   the engine ended unexpectedly";

/// Why the program ends, other than by being done.
#[derive(Debug)]
pub enum Failure {
    /// Something went wrong while working.
    Work(String),
    /// The arguments are well formed but do not fit together.
    Usage(String),
    /// The model cannot be loaded.
    Model(String),
    /// The input cannot be used.
    Input(String),
    /// The engine thread ended.
    Engine(String),
}

impl Failure {
    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Work(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Model(_) => 3,
            Failure::Input(_) => 4,
            Failure::Engine(_) => 70,
        }
    }

    /// Says what happened on standard error and gives the exit code.
    pub fn report(&self) -> u8 {
        eprintln!("pensieve: {self}");
        self.code()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Work(text)
            | Failure::Usage(text)
            | Failure::Model(text)
            | Failure::Input(text)
            | Failure::Engine(text) => f.write_str(text),
        }
    }
}
