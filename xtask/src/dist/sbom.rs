//! The bill of materials: CycloneDX 1.6 (JSON) of the crates in the binary and the libraries beside it.
//!
//! Crates are those that cargo resolves for the target with its features, along normal dependencies:
//! what only builds, tests or derives is in no archive. It is dated with the commit, so that the same
//! sources give the same bill.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::archive::sha256;
use super::{Target, date, read, stage};
use crate::sh::{Result, cargo, output, root};
use crate::vendor::fetched;

/// A crate in the binary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    /// Its name on crates.io.
    pub name: String,
    pub version: String,
    /// An SPDX expression, if it says one.
    pub licence: Option<String>,
    /// SHA-256 of its package, which crates of this workspace have none of.
    pub checksum: Option<String>,
    /// Where its sources are.
    pub folder: PathBuf,
    /// Indexes of the crates that it uses, in the list that it is in.
    pub uses: Vec<usize>,
}

/// The crates in the binary for `target`, `pensieve` among them.
///
/// # Errors
/// What cargo says, or what of its answer is not as expected.
pub fn crates(target: Target) -> Result<Vec<Crate>> {
    let features: &[&str] = match target {
        Target::Cuda => &["--features", "pensieve/cuda"],
        Target::Linux | Target::Macos => &[],
    };
    let text = output(
        cargo()
            .args(["metadata", "--format-version", "1", "--locked"])
            .args(["--filter-platform", target.triple()])
            .args(features),
    )?;
    let metadata: Value =
        serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
    let lock = root().join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).map_err(|e| format!("{}: {e}", lock.display()))?;
    resolve(&metadata, &checksums(&lock))
}

fn resolve(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Result<Vec<Crate>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = list(&metadata["packages"]);
    let packages: BTreeMap<String, &Value> = packages
        .iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes = list(&metadata["resolve"]["nodes"]);
    let nodes: BTreeMap<String, &Value> =
        nodes.iter().map(|node| (text(&node["id"]), node)).collect();
    let derives = |id: &str| {
        let targets = packages.get(id).map(|package| list(&package["targets"]));
        targets.unwrap_or_default().iter().any(|target| {
            list(&target["kind"])
                .iter()
                .any(|kind| kind == "proc-macro")
        })
    };
    let uses = |id: &str| -> Vec<String> {
        let deps = nodes
            .get(id)
            .map(|node| list(&node["deps"]))
            .unwrap_or_default();
        let normal = |dep: &&Value| {
            list(&dep["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null())
        };
        let ids = deps.iter().filter(normal).map(|dep| text(&dep["pkg"]));
        ids.filter(|id| !derives(id)).collect()
    };
    let start = packages
        .iter()
        .find(|(_, package)| package["name"] == "pensieve");
    let (start, _) = start.ok_or("cargo metadata names no package pensieve")?;
    let mut found = BTreeSet::new();
    let mut open = vec![start.clone()];
    while let Some(id) = open.pop() {
        if found.insert(id.clone()) {
            open.extend(uses(&id));
        }
    }
    let mut ids: Vec<(String, String, String)> = Vec::new();
    for id in found {
        let package = packages
            .get(&id)
            .ok_or_else(|| format!("cargo metadata lacks {id}"))?;
        ids.push((text(&package["name"]), text(&package["version"]), id));
    }
    ids.sort();
    let place: BTreeMap<&str, usize> = ids
        .iter()
        .enumerate()
        .map(|(i, (_, _, id))| (id.as_str(), i))
        .collect();
    let made = ids.iter().map(|(name, version, id)| {
        let package = packages[id];
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let mut uses: Vec<usize> = uses(id).iter().map(|id| place[id.as_str()]).collect();
        uses.sort_unstable();
        uses.dedup();
        Crate {
            name: name.clone(),
            version: version.clone(),
            licence: package["license"].as_str().map(str::to_owned),
            checksum: checksums.get(&(name.clone(), version.clone())).cloned(),
            folder: manifest.parent().map(Path::to_path_buf).unwrap_or_default(),
            uses,
        }
    });
    Ok(made.collect())
}

/// (name, version) -> checksum, out of a Cargo.lock.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for block in lock.split("[[package]]") {
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key));
            line.map(|text| text.trim_matches([' ', '=', '"']).to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) =
            (value("name"), value("version"), value("checksum"))
        {
            found.insert((name, version), sum);
        }
    }
    found
}

