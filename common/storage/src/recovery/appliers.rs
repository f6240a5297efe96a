//! [`Appliers`]: redo of page changes by several threads, for a recovery that nobody reads meanwhile.
//!
//! One thread, the caller's, reads and checks the log and notes for each record which ones before it change the same pages. A record
//! may be applied by any thread as soon as those are applied: so its pages change together, each page's changes keep their order, and a page that
//! many records change holds up only these. Whatever waits, waits for something earlier in the log, so no wait is in a circle.
//!
//! Pages of the visibility map make no order, or every first change of a page would wait for the one before: bits are only cleared here, and
//! whatever sets them or brings a whole page of the map is applied alone. (The latches that a record holds at a time, those of its own pages and
//! behind them the map's in their order, cannot close a circle either.)
//!
//! Records are dealt out in batches of bounded size. While one batch is applied the next one is filled, and for the pages that it needs and the
//! pool lacks the system is asked to read them (`recovery_prefetch`). Records that are not about named pages do not come here: see [`Lane`].
//!
//! Not for a standby with readers: who follows an index relies on the row being there before its entry, and on the visibility map's bit
//! falling before that; here nothing orders the changes of two relations (`docs/decisions/0005-several-appliers-after-a-crash-only.md`).

use super::RedoError;
use super::replay::Replayer;
use hashbrown::{HashMap, HashSet};
use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;
use towline_base::{ForkKind, Lsn, PageId};
use towline_wal::format::{DecodedRecord, decode_record};

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Most appliers.
pub const MAX_APPLIERS: usize = 32;
/// A batch is full with so many records, …
const BATCH_RECORDS: usize = 1024;
/// … or with so many bytes of them. A record may be larger than that: then it is a batch of its own.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// So few records are applied by the thread that reads the log when all of them are wanted: waking others takes longer.
const FEW_RECORDS: usize = 64;
/// How often an applier looks for a record before it sleeps.
const SPINS: u32 = 500;

/// What a record has to do with pages, and so who applies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// It changes the pages that it names, and nothing else.
    Pages,
    /// It changes no page and no file: it may be applied before what comes before it.
    Aside,
    /// It is applied when everything before it is, and before anything behind it.
    Alone,
}

/// A record of a batch.
struct Dealt {
    start: Lsn,
    end: Lsn,
    from: usize,
    to: usize,
}

impl Dealt {
    /// The record, whose bytes the reader has checked.
    fn decode<'b>(&self, bytes: &'b [u8]) -> Result<DecodedRecord<'b>, RedoError> {
        decode_record(self.start, self.end, &bytes[self.from..self.to])
            .map_err(|error| RedoError::record(self.start, error.to_string()))
    }
}

#[derive(Default)]
struct Stall {
    /// Appliers that wait for the quorum or for space; why the first one does.
    error: Option<RedoError>,
    /// Counts the calls to try again.
    tries: u64,
}

#[derive(Default)]
struct Outcome {
    finished: usize,
    failed: Option<RedoError>,
    stall: Stall,
}

/// Records, and which wait for which.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    records: Vec<Dealt>,
    /// How many records each one waits for.
    before: Vec<AtomicU32>,
    /// Which ones wait for it.
    behind: Vec<SmallVec<[u32; 4]>>,
    /// The last record of each page. Only while the batch is filled.
    last: HashMap<PageId, u32>,
    /// Those that wait for nothing, in the order of the log, and how many of them were taken.
    free: Vec<u32>,
    taken: AtomicUsize,
    /// Those that wait no longer, and that nobody has taken over at once.
    freed: Mutex<Vec<u32>>,
    /// Their number, to be looked at without the lock.
    waiting: AtomicUsize,
    /// Records that are not applied yet.
    left: AtomicUsize,
    /// Sleepers on `changed`.
    sleepers: AtomicUsize,
    /// Nothing more is to be applied.
    ended: AtomicBool,
    outcome: Mutex<Outcome>,
    changed: Condvar,
}

impl Batch {
    fn clear(&mut self) {
        // A large record's memory is not kept.
        if self.bytes.capacity() > 2 * BATCH_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.records.clear();
        self.before.clear();
        self.behind.clear();
        self.last.clear();
        self.free.clear();
        *self.taken.get_mut() = 0;
        self.freed.get_mut().clear();
        *self.waiting.get_mut() = 0;
        *self.left.get_mut() = 0;
        *self.outcome.get_mut() = Outcome::default();
    }

