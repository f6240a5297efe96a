//! The rows that every new cluster has: schemas, roles, types, and the catalog's description of itself.

use towline_base::{Oid, Xid};
use towline_types::{ColumnType, Datum, TypeId, type_id::TYPES};

use crate::catalog::rows::{
    AttributeRow, ClassRow, IndexRow, RowBuilder, namespace_row, operator_class_of, type_row,
};
use crate::catalog::schema::SYSTEM_TABLES;
use crate::catalog::system::SystemDescriptors;
use crate::catalog::{
    BOOTSTRAP_SUPERUSER, BTREE_AM, DATABASE, DEFAULT_TABLESPACE, HEAP_AM, Index, PG_CATALOG, PG_TOAST,
    PUBLIC, RelationKind, Table,
};

/// The predefined roles of PostgreSQL 15; `public` belongs to the first.
const PREDEFINED_ROLES: &[(u32, &str)] = &[
    (6171, "pg_database_owner"),
    (6181, "pg_read_all_data"),
    (6182, "pg_write_all_data"),
    (3373, "pg_monitor"),
    (3374, "pg_read_all_settings"),
    (3375, "pg_read_all_stats"),
    (3377, "pg_stat_scan_tables"),
    (4569, "pg_read_server_files"),
    (4570, "pg_write_server_files"),
    (4571, "pg_execute_server_program"),
    (4200, "pg_signal_backend"),
    (4544, "pg_checkpoint"),
];

/// Rows of one catalog.
pub(super) struct Rows {
    /// The catalog.
    pub(super) table: &'static str,
    /// Its rows.
    pub(super) rows: Vec<Vec<Datum>>,
}

/// All first rows, catalog by catalog. `password` is the superuser's verifier; `first_xid` the first one to be given out.
pub(super) fn initial(system: &SystemDescriptors, password: Option<&str>, first_xid: Xid) -> Vec<Rows> {
    let mut all = vec![
        Rows {
            table: "pg_namespace",
            rows: namespaces(),
        },
        Rows {
            table: "pg_authid",
            rows: roles(password),
        },
        Rows {
            table: "pg_database",
            rows: vec![database(first_xid)],
        },
        Rows {
            table: "pg_tablespace",
            rows: tablespaces(),
        },
        Rows {
            table: "pg_am",
            rows: access_methods(),
        },
        Rows {
            table: "pg_collation",
            rows: collations(),
        },
        Rows {
            table: "pg_language",
            rows: languages(),
        },
        Rows {
            table: "pg_opclass",
            rows: operator_classes(),
        },
        Rows {
            table: "pg_description",
            rows: descriptions(),
        },
        Rows {
            table: "pg_shdescription",
            rows: vec![shared_description()],
        },
        Rows {
            table: "pg_type",
            rows: TYPES
                .iter()
                .map(|info| type_row(info, PG_CATALOG, BOOTSTRAP_SUPERUSER))
                .collect(),
        },
        Rows {
            table: "pg_proc",
            rows: super::functions::rows(),
        },
    ];
    let (mut classes, mut attributes, mut indexes) = (Vec::new(), Vec::new(), Vec::new());
    for table in system.tables().iter().chain(system.views()) {
        classes.push(class_of(table, first_xid));
        attributes.extend(table.columns.iter().map(|column| {
            AttributeRow {
                relation: table.oid,
                name: &column.name,
                number: column.number,
                column_type: column.column_type,
                not_null: column.not_null,
                has_default: false,
                dropped: false,
                plain: false,
            }
            .values()
        }));
        for index in &table.indexes {
            classes.push(class_of_index(index));
            attributes.extend(index_attributes(table, index));
            indexes.push(index_row(table, index));
        }
    }
    all.push(Rows {
        table: "pg_class",
        rows: classes,
    });
    all.push(Rows {
        table: "pg_attribute",
        rows: attributes,
    });
    all.push(Rows {
        table: "pg_index",
        rows: indexes,
    });
    all
}

