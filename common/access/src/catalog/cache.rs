//! [`CatalogCache`]: the newest loaded catalog, shared by all sessions, and what makes it stale [C2].
//!
//! **Validity.** `changed` is the LSN of the last commit that carried invalidations, set immediately before `visible` (on a
//! standby: the read horizon) passes that commit. A state loaded with a snapshot at or above `changed` is current. Relation
//! locks fall only when the commit is visible, and so after `changed` was set: whoever gets the lock and looks again
//! reloads, and its snapshot, taken afterwards, sees the commit. A reader that looked before the change keeps its old state,
//! as it keeps its old snapshot.
//!
//! A hit is one `ArcSwap` load and one comparison. A transaction with catalog changes of its own has a private state, loaded
//! with its own snapshot and command id, remembered in the transaction.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use towline_base::{ForkKind, Lsn, Oid};
use towline_wal::records::invalidation::Invalidation;

use super::state::CatalogState;
use super::system::SystemDescriptors;
use super::{load, relation_file};
use crate::activity::ActivityRegistry;
use crate::engine::Engine;
use crate::error::{AccessError, Result};
use crate::release::Invalidator;
use crate::txn::{Transaction, TxnOptions};

/// A loaded catalog, cheap to clone and to keep for a statement.
#[derive(Clone, Debug)]
pub struct CatalogView(Arc<CatalogState>);

impl CatalogView {
    /// Whether both are the same loaded version: a plan made with one is valid for the other.
    pub fn is_same(&self, other: &CatalogView) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for CatalogView {
    type Target = CatalogState;

    fn deref(&self) -> &CatalogState {
        &self.0
    }
}

/// A transaction's private state and what it was loaded for.
struct PrivateView {
    state: Arc<CatalogState>,
    /// Catalog changes of the transaction when it was loaded: only DDL makes more.
    own_changes: usize,
    changed: u64,
}

/// See the module.
#[derive(Debug)]
pub struct CatalogCache {
    system: SystemDescriptors,
    current: ArcSwapOption<CatalogState>,
    /// LSN of the last catalog change that is, or is about to become, visible.
    changed: AtomicU64,
    loading: Mutex<()>,
    activity: ActivityRegistry,
    /// The next OID to give out; 0 until the catalog was searched for the highest.
    next_oid: AtomicU32,
}

impl Default for CatalogCache {
    fn default() -> Self {
        CatalogCache::new()
    }
}

impl CatalogCache {
    /// An empty cache.
    pub fn new() -> CatalogCache {
        CatalogCache {
            system: SystemDescriptors::new(),
            current: ArcSwapOption::empty(),
            changed: AtomicU64::new(0),
            loading: Mutex::new(()),
            activity: ActivityRegistry::default(),
            next_oid: AtomicU32::new(0),
        }
    }

    /// The descriptors of the system catalogs.
    pub(crate) fn system(&self) -> &SystemDescriptors {
        &self.system
    }

    /// What is done to each table.
    pub(crate) fn activity(&self) -> &ActivityRegistry {
        &self.activity
    }

    /// The current catalog as a transaction must see it: what is committed and visible now, whatever its isolation level, and its
    /// own changes. Reads pages when the cache is stale.
    pub fn view(&self, txn: &mut Transaction) -> Result<CatalogView> {
        if txn.has_catalog_changes() {
            return self.private(txn);
        }
        if let Some(state) = self.cached() {
            return Ok(CatalogView(state));
        }
        let engine = Arc::clone(txn.engine());
        self.shared(&engine)
    }

    /// The current catalog outside a transaction: for logins and background work.
    pub fn shared(&self, engine: &Arc<Engine>) -> Result<CatalogView> {
        if let Some(state) = self.cached() {
            return Ok(CatalogView(state));
        }
        let _loading = self.loading.lock();
        loop {
            if let Some(state) = self.cached() {
                return Ok(CatalogView(state));
            }
            let mut reader = engine.begin(TxnOptions {
                read_only: true,
                ..TxnOptions::default()
            })?;
            let snapshot = reader.begin_statement();
            let state = Arc::new(load::load(engine, &self.system, &snapshot, &reader.combos)?);
            let fresh = state.loaded_at().0 >= self.changed.load(Ordering::SeqCst);
            self.activity.set_tables(state.tables());
            self.current.store(Some(Arc::clone(&state)));
            if fresh {
                return Ok(CatalogView(state));
            }
        }
    }

    /// The shared state, if it is current.
    #[inline]
    fn cached(&self) -> Option<Arc<CatalogState>> {
        let guard = self.current.load();
        let state = guard.as_ref()?;
        (state.loaded_at().0 >= self.changed.load(Ordering::SeqCst)).then(|| Arc::clone(state))
    }

    /// Whether `view` is what [`CatalogCache::view`] would give a transaction without changes of its own.
    pub fn is_current(&self, view: &CatalogView) -> bool {
        view.loaded_at().0 >= self.changed.load(Ordering::SeqCst)
    }

    fn private(&self, txn: &mut Transaction) -> Result<CatalogView> {
        let own_changes = txn.catalog_changes();
        let changed = self.changed.load(Ordering::SeqCst);
        if let Some(view) = txn
            .catalog_view
            .as_ref()
            .and_then(|view| view.downcast_ref::<PrivateView>())
            && view.own_changes == own_changes
            && view.changed == changed
        {
            return Ok(CatalogView(Arc::clone(&view.state)));
        }
        txn.next_command();
        let engine = Arc::clone(txn.engine());
        let snapshot = txn.latest_snapshot();
        let state = Arc::new(load::load(&engine, &self.system, &snapshot, &txn.combos)?);
        let view = PrivateView {
            state: Arc::clone(&state),
            own_changes,
            changed,
        };
        txn.catalog_view = Some(Arc::new(view));
        Ok(CatalogView(state))
    }

    /// An OID, and file number, that no object has or had: above every one found in the catalog, and without a file.
    pub(crate) fn new_oid(&self, engine: &Engine) -> Result<Oid> {
        if self.next_oid.load(Ordering::SeqCst) == 0 {
            let _loading = self.loading.lock();
            if self.next_oid.load(Ordering::SeqCst) == 0 {
                let highest = load::highest_oid(engine, &self.system)?;
                self.next_oid.store(highest.saturating_add(1), Ordering::SeqCst);
            }
        }
        loop {
            let next = self.next_oid.fetch_add(1, Ordering::SeqCst);
            if next == u32::MAX {
                return Err(AccessError::new(
                    towline_base::SqlState::PROGRAM_LIMIT_EXCEEDED,
                    "all object identifiers are used up",
                ));
            }
            // A number is not reused before its drop is checkpointed: until then its file is there.
            if !engine
                .storage()
                .smgr()
                .exists(relation_file(next), ForkKind::Main)?
            {
                engine.note_next_oid(next + 1);
                return Ok(Oid(next));
            }
        }
    }
}

impl Invalidator for CatalogCache {
    fn invalidate(&self, lsn: Lsn, messages: &[Invalidation]) {
        let catalog = messages.iter().any(|message| {
            matches!(
                message,
                Invalidation::Relcache { .. } | Invalidation::Catalog { .. } | Invalidation::Catcache { .. }
            )
        });
        if catalog {
            self.changed.fetch_max(lsn.0, Ordering::SeqCst);
        }
    }
}
