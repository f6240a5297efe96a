//! A node without threads over the crash double: a workload makes the same calls in the same order each time. And what a disk holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use towline_base::vfs::CrashVfs;
use towline_base::{Clock, Lsn, LsnPublisher, ManualClock, Next, TimelineNumber};
use towline_storage::checkpoint::PrimarySide;
use towline_storage::{CheckpointSettings, CheckpointSource, Checkpointer};
use towline_types::Datum;
use towline_wal::{CheckedManagers, ImagePolicy, PermitIssuer, WalTuning};

use crate::catalog::Table;
use crate::ddl::verify_table;
use crate::engine::{Engine, EngineConfig, OpenedPrimary, QuorumMode};
use crate::heap::HeapScan;
use crate::testing;
use crate::{Step, Transaction, TxnOptions, Wait, toast};

/// Why something failed.
pub(super) type Failure = String;

pub(super) fn text(error: impl std::fmt::Display) -> Failure {
    error.to_string()
}

/// What is known of a table: values by id, and how many indexes it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) rows: BTreeMap<i32, i32>,
    pub(super) indexes: usize,
}

/// All tables of users, by name.
pub(super) type State = BTreeMap<String, Contents>;

/// A small engine: its pool is smaller than what the workloads touch, so pages are evicted at any time.
pub(super) fn config() -> EngineConfig {
    EngineConfig {
        shared_buffers: 192,
        wal_buffers: 1 << 19,
        max_connections: 4,
        background_transactions: 4,
        wal_tuning: WalTuning {
            images: ImagePolicy {
                checked: CheckedManagers::NONE,
                ..testing::config().wal_tuning.images
            },
            ..WalTuning::default()
        },
        ..testing::config()
    }
}

/// A long text that does not compress, so that a few rows fill a page and splits are frequent; no order in it.
pub(super) fn long(id: i32, length: usize) -> String {
    let mut state = u64::from(id as u32).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + ((state >> 33) % 75) as u8)
    };
    (0..length).map(|_| step()).collect()
}

/// The text of a row in a table of large values: another for each ten of its values. Short, compressed in the row, out of line, and
/// compressed out of line.
pub(super) fn large(id: i32, value: i32) -> String {
    let generation = value.div_euclid(10);
    let seed = id.wrapping_mul(1000).wrapping_add(generation);
    match generation.rem_euclid(4) {
        0 => long(seed, 20),
        1 => long(seed, 60).repeat(100),
        2 => long(seed, 3000 + (seed.unsigned_abs() as usize * 37) % 9000),
        _ => "ab".repeat(2000) + &long(seed, 3000),
    }
}

/// Whether the texts of the table are those of [`large`].
pub(super) fn is_large(table: &Table) -> bool {
    table
        .columns
        .last()
        .is_some_and(|column| &*column.name == "large")
}

/// What keeps the quorum from moving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It moves with the log.
    Nothing,
    /// The log is not flushed here.
    Flush,
    /// The log is flushed here, and the standbys are away.
    Standbys,
}

/// The commit quorum in the hands of a test, which stands for the primary role.
struct Standbys {
    quorum: LsnPublisher,
    written: LsnPublisher,
}

/// A primary, recovered and open: alone, or with standbys that have at once what is durable here, while nothing holds them.
pub(super) struct Node {
    pub(super) engine: Arc<Engine>,
    pub(super) hold: Hold,
    standbys: Option<Mutex<Standbys>>,
    checkpointer: Checkpointer,
    clock: Arc<ManualClock>,
    _permits: Arc<PermitIssuer>,
}

impl Node {
    /// Starts alone on a disk, as after a crash.
    pub(super) fn start(vfs: &CrashVfs) -> Result<Node, Failure> {
        Node::start_with(vfs, 0)
    }

    /// The same, with so many appliers in its recovery.
    pub(super) fn start_with(vfs: &CrashVfs, appliers: usize) -> Result<Node, Failure> {
        Node::start_as(vfs, appliers, QuorumMode::Alone)
    }

    /// The same, as the primary of standbys that are there, or alone.
    pub(super) fn start_as(vfs: &CrashVfs, appliers: usize, mode: QuorumMode) -> Result<Node, Failure> {
        let config = EngineConfig {
            recovery_appliers: appliers,
            ..config()
        };
        let clock = Arc::new(ManualClock::new(0));
        let mut opened =
            Engine::open_primary(vfs.shared(), Arc::clone(&clock) as _, config, mode).map_err(text)?;
        let flush = opened.wal.flush_here(opened.first_record_end);
        if let Some((quorum, written)) = &mut opened.quorum {
            quorum.advance(flush);
            written.advance(flush);
            opened.engine.release().advance(flush, flush, flush);
        }
        opened.recover().map_err(text)?;
        Node::of(opened, clock)
    }

