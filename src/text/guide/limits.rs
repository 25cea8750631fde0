//! How much a form may ask for. All of it is meant to stop hostile specifications: what people and agents send is
//! far below.

use std::time::Duration;

/// Bytes of a schema (as JSON), a grammar, a regular expression, or all choices together.
pub const SPECIFICATION: usize = 512 * 1024;
/// Levels of subschemas in each other, and of values in `enum` and `const`.
pub const DEPTH: usize = 64;
/// Subschemas in all.
pub const SUBSCHEMAS: usize = 10_000;
/// Properties of one object.
pub const PROPERTIES: usize = 2_000;
/// Distinct targets of `$ref`.
pub const DEFINITIONS: usize = 1_000;
/// Branches of one `oneOf`, which are compared with each other.
pub const ONE_OF: usize = 128;
/// The largest length and count in a schema (`maxLength`, `minItems` and so on).
pub const COUNT: u64 = 100_000;
/// Texts of a choice.
pub const CHOICES: usize = 20_000;
/// Brackets in each other in a grammar.
pub const NESTING: usize = 64;
/// Rules and terminals of a grammar.
pub const RULES: usize = 1_000;

/// Steps of work on regular expressions while compiling; 50 thousand are about a millisecond.
pub const COMPILE_FUEL: u64 = 1_000_000;
/// The same for one mask.
pub const STEP_FUEL: u64 = 200_000;
/// Parser items for one mask.
pub const STEP_ITEMS: usize = 50_000;
/// Parser items for one place of the answer.
pub const ITEMS_IN_ROW: usize = 10_000;
/// States of an answer's lexer, about 1 to 2 kB each.
pub const LEXER_STATES: usize = 30_000;
/// Symbols of a compiled grammar.
pub const GRAMMAR_SYMBOLS: usize = 300_000;

/// How long one compilation may take.
pub const TIME: Duration = Duration::from_secs(10);
/// Compilations at a time, those that ran out of time but have not ended included.
pub const AT_A_TIME: usize = 4;
/// Stack of a compilation's thread: definitions that refer to each other are compiled within each other.
pub const STACK: usize = 256 << 20;
/// Bytes of compiled forms that are kept.
pub const CACHE: usize = 64 << 20;
