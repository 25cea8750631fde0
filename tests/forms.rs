//! Answers of the shipped model held to a form: through the engine, many at a time, and from the command line.

mod common;

use common::{run, stderr, stdout};
use pensieve::builtin;
use pensieve::engine::{Engine, Event, FinishReason, Options, Request};
use pensieve::mlx::Device;
use pensieve::sample::Params;
use pensieve::text::guide::{Constraint, Forms};
use pensieve::text::{Chat, Text};
use regex::Regex;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

/// The tokens of an answer and how it ended.
fn collect(mut events: Receiver<Event>) -> (Vec<u32>, FinishReason) {
    let mut tokens = Vec::new();
    loop {
        match events
            .blocking_recv()
            .expect("an end before the channel closes")
        {
            Event::Started(_) | Event::Prompt(_) => {}
            Event::Token { id, .. } => tokens.push(id),
            Event::Finished { reason, .. } => return (tokens, reason),
            Event::Failed(message) => panic!("{message}"),
        }
    }
}

/// Whether a whole text fits, by another implementation.
type Check = Box<dyn Fn(&str) -> bool>;

fn schema(schema: Value) -> (Constraint, Check) {
    let options = jsonschema::options().should_validate_formats(true);
    let validator = options.build(&schema).unwrap();
    let check =
        move |text: &str| serde_json::from_str(text).is_ok_and(|value| validator.is_valid(&value));
    (Constraint::JsonSchema(schema), Box::new(check))
}

fn regex(regex: &str) -> (Constraint, Check) {
    let whole = Regex::new(&format!("^(?:{regex})$")).unwrap();
    let constraint = Constraint::Regex(regex.into());
    (constraint, Box::new(move |text: &str| whole.is_match(text)))
}

fn forms() -> Vec<(Constraint, Check)> {
    let texts = ["red", "green", "dark blue"].map(String::from).to_vec();
    let listed = texts.clone();
    vec![
        schema(
            json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 120}}, "required": ["name", "age"], "additionalProperties": false}),
        ),
        schema(
            json!({"type": "array", "items": {"enum": ["a", "b", 3, null]}, "minItems": 2, "maxItems": 5}),
        ),
        schema(
            json!({"$defs": {"t": {"type": "object", "properties": {"v": {"type": "boolean"}, "n": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "null"}]}}, "required": ["v", "n"], "additionalProperties": false}}, "$ref": "#/$defs/t"}),
        ),
        schema(json!({"type": "string", "format": "date-time"})),
        regex(r"[A-Z][a-z]{2,8} [0-9]{4}"),
        regex(r"(yes|no), because [a-z ]{5,20}\."),
        (
            Constraint::Choice(texts),
            Box::new(move |text| listed.iter().any(|t| t == text)),
        ),
        (
            Constraint::Lark(
                "start: \"[\" item (\", \" item)~0..3 \"]\"\nitem: /[a-z]{1,4}/ \"=\" /[0-9]{1,3}/"
                    .into(),
            ),
            regex(r"\[[a-z]{1,4}=[0-9]{1,3}(, [a-z]{1,4}=[0-9]{1,3}){0,3}\]").1,
        ),
    ]
}

