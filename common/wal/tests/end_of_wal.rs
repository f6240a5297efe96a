//! Where a log ends, and why: the cases of PostgreSQL's test 039, and random damage.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use proptest::prelude::*;
use towline_base::vfs::CrashVfs;
use towline_base::{Lsn, OpenMode, SystemId, TimelineNumber, Vfs};
use towline_wal::format::{
    PageError, PageHeader, RecordHeader, SegmentSize, page_flags, record_crc, segment_name,
};
use towline_wal::records::xact::{XactEnd, XactOp};
use towline_wal::{
    Beyond, EndOfWal, EndReason, Known, PermitIssuer, ReadOutcome, RecordBuilder, Rmgr, Wal, WalReader,
    find_end,
};

/// A log on a disk in memory, filled so that the next record begins with this much room on its page.
struct Fixture {
    vfs: CrashVfs,
    end: Lsn,
    last: Lsn,
}

const DIR: &str = "/pg_wal";

fn fixture(room: u64) -> Fixture {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(DIR.as_ref()).unwrap();
    let wal = start(vfs.shared(), config(DIR.as_ref()));
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    insert(&wal, &permits, &mut record, &[3; 20_000]);
    let mut last;
    loop {
        // Small steps of 8 bytes once we are near.
        let here = wal.insert_lsn();
        let left = 8192 - here.page_offset() as u64;
        let size = if left > room + 100 {
            40
        } else {
            left.saturating_sub(room + 26)
        };
        last = insert(&wal, &permits, &mut record, &vec![1; size as usize]).start;
        if 8192 - wal.insert_lsn().page_offset() as u64 % 8192 == room
            || (room == 8192 && wal.insert_lsn().page_offset() == 0)
        {
            break;
        }
    }
    let end = wal.flush(wal.insert_lsn(), None).unwrap();
    Fixture { vfs, end, last }
}

impl Fixture {
    fn write(&self, at: Lsn, bytes: &[u8]) {
        let file = self
            .vfs
            .open(
                format!("{DIR}/000000010000000000000001").as_ref(),
                OpenMode::ReadWrite,
            )
            .unwrap();
        file.write_all_at(bytes, at.0 % SEGMENT).unwrap();
    }

    /// A record header with these fields here, and the record's first bytes as far as they fit on the page.
    fn header(&self, total_len: u32, prev: Lsn, crc: u32) {
        let header = RecordHeader {
            total_len,
            xid: 0,
            prev,
            info: 0,
            rmid: 0,
            crc,
        };
        let fits = (8192 - self.end.page_offset()).min(24);
        self.write(self.end, &header.to_bytes()[..fits]);
    }

    fn next_page(&self, change: impl FnOnce(&mut PageHeader)) {
        let address = self.end.page_start() + 8192;
        let mut header = PageHeader {
            flags: page_flags::FIRST_IS_CONTRECORD,
            timeline: TimelineNumber(1),
            address,
            remaining: 0,
            long: None,
        };
        change(&mut header);
        self.write(address, &header.to_bytes()[..24]);
    }

    fn end(&self) -> EndOfWal {
        let (_, end) = read_all(&mut reader(self.vfs.shared(), DIR.as_ref()));
        assert_eq!(end.lsn, self.end, "{end}");
        assert_eq!(end.last_record, self.last);
        end
    }

    fn reason(&self) -> EndReason {
        self.end().reason
    }
}

#[test]
fn nothing_behind_the_last_record_is_the_ordinary_end() {
    for room in [8, 16, 24, 32, 400, 8000] {
        assert_eq!(fixture(room).reason(), EndReason::ZeroLength, "room {room}");
    }
}

#[test]
fn a_page_that_was_never_written_is_the_ordinary_end_at_a_page_boundary() {
    assert_eq!(fixture(8192).reason(), EndReason::Page(PageError::Zero));
}

