//! A JSON schema checked and brought into the shape that llguidance enforces to the letter.
//!
//! What comes out has only keywords that are enforced; every `$ref` goes to `#/$defs/NUMBER`; a `oneOf` whose
//! branches exclude each other is an `anyOf`. What cannot be brought there is an error with its path. Everything is
//! read as draft 2020-12, with the array form of `items` and the boolean `exclusiveMinimum` of older drafts.

use std::collections::{HashMap, HashSet};

use llguidance::derivre::RegexBuilder;
use llguidance::regex_to_lark;
use serde_json::{Map, Value, json};

use super::grammar::regex_error;
use super::keywords::{FORMATS, Keyword, TYPES, keyword};
use super::overlap::Overlap;
use super::{FormError, limits};

/// White space between two tokens of JSON: one space or tab, or one line break with its indentation.
const WHITE_SPACE: &str = r"[ \t]|\r?\n[ \t]{0,40}";
/// Escapes in strings. Without `u`, no text is spelled in two ways, so that a free property's name cannot be a
/// spelling of one that is described.
const ESCAPES: &str = "nrbtf\\\"";
/// Which minutes had a leap second is no matter of form.
const NO_LEAP_SECOND: &str = "^[^:]*:[^:]*:[0-5]";
/// Whole numbers are exact up to here in a float64.
const EXACT: f64 = 9_007_199_254_740_992.0;

type Result<T> = std::result::Result<T, FormError>;

/// The schema as llguidance takes it.
///
/// # Errors
/// If it is no schema, asks for what is not enforced, or is too large.
pub(super) fn prepare(schema: &Value) -> Result<Value> {
    let mut reader = Reader {
        root: schema,
        targets: Vec::new(),
        numbers: HashMap::new(),
        definitions: Map::new(),
        n_schemas: 0,
        overlap: Overlap::new(schema),
    };
    let mut read = reader.schema(schema, "", 0)?;
    let mut done = 0;
    while let Some((path, target)) = reader.targets.get(done).cloned() {
        let definition = reader.schema(target, &path, 0)?;
        reader.definitions.insert(done.to_string(), definition);
        done += 1;
    }
    reader.check_finite(&read)?;
    let Value::Object(object) = &mut read else {
        // `true` allows anything; `false` has been refused.
        return Ok(json!({"x-guidance": settings()}));
    };
    if !reader.definitions.is_empty() {
        object.insert("$defs".into(), Value::Object(reader.definitions));
    }
    object.insert("x-guidance".into(), settings());
    Ok(read)
}

/// What llguidance is told beside the schema.
fn settings() -> Value {
    json!({"whitespace_pattern": WHITE_SPACE, "json_allowed_escapes": ESCAPES})
}

/// `path` and one step further.
fn step(path: &str, key: impl std::fmt::Display) -> String {
    match path {
        "" => key.to_string(),
        _ => format!("{path}.{key}"),
    }
}

struct Reader<'a> {
    root: &'a Value,
    /// What `$ref` refers to: path and schema, in order of their numbers.
    targets: Vec<(String, &'a Value)>,
    /// The numbers of targets by their place in memory.
    numbers: HashMap<*const Value, usize>,
    definitions: Map<String, Value>,
    n_schemas: usize,
    overlap: Overlap<'a>,
}

