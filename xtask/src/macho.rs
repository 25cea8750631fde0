//! Reads the cross-linked binary back: what it is, what it loads, and whether the libraries have what
//! it imports.
//!
//! Two-level names make this exact: each imported symbol says which library it is taken from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use object::macho::{BIND_SPECIAL_DYLIB_WEAK_LOOKUP, LC_CODE_SIGNATURE, MH_EXECUTE};
use object::read::macho::{LoadCommandVariant, MachHeader, MachOFile64};
use object::{Architecture, Endianness, ImportFlags, Object};

use crate::sh::Result;
use crate::signature;

type File<'a> = MachOFile64<'a, Endianness>;

const LIBMLX: &str = "@rpath/libmlx.dylib";
/// The system's C++ library.
pub const LIBCXX: &str = "/usr/lib/libc++.1.dylib";
/// C++'s inline functions and the like: dyld makes one of all libraries' copies.
const WEAK: &str = "any library (weak definitions)";
/// macOS 14.0 as Mach-O writes versions.
const OLDEST: u32 = 14 << 16;

/// Checks `binary` and returns figures to print.
///
/// # Errors
/// What is not as it must be: the format, the oldest macOS, MLX's place, or a symbol that `libmlx`
/// lacks.
pub fn verify(binary: &Path, libmlx: &Path) -> Result<String> {
    let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let (bytes, mlx_bytes) = (read(binary)?, read(libmlx)?);
    let fail = |what: String| format!("{}: {what}", binary.display());
    let file = parse(&bytes).map_err(fail)?;
    let mlx = parse(&mlx_bytes).map_err(|e| format!("{}: {e}", libmlx.display()))?;

    let header = file.macho_header();
    if file.architecture() != Architecture::Aarch64 || header.filetype(file.endian()) != MH_EXECUTE
    {
        return Err(fail("is no arm64 executable".into()));
    }
    let oldest = oldest_macos(&file).map_err(fail)?;
    if oldest != OLDEST {
        return Err(fail(format!(
            "is for macOS {}.{}, expected 14.0",
            oldest >> 16,
            oldest >> 8 & 0xff
        )));
    }
    let imports = imports(&file).map_err(fail)?;
    let from_mlx = imports
        .get(LIBMLX)
        .ok_or_else(|| fail(format!("takes nothing from {LIBMLX}")))?;
    let exports = exports(&mlx)?;
    let lacking: Vec<&str> = from_mlx.difference(&exports).map(String::as_str).collect();
    if !lacking.is_empty() {
        return Err(fail(format!(
            "takes {} symbols from libmlx that it lacks: {}",
            lacking.len(),
            lacking.join(" ")
        )));
    }

    let mut report = format!("  arm64 executable for macOS 14.0, {} bytes\n", bytes.len());
    for (library, symbols) in &imports {
        let _ = write!(report, "  {:5} symbols of {library}", symbols.len());
        if library == LIBMLX {
            let _ = write!(report, ", all among its {} exports", exports.len());
        }
        if library == LIBCXX {
            let known = taken_from_libcxx(libmlx)?;
            let _ = match symbols.difference(&known).count() {
                0 => write!(report, ", libmlx takes all of them too"),
                n => write!(report, ", libmlx takes all but {n} of them too"),
            };
        }
        report.push('\n');
    }
    Ok(report)
}

/// What MLX's own build for macOS 14 takes from the system's libc++, so what is there.
///
/// # Errors
/// When the library cannot be read.
pub fn taken_from_libcxx(libmlx: &Path) -> Result<BTreeSet<String>> {
    let bytes = fs::read(libmlx).map_err(|e| format!("{}: {e}", libmlx.display()))?;
    let file = parse(&bytes)?;
    let mut imports = imports(&file)?;
    let mut found = imports.remove(LIBCXX).unwrap_or_default();
    // `operator new` and the like are libc++'s, but any library may define them.
    let weak = imports.remove(WEAK).unwrap_or_default();
    found.extend(weak.difference(&exports(&file)?).cloned());
    Ok(found)
}

