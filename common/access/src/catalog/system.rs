//! Descriptors of the system catalogs and virtual views, from [`super::schema`] and [`super::views`]: what is known before
//! any row can be read.

use std::sync::Arc;

use towline_base::{Lsn, Oid};
use towline_types::{ColumnType, RowDesc};

use super::descriptor::{Column, Index, IndexKey, RelationKind, Table};
use super::rows::column_type;
use super::schema::{SYSTEM_TABLES, SystemColumn, SystemIndex, SystemTable};
use super::state::{CatalogState, Relation};
use super::views::{SYSTEM_VIEWS, SystemView};
use super::{BOOTSTRAP_SUPERUSER, PG_CATALOG, relation_file};
use crate::btree::{DescentHints, KeyColumn, KeyDescriptor};

/// The descriptors of one engine. Not shared between engines: index hints are about one data directory.
#[derive(Debug)]
pub(crate) struct SystemDescriptors {
    tables: Vec<Arc<Table>>,
    views: Vec<Arc<Table>>,
}

impl SystemDescriptors {
    /// Makes them.
    pub(crate) fn new() -> SystemDescriptors {
        SystemDescriptors {
            tables: SYSTEM_TABLES
                .iter()
                .map(|table| Arc::new(describe_table(table)))
                .collect(),
            views: SYSTEM_VIEWS
                .iter()
                .map(|view| Arc::new(describe_view(view)))
                .collect(),
        }
    }

    /// The catalog called `name`, which is named in the source.
    pub(crate) fn table(&self, name: &str) -> &Arc<Table> {
        self.tables
            .iter()
            .find(|table| &*table.name == name)
            .expect("a catalog named in the source exists")
    }

    /// All catalogs.
    pub(crate) fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    /// All virtual views.
    pub(crate) fn views(&self) -> &[Arc<Table>] {
        &self.views
    }

    /// Puts them into a state.
    pub(crate) fn add_to(&self, state: &mut CatalogState) {
        for table in self.tables.iter().chain(&self.views) {
            for index in &table.indexes {
                state.insert(PG_CATALOG, &index.name, Relation::Index(Arc::clone(index)));
            }
            state.insert(PG_CATALOG, &table.name, Relation::Table(Arc::clone(table)));
        }
    }
}

fn columns_of(columns: impl Iterator<Item = SystemColumn>) -> Vec<Column> {
    columns
        .enumerate()
        .map(|(at, column)| Column {
            name: Arc::from(column.name),
            number: at as i16 + 1,
            column_type: ColumnType::from(column_type(&column)),
            not_null: column.not_null,
            default: None,
            dropped: false,
        })
        .collect()
}

fn describe_table(table: &SystemTable) -> Table {
    let columns = columns_of(table.parsed_columns());
    let mut indexes: Vec<Arc<Index>> = table
        .indexes
        .iter()
        .map(|index| Arc::new(describe_index(table, index, &columns)))
        .collect();
    indexes.sort_by_key(|index| index.oid);
    assemble(Oid(table.oid), table.name, RelationKind::Table, columns, indexes)
}

fn describe_view(view: &SystemView) -> Table {
    assemble(
        Oid(view.oid),
        view.name,
        RelationKind::View,
        columns_of(view.parsed_columns()),
        Vec::new(),
    )
}

fn assemble(
    oid: Oid,
    name: &str,
    kind: RelationKind,
    columns: Vec<Column>,
    indexes: Vec<Arc<Index>>,
) -> Table {
    Table {
        oid,
        name: Arc::from(name),
        schema: PG_CATALOG,
        schema_name: Arc::from("pg_catalog"),
        owner: BOOTSTRAP_SUPERUSER,
        kind,
        node: relation_file(oid.0),
        layout: RowDesc::new(columns.iter().map(|column| column.column_type)),
        columns: columns.into_boxed_slice(),
        indexes: indexes.into_boxed_slice(),
        toast: None,
        fillfactor: 100,
        estimated_rows: -1.0,
        estimated_pages: 0,
        activity: Arc::default(),
    }
}

fn describe_index(table: &SystemTable, index: &SystemIndex, columns: &[Column]) -> Index {
    let keys: Vec<IndexKey> = index
        .keys
        .iter()
        .map(|number| IndexKey {
            column: *number,
            descending: false,
            nulls_first: false,
        })
        .collect();
    let key_columns = index
        .keys
        .iter()
        .filter_map(|number| columns.get(usize::try_from(number - 1).ok()?))
        .map(|column| KeyColumn::new(column.column_type.id, false, false))
        .collect();
    Index {
        oid: Oid(index.oid),
        name: Arc::from(index.name),
        schema: PG_CATALOG,
        table: Oid(table.oid),
        node: relation_file(index.oid),
        keys: keys.into_boxed_slice(),
        key: KeyDescriptor::new(key_columns),
        unique: index.unique,
        primary: index.primary,
        constraint: None,
        fillfactor: 90,
        usable_from: Lsn::INVALID,
        hints: DescentHints::default(),
    }
}
