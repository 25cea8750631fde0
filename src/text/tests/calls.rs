//! Calls that the published templates write are read back by the notation that their text shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::tools::{Output, Tools};
use super::super::{Chat, Text, reasoning};
use super::{byte_level, with_template};

/// A folder of published templates, which are other people's.
fn folder() -> PathBuf {
    let folder = std::env::var_os("PENSIEVE_TEMPLATE_DIR");
    folder
        .expect("PENSIEVE_TEMPLATE_DIR names no folder of templates; `cargo xtask templates --dir` sets it")
        .into()
}

fn open(folder: &Path, name: &str) -> Text {
    let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
    with_template(&byte_level(), &source)
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "look_up", "description": "Looks things up.", "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where"}, "days": {"type": "integer", "description": "How long"},
            "exact": {"type": "number", "description": "How well"}, "flag": {"type": "boolean", "description": "Whether"},
            "names": {"type": "array", "items": {"type": "string"}, "description": "Who"},
            "deep": {"type": "object", "description": "What"}, "code": {"type": "string", "description": "How"}},
        "required": ["city"]}}}])
}

fn arguments() -> [Value; 2] {
    [
        json!({
            "city": "Tromsø, \"north\"", "days": 3, "exact": 0.5, "flag": true, "names": ["Ane", "Bo"],
            "deep": {"on": false, "list": [1, 2.5, "x"]}, "code": "if a < b {\n\tprint('x')\n}",
        }),
        json!({"city": "5"}),
    ]
}

/// The text that the template writes for an answer with these calls.
fn written(text: &Text, calls: &[Value]) -> Result<String, String> {
    let calls: Vec<Value> = calls
        .iter()
        .enumerate()
        .map(|(at, arguments)| {
            json!({"id": format!("abcdefgh{at}"), "type": "function", "function": {"name": "look_up", "arguments": arguments}})
        })
        .collect();
    let question = json!({"role": "user", "content": "QUESTION"});
    let mut chat = Chat {
        messages: vec![question],
        tools: Some(tools()),
        add_generation_prompt: true,
        ..Chat::default()
    };
    let asked = text.render_chat(&chat).map_err(|e| e.to_string())?;
    chat.add_generation_prompt = false;
    chat.messages
        .push(json!({"role": "assistant", "content": "", "tool_calls": calls}));
    let whole = text.render_chat(&chat).map_err(|e| e.to_string())?;
    match whole.strip_prefix(&asked) {
        Some(answer) => Ok(answer.to_owned()),
        None => whole
            .rsplit_once("QUESTION")
            .map(|(_, answer)| answer.to_owned())
            .ok_or_else(|| "the question does not come back".to_owned()),
    }
}

fn read(text: &Text, answer: &str) -> Vec<Value> {
    read_pieces(text, [answer])
}

fn read_pieces<'a>(text: &Text, pieces: impl IntoIterator<Item = &'a str>) -> Vec<Value> {
    let mut parser = text.notation().parser(&Arc::new(Tools::new(&tools())));
    let mut out = Vec::new();
    for piece in pieces {
        out.extend(parser.push(piece));
    }
    out.extend(parser.finish());
    let mut found = Vec::new();
    let mut arguments = String::new();
    for part in out {
        match part {
            Output::CallStart { name, .. } => {
                assert_eq!(name, "look_up");
                arguments.clear();
            }
            Output::Arguments(more) => arguments.push_str(&more),
            Output::CallEnd => found.push(serde_json::from_str(&arguments).unwrap()),
            Output::CallAbort => found.push(json!("aborted")),
            _ => {}
        }
    }
    found
}

