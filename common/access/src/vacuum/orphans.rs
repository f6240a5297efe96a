//! Relation files that no committed relation claims: left by a transaction that was creating them at a crash, or by a crash between the
//! checkpoint that allows the removal of a dropped relation's files and the removal.
//!
//! They are looked for where no transaction runs: on a primary at the end of recovery, on a standby at an end-of-recovery record. They go
//! with the next checkpoint whose redo pointer is at or behind that record, which the quorum then has (I7).

use towline_base::{Lsn, Xid};
use towline_storage::Storage;

use crate::catalog::FIRST_USER_OID;
use crate::catalog::load::claimed_files;
use crate::csn::CsnLog;
use crate::error::Result;

/// Gives every orphan to the files that wait for a checkpoint at or behind `logged`. Returns their numbers.
pub(crate) fn sweep(storage: &Storage, csn: &CsnLog, next_xid: Xid, logged: Lsn) -> Result<Vec<u32>> {
    let claimed = claimed_files(storage, csn, next_xid)?;
    let orphans = storage.sweep(logged, FIRST_USER_OID, |number| claimed.contains(&number))?;
    if !orphans.is_empty() {
        tracing::info!(
            count = orphans.len(),
            first = orphans.first(),
            "files that belong to no relation will be removed by the next checkpoint"
        );
    }
    Ok(orphans)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;
    use std::time::Duration;

    use towline_base::Vfs;
    use towline_base::vfs::{CrashVfs, Unsynced};
    use towline_types::{ColumnType, TypeId};

    use super::*;
    use crate::catalog::BOOTSTRAP_SUPERUSER;
    use crate::ddl::crash_tests::cut_after;
    use crate::ddl::{
        CreateTable, DdlOp, Drop, DropKind, NewColumn, NewConstraint, QualifiedName, Statement,
    };
    use crate::testing::{Rig, done};
    use crate::{Transaction, TxnOptions};

    fn run(txn: &mut Transaction, statement: Statement) {
        txn.begin_statement();
        let mut op = DdlOp::new(statement, BOOTSTRAP_SUPERUSER);
        done(txn, |txn| op.step(txn));
    }

    fn create(name: &str) -> Statement {
        let key = NewConstraint {
            primary: true,
            name: None,
            columns: vec!["id".into()],
            fillfactor: None,
        };
        Statement::CreateTable(CreateTable {
            name: QualifiedName::new(name),
            if_not_exists: false,
            columns: vec![NewColumn {
                name: "id".into(),
                column_type: ColumnType::from(TypeId::Int4),
                not_null: false,
                default: None,
            }],
            constraints: vec![key],
            fillfactor: None,
        })
    }

    fn drop_table(name: &str) -> Statement {
        Statement::Drop(Drop {
            kind: DropKind::Table,
            names: vec![QualifiedName::new(name)],
            if_exists: false,
            cascade: false,
        })
    }

    /// Numbers of the user relations' files.
    fn files(vfs: &CrashVfs) -> Vec<u32> {
        let mut found: Vec<u32> = vfs
            .read_dir(Path::new("/data/base/5"))
            .unwrap()
            .iter()
            .filter_map(|entry| towline_storage::smgr::parse_file_name(&entry.name))
            .map(|(number, _, _)| number)
            .filter(|number| *number >= FIRST_USER_OID)
            .collect();
        found.sort_unstable();
        found
    }

    /// A checkpoint to its end, removal of files included, unless the power fails. True when it ended.
    fn checkpoint(rig: &Rig) -> bool {
        let Some(mut wait) = rig.engine.checkpoint() else {
            return false;
        };
        let ended = loop {
            match wait.block_briefly(Duration::from_millis(5)) {
                Ok(Ok(())) => break true,
                Ok(Err(again)) if !rig.vfs.crashed() => wait = again,
                Ok(Err(_)) | Err(_) => break false,
            }
        };
        // The step that has published the checkpoint goes on to remove files: the thread is joined after it.
        rig.engine.stop_abruptly();
        ended && !rig.vfs.crashed()
    }

    /// Starts on the disk, checkpoints, and tells what files are left.
    fn files_after_a_start(disk: CrashVfs) -> Vec<u32> {
        let rig = Rig::open(disk);
        assert!(checkpoint(&rig));
        files(&rig.vfs)
    }

    #[test]
    fn what_a_running_transaction_has_created_is_removed_after_a_crash() {
        let rig = Rig::new();
        let mut txn = rig.begin();
        run(&mut txn, create("kept"));
        crate::testing::commit(txn);
        let kept = files(&rig.vfs);
        let mut txn = rig.begin();
        run(&mut txn, create("lost"));
        let writer = rig.engine.writer().unwrap();
        writer.wal.flush_here(writer.wal.insert_lsn());
        assert!(files(&rig.vfs).len() > kept.len());
        std::mem::forget(txn);
        assert_eq!(files_after_a_start(rig.crash()), kept);
    }

    #[test]
    fn the_files_of_a_dropped_relation_go_wherever_the_power_fails() {
        let mut cut = 1;
        loop {
            let rig = Rig::new();
            let before = files(&rig.vfs);
            let mut txn = rig.begin();
            run(&mut txn, create("t"));
            crate::testing::commit(txn);
            let mut txn = rig.begin();
            run(&mut txn, drop_table("t"));
            crate::testing::commit(txn);
            drop(rig.engine.begin(TxnOptions::default()));
            cut_after(&rig, cut);
            // The checkpoint, with the removal of the files at its end.
            let ended = checkpoint(&rig);
            for unsynced in [Unsynced::Kept, Unsynced::Lost, Unsynced::Reordered] {
                let disk = rig.vfs.after_crash(unsynced, cut);
                assert_eq!(files_after_a_start(disk), before, "cut {cut}, {unsynced:?}");
            }
            if ended {
                break;
            }
            cut += 1;
        }
        assert!(cut > 5, "the cuts reach the removal");
    }
}
