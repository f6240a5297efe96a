//! Functions about the session, the server and the catalog. Whatever needs more than its arguments asks
//! [`FunctionContext`](crate::expr::FunctionContext).

use super::{FunctionDef, ScalarFn, Volatility, boolean, def, float, int, int32, lsn, num, oid, text, txt};
use crate::error::SqlError;
use crate::expr::EvalContext;
use std::sync::{Arc, OnceLock};
use towline_base::SqlState;
use towline_types::TypeId::*;
use towline_types::{ArrayValue, ColumnType, Datum, Numeric as Decimal, TypeId, text_of};

type Answer = Result<Datum, SqlError>;

fn optional(value: Option<String>) -> Answer {
    Ok(value.map_or(Datum::Null, |s| text(&s)))
}

fn version(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(text(&cx.functions.version()))
}
fn current_user(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(text(&cx.functions.current_user()))
}
fn session_user(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(text(&cx.functions.session_user()))
}
fn current_database(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(text(&cx.functions.current_database()))
}
fn current_schema(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    optional(cx.functions.search_path(false).into_iter().next())
}
fn current_schemas(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let names = cx.functions.search_path(boolean(&a[0])?);
    Ok(Datum::Array(Arc::new(ArrayValue::new(
        Name,
        names.iter().map(|n| text(n)).collect(),
    ))))
}
fn backend_pid(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Int4(cx.functions.backend_pid()))
}
fn client_addr(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    optional(cx.functions.client_address().map(|(address, _)| address))
}
fn client_port(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(cx
        .functions
        .client_address()
        .map_or(Datum::Null, |(_, port)| Datum::Int4(port)))
}
fn server_addr(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    optional(cx.functions.server_address().map(|(address, _)| address))
}
fn server_port(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(cx
        .functions
        .server_address()
        .map_or(Datum::Null, |(_, port)| Datum::Int4(port)))
}
fn start_time(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::TimestampTz(cx.functions.start_time()))
}

fn current_setting(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let name = txt(&a[0])?;
    let missing_ok = a.get(1).map_or(Ok(false), boolean)?;
    match cx.functions.setting(name) {
        Some(value) => Ok(text(&value)),
        None if missing_ok => Ok(Datum::Null),
        None => Err(SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("unrecognized configuration parameter \"{name}\""),
        )),
    }
}

fn set_config(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if a[0].is_null() {
        return Err(SqlError::new(
            SqlState::NULL_VALUE_NOT_ALLOWED,
            "SET requires parameter name",
        ));
    }
    let value = if a[1].is_null() { "" } else { txt(&a[1])? };
    let local = !a[2].is_null() && boolean(&a[2])?;
    Ok(text(&cx.functions.set_setting(txt(&a[0])?, value, local)?))
}

fn sleep(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let seconds = match &a[0] {
        Datum::Interval(v) => v.span() as f64 / 1e6,
        d => float(d)?,
    };
    cx.functions.sleep(seconds.max(0.0))?;
    Ok(text(""))
}

fn xid(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Int8(cx.functions.current_xid()? as i64))
}
fn xid_if_assigned(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(cx
        .functions
        .current_xid_if_assigned()
        .map_or(Datum::Null, |x| Datum::Int8(x as i64)))
}
fn xid_status(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let Datum::Int8(xid) = a[0] else {
        return Err(SqlError::internal("status of something that is no xid"));
    };
    let status = cx.functions.xid_status(xid as u64)?;
    Ok(status.map_or(Datum::Null, Datum::text))
}
/// Transactions since an xid. A special one is older than everything.
fn xid_age(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let Datum::Xid(low) = a[0] else {
        return Err(SqlError::internal("age of something that is no xid"));
    };
    if u64::from(low) < towline_base::Xid::FIRST_NORMAL.0 {
        return Ok(Datum::Int4(i32::MAX));
    }
    let next = cx
        .functions
        .current_xid_if_assigned()
        .unwrap_or_else(|| cx.functions.next_xid());
    Ok(Datum::Int4((next as u32).wrapping_sub(low) as i32))
}
fn in_recovery(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Bool(cx.functions.in_recovery()))
}
fn replay_timestamp(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(cx
        .functions
        .last_replay_timestamp()
        .map_or(Datum::Null, Datum::TimestampTz))
}
fn walfile_name(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(&cx.functions.wal_file_name(lsn(&a[0])?)?))
}