/// Template, notation, reasoning, and how many calls it writes in an answer.
const PUBLISHED: &[(&str, &str, Option<&str>, usize)] = &[
    ("Apertus-8B-Instruct", "apertus", Some("apertus"), 2),
    ("ByteDance-Seed-OSS", "seed_oss", Some("seed_oss"), 2),
    (
        "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
        "cohere",
        Some("cohere"),
        2,
    ),
    ("GLM-4.6", "glm", Some("think"), 2),
    ("HuggingFaceTB-SmolLM3-3B", "hermes", Some("think"), 0),
    // Its template appends to a list, which transformers' sandbox forbids, and so do we.
    ("Kimi-K2-Instruct", "kimi_k2", None, 0),
    ("LFM2.5-Instruct", "hermes", Some("think"), 0),
    ("MiniMax-M2", "minimax_m2", Some("think"), 2),
    ("Mistral-Small-3.2-24B-Instruct-2506", "mistral", None, 2),
    ("NVIDIA-Nemotron-Nano-v2", "nemotron", Some("think"), 2),
    (
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
        "hermes",
        None,
        2,
    ),
    ("Qwen-Qwen2.5-7B-Instruct", "hermes", None, 2),
    ("Qwen-Qwen3-0.6B", "hermes", Some("think"), 2),
    ("Qwen3-Coder", "qwen3_coder", None, 2),
    ("Qwen3.5-4B", "qwen3_coder", Some("think"), 2),
    (
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
        "deepseek_v3",
        Some("think"),
        2,
    ),
    (
        "deepseek-ai-DeepSeek-V3.1",
        "deepseek_v31",
        Some("think"),
        2,
    ),
    ("google-gemma-2-2b-it", "hermes", None, 0),
    ("google-gemma-4-31B-it", "gemma4", Some("gemma4"), 2),
    ("ibm-granite-granite-4.0", "hermes", None, 2),
    ("meta-llama-Llama-3.1-8B-Instruct", "llama3", None, 1),
    ("meta-llama-Llama-3.2-3B-Instruct", "llama3", None, 1),
    ("microsoft-Phi-3.5-mini-instruct", "hermes", None, 0),
    (
        "mistralai-Mistral-Nemo-Instruct-2407",
        "mistral_v3",
        None,
        2,
    ),
    ("openai-gpt-oss-120b", "harmony", None, 1),
];

#[test]
#[ignore = "needs published templates: cargo xtask templates --dir"]
fn published_templates_show_their_notations() {
    let folder = folder();
    for &(name, notation, marks, _) in PUBLISHED {
        let text = open(&folder, name);
        assert_eq!(text.notation().name, notation, "{name}");
        assert_eq!(
            text.reasoning_marks().map(|marks| marks.name),
            marks,
            "{name}"
        );
    }
    let there = std::fs::read_dir(&folder).unwrap();
    let there = there.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .path()
            .extension()
            .is_some_and(|x| x == "jinja")
    });
    assert_eq!(there.count(), PUBLISHED.len(), "a template has no row here");
}

