//! `pensieve chat`: a dialogue at the terminal. Ctrl-C stops an answer, not the program.

use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use super::args::Chat;
use super::ask::{Asked, Heard, Outcome, Said, encode_chat, print};
use super::model::{self, Opened};
use super::{Done, Failure};

const HELP: &str = "\
  /clear   forget the dialogue
  /help    show this
  /exit    leave (so does Ctrl-D)
  Ctrl-C   stop an answer";

/// Runs the subcommand.
pub fn run(args: Chat) -> Done {
    let mut opened = model::open(&args.model, |options| {
        (options.queue_limit, options.max_running) = (1, 1);
        options.prefix_cache = args.reuse.prefix_cache;
    })?;
    if !opened.text.has_template() {
        return Err(Failure::Model(
            "this model has no chat template, so it cannot hold a dialogue; use `pensieve run`"
                .into(),
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Work(format!("cannot start the event loop: {e}")))?;
    let mut editor = rustyline::DefaultEditor::new()
        .map_err(|e| Failure::Work(format!("cannot use the terminal: {e}")))?;
    let facts = opened.engine.handle.facts().clone();
    eprintln!("{} is ready; /help lists the commands", facts.id);
    let mut messages: Vec<Value> = Vec::new();
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                eprintln!("(Ctrl-D leaves)");
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(Failure::Input(format!("cannot read a line: {e}"))),
        };
        match line.trim() {
            "" => continue,
            "/exit" | "/quit" => return Ok(()),
            "/help" => {
                eprintln!("{HELP}");
                continue;
            }
            "/clear" => {
                messages.clear();
                eprintln!("(forgotten)");
                continue;
            }
            _ => {}
        }
        // History is a convenience; a line too long for it is no error.
        let _ = editor.add_history_entry(&line);
        messages.push(json!({"role": "user", "content": line}));
        match runtime.block_on(answer(&opened, &args, &messages)) {
            Ok((text, outcome)) => {
                print("\n")?;
                if args.verbose {
                    eprintln!("{}", outcome.summary(facts.load_seconds));
                }
                messages.push(json!({"role": "assistant", "content": text}));
            }
            // A line the model cannot take is taken back, and the dialogue goes on.
            Err(Failure::Input(message)) => {
                messages.pop();
                eprintln!("pensieve: {message} (/clear starts anew)");
            }
            Err(failure) => return Err(opened.why(failure)),
        }
    }
}

/// Prints the answer as it comes and returns it. Ctrl-C ends it where it is.
async fn answer(opened: &Opened, args: &Chat, messages: &[Value]) -> Done<(String, Outcome)> {
    let params = model::params(&args.answer, opened)?;
    let prompt = encode_chat(opened, &args.answer, messages)?;
    let stream = opened.text.stream(args.answer.stop.clone());
    let mut asked = Asked::new(opened, &args.answer, stream, params, None, prompt, true)?;
    let mut answer = Said::default();
    loop {
        let event = tokio::select! {
            event = asked.events.recv() => event,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|e| Failure::Work(format!("cannot wait for Ctrl-C: {e}")))?;
                return Ok((answer.text, asked.cut_short("cancelled")));
            }
        };
        let (said, end) = match asked.hear(event)? {
            Heard::Text(said) => (said, None),
            Heard::End(said, outcome) => (said, Some(outcome)),
        };
        said.print()?;
        answer.push(&said);
        if let Some(outcome) = end {
            return Ok((answer.text, outcome));
        }
    }
}
