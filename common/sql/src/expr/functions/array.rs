//! Array functions and operators.

use super::{FunctionDef, def, int, int32};
use crate::error::SqlError;
use crate::expr::EvalContext;
use crate::expr::tree::array_items;
use std::sync::Arc;
use towline_base::SqlState;
use towline_types::TypeId::*;
use towline_types::array::Dimension;
use towline_types::{ArrayValue, Datum};

type Answer = Result<Datum, SqlError>;

fn items(d: &Datum) -> smallvec::SmallVec<[Datum; 8]> {
    array_items(d).unwrap_or_default()
}

/// The dimensions; vectors count from 0.
fn dims(d: &Datum) -> Vec<Dimension> {
    let vector = |len: usize| {
        vec![Dimension {
            len: len as i32,
            lower: 0,
        }]
    };
    match d {
        Datum::Array(a) => a.dims.to_vec(),
        Datum::Int2Vector(v) => vector(v.len()),
        Datum::OidVector(v) => vector(v.len()),
        _ => Vec::new(),
    }
}

fn dimension(a: &[Datum]) -> Result<Option<Dimension>, SqlError> {
    let n = int(&a[1])?;
    Ok(usize::try_from(n - 1)
        .ok()
        .and_then(|i| dims(&a[0]).get(i).copied()))
}

fn array_length(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(dimension(a)?.map_or(Datum::Null, |d| Datum::Int4(d.len)))
}
fn array_lower(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(dimension(a)?.map_or(Datum::Null, |d| Datum::Int4(d.lower)))
}
fn array_upper(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(dimension(a)?.map_or(Datum::Null, |d| Datum::Int4(d.lower.wrapping_add(d.len - 1))))
}
fn array_ndims(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let n = dims(&a[0]).len() as i32;
    Ok(if n == 0 { Datum::Null } else { Datum::Int4(n) })
}
fn cardinality(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Int4(items(&a[0]).len() as i32))
}

/// A new one-dimensional array like `like`.
fn rebuilt(like: &Datum, values: Vec<Datum>) -> Datum {
    let element = match like {
        Datum::Array(a) => a.element,
        Datum::Int2Vector(_) => Int2,
        Datum::OidVector(_) => Oid,
        other => other.type_id(),
    };
    Datum::Array(Arc::new(ArrayValue::new(element, values)))
}

fn only_one_dimension(d: &Datum) -> Result<(), SqlError> {
    if dims(d).len() > 1 {
        return Err(SqlError::unsupported("this function on multidimensional arrays"));
    }
    Ok(())
}

fn cat(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    match (&a[0], &a[1]) {
        (Datum::Null, other) | (other, Datum::Null) => Ok(other.clone()),
        (x, y) if dims(x).is_empty() => Ok(y.clone()),
        (x, y) if dims(y).is_empty() => Ok(x.clone()),
        (x, y) => {
            only_one_dimension(x)?;
            only_one_dimension(y)?;
            Ok(rebuilt(x, items(x).into_iter().chain(items(y)).collect()))
        }
    }
}

fn element_array(element: &Datum, values: Vec<Datum>) -> Datum {
    Datum::Array(Arc::new(ArrayValue::new(element.type_id(), values)))
}

fn append(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if a[0].is_null() {
        return Ok(element_array(&a[1], vec![a[1].clone()]));
    }
    only_one_dimension(&a[0])?;
    Ok(rebuilt(
        &a[0],
        items(&a[0]).into_iter().chain([a[1].clone()]).collect(),
    ))
}

fn prepend(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if a[1].is_null() {
        return Ok(element_array(&a[0], vec![a[0].clone()]));
    }
    only_one_dimension(&a[1])?;
    Ok(rebuilt(
        &a[1],
        [a[0].clone()].into_iter().chain(items(&a[1])).collect(),
    ))
}

fn remove(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    only_one_dimension(&a[0])?;
    Ok(rebuilt(
        &a[0],
        items(&a[0]).into_iter().filter(|d| *d != a[1]).collect(),
    ))
}