/// A WAL position by its function's name: one row each, made below.
macro_rules! positions {
    ($($eval:ident = $name:literal;)*) => {
        $(fn $eval(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
            Ok(cx.functions.wal_position($name)?.map_or(Datum::Null, Datum::PgLsn))
        })*
        const POSITIONS: &[(&str, ScalarFn)] = &[$(($name, $eval),)*];
    };
}

positions! {
    wal_lsn = "pg_current_wal_lsn";
    wal_flush_lsn = "pg_current_wal_flush_lsn";
    wal_insert_lsn = "pg_current_wal_insert_lsn";
    wal_receive_lsn = "pg_last_wal_receive_lsn";
    wal_replay_lsn = "pg_last_wal_replay_lsn";
}

/// A function that acts on the server, by its name.
macro_rules! admin {
    ($($eval:ident = $name:literal [$($arg:ident),*] $ret:ident;)*) => {
        $(fn $eval(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
            cx.functions.admin($name, a)
        })*
        const ADMIN: &[(&str, &[TypeId], TypeId, ScalarFn)] = &[$(($name, &[$($arg),*], $ret, $eval),)*];
    };
}

admin! {
    reload_conf = "pg_reload_conf" [] Bool;
    cancel_backend = "pg_cancel_backend" [Int4] Bool;
    terminate_backend = "pg_terminate_backend" [Int4] Bool;
    terminate_backend_wait = "pg_terminate_backend" [Int4, Int8] Bool;
    switch_wal = "pg_switch_wal" [] PgLsn;
    promote0 = "pg_promote" [] Bool;
    promote1 = "pg_promote" [Bool] Bool;
    promote2 = "pg_promote" [Bool, Int4] Bool;
    replay_pause = "pg_wal_replay_pause" [] Void;
    replay_resume = "pg_wal_replay_resume" [] Void;
    is_replay_paused = "pg_is_wal_replay_paused" [] Bool;
    advisory_lock = "pg_advisory_lock" [Int8] Void;
    advisory_lock2 = "pg_advisory_lock" [Int4, Int4] Void;
    try_advisory_lock = "pg_try_advisory_lock" [Int8] Bool;
    try_advisory_lock2 = "pg_try_advisory_lock" [Int4, Int4] Bool;
    advisory_unlock = "pg_advisory_unlock" [Int8] Bool;
    advisory_unlock2 = "pg_advisory_unlock" [Int4, Int4] Bool;
    advisory_unlock_all = "pg_advisory_unlock_all" [] Void;
    advisory_xact_lock = "pg_advisory_xact_lock" [Int8] Void;
    try_advisory_xact_lock = "pg_try_advisory_xact_lock" [Int8] Bool;
    create_slot = "pg_create_physical_replication_slot" [Name] Text;
    drop_slot = "pg_drop_replication_slot" [Name] Void;
    rotate_logfile = "pg_rotate_logfile" [] Bool;
    stat_reset = "pg_stat_reset" [] Void;
}

fn format_type(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let typmod = if a[1].is_null() { -1 } else { int32(&a[1])? };
    Ok(text(&match (TypeId::from_oid(oid(&a[0])?), oid(&a[0])?) {
        // With a modifier given, even an absent one, bpchar is `bpchar`; without, `character`.
        (Some(Bpchar), _) if a[1].is_null() => "character".to_string(),
        (Some(id), _) => ColumnType { id, typmod }.sql_name(),
        (None, 0) => "-".to_string(),
        (None, _) => "???".to_string(),
    }))
}

fn get_userbyid(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let id = oid(&a[0])?;
    Ok(text(
        &cx.functions
            .role_name(id)
            .unwrap_or_else(|| format!("unknown (OID={id})")),
    ))
}

