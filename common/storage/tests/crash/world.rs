//! A node over the crash double with a tiny resource manager, and the oracle that knows what each page must hold at each LSN.
//!
//! A page holds [`SLOTS`] numbers, each an item of eight bytes. Records: make a page, put numbers into slots of one or two pages,
//! drop a relation; creation and truncation are storage's own records.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use towline_base::vfs::CrashVfs;
use towline_base::{
    ForkKind, Incarnation, Lsn, ManualClock, Next, PageId, RelFileNode, SystemId, TimelineId, TimelineNumber,
    Vfs, Xid,
};
use towline_storage::buffer::FlushState;
use towline_storage::checkpoint::PrimarySide;
use towline_storage::smgr::relation;
use towline_storage::{
    CheckpointCounters, CheckpointInfo, CheckpointParticipant, CheckpointSettings, CheckpointSource,
    Checkpointer, ControlData, ControlFile, LoggedChange, Page, PinnedPage, Placement, Recovery, RedoContext,
    RedoError, Replayer, ResourceManagers, Storage, StorageConfig, StorageError,
};
use towline_wal::format::{DecodedRecord, SegmentSize};
use towline_wal::reader::{Known, find_end};
use towline_wal::{
    BlockFlags, Credit, PermitIssuer, Positions, Rmgr, StartAt, TimelineHistory, Wal, WalConfig, WalSource,
    WritePermit, credit_for, rewrite_tail_durable,
};

/// Numbers on a page.
pub(crate) const SLOTS: u16 = 20;
pub(crate) const ROOT: &str = "/data";
const FRAMES: usize = 16;

const INFO_PUT: u8 = 0x00;
const INFO_DROP: u8 = 0x10;
const INFO_INIT: u8 = 0x20;

/// Why a run ended: any error, as text. After a power cut everything fails.
pub(crate) type Failure = String;

pub(crate) fn text(error: impl std::fmt::Display) -> Failure {
    error.to_string()
}

/// A rule that is switched off, to see that the tests notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// Pages are written whatever the quorum has.
    NoGate,
    /// Changes carry no page images.
    NoImages,
    /// The control file's bound of page LSNs is noted at checkpoints only.
    NoBound,
}

/// What happened to the data, by record.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Create(u32),
    Init(u32, u32),
    Put(u32, u32, u16, u64),
    Truncate(u32, u32),
    Drop(u32),
}

/// Every logged event with the end of its record.
pub(crate) type History = Vec<(Lsn, Event)>;

/// What relations hold: numbers by block.
pub(crate) type Contents = BTreeMap<u32, Vec<[u64; SLOTS as usize]>>;

/// The contents as of a position.
pub(crate) fn contents_at(history: &History, position: Lsn) -> Contents {
    let mut contents = Contents::new();
    for (_, event) in history.iter().filter(|(end, _)| *end <= position) {
        match *event {
            Event::Create(rel) => {
                contents.insert(rel, Vec::new());
            }
            Event::Init(rel, block) => {
                let pages = contents.get_mut(&rel).unwrap();
                assert_eq!(pages.len(), block as usize);
                pages.push([0; SLOTS as usize]);
            }
            Event::Put(rel, block, slot, value) => {
                contents.get_mut(&rel).unwrap()[block as usize][usize::from(slot) - 1] = value;
            }
            Event::Truncate(rel, blocks) => contents.get_mut(&rel).unwrap().truncate(blocks as usize),
            Event::Drop(rel) => {
                contents.remove(&rel);
            }
        }
    }
    contents
}

fn format_page(page: &mut Page) {
    page.init(0);
    for _ in 0..SLOTS {
        page.add_item(&[0; 8], Placement::Heap).unwrap();
    }
}

pub(crate) struct Managers;

impl ResourceManagers for Managers {
    fn redo(&self, record: &DecodedRecord<'_>, context: &mut RedoContext<'_>) -> Result<(), RedoError> {
        if record.rmgr() != Rmgr::Heap {
            return Ok(());
        }
        match record.info() {
            INFO_INIT => {
                if let Some(page) = context.page_mut(0) {
                    format_page(page);
                }
            }
            INFO_PUT => {
                for block in &record.blocks {
                    if let Some(page) = context.page_mut(block.id) {
                        let (slot, value) = block.data.split_at(2);
                        let slot = u16::from_le_bytes(slot.try_into().unwrap());
                        page.item_mut(slot).unwrap().copy_from_slice(value);
                    }
                }
            }
            INFO_DROP => {
                context.drop_relation(relation(u32::from_le_bytes(record.main.try_into().unwrap())));
            }
            other => return Err(RedoError::record(record.start, format!("unknown info {other}"))),
        }
        Ok(())
    }
}

pub(crate) struct NoParticipant;

