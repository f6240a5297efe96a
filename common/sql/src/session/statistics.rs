//! Sizes for the planner: what ANALYZE counted, scaled to the live length of the file.

use std::sync::Arc;

use towline_access::Engine;
use towline_access::catalog::{Index, Table};
use towline_base::{ForkKind, Lsn};

use crate::plan::Statistics;

/// The engine's live files.
pub(crate) struct Live<'a> {
    pub(crate) engine: &'a Arc<Engine>,
    /// The snapshot that the statement will use, if it is older than the statement (REPEATABLE READ).
    pub(crate) snapshot: Option<Lsn>,
}

/// Pages that a table never vacuumed is taken to have at least, as in PostgreSQL.
const MIN_PAGES: f64 = 10.0;

impl Statistics for Live<'_> {
    fn is_usable(&self, index: &Index) -> bool {
        self.snapshot.is_none_or(|snapshot| index.usable_at(snapshot))
    }

    fn table_size(&self, table: &Table) -> (f64, f64) {
        let pages = f64::from(
            self.engine
                .storage()
                .nblocks(table.node, ForkKind::Main)
                .unwrap_or(0),
        );
        if table.estimated_rows >= 0.0 && table.estimated_pages > 0 {
            let density = f64::from(table.estimated_rows) / f64::from(table.estimated_pages);
            return ((density * pages).round(), pages);
        }
        if table.estimated_rows >= 0.0 && pages == 0.0 {
            return (0.0, 0.0);
        }
        let pages = pages.max(MIN_PAGES);
        let width: f64 = table
            .columns
            .iter()
            .map(|column| {
                if column.column_type.id.len() > 0 {
                    f64::from(column.column_type.id.len())
                } else {
                    32.0
                }
            })
            .sum();
        (((8168.0 / (width + 28.0)) * pages).round(), pages)
    }
}
