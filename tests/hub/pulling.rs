//! Fetching when all goes well.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::common::stderr;
use super::driver::{User, model, noise};
use super::fake::{File, Hub, Repo, commit};

const MIB: usize = 1 << 20;

#[test]
fn a_model_comes_into_the_cache_as_python_has_it() {
    let hub = Hub::start();
    let repo = hub.put_files("org/model", &model(&[3 * MIB + 17]));
    let user = User::of(&hub);
    let printed = user.works(&["pull", "org/model"]);
    let snapshot = user.repo("org/model").join("snapshots").join(commit('a'));
    assert_eq!(printed.trim_end(), snapshot.to_str().unwrap());

    let needed = [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let tree = user.tree("org/model");
    let files = &repo.commits[&commit('a')];
    for name in needed {
        let file = files.iter().find(|file| file.name == name).unwrap();
        let link = &tree[&format!("snapshots/{}/{name}", commit('a'))];
        assert_eq!(link, format!("-> ../../blobs/{}", file.etag).as_bytes());
        assert_eq!(&tree[&format!("blobs/{}", file.etag)], file.bytes.as_ref());
    }
    let of = |start: &str| tree.keys().filter(|path| path.starts_with(start)).count();
    assert_eq!((of("blobs"), of("snapshots"), of("refs")), (5, 5, 1));
    assert_eq!(tree["refs/main"], commit('a').as_bytes());
    let absent = format!(".no_exist/{}/generation_config.json", commit('a'));
    assert_eq!(tree[&absent], b"");
    assert!(!tree.contains_key(&format!(".no_exist/{}/tokenizer_config.json", commit('a'))));
    let locks = user.cache().join(".locks/models--org--model");
    assert_eq!(std::fs::read_dir(locks).unwrap().count(), 5);

    // Again: the hub is asked for the commit, and for nothing else.
    hub.forget();
    user.works(&["pull", "org/model"]);
    let asked = hub.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].method, "GET");
    assert_eq!(asked[0].path, "/api/models/org/model/revision/main");
    assert_eq!(user.tree("org/model"), tree);
}

#[test]
fn a_new_commit_shares_what_did_not_change() {
    let hub = Hub::start();
    let mut repo = hub.put_files("org/model", &model(&[2 * MIB]));
    let user = User::of(&hub);
    user.works(&["pull", "org/model"]);
    let mut files = repo.commits[&commit('a')].clone();
    files[2] = File::new("tokenizer_config.json", b"new".to_vec());
    repo.commits.insert(commit('b'), files);
    repo.references.insert("main".into(), commit('b'));
    hub.put("org/model", repo);
    hub.forget();
    let json = user.works(&["pull", "--json", "org/model"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["commit"], commit('b'));
    assert_eq!(json["fetched_bytes"], 3);
    assert!(!hub.asked().iter().any(|asked| asked.storage));
    assert_eq!(user.blobs("org/model").len(), 6);
    let reference = std::fs::read_to_string(user.repo("org/model").join("refs/main")).unwrap();
    assert_eq!(reference, commit('b'));
}

#[test]
fn ranges_come_in_parallel() {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[4 * MIB]));
    hub.limit(2 * MIB as u64);
    let user = User::of(&hub);
    user.works(&["pull", "org/model"]);
    let ranges: Vec<_> = hub
        .asked()
        .into_iter()
        .filter(|asked| asked.storage)
        .map(|asked| asked.range.expect("a range"))
        .collect();
    assert!(ranges.len() >= 8, "{ranges:?}");
    let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    assert_eq!(bytes, 4 * MIB as u64, "nothing is fetched twice");
    assert!(hub.most_active() >= 4, "{} at a time", hub.most_active());
}

#[test]
fn branches_tags_and_commits_are_revisions() {
    let hub = Hub::start();
    let mut repo = hub.put_files("org/model", &model(&[1000]));
    let mut files = repo.commits[&commit('a')].clone();
    files[1] = File::new("tokenizer.json", b"{\"other\": 1}".to_vec());
    repo.commits.insert(commit('c'), files);
    for name in ["v1.0", "refs/pr/3"] {
        repo.references.insert(name.into(), commit('c'));
    }
    hub.put("org/model", repo);
    let user = User::of(&hub);
    for revision in ["v1.0", "refs/pr/3", &commit('c')] {
        let folder = user.works(&["pull", &format!("org/model@{revision}")]);
        assert!(folder.trim_end().ends_with(&commit('c')), "{folder}");
    }
    let references = user.repo("org/model").join("refs");
    assert_eq!(
        std::fs::read_to_string(references.join("v1.0")).unwrap(),
        commit('c')
    );
    assert_eq!(
        std::fs::read_to_string(references.join("refs/pr/3")).unwrap(),
        commit('c')
    );
    assert!(!references.join("main").exists() && !references.join(commit('c')).exists());
    user.fails(&["pull", "org/model@v2"], 1, &["org/model", "v2", "branch"]);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let hub = Hub::start();
    let mut repo = hub.put_files("org/private", &model(&[MIB]));
    repo.token = Some("secret".into());
    hub.put("org/private", repo);

    let user = User::of(&hub);
    std::fs::write(user.home().join("token"), "secret\n").unwrap();
    user.works(&["pull", "org/private"]);
    let asked = hub.asked();
    assert!(asked.iter().any(|asked| asked.storage));
    for asked in asked {
        // The storage refuses who comes with a token, too.
        assert_eq!(asked.authorization.is_some(), !asked.storage, "{asked:?}");
    }
    let variable = User::of(&hub).with("HF_TOKEN", "secret");
    variable.works(&["pull", "org/private"]);
    let unused = User::of(&hub).with("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
    std::fs::write(unused.home().join("token"), "secret").unwrap();
    unused.fails(
        &["pull", "org/private"],
        1,
        &["org/private", "private", "HF_TOKEN"],
    );
}

#[test]
fn a_renamed_repository_is_found() {
    let hub = Hub::start();
    hub.put_files("org/new", &model(&[1000]));
    let moved_to = Some("org/new".to_owned());
    hub.put(
        "org/old",
        Repo {
            moved_to,
            ..Repo::default()
        },
    );
    let user = User::of(&hub);
    user.works(&["pull", "org/old"]);
    assert_eq!(user.blobs("org/old").len(), 5);
}

#[test]
fn files_may_lie_at_the_hub_s_own_address() {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[MIB]));
    hub.keep_files();
    let user = User::of(&hub);
    user.works(&["pull", "org/model"]);
    assert_eq!(user.blobs("org/model").len(), 5);
    let asked = hub.asked();
    let of_files = |asked: &&super::fake::Asked| asked.path.starts_with("/cdn/");
    assert!(asked.iter().filter(of_files).all(|a| a.range.is_some()));
    assert!(asked.iter().filter(of_files).count() >= 2);
}

