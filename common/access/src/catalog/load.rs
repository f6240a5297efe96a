//! Reading the catalog tables into a [`CatalogState`].
//!
//! One pass over each table with one snapshot. Rows of the system catalogs themselves are not interpreted: their descriptors
//! come from [`super::schema`], so that the catalog can be read before anything is known.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use towline_base::{BlockNumber, ForkKind, Lsn, Oid, PageId, Tid, Xid};
use towline_storage::Storage;
use towline_types::{ColumnType, Datum, RowDesc, TypeId};

use super::descriptor::{Column, Index, IndexKey, RelationKind, Role, Schema, Table};
use super::schema::system_table;
use super::state::{CatalogState, Relation};
use super::system::SystemDescriptors;
use super::{FIRST_USER_OID, relation_file};
use crate::btree::{DescentHints, KeyColumn, KeyDescriptor};
use crate::csn::{CsnLog, XidStatus};
use crate::engine::Engine;
use crate::error::{AccessError, Result};
use crate::heap::visibility::{Outcome, Visibility, holder, inserter, tuple_at};
use crate::txn::snapshot::{ComboCids, Snapshot};

/// A row of a catalog: its values by column name.
pub(crate) struct CatalogRow {
    /// Where the version is.
    pub(crate) tid: Tid,
    /// Commit LSN of its insertion; invalid for the own transaction's rows and for very old ones.
    pub(crate) inserted: Lsn,
    /// The values in column order.
    pub(crate) values: Vec<Datum>,
}