    /// Comes back as the primary of standbys that are away. `None` when its redo does not end without them: all is done that may be.
    pub(super) fn start_without_standbys(vfs: &CrashVfs) -> Result<(Arc<Engine>, Option<Node>), Failure> {
        let clock = Arc::new(ManualClock::new(0));
        let mut opened = Engine::open_primary(
            vfs.shared(),
            Arc::clone(&clock) as _,
            config(),
            QuorumMode::Managed,
        )
        .map_err(text)?;
        let flush = opened.wal.flush_here(opened.first_record_end);
        let engine = Arc::clone(&opened.engine);
        if let Some((quorum, written)) = &mut opened.quorum {
            engine.release().advance(flush, written.get(), quorum.get());
            // Who waits for it ends with an error.
            quorum.close();
        }
        match opened.recover().map_err(text) {
            Err(waits) if waits.contains("waits for the quorum") => return Ok((engine, None)),
            other => other?,
        }
        let mut node = Node::of(opened, clock)?;
        node.hold = Hold::Standbys;
        Ok((engine, Some(node)))
    }

    fn of(mut opened: OpenedPrimary, clock: Arc<ManualClock>) -> Result<Node, Failure> {
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let engine = Arc::clone(&opened.engine);
        let writer = engine.writer().map_err(text)?;
        let segments = Arc::clone(writer.wal.segments());
        let side = PrimarySide {
            wal: Arc::clone(&writer.wal),
            permit: writer.permit.clone(),
            previous_timeline: opened
                .history
                .ancestors()
                .last()
                .map_or(TimelineNumber::FIRST, |entry| entry.timeline.number),
            timeline_begin: opened.history.begin(),
        };
        let settings = CheckpointSettings {
            min_wal_size: 3 << 20,
            log: false,
            ..CheckpointSettings::default()
        };
        let checkpointer = Checkpointer::new(
            engine.storage_arc(),
            CheckpointSource::Primary(side),
            Arc::clone(&engine.participant) as _,
            Some(segments),
            shared,
            settings,
        );
        let standbys = opened
            .quorum
            .take()
            .map(|(quorum, written)| Standbys { quorum, written });
        Ok(Node {
            engine,
            hold: Hold::Nothing,
            standbys: standbys.map(Mutex::new),
            checkpointer,
            clock,
            _permits: opened.permits,
        })
    }

    /// Makes everything durable that is logged, as far as nothing holds it.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        if self.hold == Hold::Flush {
            return Ok(());
        }
        let wal = &self.engine.writer().map_err(text)?.wal;
        let wanted = wal.insert_lsn();
        let flush = wal.flush_here(wanted);
        if flush < wanted {
            return Err("the log could not be flushed".to_owned());
        }
        self.acknowledge(flush);
        Ok(())
    }

    /// The standbys, where there are some, have the log up to here, if nothing holds them; commits are released.
    fn acknowledge(&self, flush: Lsn) {
        let Some(standbys) = &self.standbys else { return };
        let mut standbys = standbys.lock();
        if self.hold == Hold::Nothing {
            standbys.quorum.advance(flush);
            standbys.written.advance(flush);
        }
        let (quorum, written) = (standbys.quorum.get(), standbys.written.get());
        drop(standbys);
        self.engine.release().advance(flush, written, quorum);
    }

    /// Runs a step to its end; what it waits for is brought about here, as there are no threads.
    pub(super) fn drive<T>(
        &self,
        txn: &mut Transaction,
        mut step: impl FnMut(&mut Transaction) -> crate::Result<Step<T>>,
    ) -> Result<T, Failure> {
        loop {
            match step(txn).map_err(text)? {
                Step::Done(value) => return Ok(value),
                Step::Wait(wait) => self.await_now(wait)?,
            }
        }
    }

    pub(super) fn await_now(&self, wait: Wait) -> Result<(), Failure> {
        self.flush()?;
        let kind = wait.kind();
        match wait.block(Duration::from_secs(2)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("a wait for {kind:?} does not end")),
            Err(error) => Err(text(error)),
        }
    }

    pub(super) fn begin(&self) -> Result<Transaction, Failure> {
        self.engine.begin(TxnOptions::default()).map_err(text)
    }

    /// Runs a checkpoint to its end.
    pub(super) fn checkpoint(&mut self) -> Result<(), Failure> {
        match self.try_checkpoint(10_000)? {
            true => Ok(()),
            false => Err("the checkpoint does not end".to_owned()),
        }
    }

    /// So many steps of a checkpoint; whether it ended.
    pub(super) fn try_checkpoint(&mut self, steps: usize) -> Result<bool, Failure> {
        let target = self.engine.insert_lsn().map_err(text)?;
        let _wait = self.checkpointer.requests().request(target);
        self.run_checkpointer(steps, target)
    }

    /// So many steps of the shutdown checkpoint; whether it ended.
    pub(super) fn try_shutdown(&mut self, steps: usize) -> Result<bool, Failure> {
        self.checkpointer.requests().shut_down();
        self.run_checkpointer(steps, Lsn::MAX)
    }

    fn run_checkpointer(&mut self, steps: usize, target: Lsn) -> Result<bool, Failure> {
        for _ in 0..steps {
            if let Next::Stop = self.checkpointer.step(self.clock.now()) {
                return match self.engine.storage().stop_reason() {
                    // After a shutdown's.
                    None => Ok(true),
                    Some(why) => Err(format!("the storage has stopped: {why}")),
                };
            }
            if self.checkpointer.waits_for().is_some() {
                self.flush()?;
            }
            if self.checkpointer.requests().finished().get() >= target {
                return Ok(true);
            }
            self.clock.advance(Duration::from_millis(1));
        }
        Ok(false)
    }

    pub(super) fn table(&self, name: &str) -> Result<Option<Arc<Table>>, Failure> {
        let view = self.engine.catalog().shared(&self.engine).map_err(text)?;
        let found = view
            .tables()
            .find(|table| is_users(table) && &*table.name == name);
        Ok(found.cloned())
    }

    pub(super) fn contents(&self) -> Result<State, Failure> {
        contents(&self.engine)
    }
}

