//! Figures of the log alone: `cargo run --release -p towline-wal --example wal_bench [DIR]`.
//!
//! Insertion without waiting (1 and 2 threads), reading, commits of one client with and without a thread hand-off, and groups of many.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use towline_base::{
    Incarnation, Lsn, OsVfs, PageId, RelFileNode, SystemClock, SystemId, TimelineId, TimelineNumber,
};
use towline_wal::records::heap::HeapInsert;
use towline_wal::{
    BlockFlags, LoopThread, NoCredit, PageBytes, PermitIssuer, Positions, ReadOutcome, RecordBuilder, Rmgr,
    StartAt, TimelineHistory, Wal, WalConfig, WalReader, WalSource, spawn_preallocator, spawn_writer,
};

const RUN: Duration = Duration::from_secs(2);

struct Log {
    wal: Arc<Wal>,
    permits: PermitIssuer,
    _threads: Vec<LoopThread>,
}

fn open(dir: &Path, name: &str, fsync: bool, writer: bool) -> std::io::Result<Log> {
    let dir = dir.join(name);
    // A bench may be run twice in one directory.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let mut config = WalConfig::new(&dir, SystemId(1));
    config.fsync = fsync;
    let start = Lsn(config.segment_size.bytes());
    let timeline = TimelineId {
        number: TimelineNumber(1),
        incarnation: Incarnation([1; 16]),
    };
    let (publishers, _) = Positions::starting_at(start);
    let at = StartAt {
        lsn: start,
        prev: Lsn::INVALID,
        timeline,
        image_threshold: start,
    };
    let wal = Wal::start(OsVfs::shared(), config, at, publishers)?;
    let clock = Arc::new(SystemClock);
    let mut threads = vec![spawn_preallocator(wal.segments(), clock.clone())?];
    if writer {
        threads.push(spawn_writer(&wal, clock, Arc::default())?);
    }
    Ok(Log {
        wal,
        permits: PermitIssuer::new(timeline),
        _threads: threads,
    })
}

fn page_after(lsn: u64) -> Box<PageBytes> {
    let mut page = Box::new([0u8; 8192]);
    page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
    page
}

/// A heap insert of 100 bytes, as pgbench's history table makes.
fn insert(log: &Log, record: &mut RecordBuilder, page: &PageBytes) -> Lsn {
    let rel = RelFileNode {
        spc: 1663,
        db: 5,
        rel: 16384,
    };
    record
        .begin(Rmgr::Heap, 0, 748)
        .block(0, PageId::main(rel, 9), BlockFlags::STANDARD)
        .block_data(0, &[0x55; 80])
        .payload(&HeapInsert { offnum: 3, flags: 8 });
    loop {
        match log.wal.credit(record.credit_needed()) {
            Ok(credit) => {
                let permit = log.permits.issue();
                return log
                    .wal
                    .insert(&permit, credit, record, &[page])
                    .expect("permitted")
                    .end;
            }
            Err(NoCredit::NeedsFlush(lsn)) => {
                let room = (log.wal.positions().flush.get() >= lsn)
                    .then(|| log.wal.room_wait())
                    .flatten();
                let wait = room.unwrap_or_else(|| log.wal.positions().write.wait_for(lsn));
                wait.block(None);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn in_threads(count: usize, body: impl Fn() -> u64 + Sync) -> u64 {
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..count).map(|_| scope.spawn(&body)).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().expect("no panic"))
            .sum()
    })
}

fn insertion(dir: &Path, threads: usize) -> std::io::Result<()> {
    let log = open(dir, "insert", false, true)?;
    let page = page_after(u64::MAX);
    let begun = Instant::now();
    let total = in_threads(threads, || {
        let (mut record, mut done) = (RecordBuilder::new(), 0);
        while begun.elapsed() < RUN {
            for _ in 0..100 {
                insert(&log, &mut record, &page);
            }
            done += 100;
        }
        done
    });
    let seconds = begun.elapsed().as_secs_f64();
    let bytes = log.wal.insert_lsn().0 - (16 << 20);
    println!(
        "insert, {threads} thread(s), fsync off: {:.0} ns/record/thread, {:.2} M records/s, {:.0} MB/s",
        seconds * 1e9 * threads as f64 / total as f64,
        total as f64 / seconds / 1e6,
        bytes as f64 / seconds / 1e6
    );
    Ok(())
}

/// What recovery and replay read: the log that an insertion run left.
fn reading(dir: &Path) -> std::io::Result<()> {
    let log = open(dir, "read", false, true)?;
    let (page, mut record) = (page_after(u64::MAX), RecordBuilder::new());
    let start = log.wal.insert_lsn();
    while log.wal.insert_lsn().0 < start.0 + (256 << 20) {
        insert(&log, &mut record, &page);
    }
    let end = log.wal.flush(log.wal.insert_lsn(), None).expect("flushed");
    let config = log.wal.config();
    let source = WalSource {
        vfs: OsVfs::shared(),
        dir: config.dir.clone(),
        segment_size: config.segment_size,
        system: Some(config.system),
        history: TimelineHistory::first(log.wal.timeline()),
    };
    let begun = Instant::now();
    let mut reader = WalReader::new(source, start);
    let mut records = 0u64;
    while let ReadOutcome::Record(_) = reader.next()? {
        records += 1;
    }
    assert_eq!(reader.position(), end);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "read: {:.0} ns/record, {:.1} M records/s, {:.0} MB/s",
        seconds * 1e9 / records as f64,
        records as f64 / seconds / 1e6,
        end.distance_from(start) as f64 / seconds / 1e6
    );
    Ok(())
}

fn commits(dir: &Path, clients: usize, inline: bool, fsync: bool) -> std::io::Result<()> {
    let log = open(dir, "commit", fsync, !inline)?;
    let page = page_after(u64::MAX);
    // The first segment is made now, not while the clock runs.
    let mut record = RecordBuilder::new();
    let warm = insert(&log, &mut record, &page);
    log.wal.flush(warm, None).expect("flushed");
    let (begun, before) = (Instant::now(), log.wal.sync_count());
    let total = in_threads(clients, || {
        let (mut record, mut done) = (RecordBuilder::new(), 0);
        while begun.elapsed() < RUN {
            let end = insert(&log, &mut record, &page);
            if inline {
                log.wal.flush(end, None).expect("flushed");
            } else {
                log.wal.request_flush(end);
                log.wal.positions().flush.wait_for(end).block(None);
            }
            done += 1;
        }
        done
    });
    let seconds = begun.elapsed().as_secs_f64();
    let syncs = log.wal.sync_count() - before;
    println!(
        "commit, {clients} client(s), {}, fsync {}: {:.0} commits/s, {:.1} µs each, {:.2} commits/sync",
        if inline {
            "leader flushes itself"
        } else {
            "writer thread"
        },
        if fsync { "on" } else { "off" },
        total as f64 / seconds,
        seconds * 1e6 * clients as f64 / total as f64,
        total as f64 / syncs.max(1) as f64
    );
    Ok(())
}

fn main() -> std::io::Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "wal-bench".to_owned());
    let dir = Path::new(&dir);
    insertion(dir, 1)?;
    insertion(dir, 2)?;
    reading(dir)?;
    for fsync in [true, false] {
        for clients in [1, 2, 8, 32] {
            commits(dir, clients, false, fsync)?;
            commits(dir, clients, true, fsync)?;
        }
    }
    std::fs::remove_dir_all(dir)
}
