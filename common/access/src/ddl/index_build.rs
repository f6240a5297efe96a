//! Filling an index from its table, and checking rows for NULLs: scans that rest between pages.
//!
//! The table is locked against writers, and every earlier writer's commit is visible (its lock fell only then), so one snapshot taken
//! now sees exactly the live versions. Each is indexed under the place of its HOT chain's root.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;
use towline_base::{BlockNumber, ForkKind, Lsn, PageId, SqlState, Tid};
use towline_storage::Page;
use towline_types::{Datum, IoStyle, Stored, TypeId, text_of};

use crate::btree::{Build, BuildStep, EncodedKey, IndexContext, Pressure, Spool};
use crate::catalog::{Index, Table};
use crate::error::{AccessError, Result};
use crate::heap::visibility::{Visibility, tuple_at};
use crate::step::Step;
use crate::toast;
use crate::txn::Transaction;

/// Reads the live rows of a table, some pages at a time.
#[derive(Debug)]
pub(super) struct TableWalk {
    table: Arc<Table>,
    next: BlockNumber,
    end: BlockNumber,
}

impl TableWalk {
    pub(super) fn new(txn: &Transaction, table: Arc<Table>) -> Result<TableWalk> {
        let end = txn.engine().storage().nblocks(table.node, ForkKind::Main)?;
        Ok(TableWalk { table, next: 0, end })
    }

    /// Calls `row` for each live row of the next page, with its chain's root; false at the end.
    pub(super) fn page(
        &mut self,
        txn: &mut Transaction,
        row: &mut dyn FnMut(Tid, crate::heap::TupleRef<'_>) -> Result<()>,
    ) -> Result<bool> {
        if self.next >= self.end {
            return Ok(false);
        }
        txn.check_interrupts()?;
        let block = self.next;
        self.next += 1;
        let snapshot = txn.latest_snapshot();
        let engine = Arc::clone(txn.engine());
        let page = engine
            .storage()
            .pin_for_scan(PageId::main(self.table.node, block))?
            .read();
        let roots = chain_roots(&page, block)?;
        let mut visibility = Visibility::new(engine.csn(), &snapshot, &txn.combos);
        for offset in 1..=page.max_offset() {
            let Some(tuple) = tuple_at(&page, block, offset)? else {
                continue;
            };
            if !visibility.sees(tuple)? {
                continue;
            }
            let root = match roots.get(usize::from(offset)) {
                Some(0) | None => {
                    return Err(AccessError::corrupted(format!(
                        "row version {} of \"{}\" belongs to no chain",
                        Tid::new(block, offset),
                        self.table.name
                    )));
                }
                Some(root) => *root,
            };
            row(Tid::new(block, root), tuple)?;
        }
        Ok(true)
    }
}

/// The line pointer at which the chain of each version begins; 0 for those that no chain reaches.
fn chain_roots(page: &Page, block: BlockNumber) -> Result<SmallVec<[u16; 300]>> {
    let max = page.max_offset();
    let mut roots: SmallVec<[u16; 300]> = SmallVec::from_elem(0, usize::from(max) + 1);
    for start in 1..=max {
        let Some(item) = page.item_id(start) else { continue };
        let mut at = start;
        if item.is_redirect() {
            at = item.redirect_target();
        } else if tuple_at(page, block, start)?.is_none_or(|tuple| tuple.is_heap_only()) {
            continue;
        }
        let mut previous_xmax = None;
        for _ in 0..=max {
            let Some(tuple) = tuple_at(page, block, at)? else {
                break;
            };
            if previous_xmax.is_some_and(|xmax| xmax != tuple.xmin()) {
                break;
            }
            if let Some(root) = roots.get_mut(usize::from(at)) {
                *root = start;
            }
            if !tuple.is_hot_updated() || tuple.ctid().block != block {
                break;
            }
            previous_xmax = Some(tuple.xmax());
            at = tuple.ctid().offset;
        }
    }
    Ok(roots)
}

/// An index being filled.
#[derive(Debug)]
pub(super) struct IndexBuild {
    index: Arc<Index>,
    table: Arc<Table>,
    walk: Option<TableWalk>,
    spool: Spool,
    build: Option<Build>,
}

impl IndexBuild {
    /// Begins; `empty` says that the table has no rows to look for.
    pub(super) fn new(
        txn: &Transaction,
        table: Arc<Table>,
        index: Arc<Index>,
        empty: bool,
    ) -> Result<IndexBuild> {
        let walk = if empty {
            None
        } else {
            Some(TableWalk::new(txn, Arc::clone(&table))?)
        };
        Ok(IndexBuild {
            index,
            table,
            walk,
            spool: Spool::default(),
            build: None,
        })
    }

