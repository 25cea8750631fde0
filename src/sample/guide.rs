//! What holds an answer to a form (a JSON schema, a grammar): plain data, no arrays.

use std::fmt;
use std::sync::Arc;

/// Follows one answer, token by token, and says which tokens may come next.
pub trait Guide: Send {
    /// Takes the token that was drawn.
    ///
    /// # Errors
    /// If the form does not allow it here; the text says so.
    fn accept(&mut self, id: u32) -> Result<(), String>;

    /// What may come next.
    ///
    /// # Errors
    /// If that cannot be computed, for instance within a limit on time or size.
    fn allowed(&mut self) -> Result<Allowed, String>;
}

/// Which tokens may come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Those whose bit is set: token `i` has bit `i % 32` of word `i / 32`. An end-of-sequence token
    /// is among them where the answer may end.
    These(Vec<u32>),
    /// All of them.
    Any,
    /// None: the answer is complete.
    Nothing,
}

/// A form, from which each answer gets a guide of its own.
#[derive(Clone)]
pub struct Form(Arc<dyn Fn() -> Result<Box<dyn Guide>, String> + Send + Sync>);

impl Form {
    /// From what makes a guide at the start of an answer.
    pub fn new(start: impl Fn() -> Result<Box<dyn Guide>, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(start))
    }

    /// A guide for an answer that has no token yet.
    ///
    /// # Errors
    /// If there can be none; the text says why.
    pub fn start(&self) -> Result<Box<dyn Guide>, String> {
        (self.0)()
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form")
    }
}