impl<'a> Reader<'a> {
    fn schema(&mut self, schema: &'a Value, path: &str, depth: usize) -> Result<Value> {
        self.n_schemas += 1;
        if self.n_schemas > limits::SUBSCHEMAS {
            let reason = format!("more than {} subschemas; simplify it", limits::SUBSCHEMAS);
            return Err(FormError::too_complex("", reason));
        }
        if depth > limits::DEPTH {
            let reason = format!(
                "more than {} levels deep; move parts to $defs",
                limits::DEPTH
            );
            return Err(FormError::too_complex(path, reason));
        }
        let object = match schema {
            Value::Bool(true) => return Ok(schema.clone()),
            Value::Bool(false) if depth > 0 => return Ok(schema.clone()),
            Value::Bool(false) => return Err(FormError::invalid(path, "false allows no value")),
            Value::Object(object) => object,
            other => return Err(expected(path, "a schema: an object, true or false", other)),
        };
        let mut read = Map::new();
        for (name, value) in object {
            let place = step(path, name);
            match keyword(name) {
                Keyword::Annotation => continue,
                Keyword::Refused(_) if self.says_nothing(name, value, schema) => continue,
                Keyword::Refused(instead) => {
                    let reason = format!("the keyword {name} is not supported: {instead}");
                    return Err(FormError::invalid(&place, reason));
                }
                Keyword::Enforced => {}
            }
            let value = match name.as_str() {
                "properties" | "patternProperties" => {
                    let mut schemas = Map::new();
                    let Value::Object(all) = value else {
                        return Err(expected(&place, "an object of schemas", value));
                    };
                    if all.len() > limits::PROPERTIES {
                        let reason = format!(
                            "{} properties, at most {} are taken",
                            all.len(),
                            limits::PROPERTIES
                        );
                        return Err(FormError::too_complex(&place, reason));
                    }
                    for (key, value) in all {
                        let place = step(&place, key);
                        if name == "patternProperties" {
                            check_pattern(key, &place)?;
                        }
                        schemas.insert(key.clone(), self.schema(value, &place, depth + 1)?);
                    }
                    Value::Object(schemas)
                }
                "items" | "prefixItems" | "anyOf" | "allOf" | "oneOf" if value.is_array() => {
                    self.schemas(value, &place, depth)?
                }
                "prefixItems" | "anyOf" | "allOf" | "oneOf" => {
                    return Err(expected(&place, "a list of schemas", value));
                }
                "additionalProperties" | "additionalItems" | "items" => {
                    self.schema(value, &place, depth + 1)?
                }
                "$ref" => self.reference(value, &place)?,
                _ => plain(name, value, object, &place)?,
            };
            read.insert(name.clone(), value);
        }
        self.tuples(&read, path)?;
        check_least(&read, path)?;
        if matches!(
            read.get("format").and_then(Value::as_str),
            Some("time" | "date-time")
        ) {
            and_all(&mut read, json!({"pattern": NO_LEAP_SECOND}));
        }
        if read.contains_key("oneOf") {
            self.one_of(&mut read, object, path)?;
        }
        Ok(Value::Object(read))
    }

    /// Whether a keyword that is not supported has a value that does not constrain.
    fn says_nothing(&self, name: &str, value: &Value, schema: &Value) -> bool {
        match name {
            "uniqueItems" | "nullable" => value == &Value::Bool(false),
            // Nothing can refer to it but in ways that are refused.
            "$anchor" | "$dynamicAnchor" => value.is_string(),
            "$id" | "id" => value.is_string() && std::ptr::eq(schema, self.root),
            _ => false,
        }
    }

    fn schemas(&mut self, value: &'a Value, path: &str, depth: usize) -> Result<Value> {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if list.is_empty() {
            return Err(FormError::invalid(path, "an empty list; leave it out"));
        }
        let schemas = list.iter().enumerate();
        let schemas = schemas.map(|(i, schema)| self.schema(schema, &step(path, i), depth + 1));
        Ok(Value::Array(schemas.collect::<Result<_>>()?))
    }

    /// The number of a `$ref`'s target, as a reference.
    fn reference(&mut self, value: &Value, path: &str) -> Result<Value> {
        let Some(text) = value.as_str() else {
            return Err(expected(
                path,
                "a reference such as \"#/$defs/NAME\"",
                value,
            ));
        };
        let target = resolve(self.root, text).map_err(|reason| FormError::invalid(path, reason))?;
        let next = self.targets.len();
        let number = *self.numbers.entry(target).or_insert(next);
        if number == next {
            if next == limits::DEFINITIONS {
                let reason = format!("more than {next} places are referred to; simplify it");
                return Err(FormError::too_complex(path, reason));
            }
            let place = text.trim_start_matches(['#', '/']).replace('/', ".");
            self.targets.push((place, target));
        }
        Ok(format!("#/$defs/{number}").into())
    }

    /// Lists of items come as `items` or as `prefixItems`.
    fn tuples(&self, read: &Map<String, Value>, path: &str) -> Result<()> {
        let old = read.get("items").is_some_and(Value::is_array);
        if read.contains_key("additionalItems") && !old {
            let reason = "it means nothing without a list as items; use items";
            return Err(FormError::invalid(&step(path, "additionalItems"), reason));
        }
        if read.contains_key("prefixItems") && old {
            let reason = "beside prefixItems it must be one schema, not a list";
            return Err(FormError::invalid(&step(path, "items"), reason));
        }
        Ok(())
    }

    /// Branches that exclude each other are those of an `anyOf`; others cannot be enforced.
    fn one_of(
        &mut self,
        read: &mut Map<String, Value>,
        object: &'a Map<String, Value>,
        path: &str,
    ) -> Result<()> {
        let path = step(path, "oneOf");
        let branches = object.get("oneOf").and_then(Value::as_array);
        let branches = branches.map(Vec::as_slice).unwrap_or_default();
        if branches.len() > limits::ONE_OF {
            let reason = format!("more than {} branches; use anyOf", limits::ONE_OF);
            return Err(FormError::too_complex(&path, reason));
        }
        for (i, a) in branches.iter().enumerate() {
            for (j, b) in branches.iter().enumerate().skip(i + 1) {
                if self.overlap.excluded(a, b) {
                    continue;
                }
                if self.overlap.is_exhausted() {
                    let reason = "its branches are too many or too deep to be compared; use anyOf";
                    return Err(FormError::too_complex(&path, reason));
                }
                let reason = format!(
                    "its branches {i} and {j} may both hold, which cannot be ruled out while an answer is \
                     written: use anyOf, or require in each branch a property with a const or type of its own"
                );
                return Err(FormError::invalid(&path, reason));
            }
        }
        let Some(schemas) = read.remove("oneOf") else {
            return Ok(());
        };
        if !read.contains_key("anyOf") {
            read.insert("anyOf".into(), schemas);
            return Ok(());
        }
        and_all(read, json!({"anyOf": schemas}));
        Ok(())
    }

    /// Refuses a schema that only endless values fit, such as a list whose every node requires a next one.
    fn check_finite(&self, root: &Value) -> Result<()> {
        let mut finite = HashSet::new();
        loop {
            let before = finite.len();
            for (number, schema) in &self.definitions {
                if !finite.contains(number) && has_end(schema, &finite) {
                    finite.insert(number.clone());
                }
            }
            if finite.len() == before {
                break;
            }
        }
        let reason = "no finite value fits: each requires another inside; make one of the references optional";
        for (number, (path, _)) in self.targets.iter().enumerate() {
            if !finite.contains(&number.to_string()) {
                return Err(FormError::invalid(path, reason));
            }
        }
        match has_end(root, &finite) {
            true => Ok(()),
            false => Err(FormError::invalid("", reason)),
        }
    }
}

