//! Fuzzers of everything that reads the log: records, payloads, pages, whole segments, history files, the dump. Whatever the bytes,
//! the answer is a value or an error. `towline_base::testing` says how to run them longer and how to repeat a case.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use common::*;
use towline_base::testing::{Case, WatchedAllocator, fuzz};
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{Lsn, OpenMode, PAGE_SIZE, PageId, RelFileNode, TimelineNumber, Vfs};
use towline_wal::format::{
    BlockImage, Compression, HEADER_SIZE, PageHeader, SegmentSize, decode_record, image_flags,
    parse_segment_name, record_crc, segment_name,
};
use towline_wal::records::heap::{HeapDelete, HeapInsert};
use towline_wal::records::heap2::{HeapFreezeTuple, HeapPrune, MultiInsertTuples, PrunedOffsets};
use towline_wal::records::invalidation::Invalidation;
use towline_wal::records::standby::{RunningXacts, StandbyLock, StandbyLocks};
use towline_wal::records::xact::{ParsedXactEnd, XactEnd, XactOp};
use towline_wal::records::{Payload, describe};
use towline_wal::waldump::{DumpOptions, Stats, dump, write_details, write_line};
use towline_wal::{
    BlockFlags, CheckedManagers, ImagePolicy, Known, PermitIssuer, ReadOutcome, RecordBuilder, Rmgr,
    TimelineHistory, WalReader, WalTuning, find_end,
};

#[global_allocator]
static ALLOCATOR: WatchedAllocator = WatchedAllocator;

const DIR: &str = "/pg_wal";

fn encoded(payload: &impl Payload) -> Vec<u8> {
    let mut out = Vec::new();
    payload.encode(&mut out);
    out
}

/// Payloads as the encoders make them: manager, info, main data, block data.
fn payloads() -> Vec<(Rmgr, u8, Vec<u8>, Vec<u8>)> {
    let rel = RelFileNode {
        spc: 1663,
        db: 5,
        rel: 16384,
    };
    let commit = XactEnd {
        time: 817_905_845_000_000,
        db: Some((5, 1663)),
        subxacts: &[11, 12],
        dropped: &[rel],
        invalidations: &[
            Invalidation::Relcache {
                db: 5,
                relation: 16384,
            },
            Invalidation::Smgr { rel },
        ],
        quorum: Some(Lsn(0x10_0000)),
        ..XactEnd::default()
    };
    let locks = [StandbyLock {
        xid: 7,
        db: 5,
        rel: 16384,
    }; 3];
    let running = RunningXacts {
        xcnt: 2,
        subxcnt: 1,
        subxid_overflow: false,
        next_xid: 20,
        oldest_running_xid: 11,
        latest_completed_xid: 19,
    };
    let mut running_main = encoded(&running);
    for xid in [11u32, 12, 13] {
        running_main.extend_from_slice(&xid.to_le_bytes());
    }
    let prune = HeapPrune {
        latest_removed_xid: 9,
        nredirected: 1,
        ndead: 2,
        conflict_lsn: Lsn(77),
    };
    let mut pruned = Vec::new();
    PrunedOffsets::encode(&[(1, 2)], &[3, 4], &[5, 6], &mut pruned);
    let insert = HeapInsert { offnum: 3, flags: 8 };
    let delete = HeapDelete {
        xmax: 9,
        offnum: 2,
        infobits_set: 0x10,
        flags: 0,
    };
    vec![
        (
            Rmgr::Transaction,
            commit.info(XactOp::Commit),
            encoded(&commit),
            vec![],
        ),
        (
            Rmgr::Transaction,
            commit.info(XactOp::Abort),
            encoded(&commit),
            vec![],
        ),
        (Rmgr::Standby, 0x00, encoded(&StandbyLocks(&locks)), vec![]),
        (Rmgr::Standby, 0x10, running_main, vec![]),
        (Rmgr::Heap2, 0x10, encoded(&prune), pruned),
        (Rmgr::Heap, 0x00, encoded(&insert), vec![5; 60]),
        (Rmgr::Heap, 0x10, encoded(&delete), vec![]),
        (Rmgr::Btree, 0x30, vec![0; 10], vec![7; 40]),
        (Rmgr::Xlog, 0x10, vec![3; 96], vec![]),
        (Rmgr::Storage, 0x20, vec![1; 20], vec![]),
        (Rmgr::Towline, 0x10, vec![9; 8], vec![]),
    ]
}

