//! The CSN log: which transactions committed, and at which LSN. The one truth of visibility (I1).
//!
//! - Recent xids live in a ring of pages of atomics (`ring`): reads take no lock. Older ones are in a paged log on disk with a
//!   bounded cache (`paged`).
//! - An entry is 0 (in progress), 1 (aborted), 2 (committed, old enough for everybody), else the commit LSN. It is set once.
//! - In progress *below the first xid of the timeline* reads as aborted: the process that ran it is gone, and recovery has seen
//!   every commit there is.
//! - What reaches disk is masked: a commit LSN above the limit given to [`CsnLog::flush`] is written as 0 and stays dirty, so the
//!   file never holds what a failover can take back (B1). Redo of commit and abort records restores it.
//! - A damaged sector, or a page that the last checkpoint had and that is gone, is an error (XX001), never an answer.
//! - Below the oldest xid that may stand in a tuple nothing is asked, and a checkpoint removes the files. An outcome that is gone is an
//!   error, too. Redo may still find commits of that age, whose rows the same log freezes before anybody reads: they are stored where
//!   there is a place, or nowhere.

mod paged;
mod ring;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use towline_base::rules::{self, Rule};
use towline_base::{Lsn, LsnWatch, Vfs, Xid};
use towline_storage::{StorageError, StorageResult};

use crate::error::{AccessError, Result};
use paged::PagedLog;
use ring::Ring;

/// Entries of one sector: 63 and a checksum fill 512 bytes.
const ENTRIES_PER_SECTOR: usize = 63;
/// Sectors of one page.
const SECTORS_PER_PAGE: usize = 16;
/// Entries of one page.
const ENTRIES_PER_PAGE: usize = ENTRIES_PER_SECTOR * SECTORS_PER_PAGE;

/// Pages of the ring, and of the cache behind it, beside a buffer pool of so many frames: at most a sixteenth of the pool's memory each.
/// An update looks at the transaction that wrote the row before, as likely any of those since the table was loaded, so that what is not in
/// memory costs a read of a page for each row.
pub(crate) fn pages_beside(shared_buffers: usize) -> usize {
    (shared_buffers / 16).clamp(256, 16_384)
}

/// Changed pages that wait in memory for a checkpoint.
const MAX_DIRTY_PAGES: usize = 64;

const IN_PROGRESS: u64 = 0;
const ABORTED: u64 = 1;
const OLD: u64 = 2;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XidStatus {
    /// Running, or not begun.
    InProgress,
    /// Rolled back, or gone with a crash.
    Aborted,
    /// Committed at this LSN; [`XidStatus::OLD`]'s is below every snapshot.
    Committed(Lsn),
}

impl XidStatus {
    /// Committed so long ago that everybody sees it.
    pub const OLD: XidStatus = XidStatus::Committed(Lsn(OLD));

    fn decode(entry: u64) -> Self {
        match entry {
            IN_PROGRESS => XidStatus::InProgress,
            ABORTED => XidStatus::Aborted,
            lsn => XidStatus::Committed(Lsn(lsn)),
        }
    }

    fn encode(self) -> u64 {
        match self {
            XidStatus::InProgress => IN_PROGRESS,
            XidStatus::Aborted => ABORTED,
            XidStatus::Committed(lsn) => lsn.0,
        }
    }
}

type Entries = Box<[u64; ENTRIES_PER_PAGE]>;

fn empty_entries() -> Entries {
    Box::new([0; ENTRIES_PER_PAGE])
}

/// Pages that xids may jump ahead at once: many thousand reservations. More than that is a damaged record, and walking there would take
/// hours.
const MAX_JUMP: u64 = (1 << 24) / ENTRIES_PER_PAGE as u64;

fn place(xid: Xid) -> (u64, usize) {
    (
        xid.0 / ENTRIES_PER_PAGE as u64,
        (xid.0 % ENTRIES_PER_PAGE as u64) as usize,
    )
}

/// The pages of the xids that may be in tuples and were given out.
fn pages_of(xids: &Range<Xid>) -> Range<u64> {
    let (first, _) = place(xids.start);
    if xids.start >= xids.end {
        return first..first;
    }
    first..place(Xid(xids.end.0 - 1)).0 + 1
}

