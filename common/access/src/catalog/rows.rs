//! Rows of the system catalogs: building them column by column by name.
//!
//! A row begins with the zero of each NOT NULL column and NULL elsewhere; a builder sets what differs. The column list is
//! [`super::schema`], so a misspelt name is found by the tests, not by a position that slipped.

use std::sync::Arc;

use towline_base::{Oid, Xid};
use towline_types::{ColumnType, Datum, TypeId};

use super::descriptor::RelationKind;
use super::schema::{SystemColumn, SystemTable, system_table};
use super::{ATTRIBUTE_STORAGE_PLAIN, BTREE_AM, HEAP_AM};

/// The type a catalog column has here.
pub(crate) fn column_type(column: &SystemColumn) -> TypeId {
    let known = towline_types::type_id::TYPES
        .iter()
        .find(|info| info.name == column.type_name);
    debug_assert!(
        known.is_some(),
        "{} has unknown type {}",
        column.name,
        column.type_name
    );
    known.map_or(TypeId::Text, |info| info.id)
}

/// A row of a system catalog being made.
#[derive(Debug, Clone)]
pub(crate) struct RowBuilder {
    table: &'static SystemTable,
    values: Vec<Datum>,
}

impl RowBuilder {
    /// A row of `table` with nothing set.
    pub(crate) fn new(table: &'static str) -> RowBuilder {
        let table = system_table(table).expect("a catalog named in the source exists");
        let values = table
            .parsed_columns()
            .map(|column| {
                if column.not_null {
                    zero(column_type(&column))
                } else {
                    Datum::Null
                }
            })
            .collect();
        RowBuilder { table, values }
    }

    /// Sets one column.
    pub(crate) fn set(mut self, name: &str, value: Datum) -> RowBuilder {
        let at = self.table.parsed_columns().position(|column| column.name == name);
        debug_assert!(at.is_some(), "{} has no column {name}", self.table.name);
        if let Some(at) = at {
            self.values[at] = value;
        }
        self
    }

    /// Sets an oid column.
    pub(crate) fn oid(self, name: &str, oid: Oid) -> RowBuilder {
        self.set(name, Datum::Oid(oid.0))
    }

    /// Sets a name or text column.
    pub(crate) fn text(self, name: &str, text: &str) -> RowBuilder {
        self.set(name, Datum::text(text))
    }

    /// Sets a boolean column.
    pub(crate) fn flag(self, name: &str, flag: bool) -> RowBuilder {
        self.set(name, Datum::Bool(flag))
    }

    /// Sets a `"char"` column.
    pub(crate) fn letter(self, name: &str, letter: u8) -> RowBuilder {
        self.set(name, Datum::Char(letter))
    }

    /// Sets an int2 column.
    pub(crate) fn int2(self, name: &str, value: i16) -> RowBuilder {
        self.set(name, Datum::Int2(value))
    }

    /// Sets an int4 column.
    pub(crate) fn int4(self, name: &str, value: i32) -> RowBuilder {
        self.set(name, Datum::Int4(value))
    }

    /// The values in column order.
    pub(crate) fn finish(self) -> Vec<Datum> {
        self.values
    }
}

/// The zero of a type.
fn zero(id: TypeId) -> Datum {
    match id {
        TypeId::Bool => Datum::Bool(false),
        TypeId::Char => Datum::Char(0),
        TypeId::Int2 => Datum::Int2(0),
        TypeId::Int4 => Datum::Int4(0),
        TypeId::Int8 => Datum::Int8(0),
        TypeId::Float4 => Datum::Float4(0.0),
        TypeId::Float8 => Datum::Float8(0.0),
        TypeId::Xid | TypeId::Cid => Datum::Xid(0),
        TypeId::Int2Vector => Datum::Int2Vector(Arc::from([])),
        TypeId::OidVector => Datum::OidVector(Arc::from([])),
        TypeId::TimestampTz => Datum::TimestampTz(0),
        TypeId::PgLsn => Datum::PgLsn(towline_base::Lsn::INVALID),
        id if id == TypeId::Oid || id.is_reg() => Datum::Oid(0),
        _ => Datum::text(""),
    }
}

/// What pg_class says of a relation.
#[derive(Debug, Clone)]
pub(crate) struct ClassRow<'a> {
    pub(crate) oid: Oid,
    pub(crate) name: &'a str,
    pub(crate) schema: Oid,
    pub(crate) row_type: Oid,
    pub(crate) owner: Oid,
    pub(crate) file: u32,
    pub(crate) kind: RelationKind,
    pub(crate) columns: i16,
    pub(crate) has_index: bool,
    pub(crate) toast: Oid,
    pub(crate) shared: bool,
    pub(crate) fillfactor: Option<u8>,
    /// Below it no xid will stand unfrozen in the table; meaningless for others.
    pub(crate) frozen_xid: Xid,
}

