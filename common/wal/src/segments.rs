//! [`SegmentDir`]: the files of `pg_wal`: opened, made ahead of need, recycled, listed.
//!
//! A segment's file is always full-length when it has its name: it is filled under a temporary name, synced, renamed, and the
//! directory synced. So a commit never waits for allocation, and a full disk shows here, not in a commit (I5).
//!
//! - **Held back before the end.** While a preallocator is at work, [`SegmentDir::room_end`] is the end of the segments that are there,
//!   and no change is given space beyond it ([`crate::Wal::credit`]). Whoever is refused leaves where it wants to get to
//!   ([`SegmentDir::want`]); the preallocator makes segments up to there, and says each time that it has looked. So the log in memory
//!   cannot run ahead of the thread that makes its files, however late that is scheduled.
//! - **One maker at a time.** Whoever gives a segment's name to a file holds `making`: the writer in need, the preallocator, a
//!   checkpoint that recycles. Else one could look for a name, and put an empty file over what another has made and the writer has
//!   filled. So all of them share one value; a value of its own is for whoever is alone (a start, a fork, which makes a new timeline's
//!   names).

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;

use parking_lot::Mutex;
use towline_base::{Lsn, LsnPublisher, LsnWait, LsnWatch, OpenMode, TimelineNumber, Vfs, VfsFile, failpoint};

use crate::format::{SegmentNumber, SegmentSize, parse_segment_name, segment_name};

/// Begins the name of a segment that is being made.
const TEMPORARY_PREFIX: &str = "xlogtemp.";

struct ShortageHook(Box<dyn Fn() + Send>);

impl fmt::Debug for ShortageHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShortageHook")
    }
}

/// The directory of segments. See the module.
#[derive(Debug)]
pub struct SegmentDir {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    size: SegmentSize,
    /// Held while a segment is made or named. See the module.
    making: Mutex<()>,
    /// The segment that was opened for writing last, for the preallocator.
    opened: Mutex<Option<(TimelineNumber, SegmentNumber)>>,
    preallocator: Mutex<Option<Thread>>,
    /// End of the segments that are known to be there, one behind the other; `u64::MAX` when nobody makes them ahead of need.
    room_end: AtomicU64,
    /// The furthest that anybody was refused to write; the preallocator makes segments up to there.
    wanted: AtomicU64,
    /// As `room_end` when no further segment could be made, the disk being full; `u64::MAX` otherwise.
    shortage: AtomicU64,
    /// Called when the disk is too full for a segment.
    on_shortage: Mutex<Option<ShortageHook>>,
    /// How often the room was judged, for those who are held back: a count, published like a position.
    judged: Mutex<LsnPublisher>,
    judgements: LsnWatch,
    /// Segments made, for figures.
    made: AtomicU64,
}

impl SegmentDir {
    /// For an existing directory.
    pub fn new(vfs: Arc<dyn Vfs>, dir: PathBuf, size: SegmentSize) -> Self {
        let (judged, judgements) = LsnWatch::new(Lsn(0));
        Self {
            vfs,
            dir,
            size,
            making: Mutex::new(()),
            opened: Mutex::new(None),
            preallocator: Mutex::new(None),
            room_end: AtomicU64::new(u64::MAX),
            wanted: AtomicU64::new(0),
            shortage: AtomicU64::new(u64::MAX),
            on_shortage: Mutex::new(None),
            judged: Mutex::new(judged),
            judgements,
            made: AtomicU64::new(0),
        }
    }

    /// The file layer.
    pub fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Segment size.
    pub fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// The path of a segment's file.
    pub fn path(&self, timeline: TimelineNumber, segment: SegmentNumber) -> PathBuf {
        self.dir.join(segment_name(timeline, segment, self.size))
    }

