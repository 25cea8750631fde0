//! The tools on offer, and of which JSON types their parameters are: notations that write values bare need to know
//! whether `5` is a number or a string.

use serde_json::Value;

use super::json::is_json;
use super::pieces::quoted;
use super::python;

/// How deep a schema is looked into.
const MOST_DEPTH: usize = 16;

/// A tool on offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// The function's name.
    pub name: String,
    /// The JSON schema of its arguments.
    pub parameters: Value,
}

/// The tools on offer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tools(pub Vec<Tool>);

impl Tools {
    /// From a list as in OpenAI's chat API; what is no function with a name is left out.
    pub fn new(list: &Value) -> Tools {
        let tools = list.as_array().into_iter().flatten();
        Tools(
            tools
                .filter_map(|tool| {
                    let function = tool.get("function").unwrap_or(tool);
                    Some(Tool {
                        name: function.get("name")?.as_str()?.to_owned(),
                        parameters: function.get("parameters").cloned().unwrap_or_default(),
                    })
                })
                .collect(),
        )
    }

    /// The types that parameter `key` of `tool` may have; none if nothing is said of it.
    pub fn kinds(&self, tool: &str, key: &str) -> Kinds {
        let Some(tool) = self.0.iter().find(|known| known.name == tool) else {
            return Kinds::default();
        };
        let schema = tool
            .parameters
            .get("properties")
            .and_then(|all| all.get(key));
        schema.map_or(Kinds::default(), |schema| {
            Kinds::of(schema, &tool.parameters, MOST_DEPTH)
        })
    }
}

/// A set of JSON types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    pub(super) const STRING: Kinds = Kinds(1);
    const INTEGER: Kinds = Kinds(2);
    const NUMBER: Kinds = Kinds(4);
    const BOOLEAN: Kinds = Kinds(8);
    const ARRAY: Kinds = Kinds(16);
    const OBJECT: Kinds = Kinds(32);
    const NULL: Kinds = Kinds(64);
    /// Anything but a string.
    pub(super) const JSON: Kinds = Kinds(2 | 4 | 8 | 16 | 32 | 64);

    /// Those that `schema`, a part of `root`, allows.
    pub(super) fn of(schema: &Value, root: &Value, depth: usize) -> Kinds {
        let Some(object) = schema.as_object().filter(|_| depth > 0) else {
            return Kinds::default();
        };
        let mut kinds = Kinds::default();
        match object.get("type") {
            Some(Value::String(name)) => kinds |= Kinds::named(name),
            Some(Value::Array(names)) => names
                .iter()
                .filter_map(Value::as_str)
                .for_each(|name| kinds |= Kinds::named(name)),
            _ => {}
        }
        if kinds.is_unknown() {
            let values = object.get("enum").and_then(Value::as_array);
            let values = values.into_iter().flatten().chain(object.get("const"));
            values.for_each(|value| kinds |= Kinds::of_value(value));
        }
        if kinds.is_unknown() {
            for name in ["anyOf", "oneOf", "allOf"] {
                let parts = object.get(name).and_then(Value::as_array);
                for part in parts.into_iter().flatten() {
                    kinds |= Kinds::of(part, root, depth - 1);
                }
            }
            if let Some(to) = object.get("$ref").and_then(Value::as_str)
                && let Some(target) = to.strip_prefix('#').and_then(|path| root.pointer(path))
            {
                kinds |= Kinds::of(target, root, depth - 1);
            }
        }
        if object.get("nullable") == Some(&Value::Bool(true)) {
            kinds |= Kinds::NULL;
        }
        kinds
    }

    fn named(name: &str) -> Kinds {
        match name.to_ascii_lowercase().as_str() {
            "string" | "str" | "text" => Kinds::STRING,
            "integer" | "int" => Kinds::INTEGER,
            "number" | "float" => Kinds::NUMBER,
            "boolean" | "bool" => Kinds::BOOLEAN,
            "array" | "list" => Kinds::ARRAY,
            "object" | "dict" => Kinds::OBJECT,
            "null" => Kinds::NULL,
            _ => Kinds::default(),
        }
    }

    fn of_value(value: &Value) -> Kinds {
        match value {
            Value::Null => Kinds::NULL,
            Value::Bool(_) => Kinds::BOOLEAN,
            Value::Number(number) if number.is_f64() => Kinds::NUMBER,
            Value::Number(_) => Kinds::INTEGER,
            Value::String(_) => Kinds::STRING,
            Value::Array(_) => Kinds::ARRAY,
            Value::Object(_) => Kinds::OBJECT,
        }
    }

    fn has(self, kinds: Kinds) -> bool {
        self.0 & kinds.0 != 0
    }

    /// Nothing is said of the type.
    pub(super) fn is_unknown(self) -> bool {
        self.0 == 0
    }

    /// Strings and nothing else.
    pub(super) fn is_string(self) -> bool {
        self == Kinds::STRING
    }

    /// Strings, perhaps among others.
    pub(super) fn has_string(self) -> bool {
        self.has(Kinds::STRING)
    }

    /// Arrays and nothing else.
    pub(super) fn is_array(self) -> bool {
        self == Kinds::ARRAY
    }

    /// Numbers, booleans or null, and nothing else.
    pub(super) fn is_scalar(self) -> bool {
        !self.is_unknown() && !self.has(Kinds::STRING | Kinds::ARRAY | Kinds::OBJECT)
    }

    /// The JSON text of a value that was written bare: the first type that fits, a string if none does.
    pub(super) fn json(self, text: &str) -> String {
        let bare = text.trim();
        if self.has(Kinds::NULL) && matches!(bare, "null" | "None") {
            return "null".to_owned();
        }
        if self.has(Kinds::INTEGER | Kinds::NUMBER)
            && let Some(number) = number(bare, !self.has(Kinds::NUMBER))
        {
            return number;
        }
        if self.has(Kinds::BOOLEAN) {
            let word = bare.to_ascii_lowercase();
            if word == "true" || word == "false" {
                return word;
            }
        }
        let containers = [(Kinds::ARRAY, '['), (Kinds::OBJECT, '{')];
        let fits = containers
            .iter()
            .any(|&(kind, open)| self.has(kind) && bare.starts_with(open));
        if fits {
            if is_json(bare) {
                return bare.to_owned();
            }
            if let Some(json) = python::to_json(bare) {
                return json;
            }
        }
        quoted(text)
    }
}

