//! `pensieve show`: what one model is and takes.

use std::path::Path;

use serde_json::json;

use super::Done;
use super::ask::print;
use super::hub_args::Show;
use super::list::{self, day, unknown, why_not};
use super::pull::failure;
use crate::hub::error::bytes;
use crate::hub::{
    Details, HubError, Installed, Name, Revision, Settings, alias, estimate, installed, machine,
};

/// Runs the subcommand.
pub fn run(args: Show) -> Done {
    let directory = Path::new(&args.name);
    if directory.is_dir() {
        let details = Details::of(directory);
        if args.json {
            let mut object = list::described(&details, args.context);
            object["path"] = json!(directory);
            return print(&format!("{object}\n"));
        }
        return print(&text(&args, &details, None));
    }
    let settings = Settings::from_env().map_err(failure)?;
    let name = Name::parse(&args.name).map_err(failure)?;
    let models = installed(&settings).map_err(failure)?;
    let found = models.iter().find(|model| model.repo == name.repo());
    let found = found.and_then(|model| Some((model, revision(model, &name)?)));
    let Some((model, revision)) = found else {
        let (name, cache) = (name.to_string(), settings.cache);
        return Err(failure(HubError::Absent { name, cache }));
    };
    if args.json {
        let object = list::json(model, revision, args.context);
        return print(&format!("{object}\n"));
    }
    let details = Details::of(&revision.folder);
    print(&text(&args, &details, Some((model, revision))))
}

fn revision<'a>(model: &'a Installed, name: &Name) -> Option<&'a Revision> {
    let wanted = name.revision();
    let is_it = |r: &&Revision| r.commit == wanted || r.references.iter().any(|n| n == wanted);
    let found = model.revisions.iter().find(is_it);
    // A bare name means what is there, also where only a commit was fetched.
    found.or_else(|| (wanted == "main").then(|| model.current())?)
}

fn text(args: &Show, details: &Details, place: Option<(&Installed, &Revision)>) -> String {
    let context = details.usual_context(args.context);
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    if let Some((model, revision)) = place {
        row("name", model.repo.clone());
        if let Some(alias) = alias::of(&model.repo) {
            row("short name", alias.name.to_owned());
        }
        let references = match revision.references.is_empty() {
            true => String::new(),
            false => format!(" ({})", revision.references.join(", ")),
        };
        row("revision", format!("{}{references}", revision.commit));
        row("path", revision.folder.display().to_string());
        row("size on disk", bytes(model.size));
        if model.unfinished > 0 {
            row("unfinished", bytes(model.unfinished));
        }
        row("last use", revision.used.map_or_else(unknown, day));
    } else {
        row("path", args.name.clone());
    }
    row(
        "architecture",
        details.architecture.clone().unwrap_or_else(unknown),
    );
    row(
        "quantization",
        details.quantization.clone().unwrap_or_else(unknown),
    );
    row(
        "context",
        details
            .context
            .map_or_else(unknown, |n| format!("{n} tokens")),
    );
    row("licence", details.licence.clone().unwrap_or_else(unknown));
    let memory = match details.need(context) {
        Some(need) => format!(
            "about {} at {context} tokens: weights {}, cache {}, the rest {}{}",
            bytes(need.total()),
            bytes(need.weights),
            bytes(need.cache),
            bytes(estimate::REST),
            match machine::memory().map(estimate::budget) {
                Some(budget) if need.total() > budget => "; too much for this machine",
                _ => "",
            }
        ),
        None => unknown(),
    };
    row("memory", memory);
    row(
        "can be loaded",
        match why_not(details) {
            None => "yes, as far as can be seen (`pensieve check --model` looks closer)".to_owned(),
            Some(why) => format!("no: {why}"),
        },
    );
    rows.iter()
        .map(|(name, value)| format!("{name:<15}{value}\n"))
        .collect()
}
