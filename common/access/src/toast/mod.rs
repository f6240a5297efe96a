//! TOAST: values that are too large for their row, in chunks of their own, as PostgreSQL 15 stores them.
//!
//! A table whose rows may be too long has a TOAST table `pg_toast.pg_toast_<oid>` (chunk_id oid, chunk_seq int4, chunk_data
//! bytea, all plain) with a unique index on (chunk_id, chunk_seq). The row keeps a pointer of 18 bytes. Chunks are ordinary rows
//! of an ordinary heap: logged, replayed, vacuumed and frozen like any other.
//!
//! - `write` makes the chunks of a row before the row is placed, so that no row points to nothing. They belong to the same
//!   transaction and command; if it fails, they are dead with it.
//! - `delete` removes the chunks of values that a new version of a row no longer has.
//! - `read` puts a value together again.
//!
//! **What a reader sees.** A value's chunks are written once, under a number that no other chunk of the table has, and deleted only by the
//! transaction that deletes or replaces the row version which points to them. So whoever sees that version may take every
//! chunk that is there, whoever inserted it and whether or not it is deleted by now (PostgreSQL's SnapshotToast); only what an
//! aborted transaction left is passed over. Vacuum removes chunks whose deletion is at or below the horizon; a snapshot that still sees the
//! row version is older than its deletion, which is the same commit, and holds the horizon below it. On a standby the removal
//! carries that commit as `conflict_lsn`, and such a snapshot is cancelled first: a reader that misses a chunk looks at its
//! interrupts before it calls that damage.
//!
//! **Locks.** Writers hold RowExclusive on the TOAST table until the end of their transaction, so that vacuum does not cut pages off
//! while they fill them. Readers need none: they follow the index to rows that are there.

mod delete;
mod read;
mod write;

use towline_base::Oid;
use towline_types::{ColumnType, TypeId};

use crate::catalog::{Column, Table};
use crate::error::AccessError;
use crate::heap::TOAST_ABOVE;

pub(crate) use delete::Removal;
pub use read::{ToastReader, fetch_all, read_value};
pub(crate) use write::Outgoing;

/// Bytes of a chunk: four of them, with their headers, fill a page (PostgreSQL's `TOAST_MAX_CHUNK_SIZE`).
pub const CHUNK: usize = 1996;

/// The columns of a TOAST table.
pub(crate) fn columns() -> [Column; 3] {
    let column = |number: i16, name: &str, id| Column {
        name: name.into(),
        number,
        column_type: ColumnType::from(id),
        not_null: false,
        default: None,
        dropped: false,
    };
    [
        column(1, "chunk_id", TypeId::Oid),
        column(2, "chunk_seq", TypeId::Int4),
        column(3, "chunk_data", TypeId::Bytea),
    ]
}

/// The name of the TOAST table of the table with this OID.
pub(crate) fn name_of(table: Oid) -> String {
    format!("pg_toast_{}", table.0)
}

/// Whether rows with these columns may be too long, and have something that can be moved out of line.
pub(crate) fn is_needed(columns: &[Column]) -> bool {
    let (mut length, mut movable) = (0usize, false);
    for column in columns.iter().filter(|column| !column.dropped) {
        let info = column.column_type.id.info();
        length = info.align.up(length);
        match usize::try_from(info.len) {
            Ok(bytes) => length += bytes,
            Err(_) => {
                if info.storage != b'p' {
                    movable = true;
                }
                match largest(column.column_type) {
                    Some(bytes) => length = length.saturating_add(bytes),
                    None => length = usize::MAX / 2,
                }
            }
        }
    }
    let header = towline_storage::page::max_align(
        crate::heap::tuple::HEADER + towline_types::RowDesc::bitmap_len(columns.len()),
    );
    movable && header.saturating_add(length.next_multiple_of(8)) > TOAST_ABOVE
}

/// The most bytes that a value of this type takes, header included, if its modifier bounds it.
fn largest(ty: ColumnType) -> Option<usize> {
    let modifier = usize::try_from(ty.typmod.checked_sub(4)?).ok()?;
    match ty.id {
        // Characters of up to four bytes.
        TypeId::Varchar | TypeId::Bpchar => Some(modifier * 4 + 4),
        // Four decimal digits in two bytes, with those cut off at both ends.
        TypeId::Numeric => Some(8 + (((modifier >> 16) & 0xffff) + 6) / 4 * 2),
        _ => None,
    }
}

/// XX001, with the names of the value and of its table.
fn damaged(toast: &Table, value: u32, what: impl std::fmt::Display) -> AccessError {
    AccessError::corrupted(format!("{what} for toast value {value} in {}", toast.name))
        .with_table(&toast.schema_name, &toast.name)
}

/// XX001: a TOAST table without its index.
fn no_index(toast: &Table) -> AccessError {
    AccessError::corrupted(format!(
        "no valid index found for toast relation with OID {}",
        toast.oid
    ))
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
pub(crate) mod tests;
