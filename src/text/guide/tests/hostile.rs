//! Specifications that mean harm end soon, with an error that says why, or are harmless after all.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::super::{Constraint, FormErrorKind, Forms};
use super::{MODELS, ids, shipped};
use crate::sample::Allowed;

/// More than any may take; compiling in tests is slower than it is in a release.
const PATIENCE: Duration = Duration::from_secs(20);

/// Compiles, and draws some tokens if that goes well.
fn attack(name: &str, constraint: Constraint) {
    let model = &MODELS[3];
    // The first form makes the trie.
    model.compile(&Constraint::JsonObject).unwrap();
    let start = Instant::now();
    let said = match model.compile(&constraint) {
        Err(e) => {
            assert!(e.reason.len() < 1500, "{name}: {e}");
            e.to_string()
        }
        Ok(form) => {
            let mut guide = form.start().unwrap();
            let mut steps = 0;
            loop {
                match guide.allowed() {
                    Ok(Allowed::These(mask)) if steps < 20 => {
                        let allowed = ids(&mask);
                        if let Err(e) = guide.accept(allowed[allowed.len() / 2]) {
                            break e;
                        }
                        steps += 1;
                    }
                    Ok(_) => break format!("{steps} tokens"),
                    Err(e) => break e,
                }
            }
        }
    };
    let took = start.elapsed();
    println!("{name}: {:.2} s: {said}", took.as_secs_f64());
    assert!(took < PATIENCE, "{name} took {took:?}");
}

fn nested(levels: usize, inner: Value, wrap: impl Fn(Value) -> Value) -> Value {
    (0..levels).fold(inner, |value, _| wrap(value))
}

fn attack_schema(name: &str, schema: Value) {
    attack(name, Constraint::JsonSchema(schema));
}

#[test]
fn deep_and_large_schemas() {
    attack_schema("deep items", nested(60, json!({}), |v| json!({"items": v})));
    attack_schema("too deep", nested(120, json!({}), |v| json!({"items": v})));
    attack_schema(
        "deep anyOf",
        nested(
            60,
            json!({"type": "integer"}),
            |v| json!({"anyOf": [v, {"type": "null"}]}),
        ),
    );
    attack_schema(
        "deep const",
        json!({"const": nested(120, json!(1), |v| json!([v]))}),
    );
    let chain: Map<String, Value> = (0..990)
        .map(|n| {
            (
                n.to_string(),
                json!({"properties": {"a": {"$ref": format!("#/$defs/{}", (n + 1) % 990)}}}),
            )
        })
        .collect();
    attack_schema(
        "long chain of references",
        json!({"$ref": "#/$defs/0", "$defs": chain}),
    );
    let chain: Map<String, Value> = (0..990)
        .map(|n| (n.to_string(), json!({"$ref": format!("#/$defs/{}", n + 1)})))
        .chain([("990".to_string(), json!({"type": "null"}))])
        .collect();
    attack_schema(
        "references to references",
        json!({"$ref": "#/$defs/0", "$defs": chain}),
    );
    let chain: Map<String, Value> = (0..990)
        .map(|n| {
            (
                n.to_string(),
                json!({"$ref": format!("#/$defs/{}", n + 1), "maximum": n}),
            )
        })
        .chain([("990".to_string(), json!({"type": "integer"}))])
        .collect();
    attack_schema(
        "references with siblings",
        json!({"$ref": "#/$defs/0", "$defs": chain}),
    );
    for count in [500, 2000] {
        let many: Map<String, Value> = (0..count)
            .map(|n| (format!("p{n}"), json!({"type": "string"})))
            .collect();
        attack_schema(
            &format!("{count} properties"),
            json!({"type": "object", "properties": many, "additionalProperties": false}),
        );
        let required: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
        attack_schema(
            &format!("{count} required properties"),
            json!({"type": "object", "properties": many, "additionalProperties": false, "required": required}),
        );
    }
    let many: Map<String, Value> = (0..5000)
        .map(|n| (format!("p{n}"), json!({"type": "string"})))
        .collect();
    attack_schema(
        "many properties",
        json!({"type": "object", "properties": many, "additionalProperties": false}),
    );
    let many: Vec<String> = (0..20_000).map(|n| format!("value {n} of many")).collect();
    attack_schema("large enum", json!({"enum": many}));
    let many: Vec<Value> = (0..5000).map(|n| json!({"a": n, "b": [n]})).collect();
    attack_schema("large enum of objects", json!({"enum": many}));
    attack_schema(
        "long names",
        json!({"properties": {"x".repeat(200_000): {"type": "null"}}, "required": ["x".repeat(200_000)]}),
    );
}

