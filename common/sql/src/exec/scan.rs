//! Leaves of the tree: tables, indexes, views, functions, subqueries.

use std::sync::Arc;

use towline_access::btree::{self, Bound, Direction, ScanBounds};
use towline_access::catalog::Table;
use towline_access::heap::{HeapScan, TupleRef, fetch};
use towline_base::Tid;
use towline_types::{Datum, Stored, TypeId, disk};

use super::large::Large;
use super::{Flow, Row, Runtime, Source, count_removed, pull};
use crate::error::SqlError;
use crate::expr::{ScalarExpr, SetCall, SetRows};
use crate::plan::{BoundExpr, IndexAccess, IndexRange, ScanColumn, TableScan};

/// Puts the wanted columns of a stored row into `out`. Attributes come in ascending order; values out of line are left to be fetched.
pub(crate) fn decode(
    table: &Table,
    columns: &[ScanColumn],
    tuple: TupleRef<'_>,
    tid: Tid,
    out: &mut Row,
) -> Result<(), SqlError> {
    out.clear();
    let mut cursor = table.layout.cursor(tuple.data(), tuple.bitmap(), tuple.natts());
    for column in columns {
        match column {
            ScanColumn::Attribute(at) => {
                let at = usize::from(*at);
                cursor.skip_to(at)?;
                out.push(match (cursor.next_stored()?, table.columns.get(at)) {
                    (Some(Stored::External(pointer)), _) => Datum::External(pointer),
                    (Some(stored), Some(column)) => disk::read(column.column_type.id, &stored.payload()?)?,
                    _ => Datum::Null,
                });
            }
            system => out.push(system_value(table, *system, tuple, tid)),
        }
    }
    Ok(())
}

pub(crate) fn system_value(table: &Table, column: ScanColumn, tuple: TupleRef<'_>, tid: Tid) -> Datum {
    match column {
        ScanColumn::Ctid => Datum::Tid(tid),
        ScanColumn::Xmin => Datum::Xid(tuple.xmin()),
        ScanColumn::Xmax => Datum::Xid(tuple.xmax()),
        ScanColumn::TableOid => Datum::Oid(table.oid.0),
        ScanColumn::Attribute(_) => Datum::Null,
    }
}

/// All pages of a table.
pub(super) struct SeqScan {
    table: Arc<Table>,
    columns: Vec<ScanColumn>,
    filter: Vec<ScalarExpr>,
    id: usize,
    scan: Option<HeapScan>,
    in_page: bool,
    large: Large,
}

impl SeqScan {
    pub(super) fn new(scan: &TableScan, id: usize) -> Self {
        SeqScan {
            table: scan.table.clone(),
            columns: scan.columns.clone(),
            filter: scan.filter.clone(),
            id,
            scan: None,
            in_page: false,
            large: Large::new(scan),
        }
    }
}

impl Source for SeqScan {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        if self.scan.is_none() {
            self.scan = Some(HeapScan::new(&rt.txn.borrow(), self.table.node)?);
            self.in_page = false;
        }
        let Some(scan) = &mut self.scan else {
            return Ok(Flow::End);
        };
        loop {
            if self.large.is_busy() {
                match self.large.step(rt, &self.filter, outer, out)? {
                    Flow::End => count_removed(rt, self.id),
                    flow => return Ok(flow),
                }
            }
            if !self.in_page {
                if rt.page() {
                    return Ok(Flow::Yield);
                }
                if !scan.next_page(&rt.txn.borrow(), &rt.snapshot)? {
                    return Ok(Flow::End);
                }
                self.in_page = true;
            }
            let mut is_large = false;
            while let Some((tid, tuple)) = scan.next_row() {
                decode(&self.table, &self.columns, tuple, tid, out)?;
                if tuple.has_external() {
                    is_large = true;
                    break;
                }
                if rt.holds(&self.filter, out, outer)? {
                    return Ok(Flow::Row);
                }
                count_removed(rt, self.id);
            }
            if is_large {
                self.large.begin(out);
            } else {
                self.in_page = false;
            }
        }
    }

    fn rescan(&mut self, rt: &Runtime<'_>, _: &[Datum], _: &[Datum]) -> Result<(), SqlError> {
        self.large.forget();
        if let Some(scan) = &mut self.scan {
            scan.restart(&rt.txn.borrow())?;
        }
        self.in_page = false;
        Ok(())
    }
}

/// A value as a bound of an index column.
enum KeyValue {
    Value(Datum),
    Null,
    /// Below or above everything the column can hold.
    Below,
    Above,
}

