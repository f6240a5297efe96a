//! The TOAST table of a table: made when a row may become too long, gone with its table.

use std::sync::Arc;

use towline_base::Oid;
use towline_types::RowDesc;

use super::index::{IndexSpec, plan_index};
use super::op::{Action, Plan, lock_relation, new_oid};
use crate::catalog::rows::{AttributeRow, ClassRow};
use crate::catalog::{IndexKey, PG_TOAST, RelationKind, Table, relation_file};
use crate::error::Result;
use crate::locks::LockMode;
use crate::step::Step;
use crate::toast;
use crate::txn::Transaction;

/// Plans the TOAST table of the table `of`, with its index; its OID belongs into `reltoastrelid`.
pub(super) fn plan_toast(txn: &mut Transaction, plan: &mut Plan, of: Oid, owner: Oid) -> Result<Oid> {
    let (oid, name) = (new_oid(txn)?, toast::name_of(of));
    let columns = toast::columns();
    let table = Arc::new(Table {
        oid,
        name: Arc::from(name.as_str()),
        schema: PG_TOAST,
        schema_name: Arc::from("pg_toast"),
        owner,
        kind: RelationKind::Toast,
        node: relation_file(oid.0),
        layout: RowDesc::plain(columns.iter().map(|column| column.column_type)),
        columns: Box::new(columns),
        indexes: Box::new([]),
        toast: None,
        fillfactor: 100,
        estimated_rows: -1.0,
        estimated_pages: 0,
        activity: Arc::default(),
    });
    let class = ClassRow {
        oid,
        name: &name,
        schema: PG_TOAST,
        row_type: Oid(0),
        owner,
        file: oid.0,
        kind: RelationKind::Toast,
        columns: table.columns.len() as i16,
        has_index: true,
        toast: Oid(0),
        shared: false,
        fillfactor: None,
        frozen_xid: txn.engine().oldest_running_xid(),
    };
    plan.push(Action::CreateFile(table.node));
    plan.push(Action::Insert("pg_class", class.values()));
    for column in &table.columns {
        let row = AttributeRow {
            relation: oid,
            name: &column.name,
            number: column.number,
            column_type: column.column_type,
            not_null: false,
            has_default: false,
            dropped: false,
            plain: true,
        };
        plan.push(Action::Insert("pg_attribute", row.values()));
    }
    let key = |column| IndexKey {
        column,
        descending: false,
        nulls_first: false,
    };
    let index = IndexSpec {
        name: &format!("{name}_index"),
        keys: vec![key(1), key(2)],
        unique: true,
        primary: true,
        fillfactor: None,
    };
    plan_index(txn, plan, &table, index, None, true)?;
    plan.push(Action::Invalidate(oid));
    Ok(oid)
}

/// Locks the TOAST table of a table that is being dropped or truncated: a vacuum of it has no lock on the table itself.
pub(super) fn lock_toast(txn: &mut Transaction, table: &Table) -> Result<Step<()>> {
    match &table.toast {
        Some(toast) => lock_relation(txn, toast.oid, LockMode::AccessExclusive),
        None => Ok(Step::Done(())),
    }
}