    /// Opens a segment for writing, making it when it is not there. With `dsync` each write is durable when it returns.
    pub fn open_for_write(
        &self,
        timeline: TimelineNumber,
        segment: SegmentNumber,
        dsync: bool,
    ) -> io::Result<Arc<dyn VfsFile>> {
        let path = self.path(timeline, segment);
        let mode = if dsync {
            OpenMode::ReadWriteDsync
        } else {
            OpenMode::ReadWrite
        };
        let file = match self.vfs.open(&path, mode) {
            Ok(file) if file.len()? == self.size.bytes() => {
                // A recycler may have renamed it and not synced the directory yet: what is committed in it must not be durable
                // under a name that is not.
                self.vfs.sync_dir(&self.dir)?;
                file
            }
            Ok(_) => {
                let text = format!("WAL segment {} does not have the segment size", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create(timeline, segment)?;
                self.vfs.open(&path, mode)?
            }
            Err(error) => return Err(error),
        };
        *self.opened.lock() = Some((timeline, segment));
        self.wake_preallocator();
        Ok(file)
    }

    /// Checks that a log may go on at `lsn`: at a segment's start, or in a file that is there. A missing file would be made with zeros
    /// where the log's last records should be.
    pub(crate) fn require_beginning(&self, timeline: TimelineNumber, lsn: Lsn) -> io::Result<()> {
        let path = self.path(timeline, self.size.segment_of(lsn));
        if self.size.offset(lsn) == 0 || self.vfs.exists(&path)? {
            return Ok(());
        }
        let text = format!(
            "WAL segment {} is missing, the log cannot go on at {lsn}",
            path.display()
        );
        Err(io::Error::new(io::ErrorKind::NotFound, text))
    }

    /// Makes a zero-filled segment, durably. False when it was there already.
    pub fn create(&self, timeline: TimelineNumber, segment: SegmentNumber) -> io::Result<bool> {
        let path = self.path(timeline, segment);
        if self.vfs.exists(&path)? {
            return Ok(false);
        }
        let _making = self.making.lock();
        if self.vfs.exists(&path)? {
            return Ok(false);
        }
        failpoint!("wal::create_segment")?;
        self.make(&path, |_| Ok(0))?;
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Segments that were made through this value, those that were recycled not counted.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Writes a full-length file whose first bytes `prefix` writes (and returns how many), zero behind them, and syncs it.
    fn fill(&self, path: &Path, prefix: impl FnOnce(&dyn VfsFile) -> io::Result<u64>) -> io::Result<()> {
        let file = self.vfs.open(path, OpenMode::Truncate)?;
        let used = prefix(&*file)?;
        file.allocate_zeroed(used, self.size.bytes() - used)?;
        file.sync_all()
    }

    /// Puts a new file with this beginning, zero behind it, in a segment's place, durably. Handles of a file that had the name
    /// before keep the old one.
    pub(crate) fn replace(
        &self,
        timeline: TimelineNumber,
        segment: SegmentNumber,
        prefix: impl FnOnce(&dyn VfsFile) -> io::Result<u64>,
    ) -> io::Result<()> {
        let _making = self.making.lock();
        self.make(&self.path(timeline, segment), prefix)
    }

    /// Fills a file under a temporary name and renames it.
    fn make(&self, path: &Path, prefix: impl FnOnce(&dyn VfsFile) -> io::Result<u64>) -> io::Result<()> {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let temporary = self.dir.join(format!("{TEMPORARY_PREFIX}{name}"));
        let made = self.fill(&temporary, prefix).and_then(|()| {
            self.vfs.rename(&temporary, path)?;
            self.vfs.sync_dir(&self.dir)
        });
        if made.is_err() {
            // The disk may be full: leave nothing behind. The first error is what counts.
            let _ = self.vfs.remove_file(&temporary);
        }
        made
    }

    /// Every segment in the directory, sorted by name: timeline first.
    pub fn list(&self) -> io::Result<BTreeSet<(TimelineNumber, SegmentNumber)>> {
        let entries = self.vfs.read_dir(&self.dir)?;
        Ok(entries
            .iter()
            .filter_map(|entry| parse_segment_name(&entry.name, self.size))
            .collect())
    }

    /// Fails, and names the file, when a segment that `counts` does not have the segment size.
    pub(crate) fn check_lengths(
        &self,
        counts: impl Fn(TimelineNumber, SegmentNumber) -> bool,
    ) -> io::Result<()> {
        for entry in self.vfs.read_dir(&self.dir)? {
            let Some((timeline, segment)) = parse_segment_name(&entry.name, self.size) else {
                continue;
            };
            if counts(timeline, segment) && (entry.is_dir || entry.len != self.size.bytes()) {
                let path = self.dir.join(&entry.name);
                let what = if entry.is_dir {
                    "is a directory".to_owned()
                } else {
                    format!(
                        "has {} bytes, not {}: it is damaged",
                        entry.len,
                        self.size.bytes()
                    )
                };
                let text = format!("WAL segment \"{}\" {what}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(())
    }

    /// Removes what makers of segments left behind at a crash.
    pub fn remove_temporaries(&self) -> io::Result<()> {
        let _making = self.making.lock();
        for entry in self.vfs.read_dir(&self.dir)? {
            if entry.name.starts_with(TEMPORARY_PREFIX) {
                self.vfs.remove_file(&self.dir.join(entry.name))?;
            }
        }
        Ok(())
    }

    /// Carries out a retention plan: old segments become future ones or are removed. Durable when it returns.
    pub fn retire(&self, actions: &[crate::retention::Action]) -> io::Result<()> {
        use crate::retention::Action;
        let _making = self.making.lock();
        for action in actions {
            match *action {
                Action::Remove { timeline, segment } => {
                    self.vfs.remove_file(&self.path(timeline, segment))?
                }
                Action::Recycle {
                    timeline,
                    segment,
                    into_timeline,
                    into,
                } => {
                    let target = self.path(into_timeline, into);
                    let source = self.path(timeline, segment);
                    // Another maker may have been faster.
                    if self.vfs.exists(&target)? {
                        self.vfs.remove_file(&source)?;
                    } else {
                        self.vfs.rename(&source, &target)?;
                    }
                }
            }
        }
        if actions.is_empty() {
            Ok(())
        } else {
            self.vfs.sync_dir(&self.dir)
        }
    }

    /// Where the space that is ready ends, when the disk is too full for more; [`Lsn::MAX`] when all is well. A node is not healthy
    /// while this is set.
    pub fn shortage(&self) -> Lsn {
        Lsn(self.shortage.load(Ordering::SeqCst))
    }

    /// Where the segments that are known to be there end; [`Lsn::MAX`] when nobody makes them ahead of need, and nobody is held back.
    pub(crate) fn room_end(&self) -> Lsn {
        Lsn(self.room_end.load(Ordering::Acquire))
    }

    /// The preallocator has looked: there is room up to `end`, and for no more when the disk is `full`.
    pub(crate) fn judge(&self, end: Lsn, full: bool) {
        self.room_end.store(end.0, Ordering::SeqCst);
        let shortage = if full { end.0 } else { u64::MAX };
        self.shortage.store(shortage, Ordering::SeqCst);
        let mut judged = self.judged.lock();
        let next = judged.get().saturating_add(1);
        judged.advance(next);
    }

    /// A preallocator begins. Until its first look only the segment that is open is known to be there.
    pub(crate) fn begin_judging(&self) {
        if let Some((_, segment)) = self.last_opened() {
            self.judge(self.size.end(segment), false);
        }
    }

    /// Whoever was refused space says how far it would write. While the disk is full nobody is woken for it: it is looked at again
    /// anyway, and a wish does not free space.
    pub(crate) fn want(&self, end: Lsn) {
        self.wanted.fetch_max(end.0, Ordering::SeqCst);
        if self.shortage() == Lsn::MAX {
            self.wake_preallocator();
        }
    }

    /// The furthest that was wanted.
    pub(crate) fn wanted(&self) -> Lsn {
        Lsn(self.wanted.load(Ordering::SeqCst))
    }

    fn wake_preallocator(&self) {
        if let Some(thread) = &*self.preallocator.lock() {
            thread.unpark();
        }
    }

    /// Called, on the preallocator's thread, when the disk turns out to be too full for a further segment: a checkpoint may free some.
    pub fn set_shortage_hook(&self, hook: impl Fn() + Send + 'static) {
        *self.on_shortage.lock() = Some(ShortageHook(Box::new(hook)));
    }

    pub(crate) fn ask_for_room(&self) {
        if let Some(hook) = &*self.on_shortage.lock() {
            (hook.0)();
        }
    }

    /// A wait for the next attempt to make room; `None` when there is all that was wanted.
    pub(crate) fn room_wait(&self) -> Option<LsnWait> {
        // The count first: a judgement that falls in between ends the wait at once.
        let wait = self.judgements.wait_past(self.judgements.get());
        (self.wanted() > self.room_end()).then_some(wait)
    }

    /// The preallocator says who it is. A wish left before is seen by its first look.
    pub(crate) fn set_preallocator(&self, thread: Thread) {
        *self.preallocator.lock() = Some(thread);
    }

    /// The segment that was opened for writing last; `None` before the first.
    pub(crate) fn last_opened(&self) -> Option<(TimelineNumber, SegmentNumber)> {
        *self.opened.lock()
    }

    /// The log is cut and goes on elsewhere: nothing is made ahead until a segment is opened again.
    pub(crate) fn forget_opened(&self) {
        *self.opened.lock() = None;
    }

    /// The file and offset of a position, for messages.
    pub fn locate(&self, timeline: TimelineNumber, lsn: Lsn) -> (PathBuf, u64) {
        (
            self.path(timeline, self.size.segment_of(lsn)),
            self.size.offset(lsn),
        )
    }
}