#[test]
fn a_record_on_one_page_is_judged_by_length_link_manager_and_checksum() {
    let log = fixture(400);
    log.header(23, log.last, 0);
    assert_eq!(log.reason(), EndReason::BadLength(23));
    log.header(u32::MAX, log.last, 0);
    assert_eq!(log.reason(), EndReason::BadLength(u32::MAX));
    log.header(24, Lsn(0xDEAD), 0);
    assert_eq!(log.reason(), EndReason::BadPrev { found: Lsn(0xDEAD) });
    log.header(30, log.last, 0);
    assert_eq!(log.reason(), EndReason::BadCrc);
    let header = RecordHeader {
        total_len: 30,
        xid: 0,
        prev: log.last,
        info: 0,
        rmid: 77,
        crc: 0,
    };
    log.write(log.end, &header.to_bytes());
    assert_eq!(log.reason(), EndReason::BadRmgr(77));
    // A right checksum over parts that do not fit: a block id of 200.
    let mut record = RecordHeader { rmid: 0, ..header }.to_bytes().to_vec();
    record.extend_from_slice(&[200, 0, 0, 0, 0, 0]);
    let crc = record_crc(&record);
    record[20..24].copy_from_slice(&crc.to_le_bytes());
    log.write(log.end, &record);
    assert!(matches!(log.reason(), EndReason::BadRecord(_)));
}

#[test]
fn a_short_length_in_the_last_eight_bytes_of_a_page_is_seen_before_the_next_page_is_asked_for() {
    let log = fixture(8);
    log.write(log.end, &23u32.to_le_bytes());
    assert_eq!(log.reason(), EndReason::BadLength(23));
    log.write(log.end, &500u32.to_le_bytes());
    assert_eq!(log.reason(), EndReason::Page(PageError::Zero));
}

#[test]
fn a_continued_record_is_judged_by_its_next_page() {
    // 16 bytes of the header on the first page; 24 and a part of the body.
    for room in [16, 64] {
        let log = fixture(room);
        let rest = 500 - room as u32;
        log.header(500, log.last, 0);
        assert_eq!(log.reason(), EndReason::Page(PageError::Zero), "nothing there");
        log.next_page(|header| header.remaining = rest);
        log.write(log.end.page_start() + 8192, &0xD000u16.to_le_bytes());
        assert_eq!(log.reason(), EndReason::Page(PageError::BadMagic(0xD000)));
        log.next_page(|header| header.flags = 0x1230);
        assert_eq!(log.reason(), EndReason::Page(PageError::BadFlags(0x1230)));
        log.next_page(|header| header.flags |= page_flags::LONG_HEADER);
        assert!(matches!(log.reason(), EndReason::Page(PageError::BadFlags(_))));
        log.next_page(|header| header.address = Lsn(0xCAFE_0000));
        assert!(matches!(
            log.reason(),
            EndReason::Page(PageError::BadAddress {
                found: Lsn(0xCAFE_0000),
                ..
            })
        ));
        log.next_page(|header| header.flags = 0);
        assert_eq!(log.reason(), EndReason::UnexpectedContinuation { expected: true });
        log.next_page(|header| header.remaining = 123);
        assert_eq!(
            log.reason(),
            EndReason::BadContinuationLength {
                found: 123,
                expected: rest
            }
        );
        log.next_page(|header| header.timeline = TimelineNumber(5));
        assert_eq!(log.reason(), EndReason::WrongTimeline(TimelineNumber(5)));
        // All fits, but the checksum.
        log.next_page(|header| header.remaining = rest);
        log.write(log.end.page_start() + 8192 + 24, &[0; 484]);
        assert_eq!(log.reason(), EndReason::BadCrc);
    }
}

#[test]
fn a_continuation_without_a_record_is_no_record() {
    let log = fixture(8192);
    let header = PageHeader {
        flags: page_flags::FIRST_IS_CONTRECORD,
        timeline: TimelineNumber(1),
        address: log.end,
        remaining: 40,
        long: None,
    };
    log.write(log.end, &header.to_bytes()[..24]);
    assert_eq!(
        log.reason(),
        EndReason::UnexpectedContinuation { expected: false }
    );
}