impl std::ops::BitOr for Kinds {
    type Output = Kinds;

    fn bitor(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Kinds {
    fn bitor_assign(&mut self, other: Kinds) {
        self.0 |= other.0;
    }
}

/// A number as JSON; a whole one without its zero fraction where only integers are allowed.
fn number(text: &str, whole: bool) -> Option<String> {
    let first = text.chars().next()?;
    if !(first == '-' || first.is_ascii_digit()) || !is_json(text) {
        return None;
    }
    if whole && let Some((integer, fraction)) = text.split_once('.') {
        return fraction
            .bytes()
            .all(|digit| digit == b'0')
            .then(|| integer.to_owned());
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kinds(schema: Value) -> Kinds {
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {
            "properties": {"x": schema}, "$defs": {"S": {"type": "string"}, "L": {"$ref": "#/$defs/L"}}}}}]);
        Tools::new(&tools).kinds("f", "x")
    }

    #[test]
    fn types_are_found_where_schemas_say_them() {
        for (schema, expected) in [
            (json!({"type": "string"}), Kinds::STRING),
            (
                json!({"type": ["string", "null"]}),
                Kinds::STRING | Kinds::NULL,
            ),
            (json!({"enum": ["a", 1]}), Kinds::STRING | Kinds::INTEGER),
            (
                json!({"anyOf": [{"type": "number"}, {"type": "null"}]}),
                Kinds::NUMBER | Kinds::NULL,
            ),
            (json!({"$ref": "#/$defs/S"}), Kinds::STRING),
            (json!({"$ref": "#/$defs/L"}), Kinds::default()),
            (
                json!({"type": "array", "nullable": true}),
                Kinds::ARRAY | Kinds::NULL,
            ),
            (json!(true), Kinds::default()),
        ] {
            assert_eq!(kinds(schema.clone()), expected, "{schema}");
        }
        assert!(Tools::default().kinds("f", "x").is_unknown());
    }

    #[test]
    fn bare_values_become_json_of_their_type() {
        for (kinds, text, json) in [
            (Kinds::STRING, "5", "\"5\""),
            (Kinds::INTEGER, "5", "5"),
            (Kinds::INTEGER, " 5.0\n", "5"),
            (Kinds::INTEGER, "5.5", "\"5.5\""),
            (Kinds::NUMBER, "5.0", "5.0"),
            (Kinds::NUMBER, "five", "\"five\""),
            (Kinds::BOOLEAN, "True", "true"),
            (Kinds::STRING | Kinds::NULL, "null", "null"),
            (Kinds::ARRAY, "['a', True]", "[\"a\", true]"),
            (Kinds::ARRAY, "[1, 2]", "[1, 2]"),
            (Kinds::OBJECT, "{oops", "\"{oops\""),
            (Kinds::JSON, "{\"a\": 1}", "{\"a\": 1}"),
            (Kinds::JSON, " word ", "\" word \""),
        ] {
            assert_eq!(kinds.json(text), json, "{text}");
        }
    }
}
