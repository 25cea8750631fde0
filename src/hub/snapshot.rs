//! Models that are here: whether a snapshot has all files that a model needs, and when it was used.

use std::collections::BTreeSet;
use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::name::Name;
use super::settings::Settings;
use super::store::Store;

/// The folder of the model's files, if it is here and nothing is missing. Asks no hub.
pub fn local(settings: &Settings, name: &Name) -> Option<PathBuf> {
    let snapshot = folder(settings, name)?;
    missing(&snapshot).is_empty().then_some(snapshot)
}

/// The folder of the model's files, if there is one, whole or not.
pub fn folder(settings: &Settings, name: &Name) -> Option<PathBuf> {
    let store = Store::new(settings, name);
    let commit = match name.commit() {
        Some(commit) => commit.to_owned(),
        None => store.reference()?,
    };
    Some(store.snapshot(&commit)).filter(|folder| folder.is_dir())
}

/// The files that a model needs and the snapshot has not: its settings, its tokenizer, and all weights.
pub fn missing(snapshot: &Path) -> Vec<String> {
    let mut missing: Vec<String> = ["config.json", "tokenizer.json"]
        .into_iter()
        .filter(|name| !snapshot.join(name).is_file())
        .map(str::to_owned)
        .collect();
    missing.extend(missing_weights(snapshot));
    missing
}

/// The weights that are missing, by the index, or else by the numbers in the files' names.
pub fn missing_weights(snapshot: &Path) -> Vec<String> {
    let absent = |name: &String| !snapshot.join(name).is_file();
    if let Ok(index) = std::fs::read(snapshot.join("model.safetensors.index.json")) {
        let index: Value = serde_json::from_slice(&index).unwrap_or_default();
        let map = index.get("weight_map").and_then(Value::as_object);
        let shards: BTreeSet<String> = map
            .into_iter()
            .flat_map(|map| map.values())
            .filter_map(|shard| shard.as_str().map(str::to_owned))
            .collect();
        if !shards.is_empty() {
            return shards.into_iter().filter(absent).collect();
        }
    }
    let names = weights(snapshot);
    let mut expected = BTreeSet::new();
    for name in &names {
        if let Some((start, count, total)) = numbered(name) {
            // A number that no checkpoint has would only make a long list.
            for n in (1..=total).take(10_000) {
                expected.insert(format!("{start}{n:0count$}-of-{total:0count$}.safetensors"));
            }
        }
    }
    if names.is_empty() {
        return vec!["*.safetensors".to_owned()];
    }
    expected.into_iter().filter(absent).collect()
}

/// The names of the snapshot's files of weights, sorted. A link that leads nowhere is none.
pub fn weights(snapshot: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(snapshot).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    names.sort();
    names
}

/// Of `model-00001-of-00003.safetensors` what stands before the numbers, their digits, and the last.
fn numbered(name: &str) -> Option<(&str, usize, usize)> {
    let (first, total) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    let digits = total.len();
    let start = first.get(..first.len().checked_sub(digits)?)?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let fits = is_number(total) && is_number(first.get(start.len()..)?);
    fits.then_some(())?;
    Some((start, digits, total.parse().ok()?))
}

/// Notes that the snapshot's files are being used now: in their times of last access, where Python's
/// `scan_cache_dir` looks too. (Many file systems do not keep them by themselves.)
pub fn mark_used(snapshot: &Path) {
    let now = FileTimes::new().set_accessed(SystemTime::now());
    for entry in std::fs::read_dir(snapshot).into_iter().flatten().flatten() {
        // Someone else's file may refuse; then its last use is not known, and nothing else is lost.
        if let Ok(file) = File::open(entry.path()) {
            drop(file.set_times(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    #[test]
    fn what_is_missing_is_named() {
        let settings = [("config.json", "{}"), ("tokenizer.json", "{}")];
        let with = |more: &[(&str, &str)]| missing(snapshot(&[&settings, more].concat()).path());
        assert_eq!(with(&[]), ["*.safetensors"]);
        assert!(with(&[("model.safetensors", "")]).is_empty());
        let index = r#"{"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}"#;
        let index = ("model.safetensors.index.json", index);
        assert_eq!(with(&[index, ("x.safetensors", "")]), ["y.safetensors"]);
        assert!(with(&[index, ("x.safetensors", ""), ("y.safetensors", "")]).is_empty());
        let first = ("model-00001-of-00003.safetensors", "");
        assert_eq!(
            with(&[first]),
            [
                "model-00002-of-00003.safetensors",
                "model-00003-of-00003.safetensors"
            ]
        );
        assert_eq!(missing(snapshot(&[first]).path()).len(), 4);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_missing() {
        let folder = snapshot(&[("config.json", "{}"), ("tokenizer.json", "{}")]);
        let link = folder.path().join("model.safetensors");
        std::os::unix::fs::symlink("../../blobs/none", link).unwrap();
        assert_eq!(missing(folder.path()), ["*.safetensors"]);
    }

    #[test]
    fn use_is_noted_in_the_time_of_access() {
        let folder = snapshot(&[("config.json", "{}")]);
        let path = folder.path().join("config.json");
        let old = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        let times = FileTimes::new().set_accessed(old).set_modified(old);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(times)
            .unwrap();
        mark_used(folder.path());
        let after = path.metadata().unwrap();
        assert!(after.accessed().unwrap().elapsed().unwrap().as_secs() < 60);
        assert_eq!(after.modified().unwrap(), old);
    }
}
