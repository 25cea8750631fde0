//! `pensieve bench`: measuring speed, and making models to measure with.

use std::path::Path;

use super::bench_args::{Bench, Make};
use super::{Done, Failure, model};
use crate::bench::make::{Storage, make};
use crate::bench::shapes::Shape;

/// Runs the subcommand.
pub fn run(args: Bench) -> Done {
    if let (Some(shape), Some(to)) = (args.make.make_model, &args.make.out) {
        return make_model(&args.make, shape, to);
    }
    Err(Failure::Usage("bench needs --make-model and --out".into()))
}

fn make_model(args: &Make, shape: Shape, to: &Path) -> Done {
    let failed = |e: std::io::Error| Failure::Work(format!("cannot write {}: {e}", to.display()));
    std::fs::create_dir_all(to).map_err(failed)?;
    // Not over another checkpoint: what is left of that would be read with this one.
    if std::fs::read_dir(to).map_err(failed)?.next().is_some() {
        return Err(Failure::Usage(format!(
            "{} is not empty; --out takes a new or empty directory",
            to.display()
        )));
    }
    let shape = shape
        .with_layers(args.layers.unwrap_or(shape.n_layers()))
        .with_vocab(args.vocab_size.unwrap_or(shape.vocab()));
    let storage = match args.bits {
        16 => Storage::Dense,
        bits => Storage::Packed {
            bits,
            group_size: args.group_size,
        },
    };
    let bar = model::bytes_bar("writing");
    let made = make(shape, storage, args.weights_seed, to, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let made = made.map_err(|e| Failure::Work(e.to_string()))?;
    eprintln!(
        "{} has {} tensors, {:.1} MB: {}, {:.0} million parameters, random",
        to.display(),
        made.tensors,
        made.bytes as f64 / 1e6,
        shape.about,
        made.parameters as f64 / 1e6,
    );
    Ok(())
}
