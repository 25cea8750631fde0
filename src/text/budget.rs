//! What one rendering of a template may take: bytes of what it makes, and time.
//!
//! A template is a program that came with a model. Its steps are counted by the renderer, but one step can make
//! a text as large as memory, or twice as large as the one before. So everything that makes values is charged
//! here: filters, methods and what is written, by themselves; the operators `+`, `~` and `*`, to which there is no
//! other way, by a function that is put around them in the template's source before it is compiled.
//!
//! Invariants: a template renders to the same text as without; no template can tell what the function is called.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{Span, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Bytes of one text or list; more could not be written anyway. Smaller in tests, which are slower.
pub(super) const LARGEST: usize = if cfg!(test) { 2 << 20 } else { 16 << 20 };
/// Bytes of all that one rendering makes.
const TOTAL: usize = if cfg!(test) { 64 << 20 } else { 1 << 30 };
/// For one rendering.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest width or count that a filter takes.
const WIDEST: i64 = 1 << 16;
/// Bytes of a value that stands in a list or a map.
const ITEM: usize = 32;

/// What the function around operators is called: not the same in any two processes.
static CHARGED: LazyLock<String> =
    LazyLock::new(|| format!("charged_{:016x}", RandomState::new().hash_one(0)));

thread_local! {
    static SPENT: Cell<usize> = const { Cell::new(0) };
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A limit was gone over.
#[derive(Debug)]
pub(super) struct Exhausted(pub(super) String);

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Exhausted {}

fn exhausted(limit: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, limit.clone()).with_source(Exhausted(limit))
}

fn too_large() -> Error {
    exhausted(format!("{} MiB in one value", LARGEST >> 20))
}

/// A rendering begins on this thread.
pub(super) fn begin() {
    SPENT.set(0);
    SINCE.set(Some(Instant::now()));
}

/// Pays for a value of so many bytes.
pub(super) fn charge(bytes: usize) -> Result<(), Error> {
    if bytes > LARGEST {
        return Err(too_large());
    }
    let spent = SPENT.get().saturating_add(bytes);
    SPENT.set(spent);
    if spent > TOTAL {
        return Err(exhausted(format!("{} MiB of values", TOTAL >> 20)));
    }
    match SINCE.get() {
        Some(since) if since.elapsed() > PATIENCE => {
            Err(exhausted(format!("{} seconds", PATIENCE.as_secs())))
        }
        _ => Ok(()),
    }
}

/// Pays for a value, without what stands inside of it, which was paid for when it was made.
pub(super) fn charge_value(value: &Value) -> Result<(), Error> {
    charge(match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or(0).saturating_mul(ITEM),
    })
}

/// Refuses a text that would be as large as `count` times `bytes`.
pub(super) fn check_product(count: usize, bytes: usize) -> Result<(), Error> {
    match count.saturating_mul(bytes) > LARGEST {
        true => Err(too_large()),
        false => Ok(()),
    }
}

/// Refuses what replacing would make if it were too large.
pub(super) fn check_replace(text: &str, old: &str, new: &str) -> Result<(), Error> {
    match new.len() > old.len() {
        true => check_product(text.matches(old).count(), new.len()),
        false => Ok(()),
    }
}

/// Refuses a format with a width that nobody needs.
pub(super) fn check_format(format: &str) -> Result<(), Error> {
    let mut digits = format.split(|c: char| !c.is_ascii_digit());
    match digits.any(|run| run.len() > 4) || format.contains('*') {
        true => Err(too_large()),
        false => Ok(()),
    }
}

/// Puts the function around operators into `env`, and limits before the filters that lack them.
pub(super) fn install(env: &mut Environment<'_>) {
    env.add_function(CHARGED.clone(), |value: Value| -> Result<Value, Error> {
        charge_value(&value)?;
        Ok(value)
    });
    for (name, filter) in [
        ("batch", Value::from_function(minijinja::filters::batch)),
        ("slice", Value::from_function(minijinja::filters::slice)),
        ("indent", Value::from_function(minijinja::filters::indent)),
        ("format", Value::from_function(minijinja::filters::format)),
    ] {
        let limited = move |state: &mut State, args: Rest<Value>| -> Result<Value, Error> {
            let text = args.first().and_then(Value::as_str).unwrap_or_default();
            if name == "format" {
                check_format(text)?;
            } else {
                let width = args.iter().skip(1).map(widest).max().unwrap_or(0);
                if width > WIDEST {
                    return Err(too_large());
                }
                let lines = text.matches('\n').count() + 1;
                check_product(lines, usize::try_from(width).unwrap_or(0))?;
            }
            let value = filter.call(state, &args)?;
            charge_value(&value)?;
            Ok(value)
        };
        env.add_filter(name, limited);
    }
}

/// The largest number in an argument, by its place or by its name.
fn widest(argument: &Value) -> i64 {
    if argument.kind() != ValueKind::Map {
        return argument.as_i64().unwrap_or(0);
    }
    let names = argument.try_iter().into_iter().flatten();
    let values = names.filter_map(|name| argument.get_item(&name).ok()?.as_i64());
    values.max().unwrap_or(0)
}

