//! Tokens to a template's tree, by Jinja's grammar and precedences.
//!
//! Invariant: the tree nests at most [`meter::NESTING`] deep.

use std::collections::HashMap;

use super::ast::{Block, Expr, For, Kind, Macro, Stmt, Sym, Target, Tree};
use super::lexer::{Token, tokens};
use super::meter::NESTING;
use super::text::Str;
use super::{Error, Result};

/// Parses a template.
///
/// # Errors
/// If it is not one.
pub fn parse(source: &str) -> Result<Tree> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
        links: 0,
        soft: false,
        unknown: None,
        loops: 0,
        symbols: HashMap::new(),
        bound: vec![Vec::new()],
        tree: Tree::default(),
    };
    parser.tree.body = parser.statements(&[])?;
    Ok(parser.tree)
}

/// Parameters, and the defaults of the last of them.
type Signature = (Vec<(Sym, Str)>, Vec<Expr>);

/// What is read, and how far.
pub struct Parser {
    pub(super) tokens: Vec<(Token, usize)>,
    pub(super) at: usize,
    pub(super) depth: usize,
    /// Operators and the like in the tag so far.
    pub(super) links: usize,
    /// Inside a condition, where unknown filters are no error until they are used.
    pub(super) soft: bool,
    /// An unknown filter or test in the tag so far.
    pub(super) unknown: Option<String>,
    /// Loops around that can be left.
    loops: usize,
    pub(super) symbols: HashMap<Str, Sym>,
    /// The names that are set so far, by scope.
    pub(super) bound: Vec<Vec<Sym>>,
    pub(super) tree: Tree,
}

/// Names that are values.
pub(super) const CONSTANTS: [&str; 6] = ["true", "false", "True", "False", "none", "None"];

impl Parser {
    pub(super) fn peek(&self) -> &Token {
        self.tokens
            .get(self.at)
            .map_or(&Token::End, |(token, _)| token)
    }

    pub(super) fn look(&self) -> &Token {
        self.tokens
            .get(self.at + 1)
            .map_or(&Token::End, |(token, _)| token)
    }

