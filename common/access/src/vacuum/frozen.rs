//! `pg_class.relfrozenxid` and `pg_database.datfrozenxid`: below them no xid stands unfrozen in a table, and in any table.
//!
//! They are overwritten in place, as PostgreSQL does: that needs no xid, so VACUUM can get xids back when none is left, and it is not
//! undone with a transaction, as freezing is not. What is overwritten says the same of the table's file to every snapshot, so every version
//! of the row is, wherever it stands. A version made meanwhile from an older one holds an older value, which is also true.
//!
//! A snapshot on the primary may see a value that a failover takes back, together with the frozen rows. Nothing is lost by that: outcomes
//! are removed only by a checkpoint that has the value, and so with the quorum's agreement (I7); the new primary has the value from
//! before, and the outcomes.
//!
//! `datfrozenxid` is the lowest `relfrozenxid`, never lowered. A transaction may be making a table while we look: what it will hold is not
//! older than the oldest transaction that runs when the look begins.

use std::sync::Arc;

use towline_base::{ForkKind, Lsn, Oid, PageId, Xid};
use towline_storage::{LoggedChange, Page, PinnedPage, Storage};
use towline_wal::records::heap::{HeapInplace, HeapOp};
use towline_wal::{BlockFlags, Rmgr, credit_for};

use crate::catalog::load::Columns;
use crate::catalog::{DATABASE, Table};
use crate::engine::Engine;
use crate::error::{AccessError, Result};
use crate::heap::tuple::{TupleMut, TupleRef};
use crate::heap::visibility::{Outcome, holder, inserter, tuple_at};
use crate::step::Step;

/// Bytes of a catalog row at most.
const ROW_BYTES: usize = towline_base::PAGE_SIZE;

/// A column of fixed place in a catalog whose first column is `oid`.
struct Field {
    table: Arc<Table>,
    offset: usize,
}

impl Field {
    fn of(engine: &Engine, catalog: &'static str, column: &str) -> Result<Field> {
        let table = Arc::clone(engine.catalog().system().table(catalog));
        let offset = table.layout.fixed_offset(Columns::of(catalog).at(column));
        let offset = offset.ok_or_else(|| AccessError::internal("a catalog column of no fixed place"))?;
        Ok(Field { table, offset })
    }

    fn relfrozenxid(engine: &Engine) -> Result<Field> {
        Field::of(engine, "pg_class", "relfrozenxid")
    }

    fn datfrozenxid(engine: &Engine) -> Result<Field> {
        Field::of(engine, "pg_database", "datfrozenxid")
    }

    /// The xid in a row; `None` for a row that has none, as those of indexes and views.
    fn xid(&self, tuple: TupleRef<'_>, next: Xid) -> Option<Xid> {
        let low = word(tuple.data(), self.offset).filter(|low| *low != 0)?;
        Some(Xid::from_low32(low, next))
    }

    /// The next version of a row on a page whose value is below `xid`, or nonsense.
    fn lower(
        &self,
        page: &Page,
        block: u32,
        row: Oid,
        xid: Xid,
        next: Xid,
    ) -> Result<Option<(u16, Vec<u8>)>> {
        for offset in 1..=page.max_offset() {
            let Some(tuple) = tuple_at(page, block, offset)? else {
                continue;
            };
            if word(tuple.data(), 0) != Some(row.0) {
                continue;
            }
            let Some(old) = self.xid(tuple, next) else {
                continue;
            };
            if old < xid || old > next {
                let mut data = tuple.data().to_vec();
                if let Some(target) = data.get_mut(self.offset..self.offset + 4) {
                    target.copy_from_slice(&xid.low32().to_le_bytes());
                    return Ok(Some((offset, data)));
                }
            }
        }
        Ok(None)
    }

    /// Raises the value in every version of a row. After a wait, call again.
    fn raise(&self, engine: &Engine, row: Oid, xid: Xid) -> Result<Step<()>> {
        let next = engine.next_xid();
        for block in 0..engine.storage().nblocks(self.table.node, ForkKind::Main)? {
            let pinned = engine.storage().pin(PageId::main(self.table.node, block))?;
            while self.lower(&pinned.read_ref(), block, row, xid, next)?.is_some() {
                crate::ready!(self.overwrite(engine, &pinned, row, xid, next));
            }
        }
        Ok(Step::Done(()))
    }

