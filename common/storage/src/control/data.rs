//! What the control file says.

use towline_base::clock::TimestampTz;
use towline_base::codec::{CodecError, CodecResult, Reader, Writer};
use towline_base::{Incarnation, Lsn, SystemId, TimelineId, TimelineNumber, Xid};

/// What the node was doing when the control file was written last; PostgreSQL's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ClusterState {
    /// `init` has not finished.
    Starting = 0,
    /// A primary that was shut down: the checkpoint is the end of its WAL.
    ShutDown = 1,
    /// A standby that was shut down.
    ShutDownInRecovery = 2,
    /// A primary that is stopping.
    ShuttingDown = 3,
    /// A primary in crash recovery.
    InCrashRecovery = 4,
    /// A standby.
    InArchiveRecovery = 5,
    /// A primary.
    InProduction = 6,
}

impl ClusterState {
    fn from_number(number: u8) -> Option<ClusterState> {
        Some(match number {
            0 => ClusterState::Starting,
            1 => ClusterState::ShutDown,
            2 => ClusterState::ShutDownInRecovery,
            3 => ClusterState::ShuttingDown,
            4 => ClusterState::InCrashRecovery,
            5 => ClusterState::InArchiveRecovery,
            6 => ClusterState::InProduction,
            _ => return None,
        })
    }

    /// PostgreSQL's words, as `pg_controldata` prints them.
    pub fn name(self) -> &'static str {
        match self {
            ClusterState::Starting => "starting up",
            ClusterState::ShutDown => "shut down",
            ClusterState::ShutDownInRecovery => "shut down in recovery",
            ClusterState::ShuttingDown => "shutting down",
            ClusterState::InCrashRecovery => "in crash recovery",
            ClusterState::InArchiveRecovery => "in archive recovery",
            ClusterState::InProduction => "in production",
        }
    }

    /// The node was stopped in order: its files are whole.
    pub fn is_stopped(self) -> bool {
        matches!(self, ClusterState::ShutDown | ClusterState::ShutDownInRecovery)
    }

    /// The WAL ends with the checkpoint: nothing is to be redone.
    pub fn is_clean_primary(self) -> bool {
        self == ClusterState::ShutDown
    }
}

/// A finished checkpoint: where redo starts, and the counters as of there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// Start of the checkpoint record.
    pub lsn: Lsn,
    /// Behind the checkpoint record.
    pub end: Lsn,
    /// Redo starts here.
    pub redo: Lsn,
    /// The timeline of the record.
    pub timeline: TimelineId,
    /// Its parent's number, when the record begins the timeline; else the same number.
    pub previous_timeline: TimelineNumber,
    /// Above every xid that was assigned before `redo`.
    pub next_xid: Xid,
    /// Above every object id that was assigned before `redo`.
    pub next_oid: u32,
    /// Oldest xid that may stand unfrozen in a table.
    pub oldest_xid: Xid,
    /// Oldest xid that was running at `redo`; [`Xid::INVALID`] for a shutdown checkpoint.
    pub oldest_active_xid: Xid,
    /// When the checkpoint began.
    pub time: TimestampTz,
}

impl CheckpointInfo {
    /// Before the first checkpoint.
    pub const NONE: CheckpointInfo = CheckpointInfo {
        lsn: Lsn::INVALID,
        end: Lsn::INVALID,
        redo: Lsn::INVALID,
        timeline: TimelineId {
            number: TimelineNumber::FIRST,
            incarnation: Incarnation::ZERO,
        },
        previous_timeline: TimelineNumber::FIRST,
        next_xid: Xid::FIRST_NORMAL,
        next_oid: 0,
        oldest_xid: Xid::FIRST_NORMAL,
        oldest_active_xid: Xid::INVALID,
        time: 0,
    };

