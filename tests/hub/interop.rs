//! The cache shared with Python's `huggingface_hub`, in both directions. `cargo xtask hub` installs it and
//! runs this.

use std::process::Command;

use super::driver::{User, model};
use super::fake::{File, Hub, commit};

#[test]
#[ignore = "needs Python with huggingface_hub: cargo xtask hub"]
fn python_and_pensieve_read_what_the_other_wrote() {
    let python = std::env::var("PENSIEVE_HUB_PYTHON")
        .expect("PENSIEVE_HUB_PYTHON: a Python that has huggingface_hub; see cargo xtask hub");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hub/interop.py");
    let hub = Hub::start();
    let mut repo = hub.put_files("org/model", &model(&[300_000, 200_000]));
    repo.references.insert("v1".into(), commit('a'));
    let mut files = repo.commits[&commit('a')].clone();
    files[2] = File::new("tokenizer_config.json", b"other".to_vec());
    repo.commits.insert(commit('b'), files);
    repo.references.insert("next".into(), commit('b'));
    hub.put("org/model", repo);
    let user = User::of(&hub);
    let status = Command::new(python)
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_pensieve"))
        .env("HF_HOME", user.home())
        .env("HF_ENDPOINT", &hub.url)
        .env("HF_HUB_DISABLE_XET", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env_remove("HF_HUB_OFFLINE")
        .status()
        .unwrap();
    assert!(status.success());
}
