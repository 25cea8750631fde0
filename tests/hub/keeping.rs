//! Models that are here: used by name, listed, shown and removed.

use std::process::Stdio;

use serde_json::Value;

use super::common::tiny;
use super::driver::{User, model, noise};
use super::fake::{File, Hub, commit};

const CAPITAL: &str = "What is the capital of France?";

/// The shipped model, as a repository.
fn shipped(hub: &Hub) {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(tiny()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            files.push((name, std::fs::read(&path).unwrap()));
        }
    }
    let files: Vec<(&str, Vec<u8>)> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.clone()))
        .collect();
    hub.put_files("org/tiny", &files);
}

#[test]
fn a_name_is_fetched_and_run_and_needs_no_network_again() {
    let hub = Hub::start();
    shipped(&hub);
    let user = User::of(&hub);
    let json = user.works(&["run", "--json", "--model", "org/tiny", CAPITAL]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["text"], "The capital of France is Paris.");
    assert_eq!(json["model"], "org/tiny");
    hub.forget();
    let answer = user.works(&["run", "-q", "--model", "org/tiny", CAPITAL]);
    assert_eq!(answer, "The capital of France is Paris.\n");
    assert!(hub.asked().is_empty(), "what is here is not asked for");

    // A part of it lost: what is lost is fetched.
    let tokenizer = user
        .repo("org/tiny")
        .join("snapshots")
        .join(commit('a'))
        .join("tokenizer.json");
    std::fs::remove_file(&tokenizer).unwrap();
    user.works(&["check", "--model", "org/tiny"]);
    assert!(tokenizer.is_file());
    assert!(!hub.asked().iter().any(|asked| asked.storage));
}

#[test]
fn offline_means_no_network() {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[1000]));
    let user = User::of(&hub).with("HF_HUB_OFFLINE", "1");
    let parts = ["org/model", "HF_HUB_OFFLINE"];
    user.fails(&["pull", "org/model"], 1, &parts);
    user.fails(&["run", "--model", "org/model", "x"], 3, &parts);
    assert!(hub.asked().is_empty());
    let online = User::of(&hub);
    online.works(&["pull", "org/model"]);
    hub.forget();
    let there = user.with("HF_HUB_CACHE", online.cache().to_str().unwrap());
    there.works(&["pull", "org/model"]);
    std::fs::remove_file(
        online
            .repo("org/model")
            .join("snapshots")
            .join(commit('a'))
            .join("tokenizer.json"),
    )
    .unwrap();
    there.fails(&["pull", "org/model"], 1, &["tokenizer.json missing"]);
    assert!(hub.asked().is_empty());
}