/// The bill of what is in `staged`, as JSON.
///
/// # Errors
/// What cannot be read or run.
pub fn bill(target: Target, version: &str, crates: &[Crate], staged: &Path) -> Result<String> {
    let mut components: Vec<Value> = Vec::new();
    let mut uses: Vec<Value> = Vec::new();
    let refer = |of: &Crate| format!("pkg:cargo/{}@{}", of.name, of.version);
    let ours = crates.iter().find(|of| of.name == "pensieve");
    let main = ours
        .map(refer)
        .ok_or("the crate pensieve is not among the crates")?;
    let libraries = libraries(target, staged)?;
    for of in crates {
        let mut on: Vec<String> = of.uses.iter().map(|&i| refer(&crates[i])).collect();
        if of.name == "mlx-sys" {
            let others = libraries
                .iter()
                .filter_map(|library| library["bom-ref"].as_str());
            on.extend(others.map(str::to_owned));
        }
        uses.push(json!({"ref": refer(of), "dependsOn": on}));
        if refer(of) == main {
            continue;
        }
        let mut component = json!({
            "type": "library",
            "bom-ref": refer(of),
            "name": of.name,
            "version": of.version,
            "purl": refer(of),
        });
        if let Some(licence) = &of.licence {
            // Before SPDX had expressions, crates wrote a slash.
            let expression = licence.replace('/', " OR ").replace("  ", " ");
            component["licenses"] = json!([{"expression": expression}]);
        }
        if let Some(sum) = &of.checksum {
            component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
        }
        components.push(component);
    }
    components.extend(libraries);
    let date = output(
        Command::new("date")
            .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
            .arg(format!("--date=@{}", date()?)),
    )?;
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": date.trim(),
            "component": {
                "type": "application",
                "bom-ref": main,
                "name": "pensieve",
                "version": version,
                "purl": main,
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
                "properties": [{"name": "target", "value": target.name()}],
            },
        },
        "components": components,
        "dependencies": uses,
    });
    let text = serde_json::to_string_pretty(&bill).map_err(|e| e.to_string())?;
    Ok(text + "\n")
}

/// MLX, mlx-c, Rust's standard library and what comes with them. Files in the archive have their
/// hashes.
fn libraries(target: Target, staged: &Path) -> Result<Vec<Value>> {
    let version = wheel_version(target)?;
    let mut found = vec![
        component(
            "mlx-c",
            &format!("v{}", mlx_c_version()?),
            "pkg:github/ml-explore/mlx-c",
            "MIT",
            Vec::new(),
        ),
        component(
            "std",
            &rustc_version(target)?,
            "pkg:generic/rust-std",
            "MIT OR Apache-2.0",
            Vec::new(),
        ),
    ];
    let lib = staged.join("lib/pensieve");
    let mut of_mlx = Vec::new();
    for path in stage::files(&lib)? {
        let name = path
            .strip_prefix(&lib)
            .unwrap_or(&path)
            .display()
            .to_string();
        let hash = json!([{"alg": "SHA-256", "content": sha256(&read(&path)?)}]);
        let file = json!({"type": "file", "name": format!("lib/pensieve/{name}"), "hashes": hash});
        match name.as_str() {
            "libstdc++.so.6" | "libgcc_s.so.1" => {
                let licence = "GPL-3.0-or-later WITH GCC-exception-3.1";
                let (package, version) = debian(&stage::of_gcc(&name)?);
                let place = "pkg:deb/debian/".to_owned() + &package;
                found.push(component(&package, &version, &place, licence, vec![file]));
            }
            // Headers are many and come from one place.
            _ if name.starts_with("mlx/include/") => {}
            _ => of_mlx.push(file),
        }
    }
    let wheel = target.wheel();
    let wheel = if target == Target::Cuda {
        "mlx-cuda-13"
    } else {
        wheel
    };
    let place = format!("pkg:pypi/{wheel}");
    found.push(component(wheel, &version, &place, "MIT", of_mlx));
    found.extend(in_the_wheel(target)?);
    Ok(found)
}

fn component(name: &str, version: &str, place: &str, licence: &str, files: Vec<Value>) -> Value {
    let purl = format!("{place}@{version}");
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"expression": licence}],
    });
    if !files.is_empty() {
        component["components"] = files.into();
    }
    component
}

