//! Arrays: value, text form and PostgreSQL's on-disk and wire layouts.

use crate::datum::Datum;
use crate::error::{Result, TypeError};
use crate::type_id::TypeId;
use smallvec::{SmallVec, smallvec};
use std::cmp::Ordering;
use towline_base::SqlState;

/// PostgreSQL's `MAXDIM`.
pub const MAX_DIMENSIONS: usize = 6;
/// The most elements an array may have (PostgreSQL's `MaxArraySize`, kept smaller than memory can hurt).
pub const MAX_ELEMENTS: usize = 1 << 24;

/// One dimension of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimension {
    /// Number of elements.
    pub len: i32,
    /// Subscript of the first element, usually 1.
    pub lower: i32,
}

/// An array value; elements in row-major order. An empty array has no dimensions.
#[derive(Clone, Debug)]
pub struct ArrayValue {
    /// Type of the elements.
    pub element: TypeId,
    /// The dimensions, outermost first.
    pub dims: SmallVec<[Dimension; 1]>,
    /// The elements.
    pub values: Vec<Datum>,
}

impl ArrayValue {
    /// A one-dimensional array with lower bound 1 (no dimension at all if empty).
    pub fn new(element: TypeId, values: Vec<Datum>) -> Self {
        let dims = if values.is_empty() {
            SmallVec::new()
        } else {
            smallvec![Dimension {
                len: values.len() as i32,
                lower: 1
            }]
        };
        ArrayValue {
            element,
            dims,
            values,
        }
    }

    /// Number of elements from the dimensions, refusing what no array can have.
    pub fn count(dims: &[Dimension]) -> Result<usize> {
        if dims.len() > MAX_DIMENSIONS {
            return Err(TypeError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "number of array dimensions ({}) exceeds the maximum allowed ({MAX_DIMENSIONS})",
                    dims.len()
                ),
            ));
        }
        if dims.is_empty() {
            return Ok(0);
        }
        let count = dims
            .iter()
            .try_fold(1usize, |n, d| {
                n.checked_mul(usize::try_from(d.len).ok()?)
                    .filter(|n| *n <= MAX_ELEMENTS)
            })
            .ok_or_else(|| {
                TypeError::new(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    format!("array size exceeds the maximum allowed ({MAX_ELEMENTS})"),
                )
            })?;
        // As PostgreSQL, which computes the bound behind the last.
        match dims.iter().find(|d| d.lower.checked_add(d.len).is_none()) {
            Some(dim) => Err(TypeError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("array lower bound is too large: {}", dim.lower),
            )),
            None => Ok(count),
        }
    }

    /// PostgreSQL's `btarraycmp`: elements first, then their number, then the dimensions.
    pub fn compare(&self, other: &ArrayValue) -> Ordering {
        let unequal = self
            .values
            .iter()
            .zip(&other.values)
            .map(|(a, b)| a.compare(b))
            .find(|o| o.is_ne());
        unequal
            .unwrap_or_else(|| self.values.len().cmp(&other.values.len()))
            .then_with(|| self.dims.len().cmp(&other.dims.len()))
            .then_with(|| {
                let key = |a: &ArrayValue| {
                    a.dims
                        .iter()
                        .map(|d| (d.len, d.lower))
                        .collect::<SmallVec<[_; 6]>>()
                };
                key(self).cmp(&key(other))
            })
    }
}
