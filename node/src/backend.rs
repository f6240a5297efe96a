//! The node behind its SQL listener: opens sessions on the engine once it serves, refuses with 57P03 before and after.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use towline_access::{Engine, SessionHandle, SessionRegistry};
use towline_base::SqlState;
use towline_base::scram::ScramSecret;
use towline_base::settings::Settings;
use towline_sql::{Session, SessionParams, SqlError};
use towline_storage::Storage;
use towline_wire::{Backend, RoleLogin};

/// Whether SQL is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Recovery, a base backup or catching up is not finished.
    Starting,
    /// Serving.
    Serving,
    /// The node stops.
    Stopping,
}

/// What the listener asks.
#[derive(Debug)]
pub(crate) struct NodeBackend {
    engine: OnceLock<Arc<Engine>>,
    /// What a start works on, before there is an engine that serves.
    storage: OnceLock<Arc<Storage>>,
    settings: Arc<Settings>,
    /// Answers cancel requests while there is no engine.
    nobody: Arc<SessionRegistry>,
    phase: AtomicU8,
}

impl NodeBackend {
    /// A node that is starting.
    pub(crate) fn new(settings: Arc<Settings>) -> Arc<Self> {
        Arc::new(Self {
            engine: OnceLock::new(),
            storage: OnceLock::new(),
            settings,
            nobody: SessionRegistry::new(0),
            phase: AtomicU8::new(Phase::Starting as u8),
        })
    }

    /// The storage that is recovered: whoever knocks meanwhile is told when a full disk holds that up.
    pub(crate) fn recovers(&self, storage: Arc<Storage>) {
        let _ = self.storage.set(storage);
    }

    /// Serves this engine from now on, unless the node was told to stop meanwhile.
    pub(crate) fn serve(&self, engine: Arc<Engine>) {
        let _ = self.engine.set(engine);
        self.begin();
    }

    fn begin(&self) {
        let (starting, serving) = (Phase::Starting as u8, Phase::Serving as u8);
        let _ = self
            .phase
            .compare_exchange(starting, serving, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Refuses new sessions from now on.
    pub(crate) fn stop(&self) {
        self.phase.store(Phase::Stopping as u8, Ordering::Release);
    }

    fn engine(&self) -> Result<&Arc<Engine>, SqlError> {
        let phase = self.phase.load(Ordering::Acquire);
        let refuse = |message: &str| Err(SqlError::fatal(SqlState::CANNOT_CONNECT_NOW, message));
        match self.engine.get() {
            _ if phase == Phase::Stopping as u8 => refuse("the database system is shutting down"),
            Some(engine) if phase == Phase::Serving as u8 => Ok(engine),
            _ => refuse(&self.starting()),
        }
    }

    /// Why there is no engine that serves, and how far its recovery is.
    fn starting(&self) -> String {
        let mut text = "the database system is starting up".to_owned();
        if let Some(storage) = self.storage.get() {
            if storage.is_short_of_space() {
                text.push_str(": redo is paused because the disk is full");
            }
            if let Some(progress) = storage.recovery() {
                let _ = write!(text, ": redo is at {progress}");
            }
        }
        text
    }
}

impl Backend for NodeBackend {
    type Session = Session;

    fn accepting(&self) -> Result<(), SqlError> {
        self.engine().map(|_| ())
    }

    fn role(&self, name: &str) -> Result<Option<RoleLogin>, SqlError> {
        let engine = self.engine()?;
        let catalog = engine.catalog().shared(engine)?;
        let now = engine.clock().wall();
        Ok(catalog.role(name).map(|role| RoleLogin {
            can_login: role.can_login,
            superuser: role.superuser,
            // An expired password opens nothing; the client is told no more than for a wrong one.
            secret: role
                .password
                .as_deref()
                .filter(|_| role.valid_until.is_none_or(|until| until > now))
                .and_then(ScramSecret::parse),
        }))
    }

    fn open(&self, params: SessionParams, handle: SessionHandle) -> Result<Session, SqlError> {
        Session::new(
            Arc::clone(self.engine()?),
            Arc::clone(&self.settings),
            handle,
            params,
        )
    }

    fn registry(&self) -> &Arc<SessionRegistry> {
        self.engine.get().map_or(&self.nobody, |engine| engine.sessions())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use towline_base::{Clock, SystemClock, Vfs, vfs::CrashVfs};
    use towline_storage::StorageError;

    use super::*;

    /// The wait for what is served ends in another task than the one that obeys a stop.
    #[test]
    fn a_node_that_was_told_to_stop_does_not_begin_to_serve() {
        let backend = NodeBackend::new(Settings::defaults());
        backend.stop();
        backend.begin();
        let error = backend.accepting().unwrap_err().to_string();
        assert!(error.contains("shutting down"), "{error}");
    }

    #[test]
    fn whoever_knocks_during_redo_is_told_of_its_progress_and_of_a_full_disk() {
        let vfs: Arc<dyn Vfs> = CrashVfs::new().shared();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = towline_access::bootstrap::InitOptions {
            segment_size: 1 << 20,
            ..Default::default()
        };
        towline_access::bootstrap::init(&vfs, std::path::Path::new("/data"), &clock, &options).unwrap();
        let config = towline_access::EngineConfig::new("/data");
        let (engine, _permits) = towline_access::open_alone(vfs, clock, config).unwrap();
        let backend = NodeBackend::new(Settings::defaults());
        let said = || backend.accepting().unwrap_err().to_string();
        assert!(
            said().contains("is starting up") && !said().contains("full"),
            "{}",
            said()
        );
        let storage = engine.storage_arc();
        backend.recovers(Arc::clone(&storage));
        assert!(!said().contains("full"));
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        storage.note_shortage(Some(&StorageError::io("extend", "base/5/1259", full)));
        assert!(
            said().contains("redo is paused because the disk is full"),
            "{}",
            said()
        );
        storage.note_shortage(None);
        assert!(!said().contains("full"));
        storage.note_recovery(Some(towline_storage::RecoveryProgress {
            start: towline_base::Lsn(0),
            replayed: towline_base::Lsn(1 << 20),
            target: Some(towline_base::Lsn(4 << 20)),
            records: 10,
            elapsed: std::time::Duration::from_secs(1),
        }));
        assert_eq!(
            said().rsplit_once("up: ").unwrap().1,
            "redo is at 25.0 %, 1.0 of 4.0 MB, 1.0 MB/s, about 3 s left, at 0/100000 (57P03)"
        );
        storage.note_recovery(None);
        assert!(!said().contains("redo"));
        engine.stop_abruptly();
    }
}