macro_rules! visible {
    ($($eval:ident = $name:literal;)*) => {
        $(fn $eval(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
            Ok(cx.functions.is_visible($name, oid(&a[0])?).map_or(Datum::Null, Datum::Bool))
        })*
        const VISIBLE: &[(&str, ScalarFn)] = &[$(($name, $eval),)*];
    };
}

visible! {
    table_is_visible = "pg_table_is_visible";
    type_is_visible = "pg_type_is_visible";
    function_is_visible = "pg_function_is_visible";
    operator_is_visible = "pg_operator_is_visible";
    collation_is_visible = "pg_collation_is_visible";
    opclass_is_visible = "pg_opclass_is_visible";
    conversion_is_visible = "pg_conversion_is_visible";
    statistics_is_visible = "pg_statistics_obj_is_visible";
    config_is_visible = "pg_ts_config_is_visible";
}

fn get_indexdef(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let column = a.get(1).map_or(Ok(0), int32)?;
    optional(cx.functions.index_definition(oid(&a[0])?, column))
}
fn get_constraintdef(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    optional(cx.functions.constraint_definition(oid(&a[0])?))
}
fn get_expr(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    optional(cx.functions.expression_text(txt(&a[0])?, oid(&a[1])?))
}

macro_rules! definitions {
    ($($eval:ident = $name:literal;)*) => {
        $(fn $eval(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
            optional(cx.functions.definition($name, oid(&a[0])?))
        })*
        const DEFINITIONS: &[(&str, ScalarFn)] = &[$(($name, $eval),)*];
    };
}

definitions! {
    get_viewdef = "pg_get_viewdef";
    get_ruledef = "pg_get_ruledef";
    get_triggerdef = "pg_get_triggerdef";
    get_functiondef = "pg_get_functiondef";
    get_function_arguments = "pg_get_function_arguments";
    get_function_identity = "pg_get_function_identity_arguments";
    get_function_result = "pg_get_function_result";
    get_statisticsobjdef = "pg_get_statisticsobjdef";
    get_statisticsobj_columns = "pg_get_statisticsobjdef_columns";
    get_partkeydef = "pg_get_partkeydef";
    get_partition_constraintdef = "pg_get_partition_constraintdef";
    tablespace_location = "pg_tablespace_location";
}

fn obj_description(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let catalog = a.get(1).map_or(Ok(""), txt)?;
    optional(cx.functions.description(oid(&a[0])?, catalog, 0))
}
fn col_description(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    optional(cx.functions.description(oid(&a[0])?, "pg_class", int32(&a[1])?))
}

fn size(value: Option<i64>) -> Answer {
    Ok(value.map_or(Datum::Null, Datum::Int8))
}
fn relation_size(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let fork = a.get(1).map_or(Ok("main"), txt)?;
    size(cx.functions.relation_size(oid(&a[0])?, Some(fork), false)?)
}
fn table_size(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    size(cx.functions.relation_size(oid(&a[0])?, None, false)?)
}
fn total_size(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    size(cx.functions.relation_size(oid(&a[0])?, None, true)?)
}
fn indexes_size(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    size(cx.functions.indexes_size(oid(&a[0])?)?)
}
fn database_size(cx: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Int8(cx.functions.database_size()?))
}
fn filenode(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(cx
        .functions
        .relation_file(oid(&a[0])?)
        .map_or(Datum::Null, |(n, _)| Datum::Oid(n)))
}
fn filepath(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    optional(cx.functions.relation_file(oid(&a[0])?).map(|(_, path)| path))
}

fn size_pretty(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let value = match &a[0] {
        Datum::Numeric(_) => num(&a[0])?.trunc(0)?.to_i128().unwrap_or(i128::MAX),
        d => i128::from(int(d)?),
    };
    // Each unit takes over at ten times its size; halves are rounded up.
    let mut left = value;
    if left.abs() < 10 * 1024 {
        return Ok(text(&format!("{left} bytes")));
    }
    left >>= 9;
    for unit in ["kB", "MB", "GB", "TB", "PB"] {
        if left.abs() < 20 * 1024 - 1 || unit == "PB" {
            let rounded = if left < 0 { (left - 1) / 2 } else { (left + 1) / 2 };
            return Ok(text(&format!("{rounded} {unit}")));
        }
        left /= 1024;
    }
    Ok(Datum::Null)
}

