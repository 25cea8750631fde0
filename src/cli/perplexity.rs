//! `pensieve perplexity`: how well a model foretells a text.

use std::path::Path;

use serde_json::{Value, json};

use super::args::Perplexity as Args;
use super::ask::print;
use super::{Done, Failure, check, model};
use crate::engine::{Options, Perplexity, Scorer};
use crate::text::Tokenizer;

/// Runs the subcommand.
pub fn run(args: Args) -> Done {
    let (source, name) = model::find(&args.load.files)?;
    let text = model::open_text(&source)?;
    let tokens = tokens(text.tokenizer(), &args.file)?;
    let all = tokens.chunks_exact(args.sequence_length);
    let sequences: Vec<&[u32]> = all.take(args.num_samples.unwrap_or(usize::MAX)).collect();
    if sequences.is_empty() {
        return Err(Failure::Input(format!(
            "{} has {} tokens, fewer than one sequence of {}; give a longer text, or a smaller \
             --sequence-length",
            args.file.display(),
            tokens.len(),
            args.sequence_length
        )));
    }
    let options = Options {
        prefill_chunk: Some(args.prefill_step_size),
        ..model::options(&args.load)
    };
    check::before_loading(&source, &args.load)?;
    let scorer = model::loading(&source, |report| Scorer::open(&source, &options, &report))?;
    let rows = scorer.vocab_size();
    if let Some(id) = tokens.iter().find(|id| **id as usize >= rows) {
        return Err(Failure::Input(format!(
            "{} has token {id}, but the model has {rows} rows; tokenizer.json does not belong to \
             these weights",
            args.file.display()
        )));
    }
    if let Some(own) = scorer
        .context_length()
        .filter(|&n| n < args.sequence_length)
    {
        tracing::warn!(
            "sequences of {} tokens are longer than what the model was trained for, {own}",
            args.sequence_length
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
    print(&format!(
        "perplexity {:.3}{error}, mean negative log-likelihood {:.5}, over {} tokens in {} \
         sequences of {}\n",
        scored.perplexity,
        scored.mean_nll,
        scored.tokens,
        sequences.len(),
        args.sequence_length
    ))?;
    eprintln!(
        "{:.1} s, {:.0} tokens/s, peak memory {:.0} MB",
        scored.seconds,
        rate(&scored),
        scored.peak_memory as f64 / 1e6
    );
    Ok(())
}

fn object(args: &Args, name: &str, sequences: &[&[u32]], scored: &Perplexity) -> Value {
    json!({
        "model": name,
        "file": args.file.display().to_string(),
        "perplexity": scored.perplexity,
        "standard_error": scored.standard_error,
        "mean_negative_log_likelihood": scored.mean_nll,
        "tokens": scored.tokens,
        "samples": sequences.len(),
        "sequence_length": args.sequence_length,
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

/// The file's tokens: of a text all of it at once, of JSON lines text after text.
fn tokens(tokenizer: &Tokenizer, file: &Path) -> Done<Vec<u32>> {
    let place = file.display();
    let bytes =
        std::fs::read(file).map_err(|e| Failure::Input(format!("cannot read {place}: {e}")))?;
    let text = String::from_utf8(bytes)
        .map_err(|e| Failure::Input(format!("{place} is not UTF-8: {e}")))?;
    let encode = |text: &str| {
        let ids = tokenizer.encode(text, true);
        ids.map_err(|e| Failure::Input(format!("{place}: {e}")))
    };
    if file.extension().is_none_or(|end| end != "jsonl") {
        return encode(&text);
    }
    let mut tokens = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let object: Value = serde_json::from_str(line)
            .map_err(|e| Failure::Input(format!("{place}, line {}: {e}", i + 1)))?;
        let Some(text) = object.get("text").and_then(Value::as_str) else {
            return Err(Failure::Input(format!(
                "{place}, line {}: expected an object with a string `text`",
                i + 1
            )));
        };
        let ids = encode(text)?;
        let ends = ids.last().copied();
        tokens.extend(ids);
        // As mlx-lm has it: each text ends with the token, but not twice.
        tokens.extend(tokenizer.eos_token_id().filter(|eos| ends != Some(*eos)));
    }
    Ok(tokens)
}
