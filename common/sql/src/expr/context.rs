//! What an expression may look at while it is evaluated.

use crate::error::SqlError;
use std::sync::Arc;
use towline_base::Lsn;
use towline_types::{Datum, IoStyle, TypeId};

/// Everything [`super::ScalarExpr::eval`] reads besides the row.
#[derive(Clone, Copy)]
pub struct EvalContext<'a> {
    /// Values of `$1`, `$2`, …
    pub params: &'a [Datum],
    /// Values of the enclosing query's columns that this (sub)query refers to ([`super::ScalarExpr::Outer`]).
    pub outer: &'a [Datum],
    /// DateStyle, TimeZone and their kin.
    pub style: &'a IoStyle,
    /// The session and the engine.
    pub functions: &'a dyn FunctionContext,
    /// Runs subqueries.
    pub subqueries: &'a dyn Subqueries,
}

/// Runs the subqueries of an expression; implemented by the executor. `slot` is the number the binder chose; `row` is
/// the current row of the enclosing query, from which the executor takes the values of correlated columns.
pub trait Subqueries {
    /// The single value; NULL for no row, 21000 for more than one.
    fn scalar(&self, slot: usize, row: &[Datum], cx: &EvalContext<'_>) -> Result<Datum, SqlError>;
    /// Whether there is a row.
    fn exists(&self, slot: usize, row: &[Datum], cx: &EvalContext<'_>) -> Result<bool, SqlError>;
    /// The first column of all rows (several columns as `Datum::Record`).
    fn values(&self, slot: usize, row: &[Datum], cx: &EvalContext<'_>) -> Result<Arc<Vec<Datum>>, SqlError>;
    /// `value IN (query)` with plain equality, for an executor that keeps a hash of the rows; `None`: not hashed, and
    /// the caller compares [`Subqueries::values`]. `Some(NULL)` is SQL's unknown.
    fn contains(
        &self,
        slot: usize,
        row: &[Datum],
        value: &Datum,
        cx: &EvalContext<'_>,
    ) -> Result<Option<Datum>, SqlError> {
        let _ = (slot, row, value, cx);
        Ok(None)
    }
}

/// For expressions without subqueries.
#[derive(Debug, Clone, Copy)]
pub struct NoSubqueries;

impl Subqueries for NoSubqueries {
    fn scalar(&self, _: usize, _: &[Datum], _: &EvalContext<'_>) -> Result<Datum, SqlError> {
        Err(SqlError::unsupported("subquery in this place"))
    }
    fn exists(&self, _: usize, _: &[Datum], _: &EvalContext<'_>) -> Result<bool, SqlError> {
        Err(SqlError::unsupported("subquery in this place"))
    }
    fn values(&self, _: usize, _: &[Datum], _: &EvalContext<'_>) -> Result<Arc<Vec<Datum>>, SqlError> {
        Err(SqlError::unsupported("subquery in this place"))
    }
}

/// What functions ask of the session and the engine. Every method has a default that refuses (0A000) or answers
/// neutrally, so that an implementation grows as the engine does. Times are µs since 2000-01-01 UTC.
pub trait FunctionContext {
    /// `now()`: start of the transaction.
    fn transaction_timestamp(&self) -> i64 {
        0
    }
    /// `statement_timestamp()`
    fn statement_timestamp(&self) -> i64 {
        0
    }
    /// `clock_timestamp()`
    fn clock_timestamp(&self) -> i64 {
        0
    }
    /// `pg_postmaster_start_time()`
    fn start_time(&self) -> i64 {
        0
    }
    /// 64 random bits from the session's generator.
    fn random_bits(&self) -> u64;
    /// `setseed(x)`
    fn set_seed(&self, seed: f64) {
        let _ = seed;
    }
    /// `pg_sleep`: the session waits this long before it answers.
    fn sleep(&self, seconds: f64) -> Result<(), SqlError> {
        let _ = seconds;
        Err(SqlError::unsupported("pg_sleep"))
    }
    /// `current_user`
    fn current_user(&self) -> String {
        "postgres".into()
    }
    /// `session_user`
    fn session_user(&self) -> String {
        self.current_user()
    }
    /// `current_database()`
    fn current_database(&self) -> String {
        "postgres".into()
    }
    /// `current_schemas(include_implicit)`
    fn search_path(&self, include_implicit: bool) -> Vec<String> {
        if include_implicit {
            vec!["pg_catalog".into(), "public".into()]
        } else {
            vec!["public".into()]
        }
    }
    /// `version()`
    fn version(&self) -> String {
        "PostgreSQL 15.0 (Towline)".into()
    }
    /// `pg_backend_pid()`
    fn backend_pid(&self) -> i32 {
        0
    }
    /// `inet_client_addr()` and `inet_client_port()`
    fn client_address(&self) -> Option<(String, i32)> {
        None
    }
    /// `inet_server_addr()` and `inet_server_port()`
    fn server_address(&self) -> Option<(String, i32)> {
        None
    }
    /// `current_setting(name)`; `None`: no such setting.
    fn setting(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }
    /// `set_config(name, value, local)`: the value as SHOW prints it.
    fn set_setting(&self, name: &str, value: &str, local: bool) -> Result<String, SqlError> {
        let _ = (name, value, local);
        Err(SqlError::unsupported("set_config"))
    }
    /// `txid_current()`; assigns an xid.
    fn current_xid(&self) -> Result<u64, SqlError> {
        Err(SqlError::unsupported("txid_current"))
    }
    /// The transaction's xid if it has one.
    fn current_xid_if_assigned(&self) -> Option<u64> {
        None
    }
    /// The xid that comes next, for `age(xid)`.
    fn next_xid(&self) -> u64 {
        0
    }
    /// What became of a transaction (`txid_status`): nothing when that is forgotten.
    fn xid_status(&self, xid: u64) -> Result<Option<&'static str>, SqlError> {
        let _ = xid;
        Err(SqlError::unsupported("txid_status"))
    }
    /// `pg_is_in_recovery()`
    fn in_recovery(&self) -> bool {
        false
    }
    /// The position called by this function's name (`pg_current_wal_lsn`, `pg_last_wal_replay_lsn`, …); `None` is NULL.
    fn wal_position(&self, function: &str) -> Result<Option<Lsn>, SqlError> {
        Err(SqlError::unsupported(function))
    }
    /// `pg_last_xact_replay_timestamp()`
    fn last_replay_timestamp(&self) -> Option<i64> {
        None
    }
    /// The name of a WAL file (`pg_walfile_name`).
    fn wal_file_name(&self, lsn: Lsn) -> Result<String, SqlError> {
        let _ = lsn;
        Err(SqlError::unsupported("pg_walfile_name"))
    }
    /// A function that acts on the server (`pg_reload_conf`, `pg_terminate_backend`, `pg_switch_wal`, replication slot
    /// and advisory lock functions, `pg_promote`, …): arguments are non-null.
    fn admin(&self, function: &str, args: &[Datum]) -> Result<Datum, SqlError> {
        let _ = args;
        Err(SqlError::unsupported(function))
    }
    /// The OID a `reg…` type's text means; the error is PostgreSQL's (`relation "x" does not exist`, 42P01).
    fn reg_in(&self, ty: TypeId, text: &str) -> Result<u32, SqlError> {
        let _ = text;
        Err(SqlError::unsupported(ty.name()))
    }
    /// The text of a `reg…` value; numbers for unknown objects.
    fn reg_out(&self, ty: TypeId, oid: u32) -> String {
        let _ = ty;
        if oid == 0 { "-".into() } else { oid.to_string() }
    }
    /// The name of a role (`pg_get_userbyid`).
    fn role_name(&self, oid: u32) -> Option<String> {
        (oid == 10).then(|| "postgres".into())
    }
    /// `pg_table_is_visible`, `pg_type_is_visible`, `pg_function_is_visible`, …; `None`: no such object.
    fn is_visible(&self, function: &str, oid: u32) -> Option<bool> {
        let _ = (function, oid);
        Some(true)
    }
    /// `pg_get_indexdef(index, column, pretty)`; column 0 = the whole definition.
    fn index_definition(&self, index: u32, column: i32) -> Option<String> {
        let _ = (index, column);
        None
    }
    /// `pg_get_constraintdef(oid)`
    fn constraint_definition(&self, constraint: u32) -> Option<String> {
        let _ = constraint;
        None
    }
    /// `pg_get_expr(node_tree, relation)`: the stored text is already SQL.
    fn expression_text(&self, stored: &str, relation: u32) -> Option<String> {
        let _ = relation;
        Some(stored.to_string())
    }
    /// `pg_get_viewdef`, `pg_get_ruledef`, `pg_get_triggerdef`, `pg_get_functiondef`, …
    fn definition(&self, function: &str, oid: u32) -> Option<String> {
        let _ = (function, oid);
        None
    }
    /// A comment (`obj_description`, `col_description`, `shobj_description`).
    fn description(&self, object: u32, catalog: &str, column: i32) -> Option<String> {
        let _ = (object, catalog, column);
        None
    }
    /// Bytes of a relation's fork (`main`, `fsm`, `vm`, `init`), or with `None` everything it has; `with_indexes` adds
    /// its indexes. `None`: no such relation.
    fn relation_size(
        &self,
        relation: u32,
        fork: Option<&str>,
        with_indexes: bool,
    ) -> Result<Option<i64>, SqlError> {
        let _ = (relation, fork, with_indexes);
        Ok(Some(0))
    }
    /// Bytes of all indexes of a table (`pg_indexes_size`).
    fn indexes_size(&self, relation: u32) -> Result<Option<i64>, SqlError> {
        let _ = relation;
        Ok(Some(0))
    }
    /// `pg_database_size`
    fn database_size(&self) -> Result<i64, SqlError> {
        Ok(0)
    }
    /// `pg_relation_filenode` and `pg_relation_filepath`.
    fn relation_file(&self, relation: u32) -> Option<(u32, String)> {
        let _ = relation;
        None
    }
    /// `has_table_privilege` and its kin; superuser by default.
    fn has_privilege(&self, function: &str, args: &[Datum]) -> Result<bool, SqlError> {
        let _ = (function, args);
        Ok(true)
    }
    /// The rows of a set-returning function that only the engine can answer (`pg_show_all_settings`, …).
    fn table_function(&self, function: &str, args: &[Datum]) -> Result<Vec<Vec<Datum>>, SqlError> {
        let _ = args;
        Err(SqlError::unsupported(function))
    }
    /// A NOTICE or WARNING for the client.
    fn notice(&self, message: &str) {
        let _ = message;
    }
}

/// A context without session: for constant folding and tests.
#[derive(Debug, Clone, Copy)]
pub struct NoContext;

impl FunctionContext for NoContext {
    fn random_bits(&self) -> u64 {
        0x9E37_79B9_7F4A_7C15
    }
}
