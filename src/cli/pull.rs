//! `pensieve pull`: models from the hub to this machine, or which ones would fit it.

use serde_json::json;

use super::ask::print;
use super::fetching;
use super::hub_args::Pull;
use super::{Done, Failure};
use crate::hub::error::bytes;
use crate::hub::{ALIASES, Alias, HubError, Name, Settings, estimate, machine};

/// Tokens for which the list of models counts the memory.
const CONTEXT: u64 = 8192;

/// Runs the subcommand.
pub fn run(args: Pull) -> Done {
    if args.names.is_empty() {
        return suggest(&args);
    }
    let settings = Settings::from_env().map_err(failure)?;
    let names: Result<Vec<Name>, HubError> = args.names.iter().map(|n| Name::parse(n)).collect();
    for name in names.map_err(failure)? {
        let pulled = fetching::pull(&settings, &name).map_err(failure)?;
        if pulled.fetched == 0 {
            eprintln!("{name} is here already, with all that it needs");
        }
        match args.json {
            true => {
                let object = json!({
                    "name": name.repo(),
                    "revision": name.revision(),
                    "commit": pulled.commit,
                    "path": pulled.folder,
                    "files": pulled.files,
                    "fetched_bytes": pulled.fetched,
                });
                print(&format!("{object}\n"))?;
            }
            false => print(&format!("{}\n", pulled.folder.display()))?,
        }
    }
    Ok(())
}

/// What an error in this room means for the exit code.
pub fn failure(error: HubError) -> Failure {
    match error {
        HubError::Name { .. } | HubError::Setting { .. } => Failure::Usage(error.to_string()),
        HubError::Absent { .. } => Failure::Model(error.to_string()),
        _ => Failure::Work(error.to_string()),
    }
}

fn suggest(args: &Pull) -> Done {
    let memory = machine::memory();
    let budget = memory.map(estimate::budget);
    let fits = |alias: &Alias| budget.is_none_or(|budget| alias.need(CONTEXT).total() <= budget);
    let shown: Vec<&Alias> = ALIASES
        .iter()
        .filter(|alias| args.all || fits(alias))
        .collect();
    if args.json {
        let rows = shown.iter().map(|alias| {
            json!({
                "name": alias.name,
                "repository": alias.repo,
                "about": alias.about,
                "download_bytes": alias.download(),
                "context_length": CONTEXT,
                "memory_bytes": alias.need(CONTEXT).total(),
                "fits": fits(alias),
            })
        });
        return print(&format!("{}\n", json!(rows.collect::<Vec<_>>())));
    }
    let mut text = match (memory, budget) {
        (Some(memory), Some(budget)) => format!(
            "This machine has {} of memory; models up to {} fit it well:\n\n",
            bytes(memory),
            bytes(budget)
        ),
        _ => {
            "This machine does not say how much memory it has. Models with short names:\n\n".into()
        }
    };
    text.push_str(&format!(
        "{:<18}{:>9}{:>9}  {:<24}{}\n",
        "NAME", "FETCH", "MEMORY", "GOOD FOR", "REPOSITORY"
    ));
    for alias in shown {
        let need = bytes(alias.need(CONTEXT).total());
        text.push_str(&format!(
            "{:<18}{:>9}{:>9}  {:<24}{}{}\n",
            alias.name,
            bytes(alias.download()),
            need,
            alias.about,
            alias.repo,
            if fits(alias) { "" } else { " (too large)" },
        ));
    }
    text.push_str(
        "\nFetch one with `pensieve pull NAME`; `pensieve run --model NAME` fetches it too. Any other \
         model in\nMLX's format goes by its ORG/NAME. MEMORY is for a context of 8192 tokens.\n",
    );
    print(&text)
}
