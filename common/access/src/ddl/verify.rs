//! [`verify_table`]: a table against its indexes, for tests and the crash harness.

use std::sync::Arc;

use hashbrown::HashSet;
use towline_base::{PageId, SqlState, Tid};
use towline_types::Datum;

use super::index_build::TableWalk;
use crate::btree::{Checked, Direction, IndexScan, ScanBounds, check};
use crate::catalog::{Index, Table};
use crate::error::{AccessError, Result};
use crate::toast;
use crate::txn::Transaction;

/// Verifies every index of a table: its structure, that each live row is found under its key, and that no item points to
/// a line pointer that is gone; and that every value out of line is whole, and no chunk lives that no live row points to. Nobody
/// may change the table meanwhile. Returns what the checks of the indexes found, in their order.
///
/// # Errors
/// XX002 with what is wrong.
pub fn verify_table(txn: &mut Transaction, table: &Arc<Table>) -> Result<Vec<Checked>> {
    let mut found = Vec::new();
    for index in &table.indexes {
        found.push(verify_index(txn, table, index)?);
    }
    if let Some(toast) = &table.toast {
        verify_toast(txn, table, toast)?;
    }
    Ok(found)
}

/// The live rows of a table, by the place of their chain's root.
fn live_rows(txn: &mut Transaction, table: &Arc<Table>) -> Result<Vec<(Tid, Vec<Datum>)>> {
    let mut rows = Vec::new();
    let mut walk = TableWalk::new(txn, Arc::clone(table))?;
    let mut keep = |root: Tid, tuple: crate::heap::TupleRef<'_>| {
        let mut values = Vec::with_capacity(table.columns.len());
        table
            .layout
            .deform(tuple.data(), tuple.bitmap(), tuple.natts(), &mut values)?;
        rows.push((root, values));
        Ok(())
    };
    while walk.page(txn, &mut keep)? {}
    Ok(rows)
}

fn verify_toast(txn: &mut Transaction, table: &Arc<Table>, toast: &Arc<Table>) -> Result<()> {
    verify_table(txn, toast)?;
    let mut pointed: HashSet<u32> = HashSet::new();
    for (root, values) in live_rows(txn, table)? {
        for value in values {
            let Datum::External(pointer) = value else { continue };
            if !pointed.insert(pointer.value) {
                let what = format!("toast value {} has two owners, one at {root}", pointer.value);
                return Err(AccessError::corrupted(what));
            }
            toast::read_value(txn, table, pointer)?;
        }
    }
    for (at, chunk) in live_rows(txn, toast)? {
        if let Some(Datum::Oid(value)) = chunk.first()
            && !pointed.contains(value)
        {
            let what = format!("the chunk of toast value {value} at {at} belongs to no row");
            return Err(AccessError::corrupted(what));
        }
    }
    Ok(())
}

fn wrong(index: &Index, what: impl std::fmt::Display) -> AccessError {
    AccessError::new(
        SqlState::INDEX_CORRUPTED,
        format!("index \"{}\" {what}", index.name),
    )
}

fn verify_index(txn: &mut Transaction, table: &Arc<Table>, index: &Arc<Index>) -> Result<Checked> {
    let engine = Arc::clone(txn.engine());
    let storage = engine.storage();
    let checked = check(storage.pool(), index)?;
    let places: HashSet<Tid> = checked.places.iter().copied().collect();
    if places.len() != checked.places.len() {
        return Err(wrong(index, "has two items for one place"));
    }
    for tid in &places {
        let page = storage.pin(PageId::main(table.node, tid.block))?.read();
        if page.item_id(tid.offset).is_none_or(|item| !item.is_used()) {
            return Err(wrong(
                index,
                format!("has an item for {tid}, where there is nothing"),
            ));
        }
    }
    for (root, mut values) in live_rows(txn, table)? {
        toast::fetch_all(txn, table, &mut values)?;
        let key: Vec<Datum> = index
            .keys
            .iter()
            .filter_map(|key| values.get(usize::try_from(key.column - 1).ok()?).cloned())
            .collect();
        let mut scan = IndexScan::new(Arc::clone(index), &ScanBounds::equal(key), Direction::Forward)?;
        let mut there = false;
        while let Some(tid) = scan.next(storage.pool())? {
            if tid == root {
                there = true;
                break;
            }
        }
        if !there {
            return Err(wrong(index, format!("has no item for the live row at {root}")));
        }
    }
    Ok(checked)
}
