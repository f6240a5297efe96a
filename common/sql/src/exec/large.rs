//! Values that a scanned row has out of line: fetched only for rows that are wanted, and only where somebody looks at them.
//!
//! A row whose header says that it has such values is decoded with [`Datum::External`] in their places. Those that the scan's filter reads
//! are fetched, the filter is asked, then the rest is; what an UPDATE only carries over stays a pointer. A large value is
//! read in slices, with nothing latched between them, and others run in between. Rows without such values never come here.

use std::sync::Arc;

use towline_access::catalog::Table;
use towline_access::toast::ToastReader;
use towline_types::{Datum, disk};

use super::{Flow, Row, Runtime};
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::plan::{ScanColumn, TableScan};

/// Chunks read between two looks at the clock: the rows of two pages.
const CHUNKS: usize = 8;

/// What a scan does about values out of line.
pub(super) struct Large {
    table: Arc<Table>,
    /// The attribute at each place of a row that somebody looks at, and whether the filter does.
    wanted: Vec<Option<(usize, bool)>>,
    /// The row being made whole, if there is one.
    row: Row,
    stage: Stage,
    reader: Option<(usize, Box<ToastReader>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No row.
    Idle,
    /// What the filter reads is being fetched.
    ForFilter,
    /// The row is wanted, and the rest is being fetched.
    Rest,
}

impl Large {
    pub(super) fn new(scan: &TableScan) -> Large {
        let reads = |place: usize| {
            scan.filter.iter().any(|condition| {
                condition.any(&|expr| match expr {
                    ScalarExpr::Column { index, .. } => *index == place,
                    // A subquery may be given any of them.
                    ScalarExpr::Subquery { .. } => true,
                    _ => false,
                })
            })
        };
        let wanted = scan
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| match column {
                ScanColumn::Attribute(at) if !scan.carried.contains(at) => {
                    Some((usize::from(*at), reads(place)))
                }
                _ => None,
            });
        Large {
            table: scan.table.clone(),
            // Most tables have nothing out of line, and then this is not asked for.
            wanted: if scan.table.toast.is_some() {
                wanted.collect()
            } else {
                Vec::new()
            },
            row: Row::new(),
            stage: Stage::Idle,
            reader: None,
        }
    }

    /// Whether the value at a place is to be fetched now. Where a table has no TOAST table it is, and ends in an error.
    fn looks_at(&self, place: usize, for_filter: bool) -> bool {
        match self.wanted.get(place) {
            Some(Some((_, by_filter))) => *by_filter || !for_filter,
            Some(None) => false,
            None => true,
        }
    }

    /// Whether a row is being made whole.
    #[inline]
    pub(super) fn is_busy(&self) -> bool {
        self.stage != Stage::Idle
    }

    /// Takes over a row that was just decoded.
    pub(super) fn begin(&mut self, row: &mut Row) {
        std::mem::swap(&mut self.row, row);
        self.stage = Stage::ForFilter;
        self.reader = None;
    }

    /// Forgets the row.
    pub(super) fn forget(&mut self) {
        self.stage = Stage::Idle;
        self.reader = None;
    }

    /// Goes on with the row; `Row` when it is whole and in `out`, `End` when the filter refuses it.
    pub(super) fn step(
        &mut self,
        rt: &Runtime<'_>,
        filter: &[ScalarExpr],
        outer: &[Datum],
        out: &mut Row,
    ) -> Result<Flow, SqlError> {
        loop {
            if let Some((place, reader)) = &mut self.reader {
                if rt.page() {
                    return Ok(Flow::Yield);
                }
                let Some(payload) = reader.step(&rt.txn.borrow(), CHUNKS)? else {
                    continue;
                };
                let attribute = self.wanted.get(*place).copied().flatten();
                let column = attribute.and_then(|(at, _)| self.table.columns.get(at));
                if let (Some(slot), Some(column)) = (self.row.get_mut(*place), column) {
                    *slot = disk::read(column.column_type.id, &payload)?;
                }
                self.reader = None;
            }
            let for_filter = self.stage == Stage::ForFilter;
            let next = self
                .row
                .iter()
                .enumerate()
                .find_map(|(place, value)| match value {
                    Datum::External(pointer) if self.looks_at(place, for_filter) => Some((place, *pointer)),
                    _ => None,
                });
            if let Some((place, pointer)) = next {
                self.reader = Some((place, Box::new(ToastReader::new(&self.table, pointer)?)));
                continue;
            }
            if self.stage == Stage::Rest {
                self.stage = Stage::Idle;
                std::mem::swap(&mut self.row, out);
                return Ok(Flow::Row);
            }
            if !rt.holds(filter, &self.row, outer)? {
                self.stage = Stage::Idle;
                return Ok(Flow::End);
            }
            self.stage = Stage::Rest;
        }
    }
}

/// Fetches, at one go, the values out of line of a row that was decoded with these columns, but for the attributes of `carried`.
pub(super) fn fetch_row(
    rt: &Runtime<'_>,
    table: &Table,
    columns: &[ScanColumn],
    carried: &[u16],
    row: &mut [Datum],
) -> Result<(), SqlError> {
    for (value, column) in row.iter_mut().zip(columns) {
        if let (Datum::External(pointer), ScanColumn::Attribute(at)) = (&value, column)
            && !carried.contains(at)
            && let Some(column) = table.columns.get(usize::from(*at))
        {
            let payload = towline_access::toast::read_value(&rt.txn.borrow(), table, *pointer)?;
            *value = disk::read(column.column_type.id, &payload)?;
        }
    }
    Ok(())
}
