//! The values of templates, as Python has them.
//!
//! Invariants: lists, tuples and dictionaries never change once made, so they hold no cycles and nest at most
//! [`meter::NESTING`] deep; only a namespace changes, and the rendering empties all of them at its end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use serde_json::Value as Json;

use super::dict::{Dict, Key};
use super::meter::{self, Held};
use super::run::Scope;
use super::text::{Str, allow_parts};
use super::{Error, Result};

/// A value.
#[derive(Clone)]
pub enum Value {
    /// What is not there, and how to say so.
    Undefined(Rc<Missing>),
    /// `None`
    None,
    /// `bool`
    Bool(bool),
    /// `int`, of 128 bits
    Int(i128),
    /// `float`
    Float(f64),
    /// `str`
    Str(Str),
    /// `list`
    List(Rc<Items>),
    /// `tuple`
    Tuple(Rc<Items>),
    /// `dict`
    Dict(Rc<Dict>),
    /// `range`
    Range(Span),
    /// What `items`, `keys` or `values` of a dictionary give.
    View(View, Rc<Dict>),
    /// A generator: its items can be had once.
    Iter(Rc<Items>, Rc<Cell<usize>>),
    /// Everything else
    Object(Rc<Object>),
}

/// Why a value is undefined.
pub enum Missing {
    /// No variable has this name.
    Variable(Str),
    /// The value of this type has no such attribute.
    Attribute(&'static str, Str),
    /// The value of this type has no such element, written as Python's `repr` does.
    Element(&'static str, String),
    /// In words.
    Said(String),
}

impl Missing {
    /// The error of using it.
    pub fn error(&self) -> Error {
        Error::runtime(match self {
            Missing::Variable(name) => format!("'{}' is undefined", &**name),
            Missing::Attribute(kind, name) => format!("'{kind}' has no attribute '{}'", &**name),
            Missing::Element(kind, name) => format!("{kind} has no element {name}"),
            Missing::Said(text) => text.clone(),
        })
    }
}

/// The items of a list or tuple.
pub struct Items {
    items: Vec<Value>,
    depth: usize,
    /// A group of `groupby`, whose items have names.
    pub group: bool,
    _held: Held,
}

impl std::ops::Deref for Items {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.items
    }
}

/// A range of numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first
    pub start: i128,
    /// The first that is not in it
    pub stop: i128,
    /// From one to the next, not 0
    pub step: i128,
}

impl Span {
    /// How many numbers.
    pub fn len(&self) -> usize {
        let (from, to) = match self.step > 0 {
            true => (self.start, self.stop),
            false => (self.stop, self.start),
        };
        if from >= to {
            return 0;
        }
        let width = to.saturating_sub(from).saturating_sub(1);
        usize::try_from(width / self.step.saturating_abs().max(1) + 1).unwrap_or(usize::MAX)
    }

    /// The number at this place.
    pub fn at(&self, at: usize) -> i128 {
        let offset = i128::try_from(at)
            .unwrap_or(i128::MAX)
            .saturating_mul(self.step);
        self.start.saturating_add(offset)
    }
}

/// Which view of a dictionary.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// `dict_items`
    Items,
    /// `dict_keys`
    Keys,
    /// `dict_values`
    Values,
}

/// What has an identity.
pub enum Object {
    /// `namespace`
    Namespace(RefCell<Dict>),
    /// A macro: which, and the scope around it.
    Macro(usize, Rc<Scope>),
    /// A function of ours.
    Function(&'static str),
    /// A method of a value that was looked up and not called.
    Method(Value, &'static str),
    /// `loop`
    Loop(Loop),
    /// `cycler`
    Cycler(Rc<Items>, Cell<usize>),
    /// `joiner`
    Joiner(Str, Cell<bool>),
    /// A block
    Block(usize),
}

/// What a loop knows of itself.
pub struct Loop {
    /// What is gone through.
    pub items: Vec<Value>,
    /// Where it is.
    pub at: Cell<usize>,
    /// How deep in a recursive loop, from 0.
    pub depth: usize,
    /// The loop to go through again, if it is recursive, and the scope around it.
    pub again: Option<(usize, Rc<Scope>)>,
    /// What `changed` was asked last.
    pub last: RefCell<Option<Value>>,
    /// Whether it is over. Then it remembers nothing more: it may be kept, and could come to hold itself.
    pub over: Cell<bool>,
    /// How deep its items nest.
    pub nesting: usize,
    /// What it holds.
    pub _held: Held,
}

/// The depth of what holds these.
///
/// # Errors
/// If it is too deep.
pub fn deeper<'a>(least: usize, values: impl Iterator<Item = &'a Value>) -> Result<usize> {
    let depth = values.fold(least, |depth, value| depth.max(value.depth() + 1));
    match depth > meter::NESTING {
        true => Err(Error::limit(format!(
            "{} values inside each other",
            meter::NESTING
        ))),
        false => Ok(depth),
    }
}

fn gather(items: Vec<Value>, group: bool) -> Result<Rc<Items>> {
    meter::spend(1 + items.len() as u64 / 4)?;
    let depth = deeper(1, items.iter())?;
    let held = Held::new(64 + items.len() * size_of::<Value>());
    Ok(Rc::new(Items {
        items,
        depth,
        group,
        _held: held,
    }))
}

impl Value {
    /// What is not there, in words.
    pub fn missing(text: impl Into<String>) -> Value {
        Value::Undefined(Rc::new(Missing::Said(text.into())))
    }

