//! `pensieve convert`: a checkpoint in MLX format from another one.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use super::args::Files;
use super::convert_args::Convert;
use super::{Done, Failure, model};
use crate::checkpoint::{CheckpointError, LoadError, Scheme, Source};
use crate::convert::{Job, Mixed, Place, Recipe, Settings};
use crate::hub::machine;
use crate::mlx::QuantMode;

/// How long nothing is said where there is no terminal.
const QUIET: Duration = Duration::from_secs(5);
/// Room on the disk beside the tensors: the tokenizer, and what a file system takes for itself.
const MARGIN: u64 = 64 << 20;

/// Runs the subcommand.
pub fn run(args: Convert) -> Done {
    if let Some(repository) = &args.upload_repo {
        return Err(Failure::Usage(format!(
            "nothing is uploaded from here; leave out --upload-repo, and then: hf upload {repository} {}",
            args.out.display()
        )));
    }
    let settings = settings(&args)?;
    let files = Files {
        model: args.model.clone(),
        adapter_path: None,
    };
    let (source, _) = model::find(&files)?;
    apart(&source, &args.out)?;
    let writing = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::Usage(format!("{} {e}", args.out.display())),
        _ => Failure::Work(format!("cannot write {}: {e}", args.out.display())),
    };
    let place = Place::new(&args.out, args.overwrite).map_err(writing)?;
    let failed = |e| match e {
        LoadError::Checkpoint(e @ CheckpointError::Write { .. }) => Failure::Work(e.to_string()),
        e => Failure::Model(format!("cannot convert {}: {e}", source.label())),
    };
    let job = Job::new(&source, settings).map_err(failed)?;
    let bytes = job.bytes();
    let free = machine::free(place.folder()).map_err(|e| Failure::Work(e.to_string()))?;
    if free < bytes.saturating_add(MARGIN) {
        return Err(Failure::Work(format!(
            "the result takes {:.1} GB, but there are {:.1} GB free at {}; make room, name another \
             place with --out, or use fewer bits",
            bytes as f64 / 1e9,
            free as f64 / 1e9,
            args.out.display()
        )));
    }
    let progress = Progress::new(bytes);
    let converted = job.write(place.folder(), &|done| progress.show(done));
    progress.bar.finish_and_clear();
    let converted = converted.map_err(failed)?;
    place.finish().map_err(writing)?;
    let packed = match converted.packed {
        0 => String::new(),
        n => format!(", {n} matrices packed"),
    };
    eprintln!(
        "{} has {} tensors, {:.1} MB{packed}; {:.3} bits a weight, {:.1} s",
        args.out.display(),
        converted.tensors,
        converted.bytes as f64 / 1e6,
        converted.bits_per_weight,
        progress.started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn settings(args: &Convert) -> Done<Settings> {
    let recipe = match args.quantize {
        true => Some(recipe(args)?),
        false => None,
    };
    Ok(Settings {
        dtype: args.dtype.map(Into::into),
        recipe,
        unpack: args.dequantize || args.requantize,
        shard_bytes: args.max_shard_size as u64,
        device: args.device.device(),
    })
}

/// What `-q` asks for; what is not given is the mode's own.
fn recipe(args: &Convert) -> Done<Recipe> {
    let mode = QuantMode::from(args.q_mode);
    let one_of = |flag: &str, given: Option<usize>, accepted: &[usize]| {
        let value = given.unwrap_or(accepted[0]);
        if accepted.contains(&value) {
            return Ok(value);
        }
        let mut sorted: Vec<usize> = accepted.to_vec();
        sorted.sort_unstable();
        let sorted: Vec<String> = sorted.iter().map(usize::to_string).collect();
        Err(Failure::Usage(format!(
            "{flag} is {value}; {mode} takes {}",
            sorted.join(", ")
        )))
    };
    let scheme = Scheme {
        group_size: one_of("--q-group-size", args.q_group_size, mode.group_sizes())?,
        bits: one_of("--q-bits", args.q_bits, mode.widths())?,
        mode,
    };
    let named = args.quant_predicate.as_deref();
    let mixed = named.and_then(|name| Mixed::ALL.into_iter().find(|(own, _)| *own == name));
    if mixed.is_some() && mode != QuantMode::Affine {
        return Err(Failure::Usage(format!(
            "--quant-predicate is for --q-mode affine, not {mode}"
        )));
    }
    Ok(Recipe {
        scheme,
        mixed: mixed.map(|(_, mixed)| mixed),
    })
}

/// Refuses to write over what is read.
fn apart(source: &Source, out: &Path) -> Done {
    let (Source::Directory(from), Ok(to)) = (source, out.canonicalize()) else {
        return Ok(());
    };
    match from.canonicalize() {
        Ok(from) if from.starts_with(&to) => Err(Failure::Usage(format!(
            "{} is what is converted, or has it inside; name another directory with --out",
            out.display()
        ))),
        _ => Ok(()),
    }
}

/// A bar on a terminal, elsewhere lines, when it takes long.
struct Progress {
    bar: indicatif::ProgressBar,
    started: Instant,
    said: Cell<Instant>,
    total: u64,
}

impl Progress {
    fn new(total: u64) -> Self {
        let bar = model::bytes_bar("converting");
        bar.set_length(total);
        let now = Instant::now();
        Self {
            bar,
            started: now,
            said: Cell::new(now),
            total,
        }
    }

    fn show(&self, done: u64) {
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.said.get().elapsed() >= QUIET {
            self.said.set(Instant::now());
            eprintln!("{}", line(done, self.total, self.started.elapsed()));
        }
    }
}

fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let mb = |bytes: u64| bytes / 1_000_000;
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
    format!(
        "converting {}/{} MB, {:.0} MB/s, {left:.0} s left",
        mb(done),
        mb(total),
        rate / 1e6
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_fast_it_goes_and_how_long_it_takes_yet() {
        let line = line(1_000_000_000, 4_000_000_000, Duration::from_secs(10));
        assert_eq!(line, "converting 1000/4000 MB, 100 MB/s, 30 s left");
    }
}