    fn is_full(&self) -> bool {
        self.records.len() >= BATCH_RECORDS || self.bytes.len() >= BATCH_BYTES
    }

    /// Takes a record over.
    fn deal(&mut self, record: &DecodedRecord<'_>) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(record.bytes);
        self.records.push(Dealt {
            start: record.start,
            end: record.end,
            from,
            to: self.bytes.len(),
        });
        let pages = record.blocks.iter().map(|block| block.page);
        self.order(pages.filter(|page| page.fork != ForkKind::Vm));
    }

    /// Puts the next record behind those that change the same pages.
    fn order(&mut self, pages: impl Iterator<Item = PageId>) {
        let number = self.before.len() as u32;
        let mut waits_for = SmallVec::<[u32; 4]>::new();
        for page in pages {
            match self.last.insert(page, number) {
                // A record that names a page twice is for redo to complain about.
                Some(earlier) if earlier != number && !waits_for.contains(&earlier) => {
                    waits_for.push(earlier)
                }
                _ => {}
            }
        }
        for earlier in &waits_for {
            self.behind[*earlier as usize].push(number);
        }
        if waits_for.is_empty() {
            self.free.push(number);
        }
        self.before.push(AtomicU32::new(waits_for.len() as u32));
        self.behind.push(SmallVec::new());
        *self.left.get_mut() += 1;
    }

    fn end(&self) -> Option<Lsn> {
        self.records.last().map(|record| record.end)
    }

    /// A record that may be applied, if there is one now.
    fn take(&self) -> Option<u32> {
        // Others may wait for these.
        if self.waiting.load(Ordering::SeqCst) > 0
            && let Some(number) = self.freed.lock().pop()
        {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Some(number);
        }
        if self.taken.load(Ordering::Relaxed) < self.free.len() {
            let next = self.taken.fetch_add(1, Ordering::Relaxed);
            return self.free.get(next).copied();
        }
        None
    }

    /// Waits for a record that may be applied; `None` when all are, or the batch has ended.
    fn next(&self) -> Option<u32> {
        let is_over = || self.left.load(Ordering::SeqCst) == 0 || self.ended.load(Ordering::SeqCst);
        for _ in 0..SPINS {
            if is_over() {
                return None;
            }
            if let Some(number) = self.take() {
                return Some(number);
            }
            std::hint::spin_loop();
        }
        let mut outcome = self.outcome.lock();
        // Before the looks below: who frees a record looks for sleepers behind that.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            if is_over() {
                break None;
            }
            if let Some(number) = self.take() {
                break Some(number);
            }
            self.changed.wait(&mut outcome);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        found
    }

    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _outcome = self.outcome.lock();
            self.changed.notify_all();
        }
    }

    /// A record is applied: those behind it may be free. Returns one of them for the same thread, which has the page at hand.
    fn advance(&self, number: u32) -> Option<u32> {
        let mut own = None;
        for behind in &self.behind[number as usize] {
            if self.before[*behind as usize].fetch_sub(1, Ordering::AcqRel) != 1 {
                continue;
            }
            if own.is_none() {
                own = Some(*behind);
                continue;
            }
            self.waiting.fetch_add(1, Ordering::SeqCst);
            self.freed.lock().push(*behind);
            self.wake();
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.wake();
        }
        own
    }

    /// An applier's part.
    fn apply(&self, replayer: &Replayer) {
        let mut next = self.next();
        while let Some(number) = next {
            if !self.apply_record(number, replayer) {
                return;
            }
            next = match self.advance(number) {
                Some(behind) if !self.ended.load(Ordering::Relaxed) => Some(behind),
                _ => self.next(),
            };
        }
    }

    /// False when it cannot be applied, or the batch has ended.
    fn apply_record(&self, number: u32, replayer: &Replayer) -> bool {
        let dealt = &self.records[number as usize];
        loop {
            let applied = dealt
                .decode(&self.bytes)
                .and_then(|record| replayer.apply(&record));
            match applied {
                Ok(()) => return true,
                Err(error @ (RedoError::NeedsQuorum(_) | RedoError::NoSpace(_))) => {
                    if !self.stall(error) {
                        return false;
                    }
                }
                Err(error) => {
                    self.fail(error);
                    return false;
                }
            }
        }
    }

    /// Waits until the record is to be tried again; false when it is not.
    fn stall(&self, error: RedoError) -> bool {
        let mut outcome = self.outcome.lock();
        outcome.stall.error.get_or_insert(error);
        let tries = outcome.stall.tries;
        self.changed.notify_all();
        while outcome.stall.tries == tries && !self.ended.load(Ordering::SeqCst) {
            self.changed.wait(&mut outcome);
        }
        outcome.stall.tries != tries
    }

    fn fail(&self, error: RedoError) {
        self.ended.store(true, Ordering::SeqCst);
        let mut outcome = self.outcome.lock();
        outcome.failed.get_or_insert(error);
        self.changed.notify_all();
    }

    fn end_now(&self) {
        self.ended.store(true, Ordering::SeqCst);
        let _outcome = self.outcome.lock();
        self.changed.notify_all();
    }
}