impl ClassRow<'_> {
    pub(crate) fn values(&self) -> Vec<Datum> {
        let am = match self.kind {
            RelationKind::Table | RelationKind::Toast => HEAP_AM,
            RelationKind::Index => BTREE_AM,
            RelationKind::View => Oid(0),
        };
        let options = match self.fillfactor {
            Some(percent) => text_array(&[&format!("fillfactor={percent}")]),
            None => Datum::Null,
        };
        let frozen = if matches!(self.kind, RelationKind::Table | RelationKind::Toast) {
            self.frozen_xid.low32()
        } else {
            0
        };
        RowBuilder::new("pg_class")
            .oid("oid", self.oid)
            .text("relname", self.name)
            .oid("relnamespace", self.schema)
            .oid("reltype", self.row_type)
            .oid("relowner", self.owner)
            .oid("relam", am)
            .oid("relfilenode", Oid(self.file))
            .set("reltuples", Datum::Float4(-1.0))
            .oid("reltoastrelid", self.toast)
            .flag("relhasindex", self.has_index)
            .flag("relisshared", self.shared)
            .letter("relpersistence", b'p')
            .letter("relkind", self.kind.letter())
            .int2("relnatts", self.columns)
            .flag("relispopulated", true)
            .letter(
                "relreplident",
                if self.kind == RelationKind::Table {
                    b'd'
                } else {
                    b'n'
                },
            )
            .set("relfrozenxid", Datum::Xid(frozen))
            .set("relminmxid", Datum::Xid(u32::from(frozen != 0)))
            .set("reloptions", options)
            .finish()
    }
}

/// A `text[]` of these elements.
pub(crate) fn text_array(items: &[&str]) -> Datum {
    let values = items.iter().map(|item| Datum::text(item)).collect();
    Datum::Array(Arc::new(towline_types::ArrayValue::new(TypeId::Text, values)))
}

/// What pg_attribute says of a column.
#[derive(Debug, Clone)]
pub(crate) struct AttributeRow<'a> {
    pub(crate) relation: Oid,
    pub(crate) name: &'a str,
    pub(crate) number: i16,
    pub(crate) column_type: ColumnType,
    pub(crate) not_null: bool,
    pub(crate) has_default: bool,
    pub(crate) dropped: bool,
    /// Stored plain, whatever its type says: in a TOAST table.
    pub(crate) plain: bool,
}

impl AttributeRow<'_> {
    pub(crate) fn values(&self) -> Vec<Datum> {
        let info = self.column_type.id.info();
        let storage = if info.len > 0 || self.plain {
            ATTRIBUTE_STORAGE_PLAIN
        } else {
            info.storage
        };
        RowBuilder::new("pg_attribute")
            .oid("attrelid", self.relation)
            .text("attname", self.name)
            .oid("atttypid", if self.dropped { Oid(0) } else { Oid(info.oid) })
            .int4("attstattarget", -1)
            .int2("attlen", info.len)
            .int2("attnum", self.number)
            .int4(
                "attndims",
                i32::from(info.category == towline_types::Category::Array),
            )
            .int4("attcacheoff", -1)
            .int4("atttypmod", self.column_type.typmod)
            .flag("attbyval", info.by_value)
            .letter("attalign", info.align.letter())
            .letter("attstorage", storage)
            .flag("attnotnull", self.not_null)
            .flag("atthasdef", self.has_default)
            .flag("attisdropped", self.dropped)
            .flag("attislocal", true)
            .oid("attcollation", collation_of(self.column_type.id))
            .finish()
    }
}

/// The collation of a column of this type: `default` for strings, `C` for `name`.
pub(crate) fn collation_of(id: TypeId) -> Oid {
    match id {
        TypeId::Text | TypeId::Varchar | TypeId::Bpchar => Oid(100),
        TypeId::Name => Oid(950),
        _ => Oid(0),
    }
}

/// The default B-tree operator class of a type; 0 when it has none.
pub(crate) fn operator_class_of(id: TypeId) -> Oid {
    Oid(match id {
        TypeId::Bool => 10_003,
        TypeId::Bytea => 10_006,
        TypeId::Char => 10_007,
        TypeId::Name | TypeId::Cstring => 10_028,
        TypeId::Int8 => 3124,
        TypeId::Int2 => 1979,
        TypeId::Int4 => 1978,
        TypeId::Text | TypeId::Varchar => 3126,
        TypeId::Oid => 1981,
        TypeId::OidVector => 10_032,
        TypeId::Float4 => 10_012,
        TypeId::Float8 => 3123,
        TypeId::Bpchar => 10_004,
        TypeId::Date => 3122,
        TypeId::Time => 10_038,
        TypeId::Timestamp => 3128,
        TypeId::TimestampTz => 3127,
        TypeId::Interval => 10_022,
        TypeId::Numeric => 3125,
        TypeId::PgLsn => 10_067,
        _ => 0,
    })
}

