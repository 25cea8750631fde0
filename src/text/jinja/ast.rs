//! What a template is made of.

use super::text::Str;

/// A name of a variable, by its place in [`Tree::names`].
pub type Sym = usize;

/// An expression.
#[derive(Debug)]
pub enum Expr {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Str),
    Name(Sym),
    Tuple(Vec<Expr>),
    List(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attr(Box<Expr>, Str),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Box<Args>, usize),
    /// The value is absent in a filter block.
    Filter(Option<Box<Expr>>, Str, Box<Args>, usize),
    Test(Box<Expr>, Str, Box<Args>, usize),
    Not(Box<Expr>),
    Neg(Box<Expr>),
    Pos(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Math(&'static str, Box<Expr>, Box<Expr>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(&'static str, Expr)>),
    /// Condition, then, else, line
    If(Box<Expr>, Box<Expr>, Option<Box<Expr>>, usize),
}

/// The arguments of a call.
#[derive(Debug, Default)]
pub struct Args {
    pub positional: Vec<Expr>,
    pub named: Vec<(Str, Expr)>,
    pub star: Option<Expr>,
    pub stars: Option<Expr>,
}

/// Where a value goes.
#[derive(Debug)]
pub enum Target {
    Name(Sym),
    /// An attribute of a namespace
    Attr(Sym, Str),
    Tuple(Vec<Target>),
}

/// A statement with its line.
#[derive(Debug)]
pub struct Stmt {
    pub line: usize,
    pub kind: Kind,
}

/// What a statement does.
#[derive(Debug)]
pub enum Kind {
    Data(Str),
    Print(Expr),
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    /// By its place in [`Tree::loops`]
    For(usize),
    Set(Target, Expr),
    /// The body's text, through filters if there are any
    SetBlock(Target, Option<Expr>, Vec<Stmt>),
    With(Vec<(Target, Expr)>, Vec<Stmt>),
    /// By its place in [`Tree::macros`]
    Macro(usize),
    /// The call, and the macro that is its `caller`
    CallBlock(Expr, usize),
    FilterBlock(Expr, Vec<Stmt>),
    /// A scope of its own and nothing more
    Scope(Vec<Stmt>),
    /// By its place in [`Tree::blocks`]
    Block(usize),
    Break,
    Continue,
    /// What the environment cannot do, in its words
    Refuse(String),
}

/// A loop.
#[derive(Debug)]
pub struct For {
    pub target: Target,
    pub items: Expr,
    pub condition: Option<Expr>,
    pub recursive: bool,
    pub body: Vec<Stmt>,
    pub otherwise: Vec<Stmt>,
}

/// A macro or the body of a call block.
#[derive(Debug)]
pub struct Macro {
    pub name: Str,
    pub symbol: Option<Sym>,
    pub params: Vec<(Sym, Str)>,
    /// Of the last parameters
    pub defaults: Vec<Expr>,
    pub body: Vec<Stmt>,
    pub reads_caller: bool,
    pub reads_varargs: bool,
    pub reads_kwargs: bool,
}

/// A named block.
#[derive(Debug)]
pub struct Block {
    pub name: Str,
    pub scoped: bool,
    pub body: Vec<Stmt>,
}

/// A whole template.
#[derive(Debug, Default)]
pub struct Tree {
    pub names: Vec<Str>,
    pub body: Vec<Stmt>,
    pub loops: Vec<For>,
    pub macros: Vec<Macro>,
    pub blocks: Vec<Block>,
    /// Variables that are read before the template itself sets them
    pub free: Vec<Sym>,
}
