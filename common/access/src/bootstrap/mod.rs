//! [`init`]: makes the data directory of a new cluster.
//!
//! It runs alone: a storage, a log and nothing else; no transaction exists yet. Every catalog row is written frozen, by a
//! logged change, and every index is built, so that a standby can be fed from the first record on. A shutdown checkpoint makes
//! it durable and the control file says so last: a directory without a control file whose state is "shut down" was never
//! finished and must be made anew.

mod functions;
pub(crate) mod rows;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use towline_base::{Clock, ForkKind, Lsn, Next, SystemId, Tid, TimelineId, TimelineNumber, Vfs, Xid};
use towline_storage::buffer::FlushState;
use towline_storage::checkpoint::PrimarySide;
use towline_storage::{
    CheckpointCounters, CheckpointParticipant, CheckpointSettings, CheckpointSource, Checkpointer,
    ControlData, ControlFile, LoggedChange, Page, Placement, Storage, StorageConfig, StorageResult,
};
use towline_types::Datum;
use towline_wal::format::SegmentSize;
use towline_wal::records::xlog::XlogOp;
use towline_wal::{
    BlockFlags, PermitIssuer, Positions, Rmgr, StartAt, Wal, WalConfig, WritePermit, credit_for,
};

use crate::btree::{Build, BuildStep, IndexContext, Spool, encode_row};
use crate::catalog::system::SystemDescriptors;
use crate::catalog::{FIRST_USER_OID, Table};
use crate::csn::CsnLog;
use crate::error::{AccessError, Result};
use crate::heap::form_tuple;
use crate::heap::tuple::{TupleMut, mask};

/// Directory of the WAL below the data directory.
pub const WAL_DIR: &str = "pg_wal";
/// Directory of the CSN log below the data directory.
pub const CSN_DIR: &str = "pg_csn";
/// Buffers that `init` works with: the whole catalog fits.
const FRAMES: usize = 1024;

/// What a new cluster is made with.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// `wal_segment_size` in bytes: a power of two from 1 MB to 1 GB.
    pub segment_size: u64,
    /// Whether data pages carry checksums.
    pub checksums: bool,
    /// The superuser's stored verifier (`SCRAM-SHA-256$…`), if it gets a password.
    pub password: Option<String>,
    /// The first xid to be given out. Tests begin near a border.
    pub first_xid: Xid,
}

