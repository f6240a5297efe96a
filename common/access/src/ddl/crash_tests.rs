//! Power cuts in the middle of splits, builds and DDL: what is found afterwards is whole.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use towline_base::vfs::Unsynced;
use towline_types::{ColumnType, Datum, TypeId};

use super::*;
use crate::catalog::{BOOTSTRAP_SUPERUSER, Relation, Table};
use crate::ops::InsertOp;
use crate::testing::Rig;
use crate::{CommitLevel, Result, Step, Transaction, Wait};

/// Cuts the power at the `count`-th boundary from now on. Other threads pass boundaries, too: if they pass the chosen one before it is known,
/// another is chosen.
pub(crate) fn cut_after(rig: &Rig, count: u64) {
    loop {
        let boundary = rig.vfs.boundaries() + count;
        rig.vfs.crash_at(boundary);
        if rig.vfs.boundaries() < boundary || rig.vfs.crashed() {
            return;
        }
    }
}

/// Waits unless the power goes.
pub(crate) fn settle(rig: &Rig, mut wait: Wait) -> Option<()> {
    loop {
        match wait.block_briefly(Duration::from_millis(20)) {
            Ok(Ok(())) => return Some(()),
            Ok(Err(again)) if !rig.vfs.crashed() => wait = again,
            Ok(Err(_)) | Err(_) => return None,
        }
    }
}

pub(crate) fn drive<T>(
    rig: &Rig,
    txn: &mut Transaction,
    mut step: impl FnMut(&mut Transaction) -> Result<Step<T>>,
) -> Option<T> {
    loop {
        match step(txn) {
            Ok(Step::Done(value)) => return Some(value),
            Ok(Step::Wait(wait)) => settle(rig, wait)?,
            Err(error) => {
                assert!(
                    rig.vfs.crashed() || error.sqlstate().class() == "42",
                    "without a power cut: {error}"
                );
                return None;
            }
        }
    }
}

pub(crate) fn commit(rig: &Rig, mut txn: Transaction) -> Option<()> {
    let lsn = drive(rig, &mut txn, |txn| txn.commit(CommitLevel::On))?;
    settle(rig, rig.engine.release().wait(lsn, CommitLevel::On))
}

pub(crate) fn ddl(rig: &Rig, statement: Statement) -> Option<()> {
    let mut txn = rig.engine.begin(crate::TxnOptions::default()).ok()?;
    txn.begin_statement();
    let mut op = DdlOp::new(statement, BOOTSTRAP_SUPERUSER);
    drive(rig, &mut txn, |txn| op.step(txn))?;
    commit(rig, txn)
}

pub(crate) fn table(rig: &Rig, name: &str) -> Option<Arc<Table>> {
    let view = rig.engine.catalog().shared(&rig.engine).ok()?;
    match view.find_relation(None, name, &["public"])? {
        Relation::Table(table) => Some(Arc::clone(table)),
        Relation::Index(_) => None,
    }
}

fn create(name: &str) -> Statement {
    let column = |name: &str, id| NewColumn {
        name: name.into(),
        column_type: ColumnType::from(id),
        not_null: false,
        default: None,
    };
    let key = |primary, column: &str| NewConstraint {
        primary,
        name: None,
        columns: vec![column.into()],
        fillfactor: None,
    };
    Statement::CreateTable(CreateTable {
        name: QualifiedName::new(name),
        if_not_exists: false,
        columns: vec![column("id", TypeId::Int4), column("long", TypeId::Text)],
        constraints: vec![key(true, "id"), key(false, "long")],
        fillfactor: None,
    })
}

fn index_on_long() -> Statement {
    Statement::CreateIndex(CreateIndex {
        name: None,
        if_not_exists: false,
        table: QualifiedName::new("t"),
        unique: false,
        keys: vec![NewIndexKey {
            column: "long".into(),
            descending: true,
            nulls_first: true,
        }],
        fillfactor: None,
    })
}

/// A long key that does not compress, so that a few rows fill a page and splits are frequent; no order in it.
fn long(id: i32) -> String {
    let mut state = u64::from(id as u32).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..908)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + ((state >> 33) % 75) as u8)
        })
        .collect()
}

