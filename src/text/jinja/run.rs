//! A rendering: scopes, and statements.
//!
//! Invariants: names are looked up from the innermost scope outwards, then among the variables given, then among the
//! functions of the environment; a statement sets names in its own scope only. Scopes that macros and recursive loops keep,
//! and namespaces, are emptied at the end, oldest first, so that none keeps itself and no chain of them is dropped at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use super::arguments::Arguments;
use super::ast::{For, Kind, Stmt, Sym, Target, Tree};
use super::dict::Dict;
use super::meter::{self, CALLS, Held};
use super::text::{Builder, Str};
use super::value::{Loop, Missing, Object, Value, deeper};
use super::{Error, Result, calls, print};

/// Names and their values.
pub struct Scope {
    names: RefCell<Vec<(Sym, Value)>>,
    around: Option<Rc<Scope>>,
    _held: Held,
}

impl Scope {
    /// A scope inside another.
    pub fn within(around: &Rc<Scope>) -> Rc<Scope> {
        Rc::new(Scope {
            names: RefCell::default(),
            around: Some(around.clone()),
            _held: Held::new(128),
        })
    }

    fn get(&self, symbol: Sym) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some((_, value)) = scope
                .names
                .borrow()
                .iter()
                .find(|(name, _)| *name == symbol)
            {
                return Some(value.clone());
            }
            scope = scope.around.as_deref()?;
        }
    }

    /// Sets a name here.
    pub fn set(&self, symbol: Sym, value: Value) {
        let mut names = self.names.borrow_mut();
        let old = names.iter_mut().find(|(name, _)| *name == symbol);
        let replaced = match old {
            Some(pair) => Some(std::mem::replace(&mut pair.1, value)),
            None => {
                names.push((symbol, value));
                None
            }
        };
        drop(names);
        drop(replaced);
    }
}

/// What a statement did to the loop around it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Next,
    Break,
    Continue,
}

/// One rendering of a template.
pub struct Run<'t> {
    /// The template
    pub tree: &'t Tree,
    root: Rc<Scope>,
    /// Scopes that macros and recursive loops keep
    kept: Vec<Rc<Scope>>,
    spaces: Vec<Rc<Object>>,
    calls: usize,
    stack: usize,
    usable: usize,
}

/// Where the stack is.
#[inline(never)]
fn stack_pointer() -> usize {
    let here = 0u8;
    std::ptr::from_ref(std::hint::black_box(&here)) as usize
}

