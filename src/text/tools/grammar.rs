//! Grammars that hold an answer to calls which the notation's own parser reads back, in llguidance's Lark dialect.
//!
//! Notations that write the arguments as JSON hold them to the tool's whole schema. The others write each parameter
//! bare: there its type, its enumeration and whether it is required hold, and of what is not a string the whole schema.

use serde_json::{Map, Value, json};

use super::pieces::{escape, quoted};
use super::schema::{Kinds, Tool};
use super::spell::Spelling;
use super::tagged::Tags;

/// Schemas nested deeper than this are not spelled out.
const MOST_DEPTH: usize = 8;
/// Any text, the shortest that what follows it allows.
const TEXT: &str = "/(?s:.*)/";

/// What an answer must be.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    /// The tools that may be called, at least one: all, or the one that is named.
    pub tools: Vec<Tool>,
    /// Whether there may be several calls.
    pub parallel: bool,
    /// The marks of reasoning that may come first: what opens it, empty if it is open already, and what closes it.
    pub reasoning: Option<(String, String)>,
}

/// How a notation writes calls, for its grammar.
#[derive(Debug)]
pub(super) enum Writing {
    /// Arguments as JSON.
    Json(Frame),
    Tagged(&'static Tags),
    /// `[f(a=1), g()]` between these.
    Pythonic(&'static str, &'static str),
    Gemma(&'static super::gemma::Marks),
}

/// The text around names and arguments; `#` stands for a number.
#[derive(Debug)]
pub(super) struct Frame {
    pub begin: &'static str,
    pub name: &'static str,
    pub arguments: &'static str,
    pub call_end: &'static str,
    pub between: &'static str,
    pub end: &'static str,
    /// Whether there can be but one call.
    pub single: bool,
}

/// A grammar in the making.
struct Rules<'a> {
    spelling: &'a Spelling,
    text: String,
    n_rules: usize,
}

impl Rules<'_> {
    /// Adds a rule and returns its name.
    fn rule(&mut self, body: &str) -> String {
        self.rule_with("", body)
    }

    fn rule_with(&mut self, attributes: &str, body: &str) -> String {
        let name = format!("r{}", self.n_rules);
        self.n_rules += 1;
        let body = if body.is_empty() { "\"\"" } else { body };
        self.text.push_str(&format!("{name}{attributes}: {body}\n"));
        name
    }

    /// Any text up to `end` and with it.
    fn text_until(&mut self, end: &str) -> String {
        let (plain, control) = self.spelling.split(end);
        if control.is_empty() {
            return self.rule_with(&format!("[suffix={}]", quoted(plain)), TEXT);
        }
        // A control token cannot be part of the text, but its spelling could.
        let name = format!("T{}", self.n_rules);
        self.n_rules += 1;
        let (plain, spelled) = (quoted(plain), quoted(end));
        self.text.push_str(&format!(
            "{name}: ({TEXT} {plain}) & ~({TEXT} {spelled} {TEXT})\n"
        ));
        format!("{name} {}", self.spelling.lark(control))
    }

    fn json(&mut self, schema: &Value) -> String {
        self.rule(&format!("%json {schema}"))
    }

    /// One of `items`, by a rule.
    fn choice(&mut self, items: &[String]) -> String {
        self.rule(&items.join(" | "))
    }

    /// The parameters in the schema's order, with `separator` between them; optional ones may be left out.
    fn parameters(&mut self, all: &[(bool, String)], separator: &str) -> String {
        let separator = self.spelling.lark(separator);
        // From the back: what may follow if something was written before, and if nothing was.
        let (mut later, mut first) = (String::new(), String::new());
        for (required, written) in all.iter().rev() {
            let (behind, start) = match required {
                true => (
                    format!("{separator} {written} {later}"),
                    format!("{written} {later}"),
                ),
                false => (
                    format!("({separator} {written} {later} | {})", or_nothing(&later)),
                    format!("({written} {later} | {})", or_nothing(&first)),
                ),
            };
            later = self.rule(&behind);
            first = self.rule(&start);
        }
        first
    }
}

fn or_nothing(expression: &str) -> &str {
    match expression.is_empty() {
        true => "\"\"",
        false => expression,
    }
}