    fn overwrite(
        &self,
        engine: &Engine,
        pinned: &PinnedPage,
        row: Oid,
        xid: Xid,
        next: Xid,
    ) -> Result<Step<()>> {
        let credit = crate::ready!(engine.credit(credit_for(1, ROW_BYTES)));
        let writer = engine.writer()?;
        let page = pinned.clone().write();
        let Some((offset, data)) = self.lower(&page, pinned.id().block, row, xid, next)? else {
            return Ok(Step::Done(()));
        };
        let info = HeapOp::Inplace as u8;
        let mut change = LoggedChange::new(
            engine.storage(),
            &writer.permit,
            credit,
            Rmgr::Heap,
            info,
            Xid::INVALID,
        );
        let id = change.page(page, BlockFlags::STANDARD);
        let tuple = change.page_mut(id).item_mut(offset).and_then(TupleMut::new);
        tuple
            .ok_or_else(|| AccessError::internal("a tuple vanished under its latch"))?
            .data_mut()
            .copy_from_slice(&data);
        change.block_data(id, &data);
        change.payload(&HeapInplace { offnum: offset });
        change.finish()?;
        Ok(Step::Done(()))
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// Calls `visit` with every version of every row.
fn for_each_version(
    storage: &Storage,
    table: &Table,
    mut visit: impl FnMut(TupleRef<'_>) -> Result<()>,
) -> Result<()> {
    for block in 0..storage.nblocks(table.node, ForkKind::Main)? {
        let page = storage.pin(PageId::main(table.node, block))?.read();
        for offset in 1..=page.max_offset() {
            if let Some(tuple) = tuple_at(&page, block, offset)? {
                visit(tuple)?;
            }
        }
    }
    Ok(())
}

/// The lowest `relfrozenxid` of a table's versions; `None` for a table that pg_class does not name.
pub(crate) fn of_table(engine: &Engine, table: Oid) -> Result<Option<Xid>> {
    let field = Field::relfrozenxid(engine)?;
    let next = engine.next_xid();
    let mut found = None;
    for_each_version(engine.storage(), &field.table, |tuple| {
        if word(tuple.data(), 0) == Some(table.0)
            && let Some(xid) = field.xid(tuple, next)
        {
            found = Some(found.map_or(xid, |found: Xid| found.min(xid)));
        }
        Ok(())
    })?;
    Ok(found)
}

/// `relfrozenxid` of every table, as versions that are not deleted say: a table may be there twice. `begun` is the end of the log before
/// the call: a row that is replaced later than that may not be found in its new version.
fn of_all_tables(engine: &Engine, begun: Lsn, mut visit: impl FnMut(Oid, Xid)) -> Result<()> {
    let field = Field::relfrozenxid(engine)?;
    let (csn, next) = (engine.csn(), engine.next_xid());
    for_each_version(engine.storage(), &field.table, |tuple| {
        let Some(xid) = field.xid(tuple, next) else {
            return Ok(());
        };
        let made = inserter(csn, tuple, Xid::INVALID, next)? != Outcome::None;
        let gone = !tuple.is_lock_only()
            && matches!(holder(csn, tuple, Xid::INVALID, next)?, Outcome::Committed(lsn) if lsn <= begun);
        if let (true, false, Some(oid)) = (made, gone, word(tuple.data(), 0)) {
            visit(Oid(oid), xid);
        }
        Ok(())
    })
}

/// Tables whose oldest xid is more than `age` old, with that age.
pub(crate) fn older_than(engine: &Engine, age: u64) -> Result<Vec<(Oid, u64)>> {
    let next = engine.next_xid();
    let mut old = Vec::new();
    of_all_tables(engine, engine.insert_lsn()?, |oid, xid| {
        let found = next.0.saturating_sub(xid.0);
        if found > age && !old.iter().any(|(other, _)| *other == oid) {
            old.push((oid, found));
        }
    })?;
    old.sort_by_key(|(_, age)| std::cmp::Reverse(*age));
    Ok(old)
}

/// No xid below `xid` stands unfrozen in the table. After a wait, call again.
pub(crate) fn advance_table(engine: &Engine, table: Oid, xid: Xid) -> Result<Step<()>> {
    Field::relfrozenxid(engine)?.raise(engine, table, xid)
}

/// Brings `datfrozenxid`, and what wraparound is measured from, up to date with the tables. After a wait, call again.
pub(crate) fn advance_database(engine: &Engine) -> Result<Step<()>> {
    let mut oldest = engine.oldest_running_xid();
    of_all_tables(engine, engine.insert_lsn()?, |_, xid| oldest = oldest.min(xid))?;
    crate::ready!(Field::datfrozenxid(engine)?.raise(engine, DATABASE, oldest));
    engine.xids().set_oldest_unfrozen(oldest);
    Ok(Step::Done(()))
}

/// `datfrozenxid`, at a start when redo has ended.
pub(crate) fn of_database(engine: &Engine) -> Result<Option<Xid>> {
    let field = Field::datfrozenxid(engine)?;
    let next = engine.next_xid();
    let mut found: Option<Xid> = None;
    for_each_version(engine.storage(), &field.table, |tuple| {
        if word(tuple.data(), 0) == Some(DATABASE.0)
            && let Some(xid) = field.xid(tuple, next)
        {
            found = Some(found.map_or(xid, |found| found.min(xid)));
        }
        Ok(())
    })?;
    Ok(found)
}
