//! Every answer that a schema's masks allow is valid, by another implementation of JSON schema.

use jsonschema::Validator;
use serde_json::{Value, json};

use super::super::{Constraint, FormErrorKind};
use super::{MODELS, compile, ids, text, walk, walk_with};
use crate::sample::Allowed;

/// The test set: name and schema.
fn schemas() -> Vec<(String, Value)> {
    let all: Vec<Value> = serde_json::from_str(include_str!("schemas.json")).unwrap();
    let pair = |case: &Value| {
        (
            case["name"].as_str().unwrap().to_owned(),
            case["schema"].clone(),
        )
    };
    all.iter().map(pair).collect()
}

fn validator(schema: &Value) -> Validator {
    let options = jsonschema::options().should_validate_formats(true);
    options.build(schema).unwrap()
}

/// The value of an answer; none for a number that no float64 holds.
fn parsed(text: &str) -> Option<Value> {
    match serde_json::from_str(text) {
        Ok(value) => Some(value),
        Err(e) if e.to_string().starts_with("number out of range") => None,
        Err(e) => panic!("{e} in {text:?}"),
    }
}

#[test]
fn answers_are_valid() {
    let (mut n_valid, mut n_huge) = (0, 0);
    for (name, schema) in schemas() {
        let validator = validator(&schema);
        for (m, model) in MODELS.iter().enumerate() {
            let form = model
                .compile(&Constraint::JsonSchema(schema.clone()))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            for seed in 0..3 {
                let free = [0, 12, 40][seed as usize];
                let ids = walk(model, &form, seed * 7 + m as u64, free);
                let text = text(model, &ids);
                let Some(value) = parsed(&text) else {
                    n_huge += 1;
                    continue;
                };
                if let Err(e) = validator.validate(&value) {
                    panic!("{name}, {}: {text:?} is not valid: {e}", model.name);
                }
                n_valid += 1;
            }
        }
    }
    println!("{n_valid} valid, {n_huge} with numbers out of range");
    assert!(n_valid > 1200 && n_huge * 50 < n_valid);
}

#[test]
fn any_object_is_an_object() {
    for model in &*MODELS {
        let form = model.compile(&Constraint::JsonObject).unwrap();
        for seed in 0..10 {
            let text = text(model, &walk(model, &form, seed, 60));
            assert!(
                parsed(&text).is_none_or(|value| value.is_object()),
                "{text:?}"
            );
        }
    }
}

#[test]
fn what_is_valid_is_allowed() {
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
        "required": ["name", "tags"], "additionalProperties": false});
    let pretty =
        "{\n  \"name\": \"a \\\"b\\\" é 😀\",\n  \"tags\": [\n    \"x\",\n    \"y\"\n  ]\n}";
    for text in [
        "{\"name\":\"\",\"tags\":[]}",
        "{\"name\": \"x\", \"tags\": [\"1\", \"2\"]}",
        pretty,
    ] {
        for model in &*MODELS {
            let form = model
                .compile(&Constraint::JsonSchema(schema.clone()))
                .unwrap();
            let mut guide = form.start().unwrap();
            let id = |byte: u8| {
                (0..model.tokenizer.vocab_size() as u32)
                    .find(|&id| {
                        model.tokenizer.token_bytes(id) == [byte] && !model.tokenizer.is_special(id)
                    })
                    .unwrap()
            };
            for byte in text.bytes() {
                guide
                    .accept(id(byte))
                    .unwrap_or_else(|e| panic!("{text:?} at {:?}: {e}", byte as char));
            }
            match guide.allowed().unwrap() {
                Allowed::Nothing => {}
                Allowed::Any => panic!("a form allows not everything"),
                Allowed::These(mask) => assert!(ids(&mask).contains(&model.eos), "{text:?}"),
            }
        }
    }
}

#[test]
fn white_space_has_an_end() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}, "required": ["a"]});
    for model in &*MODELS {
        let form = model
            .compile(&Constraint::JsonSchema(schema.clone()))
            .unwrap();
        let spaces =
            |text: &str| text.chars().take_while(|c| c.is_ascii_whitespace()).count() as u32;
        let longest_first = |text: &str| match text.trim_start() {
            "" => 100 + spaces(text),
            "]" | "}" => 2,
            _ => 0,
        };
        let text = text(model, &walk_with(model, &form, 1, 0, &longest_first));
        let run = text
            .split(|c: char| !c.is_ascii_whitespace())
            .map(str::len)
            .max();
        assert!((1..=42).contains(&run.unwrap()), "{text:?}");
        assert!(text.len() < 800, "{text:?}");
    }
}

#[test]
fn a_description_is_not_evaded_by_another_spelling() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}});
    let model = &MODELS[0];
    let form = model.compile(&Constraint::JsonSchema(schema)).unwrap();
    let mut guide = form.start().unwrap();
    for byte in b"{\"" {
        guide.accept(u32::from(*byte)).unwrap();
    }
    guide.accept(u32::from(b'\\')).unwrap();
    assert!(guide.accept(u32::from(b'u')).is_err());
}

