//! Structured output: from what a request asks of its answer (a JSON schema, a regular expression, choices, a
//! grammar) to a [`Form`], on llguidance.
//!
//! Invariants: whatever the specification, compiling it ends in bounded time and memory, with a form or with an
//! error that names its place; a keyword that is not enforced is an error; nothing is fetched from anywhere.

mod answer;
mod cache;
mod grammar;
mod keywords;
mod limits;
mod overlap;
mod schema;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;

use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

use super::Tokenizer;
use crate::sample::{Form, Guide};
use answer::Answer;
use cache::Cache;
use vocabulary::Vocabulary;

/// What an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// JSON that a JSON schema describes.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// Text that a regular expression matches from beginning to end (syntax of the `regex` crate).
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// Text of a grammar in llguidance's variant of Lark's language; it begins at `start`.
    Lark(String),
}

/// Why there is no form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormError {
    /// Whose fault it is.
    pub kind: FormErrorKind,
    /// Where in the specification, such as `properties.name.pattern`; empty if it is the whole.
    pub path: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// Whose fault it is that there is no form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormErrorKind {
    /// The specification's: it is wrong, or asks for what is not supported.
    Invalid,
    /// The specification's: it takes more time or memory than a request may have.
    TooComplex,
    /// The server's: too many are compiled already; trying again is right.
    Busy,
    /// The model's: its tokenizer does not allow constrained answers.
    Tokenizer,
}

impl FormError {
    fn invalid(path: &str, reason: impl Into<String>) -> Self {
        Self {
            kind: FormErrorKind::Invalid,
            path: path.into(),
            reason: reason.into(),
        }
    }

    fn too_complex(path: &str, reason: impl Into<String>) -> Self {
        Self {
            kind: FormErrorKind::TooComplex,
            ..Self::invalid(path, reason)
        }
    }

    fn tokenizer(reason: String) -> Self {
        let reason =
            format!("this model cannot be held to a form, because of its tokenizer.json: {reason}");
        Self {
            kind: FormErrorKind::Tokenizer,
            ..Self::invalid("", reason)
        }
    }

    /// The text, with `field`, the specification's own place in the request, before the path.
    pub fn at(&self, field: &str) -> String {
        match (field, self.path.as_str()) {
            ("", "") => self.reason.clone(),
            ("", place) | (place, "") => format!("{place}: {}", self.reason),
            (field, path) => format!("{field}.{path}: {}", self.reason),
        }
    }
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.at(""))
    }
}

impl std::error::Error for FormError {}

/// Makes forms for one model; cheap to clone and shared between threads.
#[derive(Clone)]
pub struct Forms {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: Tokenizer,
    vocab_size: usize,
    eos_ids: Arc<[u32]>,
    /// Made with the first form: its trie takes a while.
    vocabulary: OnceLock<Result<Vocabulary, FormError>>,
    cache: Mutex<Cache>,
    compiling: Arc<AtomicUsize>,
}

impl Forms {
    /// For a model with `tokenizer` whose logits have `vocab_size` places and whose answers end at `eos_ids`.
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize, eos_ids: &[u32]) -> Self {
        Self {
            inner: Arc::new(Inner {
                tokenizer: tokenizer.clone(),
                vocab_size,
                eos_ids: eos_ids.into(),
                vocabulary: OnceLock::new(),
                cache: Mutex::new(Cache::new(limits::CACHE)),
                compiling: Arc::default(),
            }),
        }
    }

    /// Compiles a constraint, or takes it from the forms that are kept.
    ///
    /// It blocks, for milliseconds as a rule and 10 seconds at most: call it neither on the engine's thread nor on
    /// one that serves connections.
    ///
    /// # Errors
    /// If the constraint is wrong, not supported or too complex, if too many are being compiled, or if the model's
    /// tokenizer cannot be used.
    pub fn compile(&self, constraint: &Constraint) -> Result<Form, FormError> {
        let key = constraint.specification();
        if key.len() > limits::SPECIFICATION {
            let (bytes, most) = (key.len(), limits::SPECIFICATION);
            let reason = format!("it has {bytes} bytes, at most {most} are taken; shorten it");
            return Err(FormError::too_complex("", reason));
        }
        if let Some(form) = self.inner.cache().get(&key) {
            return Ok(form);
        }
        let turn = Turn::take(&self.inner.compiling)?;
        let (done, compiled) = mpsc::sync_channel(1);
        let (inner, constraint) = (self.inner.clone(), constraint.clone());
        // A thread of its own has the stack that is needed, and can be left behind.
        let spawned = thread::Builder::new()
            .name("form".into())
            .stack_size(limits::STACK)
            .spawn(move || {
                let compiled = inner.compile(&constraint).map(|(form, bytes)| {
                    inner.cache().put(key, form.clone(), bytes);
                    form
                });
                drop(turn);
                // Nobody may wait any more.
                let _ = done.send(compiled);
            });
        if let Err(e) = spawned {
            let reason = format!("no thread to compile the form on: {e}; try again");
            return Err(FormError {
                kind: FormErrorKind::Busy,
                ..FormError::invalid("", reason)
            });
        }
        match compiled.recv_timeout(limits::TIME) {
            Ok(compiled) => compiled,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let seconds = limits::TIME.as_secs();
                let reason = format!("compiling it takes more than {seconds} s; simplify it");
                Err(FormError::too_complex("", reason))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let reason = "compiling it failed unexpectedly; simplify it";
                Err(FormError::too_complex("", reason))
            }
        }
    }
}