/// All that users have, each page of it read with its checksum, each index checked against its table.
pub(super) fn contents(engine: &Arc<Engine>) -> Result<State, Failure> {
    let view = engine.catalog().shared(engine).map_err(text)?;
    let mut state = State::new();
    let mut txn = engine.begin(TxnOptions::default()).map_err(text)?;
    for table in view.tables().filter(|table| is_users(table)) {
        let rows = rows(&mut txn, table)?;
        txn.begin_statement();
        verify_table(&mut txn, table).map_err(|error| format!("table {}: {error}", table.name))?;
        testing::check_map(engine, table);
        if let Some(toast) = &table.toast {
            testing::check_map(engine, toast);
        }
        let contents = Contents {
            rows,
            indexes: table.indexes.len(),
        };
        state.insert(table.name.to_string(), contents);
    }
    Ok(state)
}

fn is_users(table: &Table) -> bool {
    &*table.schema_name == "public"
}

/// The rows that the transaction sees, each once and whole.
pub(super) fn rows(txn: &mut Transaction, table: &Table) -> Result<BTreeMap<i32, i32>, Failure> {
    let snapshot = txn.begin_statement();
    let mut scan = HeapScan::new(txn, table.node).map_err(text)?;
    let (mut found, mut values) = (BTreeMap::new(), Vec::new());
    while scan.next_page(txn, &snapshot).map_err(text)? {
        for (tid, tuple) in scan.rows() {
            values.clear();
            table
                .layout
                .deform(tuple.data(), tuple.bitmap(), tuple.natts(), &mut values)
                .map_err(text)?;
            toast::fetch_all(txn, table, &mut values)
                .map_err(|error| format!("{tid} of {}: {error}", table.name))?;
            let (id, value) = match (&values[0], &values[1]) {
                (Datum::Int4(id), Datum::Int4(value)) => (*id, *value),
                other => return Err(format!("{tid} of {} holds {other:?}", table.name)),
            };
            let is_own = |text: &str| match is_large(table) {
                true => *text == *large(id, value),
                false => *text == *long(id, text.len()),
            };
            if !matches!(&values[2], Datum::Text(text) if is_own(text)) {
                return Err(format!("the text of row {id} of {} is not its own", table.name));
            }
            if found.insert(id, value).is_some() {
                return Err(format!("row {id} of {} is there twice", table.name));
            }
        }
    }
    txn.end_statement();
    Ok(found)
}

/// Where the transaction sees the row with this id.
pub(super) fn find(
    txn: &mut Transaction,
    table: &Table,
    id: i32,
) -> Result<Option<towline_base::Tid>, Failure> {
    Ok(find_row(txn, table, id)?.map(|(tid, _)| tid))
}

/// The row with this id as the transaction sees it: where it is, and its values, with pointers to those out of line.
pub(super) fn find_row(
    txn: &mut Transaction,
    table: &Table,
    id: i32,
) -> Result<Option<(towline_base::Tid, Vec<Datum>)>, Failure> {
    let snapshot = txn.begin_statement();
    let mut scan = HeapScan::new(txn, table.node).map_err(text)?;
    while scan.next_page(txn, &snapshot).map_err(text)? {
        let of_row = |tuple: crate::heap::TupleRef<'_>| {
            let attribute = table.layout.attr(tuple.data(), tuple.bitmap(), tuple.natts(), 0);
            matches!(attribute, Ok(Some(bytes)) if bytes[..] == id.to_le_bytes())
        };
        if let Some((tid, tuple)) = scan.rows().find(|(_, tuple)| of_row(*tuple)) {
            let mut values = Vec::new();
            table
                .layout
                .deform(tuple.data(), tuple.bitmap(), tuple.natts(), &mut values)
                .map_err(text)?;
            return Ok(Some((tid, values)));
        }
    }
    Ok(None)
}
