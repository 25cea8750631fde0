//! Fetching when hub, storage or network fail, and saying why.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::driver::{User, model};
use super::fake::{Fail, Hub};

const MIB: usize = 1 << 20;

/// A hub with one model.
fn hub() -> Hub {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[MIB + 5]));
    hub
}

/// The model's weights are fetched in the end, whatever fails so many times.
fn overcomes(path: &str, times: usize, fail: Fail) -> Hub {
    let hub = hub();
    hub.fail(path, times, fail);
    let user = User::of(&hub).with("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    user.works(&["pull", "org/model"]);
    assert_eq!(user.blobs("org/model").len(), 5);
    hub
}

#[test]
fn what_passes_is_overcome() {
    overcomes("/api/", 2, Fail::Status(503, ""));
    overcomes("config.json", 1, Fail::Status(500, ""));
    overcomes("signature", 6, Fail::Status(502, ""));
    overcomes("signature", 4, Fail::Truncate(70_000));
    overcomes("/api/", 1, Fail::Truncate(20));
    overcomes("signature", 3, Fail::Truncate(0));
    overcomes("signature", 3, Fail::OtherRange);
}

#[test]
fn a_body_that_stands_still_is_left() {
    let began = Instant::now();
    overcomes("signature", 2, Fail::Stall(100_000));
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_slow_body_is_waited_for() {
    let hub = hub();
    // Each part takes longer than the longest silence.
    hub.limit(64 * 1024);
    let user = User::of(&hub).with("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    user.works(&["pull", "org/model"]);
    assert!(!hub.asked().is_empty());
    let storage = hub.asked().iter().filter(|asked| asked.storage).count();
    assert!(storage <= 10, "{storage} requests: nothing was tried again");
}

#[test]
fn retry_after_is_respected() {
    let began = Instant::now();
    overcomes("/api/", 1, Fail::Status(429, "Retry-After: 2"));
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[test]
fn a_storage_without_ranges_will_do() {
    let hub = overcomes("signature", 100, Fail::NoRange);
    let whole = hub
        .asked()
        .into_iter()
        .filter(|asked| asked.storage && asked.range.is_none());
    assert_eq!(whole.count(), 1);
    // And with the ranges gone, a break is overcome as well.
    let hub = self::hub();
    hub.fail("signature", 12, Fail::NoRange);
    hub.fail("signature", 1, Fail::Truncate(300_000));
    let user = User::of(&hub);
    user.works(&["pull", "org/model"]);
    assert_eq!(user.blobs("org/model").len(), 5);
}

#[test]
fn an_address_that_expires_is_asked_for_anew() {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[6 * MIB]));
    hub.limit(MIB as u64 / 2);
    let user = User::of(&hub);
    let mut child = user
        .command(&["pull", "org/model"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    hub.wait_for(MIB as u64, || false);
    hub.expire();
    // Connections that stand go on; new ones have to ask.
    child.kill().unwrap();
    child.wait().unwrap();
    hub.fail("signature", 3, Fail::Status(403, ""));
    user.works(&["pull", "org/model"]);
    assert_eq!(user.blobs("org/model").len(), 5);
}

#[test]
fn what_does_not_pass_ends_it_and_what_arrived_stays() {
    let hub = hub();
    hub.fail("signature", 1, Fail::Truncate(70_000));
    hub.fail("signature", 1000, Fail::Status(503, ""));
    let user = User::of(&hub);
    let message = user.fails(
        &["pull", "org/model"],
        1,
        &["503", "kept", "model.safetensors"],
    );
    assert!(message.contains("trying again"), "{message}");
    let lines: Vec<&str> = message.lines().collect();
    let again = lines.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(again, None, "parts that fail alike are told of once");
    // The small ones are finished; nothing is shown as a model.
    assert_eq!(user.blobs("org/model").len(), 4);
    assert!(!user.repo("org/model").join("snapshots").exists());
    let sent = hub.sent();
    assert!(sent > 70_000);
    hub.forget();
    user.works(&["pull", "org/model"]);
    let again: u64 = hub
        .asked()
        .iter()
        .filter(|asked| asked.storage)
        .filter_map(|asked| asked.range.as_ref())
        .map(|range| range.end - range.start)
        .sum();
    assert!(
        again < (MIB + 5) as u64,
        "{again} bytes: the first chunk was there"
    );
}

#[test]
fn damaged_files_are_fetched_again_and_never_shown() {
    // One part of the first try is damaged.
    let hub = overcomes("signature", 1, Fail::Damage);
    assert!(hub.sent() > 2 * MIB as u64);
    overcomes("tokenizer_config.json", 2, Fail::Damage);
    let hub = self::hub();
    hub.fail("signature", 1000, Fail::Damage);
    let user = User::of(&hub);
    user.fails(
        &["pull", "org/model"],
        1,
        &["model.safetensors", "damaged", "SHA-256", "proxy"],
    );
    assert_eq!(user.blobs("org/model").len(), 4);
    assert!(!user.repo("org/model").join("snapshots").exists());
    hub.forget();
    user.works(&["pull", "org/model"]);
}

#[test]
fn refusals_are_explained() {
    let hub = hub();
    let user = User::of(&hub);
    let parts = ["no model org/other", "misspelling", "HF_TOKEN"];
    user.fails(&["pull", "org/other"], 1, &parts);
    user.fails(&["pull", "org/model@v9"], 1, &["v9", "org/model"]);
    user.fails(&["pull", "model"], 2, &["\"model\"", "ORG/NAME"]);
    user.fails(&["pull", "../x"], 2, &["ORG/NAME"]);
    let known = User::of(&hub).with("HF_TOKEN", "mine");
    let message = known.fails(
        &["pull", "org/other"],
        1,
        &["no model org/other", "account"],
    );
    assert!(!message.contains("mine"), "tokens are not shown: {message}");
    let expired = User::of(&hub).with("HF_TOKEN", "expired");
    expired.fails(
        &["pull", "org/model"],
        1,
        &["token", "expired", "Invalid credentials"],
    );

    let mut gated = hub.put_files("org/gated", &model(&[1000]));
    gated.gated = true;
    hub.put("org/gated", gated);
    let page = format!("{}/org/gated", hub.url);
    user.fails(
        &["pull", "org/gated"],
        1,
        &["gated", "accept", &page, "set HF_TOKEN"],
    );
    known.fails(
        &["pull", "org/gated"],
        1,
        &["gated", &page, "of the account that accepted"],
    );

    hub.put_files(
        "org/gguf",
        &[("config.json", Vec::new()), ("x.gguf", Vec::new())],
    );
    user.fails(
        &["pull", "org/gguf"],
        1,
        &["org/gguf", "safetensors", ".gguf", "MLX"],
    );
    hub.put_files("org/adapter", &[("adapters.safetensors", Vec::new())]);
    user.fails(&["pull", "org/adapter"], 1, &["org/adapter", "config.json"]);
    let part = [
        ("config.json", Vec::new()),
        ("model-00001-of-00002.safetensors", vec![1]),
    ];
    hub.put_files("org/part", &part);
    user.fails(
        &["pull", "org/part"],
        1,
        &["org/part", "model-00002-of-00002.safetensors"],
    );
}

#[test]
fn a_hub_that_is_none_is_not_believed() {
    for (path, fail, part) in [
        ("/api/", Fail::Status(200, ""), "cannot be read"),
        ("/api/", Fail::Status(418, ""), "418"),
        ("tokenizer.json", Fail::Etag("../../x"), "ETag"),
        ("tokenizer.json", Fail::Etag(""), "ETag"),
        ("tokenizer.json", Fail::OtherCommit, "commit"),
        (
            "model.safetensors",
            Fail::Size(u64::MAX / 2),
            "not enough room",
        ),
    ] {
        let hub = hub();
        hub.fail(path, 1, fail);
        let user = User::of(&hub);
        user.fails(&["pull", "org/model"], 1, &[part]);
        assert!(!user.repo("org/model").join("snapshots").exists());
    }
    let hub = hub();
    hub.fail(
        "model.safetensors",
        1,
        Fail::Status(302, "Location: /org/model/resolve/main/x"),
    );
    User::of(&hub).fails(&["pull", "org/model"], 1, &["404"]);
    hub.fail(
        "/api/",
        1000,
        Fail::Status(302, "Location: /api/models/org/model"),
    );
    User::of(&hub).fails(&["pull", "org/model"], 1, &["redirects"]);
}

#[test]
fn a_network_that_is_not_there_is_said_to_be() {
    let hub = hub();
    hub.close();
    let user = User::of(&hub);
    user.fails(
        &["pull", "org/model"],
        1,
        &["cannot fetch", "tried 5 times"],
    );
    let user = User::of(&hub).with("HF_ENDPOINT", "http://127.0.0.1:1");
    user.fails(&["pull", "org/model"], 1, &["127.0.0.1:1", "refused"]);
    user.fails(
        &["run", "--model", "org/model", "x"],
        3,
        &["refused", "no directory"],
    );
    let user = User::of(&hub).with("HF_ENDPOINT", "127.0.0.1");
    user.fails(&["pull", "org/model"], 2, &["HF_ENDPOINT"]);
}

#[test]
fn names_that_lead_out_of_the_folder_are_not_followed() {
    let hub = Hub::start();
    let mut files = model(&[1000]);
    let hostile = [
        "../tokenizer_evil.json",
        "../../../../model-evil.safetensors",
        "/tmp/pensieve-evil/tokenizer.json",
        "tokenizer\0evil.json",
        "a\\..\\tokenizer.json",
        "additional_chat_templates/../../x.jinja",
        "additional_chat_templates/..",
        "./config.json",
        "tokenizer//x.json",
        "",
        ".",
        "..",
    ];
    files.extend(hostile.map(|name| (name, b"evil".to_vec())));
    hub.put_files("org/model", &files);
    let user = User::of(&hub);
    user.works(&["pull", "org/model"]);
    let asked = hub.asked();
    let for_files = asked.iter().filter(|asked| asked.method == "HEAD").count();
    assert_eq!(for_files, 5, "{asked:?}");
    for (path, content) in user.tree("org/model") {
        assert_ne!(content, b"evil", "{path}");
    }
    assert!(!std::path::Path::new("/tmp/pensieve-evil").exists());
}

#[test]
fn odd_names_are_asked_for_as_they_are() {
    let hub = Hub::start();
    let mut files = model(&[1000]);
    let odd = [
        "tokenizer a b.json",
        "tokenizer%20x.json",
        "tokenizer?x=1#y.json",
        "tokenizer\u{e9}\u{1f600}&+;'.json",
        "tokenizer\nx.json",
    ];
    files.extend(odd.map(|name| (name, name.as_bytes().to_vec())));
    hub.put_files("org/model", &files);
    let user = User::of(&hub);
    let folder = user.works(&["pull", "org/model"]);
    for name in odd {
        let path = std::path::Path::new(folder.trim_end()).join(name);
        assert_eq!(std::fs::read(path).unwrap(), name.as_bytes(), "{name:?}");
    }
    assert!(!user.works(&["list"]).is_empty());
    assert!(!user.works(&["show", "org/model"]).is_empty());
    user.works(&["rm", "--yes", "org/model"]);
    assert!(!user.repo("org/model").exists());
}

#[test]
fn what_cannot_be_written_is_said_with_its_place() {
    let hub = hub();
    let user = User::of(&hub);
    // A file where a folder is to be: rights would not stop root.
    std::fs::write(user.home().join("hub"), "").unwrap();
    user.fails(&["pull", "org/model"], 1, &["hub"]);
    std::fs::remove_file(user.home().join("hub")).unwrap();
    std::fs::create_dir_all(user.repo("org/model")).unwrap();
    std::fs::write(user.repo("org/model").join("blobs"), "").unwrap();
    user.fails(&["pull", "org/model"], 1, &["blobs"]);
}

#[test]
fn a_hub_at_an_ipv6_address_will_do() {
    // A container may have none.
    let Ok(hub) = Hub::start_at("[::1]:0") else {
        return;
    };
    hub.put_files("org/model", &model(&[100_000]));
    assert!(hub.url.starts_with("http://[::1]:"));
    let user = User::of(&hub);
    user.works(&["pull", "org/model"]);
    assert_eq!(user.blobs("org/model").len(), 5);
    User::of(&hub)
        .with("HTTP_PROXY", "http://127.0.0.1:1")
        .with("NO_PROXY", "::1")
        .works(&["pull", "org/model"]);
}

#[test]
fn a_snapshot_of_python_s_with_lost_contents_is_mended() {
    let hub = hub();
    let user = User::of(&hub);
    let folder = user.works(&["pull", "org/model"]);
    let folder = std::path::Path::new(folder.trim_end());
    // As after somebody cleaned the disk: the links are there, what they lead to is not.
    for name in ["model.safetensors", "tokenizer.json"] {
        std::fs::remove_file(folder.join(name).canonicalize().unwrap()).unwrap();
    }
    assert!(user.works(&["list"]).contains("org/model"));
    user.works(&["pull", "org/model"]);
    assert!(folder.join("model.safetensors").is_file());
    assert!(folder.join("tokenizer.json").is_file());
}