impl CheckpointParticipant for NoParticipant {
    fn counters(&self) -> CheckpointCounters {
        CheckpointCounters {
            next_xid: Xid(3),
            next_oid: 16384,
            oldest_xid: Xid(3),
            oldest_active_xid: Xid::INVALID,
        }
    }

    fn flush(&self, _redo: Lsn) -> Result<FlushState, StorageError> {
        Ok(FlushState::Done)
    }

    fn finished(&self, _info: &CheckpointInfo, _oldest_kept: Lsn) {}
}

/// A running node.
pub(crate) struct Node {
    pub(crate) storage: Arc<Storage>,
    pub(crate) wal: Arc<Wal>,
    checkpointer: Mutex<Checkpointer>,
    clock: Arc<ManualClock>,
    permit: WritePermit,
    _issuer: PermitIssuer,
    sabotage: Sabotage,
    /// End of the log that this start found.
    pub(crate) found_end: Lsn,
}

fn timeline() -> TimelineId {
    TimelineId {
        number: TimelineNumber(1),
        incarnation: Incarnation([1; 16]),
    }
}

fn segment_size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

fn wal_config() -> WalConfig {
    let mut config = WalConfig::new(format!("{ROOT}/pg_wal"), SystemId(77));
    config.segment_size = segment_size();
    config.buffers = 0;
    config.tuning.images.checked = towline_wal::CheckedManagers::ALL;
    config
}

pub(crate) fn source(vfs: &Arc<dyn Vfs>) -> WalSource {
    WalSource {
        vfs: Arc::clone(vfs),
        dir: format!("{ROOT}/pg_wal").into(),
        segment_size: segment_size(),
        system: Some(SystemId(77)),
        history: TimelineHistory::first(timeline()),
    }
}

pub(crate) fn storage_config() -> StorageConfig {
    StorageConfig {
        frames: FRAMES,
        max_open_files: 8,
        ..StorageConfig::new(ROOT)
    }
}

/// Makes a data directory with its first checkpoint.
pub(crate) fn init(vfs: &CrashVfs) -> Result<(), Failure> {
    let vfs = vfs.shared();
    for directory in ["global", "base/5", "pg_wal"] {
        vfs.create_dir_all(format!("{ROOT}/{directory}").as_ref())
            .map_err(text)?;
    }
    for directory in ["/", ROOT, "/data/base"] {
        vfs.sync_dir(directory.as_ref()).map_err(text)?;
    }
    let data = ControlData::new(SystemId(77), timeline(), segment_size().bytes(), true);
    let control = ControlFile::create(Arc::clone(&vfs), ROOT.as_ref(), data).map_err(text)?;
    let first = Lsn(segment_size().bytes());
    let node = Node::open(vfs, control, first, Lsn::INVALID, Sabotage::None, |_| Ok(()))?;
    node.checkpoint()
}

/// No page on disk is above the control file's bound.
pub(crate) fn check_page_lsn_bound(vfs: &CrashVfs) -> Result<(), Failure> {
    let vfs = vfs.shared();
    let bound = ControlFile::open(Arc::clone(&vfs), ROOT.as_ref())
        .map_err(text)?
        .get()
        .page_lsn_bound;
    let directory = std::path::Path::new(ROOT).join("base/5");
    for entry in vfs.read_dir(&directory).map_err(text)? {
        let bytes = vfs
            .read_file(&directory.join(&entry.name), 1 << 30)
            .map_err(text)?;
        for (block, page) in bytes.as_chunks::<8192>().0.iter().enumerate() {
            let lsn = Page::from_bytes(*page).lsn();
            if lsn > bound {
                return Err(format!(
                    "file {} block {block} has LSN {lsn}, above the bound {bound}",
                    entry.name
                ));
            }
        }
    }
    Ok(())
}

impl Node {
    /// Starts as after a crash: end of the log, its tail made durable, redo, the log open.
    pub(crate) fn start(vfs: &CrashVfs, sabotage: Sabotage) -> Result<Node, Failure> {
        let vfs = vfs.shared();
        let control = ControlFile::open(Arc::clone(&vfs), ROOT.as_ref()).map_err(text)?;
        let checkpoint = control.get().checkpoint;
        let source = source(&vfs);
        let log = find_end(source.clone(), checkpoint.redo, Known::default(), |_| {}).map_err(text)?;
        rewrite_tail_durable(&source, checkpoint.end, log.end.lsn).map_err(text)?;
        let end = log.end.lsn;
        Node::open(vfs, control, end, log.end.last_record, sabotage, |storage| {
            let replayer = Arc::new(Replayer::new(
                Arc::clone(storage),
                Arc::new(Managers),
                checkpoint.redo,
            ));
            let mut recovery = Recovery::begin(Arc::clone(&replayer), source, Some(end)).map_err(text)?;
            let found = recovery.run().map_err(text)?;
            assert_eq!(found.lsn, end);
            replayer.check_missing_pages().map_err(text)
        })
    }

