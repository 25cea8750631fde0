//! `pensieve bench`: measuring speed, and making models to measure with.

use std::path::Path;

use serde_json::Value;

use super::args::{Model, WeightsChoice};
use super::ask::print;
use super::bench_args::{Bar, Bench, GridArgs, Make, Work};
use super::{Done, Failure, check, model};
use crate::bench::client::Client;
use crate::bench::cost::Cost;
use crate::bench::explain;
use crate::bench::grid::{Grid, Point};
use crate::bench::make::{Storage, make};
use crate::bench::peer::{self, Peer, PeerOptions};
use crate::bench::report;
use crate::bench::row::Format;
use crate::bench::scenario::{STREAMS, Setting, admission, endless, form, prefix};
use crate::bench::shapes::Shape;
use crate::bench::suite::{self, CHATS, Conditions, Dialogue};
use crate::bench::target::Target;
use crate::bench::verdict::{Verdict, summed_up};
use crate::engine::{Engine, Options, probe};
use crate::mlx::Device;
use crate::sample::Form;
use crate::text::guide::Forms;

/// Runs the subcommand.
pub fn run(args: Bench) -> Done {
    if let (Some(shape), Some(to)) = (args.make.make_model, &args.make.out) {
        return make_model(&args.make, shape, to);
    }
    if args.explain.explain {
        return explain(&args);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Work(format!("cannot start the event loop: {e}")))?;
    let work = args.scenario.work();
    // Held until all is done; a server needs none.
    let engine = match &args.target.url {
        Some(_) => None,
        None => {
            let most = args.grid.concurrency.iter().max().copied().unwrap_or(1);
            let most = match work {
                Work::Bar(_) => STREAMS,
                Work::Dialogues(_) => CHATS,
                Work::Grid => most.max(2),
            };
            // Only what lies before prompts is to be found again, and what a scenario shares.
            let depth = args.grid.depth.iter().any(|&depth| depth > 0);
            let reuse = match work {
                Work::Grid => depth,
                Work::Bar(bar) => depth || bar == Bar::Prefix,
                Work::Dialogues(_) => true,
            };
            let rates = probe(args.model.load.device.device()).map_err(Failure::Work)?;
            Some((start(&args.model, most, reuse)?, rates))
        }
    };
    runtime.block_on(async {
        let target = match (&engine, &args.target.url) {
            (Some((engine, rates)), _) => {
                let (source, _) = model::find(&args.model.load.files)?;
                let cost = Cost::of(&source, engine.handle.facts().weight_bytes);
                let cost = cost.map_err(|e| Failure::Model(e.to_string()))?;
                Target::engine(engine.handle.clone(), Some((cost, *rates)))
            }
            (None, Some(url)) => connect(&args, url).await?,
            (None, None) => return Err(Failure::Usage("there is nothing to measure".into())),
        };
        if let Work::Dialogues(dialogues) = &work {
            let target = match args.target.url {
                Some(_) => target,
                None => {
                    let (source, _) = model::find(&args.model.load.files)?;
                    target.with_text(model::open_text(&source)?)
                }
            };
            return run_dialogues(&args, dialogues, &target).await;
        }
        match (work, &args.target.against) {
            (Work::Bar(bar), _) => run_scenario(&args, bar, &target).await,
            (_, None) => run_grid(&args, &target, None).await,
            (_, Some(other)) => {
                let other = match other.as_str() {
                    "mlx-lm" => Target::peer(mlx_lm(&args)?, target.facts().model.clone()),
                    "llama.cpp" => Target::peer(llama_cpp(&args)?, target.facts().model.clone()),
                    url => connect(&args, url).await?,
                };
                run_grid(&args, &target, Some(&other)).await
            }
        }
    })
}

/// Says how the model's products are computed.
fn explain(args: &Bench) -> Done {
    let format = args.output.format();
    if format == Format::Csv {
        return Err(Failure::Usage("--explain has no --csv; use --json".into()));
    }
    let most = args.grid.concurrency.iter().max().copied().unwrap_or(1);
    let engine = start(&args.model, most, false)?;
    let Some(explained) = engine.handle.explained() else {
        return Err(Failure::Work("the engine did not say".into()));
    };
    print(&match format {
        Format::Json => explain::lines(explained),
        _ => explain::text(explained),
    })
}

async fn connect(args: &Bench, url: &str) -> Done<Target> {
    let key = args.target.api_key.clone();
    let client = Client::connect(url, args.target.url_model.as_deref(), key).await;
    Ok(Target::http(client.map_err(Failure::Work)?))
}

/// mlx-lm on the same model, unpacked and placed as this process has it.
fn mlx_lm(args: &Bench) -> Done<Peer> {
    let load = &args.model.load;
    if load.files.model.starts_with("builtin:") || load.files.adapter_path.is_some() {
        return Err(Failure::Usage(
            "--against mlx-lm needs --model DIR, without a fine-tune".into(),
        ));
    }
    let device = load.device.device();
    let on_cpu = device.unwrap_or_else(Device::best) == Device::Cpu;
    let options = PeerOptions {
        kind: peer::Kind::MlxLm,
        python: &args.target.python,
        model: &load.files.directory(),
        device: device.map(device_name),
        dtype: match load.weights {
            WeightsChoice::Auto if on_cpu => Some("float32"),
            WeightsChoice::Auto | WeightsChoice::Keep => None,
            WeightsChoice::Float32 => Some("float32"),
            WeightsChoice::Float16 => Some("float16"),
            WeightsChoice::Bfloat16 => Some("bfloat16"),
        },
    };
    Peer::start(&options).map_err(Failure::Work)
}

