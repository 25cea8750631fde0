//! The build plan for every platform, decided on this one.

#[path = "../build/plan.rs"]
#[allow(dead_code)]
mod plan;

use std::path::{Path, PathBuf};

use plan::{Backend, Facts, Strategy, check_versions, mlx_c_version, mlx_version, plan as decide};

fn facts<'a>(target_os: &'a str, target_arch: &'a str) -> Facts<'a> {
    Facts {
        target_os,
        target_arch,
        cuda: false,
        metal_source: false,
        mlx_dir: None,
        relocatable: false,
        fetched: Path::new("/p/vendor/fetched"),
    }
}

fn all_there(_: &Path) -> bool {
    true
}

#[test]
fn a_mac_uses_the_metal_wheel() {
    let plan = decide(&facts("macos", "aarch64"), all_there).unwrap();
    assert_eq!(plan.backend, Backend::Metal);
    let wheel = PathBuf::from("/p/vendor/fetched/mlx-metal/mlx");
    assert_eq!(plan.strategy, Strategy::Wheel(wheel.clone()));
    assert!(!plan.has_calls());
    let args = plan.link_args(&wheel.join("lib"));
    assert_eq!(
        args,
        [
            "-Wl,-rpath,@loader_path",
            "-Wl,-rpath,@loader_path/../lib/pensieve",
            "-Wl,-rpath,/p/vendor/fetched/mlx-metal/mlx/lib"
        ]
    );
}

#[test]
fn a_mac_can_build_mlx_from_source() {
    let facts = Facts {
        metal_source: true,
        ..facts("macos", "aarch64")
    };
    let plan = decide(&facts, all_there).unwrap();
    assert_eq!(plan.strategy, Strategy::MetalSource);
    let elsewhere = Facts {
        metal_source: true,
        target_os: "linux",
        ..facts
    };
    assert!(
        decide(&elsewhere, all_there)
            .unwrap_err()
            .contains("macOS alone")
    );
}

#[test]
fn linux_uses_the_wheel_of_its_backend() {
    for (cuda, backend, folder) in [
        (false, Backend::Cpu, "/p/vendor/fetched/mlx-cpu/mlx"),
        (true, Backend::Cuda, "/p/vendor/fetched/mlx-cuda/mlx"),
    ] {
        let facts = Facts {
            cuda,
            ..facts("linux", "x86_64")
        };
        let plan = decide(&facts, all_there).unwrap();
        assert_eq!(plan.backend, backend);
        assert_eq!(plan.strategy, Strategy::Wheel(folder.into()));
        let args = plan.link_args(Path::new("/lib"));
        assert!(args.contains(&"-Wl,--allow-shlib-undefined".to_string()));
        assert!(args.contains(&"-Wl,-rpath,$ORIGIN".to_string()));
    }
}

#[test]
fn mlx_dir_comes_first() {
    let facts = Facts {
        mlx_dir: Some("/opt/mlx".into()),
        metal_source: true,
        ..facts("macos", "aarch64")
    };
    let plan = decide(&facts, all_there).unwrap();
    assert_eq!(plan.strategy, Strategy::Dir("/opt/mlx".into()));
}

#[test]
fn without_mlx_the_linker_says_what_to_run() {
    let plan = decide(&facts("linux", "x86_64"), |_| false).unwrap();
    assert_eq!(plan.strategy, Strategy::Missing);
    assert_eq!(plan.remedy(), "cargo xtask vendor");
    assert!(plan.missing_library().contains("cargo_xtask_vendor"));
    let cuda = Facts {
        cuda: true,
        ..facts("linux", "x86_64")
    };
    let plan = decide(&cuda, |_| false).unwrap();
    assert_eq!(plan.remedy(), "cargo xtask vendor --cuda");
}

#[test]
fn unsupported_targets_name_what_is_supported() {
    for (os, arch, cuda) in [
        ("windows", "x86_64", false),
        ("macos", "x86_64", false),
        ("macos", "aarch64", true),
        ("linux", "aarch64", true),
    ] {
        let facts = Facts {
            cuda,
            ..facts(os, arch)
        };
        let message = decide(&facts, all_there).unwrap_err();
        assert!(
            message.contains("Linux") || message.contains("Metal"),
            "{message}"
        );
    }
}

#[test]
fn only_old_gcc_needs_the_format_shim() {
    let plan = decide(&facts("linux", "x86_64"), all_there).unwrap();
    assert!(plan.needs_format_shim(Some(12)));
    assert!(!plan.needs_format_shim(Some(13)));
    assert!(!plan.needs_format_shim(None));
}

#[test]
fn a_version_mismatch_shows_both_numbers() {
    let at = Path::new("/opt/mlx");
    assert_eq!(check_versions("0.32.2", "0.7.0", at), Ok(()));
    let message = check_versions("0.31.0", "0.7.0", at).unwrap_err();
    for part in ["0.31.0", "0.32.2", "/opt/mlx"] {
        assert!(message.contains(part), "{message}");
    }
    let message = check_versions("0.32.2", "0.6.9", at).unwrap_err();
    assert!(
        message.contains("0.6.9") && message.contains("0.7.0"),
        "{message}"
    );
}

#[test]
fn versions_are_read_from_the_sources() {
    let header = "#pragma once\n#define MLX_VERSION_MAJOR 0\n#define MLX_VERSION_MINOR 32\n\
                  #define MLX_VERSION_PATCH 2\n#define MLX_VERSION_NUMERIC (1)\n";
    assert_eq!(mlx_version(header).as_deref(), Some("0.32.2"));
    assert_eq!(mlx_version("#define MLX_VERSION_MAJOR 0\n"), None);
    let cmake = "if(NOT MLX_C_VERSION)\n  set(MLX_C_VERSION 0.7.0)\nendif()\n";
    assert_eq!(mlx_c_version(cmake).as_deref(), Some("0.7.0"));
}

#[test]
fn what_is_handed_out_looks_for_nothing_where_it_was_built() {
    for (os, arch) in [("macos", "aarch64"), ("linux", "x86_64")] {
        let facts = Facts {
            relocatable: true,
            ..facts(os, arch)
        };
        let plan = decide(&facts, all_there).unwrap();
        let args = plan.link_args(Path::new("/p/vendor/fetched/mlx/lib"));
        assert!(args.iter().all(|arg| !arg.contains("/p/")), "{args:?}");
        let archive = args.iter().any(|arg| arg.ends_with("/../lib/pensieve"));
        assert!(archive, "{args:?}");
        let old_tags = args.iter().any(|arg| arg == "-Wl,--disable-new-dtags");
        assert_eq!(old_tags, os == "linux");
    }
}
