//! Chat templates rendered by transformers and by us, over a matrix of dialogues.

use std::path::PathBuf;
use std::process::Command;

use crate::macos::target_dir;
use crate::sh::{Result, cargo, root, run};
use crate::vendor::vendor;

/// `--dir FOLDER` compares each `*.jinja` in it, and reads back the calls that they write; without, the
/// golden file of our own templates is written anew and compared. `PENSIEVE_PYTHON` is a Python that has transformers, `python3` otherwise.
///
/// # Errors
/// If a command failed, or renderings differ.
pub fn templates(arguments: &[String]) -> Result {
    let folder = match arguments {
        [] => None,
        [flag, folder] if flag == "--dir" => Some(PathBuf::from(folder)),
        _ => return Err("templates takes --dir FOLDER or nothing".into()),
    };
    vendor(&[])?;
    let python = std::env::var_os("PENSIEVE_PYTHON").unwrap_or_else(|| "python3".into());
    let mut reference = Command::new(python);
    reference.arg(root().join("tests/templates/reference.py"));
    let mut test = cargo();
    test.args(["test", "--package", "pensieve", "--lib"]);
    match folder {
        None => {
            run(reference.arg("golden"))?;
            run(test.arg("what_jinja_can_do"))
        }
        Some(folder) => {
            // Other people's templates: the file stays out of the repository.
            let out = target_dir().join("templates.json");
            run(reference.arg(&folder).arg(&out))?;
            test.args([
                "--",
                "dialogues_come_out",
                "text::tests::calls",
                "--include-ignored",
                "--nocapture",
            ]);
            test.env("PENSIEVE_TEMPLATES", out);
            // Tests run in the package's folder.
            let folder = folder
                .canonicalize()
                .map_err(|e| format!("{}: {e}", folder.display()))?;
            run(test.env("PENSIEVE_TEMPLATE_DIR", folder))
        }
    }
}