fn class_of(table: &Table, first_xid: Xid) -> Vec<Datum> {
    let fact = SYSTEM_TABLES.iter().find(|fact| fact.oid == table.oid.0);
    ClassRow {
        oid: table.oid,
        name: &table.name,
        schema: PG_CATALOG,
        row_type: Oid(0),
        owner: BOOTSTRAP_SUPERUSER,
        file: if table.kind == RelationKind::View {
            0
        } else {
            table.oid.0
        },
        kind: table.kind,
        columns: table.columns.len() as i16,
        has_index: !table.indexes.is_empty(),
        toast: Oid(0),
        shared: fact.is_some_and(|fact| fact.shared),
        fillfactor: None,
        frozen_xid: first_xid,
    }
    .values()
}

fn class_of_index(index: &Index) -> Vec<Datum> {
    ClassRow {
        oid: index.oid,
        name: &index.name,
        schema: PG_CATALOG,
        row_type: Oid(0),
        owner: BOOTSTRAP_SUPERUSER,
        file: index.oid.0,
        kind: RelationKind::Index,
        columns: index.keys.len() as i16,
        has_index: false,
        toast: Oid(0),
        shared: false,
        fillfactor: None,
        frozen_xid: Xid::INVALID,
    }
    .values()
}

/// The pg_attribute rows of an index: one for each key, named after the table's column.
pub(crate) fn index_attributes<'a>(
    table: &'a Table,
    index: &'a Index,
) -> impl Iterator<Item = Vec<Datum>> + 'a {
    index
        .keys
        .iter()
        .zip(&index.key.columns)
        .enumerate()
        .filter_map(|(at, (key, stored))| {
            let column = table.columns.get(usize::try_from(key.column - 1).ok()?)?;
            let typmod = if stored.type_id == column.column_type.id {
                column.column_type.typmod
            } else {
                -1
            };
            Some(
                AttributeRow {
                    relation: index.oid,
                    name: &column.name,
                    number: at as i16 + 1,
                    column_type: ColumnType {
                        id: stored.type_id,
                        typmod,
                    },
                    not_null: false,
                    has_default: false,
                    dropped: false,
                    plain: table.kind == RelationKind::Toast,
                }
                .values(),
            )
        })
}

/// The pg_index row of an index.
pub(crate) fn index_row(table: &Table, index: &Index) -> Vec<Datum> {
    let types: Vec<TypeId> = index
        .keys
        .iter()
        .filter_map(|key| table.columns.get(usize::try_from(key.column - 1).ok()?))
        .map(|column| column.column_type.id)
        .collect();
    IndexRow {
        index: index.oid,
        table: table.oid,
        unique: index.unique,
        primary: index.primary,
        keys: &index.keys,
        types: &types,
    }
    .values()
}

fn namespaces() -> Vec<Vec<Datum>> {
    vec![
        namespace_row(PG_CATALOG, "pg_catalog", BOOTSTRAP_SUPERUSER),
        namespace_row(PG_TOAST, "pg_toast", BOOTSTRAP_SUPERUSER),
        namespace_row(PUBLIC, "public", Oid(6171)),
    ]
}

fn roles(password: Option<&str>) -> Vec<Vec<Datum>> {
    let superuser = RowBuilder::new("pg_authid")
        .oid("oid", BOOTSTRAP_SUPERUSER)
        .text("rolname", "postgres")
        .flag("rolsuper", true)
        .flag("rolinherit", true)
        .flag("rolcreaterole", true)
        .flag("rolcreatedb", true)
        .flag("rolcanlogin", true)
        .flag("rolreplication", true)
        .flag("rolbypassrls", true)
        .int4("rolconnlimit", -1)
        .set("rolpassword", password.map_or(Datum::Null, Datum::text))
        .finish();
    let predefined = PREDEFINED_ROLES.iter().map(|(oid, name)| {
        RowBuilder::new("pg_authid")
            .oid("oid", Oid(*oid))
            .text("rolname", name)
            .flag("rolinherit", true)
            .int4("rolconnlimit", -1)
            .finish()
    });
    std::iter::once(superuser).chain(predefined).collect()
}

