//! Bringing a model here: what the hub has of it, what of that is missing, and showing it when it is whole.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::download::download;
use super::error::{HubError, Result, io};
use super::name::Name;
use super::remote::{self, OPTIONAL, Remote};
use super::settings::Settings;
use super::snapshot;
use super::store::Store;
use super::watch::Watch;
use super::web::Web;

/// A model that is here now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The folder with its files.
    pub folder: PathBuf,
    /// The commit.
    pub commit: String,
    /// Its files.
    pub files: usize,
    /// Bytes that came over the network.
    pub fetched: u64,
}

/// Brings the newest state of the model's revision here. Without a network (`HF_HUB_OFFLINE`) the model
/// has to be here already.
///
/// # Errors
/// Why it cannot be found, fetched or kept. What has arrived stays for the next try.
pub fn pull(settings: &Settings, name: &Name, watch: &dyn Watch) -> Result<Pulled> {
    if settings.offline {
        return kept(settings, name);
    }
    let web = Web::new(settings)?;
    let store = Store::new(settings, name);
    let listing = remote::listing(&web, settings, name, watch)?;
    let wanted = remote::wanted(&listing.files);
    check_kind(name, &wanted, &listing.files)?;
    let folder = store.snapshot(&listing.commit);
    let absent: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|file| !folder.join(file).is_file())
        .collect();
    let files = describe(&web, settings, name, &listing.commit, &absent, watch)?;
    let fetched = download(&web, settings, name, &store, &files, watch)?;
    show(&store, &listing.commit, &files)?;
    for file in OPTIONAL
        .iter()
        .filter(|file| !listing.files.iter().any(|f| f == *file))
    {
        store.note_absent(&listing.commit, file)?;
    }
    store.set_reference(&listing.commit)?;
    let lacks = snapshot::missing_weights(&folder);
    if !lacks.is_empty() {
        return Err(HubError::Incomplete {
            repo: name.repo().to_owned(),
            files: lacks.join(", "),
        });
    }
    Ok(Pulled {
        folder,
        commit: listing.commit,
        files: wanted.len(),
        fetched,
    })
}

/// The model as it is here.
fn kept(settings: &Settings, name: &Name) -> Result<Pulled> {
    let folder = snapshot::folder(settings, name);
    let lacks = folder.as_deref().map(snapshot::missing).unwrap_or_default();
    let commit = folder.as_ref().and_then(|folder| folder.file_name());
    match (&folder, commit) {
        (Some(folder), Some(commit)) if lacks.is_empty() => Ok(Pulled {
            commit: commit.to_string_lossy().into_owned(),
            files: std::fs::read_dir(folder)
                .map_err(io("list", folder))?
                .count(),
            folder: folder.clone(),
            fetched: 0,
        }),
        _ => Err(HubError::Offline {
            name: name.to_string(),
            cache: settings.cache.clone(),
            missing: match lacks.is_empty() {
                true => String::new(),
                false => format!(" (a part is: {} missing)", lacks.join(", ")),
            },
        }),
    }
}

/// Refuses a repository that holds no model of the kind that is loaded here, before anything is fetched.
fn check_kind(name: &Name, wanted: &[&str], all: &[String]) -> Result {
    let lacks = if !wanted.iter().any(|file| file.ends_with(".safetensors")) {
        "*.safetensors"
    } else if !wanted.contains(&"config.json") {
        "config.json"
    } else {
        return Ok(());
    };
    let other = [".gguf", ".bin", ".pth", ".onnx", ".npz"]
        .into_iter()
        .find(|end| all.iter().any(|file| file.ends_with(end)));
    Err(HubError::NotAModel {
        repo: name.repo().to_owned(),
        lacks,
        advice: match other {
            Some(end) => format!(
                "it has *{end}, which is not read here; look for the same model in MLX's format \
                 (safetensors)"
            ),
            None => "look for the same model in MLX's format (safetensors)".to_owned(),
        },
    })
}

/// Asks for all files' sizes and hashes, several at a time.
fn describe(
    web: &Web,
    settings: &Settings,
    name: &Name,
    commit: &str,
    files: &[&str],
    watch: &dyn Watch,
) -> Result<Vec<Remote>> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let failure: Mutex<Option<HubError>> = Mutex::new(None);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..settings.connections.clamp(1, files.len().max(1)) {
            scope.spawn(|| {
                while let (false, Some(file)) = (
                    failed.load(Ordering::Relaxed),
                    files.get(next.fetch_add(1, Ordering::Relaxed)),
                ) {
                    match remote::file(web, settings, name, commit, file, watch) {
                        Ok(remote) => {
                            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                            found.push(remote);
                        }
                        Err(error) => {
                            failed.store(true, Ordering::Relaxed);
                            let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
                            first.get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => {
            let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
            // Small files first: what is wrong with a model shows in them.
            found.sort_by(|a, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
            Ok(found)
        }
    }
}

/// Makes the files visible, the settings last.
fn show(store: &Store, commit: &str, files: &[Remote]) -> Result {
    let last = |file: &&Remote| file.name == "config.json";
    let in_order = files
        .iter()
        .filter(|f| !last(f))
        .chain(files.iter().filter(last));
    let mut copied = Vec::new();
    for file in in_order {
        if store.publish(commit, &file.name, &file.etag)? {
            copied.push(store.blob(&file.etag));
        }
    }
    for blob in copied {
        match std::fs::remove_file(&blob) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("remove", &blob)(e));
            }
            _ => {}
        }
    }
    Ok(())
}
