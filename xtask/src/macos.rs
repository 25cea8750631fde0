//! Cross-checks and cross-links the release binary for macOS on Apple Silicon, on Linux.
//!
//! There is no Apple SDK in it: rustc builds std from its own source, zig brings Darwin's C headers,
//! the symbols of libSystem and the linker, and MLX comes as its wheel for macOS 14. The system's
//! libraries beyond libSystem get stubs with the symbols named here (`STUBS`), or, for libc++, those
//! that MLX's own build takes from it; anything else fails to link. zig's own libc++ must stay out:
//! an exception thrown in libmlx is of the system's libc++ and would pass a handler of another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::macho;
use crate::sh::{Result, output, root, run};
use crate::vendor::{Extra, fetched, vendor};

/// As rustc calls it.
pub const TARGET: &str = "aarch64-apple-darwin";
const ZIG_TARGET: &str = "aarch64-macos.14.0";
/// Stubs of system libraries: file, install name, and the symbols that our crates use of it.
const STUBS: [(&str, &str, &[&str]); 1] = [(
    "CoreFoundation.tbd",
    "/System/Library/Frameworks/CoreFoundation.framework/Versions/A/CoreFoundation",
    &[
        "CFRelease",
        "CFStringGetBytes",
        "CFStringGetCStringPtr",
        "CFStringGetLength",
        "CFTimeZoneCopySystem",
        "CFTimeZoneGetName",
        "CFTimeZoneResetSystem",
    ],
)];
/// Symbols of the system's libc++ that mlx-c uses and libmlx does not: `std::to_chars` of floats (in
/// the system since macOS 13.3), and older parts: sized delete, strings, streams, locales.
const LIBCXX_EXTRA: [&str; 27] = [
    "__ZdlPvm",
    "__ZNSt3__112basic_stringIcNS_11char_traitsIcEENS_9allocatorIcEEE21__grow_by_and_replaceEmmmmmmPKc",
    "__ZNSt3__113basic_ostreamIcNS_11char_traitsIcEEED0Ev",
    "__ZNSt3__113basic_ostreamIcNS_11char_traitsIcEEED1Ev",
    "__ZNSt3__16localeaSERKS0_",
    "__ZNSt3__115basic_streambufIcNS_11char_traitsIcEEE5imbueERKNS_6localeE",
    "__ZNSt3__115basic_streambufIcNS_11char_traitsIcEEE5uflowEv",
    "__ZNSt3__115basic_streambufIcNS_11char_traitsIcEEE6setbufEPcl",
    "__ZNSt3__115basic_streambufIcNS_11char_traitsIcEEE6xsgetnEPcl",
    "__ZNSt3__115basic_streambufIcNS_11char_traitsIcEEE7seekoffExNS_8ios_base7seekdirEj",
    "__ZNSt3__115basic_streambufIcNS_11char_traitsIcEEE7seekposENS_4fposI11__mbstate_tEEj",
    "__ZNSt3__115basic_streambufIcNS_11char_traitsIcEEE9pbackfailEi",
    "__ZNSt3__115basic_streambufIcNS_11char_traitsIcEEE9showmanycEv",
    "__ZNSt3__115basic_streambufIcNS_11char_traitsIcEEE9underflowEv",
    "__ZNSt3__18to_charsEPcS0_d",
    "__ZNSt3__18to_charsEPcS0_dNS_12chars_formatE",
    "__ZNSt3__18to_charsEPcS0_dNS_12chars_formatEi",
    "__ZNSt3__18to_charsEPcS0_e",
    "__ZNSt3__18to_charsEPcS0_eNS_12chars_formatE",
    "__ZNSt3__18to_charsEPcS0_eNS_12chars_formatEi",
    "__ZNSt3__18to_charsEPcS0_f",
    "__ZNSt3__18to_charsEPcS0_fNS_12chars_formatE",
    "__ZNSt3__18to_charsEPcS0_fNS_12chars_formatEi",
    "__ZTv0_n24_NSt3__113basic_ostreamIcNS_11char_traitsIcEEED0Ev",
    "__ZTv0_n24_NSt3__113basic_ostreamIcNS_11char_traitsIcEEED1Ev",
    "__ZTINSt3__113basic_ostreamIcNS_11char_traitsIcEEEE",
    "__ZTINSt3__115basic_streambufIcNS_11char_traitsIcEEEE",
];
/// What provides rustc and std's source on Debian 12.
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Builds, links and looks at the binary; with `--check` in `flags`, only type-checks.
///
/// # Errors
/// What is missing to do it, what does not compile or link, or what is wrong with the binary.
pub fn macos(flags: &[String]) -> Result {
    let only_check = match flags {
        [] => false,
        [flag] if flag == "--check" => true,
        other => return Err(format!("macos takes --check, not {}", other.join(" "))),
    };
    if only_check {
        return cargo("check", "release", |_| ()).map(drop);
    }
    let binary = build("release", |_| ())?;
    let report = macho::verify(&binary, &libmlx())?;
    eprint!("macos: {}\n{report}", binary.display());
    for signed in [binary, libmlx()] {
        let pages = macho::signed(&signed)?;
        eprintln!("  {}: {pages} pages, each as signed", signed.display());
    }
    Ok(())
}