#[test]
fn a_missing_short_or_foreign_segment_ends_the_log_with_that_reason() {
    let log = fixture(400);
    let name = format!("{DIR}/000000010000000000000001");
    let foreign = WalReader::new(
        towline_wal::WalSource {
            system: Some(SystemId(1)),
            ..source(log.vfs.shared(), DIR.as_ref(), first_history())
        },
        Lsn(SEGMENT),
    );
    let (_, end) = read_all(&mut { foreign });
    assert_eq!(end.reason, EndReason::Page(PageError::ForeignSegment));
    log.vfs
        .open(name.as_ref(), OpenMode::ReadWrite)
        .unwrap()
        .set_len(100)
        .unwrap();
    let (_, end) = read_all(&mut reader(log.vfs.shared(), DIR.as_ref()));
    assert_eq!((end.lsn, end.reason), (Lsn(SEGMENT), EndReason::ShortSegment));
    log.vfs.remove_file(name.as_ref()).unwrap();
    let (_, end) = read_all(&mut reader(log.vfs.shared(), DIR.as_ref()));
    assert_eq!((end.lsn, end.reason), (Lsn(SEGMENT), EndReason::MissingSegment));
}

#[test]
fn an_incomplete_record_that_was_given_up_is_passed_over_and_told_with_the_next_one() {
    // 16 bytes of the header on the first page; the header and a part of the body.
    for room in [16, 64] {
        let log = fixture(room);
        log.header(500, log.last, 0);
        let page = log.end.page_start() + 8192;
        log.next_page(|header| header.flags = page_flags::FIRST_IS_OVERWRITE_CONTRECORD);
        let mut record = RecordHeader {
            total_len: 42,
            xid: 0,
            prev: log.last,
            info: 0xD0,
            rmid: 0,
            crc: 0,
        }
        .to_bytes()
        .to_vec();
        record.extend_from_slice(&[255, 16]);
        record.extend_from_slice(&log.end.0.to_le_bytes());
        record.extend_from_slice(&[0; 8]);
        let crc = record_crc(&record);
        record[20..24].copy_from_slice(&crc.to_le_bytes());
        log.write(page + 24, &record);
        let mut reader = reader(log.vfs.shared(), DIR.as_ref());
        let mut told = Vec::new();
        let end = loop {
            match reader.next().unwrap() {
                ReadOutcome::Record(record) => told.push((record.start, record.overwrote)),
                ReadOutcome::End(end) => break end,
            }
        };
        let (last, before) = told.split_last().unwrap();
        assert_eq!(*last, (page + 24, Some(log.end)), "room {room}");
        assert!(before.iter().all(|(_, overwrote)| overwrote.is_none()));
        assert_eq!(end.lsn, page + 24 + 48);
        // From the flagged page on, too.
        let mut reader = WalReader::new(source(log.vfs.shared(), DIR.as_ref(), first_history()), page);
        assert_eq!(reader.seek_first(page).unwrap().unwrap(), page + 24);
        assert_eq!(read_all(&mut reader).0.len(), 1);
    }
}

/// Commits, each flushed and carrying the flush position before it, so that damage can be told from an end.
fn log_of_commits(count: usize) -> (CrashVfs, Lsn) {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(DIR.as_ref()).unwrap();
    let wal = start(vfs.shared(), config(DIR.as_ref()));
    let permits = PermitIssuer::new(timeline(1));
    for number in 0..count {
        commit(&wal, &permits, &mut RecordBuilder::new(), number);
    }
    let end = wal.insert_lsn();
    (vfs, end)
}

fn commit(wal: &Wal, permits: &PermitIssuer, record: &mut RecordBuilder, number: usize) {
    insert(wal, permits, record, &vec![number as u8; number * 37 % 3000]);
    let end = XactEnd {
        quorum: Some(wal.positions().flush.get()),
        ..XactEnd::default()
    };
    record
        .begin(Rmgr::Transaction, end.info(XactOp::Commit), 9)
        .payload(&end);
    insert_built(wal, permits, record, &[]);
    wal.flush(wal.insert_lsn(), None).unwrap();
}

const WROTE_IT: Known = Known {
    durable: Lsn::INVALID,
    wrote_it: true,
};