/// Paths and parts of the message for schemas that are refused.
#[test]
fn what_is_not_enforced_is_refused_by_name() {
    for (schema, path, part) in [
        (
            json!({"type": "array", "uniqueItems": true}),
            "uniqueItems",
            "uniqueItems",
        ),
        (
            json!({"not": {"type": "string"}}),
            "not",
            "not is not supported",
        ),
        (
            json!({"properties": {"x": {"if": {}, "then": {}}}}),
            "properties.x.if",
            "anyOf",
        ),
        (
            json!({"items": {"contains": {}}}),
            "items.contains",
            "contains",
        ),
        (
            json!({"dependentRequired": {"a": ["b"]}}),
            "dependentRequired",
            "anyOf",
        ),
        (
            json!({"propertyNames": {"maxLength": 3}}),
            "propertyNames",
            "patternProperties",
        ),
        (
            json!({"unevaluatedProperties": false}),
            "unevaluatedProperties",
            "additionalProperties",
        ),
        (
            json!({"anyOf": [{}, {"nullable": true}]}),
            "anyOf.1.nullable",
            "null",
        ),
        (json!({"$dynamicRef": "#x"}), "$dynamicRef", "$defs"),
        (
            json!({"properties": {"a": {"$id": "x"}}}),
            "properties.a.$id",
            "outermost",
        ),
        (
            json!({"x-guidance": {"lenient": true}}),
            "x-guidance",
            "leave it out",
        ),
        (json!({"typo": 3}), "typo", "no keyword"),
        (json!({"type": "text"}), "type", "string"),
        (json!({"type": []}), "type", "list"),
        (
            json!({"type": "string", "minLength": -1}),
            "minLength",
            "whole number",
        ),
        (
            json!({"type": "string", "maxLength": "3"}),
            "maxLength",
            "whole number",
        ),
        (
            json!({"type": "string", "pattern": "(?=a)b"}),
            "pattern",
            "look",
        ),
        (
            json!({"type": "string", "pattern": "(a"}),
            "pattern",
            "regular expression",
        ),
        (
            json!({"type": "string", "pattern": "\\bword\\b"}),
            "pattern",
            "regular expression",
        ),
        (
            json!({"type": "string", "format": "iri"}),
            "format",
            "date-time",
        ),
        (
            json!({"type": "string", "format": "unknown"}),
            "format",
            "not supported",
        ),
        (json!({"enum": []}), "enum", "empty"),
        (json!({"enum": "a"}), "enum", "list"),
        (json!({"enum": ["a\u{1}"]}), "enum.0", "control"),
        (json!({"const": 18446744073709551615u64}), "const", "2^53"),
        (json!({"minimum": 1e300}), "minimum", "2^53"),
        (json!({"minimum": "1"}), "minimum", "number"),
        (json!({"multipleOf": 0}), "multipleOf", "above 0"),
        (
            json!({"exclusiveMinimum": true}),
            "exclusiveMinimum",
            "minimum",
        ),
        (json!({"properties": []}), "properties", "object"),
        (json!({"properties": {"a": 3}}), "properties.a", "schema"),
        (json!({"required": "a"}), "required", "list"),
        (json!({"anyOf": []}), "anyOf", "empty"),
        (json!({"allOf": {}}), "allOf", "list of schemas"),
        (
            json!({"prefixItems": [{}], "items": [{}]}),
            "items",
            "prefixItems",
        ),
        (
            json!({"items": {}, "additionalItems": {}}),
            "additionalItems",
            "items",
        ),
        (json!({"$ref": "#/$defs/none"}), "$ref", "nothing"),
        (
            json!({"$ref": "https://example.com/schema.json"}),
            "$ref",
            "fetched",
        ),
        (json!({"$ref": "other.json#/a"}), "$ref", "fetched"),
        (json!({"$ref": "#anchor"}), "$ref", "anchor"),
        (json!({"$ref": 3}), "$ref", "reference"),
        (
            json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
            "oneOf",
            "anyOf",
        ),
        (
            json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            "oneOf",
            "0 and 1",
        ),
        (
            json!({"minProperties": 3, "required": ["a"]}),
            "minProperties",
            "repeat",
        ),
        (
            json!({"type": "string", "minLength": 3, "maxLength": 2}),
            "",
            "minLength",
        ),
        (
            json!({"type": "integer", "minimum": 3, "maximum": 2}),
            "",
            "minimum",
        ),
        (json!(false), "", "no value"),
        (json!([]), "", "schema"),
        (json!("string"), "", "schema"),
        (
            json!({"$defs": {"a": {"properties": {"x": {"not": {}}}}}, "items": {"$ref": "#/$defs/a"}}),
            "$defs.a.properties.x.not",
            "not",
        ),
    ] {
        let error =
            compile(&Constraint::JsonSchema(schema.clone())).expect_err(&schema.to_string());
        assert_eq!(error.path, path, "{schema}: {error}");
        assert!(error.reason.contains(part), "{schema}: {error}");
        assert!(!error.reason.contains('\n'), "{error}");
        assert_ne!(error.kind, FormErrorKind::Busy);
    }
}

#[test]
fn an_error_can_be_placed_in_a_request() {
    let schema = json!({"properties": {"x": {"not": {}}}});
    let error = compile(&Constraint::JsonSchema(schema)).unwrap_err();
    let place = "response_format.json_schema.schema";
    let message = error.at(place);
    assert!(
        message.starts_with("response_format.json_schema.schema.properties.x.not: "),
        "{message}"
    );
    let error = compile(&Constraint::Regex("(".into())).unwrap_err();
    assert!(error.at("regex").starts_with("regex: "), "{error}");
}

#[test]
fn endless_values_are_refused() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        json!({"type": "array", "items": {"$ref": "#"}, "minItems": 1}),
        json!({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}),
        json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "array", "prefixItems": [{"$ref": "#/$defs/a"}], "minItems": 1}}}),
    ] {
        let error =
            compile(&Constraint::JsonSchema(schema.clone())).expect_err(&schema.to_string());
        assert!(
            error.reason.contains("no finite value"),
            "{schema}: {error}"
        );
    }
}