/// The template's source with the function around its operators; as it is if it does not parse, which compiling
/// it will tell.
pub(super) fn charged(source: &str, syntax: SyntaxConfig) -> String {
    let Ok(template) = parse(source, "template", syntax) else {
        return source.to_owned();
    };
    let mut found = Operators::default();
    found.statement(&template);
    // At one place a value ends before the next begins, and an outer one begins before an inner one does.
    let mut marks: Vec<(usize, bool)> = Vec::with_capacity(2 * found.spans.len());
    for (start, end) in found.spans {
        marks.extend([(start, true), (end, false)]);
    }
    marks.sort_unstable();
    let mut out = String::with_capacity(source.len() + marks.len() * (CHARGED.len() + 1));
    let mut from = 0;
    for (at, begins) in marks {
        let Some(piece) = source.get(from..at) else {
            return source.to_owned();
        };
        out.push_str(piece);
        match begins {
            true => out.extend([CHARGED.as_str(), "("]),
            false => out.push(')'),
        }
        from = at;
    }
    out.push_str(&source[from..]);
    out
}

/// Where in a source there are operators that make texts and lists.
#[derive(Default)]
struct Operators {
    spans: Vec<(usize, usize)>,
}

impl Operators {
    fn statements(&mut self, statements: &[Stmt<'_>]) {
        statements.iter().for_each(|one| self.statement(one));
    }

    fn statement(&mut self, statement: &Stmt<'_>) {
        match statement {
            Stmt::Template(s) => self.statements(&s.children),
            Stmt::EmitExpr(s) => self.expression(&s.expr),
            Stmt::ForLoop(s) => {
                self.expression(&s.iter);
                self.expressions(&s.filter_expr);
                self.statements(&s.body);
                self.statements(&s.else_body);
            }
            Stmt::IfCond(s) => {
                self.expression(&s.expr);
                self.statements(&s.true_body);
                self.statements(&s.false_body);
            }
            Stmt::WithBlock(s) => {
                self.expressions(s.assignments.iter().map(|(_, value)| value));
                self.statements(&s.body);
            }
            Stmt::Set(s) => self.expression(&s.expr),
            Stmt::SetBlock(s) => {
                self.expressions(&s.filter);
                self.statements(&s.body);
            }
            Stmt::AutoEscape(s) => self.statements(&s.body),
            Stmt::FilterBlock(s) => {
                self.expression(&s.filter);
                self.statements(&s.body);
            }
            Stmt::Block(s) => self.statements(&s.body),
            Stmt::Macro(s) => {
                self.expressions(&s.defaults);
                self.statements(&s.body);
            }
            Stmt::CallBlock(s) => {
                self.arguments(&s.call.args);
                self.expressions(&s.macro_decl.defaults);
                self.statements(&s.macro_decl.body);
            }
            Stmt::Do(s) => self.arguments(&s.call.args),
            // There are no other templates to include, and plain text is charged by the steps.
            _ => {}
        }
    }

    fn expressions<'a, 'b: 'a>(&mut self, all: impl IntoIterator<Item = &'a Expr<'b>>) {
        all.into_iter().for_each(|one| self.expression(one));
    }

    fn arguments(&mut self, all: &[CallArg<'_>]) {
        for argument in all {
            match argument {
                CallArg::Pos(one)
                | CallArg::Kwarg(_, one)
                | CallArg::PosSplat(one)
                | CallArg::KwargSplat(one) => self.expression(one),
            }
        }
    }

    fn expression(&mut self, expression: &Expr<'_>) {
        match expression {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(e) => {
                self.expression(&e.expr);
                self.expressions([&e.start, &e.stop, &e.step].into_iter().flatten());
            }
            Expr::UnaryOp(e) => self.expression(&e.expr),
            Expr::BinOp(e) => {
                let makes = matches!(e.op, BinOpKind::Add | BinOpKind::Concat | BinOpKind::Mul);
                if makes {
                    self.mark(e.span());
                    // Constants are put together when the template is compiled, before anything is charged.
                    if let Expr::Const(left) = &e.left {
                        self.mark(left.span());
                    }
                }
                self.expressions([&e.left, &e.right]);
            }
            Expr::Compare(e) => {
                self.expression(&e.expr);
                self.expressions(e.ops.iter().map(|op| &op.expr));
            }
            Expr::IfExpr(e) => {
                self.expressions([&e.test_expr, &e.true_expr]);
                self.expressions(&e.false_expr);
            }
            Expr::Filter(e) => {
                self.expressions(&e.expr);
                self.arguments(&e.args);
            }
            Expr::Test(e) => {
                self.expression(&e.expr);
                self.arguments(&e.args);
            }
            Expr::GetAttr(e) => self.expression(&e.expr),
            Expr::GetItem(e) => self.expressions([&e.expr, &e.subscript_expr]),
            Expr::Call(e) => {
                self.expression(&e.expr);
                self.arguments(&e.args);
            }
            Expr::List(e) => self.expressions(&e.items),
            Expr::Tuple(e) => self.expressions(&e.items),
            Expr::Map(e) => {
                self.expressions(&e.keys);
                self.expressions(&e.values);
            }
        }
    }

    fn mark(&mut self, span: Span) {
        let (start, end) = (span.start_offset as usize, span.end_offset as usize);
        self.spans.push((start, end));
    }
}
