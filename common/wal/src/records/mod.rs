//! Record payloads of every resource manager that Towline writes, in PostgreSQL 15's layouts, with their descriptions.
//!
//! One file per resource manager: operation codes, payload structs (`decode` bounded, `encode` through [`Payload`]), and
//! the text that pg_waldump 15 prints for them. Redo lives in storage and access; this module knows bytes only, because
//! the dump tool and the tests link it without an engine.

pub mod btree;
pub mod heap;
pub mod heap2;
pub mod invalidation;
pub mod layout;
pub mod smgr;
pub mod standby;
mod time;
pub mod towline;
pub mod xact;
pub mod xlog;

use crate::format::DecodedRecord;
use crate::rmgr::Rmgr;

pub use layout::{Payload, PayloadError};
pub use time::timestamp;

/// The name of a record's operation as pg_waldump prints it (`INSERT+INIT`), or `None` for an unknown one.
pub fn identify(rmgr: Rmgr, info: u8) -> Option<&'static str> {
    match rmgr {
        Rmgr::Xlog => xlog::XlogOp::from_info(info).map(xlog::XlogOp::name),
        Rmgr::Transaction => xact::XactOp::from_info(info).map(xact::XactOp::name),
        Rmgr::Storage => smgr::SmgrOp::from_info(info).map(smgr::SmgrOp::name),
        Rmgr::Standby => standby::StandbyOp::from_info(info).map(standby::StandbyOp::name),
        Rmgr::Heap2 => heap2::Heap2Op::name(info),
        Rmgr::Heap => heap::HeapOp::name(info),
        Rmgr::Btree => btree::BtreeOp::from_info(info).map(btree::BtreeOp::name),
        Rmgr::Towline => towline::TowlineOp::from_info(info).map(towline::TowlineOp::name),
        Rmgr::Foreign(_) => None,
    }
}

/// Appends what pg_waldump prints behind the operation's name. A payload that does not decode is named as such.
pub fn describe(record: &DecodedRecord<'_>, out: &mut String) {
    let info = record.header.info;
    let result = match record.rmgr() {
        Rmgr::Xlog => xlog::XlogOp::from_info(info).map(|op| xlog::describe(op, record.main, out)),
        Rmgr::Transaction => xact::XactOp::from_info(info).map(|op| describe_xact(op, record, out)),
        Rmgr::Storage => smgr::SmgrOp::from_info(info).map(|op| smgr::describe(op, record.main, out)),
        Rmgr::Standby => {
            standby::StandbyOp::from_info(info).map(|op| standby::describe(op, record.main, out))
        }
        Rmgr::Heap2 => Some(describe_heap2(record, out)),
        Rmgr::Heap => Some(describe_heap(record, out)),
        Rmgr::Btree => btree::BtreeOp::from_info(info)
            .map(|op| btree::describe(op, record.main, record.block(0).map(|block| block.data), out)),
        Rmgr::Towline => {
            towline::TowlineOp::from_info(info).map(|op| towline::describe(op, record.main, out))
        }
        Rmgr::Foreign(_) => None,
    };
    if let Some(Err(error)) = result {
        out.push_str(&format!("<{error}>"));
    }
}

fn describe_xact(op: xact::XactOp, record: &DecodedRecord<'_>, out: &mut String) -> Result<(), PayloadError> {
    match op {
        xact::XactOp::Commit
        | xact::XactOp::Abort
        | xact::XactOp::CommitPrepared
        | xact::XactOp::AbortPrepared => {
            xact::ParsedXactEnd::decode(record.header.info, record.main)?.describe(op, record.origin, out);
            Ok(())
        }
        xact::XactOp::Assignment => xact::describe_assignment(record.main, out),
        xact::XactOp::Invalidations => xact::describe_invalidations(record.main, out),
        xact::XactOp::Prepare => Ok(()),
    }
}

fn describe_heap(record: &DecodedRecord<'_>, out: &mut String) -> Result<(), PayloadError> {
    use heap::{HeapConfirm, HeapDelete, HeapInplace, HeapInsert, HeapLock, HeapOp, HeapUpdate};
    let main = record.main;
    match HeapOp::from_info(record.header.info) {
        HeapOp::Insert => HeapInsert::decode(main)?.describe(out),
        HeapOp::Delete => HeapDelete::decode(main)?.describe(out),
        HeapOp::Update | HeapOp::HotUpdate => HeapUpdate::decode(main)?.describe(out),
        HeapOp::Truncate => heap::describe_truncate(main, out)?,
        HeapOp::Confirm => HeapConfirm::decode(main)?.describe(out),
        HeapOp::Lock => HeapLock::decode(main)?.describe(out),
        HeapOp::Inplace => HeapInplace::decode(main)?.describe(out),
    }
    Ok(())
}

fn describe_heap2(record: &DecodedRecord<'_>, out: &mut String) -> Result<(), PayloadError> {
    use heap2::{
        Heap2Op, HeapFreezePage, HeapLockUpdated, HeapMultiInsert, HeapNewCid, HeapPrune, HeapVacuum,
        HeapVisible,
    };
    let main = record.main;
    match Heap2Op::from_info(record.header.info) {
        Heap2Op::Rewrite => {}
        Heap2Op::Prune => HeapPrune::decode(main)?.describe(out),
        Heap2Op::Vacuum => HeapVacuum::decode(main)?.describe(out),
        Heap2Op::FreezePage => HeapFreezePage::decode(main)?.describe(out),
        Heap2Op::Visible => HeapVisible::decode(main)?.describe(out),
        Heap2Op::MultiInsert => HeapMultiInsert::decode(main)?.describe(out),
        Heap2Op::LockUpdated => HeapLockUpdated::decode(main)?.describe(out),
        Heap2Op::NewCid => HeapNewCid::decode(main)?.describe(out),
    }
    Ok(())
}
