//! [`Appliers`]: redo of page changes by several threads, for a recovery that nobody reads meanwhile.
//!
//! One thread, the caller's, reads and checks the log and deals the records out by the pages that they change: a page's records all go to the
//! applier that its number hashes to, in the order of the log. A record whose pages belong to several appliers is applied by the first of
//! them when the others have applied what comes before it, and they go on when it is applied: its pages change together, and each page's changes
//! keep their order. Whatever waits, waits for something earlier in the log, so no wait is in a circle.
//!
//! Records are dealt out in batches of bounded size. While one batch is applied the next one is filled, and for the pages that it needs and the
//! pool lacks the system is asked to read them (`recovery_prefetch`). Records that are not about named pages do not come here: see [`Lane`].
//!
//! Not for a standby with readers: who follows an index relies on the row being there before its entry, and on the visibility map's bit
//! falling before that; here nothing orders the changes of two relations (`docs/decisions/0005-…`).

use super::RedoError;
use super::replay::Replayer;
use crate::buffer::page_hash;
use crossbeam_utils::CachePadded;
use hashbrown::HashSet;
use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;
use towline_base::{Lsn, PageId};
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
/// How often an applier looks for another before it sleeps.
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

/// What an applier does next.
enum Task {
    /// Applies the record of this number.
    Apply(u32),
    /// The same, when these appliers have done so many of their tasks.
    ApplyAfter(u32, SmallVec<[(u8, u32); 3]>),
    /// Goes on when this applier has done so many of its tasks.
    Await(u8, u32),
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

/// Records, and who applies which.
struct Batch {
    bytes: Vec<u8>,
    records: Vec<Dealt>,
    tasks: Vec<Vec<Task>>,
    /// How many of its tasks each applier has done.
    done: Vec<CachePadded<AtomicU32>>,
    /// Sleepers on `changed`.
    sleepers: AtomicUsize,
    /// Nothing more is to be applied.
    ended: AtomicBool,
    outcome: Mutex<Outcome>,
    changed: Condvar,
}

impl Batch {
    fn new(appliers: usize) -> Batch {
        Batch {
            bytes: Vec::new(),
            records: Vec::new(),
            tasks: (0..appliers).map(|_| Vec::new()).collect(),
            done: (0..appliers)
                .map(|_| CachePadded::new(AtomicU32::new(0)))
                .collect(),
            sleepers: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            outcome: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn clear(&mut self) {
        // A large record's memory is not kept.
        if self.bytes.capacity() > 2 * BATCH_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.records.clear();
        self.tasks.iter_mut().for_each(Vec::clear);
        for done in &mut self.done {
            *done.get_mut() = 0;
        }
        *self.outcome.get_mut() = Outcome::default();
    }

    fn is_full(&self) -> bool {
        self.records.len() >= BATCH_RECORDS || self.bytes.len() >= BATCH_BYTES
    }

    /// Takes a record over, for the appliers of its pages.
    fn deal(&mut self, record: &DecodedRecord<'_>) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(record.bytes);
        let number = self.records.len() as u32;
        self.records.push(Dealt {
            start: record.start,
            end: record.end,
            from,
            to: self.bytes.len(),
        });
        self.assign(number, record.blocks.iter().map(|block| &block.page));
    }

    /// Makes a record that changes these pages a task of their appliers.
    fn assign<'p>(&mut self, number: u32, pages: impl Iterator<Item = &'p PageId>) {
        let mut owners = SmallVec::<[u8; 4]>::new();
        for page in pages {
            let owner = owner_of(page, self.tasks.len());
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        match owners.split_first() {
            None => {}
            Some((owner, [])) => self.tasks[usize::from(*owner)].push(Task::Apply(number)),
            Some((owner, others)) => {
                let tasks = |of: &u8| (*of, self.tasks[usize::from(*of)].len() as u32);
                let before = others.iter().map(tasks).collect();
                let behind = tasks(owner).1 + 1;
                self.tasks[usize::from(*owner)].push(Task::ApplyAfter(number, before));
                for other in others {
                    self.tasks[usize::from(*other)].push(Task::Await(*owner, behind));
                }
            }
        }
    }

    fn end(&self) -> Option<Lsn> {
        self.records.last().map(|record| record.end)
    }

    /// Waits until `condition` holds; false when the batch has ended.
    fn sleep_until(&self, condition: impl Fn() -> bool) -> bool {
        for _ in 0..SPINS {
            if condition() {
                return true;
            }
            std::hint::spin_loop();
        }
        let mut outcome = self.outcome.lock();
        // Before the look below: who does a task looks for sleepers behind it.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !condition() && !self.ended.load(Ordering::SeqCst) {
            self.changed.wait(&mut outcome);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        condition()
    }

    /// A task of `applier` is done.
    fn advance(&self, applier: usize) {
        self.done[applier].fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _outcome = self.outcome.lock();
            self.changed.notify_all();
        }
    }

    fn has_done(&self, applier: u8, tasks: u32) -> bool {
        self.done[usize::from(applier)].load(Ordering::SeqCst) >= tasks
    }

    /// One applier's part. False when the batch has ended before.
    fn apply(&self, applier: usize, replayer: &Replayer) -> bool {
        for task in &self.tasks[applier] {
            if self.ended.load(Ordering::Relaxed) {
                return false;
            }
            let ready = match task {
                Task::Apply(number) => self.apply_record(*number, replayer),
                Task::ApplyAfter(number, before) => {
                    before
                        .iter()
                        .all(|(other, tasks)| self.sleep_until(|| self.has_done(*other, *tasks)))
                        && self.apply_record(*number, replayer)
                }
                Task::Await(other, tasks) => self.sleep_until(|| self.has_done(*other, *tasks)),
            };
            if !ready {
                return false;
            }
            self.advance(applier);
        }
        true
    }

    /// False when it cannot be applied, or the batch has ended.
    fn apply_record(&self, number: u32, replayer: &Replayer) -> bool {
        let dealt = &self.records[number as usize];
        let bytes = &self.bytes[dealt.from..dealt.to];
        loop {
            let applied = decode_record(dealt.start, dealt.end, bytes)
                .map_err(|error| RedoError::record(dealt.start, error.to_string()))
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

/// The applier of a page.
fn owner_of(page: &PageId, appliers: usize) -> u8 {
    // The number of appliers fits.
    (page_hash(page) % appliers as u64) as u8
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
            filling: Arc::new(Batch::new(count)),
            applied: None,
            spare: VecDeque::new(),
            asked: HashSet::new(),
        };
        for number in 0..count {
            let (work, batches) = sync_channel(1);
            let replayer = Arc::clone(&appliers.replayer);
            let thread = std::thread::Builder::new()
                .name(format!("applier-{number}"))
                .spawn(move || run(number, &batches, &replayer))
                .map_err(|error| RedoError::Log(format!("an applier could not be started: {error}")))?;
            appliers.work.push(work);
            appliers.threads.push(thread);
        }
        Ok(appliers)
    }

    /// Takes over a record of [`Lane::Pages`]. After an error that says to try again, the record was not taken.
    pub(super) fn push(&mut self, record: &DecodedRecord<'_>) -> Result<(), RedoError> {
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
        Arc::new(Batch::new(self.work.len()))
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
        if self.filling.records.is_empty() {
            return Ok(());
        }
        self.send()?;
        self.join()
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
fn run(applier: usize, batches: &Receiver<Arc<Batch>>, replayer: &Replayer) {
    while let Ok(batch) = batches.recv() {
        let _finish = Finish { batch: &batch };
        batch.apply(applier, replayer);
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

    /// Whichever applier goes on first: every record is applied once, each page sees its records in their order, nobody waits for ever.
    #[test]
    fn each_page_sees_its_records_in_the_order_of_the_log_under_any_schedule() {
        for seed in 1..400u64 {
            let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let appliers = 1 + random.below(5);
            let pages = 1 + random.below(12);
            let mut batch = Batch::new(appliers);
            let records: Vec<Vec<u32>> = (0..60)
                .map(|_| {
                    let mut named: Vec<u32> = (0..1 + random.below(4))
                        .map(|_| random.below(pages) as u32)
                        .collect();
                    named.sort_unstable();
                    named.dedup();
                    named
                })
                .collect();
            for (number, named) in records.iter().enumerate() {
                let named: Vec<PageId> = named.iter().map(|block| page(*block)).collect();
                batch.assign(number as u32, named.iter());
            }
            let mut done = vec![0usize; appliers];
            let mut last = vec![None; pages];
            let mut applied = 0;
            while done
                .iter()
                .zip(&batch.tasks)
                .any(|(done, tasks)| *done < tasks.len())
            {
                let able: Vec<usize> = (0..appliers)
                    .filter(|applier| match batch.tasks[*applier].get(done[*applier]) {
                        None => false,
                        Some(Task::Apply(_)) => true,
                        Some(Task::ApplyAfter(_, before)) => before
                            .iter()
                            .all(|(other, tasks)| done[usize::from(*other)] >= *tasks as usize),
                        Some(Task::Await(other, tasks)) => done[usize::from(*other)] >= *tasks as usize,
                    })
                    .collect();
                assert!(!able.is_empty(), "seed {seed}: everybody waits");
                let applier = able[random.below(able.len())];
                if let Task::Apply(number) | Task::ApplyAfter(number, _) =
                    &batch.tasks[applier][done[applier]]
                {
                    applied += 1;
                    for block in &records[*number as usize] {
                        let before = last[*block as usize].replace(*number);
                        assert!(before < Some(*number), "seed {seed}: page {block}");
                    }
                }
                done[applier] += 1;
            }
            assert_eq!(applied, records.len(), "seed {seed}");
        }
    }
}
