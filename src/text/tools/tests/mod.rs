//! What holds for every notation, and examples of each as models write them.

mod examples;
mod grammars;

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{FORMATS, Notation, Output, Tools, by_name, detect};
use examples::examples;

static TOOLS: LazyLock<Arc<Tools>> = LazyLock::new(|| {
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    Arc::new(Tools::new(&json!([
        tool(
            "weather",
            json!({"type": "object", "properties": {
            "city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}}, "where": {"type": "object"}, "note": {"type": ["string", "null"]}}})
        ),
        tool("time", json!({"type": "object", "properties": {}})),
    ])))
});

/// What comes out of these pieces, neighbours of one kind joined.
fn run<'a>(notation: &Notation, pieces: impl IntoIterator<Item = &'a str>) -> Vec<Output> {
    let mut parser = notation.parser(&TOOLS);
    let mut out = Vec::new();
    for piece in pieces {
        for part in parser.push(piece) {
            Output::join(&mut out, part);
        }
    }
    for part in parser.finish() {
        Output::join(&mut out, part);
    }
    out
}

/// Complete calls, and the text with that of aborted ones in it.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    text: String,
    reasoning: String,
    calls: Vec<(String, Option<String>, Value)>,
    aborted: usize,
}

/// Puts the parts together as a client does, and checks that they follow on each other as they must.
fn assemble(out: &[Output]) -> Answer {
    let mut answer = Answer::default();
    let mut open: Option<(String, Option<String>, String)> = None;
    let mut indices = Vec::new();
    for part in out {
        match part {
            Output::Text(text) => {
                assert!(open.is_none(), "text inside a call: {out:?}");
                answer.text.push_str(text);
            }
            Output::Reasoning(text) => {
                assert!(open.is_none(), "reasoning inside a call: {out:?}");
                answer.reasoning.push_str(text);
            }
            Output::TextWasReasoning => panic!("no notation for calls says so"),
            Output::CallStart { index, name, id } => {
                assert!(open.is_none() && !name.is_empty(), "{out:?}");
                indices.push(*index);
                open = Some((name.clone(), id.clone(), String::new()));
            }
            Output::Arguments(text) => open.as_mut().expect("a call").2.push_str(text),
            Output::CallEnd => {
                let (name, id, arguments) = open.take().expect("a call");
                let value: Value = serde_json::from_str(&arguments)
                    .unwrap_or_else(|e| panic!("{e} in {arguments:?}"));
                assert!(value.is_object(), "{arguments}");
                answer.calls.push((name, id, value));
            }
            Output::CallAbort => {
                open.take().expect("a call");
                answer.aborted += 1;
            }
        }
    }
    assert!(open.is_none(), "a call without an end: {out:?}");
    assert!(indices.iter().copied().eq(0..indices.len()), "{indices:?}");
    answer
}

/// Whole, by characters, and cut in two at every place: always the same.
fn check(name: &str, input: &str) -> Answer {
    let notation = by_name(name).unwrap_or_else(|| panic!("{name}"));
    let whole = run(notation, [input]);
    let chars: Vec<String> = input.chars().map(String::from).collect();
    assert_eq!(
        run(notation, chars.iter().map(String::as_str)),
        whole,
        "{name}: {input}"
    );
    for (at, _) in input.char_indices() {
        let (a, b) = input.split_at(at);
        assert_eq!(run(notation, [a, b]), whole, "{name}: {a} | {b}");
    }
    assemble(&whole)
}

#[test]
fn every_notation_is_read() {
    let examples = examples();
    for (name, input, text, calls) in &examples {
        let answer = check(name, input);
        assert_eq!(answer.text, *text, "{name}: {input}");
        let found: Vec<Value> = answer
            .calls
            .into_iter()
            .map(|(name, id, arguments)| match id {
                Some(id) => json!([name, arguments, id]),
                None => json!([name, arguments]),
            })
            .collect();
        assert_eq!(Value::Array(found), *calls, "{name}: {input}");
        assert_eq!(answer.aborted, 0, "{name}: {input}");
    }
    for notation in FORMATS {
        let known = examples.iter().any(|(name, ..)| *name == notation.name);
        assert!(known, "{} has no example", notation.name);
    }
}

/// Cut off anywhere, an answer keeps its complete calls, and all the rest is text.
#[test]
fn answers_that_are_cut_off_lose_nothing() {
    for (name, input, ..) in examples() {
        let notation = by_name(name).unwrap();
        let whole = check(name, input);
        for (at, _) in input.char_indices() {
            let cut = &input[..at];
            let answer = assemble(&run(notation, [cut]));
            assert!(whole.calls.starts_with(&answer.calls), "{name}: {cut}");
            if answer.calls.is_empty() && name != "harmony" {
                assert_eq!(answer.text, cut, "{name}");
            }
        }
    }
}

#[test]
fn what_is_no_call_is_text() {
    for (name, input) in [
        ("hermes", "a <tool_call>{\"name\": \"x\""),
        ("hermes", "<tool_call>{\"name\": 3}</tool_call> b"),
        ("hermes", "<tool_call>[]</tool_call>"),
        (
            "hermes",
            "<tool_call>{\"name\":\"x\",\"arguments\":7}</tool_call>",
        ),
        (
            "hermes",
            "<tool_call>{\"name\":\"x\",\"arguments\":\"oops\"}</tool_call>",
        ),
        ("hermes", "<tool_call>{\"name\":\"\"}</tool_call>"),
        (
            "hermes",
            "<tool_call>{\"name\":\"x\",\"arguments\":{\"a\":1,}}</tool_call>",
        ),
        ("hermes", "</tool_call> \n"),
        ("hermes", "<tool_call>"),
        ("hermes", " \n "),
        ("llama3", "{\"answer\": 42}"),
        ("llama3", "See {\"name\": \"x\", \"parameters\": {}}"),
        ("llama3", "<|python_tag|>print('hello')"),
        ("pythonic", "[text](http://example.org) follows"),
        ("pythonic", "[1, 2, 3]"),
        ("pythonic", "See [time()]"),
        ("mistral", "[TOOL_CALLS]weather[ARGS]no"),
        ("mistral", "[TOOL_CALLS] two words[ARGS]{}"),
        ("glm", "<tool_call>a b\n</tool_call>"),
        ("glm", "<tool_call>{\"name\": \"x\"}</tool_call>"),
        ("qwen3_coder", "<tool_call></tool_call>"),
        (
            "qwen3_coder",
            "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\noops",
        ),
        ("minimax_m2", "<minimax:tool_call>text</minimax:tool_call>"),
        (
            "kimi_k2",
            "<|tool_calls_section_begin|><|tool_calls_section_end|>",
        ),
        (
            "deepseek_v31",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"a\": }",
        ),
        ("gemma4", "<|tool_call>call:weather{city:}<tool_call|>"),
        ("gemma4", "<|tool_call>weather{}"),
        ("harmony", "no channels at all "),
        (
            "harmony",
            "<|channel|>commentary to=functions.time<|message|>no json",
        ),
    ] {
        let answer = check(name, input);
        assert_eq!(
            (answer.text.as_str(), answer.calls.len()),
            (input, 0),
            "{name}"
        );
    }
}

#[test]
fn a_whole_call_behind_a_broken_one_is_found() {
    let good = "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>";
    for broken in [
        "<tool_call>oops",
        "<tool_call>{\"name\": \"x\", \"arguments\": {\"s\": 1 ",
        "<tool_call><tool_call",
        "<tool_call>{\"name\": \"x\", ",
    ] {
        let answer = check("hermes", &format!("{broken}{good}"));
        assert_eq!(answer.text.as_str(), broken.trim_end(), "{broken}");
        assert_eq!(answer.calls, [("a".to_owned(), None, json!({}))]);
    }
}

#[test]
fn text_goes_out_as_soon_as_it_is_certain() {
    let mut parser = by_name("hermes").unwrap().parser(&TOOLS);
    let text = |text: &str| vec![Output::Text(text.to_owned())];
    assert_eq!(parser.push("hello wor"), text("hello wor"));
    assert_eq!(parser.push("ld \n<tool"), text("ld"));
    assert_eq!(parser.push("box>"), text(" \n<toolbox>"));
    assert_eq!(
        parser.push("<tool_call>no json"),
        text("<tool_call>no json")
    );
}

#[test]
fn arguments_go_out_as_they_come() {
    for (name, first, more) in [
        (
            "hermes",
            "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Os",
            "lo",
        ),
        (
            "qwen3_coder",
            "<tool_call><function=weather><parameter=city>Os",
            "lo",
        ),
        ("lfm2", "<|tool_call_start|>[weather(city=\"Os", "lo"),
        ("gemma4", "<|tool_call>call:weather{city:<|\"|>Os", "lo"),
    ] {
        let mut parser = by_name(name).unwrap().parser(&TOOLS);
        let out = parser.push(first);
        assert!(
            matches!(&out[0], Output::CallStart { index: 0, name, .. } if name == "weather"),
            "{out:?}"
        );
        assert_eq!(
            out[1],
            Output::Arguments("{\"city\": \"Os".to_owned()),
            "{name}"
        );
        assert_eq!(
            parser.push(more),
            [Output::Arguments(more.to_owned())],
            "{name}"
        );
    }
}

#[test]
fn a_call_that_breaks_off_is_taken_back() {
    let out = run(
        by_name("hermes").unwrap(),
        ["<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1"],
    );
    let expected = [
        Output::CallStart {
            index: 0,
            name: "f".into(),
            id: None,
        },
        Output::Arguments("{\"a\": 1".into()),
        Output::CallAbort,
        Output::Text("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1".into()),
    ];
    assert_eq!(out, expected);
}

#[test]
fn harmony_tells_channels_apart() {
    let input = "<|channel|>analysis<|message|>Why <|so?<|end|><|start|>assistant<|channel|>final<|message|>Because.";
    let answer = check("harmony", input);
    assert_eq!(
        (answer.reasoning.as_str(), answer.text.as_str()),
        ("Why <|so?", "Because.")
    );
    let mut parser = by_name("harmony").unwrap().parser_without_calls().unwrap();
    let mut out = parser.push("<|channel|>commentary to=functions.time<|message|>{}<|call|>");
    out.extend(parser.finish());
    assert_eq!(out, [Output::Text("{}".into())]);
}

#[test]
fn broken_calls_inside_each_other_take_bounded_time() {
    let start = std::time::Instant::now();
    let input = "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"".repeat(4000);
    let answer = assemble(&run(by_name("hermes").unwrap(), [input.as_str()]));
    assert_eq!(answer.text, input);
    assert!(start.elapsed().as_secs() < 30);
}

#[test]
fn names_are_unique_and_notations_are_told_by_their_signs() {
    let mut names: Vec<&str> = FORMATS
        .iter()
        .flat_map(|known| known.aliases.iter().copied().chain([known.name]))
        .collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    for (template, name) in [
        ("{{ '<tool_call>\\n<function=' + name }}", "qwen3_coder"),
        ("{{- '<tool_call>\\n{\\\"name\\\": ' }}", "hermes"),
        ("<tool_call>{function-name}\n<arg_key>", "glm"),
        ("'[TOOL_CALLS]' ~ name ~ '[ARGS]'", "mistral"),
        ("'[TOOL_CALLS] ['", "mistral_v3"),
    ] {
        assert_eq!(
            detect(template).map(|known| known.name),
            Some(name),
            "{template}"
        );
    }
    assert!(detect("{{ messages }}").is_none());
}

/// Pieces of the notation's examples, and what may disturb them.
fn soup(name: &'static str) -> impl Strategy<Value = Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    for (known, input, ..) in examples() {
        if known == name {
            let mut word = String::new();
            for c in input.chars() {
                let ends = "<[{}]>(),:=\"\n".contains(c);
                if ends && "<[{(".contains(c) && !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                word.push(c);
                if ends && !"<[".contains(c) {
                    words.push(std::mem::take(&mut word));
                }
            }
            words.push(word);
            words.push(input.to_owned());
        }
    }
    words.extend(["é", "\\", "\"", " ", "\n", "{", "}", "'", "<", "1", "null"].map(str::to_owned));
    prop::collection::vec(prop::sample::select(words), 0..24)
}