#[test]
fn schemas_that_multiply() {
    let pair = |a: &str, b: &str| json!({"anyOf": [{"required": [a]}, {"required": [b]}]});
    let all: Vec<Value> = (0..30)
        .map(|n| pair(&format!("a{n}"), &format!("b{n}")))
        .collect();
    attack_schema("allOf of anyOf", json!({"type": "object", "allOf": all}));
    let doubling: Map<String, Value> = (0..60)
        .map(|n| {
            let next = format!("#/$defs/{}", n + 1);
            (
                n.to_string(),
                json!({"allOf": [{"$ref": next}, {"$ref": next}]}),
            )
        })
        .chain([(
            "60".to_string(),
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        )])
        .collect();
    attack_schema(
        "doubling allOf",
        json!({"$ref": "#/$defs/0", "$defs": doubling}),
    );
    let doubling: Map<String, Value> = (0..60)
        .map(|n| {
            let next = format!("#/$defs/{}", n + 1);
            (n.to_string(), json!({"type": "array", "prefixItems": [{"$ref": next}, {"$ref": next}], "minItems": 2}))
        })
        .chain([("60".to_string(), json!({"type": "null"}))])
        .collect();
    attack_schema(
        "doubling tuple",
        json!({"$ref": "#/$defs/0", "$defs": doubling}),
    );
    attack_schema(
        "two recursions in one",
        json!({"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {
        "a": {"type": "object", "properties": {"c": {"$ref": "#/$defs/a"}}},
        "b": {"type": "object", "properties": {"c": {"$ref": "#/$defs/b"}}}}}),
    );
    attack_schema(
        "left recursion",
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "integer"}]}}}),
    );
    let branches: Vec<Value> = (0..128)
        .map(|n| json!({"type": "object", "properties": {"kind": {"const": n}}, "required": ["kind"]}))
        .collect();
    attack_schema("wide oneOf", json!({"oneOf": branches}));
    let deep = nested(
        30,
        json!({"type": "integer"}),
        |v| json!({"anyOf": [v.clone(), {"type": "object", "properties": {"a": {"const": 1}}}]}),
    );
    attack_schema(
        "oneOf of deep cases",
        json!({"oneOf": [deep.clone(), deep]}),
    );
}

#[test]
fn counts_without_end() {
    for n in [100_000u64, 1_000_000_000_000] {
        attack_schema("minLength", json!({"type": "string", "minLength": n}));
        attack_schema("maxLength", json!({"type": "string", "maxLength": n}));
        attack_schema(
            "minItems",
            json!({"type": "array", "items": {"type": "integer"}, "minItems": n}),
        );
        attack_schema(
            "maxItems",
            json!({"type": "array", "items": {"type": "array", "maxItems": n}, "maxItems": n}),
        );
        attack_schema(
            "minProperties",
            json!({"type": "object", "minProperties": n, "maxProperties": n}),
        );
    }
    attack_schema(
        "pattern with a length",
        json!({"type": "string", "pattern": "(a|b)*c.*d", "minLength": 10_000, "maxLength": 50_000}),
    );
    attack_schema(
        "multipleOf",
        json!({"type": "integer", "multipleOf": 4_294_967_291u64}),
    );
    attack_schema(
        "tiny multipleOf",
        json!({"type": "number", "multipleOf": 1e-300}),
    );
    attack_schema(
        "narrow range",
        json!({"type": "number", "minimum": 0.123456789012345, "maximum": 0.123456789012346}),
    );
}

#[test]
fn regular_expressions_that_explode() {
    for regex in [
        "(a{1000}){1000}",
        "((a{100}){100}){100}",
        "(a*)*b",
        "(a|aa)+$",
        "(.*a){20}",
        ".*a.{20}b.{20}",
        "(?:a?){60}a{60}",
        "((((((((((a|b)*c)*d)*e)*f)*g)*h)*i)*j)*k)*",
        r"(\w+\s?)*\.\d{50,500}",
        r"[\p{L}\p{N}]{1,5000}",
        "(x+x+)+y",
    ] {
        attack(regex, Constraint::Regex(regex.into()));
        attack_schema(regex, json!({"type": "string", "pattern": regex}));
    }
    let nested = format!("{}a{}", "(".repeat(200_000), ")".repeat(200_000));
    attack("nested groups", Constraint::Regex(nested.clone()));
    attack_schema("nested groups", json!({"pattern": nested}));
    attack(
        "nested groups, fewer",
        Constraint::Regex(format!("{}a{}", "(".repeat(200), ")*".repeat(200))),
    );
    attack("long", Constraint::Regex("ab|".repeat(100_000)));
    let many: Map<String, Value> = (0..300)
        .map(|n| (format!("^a{n}.*b{n}.*"), json!({})))
        .collect();
    attack_schema(
        "many patterns",
        json!({"type": "object", "patternProperties": many}),
    );
}

