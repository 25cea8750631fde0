//! `pensieve rm`: models out of the cache.

use std::io::{IsTerminal, Write};

use serde_json::json;

use super::ask::print;
use super::hub_args::Rm;
use super::pull::failure;
use super::{Done, Failure};
use crate::hub::error::bytes;
use crate::hub::{HubError, Name, Settings, plan, remove};

/// Runs the subcommand.
pub fn run(args: Rm) -> Done {
    let settings = Settings::from_env().map_err(failure)?;
    let removals: Result<Vec<_>, HubError> = args
        .names
        .iter()
        .map(|text| plan(&settings, &Name::parse(text)?, text.contains('@')))
        .collect();
    // All names are known before anything is removed.
    for removal in removals.map_err(failure)? {
        let what = match removal.whole {
            true => removal.repo.clone(),
            false => format!("{}@{}", removal.repo, removal.commits.join(", ")),
        };
        let question = format!("remove {what} and free {}?", bytes(removal.bytes));
        if !args.dry_run {
            if !args.yes && !agreed(&question)? {
                eprintln!("{what} stays");
                continue;
            }
            remove(&removal).map_err(failure)?;
        }
        let line = match (args.json, args.dry_run) {
            (true, _) => json!({
                "name": removal.repo,
                "commits": removal.commits,
                "whole": removal.whole,
                "freed_bytes": removal.bytes,
                "removed": !args.dry_run,
            })
            .to_string(),
            (false, true) => format!("would remove {what}, {}", bytes(removal.bytes)),
            (false, false) => format!("removed {what}, {}", bytes(removal.bytes)),
        };
        print(&format!("{line}\n"))?;
    }
    Ok(())
}

fn agreed(question: &str) -> Done<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "rm asks before it removes; give --yes where nobody can answer".into(),
        ));
    }
    eprint!("{question} [y/N] ");
    let failed = |e: std::io::Error| Failure::Work(format!("cannot ask: {e}"));
    std::io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