/// What pg_index says of an index.
#[derive(Debug, Clone)]
pub(crate) struct IndexRow<'a> {
    pub(crate) index: Oid,
    pub(crate) table: Oid,
    pub(crate) unique: bool,
    pub(crate) primary: bool,
    pub(crate) keys: &'a [super::descriptor::IndexKey],
    /// The keys' column types.
    pub(crate) types: &'a [TypeId],
}

impl IndexRow<'_> {
    pub(crate) fn values(&self) -> Vec<Datum> {
        let numbers: Vec<i16> = self.keys.iter().map(|key| key.column).collect();
        let options: Vec<i16> = self
            .keys
            .iter()
            .map(|key| i16::from(key.descending) | i16::from(key.nulls_first) << 1)
            .collect();
        let collations: Vec<u32> = self.types.iter().map(|id| collation_of(*id).0).collect();
        let classes: Vec<u32> = self.types.iter().map(|id| operator_class_of(*id).0).collect();
        RowBuilder::new("pg_index")
            .oid("indexrelid", self.index)
            .oid("indrelid", self.table)
            .int2("indnatts", numbers.len() as i16)
            .int2("indnkeyatts", numbers.len() as i16)
            .flag("indisunique", self.unique)
            .flag("indisprimary", self.primary)
            .flag("indimmediate", true)
            .flag("indisvalid", true)
            .flag("indisready", true)
            .flag("indislive", true)
            .set("indkey", Datum::Int2Vector(numbers.into()))
            .set("indcollation", Datum::OidVector(collations.into()))
            .set("indclass", Datum::OidVector(classes.into()))
            .set("indoption", Datum::Int2Vector(options.into()))
            .finish()
    }
}

/// The pg_constraint row of a primary key or unique constraint.
pub(crate) fn constraint_row(
    oid: Oid,
    name: &str,
    schema: Oid,
    table: Oid,
    index: Oid,
    primary: bool,
    columns: &[i16],
) -> Vec<Datum> {
    let numbers = columns.iter().map(|number| Datum::Int2(*number)).collect();
    RowBuilder::new("pg_constraint")
        .oid("oid", oid)
        .text("conname", name)
        .oid("connamespace", schema)
        .letter("contype", if primary { b'p' } else { b'u' })
        .flag("convalidated", true)
        .oid("conrelid", table)
        .oid("conindid", index)
        .letter("confupdtype", b' ')
        .letter("confdeltype", b' ')
        .letter("confmatchtype", b' ')
        .flag("conislocal", true)
        .flag("connoinherit", true)
        .set(
            "conkey",
            Datum::Array(Arc::new(towline_types::ArrayValue::new(TypeId::Int2, numbers))),
        )
        .finish()
}

/// The pg_attrdef row of a default; the expression is kept as SQL text.
pub(crate) fn default_row(oid: Oid, table: Oid, number: i16, expression: &str) -> Vec<Datum> {
    RowBuilder::new("pg_attrdef")
        .oid("oid", oid)
        .oid("adrelid", table)
        .int2("adnum", number)
        .text("adbin", expression)
        .finish()
}

/// The pg_namespace row of a schema.
pub(crate) fn namespace_row(oid: Oid, name: &str, owner: Oid) -> Vec<Datum> {
    RowBuilder::new("pg_namespace")
        .oid("oid", oid)
        .text("nspname", name)
        .oid("nspowner", owner)
        .finish()
}

/// A pg_type row: of a scalar or array type that types knows.
pub(crate) fn type_row(info: &towline_types::type_id::TypeInfo, schema: Oid, owner: Oid) -> Vec<Datum> {
    let array_of = towline_types::type_id::TYPES
        .iter()
        .find(|other| other.array == Some(info.id));
    let element = array_of.map_or_else(|| info.element.map_or(0, |id| id.oid()), |other| other.oid);
    let kind = if info.category == towline_types::Category::Pseudo {
        b'p'
    } else {
        b'b'
    };
    RowBuilder::new("pg_type")
        .oid("oid", Oid(info.oid))
        .text("typname", info.name)
        .oid("typnamespace", schema)
        .oid("typowner", owner)
        .int2("typlen", info.len)
        .flag("typbyval", info.by_value)
        .letter("typtype", kind)
        .letter("typcategory", info.category.letter())
        .flag("typispreferred", info.preferred)
        .flag("typisdefined", true)
        .letter("typdelim", b',')
        .oid("typelem", Oid(element))
        .oid("typarray", Oid(info.array.map_or(0, |id| id.oid())))
        .letter("typalign", info.align.letter())
        .letter("typstorage", info.storage)
        .int4("typtypmod", -1)
        .oid("typcollation", collation_of(info.id))
        .finish()
}
