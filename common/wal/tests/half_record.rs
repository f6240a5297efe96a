//! A record that a crash has left by half, across the end of a segment (compare PostgreSQL's test 026, and HAZARDS A14).
//!
//! PostgreSQL goes on in the same files behind such a record, and says so with an OVERWRITE_CONTRECORD record. A start of ours opens a
//! timeline instead, whose first segment is a new file that ends with the last complete record: the half is in none of its files, so
//! nothing is there to be overwritten. These tests show that, at every boundary of the crash, and that each dump reads across.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::*;
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_base::{Lsn, OpenMode, TimelineNumber, Vfs};
use towline_wal::records::xlog::XlogOp;
use towline_wal::waldump::{DumpOptions, dump};
use towline_wal::{
    Beyond, Known, PermitIssuer, ReadOutcome, RecordBuilder, Rmgr, Wal, WalReader, WalSource, find_end,
    fork_timeline, rewrite_tail_durable,
};

const DIR: &str = "/pg_wal";
/// Bytes of the record that is cut: it begins 100 kB before the end of segment 1.
const LONG: usize = 250_000;

fn disk() -> CrashVfs {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(DIR.as_ref()).unwrap();
    vfs.sync_dir("/".as_ref()).unwrap();
    vfs
}

/// A log that is durable up to 100 kB before the end of segment 1; the end, and the start of the last record.
fn almost_a_segment(vfs: &CrashVfs) -> (Arc<Wal>, Lsn, Lsn) {
    let wal = start(vfs.shared(), config(DIR.as_ref()));
    let permits = PermitIssuer::new(timeline(1));
    let mut record = RecordBuilder::new();
    let mut last = Lsn::INVALID;
    while wal.insert_lsn().0 < 2 * SEGMENT - 110_000 {
        last = insert(&wal, &permits, &mut record, &[1; 9000]).start;
    }
    let end = wal.flush(wal.insert_lsn(), None).unwrap();
    (wal, end, last)
}

/// Writes the long record on a disk that loses power at this boundary of the write; true when it was made durable.
fn cut(vfs: &CrashVfs, wal: &Wal, boundary: Option<u64>) -> bool {
    if let Some(boundary) = boundary {
        vfs.crash_at(vfs.boundaries() + boundary);
    }
    let permits = PermitIssuer::new(timeline(1));
    let long = insert(wal, &permits, &mut RecordBuilder::new(), &[2; LONG]);
    wal.flush(long.end, None).is_ok()
}

/// What a start of the primary does: the end, the tail made durable, a timeline; then records of its own, into the next segment.
fn restart(vfs: &CrashVfs) -> (Lsn, Lsn, WalSource) {
    let parent = source(vfs.shared(), DIR.as_ref(), first_history());
    let known = Known {
        durable: Lsn::INVALID,
        wrote_it: true,
    };
    let found = find_end(parent.clone(), Lsn(SEGMENT), known, |_| {}).unwrap();
    assert_eq!(found.beyond, Beyond::End, "{}", found.end);
    let fork = found.end.lsn;
    rewrite_tail_durable(&parent, Lsn(SEGMENT), fork).unwrap();
    let history = fork_timeline(&parent, fork, timeline(2), "start").unwrap();
    let wal = start_at(
        vfs.shared(),
        config(DIR.as_ref()),
        fork,
        found.end.last_record,
        timeline(2),
    );
    let permits = PermitIssuer::new(timeline(2));
    let mut record = RecordBuilder::new();
    for _ in 0..40 {
        insert(&wal, &permits, &mut record, &[3; 9000]);
    }
    let end = wal.flush(wal.insert_lsn(), None).unwrap();
    (fork, end, source(vfs.shared(), DIR.as_ref(), history))
}

/// The records up to the end, none of them a word about an overwritten one, and no page with its flag.
fn starts_up_to(source: &WalSource, end: Lsn) -> Vec<Lsn> {
    let mut reader = WalReader::new(source.clone(), Lsn(SEGMENT));
    let mut starts = Vec::new();
    loop {
        match reader.next().unwrap() {
            ReadOutcome::Record(record) => {
                assert!(record.overwrote.is_none());
                let op = XlogOp::from_info(record.header.info);
                assert!(record.rmgr() != Rmgr::Xlog || op != Some(XlogOp::OverwriteContrecord));
                starts.push(record.start);
            }
            ReadOutcome::End(found) => {
                assert_eq!((found.lsn, found.timeline), (end, TimelineNumber(2)), "{found}");
                return starts;
            }
        }
    }
}

const FATES: [Unsynced; 5] = [
    Unsynced::Lost,
    Unsynced::Kept,
    Unsynced::Reordered,
    Unsynced::Torn(512),
    Unsynced::Torn(4096),
];

