//! `pensieve doctor`: what keeps models from being fetched, loaded or served on this machine, and what to
//! do about it.
//!
//! The self-test runs in a process of its own: whatever the machine does to it, the doctor goes on.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ask::print;
use super::hub_args::Doctor;
use super::{Done, Failure, kernels};
use crate::builtin;
use crate::hub::error::bytes;
use crate::hub::{Installed, Settings, installed, machine, missing, verify};
use crate::mlx::{self, Device};

/// The longest that the self-test may take.
const PATIENCE: Duration = Duration::from_secs(120);
const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "The capital of France is Paris.";

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Fine,
    Note,
    Wrong,
}

/// What one look found, and what to do about it.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    about: &'static str,
    pub(super) level: Level,
    found: String,
    remedy: Option<String>,
}

impl Finding {
    pub(super) fn fine(about: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            about,
            level: Level::Fine,
            found: found.into(),
            remedy: None,
        }
    }

    pub(super) fn note(
        about: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            level: Level::Note,
            remedy: Some(remedy.into()),
            ..Finding::fine(about, found)
        }
    }

    pub(super) fn wrong(
        about: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            level: Level::Wrong,
            ..Finding::note(about, found, remedy)
        }
    }
}

/// Runs the subcommand.
pub fn run(args: Doctor) -> Done {
    let mut findings = vec![system(), chip(), memory(), mlx_library()];
    if cfg!(target_os = "macos") {
        findings.push(kernels::finding());
        findings.push(wired_limit());
    }
    match Settings::from_env() {
        Ok(settings) => {
            findings.push(hub(&settings));
            findings.push(disk(&settings));
            findings.extend(cache(&settings, args.verify));
        }
        Err(e) => findings.push(Finding::wrong(
            "hub",
            e.to_string(),
            "correct the environment variable",
        )),
    }
    findings.push(port(args.port));
    findings.extend(self_tests());
    let wrong = findings.iter().filter(|f| f.level == Level::Wrong).count();
    print(&match args.json {
        true => format!("{}\n", as_json(&findings)),
        false => as_text(&findings),
    })?;
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::Work("1 thing is wrong".into())),
        n => Err(Failure::Work(format!("{n} things are wrong"))),
    }
}

fn as_json(findings: &[Finding]) -> Value {
    let rows = findings.iter().map(|finding| {
        json!({
            "about": finding.about,
            "level": match finding.level {
                Level::Fine => "fine",
                Level::Note => "note",
                Level::Wrong => "wrong",
            },
            "found": finding.found,
            "remedy": finding.remedy,
        })
    });
    let rows: Vec<Value> = rows.collect();
    let healthy = findings.iter().all(|finding| finding.level != Level::Wrong);
    json!({"version": env!("CARGO_PKG_VERSION"), "healthy": healthy, "findings": rows})
}

fn as_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Fine => "ok",
            Level::Note => "note",
            Level::Wrong => "WRONG",
        };
        text.push_str(&format!(
            "{mark:<6}{:<11}{}\n",
            finding.about, finding.found
        ));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("{:<17}-> {remedy}\n", ""));
        }
    }
    text
}

fn system() -> Finding {
    let system = machine::system();
    let version = system
        .strip_prefix("macOS ")
        .and_then(|rest| rest.split('.').next());
    match version.and_then(|version| version.parse::<u32>().ok()) {
        Some(version) if version < 14 => Finding::wrong(
            "system",
            system,
            "MLX needs macOS 14 or later: update the system",
        ),
        _ => Finding::fine("system", system),
    }
}

fn chip() -> Finding {
    let chip = machine::chip().unwrap_or_else(|| "unknown".to_owned());
    match cfg!(target_os = "macos") && !chip.contains("Apple") && chip != "unknown" {
        true => Finding::wrong(
            "chip",
            chip,
            "MLX needs Apple Silicon (M1 or later) on a Mac",
        ),
        false => Finding::fine("chip", chip),
    }
}

fn memory() -> Finding {
    match machine::memory() {
        Some(memory) if memory < 8_000_000_000 => Finding::note(
            "memory",
            bytes(memory),
            "small: take models of up to 4 billion parameters at 4 bits; `pensieve pull` lists some",
        ),
        Some(memory) => Finding::fine("memory", bytes(memory)),
        None => Finding::note(
            "memory",
            "the system does not say",
            "take a model that surely fits; `pensieve show NAME` says what it needs",
        ),
    }
}

