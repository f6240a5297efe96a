//! The inputs of INSERT, UPDATE and DELETE.

use super::Change;
use super::planner::{Planner, Query};
use super::select::{inner_conditions, places_of};
use crate::bind::tree::{self, Insert, InsertSource, Modify};
use crate::error::SqlError;

impl Planner<'_> {
    pub(super) fn insert(&mut self, insert: Insert) -> Result<Change, SqlError> {
        self.changes(&insert.table);
        let (rows, input) = match insert.source {
            InsertSource::Values(rows) => {
                let rows: Result<Vec<_>, _> = rows.iter().map(|row| self.map_all(row, &[])).collect();
                (rows?, None)
            }
            InsertSource::Query(query, row) => {
                let node = self.query(&query)?;
                // The template speaks of the query's columns, which are its places.
                let layout: Vec<usize> = (0..node.width).collect();
                (vec![self.map_all(&row, &layout)?], Some(node))
            }
        };
        let columns = insert.table.columns.len();
        let own: Vec<usize> = (0..columns).collect();
        // RETURNING may name system columns, which a fresh row has, too: they follow the table's own.
        let mut own_and_system = own;
        own_and_system.extend(columns..columns + tree::SYSTEM_COLUMNS.len());
        let returning = self.map_all(&insert.returning, &own_and_system)?;
        Ok(Change::Insert {
            table: insert.table,
            rows,
            input,
            returning,
        })
    }

    pub(super) fn modify(&mut self, modify: Modify, delete: bool) -> Result<Change, SqlError> {
        self.changes(&modify.table);
        let select = &modify.select;
        let mut needed = self.needed(select, &[]);
        let entry = &select.tables[0];
        for (_, expr) in &modify.set {
            self.columns_of(expr, &mut needed);
        }
        for expr in &modify.returning {
            self.columns_of(expr, &mut needed);
        }
        // The whole old row makes the new one; the ctid finds it.
        let mut carried = Vec::new();
        if !delete {
            carried.extend(entry.base..entry.base + entry.columns.len());
            carried.retain(|column| !needed.contains(column));
            needed.extend(entry.base..entry.base + entry.columns.len());
        }
        needed.push(entry.base + entry.columns.len());
        needed.sort_unstable();
        needed.dedup();
        let level = Query {
            select,
            needed,
            carried,
        };
        let from: Vec<&tree::From> = select.from.iter().collect();
        let (input, _) = self.plan_from(&level, &from, select.filter.clone(), None)?;
        let ctid = input
            .layout
            .iter()
            .position(|column| *column == entry.base + entry.columns.len());
        let ctid = ctid.ok_or_else(|| SqlError::internal("the ctid of the target is not read"))?;
        let places = places_of(&input.layout, entry);
        let layout = input.layout.clone();
        let mut conditions = select.filter.clone();
        for from in &select.from {
            inner_conditions(from, &mut conditions);
        }
        let recheck = self.map_all(&conditions, &layout)?;
        let mut set = Vec::with_capacity(modify.set.len());
        for (column, expr) in &modify.set {
            set.push((*column, self.map(expr, &layout)?));
        }
        let returning = self.map_all(&modify.returning, &layout)?;
        let carried = level.carried_of(entry);
        Ok(Change::Modify {
            carried,
            table: modify.table.clone(),
            input,
            ctid,
            places,
            set,
            recheck,
            returning,
            delete,
        })
    }
}