    fn open(
        vfs: Arc<dyn Vfs>,
        control: ControlFile,
        end: Lsn,
        last_record: Lsn,
        sabotage: Sabotage,
        recover: impl FnOnce(&Arc<Storage>) -> Result<(), Failure>,
    ) -> Result<Node, Failure> {
        let (publishers, positions) = Positions::starting_at(end);
        let quorum = match sabotage {
            Sabotage::NoGate => towline_base::LsnWatch::new(Lsn::MAX).1,
            Sabotage::None | Sabotage::NoImages | Sabotage::NoBound => positions.flush.clone(),
        };
        let config = storage_config();
        let storage = Storage::open(Arc::clone(&vfs), &config, control, quorum).map_err(text)?;
        storage.smgr().round_off_torn_blocks().map_err(text)?;
        storage
            .set_strict_page_lsn_bound(sabotage != Sabotage::NoBound)
            .map_err(text)?;
        recover(&storage)?;
        let at = StartAt {
            lsn: end,
            prev: last_record,
            timeline: timeline(),
            image_threshold: end,
        };
        let wal = Wal::start(Arc::clone(&vfs), wal_config(), at, publishers).map_err(text)?;
        storage.attach_wal(Arc::clone(&wal)).map_err(text)?;
        let issuer = PermitIssuer::new(timeline());
        let permit = issuer.issue();
        let clock = Arc::new(ManualClock::new(0));
        let primary = PrimarySide {
            wal: Arc::clone(&wal),
            permit: issuer.issue(),
            previous_timeline: TimelineNumber(1),
            timeline_begin: Lsn(0),
        };
        let checkpointer = Checkpointer::new(
            Arc::clone(&storage),
            CheckpointSource::Primary(primary),
            Arc::new(NoParticipant),
            Some(Arc::clone(wal.segments())),
            clock.clone(),
            CheckpointSettings {
                min_wal_size: 0,
                ..CheckpointSettings::default()
            },
        );
        Ok(Node {
            storage,
            wal,
            checkpointer: Mutex::new(checkpointer),
            clock,
            permit,
            _issuer: issuer,
            sabotage,
            found_end: end,
        })
    }

    /// Makes everything logged durable.
    pub(crate) fn flush(&self) -> Result<Lsn, Failure> {
        let wanted = self.wal.insert_lsn();
        while !self.wal.is_poisoned() {
            let reached = self.wal.flush_here(wanted);
            if reached >= wanted {
                return Ok(reached);
            }
            // Another thread leads.
            std::thread::yield_now();
        }
        Err("the log could not be flushed".to_owned())
    }

    /// Runs a checkpoint to its end.
    pub(crate) fn checkpoint(&self) -> Result<(), Failure> {
        let target = self.wal.insert_lsn();
        let mut checkpointer = self.checkpointer.lock().unwrap();
        let _wait = checkpointer.requests().request(target);
        for _ in 0..10_000 {
            let now = towline_base::Clock::now(&*self.clock);
            let next = checkpointer.step(now);
            if let Next::Stop = next {
                return Err("the storage has stopped".to_owned());
            }
            if checkpointer.waits_for().is_some() {
                self.flush()?;
            } else if let Next::At(_) = next {
                // Another thread writes a page.
                std::thread::yield_now();
            }
            if checkpointer.requests().finished().get() >= target {
                return Ok(());
            }
            self.clock.advance(std::time::Duration::from_millis(1));
        }
        Err("the checkpoint does not end".to_owned())
    }

    fn retry<T>(&self, mut body: impl FnMut() -> Result<T, StorageError>) -> Result<T, Failure> {
        loop {
            match body() {
                Err(error) if error.is_wait() => {
                    self.flush()?;
                }
                other => return other.map_err(text),
            }
        }
    }

    fn credit(&self, blocks: usize) -> Result<Credit, Failure> {
        self.retry(|| self.storage.credit(credit_for(blocks, 256)))
    }

    fn pin(&self, rel: u32, block: u32) -> Result<PinnedPage, Failure> {
        self.retry(|| self.storage.pin(PageId::main(relation(rel), block)))
    }

    fn flags(&self) -> BlockFlags {
        match self.sabotage {
            Sabotage::NoImages => BlockFlags::STANDARD | BlockFlags::NO_IMAGE,
            Sabotage::None | Sabotage::NoGate | Sabotage::NoBound => BlockFlags::STANDARD,
        }
    }

