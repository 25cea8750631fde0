//! Regular expressions, choices and Lark grammars.

use regex::Regex;
use serde_json::{Value, json};

use super::super::Constraint;
use super::{MODELS, Model, compile, text, walk, walk_with};
use crate::sample::Form;

const REGEXES: &[&str] = &[
    "a",
    "abc",
    "a*",
    "a+b?c{2,4}",
    "(yes|no|maybe)",
    "[a-z]{1,8}",
    "[^a-z]{1,3}",
    "[0-9]{3}-[0-9]{4}",
    r"\d+\.\d{2}",
    r"\w+@\w+\.(com|org)",
    r"[A-Z][a-z]+( [A-Z][a-z]+)*",
    r"(\+|-)?[0-9]+([eE][0-9]+)?",
    r"#[0-9a-f]{6}",
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])",
    r"([01]?\d|2[0-3]):[0-5]\d",
    r"((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)",
    "(a|b)*abb",
    "(ab){2,5}",
    "",
    "(?i)select",
    "(?s:.{0,20})",
    ".{1,10}",
    "é+",
    "[α-ω]{2,5}",
    "日本(語)?",
    "😀{1,3}",
    r"\p{Lu}\p{Ll}{0,5}",
    r#""([^"\\]|\\.)*""#,
    r"/[a-z]+(/[a-z0-9_]+)*",
    r"a\\b",
    r"\$[0-9]+",
    r"\[(x|y)\]",
    "<answer>(yes|no)</answer>",
    "line one\nline two",
    r"line\tone\r\n",
    "^anchored$",
    "^a|b$",
    r"cost \$",
    "x{0,100}",
    "(|a|ab)c",
];

/// A walk that leaves words and numbers for what stands after them.
fn to_the_next_mark(model: &Model, form: &Form, seed: u64) -> Vec<u32> {
    walk_with(
        model,
        form,
        seed,
        12,
        &|text| match text.as_bytes().first() {
            Some(b'"') => 3,
            Some(b) if b.is_ascii_punctuation() => 2,
            Some(b'0'..=b'9') => 1,
            _ => 0,
        },
    )
}

#[test]
fn answers_match_their_regular_expression() {
    for regex in REGEXES {
        let matches = Regex::new(&format!("^(?:{regex})$")).unwrap();
        for model in &*MODELS {
            let form = model
                .compile(&Constraint::Regex((*regex).into()))
                .unwrap_or_else(|e| panic!("{regex}: {e}"));
            for seed in 0..4 {
                let text = text(model, &to_the_next_mark(model, &form, seed));
                assert!(matches.is_match(&text), "{regex}, {}: {text:?}", model.name);
            }
        }
    }
}

#[test]
fn regular_expressions_that_cannot_be_followed_are_refused() {
    for (regex, part) in [
        ("(", "unclosed"),
        ("a(?=b)", "look"),
        (r"(a)\1", "backreference"),
        (r"\bword", "look"),
        ("a$b", "look"),
        ("[z-a]", "range"),
        ("a\\", "incomplete"),
        ("*", "repetition"),
    ] {
        let error = compile(&Constraint::Regex(regex.into())).expect_err(regex);
        assert!(error.reason.contains(part), "{regex}: {error}");
        assert!(!error.reason.contains('\n'), "{error}");
    }
}