impl Default for InitOptions {
    fn default() -> InitOptions {
        InitOptions {
            segment_size: 16 << 20,
            checksums: true,
            password: None,
            first_xid: Xid::FIRST_NORMAL,
        }
    }
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initialized {
    /// The cluster's identifier.
    pub system: SystemId,
    /// Its first timeline.
    pub timeline: TimelineId,
    /// End of its first WAL.
    pub end: Lsn,
}

/// Makes a cluster in `data_dir`, which may exist but holds no control file. The node's own files (identity, lock, settings) are
/// the caller's.
///
/// # Errors
/// The file system's, or 22023 for an impossible option. What was written then is of no use; the caller removes it.
pub fn init(
    vfs: &Arc<dyn Vfs>,
    data_dir: &Path,
    clock: &Arc<dyn Clock>,
    options: &InitOptions,
) -> Result<Initialized> {
    let segment_size = SegmentSize::new(options.segment_size).ok_or_else(|| {
        AccessError::new(
            towline_base::SqlState::INVALID_PARAMETER_VALUE,
            "the WAL segment size must be a power of two between 1MB and 1GB",
        )
    })?;
    let io = |error: std::io::Error| {
        AccessError::new(
            towline_base::SqlState::IO_ERROR,
            format!(
                "could not make data directory \"{}\": {error}",
                data_dir.display()
            ),
        )
    };
    for dir in ["", "global", "base/5", WAL_DIR] {
        vfs.create_dir_all(&data_dir.join(dir)).map_err(io)?;
    }
    CsnLog::create(&**vfs, &data_dir.join(CSN_DIR)).map_err(io)?;

    let unix_seconds = clock.wall() / 1_000_000 + towline_base::clock::POSTGRES_EPOCH_UNIX_SECONDS;
    let system = SystemId::generate(unix_seconds as u64).map_err(io)?;
    let timeline = TimelineId::new_random(TimelineNumber::FIRST).map_err(io)?;
    let cluster = Cluster::start(vfs, data_dir, segment_size, options.checksums, system, timeline)?;
    let first_xid = options.first_xid.max(Xid::FIRST_NORMAL).or_normal();
    cluster.write_catalog(options.password.as_deref(), first_xid)?;
    cluster.checkpoint(clock, first_xid)?;
    for dir in ["base/5", "base", "global", WAL_DIR, ""] {
        vfs.sync_dir(&data_dir.join(dir)).map_err(io)?;
    }
    Ok(Initialized {
        system,
        timeline,
        end: cluster.wal.insert_lsn(),
    })
}

/// The parts that `init` runs.
struct Cluster {
    storage: Arc<Storage>,
    wal: Arc<Wal>,
    permit: WritePermit,
    system: SystemDescriptors,
    /// Dropping it revokes the permit.
    _issuer: PermitIssuer,
}

impl Cluster {
    fn start(
        vfs: &Arc<dyn Vfs>,
        data_dir: &Path,
        segment_size: SegmentSize,
        checksums: bool,
        system: SystemId,
        timeline: TimelineId,
    ) -> Result<Cluster> {
        let first = Lsn(segment_size.bytes());
        let mut config = WalConfig::new(data_dir.join(WAL_DIR), system);
        config.segment_size = segment_size;
        let (publishers, positions) = Positions::starting_at(first);
        let start = StartAt {
            lsn: first,
            prev: Lsn::INVALID,
            timeline,
            image_threshold: first,
        };
        let wal = Wal::start(Arc::clone(vfs), config, start, publishers).map_err(|error| {
            AccessError::new(
                towline_base::SqlState::IO_ERROR,
                format!("could not start WAL: {error}"),
            )
        })?;
        let data = ControlData::new(system, timeline, segment_size.bytes(), checksums);
        let control = ControlFile::create(Arc::clone(vfs), data_dir, data)?;
        let mut storage_config = StorageConfig::new(data_dir);
        storage_config.frames = FRAMES;
        let storage = Storage::open(Arc::clone(vfs), &storage_config, control, positions.flush)?;
        storage.attach_wal(Arc::clone(&wal))?;
        let issuer = PermitIssuer::new(timeline);
        let permit = issuer.issue();
        Ok(Cluster {
            storage,
            wal,
            permit,
            system: SystemDescriptors::new(),
            _issuer: issuer,
        })
    }

    /// Waits, on this thread, for everything logged to be durable: nothing else runs.
    fn flush(&self) -> Result<()> {
        self.wal
            .flush(self.wal.insert_lsn(), None)
            .map(|_| ())
            .map_err(|error| AccessError::new(towline_base::SqlState::IO_ERROR, error.to_string()))
    }

    fn write_catalog(&self, password: Option<&str>, first_xid: Xid) -> Result<()> {
        let mut rows = rows::initial(&self.system, password, first_xid);
        for table in self.system.tables() {
            let at = rows.iter().position(|rows| rows.table == &*table.name);
            let rows = at.map(|at| rows.swap_remove(at).rows).unwrap_or_default();
            self.write_table(table, &rows)?;
            // Small steps: the WAL buffers and the pool never fill.
            self.flush()?;
        }
        debug_assert!(rows.is_empty(), "rows for a catalog that does not exist");
        Ok(())
    }