/// The grammar of an answer that is calls in this writing.
pub(super) fn lark(writing: &Writing, demand: &Demand, spelling: &Spelling) -> String {
    let mut rules = Rules {
        spelling,
        text: String::new(),
        n_rules: 0,
    };
    let calls: Vec<String> = demand
        .tools
        .iter()
        .map(|tool| call(&mut rules, writing, tool))
        .collect();
    let call = rules.choice(&calls);
    let (begin, between, end, single) = match writing {
        Writing::Json(frame) => (frame.begin, frame.between, frame.end, frame.single),
        Writing::Tagged(tags) => ("", tags.line, "", false),
        Writing::Pythonic(begin, end) => (*begin, ", ", *end, false),
        Writing::Gemma(_) => ("", "", "", false),
    };
    let (begin, end) = (spelling.lark(begin), spelling.lark(end));
    let more = match demand.parallel && !single {
        true => format!("({} {call})*", spelling.lark(between)),
        false => String::new(),
    };
    let reasoning = match &demand.reasoning {
        None => String::new(),
        Some((open, close)) => {
            let text = rules.text_until(close);
            let blank = rules.rule("/\\s{0,4}/");
            match open.is_empty() {
                true => format!("{text} {blank}"),
                false => format!("({} {text} {blank})?", spelling.lark(open)),
            }
        }
    };
    format!(
        "start: {reasoning} {begin} {call} {more} {end}\n{}",
        rules.text
    )
}

fn call(rules: &mut Rules<'_>, writing: &Writing, tool: &Tool) -> String {
    let body = match writing {
        Writing::Json(frame) => json_call(rules, frame, tool),
        Writing::Tagged(tags) => tagged_call(rules, tags, tool),
        Writing::Pythonic(..) => {
            let all = parameters(tool);
            let written: Vec<(bool, String)> = all
                .iter()
                .map(|parameter| {
                    let value = rules.json(&parameter.schema);
                    let key = quoted(&format!("{}=", parameter.name));
                    (parameter.required, format!("{key} {value}"))
                })
                .collect();
            let inside = rules.parameters(&written, ", ");
            format!("{} {inside} \")\"", quoted(&format!("{}(", tool.name)))
        }
        Writing::Gemma(marks) => {
            let all = parameters(tool);
            let written: Vec<(bool, String)> = all
                .iter()
                .map(|parameter| {
                    let value = gemma_value(rules, marks.quote, &parameter.schema, MOST_DEPTH);
                    let key = quoted(&format!("{}:", parameter.name));
                    (parameter.required, format!("{key} {value}"))
                })
                .collect();
            let inside = rules.parameters(&written, ",");
            let open = rules
                .spelling
                .lark(&format!("{}call:{}{{", marks.open, tool.name));
            let close = rules.spelling.lark(&format!("}}{}", marks.close));
            format!("{open} {inside} {close}")
        }
    };
    rules.rule(&body)
}

fn json_call(rules: &mut Rules<'_>, frame: &Frame, tool: &Tool) -> String {
    let mut schema = tool.parameters.clone();
    match &mut schema {
        Value::Object(object) => {
            object.entry("type").or_insert_with(|| json!("object"));
        }
        _ => schema = json!({"type": "object", "properties": {}, "additionalProperties": false}),
    }
    let arguments = rules.json(&schema);
    // Names stand in a JSON string, where a quote would be escaped.
    let mut name = String::new();
    tool.name.chars().for_each(|c| escape(c, &mut name));
    let number = |text: &str| -> String {
        let parts: Vec<String> = text
            .split('#')
            .map(|part| rules.spelling.lark(part))
            .collect();
        parts.join(" /[0-9]{1,3}/ ")
    };
    // A marker may reach into the name's surroundings but not into the name.
    let (before, after) = (number(frame.name), number(frame.arguments));
    let end = rules.spelling.lark(frame.call_end);
    format!("{before} {} {after} {arguments} {end}", quoted(&name))
}

