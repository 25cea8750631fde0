//! Decides how to build, from facts alone: no file is touched and no command is run here, so the
//! plan for a Mac is tested on Linux (`tests/plan.rs`).

use std::path::{Path, PathBuf};

/// The version of mlx-c whose sources are pinned in `vendor/mlx-c`.
pub const MLX_C_VERSION: &str = "0.7.0";
/// The version of MLX that mlx-c was written against, pinned in `vendor/wheels`.
pub const MLX_VERSION: &str = "0.32.2";

/// What MLX computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Linux without an accelerator.
    Cpu,
    /// Linux with an NVIDIA GPU.
    Cuda,
    /// macOS on Apple Silicon.
    Metal,
}

impl Backend {
    /// Its name, as build scripts and folders spell it.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Cpu => "cpu",
            Backend::Cuda => "cuda",
            Backend::Metal => "metal",
        }
    }
}

/// Where MLX comes from; one file of this folder carries out each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// `MLX_DIR` names a folder with include/ and lib/.
    Dir(PathBuf),
    /// The wheel that `cargo xtask vendor` unpacked; the path holds include/ and lib/.
    Wheel(PathBuf),
    /// MLX is built from source, with Metal, through mlx-c's own CMake.
    MetalSource,
    /// MLX is nowhere to be found: `cargo check` works, linking says what to run.
    Missing,
}

/// The facts a plan is made from.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// `CARGO_CFG_TARGET_OS`.
    pub target_os: &'a str,
    /// `CARGO_CFG_TARGET_ARCH`.
    pub target_arch: &'a str,
    /// Cargo feature `cuda`.
    pub cuda: bool,
    /// Cargo feature `metal-source`.
    pub metal_source: bool,
    /// The environment variable `MLX_DIR`.
    pub mlx_dir: Option<PathBuf>,
    /// `PENSIEVE_RELOCATABLE`: the binary is to be handed out, with its libraries in an archive.
    pub relocatable: bool,
    /// The folder that `cargo xtask vendor` fills.
    pub fetched: &'a Path,
}

/// How to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What MLX computes on.
    pub backend: Backend,
    /// Where MLX comes from.
    pub strategy: Strategy,
    /// Whether the binary looks for its libraries nowhere but where an archive has them.
    pub relocatable: bool,
}

/// Makes the plan. `exists` tells whether a path is there.
///
/// # Errors
/// A text that names what was asked for and what is accepted, when target and features do not fit.
pub fn plan(facts: &Facts, exists: impl Fn(&Path) -> bool) -> Result<Plan, String> {
    let backend = match (facts.target_os, facts.target_arch, facts.cuda) {
        ("macos", "aarch64", false) => Backend::Metal,
        ("macos", "aarch64", true) => {
            return Err("feature `cuda` is for Linux; on macOS MLX runs on Metal".into());
        }
        ("linux", _, false) => Backend::Cpu,
        ("linux", "x86_64", true) => Backend::Cuda,
        (os, arch, _) => {
            return Err(format!(
                "MLX is not available for {arch}-{os}{}; supported are macOS on aarch64, Linux on \
                 x86_64 and aarch64, and with feature `cuda` Linux on x86_64",
                if facts.cuda { " with CUDA" } else { "" }
            ));
        }
    };
    if facts.metal_source && backend != Backend::Metal {
        return Err("feature `metal-source` builds MLX with Metal and is for macOS alone".into());
    }
    let wheel = facts
        .fetched
        .join(format!("mlx-{}", backend.name()))
        .join("mlx");
    let strategy = if let Some(dir) = &facts.mlx_dir {
        Strategy::Dir(dir.clone())
    } else if facts.metal_source {
        Strategy::MetalSource
    } else if exists(&wheel.join("include/mlx/version.h")) {
        Strategy::Wheel(wheel)
    } else {
        Strategy::Missing
    };
    Ok(Plan {
        backend,
        strategy,
        relocatable: facts.relocatable,
    })
}

