//! Descriptors of relations: what planner, executor and the engine need to know of a table or an index.
//!
//! Immutable once built; a changed relation gets a new descriptor. A descriptor is shared by `Arc` and stays usable
//! by whoever holds a relation lock on it, even while newer ones exist.

use std::sync::Arc;

use towline_base::{Lsn, Oid, RelFileNode};
use towline_types::{ColumnType, RowDesc};

use crate::activity::TableActivity;
use crate::btree::{DescentHints, KeyDescriptor};

/// What kind of relation a pg_class row describes, PostgreSQL's `relkind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    /// `r`: a heap table.
    Table,
    /// `i`: a B-tree index.
    Index,
    /// `v`: a virtual system view, whose rows sql computes.
    View,
    /// `t`: the chunks of another table's large values.
    Toast,
}

impl RelationKind {
    /// The letter stored in `pg_class.relkind`.
    pub const fn letter(self) -> u8 {
        match self {
            RelationKind::Table => b'r',
            RelationKind::Index => b'i',
            RelationKind::View => b'v',
            RelationKind::Toast => b't',
        }
    }

    /// The kind with this letter, if we store such relations.
    pub const fn from_letter(letter: u8) -> Option<RelationKind> {
        match letter {
            b'r' => Some(RelationKind::Table),
            b'i' => Some(RelationKind::Index),
            b'v' => Some(RelationKind::View),
            b't' => Some(RelationKind::Toast),
            _ => None,
        }
    }
}

/// One column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// The column's name.
    pub name: Arc<str>,
    /// Attribute number, from 1; always its position in [`Table::columns`] plus one.
    pub number: i16,
    /// Type and modifier.
    pub column_type: ColumnType,
    /// Whether NULL is refused (23502).
    pub not_null: bool,
    /// The default expression as SQL text, if there is one.
    pub default: Option<Arc<str>>,
    /// A dropped column: kept for its place in old rows, never named.
    pub dropped: bool,
}

/// A table (or virtual view) as one catalog version shows it.
#[derive(Debug)]
pub struct Table {
    /// OID in pg_class.
    pub oid: Oid,
    /// The relation's name.
    pub name: Arc<str>,
    /// OID of the schema.
    pub schema: Oid,
    /// Name of the schema.
    pub schema_name: Arc<str>,
    /// OID of the owning role.
    pub owner: Oid,
    /// Table or view; a [`Table`] is never an index.
    pub kind: RelationKind,
    /// Its main file; meaningless for a view.
    pub node: RelFileNode,
    /// All columns in attribute order, dropped ones included.
    pub columns: Box<[Column]>,
    /// Physical layout of a row, attribute for attribute the same as `columns`.
    pub layout: RowDesc,
    /// Its indexes, ordered by OID.
    pub indexes: Box<[Arc<Index>]>,
    /// Its TOAST table, which has one index and none of its own.
    pub toast: Option<Arc<Table>>,
    /// Percentage of a page that inserts fill, 10 to 100.
    pub fillfactor: u8,
    /// Planner estimate of rows (`reltuples`), -1 when never analyzed.
    pub estimated_rows: f32,
    /// Planner estimate of pages (`relpages`).
    pub estimated_pages: i32,
    /// What is done to it: the same in every version of the catalog.
    pub activity: Arc<TableActivity>,
}

impl Table {
    /// Whether it belongs to the system catalog (user OIDs begin at [`super::FIRST_USER_OID`]).
    pub fn is_system(&self) -> bool {
        self.oid.0 < super::FIRST_USER_OID
    }

    /// The OID of its TOAST table, where its large values go.
    pub fn toast_oid(&self) -> Option<u32> {
        self.toast.as_ref().map(|toast| toast.oid.0)
    }

    /// The live column called `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns
            .iter()
            .find(|column| !column.dropped && &*column.name == name)
    }

    /// The live columns in order.
    pub fn live_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.dropped)
    }

    /// The primary key's index.
    pub fn primary_key(&self) -> Option<&Arc<Index>> {
        self.indexes.iter().find(|index| index.primary)
    }

    /// Whether column `number` is a key of any index: an update of it cannot be HOT.
    pub fn is_indexed(&self, number: i16) -> bool {
        self.indexes
            .iter()
            .any(|index| index.keys.iter().any(|key| key.column == number))
    }
}

/// One key column of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexKey {
    /// Attribute number in the table.
    pub column: i16,
    /// Larger values first.
    pub descending: bool,
    /// NULLs before all other values.
    pub nulls_first: bool,
}

/// A B-tree index as one catalog version shows it.
#[derive(Debug)]
pub struct Index {
    /// OID in pg_class.
    pub oid: Oid,
    /// The index's name.
    pub name: Arc<str>,
    /// OID of the schema (always the table's).
    pub schema: Oid,
    /// OID of the indexed table.
    pub table: Oid,
    /// Its file.
    pub node: RelFileNode,
    /// The key columns in order.
    pub keys: Box<[IndexKey]>,
    /// How keys are stored and compared.
    pub key: KeyDescriptor,
    /// Whether equal keys are refused (NULLs never equal).
    pub unique: bool,
    /// Whether it backs the primary key.
    pub primary: bool,
    /// OID of the pg_constraint row it backs, if any.
    pub constraint: Option<Oid>,
    /// Percentage of a leaf page that a bulk build fills.
    pub fillfactor: u8,
    /// Snapshots below this LSN must not use the index: it was built later and lacks the versions they see.
    pub usable_from: Lsn,
    /// Where descents begin; a hint only.
    pub hints: DescentHints,
}

impl Index {
    /// Whether a snapshot at `snapshot` finds everything it must see through this index.
    pub fn usable_at(&self, snapshot: Lsn) -> bool {
        snapshot >= self.usable_from
    }
}

/// A role as pg_authid shows it.
#[derive(Clone, Debug)]
pub struct Role {
    /// OID in pg_authid.
    pub oid: Oid,
    /// The role's name.
    pub name: Arc<str>,
    /// `rolsuper`
    pub superuser: bool,
    /// `rolinherit`
    pub inherit: bool,
    /// `rolcreaterole`
    pub create_role: bool,
    /// `rolcreatedb`
    pub create_database: bool,
    /// `rolcanlogin`
    pub can_login: bool,
    /// `rolreplication`
    pub replication: bool,
    /// `rolbypassrls`
    pub bypass_row_security: bool,
    /// `rolconnlimit`, -1 for none.
    pub connection_limit: i32,
    /// The stored verifier (`SCRAM-SHA-256$…`), if a password is set.
    pub password: Option<Arc<str>>,
    /// `rolvaliduntil`: microseconds since 2000-01-01 UTC.
    pub valid_until: Option<i64>,
}

/// A schema as pg_namespace shows it.
#[derive(Clone, Debug)]
pub struct Schema {
    /// OID in pg_namespace.
    pub oid: Oid,
    /// The schema's name.
    pub name: Arc<str>,
    /// OID of the owning role.
    pub owner: Oid,
}