    /// A list.
    ///
    /// # Errors
    /// If it nests too deep.
    pub fn list(items: Vec<Value>) -> Result<Value> {
        Ok(Value::List(gather(items, false)?))
    }

    /// A tuple.
    ///
    /// # Errors
    /// If it nests too deep.
    pub fn tuple(items: Vec<Value>) -> Result<Value> {
        Ok(Value::Tuple(gather(items, false)?))
    }

    /// A group of `groupby`.
    ///
    /// # Errors
    /// If it nests too deep.
    pub fn group(key: Value, items: Value) -> Result<Value> {
        Ok(Value::Tuple(gather(vec![key, items], true)?))
    }

    /// A generator of these.
    ///
    /// # Errors
    /// If it nests too deep.
    pub fn iter_of(items: Vec<Value>) -> Result<Value> {
        Ok(Value::Iter(gather(items, false)?, Rc::default()))
    }

    /// A dictionary.
    pub fn dict(dict: Dict) -> Value {
        Value::Dict(Rc::new(dict))
    }

    /// A text.
    pub fn str(text: impl Into<Str>) -> Value {
        Value::Str(text.into())
    }

    /// An object.
    pub fn object(object: Object) -> Value {
        Value::Object(Rc::new(object))
    }

    /// A number of things.
    pub fn count(n: usize) -> Value {
        Value::Int(i128::try_from(n).unwrap_or(i128::MAX))
    }

    /// The template's view of JSON; strings have `mark` where they are marked.
    ///
    /// # Errors
    /// If it is too large.
    pub fn from_json(json: &Json, mark: char) -> Result<Value> {
        Ok(match json {
            Json::Null => Value::None,
            Json::Bool(flag) => Value::Bool(*flag),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(n), _, _) => Value::Int(n.into()),
                (_, Some(n), _) => Value::Int(n.into()),
                (_, _, n) => Value::Float(n.unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Str(Str::with_marks(text, mark)),
            Json::Array(items) => {
                let items: Result<_> = items
                    .iter()
                    .map(|item| Value::from_json(item, mark))
                    .collect();
                Value::list(items?)?
            }
            Json::Object(map) => {
                let mut dict = Dict::new();
                for (key, value) in map {
                    let key = Value::Str(Str::with_marks(key, mark));
                    dict.insert(key, Value::from_json(value, mark)?)?;
                }
                Value::dict(dict)
            }
        })
    }

    /// How many values inside each other it is.
    pub fn depth(&self) -> usize {
        match self {
            Value::List(items) | Value::Tuple(items) | Value::Iter(items, _) => items.depth,
            Value::Dict(dict) | Value::View(_, dict) => dict.depth(),
            Value::Object(object) => match &**object {
                Object::Method(value, _) => value.depth() + 1,
                Object::Cycler(items, _) => items.depth + 1,
                Object::Loop(of) => of.nesting,
                _ => 1,
            },
            _ => 0,
        }
    }

    /// `bool(value)`
    pub fn truth(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(flag) => *flag,
            Value::Int(n) => *n != 0,
            Value::Float(n) => *n != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(items) | Value::Tuple(items) => !items.is_empty(),
            Value::Dict(dict) | Value::View(_, dict) => dict.len() > 0,
            Value::Range(span) => span.len() > 0,
            Value::Iter(..) => true,
            Value::Object(object) => match &**object {
                Object::Loop(of) => !of.items.is_empty(),
                _ => true,
            },
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::List(_) => "list",
            Value::Tuple(items) if items.group => "_GroupTuple",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::Range(_) => "range",
            Value::View(View::Items, _) => "dict_items",
            Value::View(View::Keys, _) => "dict_keys",
            Value::View(View::Values, _) => "dict_values",
            Value::Iter(..) => "generator",
            Value::Object(object) => match &**object {
                Object::Namespace(_) => "Namespace",
                Object::Macro(..) => "Macro",
                Object::Function(_) => "function",
                Object::Method(..) => "builtin_function_or_method",
                Object::Loop(_) => "LoopContext",
                Object::Cycler(..) => "Cycler",
                Object::Joiner(..) => "Joiner",
                Object::Block(_) => "BlockReference",
            },
        }
    }

