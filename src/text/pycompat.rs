//! What transformers' Jinja environment has beyond minijinja's: functions, Python's printing, filters and methods.

use std::fmt::{self, Write as _};

use minijinja::value::Rest;
use minijinja::{Environment, Error, ErrorKind, Value};

pub(super) use super::pyvalue::from_json;
use super::{pyfilters, pymethods, pyvalue};

/// What a template said with `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Puts everything into `env`.
pub(super) fn install(env: &mut Environment<'_>) {
    env.set_formatter(pyvalue::write);
    env.set_unknown_method_callback(pymethods::call);
    env.remove_global("debug");
    env.add_function(
        "raise_exception",
        |message: &Value| -> Result<Value, Error> {
            let raised = Raised(super::control::unmark(&pyvalue::str(message)));
            Err(Error::new(ErrorKind::InvalidOperation, raised.0.clone()).with_source(raised))
        },
    );
    env.add_function("strftime_now", |format: &str| -> Result<String, Error> {
        let mut out = String::new();
        write!(out, "{}", chrono::Local::now().format(format)).map_err(|_| {
            pyvalue::type_error(format!("strftime_now does not know the format {format:?}"))
        })?;
        Ok(out)
    });
    env.add_function("joiner", minijinja_contrib::globals::joiner);
    env.add_function("cycler", |items: Rest<Value>| {
        minijinja_contrib::globals::cycler(items.0)
    });
    pyfilters::install(env);
}
