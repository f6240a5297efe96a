//! Prepared statements and the cache of plans.
//!
//! A prepared statement keeps its tree and, per catalog version, its plan. The session's cache finds prepared
//! statements by their text, so that a client that sends the same text again pays no parsing and planning.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use towline_access::btree;
use towline_access::catalog::CatalogView;
use towline_types::TypeId;

use super::run::Execution;
use crate::bind::tree::OutputColumn;
use crate::error::SqlError;
use crate::parse::ast::Statement;
use crate::plan::Plan;
use crate::sink::{Field, RowDescription};

/// Statements that the cache by text may hold.
const CACHED_TEXTS: usize = 256;
/// Texts whose coming once is remembered.
const SEEN_TEXTS: usize = 64;
/// Longer texts are not worth keeping.
const CACHED_TEXT_BYTES: usize = 4096;

/// A plan, and the catalog and the version of the session's settings that it rests on.
struct Planned {
    view: CatalogView,
    settings: u64,
    plan: Arc<Plan>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("text", &self.text)
            .finish_non_exhaustive()
    }
}

/// What a lookup by key needs beside its plan.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    pub(crate) scan: Option<btree::IndexScan>,
    pub(crate) bounds: btree::ScanBounds,
}

/// A statement, ready to be run with parameters.
pub(crate) struct Prepared {
    /// The whole text it came from, for positions.
    pub(crate) text: Arc<str>,
    /// The tree; `None` for an empty text.
    pub(crate) statement: Option<Statement>,
    /// Declared parameter types (`Unknown` where not).
    pub(crate) declared: Vec<TypeId>,
    /// Parameter types as bound.
    pub(crate) params: Vec<TypeId>,
    /// Result columns; `None`: returns no rows.
    pub(crate) columns: Option<Vec<OutputColumn>>,
    /// The plan and what it was made for.
    plan: Mutex<Option<Planned>>,
    /// Memory of the last lookup, used again by the next.
    pub(crate) lookup: Mutex<Lookup>,
    /// The last execution of a plan that is worth it ([`Plan::is_by_key`]), used again by the next.
    pub(crate) spare: Mutex<Option<Box<Execution>>>,
}

impl Prepared {
    pub(crate) fn new(
        text: Arc<str>,
        statement: Option<Statement>,
        declared: Vec<TypeId>,
        params: Vec<TypeId>,
        columns: Option<Vec<OutputColumn>>,
    ) -> Self {
        Prepared {
            text,
            statement,
            declared,
            params,
            columns,
            plan: Mutex::new(None),
            lookup: Mutex::new(Lookup::default()),
            spare: Mutex::new(None),
        }
    }

    /// The plan, if it was made for this catalog and these settings.
    pub(crate) fn plan(&self, view: &CatalogView, settings: u64) -> Option<Arc<Plan>> {
        let planned = self.plan.lock();
        let planned = planned.as_ref()?;
        (planned.settings == settings && planned.view.is_same(view)).then(|| planned.plan.clone())
    }

    pub(crate) fn set_plan(&self, view: CatalogView, settings: u64, plan: Arc<Plan>) {
        *self.plan.lock() = Some(Planned { view, settings, plan });
    }

    /// Whether its plan is by a full unique key: such a plan is right for a table of any size, so it is worth keeping.
    pub(crate) fn is_by_key(&self) -> bool {
        let planned = self.plan.lock();
        planned
            .as_ref()
            .is_some_and(|planned| planned.plan.is_by_key() || planned.plan.point().is_some())
    }

    /// The shape of its result in these formats.
    pub(crate) fn description(&self, formats: &[i16]) -> Option<RowDescription> {
        self.columns.as_ref().map(|columns| describe(columns, formats))
    }
}

/// The row description of columns.
pub(crate) fn describe(columns: &[OutputColumn], formats: &[i16]) -> RowDescription {
    let fields = columns
        .iter()
        .enumerate()
        .map(|(index, column)| Field {
            name: column.name.clone(),
            table_oid: column.origin.0,
            column: column.origin.1,
            type_oid: match column.ty.id {
                TypeId::Unknown => TypeId::Text.oid(),
                id => id.oid(),
            },
            type_len: column.ty.id.len(),
            typmod: column.ty.typmod,
            format: format_of(formats, index),
        })
        .collect();
    RowDescription { fields }
}

/// The format of column `index`: none given = text, one = for all.
pub(crate) fn format_of(formats: &[i16], index: usize) -> i16 {
    match formats {
        [] => 0,
        [one] => *one,
        many => many.get(index).copied().unwrap_or(0),
    }
}

/// Prepared statements by text.
#[derive(Debug, Default)]
pub(crate) struct TextCache {
    entries: HashMap<Arc<str>, Vec<Arc<Prepared>>>,
    count: usize,
    /// Hashes of texts that came, each at the place its hash gives it.
    seen: Vec<u64>,
}

impl TextCache {
    /// The statement of this text with these declared parameter types.
    pub(crate) fn find(&self, text: &str, declared: &[TypeId]) -> Option<Arc<Prepared>> {
        let entries = self.entries.get(text)?;
        entries.iter().find(|entry| entry.declared == declared).cloned()
    }

    /// Keeps a statement, in place of an older one of the same text.
    pub(crate) fn insert(&mut self, prepared: &Arc<Prepared>) {
        if prepared.text.len() > CACHED_TEXT_BYTES || depends_on_time(&prepared.text) {
            return;
        }
        if self.count >= CACHED_TEXTS {
            // Rare; a client with so many texts gains little from any order of eviction.
            self.clear();
        }
        let entries = self.entries.entry(prepared.text.clone()).or_default();
        let others = entries.len();
        entries.retain(|entry| entry.declared != prepared.declared);
        self.count -= others - entries.len();
        entries.push(prepared.clone());
        self.count += 1;
    }

    /// Whether this text was here not long ago: a text that comes once only (its values are written into it) is not worth
    /// a place. Remembers it.
    pub(crate) fn came_before(&mut self, text: &str) -> bool {
        if text.len() > CACHED_TEXT_BYTES {
            return false;
        }
        let hash = self.entries.hasher().hash_one(text);
        if self.seen.is_empty() {
            self.seen = vec![0; SEEN_TEXTS];
        }
        let place = &mut self.seen[hash as usize % SEEN_TEXTS];
        std::mem::replace(place, hash) == hash
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.count = 0;
    }
}

/// Whether a literal of the text may stand for a time (`'now'`, `'today'`): it means another value whenever the text is sent.
fn depends_on_time(text: &str) -> bool {
    let found = |word: &str| {
        text.as_bytes()
            .windows(word.len())
            .enumerate()
            .filter(|(_, part)| part.eq_ignore_ascii_case(word.as_bytes()))
            .any(|(at, _)| text.as_bytes().get(at + word.len()) != Some(&b'('))
    };
    ["now", "today", "tomorrow", "yesterday"].into_iter().any(found)
}

/// 26000
pub(crate) fn no_statement(name: &str) -> SqlError {
    SqlError::new(
        towline_base::SqlState::INVALID_SQL_STATEMENT_NAME,
        if name.is_empty() {
            "unnamed prepared statement does not exist".to_owned()
        } else {
            format!("prepared statement \"{name}\" does not exist")
        },
    )
}