    /// Does what the event says, logged, and returns the end of its record.
    pub(crate) fn apply(&self, event: &Event) -> Result<Lsn, Failure> {
        let inserted = match *event {
            Event::Create(rel) => self.retry(|| {
                self.storage
                    .create_fork(&self.permit, Xid::INVALID, relation(rel), ForkKind::Main)
            })?,
            Event::Init(rel, block) => {
                let credit = self.credit(1)?;
                let exists = self
                    .storage
                    .nblocks(relation(rel), ForkKind::Main)
                    .map_err(text)?
                    > block;
                // A block that a lost extension left behind is taken over.
                let pin = if exists {
                    self.pin(rel, block)?
                } else {
                    let pin = self.retry(|| self.storage.pool().extend(relation(rel), ForkKind::Main))?;
                    assert_eq!(pin.id().block, block);
                    pin
                };
                let mut change =
                    LoggedChange::new(&self.storage, &self.permit, credit, Rmgr::Heap, INFO_INIT, Xid(5));
                change.page(pin.write(), BlockFlags::WILL_INIT | BlockFlags::STANDARD);
                format_page(change.page_mut(0));
                change.finish().map_err(text)?
            }
            Event::Put(rel, block, slot, value) => self.put(&[(rel, block, slot, value)])?,
            Event::Truncate(rel, blocks) => {
                let mut pending = self.retry(|| {
                    self.storage
                        .log_truncate(&self.permit, Xid(5), relation(rel), blocks)
                })?;
                self.retry(|| pending.finish())?;
                return Ok(pending.logged());
            }
            Event::Drop(rel) => {
                let credit = self.credit(0)?;
                let mut change =
                    LoggedChange::new(&self.storage, &self.permit, credit, Rmgr::Heap, INFO_DROP, Xid(5));
                change.data(&rel.to_le_bytes());
                let inserted = change.finish().map_err(text)?;
                self.storage.unlink_after(inserted.end, relation(rel));
                inserted
            }
        };
        Ok(inserted.end)
    }

    /// Puts numbers into slots of different pages, in one record.
    pub(crate) fn put(&self, puts: &[(u32, u32, u16, u64)]) -> Result<towline_wal::Inserted, Failure> {
        let credit = self.credit(puts.len())?;
        let mut change = LoggedChange::new(&self.storage, &self.permit, credit, Rmgr::Heap, INFO_PUT, Xid(5));
        let pins: Vec<PinnedPage> = puts
            .iter()
            .map(|(rel, block, _, _)| self.pin(*rel, *block))
            .collect::<Result<_, _>>()?;
        for (pin, (_, _, slot, value)) in pins.into_iter().zip(puts) {
            let id = change.page(pin.write(), self.flags());
            change
                .page_mut(id)
                .item_mut(*slot)
                .unwrap()
                .copy_from_slice(&value.to_le_bytes());
            change
                .block_data(id, &slot.to_le_bytes())
                .block_data(id, &value.to_le_bytes());
        }
        change.finish().map_err(text)
    }

    /// Compares every page with what it must hold at `position`.
    pub(crate) fn verify(&self, history: &History, position: Lsn) -> Result<(), Failure> {
        verify(&self.storage, history, position, || self.flush().map(|_| ()))
    }
}

/// Compares every page with what it must hold at `position`; `make_room` is called when the pool needs a flush.
pub(crate) fn verify(
    storage: &Storage,
    history: &History,
    position: Lsn,
    make_room: impl Fn() -> Result<(), Failure>,
) -> Result<(), Failure> {
    for (rel, pages) in contents_at(history, position) {
        let node: RelFileNode = relation(rel);
        let blocks = storage.nblocks(node, ForkKind::Main).map_err(text)?;
        if (blocks as usize) < pages.len() {
            return Err(format!("relation {rel} has {blocks} blocks, not {}", pages.len()));
        }
        for block in 0..blocks {
            let pin = loop {
                match storage.pin(PageId::main(node, block)) {
                    Err(error) if error.is_wait() => make_room()?,
                    other => break other.map_err(text)?,
                }
            };
            let page = pin.read();
            let Some(expected) = pages.get(block as usize) else {
                if !page.is_all_zero() {
                    return Err(format!(
                        "relation {rel} block {block} is beyond the end, but not zero"
                    ));
                }
                continue;
            };
            verify_page(&page, expected, position)
                .map_err(|what| format!("relation {rel} block {block} {what}"))?;
        }
    }
    Ok(())
}

fn verify_page(page: &Page, expected: &[u64; SLOTS as usize], position: Lsn) -> Result<(), Failure> {
    for slot in 1..=SLOTS {
        let found = page
            .item(slot)
            .map(|item| u64::from_le_bytes(item.try_into().unwrap_or([0xff; 8])));
        let expected = expected[usize::from(slot) - 1];
        if found != Some(expected) {
            return Err(format!(
                "slot {slot} holds {found:?}, not {expected}, at {position}; page LSN {}",
                page.lsn()
            ));
        }
    }
    if page.lsn() > position {
        return Err(format!("has LSN {} above {position}", page.lsn()));
    }
    Ok(())
}