/// Makes `schema` one more that must hold.
fn and_all(read: &mut Map<String, Value>, schema: Value) {
    let all = read.entry("allOf").or_insert_with(|| json!([]));
    if let Some(all) = all.as_array_mut() {
        all.push(schema);
    }
}

/// Whether a finite value can fit, given the definitions for which that is known.
fn has_end(schema: &Value, finite: &HashSet<String>) -> bool {
    let Some(object) = schema.as_object() else {
        return true;
    };
    let list = |name: &str| object.get(name).and_then(Value::as_array);
    let each = |schema: &Value| has_end(schema, finite);
    if let Some(reference) = object.get("$ref").and_then(Value::as_str)
        && let Some(number) = reference.strip_prefix("#/$defs/")
        && !finite.contains(number)
    {
        return false;
    }
    if list("allOf").is_some_and(|all| !all.iter().all(each))
        || list("anyOf").is_some_and(|any| !any.iter().any(each))
    {
        return false;
    }
    if object.contains_key("const") || object.contains_key("enum") {
        return true;
    }
    match object.get("type").and_then(Value::as_str) {
        Some("object") => {
            let properties = object.get("properties").and_then(Value::as_object);
            list("required").into_iter().flatten().all(|name| {
                let schema = name.as_str().and_then(|name| properties?.get(name));
                schema.is_none_or(each)
            })
        }
        Some("array") => {
            let least = object.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize;
            let old = list("items");
            let first = list("prefixItems").or(old).map(Vec::as_slice);
            let first = first.unwrap_or_default();
            let rest = object.get(if old.is_some() {
                "additionalItems"
            } else {
                "items"
            });
            first.iter().take(least).all(each) && (least <= first.len() || rest.is_none_or(each))
        }
        _ => true,
    }
}

/// The schema that a reference goes to.
pub(super) fn resolve<'a>(
    root: &'a Value,
    reference: &str,
) -> std::result::Result<&'a Value, String> {
    let Some(pointer) = reference.strip_prefix('#') else {
        return Err(format!(
            "{reference:?} is outside the schema, and nothing is fetched; copy it to $defs and refer by \"#/$defs/NAME\""
        ));
    };
    let pointer = match percent_decoded(pointer) {
        // llguidance and others write the root so.
        Some(pointer) if pointer == "/" => String::new(),
        Some(pointer) => pointer,
        None => return Err(format!("{reference:?} is not a valid reference")),
    };
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(format!(
            "{reference:?} goes to an anchor, which is not supported; refer by \"#/$defs/NAME\""
        ));
    }
    root.pointer(&pointer)
        .ok_or_else(|| format!("{reference:?} goes to nothing in the schema"))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

