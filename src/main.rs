//! The `pensieve` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    pensieve::cli::main()
}