/// A log of a few hundred records of all kinds, small and crossing pages, some with images, and where each begins.
struct Log {
    vfs: CrashVfs,
    records: Vec<(Lsn, Vec<u8>)>,
    end: Lsn,
}

/// A page that a compressor makes something of.
fn image_page() -> [u8; PAGE_SIZE] {
    let mut page = [0x77u8; PAGE_SIZE];
    for (at, byte) in page.iter_mut().enumerate() {
        *byte = (at * at / 512) as u8;
    }
    page[12..16].copy_from_slice(&[100, 0, 0, 24]);
    page
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(DIR.as_ref()).unwrap();
    let wal = start(vfs.shared(), config(DIR.as_ref()));
    let permits = PermitIssuer::new(timeline(1));
    let mut builder = RecordBuilder::new();
    let mut case = Case::new(1);
    let page = image_page();
    let compressions = [Compression::Off, Compression::Lz4, Compression::Zstd];
    for round in 0..20u32 {
        let images = ImagePolicy {
            compression: compressions[round as usize / 5 % 3],
            checked: CheckedManagers::parse(if round % 7 == 2 { "all" } else { "" }),
        };
        wal.tune(WalTuning {
            images,
            ..WalTuning::default()
        });
        for (rmgr, info, main, data) in payloads() {
            builder.begin(rmgr, info, round + 3).data(&main);
            let mut pages: Vec<&[u8; PAGE_SIZE]> = Vec::new();
            if !data.is_empty() {
                let id = PageId::main(
                    RelFileNode {
                        spc: 1663,
                        db: 5,
                        rel: 16384,
                    },
                    round,
                );
                let flags = if round % 5 == 0 {
                    BlockFlags::STANDARD | BlockFlags::FORCE_IMAGE
                } else {
                    BlockFlags::NO_IMAGE
                };
                builder.block(0, id, flags).block_data(0, &data);
                pages.push(&page);
            }
            insert_built(&wal, &permits, &mut builder, &pages);
        }
        let long = case.bytes(if round % 3 == 0 { 20_000 } else { 90 });
        insert(&wal, &permits, &mut builder, &long);
    }
    let end = wal.insert_lsn();
    wal.flush(end, None).unwrap();
    first_history().write(&vfs, DIR.as_ref()).unwrap();
    let mut reader = reader(vfs.shared(), DIR.as_ref());
    let mut records = Vec::new();
    while let ReadOutcome::Record(record) = reader.next().unwrap() {
        records.push((record.start, record.bytes.to_vec()));
    }
    assert!(records.len() > 200, "{}", records.len());
    Log { vfs, records, end }
});

/// Everything that looks into a record's bytes, apart from redo.
fn look_at(bytes: &[u8]) {
    let Ok(record) = decode_record(Lsn(SEGMENT + 40), Lsn(SEGMENT + 4096), bytes) else {
        return;
    };
    let mut text = String::new();
    describe(&record, &mut text);
    write_line(&record, &mut text);
    write_details(&record, &mut text);
    let mut page = [0u8; PAGE_SIZE];
    for block in &record.blocks {
        if let Some(image) = block.image {
            let _ = image.restore(&mut page);
        }
        for tuple in MultiInsertTuples::new(block.data) {
            let _ = tuple;
        }
        for tuple in HeapFreezeTuple::iter(block.data) {
            let _ = tuple;
        }
        if let Ok(prune) = HeapPrune::decode(record.main)
            && let Ok(offsets) = PrunedOffsets::decode(&prune, block.data)
        {
            offsets.redirected().for_each(drop);
        }
    }
    if let Ok(end) = ParsedXactEnd::decode(record.header.info, record.main) {
        end.subxacts.iter().for_each(drop);
        end.dropped.iter().for_each(drop);
        end.invalidations.iter().for_each(drop);
    }
    if let Ok(locks) = StandbyLocks::iter(record.main) {
        locks.for_each(drop);
    }
    if let Ok(running) = RunningXacts::decode(record.main) {
        let _ = running.xids(record.main).map(|xids| xids.for_each(drop));
    }
}

