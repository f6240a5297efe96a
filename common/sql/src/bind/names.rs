//! Type names, and the names of result columns.

use towline_base::SqlState;
use towline_types::{ColumnType, TypeId};

use crate::error::SqlError;
use crate::parse::ast::{Body, Expr, Query, Target, TypeName};
use crate::parse::lex::char_position;

/// The type a name means; 42704 if there is none.
pub(crate) fn bind_type(name: &TypeName, text: &str) -> Result<ColumnType, SqlError> {
    let undefined = || {
        let written: Vec<&str> = name.name.iter().map(|part| part.text.as_str()).collect();
        SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("type \"{}\" does not exist", written.join(".")),
        )
        .with_position(char_position(text, name.pos))
    };
    let simple = match name.name.as_slice() {
        [simple] => simple,
        [schema, simple] if schema.text == "pg_catalog" => simple,
        _ => return Err(undefined()),
    };
    let named = towline_types::type_id::TYPES
        .iter()
        .find(|ty| ty.name == simple.text)
        .map(|ty| ty.id);
    let Some(mut id) = named else {
        const KNOWN: &[&str] = &[
            "json",
            "jsonb",
            "uuid",
            "xml",
            "money",
            "point",
            "box",
            "circle",
            "line",
            "lseg",
            "path",
            "polygon",
            "cidr",
            "macaddr",
            "macaddr8",
            "tsvector",
            "tsquery",
            "timetz",
            "bit",
            "varbit",
            "int4range",
            "int8range",
            "numrange",
            "daterange",
            "tsrange",
            "tstzrange",
            "jsonpath",
        ];
        if KNOWN.contains(&simple.text.as_str()) {
            return Err(SqlError::unsupported(format!("type {}", simple.text))
                .with_position(char_position(text, name.pos)));
        }
        const SERIAL: &[&str] = &[
            "serial",
            "bigserial",
            "smallserial",
            "serial4",
            "serial8",
            "serial2",
        ];
        if SERIAL.contains(&simple.text.as_str()) {
            return Err(
                SqlError::unsupported("type serial (sequences)").with_position(char_position(text, name.pos))
            );
        }
        return Err(undefined());
    };
    let modifiers: Vec<i64> = name
        .modifiers
        .iter()
        .map(|modifier| i64::from(*modifier))
        .collect();
    let mut ty = if modifiers.is_empty() {
        ColumnType::new(id)
    } else {
        ColumnType::with_modifiers(id, &modifiers)
            .map_err(|error| SqlError::from(error).with_position(char_position(text, name.pos)))?
    };
    if name.array {
        id = id.array().ok_or_else(|| {
            SqlError::unsupported(format!("an array of type {}", simple.text))
                .with_position(char_position(text, name.pos))
        })?;
        ty = ColumnType {
            id,
            typmod: ty.typmod,
        };
    }
    Ok(ty)
}

/// The name PostgreSQL gives a column without alias, and how sure it is of it (0 none, 1 weak, 2 strong).
fn figure(expr: &Expr) -> (Option<String>, u8) {
    let strong = |name: &str| (Some(name.to_owned()), 2);
    match expr {
        Expr::Column(name) => name.last().map_or((None, 0), |last| strong(&last.text)),
        Expr::Subscript(arg, ..) | Expr::Collate(arg, ..) => figure(arg),
        Expr::Call(call) => call.name.last().map_or((None, 0), |last| strong(&last.text)),
        Expr::Cast(arg, ty, _) => match figure(arg) {
            (Some(name), 2) => (Some(name), 2),
            _ => (ty.name.last().map(|last| last.text.clone()), 1),
        },
        Expr::Case { otherwise, .. } => match otherwise.as_deref().map(figure) {
            Some((Some(name), 2)) => (Some(name), 2),
            _ => (Some("case".to_owned()), 1),
        },
        Expr::Coalesce(..) => strong("coalesce"),
        Expr::NullIf(..) => strong("nullif"),
        Expr::Greatest(true, ..) => strong("greatest"),
        Expr::Greatest(false, ..) => strong("least"),
        Expr::Array(..) | Expr::ArrayQuery(..) => strong("array"),
        Expr::Row(..) => strong("row"),
        Expr::Exists(..) => strong("exists"),
        Expr::Subquery(query, _) => subquery_name(query),
        _ => (None, 0),
    }
}

fn subquery_name(query: &Query) -> (Option<String>, u8) {
    match &query.body {
        Body::Select(select) => match select.targets.first() {
            Some(Target::Expr(_, Some(alias))) => (Some(alias.text.clone()), 2),
            Some(Target::Expr(expr, None)) => figure(expr),
            _ => (None, 0),
        },
        Body::Values(..) => (Some("column1".to_owned()), 2),
        Body::Set { left, .. } => subquery_name(left),
    }
}

/// The name of a result column.
pub(crate) fn column_name(expr: &Expr) -> String {
    figure(expr).0.unwrap_or_else(|| "?column?".to_owned())
}

/// Whether a type may be a table's column; the error otherwise (42P16).
pub(crate) fn check_storable(ty: ColumnType, column: &str) -> Result<(), SqlError> {
    if ty.id.is_storable() && ty.id != TypeId::Cstring {
        return Ok(());
    }
    Err(SqlError::new(
        SqlState::INVALID_TABLE_DEFINITION,
        format!("column \"{column}\" has pseudo-type {}", ty.id.name()),
    ))
}