/// Turns a value of a kindred type into one of the column's.
fn key_value(value: Datum, column: TypeId) -> KeyValue {
    if value.is_null() {
        return KeyValue::Null;
    }
    let out_of_range = |number: i64| {
        if number < 0 {
            KeyValue::Below
        } else {
            KeyValue::Above
        }
    };
    match column {
        TypeId::Int2 => match value.as_i64() {
            Some(number) => i16::try_from(number).map_or_else(
                |_| out_of_range(number),
                |number| KeyValue::Value(Datum::Int2(number)),
            ),
            None => KeyValue::Value(value),
        },
        TypeId::Int4 => match value.as_i64() {
            Some(number) => i32::try_from(number).map_or_else(
                |_| out_of_range(number),
                |number| KeyValue::Value(Datum::Int4(number)),
            ),
            None => KeyValue::Value(value),
        },
        TypeId::Int8 => KeyValue::Value(value.as_i64().map_or(value, Datum::Int8)),
        _ => KeyValue::Value(value),
    }
}

/// A value for equality with a column of this type; `None`: nothing is equal to it.
pub(crate) fn exact_key(value: Datum, column: TypeId) -> Option<Datum> {
    match key_value(value, column) {
        KeyValue::Value(value) => Some(value),
        KeyValue::Null | KeyValue::Below | KeyValue::Above => None,
    }
}

/// Rows found by an index.
pub(super) struct IndexScan {
    table: Arc<Table>,
    columns: Vec<ScanColumn>,
    filter: Vec<ScalarExpr>,
    index: Arc<towline_access::catalog::Index>,
    range: IndexRange,
    direction: Direction,
    id: usize,
    scan: Option<btree::IndexScan>,
    /// Equality values; further values of `= ANY`, last first.
    bounds: ScanBounds,
    more: Vec<Datum>,
    started: bool,
    done: bool,
    param: Row,
    large: Large,
}

impl IndexScan {
    pub(super) fn new(scan: &TableScan, access: &IndexAccess, id: usize) -> Self {
        IndexScan {
            table: scan.table.clone(),
            columns: scan.columns.clone(),
            filter: scan.filter.clone(),
            index: access.index.clone(),
            range: access.range.clone(),
            direction: if access.backward {
                Direction::Backward
            } else {
                Direction::Forward
            },
            id,
            scan: None,
            bounds: ScanBounds::default(),
            more: Vec::new(),
            started: false,
            done: false,
            param: Vec::new(),
            large: Large::new(scan),
        }
    }

    fn column_type(&self, key: usize) -> TypeId {
        self.index
            .keys
            .get(key)
            .and_then(|key| usize::try_from(key.column - 1).ok())
            .and_then(|at| self.table.columns.get(at))
            .map_or(TypeId::Unknown, |column| column.column_type.id)
    }

    /// Computes the bounds; false: nothing can match.
    fn prepare(&mut self, rt: &Runtime<'_>, outer: &[Datum]) -> Result<bool, SqlError> {
        let cx = rt.eval(outer);
        let mut bounds = std::mem::take(&mut self.bounds);
        bounds.equal.clear();
        (bounds.lower, bounds.upper, bounds.not_null) = (None, None, false);
        self.more.clear();
        for (key, value) in self.range.equal.iter().enumerate() {
            let Some(value) = value else {
                bounds.equal.push(Datum::Null);
                continue;
            };
            match key_value(value.eval(&self.param, &cx)?, self.column_type(key)) {
                KeyValue::Value(value) => bounds.equal.push(value),
                KeyValue::Null | KeyValue::Below | KeyValue::Above => return Ok(false),
            }
        }
        let next = self.range.equal.len();
        let ty = self.column_type(next);
        if let Some(array) = &self.range.any {
            let array = array.eval(&self.param, &cx)?;
            let Some(elements) = crate::expr::array_elements(&array) else {
                return Ok(false);
            };
            let mut values: Vec<Datum> = elements
                .into_iter()
                .filter_map(|element| match key_value(element, ty) {
                    KeyValue::Value(value) => Some(value),
                    _ => None,
                })
                .collect();
            values.sort_by(|left, right| right.compare(left));
            values.dedup_by(|left, right| left.compare(right).is_eq());
            let Some(first) = values.pop() else {
                return Ok(false);
            };
            bounds.equal.push(first);
            self.more = values;
            self.bounds = bounds;
            return Ok(true);
        }
        let tightest = |list: &[BoundExpr], lower: bool| -> Result<Option<Option<Bound>>, SqlError> {
            let mut best: Option<Bound> = None;
            for bound in list {
                let value = match key_value(bound.value.eval(&self.param, &cx)?, ty) {
                    KeyValue::Value(value) => value,
                    KeyValue::Null => return Ok(None),
                    KeyValue::Below if lower => continue,
                    KeyValue::Above if !lower => continue,
                    KeyValue::Below | KeyValue::Above => return Ok(None),
                };
                let tighter = best.as_ref().is_none_or(|best| {
                    let ordering = value.compare(&best.value);
                    let outer = if lower { ordering.is_gt() } else { ordering.is_lt() };
                    outer || ordering.is_eq() && !bound.inclusive
                });
                if tighter {
                    best = Some(Bound {
                        value,
                        inclusive: bound.inclusive,
                    });
                }
            }
            Ok(Some(best))
        };
        let (Some(lower), Some(upper)) = (
            tightest(&self.range.lower, true)?,
            tightest(&self.range.upper, false)?,
        ) else {
            return Ok(false);
        };
        bounds.not_null = !self.range.lower.is_empty() || !self.range.upper.is_empty();
        bounds.lower = lower;
        bounds.upper = upper;
        self.bounds = bounds;
        Ok(true)
    }