/// Builds the binary in `profile` and returns its place; `set` may change the command.
///
/// # Errors
/// What is missing to do it, or does not compile or link.
pub fn build(profile: &str, set: impl Fn(&mut Command)) -> Result<PathBuf> {
    let dir = cargo("build", profile, set)?;
    Ok(dir.join(TARGET).join(profile).join("pensieve"))
}

/// Runs cargo for the target; returns the target folder.
fn cargo(verb: &str, profile: &str, set: impl Fn(&mut Command)) -> Result<PathBuf> {
    let toolchain = Toolchain::find()?;
    vendor(&[Extra::Macos])?;
    let dir = target_dir().join("macos");
    let tools = Tools::write(&dir.join("tools"))?;
    let started = Instant::now();
    let mut command = toolchain.cargo(&dir);
    tools
        .set(&mut command)
        .args([verb, "--profile", profile, "--locked"])
        .args(["--package", "pensieve", "--target", TARGET])
        .arg("-Zbuild-std=std,panic_abort");
    set(&mut command);
    run(&mut command)?;
    eprintln!("macos: {verb} took {} s", started.elapsed().as_secs());
    Ok(dir)
}

/// Why this machine cannot do it, if it cannot; installs Debian's packages where it may.
pub fn unavailable() -> Option<String> {
    Toolchain::find().err()
}

/// The compiler whose standard library is in the binary.
///
/// # Errors
/// What is missing to do it.
pub fn rustc() -> Result<PathBuf> {
    Toolchain::find().map(|toolchain| toolchain.rustc)
}

/// MLX's library for macOS.
pub fn libmlx() -> PathBuf {
    fetched("mlx-metal").join("mlx/lib/libmlx.dylib")
}

/// Where cargo puts things.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A cargo and rustc that have std's source.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
}

impl Toolchain {
    /// The one this runs under, else Debian's, which root installs.
    fn find() -> Result<Toolchain> {
        if cfg!(target_os = "macos") {
            return Err("this is a Mac: `cargo build --release` is the real thing".into());
        }
        let own = Path::new(env!("CARGO")).parent().unwrap_or(Path::new(""));
        let debian = Path::new("/usr/bin");
        if let Some(found) = [own, debian].into_iter().find_map(Toolchain::at) {
            return Ok(found);
        }
        let as_root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
        if as_root && Path::new("/usr/bin/apt-get").exists() {
            eprintln!("macos: installing {}", PACKAGES.join(", "));
            let apt = |arguments: &[&str]| {
                run(Command::new("apt-get")
                    .env("DEBIAN_FRONTEND", "noninteractive")
                    .args(["-q", "-y"])
                    .args(arguments))
            };
            apt(&["update"])?;
            apt(&[&["install", "--no-install-recommends"], &PACKAGES[..]].concat())?;
        }
        Toolchain::at(debian).ok_or_else(|| {
            format!(
                "std's source is needed: on Debian 12 `apt-get install {}`, elsewhere `rustup \
                 component add rust-src`",
                PACKAGES.join(" ")
            )
        })
    }

    fn at(bin: &Path) -> Option<Toolchain> {
        let std = bin.parent()?.join("lib/rustlib/src/rust/library/std");
        let (cargo, rustc) = (bin.join("cargo"), bin.join("rustc"));
        (std.join("Cargo.toml").exists() && cargo.exists() && rustc.exists())
            .then_some(Toolchain { cargo, rustc })
    }

    fn cargo(&self, target_dir: &Path) -> Command {
        let mut command = Command::new(&self.cargo);
        command
            .current_dir(root())
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", target_dir);
        command
    }
}

/// The C and C++ compilers, the archiver and the linker for the target: scripts around zig.
struct Tools {
    dir: PathBuf,
    zig: PathBuf,
}

impl Tools {
    fn write(dir: &Path) -> Result<Tools> {
        let zig = fetched("ziglang").join("ziglang");
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut libcxx: Vec<String> = macho::taken_from_libcxx(&libmlx())?.into_iter().collect();
        libcxx.extend(LIBCXX_EXTRA.map(String::from));
        write(&dir.join("libc++.tbd"), &stub(macho::LIBCXX, &libcxx))?;
        for (name, install_name, symbols) in STUBS {
            let symbols: Vec<String> = symbols.iter().map(|s| format!("_{s}")).collect();
            write(&dir.join(name), &stub(install_name, &symbols))?;
        }
        let program = zig.join("zig");
        for (name, verb) in [("cc", "cc"), ("cxx", "c++")] {
            write_program(&dir.join(name), &script(&program, verb, dir))?;
        }
        let archiver = format!("#!/bin/sh\nexec '{}' ar \"$@\"\n", program.display());
        write_program(&dir.join("ar"), &archiver)?;
        // rustc strips with this program, which Debian's lacks: here the symbols stay.
        write_program(&dir.join("rust-objcopy"), "#!/bin/sh\n")?;
        Ok(Tools {
            dir: dir.to_path_buf(),
            zig,
        })
    }

