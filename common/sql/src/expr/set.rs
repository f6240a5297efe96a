//! Set-returning functions: a call that gives rows, made one by one.

use super::context::EvalContext;
use super::functions::{FunctionDef, Volatility};
use super::tree::{ScalarExpr, array_items, collect_elements};
use crate::error::SqlError;
use towline_base::SqlState;
use towline_types::datetime::fields;
use towline_types::datetime::zone::TimeZone;
use towline_types::{ColumnType, Datum, Interval, Numeric, TypeId};

/// A bound call of a set-returning function.
#[derive(Clone, Debug)]
pub struct SetCall {
    /// Its name, also the default name of its column.
    pub name: &'static str,
    /// Its arguments, cast to what it takes.
    pub args: Vec<ScalarExpr>,
    /// Names and types of the columns it gives.
    pub columns: Vec<(&'static str, ColumnType)>,
}

/// The rows of one call, made one by one.
#[derive(Clone, Debug)]
pub struct SetRows(Rows);

#[derive(Clone, Debug)]
enum Rows {
    Empty,
    Integers {
        next: i64,
        stop: i64,
        step: i64,
        wide: bool,
        done: bool,
    },
    Numerics {
        next: Numeric,
        stop: Numeric,
        step: Numeric,
    },
    /// With a zone: of timestamptz, moved by that zone's clock.
    Moments {
        next: i64,
        stop: i64,
        step: Interval,
        zone: Option<TimeZone>,
        forward: bool,
    },
    Listed {
        rows: std::vec::IntoIter<Vec<Datum>>,
    },
    /// Rows of one column.
    Values(std::vec::IntoIter<Datum>),
}

fn never(_: &EvalContext<'_>, _: &[Datum]) -> Result<Datum, SqlError> {
    Err(SqlError::internal("set-returning function called as a scalar"))
}

const fn set(name: &'static str, args: &'static [TypeId], ret: TypeId) -> FunctionDef {
    FunctionDef {
        name,
        args,
        ret,
        variadic: false,
        volatility: Volatility::Volatile,
        strict: true,
        eval: never,
    }
}

static SIGNATURES: &[FunctionDef] = {
    use TypeId::*;
    &[
        set("generate_series", &[Int4, Int4], Int4),
        set("generate_series", &[Int4, Int4, Int4], Int4),
        set("generate_series", &[Int8, Int8], Int8),
        set("generate_series", &[Int8, Int8, Int8], Int8),
        set("generate_series", &[Numeric, Numeric], Numeric),
        set("generate_series", &[Numeric, Numeric, Numeric], Numeric),
        set("generate_series", &[Timestamp, Timestamp, Interval], Timestamp),
        set(
            "generate_series",
            &[TimestampTz, TimestampTz, Interval],
            TimestampTz,
        ),
        set("generate_subscripts", &[AnyArray, Int4], Int4),
        set("unnest", &[AnyArray], AnyElement),
        set("string_to_table", &[Text, Text], Text),
        set("regexp_split_to_table", &[Text, Text], Text),
    ]
};

/// A function whose rows only the engine knows, with the names and types of its columns.
struct TableFunction {
    def: FunctionDef,
    columns: &'static [(&'static str, TypeId)],
}

static TABLE_FUNCTIONS: &[TableFunction] = {
    use TypeId::*;
    &[
        TableFunction {
            def: set("pg_show_all_settings", &[], Record),
            columns: &[
                ("name", Text),
                ("setting", Text),
                ("unit", Text),
                ("category", Text),
                ("short_desc", Text),
                ("extra_desc", Text),
                ("context", Text),
                ("vartype", Text),
                ("source", Text),
                ("min_val", Text),
                ("max_val", Text),
                ("enumvals", TextArray),
                ("boot_val", Text),
                ("reset_val", Text),
                ("sourcefile", Text),
                ("sourceline", Int4),
                ("pending_restart", Bool),
            ],
        },
        TableFunction {
            def: set("pg_get_keywords", &[], Record),
            columns: &[
                ("word", Text),
                ("catcode", Char),
                ("barelabel", Bool),
                ("catdesc", Text),
                ("baredesc", Text),
            ],
        },
        TableFunction {
            def: set("pg_ls_waldir", &[], Record),
            columns: &[("name", Text), ("size", Int8), ("modification", TimestampTz)],
        },
    ]
};