    fn begin(&mut self) -> Result<(), SqlError> {
        match &mut self.scan {
            Some(scan) => scan.restart(&self.bounds)?,
            None => {
                self.scan = Some(btree::IndexScan::new(
                    self.index.clone(),
                    &self.bounds,
                    self.direction,
                )?)
            }
        }
        Ok(())
    }
}

impl Source for IndexScan {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        if self.done {
            return Ok(Flow::End);
        }
        if !self.started {
            self.started = true;
            // A REPEATABLE READ snapshot from before CREATE INDEX: the index lacks versions that it must see.
            if !self.index.usable_at(rt.snapshot.lsn) {
                return Err(towline_access::AccessError::new(
                    towline_base::SqlState::SERIALIZATION_FAILURE,
                    format!(
                        "could not serialize access due to the creation of index \"{}\"",
                        self.index.name
                    ),
                )
                .into());
            }
            if !self.prepare(rt, outer)? {
                self.done = true;
                return Ok(Flow::End);
            }
            self.begin()?;
        }
        loop {
            if self.large.is_busy() {
                match self.large.step(rt, &self.filter, outer, out)? {
                    Flow::End => count_removed(rt, self.id),
                    flow => return Ok(flow),
                }
            }
            if rt.page() {
                return Ok(Flow::Yield);
            }
            let Some(scan) = &mut self.scan else {
                return Ok(Flow::End);
            };
            let txn = rt.txn.borrow();
            let Some(tid) = scan.next(txn.engine().storage().pool())? else {
                drop(txn);
                // The next value of `= ANY`.
                let Some(value) = self.more.pop() else {
                    self.done = true;
                    return Ok(Flow::End);
                };
                self.bounds.equal.pop();
                self.bounds.equal.push(value);
                self.begin()?;
                continue;
            };
            let Some(row) = fetch::fetch(&txn, &rt.snapshot, self.table.node, tid)? else {
                continue;
            };
            let is_large = row.tuple().has_external();
            decode(&self.table, &self.columns, row.tuple(), row.tid(), out)?;
            drop(row);
            drop(txn);
            if is_large {
                self.large.begin(out);
                continue;
            }
            if rt.holds(&self.filter, out, outer)? {
                return Ok(Flow::Row);
            }
            count_removed(rt, self.id);
        }
    }

    fn rescan(&mut self, _: &Runtime<'_>, _: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        self.started = false;
        self.done = false;
        self.large.forget();
        self.param.clear();
        self.param.extend_from_slice(param);
        Ok(())
    }
}

/// A virtual view of the catalog.
pub(super) struct ViewScan {
    view: Arc<Table>,
    columns: Vec<usize>,
    filter: Vec<ScalarExpr>,
    rows: Option<std::vec::IntoIter<Row>>,
}

impl ViewScan {
    pub(super) fn new(view: Arc<Table>, columns: Vec<usize>, filter: Vec<ScalarExpr>) -> Self {
        ViewScan {
            view,
            columns,
            filter,
            rows: None,
        }
    }
}