fn mlx_library() -> Finding {
    let backend = match (Device::best(), cfg!(target_os = "macos")) {
        (Device::Gpu, true) => "Metal",
        (Device::Gpu, false) => "CUDA",
        (Device::Cpu, _) => "CPU",
    };
    match mlx::version() {
        Ok(version) if backend == "CPU" && cfg!(target_os = "macos") => Finding::wrong(
            "mlx",
            format!("{version}, on the CPU: there is no Metal device"),
            "run it outside of a virtual machine, in a session that may use the GPU",
        ),
        Ok(version) if backend == "CPU" && cfg!(feature = "cuda") => Finding::wrong(
            "mlx",
            format!("{version}, on the CPU: there is no CUDA device"),
            "see whether `nvidia-smi` lists a GPU, and driver 580 or later; a container must be given it",
        ),
        Ok(version) if backend == "CPU" => Finding::note(
            "mlx",
            format!("{version}, on the CPU"),
            "large models are slow so; with an NVIDIA GPU, take the archive for CUDA",
        ),
        Ok(version) => Finding::fine("mlx", format!("{version}, on {backend}")),
        Err(e) => Finding::wrong(
            "mlx",
            e.to_string(),
            "install Pensieve again: its MLX is broken",
        ),
    }
}

/// How much memory macOS lets the GPU hold.
fn wired_limit() -> Finding {
    let limit = machine::sysctl("iogpu.wired_limit_mb").and_then(|text| text.parse::<u64>().ok());
    let memory = machine::memory();
    match (limit, memory) {
        (Some(0), _) | (None, _) => Finding::fine("wired", "the system's own limit"),
        (Some(megabytes), Some(memory)) if megabytes > memory / (1 << 20) * 85 / 100 => {
            Finding::note(
                "wired",
                format!("iogpu.wired_limit_mb is {megabytes}, nearly all of the memory"),
                "so high a limit can bring the machine down: `sudo sysctl iogpu.wired_limit_mb=0`",
            )
        }
        (Some(megabytes), _) => {
            Finding::fine("wired", format!("iogpu.wired_limit_mb is {megabytes}"))
        }
    }
}

fn hub(settings: &Settings) -> Finding {
    let token = match settings.token {
        Some(_) => "an access token",
        None => "no access token",
    };
    let found = format!("{}, with {token}", settings.endpoint);
    match settings.offline {
        true => Finding::note(
            "hub",
            format!("{found}, not used: HF_HUB_OFFLINE is set"),
            "unset HF_HUB_OFFLINE to fetch models",
        ),
        false => Finding::fine("hub", found),
    }
}

fn disk(settings: &Settings) -> Finding {
    let place = settings.cache.display();
    match machine::free(&settings.cache) {
        Ok(free) if free < 10_000_000_000 => Finding::note(
            "disk",
            format!("{} free at {place}", bytes(free)),
            "room for small models only: `pensieve list` shows what can go, `pensieve rm NAME` \
             removes it; HF_HUB_CACHE puts models on another disk",
        ),
        Ok(free) => Finding::fine("disk", format!("{} free at {place}", bytes(free))),
        Err(e) => Finding::wrong(
            "disk",
            e.to_string(),
            "set HF_HUB_CACHE to a folder that works",
        ),
    }
}

fn cache(settings: &Settings, verify_all: bool) -> Vec<Finding> {
    let models = match installed(settings) {
        Ok(models) => models,
        Err(e) => {
            let remedy = "make the folder readable, or set HF_HUB_CACHE to another";
            return vec![Finding::wrong("cache", e.to_string(), remedy)];
        }
    };
    let size: u64 = models.iter().map(|model| model.size).sum();
    let count = match models.len() {
        1 => "1 model".to_owned(),
        n => format!("{n} models"),
    };
    let mut findings = Vec::new();
    for model in &models {
        findings.extend(kept(model, verify_all));
    }
    if findings.iter().all(|finding| finding.level != Level::Wrong) {
        let how = if verify_all { ", every hash right" } else { "" };
        findings.insert(
            0,
            Finding::fine("cache", format!("{count}, {}{how}", bytes(size))),
        );
    }
    findings
}