    fn encode(&self, out: &mut Writer<'_>) {
        out.lsn(self.lsn).lsn(self.end).lsn(self.redo);
        encode_timeline(&self.timeline, out);
        out.u32(self.previous_timeline.0)
            .u64(self.next_xid.0)
            .u32(self.next_oid);
        out.u64(self.oldest_xid.0)
            .u64(self.oldest_active_xid.0)
            .i64(self.time);
    }

    fn decode(input: &mut Reader<'_>) -> CodecResult<CheckpointInfo> {
        let (lsn, end, redo) = (input.lsn()?, input.lsn()?, input.lsn()?);
        let info = CheckpointInfo {
            lsn,
            end,
            redo,
            timeline: decode_timeline(input)?,
            previous_timeline: TimelineNumber(input.u32()?),
            next_xid: Xid(input.u64()?),
            next_oid: input.u32()?,
            oldest_xid: Xid(input.u64()?),
            oldest_active_xid: Xid(input.u64()?),
            time: input.i64()?,
        };
        if info.redo > info.lsn || info.lsn > info.end {
            return Err(CodecError::Invalid(
                "checkpoint: redo, record and its end do not follow each other",
            ));
        }
        Ok(info)
    }
}

/// Everything in the control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlData {
    /// The cluster, the same on every node.
    pub system: SystemId,
    /// See [`ClusterState`].
    pub state: ClusterState,
    /// When it was written last.
    pub time: TimestampTz,
    /// The last finished checkpoint or restartpoint.
    pub checkpoint: CheckpointInfo,
    /// The timeline that this node wrote or followed last.
    pub timeline: TimelineId,
    /// No page on disk has a higher LSN, when `page_lsn_bound_is_strict`.
    pub page_lsn_bound: Lsn,
    /// Whether `page_lsn_bound` was raised before each page that needed it (standbys, and primaries without voters), or only
    /// noted at checkpoints.
    pub page_lsn_bound_is_strict: bool,
    /// Highest quorum position that was known when this was written.
    pub quorum: Lsn,
    /// Bytes of a WAL segment.
    pub segment_size: u64,
    /// Whether pages carry checksums.
    pub checksums: bool,
}

impl ControlData {
    /// For `init`: nothing has happened yet.
    pub fn new(system: SystemId, timeline: TimelineId, segment_size: u64, checksums: bool) -> ControlData {
        ControlData {
            system,
            state: ClusterState::Starting,
            time: 0,
            checkpoint: CheckpointInfo {
                timeline,
                ..CheckpointInfo::NONE
            },
            timeline,
            page_lsn_bound: Lsn::INVALID,
            page_lsn_bound_is_strict: false,
            quorum: Lsn::INVALID,
            segment_size,
            checksums,
        }
    }

    pub(super) fn encode(&self, out: &mut Writer<'_>) {
        out.u64(self.system.0).u8(self.state as u8).i64(self.time);
        self.checkpoint.encode(out);
        encode_timeline(&self.timeline, out);
        out.lsn(self.page_lsn_bound)
            .bool(self.page_lsn_bound_is_strict)
            .lsn(self.quorum);
        out.u64(self.segment_size).bool(self.checksums);
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> CodecResult<ControlData> {
        Ok(ControlData {
            system: SystemId(input.u64()?),
            state: ClusterState::from_number(input.u8()?).ok_or(CodecError::Invalid("cluster state"))?,
            time: input.i64()?,
            checkpoint: CheckpointInfo::decode(input)?,
            timeline: decode_timeline(input)?,
            page_lsn_bound: input.lsn()?,
            page_lsn_bound_is_strict: input.bool()?,
            quorum: input.lsn()?,
            segment_size: input.u64()?,
            checksums: input.bool()?,
        })
    }
}

fn encode_timeline(timeline: &TimelineId, out: &mut Writer<'_>) {
    out.u32(timeline.number.0).bytes(&timeline.incarnation.0);
}

fn decode_timeline(input: &mut Reader<'_>) -> CodecResult<TimelineId> {
    Ok(TimelineId {
        number: TimelineNumber(input.u32()?),
        incarnation: Incarnation(input.array()?),
    })
}
