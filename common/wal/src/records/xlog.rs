//! XLOG record payloads: checkpoints, end of recovery, segment switch, next oid, page images, parameters.
//!
//! PostgreSQL 15's layouts; `end_of_recovery` carries the new timeline's incarnation behind PostgreSQL's payload.

use std::fmt::Write as _;

use towline_base::{Incarnation, Lsn};

use super::layout::{PayloadError, field_at, layout};
use super::time::write_timestamp;

/// The operation in the high bits of `xl_info` (mask `0xF0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum XlogOp {
    /// Checkpoint of a clean shutdown; main [`CheckPoint`].
    CheckpointShutdown = 0x00,
    /// Checkpoint while running; main [`CheckPoint`].
    CheckpointOnline = 0x10,
    /// Nothing.
    Noop = 0x20,
    /// Object ids below it are taken; main a `u32`.
    NextOid = 0x30,
    /// The rest of the segment is unused.
    Switch = 0x40,
    /// End of a backup; main an LSN.
    BackupEnd = 0x50,
    /// Settings that standbys depend on; main [`ParameterChange`].
    ParameterChange = 0x60,
    /// Named restore point.
    RestorePoint = 0x70,
    /// `full_page_writes` changed; main a bool.
    FpwChange = 0x80,
    /// First record of a timeline; main [`EndOfRecovery`].
    EndOfRecovery = 0x90,
    /// Page image because of a hint.
    FpiForHint = 0xA0,
    /// Page images.
    Fpi = 0xB0,
    /// A broken continuation record was given up; main [`OverwriteContrecord`].
    OverwriteContrecord = 0xD0,
}

impl XlogOp {
    /// The operation of an `xl_info` byte; `None` for values that no PostgreSQL 15 writes.
    pub fn from_info(info: u8) -> Option<Self> {
        Some(match info & 0xF0 {
            0x00 => Self::CheckpointShutdown,
            0x10 => Self::CheckpointOnline,
            0x20 => Self::Noop,
            0x30 => Self::NextOid,
            0x40 => Self::Switch,
            0x50 => Self::BackupEnd,
            0x60 => Self::ParameterChange,
            0x70 => Self::RestorePoint,
            0x80 => Self::FpwChange,
            0x90 => Self::EndOfRecovery,
            0xA0 => Self::FpiForHint,
            0xB0 => Self::Fpi,
            0xD0 => Self::OverwriteContrecord,
            _ => return None,
        })
    }

    /// The name that pg_waldump prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::CheckpointShutdown => "CHECKPOINT_SHUTDOWN",
            Self::CheckpointOnline => "CHECKPOINT_ONLINE",
            Self::Noop => "NOOP",
            Self::NextOid => "NEXTOID",
            Self::Switch => "SWITCH",
            Self::BackupEnd => "BACKUP_END",
            Self::ParameterChange => "PARAMETER_CHANGE",
            Self::RestorePoint => "RESTORE_POINT",
            Self::FpwChange => "FPW_CHANGE",
            Self::EndOfRecovery => "END_OF_RECOVERY",
            Self::FpiForHint => "FPI_FOR_HINT",
            Self::Fpi => "FPI",
            Self::OverwriteContrecord => "OVERWRITE_CONTRECORD",
        }
    }
}

layout! {
    /// A checkpoint: where redo starts and the counters at that point.
    pub struct CheckPoint: 88 {
        /// Redo starts here.
        pub redo: Lsn = 0,
        /// Timeline number.
        pub timeline: u32 = 8,
        /// Parent's number when this record begins a timeline, else the same.
        pub prev_timeline: u32 = 12,
        /// Always true in Towline: images are never off.
        pub full_page_writes: bool = 16,
        /// Next xid, 64 bits (epoch and low half).
        pub next_xid: u64 = 24,
        /// Next object id.
        pub next_oid: u32 = 32,
        /// Next multixact (unused).
        pub next_multi: u32 = 36,
        /// Next multixact offset (unused).
        pub next_multi_offset: u32 = 40,
        /// Oldest unfrozen xid, low half.
        pub oldest_xid: u32 = 44,
        /// Its database.
        pub oldest_xid_db: u32 = 48,
        /// Oldest multixact (unused).
        pub oldest_multi: u32 = 52,
        /// Its database.
        pub oldest_multi_db: u32 = 56,
        /// Seconds since 1970.
        pub time: i64 = 64,
        /// Commit timestamps (unused).
        pub oldest_commit_ts_xid: u32 = 72,
        /// Commit timestamps (unused).
        pub newest_commit_ts_xid: u32 = 76,
        /// Oldest running xid of an online checkpoint, low half.
        pub oldest_active_xid: u32 = 80,
    }
}

layout! {
    /// The first record of a timeline.
    pub struct EndOfRecovery: 32, at least 16 {
        /// When, microseconds since 2000.
        pub end_time: i64 = 0,
        /// The new timeline's number.
        pub timeline: u32 = 8,
        /// The parent's number.
        pub prev_timeline: u32 = 12,
        /// Towline: the new timeline's incarnation.
        pub incarnation: Incarnation = 16,
    }
}