#[test]
#[ignore = "needs published templates: cargo xtask templates --dir"]
fn calls_come_back_as_templates_write_them() {
    let folder = folder();
    let mut failures = Vec::new();
    for &(name, _, _, n_calls) in PUBLISHED.iter().filter(|row| row.3 > 0) {
        let text = open(&folder, name);
        let calls = &arguments()[..n_calls];
        match written(&text, calls) {
            Err(e) => failures.push(format!("{name}: {e}")),
            Ok(answer) => {
                let found = read(&text, &answer);
                if found != calls {
                    failures.push(format!("{name}: {found:?} of {answer}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Arguments that look like the ends of things.
fn hard_arguments() -> [Value; 4] {
    [
        json!({"city": "{\"name\": \"look_up\", \"arguments\": {}}", "names": ["]", "}", "\"", "'", "\\", ", "]}),
        json!({"city": "```json\n{}\n```", "deep": {"a": {"b": [{"c": "}]}"}, [], {}, null]}}, "code": "a\\\"b'\r\n\u{1}é😀"}),
        json!({"city": "", "days": -7, "exact": 1e-7, "flag": false, "names": [], "deep": {}}),
        json!({"city": "true", "code": "[f(a=1)] (x, y='z') # {{ x }} {% y %} </b> <tool> null"}),
    ]
}

#[test]
#[ignore = "needs published templates: cargo xtask templates --dir"]
fn hard_calls_come_back_however_they_are_cut() {
    let folder = folder();
    let mut failures = Vec::new();
    for &(name, ..) in PUBLISHED.iter().filter(|row| row.3 > 0) {
        let text = open(&folder, name);
        for arguments in hard_arguments() {
            let calls = std::slice::from_ref(&arguments);
            let answer = match written(&text, calls) {
                Ok(answer) => answer,
                Err(e) => {
                    failures.push(format!("{name}: {e}"));
                    continue;
                }
            };
            let characters = answer
                .char_indices()
                .map(|(at, c)| &answer[at..at + c.len_utf8()]);
            let whole = read(&text, &answer);
            if whole != calls || read_pieces(&text, characters) != calls {
                failures.push(format!("{name}: {whole:?}\n  of {answer}"));
                continue;
            }
            for (at, _) in answer.char_indices() {
                let (head, tail) = answer.split_at(at);
                assert_eq!(
                    read_pieces(&text, [head, tail]),
                    calls,
                    "{name}, cut at {at}: {answer}"
                );
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
#[ignore = "needs published templates: cargo xtask templates --dir"]
fn templates_that_open_the_reasoning_are_noticed() {
    let folder = folder();
    for (name, extra, place) in [
        ("Qwen3.5-4B", json!({}), reasoning::Place::Inside),
        (
            "Qwen3.5-4B",
            json!({"enable_thinking": false}),
            reasoning::Place::Behind,
        ),
        ("Qwen-Qwen3-0.6B", json!({}), reasoning::Place::Before),
        ("MiniMax-M2", json!({}), reasoning::Place::Inside),
        (
            "deepseek-ai-DeepSeek-V3.1",
            json!({"thinking": true}),
            reasoning::Place::Inside,
        ),
        ("google-gemma-4-31B-it", json!({}), reasoning::Place::Behind),
        (
            "google-gemma-4-31B-it",
            json!({"enable_thinking": true}),
            reasoning::Place::Before,
        ),
        (
            "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
            json!({}),
            reasoning::Place::Behind,
        ),
    ] {
        let text = open(&folder, name);
        let chat = Chat {
            messages: vec![json!({"role": "user", "content": "Hi"})],
            add_generation_prompt: true,
            extra: extra.as_object().unwrap().clone(),
            ..Chat::default()
        };
        let prompt = text.render_chat(&chat).unwrap();
        let marks = text.reasoning_marks().unwrap();
        assert_eq!(marks.after(&prompt), place, "{name} {extra}");
    }
}

#[test]
fn control_tokens_of_a_notation_show_in_the_stream() {
    let mut tokenizer = byte_level();
    let first = tokenizer["model"]["vocab"].as_object().unwrap().len() + 6;
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    for (at, token) in ["<tool_call>", "</tool_call>", "<other>"]
        .iter()
        .enumerate()
    {
        added.push(super::added(first + at, token, true));
    }
    let text = with_template(&tokenizer, "{{ '<tool_call>' }}");
    let ids = text
        .tokenizer()
        .encode("é <other><tool_call>{\"name\": \"f\"}</tool_call>", false)
        .unwrap();
    let read = |tools: Option<&Value>| {
        let mut parser = text.answer_parser(&[], tools);
        let mut stream = text.stream(Vec::new());
        stream.show(parser.shown());
        let mut out = Vec::new();
        for &id in &ids {
            out.extend(parser.push(&stream.push(id).text));
        }
        out.extend(parser.push(&stream.finish()));
        out.extend(parser.finish());
        let mut joined = Vec::new();
        out.into_iter()
            .for_each(|part| Output::join(&mut joined, part));
        joined
    };
    let call = [
        Output::Text("é".into()),
        Output::CallStart {
            index: 0,
            name: "f".into(),
            id: None,
        },
        Output::Arguments("{}".into()),
        Output::CallEnd,
    ];
    assert_eq!(read(Some(&tools())), call);
    // Without tools nothing of it is markup, and control tokens do not show.
    assert_eq!(read(None), [Output::Text("é {\"name\": \"f\"}".into())]);
}

#[test]
fn notations_can_be_named() {
    let text = with_template(&byte_level(), "<tool_call> <think>");
    assert_eq!(text.notation().name, "hermes");
    let named = text
        .clone()
        .with_notations(Some("glm45"), Some("none"))
        .unwrap();
    assert_eq!(
        (named.notation().name, named.reasoning_marks().is_none()),
        ("glm", true)
    );
    for (calls, reasoning) in [(Some("nonsense"), None), (None, Some("nonsense"))] {
        let error = text
            .clone()
            .with_notations(calls, reasoning)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("nonsense") && (error.contains("hermes") || error.contains("think")),
            "{error}"
        );
    }
}