fn database(first_xid: Xid) -> Vec<Datum> {
    RowBuilder::new("pg_database")
        .oid("oid", DATABASE)
        .text("datname", "postgres")
        .oid("datdba", BOOTSTRAP_SUPERUSER)
        .int4("encoding", 6)
        .letter("datlocprovider", b'c')
        .flag("datallowconn", true)
        .int4("datconnlimit", -1)
        .set("datfrozenxid", Datum::Xid(first_xid.low32()))
        .set("datminmxid", Datum::Xid(1))
        .oid("dattablespace", DEFAULT_TABLESPACE)
        .text("datcollate", "C")
        .text("datctype", "C")
        .finish()
}

fn tablespaces() -> Vec<Vec<Datum>> {
    [(1663, "pg_default"), (1664, "pg_global")]
        .into_iter()
        .map(|(oid, name)| {
            RowBuilder::new("pg_tablespace")
                .oid("oid", Oid(oid))
                .text("spcname", name)
                .oid("spcowner", BOOTSTRAP_SUPERUSER)
                .finish()
        })
        .collect()
}

fn access_methods() -> Vec<Vec<Datum>> {
    [(HEAP_AM, "heap", b't'), (BTREE_AM, "btree", b'i')]
        .into_iter()
        .map(|(oid, name, kind)| {
            RowBuilder::new("pg_am")
                .oid("oid", oid)
                .text("amname", name)
                .letter("amtype", kind)
                .finish()
        })
        .collect()
}

fn collations() -> Vec<Vec<Datum>> {
    [
        (100, "default", b'd', None),
        (950, "C", b'c', Some("C")),
        (951, "POSIX", b'c', Some("POSIX")),
    ]
    .into_iter()
    .map(|(oid, name, provider, locale)| {
        let locale = locale.map_or(Datum::Null, Datum::text);
        RowBuilder::new("pg_collation")
            .oid("oid", Oid(oid))
            .text("collname", name)
            .oid("collnamespace", PG_CATALOG)
            .oid("collowner", BOOTSTRAP_SUPERUSER)
            .letter("collprovider", provider)
            .flag("collisdeterministic", true)
            .int4("collencoding", -1)
            .set("collcollate", locale.clone())
            .set("collctype", locale)
            .finish()
    })
    .collect()
}

fn languages() -> Vec<Vec<Datum>> {
    [(12, "internal", false), (13, "c", false), (14, "sql", true)]
        .into_iter()
        .map(|(oid, name, trusted)| {
            RowBuilder::new("pg_language")
                .oid("oid", Oid(oid))
                .text("lanname", name)
                .oid("lanowner", BOOTSTRAP_SUPERUSER)
                .flag("lanpltrusted", trusted)
                .finish()
        })
        .collect()
}

/// One default B-tree operator class for each type that can be a key.
fn operator_classes() -> Vec<Vec<Datum>> {
    TYPES
        .iter()
        .filter(|info| {
            operator_class_of(info.id).is_valid() && !matches!(info.id, TypeId::Varchar | TypeId::Cstring)
        })
        .map(|info| {
            RowBuilder::new("pg_opclass")
                .oid("oid", operator_class_of(info.id))
                .oid("opcmethod", BTREE_AM)
                .text("opcname", &format!("{}_ops", info.name))
                .oid("opcnamespace", PG_CATALOG)
                .oid("opcowner", BOOTSTRAP_SUPERUSER)
                .oid("opcintype", Oid(info.oid))
                .flag("opcdefault", true)
                .finish()
        })
        .collect()
}

fn descriptions() -> Vec<Vec<Datum>> {
    [
        (PG_CATALOG.0, "system catalog schema"),
        (99, "reserved schema for TOAST tables"),
        (PUBLIC.0, "standard public schema"),
    ]
    .into_iter()
    .map(|(oid, text)| {
        RowBuilder::new("pg_description")
            .oid("objoid", Oid(oid))
            .oid("classoid", Oid(2615))
            .text("description", text)
            .finish()
    })
    .collect()
}

fn shared_description() -> Vec<Datum> {
    RowBuilder::new("pg_shdescription")
        .oid("objoid", DATABASE)
        .oid("classoid", Oid(1262))
        .text("description", "default administrative connection database")
        .finish()
}
