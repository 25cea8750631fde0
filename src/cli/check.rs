//! `pensieve check`: whether a model's files are whole and hold numbers.

use super::args::Check;
use super::ask::print;
use super::{Done, Failure, model};
use crate::engine::check;

/// Runs the subcommand.
pub fn run(args: Check) -> Done {
    let (source, _) = model::find(&args.files)?;
    let adapters = args.files.adapters();
    let checked = model::loading(&source, |report| check(&source, adapters.as_ref(), &report))?;
    for fault in &checked.faults {
        print(&format!(
            "{}: {} NaN and {} infinite of {}\n",
            fault.tensor, fault.found.nan, fault.found.infinite, fault.elements
        ))?;
    }
    if !checked.faults.is_empty() {
        return Err(Failure::Work(format!(
            "{} of {} tensors hold numbers that are not finite",
            checked.faults.len(),
            checked.tensors
        )));
    }
    print(&format!(
        "{} tensors, {:.1} MB: they fit the architecture, and every number is finite\n",
        checked.tensors,
        checked.bytes as f64 / 1e6
    ))
}
