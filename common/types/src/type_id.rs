//! The table of data types: PostgreSQL's OIDs, names and physical properties.
//!
//! One row per type; everything else in the system asks this table instead of matching on OIDs. Names, OIDs,
//! lengths, alignments and categories are PostgreSQL 15's, because they are visible to clients (`pg_type`,
//! RowDescription) and on disk.

use crate::error::TypeError;
use towline_base::SqlState;

/// Alignment of an attribute inside a tuple, PostgreSQL's `typalign`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Align {
    /// `c`: any byte.
    Char,
    /// `s`: 2 bytes.
    Short,
    /// `i`: 4 bytes.
    Int,
    /// `d`: 8 bytes.
    Double,
}

impl Align {
    /// The alignment in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Align::Char => 1,
            Align::Short => 2,
            Align::Int => 4,
            Align::Double => 8,
        }
    }

    /// The letter stored in `pg_type.typalign` and `pg_attribute.attalign`.
    pub const fn letter(self) -> u8 {
        match self {
            Align::Char => b'c',
            Align::Short => b's',
            Align::Int => b'i',
            Align::Double => b'd',
        }
    }

    /// `offset` rounded up to this alignment.
    pub const fn up(self, offset: usize) -> usize {
        let mask = self.bytes() - 1;
        (offset + mask) & !mask
    }
}

/// PostgreSQL's `typcategory`: decides which implicit casts and operators are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// `A`
    Array,
    /// `B`
    Boolean,
    /// `D`: dates and times.
    DateTime,
    /// `I`
    Network,
    /// `N`
    Numeric,
    /// `P`: pseudo-types.
    Pseudo,
    /// `S`
    String,
    /// `T`: time spans.
    Timespan,
    /// `U`
    User,
    /// `X`: the type of an undecorated string literal.
    Unknown,
    /// `Z`: internal use.
    Internal,
}

impl Category {
    /// The letter stored in `pg_type.typcategory`.
    pub const fn letter(self) -> u8 {
        match self {
            Category::Array => b'A',
            Category::Boolean => b'B',
            Category::DateTime => b'D',
            Category::Network => b'I',
            Category::Numeric => b'N',
            Category::Pseudo => b'P',
            Category::String => b'S',
            Category::Timespan => b'T',
            Category::User => b'U',
            Category::Unknown => b'X',
            Category::Internal => b'Z',
        }
    }
}

/// The properties of one type, as `pg_type` shows them.
#[derive(Clone, Copy, Debug)]
pub struct TypeInfo {
    /// The type.
    pub id: TypeId,
    /// `pg_type.oid`
    pub oid: u32,
    /// `pg_type.typname`
    pub name: &'static str,
    /// The name `format_type` prints.
    pub sql_name: &'static str,
    /// `pg_type.typlen`: bytes, -1 for varlena, -2 for a C string.
    pub len: i16,
    /// `pg_type.typalign`
    pub align: Align,
    /// `pg_type.typbyval`
    pub by_value: bool,
    /// `pg_type.typcategory`
    pub category: Category,
    /// `pg_type.typispreferred`
    pub preferred: bool,
    /// `pg_type.typstorage`: `p`, `m` or `x`.
    pub storage: u8,
    /// `pg_type.typelem`, if subscripting makes sense.
    pub element: Option<TypeId>,
    /// `pg_type.typarray`
    pub array: Option<TypeId>,
}

