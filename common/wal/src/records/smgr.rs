//! Storage manager record payloads: a relation file is created, or truncated.

use std::fmt::Write as _;

use towline_base::{ForkKind, RelFileNode};

use super::layout::{PayloadError, layout};

/// The operation in the high bits of `xl_info` (mask `0xF0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SmgrOp {
    /// A file was created; main [`SmgrCreate`].
    Create = 0x10,
    /// A relation was cut; main [`SmgrTruncate`].
    Truncate = 0x20,
}

impl SmgrOp {
    /// The operation of an `xl_info` byte.
    pub fn from_info(info: u8) -> Option<Self> {
        match info & 0xF0 {
            0x10 => Some(Self::Create),
            0x20 => Some(Self::Truncate),
            _ => None,
        }
    }

    /// The name that pg_waldump prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Truncate => "TRUNCATE",
        }
    }
}

layout! {
    /// The file of one fork of a relation was created.
    pub struct SmgrCreate: 16 {
        /// The relation's files.
        pub rel: RelFileNode = 0,
        /// Number of the fork ([`ForkKind`]).
        pub fork: i32 = 12,
    }
}

layout! {
    /// A relation was cut to `block` blocks.
    pub struct SmgrTruncate: 20 {
        /// New length of the main fork in blocks.
        pub block: u32 = 0,
        /// The relation's files.
        pub rel: RelFileNode = 4,
        /// [`truncate_flags`].
        pub flags: i32 = 16,
    }
}

/// Which forks a truncation cuts.
pub mod truncate_flags {
    /// The main fork.
    pub const HEAP: i32 = 1;
    /// The visibility map.
    pub const VM: i32 = 2;
    /// The free space map.
    pub const FSM: i32 = 4;
    /// All of them.
    pub const ALL: i32 = HEAP | VM | FSM;
}

/// Appends the path of a relation file as PostgreSQL names it: `base/5/16384`, `base/5/16384_vm`, `global/1260`.
pub(super) fn write_path(rel: RelFileNode, fork: ForkKind, out: &mut String) {
    let _ = match rel.spc {
        1664 => write!(out, "global/{}", rel.rel),
        1663 => write!(out, "base/{}/{}", rel.db, rel.rel),
        spc => write!(out, "pg_tblspc/{spc}/PG_15_202209061/{}/{}", rel.db, rel.rel),
    };
    match fork {
        ForkKind::Main => {}
        ForkKind::Fsm => out.push_str("_fsm"),
        ForkKind::Vm => out.push_str("_vm"),
        ForkKind::Init => out.push_str("_init"),
    }
}

/// pg_waldump's text.
pub(super) fn describe(op: SmgrOp, main: &[u8], out: &mut String) -> Result<(), PayloadError> {
    match op {
        SmgrOp::Create => {
            let create = SmgrCreate::decode(main)?;
            let fork = u8::try_from(create.fork).ok().and_then(ForkKind::from_number);
            write_path(create.rel, fork.ok_or(PayloadError::Invalid("fork number"))?, out);
        }
        SmgrOp::Truncate => {
            let truncate = SmgrTruncate::decode(main)?;
            write_path(truncate.rel, ForkKind::Main, out);
            let _ = write!(out, " to {} blocks flags {}", truncate.block, truncate.flags);
        }
    }
    Ok(())
}