fn tagged_call(rules: &mut Rules<'_>, tags: &Tags, tool: &Tool) -> String {
    let line = tags.line;
    let mut head = format!(
        "{}{}{}",
        tags.section,
        if tags.call.is_empty() { "" } else { line },
        tags.call
    );
    head.push_str(&tool.name);
    head.push_str(tags.name_end);
    if tags.name_end.ends_with('"') {
        head.push_str(tags.call_attributes);
        head.push_str(tags.tag_end);
    }
    if tags.name_end != line {
        head.push_str(line);
    }
    let mut body = rules.spelling.lark(&head);
    for parameter in parameters(tool) {
        let kinds = match parameter.kinds.is_unknown() {
            true => tags.untyped,
            false => parameter.kinds,
        };
        let text = kinds.has_string();
        let mut open = format!("{}{}{}", tags.key, parameter.name, tags.key_end);
        if tags.key_end.ends_with('"') {
            let (for_text, for_json) = tags.value_attributes;
            open.push_str(if text { for_text } else { for_json });
            open.push_str(tags.tag_end);
        }
        if !tags.value.is_empty() {
            open.push_str(line);
            open.push_str(tags.value);
        }
        let pad = if tags.padded { "\n" } else { "" };
        open.push_str(pad);
        let close = format!("{pad}{}{line}", tags.value_end);
        let value = match literals(&parameter.schema) {
            Some(words) if text => {
                let words: Vec<String> = words
                    .iter()
                    .map(|word| or_nothing(&rules.spelling.lark(word)).to_owned())
                    .collect();
                format!("{} {}", rules.choice(&words), rules.spelling.lark(&close))
            }
            // What the parser takes for the end must not stand in the text; the line's end before it is the model's.
            _ if text => {
                let until = rules.text_until(tags.value_end);
                format!("{until} {}", rules.spelling.lark(line))
            }
            _ => format!(
                "{} {}",
                rules.json(&parameter.schema),
                rules.spelling.lark(&close)
            ),
        };
        let written = format!("{} {value}", rules.spelling.lark(&open));
        let written = rules.rule(&written);
        body.push_str(&format!(
            " {written}{}",
            if parameter.required { "" } else { "?" }
        ));
    }
    let mut end = tags.call_end.to_owned();
    if !tags.section_end.is_empty() {
        end.push_str(line);
        end.push_str(tags.section_end);
    }
    format!("{body} {}", rules.spelling.lark(&end))
}

/// A value as Gemma writes it.
fn gemma_value(rules: &mut Rules<'_>, quote: &str, schema: &Value, depth: usize) -> String {
    let kinds = Kinds::of(schema, schema, MOST_DEPTH);
    let spelled = rules.spelling.lark(quote);
    if let Some(words) = literals(schema).filter(|_| kinds.is_string()) {
        let words: Vec<String> = words
            .iter()
            .map(|word| or_nothing(&rules.spelling.lark(word)).to_owned())
            .collect();
        return format!("{spelled} {} {spelled}", rules.choice(&words));
    }
    if kinds.is_scalar() {
        return rules.json(schema);
    }
    let deeper = depth.saturating_sub(1);
    match (schema.get("items"), schema.get("properties")) {
        (Some(items), _) if depth > 0 && kinds.is_array() => {
            let items = with_definitions(items, schema);
            let item = gemma_value(rules, quote, &items, deeper);
            rules.rule(&format!("\"[\" ({item} (\",\" {item})*)? \"]\""))
        }
        (_, Some(_)) if depth > 0 => {
            let inner = Tool {
                name: String::new(),
                parameters: schema.clone(),
            };
            let written: Vec<(bool, String)> = parameters(&inner)
                .iter()
                .map(|parameter| {
                    let value = gemma_value(rules, quote, &parameter.schema, deeper);
                    let key = quoted(&format!("{}:", parameter.name));
                    (parameter.required, format!("{key} {value}"))
                })
                .collect();
            let inside = rules.parameters(&written, ",");
            rules.rule(&format!("\"{{\" {inside} \"}}\""))
        }
        _ => {
            let text = rules.text_until(quote);
            format!("{spelled} {text}")
        }
    }
}

/// A parameter of a tool.
struct Parameter {
    name: String,
    schema: Value,
    kinds: Kinds,
    required: bool,
}

fn parameters(tool: &Tool) -> Vec<Parameter> {
    let root = &tool.parameters;
    let required: Vec<&str> = root
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let properties = root.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| Parameter {
            name: name.clone(),
            schema: with_definitions(schema, root),
            kinds: Kinds::of(schema, root, MOST_DEPTH),
            required: required.contains(&name.as_str()),
        })
        .collect()
}

/// A part of a schema that can stand alone.
fn with_definitions(schema: &Value, root: &Value) -> Value {
    let mut object = match schema {
        Value::Object(object) => object.clone(),
        _ => Map::new(),
    };
    for name in ["$defs", "definitions"] {
        if let Some(definitions) = root.get(name) {
            object.entry(name).or_insert_with(|| definitions.clone());
        }
    }
    Value::Object(object)
}

/// The words of an enumeration of strings.
fn literals(schema: &Value) -> Option<Vec<String>> {
    let values = match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(values)), _) => values.clone(),
        (_, Some(value)) => vec![value.clone()],
        _ => return None,
    };
    let words: Option<Vec<String>> = values
        .iter()
        .map(|value| value.as_str().map(str::to_owned))
        .collect();
    words.filter(|words| !words.is_empty())
}
