//! The grammar of expressions.

use super::ast::{Args, Expr, Sym, Target};
use super::lexer::Token;
use super::meter::NESTING;
use super::parser::{CONSTANTS, Parser};
use super::text::Str;
use super::{Result, filters, is_tests};

impl Parser {
    pub(super) fn target(&mut self, ends: &[&str], namespace: bool) -> Result<Target> {
        let expression = self.tuple(true, ends, true)?;
        self.as_target(expression, namespace)
    }

    fn as_target(&self, expression: Expr, namespace: bool) -> Result<Target> {
        match expression {
            Expr::Name(symbol) => Ok(Target::Name(symbol)),
            Expr::Attr(of, name) if namespace => match *of {
                Expr::Name(symbol) => Ok(Target::Attr(symbol, name)),
                _ => self.fail("can't assign to that"),
            },
            Expr::Tuple(items) => {
                let targets = items
                    .into_iter()
                    .map(|item| self.as_target(item, namespace));
                Ok(Target::Tuple(targets.collect::<Result<_>>()?))
            }
            _ => self.fail("can't assign to that"),
        }
    }

    /// Expressions with commas between them, or one; `simple` takes names and literals only, as targets are.
    pub(super) fn tuple(&mut self, conditional: bool, ends: &[&str], simple: bool) -> Result<Expr> {
        self.tuple_in(conditional, ends, simple, false)
    }