/// Makes the length and checksum right again, so that what stands inside is decoded.
fn repair(bytes: &mut [u8]) {
    if bytes.len() >= HEADER_SIZE {
        let length = bytes.len() as u32;
        bytes[0..4].copy_from_slice(&length.to_le_bytes());
        let crc = record_crc(bytes);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    }
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn records_of_any_bytes_are_decoded_or_refused() {
    fuzz("wal record", 200_000, |case| {
        let mut bytes = case.pick(&LOG.records).1.clone();
        case.mutate(&mut bytes);
        if case.one_in(4) {
            let other = &case.pick(&LOG.records).1.clone();
            case.splice(&mut bytes, other);
        }
        if case.one_in(2) {
            repair(&mut bytes);
        }
        if case.one_in(4) && bytes.len() > 17 {
            bytes[16] = case.next_u64() as u8;
            bytes[17] = *case.pick(&[0, 1, 2, 8, 9, 10, 11, 128]);
        }
        look_at(&bytes);
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn compressed_images_of_any_bytes_are_restored_whole_or_refused() {
    let original = image_page();
    let hole = (100, 6044);
    let made = [Compression::Lz4, Compression::Zstd].map(|method| {
        let mut bytes = Vec::new();
        method.compress(&original, hole.0, hole.1, &mut bytes).unwrap();
        (method, bytes)
    });
    fuzz("wal image", 30_000, |case| {
        let (method, mut bytes) = case.pick(&made).clone();
        case.mutate(&mut bytes);
        let (mut hole_offset, mut hole_length) = (hole.0 as u16, hole.1 as u16);
        if case.one_in(4) {
            (hole_offset, hole_length) = (case.border() as u16, case.border() as u16);
        }
        let mut flags = method.flag() | image_flags::APPLY;
        if case.one_in(8) {
            flags = case.next_u64() as u8;
        }
        let image = BlockImage {
            bytes: &bytes,
            hole_offset,
            hole_length,
            flags,
        };
        let mut page = [0xA5u8; PAGE_SIZE];
        match image.restore(&mut page) {
            Ok(()) => {
                let (begin, length) = (usize::from(hole_offset), usize::from(hole_length));
                assert!(page[begin..begin + length].iter().all(|byte| *byte == 0));
            }
            Err(_) => assert!(page == [0xA5u8; PAGE_SIZE]),
        }
    });
}

/// Bytes of the log's first segment, damaged; sometimes so that a record's checksum still holds.
fn damaged_log(case: &mut Case) -> CrashVfs {
    let vfs = LOG.vfs.after_crash(Unsynced::Kept, 0);
    let size = SegmentSize::new(SEGMENT).unwrap();
    let name = segment_name(TimelineNumber(1), size.segment_of(Lsn(SEGMENT)), size);
    let file = vfs.open(&Path::new(DIR).join(name), OpenMode::ReadWrite).unwrap();
    for _ in 0..1 + case.below(3) {
        let (start, bytes) = case.pick(&LOG.records).clone();
        let one_page = start.page_offset() + bytes.len() <= 8192;
        if one_page && case.one_in(2) {
            let mut bytes = bytes;
            case.mutate_in_place(&mut bytes);
            repair(&mut bytes);
            file.write_all_at(&bytes, start.0 - SEGMENT).unwrap();
        } else {
            // A page header, or anywhere in the used part.
            let used = LOG.end.0 - SEGMENT;
            let at = if case.one_in(3) {
                case.below(used as usize / 8192) as u64 * 8192
            } else {
                case.below(used as usize - 64) as u64
            };
            let mut window = [0u8; 40];
            file.read_exact_at(&mut window, at).unwrap();
            case.mutate_in_place(&mut window);
            file.write_all_at(&window, at).unwrap();
        }
    }
    if case.one_in(10) {
        file.set_len(case.below(SEGMENT as usize) as u64).unwrap();
    }
    vfs
}

/// A position in the log, near it, or anywhere.
fn position(case: &mut Case) -> Lsn {
    match case.below(4) {
        0 => Lsn(case.border()),
        1 => Lsn(SEGMENT + case.below(SEGMENT as usize) as u64),
        2 => Lsn(SEGMENT * case.below(5) as u64 + case.below(100) as u64),
        _ => case.pick(&LOG.records).0,
    }
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_damaged_log_is_read_to_an_end_and_judged() {
    fuzz("wal reader", 3000, |case| {
        let vfs = damaged_log(case);
        let history = if case.one_in(3) {
            first_history().forked(position(case), timeline(2), "a fork")
        } else {
            first_history()
        };
        let source = source(vfs.shared(), DIR.as_ref(), history);
        let start = if case.one_in(2) {
            position(case)
        } else {
            Lsn(SEGMENT)
        };
        let known = Known {
            durable: position(case),
            wrote_it: case.one_in(2),
        };
        match find_end(source.clone(), start, known, |record| look_at(record.bytes)) {
            Ok(_) => {}
            // A segment that is cut.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}"),
        }
        let mut reader = WalReader::new(source, start);
        if case.one_in(2) {
            reader.set_limit(position(case));
        }
        let mut records = 0;
        if reader.seek_first(position(case)).unwrap().is_ok() {
            while let ReadOutcome::Record(_) = reader.next().unwrap() {
                records += 1;
                assert!(records <= 100_000, "the reader goes in circles");
            }
        }
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_damaged_log_is_dumped_as_far_as_it_goes() {
    fuzz("waldump", 1000, |case| {
        let vfs: Arc<dyn Vfs> = damaged_log(case).shared();
        let options = DumpOptions {
            block_details: case.one_in(2),
            start: case.one_in(2).then(|| position(case)),
            end: case.one_in(3).then(|| position(case)),
            timeline: case.one_in(6).then(|| TimelineNumber(case.border() as u32)),
            rmgr: case.one_in(4).then(|| Rmgr::from_id(case.next_u64() as u8)),
            limit: case.one_in(4).then(|| case.border()),
            stats: *case.pick(&[Stats::Off, Stats::PerRmgr, Stats::PerRecord]),
        };
        if case.one_in(4) {
            let mut text = first_history().to_text().into_bytes();
            case.mutate(&mut text);
            vfs.write_file_atomically(&Path::new(DIR).join("00000001.history"), &text)
                .unwrap();
        }
        let _ = dump(&vfs, DIR.as_ref(), &options, &mut std::io::sink());
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn page_headers_and_segment_names_of_any_bytes_are_refused_or_right() {
    fuzz("wal page header", 200_000, |case| {
        let size = SegmentSize::new(1 << (20 + case.below(11))).unwrap();
        let header = PageHeader {
            flags: 0,
            timeline: TimelineNumber(1),
            address: Lsn(SEGMENT),
            remaining: 77,
            long: Some((SYSTEM, size)),
        };
        let mut bytes = header.to_bytes().to_vec();
        case.mutate(&mut bytes);
        let _ = PageHeader::decode(&bytes, Lsn(case.border()), size, Some(SYSTEM));
        let mut name = segment_name(TimelineNumber(1), size.segment_of(Lsn(SEGMENT)), size);
        case.mutate_text(&mut name, &["F", "0", ".partial"]);
        if let Some((timeline, segment)) = parse_segment_name(&name, size) {
            let _ = size.start(segment);
            assert_eq!(segment_name(timeline, segment, size), name);
        }
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn history_files_of_any_text_are_refused_or_consistent() {
    let text = first_history()
        .forked(Lsn(0x100_0060), timeline(3), "promotion")
        .forked(Lsn(0x200_0000), timeline(9), "crash restart")
        .to_text();
    fuzz("timeline history", 200_000, |case| {
        let mut changed = text.clone();
        case.mutate_text(
            &mut changed,
            &[
                "\n",
                "\t",
                "#",
                "incarnation=",
                "0/0",
                "FFFFFFFF/FFFFFFFF",
                "4294967295",
            ],
        );
        if case.one_in(2) {
            // As PostgreSQL writes it, without our comments and so without a checksum.
            let lines = changed
                .split_inclusive('\n')
                .filter(|line| !line.starts_with('#'));
            changed = lines.collect();
        }
        let number = TimelineNumber(if case.one_in(4) { case.border() as u32 } else { 9 });
        let Ok(history) = TimelineHistory::parse(number, &changed) else {
            return;
        };
        assert_eq!(
            TimelineHistory::parse(number, &history.to_text()).as_ref(),
            Ok(&history)
        );
        let ours = TimelineHistory::parse(TimelineNumber(9), &text).unwrap();
        let _ = history.fork_from(&ours);
        let at = Lsn(case.border());
        let _ = (
            history.timeline_at(at),
            history.contains(timeline(3), at),
            history.end_of(number),
        );
        for (timeline, begin, end) in history.ranges() {
            assert!(begin <= end, "{timeline:?}");
        }
    });
}