#[test]
fn answers_are_one_of_the_choices() {
    let many: Vec<String> = (0..3000).map(|n| format!("item {n}")).collect();
    let lists: Vec<Vec<String>> = [
        &["yes", "no"][..],
        &["only"],
        &["a", "ab", "abc", "b"],
        &[
            "with \"quotes\"",
            "back\\slash",
            "new\nline",
            "tab\t",
            "/slash/",
            "del\u{7f}",
        ],
        &["é", "日本", "😀", "ünï"],
        &["", "not empty"],
        &["", ""],
        &["twice", "twice"],
        &["a|b", "c*", "(d", "[e]", "%f", "#g", "<h>", "i$"],
    ]
    .iter()
    .map(|list| list.iter().map(|s| (*s).to_string()).collect())
    .chain([many])
    .collect();
    for list in lists {
        for model in &*MODELS {
            let form = model
                .compile(&Constraint::Choice(list.clone()))
                .unwrap_or_else(|e| panic!("{list:?}: {e}"));
            let mut seen = std::collections::BTreeSet::new();
            for seed in 0..12 {
                let text = text(model, &walk(model, &form, seed, seed as usize % 2 * 40));
                assert!(list.contains(&text), "{list:?}, {}: {text:?}", model.name);
                seen.insert(text);
            }
            let distinct: std::collections::BTreeSet<_> = list.iter().collect();
            assert!(
                seen.len() > 1 || distinct.len() == 1,
                "{list:?}: always {seen:?}"
            );
        }
    }
    let error = compile(&Constraint::Choice(Vec::new())).unwrap_err();
    assert!(error.reason.contains("at least one"), "{error}");
}

/// Grammars, and the regular expression of their texts.
const GRAMMARS: &[(&str, &str)] = &[
    ("start: \"a\" \"b\"", "ab"),
    (
        "start: greeting \" \" NAME\ngreeting: \"Hello\" | \"Hi\"\nNAME: /[A-Z][a-z]{1,5}/",
        "(Hello|Hi) [A-Z][a-z]{1,5}",
    ),
    ("start: item+\nitem: /[0-9]/ \";\"", "([0-9];)+"),
    (
        "start: item (\",\" item)*\nitem: \"x\" | \"y\"",
        "[xy](,[xy])*",
    ),
    ("start: \"a\"~2..4", "a{2,4}"),
    ("start: [\"-\"] DIGIT+\n%import common.DIGIT", "-?[0-9]+"),
    (
        "// a comment with <token> and temperature=1\nstart: A // more \"\nA: \"x\"i # rest",
        "[xX]",
    ),
    (
        "%import common (INT, WORD)\nstart: WORD \"=\" INT",
        "[A-Za-z]+=[0-9]+",
    ),
    (
        "start: \"f(\" args \")\"\nargs: /[a-z]/ [\", \" args]",
        r"f\([a-z](, [a-z])*\)",
    ),
    ("start: body\nbody[suffix=\";\"]: /[a-z ]*/", "[a-z ]*;"),
    ("start: word \"!\"\nword[max_tokens=3]: /[a-z]+/", "[a-z]+!"),
    (
        "start: %regex {\"substring_words\": \"one two three\"}",
        "(one)?( )?(two)?( )?(three)?",
    ),
    (
        "%llguidance {\"ignore_once\": true}\n%ignore /[ \\t]{1,3}/\nstart: \"a\" \"b\"",
        "a[ \t]{0,3}b[ \t]{0,3}",
    ),
    ("start: %lark {\n  start: \"in\" | \"out\"\n}", "in|out"),
    (
        "start: \"<tool_call>\\n\" /[a-z]+/ \"\\n</tool_call>\"",
        "<tool_call>\n[a-z]+\n</tool_call>",
    ),
];

#[test]
fn answers_match_their_grammar() {
    for (grammar, regex) in GRAMMARS {
        let matches = Regex::new(&format!("(?s)^(?:{regex})$")).unwrap();
        for model in &*MODELS {
            let form = model
                .compile(&Constraint::Lark((*grammar).into()))
                .unwrap_or_else(|e| panic!("{grammar}: {e}"));
            println!("{grammar:?}, {}", model.name);

            for seed in 0..4 {
                let text = text(model, &to_the_next_mark(model, &form, seed));
                assert!(
                    matches.is_match(&text),
                    "{grammar}, {}: {text:?}",
                    model.name
                );
            }
        }
    }
}

#[test]
fn arithmetic_can_be_evaluated() {
    let grammar = "start: sum\nsum: product ((\"+\" | \"-\") product)*\nproduct: atom (\"*\" atom)*\natom: /[1-9][0-9]?/ | \"(\" sum \")\"";
    for model in &*MODELS {
        let form = model.compile(&Constraint::Lark(grammar.into())).unwrap();
        for seed in 0..6 {
            let text = text(model, &walk(model, &form, seed, 25));
            let mut depth = 0;
            for c in text.chars() {
                assert!("0123456789+-*()".contains(c), "{text:?}");
                depth += i32::from(c == '(') - i32::from(c == ')');
                assert!(depth >= 0, "{text:?}");
            }
            assert_eq!(depth, 0, "{text:?}");
        }
    }
}