/// The log of a node.
#[derive(Debug)]
pub struct CsnLog {
    quorum: LsnWatch,
    ring: Ring,
    paged: Mutex<PagedLog>,
    /// Entries still 0 below this are aborted.
    first_of_timeline: AtomicU64,
    /// No tuple holds an xid below this: what is 0 there is forgotten.
    oldest: AtomicU64,
    /// Serializes the moves of the ring.
    moving: Mutex<()>,
}

impl CsnLog {
    /// Creates the empty directory of a new cluster.
    pub fn create(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
        vfs.create_dir_all(dir)?;
        if let Some(parent) = dir.parent() {
            vfs.sync_dir(parent)?;
        }
        Ok(())
    }

    /// Opens the log of a node whose last checkpoint knew these xids: from the oldest one that is not frozen everywhere up to the next
    /// one. The ring of `pages` pages begins around the latter; as many older pages are kept in memory. `quorum` is up to where commits
    /// may reach the file.
    ///
    /// # Errors
    /// XX001 when a file that the checkpoint left is missing, cut or damaged.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        xids: Range<Xid>,
        quorum: LsnWatch,
        pages: usize,
    ) -> Result<Self> {
        let mut paged = PagedLog::open(vfs, dir, pages)?;
        paged.require(pages_of(&xids))?;
        let next = xids.end;
        let oldest = xids.start;
        let log = CsnLog {
            quorum,
            ring: Ring::new(pages),
            paged: Mutex::new(paged),
            first_of_timeline: AtomicU64::new(0),
            oldest: AtomicU64::new(oldest.0),
            moving: Mutex::new(()),
        };
        let (page, _) = place(next);
        log.ring.start_at(page.saturating_sub(pages as u64 / 2));
        log.extend_to(next)?;
        Ok(log)
    }

    /// From now on, what is still in progress below `xid` has been aborted by the end of its process.
    pub fn set_first_of_timeline(&self, xid: Xid) {
        self.first_of_timeline.fetch_max(xid.0, Ordering::SeqCst);
    }

    /// The first xid of the current timeline.
    pub fn first_of_timeline(&self) -> Xid {
        Xid(self.first_of_timeline.load(Ordering::SeqCst))
    }

    /// Makes room in the ring for `xid`; called before an xid is handed out and before redo stores one.
    pub fn extend_to(&self, xid: Xid) -> Result<()> {
        let (page, _) = place(xid);
        let end = self.ring.end();
        if page < end {
            return Ok(());
        }
        if page - end > MAX_JUMP {
            return Err(AccessError::corrupted(format!(
                "transaction {xid} is far beyond the newest one, in page {end} of the CSN log"
            )));
        }
        let _moving = self.moving.lock();
        while self.ring.end() <= page {
            let next = self.ring.end();
            // One lock over both moves: whoever misses the leaving page in the ring finds it in the log.
            let mut paged = self.paged.lock();
            let entries = paged.take_for_ring(next)?;
            if let Some((number, entries, dirty)) = self.ring.push(next, &entries) {
                paged.put_back(number, entries, dirty);
            }
            // Memory stays bounded between checkpoints: what the quorum has goes to the file now (and is synced by the checkpoint).
            if paged.dirty_pages() >= MAX_DIRTY_PAGES {
                match paged.write_dirty(self.limit()) {
                    // Nothing is lost: the checkpoint writes it when there is room.
                    Err(error) if !error.is_disk_full() => return Err(error.into()),
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// No commit above this may reach the file (B1).
    fn limit(&self) -> Lsn {
        if rules::is_off(Rule::StatusBelowQuorum) {
            Lsn::MAX
        } else {
            self.quorum.get()
        }
    }

    /// What became of `xid`. One atomic load for a recent one.
    #[inline]
    pub fn status(&self, xid: Xid) -> Result<XidStatus> {
        if !xid.is_normal() {
            return Ok(if xid.is_valid() {
                XidStatus::OLD
            } else {
                XidStatus::Aborted
            });
        }
        let (page, index) = place(xid);
        let entry = match self.ring.get(page, index) {
            Some(entry) => entry,
            None => self.old_entry(page, index)?,
        };
        if entry != IN_PROGRESS {
            return Ok(XidStatus::decode(entry));
        }
        if xid.0 < self.oldest.load(Ordering::Relaxed) {
            return Err(AccessError::corrupted(format!(
                "the outcome of transaction {xid} is asked for, which is older than every row that is not frozen"
            )));
        }
        Ok(if xid.0 < self.first_of_timeline.load(Ordering::Relaxed) {
            XidStatus::Aborted
        } else {
            XidStatus::InProgress
        })
    }

    #[cold]
    fn old_entry(&self, page: u64, index: usize) -> Result<u64> {
        loop {
            let entry = self.paged.lock().get(page, index)?;
            // The page may have moved between ring and log meanwhile; pages never move back into the ring.
            if entry != IN_PROGRESS || !self.ring.holds(page) {
                return Ok(entry);
            }
            if let Some(entry) = self.ring.get(page, index) {
                return Ok(entry);
            }
        }
    }

    /// Stores the outcome of `xid`. Storing the same outcome again (redo) is allowed; another one is corruption.
    pub fn set(&self, xid: Xid, status: XidStatus) -> Result<()> {
        debug_assert!(status != XidStatus::InProgress);
        if !xid.is_normal() {
            return Err(AccessError::corrupted(format!(
                "an outcome is stored for {xid}, which is no transaction's id"
            )));
        }
        self.extend_to(xid)?;
        let (page, index) = place(xid);
        if !self.ring.set(page, index, status.encode()) {
            self.paged.lock().set(page, index, status.encode())?;
        }
        Ok(())
    }

    /// Writes what changed, masking commits above `limit`, extends the files over every xid below `next`, and makes all that durable.
    /// Returns how many pages were written.
    ///
    /// For a checkpoint with redo pointer R: call when the quorum has reached R and no commit bound is below R, with a limit of at
    /// least R; then every commit below R is in the file, and redo restores the rest.
    ///
    /// # Errors
    /// A full disk ([`StorageError::is_disk_full`]) leaves what was not written as it was, for the next call. After any other error the
    /// node must stop (I5).
    pub fn flush(&self, limit: Lsn, next: Xid) -> StorageResult<usize> {
        let (page, _) = place(next);
        if page.saturating_sub(self.ring.end()) > MAX_JUMP {
            return Err(StorageError::Damaged(format!(
                "the next transaction {next} is far beyond the newest one in the CSN log"
            )));
        }
        // No page leaves the ring while its copy is on the way to the file.
        let moving = self.moving.lock();
        let mut written = 0;
        for number in self.ring.dirty() {
            let Some(mut entries) = self.ring.take(number) else {
                continue;
            };
            let masked = mask(&mut entries, limit);
            let result = self.paged.lock().write(number, &entries);
            if masked || result.is_err() {
                self.ring.mark_dirty(number);
            }
            result?;
            written += 1;
        }
        let unsynced = {
            let mut paged = self.paged.lock();
            written += paged.write_dirty(limit)?;
            paged.reach(page + 1)?;
            paged.take_unsynced()
        };
        drop(moving);
        // Nobody waits for the disk here but the checkpoint. A failure stops the node (I5), so nothing is put back.
        unsynced.sync()?;
        Ok(written)
    }

    /// No tuple holds an xid below `xid` any more, as the checkpoint in the control file says: removes the files that hold only such
    /// ones. What a crash leaves of them goes with the next call that removes something.
    pub fn truncate_below(&self, xid: Xid) -> Result<()> {
        self.oldest.fetch_max(xid.0, Ordering::SeqCst);
        let (page, _) = place(xid);
        let mut paged = self.paged.lock();
        let page = page.min(self.ring.start());
        if !paged.has_files_below(page) {
            return Ok(());
        }
        paged.remove_below(page)
    }

    /// Names of the files that there are, sorted.
    #[cfg(test)]
    pub(crate) fn file_numbers(&self) -> Vec<u64> {
        self.paged.lock().file_numbers()
    }
}

/// Hides commits above `limit`; true when there were any.
fn mask(entries: &mut [u64; ENTRIES_PER_PAGE], limit: Lsn) -> bool {
    let mut masked = false;
    for entry in entries.iter_mut() {
        if *entry > limit.0 {
            *entry = IN_PROGRESS;
            masked = true;
        }
    }
    masked
}

#[cfg(test)]
mod tests;
