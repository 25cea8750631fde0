//! Killed at any point, it goes on from there.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::driver::{User, model};
use super::fake::Hub;

const KILLS: usize = 50;

#[test]
fn killed_at_fifty_points_it_ends_with_the_same_files() {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[9_000_001, 7_000_000]));
    let reference = User::of(&hub);
    reference.works(&["pull", "org/model"]);
    let expected = reference.tree("org/model");

    hub.limit(512 * 1024);
    let user = User::of(&hub);
    let (mut kills, mut finished, mut partial_seen) = (0, 0, 0);
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    while kills < KILLS {
        let mut child = user
            .command(&["pull", "org/model"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Somewhere in the next bytes, wherever that is in the program.
        let ended = hub.wait_for(state % 1_200_000, || child.try_wait().unwrap().is_some());
        if ended {
            let status = child.wait().unwrap();
            assert!(status.success());
            assert_eq!(user.tree("org/model"), expected);
            finished += 1;
            std::fs::remove_dir_all(user.cache()).unwrap();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        // Checks the hash of each finished file.
        user.blobs("org/model");
        for (path, content) in user
            .repo("org/model")
            .is_dir()
            .then(|| user.tree("org/model"))
            .into_iter()
            .flatten()
        {
            if path.starts_with("snapshots") {
                assert_eq!(Some(&content), expected.get(&path));
                assert!(user.repo("org/model").join(&path).is_file(), "{}", path);
            }
            partial_seen += usize::from(path.ends_with(".pensieve.map") && content.contains(&1));
        }
    }
    hub.limit(0);
    user.works(&["pull", "org/model"]);
    assert_eq!(user.tree("org/model"), expected);
    assert!(
        partial_seen > KILLS / 5,
        "{partial_seen} of {kills} kills came in the middle"
    );
    println!("{kills} kills, {partial_seen} parts seen, {finished} finished in between");
}

#[test]
fn what_a_killed_process_held_others_take_up() {
    let hub = Hub::start();
    hub.put_files("org/model", &model(&[6_000_000]));
    hub.limit(256 * 1024);
    let user = User::of(&hub);
    let start = || {
        let mut command = user.command(&["pull", "org/model"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut first = start();
    hub.wait_for(1_500_000, || false);
    let mut second = start();
    let mut lines = BufReader::new(second.stderr.take().unwrap()).lines();
    let waits = lines.find(|line| line.as_ref().unwrap().contains("another process"));
    assert!(waits.is_some(), "the second does not wait");
    first.kill().unwrap();
    first.wait().unwrap();
    hub.limit(0);
    let lines: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(second.wait().unwrap().success(), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.contains("are here already")),
        "{lines:?}"
    );
    assert_eq!(user.blobs("org/model").len(), 5);
}
