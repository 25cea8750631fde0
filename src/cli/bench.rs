//! `pensieve bench`: measuring speed, and making models to measure with.

use std::path::Path;

use super::args::Model;
use super::ask::print;
use super::bench_args::{Bench, GridArgs, Make};
use super::{Done, Failure, check, model};
use crate::bench::grid::{Grid, Point};
use crate::bench::make::{Storage, make};
use crate::bench::shapes::Shape;
use crate::bench::target::Target;
use crate::engine::{Engine, Options};

/// Runs the subcommand.
pub fn run(args: Bench) -> Done {
    if let (Some(shape), Some(to)) = (args.make.make_model, &args.make.out) {
        return make_model(&args.make, shape, to);
    }
    let grid = grid(&args.grid);
    let points = grid.points();
    let most = args.grid.concurrency.iter().max().copied().unwrap_or(1);
    let engine = start(&args.model, most)?;
    fits(&engine, &points)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Work(format!("cannot start the event loop: {e}")))?;
    let target = Target::engine(engine.handle.clone());
    for (i, point) in points.into_iter().enumerate() {
        let row = runtime.block_on(grid.run(&target, point));
        let row = row.map_err(Failure::Work)?;
        if row.measures.ended_early > 0 {
            tracing::warn!(
                "{} of {} answers ended before they had the tokens asked for; rates are of what came",
                row.measures.ended_early,
                row.measures.tokens.len()
            );
        }
        print(&args.output.format().line(&row, i == 0))?;
    }
    Ok(())
}

fn grid(args: &GridArgs) -> Grid {
    Grid {
        prompts: args.prompt.clone(),
        answers: args.answer.clone(),
        depths: args.depth.clone(),
        concurrencies: args.concurrency.clone(),
        reps: args.reps,
        warm_up: args.warm_up,
        seed: args.seed,
    }
}

/// Loads the model; no tokenizer is needed. As many requests run at a time as there may be.
fn start(args: &Model, concurrency: usize) -> Done<Engine> {
    let (source, name) = model::find(&args.load.files)?;
    check::before_loading(&source, &args.load)?;
    if args.prefill_step_size == 0 {
        return Err(Failure::Usage(
            "--prefill-step-size must be at least 1".into(),
        ));
    }
    let options = Options {
        id: name,
        prefill_chunk: args.prefill_step_size,
        context_length: args.context_length,
        queue_limit: concurrency,
        max_running: concurrency,
        ..model::options(&args.load)
    };
    model::loading(&source, |report| {
        Engine::start(source.clone(), options, report)
    })
}

/// Whether each point is within the context; the engine would cut answers short.
fn fits(engine: &Engine, points: &[Point]) -> Done {
    let room = engine.handle.facts().context_length;
    match points.iter().find(|point| point.tokens() > room) {
        None => Ok(()),
        Some(point) => Err(Failure::Usage(format!(
            "--depth {}, --prompt {} and --gen {} are {} tokens, but the context holds {room}",
            point.depth,
            point.prompt,
            point.answer,
            point.tokens()
        ))),
    }
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
