//! Whether two schemas exclude each other, so that `oneOf` is the same as `anyOf`.

use serde_json::{Map, Value};

use super::schema::resolve;

/// Schemas followed in each other.
const DEPTH: usize = 8;
/// Steps for all of a document's `oneOf` together.
const STEPS: usize = 1_000_000;

/// Compares schemas of one document.
pub(super) struct Overlap<'a> {
    root: &'a Value,
    steps: usize,
}

impl<'a> Overlap<'a> {
    /// For schemas within `root`.
    pub fn new(root: &'a Value) -> Self {
        Self { root, steps: 0 }
    }

    /// Whether nothing can be found out any more: the document took too many steps.
    pub fn is_exhausted(&self) -> bool {
        self.steps > STEPS
    }

    fn may_go_on(&mut self) -> bool {
        self.steps = self.steps.saturating_add(1);
        !self.is_exhausted()
    }

    /// Whether certainly no value fits both. `false` says nothing.
    pub fn excluded(&mut self, a: &'a Value, b: &'a Value) -> bool {
        self.apart(a, b, 0)
    }

    fn apart(&mut self, a: &'a Value, b: &'a Value, depth: usize) -> bool {
        if depth > DEPTH || !self.may_go_on() {
            return false;
        }
        if a == &Value::Bool(false) || b == &Value::Bool(false) {
            return true;
        }
        let (mut left, mut right) = (Vec::new(), Vec::new());
        self.parts(a, &mut left, 0);
        self.parts(b, &mut right, 0);
        for x in &left {
            for y in &right {
                if !self.may_go_on() {
                    return false;
                }
                if no_type_in_common(x, y) || no_value_in_common(x, y) || no_number_in_common(x, y)
                {
                    return true;
                }
            }
        }
        self.cases_apart(&left, b, depth)
            || self.cases_apart(&right, a, depth)
            || self.properties_apart(&left, &right, depth)
    }

    /// The objects that all must hold for `schema` to hold.
    fn parts(&mut self, schema: &'a Value, found: &mut Vec<&'a Map<String, Value>>, depth: usize) {
        let Some(object) = schema
            .as_object()
            .filter(|_| depth <= DEPTH && self.may_go_on())
        else {
            return;
        };
        found.push(object);
        if let Some(reference) = object.get("$ref").and_then(Value::as_str)
            && let Ok(target) = resolve(self.root, reference)
        {
            self.parts(target, found, depth + 1);
        }
        for part in list(object, "allOf") {
            self.parts(part, found, depth + 1);
        }
    }

    /// Whether all cases of one side exclude the other.
    fn cases_apart(
        &mut self,
        parts: &[&'a Map<String, Value>],
        other: &'a Value,
        depth: usize,
    ) -> bool {
        for part in parts {
            for name in ["anyOf", "oneOf"] {
                let cases = list(part, name);
                if !cases.is_empty() && cases.iter().all(|case| self.apart(case, other, depth + 1))
                {
                    return true;
                }
            }
        }
        false
    }

    /// Whether objects that must have a property differ in it.
    fn properties_apart(
        &mut self,
        left: &[&'a Map<String, Value>],
        right: &[&'a Map<String, Value>],
        depth: usize,
    ) -> bool {
        let object = |part: &&Map<String, Value>| part.get("type").is_some_and(|t| t == "object");
        if !left.iter().chain(right).any(object) {
            return false;
        }
        let required = left
            .iter()
            .chain(right)
            .flat_map(|part| list(part, "required"));
        for name in required.filter_map(Value::as_str) {
            let of = |parts: &[&'a Map<String, Value>]| -> Vec<&'a Value> {
                parts
                    .iter()
                    .filter_map(|part| part.get("properties")?.get(name))
                    .collect()
            };
            let (of_left, of_right) = (of(left), of(right));
            if forbids(left, name) || forbids(right, name) {
                return true;
            }
            for x in &of_left {
                for y in &of_right {
                    if self.apart(x, y, depth + 1) {
                        return true;
                    }
                }
            }
        }
        false
    }
}

/// Whether one of the parts allows no property of this name.
fn forbids(parts: &[&Map<String, Value>], name: &str) -> bool {
    parts.iter().any(|part| {
        part.get("additionalProperties") == Some(&Value::Bool(false))
            && !part.contains_key("patternProperties")
            && part.get("properties").and_then(|p| p.get(name)).is_none()
    })
}

fn list<'a>(object: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    let list = object.get(name).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

/// The types that a schema names; none if it leaves them open.
fn types(object: &Map<String, Value>) -> Option<Vec<&str>> {
    match object.get("type")? {
        Value::String(name) => Some(vec![name]),
        Value::Array(names) => Some(names.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

/// The values that a schema lists; none if it lists none.
fn values(object: &Map<String, Value>) -> Option<&[Value]> {
    match (object.get("const"), object.get("enum")) {
        (Some(value), _) => Some(std::slice::from_ref(value)),
        (None, Some(Value::Array(values))) => Some(values),
        _ => None,
    }
}

fn no_type_in_common(x: &Map<String, Value>, y: &Map<String, Value>) -> bool {
    let same = |a: &&str, b: &&str| {
        a == b || matches!((*a, *b), ("integer", "number") | ("number", "integer"))
    };
    match (types(x), types(y)) {
        (Some(left), Some(right)) => !left.iter().any(|a| right.iter().any(|b| same(a, b))),
        _ => false,
    }
}

fn no_value_in_common(x: &Map<String, Value>, y: &Map<String, Value>) -> bool {
    match (values(x), values(y)) {
        (Some(left), Some(right)) => !left.iter().any(|a| right.iter().any(|b| may_equal(a, b))),
        (Some(left), None) => {
            types(y).is_some_and(|names| !left.iter().any(|a| has_type(a, &names)))
        }
        (None, Some(right)) => {
            types(x).is_some_and(|names| !right.iter().any(|b| has_type(b, &names)))
        }
        (None, None) => false,
    }
}

/// Numbers are equal by value; lists and objects may hold such.
fn may_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => true,
        _ => a == b,
    }
}

fn has_type(value: &Value, names: &[&str]) -> bool {
    let has = |name| names.contains(&name);
    match value {
        Value::Null => has("null"),
        Value::Bool(_) => has("boolean"),
        Value::Number(_) => has("number") || has("integer"),
        Value::String(_) => has("string"),
        Value::Array(_) => has("array"),
        Value::Object(_) => has("object"),
    }
}

/// Both hold only numbers, and the ranges do not meet.
fn no_number_in_common(x: &Map<String, Value>, y: &Map<String, Value>) -> bool {
    let numeric = |object| {
        types(object).is_some_and(|names| names.iter().all(|n| matches!(*n, "integer" | "number")))
    };
    let bound = |object: &Map<String, Value>, names: [&str; 2]| {
        let [a, b] = names.map(|name| object.get(name).and_then(Value::as_f64));
        a.into_iter().chain(b)
    };
    let below = |x, y| {
        let most = bound(x, ["maximum", "exclusiveMaximum"]).reduce(f64::min);
        let least = bound(y, ["minimum", "exclusiveMinimum"]).reduce(f64::max);
        most.zip(least).is_some_and(|(most, least)| most < least)
    };
    (numeric(x) || numeric(y)) && (below(x, y) || below(y, x))
}
