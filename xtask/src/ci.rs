//! Every check, one after the other, with a line for each and how long it took.
//!
//! A failed step does not stop the others; the chore fails at its end. Only the macOS cross-check may
//! be skipped: what it needs beside the registries is Debian's packages.

use std::time::{Duration, Instant};

use crate::macos::macos;
use crate::sh::{Result, cargo, run};
use crate::test;
use crate::vendor::vendor;

enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

/// Runs the checks; `--skip-tests` leaves the tests out, for a script that has just run them.
///
/// # Errors
/// The names of the steps that failed.
pub fn ci(flags: &[String]) -> Result {
    let tests = match flags {
        [] => true,
        [flag] if flag == "--skip-tests" => false,
        other => return Err(format!("ci takes --skip-tests, not {}", other.join(" "))),
    };
    vendor(&[])?;
    let mut steps: Vec<(&str, Outcome, Duration)> = Vec::new();
    let mut step = |name: &'static str, work: &dyn Fn() -> Result<Outcome>| {
        eprintln!("\n== {name}");
        let started = Instant::now();
        let outcome = work().unwrap_or_else(|message| {
            eprintln!("{message}");
            Outcome::Failed
        });
        if let Outcome::Skipped(reason) = &outcome {
            eprintln!("skipped: {reason}");
        }
        steps.push((name, outcome, started.elapsed()));
    };
    step("formatting", &|| {
        run(cargo().args(["fmt", "--all", "--check"])).map(passed)
    });
    step("lints", &|| {
        run(cargo()
            .args(["clippy", "--workspace", "--all-targets"])
            .args(["--", "-D", "warnings"]))
        .map(passed)
    });
    step("documentation", &|| {
        run(cargo()
            .args(["doc", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"))
        .map(passed)
    });
    if tests {
        step("tests", &|| test(&[]).map(passed));
    }
    step("official clients", &|| {
        crate::clients::clients(&[]).map(passed)
    });
    step("macOS cross-check", &|| match crate::macos::unavailable() {
        Some(reason) => Ok(Outcome::Skipped(reason)),
        None => macos(&[]).map(passed),
    });

    eprintln!();
    for (name, outcome, took) in &steps {
        let outcome = match outcome {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::Skipped(_) => "skipped",
        };
        eprintln!("{outcome:8}{name:20}{:>6} s", took.as_secs());
    }
    let failed: Vec<&str> = steps
        .iter()
        .filter(|(_, outcome, _)| matches!(outcome, Outcome::Failed))
        .map(|(name, _, _)| *name)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!("failed: {}", failed.join(", ")))
}

fn passed((): ()) -> Outcome {
    Outcome::Passed
}
