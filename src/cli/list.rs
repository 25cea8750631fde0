//! `pensieve list`: the models that are in the cache.

use std::time::SystemTime;

use chrono::{DateTime, Local, SecondsFormat};
use serde_json::{Value, json};

use super::Done;
use super::ask::print;
use super::hub_args::List;
use super::pull::failure;
use crate::hub::error::bytes;
use crate::hub::{Details, Installed, Revision, Settings, alias, installed};
use crate::models;

/// Runs the subcommand.
pub fn run(args: List) -> Done {
    let settings = Settings::from_env().map_err(failure)?;
    let models = installed(&settings).map_err(failure)?;
    let rows = models
        .iter()
        .filter_map(|model| Some((model, model.current()?)));
    if args.json {
        let rows: Vec<Value> = rows
            .map(|(model, revision)| json(model, revision, args.context))
            .collect();
        return print(&format!("{}\n", json!(rows)));
    }
    let mut table = vec![
        [
            "NAME",
            "SIZE",
            "QUANTIZATION",
            "CONTEXT",
            "MEMORY",
            "LAST USE",
        ]
        .map(str::to_owned),
    ];
    for (model, revision) in rows {
        let details = Details::of(&revision.folder);
        let context = details.usual_context(args.context);
        let memory = details.need(context).map(|need| bytes(need.total()));
        let state = match why_not(&details) {
            Some(why) => format!("{} ({why})", model.repo),
            None => model.repo.clone(),
        };
        table.push([
            state,
            bytes(model.size),
            details.quantization.unwrap_or_else(unknown),
            details.context.map_or_else(unknown, |n| n.to_string()),
            memory.unwrap_or_else(unknown),
            revision.used.map_or_else(unknown, day),
        ]);
    }
    if table.len() == 1 {
        eprintln!(
            "no models in {}; `pensieve pull` suggests some",
            settings.cache.display()
        );
        return Ok(());
    }
    print(&aligned(&table))
}

/// A dash, for what is not known.
pub fn unknown() -> String {
    "-".to_owned()
}

/// Why a model cannot be loaded, as far as its files' names and config.json tell.
pub fn why_not(details: &Details) -> Option<String> {
    if let [first, ..] = details.missing.as_slice() {
        return Some(match details.missing.len() {
            1 => format!("{first} is missing"),
            n => format!("{first} and {} more are missing", n - 1),
        });
    }
    let known = |name: &&str| models::architectures().any(|(_, names)| names.contains(name));
    match &details.architecture {
        Some(name) if known(&name.as_str()) => None,
        Some(name) => Some(format!("{name} is not supported")),
        None => Some("config.json names no model_type".to_owned()),
    }
}

/// All that is known of a model in the cache.
pub fn json(model: &Installed, revision: &Revision, context: Option<u64>) -> Value {
    let details = Details::of(&revision.folder);
    let mut object = described(&details, context);
    object["name"] = json!(model.repo);
    object["alias"] = json!(alias::of(&model.repo).map(|alias| alias.name));
    object["commit"] = json!(revision.commit);
    object["path"] = json!(revision.folder);
    object["size_bytes"] = json!(model.size);
    object["unfinished_bytes"] = json!(model.unfinished);
    object["last_used"] = json!(revision.used.map(instant));
    object["revisions"] = model
        .revisions
        .iter()
        .map(|revision| {
            json!({
                "commit": revision.commit,
                "references": revision.references,
                "size_bytes": revision.size,
            })
        })
        .collect();
    object
}

/// What a model's own files say.
pub fn described(details: &Details, context: Option<u64>) -> Value {
    let why_not = why_not(details);
    json!({
        "name": null,
        "architecture": details.architecture,
        "quantization": details.quantization,
        "context_length": details.context,
        "licence": details.licence,
        "weights_bytes": details.weights,
        "memory": details.need_json(details.usual_context(context)),
        "loadable": why_not.is_none(),
        "problem": why_not,
    })
}

fn instant(time: SystemTime) -> String {
    DateTime::<chrono::Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A day, as people here write the time.
pub fn day(time: SystemTime) -> String {
    DateTime::<Local>::from(time).format("%Y-%m-%d").to_string()
}

/// Columns as wide as their widest entry.
fn aligned<const N: usize>(table: &[[String; N]]) -> String {
    let mut text = String::new();
    for row in table {
        for (column, entry) in row.iter().enumerate() {
            let entries = table.iter().filter_map(|row| row.get(column));
            let widest = entries
                .map(|entry| entry.chars().count())
                .max()
                .unwrap_or(0);
            text.push_str(entry);
            if column + 1 < N {
                text.push_str(&" ".repeat(widest - entry.chars().count() + 2));
            }
        }
        text.push('\n');
    }
    text
}