#[test]
fn grammars_that_explode() {
    let lark = |name: &str, text: String| attack(name, Constraint::Lark(text));
    lark(
        "brackets",
        format!("start: {}\"a\"{}", "(".repeat(100_000), ")".repeat(100_000)),
    );
    lark(
        "fewer brackets",
        format!("start: {}\"a\"{}", "(".repeat(60), ")*".repeat(60)),
    );
    let chain: String = (0..990)
        .map(|n| format!("r{n}: r{} | \"x{n}\"\n", n + 1))
        .collect();
    lark("a long chain", format!("start: r0\n{chain}r990: \"end\"\n"));
    let chain: String = (0..990)
        .map(|n| format!("R{n}: R{} | \"x{n}\"\n", n + 1))
        .collect();
    lark(
        "a long chain of terminals",
        format!("start: R0\n{chain}R990: \"end\"\n"),
    );
    let doubling: String = (0..40)
        .map(|n| format!("r{n}: r{0} r{0}\n", n + 1))
        .collect();
    lark("doubling", format!("start: r0\n{doubling}r40: \"a\"\n"));
    lark("ambiguous", "start: a\na: a a | \"x\" | \"\"".into());
    lark("nothing", "start: a\na: a".into());
    lark("endless", "start: a\na: \"x\" a".into());
    lark("repeated", "start: (\"a\"~1000000)~1000000".into());
    lark("nested lark", "start: %lark { start: ".repeat(40));
    lark(
        "many alternatives",
        format!("start: {}", vec!["\"x\""; 50_000].join(" | ")),
    );
    lark(
        "complement",
        "start: A\nA: ~(/a.{30}b/) & ~(/.*c.{20}d/) & /[a-f]*/".into(),
    );
    lark("nothing but marks", "%".repeat(1000));
    lark("not ASCII", "start: \"é\" é 😀 <é>".into());
}

#[test]
fn too_long_is_refused_before_it_is_read() {
    let long = "a".repeat(600_000);
    for constraint in [
        Constraint::Regex(long.clone()),
        Constraint::Lark(long.clone()),
        Constraint::Choice(vec![long.clone()]),
        Constraint::JsonSchema(json!({"const": long})),
    ] {
        let error = MODELS[3].compile(&constraint).err().unwrap();
        assert!(error.reason.contains("bytes"), "{error}");
    }
}

#[test]
fn the_same_specification_is_compiled_once() {
    let text = shipped();
    let forms = Forms::new(text.tokenizer(), 4096, &[2]);
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "string", "format": "uri"}}});
    let first = Instant::now();
    forms
        .compile(&Constraint::JsonSchema(schema.clone()))
        .unwrap();
    let first = first.elapsed();
    let again = Instant::now();
    forms.compile(&Constraint::JsonSchema(schema)).unwrap();
    assert!(
        again.elapsed() * 5 < first,
        "{:?} after {first:?}",
        again.elapsed()
    );
}

#[test]
fn some_are_compiled_at_a_time_and_no_more() {
    let text = shipped();
    let forms = Forms::new(text.tokenizer(), 4096, &[2]);
    let schema = |n: usize| {
        let properties: Map<String, Value> = (0..500)
            .map(|p| (format!("p{p}"), json!({"type": "integer", "minimum": n})))
            .collect();
        Constraint::JsonSchema(json!({"type": "object", "properties": properties}))
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..12)
            .map(|n| {
                let forms = forms.clone();
                let schema = schema(n);
                scope.spawn(move || forms.compile(&schema).map(|form| form.start().is_ok()))
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let made = outcomes
        .iter()
        .filter(|outcome| **outcome == Ok(true))
        .count();
    assert!(made >= 4, "{outcomes:?}");
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind, FormErrorKind::Busy, "{error}");
    }
    // Each turn was given back.
    assert!(forms.compile(&schema(99)).is_ok());
}
