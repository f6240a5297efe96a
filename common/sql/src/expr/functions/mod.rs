//! The table of functions and operators: one row per signature.
//!
//! Each submodule owns the rows of one subject. A row's code gets arguments of exactly the types it declares (the
//! builder casts them), NULLs only if it is not strict.

mod arith;
mod array;
mod bytes;
mod compare;
mod datetime;
mod fromchar;
mod math;
mod pattern;
mod system;
mod text;
pub(crate) mod tochar;

pub(crate) use pattern::regexp_split;

use super::context::EvalContext;
use crate::error::SqlError;
use std::collections::HashMap;
use std::sync::OnceLock;
use towline_base::Lsn;
use towline_types::{Datum, Interval, Numeric, TypeId};

/// How stable a result is, PostgreSQL's `provolatile`; ordered from the most stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    /// The same for the same arguments, for ever.
    Immutable,
    /// The same within one statement.
    Stable,
    /// May differ at each call.
    Volatile,
}

/// The code of a function; NULL arguments come only to functions that are not strict.
pub type ScalarFn = fn(&EvalContext<'_>, &[Datum]) -> Result<Datum, SqlError>;

/// One function or operator with one signature. An operator's name is its symbol.
#[derive(Clone, Copy)]
pub struct FunctionDef {
    /// Lower-case name or operator symbol.
    pub name: &'static str,
    /// Argument types; with `variadic` the last repeats.
    pub args: &'static [TypeId],
    /// Result type; `AnyElement` and `AnyArray` follow the arguments.
    pub ret: TypeId,
    /// The last argument may be given any number of times.
    pub variadic: bool,
    /// How stable.
    pub volatility: Volatility,
    /// NULL in, NULL out, without a call.
    pub strict: bool,
    /// The code.
    pub eval: ScalarFn,
}

impl std::fmt::Debug for FunctionDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.name, self.args)
    }
}

/// An immutable strict function.
const fn def(name: &'static str, args: &'static [TypeId], ret: TypeId, eval: ScalarFn) -> FunctionDef {
    FunctionDef {
        name,
        args,
        ret,
        variadic: false,
        volatility: Volatility::Immutable,
        strict: true,
        eval,
    }
}

impl FunctionDef {
    const fn stable(mut self) -> Self {
        self.volatility = Volatility::Stable;
        self
    }

    const fn volatile(mut self) -> Self {
        self.volatility = Volatility::Volatile;
        self
    }

    /// Called with NULLs too.
    const fn nullable(mut self) -> Self {
        self.strict = false;
        self
    }

    const fn variadic(mut self) -> Self {
        self.variadic = true;
        self
    }

    /// Whether `count` arguments fit.
    pub(crate) fn takes(&self, count: usize) -> bool {
        if self.variadic {
            count >= self.args.len()
        } else {
            count == self.args.len()
        }
    }

    /// The declared type of argument `i`.
    pub(crate) fn arg(&self, i: usize) -> TypeId {
        self.args
            .get(i)
            .or(self.args.last())
            .copied()
            .unwrap_or(TypeId::Any)
    }
}

type Table = HashMap<&'static str, Vec<&'static FunctionDef>>;

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = Table::new();
        let groups: [&'static [FunctionDef]; 9] = [
            compare::defs(),
            arith::DEFS,
            math::DEFS,
            text::DEFS,
            pattern::DEFS,
            bytes::DEFS,
            datetime::DEFS,
            array::DEFS,
            system::defs(),
        ];
        for def in groups.into_iter().flatten() {
            table.entry(def.name).or_default().push(def);
        }
        table
    })
}

/// All signatures of a function or operator.
pub(crate) fn lookup(name: &str) -> &'static [&'static FunctionDef] {
    table().get(name).map_or(&[], Vec::as_slice)
}

/// Every row of the table, for `pg_proc` and `pg_operator`.
pub fn all_functions() -> impl Iterator<Item = &'static FunctionDef> {
    table().values().flatten().copied()
}

/// Whether a function of this name exists, as scalar function, aggregate or set-returning function.
pub fn function_exists(name: &str) -> bool {
    !lookup(name).is_empty() || super::aggregate::is_aggregate(name) || super::set::is_set_returning(name)
}

// What the rows' code uses to look into its arguments. A mismatch is a bug of the builder.

#[cold]
fn mismatch(expected: &str, got: &Datum) -> SqlError {
    SqlError::internal(format!(
        "argument of type {} where {expected} is declared",
        got.type_id().name()
    ))
}

fn int(d: &Datum) -> Result<i64, SqlError> {
    d.as_i64().ok_or_else(|| mismatch("integer", d))
}

fn int32(d: &Datum) -> Result<i32, SqlError> {
    match d {
        Datum::Int4(v) => Ok(*v),
        _ => Err(mismatch("integer", d)),
    }
}

fn float(d: &Datum) -> Result<f64, SqlError> {
    match d {
        Datum::Float8(v) => Ok(*v),
        Datum::Float4(v) => Ok(f64::from(*v)),
        _ => Err(mismatch("double precision", d)),
    }
}

fn num(d: &Datum) -> Result<&Numeric, SqlError> {
    match d {
        Datum::Numeric(v) => Ok(v),
        _ => Err(mismatch("numeric", d)),
    }
}

fn txt(d: &Datum) -> Result<&str, SqlError> {
    d.as_str().ok_or_else(|| mismatch("text", d))
}

fn boolean(d: &Datum) -> Result<bool, SqlError> {
    d.as_bool().ok_or_else(|| mismatch("boolean", d))
}

fn oid(d: &Datum) -> Result<u32, SqlError> {
    d.as_oid().ok_or_else(|| mismatch("oid", d))
}

fn bytea(d: &Datum) -> Result<&[u8], SqlError> {
    match d {
        Datum::Bytea(b) => Ok(b),
        _ => Err(mismatch("bytea", d)),
    }
}

fn span(d: &Datum) -> Result<Interval, SqlError> {
    match d {
        Datum::Interval(v) => Ok(*v),
        _ => Err(mismatch("interval", d)),
    }
}

/// µs of a timestamp, timestamptz or time.
fn micros(d: &Datum) -> Result<i64, SqlError> {
    match d {
        Datum::Timestamp(v) | Datum::TimestampTz(v) | Datum::Time(v) => Ok(*v),
        _ => Err(mismatch("timestamp", d)),
    }
}

fn date(d: &Datum) -> Result<i32, SqlError> {
    match d {
        Datum::Date(v) => Ok(*v),
        _ => Err(mismatch("date", d)),
    }
}

fn lsn(d: &Datum) -> Result<Lsn, SqlError> {
    match d {
        Datum::PgLsn(v) => Ok(*v),
        _ => Err(mismatch("pg_lsn", d)),
    }
}

fn text(s: &str) -> Datum {
    Datum::text(s)
}
