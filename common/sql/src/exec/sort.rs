//! Sorting in memory, bounded by the statement's limit.

use std::cmp::Ordering;

use towline_types::Datum;

use super::{Flow, Row, Runtime, Source, pull, size_of_datum};
use crate::error::SqlError;
use crate::plan::PlaceKey;

/// Compares two rows by sort keys.
pub(super) fn compare(keys: &[PlaceKey], left: &[Datum], right: &[Datum]) -> Ordering {
    for key in keys {
        let (Some(a), Some(b)) = (left.get(key.place), right.get(key.place)) else {
            continue;
        };
        let ordering = match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => {
                if key.nulls_first {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            (false, true) => {
                if key.nulls_first {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (false, false) => {
                if key.descending {
                    b.compare(a)
                } else {
                    a.compare(b)
                }
            }
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

/// All rows of the input, in order.
pub(super) struct Sort {
    input: Box<dyn Source>,
    keys: Vec<PlaceKey>,
    rows: Vec<Row>,
    loaded: bool,
    at: usize,
    bytes: usize,
}

impl Sort {
    pub(super) fn new(input: Box<dyn Source>, keys: Vec<PlaceKey>) -> Self {
        Sort {
            input,
            keys,
            rows: Vec::new(),
            loaded: false,
            at: 0,
            bytes: 0,
        }
    }
}

impl Source for Sort {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        while !self.loaded {
            let mut row = Row::new();
            if pull!(self.input.next(rt, outer, &mut row)) {
                let bytes = 24 + row.iter().map(size_of_datum).sum::<usize>();
                rt.keep_bytes(bytes)?;
                self.bytes += bytes;
                self.rows.push(row);
                if rt.tick()? {
                    return Ok(Flow::Yield);
                }
            } else {
                let keys = &self.keys;
                self.rows.sort_by(|left, right| compare(keys, left, right));
                self.loaded = true;
                self.at = 0;
            }
        }
        match self.rows.get_mut(self.at) {
            Some(row) => {
                self.at += 1;
                std::mem::swap(out, row);
                Ok(Flow::Row)
            }
            None => Ok(Flow::End),
        }
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        rt.forget(std::mem::take(&mut self.bytes));
        self.rows.clear();
        self.loaded = false;
        self.input.rescan(rt, outer, param)
    }
}