macro_rules! types {
    ($( $(#[$doc:meta])* $id:ident = $oid:literal $name:literal ($sql:literal) $len:literal $align:ident $byval:literal $cat:ident $pref:literal $storage:literal elem $elem:ident array $array:ident; )*) => {
        /// A data type that Towline knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum TypeId { $( $(#[$doc])* $id, )* }

        /// Every type, in the order of [`TypeId`].
        pub static TYPES: &[TypeInfo] = &[ $( TypeInfo {
            id: TypeId::$id, oid: $oid, name: $name, sql_name: $sql, len: $len, align: Align::$align,
            by_value: $byval, category: Category::$cat, preferred: $pref, storage: $storage,
            element: types!(@opt $elem), array: types!(@opt $array),
        }, )* ];

        /// The type with this OID.
        const fn by_oid(oid: u32) -> Option<TypeId> {
            match oid { $( $oid => Some(TypeId::$id), )* _ => None }
        }
    };
    (@opt none) => { None };
    (@opt $id:ident) => { Some(TypeId::$id) };
}

types! {
    /// `boolean`
    Bool = 16 "bool" ("boolean") 1 Char true Boolean true b'p' elem none array BoolArray;
    /// `bytea`
    Bytea = 17 "bytea" ("bytea") -1 Int false User false b'x' elem none array ByteaArray;
    /// `"char"`: one byte, used by the catalog.
    Char = 18 "char" ("\"char\"") 1 Char true Internal false b'p' elem none array CharArray;
    /// `name`: 64 bytes, NUL padded.
    Name = 19 "name" ("name") 64 Char false String false b'p' elem Char array NameArray;
    /// `bigint`
    Int8 = 20 "int8" ("bigint") 8 Double true Numeric false b'p' elem none array Int8Array;
    /// `smallint`
    Int2 = 21 "int2" ("smallint") 2 Short true Numeric false b'p' elem none array Int2Array;
    /// `int2vector`: a 0-based array of smallint, used by the catalog.
    Int2Vector = 22 "int2vector" ("int2vector") -1 Int false Array false b'p' elem Int2 array none;
    /// `integer`
    Int4 = 23 "int4" ("integer") 4 Int true Numeric false b'p' elem none array Int4Array;
    /// `regproc`
    Regproc = 24 "regproc" ("regproc") 4 Int true Numeric false b'p' elem none array none;
    /// `text`
    Text = 25 "text" ("text") -1 Int false String true b'x' elem none array TextArray;
    /// `oid`
    Oid = 26 "oid" ("oid") 4 Int true Numeric true b'p' elem none array OidArray;
    /// `tid`: the place of a row version.
    Tid = 27 "tid" ("tid") 6 Short false User false b'p' elem none array none;
    /// `xid`
    Xid = 28 "xid" ("xid") 4 Int true User false b'p' elem none array none;
    /// `cid`
    Cid = 29 "cid" ("cid") 4 Int true User false b'p' elem none array none;
    /// `oidvector`: a 0-based array of oid, used by the catalog.
    OidVector = 30 "oidvector" ("oidvector") -1 Int false Array false b'p' elem Oid array none;
    /// `pg_node_tree`: stored expressions; text to us.
    PgNodeTree = 194 "pg_node_tree" ("pg_node_tree") -1 Int false Internal false b'x' elem none array none;
    /// `real`
    Float4 = 700 "float4" ("real") 4 Int true Numeric false b'p' elem none array Float4Array;
    /// `double precision`
    Float8 = 701 "float8" ("double precision") 8 Double true Numeric true b'p' elem none array Float8Array;
    /// `unknown`: a string literal whose type is not decided yet.
    Unknown = 705 "unknown" ("unknown") -2 Char false Unknown false b'p' elem none array none;
    /// `inet`: accepted as text, for `pg_stat_activity`.
    Inet = 869 "inet" ("inet") -1 Int false Network true b'm' elem none array none;
    /// `boolean[]`
    BoolArray = 1000 "_bool" ("boolean[]") -1 Int false Array false b'x' elem Bool array none;
    /// `bytea[]`
    ByteaArray = 1001 "_bytea" ("bytea[]") -1 Int false Array false b'x' elem Bytea array none;
    /// `"char"[]`
    CharArray = 1002 "_char" ("\"char\"[]") -1 Int false Array false b'x' elem Char array none;
    /// `name[]`
    NameArray = 1003 "_name" ("name[]") -1 Int false Array false b'x' elem Name array none;
    /// `smallint[]`
    Int2Array = 1005 "_int2" ("smallint[]") -1 Int false Array false b'x' elem Int2 array none;
    /// `integer[]`
    Int4Array = 1007 "_int4" ("integer[]") -1 Int false Array false b'x' elem Int4 array none;
    /// `text[]`
    TextArray = 1009 "_text" ("text[]") -1 Int false Array false b'x' elem Text array none;
    /// `character[]`
    BpcharArray = 1014 "_bpchar" ("character[]") -1 Int false Array false b'x' elem Bpchar array none;
    /// `character varying[]`
    VarcharArray = 1015 "_varchar" ("character varying[]") -1 Int false Array false b'x' elem Varchar array none;
    /// `bigint[]`
    Int8Array = 1016 "_int8" ("bigint[]") -1 Double false Array false b'x' elem Int8 array none;
    /// `real[]`
    Float4Array = 1021 "_float4" ("real[]") -1 Int false Array false b'x' elem Float4 array none;
    /// `double precision[]`
    Float8Array = 1022 "_float8" ("double precision[]") -1 Double false Array false b'x' elem Float8 array none;
    /// `oid[]`
    OidArray = 1028 "_oid" ("oid[]") -1 Int false Array false b'x' elem Oid array none;
    /// `aclitem`: only ever NULL here; text in memory.
    AclItem = 1033 "aclitem" ("aclitem") 12 Int false User false b'p' elem none array AclItemArray;
    /// `aclitem[]`: only ever NULL here.
    AclItemArray = 1034 "_aclitem" ("aclitem[]") -1 Int false Array false b'x' elem AclItem array none;
    /// `character(n)`: blank padded.
    Bpchar = 1042 "bpchar" ("character") -1 Int false String false b'x' elem none array BpcharArray;
    /// `character varying(n)`
    Varchar = 1043 "varchar" ("character varying") -1 Int false String false b'x' elem none array VarcharArray;
    /// `date`
    Date = 1082 "date" ("date") 4 Int true DateTime false b'p' elem none array DateArray;
    /// `time without time zone`
    Time = 1083 "time" ("time without time zone") 8 Double true DateTime false b'p' elem none array none;
    /// `timestamp without time zone`
    Timestamp = 1114 "timestamp" ("timestamp without time zone") 8 Double true DateTime false b'p' elem none array TimestampArray;
    /// `timestamp without time zone[]`
    TimestampArray = 1115 "_timestamp" ("timestamp without time zone[]") -1 Double false Array false b'x' elem Timestamp array none;
    /// `date[]`
    DateArray = 1182 "_date" ("date[]") -1 Int false Array false b'x' elem Date array none;
    /// `timestamp with time zone`
    TimestampTz = 1184 "timestamptz" ("timestamp with time zone") 8 Double true DateTime true b'p' elem none array TimestampTzArray;
    /// `timestamp with time zone[]`
    TimestampTzArray = 1185 "_timestamptz" ("timestamp with time zone[]") -1 Double false Array false b'x' elem TimestampTz array none;
    /// `interval`
    Interval = 1186 "interval" ("interval") 16 Double false Timespan true b'p' elem none array none;
    /// `numeric[]`
    NumericArray = 1231 "_numeric" ("numeric[]") -1 Int false Array false b'x' elem Numeric array none;
    /// `numeric(p,s)`
    Numeric = 1700 "numeric" ("numeric") -1 Int false Numeric false b'm' elem none array NumericArray;
    /// `regprocedure`
    Regprocedure = 2202 "regprocedure" ("regprocedure") 4 Int true Numeric false b'p' elem none array none;
    /// `regclass`
    Regclass = 2205 "regclass" ("regclass") 4 Int true Numeric false b'p' elem none array none;
    /// `regtype`
    Regtype = 2206 "regtype" ("regtype") 4 Int true Numeric false b'p' elem none array none;
    /// `record`: an anonymous row.
    Record = 2249 "record" ("record") -1 Double false Pseudo false b'x' elem none array none;
    /// `cstring`
    Cstring = 2275 "cstring" ("cstring") -2 Char false Pseudo false b'p' elem none array none;
    /// `"any"`: an argument of any type.
    Any = 2276 "any" ("\"any\"") 4 Int true Pseudo false b'p' elem none array none;
    /// `anyarray`: an argument or a catalog column that is any array.
    AnyArray = 2277 "anyarray" ("anyarray") -1 Double false Pseudo false b'x' elem none array none;
    /// `void`
    Void = 2278 "void" ("void") 4 Int true Pseudo false b'p' elem none array none;
    /// `anyelement`: an argument of any type, the same wherever it stands in one signature.
    AnyElement = 2283 "anyelement" ("anyelement") 4 Int true Pseudo false b'p' elem none array none;
    /// `pg_lsn`
    PgLsn = 3220 "pg_lsn" ("pg_lsn") 8 Double true User false b'p' elem none array none;
    /// `regnamespace`
    Regnamespace = 4089 "regnamespace" ("regnamespace") 4 Int true Numeric false b'p' elem none array none;
    /// `regrole`
    Regrole = 4096 "regrole" ("regrole") 4 Int true Numeric false b'p' elem none array none;
}

impl TypeId {
    /// The row of the type table.
    #[inline]
    pub fn info(self) -> &'static TypeInfo {
        &TYPES[self as usize]
    }

    /// `pg_type.oid`
    #[inline]
    pub fn oid(self) -> u32 {
        self.info().oid
    }

    /// The type with this OID, if Towline knows it.
    pub const fn from_oid(oid: u32) -> Option<TypeId> {
        by_oid(oid)
    }

    /// The type called so in `pg_type`, or by one of SQL's spellings (`integer`, `double precision`, …), lower case.
    pub fn from_name(name: &str) -> Option<TypeId> {
        let alias = match name {
            "int" => "int4",
            "decimal" | "dec" => "numeric",
            "char" => "bpchar",
            "timestamp" => "timestamp",
            "time" => "time",
            "float" => "float8",
            other => other,
        };
        TYPES
            .iter()
            .find(|t| t.name == alias || t.sql_name == alias)
            .map(|t| t.id)
    }

    /// `pg_type.typname`
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The name used in messages and by `format_type` without a modifier.
    pub fn sql_name(self) -> &'static str {
        self.info().sql_name
    }

    /// `pg_type.typlen`
    #[allow(
        clippy::len_without_is_empty,
        reason = "the length of a value, not of a collection"
    )]
    pub fn len(self) -> i16 {
        self.info().len
    }

    /// `pg_type.typcategory`
    pub fn category(self) -> Category {
        self.info().category
    }

    /// `pg_type.typispreferred`
    pub fn is_preferred(self) -> bool {
        self.info().preferred
    }

    /// The element type of an array type (`Int2Vector` and `OidVector` included; `name` is not an array).
    pub fn element(self) -> Option<TypeId> {
        if self.category() == Category::Array {
            self.info().element
        } else {
            None
        }
    }

    /// The array type over this type.
    pub fn array(self) -> Option<TypeId> {
        self.info().array
    }

    /// Whether a column may have this type (pseudo-types may not).
    pub fn is_storable(self) -> bool {
        self.category() != Category::Pseudo && self != TypeId::Unknown
    }

    /// Whether the value is an OID that names a catalog object (`regclass` and its kin).
    pub fn is_reg(self) -> bool {
        matches!(
            self,
            TypeId::Regclass
                | TypeId::Regproc
                | TypeId::Regprocedure
                | TypeId::Regtype
                | TypeId::Regnamespace
                | TypeId::Regrole
        )
    }
}