fn size_bytes(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let s = txt(&a[0])?.trim();
    let invalid = || {
        SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid size: \"{s}\""),
        )
    };
    let split = s
        .find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c)))
        .unwrap_or(s.len());
    let number: Decimal = s[..split].trim().parse().map_err(|_| invalid())?;
    let shift = match s[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 0,
        "kb" => 10,
        "mb" => 20,
        "gb" => 30,
        "tb" => 40,
        "pb" => 50,
        _ => {
            return Err(invalid()
                .with_detail(format!("Invalid size unit: \"{}\".", s[split..].trim()))
                .with_hint("Valid units are \"bytes\", \"B\", \"kB\", \"MB\", \"GB\", \"TB\", and \"PB\"."));
        }
    };
    let bytes = number.mul(&Decimal::from(1i64 << shift))?;
    Ok(Datum::Int8(bytes.to_integer(i64::MIN, i64::MAX, "bigint")?))
}

macro_rules! privileges {
    ($($eval:ident = $name:literal;)*) => {
        $(fn $eval(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
            Ok(Datum::Bool(cx.functions.has_privilege($name, a)?))
        })*
        const PRIVILEGES: &[(&str, ScalarFn)] = &[$(($name, $eval),)*];
    };
}

privileges! {
    table_privilege = "has_table_privilege";
    any_column_privilege = "has_any_column_privilege";
    schema_privilege = "has_schema_privilege";
    database_privilege = "has_database_privilege";
    function_privilege = "has_function_privilege";
    tablespace_privilege = "has_tablespace_privilege";
    sequence_privilege = "has_sequence_privilege";
    has_role = "pg_has_role";
}

fn encoding_to_char(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(match int32(&a[0])? {
        0 => "SQL_ASCII",
        6 => "UTF8",
        _ => "",
    }))
}
fn char_to_encoding(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Int4(match txt(&a[0])?.to_ascii_uppercase().as_str() {
        "SQL_ASCII" => 0,
        "UTF8" | "UTF-8" | "UNICODE" => 6,
        _ => -1,
    }))
}
fn client_encoding(_: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(text("UTF8"))
}
fn always_false(_: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Bool(false))
}
fn always_true(_: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Bool(true))
}
fn always_null(_: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Null)
}
fn zero_oid(_: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Oid(0))
}
fn zero_i8(_: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Int8(0))
}
fn zero_i4(_: &EvalContext<'_>, _: &[Datum]) -> Answer {
    Ok(Datum::Int4(0))
}

fn to_reg(cx: &EvalContext<'_>, a: &[Datum], ty: TypeId) -> Answer {
    Ok(cx
        .functions
        .reg_in(ty, txt(&a[0])?)
        .map_or(Datum::Null, Datum::Oid))
}
fn to_regclass(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    to_reg(cx, a, Regclass)
}
fn to_regtype(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    to_reg(cx, a, Regtype)
}
fn to_regnamespace(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    to_reg(cx, a, Regnamespace)
}
fn to_regrole(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    to_reg(cx, a, Regrole)
}
fn to_regproc(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    to_reg(cx, a, Regproc)
}

/// Bytes a value takes when stored.
fn column_size(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let id = a[0].type_id();
    let len = towline_types::disk::payload_len(id, &a[0])?;
    let header = match id.len() {
        -1 if len < 127 && id.info().storage != b'p' => 1,
        -1 => 4,
        _ => 0,
    };
    Ok(Datum::Int4((len + header) as i32))
}

fn num_nulls(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Int4(a.iter().filter(|d| d.is_null()).count() as i32))
}
fn num_nonnulls(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Int4(a.iter().filter(|d| !d.is_null()).count() as i32))
}

/// `raise_notice`-like output of `shobj_description` and friends is none; a comment on nothing.
fn array_out(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(&text_of(&a[0], cx.style)))
}