    /// Goes on. 23505 when a unique index cannot be made.
    pub(super) fn step(&mut self, txn: &mut Transaction) -> Result<Step<()>> {
        if let Some(walk) = &mut self.walk {
            let mut key = EncodedKey::default();
            let (index, spool, table) = (&self.index, &mut self.spool, &self.table);
            // Rows with a key out of line, as their page is latched while it is walked over.
            let mut later: Vec<(Tid, Vec<u8>)> = Vec::new();
            loop {
                let more = walk.page(txn, &mut |root, tuple| {
                    if encode_key(None, table, index, tuple, &mut key)? {
                        spool.add(index, &key, root)
                    } else {
                        later.push((root, tuple.bytes().to_vec()));
                        Ok(())
                    }
                })?;
                for (root, bytes) in later.drain(..) {
                    let tuple = crate::heap::TupleRef::new(&bytes)
                        .ok_or_else(|| AccessError::internal("a tuple has changed as it was copied"))?;
                    encode_key(Some(txn), table, index, tuple, &mut key)?;
                    spool.add(index, &key, root)?;
                }
                if !more {
                    break;
                }
            }
            self.walk = None;
        }
        let build = self
            .build
            .get_or_insert_with(|| Build::new(std::mem::take(&mut self.spool)));
        let engine = Arc::clone(txn.engine());
        let writer = engine.writer()?;
        let cx = IndexContext {
            storage: engine.storage(),
            permit: &writer.permit,
            xid: txn.xid,
            horizon: &|| Lsn::INVALID,
        };
        loop {
            match build.step(&cx, &self.index)? {
                BuildStep::Continue => txn.check_interrupts()?,
                BuildStep::Needs(Pressure::Flush(lsn)) => return Ok(Step::Wait(engine.wait_flush(lsn))),
                BuildStep::Needs(Pressure::Quorum(lsn)) => return Ok(Step::Wait(engine.wait_quorum(lsn))),
                BuildStep::Duplicate(tid, _) => return Err(duplicated(txn, &self.table, &self.index, tid)?),
                BuildStep::Done => return Ok(Step::Done(())),
            }
        }
    }
}

/// Makes the key of a row; false without a transaction, if a value that is stored out of line would have to be fetched.
fn encode_key(
    txn: Option<&Transaction>,
    table: &Table,
    index: &Index,
    tuple: crate::heap::TupleRef<'_>,
    key: &mut EncodedKey,
) -> Result<bool> {
    key.clear();
    for (column, stored) in index.keys.iter().zip(&index.key.columns) {
        let at = usize::try_from(column.column - 1).unwrap_or(usize::MAX);
        let value = table
            .layout
            .stored(tuple.data(), tuple.bitmap(), tuple.natts(), at)?;
        let payload = match (value, txn) {
            (Some(Stored::External(_)), None) => return Ok(false),
            (Some(Stored::External(pointer)), Some(txn)) => {
                Some(Cow::Owned(toast::read_value(txn, table, pointer)?))
            }
            (value, _) => value.map(Stored::payload).transpose()?,
        };
        key.push_payload(payload.as_deref().map(|bytes| stored_key(stored.type_id, bytes)));
    }
    Ok(true)
}

/// A `name` is a fixed field in the row and a string in the key.
fn stored_key(type_id: TypeId, bytes: &[u8]) -> &[u8] {
    if type_id == TypeId::Cstring {
        &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
    } else {
        bytes
    }
}

/// 23505, worded as PostgreSQL does for an index that cannot be made.
fn duplicated(txn: &mut Transaction, table: &Table, index: &Index, tid: Tid) -> Result<AccessError> {
    let error = AccessError::new(
        SqlState::UNIQUE_VIOLATION,
        format!("could not create unique index \"{}\"", index.name),
    )
    .with_table(&table.schema_name, &table.name)
    .with_constraint(&index.name);
    let snapshot = txn.latest_snapshot();
    let Some(row) = crate::heap::fetch::fetch(txn, &snapshot, table.node, tid)? else {
        return Ok(error);
    };
    let mut values: Vec<Datum> = Vec::new();
    let tuple = row.tuple();
    table
        .layout
        .deform(tuple.data(), tuple.bitmap(), tuple.natts(), &mut values)?;
    drop(row);
    toast::fetch_all(txn, table, &mut values)?;
    let (mut names, mut texts) = (Vec::new(), Vec::new());
    for key in &index.keys {
        let at = usize::try_from(key.column - 1).unwrap_or(usize::MAX);
        if let (Some(column), Some(value)) = (table.columns.get(at), values.get(at)) {
            names.push(column.name.to_string());
            texts.push(text_of(value, &IoStyle::default()));
        }
    }
    Ok(error.with_detail(format!(
        "Key ({})=({}) is duplicated.",
        names.join(", "),
        texts.join(", ")
    )))
}

/// A check that no row has NULL in some columns.
#[derive(Debug)]
pub(super) struct NullCheck {
    walk: TableWalk,
    columns: Vec<usize>,
}

impl NullCheck {
    pub(super) fn new(txn: &Transaction, table: Arc<Table>, columns: Vec<usize>) -> Result<NullCheck> {
        Ok(NullCheck {
            walk: TableWalk::new(txn, table)?,
            columns,
        })
    }

    /// 23502 for the first NULL.
    pub(super) fn step(&mut self, txn: &mut Transaction) -> Result<Step<()>> {
        let (table, columns) = (Arc::clone(&self.walk.table), &self.columns);
        let mut look = |_: Tid, tuple: crate::heap::TupleRef<'_>| {
            for at in columns {
                if table
                    .layout
                    .stored(tuple.data(), tuple.bitmap(), tuple.natts(), *at)?
                    .is_none()
                {
                    let name = table.columns.get(*at).map_or("", |column| &*column.name);
                    return Err(AccessError::new(
                        SqlState::NOT_NULL_VIOLATION,
                        format!(
                            "column \"{name}\" of relation \"{}\" contains null values",
                            table.name
                        ),
                    )
                    .with_table(&table.schema_name, &table.name)
                    .with_column(name));
                }
            }
            Ok(())
        };
        while self.walk.page(txn, &mut look)? {}
        Ok(Step::Done(()))
    }
}