/// A type with its modifier, as a column or an expression has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ColumnType {
    /// The type.
    pub id: TypeId,
    /// PostgreSQL's `atttypmod`: -1 for none; `n + 4` for `varchar(n)` and `char(n)`;
    /// `((p << 16) | s) + 4` for `numeric(p,s)`; the precision for timestamps.
    pub typmod: i32,
}

impl From<TypeId> for ColumnType {
    fn from(id: TypeId) -> Self {
        ColumnType { id, typmod: -1 }
    }
}

/// Bytes of the varlena header, which PostgreSQL counts into most type modifiers.
const VARHDRSZ: i32 = 4;
/// The longest `char(n)` and `varchar(n)`.
const MAX_CHAR_LENGTH: i64 = 10_485_760;
/// The largest precision of `numeric(p,s)`.
const MAX_NUMERIC_PRECISION: i64 = 1000;

impl ColumnType {
    /// A type without modifier.
    pub const fn new(id: TypeId) -> Self {
        ColumnType { id, typmod: -1 }
    }

    /// The type with the modifiers written in parentheses after its name.
    ///
    /// # Errors
    /// 22023 with PostgreSQL's message for a modifier out of range, 42601 where the type takes none.
    pub fn with_modifiers(id: TypeId, modifiers: &[i64]) -> Result<Self, TypeError> {
        let invalid = |message: String| TypeError::new(SqlState::INVALID_PARAMETER_VALUE, message);
        let typmod = match (id, modifiers) {
            (_, []) => match id {
                // `character` without length is `character(1)`; callers that mean bpchar use `ColumnType::new`.
                TypeId::Bpchar => 1 + VARHDRSZ,
                _ => -1,
            },
            (TypeId::Varchar | TypeId::Bpchar, [n]) => {
                let name = if id == TypeId::Varchar { "varchar" } else { "char" };
                if *n < 1 {
                    return Err(invalid(format!("length for type {name} must be at least 1")));
                }
                if *n > MAX_CHAR_LENGTH {
                    return Err(invalid(format!(
                        "length for type {name} cannot exceed {MAX_CHAR_LENGTH}"
                    )));
                }
                *n as i32 + VARHDRSZ
            }
            (TypeId::Numeric, [p] | [p, _]) => {
                let s = modifiers.get(1).copied().unwrap_or(0);
                if !(1..=MAX_NUMERIC_PRECISION).contains(p) {
                    return Err(invalid(format!(
                        "NUMERIC precision {p} must be between 1 and 1000"
                    )));
                }
                if !(-1000..=1000).contains(&s) {
                    return Err(invalid(format!(
                        "NUMERIC scale {s} must be between -1000 and 1000"
                    )));
                }
                (((*p as i32) << 16) | (s as i32 & 0x7ff)) + VARHDRSZ
            }
            (TypeId::Timestamp | TypeId::TimestampTz | TypeId::Time, [p]) => {
                if *p < 0 {
                    let name = if id == TypeId::Time { "TIME" } else { "TIMESTAMP" };
                    let tz = if id == TypeId::TimestampTz {
                        " WITH TIME ZONE"
                    } else {
                        ""
                    };
                    return Err(invalid(format!("{name}({p}){tz} precision must not be negative")));
                }
                (*p).min(6) as i32
            }
            (TypeId::Interval, [p]) if (0..=6).contains(p) => 0x7fff_0000 | *p as i32,
            (
                TypeId::Varchar | TypeId::Bpchar | TypeId::Numeric | TypeId::Timestamp | TypeId::TimestampTz,
                _,
            ) => {
                return Err(invalid(if id == TypeId::Numeric {
                    "invalid NUMERIC type modifier".into()
                } else {
                    "invalid type modifier".into()
                }));
            }
            _ => {
                return Err(TypeError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("type modifier is not allowed for type \"{}\"", id.name()),
                ));
            }
        };
        Ok(ColumnType { id, typmod })
    }

    /// The `n` of `varchar(n)` or `char(n)`.
    pub fn char_limit(self) -> Option<usize> {
        match self.id {
            TypeId::Varchar | TypeId::Bpchar if self.typmod >= VARHDRSZ => {
                Some((self.typmod - VARHDRSZ) as usize)
            }
            _ => None,
        }
    }

    /// Precision and scale of `numeric(p,s)`.
    pub fn numeric_limits(self) -> Option<(i32, i32)> {
        if self.id != TypeId::Numeric || self.typmod < VARHDRSZ {
            return None;
        }
        let raw = self.typmod - VARHDRSZ;
        let scale = ((raw & 0x7ff) ^ 1024) - 1024;
        Some(((raw >> 16) & 0xffff, scale))
    }

    /// What `format_type` prints: the SQL name with its modifier.
    pub fn sql_name(self) -> String {
        if self.typmod < 0 {
            return match self.id {
                TypeId::Bpchar => "bpchar".into(),
                id => id.sql_name().into(),
            };
        }
        if let Some(n) = self.char_limit() {
            return format!("{}({n})", self.id.sql_name());
        }
        if let Some((p, s)) = self.numeric_limits() {
            return format!("numeric({p},{s})");
        }
        match self.id {
            TypeId::Timestamp => format!("timestamp({}) without time zone", self.typmod),
            TypeId::TimestampTz => format!("timestamp({}) with time zone", self.typmod),
            TypeId::Time => format!("time({}) without time zone", self.typmod),
            TypeId::Interval if self.typmod & 0xffff != 0xffff => {
                format!("interval({})", self.typmod & 0xffff)
            }
            id => match id.element() {
                Some(element) if element.array() == Some(id) => {
                    format!(
                        "{}[]",
                        ColumnType {
                            id: element,
                            typmod: self.typmod
                        }
                        .sql_name()
                    )
                }
                _ => id.sql_name().into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_ordered_as_the_enum_and_arrays_point_back() {
        for (i, t) in TYPES.iter().enumerate() {
            assert_eq!(t.id as usize, i);
            assert_eq!(TypeId::from_oid(t.oid), Some(t.id));
            if let Some(array) = t.array {
                assert_eq!(array.element(), Some(t.id));
            }
        }
    }

    #[test]
    fn modifiers_print_as_format_type_does() {
        let n = |id, m: &[i64]| ColumnType::with_modifiers(id, m).map(ColumnType::sql_name);
        assert_eq!(
            n(TypeId::Varchar, &[10]).ok().as_deref(),
            Some("character varying(10)")
        );
        assert_eq!(n(TypeId::Bpchar, &[]).ok().as_deref(), Some("character(1)"));
        assert_eq!(
            n(TypeId::Numeric, &[10, 2]).ok().as_deref(),
            Some("numeric(10,2)")
        );
        assert_eq!(
            n(TypeId::Numeric, &[3, -2]).ok().as_deref(),
            Some("numeric(3,-2)")
        );
        assert_eq!(
            n(TypeId::TimestampTz, &[3]).ok().as_deref(),
            Some("timestamp(3) with time zone")
        );
        assert!(n(TypeId::Varchar, &[0]).is_err());
        assert!(n(TypeId::Int4, &[1]).is_err());
    }
}