impl Plan {
    /// The command that provides what is missing.
    pub fn remedy(&self) -> &'static str {
        match self.backend {
            Backend::Cuda => "cargo xtask vendor --cuda",
            _ => "cargo xtask vendor",
        }
    }

    /// A library name that does not exist, so that the linker's own message tells what to run.
    pub fn missing_library(&self) -> &'static str {
        match self.backend {
            Backend::Cuda => "mlx_is_missing__run__cargo_xtask_vendor_--cuda",
            _ => "mlx_is_missing__run__cargo_xtask_vendor",
        }
    }

    /// Arguments for the linker of whatever links mlx-sys, beside `-lmlx`.
    ///
    /// `lib_dir` is where the library lies now; a distributed binary finds it in the archive it came
    /// in, which keeps the wheel's folders on Linux: libmlx.so has its own search path for them.
    pub fn link_args(&self, lib_dir: &Path) -> Vec<String> {
        let rpath = |dir: &str| format!("-Wl,-rpath,{dir}");
        let (origin, mut arguments) = match self.backend {
            Backend::Metal => ("@loader_path", Vec::new()),
            // The wheel's own dependencies (BLAS, CUDA) are found by libmlx.so's rpath at run time;
            // a build machine need not have them.
            Backend::Cpu | Backend::Cuda => {
                ("$ORIGIN", vec!["-Wl,--allow-shlib-undefined".to_owned()])
            }
        };
        arguments.push(rpath(origin));
        arguments.push(rpath(&format!("{origin}/../lib/pensieve")));
        if !self.relocatable {
            arguments.push(rpath(&lib_dir.display().to_string()));
        } else if self.backend != Backend::Metal {
            arguments.push(rpath("$ORIGIN/../lib/pensieve/mlx/lib"));
            // DT_RPATH counts for the libraries' own needs too: they take the C++ library that
            // comes with them.
            arguments.push("-Wl,--disable-new-dtags".to_owned());
        }
        arguments
    }

    /// Whether operations of our own (`call/`) are built: on macOS the CPU is not what one computes on.
    pub fn has_calls(&self) -> bool {
        self.backend != Backend::Metal
    }

    /// Whether a compiler needs the substitute for `std::format` in `compat.h`: GCC below 13.
    pub fn needs_format_shim(&self, gcc_major: Option<u32>) -> bool {
        gcc_major.is_some_and(|major| major < 13)
    }
}

/// Whether the MLX found is the one mlx-c was written for.
///
/// # Errors
/// A text with both numbers and what to do.
pub fn check_versions(mlx_found: &str, mlx_c_found: &str, at: &Path) -> Result<(), String> {
    if mlx_c_found != MLX_C_VERSION {
        return Err(format!(
            "mlx-c is {mlx_c_found}, expected {MLX_C_VERSION}; run `cargo xtask vendor`"
        ));
    }
    if mlx_found != MLX_VERSION {
        return Err(format!(
            "MLX in {} is {mlx_found}, but mlx-c {MLX_C_VERSION} needs MLX {MLX_VERSION}; unset \
             MLX_DIR or point it at that version, or run `cargo xtask vendor`",
            at.display()
        ));
    }
    Ok(())
}

/// Reads `major.minor.patch` out of MLX's `version.h`.
pub fn mlx_version(header: &str) -> Option<String> {
    let part = |name: &str| {
        header.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("#define MLX_VERSION_")?;
            rest.strip_prefix(name)?.trim().parse::<u32>().ok()
        })
    };
    Some(format!(
        "{}.{}.{}",
        part("MAJOR ")?,
        part("MINOR ")?,
        part("PATCH ")?
    ))
}

/// Reads the version out of mlx-c's `CMakeLists.txt`.
pub fn mlx_c_version(cmake: &str) -> Option<String> {
    let line = cmake
        .lines()
        .find_map(|line| line.trim().strip_prefix("set(MLX_C_VERSION "))?;
    Some(line.trim_end_matches(')').to_string())
}