const PLAIN: &[FunctionDef] = &[
    def("version", &[], Text, version).stable(),
    def("current_user", &[], Name, current_user).stable(),
    def("current_role", &[], Name, current_user).stable(),
    def("user", &[], Name, current_user).stable(),
    def("session_user", &[], Name, session_user).stable(),
    def("current_database", &[], Name, current_database).stable(),
    def("current_catalog", &[], Name, current_database).stable(),
    def("current_schema", &[], Name, current_schema).stable(),
    def("current_schemas", &[Bool], NameArray, current_schemas).stable(),
    def("pg_backend_pid", &[], Int4, backend_pid).stable(),
    def("inet_client_addr", &[], Inet, client_addr).stable(),
    def("inet_client_port", &[], Int4, client_port).stable(),
    def("inet_server_addr", &[], Inet, server_addr).stable(),
    def("inet_server_port", &[], Int4, server_port).stable(),
    def("pg_postmaster_start_time", &[], TimestampTz, start_time).stable(),
    def("pg_conf_load_time", &[], TimestampTz, start_time).stable(),
    def("current_setting", &[Text], Text, current_setting).stable(),
    def("current_setting", &[Text, Bool], Text, current_setting).stable(),
    def("set_config", &[Text, Text, Bool], Text, set_config)
        .volatile()
        .nullable(),
    def("pg_sleep", &[Float8], Void, sleep).volatile(),
    def("pg_sleep_for", &[Interval], Void, sleep).volatile(),
    def("txid_current", &[], Int8, xid).volatile(),
    def("pg_current_xact_id", &[], Int8, xid).volatile(),
    def("txid_status", &[Int8], Text, xid_status).volatile(),
    def("pg_xact_status", &[Int8], Text, xid_status).volatile(),
    def("age", &[Xid], Int4, xid_age).stable(),
    def("txid_current_if_assigned", &[], Int8, xid_if_assigned).volatile(),
    def("pg_current_xact_id_if_assigned", &[], Int8, xid_if_assigned).volatile(),
    def("pg_is_in_recovery", &[], Bool, in_recovery).volatile(),
    def(
        "pg_last_xact_replay_timestamp",
        &[],
        TimestampTz,
        replay_timestamp,
    )
    .volatile(),
    def("pg_walfile_name", &[PgLsn], Text, walfile_name).stable(),
    def("format_type", &[Oid, Int4], Text, format_type)
        .stable()
        .nullable(),
    def("pg_get_userbyid", &[Oid], Name, get_userbyid).stable(),
    def("pg_get_indexdef", &[Oid], Text, get_indexdef).stable(),
    def("pg_get_indexdef", &[Oid, Int4, Bool], Text, get_indexdef).stable(),
    def("pg_get_constraintdef", &[Oid], Text, get_constraintdef).stable(),
    def("pg_get_constraintdef", &[Oid, Bool], Text, get_constraintdef).stable(),
    def("pg_get_expr", &[PgNodeTree, Oid], Text, get_expr).stable(),
    def("pg_get_expr", &[PgNodeTree, Oid, Bool], Text, get_expr).stable(),
    def("pg_get_viewdef", &[Oid, Bool], Text, get_viewdef).stable(),
    def("pg_get_ruledef", &[Oid, Bool], Text, get_ruledef).stable(),
    def("pg_get_triggerdef", &[Oid, Bool], Text, get_triggerdef).stable(),
    def("obj_description", &[Oid], Text, obj_description).stable(),
    def("obj_description", &[Oid, Name], Text, obj_description).stable(),
    def("shobj_description", &[Oid, Name], Text, obj_description).stable(),
    def("col_description", &[Oid, Int4], Text, col_description).stable(),
    def("pg_relation_size", &[Regclass], Int8, relation_size).volatile(),
    def("pg_relation_size", &[Regclass, Text], Int8, relation_size).volatile(),
    def("pg_table_size", &[Regclass], Int8, table_size).volatile(),
    def("pg_total_relation_size", &[Regclass], Int8, total_size).volatile(),
    def("pg_indexes_size", &[Regclass], Int8, indexes_size).volatile(),
    def("pg_database_size", &[Name], Int8, database_size).volatile(),
    def("pg_database_size", &[Oid], Int8, database_size).volatile(),
    def("pg_tablespace_size", &[Oid], Int8, database_size).volatile(),
    def("pg_relation_filenode", &[Regclass], Oid, filenode).stable(),
    def("pg_relation_filepath", &[Regclass], Text, filepath).stable(),
    def("pg_size_pretty", &[Int8], Text, size_pretty),
    def("pg_size_pretty", &[Numeric], Text, size_pretty),
    def("pg_size_bytes", &[Text], Int8, size_bytes),
    def("pg_encoding_to_char", &[Int4], Name, encoding_to_char).stable(),
    def("pg_char_to_encoding", &[Name], Int4, char_to_encoding).stable(),
    def("pg_client_encoding", &[], Name, client_encoding).stable(),
    def("getdatabaseencoding", &[], Name, client_encoding).stable(),
    def("pg_is_other_temp_schema", &[Oid], Bool, always_false).stable(),
    def("pg_my_temp_schema", &[], Oid, zero_oid).stable(),
    def("pg_relation_is_publishable", &[Regclass], Bool, always_false).stable(),
    def("pg_relation_is_updatable", &[Regclass, Bool], Int4, zero_i4).stable(),
    def("pg_stat_get_numscans", &[Oid], Int8, zero_i8).stable(),
    def("pg_stat_get_backend_pid", &[Int4], Int4, always_null).stable(),
    def("pg_jit_available", &[], Bool, always_false).stable(),
    def("row_security_active", &[Oid], Bool, always_false).stable(),
    def("pg_is_in_backup", &[], Bool, always_false).stable(),
    def("pg_indexam_has_property", &[Oid, Text], Bool, always_true).stable(),
    def("to_regclass", &[Text], Regclass, to_regclass).stable(),
    def("to_regtype", &[Text], Regtype, to_regtype).stable(),
    def("to_regnamespace", &[Text], Regnamespace, to_regnamespace).stable(),
    def("to_regrole", &[Text], Regrole, to_regrole).stable(),
    def("to_regproc", &[Text], Regproc, to_regproc).stable(),
    def("pg_column_size", &[Any], Int4, column_size).stable(),
    def("num_nulls", &[Any], Int4, num_nulls).variadic().nullable(),
    def("num_nonnulls", &[Any], Int4, num_nonnulls)
        .variadic()
        .nullable(),
    def("array_out", &[AnyArray], Text, array_out).stable(),
];