#[test]
fn answers_in_a_batch_have_their_forms() {
    let source = builtin::source("tiny").unwrap();
    let text = Text::open(|file| source.read(file)).unwrap();
    let options = Options {
        device: Some(Device::Cpu),
        eos_ids: text.tokenizer().eos_token_id().into_iter().collect(),
        max_running: 8,
        queue_limit: 64,
        ..Options::default()
    };
    let engine = Engine::start(source, options, |_, _| {}).unwrap();
    let facts = engine.handle.facts();
    let made = Forms::new(text.tokenizer(), facts.vocab_size, &facts.eos_ids);
    let chat = Chat {
        messages: vec![json!({"role": "user", "content": "What is the capital of France?"})],
        add_generation_prompt: true,
        ..Chat::default()
    };
    let prompt = text.encode_chat(&chat).unwrap();
    let forms = forms();
    let ask = |constraint: Option<&Constraint>, temperature, seed| {
        let request = Request {
            prompt: prompt.clone(),
            params: Params {
                temperature,
                seed,
                ..Params::default()
            },
            max_tokens: 400,
            form: constraint.map(|c| made.compile(c).unwrap()),
            stop_ids: Vec::new(),
            logprobs: None,
            prompt_logprobs: false,
        };
        engine.handle.submit(request).unwrap()
    };
    let free = collect(ask(None, 0.0, 0)).0;
    for (temperature, seed) in [(0.0, 0), (1.0, 1), (3.0, 2)] {
        // One answer without a form stands between the others, undisturbed.
        let unbound = ask(None, 0.0, 0);
        let asked: Vec<_> = forms
            .iter()
            .map(|(c, _)| ask(Some(c), temperature, seed))
            .collect();
        assert_eq!(collect(unbound).0, free);
        let mut complete = 0;
        for (events, (constraint, fits)) in asked.into_iter().zip(&forms) {
            let (tokens, reason) = collect(events);
            let answer = text.tokenizer().decode(&tokens, true);
            match reason {
                FinishReason::Stop => {
                    complete += 1;
                    assert!(fits(&answer), "{constraint:?} at {temperature}: {answer:?}");
                }
                FinishReason::Length => assert_eq!(tokens.len(), 400, "{answer:?}"),
            }
        }
        assert!(
            complete * 4 >= forms.len() * 3,
            "{complete} of {} came to an end",
            forms.len()
        );
        // Alone it is the same answer.
        let (constraint, _) = &forms[0];
        let alone = collect(ask(Some(constraint), temperature, seed)).0;
        let busy: Vec<_> = (0..4)
            .map(|n| ask(Some(&forms[n + 1].0), 1.0, n as u64))
            .collect();
        let together = collect(ask(Some(constraint), temperature, seed)).0;
        assert_eq!(alone, together);
        busy.into_iter().for_each(|events| drop(collect(events)));
    }
}

#[test]
fn the_command_line_takes_each_form() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let schema = r#"{"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"], "additionalProperties": false}"#;
    let grammar = "start: \"answer: \" /[A-Z][a-z]+/";
    let (schema_file, grammar_file) = (file("schema.json", schema), file("grammar.lark", grammar));
    let object = r#"\{\s*"city"\s*:\s*"(Paris|Rome)"\s*\}"#;
    for (arguments, expected) in [
        (&["--json-schema", schema][..], object),
        (&["--json-schema", &schema_file], object),
        (&["--regex", "[0-9]{3}"], "[0-9]{3}"),
        (&["--choice", "Rome", "--choice", "Oslo"], "Rome|Oslo"),
        (&["--grammar", grammar], "answer: [A-Z][a-z]+"),
        (&["--grammar", &grammar_file], "answer: [A-Z][a-z]+"),
    ] {
        let question = ["run", "-q", "What is the capital of France?"];
        let output = run(&[&question, arguments].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let whole = Regex::new(&format!("^(?:{expected})\n$")).unwrap();
        assert!(
            whole.is_match(&stdout(&output)),
            "{arguments:?}: {:?}",
            stdout(&output)
        );
    }
    let output = run(&["run", "-q", "-m", "3", "--regex", "[0-9]{300}", "Hi"]);
    assert!(stderr(&output).contains("form"), "{}", stderr(&output));
}

#[test]
fn what_cannot_be_a_form_is_a_usage_error() {
    for (arguments, parts) in [
        (
            &["--json-schema", r#"{"items": {"not": {}}}"#][..],
            &["--json-schema.items.not", "not supported"][..],
        ),
        (&["--json-schema", "{"], &["--json-schema", "JSON"]),
        (
            &["--json-schema", "no-such-file.json"],
            &["no-such-file.json"],
        ),
        (&["--regex", "("], &["--regex", "unclosed"]),
        (&["--grammar", "begin: \"a\""], &["--grammar", "start"]),
        (&["--grammar", "no-such-file.lark"], &["no-such-file.lark"]),
        (
            &["--regex", "a", "--choice", "b"],
            &["--regex", "--choice", "cannot be used with"],
        ),
        (
            &["--json-object", "--json-schema", "{}"],
            &["cannot be used with"],
        ),
    ] {
        let output = run(&[&["run", "-q", "Hi"], arguments].concat());
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        for part in parts {
            assert!(message.contains(part), "{part:?} in {message}");
        }
    }
    let help = stdout(&run(&["run", "--help"]));
    for part in [
        "Form of the answer",
        "--json-schema",
        "--json-object",
        "--regex",
        "--choice",
        "--grammar",
    ] {
        assert!(help.contains(part), "{part:?} in {help}");
    }
}