    fn write_table(&self, table: &Table, rows: &[Vec<Datum>]) -> Result<()> {
        self.storage
            .create_fork(&self.permit, Xid::BOOTSTRAP, table.node, ForkKind::Main)?;
        let mut spools: Vec<Spool> = table.indexes.iter().map(|_| Spool::default()).collect();
        let mut page = Page::boxed_zeroed();
        page.init(0);
        let mut block = 0;
        let mut tuple = Vec::new();
        for row in rows {
            form_tuple(&table.layout, row, &mut tuple)?;
            let offset = match page.add_item(&tuple, Placement::Heap) {
                Ok(offset) => offset,
                Err(towline_storage::PageError::NoSpace) => {
                    self.write_page(table, &page)?;
                    block += 1;
                    page.init(0);
                    page.add_item(&tuple, Placement::Heap)
                        .map_err(|error| AccessError::internal(error.to_string()))?
                }
                Err(error) => return Err(AccessError::internal(error.to_string())),
            };
            let tid = Tid::new(block, offset);
            if let Some(mut header) = page.item_mut(offset).and_then(TupleMut::new) {
                let bits = header.as_ref().infomask() | mask::XMIN_FROZEN | mask::XMAX_INVALID;
                header.set_xmin(Xid::BOOTSTRAP.low32());
                header.set_xmax(0);
                header.set_cid(0, false);
                header.set_infomask(bits);
                header.set_ctid(tid);
            }
            for (index, spool) in table.indexes.iter().zip(&mut spools) {
                spool.add(index, &encode_row(index, row)?, tid)?;
            }
        }
        if !rows.is_empty() {
            self.write_page(table, &page)?;
        }
        for (index, spool) in table.indexes.iter().zip(spools) {
            self.storage
                .create_fork(&self.permit, Xid::BOOTSTRAP, index.node, ForkKind::Main)?;
            let mut build = Build::new(spool);
            let cx = IndexContext {
                storage: &self.storage,
                permit: &self.permit,
                xid: Xid::BOOTSTRAP,
                horizon: &|| Lsn::INVALID,
            };
            loop {
                match build.step(&cx, index)? {
                    BuildStep::Continue => {}
                    BuildStep::Needs(_) => self.flush()?,
                    BuildStep::Duplicate(first, second) => {
                        return Err(AccessError::internal(format!(
                            "rows {first} and {second} of {} have the same key in {}",
                            table.name, index.name
                        )));
                    }
                    BuildStep::Done => break,
                }
            }
        }
        Ok(())
    }

    /// Writes a full heap page as an image, behind the last one.
    fn write_page(&self, table: &Table, page: &Page) -> Result<()> {
        let credit = match self.storage.credit(credit_for(1, 0)) {
            Ok(credit) => credit,
            Err(error) if error.is_wait() => {
                self.flush()?;
                self.storage.credit(credit_for(1, 0))?
            }
            Err(error) => return Err(error.into()),
        };
        let latched = self.storage.pool().extend(table.node, ForkKind::Main)?.write();
        let (op, xid) = (XlogOp::Fpi as u8, Xid::INVALID);
        let mut change = LoggedChange::new(&self.storage, &self.permit, credit, Rmgr::Xlog, op, xid);
        let block = change.page(latched, BlockFlags::STANDARD | BlockFlags::FORCE_IMAGE);
        change.page_mut(block).clone_from(page);
        change.finish()?;
        Ok(())
    }

    /// The shutdown checkpoint: everything is on disk afterwards, and the control file says so.
    fn checkpoint(&self, clock: &Arc<dyn Clock>, first_xid: Xid) -> Result<()> {
        self.flush()?;
        let side = PrimarySide {
            wal: Arc::clone(&self.wal),
            permit: self.permit.clone(),
            previous_timeline: self.permit.timeline().number,
            timeline_begin: Lsn::INVALID,
        };
        let mut checkpointer = Checkpointer::new(
            Arc::clone(&self.storage),
            CheckpointSource::Primary(side),
            Arc::new(FirstCounters(first_xid)),
            None,
            Arc::clone(clock),
            CheckpointSettings::default(),
        );
        checkpointer.requests().shut_down();
        loop {
            match checkpointer.step(clock.now()) {
                Next::Stop => break,
                _ => self.flush()?,
            }
        }
        match self.storage.stop_reason() {
            None => Ok(()),
            Some(reason) => Err(AccessError::new(towline_base::SqlState::IO_ERROR, reason)),
        }
    }
}

/// The counters of a cluster in which nothing has happened.
struct FirstCounters(Xid);

impl CheckpointParticipant for FirstCounters {
    fn counters(&self) -> CheckpointCounters {
        CheckpointCounters {
            next_xid: self.0,
            next_oid: FIRST_USER_OID,
            oldest_xid: self.0,
            oldest_active_xid: Xid::INVALID,
        }
    }

    fn flush(&self, _redo: Lsn) -> StorageResult<FlushState> {
        Ok(FlushState::Done)
    }
}