#[test]
fn a_half_written_record_across_segments_is_cut_by_the_restart_wherever_the_power_goes() {
    let whole = disk();
    let (wal, _, _) = almost_a_segment(&whole);
    let before = whole.boundaries();
    assert!(cut(&whole, &wal, None));
    let boundaries = whole.boundaries() - before;
    assert!(boundaries >= 7, "two segments are written: {boundaries}");
    let (mut halves, mut in_both) = (0, 0);
    for boundary in 1..=boundaries {
        for (seed, fate) in (0u64..).zip(
            FATES
                .into_iter()
                .chain([Unsynced::Torn(512), Unsynced::Torn(4096)]),
        ) {
            let vfs = disk();
            let (wal, durable, _) = almost_a_segment(&vfs);
            assert!(!cut(&vfs, &wal, Some(boundary)));
            let after = vfs.after_crash(fate, boundary * 100 + seed);
            let page_behind = |lsn: Lsn| {
                let name = format!("{DIR}/00000001{:016X}", lsn.0 / SEGMENT);
                let file = after.open(name.as_ref(), OpenMode::Read).ok()?;
                let mut page = [0; 8];
                file.read_exact_at(&mut page, lsn.0 % SEGMENT).ok()?;
                Some(page != [0; 8])
            };
            let first_half = page_behind(durable.page_start() + 8192) == Some(true);
            let second_half = page_behind(Lsn(2 * SEGMENT)) == Some(true);
            let (fork, end, source) = restart(&after);
            let is_whole = fork > durable;
            halves += u32::from(!is_whole && first_half);
            in_both += u32::from(!is_whole && first_half && second_half);
            let starts = starts_up_to(&source, end);
            let kept = starts.iter().filter(|start| **start < fork).count();
            assert_eq!(starts.len(), kept + 40, "boundary {boundary}, {fate:?}");
            // And once more, from what is durable now.
            let again = after.after_crash(Unsynced::Lost, 0);
            let source = WalSource {
                vfs: again.shared(),
                ..source
            };
            assert_eq!(starts_up_to(&source, end), starts);
        }
    }
    assert!(
        halves >= 8 && in_both >= 2,
        "{halves} halves, {in_both} in two segments"
    );
}

#[test]
fn waldump_and_pg_waldump_read_across_the_fork_at_a_half_written_record() {
    let vfs = disk();
    let (wal, durable, _) = almost_a_segment(&vfs);
    // Segment 1 with the first half is durable, segment 2 is made, and the power goes before the rest is synced.
    let permits = PermitIssuer::new(timeline(1));
    let long = insert(&wal, &permits, &mut RecordBuilder::new(), &[2; LONG]);
    vfs.fail_nth(towline_base::vfs::crash::Op::Sync, 3, 5, false);
    wal.flush(long.end, None).unwrap_err();
    let after = vfs.after_crash(Unsynced::Lost, 0);
    assert!(
        after
            .exists(format!("{DIR}/000000010000000000000002").as_ref())
            .unwrap()
    );
    let (fork, end, _) = restart(&after);
    assert_eq!(fork, durable);

    let dir = tempfile::tempdir().unwrap();
    for entry in after.read_dir(DIR.as_ref()).unwrap() {
        let bytes = after
            .read_file(format!("{DIR}/{}", entry.name).as_ref(), SEGMENT)
            .unwrap();
        std::fs::write(dir.path().join(&entry.name), bytes).unwrap();
    }
    let mut out = Vec::new();
    let dumped = dump(&os(), dir.path(), &DumpOptions::default(), &mut out).unwrap();
    assert_eq!(dumped.end.unwrap().lsn, end);
    assert!(dumped.records > (fork.0 - SEGMENT) / 9100 + 40);

    let Some(tool) = require_tool("pg_waldump") else {
        return;
    };
    let end_text = end.to_string();
    let range = ["000000020000000000000001", "000000020000000000000002"];
    let arguments = [&["-t", "2", "-e", &end_text][..], &range].concat();
    let (theirs, errors) = pg_waldump(&tool, dir.path(), &arguments);
    assert_eq!(errors, "");
    assert_eq!(theirs.lines().count() as u64, dumped.records);
    // The parent's own file still ends with the half, where PostgreSQL's tool stops as ours does.
    let (parents, errors) = pg_waldump(&tool, dir.path(), &["-t", "1", "000000010000000000000001"]);
    assert!(errors.contains(&fork.to_string()), "{errors}");
    let options = DumpOptions {
        timeline: Some(TimelineNumber(1)),
        ..DumpOptions::default()
    };
    let mut out = Vec::new();
    let dumped = dump(&os(), dir.path(), &options, &mut out).unwrap();
    assert_eq!(dumped.end.unwrap().lsn, fork);
    assert_eq!(parents.lines().count() as u64, dumped.records);
}
