//! Expressions evaluated.

use std::rc::Rc;

use super::arguments::Arguments;
use super::ast::{Args, Expr};
use super::dict::Dict;
use super::run::{Run, Scope};
use super::text::Builder;
use super::value::Value;
use super::{Error, Result, attributes, calls, filters, is_tests, operators, print};

impl<'t> Run<'t> {
    /// The value of an expression.
    ///
    /// # Errors
    /// If there is none, or a limit is reached.
    pub fn eval(&mut self, expression: &'t Expr, scope: &Rc<Scope>) -> Result<Value> {
        self.room()?;
        match expression {
            Expr::None => Ok(Value::None),
            Expr::Bool(flag) => Ok(Value::Bool(*flag)),
            Expr::Int(n) => Ok(Value::Int(*n)),
            Expr::Float(n) => Ok(Value::Float(*n)),
            Expr::Str(text) => Ok(Value::Str(text.clone())),
            Expr::Name(symbol) => Ok(self.name(*symbol, scope)),
            Expr::Tuple(items) => Value::tuple(self.all(items, scope)?),
            Expr::List(items) => Value::list(self.all(items, scope)?),
            Expr::Dict(pairs) => {
                let mut dict = Dict::new();
                for (key, value) in pairs {
                    let key = self.eval(key, scope)?;
                    let value = self.eval(value, scope)?;
                    dict.insert(key, value)?;
                }
                Ok(Value::dict(dict))
            }
            Expr::Attr(of, name) => {
                let of = self.eval(of, scope)?;
                attributes::attr(&of, name)
            }
            Expr::Item(of, index) => {
                let of = self.eval(of, scope)?;
                let index = self.eval(index, scope)?;
                attributes::item(&of, &index)
            }
            Expr::Slice(of, parts) => {
                let of = self.eval(of, scope)?;
                let mut part = |part: &'t Option<Expr>| match part {
                    Some(part) => self.eval(part, scope),
                    None => Ok(Value::None),
                };
                let [start, stop, step] = &**parts;
                let (start, stop, step) = (part(start)?, part(stop)?, part(step)?);
                attributes::slice(&of, &start, &stop, &step)
            }
            Expr::Call(.., line) => self
                .call_with(expression, scope, None)
                .map_err(|e| e.on(*line)),
            Expr::Filter(of, name, args, line) => {
                let of = match of {
                    Some(of) => self.eval(of, scope)?,
                    None => return Err(Error::runtime("a filter has no value")),
                };
                let arguments = self.arguments(args, scope)?;
                filters::apply(self, name, of, arguments).map_err(|e| e.on(*line))
            }
            Expr::Test(of, name, args, line) => {
                let of = self.eval(of, scope)?;
                let arguments = self.arguments(args, scope)?;
                is_tests::test(name, &of, arguments)
                    .map(Value::Bool)
                    .map_err(|e| e.on(*line))
            }
            Expr::Not(of) => Ok(Value::Bool(!self.eval(of, scope)?.truth())),
            Expr::Neg(of) => operators::negate(&self.eval(of, scope)?),
            Expr::Pos(of) => operators::plus(&self.eval(of, scope)?),
            Expr::And(a, b) => {
                let a = self.eval(a, scope)?;
                if a.truth() {
                    self.eval(b, scope)
                } else {
                    Ok(a)
                }
            }
            Expr::Or(a, b) => {
                let a = self.eval(a, scope)?;
                if a.truth() {
                    Ok(a)
                } else {
                    self.eval(b, scope)
                }
            }
            Expr::Math(op, a, b) => {
                let a = self.eval(a, scope)?;
                let b = self.eval(b, scope)?;
                operators::math(op, &a, &b)
            }
            Expr::Concat(parts) => {
                let mut out = Builder::default();
                for part in parts {
                    let part = self.eval(part, scope)?;
                    print::write(&part, &mut out)?;
                }
                Ok(Value::Str(out.finish()))
            }
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first, scope)?;
                for (op, right) in rest {
                    let right = self.eval(right, scope)?;
                    if !operators::compare(op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::If(condition, then, otherwise, line) => {
                match self.eval(condition, scope)?.truth() {
                    true => self.eval(then, scope),
                    false => match otherwise {
                        Some(otherwise) => self.eval(otherwise, scope),
                        None => Ok(Value::missing(format!(
                            "the inline if-expression on line {line} evaluated to false and no else section was defined."
                        ))),
                    },
                }
            }
        }
    }

    fn all(&mut self, items: &'t [Expr], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        items.iter().map(|item| self.eval(item, scope)).collect()
    }

    fn arguments(&mut self, args: &'t Args, scope: &Rc<Scope>) -> Result<Arguments> {
        let mut out = Arguments::of(self.all(&args.positional, scope)?);
        for (name, value) in &args.named {
            out.named.push((name.clone(), self.eval(value, scope)?));
        }
        if let Some(star) = &args.star {
            let star = self.eval(star, scope)?;
            out.positional.extend(star.iterate()?);
        }
        if let Some(stars) = &args.stars {
            let Value::Dict(dict) = self.eval(stars, scope)? else {
                return Err(Error::runtime("argument after ** must be a mapping"));
            };
            for (key, value) in dict.pairs() {
                match key {
                    Value::Str(name) => out.named.push((name.clone(), value.clone())),
                    _ => return Err(Error::runtime("keywords must be strings")),
                }
            }
        }
        Ok(out)
    }

    /// The value of a call, which is given `caller` if it is that of a call block.
    ///
    /// # Errors
    /// If what is called cannot be, or fails.
    pub fn call_with(
        &mut self,
        call: &'t Expr,
        scope: &Rc<Scope>,
        caller: Option<Value>,
    ) -> Result<Value> {
        let Expr::Call(callee, args, _) = call else {
            return Err(Error::runtime("expected call"));
        };
        let method = match &**callee {
            Expr::Attr(of, name) => {
                let of = self.eval(of, scope)?;
                match attributes::method(&of, name) {
                    Some(method) => Ok((of, method)),
                    None => Err(attributes::attr(&of, name)?),
                }
            }
            other => Err(self.eval(other, scope)?),
        };
        if let Err(callee) = &method {
            calls::callable(callee)?;
        }
        let mut arguments = self.arguments(args, scope)?;
        if let Some(caller) = caller {
            arguments
                .named
                .push((super::text::Str::constant("caller"), caller));
        }
        match method {
            Ok((of, method)) => calls::call_method(self, &of, method, arguments),
            Err(callee) => calls::call(self, &callee, arguments),
        }
    }

    /// Passes `value` through the filters of a block.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn filter_chain(
        &mut self,
        filters: &'t Expr,
        value: Value,
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        self.room()?;
        let Expr::Filter(of, name, args, line) = filters else {
            return Ok(value);
        };
        let value = match of {
            Some(of) => self.filter_chain(of, value, scope)?,
            None => value,
        };
        let arguments = self.arguments(args, scope)?;
        filters::apply(self, name, value, arguments).map_err(|e| e.on(*line))
    }
}
