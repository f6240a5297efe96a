//! Schemas and roles.

use towline_base::{Oid, SqlState};
use towline_types::Datum;

use super::drop::namespace_catalog;
use super::op::{Action, Plan, catalog, delete_rows, lock_name, new_oid, update_row};
use super::statement::{AlterRole, CreateRole, CreateSchema, DropRole, RoleOptions};
use crate::catalog::rows::{RowBuilder, namespace_row};
use crate::catalog::{FIRST_USER_OID, Role};
use crate::error::{AccessError, Result};
use crate::locks::{LockMode, LockTag};
use crate::ready;
use crate::step::Step;
use crate::txn::Transaction;

const AUTHID: u32 = 1260;
const AUTH_MEMBERS: u32 = 1261;

pub(super) fn plan_create_schema(
    txn: &mut Transaction,
    statement: &CreateSchema,
    owner: Oid,
) -> Result<Step<Plan>> {
    if statement.name.starts_with("pg_") {
        return Err(AccessError::new(
            SqlState::RESERVED_NAME,
            format!("unacceptable schema name \"{}\"", statement.name),
        )
        .with_detail("The prefix \"pg_\" is reserved for system schemas."));
    }
    ready!(lock_name(txn, namespace_catalog().0, Oid(0), &statement.name));
    let mut plan = Plan::default();
    if catalog(txn)?.schema(&statement.name).is_some() {
        if statement.if_not_exists {
            let text = format!("schema \"{}\" already exists, skipping", statement.name);
            plan.notice(SqlState::DUPLICATE_SCHEMA, text);
            return Ok(Step::Done(plan));
        }
        return Err(AccessError::new(
            SqlState::DUPLICATE_SCHEMA,
            format!("schema \"{}\" already exists", statement.name),
        ));
    }
    let row = namespace_row(new_oid(txn)?, &statement.name, owner);
    plan.push(Action::Insert("pg_namespace", row));
    plan.push(Action::InvalidateCatalog(namespace_catalog().0));
    Ok(Step::Done(plan))
}

/// The changed columns of pg_authid.
fn changes(options: &RoleOptions) -> Vec<(&'static str, Datum)> {
    let flags = [
        ("rolsuper", options.superuser),
        ("rolinherit", options.inherit),
        ("rolcreaterole", options.create_role),
        ("rolcreatedb", options.create_database),
        ("rolcanlogin", options.can_login),
        ("rolreplication", options.replication),
        ("rolbypassrls", options.bypass_row_security),
    ];
    let mut out: Vec<(&'static str, Datum)> = flags
        .into_iter()
        .filter_map(|(name, flag)| Some((name, Datum::Bool(flag?))))
        .collect();
    if let Some(limit) = options.connection_limit {
        out.push(("rolconnlimit", Datum::Int4(limit)));
    }
    if let Some(password) = &options.password {
        out.push((
            "rolpassword",
            password.as_deref().map_or(Datum::Null, Datum::text),
        ));
    }
    if let Some(until) = options.valid_until {
        out.push(("rolvaliduntil", until.map_or(Datum::Null, Datum::TimestampTz)));
    }
    out
}

pub(super) fn plan_create(txn: &mut Transaction, statement: &CreateRole) -> Result<Step<Plan>> {
    if statement.name.starts_with("pg_") {
        return Err(AccessError::new(
            SqlState::RESERVED_NAME,
            format!("role name \"{}\" is reserved", statement.name),
        )
        .with_detail("Role names starting with \"pg_\" are reserved."));
    }
    if matches!(statement.name.as_str(), "public" | "none") {
        return Err(AccessError::new(
            SqlState::RESERVED_NAME,
            format!("role name \"{}\" is reserved", statement.name),
        ));
    }
    ready!(lock_name(txn, AUTHID, Oid(0), &statement.name));
    if catalog(txn)?.role(&statement.name).is_some() {
        return Err(AccessError::new(
            SqlState::DUPLICATE_OBJECT,
            format!("role \"{}\" already exists", statement.name),
        ));
    }
    let mut row = RowBuilder::new("pg_authid")
        .oid("oid", new_oid(txn)?)
        .text("rolname", &statement.name)
        .flag("rolinherit", true)
        .int4("rolconnlimit", -1);
    for (name, value) in changes(&statement.options) {
        row = row.set(name, value);
    }
    let mut plan = Plan::default();
    plan.push(Action::Insert("pg_authid", row.finish()));
    plan.push(Action::InvalidateCatalog(AUTHID));
    Ok(Step::Done(plan))
}

/// 42704
fn no_role(name: &str) -> AccessError {
    AccessError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("role \"{name}\" does not exist"),
    )
}

/// Locks a role; `None` when there is none.
fn lock_role(txn: &mut Transaction, name: &str) -> Result<Step<Option<Role>>> {
    loop {
        let Some(before) = catalog(txn)?.role(name).map(|role| role.oid) else {
            return Ok(Step::Done(None));
        };
        ready!(txn.lock(LockTag::Object(AUTHID, before.0), LockMode::AccessExclusive));
        let after = catalog(txn)?;
        match after.role(name) {
            Some(role) if role.oid == before => return Ok(Step::Done(Some(Role::clone(role)))),
            _ => {}
        }
    }
}

pub(super) fn plan_alter(txn: &mut Transaction, statement: &AlterRole) -> Result<Step<Plan>> {
    let Some(role) = ready!(lock_role(txn, &statement.name)) else {
        return Err(no_role(&statement.name));
    };
    let mut plan = Plan::default();
    let changes = changes(&statement.options);
    if !changes.is_empty() {
        update_row(txn, &mut plan, "pg_authid", "oid", role.oid, &changes)?;
        plan.push(Action::InvalidateCatalog(AUTHID));
    }
    Ok(Step::Done(plan))
}

pub(super) fn plan_drop(txn: &mut Transaction, statement: &DropRole, part: usize) -> Result<Step<Plan>> {
    let mut plan = Plan::default();
    let Some(name) = statement.names.get(part) else {
        return Ok(Step::Done(plan));
    };
    let Some(role) = ready!(lock_role(txn, name)) else {
        if statement.if_exists {
            plan.notice(
                SqlState::SUCCESSFUL_COMPLETION,
                format!("role \"{name}\" does not exist, skipping"),
            );
            return Ok(Step::Done(plan));
        }
        return Err(no_role(name));
    };
    if role.oid.0 < FIRST_USER_OID {
        return Err(AccessError::new(
            SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            format!("cannot drop role {name} because it is required by the database system"),
        ));
    }
    let view = catalog(txn)?;
    let mut owned: Vec<String> = view
        .tables()
        .filter(|table| table.owner == role.oid)
        .map(|table| format!("owner of table {}", table.name))
        .chain(
            view.schemas()
                .filter(|schema| schema.owner == role.oid)
                .map(|schema| format!("owner of schema {}", schema.name)),
        )
        .collect();
    if !owned.is_empty() {
        owned.sort_unstable();
        return Err(AccessError::new(
            SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            format!("role \"{name}\" cannot be dropped because some objects depend on it"),
        )
        .with_detail(owned.join("\n")));
    }
    delete_rows(txn, &mut plan, "pg_authid", "oid", role.oid)?;
    delete_rows(txn, &mut plan, "pg_auth_members", "roleid", role.oid)?;
    delete_rows(txn, &mut plan, "pg_auth_members", "member", role.oid)?;
    plan.push(Action::InvalidateCatalog(AUTHID));
    plan.push(Action::InvalidateCatalog(AUTH_MEMBERS));
    Ok(Step::Done(plan))
}