    fn tuple_in(
        &mut self,
        conditional: bool,
        ends: &[&str],
        simple: bool,
        parentheses: bool,
    ) -> Result<Expr> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_op(",")?;
            }
            let ended = match self.peek() {
                Token::PrintEnd | Token::BlockEnd | Token::Op(")") => true,
                Token::Name(name) => ends.contains(&&**name),
                _ => false,
            };
            if ended {
                break;
            }
            items.push(match (simple, conditional) {
                (true, _) => self.simple_target()?,
                (_, true) => self.expression()?,
                _ => self.deeper(Parser::or)?,
            });
            if !self.is_op(",") {
                break;
            }
            is_tuple = true;
        }
        if !is_tuple {
            match items.pop() {
                Some(only) => return Ok(only),
                None if parentheses => {}
                None => {
                    return self.fail(format!(
                        "Expected an expression, got '{}'",
                        self.peek().describe()
                    ));
                }
            }
        }
        Ok(Expr::Tuple(items))
    }

    fn simple_target(&mut self) -> Result<Expr> {
        if self.skip_op("(") {
            let inner = self.deeper(|parser| parser.tuple_in(true, &[], true, true))?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        let name = self.expect_name()?;
        if CONSTANTS.contains(&&*name) {
            return self.fail("can't assign to 'const'");
        }
        let symbol = self.symbol(&name);
        if self.skip_op(".") {
            let attribute = self.expect_name()?;
            self.read(symbol);
            return Ok(Expr::Attr(Box::new(Expr::Name(symbol)), attribute));
        }
        Ok(Expr::Name(symbol))
    }

    /// Notes that a variable is read.
    fn read(&mut self, symbol: Sym) {
        if !self.bound.iter().any(|scope| scope.contains(&symbol))
            && !self.tree.free.contains(&symbol)
        {
            self.tree.free.push(symbol);
        }
    }

    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.deeper(Parser::conditional)
    }

    fn conditional(&mut self) -> Result<Expr> {
        let mut line = self.line();
        let unknown = self.unknown.clone();
        let mut then = self.or()?;
        if self.is_name("if") {
            self.unknown = unknown;
        }
        while self.skip_name("if") {
            let soft = std::mem::replace(&mut self.soft, true);
            let condition = self.or()?;
            let otherwise = match self.skip_name("else") {
                true => Some(Box::new(self.expression()?)),
                false => None,
            };
            self.soft = soft;
            then = Expr::If(Box::new(condition), Box::new(then), otherwise, line);
            line = self.line();
        }
        Ok(then)
    }

    fn or(&mut self) -> Result<Expr> {
        let mut left = self.and()?;
        while self.skip_name("or") {
            self.chain()?;
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    /// Chains nest to the left in the tree: their length in one tag is bounded too.
    pub(super) fn chain(&mut self) -> Result<()> {
        self.links += 1;
        match self.links > NESTING * 10 {
            true => self.fail("an expression of too many parts"),
            false => Ok(()),
        }
    }

    fn and(&mut self) -> Result<Expr> {
        let mut left = self.not()?;
        while self.skip_name("and") {
            self.chain()?;
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        match self.skip_name("not") {
            true => Ok(Expr::Not(Box::new(self.deeper(Parser::not)?))),
            false => self.compare(),
        }
    }

    fn compare(&mut self) -> Result<Expr> {
        let left = self.math1()?;
        let mut rest = Vec::new();
        loop {
            let op = match self.peek() {
                Token::Op(op) if matches!(*op, "==" | "!=" | ">" | ">=" | "<" | "<=") => *op,
                Token::Name(name) if &**name == "in" => "in",
                Token::Name(name) if &**name == "not" => match self.look() {
                    Token::Name(next) if &**next == "in" => {
                        self.at += 1;
                        "not in"
                    }
                    _ => break,
                },
                _ => break,
            };
            self.at += 1;
            rest.push((op, self.math1()?));
        }
        Ok(match rest.is_empty() {
            true => left,
            false => Expr::Compare(Box::new(left), rest),
        })
    }

    fn math(
        &mut self,
        ops: &[&'static str],
        operand: fn(&mut Parser) -> Result<Expr>,
    ) -> Result<Expr> {
        let mut left = operand(self)?;
        loop {
            let op = match self.peek() {
                Token::Op(op) if ops.contains(op) => *op,
                _ => return Ok(left),
            };
            self.at += 1;
            self.chain()?;
            left = Expr::Math(op, Box::new(left), Box::new(operand(self)?));
        }
    }

    fn math1(&mut self) -> Result<Expr> {
        self.math(&["+", "-"], Parser::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.math2()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.math2()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn math2(&mut self) -> Result<Expr> {
        self.math(&["*", "/", "//", "%"], Parser::pow)
    }

    fn pow(&mut self) -> Result<Expr> {
        self.math(&["**"], |parser| parser.unary(true))
    }

    fn unary(&mut self, filter: bool) -> Result<Expr> {
        let node = if self.skip_op("-") {
            Expr::Neg(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else if self.skip_op("+") {
            Expr::Pos(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else {
            self.primary()?
        };
        let node = self.postfix(node)?;
        match filter {
            true => self.filter_expression(node),
            false => Ok(node),
        }
    }

    fn primary(&mut self) -> Result<Expr> {
        Ok(match self.peek().clone() {
            Token::Name(name) => {
                self.at += 1;
                match &*name {
                    "true" | "True" => Expr::Bool(true),
                    "false" | "False" => Expr::Bool(false),
                    "none" | "None" => Expr::None,
                    _ => {
                        let symbol = self.symbol(&name);
                        self.read(symbol);
                        Expr::Name(symbol)
                    }
                }
            }
            Token::Str(first) => {
                self.at += 1;
                let mut text = first.to_string();
                while let Token::Str(more) = self.peek().clone() {
                    self.at += 1;
                    text.push_str(&more);
                }
                Expr::Str(Str::constant(&text))
            }
            Token::Int(n) => {
                self.at += 1;
                Expr::Int(n)
            }
            Token::Float(n) => {
                self.at += 1;
                Expr::Float(n)
            }
            Token::Op("(") => {
                self.at += 1;
                let inner = self.deeper(|parser| parser.tuple_in(true, &[], false, true))?;
                self.expect_op(")")?;
                inner
            }
            Token::Op("[") => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.is_op("]") {
                    if !items.is_empty() {
                        self.expect_op(",")?;
                        if self.is_op("]") {
                            break;
                        }
                    }
                    items.push(self.expression()?);
                }
                self.expect_op("]")?;
                Expr::List(items)
            }
            Token::Op("{") => {
                self.at += 1;
                let mut pairs = Vec::new();
                while !self.is_op("}") {
                    if !pairs.is_empty() {
                        self.expect_op(",")?;
                        if self.is_op("}") {
                            break;
                        }
                    }
                    let key = self.expression()?;
                    self.expect_op(":")?;
                    pairs.push((key, self.expression()?));
                }
                self.expect_op("}")?;
                Expr::Dict(pairs)
            }
            other => return self.fail(format!("unexpected '{}'", other.describe())),
        })
    }

    fn postfix(&mut self, mut node: Expr) -> Result<Expr> {
        loop {
            let line = self.line();
            node = if self.skip_op(".") {
                match self.next() {
                    Token::Name(name) => Expr::Attr(Box::new(node), name),
                    Token::Int(n) => Expr::Item(Box::new(node), Box::new(Expr::Int(n))),
                    _ => return self.fail("expected name or number"),
                }
            } else if self.skip_op("[") {
                self.subscript(node)?
            } else if self.is_op("(") {
                Expr::Call(Box::new(node), Box::new(self.arguments()?), line)
            } else {
                return Ok(node);
            };
            self.chain()?;
        }
    }

    fn subscript(&mut self, node: Expr) -> Result<Expr> {
        let mut args = Vec::new();
        while !self.is_op("]") {
            if !args.is_empty() {
                self.expect_op(",")?;
            }
            let start = match self.is_op(":") {
                true => None,
                false => Some(self.expression()?),
            };
            if !self.skip_op(":") {
                args.extend(start);
                continue;
            }
            let ends = |parser: &Parser| parser.is_op("]") || parser.is_op(",");
            let stop = match self.is_op(":") || ends(self) {
                true => None,
                false => Some(self.expression()?),
            };
            let step = match self.skip_op(":") && !ends(self) {
                true => Some(self.expression()?),
                false => None,
            };
            self.expect_op("]")?;
            return match args.is_empty() {
                true => Ok(Expr::Slice(Box::new(node), Box::new([start, stop, step]))),
                false => self.fail("slices of several dimensions are not known"),
            };
        }
        self.expect_op("]")?;
        let index = match args.len() {
            1 => args.pop().unwrap_or(Expr::None),
            _ => Expr::Tuple(args),
        };
        Ok(Expr::Item(Box::new(node), Box::new(index)))
    }

    fn arguments(&mut self) -> Result<Args> {
        self.expect_op("(")?;
        let mut args = Args::default();
        let mut comma = false;
        while !self.is_op(")") {
            if comma {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            comma = true;
            let bad = "invalid syntax for function call expression";
            if self.skip_op("*") {
                if args.star.is_some() || args.stars.is_some() {
                    return self.fail(bad);
                }
                args.star = Some(self.expression()?);
            } else if self.skip_op("**") {
                if args.stars.is_some() {
                    return self.fail(bad);
                }
                args.stars = Some(self.expression()?);
            } else if let (Token::Name(name), Token::Op("=")) = (self.peek().clone(), self.look()) {
                if args.stars.is_some() {
                    return self.fail(bad);
                }
                self.at += 2;
                args.named.push((name, self.expression()?));
            } else {
                if args.star.is_some() || args.stars.is_some() || !args.named.is_empty() {
                    return self.fail(bad);
                }
                args.positional.push(self.expression()?);
            }
        }
        self.expect_op(")")?;
        Ok(args)
    }

    fn dotted(&mut self) -> Result<Str> {
        let mut name = self.expect_name()?.to_string();
        while self.skip_op(".") {
            name.push('.');
            name.push_str(&self.expect_name()?);
        }
        Ok(Str::constant(&name))
    }

    pub(super) fn filters(&mut self, node: Option<Expr>, inline: bool) -> Result<Expr> {
        let mut node = node;
        let mut inline = inline;
        while inline || self.skip_op("|") {
            inline = false;
            let line = self.line();
            let name = self.dotted()?;
            let args = match self.is_op("(") {
                true => self.arguments()?,
                false => Args::default(),
            };
            if !self.soft && !filters::known(&name) {
                self.unknown = Some(format!("No filter named '{}'.", &*name));
            }
            self.chain()?;
            node = Some(Expr::Filter(node.map(Box::new), name, Box::new(args), line));
        }
        match node {
            Some(node) => Ok(node),
            None => self.unexpected("name"),
        }
    }

    fn filter_expression(&mut self, mut node: Expr) -> Result<Expr> {
        loop {
            let line = self.line();
            node = if self.is_op("|") {
                self.filters(Some(node), false)?
            } else if self.skip_name("is") {
                self.test(node, line)?
            } else if self.is_op("(") {
                Expr::Call(Box::new(node), Box::new(self.arguments()?), line)
            } else {
                return Ok(node);
            };
            self.chain()?;
        }
    }

    fn test(&mut self, node: Expr, line: usize) -> Result<Expr> {
        let negated = self.skip_name("not");
        let name = self.dotted()?;
        let takes = match self.peek() {
            Token::Name(next) if &**next == "is" => {
                return self.fail("You cannot chain multiple tests with is");
            }
            Token::Name(next) => !matches!(&**next, "else" | "or" | "and"),
            Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Op("[" | "{") => true,
            _ => false,
        };
        let args = if self.is_op("(") {
            self.arguments()?
        } else if takes {
            let argument = self.primary()?;
            Args {
                positional: vec![self.postfix(argument)?],
                ..Args::default()
            }
        } else {
            Args::default()
        };
        if !self.soft && !is_tests::known(&name) {
            self.unknown = Some(format!("No test named '{}' found.", &*name));
        }
        let test = Expr::Test(Box::new(node), name, Box::new(args), line);
        Ok(match negated {
            true => Expr::Not(Box::new(test)),
            false => test,
        })
    }
}
