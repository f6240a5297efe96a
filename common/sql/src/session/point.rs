//! The short ways of reads and writes by a full unique key (DESIGN §11). A read is one descent, one page, and from the
//! tuple straight into the reply buffer, with no allocation for the row. A write is the executor's own, run again with
//! the memory of the execution before: nothing is built, and nothing decides differently.

use bytes::BufMut;
use towline_access::Transaction;
use towline_access::btree::{self, Direction};
use towline_access::heap::fetch;
use towline_types::{Datum, IoStyle, Stored, TypeId, write_disk_binary, write_disk_text};

use super::encode;
use super::prepared::{Lookup, format_of};
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::plan::{Change, IndexAccess, Kind, Node, Plan, PlanBody, ScanColumn, TableScan};
use crate::sink::RowSink;

/// A plan that is one lookup.
pub(crate) struct Point<'p> {
    scan: &'p TableScan,
    index: &'p std::sync::Arc<towline_access::catalog::Index>,
    keys: &'p [Option<ScalarExpr>],
    projection: Option<&'p [ScalarExpr]>,
}

impl Plan {
    /// The plan as a lookup by a full unique key whose answer is columns of the row, if it is one.
    pub(crate) fn point(&self) -> Option<Point<'_>> {
        match &self.body {
            PlanBody::Query(node) => point(node),
            PlanBody::Change(_) => None,
        }
    }
}

impl Plan {
    /// Whether it changes one row, found by a full unique key or given as values: then its execution is kept and run again.
    pub(crate) fn is_by_key(&self) -> bool {
        let PlanBody::Change(change) = &self.body else {
            return false;
        };
        let one_row = match &**change {
            Change::Insert { rows, input, .. } => input.is_none() && rows.len() == 1,
            Change::Modify { input, .. } => match &input.kind {
                Kind::IndexScan(_, access) => is_whole_key(access),
                _ => false,
            },
        };
        one_row && self.subplans.is_empty()
    }
}

/// Whether the scan is for one key of a unique index.
fn is_whole_key(access: &IndexAccess) -> bool {
    let range = &access.range;
    access.index.unique
        && range.equal.len() == access.index.keys.len()
        && range.any.is_none()
        && range.lower.is_empty()
        && range.upper.is_empty()
}

fn point(node: &Node) -> Option<Point<'_>> {
    let (node, projection) = match &node.kind {
        Kind::Project(input, exprs) => (&**input, Some(exprs.as_slice())),
        _ => (node, None),
    };
    let Kind::IndexScan(scan, access) = &node.kind else {
        return None;
    };
    let range = &access.range;
    let whole = is_whole_key(access) && scan.filter.is_empty();
    let simple =
        |key: &Option<ScalarExpr>| matches!(key, Some(ScalarExpr::Param { .. } | ScalarExpr::Const(..)));
    let stored = |column: &ScanColumn| match column {
        ScanColumn::Attribute(at) => scan
            .table
            .columns
            .get(usize::from(*at))
            .is_some_and(|column| !column.column_type.id.is_reg()),
        _ => false,
    };
    let columns =
        projection.is_none_or(|exprs| exprs.iter().all(|expr| matches!(expr, ScalarExpr::Column { .. })));
    (whole && columns && range.equal.iter().all(simple) && scan.columns.iter().all(stored)).then_some(Point {
        scan,
        index: &access.index,
        keys: &range.equal,
        projection,
    })
}

impl Point<'_> {
    /// Looks the row up and appends it to the reply; gives the number of rows, or nothing, without a reply, when the answer has a value
    /// out of line: that is fetched in slices, which is not done here.
    pub(crate) fn read(
        &self,
        txn: &mut Transaction,
        memory: &mut Lookup,
        params: &[Datum],
        formats: &[i16],
        style: &IoStyle,
        out: &mut dyn RowSink,
    ) -> Result<Option<u64>, SqlError> {
        let snapshot = txn.begin_statement();
        let Lookup { scan: memory, bounds } = memory;
        bounds.equal.clear();
        for (key, value) in self.index.keys.iter().zip(self.keys) {
            let value = match value {
                Some(ScalarExpr::Param { index, .. }) => params.get(*index).cloned().unwrap_or(Datum::Null),
                Some(ScalarExpr::Const(value, _)) => value.clone(),
                _ => Datum::Null,
            };
            let at = usize::try_from(key.column - 1).unwrap_or(usize::MAX);
            let ty = self
                .scan
                .table
                .columns
                .get(at)
                .map_or(TypeId::Unknown, |column| column.column_type.id);
            match crate::exec::exact_key(value, ty) {
                Some(value) => bounds.equal.push(value),
                None => return Ok(Some(0)),
            }
        }
        match memory {
            Some(scan) if std::sync::Arc::ptr_eq(scan.index(), self.index) => scan.restart(bounds)?,
            _ => {
                *memory = Some(btree::IndexScan::new(
                    self.index.clone(),
                    bounds,
                    Direction::Forward,
                )?)
            }
        }
        let Some(scan) = memory else { return Ok(Some(0)) };
        while let Some(tid) = scan.next(txn.engine().storage().pool())? {
            let Some(row) = fetch::fetch(txn, &snapshot, self.scan.table.node, tid)? else {
                continue;
            };
            return Ok(self.put(&row, formats, style, out)?.then_some(1));
        }
        Ok(Some(0))
    }

    /// False, and nothing is appended, when a value stands out of line.
    fn put(
        &self,
        row: &towline_access::heap::FetchedRow,
        formats: &[i16],
        style: &IoStyle,
        out: &mut dyn RowSink,
    ) -> Result<bool, SqlError> {
        let tuple = row.tuple();
        let table = &self.scan.table;
        let out = out.buffer();
        let message = encode::begin(b'D', out);
        let count = self
            .projection
            .map_or(self.scan.columns.len(), <[ScalarExpr]>::len);
        out.put_u16(count as u16);
        for place in 0..count {
            let column = match self.projection.map(|exprs| &exprs[place]) {
                Some(ScalarExpr::Column { index, .. }) => self.scan.columns.get(*index),
                Some(_) => None,
                None => self.scan.columns.get(place),
            };
            let at = match column {
                Some(ScanColumn::Attribute(at)) => usize::from(*at),
                _ => return Err(SqlError::internal("a lookup gives a column that is not stored")),
            };
            let payload = match table
                .layout
                .stored(tuple.data(), tuple.bitmap(), tuple.natts(), at)?
            {
                Some(Stored::External(_)) => {
                    out.truncate(message - 1);
                    return Ok(false);
                }
                Some(stored) => stored.payload()?,
                None => {
                    out.put_i32(-1);
                    continue;
                }
            };
            let id = table
                .columns
                .get(at)
                .map_or(TypeId::Unknown, |column| column.column_type.id);
            let start = out.len();
            out.put_u32(0);
            if format_of(formats, place) == 1 {
                write_disk_binary(id, &payload, out)?;
            } else {
                write_disk_text(id, &payload, style, out)?;
            }
            let length = (out.len() - start - 4) as u32;
            if let Some(slot) = out.get_mut(start..start + 4) {
                slot.copy_from_slice(&length.to_be_bytes());
            }
        }
        encode::end(message, out)?;
        Ok(true)
    }
}