fn any_soup() -> impl Strategy<Value = (&'static str, Vec<String>, usize)> {
    let names: Vec<&'static str> = FORMATS.iter().map(|known| known.name).collect();
    (prop::sample::select(names), 1usize..9)
        .prop_flat_map(|(name, cut)| (Just(name), soup(name), Just(cut)))
}

/// Whether `part` is `whole` with characters left out.
fn is_subsequence(part: &str, whole: &str) -> bool {
    let mut chars = whole.chars();
    part.chars().all(|c| chars.any(|other| other == c))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn nothing_is_lost_and_cuts_do_not_matter((name, words, cut) in any_soup()) {
        let notation = by_name(name).unwrap();
        let input = words.concat();
        let whole = run(notation, [input.as_str()]);
        prop_assert_eq!(&run(notation, words.iter().map(String::as_str)), &whole);
        let chars: Vec<char> = input.chars().collect();
        let pieces: Vec<String> = chars.chunks(cut).map(|piece| piece.iter().collect()).collect();
        prop_assert_eq!(&run(notation, pieces.iter().map(String::as_str)), &whole);
        let answer = assemble(&whole);
        if name != "harmony" {
            prop_assert!(is_subsequence(&answer.text, &input), "{:?}", whole);
            if answer.calls.is_empty() {
                prop_assert_eq!(&answer.text, &input);
            }
        }
        // What stands for itself between the words survives unless it is part of a call.
        let marked: Vec<String> = words.iter().enumerate().map(|(at, word)| format!("{word}\u{1}{at}\u{2}")).collect();
        let input = marked.concat();
        let answer = assemble(&run(notation, [input.as_str()]));
        let seen = answer.text + &answer.reasoning + &format!("{:?}", answer.calls);
        for at in 0..words.len() {
            let (raw, escaped) = (format!("\u{1}{at}\u{2}"), format!("\\u0001{at}\\u0002"));
            let debug = format!("\\u{{1}}{at}\\u{{2}}");
            if name != "harmony" {
                prop_assert!(seen.contains(&raw) || seen.contains(&escaped) || seen.contains(&debug), "{} of {:?} in {}", at, input, seen);
            }
        }
    }
}