/// Says that an applier is through with a batch, also when it panics.
struct Finish<'a> {
    batch: &'a Batch,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.batch
                .fail(RedoError::Log("an applier has ended by a panic".to_owned()));
        }
        let mut outcome = self.batch.outcome.lock();
        outcome.finished += 1;
        self.batch.changed.notify_all();
    }
}

/// See the module.
pub(super) struct Appliers {
    replayer: Arc<Replayer>,
    prefetch: bool,
    work: Vec<SyncSender<Arc<Batch>>>,
    threads: Vec<JoinHandle<()>>,
    filling: Arc<Batch>,
    applied: Option<Arc<Batch>>,
    /// Used ones, the oldest first: by the time it is used again, the appliers have let go of it.
    spare: VecDeque<Arc<Batch>>,
    /// How many records of the batch being filled this thread has applied itself.
    applied_here: usize,
    /// Pages of the batch being filled that were asked for.
    asked: HashSet<PageId>,
}

impl Appliers {
    /// Starts `count` threads, at most [`MAX_APPLIERS`].
    pub(super) fn start(
        replayer: Arc<Replayer>,
        count: NonZeroUsize,
        prefetch: bool,
    ) -> Result<Appliers, RedoError> {
        let count = count.get().min(MAX_APPLIERS);
        let mut appliers = Appliers {
            replayer,
            prefetch,
            work: Vec::new(),
            threads: Vec::new(),
            filling: Arc::default(),
            applied: None,
            spare: VecDeque::new(),
            applied_here: 0,
            asked: HashSet::new(),
        };
        for number in 0..count {
            let (work, batches) = sync_channel(1);
            let replayer = Arc::clone(&appliers.replayer);
            let thread = std::thread::Builder::new()
                .name(format!("applier-{number}"))
                .spawn(move || run(&batches, &replayer))
                .map_err(|error| RedoError::Log(format!("an applier could not be started: {error}")))?;
            appliers.work.push(work);
            appliers.threads.push(thread);
        }
        Ok(appliers)
    }

    /// Takes over a record of [`Lane::Pages`]. After an error that says to try again, the record was not taken.
    pub(super) fn push(&mut self, record: &DecodedRecord<'_>) -> Result<(), RedoError> {
        if self.applied_here > 0 {
            self.drain()?;
        }
        if self.filling.is_full() {
            self.send()?;
        }
        if self.prefetch {
            self.ask_for(record);
        }
        let batch =
            Arc::get_mut(&mut self.filling).ok_or_else(|| RedoError::Log("a batch is in use".to_owned()))?;
        batch.deal(record);
        Ok(())
    }

    /// Asks the system to read the pages that the record needs.
    fn ask_for(&mut self, record: &DecodedRecord<'_>) {
        let storage = self.replayer.storage();
        for block in &record.blocks {
            let whole = block.has_apply_image() || block.will_init();
            if whole || !self.asked.insert(block.page) || storage.pool().holds(&block.page) {
                continue;
            }
            storage.smgr().advise_needed(&block.page);
        }
    }

    fn next_batch(&mut self) -> Arc<Batch> {
        if self.spare.len() > 1
            && let Some(mut used) = self.spare.pop_front()
            && let Some(batch) = Arc::get_mut(&mut used)
        {
            batch.clear();
            return used;
        }
        Arc::default()
    }

