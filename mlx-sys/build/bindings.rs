//! The raw bindings: bindgen over mlx-c's headers and `call/call.h`, or the committed snapshot of its output where
//! the headers are not there (`cargo check` in a fresh clone).
//!
//! The snapshot is the same on every platform: what differs (16-bit floats, complex numbers,
//! `FILE`) is left out. `tests/snapshot.rs` fails when it is stale; `cargo xtask bindings` renews it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::var;

pub fn snapshot(manifest: &Path) -> Result<(), String> {
    let from = manifest.join("bindings.rs");
    let to = PathBuf::from(var("OUT_DIR")?).join("bindings.rs");
    std::fs::copy(&from, &to).map_err(|e| format!("{}: {e}", from.display()))?;
    Ok(())
}

pub fn generate(sources: &Path, fetched: &Path, manifest: &Path) -> Result<(), String> {
    let own_clang = fetched.join("libclang/clang/native");
    if own_clang.exists() && std::env::var_os("LIBCLANG_PATH").is_none() {
        // SAFETY: a build script has one thread here, and clang-sys reads the variable after this.
        unsafe { std::env::set_var("LIBCLANG_PATH", &own_clang) };
    }
    let bindings = bindgen::Builder::default()
        .header(sources.join("mlx/c/mlx.h").display().to_string())
        .header(manifest.join("call/call.h").display().to_string())
        .clang_arg(format!("-I{}", sources.display()))
        .clang_args(builtin_headers())
        .allowlist_function("_?mlx_.*")
        .allowlist_type("mlx_.*")
        .allowlist_var("MLX_.*")
        .blocklist_function(".*(float16|complex|print_graph|to_dot).*")
        .blocklist_type(".*complex.*")
        .allowlist_recursively(false)
        .default_enum_style(bindgen::EnumVariation::NewType {
            is_bitfield: false,
            is_global: false,
        })
        .prepend_enum_name(false)
        .generate_comments(false)
        .layout_tests(false)
        .disable_header_comment()
        .formatter(bindgen::Formatter::Prettyplease)
        .generate();
    let bindings = match bindings {
        Ok(bindings) => bindings,
        Err(e) => return Err(format!("bindgen cannot read mlx-c's headers: {e}")),
    };
    let out = PathBuf::from(var("OUT_DIR")?).join("bindings.rs");
    bindings
        .write_to_file(&out)
        .map_err(|e| format!("{}: {e}", out.display()))?;
    Ok(())
}

/// PyPI's libclang comes without clang's own headers (stddef.h and such); GCC's serve as well.
fn builtin_headers() -> Vec<String> {
    let output = Command::new("gcc").arg("-print-file-name=include").output();
    match output {
        Ok(output) if output.status.success() && cfg!(target_os = "linux") => {
            let dir = String::from_utf8_lossy(&output.stdout).trim().to_string();
            vec!["-isystem".into(), dir]
        }
        _ => Vec::new(),
    }
}
