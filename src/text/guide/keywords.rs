//! JSON schema's keywords: which are enforced, which say nothing about the value, and why the others are refused.

/// What becomes of a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    /// It is enforced.
    Enforced,
    /// It describes; it does not constrain.
    Annotation,
    /// It would constrain; what to do instead.
    Refused(&'static str),
}

/// Formats of strings that are enforced.
pub(super) const FORMATS: &[&str] = &[
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "time",
    "uri",
    "uuid",
];

/// The types of JSON values.
pub(super) const TYPES: &[&str] = &[
    "array", "boolean", "integer", "null", "number", "object", "string",
];

/// What becomes of `name`.
pub(super) fn keyword(name: &str) -> Keyword {
    match name {
        "$ref"
        | "additionalItems"
        | "additionalProperties"
        | "allOf"
        | "anyOf"
        | "const"
        | "enum"
        | "exclusiveMaximum"
        | "exclusiveMinimum"
        | "format"
        | "items"
        | "maxItems"
        | "maxLength"
        | "maxProperties"
        | "maximum"
        | "minItems"
        | "minLength"
        | "minProperties"
        | "minimum"
        | "multipleOf"
        | "oneOf"
        | "pattern"
        | "patternProperties"
        | "prefixItems"
        | "properties"
        | "required"
        | "type" => Keyword::Enforced,
        // Of JSON schema, where its specification says that they do not constrain, and of OpenAPI.
        "$comment" | "$defs" | "$schema" | "$vocabulary" | "contentEncoding"
        | "contentMediaType" | "contentSchema" | "default" | "definitions" | "deprecated"
        | "description" | "discriminator" | "example" | "examples" | "externalDocs"
        | "readOnly" | "title" | "writeOnly" | "xml" => Keyword::Annotation,
        "uniqueItems" => Keyword::Refused(
            "whether items differ cannot be enforced while they are written; leave it out and check the answer",
        ),
        "contains" | "maxContains" | "minContains" => {
            Keyword::Refused("describe every item with items or prefixItems")
        }
        "not" => Keyword::Refused("say what is allowed, with enum, anyOf or type"),
        "if" | "then" | "else" => Keyword::Refused("write the cases as anyOf"),
        "dependencies" | "dependentRequired" | "dependentSchemas" => {
            Keyword::Refused("write the cases as anyOf")
        }
        "propertyNames" => {
            Keyword::Refused("use patternProperties with additionalProperties: false")
        }
        "unevaluatedProperties" => Keyword::Refused("use additionalProperties"),
        "unevaluatedItems" => Keyword::Refused("use items"),
        "nullable" => Keyword::Refused("give type a list with \"null\" in it"),
        "$id" | "id" => {
            Keyword::Refused("only the outermost schema may have one; refer by \"#/$defs/NAME\"")
        }
        "$anchor" | "$dynamicAnchor" | "$dynamicRef" | "$recursiveAnchor" | "$recursiveRef" => {
            Keyword::Refused("refer by \"$ref\": \"#/$defs/NAME\"")
        }
        // llguidance takes settings from it.
        "x-guidance" => Keyword::Refused("leave it out"),
        _ if name.starts_with("x-") => Keyword::Annotation,
        _ => Keyword::Refused("it is no keyword that is known; leave it out"),
    }
}
