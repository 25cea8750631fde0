//! Installs the Linux archive in a bare Debian 12, as a user without rights, and asks it.
//!
//! The root is debootstrap's smallest variant: no compiler, no Python, no library beyond Debian's
//! essential packages. It is made once and kept in `target/bare-root`.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::copy;
use super::stage::GLIBC;
use crate::macos::target_dir;
use crate::sh::{Result, output, run};

const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "The capital of France is Paris.";
const PREFIX: &str = "/tmp/try/pensieve";
/// Debian's `nobody`.
const USER: &str = "--userspec=65534:65534";

/// Tries the archive in `out`.
///
/// # Errors
/// What is missing to do it, or the first thing that did not work.
pub fn try_out(out: &Path, version: &str) -> Result {
    let mut root = Root::ready()?;
    let archives = root.path.join("tmp/archives");
    let _ = fs::remove_dir_all(&archives);
    let name = format!("pensieve-{version}-linux-x86_64.tar.gz");
    for name in [name.as_str(), "SHA256SUMS", "install.sh"] {
        copy(&out.join(name), &archives.join(name))?;
    }
    let place = root.path.join("tmp/try");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
    run(Command::new("chmod").arg("0777").arg(&place))?;

    said(
        &mut root.command("sh", &["/tmp/archives/install.sh", "--prefix", PREFIX]),
        "installed",
    )?;
    let pensieve = format!("{PREFIX}/bin/pensieve");
    said(&mut root.command(&pensieve, &["--version"]), version)?;
    own_libraries(&root, &pensieve)?;
    said(&mut root.command(&pensieve, &["run", QUESTION]), ANSWER)?;
    said(
        &mut root.command(&pensieve, &["doctor"]),
        "the built-in model answers",
    )?;
    serve(&root, &pensieve)?;
    root.unmount();
    // glibc finds the program's folder by /proc, or by this variable.
    let mut doctor = root.command(&pensieve, &["doctor"]);
    let doctor = doctor.env("LD_ORIGIN_PATH", format!("{PREFIX}/bin"));
    said(doctor, "the system does not say")?;
    said(
        &mut root.command(
            "sh",
            &[
                "/tmp/archives/install.sh",
                "--prefix",
                PREFIX,
                "--uninstall",
            ],
        ),
        "removed",
    )?;
    let left = output(
        Command::new("find")
            .arg(root.path.join("tmp/try/pensieve"))
            .args(["-type", "f"]),
    )?;
    if !left.is_empty() {
        return Err(format!("--uninstall left:\n{left}"));
    }
    eprintln!("dist: the archive works in a bare Debian 12");
    Ok(())
}

/// Whether all that it loads is the archive's or glibc's, whatever else the system has.
fn own_libraries(root: &Root, pensieve: &str) -> Result {
    // Set by a program inside: chroot itself would be listed instead.
    let list = ["LD_TRACE_LOADED_OBJECTS=1", pensieve];
    let text = output(&mut root.command("/usr/bin/env", &list))?;
    let loaded = text.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        Some((name, rest.split(" (").next().unwrap_or(rest)))
    });
    let mut ours = 0;
    for (name, path) in loaded {
        if path.starts_with(PREFIX) {
            ours += 1;
        } else if !GLIBC.contains(&name) {
            return Err(format!("{name} is taken from the system: {path}"));
        }
    }
    if ours == 0 {
        return Err(format!(
            "the loader lists none of the archive's libraries:\n{text}"
        ));
    }
    eprintln!("{ours} libraries are the archive's own");
    Ok(())
}

/// A bare Debian, with /proc while this lives.
struct Root {
    path: PathBuf,
    mounted: bool,
}

impl Root {
    fn ready() -> Result<Root> {
        if output(Command::new("id").arg("-u"))?.trim() != "0" {
            return Err("--try needs root, for chroot".into());
        }
        let path = target_dir().join("bare-root");
        if !path.join("etc/debian_version").exists() {
            let partial = target_dir().join("bare-root.partial");
            let _ = fs::remove_dir_all(&partial);
            run(Command::new("debootstrap")
                .args(["--variant=minbase", "bookworm"])
                .arg(&partial)
                .arg("http://deb.debian.org/debian")
                .stdout(Stdio::null()))
            .map_err(|e| format!("{e}\na bare Debian is needed (apt install debootstrap)"))?;
            fs::rename(&partial, &path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        let proc = path.join("proc");
        run(Command::new("mount").args(["-t", "proc", "proc"]).arg(proc))?;
        Ok(Root {
            path,
            mounted: true,
        })
    }

    /// A program in the root, without any of this process's environment.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/sbin/chroot");
        command
            .arg(USER)
            .arg(&self.path)
            .arg(program)
            .args(arguments)
            .env_clear()
            .env("HOME", "/tmp/try")
            .env("PATH", "/usr/bin:/bin");
        command
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            // It is of no use to anyone if it stays.
            let _ = Command::new("umount").arg(self.path.join("proc")).status();
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Runs a command, shows what it says, and looks for `part` in it.
fn said(command: &mut Command, part: &str) -> Result {
    let text = output(command)?;
    eprint!("{text}");
    match text.contains(part) {
        true => Ok(()),
        false => Err(format!("{command:?} does not say {part:?}")),
    }
}

/// A server in the root, asked from outside of it, and ended.
fn serve(root: &Root, pensieve: &str) -> Result {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = free.map_err(|e| format!("no port is free: {e}"))?.port();
    let mut child = root
        .command(pensieve, &["serve", "--port", &port.to_string()])
        .spawn()
        .map_err(|e| format!("chroot could not be started: {e}"))?;
    let answered = ask(&mut child, port);
    run(Command::new("kill").arg(child.id().to_string()))?;
    let status = child.wait().map_err(|e| format!("the server: {e}"))?;
    answered?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("the server ended with {status}")),
    }
}

fn ask(child: &mut Child, port: u16) -> Result {
    let began = Instant::now();
    while exchange(port, "GET /health HTTP/1.0\r\n\r\n").is_err() {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("the server ended with {status}"));
        }
        if began.elapsed() > Duration::from_secs(120) {
            return Err("the server does not answer after 120 s".into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let body = format!(r#"{{"messages": [{{"role": "user", "content": "{QUESTION}"}}]}}"#);
    let answer = exchange(
        port,
        &format!(
            "POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    let answer = answer.map_err(|e| format!("the server: {e}"))?;
    eprintln!("{answer}");
    match answer.contains(ANSWER) {
        true => Ok(()),
        false => Err("the server does not give the answer".into()),
    }
}

fn exchange(port: u16, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