#[test]
fn a_schema_in_a_grammar_is_held_to_the_same_rules() {
    let schema = json!({"type": "object", "properties": {"name": {"const": "f"}, "arguments": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}}, "required": ["name", "arguments"], "additionalProperties": false});
    let grammar = format!("start: \"call \" value \" end\"\nvalue: %json {schema}\n");
    let validator = jsonschema::validator_for(&schema).unwrap();
    for model in &*MODELS {
        let form = model.compile(&Constraint::Lark(grammar.clone())).unwrap();
        for seed in 0..4 {
            let text = text(model, &walk(model, &form, seed, 20));
            let inner = text
                .strip_prefix("call ")
                .and_then(|t| t.strip_suffix(" end"))
                .unwrap();
            let value: Value = serde_json::from_str(inner).unwrap();
            assert!(validator.is_valid(&value), "{text:?}");
        }
    }
    let grammar = "start: x\nx: %json {\"properties\": {\"a\": {\"not\": {}}}}";
    let error = compile(&Constraint::Lark(grammar.into())).unwrap_err();
    assert_eq!(error.path, "line 2 %json.properties.a.not");
}

#[test]
fn tokens_can_be_named() {
    let model = &MODELS[3];
    let id = |name: &str| model.tokenizer.id(name).unwrap();
    let grammar = "start: <|im_start|> \"a\" <tool_call> /[0-9]/ </tool_call>";
    let form = model.compile(&Constraint::Lark(grammar.into())).unwrap();
    for seed in 0..5 {
        let drawn = walk(model, &form, seed, 9);
        assert_eq!(drawn.first(), Some(&id("<|im_start|>")));
        assert_eq!(drawn.get(2), Some(&id("<tool_call>")));
        assert_eq!(drawn.last(), Some(&id("</tool_call>")));
    }
    let grammar = format!("start: <[{}]> \"b\"", id("<|endoftext|>"));
    let form = model.compile(&Constraint::Lark(grammar)).unwrap();
    assert_eq!(walk(model, &form, 1, 9).first(), Some(&id("<|endoftext|>")));
    // Any token, but not the one that ends the answer.
    let form = compile(&Constraint::Lark("start: <[*]> \"b\"".into())).unwrap();
    let mut guide = form.start().unwrap();
    let crate::sample::Allowed::These(mask) = guide.allowed().unwrap() else {
        panic!("something must come");
    };
    let allowed = super::ids(&mask);
    assert!(!allowed.contains(&model.eos) && allowed.len() > 4000);
}

#[test]
fn what_a_grammar_may_not_ask_is_refused() {
    for (grammar, path, part) in [
        ("start: <|nope|>", "line 1", "no token <|nope|>"),
        ("start: \"a\" <|im_end|>", "line 1", "ends the answer"),
        ("start: a\na[temperature=0.5]: /x/", "line 2", "temperature"),
        ("start: a\na[stop=\"\"]: /x/", "line 2", "stop"),
        (
            "%llguidance {\"allow_invalid_utf8\": true}\nstart: /x/",
            "line 1",
            "allow_invalid_utf8",
        ),
        (
            "%llguidance {\"no_such\": 1}\nstart: /x/",
            "line 1",
            "no_such",
        ),
        ("start: %json {", "line 1", "JSON"),
        ("begin: \"a\"", "", "start"),
        ("start: missing", "", "missing"),
        ("start: \"a", "", "lexer error"),
        ("", "", "start"),
        ("start: (\"a\"", "", "Expected"),
        ("start: \"a\"\nstart: \"b\"", "", "duplicate"),
    ] {
        let error = compile(&Constraint::Lark(grammar.into())).expect_err(grammar);
        assert_eq!(error.path, path, "{grammar:?}: {error}");
        assert!(error.reason.contains(part), "{grammar:?}: {error}");
    }
}
