//! Compiles mlx-c's sources, and `call/call.cpp`, with `cc` against an MLX that is already built (`MLX_DIR` or a wheel).
//!
//! mlx-c's own CMake is not used here: with the CUDA wheel it asks for a CUDA toolkit, which a
//! build machine need not have.

use std::path::Path;
use std::process::Command;

use crate::plan::{self, Backend, Plan};
use crate::{read, var};

pub fn build(plan: &Plan, mlx: &Path, sources: &Path, manifest: &Path) -> Result<(), String> {
    let (include, lib) = (mlx.join("include"), mlx.join("lib"));
    check_versions(mlx, sources)?;

    let mut cc = cc::Build::new();
    cc.cpp(true)
        .std(if plan.backend == Backend::Metal {
            "gnu++20"
        } else {
            "c++20"
        })
        .include(sources)
        .include(&include)
        .warnings(false)
        .flag("-include")
        .flag(manifest.join("build/compat.h"))
        .flag_if_supported("-Wno-psabi");
    if plan.needs_format_shim(gcc_major(&cc)) {
        cc.define("PENSIEVE_NEEDS_FORMAT", None);
    }
    if plan.backend == Backend::Metal {
        cc.include(include.join("metal_cpp"));
    }
    let folder = sources.join("mlx/c");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .map_err(|e| format!("{}: {e}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|x| x == "cpp"))
        .collect();
    files.sort();
    cc.files(files);
    if plan.has_calls() {
        cc.file(manifest.join("call/call.cpp"));
    }
    cc.try_compile("mlxc").map_err(|e| {
        format!("mlx-c does not compile ({e}); a C++20 compiler is needed: GCC 12 or clang 15")
    })?;

    println!("cargo::rustc-link-search=native={}", lib.display());
    println!("cargo::rustc-link-lib=dylib=mlx");
    println!("cargo::metadata=lib_dir={}", lib.display());
    let link_args = plan.link_args(&lib);
    println!("cargo::metadata=link_args={}", link_args.join("\x1f"));
    for arg in link_args {
        println!("cargo::rustc-link-arg={arg}");
    }
    Ok(())
}

fn check_versions(mlx: &Path, sources: &Path) -> Result<(), String> {
    let header = mlx.join("include/mlx/version.h");
    let found = plan::mlx_version(&read(&header)?)
        .ok_or_else(|| format!("{}: no version in it", header.display()))?;
    let cmake = sources.join("CMakeLists.txt");
    let mlx_c = plan::mlx_c_version(&read(&cmake)?)
        .ok_or_else(|| format!("{}: no version in it", cmake.display()))?;
    plan::check_versions(&found, &mlx_c, mlx)
}

/// The major version of the C++ compiler if it is GCC.
fn gcc_major(cc: &cc::Build) -> Option<u32> {
    let compiler = cc.try_get_compiler().ok()?;
    if !compiler.is_like_gnu() || var("CARGO_CFG_TARGET_OS").ok()? != "linux" {
        return None;
    }
    let output = Command::new(compiler.path()).arg("-dumpversion").output();
    let version = String::from_utf8(output.ok()?.stdout).ok()?;
    version.trim().split('.').next()?.parse().ok()
}