#[test]
fn without_links_the_files_themselves_are_there() {
    let hub = Hub::start();
    let repo = hub.put_files("org/model", &model(&[MIB]));
    let user = User::of(&hub).with("HF_HUB_DISABLE_SYMLINKS", "1");
    let folder = user.works(&["pull", "org/model"]);
    for file in &repo.commits[&commit('a')] {
        let path = std::path::Path::new(folder.trim_end()).join(&file.name);
        if path.exists() {
            assert!(path.symlink_metadata().unwrap().is_file());
            assert_eq!(&std::fs::read(&path).unwrap(), file.bytes.as_ref());
        }
    }
    let snapshot = std::fs::read_dir(folder.trim_end()).unwrap().count();
    assert_eq!(snapshot, 5);
    hub.forget();
    user.works(&["pull", "org/model"]);
    assert_eq!(hub.asked().len(), 1);
}

#[test]
fn two_processes_share_the_work() {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[2 * MIB, 2 * MIB]));
    hub.limit(MIB as u64);
    let user = User::of(&hub);
    let start = || {
        let mut command = user.command(&["pull", "org/model"]);
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let outputs = [start(), start(), start()].map(|child| child.wait_with_output().unwrap());
    for output in &outputs {
        assert!(output.status.success(), "{}", stderr(output));
    }
    assert_eq!(user.blobs("org/model").len(), 6);
    let from_storage: u64 = hub
        .asked()
        .iter()
        .filter(|asked| asked.storage)
        .filter_map(|asked| asked.range.as_ref())
        .map(|range| range.end - range.start)
        .sum();
    assert_eq!(from_storage, 4 * MIB as u64, "nothing is fetched twice");
}

#[test]
fn lines_tell_how_it_goes_where_there_is_no_terminal() {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[MIB]));
    // Between two lines there are 5 seconds.
    hub.limit(MIB as u64 / 48);
    let user = User::of(&hub);
    let output = user.run(&["pull", "org/model"]);
    let lines = stderr(&output);
    assert!(output.status.success(), "{lines}");
    for part in [
        "fetching 5 files, 1.0 MB",
        "% ",
        "/s",
        "left",
        "model.safetensors: done",
    ] {
        assert!(lines.contains(part.trim()), "{part:?} in {lines}");
    }
    assert!(!lines.contains('\u{1b}'), "{lines:?}");
}

/// A proxy that joins a client with whom it asks for. Counts those that it joined.
fn proxy() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, counted) = (client.unwrap(), Arc::clone(&counted));
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let target = head
                    .strip_prefix("CONNECT ")
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap();
                let mut server = TcpStream::connect(target).unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
                drop(std::io::copy(&mut server, &mut client));
            });
        }
    });
    (address, count)
}

#[test]
fn proxies_are_used_and_avoided() {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[1000]));
    let (address, count) = proxy();
    User::of(&hub)
        .with("http_proxy", address.clone())
        .works(&["pull", "org/model"]);
    let through = count.swap(0, Ordering::SeqCst);
    assert!(through >= 2, "hub and storage: {through}");
    User::of(&hub)
        .with("HTTP_PROXY", address.clone())
        .with("NO_PROXY", "example, 127.0.0.1")
        .works(&["pull", "org/model"]);
    User::of(&hub)
        .with("HTTPS_PROXY", address)
        .works(&["pull", "org/model"]);
    assert_eq!(count.load(Ordering::SeqCst), 0);
    User::of(&hub)
        .with("HTTP_PROXY", "http://user:word@[")
        .fails(&["pull", "org/model"], 2, &["HTTP_PROXY"]);
}

#[test]
fn a_repository_without_an_index_may_have_other_names() {
    let hub = Hub::start();
    let files = [
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("weights.00.safetensors", noise(1, 70_000)),
        ("empty.txt", Vec::new()),
        ("merges.txt", Vec::new()),
    ];
    hub.put_files("org/model", &files);
    let user = User::of(&hub);
    user.works(&["pull", "org/model"]);
    // An empty file is one, too; the two JSON files are the same.
    assert_eq!(user.blobs("org/model").len(), 3);
}