    /// What Jinja calls an object of its type where something of it is missing.
    pub fn described(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "bool object",
            Value::Int(_) => "int object",
            Value::Float(_) => "float object",
            Value::Str(_) => "str object",
            Value::List(_) => "list object",
            Value::Tuple(_) => "tuple object",
            Value::Dict(_) => "dict object",
            Value::Range(_) => "range object",
            Value::View(View::Items, _) => "dict_items object",
            Value::View(View::Keys, _) => "dict_keys object",
            Value::View(View::Values, _) => "dict_values object",
            Value::Iter(..) => "generator object",
            Value::Object(object) => match &**object {
                Object::Namespace(_) => {
                    "transformers.utils.chat_template_utils.TemplateNamespace object"
                }
                Object::Macro(..) => "jinja2.runtime.Macro object",
                Object::Function(_) => "function object",
                Object::Method(..) => "builtin_function_or_method object",
                Object::Loop(_) => "jinja2.runtime.LoopContext object",
                Object::Cycler(..) => "jinja2.utils.Cycler object",
                Object::Joiner(..) => "jinja2.utils.Joiner object",
                Object::Block(_) => "jinja2.runtime.BlockReference object",
            },
            Value::Undefined(_) => "jinja2.runtime.Undefined object",
        }
    }

    /// Itself as a key.
    ///
    /// # Errors
    /// If it is of a type that cannot be one.
    pub fn key(&self) -> Result<Key> {
        Ok(match self {
            Value::None => Key::None,
            Value::Bool(flag) => Key::Int((*flag).into()),
            Value::Int(n) => Key::Int(*n),
            Value::Float(n) if n.fract() == 0.0 && n.abs() < 1e30 => Key::Int(*n as i128),
            Value::Float(n) => Key::Float(n.to_bits()),
            Value::Str(text) => Key::Str(text.clone()),
            Value::Tuple(items) => {
                // Its parts are held, uncounted, while the key is.
                meter::spend(16 * items.len() as u64)?;
                Key::Tuple(items.iter().map(Value::key).collect::<Result<_>>()?)
            }
            other => {
                return Err(Error::runtime(format!(
                    "unhashable type: '{}'",
                    other.type_name()
                )));
            }
        })
    }

    /// `len(value)`; `None` if it has none.
    pub fn len(&self) -> Option<usize> {
        Some(match self {
            Value::Undefined(_) => 0,
            Value::Str(text) => text.chars_len(),
            Value::List(items) | Value::Tuple(items) => items.len(),
            Value::Dict(dict) | Value::View(_, dict) => dict.len(),
            Value::Range(span) => span.len(),
            Value::Object(object) => match &**object {
                Object::Loop(of) => of.items.len(),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// What going through it gives; of a generator, what is left, which is then gone.
    ///
    /// # Errors
    /// If its type is not iterable, or a limit is reached.
    pub fn iterate(&self) -> Result<Vec<Value>> {
        meter::spend(1 + self.len().unwrap_or(0) as u64)?;
        Ok(match self {
            Value::Undefined(_) => Vec::new(),
            Value::Str(text) => {
                allow_parts(text.chars_len())?;
                let parts = text.char_indices();
                parts
                    .map(|(at, c)| Value::Str(text.part(at..at + c.len_utf8())))
                    .collect()
            }
            Value::List(items) | Value::Tuple(items) => items.to_vec(),
            Value::Dict(dict) => dict.pairs().iter().map(|pair| pair.0.clone()).collect(),
            Value::View(view, dict) => {
                let one = |(key, value): &(Value, Value)| match view {
                    View::Keys => Ok(key.clone()),
                    View::Values => Ok(value.clone()),
                    View::Items => Value::tuple(vec![key.clone(), value.clone()]),
                };
                dict.pairs().iter().map(one).collect::<Result<_>>()?
            }
            Value::Range(span) => (0..span.len()).map(|at| Value::Int(span.at(at))).collect(),
            Value::Iter(items, at) => {
                let left = items.get(at.get()..).unwrap_or_default().to_vec();
                at.set(items.len());
                left
            }
            other => {
                return Err(Error::runtime(format!(
                    "'{}' object is not iterable",
                    other.type_name()
                )));
            }
        })
    }

    /// The next item of a generator, or the first of anything else.
    ///
    /// # Errors
    /// If its type is not iterable.
    pub fn first(&self) -> Result<Option<Value>> {
        if let Value::Iter(items, at) = self {
            let next = items.get(at.get()).cloned();
            at.set(items.len().min(at.get() + 1));
            return Ok(next);
        }
        if let Value::Str(text) = self {
            let first = text.chars().next();
            return Ok(first.map(|c| Value::Str(text.part(0..c.len_utf8()))));
        }
        Ok(self.iterate()?.into_iter().next())
    }

    /// A number, or a truth value as one.
    pub fn number(&self) -> Option<Number> {
        match self {
            Value::Bool(flag) => Some(Number::Int((*flag).into())),
            Value::Int(n) => Some(Number::Int(*n)),
            Value::Float(n) => Some(Number::Float(*n)),
            _ => None,
        }
    }

    /// A whole number or a truth value.
    pub fn int(&self) -> Option<i128> {
        match self.number() {
            Some(Number::Int(n)) => Some(n),
            _ => None,
        }
    }
}

/// A number.
#[derive(Clone, Copy)]
pub enum Number {
    /// `int`
    Int(i128),
    /// `float`
    Float(f64),
}

impl Number {
    /// As `float`.
    pub fn float(self) -> f64 {
        match self {
            Number::Int(n) => n as f64,
            Number::Float(n) => n,
        }
    }
}
