//! From settings to what the engine, its log and its checkpoints are opened with.

use std::path::Path;
use std::time::Duration;

use towline_access::EngineConfig;
use towline_access::vacuum::{AutovacuumSettings, VacuumOptions};
use towline_base::settings::sync_names::SyncNames;
use towline_base::settings::{Key, Settings, keys};
use towline_storage::{BackgroundWriterSettings, CheckpointSettings};
use towline_wal::format::Compression;
use towline_wal::{CheckedManagers, ImagePolicy, SyncMethod, WalTuning};

use crate::process;

/// `wal_buffers = -1` takes this share of `shared_buffers`, as PostgreSQL does …
const WAL_BUFFERS_SHARE: i64 = 32;
/// … but no less and no more than this, in 8 kB blocks. The lower bound is above PostgreSQL's: a change takes credit for its
/// largest record before it latches anything.
const WAL_BUFFERS_BOUNDS: (i64, i64) = (512, 2048);

/// Open files beside those of relations and of sessions: segments of the log, slots, listeners, streams to standbys, messages.
const OTHER_FILES: u64 = 128;
/// Fewer relation files than that are opened and closed all the time.
const LEAST_RELATION_FILES: u64 = 64;

/// How many relation files may be open at a time: `max_files_per_process`, or what the `limit` of the process leaves beside its
/// sessions.
///
/// # Errors
/// How large the limit must be at least.
pub(crate) fn relation_files(settings: &Settings, limit: u64) -> Result<u64, u64> {
    let wanted = u64::try_from(settings.get(keys::max_files_per_process)).unwrap_or(0);
    let sessions = u64::try_from(settings.get(keys::max_connections)).unwrap_or(0);
    let others = sessions.saturating_add(OTHER_FILES);
    match limit.saturating_sub(others) {
        left if left < LEAST_RELATION_FILES => Err(others.saturating_add(LEAST_RELATION_FILES)),
        left => Ok(left.min(wanted)),
    }
}

/// Most appliers without a setting: one of them keeps up with the thread that reads the log on two cores.
const MOST_APPLIERS: usize = 4;

/// How many threads change pages in a recovery, beside the one that reads the log.
fn appliers(wanted: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    match wanted {
        0 => cores.saturating_sub(1).clamp(1, MOST_APPLIERS),
        wanted => wanted,
    }
}

/// What the engine is opened with.
pub(crate) fn engine(data_dir: &Path, settings: &Settings) -> EngineConfig {
    let number = |value: i64| usize::try_from(value).unwrap_or(0);
    let shared_buffers = settings.get(keys::shared_buffers);
    let wal_buffers = match settings.get(keys::wal_buffers) {
        -1 => (shared_buffers / WAL_BUFFERS_SHARE).clamp(WAL_BUFFERS_BOUNDS.0, WAL_BUFFERS_BOUNDS.1),
        blocks => blocks.max(WAL_BUFFERS_BOUNDS.0),
    };
    EngineConfig {
        shared_buffers: number(shared_buffers),
        wal_buffers: number(wal_buffers) * towline_base::PAGE_SIZE,
        wal_sync_method: match settings.get(keys::wal_sync_method) {
            "open_datasync" => SyncMethod::OpenDatasync,
            "fsync" => SyncMethod::Fsync,
            _ => SyncMethod::Fdatasync,
        },
        fsync: settings.get(keys::fsync),
        wal_tuning: wal_tuning(settings),
        max_connections: number(settings.get(keys::max_connections)),
        max_wal_above_quorum: settings.bytes(keys::quorum_wal_limit).unwrap_or(u64::MAX),
        // A limit that is too low was refused at the start.
        max_open_files: relation_files(settings, process::open_files())
            .map_or(0, |files| usize::try_from(files).unwrap_or(usize::MAX)),
        checkpoint: checkpoint(settings),
        background_writer: background_writer(settings),
        recovery_appliers: appliers(number(settings.get(keys::replay_appliers))),
        recovery_prefetch: settings.get(keys::recovery_prefetch) != "off",
        autovacuum: autovacuum(settings),
        shutdown_timeout: settings
            .duration(keys::shutdown_timeout)
            .unwrap_or(Duration::from_secs(10)),
        progress_interval: settings
            .duration(keys::log_startup_progress_interval)
            .unwrap_or(Duration::ZERO),
        ..EngineConfig::new(data_dir)
    }
}

