//! The background writer: keeps frames ahead of the clock hand clean, so that sessions need not write to get one.
//!
//! Each round it looks how many frames were given away since the last one, smooths that (at once when it rises, slowly when it falls),
//! and cleans `bgwriter_lru_multiplier` times as many ahead, at most `bgwriter_lru_maxpages`. When nothing is given away it
//! sleeps longer. It only helps: its failures are somebody else's to meet again, and are logged here.

use crate::storage::Storage;
use parking_lot::Mutex;
use towline_base::{Clock, Moment, Next, PageId};

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Rounds over which a falling need is smoothed.
const SMOOTHING: f64 = 16.0;
/// How many pauses it sleeps when nothing happens: short enough to meet a burst, since nobody wakes it.
const IDLE_PAUSES: u32 = 5;
/// After a failed round.
const RETRY: Duration = Duration::from_secs(10);

/// Settings of the background writer, PostgreSQL's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BackgroundWriterSettings {
    /// `bgwriter_delay`.
    pub delay: Duration,
    /// `bgwriter_lru_maxpages`; 0 switches it off.
    pub max_pages: usize,
    /// `bgwriter_lru_multiplier`.
    pub multiplier: f64,
    /// `bgwriter_flush_after` in pages; 0 leaves write-back to the system.
    pub flush_after: usize,
}

impl Default for BackgroundWriterSettings {
    fn default() -> BackgroundWriterSettings {
        BackgroundWriterSettings {
            delay: Duration::from_millis(200),
            max_pages: 100,
            multiplier: 2.0,
            flush_after: 64,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct BackgroundWriter {
    storage: Arc<Storage>,
    settings: Arc<Mutex<BackgroundWriterSettings>>,
    /// Frames given away when the last round ended.
    seen: u64,
    /// Frames given away per round.
    need: f64,
    unadvised: Vec<PageId>,
}

impl BackgroundWriter {
    /// For a storage. The settings are read each round.
    pub fn new(storage: Arc<Storage>, settings: Arc<Mutex<BackgroundWriterSettings>>) -> BackgroundWriter {
        let seen = storage.pool().counters().allocated.load(Ordering::Relaxed);
        BackgroundWriter {
            storage,
            settings,
            seen,
            need: 0.0,
            unadvised: Vec::new(),
        }
    }

    /// One round.
    pub fn step(&mut self, now: Moment) -> Next {
        if self.storage.stop_reason().is_some() {
            return Next::Stop;
        }
        let settings = *self.settings.lock();
        let pool = self.storage.pool();
        let allocated = pool.counters().allocated.load(Ordering::Relaxed);
        let recent = allocated.wrapping_sub(self.seen) as f64;
        self.seen = allocated;
        self.need = if recent > self.need {
            recent
        } else {
            self.need + (recent - self.need) / SMOOTHING
        };
        let wanted = (self.need * settings.multiplier).min(pool.frame_count() as f64) as usize;
        if wanted == 0 || settings.max_pages == 0 {
            return Next::At(now.after(settings.delay * IDLE_PAUSES));
        }
        match pool.clean_ahead(wanted, settings.max_pages) {
            Ok(round) => self.unadvised.extend(round.written),
            Err(error) => {
                tracing::warn!(%error, "the background writer could not write a page, it will be tried again");
                return Next::At(now.after(RETRY));
            }
        }
        if settings.flush_after == 0 {
            self.unadvised.clear();
        } else if self.unadvised.len() >= settings.flush_after {
            self.storage.smgr().advise_written(&mut self.unadvised);
            self.unadvised.clear();
        }
        Next::At(now.after(settings.delay))
    }
}

/// A running background writer; dropping it ends the thread after its round.
#[derive(Debug)]
pub struct BackgroundWriterThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for BackgroundWriterThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// Runs a background writer on a thread of its own.
pub fn spawn_background_writer(
    mut writer: BackgroundWriter,
    clock: Arc<dyn Clock>,
) -> io::Result<BackgroundWriterThread> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name("bg-writer".to_owned())
        .spawn(move || {
            while !seen.load(Ordering::SeqCst) {
                let now = clock.now();
                match writer.step(now) {
                    Next::Now => {}
                    Next::Stop => break,
                    Next::Idle => std::thread::park(),
                    Next::At(moment) => std::thread::park_timeout(moment.since(now)),
                }
            }
        })?;
    Ok(BackgroundWriterThread {
        stop,
        thread: Some(thread),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::control::{ControlData, ControlFile};
    use crate::smgr::relation;
    use crate::storage::StorageConfig;
    use towline_base::vfs::CrashVfs;
    use towline_base::{ForkKind, Incarnation, Lsn, LsnWatch, SystemId, TimelineId, TimelineNumber};

    /// A storage of sixteen frames over a relation of forty blocks.
    fn storage() -> Arc<Storage> {
        let vfs = CrashVfs::new().shared();
        vfs.create_dir_all("/data/global".as_ref()).unwrap();
        let timeline = TimelineId {
            number: TimelineNumber(1),
            incarnation: Incarnation([1; 16]),
        };
        let data = ControlData::new(SystemId(1), timeline, 1 << 20, true);
        let control = ControlFile::create(Arc::clone(&vfs), "/data".as_ref(), data).unwrap();
        let config = StorageConfig {
            frames: 16,
            ..StorageConfig::new("/data")
        };
        let storage = Storage::open(vfs, &config, control, LsnWatch::new(Lsn(1000)).1).unwrap();
        storage.smgr().create(relation(16384), ForkKind::Main).unwrap();
        storage
            .smgr()
            .extend(relation(16384), ForkKind::Main, 40)
            .unwrap();
        storage
    }

    fn dirty(storage: &Storage, block: u32) {
        let mut page = storage.pin(PageId::main(relation(16384), block)).unwrap().write();
        page.mark_dirty(Lsn(92));
        page.bytes_mut().init(0);
        page.stamp(Lsn(100));
    }

    #[test]
    fn it_cleans_what_will_be_needed_and_sleeps_longer_when_nothing_is() {
        let storage = storage();
        let settings = BackgroundWriterSettings {
            multiplier: 1.0,
            ..BackgroundWriterSettings::default()
        };
        let mut writer = BackgroundWriter::new(Arc::clone(&storage), Arc::new(Mutex::new(settings)));
        let idle = Next::At(Moment(0).after(settings.delay * IDLE_PAUSES));
        assert_eq!(writer.step(Moment(0)), idle);
        (0..16).for_each(|block| dirty(&storage, block));
        // Three frames more: the hand has been round, and stands before frames that were not used since.
        (16..19).for_each(|block| dirty(&storage, block));
        let before = storage.pool().dirty_count();
        assert_eq!(writer.step(Moment(0)), Next::At(Moment(0).after(settings.delay)));
        let cleaned = storage.pool().counters().cleaned.load(Ordering::Relaxed);
        assert!(cleaned > 0, "nothing was cleaned of {before}");
        assert_eq!(storage.pool().dirty_count() as u64, before as u64 - cleaned);
        storage.stop("a test");
        assert_eq!(writer.step(Moment(0)), Next::Stop);
    }
}