/// What is wrong with a model in the cache.
fn kept(model: &Installed, verify_all: bool) -> Vec<Finding> {
    let repo = &model.repo;
    let mut findings = Vec::new();
    if let Some(first) = model.dangling.first() {
        findings.push(Finding::wrong(
            "cache",
            format!(
                "{repo}: {} names lead nowhere, such as {}",
                model.dangling.len(),
                first.display()
            ),
            format!(
                "`pensieve pull {repo}` fetches what is missing, `pensieve rm {repo}` removes it"
            ),
        ));
    } else if let Some(revision) = model.current() {
        let lacks = missing(&revision.folder);
        // A repository without settings was never meant to be loaded here.
        if !lacks.is_empty() && revision.folder.join("config.json").exists() {
            findings.push(Finding::note(
                "cache",
                format!("{repo}: {} missing", lacks.join(", ")),
                format!(
                    "`pensieve pull {repo}` fetches what is missing, if it is a language model"
                ),
            ));
        }
    }
    if model.unfinished > 0 {
        findings.push(Finding::note(
            "cache",
            format!(
                "{repo}: {} of files that did not arrive in full",
                bytes(model.unfinished)
            ),
            format!("`pensieve pull {repo}` goes on from there, `pensieve rm {repo}` removes it"),
        ));
    }
    if verify_all {
        match verify::damaged(model) {
            Ok(damaged) => findings.extend(damaged.iter().map(|path| {
                Finding::wrong(
                    "cache",
                    format!("{repo}: {} is damaged", path.display()),
                    format!(
                        "`pensieve rm {repo}` and `pensieve pull {repo}`; is the disk failing?"
                    ),
                )
            })),
            Err(e) => findings.push(Finding::wrong(
                "cache",
                e.to_string(),
                "make the file readable, or remove the model",
            )),
        }
    }
    findings
}

fn port(port: u16) -> Finding {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Finding::fine("port", format!("{port} is free")),
        Err(e) => Finding::note(
            "port",
            format!("{port}: {e}"),
            "`pensieve serve --port N` with another, or end what uses it (a server that runs already?)",
        ),
    }
}

fn self_tests() -> Vec<Finding> {
    if builtin::source("tiny").is_none() {
        return vec![Finding::note(
            "self-test",
            "this binary has no built-in model",
            "try one of your own: `pensieve run --model NAME`",
        )];
    }
    let mut devices = vec!["cpu"];
    devices.extend(Device::Gpu.is_available().then_some("gpu"));
    devices.into_iter().map(self_test).collect()
}

/// Asks the built-in model on a device, in another process.
fn self_test(device: &str) -> Finding {
    let began = Instant::now();
    match ask(device) {
        Ok(answer) if answer["text"] == ANSWER => Finding::fine(
            "self-test",
            format!(
                "the built-in model answers on the {device}: {:.1} s with loading, {:.0} tokens/s",
                began.elapsed().as_secs_f64(),
                answer["decode_tokens_per_second"]
                    .as_f64()
                    .unwrap_or_default()
            ),
        ),
        Ok(answer) => Finding::wrong(
            "self-test",
            format!(
                "on the {device} the built-in model answers {}, not {ANSWER:?}",
                answer["text"]
            ),
            "this build computes wrongly here: report it, with what is above",
        ),
        Err(why) => Finding::wrong(
            "self-test",
            format!("on the {device}: {why}"),
            "install Pensieve again; if that does not help, report it, with what is above",
        ),
    }
}

/// This very program; where the system does not say (Linux without /proc), as it was called.
fn program() -> PathBuf {
    let called = || std::env::args_os().next().map(PathBuf::from);
    let found = std::env::current_exe().ok().or_else(called);
    found.unwrap_or_else(|| PathBuf::from(env!("CARGO_PKG_NAME")))
}

fn ask(device: &str) -> Result<Value, String> {
    let mut child = Command::new(program())
        .args([
            "run",
            "--model",
            "builtin:tiny",
            "--device",
            device,
            "--temp",
            "0",
            "--json",
        ])
        .arg(QUESTION)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("this program cannot be started again: {e}"))?;
    let began = Instant::now();
    // What it prints is far less than a pipe holds, so it ends without being read.
    while let Ok(None) = child.try_wait() {
        if began.elapsed() > PATIENCE {
            drop(child.kill());
            drop(child.wait());
            return Err(format!("no answer in {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let message = message
            .trim()
            .lines()
            .last()
            .unwrap_or("no message")
            .to_owned();
        return Err(format!("{}: {message}", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("the answer cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_fine_has_a_remedy_in_both_forms() {
        let findings = [
            Finding::fine("a", "good"),
            Finding::note("b", "so", "do this"),
            Finding::wrong("c", "bad", "do that"),
        ];
        let json = as_json(&findings);
        assert_eq!(json["healthy"], false);
        assert_eq!(as_json(&findings[..2])["healthy"], true);
        assert_eq!(json["findings"][2]["remedy"], "do that");
        assert!(json["findings"][0]["remedy"].is_null());
        let text = as_text(&findings);
        assert!(
            text.contains("-> do this") && text.contains("WRONG c"),
            "{text}"
        );
    }
}