/// The columns of a catalog by name: found once, used for every row.
pub(crate) struct Columns(&'static super::schema::SystemTable);

impl Columns {
    /// The columns of `table`, which is named in the source.
    pub(crate) fn of(table: &str) -> Columns {
        Columns(system_table(table).expect("a catalog named in the source exists"))
    }

    /// The position of a column.
    pub(crate) fn at(&self, name: &str) -> usize {
        let found = self.0.parsed_columns().position(|column| column.name == name);
        debug_assert!(found.is_some(), "{} has no column {name}", self.0.name);
        found.unwrap_or(0)
    }
}

/// An oid column's value.
pub(crate) fn oid(row: &[Datum], at: usize) -> Oid {
    match row.get(at) {
        Some(Datum::Oid(oid)) => Oid(*oid),
        _ => Oid(0),
    }
}

/// A boolean column's value.
pub(crate) fn flag(row: &[Datum], at: usize) -> bool {
    matches!(row.get(at), Some(Datum::Bool(true)))
}

/// An integer column's value.
pub(crate) fn int(row: &[Datum], at: usize) -> i32 {
    match row.get(at) {
        Some(Datum::Int2(value)) => i32::from(*value),
        Some(Datum::Int4(value)) => *value,
        _ => 0,
    }
}

/// A text column's value.
pub(crate) fn text(row: &[Datum], at: usize) -> Option<Arc<str>> {
    match row.get(at) {
        Some(Datum::Text(text)) => Some(Arc::clone(text)),
        _ => None,
    }
}

fn letter(row: &[Datum], at: usize) -> u8 {
    match row.get(at) {
        Some(Datum::Char(letter)) => *letter,
        _ => 0,
    }
}

/// Reads the rows of a system catalog that a snapshot sees.
pub(crate) fn read_rows(
    engine: &Engine,
    table: &Table,
    snapshot: &Snapshot,
    combos: &ComboCids,
    keep: &mut dyn FnMut(CatalogRow) -> Result<()>,
) -> Result<()> {
    read_rows_from(engine, table, snapshot, combos, 0, keep)
}

/// As [`read_rows`], without those whose first column is an OID below `first`: they are passed over before anything else is looked at.
fn read_rows_from(
    engine: &Engine,
    table: &Table,
    snapshot: &Snapshot,
    combos: &ComboCids,
    first: u32,
    keep: &mut dyn FnMut(CatalogRow) -> Result<()>,
) -> Result<()> {
    let storage = engine.storage();
    let blocks: BlockNumber = storage.nblocks(table.node, ForkKind::Main)?;
    for block in 0..blocks {
        // The values are copied out under the latch, so that `keep` may do what it likes.
        let mut rows = Vec::new();
        {
            let page = storage.pin(PageId::main(table.node, block))?.read();
            let mut visibility = Visibility::new(engine.csn(), snapshot, combos);
            for offset in 1..=page.max_offset() {
                let Some(tuple) = tuple_at(&page, block, offset)? else {
                    continue;
                };
                if first > 0 {
                    let key = table
                        .layout
                        .attr(tuple.data(), tuple.bitmap(), tuple.natts(), 0)?;
                    if let Some(&[a, b, c, d]) = key.as_deref()
                        && u32::from_le_bytes([a, b, c, d]) < first
                    {
                        continue;
                    }
                }
                if !visibility.sees(tuple)? {
                    continue;
                }
                let mut values = Vec::with_capacity(table.columns.len());
                table
                    .layout
                    .deform(tuple.data(), tuple.bitmap(), tuple.natts(), &mut values)?;
                let inserted = if tuple.is_xmin_frozen() {
                    Lsn::INVALID
                } else {
                    match engine
                        .csn()
                        .status(Xid::from_low32(tuple.xmin(), snapshot.next_xid))?
                    {
                        XidStatus::Committed(lsn) => lsn,
                        XidStatus::InProgress | XidStatus::Aborted => Lsn::INVALID,
                    }
                };
                rows.push(CatalogRow {
                    tid: Tid::new(block, offset),
                    inserted,
                    values,
                });
            }
        }
        for row in rows {
            keep(row)?;
        }
    }
    Ok(())
}

/// The largest OID and file number that any row version of the catalog holds, dead ones included: what is given out next lies
/// above it.
pub(crate) fn highest_oid(engine: &Engine, system: &SystemDescriptors) -> Result<u32> {
    let storage = engine.storage();
    let mut highest = FIRST_USER_OID - 1;
    for name in [
        "pg_class",
        "pg_constraint",
        "pg_attrdef",
        "pg_authid",
        "pg_namespace",
        "pg_type",
    ] {
        let table = system.table(name);
        let columns = Columns::of(name);
        let mut wanted = vec![columns.at("oid")];
        if name == "pg_class" {
            wanted.extend([columns.at("relfilenode"), columns.at("reltype")]);
        }
        for block in 0..storage.nblocks(table.node, ForkKind::Main)? {
            let page = storage.pin(PageId::main(table.node, block))?.read();
            for offset in 1..=page.max_offset() {
                let Some(tuple) = tuple_at(&page, block, offset)? else {
                    continue;
                };
                for column in &wanted {
                    let bytes = table
                        .layout
                        .attr(tuple.data(), tuple.bitmap(), tuple.natts(), *column)?;
                    if let Some(&[a, b, c, d]) = bytes.as_deref() {
                        highest = highest.max(u32::from_le_bytes([a, b, c, d]));
                    }
                }
            }
        }
    }
    Ok(highest)
}

/// The numbers of the files that pg_class names, in rows whose inserter has committed and whose deleter has not. For a moment at which
/// no transaction runs; one that seems to run anyway keeps its files.
pub(crate) fn claimed_files(storage: &Storage, csn: &CsnLog, next_xid: Xid) -> Result<HashSet<u32>> {
    let system = SystemDescriptors::new();
    let table = system.table("pg_class");
    let file_at = Columns::of("pg_class").at("relfilenode");
    let mut claimed = HashSet::new();
    for block in 0..storage.nblocks(table.node, ForkKind::Main)? {
        let page = storage.pin(PageId::main(table.node, block))?.read();
        for offset in 1..=page.max_offset() {
            let Some(tuple) = tuple_at(&page, block, offset)? else {
                continue;
            };
            let inserted = inserter(csn, tuple, Xid::INVALID, next_xid)? != Outcome::None;
            let deleted = !tuple.is_lock_only()
                && matches!(holder(csn, tuple, Xid::INVALID, next_xid)?, Outcome::Committed(_));
            if !inserted || deleted {
                continue;
            }
            let bytes = table
                .layout
                .attr(tuple.data(), tuple.bitmap(), tuple.natts(), file_at)?;
            if let Some(&[a, b, c, d]) = bytes.as_deref() {
                claimed.insert(u32::from_le_bytes([a, b, c, d]));
            }
        }
    }
    Ok(claimed)
}

/// What pg_class says of a user relation, before its columns are known.
struct ClassEntry {
    oid: Oid,
    name: Arc<str>,
    schema: Oid,
    owner: Oid,
    file: u32,
    kind: RelationKind,
    toast: Oid,
    fillfactor: Option<u8>,
    rows: f32,
    pages: i32,
}

struct IndexEntry {
    table: Oid,
    keys: Vec<IndexKey>,
    unique: bool,
    primary: bool,
    usable_from: Lsn,
}

/// Reads everything.
pub(crate) fn load(
    engine: &Engine,
    system: &SystemDescriptors,
    snapshot: &Snapshot,
    combos: &ComboCids,
) -> Result<CatalogState> {
    let mut state = CatalogState {
        loaded_at: snapshot.lsn,
        ..CatalogState::default()
    };
    let rows = |name: &str, keep: &mut dyn FnMut(CatalogRow) -> Result<()>| {
        // What describes the system catalogs themselves, most of these tables at first, is not interpreted.
        let first = match name {
            "pg_class" | "pg_attribute" | "pg_index" => FIRST_USER_OID,
            _ => 0,
        };
        read_rows_from(engine, system.table(name), snapshot, combos, first, keep)
    };
    load_schemas(&mut state, &rows)?;
    load_roles(&mut state, &rows)?;
    system.add_to(&mut state);

    let classes = read_classes(&rows)?;
    let mut columns = read_columns(&rows)?;
    read_defaults(&rows, &mut columns)?;
    let mut index_entries = read_indexes(&rows)?;
    let constraints = read_constraints(&rows)?;

    let mut indexes_of: HashMap<Oid, Vec<Arc<Index>>> = HashMap::new();
    for class in classes.iter().filter(|class| class.kind == RelationKind::Index) {
        let Some(entry) = index_entries.remove(&class.oid) else {
            continue;
        };
        let types = columns.get(&entry.table);
        let key_columns = entry
            .keys
            .iter()
            .map(|key| {
                let column = usize::try_from(key.column - 1).ok().and_then(|at| types?.get(at));
                let type_id = column.map(|column| column.column_type.id).ok_or_else(|| {
                    AccessError::corrupted(format!("index {} has no column {}", class.oid, key.column))
                })?;
                Ok(KeyColumn::new(type_id, key.descending, key.nulls_first))
            })
            .collect::<Result<Vec<_>>>()?;
        let index = Arc::new(Index {
            oid: class.oid,
            name: Arc::clone(&class.name),
            schema: class.schema,
            table: entry.table,
            node: relation_file(class.file),
            keys: entry.keys.into_boxed_slice(),
            key: KeyDescriptor::new(key_columns),
            unique: entry.unique,
            primary: entry.primary,
            constraint: constraints.get(&class.oid).copied(),
            fillfactor: class.fillfactor.unwrap_or(90),
            usable_from: entry.usable_from,
            hints: DescentHints::default(),
        });
        indexes_of
            .entry(entry.table)
            .or_default()
            .push(Arc::clone(&index));
        state.insert(class.schema, &class.name, Relation::Index(index));
    }
    // The tables of large values first: the others refer to them.
    let (toasts, others): (Vec<_>, Vec<_>) = classes
        .iter()
        .filter(|class| class.kind != RelationKind::Index)
        .partition(|class| class.kind == RelationKind::Toast);
    for class in toasts.into_iter().chain(others) {
        let columns = columns.remove(&class.oid).unwrap_or_default();
        let mut indexes = indexes_of.remove(&class.oid).unwrap_or_default();
        indexes.sort_by_key(|index| index.oid);
        let schema_name = state
            .schema_by_oid(class.schema)
            .map_or_else(|| Arc::from(""), |schema| Arc::clone(&schema.name));
        let toast = match class.toast {
            Oid(0) => None,
            oid => Some(Arc::clone(state.table(oid).ok_or_else(|| {
                AccessError::corrupted(format!("relation {} has no TOAST table {oid}", class.oid))
            })?)),
        };
        let types = columns.iter().map(|column| column.column_type);
        let table = Arc::new(Table {
            oid: class.oid,
            name: Arc::clone(&class.name),
            schema: class.schema,
            schema_name,
            owner: class.owner,
            kind: class.kind,
            node: relation_file(class.file),
            layout: if class.kind == RelationKind::Toast {
                RowDesc::plain(types)
            } else {
                RowDesc::new(types)
            },
            columns: columns.into_boxed_slice(),
            indexes: indexes.into_boxed_slice(),
            toast,
            fillfactor: class.fillfactor.unwrap_or(100),
            estimated_rows: class.rows,
            estimated_pages: class.pages,
            activity: engine.catalog().activity().of(class.oid, class.rows),
        });
        state.insert(class.schema, &class.name, Relation::Table(table));
    }
    Ok(state)
}

type Rows<'a> = dyn Fn(&str, &mut dyn FnMut(CatalogRow) -> Result<()>) -> Result<()> + 'a;

fn load_schemas(state: &mut CatalogState, rows: &Rows<'_>) -> Result<()> {
    let at = Columns::of("pg_namespace");
    let (oid_at, name_at, owner_at) = (at.at("oid"), at.at("nspname"), at.at("nspowner"));
    rows("pg_namespace", &mut |row| {
        let row = &row.values;
        let name = text(row, name_at).unwrap_or_else(|| Arc::from(""));
        let schema = Schema {
            oid: oid(row, oid_at),
            name: Arc::clone(&name),
            owner: oid(row, owner_at),
        };
        state.schema_names.insert(name, schema.oid);
        state.schemas.insert(schema.oid, schema);
        Ok(())
    })
}

fn load_roles(state: &mut CatalogState, rows: &Rows<'_>) -> Result<()> {
    let at = Columns::of("pg_authid");
    rows("pg_authid", &mut |row| {
        let row = &row.values;
        let name = text(row, at.at("rolname")).unwrap_or_else(|| Arc::from(""));
        let role = Role {
            oid: oid(row, at.at("oid")),
            name: Arc::clone(&name),
            superuser: flag(row, at.at("rolsuper")),
            inherit: flag(row, at.at("rolinherit")),
            create_role: flag(row, at.at("rolcreaterole")),
            create_database: flag(row, at.at("rolcreatedb")),
            can_login: flag(row, at.at("rolcanlogin")),
            replication: flag(row, at.at("rolreplication")),
            bypass_row_security: flag(row, at.at("rolbypassrls")),
            connection_limit: int(row, at.at("rolconnlimit")),
            password: text(row, at.at("rolpassword")),
            valid_until: match row.get(at.at("rolvaliduntil")) {
                Some(Datum::TimestampTz(until)) => Some(*until),
                _ => None,
            },
        };
        state.role_names.insert(name, role.oid);
        state.roles.insert(role.oid, Arc::new(role));
        Ok(())
    })
}

fn read_classes(rows: &Rows<'_>) -> Result<Vec<ClassEntry>> {
    let at = Columns::of("pg_class");
    let (oid_at, name_at, schema_at, owner_at) = (
        at.at("oid"),
        at.at("relname"),
        at.at("relnamespace"),
        at.at("relowner"),
    );
    let (file_at, kind_at, options_at) = (at.at("relfilenode"), at.at("relkind"), at.at("reloptions"));
    let (rows_at, pages_at, toast_at) = (at.at("reltuples"), at.at("relpages"), at.at("reltoastrelid"));
    let mut classes = Vec::new();
    rows("pg_class", &mut |row| {
        let row = &row.values;
        let relation = oid(row, oid_at);
        if relation.0 < FIRST_USER_OID {
            return Ok(());
        }
        let Some(kind) = RelationKind::from_letter(letter(row, kind_at)) else {
            return Ok(());
        };
        classes.push(ClassEntry {
            oid: relation,
            name: text(row, name_at).unwrap_or_else(|| Arc::from("")),
            schema: oid(row, schema_at),
            owner: oid(row, owner_at),
            file: oid(row, file_at).0,
            kind,
            toast: oid(row, toast_at),
            fillfactor: row.get(options_at).and_then(fillfactor_option),
            rows: match row.get(rows_at) {
                Some(Datum::Float4(rows)) => *rows,
                _ => -1.0,
            },
            pages: int(row, pages_at),
        });
        Ok(())
    })?;
    Ok(classes)
}

/// `fillfactor=n` among reloptions.
pub(crate) fn fillfactor_option(options: &Datum) -> Option<u8> {
    let Datum::Array(array) = options else { return None };
    array.values.iter().find_map(|option| {
        let percent: u8 = option.as_str()?.strip_prefix("fillfactor=")?.parse().ok()?;
        (10..=100).contains(&percent).then_some(percent)
    })
}

fn read_columns(rows: &Rows<'_>) -> Result<HashMap<Oid, Vec<Column>>> {
    let at = Columns::of("pg_attribute");
    let (relation_at, name_at, type_at, mod_at) = (
        at.at("attrelid"),
        at.at("attname"),
        at.at("atttypid"),
        at.at("atttypmod"),
    );
    let (number_at, not_null_at, dropped_at) = (at.at("attnum"), at.at("attnotnull"), at.at("attisdropped"));
    let length_at = at.at("attlen");
    let mut columns: HashMap<Oid, Vec<Column>> = HashMap::new();
    rows("pg_attribute", &mut |row| {
        let row = &row.values;
        let relation = oid(row, relation_at);
        let number = int(row, number_at) as i16;
        if relation.0 < FIRST_USER_OID || number < 1 {
            return Ok(());
        }
        let dropped = flag(row, dropped_at);
        let id = match TypeId::from_oid(oid(row, type_at).0) {
            Some(id) => id,
            None if dropped => dropped_type(int(row, length_at), letter(row, at.at("attalign"))),
            None => {
                return Err(AccessError::corrupted(format!(
                    "column {number} of relation {relation} has unknown type {}",
                    oid(row, type_at)
                )));
            }
        };
        columns.entry(relation).or_default().push(Column {
            name: text(row, name_at).unwrap_or_else(|| Arc::from("")),
            number,
            column_type: ColumnType {
                id,
                typmod: int(row, mod_at),
            },
            not_null: flag(row, not_null_at),
            default: None,
            dropped,
        });
        Ok(())
    })?;
    for list in columns.values_mut() {
        list.sort_by_key(|column| column.number);
        if list
            .iter()
            .enumerate()
            .any(|(at, column)| column.number as usize != at + 1)
        {
            return Err(AccessError::corrupted(
                "pg_attribute lacks a column of a relation",
            ));
        }
    }
    Ok(columns)
}

/// A type with the physical properties of a dropped column.
fn dropped_type(len: i32, align: u8) -> TypeId {
    match (len, align) {
        (1, _) => TypeId::Bool,
        (2, _) => TypeId::Int2,
        (4, _) => TypeId::Int4,
        (8, _) => TypeId::Int8,
        (16, _) => TypeId::Interval,
        (64, _) => TypeId::Name,
        (6, _) => TypeId::Tid,
        (_, b'd') => TypeId::Int8Array,
        _ => TypeId::Bytea,
    }
}

fn read_defaults(rows: &Rows<'_>, columns: &mut HashMap<Oid, Vec<Column>>) -> Result<()> {
    let at = Columns::of("pg_attrdef");
    let (relation_at, number_at, text_at) = (at.at("adrelid"), at.at("adnum"), at.at("adbin"));
    rows("pg_attrdef", &mut |row| {
        let row = &row.values;
        let column = columns
            .get_mut(&oid(row, relation_at))
            .and_then(|columns| columns.get_mut(usize::try_from(int(row, number_at) - 1).ok()?));
        if let Some(column) = column {
            column.default = text(row, text_at);
        }
        Ok(())
    })
}

fn read_indexes(rows: &Rows<'_>) -> Result<HashMap<Oid, IndexEntry>> {
    let at = Columns::of("pg_index");
    let (index_at, table_at, keys_at, options_at) = (
        at.at("indexrelid"),
        at.at("indrelid"),
        at.at("indkey"),
        at.at("indoption"),
    );
    let (unique_at, primary_at) = (at.at("indisunique"), at.at("indisprimary"));
    let mut indexes = HashMap::new();
    rows("pg_index", &mut |row| {
        let values = &row.values;
        let index = oid(values, index_at);
        if index.0 < FIRST_USER_OID {
            return Ok(());
        }
        let (Some(Datum::Int2Vector(numbers)), Some(Datum::Int2Vector(options))) =
            (values.get(keys_at), values.get(options_at))
        else {
            return Err(AccessError::corrupted(format!(
                "pg_index row of {index} has no keys"
            )));
        };
        let keys = numbers
            .iter()
            .zip(options.iter())
            .map(|(column, option)| IndexKey {
                column: *column,
                descending: option & 1 != 0,
                nulls_first: option & 2 != 0,
            })
            .collect();
        indexes.insert(
            index,
            IndexEntry {
                table: oid(values, table_at),
                keys,
                unique: flag(values, unique_at),
                primary: flag(values, primary_at),
                usable_from: row.inserted,
            },
        );
        Ok(())
    })?;
    Ok(indexes)
}

/// Constraint OIDs by index.
fn read_constraints(rows: &Rows<'_>) -> Result<HashMap<Oid, Oid>> {
    let at = Columns::of("pg_constraint");
    let (oid_at, index_at) = (at.at("oid"), at.at("conindid"));
    let mut constraints = HashMap::new();
    rows("pg_constraint", &mut |row| {
        constraints.insert(oid(&row.values, index_at), oid(&row.values, oid_at));
        Ok(())
    })?;
    Ok(constraints)
}