pub(super) fn defs() -> &'static [FunctionDef] {
    static DEFS: OnceLock<Vec<FunctionDef>> = OnceLock::new();
    DEFS.get_or_init(|| {
        let row = |name, args, ret, volatility, eval| FunctionDef {
            volatility,
            ..def(name, args, ret, eval)
        };
        let mut defs = PLAIN.to_vec();
        defs.extend(
            POSITIONS
                .iter()
                .map(|(n, f)| row(n, &[], PgLsn, Volatility::Volatile, *f)),
        );
        defs.extend(
            ADMIN
                .iter()
                .map(|(n, args, ret, f)| row(n, args, *ret, Volatility::Volatile, *f)),
        );
        defs.extend(
            VISIBLE
                .iter()
                .map(|(n, f)| row(n, &[Oid], Bool, Volatility::Stable, *f)),
        );
        defs.extend(
            DEFINITIONS
                .iter()
                .map(|(n, f)| row(n, &[Oid], Text, Volatility::Stable, *f)),
        );
        const SHAPES: &[&[TypeId]] = &[
            &[Oid, Text],
            &[Text, Text],
            &[Name, Oid, Text],
            &[Name, Text, Text],
            &[Oid, Oid, Text],
            &[Oid, Text, Text],
        ];
        for (name, f) in PRIVILEGES {
            defs.extend(
                SHAPES
                    .iter()
                    .map(|args| row(name, args, Bool, Volatility::Stable, *f)),
            );
        }
        defs
    })
}