/// Inserts some rows in one transaction: Ok(true) when acknowledged, None when the power went.
fn insert(rig: &Rig, t: &Arc<Table>, ids: std::ops::Range<i32>) -> Option<()> {
    let mut txn = rig.engine.begin(crate::TxnOptions::default()).ok()?;
    for id in ids {
        txn.begin_statement();
        let mut op = InsertOp::new(Arc::clone(t), &[Datum::Int4(id), Datum::text(&long(id))]).unwrap();
        drive(rig, &mut txn, |txn| op.step(txn))?;
    }
    commit(rig, txn)
}

fn ids(rig: &Rig, t: &Table) -> BTreeSet<i32> {
    let mut txn = rig.begin();
    let snapshot = txn.begin_statement();
    let mut scan = crate::heap::HeapScan::new(&txn, t.node).unwrap();
    let mut found = BTreeSet::new();
    while scan.next_page(&txn, &snapshot).unwrap() {
        for (_, tuple) in scan.rows() {
            let bytes = t
                .layout
                .attr(tuple.data(), tuple.bitmap(), tuple.natts(), 0)
                .unwrap()
                .unwrap();
            found.insert(i32::from_le_bytes(bytes[..].try_into().unwrap()));
        }
    }
    found
}

fn one_run(seed: u64) {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let mut rig = Rig::new();
    ddl(&rig, create("t")).unwrap();
    let mut sure = BTreeSet::new();
    let mut next = 0;
    for cut in 0..4 {
        cut_after(&rig, 1 + below(60));
        let mut maybe = 0..0;
        let mut dropped = None;
        while !rig.vfs.crashed() {
            match below(10) {
                0 => drop(rig.engine.checkpoint()),
                1 => {
                    let _ = ddl(&rig, index_on_long());
                }
                2 => {
                    let _ = ddl(&rig, create("u"));
                    let gone = Drop {
                        kind: DropKind::Table,
                        names: vec![QualifiedName::new("u")],
                        if_exists: false,
                        cascade: false,
                    };
                    if ddl(&rig, Statement::Drop(gone)).is_some() {
                        dropped = Some(());
                    }
                }
                _ => {
                    let Some(t) = table(&rig, "t") else { break };
                    let range = next..next + 1 + below(12) as i32;
                    next = range.end;
                    match insert(&rig, &t, range.clone()) {
                        Some(()) => sure.extend(range),
                        None => {
                            maybe = range;
                            break;
                        }
                    }
                }
            }
        }
        let _ = dropped;
        let unsynced = match below(4) {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            2 => Unsynced::Reordered,
            _ => Unsynced::Torn(512),
        };
        let what = format!("seed {seed}, cut {cut}, {unsynced:?}");
        rig = Rig::try_open(rig.crash_with(unsynced, seed + cut))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let t = table(&rig, "t").unwrap_or_else(|| panic!("{what}: the table is gone"));
        let found = ids(&rig, &t);
        let with: BTreeSet<i32> = sure.iter().copied().chain(maybe).collect();
        assert!(
            found == sure || found == with,
            "{what}: {} rows, {} or {} expected",
            found.len(),
            sure.len(),
            with.len()
        );
        sure = found;
        let mut txn = rig.begin();
        txn.begin_statement();
        verify_table(&mut txn, &t).unwrap_or_else(|error| panic!("{what}: {error}"));
        if let Some(u) = table(&rig, "u") {
            verify_table(&mut txn, &u).unwrap_or_else(|error| panic!("{what}: {error}"));
            drop(txn);
            let gone = Drop {
                kind: DropKind::Table,
                names: vec![QualifiedName::new("u")],
                if_exists: false,
                cascade: false,
            };
            ddl(&rig, Statement::Drop(gone)).unwrap();
        }
        // Splits that the power cut left unfinished are finished by those who come by.
        let t = table(&rig, "t").unwrap();
        let range = next..next + 20;
        next = range.end;
        insert(&rig, &t, range.clone()).unwrap_or_else(|| panic!("{what}: inserts fail after the restart"));
        sure.extend(range);
        let mut txn = rig.begin();
        txn.begin_statement();
        verify_table(&mut txn, &t).unwrap_or_else(|error| panic!("{what}, after more inserts: {error}"));
    }
}

#[test]
fn indexes_and_catalog_are_whole_after_a_power_cut_at_any_boundary() {
    let setting = |name: &str, default| {
        std::env::var(name)
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    let (first, seeds) = (
        setting("TOWLINE_CRASH_FIRST", 1u64),
        setting("TOWLINE_CRASH_SEEDS", 12u64),
    );
    (first..first + seeds).for_each(one_run);
    towline_base::testing::points::report("ddl threads", seeds * 4);
}
