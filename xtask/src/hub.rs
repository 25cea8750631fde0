//! Has `huggingface_hub` and `pensieve` read what the other wrote, against the tests' own hub.

use crate::golden::environment;
use crate::sh::{Result, cargo, root, run};
use crate::vendor::vendor;

/// Installs huggingface_hub by hash in an environment under target/, and runs the test that needs it.
///
/// # Errors
/// What could not be installed, or built, or what the test found.
pub fn hub(arguments: &[String]) -> Result {
    if !arguments.is_empty() {
        return Err(format!("hub takes nothing, not {}", arguments.join(" ")));
    }
    vendor(&[])?;
    let python = environment("hub-venv", &root().join("tests/hub/requirements.txt"))?;
    run(cargo()
        .args(["test", "--package", "pensieve", "--test", "hub"])
        .args(["--", "--ignored", "--nocapture", "interop"])
        .env("PENSIEVE_HUB_PYTHON", python))
}
