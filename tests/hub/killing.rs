//! Killed at any point, it goes on from there.

use std::process::Stdio;
use std::time::Duration;

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
        std::thread::sleep(Duration::from_micros(20_000 + state % 380_000));
        if let Some(status) = child.try_wait().unwrap() {
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
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut first = start();
    std::thread::sleep(Duration::from_millis(1200));
    let second = start();
    std::thread::sleep(Duration::from_millis(600));
    first.kill().unwrap();
    first.wait().unwrap();
    hub.limit(0);
    let output = second.wait_with_output().unwrap();
    let lines = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{lines}");
    assert!(lines.contains("another process is fetching it"), "{lines}");
    assert!(lines.contains("are here already"), "{lines}");
    assert_eq!(user.blobs("org/model").len(), 5);
}