/// Whether a name is a set-returning function's.
pub(crate) fn is_set_returning(name: &str) -> bool {
    SIGNATURES
        .iter()
        .chain(TABLE_FUNCTIONS.iter().map(|t| &t.def))
        .any(|d| d.name == name)
}

/// The signatures of a name.
pub(super) fn candidates(name: &str) -> Vec<&'static FunctionDef> {
    SIGNATURES
        .iter()
        .chain(TABLE_FUNCTIONS.iter().map(|t| &t.def))
        .filter(|d| d.name == name)
        .collect()
}

/// The columns a signature gives.
pub(super) fn columns(def: &'static FunctionDef, element: Option<TypeId>) -> Vec<(&'static str, ColumnType)> {
    if let Some(table) = TABLE_FUNCTIONS.iter().find(|t| t.def.name == def.name) {
        return table
            .columns
            .iter()
            .map(|(name, ty)| (*name, ColumnType::new(*ty)))
            .collect();
    }
    let ret = if def.ret == TypeId::AnyElement {
        element.unwrap_or(TypeId::Text)
    } else {
        def.ret
    };
    vec![(def.name, ColumnType::new(ret))]
}

impl SetCall {
    /// Evaluates the arguments over `row` and starts the function. A NULL argument gives no rows.
    pub fn start(&self, row: &[Datum], cx: &EvalContext<'_>) -> Result<SetRows, SqlError> {
        let args = self
            .args
            .iter()
            .map(|e| e.eval(row, cx))
            .collect::<Result<Vec<_>, _>>()?;
        if TABLE_FUNCTIONS.iter().any(|t| t.def.name == self.name) {
            let rows = cx.functions.table_function(self.name, &args)?.into_iter();
            return Ok(SetRows(Rows::Listed { rows }));
        }
        if args.iter().any(Datum::is_null) {
            return Ok(SetRows(Rows::Empty));
        }
        let rows = match self.name {
            "generate_series" => series(&args, cx)?,
            "unnest" => {
                let items = array_items(&args[0]).unwrap_or_default();
                Rows::Values(items.into_vec().into_iter())
            }
            "generate_subscripts" => subscripts(&args[0], args[1].as_i64().unwrap_or(0)),
            "string_to_table" | "regexp_split_to_table" => {
                let (text, separator) = (
                    args[0].as_str().unwrap_or_default(),
                    args[1].as_str().unwrap_or_default(),
                );
                let parts = if self.name == "string_to_table" {
                    collect_elements(split_text(text, Some(separator)).map(Datum::text))?
                } else {
                    super::functions::regexp_split(text, separator)?
                };
                Rows::Values(parts.into_iter())
            }
            name => return Err(SqlError::unsupported(name)),
        };
        Ok(SetRows(rows))
    }
}

/// Parts of a text between separators; an empty separator gives the whole, none each character.
pub(crate) fn split_text<'t>(
    text: &'t str,
    separator: Option<&'t str>,
) -> Box<dyn Iterator<Item = &'t str> + 't> {
    match separator {
        _ if text.is_empty() => Box::new(std::iter::empty()),
        None => Box::new(text.char_indices().map(move |(i, c)| &text[i..i + c.len_utf8()])),
        Some("") => Box::new(std::iter::once(text)),
        Some(separator) => Box::new(text.split(separator)),
    }
}

fn subscripts(array: &Datum, dimension: i64) -> Rows {
    let bounds = match array {
        Datum::Array(a) => usize::try_from(dimension - 1)
            .ok()
            .and_then(|i| a.dims.get(i))
            .map(|d| (i64::from(d.lower), i64::from(d.lower) + i64::from(d.len) - 1)),
        Datum::Int2Vector(v) if dimension == 1 && !v.is_empty() => Some((0, v.len() as i64 - 1)),
        Datum::OidVector(v) if dimension == 1 && !v.is_empty() => Some((0, v.len() as i64 - 1)),
        _ => None,
    };
    match bounds {
        Some((next, stop)) => Rows::Integers {
            next,
            stop,
            step: 1,
            wide: false,
            done: false,
        },
        None => Rows::Empty,
    }
}