    pub(super) fn line(&self) -> usize {
        let last = self.tokens.last();
        self.tokens
            .get(self.at)
            .or(last)
            .map_or(1, |(_, line)| *line)
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    pub(super) fn fail<T>(&self, text: impl Into<String>) -> Result<T> {
        Err(Error::syntax(text.into(), self.line()))
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(found) if *found == op)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if **found == *name)
    }

    pub(super) fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.at += usize::from(found);
        found
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_op(&mut self, op: &str) -> Result<()> {
        match self.skip_op(op) {
            true => Ok(()),
            false => self.unexpected(op),
        }
    }

    pub(super) fn unexpected<T>(&self, wanted: &str) -> Result<T> {
        match self.peek() {
            Token::End => self.fail(format!("unexpected end of template, expected '{wanted}'.")),
            token => self.fail(format!(
                "expected token '{wanted}', got '{}'",
                token.describe()
            )),
        }
    }

    pub(super) fn expect_name(&mut self) -> Result<Str> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.at += 1;
                Ok(name)
            }
            _ => self.unexpected("name"),
        }
    }

    pub(super) fn deeper<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        if self.depth >= NESTING {
            return self.fail(format!(
                "more than {NESTING} expressions or statements inside each other"
            ));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    pub(super) fn symbol(&mut self, name: &Str) -> Sym {
        if let Some(&symbol) = self.symbols.get(name) {
            return symbol;
        }
        let symbol = self.tree.names.len();
        self.tree.names.push(name.clone());
        self.symbols.insert(name.clone(), symbol);
        symbol
    }

    pub(super) fn bind(&mut self, symbol: Sym) {
        if let Some(scope) = self.bound.last_mut() {
            scope.push(symbol);
        }
    }

    pub(super) fn bind_target(&mut self, target: &Target) {
        match target {
            Target::Name(symbol) => self.bind(*symbol),
            Target::Attr(..) => {}
            Target::Tuple(targets) => targets.iter().for_each(|target| self.bind_target(target)),
        }
    }

    fn scoped<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        let soft = std::mem::replace(&mut self.soft, false);
        self.bound.push(Vec::new());
        let parsed = parse(self);
        self.bound.pop();
        self.soft = soft;
        parsed
    }

    /// Statements up to a tag of one of these names, which is left to be read.
    fn statements(&mut self, ends: &[&str]) -> Result<Vec<Stmt>> {
        self.deeper(|parser| parser.statements_here(ends))
    }

    fn statements_here(&mut self, ends: &[&str]) -> Result<Vec<Stmt>> {
        let mut out = Vec::new();
        loop {
            let line = self.line();
            match self.peek().clone() {
                Token::Data(text) => {
                    self.at += 1;
                    out.push(Stmt {
                        line,
                        kind: Kind::Data(text),
                    });
                }
                Token::PrintBegin => {
                    self.at += 1;
                    self.links = 0;
                    let value = self.tuple(true, &[], false)?;
                    out.push(Stmt {
                        line,
                        kind: Kind::Print(value),
                    });
                    match self.peek() {
                        Token::PrintEnd => self.at += 1,
                        _ => return self.unexpected("end of print statement"),
                    }
                    self.check_names()?;
                }
                Token::BlockBegin => {
                    if let Token::Name(name) = self.look()
                        && ends.contains(&&**name)
                    {
                        self.at += 1;
                        return Ok(out);
                    }
                    self.at += 1;
                    self.statement(&mut out)?;
                    self.block_end()?;
                    self.check_names()?;
                }
                Token::End if ends.is_empty() => return Ok(out),
                Token::End => {
                    return self.fail(format!(
                        "Unexpected end of template. Jinja was looking for the following tags: '{}'.",
                        ends.join("' or '")
                    ));
                }
                other => return self.fail(format!("unexpected '{}'", other.describe())),
            }
        }
    }

    fn check_names(&mut self) -> Result<()> {
        match self.unknown.take() {
            Some(unknown) => self.fail(unknown),
            None => Ok(()),
        }
    }

    fn block_end(&mut self) -> Result<()> {
        match self.peek() {
            Token::BlockEnd => {
                self.at += 1;
                Ok(())
            }
            _ => self.unexpected("end of statement block"),
        }
    }

    /// A body behind a tag: the tag's end, statements, and the name of the tag that ends them.
    fn body(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, Str)> {
        self.skip_op(":");
        self.block_end()?;
        self.check_names()?;
        let body = self.statements(ends)?;
        Ok((body, self.expect_name()?))
    }

    fn statement(&mut self, out: &mut Vec<Stmt>) -> Result<()> {
        let line = self.line();
        let Token::Name(tag) = self.peek().clone() else {
            return self.fail("tag name expected");
        };
        self.at += 1;
        self.links = 0;
        let kind = match &*tag {
            "if" => self.if_statement()?,
            "for" => self.for_statement()?,
            "set" => self.set_statement()?,
            "with" => self.with_statement()?,
            "macro" => self.macro_statement()?,
            "call" => self.call_block()?,
            "filter" => {
                let filters = self.filters(None, true)?;
                let body = self.scoped(|parser| parser.body(&["endfilter"]))?.0;
                Kind::FilterBlock(filters, body)
            }
            "generation" => Kind::Scope(self.apart(|parser| parser.body(&["endgeneration"]))?.0),
            "autoescape" => {
                let on = self.expression()?;
                let body = self.scoped(|parser| parser.body(&["endautoescape"]))?.0;
                match on {
                    Expr::Bool(false) => Kind::Scope(body),
                    _ => Kind::Refuse("autoescape is not known here".into()),
                }
            }
            "block" => {
                let name = self.expect_name()?;
                let scoped = self.skip_name("scoped");
                self.skip_name("required");
                let body = self.apart(|parser| parser.body(&["endblock"]))?.0;
                self.skip_name(&name);
                if self.tree.blocks.iter().any(|block| block.name == name) {
                    return self.fail(format!("block '{}' defined twice", &*name));
                }
                self.tree.blocks.push(Block { name, scoped, body });
                Kind::Block(self.tree.blocks.len() - 1)
            }
            "print" => {
                while *self.peek() != Token::BlockEnd {
                    let value = self.expression()?;
                    out.push(Stmt {
                        line,
                        kind: Kind::Print(value),
                    });
                    if *self.peek() != Token::BlockEnd {
                        self.expect_op(",")?;
                    }
                }
                return Ok(());
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return self.fail(format!("'{}' outside loop", &*tag));
                }
                if &*tag == "break" {
                    Kind::Break
                } else {
                    Kind::Continue
                }
            }
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.peek(), Token::BlockEnd | Token::End) {
                    self.at += 1;
                }
                Kind::Refuse("no loader for this environment specified".into())
            }
            other => return self.fail(format!("Encountered unknown tag '{other}'.")),
        };
        out.push(Stmt { line, kind });
        Ok(())
    }

    /// A body that becomes a function of its own, out of which loops cannot be left.
    fn apart<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        let loops = std::mem::replace(&mut self.loops, 0);
        let parsed = self.scoped(parse);
        self.loops = loops;
        parsed
    }

    fn if_statement(&mut self) -> Result<Kind> {
        let soft = std::mem::replace(&mut self.soft, true);
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple(false, &[], false)?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            let otherwise = match &*end {
                "elif" => continue,
                "else" => self.body(&["endif"])?.0,
                _ => Vec::new(),
            };
            self.soft = soft;
            return Ok(Kind::If(branches, otherwise));
        }
    }

    fn for_statement(&mut self) -> Result<Kind> {
        let target = self.target(&["in"], false)?;
        if !self.skip_name("in") {
            return self.unexpected("in");
        }
        let items = self.tuple(false, &["recursive"], false)?;
        let loops = self.loops;
        let parsed = self.scoped(|parser| {
            parser.bind_target(&target);
            let condition = match parser.skip_name("if") {
                true => Some(parser.expression()?),
                false => None,
            };
            let recursive = parser.skip_name("recursive");
            let symbol = parser.symbol(&Str::constant("loop"));
            parser.bind(symbol);
            parser.loops += 1;
            let (body, end) = parser.body(&["endfor", "else"])?;
            Ok((condition, recursive, body, end))
        });
        self.loops = loops;
        let (condition, recursive, body, end) = parsed?;
        let otherwise = match &*end {
            "else" => self.scoped(|parser| parser.body(&["endfor"]))?.0,
            _ => Vec::new(),
        };
        self.tree.loops.push(For {
            target,
            items,
            condition,
            recursive,
            body,
            otherwise,
        });
        Ok(Kind::For(self.tree.loops.len() - 1))
    }

    fn set_statement(&mut self) -> Result<Kind> {
        let target = self.target(&[], true)?;
        if self.skip_op("=") {
            let value = self.tuple(true, &[], false)?;
            self.bind_target(&target);
            return Ok(Kind::Set(target, value));
        }
        let filters = match self.is_op("|") {
            true => Some(self.filters(None, false)?),
            false => None,
        };
        let body = self.scoped(|parser| parser.body(&["endset"]))?.0;
        self.bind_target(&target);
        Ok(Kind::SetBlock(target, filters, body))
    }

    fn with_statement(&mut self) -> Result<Kind> {
        let mut values = Vec::new();
        while *self.peek() != Token::BlockEnd && !self.is_op(":") {
            if !values.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(&[], false)?;
            self.expect_op("=")?;
            values.push((target, self.expression()?));
        }
        let body = self.scoped(|parser| {
            values
                .iter()
                .for_each(|(target, _)| parser.bind_target(target));
            parser.body(&["endwith"])
        })?;
        Ok(Kind::With(values, body.0))
    }

    fn signature(&mut self) -> Result<Signature> {
        let mut params = Vec::new();
        let mut defaults = Vec::new();
        self.expect_op("(")?;
        while !self.is_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.expect_name()?;
            if CONSTANTS.contains(&&*name) {
                return self.fail(format!("can't assign to '{}'", &*name));
            }
            let symbol = self.symbol(&name);
            self.bind(symbol);
            if self.skip_op("=") {
                defaults.push(self.expression()?);
            } else if !defaults.is_empty() {
                return self.fail("non-default argument follows default argument");
            }
            params.push((symbol, name));
        }
        self.expect_op(")")?;
        let without = params.len() - defaults.len().min(params.len());
        if params
            .iter()
            .take(without)
            .any(|(_, name)| &**name == "caller")
        {
            return self.fail(
                "When defining macros or call blocks the special \"caller\" argument must be omitted or be given a default.",
            );
        }
        Ok((params, defaults))
    }

    fn macro_body(
        &mut self,
        name: Str,
        symbol: Option<Sym>,
        end: &str,
        signature: bool,
    ) -> Result<(usize, Option<Expr>)> {
        let from = self.at;
        let (params, defaults, call, body) = self.apart(|parser| {
            let (params, defaults) = match signature || parser.is_op("(") {
                true => parser.signature()?,
                false => Default::default(),
            };
            let call = match signature {
                true => None,
                false => Some(parser.expression()?),
            };
            for name in ["caller", "varargs", "kwargs"] {
                let symbol = parser.symbol(&Str::constant(name));
                parser.bind(symbol);
            }
            Ok((params, defaults, call, parser.body(&[end])?.0))
        })?;
        let read = self.tokens.get(from..self.at).unwrap_or_default();
        let reads = |name: &str| {
            read.iter()
                .any(|(token, _)| matches!(token, Token::Name(found) if **found == *name))
        };
        let (reads_caller, reads_varargs, reads_kwargs) =
            (reads("caller"), reads("varargs"), reads("kwargs"));
        self.tree.macros.push(Macro {
            name,
            symbol,
            params,
            defaults,
            body,
            reads_caller,
            reads_varargs,
            reads_kwargs,
        });
        Ok((self.tree.macros.len() - 1, call))
    }

    fn macro_statement(&mut self) -> Result<Kind> {
        let name = self.expect_name()?;
        let symbol = self.symbol(&name);
        // It may call itself.
        self.bind(symbol);
        Ok(Kind::Macro(
            self.macro_body(name, Some(symbol), "endmacro", true)?.0,
        ))
    }

    fn call_block(&mut self) -> Result<Kind> {
        match self.macro_body(Str::constant("caller"), None, "endcall", false)? {
            (at, Some(call @ Expr::Call(..))) => Ok(Kind::CallBlock(call, at)),
            _ => self.fail("expected call"),
        }
    }
}
