//! `pensieve run`: one prompt, one answer.

use std::io::{IsTerminal, Read};

use serde_json::json;

use super::args::Run;
use super::ask::{Asked, Heard, Said, encode_chat, print};
use super::model::{self, Opened};
use super::{Done, Failure};

/// Runs the subcommand.
pub fn run(args: Run) -> Done {
    let prompt = prompt(args.prompt.as_deref())?;
    let mut opened = model::open(&args.model, |options| {
        (options.queue_limit, options.max_running) = (1, 1);
        // There is one request, which compiles just what it needs.
        options.warm_up = false;
    })?;
    let params = model::params(&args.answer, &opened)?;
    let form = args.form.form(&opened)?;
    let formed = form.is_some();
    let as_it_is = args.ignore_chat_template || !opened.text.has_template();
    let stop = args.answer.stop.clone();
    let (tokens, stream) = if as_it_is {
        let tokens = encode(&opened, &args, &prompt)?;
        let stream = opened.text.stream_after(&tokens, stop);
        (tokens, stream)
    } else {
        let message = json!({"role": "user", "content": prompt});
        let tokens = encode_chat(&opened, &args.answer, &[message])?;
        (tokens, opened.text.stream(stop))
    };
    let seed = params.seed;
    let mut asked = Asked::new(
        &opened,
        &args.answer,
        stream,
        params,
        form,
        tokens,
        !as_it_is && !formed,
    )?;
    let mut answer = Said::default();
    let outcome = loop {
        let event = asked.events.blocking_recv();
        let heard = asked.hear(event).map_err(|failure| opened.why(failure));
        let (said, end) = match heard? {
            Heard::Text(said) => (said, None),
            Heard::End(said, outcome) => (said, Some(outcome)),
        };
        match args.json {
            true => answer.push(&said),
            false if args.quiet => print(&said.text)?,
            false => said.print()?,
        }
        if let Some(outcome) = end {
            break outcome;
        }
    };
    if formed && outcome.reason == "length" {
        eprintln!("the answer ended before its form was complete; give it more --max-tokens");
    }
    let facts = opened.engine.handle.facts();
    if args.json {
        let stats = &outcome.stats;
        let object = json!({
            "text": answer.text,
            "reasoning": answer.reasoning,
            "finish_reason": outcome.reason,
            "model": facts.id,
            "seed": seed,
            "prompt_tokens": stats.prompt_tokens,
            "completion_tokens": stats.completion_tokens,
            "load_seconds": facts.load_seconds,
            "first_token_seconds": stats.queued + stats.prefill,
            "prefill_tokens_per_second": outcome.prefill_rate(),
            "decode_tokens_per_second": outcome.decode_rate(),
            "peak_memory_bytes": stats.peak_memory,
            "weight_bytes": facts.weight_bytes,
        });
        return print(&format!("{object}\n"));
    }
    print("\n")?;
    if !args.quiet {
        eprintln!("{}", outcome.summary(facts.load_seconds));
    }
    Ok(())
}

/// The prompt given, or what standard input holds.
fn prompt(given: Option<&str>) -> Done<String> {
    let prompt = match given {
        Some(text) if text != "-" => text.to_string(),
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::Usage(
                "no prompt: give one, as in `pensieve run \"Hello\"`, or pipe it in".into(),
            ));
        }
        _ => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|e| Failure::Input(format!("cannot read standard input: {e}")))?;
            String::from_utf8(bytes).map_err(|e| {
                Failure::Input(format!("the prompt on standard input is not UTF-8: {e}"))
            })?
        }
    };
    match prompt.trim().is_empty() {
        true => Err(Failure::Input("the prompt is empty".into())),
        false => Ok(prompt),
    }
}

/// The prompt's tokens without the chat template.
fn encode(opened: &Opened, args: &Run, prompt: &str) -> Done<Vec<u32>> {
    if args.answer.system_prompt.is_some() || args.answer.chat_template_config.is_some() {
        return Err(Failure::Usage(
            "--system-prompt and --chat-template-config need a chat template, which is not used \
             here"
                .into(),
        ));
    }
    let encoded = opened.text.tokenizer().encode(prompt, true);
    encoded.map_err(|e| Failure::Input(e.to_string()))
}