/// What auditwheel wrote down of the system's libraries that it put in the wheel.
fn in_the_wheel(target: Target) -> Result<Vec<Value>> {
    let Some(path) = dist_info(target)?.map(|folder| folder.join("sboms/auditwheel.cdx.json"))
    else {
        return Ok(Vec::new());
    };
    if !path.exists() {
        return Ok(Vec::new());
    }
    let bill: Value =
        serde_json::from_slice(&read(&path)?).map_err(|e| format!("{}: {e}", path.display()))?;
    let components = bill["components"].as_array().into_iter().flatten();
    let others = components.filter(|component| {
        let purl = component["purl"].as_str().unwrap_or_default();
        !purl.is_empty() && !purl.starts_with("pkg:pypi/")
    });
    Ok(others.cloned().collect())
}

/// The wheel's folder of metadata.
pub fn dist_info(target: Target) -> Result<Option<PathBuf>> {
    let wheel = fetched(target.wheel());
    let entries = std::fs::read_dir(&wheel).map_err(|e| format!("{}: {e}", wheel.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.find(|path| path.extension().is_some_and(|end| end == "dist-info")))
}

fn wheel_version(target: Target) -> Result<String> {
    let folder = dist_info(target)?;
    let name = folder.as_deref().and_then(Path::file_stem);
    let name = name.map(|name| name.to_string_lossy().into_owned());
    let version = name.as_deref().and_then(|name| name.rsplit_once('-'));
    let (_, version) =
        version.ok_or("the wheel of MLX has no metadata; run `cargo xtask vendor`")?;
    Ok(version.to_owned())
}

fn mlx_c_version() -> Result<String> {
    let path = fetched("mlx-c").join("CMakeLists.txt");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("set(MLX_C_VERSION "));
    let version = line.ok_or_else(|| format!("{}: no version in it", path.display()))?;
    Ok(version.trim_end_matches(')').to_owned())
}

fn rustc_version(target: Target) -> Result<String> {
    let rustc = match target {
        Target::Macos => crate::macos::rustc()?,
        Target::Linux | Target::Cuda => Path::new(env!("CARGO")).with_file_name("rustc"),
    };
    let text = output(Command::new(rustc).arg("--version"))?;
    let version = text.split(' ').nth(1).ok_or("rustc says no version")?;
    Ok(version.to_owned())
}

/// The package of Debian's that a file is of, and its version, as far as the system knows.
fn debian(file: &Path) -> (String, String) {
    // dpkg knows files by the names they had before /lib became a link.
    let short = file
        .strip_prefix("/usr")
        .map(|rest| Path::new("/").join(rest));
    let names = [Some(file.to_path_buf()), short.ok()];
    let package = names.into_iter().flatten().find_map(|name| {
        let text = Command::new("dpkg-query")
            .arg("-S")
            .arg(name)
            .output()
            .ok()?;
        let text = String::from_utf8(text.stdout).ok()?;
        let (package, _) = text.split_once(':')?;
        Some(package.to_owned())
    });
    let package = package.unwrap_or_else(|| "gcc".to_owned());
    let version = output(
        Command::new("dpkg-query")
            .args(["-W", "-f", "${Version}\n"])
            .arg(&package),
    );
    let version = version
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned));
    (package, version.unwrap_or_else(|| "unknown".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_builds_or_derives_is_not_in_the_binary() {
        let package = |name: &str, kind: &str| {
            json!({
                "id": name, "name": name, "version": "1.0.0", "license": "MIT",
                "manifest_path": format!("/p/{name}/Cargo.toml"), "targets": [{"kind": [kind]}],
            })
        };
        let dep = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [
                package("pensieve", "lib"), package("used", "lib"), package("deep", "lib"),
                package("derives", "proc-macro"), package("under-it", "lib"),
                package("builds", "lib"), package("tests", "lib"),
            ],
            "resolve": {"nodes": [
                {"id": "pensieve", "deps": [
                    dep("used", Value::Null), dep("derives", Value::Null),
                    dep("builds", json!("build")), dep("tests", json!("dev")),
                ]},
                {"id": "used", "deps": [dep("deep", Value::Null)]},
                {"id": "derives", "deps": [dep("under-it", Value::Null)]},
            ]},
        });
        let lock = "[[package]]\nname = \"deep\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\n";
        let crates = resolve(&metadata, &checksums(lock)).expect("crates");
        let names: Vec<&str> = crates.iter().map(|of| of.name.as_str()).collect();
        assert_eq!(names, ["deep", "pensieve", "used"]);
        assert_eq!(crates[0].checksum.as_deref(), Some("ab"));
        assert_eq!(crates[1].uses, [2]);
        assert_eq!(crates[2].uses, [0]);
    }
}