/// What a binary or library loads, from where, and its signature.
#[derive(Debug, Default)]
pub struct Loads {
    /// The libraries' install names.
    pub libraries: Vec<String>,
    /// Where `@rpath` leads.
    pub search: Vec<String>,
    /// Offset and size of the code signature, in bytes.
    pub signature: Option<(usize, usize)>,
}

/// Reads the load commands; none if `bytes` is no Mach-O file for 64 bits.
///
/// # Errors
/// What is malformed.
pub fn loads(bytes: &[u8]) -> Result<Option<Loads>> {
    if !bytes.starts_with(&0xfeed_facf_u32.to_le_bytes()) {
        return Ok(None);
    }
    let file = parse(bytes)?;
    let endian = file.endian();
    let mut loads = Loads::default();
    let mut commands = file.macho_load_commands().map_err(text)?;
    while let Some(command) = commands.next().map_err(text)? {
        let string = |at| {
            let bytes = command.string(endian, at).map_err(text)?;
            Ok::<_, String>(String::from_utf8_lossy(bytes).into_owned())
        };
        match command.variant().map_err(text)? {
            LoadCommandVariant::Dylib(library) => {
                loads.libraries.push(string(library.dylib.name)?);
            }
            LoadCommandVariant::Rpath(path) => loads.search.push(string(path.path)?),
            LoadCommandVariant::LinkeditData(data) if data.cmd.get(endian) == LC_CODE_SIGNATURE => {
                let (at, size) = (data.dataoff.get(endian), data.datasize.get(endian));
                loads.signature = Some((at as usize, size as usize));
            }
            _ => {}
        }
    }
    Ok(Some(loads))
}

/// Checks that the code signature fits, page by page, and returns the count of pages.
///
/// # Errors
/// Why a Mac would not run it.
pub fn signed(path: &Path) -> Result<usize> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let checked = loads(&bytes).and_then(|loads| {
        let loads = loads.ok_or("is no Mach-O file for 64 bits")?;
        let (at, size) = loads.signature.ok_or("is not signed")?;
        signature::verify(&bytes, at, size)
    });
    checked.map_err(|e| format!("{}: {e}", path.display()))
}

fn parse(bytes: &[u8]) -> Result<File<'_>> {
    File::parse(bytes).map_err(text)
}

fn oldest_macos(file: &File) -> Result<u32> {
    let endian = file.endian();
    let mut commands = file.macho_load_commands().map_err(text)?;
    while let Some(command) = commands.next().map_err(text)? {
        if let Some((version, _)) = command.build_version(endian).map_err(text)? {
            return Ok(version.minos.get(endian).0);
        }
    }
    Err("has no LC_BUILD_VERSION".into())
}

/// Library -> the symbols taken from it.
fn imports(file: &File) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for import in file.imports().map_err(text)? {
        let import = import.map_err(text)?;
        let name = String::from_utf8_lossy(import.name().name().unwrap_or_default()).into_owned();
        let library = match import.flags() {
            ImportFlags::MachOBind { dylib, .. } if dylib == BIND_SPECIAL_DYLIB_WEAK_LOOKUP => {
                WEAK.into()
            }
            _ if import.library().is_empty() => {
                return Err(format!("says of no library that it has {name}"));
            }
            _ => String::from_utf8_lossy(import.library()).into_owned(),
        };
        found.entry(library).or_default().insert(name);
    }
    Ok(found)
}

fn exports(file: &File) -> Result<BTreeSet<String>> {
    file.exports()
        .map_err(text)?
        .map(|export| {
            let export = export.map_err(text)?;
            let name = export.into_name().into_name().unwrap_or_default();
            Ok(String::from_utf8_lossy(&name).into_owned())
        })
        .collect()
}

fn text(error: object::Error) -> String {
    error.to_string()
}