#[test]
fn models_are_listed_shown_and_removed() {
    let hub = Hub::start();
    let mut repo = hub.put_files("org/model", &model(&[100_000]));
    shipped(&hub);
    let user = User::of(&hub);
    assert_eq!(user.works(&["list"]), "");
    assert_eq!(user.works(&["list", "--json"]), "[]\n");
    user.works(&["pull", "org/model", "org/tiny"]);
    let mut files = repo.commits[&commit('a')].clone();
    files[2] = File::new("tokenizer_config.json", b"0123456789".to_vec());
    repo.commits.insert(commit('b'), files);
    repo.references.insert("next".into(), commit('b'));
    hub.put("org/model", repo);
    user.works(&["pull", "org/model@next"]);

    let table = user.works(&["list"]);
    for part in [
        "NAME",
        "org/model",
        "org/tiny",
        "4 bits, groups of 64",
        "4096",
        "100.",
    ] {
        assert!(table.contains(part), "{part} in {table}");
    }
    let list: Value =
        serde_json::from_str(&user.works(&["list", "--json", "--context", "100"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    let one = &list[0];
    assert_eq!(one["name"], "org/model");
    assert_eq!(one["architecture"], "qwen3");
    assert_eq!(one["licence"], "apache-2.0");
    assert_eq!(one["loadable"], true);
    assert_eq!(one["weights_bytes"], 100_000);
    // 2 layers, keys and values of 2 heads of 8, 2 bytes each.
    assert_eq!(one["memory"]["cache_bytes"], 100 * 2 * 2 * 2 * 8 * 2);
    assert_eq!(one["revisions"].as_array().unwrap().len(), 2);
    assert!(one["last_used"].as_str().unwrap().starts_with("20"));

    let shown: Value =
        serde_json::from_str(&user.works(&["show", "--json", "org/model@next"])).unwrap();
    assert_eq!(shown["commit"], commit('b'));
    let text = user.works(&["show", "org/model", "--context", "1000"]);
    for part in [
        "org/model",
        &commit('a'),
        "(main)",
        "apache-2.0",
        "at 1000 tokens",
        "qwen3",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let folder = tiny();
    let text = user.works(&["show", folder.to_str().unwrap()]);
    assert!(text.contains("yes, as far as can be seen"), "{text}");
    user.fails(&["show", "org/none"], 3, &["org/none", "pensieve list"]);

    user.fails(&["rm", "org/model"], 2, &["--yes"]);
    user.fails(&["rm", "-y", "org/model", "org/none"], 3, &["org/none"]);
    let would = user.works(&["rm", "--dry-run", "--json", "org/model@next"]);
    let would: Value = serde_json::from_str(&would).unwrap();
    assert_eq!(
        (&would["freed_bytes"], &would["removed"]),
        (&10.into(), &false.into())
    );
    assert_eq!(user.blobs("org/model").len(), 6);
    user.works(&["rm", "-y", "org/model@next"]);
    assert_eq!(user.blobs("org/model").len(), 5);
    assert!(!user.repo("org/model").join("refs/next").exists());
    user.works(&["show", "org/model"]);
    assert!(
        user.works(&["rm", "-y", "org/model"])
            .contains("removed org/model")
    );
    assert!(!user.repo("org/model").exists());
    assert!(!user.cache().join(".locks/models--org--model").exists());
    assert!(user.repo("org/tiny").exists());
}

#[test]
fn what_is_being_fetched_is_not_removed() {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[4_000_000]));
    hub.limit(200 * 1024);
    let user = User::of(&hub);
    let mut child = user
        .command(&["pull", "org/model"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    hub.wait_for(100_000, || false);
    user.fails(&["rm", "-y", "org/model"], 1, &["another process"]);
    hub.limit(0);
    assert!(child.wait().unwrap().success());
    assert_eq!(user.blobs("org/model").len(), 5);
}

#[test]
fn without_a_name_models_are_suggested() {
    let hub = Hub::start();
    let user = User::of(&hub);
    let text = user.works(&["pull"]);
    for part in [
        "memory",
        "qwen3:0.6b",
        "mlx-community/Qwen3-0.6B-4bit",
        "pensieve pull NAME",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let all: Value = serde_json::from_str(&user.works(&["pull", "--all", "--json"])).unwrap();
    let fitting: Value = serde_json::from_str(&user.works(&["pull", "--json"])).unwrap();
    let (all, fitting) = (all.as_array().unwrap(), fitting.as_array().unwrap());
    assert!(all.len() >= fitting.len() && !fitting.is_empty());
    assert_eq!(
        all.iter().filter(|row| row["fits"] == true).count(),
        fitting.len()
    );
    assert!(hub.asked().is_empty());
    // A short name is its repository.
    user.fails(
        &["pull", "qwen3:4b"],
        1,
        &["no model mlx-community/Qwen3-4B-4bit"],
    );
}

#[test]
fn the_doctor_finds_what_is_wrong() {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[100_000]));
    let user = User::of(&hub);
    user.works(&["pull", "org/model"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let report = |arguments: &[&str], code: i32| -> Vec<(String, String, String)> {
        let output = user.run(&[&["doctor", "--json", "--port", &port], arguments].concat());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{json}");
        assert_eq!(json["healthy"], code == 0);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rows = json["findings"].as_array().unwrap().iter();
        rows.map(|row| (text(&row["about"]), text(&row["level"]), format!("{row}")))
            .collect()
    };
    let level = |found: &[(String, String, String)], about: &str, part: &str| -> String {
        let row = found
            .iter()
            .find(|row| row.0 == about && row.2.contains(part));
        row.unwrap_or_else(|| panic!("{about} with {part:?} in {found:?}"))
            .1
            .clone()
    };
    let found = report(&["--verify"], 0);
    for about in ["system", "chip", "memory", "mlx", "hub", "disk"] {
        level(&found, about, "");
    }
    assert_eq!(level(&found, "self-test", "answers on the cpu"), "fine");
    assert_eq!(level(&found, "port", &port), "note");
    assert_eq!(level(&found, "cache", "1 model"), "fine");

    let weights = user
        .repo("org/model")
        .join("snapshots")
        .join(commit('a'))
        .join("model.safetensors");
    let blob = weights.canonicalize().unwrap();
    let mut content = std::fs::read(&blob).unwrap();
    content[50_000] ^= 1;
    std::fs::write(&blob, &content).unwrap();
    assert_eq!(level(&report(&[], 0), "cache", "1 model"), "fine");
    assert_eq!(
        level(&report(&["--verify"], 1), "cache", "is damaged"),
        "wrong"
    );
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(blob.with_extension("incomplete"), noise(1, 10_000)).unwrap();
    let found = report(&[], 1);
    assert_eq!(level(&found, "cache", "lead nowhere"), "wrong");
    assert_eq!(level(&found, "cache", "did not arrive"), "note");
    let text = user.run(&["doctor", "--port", "0"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("WRONG cache") && text.contains("-> `pensieve pull org/model`"),
        "{text}"
    );
    // And the remedy is one.
    user.works(&["pull", "org/model"]);
    report(&["--verify"], 0);
}
