//! `packaging/install.sh`, with small archives in the place of real ones, from a folder and over HTTP.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the script calls this machine.
const TARGET: &str = "linux-x86_64";

/// A folder that goes away, with archives and a prefix in it.
struct Place {
    path: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Place {
    fn new() -> Place {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        // A space, as in a user's folder.
        let name = format!("pensieve install {} {n}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("archives")).unwrap();
        Place { path }
    }

    fn archives(&self) -> PathBuf {
        self.path.join("archives")
    }

    fn prefix(&self) -> PathBuf {
        self.path.join("the prefix")
    }

    /// Puts an archive there whose program prints its version, and the sums of all.
    fn put(&self, version: &str, target: &str, works: bool) {
        let name = format!("pensieve-{version}-{target}");
        let staged = self.path.join(&name);
        let status = if works { "exit 0" } else { "exit 127" };
        for (file, text) in [
            (
                "bin/pensieve",
                format!("#!/bin/sh\necho pensieve {version}\n{status}\n"),
            ),
            ("lib/pensieve/mlx/lib/libmlx.so", version.to_owned()),
            ("share/man/man1/pensieve.1", version.to_owned()),
            (&format!("share/doc/pensieve/of {version}"), String::new()),
        ] {
            let file = staged.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
        }
        sh(&self.path, &format!("chmod +x '{name}/bin/pensieve'"));
        sh(
            &self.path,
            &format!("tar -czf 'archives/{name}.tar.gz' '{name}' && rm -r '{name}'"),
        );
        sh(&self.archives(), "sha256sum *.tar.gz >SHA256SUMS");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut command = Command::new("sh");
        command
            .arg(root.join("packaging/install.sh"))
            .args(arguments)
            .env_remove("PENSIEVE_BASE_URL")
            .env("PENSIEVE_PREFIX", self.prefix());
        command
    }

    fn works(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    }

    fn fails(&self, arguments: &[&str], part: &str) {
        let output = self.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(
            said(&output).contains(part),
            "{part:?} in {}",
            said(&output)
        );
    }

    /// What is in the prefix: names and contents.
    fn installed(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.prefix()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let name = path
                    .strip_prefix(self.prefix())
                    .unwrap()
                    .display()
                    .to_string();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
        found
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn sh(folder: &Path, script: &str) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(folder)
        .status();
    assert!(status.unwrap().success(), "{script}");
}

/// Serves a folder's files; gives the address, and counts the requests. `half` ends bodies early.
fn served(folder: PathBuf, half: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/a%20b/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let name = first
                .split(' ')
                .nth(1)
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .to_owned();
            let (status, mut body) = match fs::read(folder.join(&name)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let length = body.len();
            if half && name.ends_with(".gz") {
                body.truncate(length / 2);
            }
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            // The client may have gone.
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    address
}

/// Archives are for x86-64 with glibc; elsewhere the script says so, and there is nothing to try.
fn this_machine_has_archives() -> bool {
    cfg!(all(
        target_os = "linux",
        target_arch = "x86_64",
        target_env = "gnu"
    ))
}

#[test]
fn an_archive_is_installed_replaced_and_removed() {
    if !this_machine_has_archives() {
        return;
    }
    let place = Place::new();
    place.put("1.0.0", TARGET, true);
    place.put("1.0.0", "linux-x86_64-cuda", true);
    place.put("1.0.0", "macos-arm64", true);
    let from = place.archives();
    let from = from.to_str().unwrap();
    let text = place.works(&["--from", from]);
    assert!(text.contains("is not in PATH"), "{text}");
    let program = place.prefix().join("bin/pensieve");
    let version = || said(&Command::new(&program).arg("--version").output().unwrap());
    assert_eq!(version(), "pensieve 1.0.0\n");
    let first = place.installed();
    assert_eq!(first["lib/pensieve/mlx/lib/libmlx.so"], "1.0.0");
    assert_eq!(first.len(), 5, "{first:?}");

    // Somebody else's files, and a newer version.
    fs::write(place.prefix().join("bin/other"), "").unwrap();
    place.put("1.2.0", TARGET, true);
    place.fails(&["--from", from], "choose one with --version");
    place.works(&["--from", from, "--version", "1.2.0"]);
    assert_eq!(version(), "pensieve 1.2.0\n");
    let second = place.installed();
    assert_eq!(second["share/man/man1/pensieve.1"], "1.2.0");
    assert!(!second.contains_key("share/doc/pensieve/of 1.0.0"));
    place.fails(
        &["--from", from, "--version", "3.0.0"],
        "no archive for linux-x86_64 of version 3.0.0",
    );

    place.works(&["--uninstall"]);
    assert_eq!(
        place.installed().into_keys().collect::<Vec<_>>(),
        ["bin/other"]
    );
    place.fails(&["--uninstall"], "nothing was installed");
}

#[test]
fn over_http_as_from_a_folder() {
    if !this_machine_has_archives() {
        return;
    }
    let place = Place::new();
    place.put("1.0.0", TARGET, true);
    let address = served(place.archives(), false);
    place.works(&["--from", &address]);
    assert_eq!(place.installed().len(), 5);
    let output = place
        .command(&[])
        .env("PENSIEVE_BASE_URL", &address)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    // Piped into a shell, as from the network.
    let script =
        fs::File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/install.sh"));
    let output = Command::new("sh")
        .args(["-s", "--", "--from", &address, "--prefix"])
        .arg(place.path.join("piped"))
        .stdin(script.unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(place.path.join("piped/bin/pensieve").exists());

    let empty = served(place.path.join("nothing"), false);
    place.fails(&["--from", &empty], "cannot fetch");
}

#[test]
fn what_is_damaged_or_does_not_start_is_not_installed() {
    if !this_machine_has_archives() {
        return;
    }
    let place = Place::new();
    place.put("1.0.0", TARGET, true);
    place.works(&["--from", place.archives().to_str().unwrap()]);
    let before = place.installed();

    let broken = Place::new();
    broken.put("1.1.0", TARGET, true);
    let half = served(broken.archives(), true);
    place.fails(&["--from", &half], "install.sh: ");
    let archive = broken
        .archives()
        .join(format!("pensieve-1.1.0-{TARGET}.tar.gz"));
    let mut bytes = fs::read(&archive).unwrap();
    bytes[40] ^= 1;
    fs::write(&archive, bytes).unwrap();
    place.fails(
        &["--from", broken.archives().to_str().unwrap()],
        "is damaged",
    );
    broken.put("1.1.0", TARGET, false);
    place.fails(
        &["--from", broken.archives().to_str().unwrap()],
        "does not start here",
    );
    place.fails(&["--from", "/not/there"], "/not/there has no SHA256SUMS");
    place.fails(&[], "--from");
    place.fails(&["--from"], "needs a value");
    place.fails(&["--nvidia"], "--cuda");
    place.fails(&["--what"], "--what is not known");
    assert_eq!(place.installed(), before, "nor is anything left behind");
}

#[test]
fn nvidia_s_libraries_stay_when_the_program_is_replaced() {
    if !this_machine_has_archives() {
        return;
    }
    let place = Place::new();
    place.put("1.0.0", "linux-x86_64-cuda", false);
    let from = place.archives();
    let arguments = ["--cuda", "--from", from.to_str().unwrap()];
    let text = place.works(&arguments);
    assert!(text.contains("driver"), "{text}");
    let library = place
        .prefix()
        .join("lib/pensieve/nvidia/cu13/lib/libcublasLt.so.13");
    fs::create_dir_all(library.parent().unwrap()).unwrap();
    fs::write(&library, "").unwrap();
    place.put("1.0.0", "linux-x86_64-cuda", true);
    place.works(&arguments);
    assert!(library.exists());
    place.works(&["--uninstall"]);
    assert!(place.installed().is_empty());
}