/// llama.cpp on the GGUF file given.
fn llama_cpp(args: &Bench) -> Done<Peer> {
    let Some(model) = &args.target.gguf else {
        return Err(Failure::Usage(
            "--against llama.cpp needs --gguf FILE; peers/gguf_shape.py writes one of a model's shape, \
             with random weights"
                .into(),
        ));
    };
    let options = PeerOptions {
        kind: peer::Kind::LlamaCpp,
        python: &args.target.python,
        model,
        device: args.model.load.device.device().map(device_name),
        dtype: None,
    };
    Peer::start(&options).map_err(Failure::Work)
}

fn device_name(device: Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Gpu => "gpu",
    }
}

async fn run_grid(args: &Bench, target: &Target, other: Option<&Target>) -> Done {
    let grid = grid(&args.grid);
    let points = grid.points();
    fits(target, &points)?;
    let format = args.output.format();
    let mut all = Vec::new();
    for (i, point) in points.into_iter().enumerate() {
        let rows = match other {
            None => vec![grid.run(target, point).await.map_err(Failure::Work)?],
            Some(other) => {
                let rows = grid.versus(target, other, point).await;
                rows.map_err(Failure::Work)?.to_vec()
            }
        };
        for (k, row) in rows.iter().enumerate() {
            if row.measures.ended_early > 0 {
                tracing::warn!(
                    "{}: {} of {} answers ended before they had the tokens asked for; rates are of \
                     what came",
                    row.target.name,
                    row.measures.ended_early,
                    row.measures.tokens.len()
                );
            }
            print(&format.line(row, i + k == 0))?;
            all.push(row.json());
        }
        if format == Format::Table {
            for row in &rows {
                print(&row.ratios())?;
            }
        }
    }
    if let Some(file) = &args.output.report {
        let title = format!("pensieve bench: {}", target.facts().model);
        std::fs::write(file, report::page(&title, &all))
            .map_err(|e| Failure::Work(format!("cannot write {}: {e}", file.display())))?;
    }
    Ok(())
}

async fn run_dialogues(args: &Bench, dialogues: &[Dialogue], target: &Target) -> Done {
    let conditions = Conditions {
        seed: args.grid.seed,
        longest: args.scenario.long_prompt,
    };
    let checks = suite::run(target, dialogues, conditions).await;
    let checks = checks.map_err(Failure::Work)?;
    for check in &checks {
        print(&match args.output.json {
            true => format!("{}\n", check.json()),
            false => check.text(),
        })?;
    }
    if !args.output.json {
        print(&summed_up(&checks))?;
    }
    let missed = checks.iter().filter(|c| c.verdict() == Verdict::Fail);
    match missed.count() {
        0 => Ok(()),
        n => Err(Failure::Work(format!("{n} targets are missed"))),
    }
}

async fn run_scenario(args: &Bench, bar: Bar, target: &Target) -> Done {
    let wanted = match bar {
        Bar::Admission => 16_384,
        Bar::Prefix => 8192,
        Bar::Form => 64,
    };
    // Room for the answer, and for the prompt before it.
    let room = target
        .context_length()
        .map_or(wanted, |n| n.saturating_sub(64));
    let prompt = args.scenario.long_prompt.unwrap_or(wanted.min(room));
    if prompt > room || prompt == 0 {
        return Err(Failure::Usage(format!(
            "--long-prompt {prompt} leaves no room in the context for 64 tokens more"
        )));
    }
    let setting = Setting {
        prompt,
        chunk: target.prefill_chunk().unwrap_or(prompt),
        reps: args.grid.reps,
        seed: args.grid.seed,
    };
    let outcome = match bar {
        Bar::Admission => admission(target, setting).await,
        Bar::Prefix => prefix(target, setting).await,
        Bar::Form => form(target, setting, endless_form(args, target)?).await,
    };
    let outcome = outcome.map_err(Failure::Work)?;
    print(&match args.output.json {
        true => format!("{}\n", Value::Object(outcome.object.clone())),
        false => outcome.text(),
    })?;
    match outcome.passed {
        true => Ok(()),
        false => Err(Failure::Work("the scenario misses its bar".into())),
    }
}

/// The form scenario's form, for the model that is measured.
fn endless_form(args: &Bench, target: &Target) -> Done<Form> {
    let (source, _) = model::find(&args.model.load.files)?;
    let text = model::open_text(&source)?;
    // No answer of the scenario ends by itself.
    let forms = Forms::new(text.tokenizer(), target.vocab(), &[]);
    let form = forms.compile(&endless());
    form.map_err(|e| Failure::Work(e.at("the scenario's form")))
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
fn start(args: &Model, concurrency: usize, reuse: bool) -> Done<Engine> {
    let (source, name) = model::find(&args.load.files)?;
    check::before_loading(&source, &args.load)?;
    let options = Options {
        id: name,
        prefill_chunk: args.prefill_step_size,
        context_length: args.context_length,
        queue_limit: concurrency,
        max_running: concurrency,
        prefix_cache: (!reuse).then_some(0),
        ..model::options(&args.load)
    };
    model::loading(&source, |report| {
        Engine::start(source.clone(), options, report)
    })
}

/// Whether each point is within the context; the engine would cut answers short.
fn fits(target: &Target, points: &[Point]) -> Done {
    let Some(room) = target.context_length() else {
        return Ok(());
    };
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