fn replace(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let Datum::Array(array) = &a[0] else {
        return Ok(a[0].clone());
    };
    let swap = |d: &Datum| if *d == a[1] { a[2].clone() } else { d.clone() };
    let values = array.values.iter().map(swap).collect();
    Ok(Datum::Array(Arc::new(ArrayValue {
        element: array.element,
        dims: array.dims.clone(),
        values,
    })))
}

fn position(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    only_one_dimension(&a[0])?;
    let lower = dims(&a[0]).first().map_or(1, |d| d.lower);
    let at = items(&a[0]).iter().position(|d| *d == a[1]);
    Ok(at.map_or(Datum::Null, |i| Datum::Int4(lower + i as i32)))
}

fn contains_all(outer: &Datum, inner: &Datum) -> bool {
    let outer = items(outer);
    items(inner).iter().all(|d| !d.is_null() && outer.contains(d))
}

fn contains(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Bool(contains_all(&a[0], &a[1])))
}
fn contained(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Bool(contains_all(&a[1], &a[0])))
}
fn overlap(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let other = items(&a[1]);
    Ok(Datum::Bool(
        items(&a[0]).iter().any(|d| !d.is_null() && other.contains(d)),
    ))
}

fn fill(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let lens = items(&a[1]);
    let mut dims = smallvec::SmallVec::new();
    for len in &lens {
        dims.push(Dimension {
            len: int32(len)?,
            lower: 1,
        });
    }
    let count = ArrayValue::count(&dims)?;
    if count == 0 {
        dims.clear();
    }
    let element = a[0].type_id();
    Ok(Datum::Array(Arc::new(ArrayValue {
        element,
        dims,
        values: vec![a[0].clone(); count],
    })))
}

fn trim(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    only_one_dimension(&a[0])?;
    let (mut values, n) = (items(&a[0]).into_vec(), int(&a[1])?);
    match usize::try_from(n).ok().filter(|n| *n <= values.len()) {
        Some(n) => {
            values.truncate(values.len() - n);
            Ok(rebuilt(&a[0], values))
        }
        None => Err(SqlError::new(
            SqlState::ARRAY_SUBSCRIPT_ERROR,
            format!(
                "number of elements to trim must be between 0 and {}",
                values.len()
            ),
        )),
    }
}

pub(super) const DEFS: &[FunctionDef] = &[
    def("array_length", &[AnyArray, Int4], Int4, array_length),
    def("array_lower", &[AnyArray, Int4], Int4, array_lower),
    def("array_upper", &[AnyArray, Int4], Int4, array_upper),
    def("array_ndims", &[AnyArray], Int4, array_ndims),
    def("cardinality", &[AnyArray], Int4, cardinality),
    def("||", &[AnyArray, AnyArray], AnyArray, cat).nullable(),
    def("||", &[AnyArray, AnyElement], AnyArray, append).nullable(),
    def("||", &[AnyElement, AnyArray], AnyArray, prepend).nullable(),
    def("array_cat", &[AnyArray, AnyArray], AnyArray, cat).nullable(),
    def("array_append", &[AnyArray, AnyElement], AnyArray, append).nullable(),
    def("array_prepend", &[AnyElement, AnyArray], AnyArray, prepend).nullable(),
    def("array_remove", &[AnyArray, AnyElement], AnyArray, remove).nullable(),
    def(
        "array_replace",
        &[AnyArray, AnyElement, AnyElement],
        AnyArray,
        replace,
    )
    .nullable(),
    def("array_position", &[AnyArray, AnyElement], Int4, position).nullable(),
    def("array_fill", &[AnyElement, Int4Array], AnyArray, fill),
    def("trim_array", &[AnyArray, Int4], AnyArray, trim),
    def("@>", &[AnyArray, AnyArray], Bool, contains),
    def("<@", &[AnyArray, AnyArray], Bool, contained),
    def("&&", &[AnyArray, AnyArray], Bool, overlap),
];
