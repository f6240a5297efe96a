//! The note of what was released, `pg_wal/released`: [`ReleaseNote`] writes it, [`read`] finds it at the next start.
//!
//! The log alone tells the next start a lower bound of the quorum, the one that its last commit record carries. It lies before that
//! commit: what was acknowledged last would be there and could not be shown until the new timeline's first record is in the
//! quorum (A1). So the positions are written here each time before `visible` moves. They are not synced: the system keeps what a killed
//! process wrote. [`NoteSync`] syncs the file once a second while it changes, which bounds what is not known after a power cut.
//!
//! Whatever was written once stays true of its timeline, since a position never moves backwards: an old note is a lower bound,
//! and none is no harm. It also says how far the log was durable here. Less than that is damage and not an end, and only what is behind it
//! has to be made durable again (A13).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use towline_base::codec::{CodecResult, seal_into, unseal};
use towline_base::{Incarnation, Lsn, Moment, Next, OpenMode, TimelineId, TimelineNumber, Vfs, VfsFile};
use towline_wal::TimelineHistory;

use super::ReleasePositions;

const MAGIC: &[u8; 8] = b"TWRELE\r\n";
const VERSION: u32 = 1;
/// Its name, in the directory of the log.
const NAME: &str = "released";
/// Longest file that is looked at.
const MAX_LEN: u64 = 4096;
/// Between two syncs while it changes.
const SYNC_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// What was told of one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Released {
    /// The timeline that the positions are of.
    pub(crate) timeline: TimelineId,
    /// Durable here; invalid when the log was not synced (`fsync=off`).
    pub(crate) durable: Lsn,
    /// Durable on the commit quorum.
    pub(crate) quorum: Lsn,
    /// Seen by snapshots.
    pub(crate) visible: Lsn,
}

impl Released {
    fn encode(&self, out: &mut Vec<u8>) {
        seal_into(out, MAGIC, VERSION, |body| {
            body.u32(self.timeline.number.0)
                .bytes(&self.timeline.incarnation.0)
                .lsn(self.durable)
                .lsn(self.quorum)
                .lsn(self.visible);
        });
    }

    /// Refuses whatever was not written by [`ReleaseNote`].
    pub(crate) fn decode(bytes: &[u8]) -> CodecResult<Released> {
        let mut reader = unseal(bytes, MAGIC, VERSION)?;
        let released = Released {
            timeline: TimelineId {
                number: TimelineNumber(reader.u32()?),
                incarnation: Incarnation(reader.array()?),
            },
            durable: reader.lsn()?,
            quorum: reader.lsn()?,
            visible: reader.lsn()?,
        };
        reader.finish()?;
        Ok(released)
    }

    /// The positions on the log that `history` ends with: nothing when it is not about one of its timelines, and no further than that one
    /// goes in it.
    pub(crate) fn on(self, history: &TimelineHistory) -> Option<Released> {
        let (_, _, end) = history
            .ranges()
            .find(|(timeline, _, _)| *timeline == self.timeline)?;
        Some(Released {
            timeline: self.timeline,
            durable: self.durable.min(end),
            quorum: self.quorum.min(end),
            visible: self.visible.min(end),
        })
    }
}

/// The note in the log's directory, if there is one that can be read. Not having it costs a start nothing but knowledge, so a
/// damaged one is only said to be.
pub(crate) fn read(vfs: &dyn Vfs, wal_dir: &Path) -> io::Result<Option<Released>> {
    let path = wal_dir.join(NAME);
    let bytes = match vfs.read_file(&path, MAX_LEN) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Vec::new(),
        Err(error) => return Err(error),
    };
    match Released::decode(&bytes) {
        Ok(released) => Ok(Some(released)),
        // A crash may leave it empty or cut, before it was synced for the first time.
        Err(error) => {
            tracing::warn!(%error, file = %path.display(), "the note of released positions cannot be read; the log tells older ones");
            Ok(None)
        }
    }
}

/// What [`ReleaseNote`] and [`NoteSync`] share.
#[derive(Debug)]
struct Shared {
    file: Arc<dyn VfsFile>,
    /// Written since the last sync.
    changed: AtomicBool,
    syncer: OnceLock<Thread>,
}

/// Writes the note. One for each log that is being written.
#[derive(Debug)]
pub(crate) struct ReleaseNote {
    shared: Arc<Shared>,
    timeline: TimelineId,
    /// Whether positions called durable are (`fsync`).
    synced_log: bool,
    buffer: Vec<u8>,
    failed: bool,
}

impl ReleaseNote {
    /// Opens the file, or makes it, durable by name. What it holds stays until [`ReleaseNote::tell`].
    pub(crate) fn open(
        vfs: &dyn Vfs,
        wal_dir: &Path,
        timeline: TimelineId,
        synced_log: bool,
    ) -> io::Result<ReleaseNote> {
        let path = wal_dir.join(NAME);
        let existed = vfs.exists(&path)?;
        let file = vfs.open(&path, OpenMode::Create)?;
        if !existed {
            vfs.sync_dir(wal_dir)?;
        }
        let shared = Shared {
            file,
            changed: AtomicBool::new(false),
            syncer: OnceLock::new(),
        };
        Ok(ReleaseNote {
            shared: Arc::new(shared),
            timeline,
            synced_log,
            buffer: Vec::new(),
            failed: false,
        })
    }

    /// `visible` is about to be seen. After a failure the file stays as it is: what it says is still true.
    pub(crate) fn tell(&mut self, positions: &ReleasePositions, visible: Lsn) {
        if self.failed {
            return;
        }
        let released = Released {
            timeline: self.timeline,
            durable: if self.synced_log {
                positions.flush
            } else {
                Lsn::INVALID
            },
            quorum: positions.quorum,
            visible,
        };
        released.encode(&mut self.buffer);
        if let Err(error) = self.shared.file.write_all_at(&self.buffer, 0) {
            self.failed = true;
            tracing::warn!(%error, "the note of released positions cannot be written; after a crash the log tells older ones");
            return;
        }
        if !self.shared.changed.swap(true, Ordering::AcqRel)
            && let Some(syncer) = self.shared.syncer.get()
        {
            syncer.unpark();
        }
    }

    /// Who syncs it.
    pub(crate) fn sync(&self) -> NoteSync {
        NoteSync {
            shared: Arc::clone(&self.shared),
            last: None,
        }
    }
}

/// Syncs the note, once a second while it changes.
#[derive(Debug)]
pub(crate) struct NoteSync {
    shared: Arc<Shared>,
    last: Option<Moment>,
}

impl NoteSync {
    /// One step of its thread.
    pub(crate) fn step(&mut self, now: Moment) -> Next {
        // The first step runs on the thread that is to be woken; a change before it is seen below.
        self.shared.syncer.get_or_init(std::thread::current);
        if !self.shared.changed.load(Ordering::Acquire) {
            return Next::Idle;
        }
        if let Some(due) = self.last.map(|last| last.after(SYNC_EVERY))
            && now < due
        {
            return Next::At(due);
        }
        self.shared.changed.store(false, Ordering::Release);
        if let Err(error) = self.shared.file.sync_data() {
            tracing::warn!(%error, "the note of released positions cannot be synced");
        }
        self.last = Some(now);
        Next::Now
    }
}

#[cfg(test)]
#[path = "note_tests.rs"]
mod tests;
