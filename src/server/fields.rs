//! Strict reading of a JSON object, field by field.
//!
//! Each read takes the field out, so that what is left at the end is what nobody knows. `null`
//! equals absence everywhere. Errors name the field by its path from the request's root.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::ApiError;

/// A JSON object being read.
#[derive(Debug)]
pub struct Fields {
    map: Map<String, Value>,
    path: String,
}

/// The JSON name of a value's type, for messages.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number with a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A 400 that says what stands at `path` and what should.
pub fn wrong_type(path: &str, value: &Value, expected: &str) -> ApiError {
    ApiError::field(
        path,
        format!("`{path}` is {}, expected {expected}", kind(value)),
    )
}

impl Fields {
    /// The object at `path`; the root's path is empty.
    pub fn new(value: Value, path: impl Into<String>) -> Result<Self, ApiError> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            other if path.is_empty() => Err(ApiError::new(
                hyper::StatusCode::BAD_REQUEST,
                format!("the body is {}, expected a JSON object", kind(&other)),
            )),
            other => Err(wrong_type(&path, &other, "an object")),
        }
    }

    /// The path of this object's field `name`.
    pub fn path(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// Takes a field of any type; `null` is `None`.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        // Order of what remains does not matter, so the cheap removal does.
        self.map.swap_remove(name).filter(|value| !value.is_null())
    }

    /// Takes a string.
    pub fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(&self.path(name), &other, "a string")),
        }
    }

    /// Takes a string that must be there.
    pub fn required_string(&mut self, name: &str) -> Result<String, ApiError> {
        self.string(name)?.ok_or_else(|| self.missing(name))
    }

    /// The error for a field that must be there and is not.
    pub fn missing(&self, name: &str) -> ApiError {
        let path = self.path(name);
        ApiError::field(&path, format!("`{path}` is missing; it is required"))
    }

    /// Takes a boolean.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(truth)),
            Some(other) => Err(wrong_type(&self.path(name), &other, "true or false")),
        }
    }

    /// Takes an integer within `range`.
    pub fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let (low, high) = (range.start(), range.end());
        let expected = match (*low, *high) {
            (i64::MIN, i64::MAX) => "an integer of 64 bits".to_owned(),
            (low, i64::MAX) => format!("an integer of {low} or more"),
            (low, high) => format!("an integer from {low} to {high}"),
        };
        let path = self.path(name);
        match value.as_i64() {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            Some(number) => Err(ApiError::field(
                &path,
                format!("`{path}` is {number}, expected {expected}"),
            )),
            None if value.is_number() => Err(ApiError::field(
                &path,
                format!("`{path}` is {value}, expected {expected}"),
            )),
            None => Err(wrong_type(&path, &value, &expected)),
        }
    }

    /// Takes a number.
    pub fn number(&mut self, name: &str) -> Result<Option<f32>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(number.as_f64().map(|number| number as f32)),
            Some(other) => Err(wrong_type(&self.path(name), &other, "a number")),
        }
    }

    /// Takes an array.
    pub fn array(&mut self, name: &str) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(wrong_type(&self.path(name), &other, "an array")),
        }
    }

    /// Takes an object.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, ApiError> {
        let path = self.path(name);
        self.take(name)
            .map(|value| Self::new(value, path))
            .transpose()
    }

    /// Takes a field that this server does not act on; any value but those that ask for nothing
    /// is refused. `instead` ends the message: what to do.
    pub fn refuse(
        &mut self,
        name: &str,
        asks_nothing: impl Fn(&Value) -> bool,
        instead: &str,
    ) -> Result<(), ApiError> {
        match self.take(name) {
            Some(value) if !asks_nothing(&value) => {
                let path = self.path(name);
                let message = format!("`{path}` is not supported with this value; {instead}");
                Err(ApiError::field(path, message).code("unsupported_value"))
            }
            _ => Ok(()),
        }
    }

    /// The paths of the fields that nobody took, `null`s left out.
    pub fn rest(self) -> Vec<String> {
        let present = self.map.iter().filter(|(_, value)| !value.is_null());
        present.map(|(name, _)| self.path(name)).collect()
    }

    /// What is left, as it came.
    pub fn into_map(self) -> Map<String, Value> {
        self.map
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::new(value, "").unwrap()
    }

    #[test]
    fn null_equals_absence() {
        let mut read = fields(json!({"a": null, "b": null}));
        assert_eq!(read.string("a").unwrap(), None);
        assert!(read.rest().is_empty());
    }

    #[test]
    fn errors_name_the_whole_path() {
        let mut outer = fields(json!({"outer": {"inner": 3}}));
        let mut inner = outer.object("outer").unwrap().unwrap();
        let error = inner.string("inner").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("outer.inner"));
        assert_eq!(
            error.message,
            "`outer.inner` is an integer, expected a string"
        );
    }

    #[test]
    fn integers_keep_to_their_range() {
        let mut read = fields(json!({"a": 5, "b": 5, "c": 1.5, "d": u64::MAX, "e": "5"}));
        assert_eq!(read.integer("a", 0..=5).unwrap(), Some(5));
        assert!(
            read.integer("b", 0..=4)
                .unwrap_err()
                .message
                .contains("from 0 to 4")
        );
        assert!(
            read.integer("c", 0..=4)
                .unwrap_err()
                .message
                .contains("1.5")
        );
        assert!(read.integer("d", 0..=i64::MAX).is_err());
        assert!(
            read.integer("e", 0..=9)
                .unwrap_err()
                .message
                .contains("a string")
        );
    }

    #[test]
    fn what_nobody_took_is_left() {
        let mut read = fields(json!({"a": 1, "b": 2, "c": 3}));
        read.take("b");
        assert_eq!(read.rest().len(), 2);
    }
}