/// One of the compilations that run at a time.
struct Turn(Arc<AtomicUsize>);

impl Turn {
    fn take(running: &Arc<AtomicUsize>) -> Result<Self, FormError> {
        let more = |n| (n < limits::AT_A_TIME).then_some(n + 1);
        match running.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Self(running.clone())),
            Err(n) => Err(FormError {
                kind: FormErrorKind::Busy,
                ..FormError::invalid(
                    "",
                    format!("{n} forms are being compiled; try again shortly"),
                )
            }),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inner {
    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The form, and about how many bytes it holds.
    fn compile(&self, constraint: &Constraint) -> Result<(Form, usize), FormError> {
        let make = || Vocabulary::new(&self.tokenizer, self.vocab_size, &self.eos_ids);
        let vocabulary = self.vocabulary.get_or_init(make);
        let vocabulary = vocabulary.as_ref().map_err(FormError::clone)?;
        let grammar = constraint.grammar(&self.tokenizer, &self.eos_ids)?;
        compile(vocabulary, grammar, &self.eos_ids)
    }
}

impl Constraint {
    /// What tells one constraint from another.
    fn specification(&self) -> String {
        match self {
            Self::JsonSchema(schema) => format!("schema {schema}"),
            Self::JsonObject => "object".into(),
            Self::Regex(regex) => format!("regex {regex}"),
            Self::Choice(texts) => format!("choice {}", json!(texts)),
            Self::Lark(text) => format!("lark {text}"),
        }
    }

    /// In llguidance's terms, checked.
    fn grammar(
        &self,
        tokenizer: &Tokenizer,
        eos_ids: &[u32],
    ) -> Result<TopLevelGrammar, FormError> {
        Ok(match self {
            Self::JsonSchema(schema) => TopLevelGrammar::from_json_schema(schema::prepare(schema)?),
            Self::JsonObject => {
                TopLevelGrammar::from_json_schema(schema::prepare(&json!({"type": "object"}))?)
            }
            Self::Regex(regex) => grammar::regex(regex)?,
            Self::Choice(texts) => TopLevelGrammar::from_lark(grammar::choice(texts)?),
            Self::Lark(text) => {
                TopLevelGrammar::from_lark(grammar::prepare(text, tokenizer, eos_ids)?)
            }
        })
    }
}

/// Compiles a grammar; with the form comes about how many bytes it holds.
fn compile(
    vocabulary: &Vocabulary,
    grammar: TopLevelGrammar,
    eos_ids: &Arc<[u32]>,
) -> Result<(Form, usize), FormError> {
    let source = grammar.grammars.iter().map(|g| match &g.lark_grammar {
        Some(text) => text.len(),
        None => g.json_schema.as_ref().map_or(0, |s| s.to_string().len()),
    });
    // Symbols and rules take some tens of bytes for each byte of their source.
    let source = source.sum::<usize>().saturating_mul(32);
    let mut parser = vocabulary
        .parser(grammar)
        .map_err(|reason| FormError::invalid("", reason))?;
    if let Some(warning) = parser.grammar_warnings().into_iter().next() {
        return Err(FormError::invalid("", refine(&warning)));
    }
    let lexer = parser.parser.lexer_stats().num_bytes;
    let mut pristine = Answer::new(Matcher::new(Ok(parser)), eos_ids.clone());
    // The first mask shows whether there is any, and fills tables that each answer starts with.
    pristine
        .allowed()
        .map_err(|reason| FormError::invalid("", reason))?;
    let form = Form::new(move || Ok(Box::new(pristine.again()) as Box<dyn Guide>));
    Ok((form, source.saturating_add(lexer.saturating_mul(2))))
}

/// An error of llguidance without its dumps of states and backtraces.
fn refine(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let end = ["\n<state>", "\n<non-verbose", "\n<backtrace>"]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min();
    let text = text[..end.unwrap_or(text.len())].trim();
    match text.char_indices().nth(600) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}
