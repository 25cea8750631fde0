//! The project's chores. `cargo xtask` without arguments lists them.

mod ci;
mod clients;
mod dist;
mod golden;
mod hub;
mod macho;
mod macos;
mod models;
mod sh;
mod signature;
mod templates;
mod vendor;

use std::process::{Command, ExitCode};

use sh::{Result, cargo, root, run};
use vendor::{Extra, vendor};

const HELP: &str = "\
usage: cargo xtask CHORE

  run [-- ARGS]      build release and run pensieve; a text with spaces is a prompt, no text prints the help
  test [ARGS]        every test, as CI runs them; ARGS go to `cargo test`
  ci [--skip-tests]  formatting, lints, docs, tests, and the macOS cross-check
  vendor [--cuda] [--macos]
                     fetch what is pinned in vendor/ (the other chores do it for you)
  bindings           renew mlx-sys/bindings.rs, the committed copy of bindgen's output
  eval               the shipped model's score on every held-out prompt, through the release binary
  clients [--all] [ARGS]
                     the official openai and anthropic clients for Python against a server of the shipped model;
                     ARGS choose tests, such as test_openai; --all adds LiteLLM and lm-evaluation-harness
  golden [--transformers] [-- ARGS]
                     regenerate tests/golden with mlx-lm in a throw-away environment; ARGS choose cases, such
                     as --family llama; --transformers lets the second oracle check too
  converted [--transformers] [NAME ...]
                     have mlx-lm convert the small checkpoints of tests/golden/converted again
  hub                huggingface_hub and pensieve read what the other wrote
  models             run the golden cases and write docs/models.md from what they show
  templates [--dir FOLDER]
                     the golden file of our own chat templates, or each *.jinja of FOLDER over a matrix of dialogues,
                     against transformers (PENSIEVE_PYTHON names a Python that has it)
  macos [--check]    cross-link the release binary for macOS on Apple Silicon and look at its symbols;
                     --check stops at type-checking
  dist [--target linux-x86_64|linux-x86_64-cuda|macos-arm64]... [--quick|--no-build] [--try]
                     archives to hand out, in target/archives, with checksums, bills of materials and the
                     install script; --quick builds as `cargo build --release` does, --no-build takes the
                     binaries of an earlier run, --try installs the Linux one in a bare Debian 12 and asks
                     it (as root, with debootstrap)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match chore(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn chore(arguments: &[String]) -> Result {
    let (name, rest) = match arguments.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => ("help", arguments),
    };
    match name {
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        "vendor" => vendor_chore(rest),
        "run" => pensieve(rest),
        "test" => test(rest),
        "ci" => ci::ci(rest),
        "bindings" => bindings(),
        "eval" => eval(),
        "clients" => clients::clients(rest),
        "golden" => golden::golden(rest),
        "converted" => golden::converted(rest),
        "hub" => hub::hub(rest),
        "models" => models::models(),
        "macos" => macos::macos(rest),
        "templates" => templates::templates(rest),
        "dist" => dist::dist(rest),
        other => Err(format!("no chore is called {other:?}\n{HELP}")),
    }
}

fn vendor_chore(flags: &[String]) -> Result {
    let extras: Result<Vec<_>> = flags
        .iter()
        .map(|flag| match flag.as_str() {
            "--cuda" => Ok(Extra::Cuda),
            "--macos" => Ok(Extra::Macos),
            other => Err(format!("vendor takes --cuda and --macos, not {other}")),
        })
        .collect();
    vendor(&extras?)
}

/// Builds release and runs it.
fn pensieve(arguments: &[String]) -> Result {
    vendor(&[])?;
    let arguments = match arguments.split_first() {
        Some((dashes, rest)) if dashes == "--" => rest,
        _ => arguments,
    };
    let mut command = cargo();
    command.args(["run", "--release", "--package", "pensieve", "--"]);
    match arguments.first() {
        None => command.arg("--help"),
        // No subcommand is called so.
        Some(first) if first.contains(char::is_whitespace) => command.arg("run"),
        Some(_) => &mut command,
    };
    run(command.args(arguments))
}

fn test(arguments: &[String]) -> Result {
    vendor(&[])?;
    run(cargo().args(["test", "--workspace"]).args(arguments))
}

/// `tests/shipped_model.rs` over all prompts instead of a sample.
fn eval() -> Result {
    vendor(&[])?;
    let mut command = cargo();
    command.args(["test", "--release", "--test", "shipped_model", "--"]);
    run(command.arg("--nocapture").env("PENSIEVE_EVAL", "all"))
}

/// Copies bindgen's latest output over the snapshot.
fn bindings() -> Result {
    vendor(&[])?;
    let dir = tempdir()?;
    run(cargo()
        .args(["check", "--package", "mlx-sys", "--target-dir"])
        .arg(&dir))?;
    let found = sh::output(
        Command::new("find")
            .arg(&dir)
            .args(["-name", "bindings.rs"]),
    )?;
    let newest = found.lines().next().ok_or("bindgen wrote no bindings.rs")?;
    let to = root().join("mlx-sys/bindings.rs");
    std::fs::copy(newest, &to).map_err(|e| format!("{newest}: {e}"))?;
    std::fs::remove_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))
}

fn tempdir() -> Result<std::path::PathBuf> {
    let dir = root().join("target/xtask");
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}
