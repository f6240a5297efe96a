//! FOR UPDATE and its kin: which tables of a query they lock.

use towline_base::SqlState;

use super::Binder;
use super::tree::{RowLock, Source};
use crate::error::SqlError;
use crate::parse::ast;

impl Binder<'_> {
    pub(super) fn row_locks(
        &mut self,
        query: &ast::Query,
        grouped: bool,
        distinct: bool,
    ) -> Result<Vec<RowLock>, SqlError> {
        let mut locks: Vec<RowLock> = Vec::new();
        for clause in &query.locking {
            let word = match clause.strength {
                ast::LockStrength::Update => "FOR UPDATE",
                ast::LockStrength::NoKeyUpdate => "FOR NO KEY UPDATE",
                ast::LockStrength::Share => "FOR SHARE",
                ast::LockStrength::KeyShare => "FOR KEY SHARE",
            };
            let refused = if distinct {
                Some("DISTINCT clause")
            } else if grouped {
                Some(if self.level().aggregates.is_empty() {
                    "GROUP BY clause"
                } else {
                    "aggregate functions"
                })
            } else if !self.level().sets.is_empty() {
                Some("set-returning functions in the target list")
            } else {
                None
            };
            if let Some(refused) = refused {
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("{word} is not allowed with {refused}"),
                ));
            }
            let mut entries = Vec::new();
            if clause.tables.is_empty() {
                let level = self.level();
                entries.extend(
                    (0..level.tables.len())
                        .filter(|index| matches!(level.tables[*index].source, Source::Table(_))),
                );
            }
            for name in &clause.tables {
                let entry = self.entry_named(&name.text).ok_or_else(|| {
                    self.error(
                        name.pos,
                        SqlState::UNDEFINED_TABLE,
                        format!(
                            "relation \"{}\" in {word} clause not found in FROM clause",
                            name.text
                        ),
                    )
                })?;
                if !matches!(self.level().tables[entry].source, Source::Table(_)) {
                    return Err(self.error(
                        name.pos,
                        SqlState::FEATURE_NOT_SUPPORTED,
                        format!("{word} cannot be applied to this kind of FROM entry"),
                    ));
                }
                entries.push(entry);
            }
            for table in entries {
                if let Source::Table(locked) = &self.level().tables[table].source
                    && locked.kind == towline_access::catalog::RelationKind::Toast
                {
                    return Err(SqlError::new(
                        SqlState::WRONG_OBJECT_TYPE,
                        format!("cannot lock rows in TOAST relation \"{}\"", locked.name),
                    ));
                }
                match locks.iter_mut().find(|lock| lock.table == table) {
                    Some(lock) => lock.strength = lock.strength.max(clause.strength),
                    None => locks.push(RowLock {
                        table,
                        strength: clause.strength,
                        policy: clause.policy,
                    }),
                }
            }
        }
        Ok(locks)
    }
}