impl<'t> Run<'t> {
    /// A rendering that may use so many bytes of stack from here on.
    pub fn new(tree: &'t Tree, usable: usize) -> Run<'t> {
        let root = Rc::new(Scope {
            names: RefCell::default(),
            around: None,
            _held: Held::nothing(),
        });
        let stack = stack_pointer();
        Run {
            tree,
            root,
            kept: Vec::new(),
            spaces: Vec::new(),
            calls: 0,
            stack,
            usable,
        }
    }

    /// Renders the template.
    ///
    /// # Errors
    /// If it refuses, fails, or goes over a limit.
    pub fn render(mut self, variables: &Map<String, Json>, mark: char) -> Result<String> {
        let out = self.whole(variables, mark);
        for scope in self.kept.drain(..) {
            scope.names.take();
        }
        for space in self.spaces.drain(..) {
            if let Object::Namespace(names) = &*space {
                names.replace(Dict::new());
            }
        }
        Ok(out?.marked(mark))
    }

    fn whole(&mut self, variables: &Map<String, Json>, mark: char) -> Result<Str> {
        for (name, value) in variables {
            let symbol = self.tree.names.iter().position(|known| **known == **name);
            if let Some(symbol) = symbol {
                self.root.set(symbol, Value::from_json(value, mark)?);
            }
        }
        // What the template sets shadows what it was given.
        let top = Scope::within(&self.root);
        self.root = top.clone();
        let mut out = Builder::default();
        self.statements(&self.tree.body, &top, &mut out)?;
        Ok(out.finish())
    }

    /// Whether there is stack left for one thing more inside another.
    pub fn room(&self) -> Result<()> {
        meter::spend(1)?;
        match self.stack.abs_diff(stack_pointer()) > self.usable {
            true => Err(Error::limit("the depth that there is room for".into())),
            false => Ok(()),
        }
    }

    /// Remembers a namespace, to empty it at the end.
    pub fn keep_space(&mut self, space: &Value) {
        if let Value::Object(object) = space {
            self.spaces.push(object.clone());
        }
    }

    /// The value of a name.
    pub fn name(&self, symbol: Sym, scope: &Rc<Scope>) -> Value {
        if let Some(value) = scope.get(symbol) {
            return value;
        }
        let Some(name) = self.tree.names.get(symbol) else {
            return Value::missing("a name is undefined");
        };
        match calls::FUNCTIONS.iter().find(|known| ***known == **name) {
            Some(known) => Value::object(Object::Function(known)),
            None if &**name == "self" => self.blocks(),
            None => Value::Undefined(Rc::new(Missing::Variable(name.clone()))),
        }
    }

    fn blocks(&self) -> Value {
        let mut dict = Dict::new();
        for (at, block) in self.tree.blocks.iter().enumerate() {
            // Texts are keys, and nothing here nests.
            let _ = dict.insert(
                Value::Str(block.name.clone()),
                Value::object(Object::Block(at)),
            );
        }
        Value::dict(dict)
    }

    fn statements(
        &mut self,
        body: &'t [Stmt],
        scope: &Rc<Scope>,
        out: &mut Builder,
    ) -> Result<Flow> {
        for statement in body {
            let flow = self
                .statement(statement, scope, out)
                .map_err(|e| e.on(statement.line))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// The text that a body writes, in a scope of its own.
    pub fn text_of(&mut self, body: &'t [Stmt], scope: &Rc<Scope>) -> Result<Str> {
        let mut out = Builder::default();
        let inner = Scope::within(scope);
        self.statements(body, &inner, &mut out)?;
        Ok(out.finish())
    }

    fn statement(
        &mut self,
        statement: &'t Stmt,
        scope: &Rc<Scope>,
        out: &mut Builder,
    ) -> Result<Flow> {
        self.room()?;
        match &statement.kind {
            Kind::Data(text) => out.push(text)?,
            Kind::Print(value) => {
                let value = self.eval(value, scope)?;
                print::write(&value, out)?;
            }
            Kind::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.eval(condition, scope)?.truth() {
                        return self.statements(body, scope, out);
                    }
                }
                return self.statements(otherwise, scope, out);
            }
            Kind::For(at) => {
                if let Some(of) = self.tree.loops.get(*at) {
                    let items = self.eval(&of.items, scope)?;
                    self.go_through(*at, &items, 0, scope, out)?;
                }
            }
            Kind::Set(target, value) => {
                let value = self.eval(value, scope)?;
                self.assign(target, value, scope, scope)?;
            }
            Kind::SetBlock(target, filters, body) => {
                let mut value = Value::Str(self.text_of(body, scope)?);
                if let Some(filters) = filters {
                    value = self.filter_chain(filters, value, scope)?;
                }
                self.assign(target, value, scope, scope)?;
            }
            Kind::With(values, body) => {
                let inner = Scope::within(scope);
                for (target, value) in values {
                    let value = self.eval(value, scope)?;
                    self.assign(target, value, &inner, scope)?;
                }
                return self.statements(body, &inner, out);
            }
            Kind::Macro(at) => {
                let value = self.keep_macro(*at, scope);
                if let Some(symbol) = self.tree.macros.get(*at).and_then(|of| of.symbol) {
                    scope.set(symbol, value);
                }
            }
            Kind::CallBlock(call, at) => {
                let caller = self.keep_macro(*at, scope);
                let value = self.call_with(call, scope, Some(caller))?;
                print::write(&value, out)?;
            }
            Kind::FilterBlock(filters, body) => {
                let text = Value::Str(self.text_of(body, scope)?);
                let value = self.filter_chain(filters, text, scope)?;
                print::write(&value, out)?;
            }
            Kind::Scope(body) => {
                let inner = Scope::within(scope);
                return self.statements(body, &inner, out);
            }
            Kind::Block(at) => {
                if let Some(block) = self.tree.blocks.get(*at) {
                    let root = self.root.clone();
                    let inner = Scope::within(if block.scoped { scope } else { &root });
                    self.statements(&block.body, &inner, out)?;
                }
            }
            Kind::Break => return Ok(Flow::Break),
            Kind::Continue => return Ok(Flow::Continue),
            Kind::Refuse(why) => return Err(Error::runtime(why.clone())),
        }
        Ok(Flow::Next)
    }

    /// Remembers a scope that a value holds, to empty it at the end.
    fn keep(&mut self, scope: &Rc<Scope>) {
        if !self.kept.last().is_some_and(|kept| Rc::ptr_eq(kept, scope)) {
            self.kept.push(scope.clone());
        }
    }

    fn keep_macro(&mut self, at: usize, scope: &Rc<Scope>) -> Value {
        self.keep(scope);
        Value::object(Object::Macro(at, scope.clone()))
    }

    /// Gives a target its value; namespaces are looked for in `around`.
    pub fn assign(
        &mut self,
        target: &Target,
        value: Value,
        scope: &Rc<Scope>,
        around: &Rc<Scope>,
    ) -> Result<()> {
        match target {
            Target::Name(symbol) => scope.set(*symbol, value),
            Target::Attr(symbol, name) => {
                let space = self.name(*symbol, around);
                let names = match &space {
                    Value::Object(object) => match &**object {
                        Object::Namespace(names) => names,
                        _ => {
                            return Err(Error::runtime(
                                "cannot assign attribute on non-namespace object",
                            ));
                        }
                    },
                    _ => {
                        return Err(Error::runtime(
                            "cannot assign attribute on non-namespace object",
                        ));
                    }
                };
                calls::check_attribute(name)?;
                // What was there is dropped once the namespace is free again.
                let mut copy = names.replace(Dict::new());
                let inserted = copy.insert(Value::Str(name.clone()), value);
                names.replace(copy);
                inserted?;
            }
            Target::Tuple(targets) => {
                let values = match value {
                    Value::Undefined(why) => return Err(why.error()),
                    Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                        return Err(Error::runtime(format!(
                            "cannot unpack non-iterable {} object",
                            value.type_name()
                        )));
                    }
                    other => other.iterate()?,
                };
                let (have, want) = (values.len(), targets.len());
                if have > want {
                    return Err(Error::runtime(format!(
                        "too many values to unpack (expected {want})"
                    )));
                }
                if have < want {
                    return Err(Error::runtime(format!(
                        "not enough values to unpack (expected {want}, got {have})"
                    )));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope, around)?;
                }
            }
        }
        Ok(())
    }

    /// Runs a loop over `items`, at this depth of its recursion.
    pub fn go_through(
        &mut self,
        at: usize,
        items: &Value,
        depth: usize,
        scope: &Rc<Scope>,
        out: &mut Builder,
    ) -> Result<()> {
        let Some(of) = self.tree.loops.get(at) else {
            return Ok(());
        };
        let mut items = items.iterate()?;
        if let Some(condition) = &of.condition {
            let mut kept = Vec::new();
            for item in items {
                let inner = Scope::within(scope);
                self.assign(&of.target, item.clone(), &inner, scope)?;
                if self.eval(condition, &inner)?.truth() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            let inner = Scope::within(scope);
            self.statements(&of.otherwise, &inner, out)?;
            return Ok(());
        }
        let held = Held::new(items.len() * size_of::<Value>());
        if of.recursive {
            self.keep(scope);
        }
        let state = Rc::new(Object::Loop(Loop {
            nesting: deeper(1, items.iter())?,
            items,
            at: Cell::new(0),
            depth,
            again: of.recursive.then(|| (at, scope.clone())),
            last: RefCell::default(),
            over: Cell::new(false),
            _held: held,
        }));
        let Object::Loop(this) = &*state else {
            return Ok(());
        };
        let done = self.each(of, &state, this, scope, out);
        this.over.set(true);
        this.last.take();
        done
    }

    fn each(
        &mut self,
        of: &'t For,
        state: &Rc<Object>,
        this: &Loop,
        scope: &Rc<Scope>,
        out: &mut Builder,
    ) -> Result<()> {
        let symbol = self.tree.names.iter().position(|name| &**name == "loop");
        for (n, item) in this.items.iter().enumerate() {
            this.at.set(n);
            let inner = Scope::within(scope);
            if let Some(symbol) = symbol {
                inner.set(symbol, Value::Object(state.clone()));
            }
            self.assign(&of.target, item.clone(), &inner, scope)?;
            if self.statements(&of.body, &inner, out)? == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// Runs `inside` one call deeper.
    pub fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.calls >= CALLS {
            return Err(Error::runtime("maximum recursion depth exceeded"));
        }
        self.room()?;
        self.calls += 1;
        let done = inside(self);
        self.calls -= 1;
        done
    }

    /// Calls a macro.
    pub fn call_macro(
        &mut self,
        at: usize,
        scope: &Rc<Scope>,
        arguments: Arguments,
    ) -> Result<Value> {
        let Some(of) = self.tree.macros.get(at) else {
            return Ok(Value::None);
        };
        let name = &*of.name;
        let Arguments {
            positional,
            mut named,
        } = arguments;
        let mut take = |wanted: &str| {
            let at = named.iter().position(|(name, _)| **name == *wanted)?;
            Some(named.remove(at).1)
        };
        let inner = Scope::within(scope);
        let mut rest = positional.into_iter();
        let mut given: Vec<Option<Value>> = Vec::with_capacity(of.params.len());
        for (_, name) in &of.params {
            given.push(rest.next().or_else(|| take(name)));
        }
        let explicit = of.params.iter().any(|(_, name)| &**name == "caller");
        let caller = match of.reads_caller && !explicit {
            true => Some(take("caller").unwrap_or_else(|| Value::missing("No caller defined"))),
            false => None,
        };
        let symbol = |wanted: &str| self.tree.names.iter().position(|name| **name == *wanted);
        if let (Some(caller), Some(symbol)) = (caller, symbol("caller")) {
            inner.set(symbol, caller);
        }
        if of.reads_kwargs {
            let mut dict = Dict::new();
            for (name, value) in named {
                dict.insert(Value::Str(name), value)?;
            }
            if let Some(symbol) = symbol("kwargs") {
                inner.set(symbol, Value::dict(dict));
            }
        } else if let Some((unknown, _)) = named.first() {
            return Err(Error::runtime(format!(
                "macro '{name}' takes no keyword argument '{}'",
                &**unknown
            )));
        }
        if of.reads_varargs {
            if let Some(symbol) = symbol("varargs") {
                inner.set(symbol, Value::tuple(rest.collect())?);
            }
        } else if rest.next().is_some() {
            return Err(Error::runtime(format!(
                "macro '{name}' takes not more than {} argument(s)",
                of.params.len()
            )));
        }
        self.deeper(|run| {
            let first = of.params.len() - of.defaults.len().min(of.params.len());
            for (n, ((symbol, name), value)) in of.params.iter().zip(given).enumerate() {
                let default = n.checked_sub(first).and_then(|n| of.defaults.get(n));
                let value = match (value, default) {
                    (Some(value), _) => value,
                    (None, Some(default)) => run.eval(default, &inner)?,
                    (None, None) => {
                        Value::missing(format!("parameter '{}' was not provided", &**name))
                    }
                };
                inner.set(*symbol, value);
            }
            let mut out = Builder::default();
            run.statements(&of.body, &inner, &mut out)?;
            Ok(Value::Str(out.finish()))
        })
    }

    /// The text of a block, by its name or place.
    pub fn block_text(&mut self, at: usize) -> Result<Value> {
        let root = self.root.clone();
        match self.tree.blocks.get(at) {
            Some(block) => self.deeper(|run| Ok(Value::Str(run.text_of(&block.body, &root)?))),
            None => Ok(Value::None),
        }
    }
}
