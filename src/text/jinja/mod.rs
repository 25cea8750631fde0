//! Jinja as Python's jinja2 renders it in transformers' immutable sandbox, with bounds on everything.
//!
//! Invariants: a template reads nothing but its variables and the clock; values behave as Python's do, down to their
//! printing; what Python would refuse is refused; steps, time, memory, text and depth are bounded ([`meter`]), so that no
//! template can exhaust the machine. It runs on a thread of its own, whose stack is watched.

mod arguments;
mod ast;
mod attributes;
mod calls;
mod dict;
mod evaluate;
mod expressions;
mod filters;
mod format;
mod is_tests;
mod json;
mod layout;
mod lexer;
mod meter;
mod methods;
mod numbers;
mod operators;
mod parser;
mod percent;
mod print;
mod relations;
mod run;
mod selections;
mod sequences;
mod strings;
mod text;
mod value;

use std::fmt;

use serde_json::{Map, Value as Json};

pub use meter::Limits;

/// What came of it.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a template does not compile or render.
#[derive(Debug)]
pub struct Error(Box<Failure>);

/// What failed.
#[derive(Debug)]
pub struct Failure {
    /// Of which kind
    pub kind: Kind,
    /// In Python's words as far as they are known
    pub message: String,
    /// The template's line, from 1; 0 if none is known
    pub line: usize,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is no template.
    Syntax,
    /// The template refused, with `raise_exception`.
    Raised,
    /// A value is not as the template needs it.
    Runtime,
    /// It went over a limit, which the message is.
    Limit,
}

impl Error {
    fn new(kind: Kind, message: String, line: usize) -> Error {
        Error(Box::new(Failure {
            kind,
            message,
            line,
        }))
    }

    fn syntax(message: String, line: usize) -> Error {
        Error::new(Kind::Syntax, message, line)
    }

    fn runtime(message: impl Into<String>) -> Error {
        Error::new(Kind::Runtime, message.into(), 0)
    }

    fn limit(message: String) -> Error {
        Error::new(Kind::Limit, message, 0)
    }

    fn on(mut self, line: usize) -> Error {
        if self.0.line == 0 {
            self.0.line = line;
        }
        self
    }

    /// What failed.
    pub fn failure(self) -> Failure {
        *self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

/// The stack of the thread that renders, and how much of it a template may use.
const STACK: usize = 32 << 20;
const USABLE: usize = 24 << 20;

/// A compiled template.
#[derive(Debug)]
pub struct Program(ast::Tree);

impl Program {
    /// Compiles a template.
    ///
    /// # Errors
    /// If it is not one.
    pub fn new(source: &str) -> Result<Program> {
        // Sources nest as deep as expressions do.
        on_own_stack(|| parser::parse(source)).map(Program)
    }

    /// The variables that the template reads before it sets them.
    pub fn reads(&self, variable: &str) -> bool {
        let name = |symbol: &ast::Sym| {
            self.0
                .names
                .get(*symbol)
                .is_some_and(|name| **name == *variable)
        };
        self.0.free.iter().any(name)
    }

    /// Renders it; strings of the variables, and the text that comes out, have `mark` in them where they are marked.
    ///
    /// # Errors
    /// If the template refuses, fails, or goes over a limit.
    pub fn render(
        &self,
        variables: &Map<String, Json>,
        mark: char,
        limits: Limits,
    ) -> Result<String> {
        on_own_stack(|| {
            meter::begin(limits);
            run::Run::new(&self.0, USABLE).render(variables, mark)
        })
    }
}

fn on_own_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("template".into())
            .stack_size(STACK);
        let spawned = thread.spawn_scoped(scope, work);
        match spawned.map(|thread| thread.join()) {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(Error::runtime("the renderer failed; please report this")),
            Err(e) => Err(Error::runtime(format!("cannot start a thread: {e}"))),
        }
    })
}