/// A keyword whose value is no schema.
fn plain(name: &str, value: &Value, object: &Map<String, Value>, path: &str) -> Result<Value> {
    match name {
        "type" => check_type(value, path)?,
        "required" => {
            let names = value.as_array().map(Vec::as_slice);
            if !names.is_some_and(|names| names.iter().all(Value::is_string)) {
                return Err(expected(path, "a list of property names", value));
            }
        }
        "enum" => match value.as_array().map(Vec::as_slice) {
            None => return Err(expected(path, "a list of values", value)),
            Some([]) => return Err(FormError::invalid(path, "an empty list allows no value")),
            Some(values) => {
                for (i, value) in values.iter().enumerate() {
                    check_literal(value, &step(path, i), 0)?;
                }
            }
        },
        "const" => check_literal(value, path, 0)?,
        "pattern" => match value.as_str() {
            Some(pattern) => check_pattern(pattern, path)?,
            None => return Err(expected(path, "a regular expression", value)),
        },
        "format" => match value.as_str() {
            Some(format) if FORMATS.contains(&format) => {}
            _ => {
                let known = FORMATS.join(", ");
                let reason = format!("the format {value} is not supported; known are {known}");
                return Err(FormError::invalid(path, reason));
            }
        },
        "minimum" | "maximum" | "multipleOf" => check_number(name, value, path)?,
        "exclusiveMinimum" | "exclusiveMaximum" => match value {
            Value::Bool(true) => {
                // The way of draft 4: it sharpens the other keyword.
                let other = if name == "exclusiveMinimum" {
                    "minimum"
                } else {
                    "maximum"
                };
                if !object.contains_key(other) {
                    let reason = format!("true means nothing without {other}; give a number");
                    return Err(FormError::invalid(path, reason));
                }
            }
            Value::Bool(false) => {}
            value => check_number(name, value, path)?,
        },
        _ => return count(value, path),
    }
    Ok(value.clone())
}

/// Free names may be written twice, and then count once.
fn check_least(read: &Map<String, Value>, path: &str) -> Result<()> {
    let least = read
        .get("minProperties")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    let required = read.get("required").and_then(Value::as_array);
    let required: HashSet<&str> = required
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if least > required.len() as u64 + 1 {
        let reason = format!(
            "{least} is more than one above the {} properties that are required, and names that are free may repeat; \
             require more of them by name",
            required.len()
        );
        return Err(FormError::invalid(&step(path, "minProperties"), reason));
    }
    Ok(())
}

/// A length or a number of things.
fn count(value: &Value, path: &str) -> Result<Value> {
    let whole = value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && (0.0..=EXACT).contains(&number)).then_some(number as u64)
    });
    match whole {
        None => Err(expected(path, "a whole number, 0 or more", value)),
        Some(n) if n > limits::COUNT => {
            let reason = format!("{n} is more than {}, the most that is taken", limits::COUNT);
            Err(FormError::too_complex(path, reason))
        }
        Some(n) => Ok(n.into()),
    }
}

fn check_type(value: &Value, path: &str) -> Result<()> {
    let known = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    let good = match value {
        Value::Array(names) => !names.is_empty() && names.iter().all(known),
        name => known(name),
    };
    match good {
        true => Ok(()),
        false => {
            let names = TYPES.join(", ");
            Err(expected(path, &format!("one or a list of {names}"), value))
        }
    }
}

fn check_number(name: &str, value: &Value, path: &str) -> Result<()> {
    match value.as_f64() {
        None => Err(expected(path, "a number", value)),
        Some(number) if number.abs() > EXACT => {
            let reason = format!("{value} is outside -2^53 to 2^53");
            Err(FormError::invalid(path, reason))
        }
        Some(number) if name == "multipleOf" && number <= 0.0 => {
            Err(expected(path, "a number above 0", value))
        }
        Some(_) => Ok(()),
    }
}

/// A value of `enum` or `const`.
fn check_literal(value: &Value, path: &str, depth: usize) -> Result<()> {
    if depth > limits::DEPTH {
        let reason = format!("more than {} levels deep", limits::DEPTH);
        return Err(FormError::too_complex(path, reason));
    }
    match value {
        Value::Number(_) => check_number("", value, path),
        Value::String(text) => {
            let written =
                |c: char| !c.is_control() || "\n\r\u{8}\t\u{c}".contains(c) || c > '\u{7f}';
            match text.chars().all(written) {
                true => Ok(()),
                false => {
                    let reason =
                        format!("{value} holds a control character, which is not supported");
                    Err(FormError::invalid(path, reason))
                }
            }
        }
        Value::Array(values) => values
            .iter()
            .try_for_each(|value| check_literal(value, path, depth + 1)),
        Value::Object(object) => object
            .values()
            .try_for_each(|value| check_literal(value, path, depth + 1)),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

/// Whether a regular expression can be followed.
fn check_pattern(pattern: &str, path: &str) -> Result<()> {
    let mut builder = RegexBuilder::new();
    // As it stands first: bringing it to ECMAScript's classes may hide a mistake.
    builder
        .mk_regex_for_serach(pattern)
        .and_then(|_| builder.mk_regex_for_serach(&regex_to_lark(pattern, "dw")))
        .map_err(|e| FormError::invalid(path, regex_error(&e)))?;
    Ok(())
}

fn expected(path: &str, what: &str, got: &Value) -> FormError {
    let got = got.to_string();
    let got = match got.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &got[..at]),
        None => got,
    };
    FormError::invalid(path, format!("expected {what}, got {got}"))
}
