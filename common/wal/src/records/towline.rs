//! Towline's own record kinds, under resource manager id 128 (PostgreSQL's tools print them as `custom128`).

use std::fmt::Write as _;

use towline_base::Lsn;

use super::layout::{PayloadError, layout};

/// The operation in the high bits of `xl_info` (mask `0xF0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TowlineOp {
    /// Xids below a bound may be assigned once this is quorum-durable (HAZARDS C7); main [`XidReservation`].
    XidReservation = 0x10,
    /// The quorum LSN known at insert, when no commit record carried it for a while (B2); main [`QuorumNote`].
    QuorumNote = 0x20,
}

impl TowlineOp {
    /// The operation of an `xl_info` byte.
    pub fn from_info(info: u8) -> Option<Self> {
        match info & 0xF0 {
            0x10 => Some(Self::XidReservation),
            0x20 => Some(Self::QuorumNote),
            _ => None,
        }
    }

    /// The name that waldump prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::XidReservation => "XID_RESERVATION",
            Self::QuorumNote => "QUORUM",
        }
    }
}

layout! {
    /// Xids below `limit` may be given out.
    pub struct XidReservation: 8 {
        /// First xid that is not reserved, 64 bits.
        pub limit: u64 = 0,
    }
}

layout! {
    /// Everything up to `quorum` is durable on the commit quorum.
    pub struct QuorumNote: 8 {
        /// The quorum LSN.
        pub quorum: Lsn = 0,
    }
}

/// waldump's text.
pub(super) fn describe(op: TowlineOp, main: &[u8], out: &mut String) -> Result<(), PayloadError> {
    let _ = match op {
        TowlineOp::XidReservation => write!(out, "limit {}", XidReservation::decode(main)?.limit),
        TowlineOp::QuorumNote => write!(out, "quorum {}", QuorumNote::decode(main)?.quorum),
    };
    Ok(())
}