impl Source for ViewScan {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        if self.rows.is_none() {
            self.rows = Some(rt.views.rows(&self.view)?.into_iter());
        }
        let Some(rows) = &mut self.rows else {
            return Ok(Flow::End);
        };
        for row in rows {
            out.clear();
            out.extend(
                self.columns
                    .iter()
                    .map(|column| row.get(*column).cloned().unwrap_or(Datum::Null)),
            );
            if rt.holds(&self.filter, out, outer)? {
                return Ok(Flow::Row);
            }
        }
        Ok(Flow::End)
    }

    fn rescan(&mut self, _: &Runtime<'_>, _: &[Datum], _: &[Datum]) -> Result<(), SqlError> {
        self.rows = None;
        Ok(())
    }
}

/// A set-returning function, over the row of the loop it stands in.
pub(super) struct FunctionScan {
    call: SetCall,
    ordinality: bool,
    filter: Vec<ScalarExpr>,
    rows: Option<SetRows>,
    number: i64,
    param: Row,
}

impl FunctionScan {
    pub(super) fn new(call: SetCall, ordinality: bool, filter: Vec<ScalarExpr>) -> Self {
        FunctionScan {
            call,
            ordinality,
            filter,
            rows: None,
            number: 0,
            param: Vec::new(),
        }
    }
}

impl Source for FunctionScan {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        if self.rows.is_none() {
            self.rows = Some(self.call.start(&self.param, &rt.eval(outer))?);
            self.number = 0;
        }
        loop {
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
            let Some(rows) = &mut self.rows else {
                return Ok(Flow::End);
            };
            out.clear();
            if !rows.next_row(out)? {
                return Ok(Flow::End);
            }
            self.number += 1;
            if self.ordinality {
                out.push(Datum::Int8(self.number));
            }
            if rt.holds(&self.filter, out, outer)? {
                return Ok(Flow::Row);
            }
        }
    }

    fn rescan(&mut self, _: &Runtime<'_>, _: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        self.rows = None;
        self.param.clear();
        self.param.extend_from_slice(param);
        Ok(())
    }
}

/// An ordinary function in FROM: one row.
pub(super) struct ScalarScan {
    expr: ScalarExpr,
    ordinality: bool,
    filter: Vec<ScalarExpr>,
    done: bool,
    param: Row,
}

impl ScalarScan {
    pub(super) fn new(expr: ScalarExpr, ordinality: bool, filter: Vec<ScalarExpr>) -> Self {
        ScalarScan {
            expr,
            ordinality,
            filter,
            done: false,
            param: Vec::new(),
        }
    }
}

impl Source for ScalarScan {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(Flow::End);
        }
        out.clear();
        out.push(self.expr.eval(&self.param, &rt.eval(outer))?);
        if self.ordinality {
            out.push(Datum::Int8(1));
        }
        Ok(if rt.holds(&self.filter, out, outer)? {
            Flow::Row
        } else {
            Flow::End
        })
    }

    fn rescan(&mut self, _: &Runtime<'_>, _: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        self.done = false;
        self.param.clear();
        self.param.extend_from_slice(param);
        Ok(())
    }
}

/// A derived table: its own plan, with the values it takes from around it.
pub(super) struct SubqueryScan {
    input: Box<dyn Source>,
    values: Vec<ScalarExpr>,
    filter: Vec<ScalarExpr>,
    outer: Row,
    started: bool,
    ran: bool,
    param: Row,
}

impl SubqueryScan {
    pub(super) fn new(input: Box<dyn Source>, values: Vec<ScalarExpr>, filter: Vec<ScalarExpr>) -> Self {
        SubqueryScan {
            input,
            values,
            filter,
            outer: Vec::new(),
            started: false,
            ran: false,
            param: Vec::new(),
        }
    }
}

impl Source for SubqueryScan {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        if !self.started {
            self.outer.clear();
            let cx = rt.eval(outer);
            for value in &self.values {
                self.outer.push(value.eval(&self.param, &cx)?);
            }
            if self.ran {
                self.input.rescan(rt, &self.outer, &[])?;
            }
            self.started = true;
            self.ran = true;
        }
        loop {
            if !pull!(self.input.next(rt, &self.outer, out)) {
                return Ok(Flow::End);
            }
            if rt.holds(&self.filter, out, outer)? {
                return Ok(Flow::Row);
            }
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
        }
    }

    fn rescan(&mut self, _: &Runtime<'_>, _: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        self.started = false;
        self.param.clear();
        self.param.extend_from_slice(param);
        Ok(())
    }
}
