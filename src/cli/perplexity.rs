//! `pensieve perplexity`: how well a model foretells a text.

use serde_json::{Value, json};

use super::args::Perplexity as Args;
use super::ask::print;
use super::corpus::{self, Dialogue};
use super::{Done, Failure, check, model};
use crate::checkpoint::{Config, GenerationConfig, Source};
use crate::engine::{Options, Perplexity, Scorer, Sequence};
use crate::text::Text;

/// Runs the subcommand.
pub fn run(args: Args) -> Done {
    let (source, name) = model::find(&args.load.files)?;
    let text = model::open_text(&source)?;
    let (texts, dialogues) = match args.mask_prompt {
        true => (Vec::new(), dialogues(&source, &text, &args)?),
        false => (corpus::tokens(text.tokenizer(), &args.file)?, Vec::new()),
    };
    let cut = texts
        .chunks_exact(args.sequence_length)
        .map(Sequence::whole);
    let all = cut.chain(dialogues.iter().map(Dialogue::sequence));
    let sequences: Vec<Sequence> = all.take(args.num_samples.unwrap_or(usize::MAX)).collect();
    if sequences.is_empty() {
        let (file, has) = (args.file.display(), texts.len());
        return Err(Failure::Input(match args.mask_prompt {
            true => format!("{file} has no dialogue"),
            false => format!(
                "{file} has {has} tokens, fewer than one sequence of {}; give a longer text, or a \
                 smaller --sequence-length",
                args.sequence_length
            ),
        }));
    }
    let options = Options {
        prefill_chunk: Some(args.prefill_step_size),
        ..model::options(&args.load)
    };
    check::before_loading(&source, &args.load)?;
    let scorer = model::loading(&source, |report| Scorer::open(&source, &options, &report))?;
    let rows = scorer.vocab_size();
    let mut ids = sequences.iter().flat_map(|sequence| sequence.tokens);
    if let Some(id) = ids.find(|id| **id as usize >= rows) {
        return Err(Failure::Input(format!(
            "{} has token {id}, but the model has {rows} rows; tokenizer.json does not belong to \
             these weights",
            args.file.display()
        )));
    }
    let longest = sequences.iter().map(|s| s.tokens.len()).max().unwrap_or(0);
    if let Some(own) = scorer.context_length().filter(|&n| n < longest) {
        tracing::warn!(
            "sequences of up to {longest} tokens are longer than what the model was trained for, {own}"
        );
    }
    let bar = indicatif::ProgressBar::new(sequences.len() as u64);
    let scored = scorer.perplexity(&sequences, args.batch_size, &|done| {
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let scored = scored.map_err(|e| Failure::Work(e.to_string()))?;
    if args.json {
        return print(&format!("{}\n", object(&args, &name, &sequences, &scored)));
    }
    let error = match scored.standard_error {
        Some(error) => format!(" ± {error:.3}"),
        None => String::new(),
    };
    let of = match args.mask_prompt {
        true => format!("the answers of {} dialogues", sequences.len()),
        false => format!("{} sequences of {}", sequences.len(), args.sequence_length),
    };
    print(&format!(
        "perplexity {:.3}{error}, mean negative log-likelihood {:.5}, over {} tokens in {of}\n",
        scored.perplexity, scored.mean_nll, scored.tokens,
    ))?;
    eprintln!(
        "{:.1} s, {:.0} tokens/s, peak memory {:.0} MB",
        scored.seconds,
        rate(&scored),
        scored.peak_memory as f64 / 1e6
    );
    Ok(())
}

/// The dialogues of the file, whose answers end where the model would have ended them.
fn dialogues(source: &Source, text: &Text, args: &Args) -> Done<Vec<Dialogue>> {
    let settings = Config::open(source).and_then(|config| GenerationConfig::open(source, &config));
    let settings = settings.map_err(|e| Failure::Model(format!("{}: {e}", source.label())))?;
    let mut ends = settings.eos_token_id;
    ends.extend(text.tokenizer().eos_token_id());
    corpus::dialogues(text, &ends, &args.file)
}

fn object(args: &Args, name: &str, sequences: &[Sequence], scored: &Perplexity) -> Value {
    json!({
        "model": name,
        "file": args.file.display().to_string(),
        "perplexity": scored.perplexity,
        "standard_error": scored.standard_error,
        "mean_negative_log_likelihood": scored.mean_nll,
        "tokens": scored.tokens,
        "samples": sequences.len(),
        "mask_prompt": args.mask_prompt,
        "sequence_length": (!args.mask_prompt).then_some(args.sequence_length),
        "batch_size": args.batch_size,
        "seconds": scored.seconds,
        "tokens_per_second": rate(scored),
        "peak_memory_bytes": scored.peak_memory,
    })
}

fn rate(scored: &Perplexity) -> f64 {
    match scored.seconds > 0.0 {
        true => scored.tokens as f64 / scored.seconds,
        false => 0.0,
    }
}