    /// Tells cargo, cc and bindgen about them.
    fn set<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let (lib, cache) = (self.zig.join("lib"), self.dir.join("cache"));
        let headers = ["include", "libc/include/any-macos-any"];
        let clang = headers.map(|folder| format!("-isystem {}", lib.join(folder).display()));
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{path}:{}", self.dir.display()))
            .env("CC_aarch64_apple_darwin", self.dir.join("cc"))
            .env("CXX_aarch64_apple_darwin", self.dir.join("cxx"))
            .env("AR_aarch64_apple_darwin", self.dir.join("ar"))
            // rustc tells from the name that it speaks a C compiler's language.
            .env(
                "CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER",
                self.dir.join("cc"),
            )
            .env(
                "BINDGEN_EXTRA_CLANG_ARGS_aarch64_apple_darwin",
                format!("-nostdinc {}", clang.join(" ")),
            )
            .env("MACOSX_DEPLOYMENT_TARGET", "14.0")
            .env("ZIG_GLOBAL_CACHE_DIR", &cache)
            .env("ZIG_LOCAL_CACHE_DIR", &cache)
    }
}

/// A text-based stub (.tbd): what a linker needs to know of a library.
fn stub(install_name: &str, symbols: &[String]) -> String {
    let quoted: Vec<String> = symbols.iter().map(|s| format!("'{s}'")).collect();
    format!(
        "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\ninstall-name: '{install_name}'\n\
         exports:\n  - targets: [ arm64-macos ]\n    symbols: [ {} ]\n...\n",
        quoted.join(", ")
    )
}

/// A script that passes its arguments to zig, but for those that zig does not take as rustc and cc
/// give them, and with the stubs for the libraries that have one. What it links names no object files:
/// a debugger's map of them would tell where they lay on this machine.
fn script(zig: &Path, verb: &str, dir: &Path) -> String {
    let dir = dir.display();
    let headers = match verb {
        // zig's headers then leave out what the system's libc++ had not on macOS 14.
        "c++" => " -D_LIBCPP_HAS_VENDOR_AVAILABILITY_ANNOTATIONS=1 -Wno-macro-redefined",
        _ => "",
    };
    format!(
        r#"#!/bin/sh
skip=
strip=-Wl,-S
for argument do
  shift
  if [ -n "$skip" ]; then
    skip=
    continue
  fi
  case "$argument" in
    -arch | -Wl,-exported_symbols_list) skip=1 ;;
    -c | -E) strip=; set -- "$@" "$argument" ;;
    -framework) set -- "$@" '{dir}'/"$1".tbd; skip=1 ;;
    -liconv | -mmacosx-version-min=* | --target=*) ;;
    -lc++) set -- "$@" '{dir}/libc++.tbd' ;;
    *) set -- "$@" "$argument" ;;
  esac
done
exec '{}' {verb} -target {ZIG_TARGET} "$@" $strip{headers}
"#,
        zig.display()
    )
}

fn write(path: &Path, text: &str) -> Result {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn write_program(path: &Path, text: &str) -> Result {
    write(path, text)?;
    run(Command::new("chmod").arg("+x").arg(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_drops_what_zig_does_not_take_and_links_the_stub() {
        let dir = std::env::temp_dir().join(format!("pensieve-xtask-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let link = dir.join("cc");
        write_program(&link, &script(Path::new("/bin/echo"), "cc", &dir)).expect("a script");
        let given = "-arch arm64 -mmacosx-version-min=14.0 -liconv -lc++ -framework F \
                     -Wl,-exported_symbols_list -Wl,list -lSystem";
        let passed = output(Command::new(&link).arg("a  b.o").args(given.split(' ')));
        let compiled = output(Command::new(&link).args(["-c", "a.c"]));
        fs::remove_dir_all(&dir).expect("the folder goes");
        let dir = dir.display();
        assert_eq!(
            passed.expect("echo runs"),
            format!(
                "cc -target {ZIG_TARGET} a  b.o {dir}/libc++.tbd {dir}/F.tbd -lSystem -Wl,-S\n"
            )
        );
        assert_eq!(
            compiled.expect("echo runs").trim_end(),
            format!("cc -target {ZIG_TARGET} -c a.c")
        );
    }
}
