//! What SQL shows of the cluster and may ask of the node: the [`ClusterInfo`] of this process.

use std::sync::{Arc, OnceLock};

use towline_access::cluster::{ReceiverRow, ReplicationRow, SlotRow};
use towline_access::{AccessError, ClusterInfo};
use towline_base::settings::{SettingError, Settings};
use towline_base::{Lsn, SqlState, TimelineId};
use towline_primary::PrimaryView;
use towline_standby::StandbyView;
use towline_storage::Storage;

/// `status` in pg_stat_wal_receiver while a full disk holds replay up.
pub(crate) const REPLAY_PAUSED: &str = "paused: the disk is full";

/// Called by SIGHUP and `pg_reload_conf()`.
pub(crate) type ReloadHook = Box<dyn Fn() + Send + Sync>;

/// This node's view.
pub(crate) struct NodeCluster {
    name: String,
    settings: Arc<Settings>,
    timeline: TimelineId,
    primary: OnceLock<PrimaryView>,
    standby: OnceLock<(StandbyView, Arc<Storage>)>,
    reload: OnceLock<ReloadHook>,
}

impl std::fmt::Debug for NodeCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCluster")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl NodeCluster {
    /// The view of a node that has no role yet.
    pub(crate) fn new(name: &str, settings: Arc<Settings>, timeline: TimelineId) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            settings,
            timeline,
            primary: OnceLock::new(),
            standby: OnceLock::new(),
            reload: OnceLock::new(),
        })
    }

    /// The node is the primary.
    pub(crate) fn set_primary(&self, view: PrimaryView) {
        let _ = self.primary.set(view);
    }

    /// The node is a standby that replays onto this storage.
    pub(crate) fn set_standby(&self, view: StandbyView, storage: Arc<Storage>) {
        let _ = self.standby.set((view, storage));
    }

    fn standby(&self) -> Option<&StandbyView> {
        self.standby.get().map(|(view, _)| view)
    }

    /// What a reload does beyond reading the files.
    pub(crate) fn set_reload(&self, hook: ReloadHook) {
        let _ = self.reload.set(hook);
    }

    /// Reads the configuration again and says what came of it.
    pub(crate) fn reload_settings(&self) {
        let outcome = self.settings.reload();
        for name in &outcome.changed {
            tracing::info!(
                "parameter \"{name}\" changed to \"{}\"",
                self.settings.show(name).unwrap_or_default()
            );
        }
        for name in &outcome.pending_restart {
            tracing::warn!("parameter \"{name}\" cannot be changed without restarting the server");
        }
        for error in &outcome.errors {
            tracing::error!("configuration not applied: {error}");
        }
        if let Some(hook) = self.reload.get() {
            hook();
        }
    }
}

fn setting_error(error: SettingError) -> AccessError {
    AccessError::new(error.sqlstate, error.message)
}

impl ClusterInfo for NodeCluster {
    fn node_name(&self) -> String {
        self.name.clone()
    }

    fn timeline(&self) -> TimelineId {
        self.standby().map_or(self.timeline, StandbyView::timeline)
    }

    fn replication(&self) -> Vec<ReplicationRow> {
        self.primary
            .get()
            .map(PrimaryView::replication)
            .unwrap_or_default()
    }

    fn slots(&self) -> Vec<SlotRow> {
        self.primary.get().map(PrimaryView::slots).unwrap_or_default()
    }

    fn receiver(&self) -> Option<ReceiverRow> {
        let (view, storage) = self.standby.get()?;
        let mut row = view.receiver();
        if storage.is_short_of_space() {
            row.status = REPLAY_PAUSED.to_owned();
        }
        Some(row)
    }

    fn last_receive_lsn(&self) -> Option<Lsn> {
        self.standby().map(StandbyView::last_receive_lsn)
    }

    fn last_replay_lsn(&self) -> Option<Lsn> {
        self.standby().map(StandbyView::last_replay_lsn)
    }

    fn alter_system(&self, name: &str, value: Option<&str>) -> Result<(), AccessError> {
        self.settings.alter_system(name, value).map_err(setting_error)
    }

    fn reload(&self) -> Result<(), AccessError> {
        self.reload_settings();
        Ok(())
    }

    fn promote(&self) -> Result<(), AccessError> {
        Err(AccessError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "pg_promote is not supported: the primary of the cluster is fixed",
        ))
    }
}
