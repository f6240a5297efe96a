//! The catalog: PostgreSQL 15's pg_catalog tables as ordinary logged heap tables, and descriptors read from them.
//!
//! [`schema`] and [`views`] hold the facts (names, columns, OIDs), `rows` forms rows, [`CatalogState`] is one loaded version.

mod cache;
mod descriptor;
pub(crate) mod load;
pub(crate) mod rows;
pub mod schema;
mod state;
pub(crate) mod system;
pub mod views;

pub use cache::{CatalogCache, CatalogView};
pub use descriptor::{Column, Index, IndexKey, RelationKind, Role, Schema, Table};
pub use state::{CatalogState, Relation};

use towline_base::{Oid, RelFileNode};

/// The first OID (and file number) given to user objects.
pub const FIRST_USER_OID: u32 = 16384;
/// OID of the schema pg_catalog.
pub const PG_CATALOG: Oid = Oid(11);
/// OID of the schema public.
pub const PUBLIC: Oid = Oid(2200);
/// OID of the schema pg_toast.
pub const PG_TOAST: Oid = Oid(99);
/// OID of the bootstrap superuser `postgres`.
pub const BOOTSTRAP_SUPERUSER: Oid = Oid(10);
/// OID of the only database, `postgres`.
pub const DATABASE: Oid = Oid(5);
/// OID of the tablespace `pg_default`.
pub const DEFAULT_TABLESPACE: Oid = Oid(1663);
/// OID of the access method `heap`.
pub const HEAP_AM: Oid = Oid(2);
/// OID of the access method `btree`.
pub const BTREE_AM: Oid = Oid(403);
pub(crate) const ATTRIBUTE_STORAGE_PLAIN: u8 = b'p';

/// The files of relation file number `file` in our one database.
pub const fn relation_file(file: u32) -> RelFileNode {
    RelFileNode {
        spc: DEFAULT_TABLESPACE.0,
        db: DATABASE.0,
        rel: file,
    }
}