fn series(args: &[Datum], cx: &EvalContext<'_>) -> Result<Rows, SqlError> {
    let zero = |what: &str| {
        SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("{what} cannot equal zero"),
        )
    };
    match args {
        [Datum::Numeric(start), Datum::Numeric(stop), rest @ ..] => {
            let step = match rest {
                [Datum::Numeric(step)] => step.clone(),
                _ => Numeric::from(1),
            };
            for (n, what) in [(start, "start value"), (stop, "stop value"), (&step, "step size")] {
                if n.is_nan() || n.is_infinite() {
                    let kind = if n.is_nan() { "NaN" } else { "infinity" };
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!("{what} cannot be {kind}"),
                    ));
                }
            }
            if step.is_zero() {
                return Err(zero("step size"));
            }
            Ok(Rows::Numerics {
                next: start.clone(),
                stop: stop.clone(),
                step,
            })
        }
        [
            start @ (Datum::Timestamp(next) | Datum::TimestampTz(next)),
            Datum::Timestamp(stop) | Datum::TimestampTz(stop),
            Datum::Interval(step),
        ] => {
            let span = step.span();
            if span == 0 {
                return Err(zero("step size"));
            }
            let zone = matches!(start, Datum::TimestampTz(_)).then(|| cx.style.time_zone.clone());
            Ok(Rows::Moments {
                next: *next,
                stop: *stop,
                step: *step,
                zone,
                forward: span > 0,
            })
        }
        [start, stop, rest @ ..] => {
            let step = rest.first().map_or(Some(1), Datum::as_i64).unwrap_or(1);
            if step == 0 {
                return Err(zero("step size"));
            }
            match (start.as_i64(), stop.as_i64()) {
                (Some(next), Some(stop)) => Ok(Rows::Integers {
                    next,
                    stop,
                    step,
                    wide: matches!(start, Datum::Int8(_)),
                    done: false,
                }),
                _ => Err(SqlError::internal("generate_series over another type")),
            }
        }
        _ => Err(SqlError::internal("generate_series without arguments")),
    }
}

impl SetRows {
    /// The next row, appended to `out`; false at the end.
    pub fn next_row(&mut self, out: &mut Vec<Datum>) -> Result<bool, SqlError> {
        match &mut self.0 {
            Rows::Empty => Ok(false),
            Rows::Integers {
                next,
                stop,
                step,
                wide,
                done,
            } => {
                if *done || (*step > 0 && *next > *stop) || (*step < 0 && *next < *stop) {
                    return Ok(false);
                }
                out.push(if *wide {
                    Datum::Int8(*next)
                } else {
                    Datum::Int4(*next as i32)
                });
                match next.checked_add(*step) {
                    Some(value) => *next = value,
                    None => *done = true,
                }
                Ok(true)
            }
            Rows::Numerics { next, stop, step } => {
                let past = if step.is_negative() {
                    *next < *stop
                } else {
                    *next > *stop
                };
                if past {
                    return Ok(false);
                }
                let value = next.clone();
                *next = next.add(step)?;
                out.push(Datum::Numeric(value));
                Ok(true)
            }
            Rows::Moments {
                next,
                stop,
                step,
                zone,
                forward,
            } => {
                if (*forward && *next > *stop) || (!*forward && *next < *stop) {
                    return Ok(false);
                }
                *next = match zone {
                    Some(zone) => {
                        out.push(Datum::TimestampTz(*next));
                        fields::add_interval_tz(*next, step, zone)?
                    }
                    None => {
                        out.push(Datum::Timestamp(*next));
                        fields::add_interval(*next, step)?
                    }
                };
                Ok(true)
            }
            Rows::Values(values) => match values.next() {
                Some(value) => {
                    out.push(value);
                    Ok(true)
                }
                None => Ok(false),
            },
            Rows::Listed { rows } => match rows.next() {
                Some(row) => {
                    out.extend(row);
                    Ok(true)
                }
                None => Ok(false),
            },
        }
    }
}