    /// Has the filled batch applied, when the one before is.
    fn send(&mut self) -> Result<(), RedoError> {
        self.join()?;
        let next = self.next_batch();
        let batch = std::mem::replace(&mut self.filling, next);
        self.asked.clear();
        for work in &self.work {
            if work.send(Arc::clone(&batch)).is_err() {
                return Err(RedoError::Log("an applier has ended".to_owned()));
            }
        }
        self.applied = Some(batch);
        Ok(())
    }

    /// Waits until everything that was taken over is applied. After [`RedoError::NeedsQuorum`] and [`RedoError::NoSpace`] to be called
    /// again.
    pub(super) fn drain(&mut self) -> Result<(), RedoError> {
        self.join()?;
        if self.filling.records.len() <= FEW_RECORDS {
            return self.apply_here();
        }
        self.send()?;
        self.join()
    }

    /// Applies the batch that was not sent. After an error that says to try again, it goes on where it was.
    fn apply_here(&mut self) -> Result<(), RedoError> {
        while let Some(dealt) = self.filling.records.get(self.applied_here) {
            self.replayer.apply(&dealt.decode(&self.filling.bytes)?)?;
            self.applied_here += 1;
        }
        if let Some(end) = self.filling.end() {
            self.replayer.note_replayed(end);
        }
        self.applied_here = 0;
        self.asked.clear();
        match Arc::get_mut(&mut self.filling) {
            Some(batch) => batch.clear(),
            None => self.filling = Arc::default(),
        }
        Ok(())
    }

    /// Waits until the batch that was sent is applied.
    fn join(&mut self) -> Result<(), RedoError> {
        let Some(batch) = &self.applied else { return Ok(()) };
        {
            let mut outcome = batch.outcome.lock();
            if outcome.stall.error.take().is_some() {
                outcome.stall.tries += 1;
                batch.changed.notify_all();
            }
            while outcome.finished < self.work.len() {
                if let Some(error) = &outcome.stall.error
                    && outcome.failed.is_none()
                {
                    return Err(error.clone());
                }
                batch.changed.wait(&mut outcome);
            }
            if let Some(error) = &outcome.failed {
                return Err(error.clone());
            }
        }
        if let Some(end) = batch.end() {
            self.replayer.note_replayed(end);
        }
        self.spare.extend(self.applied.take());
        Ok(())
    }
}

impl Drop for Appliers {
    fn drop(&mut self) {
        if let Some(batch) = &self.applied {
            batch.end_now();
        }
        self.work.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Appliers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appliers")
            .field("count", &self.work.len())
            .finish_non_exhaustive()
    }
}

/// An applier's thread.
fn run(batches: &Receiver<Arc<Batch>>, replayer: &Replayer) {
    while let Ok(batch) = batches.recv() {
        let _finish = Finish { batch: &batch };
        batch.apply(replayer);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::smgr::relation;
    use towline_base::ForkKind;

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }
    }

    fn page(block: u32) -> PageId {
        PageId {
            rel: relation(16384),
            fork: ForkKind::Main,
            block,
        }
    }

    /// Whoever goes on first: every record is applied once, each page sees its records in their order, nobody waits for ever.
    #[test]
    fn each_page_sees_its_records_in_the_order_of_the_log_under_any_schedule() {
        for seed in 1..400u64 {
            let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let pages = 1 + random.below(12);
            let mut batch = Batch::default();
            let records: Vec<Vec<u32>> = (0..60)
                .map(|_| (0..random.below(4)).map(|_| random.below(pages) as u32).collect())
                .collect();
            for named in &records {
                batch.order(named.iter().map(|block| page(*block)));
            }
            let mut last = vec![None; pages];
            let mut able = Vec::new();
            let mut applied = 0;
            loop {
                able.extend(std::iter::from_fn(|| batch.take()));
                if able.is_empty() {
                    break;
                }
                let number = able.swap_remove(random.below(able.len()));
                applied += 1;
                let mut named = records[number as usize].clone();
                named.sort_unstable();
                named.dedup();
                for block in named {
                    let before = last[block as usize].replace(number);
                    assert!(before < Some(number), "seed {seed}: page {block}");
                }
                able.extend(batch.advance(number));
            }
            assert_eq!(applied, records.len(), "seed {seed}");
            assert_eq!(batch.left.load(Ordering::SeqCst), 0);
            assert_eq!(batch.next(), None);
        }
    }
}
