//! Cache invalidation messages, carried by commit records and by standby records: 16 bytes each, PostgreSQL's layout.

use std::fmt::Write as _;

use towline_base::RelFileNode;

use super::layout::{Field, PayloadError};

/// One message: what another node or session must forget when the commit becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// One entry of a catalog cache.
    Catcache {
        /// PostgreSQL's cache id, 0–127.
        cache: u8,
        /// Database or 0.
        db: u32,
        /// Hash of the key.
        hash: u32,
    },
    /// A whole catalog.
    Catalog {
        /// Database or 0.
        db: u32,
        /// The catalog's oid.
        catalog: u32,
    },
    /// One relation's descriptor; 0 means all.
    Relcache {
        /// Database or 0.
        db: u32,
        /// The relation's oid.
        relation: u32,
    },
    /// Open files of a relation.
    Smgr {
        /// Its files.
        rel: RelFileNode,
    },
    /// The relation map.
    Relmap {
        /// Database or 0.
        db: u32,
    },
    /// Saved snapshots of a relation.
    Snapshot {
        /// Database or 0.
        db: u32,
        /// The relation's oid.
        relation: u32,
    },
    /// An id that this version does not know; kept as it is.
    Unknown([u8; 16]),
}

impl Invalidation {
    /// Bytes of one message.
    pub const SIZE: usize = 16;

    /// The stored form.
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut out = [0u8; 16];
        let (id, first, second) = match *self {
            Self::Catcache { cache, db, hash } => (cache as i8, db, hash),
            Self::Catalog { db, catalog } => (-1, db, catalog),
            Self::Relcache { db, relation } => (-2, db, relation),
            Self::Smgr { rel } => {
                out[0] = (-3i8) as u8;
                out[1] = 0xFF; // no backend: not a temporary relation
                out[2] = 0xFF;
                out[3] = 0xFF;
                rel.put(&mut out[4..]);
                return out;
            }
            Self::Relmap { db } => (-4, db, 0),
            Self::Snapshot { db, relation } => (-5, db, relation),
            Self::Unknown(bytes) => return bytes,
        };
        out[0] = id as u8;
        first.put(&mut out[4..]);
        second.put(&mut out[8..]);
        out
    }

    /// Decodes one message.
    pub fn from_bytes(bytes: &[u8; 16]) -> Self {
        let first = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let second = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        match bytes[0] as i8 {
            -1 => Self::Catalog {
                db: first,
                catalog: second,
            },
            -2 => Self::Relcache {
                db: first,
                relation: second,
            },
            -3 => match RelFileNode::get(&bytes[4..]) {
                Some(rel) => Self::Smgr { rel },
                None => Self::Unknown(*bytes),
            },
            -4 => Self::Relmap { db: first },
            -5 => Self::Snapshot {
                db: first,
                relation: second,
            },
            id if id >= 0 => Self::Catcache {
                cache: id as u8,
                db: first,
                hash: second,
            },
            _ => Self::Unknown(*bytes),
        }
    }
}

/// Messages as stored in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Invalidations<'a>(&'a [u8]);

impl<'a> Invalidations<'a> {
    /// Takes `count` messages from the front of `bytes` and returns what follows them.
    pub fn split(bytes: &'a [u8], count: usize) -> Result<(Self, &'a [u8]), PayloadError> {
        let needed = count.saturating_mul(Invalidation::SIZE);
        match bytes.split_at_checked(needed) {
            Some((head, tail)) => Ok((Self(head), tail)),
            None => Err(PayloadError::Truncated {
                needed,
                available: bytes.len(),
            }),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len() / Invalidation::SIZE
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The messages in stored order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Invalidation> + 'a {
        self.0.chunks_exact(Invalidation::SIZE).map(|chunk| {
            let mut bytes = [0u8; 16];
            bytes.copy_from_slice(chunk);
            Invalidation::from_bytes(&bytes)
        })
    }
}

/// pg_waldump's text for a list of messages; nothing for an empty list.
pub(super) fn describe(messages: Invalidations<'_>, init_file: Option<(u32, u32)>, out: &mut String) {
    if messages.is_empty() {
        return;
    }
    if let Some((db, spc)) = init_file {
        let _ = write!(out, "; relcache init file inval dbid {db} tsid {spc}");
    }
    out.push_str("; inval msgs:");
    for message in messages.iter() {
        let _ = match message {
            Invalidation::Catcache { cache, .. } => write!(out, " catcache {cache}"),
            Invalidation::Catalog { catalog, .. } => write!(out, " catalog {catalog}"),
            Invalidation::Relcache { relation, .. } => write!(out, " relcache {relation}"),
            Invalidation::Smgr { .. } => write!(out, " smgr"),
            Invalidation::Relmap { db } => write!(out, " relmap db {db}"),
            Invalidation::Snapshot { relation, .. } => write!(out, " snapshot {relation}"),
            Invalidation::Unknown(bytes) => write!(out, " unrecognized id {}", bytes[0] as i8),
        };
    }
}
