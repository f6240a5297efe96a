//! The statements that change the catalog, already parsed and bound: names resolved to strings, types to [`ColumnType`],
//! defaults to SQL text that sql has checked.

use towline_types::ColumnType;

/// A possibly schema-qualified name. Without a schema, new objects go to `public`, and lookups follow the search path
/// `pg_catalog, public`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QualifiedName {
    /// The schema, if one was written.
    pub schema: Option<String>,
    /// The object.
    pub name: String,
}

impl QualifiedName {
    /// An unqualified name.
    pub fn new(name: impl Into<String>) -> Self {
        QualifiedName {
            schema: None,
            name: name.into(),
        }
    }

    /// A name in a schema.
    pub fn in_schema(schema: impl Into<String>, name: impl Into<String>) -> Self {
        QualifiedName {
            schema: Some(schema.into()),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// A column of CREATE TABLE.
#[derive(Clone, Debug)]
pub struct NewColumn {
    /// Its name.
    pub name: String,
    /// Its type and modifier.
    pub column_type: ColumnType,
    /// NOT NULL was written (a primary key implies it).
    pub not_null: bool,
    /// DEFAULT as SQL text, as `pg_get_expr` should print it.
    pub default: Option<String>,
}

/// A PRIMARY KEY or UNIQUE constraint.
#[derive(Clone, Debug)]
pub struct NewConstraint {
    /// PRIMARY KEY rather than UNIQUE.
    pub primary: bool,
    /// The name after CONSTRAINT; else PostgreSQL's choice (`t_pkey`, `t_a_b_key`).
    pub name: Option<String>,
    /// Column names.
    pub columns: Vec<String>,
    /// `with (fillfactor = n)`
    pub fillfactor: Option<u8>,
}

/// CREATE TABLE.
#[derive(Clone, Debug)]
pub struct CreateTable {
    /// Its name.
    pub name: QualifiedName,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// The columns in order.
    pub columns: Vec<NewColumn>,
    /// Constraints of table and columns, in order of appearance.
    pub constraints: Vec<NewConstraint>,
    /// `with (fillfactor = n)`
    pub fillfactor: Option<u8>,
}

/// One key of CREATE INDEX.
#[derive(Clone, Debug)]
pub struct NewIndexKey {
    /// Column name.
    pub column: String,
    /// DESC
    pub descending: bool,
    /// NULLS FIRST; PostgreSQL's default is the same as `descending`.
    pub nulls_first: bool,
}

/// CREATE INDEX.
#[derive(Clone, Debug)]
pub struct CreateIndex {
    /// The index name; else PostgreSQL's choice (`t_a_b_idx`).
    pub name: Option<String>,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// The table.
    pub table: QualifiedName,
    /// UNIQUE
    pub unique: bool,
    /// The keys in order.
    pub keys: Vec<NewIndexKey>,
    /// `with (fillfactor = n)`
    pub fillfactor: Option<u8>,
}

/// What DROP names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropKind {
    /// DROP TABLE
    Table,
    /// DROP INDEX
    Index,
    /// DROP SCHEMA
    Schema,
}

/// DROP TABLE, DROP INDEX, DROP SCHEMA.
#[derive(Clone, Debug)]
pub struct Drop {
    /// The kind of object.
    pub kind: DropKind,
    /// The objects, dropped in this order.
    pub names: Vec<QualifiedName>,
    /// IF EXISTS
    pub if_exists: bool,
    /// CASCADE: for a schema, its tables too. Nothing else depends on anything yet.
    pub cascade: bool,
}

/// TRUNCATE.
#[derive(Clone, Debug)]
pub struct Truncate {
    /// The tables.
    pub tables: Vec<QualifiedName>,
}

/// One action of ALTER TABLE.
#[derive(Clone, Debug)]
pub enum AlterTableAction {
    /// ADD PRIMARY KEY / ADD UNIQUE, optionally named.
    AddConstraint(NewConstraint),
    /// DROP CONSTRAINT name [IF EXISTS]
    DropConstraint {
        /// Its name.
        name: String,
        /// IF EXISTS
        if_exists: bool,
    },
    /// ALTER COLUMN c SET DEFAULT e / DROP DEFAULT
    SetDefault {
        /// The column.
        column: String,
        /// The expression as SQL text; none to drop it.
        default: Option<String>,
    },
    /// ALTER COLUMN c SET NOT NULL / DROP NOT NULL. Setting checks the rows (23502).
    SetNotNull {
        /// The column.
        column: String,
        /// Set or drop.
        not_null: bool,
    },
    /// RENAME TO name
    RenameTable(String),
    /// RENAME COLUMN from TO to
    RenameColumn {
        /// Old name.
        from: String,
        /// New name.
        to: String,
    },
    /// ADD COLUMN with no default, or a NULL one, and nullable: existing rows read as NULL.
    AddColumn(NewColumn),
    /// DROP COLUMN
    DropColumn {
        /// Its name.
        column: String,
        /// IF EXISTS
        if_exists: bool,
    },
    /// SET (fillfactor = n) / RESET (fillfactor)
    SetFillfactor(Option<u8>),
}

/// ALTER TABLE.
#[derive(Clone, Debug)]
pub struct AlterTable {
    /// The table.
    pub name: QualifiedName,
    /// IF EXISTS
    pub if_exists: bool,
    /// The actions in order.
    pub actions: Vec<AlterTableAction>,
}

/// The options of CREATE ROLE and ALTER ROLE; an absent one keeps its default or its old value.
#[derive(Clone, Debug, Default)]
pub struct RoleOptions {
    /// SUPERUSER / NOSUPERUSER
    pub superuser: Option<bool>,
    /// INHERIT / NOINHERIT
    pub inherit: Option<bool>,
    /// CREATEROLE / NOCREATEROLE
    pub create_role: Option<bool>,
    /// CREATEDB / NOCREATEDB
    pub create_database: Option<bool>,
    /// LOGIN / NOLOGIN
    pub can_login: Option<bool>,
    /// REPLICATION / NOREPLICATION
    pub replication: Option<bool>,
    /// BYPASSRLS / NOBYPASSRLS
    pub bypass_row_security: Option<bool>,
    /// CONNECTION LIMIT n
    pub connection_limit: Option<i32>,
    /// PASSWORD: `Some(None)` is PASSWORD NULL. Already a verifier (`SCRAM-SHA-256$…`): sql turns a clear password
    /// into one before it comes here.
    pub password: Option<Option<String>>,
    /// VALID UNTIL, microseconds since 2000-01-01 UTC; `Some(None)` is 'infinity'.
    pub valid_until: Option<Option<i64>>,
}

/// CREATE ROLE, CREATE USER.
#[derive(Clone, Debug)]
pub struct CreateRole {
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: RoleOptions,
}

/// ALTER ROLE.
#[derive(Clone, Debug)]
pub struct AlterRole {
    /// Its name.
    pub name: String,
    /// The options to change.
    pub options: RoleOptions,
}

/// DROP ROLE.
#[derive(Clone, Debug)]
pub struct DropRole {
    /// Their names.
    pub names: Vec<String>,
    /// IF EXISTS
    pub if_exists: bool,
}

/// CREATE SCHEMA.
#[derive(Clone, Debug)]
pub struct CreateSchema {
    /// Its name.
    pub name: String,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
}

/// What VACUUM or ANALYZE learnt of a relation: the planner's estimates in pg_class.
#[derive(Clone, Copy, Debug)]
pub struct UpdateStatistics {
    /// OID of the table or index.
    pub relation: towline_base::Oid,
    /// Its pages.
    pub pages: u32,
    /// Its live rows.
    pub rows: f64,
}

/// Any statement that [`super::DdlOp`] executes.
#[derive(Clone, Debug)]
pub enum Statement {
    /// CREATE TABLE
    CreateTable(CreateTable),
    /// CREATE INDEX
    CreateIndex(CreateIndex),
    /// DROP …
    Drop(Drop),
    /// TRUNCATE
    Truncate(Truncate),
    /// ALTER TABLE
    AlterTable(AlterTable),
    /// The end of VACUUM or ANALYZE.
    UpdateStatistics(UpdateStatistics),
    /// CREATE SCHEMA
    CreateSchema(CreateSchema),
    /// CREATE ROLE
    CreateRole(CreateRole),
    /// ALTER ROLE
    AlterRole(AlterRole),
    /// DROP ROLE
    DropRole(DropRole),
}

impl Statement {
    /// The command tag, as clients and error messages show it.
    pub fn tag(&self) -> &'static str {
        match self {
            Statement::CreateTable(_) => "CREATE TABLE",
            Statement::CreateIndex(_) => "CREATE INDEX",
            Statement::Drop(drop) => match drop.kind {
                DropKind::Table => "DROP TABLE",
                DropKind::Index => "DROP INDEX",
                DropKind::Schema => "DROP SCHEMA",
            },
            Statement::Truncate(_) => "TRUNCATE TABLE",
            Statement::AlterTable(_) => "ALTER TABLE",
            Statement::UpdateStatistics(_) => "ANALYZE",
            Statement::CreateSchema(_) => "CREATE SCHEMA",
            Statement::CreateRole(_) => "CREATE ROLE",
            Statement::AlterRole(_) => "ALTER ROLE",
            Statement::DropRole(_) => "DROP ROLE",
        }
    }
}

/// What a finished statement tells its client besides the command tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DdlOutcome {
    /// Notices, such as `relation "t" already exists, skipping`, with their SQLSTATE.
    pub notices: Vec<(towline_base::SqlState, String)>,
}