layout! {
    /// A record that was never completed is given up.
    pub struct OverwriteContrecord: 16 {
        /// Start of the broken record.
        pub overwritten_lsn: Lsn = 0,
        /// When, microseconds since 2000.
        pub overwrite_time: i64 = 8,
    }
}

layout! {
    /// Settings of the primary that a standby must be able to follow.
    pub struct ParameterChange: 28 {
        /// `max_connections`.
        pub max_connections: i32 = 0,
        /// `max_worker_processes`.
        pub max_worker_processes: i32 = 4,
        /// `max_wal_senders`.
        pub max_wal_senders: i32 = 8,
        /// `max_prepared_transactions`.
        pub max_prepared_xacts: i32 = 12,
        /// `max_locks_per_transaction`.
        pub max_locks_per_xact: i32 = 16,
        /// 0 minimal, 1 replica, 2 logical.
        pub wal_level: i32 = 20,
        /// `wal_log_hints`.
        pub wal_log_hints: bool = 24,
        /// `track_commit_timestamp`.
        pub track_commit_timestamp: bool = 25,
    }
}

layout! {
    /// Main data of a `NextOid` record.
    pub struct NextOid: 4 {
        /// Ids below it may be in use.
        pub next_oid: u32 = 0,
    }
}

fn describe_checkpoint(op: XlogOp, checkpoint: &CheckPoint, out: &mut String) {
    let _ = write!(
        out,
        "redo {}; tli {}; prev tli {}; fpw {}; xid {}:{}; oid {}; multi {}; offset {}; oldest xid {} in DB {}; \
         oldest multi {} in DB {}; oldest/newest commit timestamp xid: {}/{}; oldest running xid {}; {}",
        checkpoint.redo,
        checkpoint.timeline,
        checkpoint.prev_timeline,
        checkpoint.full_page_writes,
        checkpoint.next_xid >> 32,
        checkpoint.next_xid as u32,
        checkpoint.next_oid,
        checkpoint.next_multi,
        checkpoint.next_multi_offset,
        checkpoint.oldest_xid,
        checkpoint.oldest_xid_db,
        checkpoint.oldest_multi,
        checkpoint.oldest_multi_db,
        checkpoint.oldest_commit_ts_xid,
        checkpoint.newest_commit_ts_xid,
        checkpoint.oldest_active_xid,
        if op == XlogOp::CheckpointShutdown {
            "shutdown"
        } else {
            "online"
        },
    );
}

fn on_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

/// pg_waldump's text.
pub(super) fn describe(op: XlogOp, main: &[u8], out: &mut String) -> Result<(), PayloadError> {
    match op {
        XlogOp::CheckpointShutdown | XlogOp::CheckpointOnline => {
            describe_checkpoint(op, &CheckPoint::decode(main)?, out);
        }
        XlogOp::NextOid => {
            let _ = write!(out, "{}", NextOid::decode(main)?.next_oid);
        }
        XlogOp::BackupEnd => {
            let _ = write!(out, "{}", field_at::<Lsn>(main, 0)?);
        }
        XlogOp::RestorePoint => {
            // The name is a fixed, zero-terminated buffer behind the time.
            let name = main.get(8..).ok_or(PayloadError::Truncated {
                needed: 8,
                available: main.len(),
            })?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            out.push_str(&String::from_utf8_lossy(name));
        }
        XlogOp::FpwChange => {
            let _ = write!(out, "{}", field_at::<bool>(main, 0)?);
        }
        XlogOp::EndOfRecovery => {
            let end = EndOfRecovery::decode(main)?;
            let _ = write!(out, "tli {}; prev tli {}; time ", end.timeline, end.prev_timeline);
            write_timestamp(end.end_time, out);
        }
        XlogOp::OverwriteContrecord => {
            let overwrite = OverwriteContrecord::decode(main)?;
            let _ = write!(out, "lsn {}; time ", overwrite.overwritten_lsn);
            write_timestamp(overwrite.overwrite_time, out);
        }
        XlogOp::ParameterChange => {
            let change = ParameterChange::decode(main)?;
            let level = match change.wal_level {
                0 => "minimal",
                1 => "replica",
                2 => "logical",
                _ => "?",
            };
            let _ = write!(
                out,
                "max_connections={} max_worker_processes={} max_wal_senders={} max_prepared_xacts={} \
                 max_locks_per_xact={} wal_level={} wal_log_hints={} track_commit_timestamp={}",
                change.max_connections,
                change.max_worker_processes,
                change.max_wal_senders,
                change.max_prepared_xacts,
                change.max_locks_per_xact,
                level,
                on_off(change.wal_log_hints),
                on_off(change.track_commit_timestamp)
            );
        }
        XlogOp::Noop | XlogOp::Switch | XlogOp::FpiForHint | XlogOp::Fpi => {}
    }
    Ok(())
}
