//! `pensieve check`: whether a model's files are whole and hold numbers.

use super::args::{Check, Files, Load};
use super::ask::print;
use super::{Done, Failure, model};
use crate::checkpoint::Source;
use crate::engine::{Checked, check};

/// Runs the subcommand.
pub fn run(args: Check) -> Done {
    let (source, _) = model::find(&args.files)?;
    let checked = look(&source, &args.files)?;
    for line in lines(&checked) {
        print(&format!("{line}\n"))?;
    }
    verdict(&checked)?;
    print(&format!(
        "{} tensors, {:.1} MB: they fit the architecture, and every number is finite\n",
        checked.tensors,
        checked.bytes as f64 / 1e6
    ))
}

/// What `--check` asks for before a model is loaded: silence, or an error after a line for each
/// tensor on standard error.
pub fn before_loading(source: &Source, load: &Load) -> Done {
    if !load.check {
        return Ok(());
    }
    let checked = look(source, &load.files)?;
    for line in lines(&checked) {
        eprintln!("{line}");
    }
    verdict(&checked)
}

fn look(source: &Source, files: &Files) -> Done<Checked> {
    let adapters = files.adapters();
    model::loading(source, |report| check(source, adapters.as_ref(), &report))
}

/// A line for each tensor with numbers that are not finite.
fn lines(checked: &Checked) -> impl Iterator<Item = String> {
    checked.faults.iter().map(|fault| {
        format!(
            "{}: {} NaN and {} infinite of {}",
            fault.tensor, fault.found.nan, fault.found.infinite, fault.elements
        )
    })
}

fn verdict(checked: &Checked) -> Done {
    match checked.faults.len() {
        0 => Ok(()),
        n => Err(Failure::Work(format!(
            "{n} of {} tensors hold numbers that are not finite",
            checked.tensors
        ))),
    }
}
