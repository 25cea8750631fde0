//! Builds mlx-c against the MLX that the plan names, and the bindings to it.
//!
//! One file a part: `plan` decides, `mlx_c` compiles the sources against an installed MLX,
//! `metal_source` builds both through CMake, `bindings` runs bindgen. Nothing here downloads.

mod bindings;
mod metal_source;
mod mlx_c;
mod plan;

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

use plan::{Facts, Strategy};

fn main() {
    if let Err(message) = build() {
        println!("cargo::error={}", message.replace('\n', " "));
        exit(1);
    }
}

fn build() -> Result<(), String> {
    let manifest = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().ok_or("mlx-sys has no parent folder")?;
    let fetched = root.join("vendor/fetched");
    println!("cargo::rerun-if-env-changed=MLX_DIR");
    println!("cargo::rerun-if-env-changed=PENSIEVE_RELOCATABLE");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=call");
    println!("cargo::rerun-if-changed=bindings.rs");
    let (target_os, target_arch) = (var("CARGO_CFG_TARGET_OS")?, var("CARGO_CFG_TARGET_ARCH")?);
    let facts = Facts {
        target_os: &target_os,
        target_arch: &target_arch,
        cuda: env::var_os("CARGO_FEATURE_CUDA").is_some(),
        metal_source: env::var_os("CARGO_FEATURE_METAL_SOURCE").is_some(),
        mlx_dir: env::var_os("MLX_DIR").map(PathBuf::from),
        relocatable: env::var_os("PENSIEVE_RELOCATABLE").is_some(),
        fetched: &fetched,
    };
    let plan = plan::plan(&facts, Path::exists)?;
    // `cargo xtask vendor` writes these; they change with the pins. A missing one makes cargo run
    // this again each time, so only what this plan needs is watched.
    let wheel = format!("mlx-{}", plan.backend.name());
    let watched = match plan.strategy {
        Strategy::Wheel(_) | Strategy::Missing => vec!["mlx-c", &wheel],
        Strategy::Dir(_) | Strategy::MetalSource => vec!["mlx-c"],
    };
    for name in watched {
        let pin = fetched.join(name).join("pin");
        println!("cargo::rerun-if-changed={}", pin.display());
    }
    let sources = fetched.join("mlx-c");
    println!("cargo::metadata=backend={}", plan.backend.name());

    if !sources.join("CMakeLists.txt").exists() || plan.strategy == Strategy::Missing {
        // Checking and documenting need no MLX; linking fails with the library's name as the hint.
        bindings::snapshot(&manifest)?;
        println!("cargo::warning=MLX is not there: run `{}`", plan.remedy());
        println!("cargo::rustc-link-lib=dylib={}", plan.missing_library());
        return Ok(());
    }
    bindings::generate(&sources, &fetched, &manifest)?;
    match &plan.strategy {
        Strategy::MetalSource => metal_source::build(&sources),
        Strategy::Dir(mlx) | Strategy::Wheel(mlx) => mlx_c::build(&plan, mlx, &sources, &manifest),
        Strategy::Missing => unreachable!("returned above"),
    }
}

/// An environment variable that cargo sets.
fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}

/// A file's text, with its path in the error.
fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}