/// What of the log a reload may change.
pub(crate) fn wal_tuning(settings: &Settings) -> WalTuning {
    let micros = u64::try_from(settings.get(keys::commit_delay)).unwrap_or(0);
    WalTuning {
        commit_delay: Duration::from_micros(micros),
        commit_siblings: u32::try_from(settings.get(keys::commit_siblings)).unwrap_or(0),
        writer_delay: settings
            .duration(keys::wal_writer_delay)
            .unwrap_or(Duration::from_millis(200)),
        images: ImagePolicy {
            compression: Compression::from_name(settings.get(keys::wal_compression)),
            checked: CheckedManagers::parse(&settings.get(keys::wal_consistency_checking)),
        },
    }
}

/// When checkpoints happen and what log they keep.
pub(crate) fn checkpoint(settings: &Settings) -> CheckpointSettings {
    let default = CheckpointSettings::default();
    CheckpointSettings {
        timeout: settings
            .duration(keys::checkpoint_timeout)
            .unwrap_or(default.timeout),
        max_wal_size: settings.bytes(keys::max_wal_size).unwrap_or(default.max_wal_size),
        min_wal_size: settings.bytes(keys::min_wal_size).unwrap_or(default.min_wal_size),
        completion_target: settings.get(keys::checkpoint_completion_target),
        warning: settings
            .duration(keys::checkpoint_warning)
            .unwrap_or(default.warning),
        flush_after: blocks(settings.get(keys::checkpoint_flush_after)),
        log: settings.get(keys::log_checkpoints),
        wal_keep_size: settings
            .bytes(keys::wal_keep_size)
            .unwrap_or(default.wal_keep_size),
        max_slot_wal_keep_size: settings.bytes(keys::max_slot_wal_keep_size),
    }
}

/// How pages are cleaned ahead of need.
pub(crate) fn background_writer(settings: &Settings) -> BackgroundWriterSettings {
    BackgroundWriterSettings {
        delay: settings
            .duration(keys::bgwriter_delay)
            .unwrap_or(BackgroundWriterSettings::default().delay),
        max_pages: blocks(settings.get(keys::bgwriter_lru_maxpages)),
        multiplier: settings.get(keys::bgwriter_lru_multiplier),
        flush_after: blocks(settings.get(keys::bgwriter_flush_after)),
    }
}

/// When tables are vacuumed by themselves, and how gently.
pub(crate) fn autovacuum(settings: &Settings) -> AutovacuumSettings {
    let number = |key: Key<i64>| u64::try_from(settings.get(key)).unwrap_or(0);
    // -1 stands for the setting of the command VACUUM.
    let delay = match settings.get(keys::autovacuum_vacuum_cost_delay) {
        delay if delay < 0.0 => settings.get(keys::vacuum_cost_delay),
        delay => delay,
    };
    let limit = match settings.get(keys::autovacuum_vacuum_cost_limit) {
        limit if limit <= 0 => settings.get(keys::vacuum_cost_limit),
        limit => limit,
    };
    AutovacuumSettings {
        enabled: settings.get(keys::autovacuum),
        naptime: settings
            .duration(keys::autovacuum_naptime)
            .unwrap_or(AutovacuumSettings::default().naptime),
        threshold: number(keys::autovacuum_vacuum_threshold),
        scale_factor: settings.get(keys::autovacuum_vacuum_scale_factor),
        insert_threshold: u64::try_from(settings.get(keys::autovacuum_vacuum_insert_threshold)).ok(),
        insert_scale_factor: settings.get(keys::autovacuum_vacuum_insert_scale_factor),
        freeze_max_age: number(keys::autovacuum_freeze_max_age),
        ages: VacuumOptions {
            freeze: false,
            freeze_min_age: number(keys::vacuum_freeze_min_age),
            freeze_table_age: number(keys::vacuum_freeze_table_age),
        },
        cost_delay: Duration::from_secs_f64(delay.max(0.0) / 1000.0),
        cost_limit: u64::try_from(limit).unwrap_or(1),
        costs: [
            number(keys::vacuum_cost_page_hit),
            number(keys::vacuum_cost_page_miss),
            number(keys::vacuum_cost_page_dirty),
        ],
        log_min_duration: settings.duration(keys::log_autovacuum_min_duration),
    }
}

fn blocks(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// The standbys that commits wait for. The setting is checked when it is set.
pub(crate) fn sync_names(settings: &Settings) -> SyncNames {
    SyncNames::parse(&settings.get(keys::synchronous_standby_names)).unwrap_or_else(|_| SyncNames::none())
}