#[test]
fn damage_in_a_log_that_goes_on_is_corruption_and_not_the_end() {
    let (vfs, end) = log_of_commits(300);
    let source = || source(vfs.shared(), DIR.as_ref(), first_history());
    let whole = find_end(source(), Lsn(SEGMENT), WROTE_IT, |_| {}).unwrap();
    assert_eq!((whole.end.lsn, whole.beyond), (end, Beyond::End));
    assert!(whole.quorum.is_valid() && whole.quorum < end);

    // One bit in the first third.
    let file = vfs
        .open(
            format!("{DIR}/000000010000000000000001").as_ref(),
            OpenMode::ReadWrite,
        )
        .unwrap();
    let mut byte = [0u8];
    file.read_exact_at(&mut byte, 100_000).unwrap();
    file.write_all_at(&[byte[0] ^ 4], 100_000).unwrap();
    let damaged = find_end(source(), Lsn(SEGMENT), WROTE_IT, |_| {}).unwrap();
    assert!(damaged.end.lsn < Lsn(SEGMENT + 100_000));
    assert!(
        matches!(damaged.beyond, Beyond::Corruption { .. }),
        "{:?}",
        damaged.beyond
    );
    // What the caller knows counts without looking.
    let known = Known {
        durable: Lsn(SEGMENT + 200_000),
        wrote_it: false,
    };
    let standby = find_end(source(), Lsn(SEGMENT), known, |_| {}).unwrap();
    assert_eq!(
        standby.beyond,
        Beyond::Corruption {
            durable: known.durable
        }
    );
}

#[test]
fn a_later_segment_proves_that_an_earlier_one_was_durable_on_any_node() {
    let (vfs, _) = log_of_commits(1000);
    let source = |history| source(vfs.shared(), DIR.as_ref(), history);
    let standby = Known::default();
    assert_eq!(
        find_end(source(first_history()), Lsn(SEGMENT), standby, |_| {})
            .unwrap()
            .beyond,
        Beyond::End
    );
    let file = vfs
        .open(
            format!("{DIR}/000000010000000000000001").as_ref(),
            OpenMode::ReadWrite,
        )
        .unwrap();
    file.write_all_at(&[0xFF; 100], 500_000).unwrap();
    let damaged = find_end(source(first_history()), Lsn(SEGMENT), standby, |_| {}).unwrap();
    assert_eq!(
        damaged.beyond,
        Beyond::Corruption {
            durable: Lsn(2 * SEGMENT)
        }
    );
    // A segment that is missing before one that is there, and a log that ends before its timeline began.
    vfs.remove_file(format!("{DIR}/000000010000000000000001").as_ref())
        .unwrap();
    let missing = find_end(source(first_history()), Lsn(SEGMENT), standby, |_| {}).unwrap();
    assert_eq!(
        missing.beyond,
        Beyond::Corruption {
            durable: Lsn(2 * SEGMENT)
        }
    );
    let forked = first_history().forked(Lsn(SEGMENT + 700_000), timeline(2), "");
    let short = find_end(source(forked), Lsn(SEGMENT), standby, |_| {}).unwrap();
    assert_eq!(
        short.beyond,
        Beyond::Corruption {
            durable: Lsn(SEGMENT + 700_000)
        }
    );
}

/// A log whose last segment was cut had lost its last commits without a word: a segment has its full length before it has its name, so no
/// crash cuts it.
#[test]
fn a_segment_that_is_cut_is_damage_wherever_the_log_ends() {
    let first = format!("{DIR}/000000010000000000000001");
    for (length, is_dir) in [(0, false), (300_000, false), (SEGMENT - 1, false), (0, true)] {
        let (vfs, _) = log_of_commits(300);
        let find = || {
            find_end(
                source(vfs.shared(), DIR.as_ref(), first_history()),
                Lsn(SEGMENT),
                WROTE_IT,
                |_| {},
            )
        };
        assert_eq!(find().unwrap().beyond, Beyond::End);
        if is_dir {
            vfs.remove_file(first.as_ref()).unwrap();
            vfs.create_dir_all(first.as_ref()).unwrap();
        } else {
            let file = vfs.open(first.as_ref(), OpenMode::ReadWrite).unwrap();
            file.set_len(length).unwrap();
        }
        let error = find().unwrap_err();
        assert!(error.to_string().contains(&first), "{error}");
    }
    // One of a timeline that was left, or from before the position that is read from, is nobody's business.
    let (vfs, _) = log_of_commits(300);
    for name in ["000000010000000000000000", "000000090000000000000002"] {
        let path = format!("{DIR}/{name}");
        vfs.open(path.as_ref(), OpenMode::Create).unwrap();
    }
    let found = find_end(
        source(vfs.shared(), DIR.as_ref(), first_history()),
        Lsn(SEGMENT),
        WROTE_IT,
        |_| {},
    );
    assert_eq!(found.unwrap().beyond, Beyond::End);
}

#[test]
fn a_log_at_the_end_of_the_number_space_ends_there() {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(DIR.as_ref()).unwrap();
    let size = SegmentSize::new(SEGMENT).unwrap();
    let last = size.segment_of(Lsn::MAX);
    let path = format!("{DIR}/{}", segment_name(TimelineNumber(1), last, size));
    let file = vfs.open(path.as_ref(), OpenMode::Create).unwrap();
    file.set_len(SEGMENT).unwrap();
    for page in [2, 1] {
        let address = Lsn(u64::MAX - page * 8192 + 1);
        let header = PageHeader {
            flags: 0,
            timeline: TimelineNumber(1),
            address,
            remaining: 0,
            long: None,
        };
        let mut bytes = header.to_bytes()[..24].to_vec();
        // A record that goes on beyond its page.
        bytes.extend_from_slice(&20_000u32.to_le_bytes());
        bytes.extend_from_slice(&[0; 20]);
        file.write_all_at(&bytes, size.offset(address)).unwrap();
        let mut reader = WalReader::new(source(vfs.shared(), DIR.as_ref(), first_history()), address);
        assert!(matches!(reader.next().unwrap(), ReadOutcome::End(_)));
        for from in [address, Lsn::MAX] {
            if reader.seek_first(from).unwrap().is_ok() {
                assert!(matches!(reader.next().unwrap(), ReadOutcome::End(_)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever bytes are changed, reading ends without a panic, and every record before the first change is intact.
    #[test]
    fn random_damage_never_panics_and_never_invents(
        changes in proptest::collection::vec((0u64..120_000, any::<u8>()), 1..6),
        zero_from in proptest::option::of(0u64..120_000),
    ) {
        let (vfs, _) = log_of_commits(60);
        let (before, _) = read_all(&mut reader(vfs.shared(), DIR.as_ref()));
        let file = vfs.open(format!("{DIR}/000000010000000000000001").as_ref(), OpenMode::ReadWrite).unwrap();
        let mut first = u64::MAX;
        for (at, byte) in changes {
            let mut old = [0u8];
            file.read_exact_at(&mut old, at).unwrap();
            if old[0] != byte {
                file.write_all_at(&[byte], at).unwrap();
                first = first.min(at);
            }
        }
        if let Some(at) = zero_from {
            file.write_all_at(&[0; 5000], at).unwrap();
            first = first.min(at);
        }
        let source = source(vfs.shared(), DIR.as_ref(), first_history());
        let mut after = Vec::new();
        let end = find_end(source, Lsn(SEGMENT), WROTE_IT, |record| after.push((record.start, record.end, record.main.to_vec()))).unwrap();
        prop_assert!(before.starts_with(&after) , "{}", end.end);
        let intact = before.iter().take_while(|record| record.1.0 - SEGMENT <= first).count();
        prop_assert!(after.len() >= intact);
    }
}

#[test]
fn the_first_record_behind_a_position_is_found() {
    let (vfs, _) = log_of_commits(200);
    let (records, end) = read_all(&mut reader(vfs.shared(), DIR.as_ref()));
    let size = SegmentSize::new(SEGMENT).unwrap();
    for from in (SEGMENT..end.lsn.0 - 3000).step_by(777) {
        let mut reader = WalReader::new(source(vfs.shared(), DIR.as_ref(), first_history()), Lsn(from));
        let found = reader.seek_first(Lsn(from)).unwrap().unwrap();
        let expected = records
            .iter()
            .map(|record| record.0)
            .find(|start| start.0 >= from)
            .unwrap();
        // A record's start behind a page header may be named by the page's boundary.
        let header = PageHeader::size_at(found, size) as u64;
        assert!(
            found == expected || (found.page_offset() == 0 && found + header == expected),
            "{found} {expected}"
        );
        let (rest, _) = read_all(&mut reader);
        assert_eq!(rest[0].0, expected);
    }
}
