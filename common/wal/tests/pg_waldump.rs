//! PostgreSQL 15's pg_waldump reads what we write and describes it in the same words.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use towline_base::{ForkKind, Incarnation, Lsn, PAGE_SIZE, PageId, RelFileNode, Tid};
use towline_wal::format::Compression;
use towline_wal::records::btree::*;
use towline_wal::records::heap::*;
use towline_wal::records::heap2::*;
use towline_wal::records::invalidation::Invalidation;
use towline_wal::records::smgr::*;
use towline_wal::records::standby::*;
use towline_wal::records::towline::{QuorumNote, TowlineOp, XidReservation};
use towline_wal::records::xact::{XactEnd, XactOp, xinfo};
use towline_wal::records::xlog::*;
use towline_wal::records::{Payload, layout::encode_offsets};
use towline_wal::waldump::{DumpOptions, Stats, dump};
use towline_wal::{
    BlockFlags, CheckedManagers, ImagePolicy, PageBytes, PermitIssuer, RecordBuilder, Rmgr, Wal, WalTuning,
};

const REL: RelFileNode = RelFileNode {
    spc: 1663,
    db: 5,
    rel: 16384,
};
const INDEX: RelFileNode = RelFileNode {
    spc: 1663,
    db: 5,
    rel: 16390,
};

/// Writes records with and without images.
struct Scribe<'a> {
    wal: &'a Wal,
    permits: PermitIssuer,
    record: RecordBuilder,
    page: Box<PageBytes>,
}

impl Scribe<'_> {
    fn plain(&mut self, rmgr: Rmgr, info: u8, payload: &(impl Payload + ?Sized)) {
        self.record.begin(rmgr, info, 748).payload(payload);
        insert_built(self.wal, &self.permits, &mut self.record, &[]);
    }

    fn blocks(
        &mut self,
        rmgr: Rmgr,
        info: u8,
        main: &(impl Payload + ?Sized),
        blocks: &[(u8, PageId, BlockFlags, &[u8])],
    ) {
        self.record.begin(rmgr, info, 748);
        for (id, page, flags, data) in blocks {
            self.record.block(*id, *page, *flags).block_data(*id, data);
        }
        self.record.payload(main);
        let pages = vec![&*self.page; blocks.len()];
        insert_built(self.wal, &self.permits, &mut self.record, &pages);
    }
}

fn standard_page() -> Box<PageBytes> {
    let mut page = Box::new([0u8; PAGE_SIZE]);
    // A page LSN above the image threshold, then pd_lower and pd_upper.
    page[..8].copy_from_slice(&[0xFF; 8]);
    page[12..16].copy_from_slice(&[40, 0, 0, 30]);
    page[7680..].fill(0x5A);
    page
}

fn write_heap(scribe: &mut Scribe<'_>) {
    let (here, there) = (PageId::main(REL, 7), PageId::main(REL, 70_000));
    let vm = PageId {
        rel: REL,
        fork: ForkKind::Vm,
        block: 0,
    };
    let none = BlockFlags::STANDARD;
    let insert = HeapInsert {
        offnum: 3,
        flags: insert_flags::CONTAINS_NEW_TUPLE,
    };
    let mut tuple = HeapHeader {
        infomask2: 3,
        infomask: 0x802,
        hoff: 24,
    }
    .to_bytes()
    .to_vec();
    tuple.extend_from_slice(b"tuple");
    scribe.blocks(
        Rmgr::Heap,
        HeapOp::Insert as u8,
        &insert,
        &[(0, here, none, &tuple)],
    );
    let init = HeapOp::Insert as u8 | INIT_PAGE;
    scribe.blocks(
        Rmgr::Heap,
        init,
        &insert,
        &[(0, here, none | BlockFlags::WILL_INIT, &tuple)],
    );
    scribe.blocks(
        Rmgr::Heap,
        HeapOp::Insert as u8,
        &insert,
        &[(0, here, none | BlockFlags::FORCE_IMAGE, &tuple)],
    );
    let delete = HeapDelete {
        xmax: 748,
        offnum: 9,
        infobits_set: infobits::KEYS_UPDATED,
        flags: 1,
    };
    scribe.blocks(Rmgr::Heap, HeapOp::Delete as u8, &delete, &[(0, here, none, &[])]);
    let update = HeapUpdate {
        old_xmax: 748,
        old_offnum: 1,
        old_infobits_set: infobits::XMAX_LOCK_ONLY | infobits::XMAX_EXCL_LOCK,
        flags: update_flags::CONTAINS_NEW_TUPLE | update_flags::PREFIX_FROM_OLD,
        new_xmax: 0,
        new_offnum: 2,
    };
    scribe.blocks(
        Rmgr::Heap,
        HeapOp::HotUpdate as u8,
        &update,
        &[(0, here, none, &tuple)],
    );
    scribe.blocks(
        Rmgr::Heap,
        HeapOp::Update as u8,
        &update,
        &[(0, there, none, &tuple), (1, here, none, &[])],
    );
    let lock = HeapLock {
        locking_xid: 748,
        offnum: 4,
        infobits_set: 0x1F,
        flags: LOCK_ALL_FROZEN_CLEARED,
    };
    scribe.blocks(Rmgr::Heap, HeapOp::Lock as u8, &lock, &[(0, here, none, &[])]);
    scribe.blocks(
        Rmgr::Heap,
        HeapOp::Confirm as u8,
        &HeapConfirm { offnum: 5 },
        &[(0, here, none, &[])],
    );
    scribe.blocks(
        Rmgr::Heap,
        HeapOp::Inplace as u8,
        &HeapInplace { offnum: 6 },
        &[(0, here, none, b"xy")],
    );

    let conflict_lsn = Lsn(0x1234);
    let mut offsets = Vec::new();
    PrunedOffsets::encode(&[(1, 4)], &[2, 3], &[5], &mut offsets);
    let prune = HeapPrune {
        latest_removed_xid: 740,
        nredirected: 1,
        ndead: 2,
        conflict_lsn,
    };
    scribe.blocks(
        Rmgr::Heap2,
        Heap2Op::Prune as u8,
        &prune,
        &[(0, here, none, &offsets)],
    );
    let vacuum = HeapVacuum {
        nunused: 2,
        conflict_lsn,
    };
    scribe.blocks(
        Rmgr::Heap2,
        Heap2Op::Vacuum as u8,
        &vacuum,
        &[(0, here, none, &[2, 0, 3, 0])],
    );
    let tuple = HeapFreezeTuple {
        xmax: 0,
        offset: 1,
        infomask2: 2,
        infomask: 0xB02,
        frzflags: 0,
    };
    let freeze = HeapFreezePage {
        cutoff_xid: 745,
        ntuples: 1,
        conflict_lsn,
    };
    scribe.blocks(
        Rmgr::Heap2,
        Heap2Op::FreezePage as u8,
        &freeze,
        &[(0, here, none, &tuple.to_bytes())],
    );
    let visible = HeapVisible {
        cutoff_xid: 745,
        flags: visible_flags::ALL_VISIBLE,
        conflict_lsn,
    };
    scribe.blocks(
        Rmgr::Heap2,
        Heap2Op::Visible as u8,
        &visible,
        &[
            (0, vm, BlockFlags::DEFAULT, &[]),
            (1, here, BlockFlags::NO_IMAGE, &[]),
        ],
    );
    let mut main = HeapMultiInsert {
        flags: 0x0A,
        ntuples: 2,
    }
    .to_bytes()
    .to_vec();
    encode_offsets(&[1, 2], &mut main);
    let mut tuples = Vec::new();
    for tuple in [&b"abc"[..], b"defg"] {
        let header = MultiInsertTuple {
            datalen: tuple.len() as u16,
            infomask2: 1,
            infomask: 2,
            hoff: 24,
        };
        MultiInsertTuples::append(&header, tuple, 0, &mut tuples);
    }
    scribe.blocks(
        Rmgr::Heap2,
        Heap2Op::MultiInsert as u8,
        &main[..],
        &[(0, here, none, &tuples)],
    );
    let init = Heap2Op::MultiInsert as u8 | INIT_PAGE;
    scribe.blocks(
        Rmgr::Heap2,
        init,
        &main[..],
        &[(0, here, BlockFlags::WILL_INIT, &tuples)],
    );
    let locked = HeapLockUpdated {
        xmax: 748,
        offnum: 9,
        infobits_set: infobits::XMAX_KEYSHR_LOCK,
        flags: 0,
    };
    scribe.blocks(
        Rmgr::Heap2,
        Heap2Op::LockUpdated as u8,
        &locked,
        &[(0, here, none, &[])],
    );
    let (target_node, target_tid) = (REL, Tid::new(70_001, 5));
    let new_cid = HeapNewCid {
        top_xid: 748,
        cmin: 1,
        cmax: u32::MAX,
        combocid: 3,
        target_node,
        target_tid,
    };
    scribe.plain(Rmgr::Heap2, Heap2Op::NewCid as u8, &new_cid);
}

fn write_btree(scribe: &mut Scribe<'_>) {
    let page = |block| PageId::main(INDEX, block);
    let flags = BlockFlags::STANDARD;
    let init = BlockFlags::STANDARD | BlockFlags::WILL_INIT;
    let meta = BtreeMetadata {
        version: 4,
        root: 3,
        level: 1,
        fastroot: 3,
        fastlevel: 1,
        last_cleanup_num_delpages: 11,
        allequalimage: true,
    };
    let meta_bytes = meta.to_bytes();
    let insert = BtreeInsert { offnum: 17 };
    let op = |op: BtreeOp| op as u8;
    let one: &[(u8, PageId, BlockFlags, &[u8])] = &[(0, page(1), flags, b"index tuple.....")];
    scribe.blocks(Rmgr::Btree, op(BtreeOp::InsertLeaf), &insert, one);
    let upper: &[(u8, PageId, BlockFlags, &[u8])] =
        &[(0, page(3), flags, b"downlink"), (1, page(1), flags, &[])];
    scribe.blocks(Rmgr::Btree, op(BtreeOp::InsertUpper), &insert, upper);
    let with_meta: &[(u8, PageId, BlockFlags, &[u8])] = &[
        (0, page(3), flags, b"downlink"),
        (1, page(1), flags, &[]),
        (2, page(0), init, &meta_bytes),
    ];
    scribe.blocks(Rmgr::Btree, op(BtreeOp::InsertMeta), &insert, with_meta);
    let split = BtreeSplit {
        level: 0,
        firstrightoff: 150,
        newitemoff: 151,
        postingoff: 0,
    };
    let halves: &[(u8, PageId, BlockFlags, &[u8])] = &[
        (0, page(1), flags, b"new item, high key"),
        (1, page(2), init, b"items"),
        (2, page(4), flags, &[]),
    ];
    scribe.blocks(Rmgr::Btree, op(BtreeOp::SplitLeft), &split, halves);
    scribe.blocks(Rmgr::Btree, op(BtreeOp::SplitRight), &split, halves);
    let delete = BtreeDelete {
        latest_removed_xid: 744,
        ndeleted: 1,
        nupdated: 0,
        conflict_lsn: Lsn(77),
    };
    scribe.blocks(
        Rmgr::Btree,
        op(BtreeOp::Delete),
        &delete,
        &[(0, page(1), flags, &[9, 0])],
    );
    let vacuum = BtreeVacuum {
        ndeleted: 1,
        nupdated: 0,
    };
    scribe.blocks(
        Rmgr::Btree,
        op(BtreeOp::Vacuum),
        &vacuum,
        &[(0, page(1), flags, &[9, 0])],
    );
    let mark = BtreeMarkPageHalfDead {
        poffset: 3,
        leafblk: 1,
        leftblk: 5,
        rightblk: 2,
        topparent: u32::MAX,
    };
    scribe.blocks(
        Rmgr::Btree,
        op(BtreeOp::MarkPageHalfDead),
        &mark,
        &[(0, page(1), init, &[]), (1, page(3), flags, &[])],
    );
    let unlink = BtreeUnlinkPage {
        leftsib: 5,
        rightsib: 2,
        level: 0,
        safexid: 0x1_0000_02EC,
        leafleftsib: 5,
        leafrightsib: 2,
        leaftopparent: u32::MAX,
    };
    let siblings: &[(u8, PageId, BlockFlags, &[u8])] = &[
        (0, page(1), init, &[]),
        (1, page(5), flags, &[]),
        (2, page(2), flags, &[]),
    ];
    scribe.blocks(Rmgr::Btree, op(BtreeOp::UnlinkPage), &unlink, siblings);
    let with_meta: &[(u8, PageId, BlockFlags, &[u8])] = &[
        (0, page(1), init, &[]),
        (2, page(2), flags, &[]),
        (4, page(0), init, &meta_bytes),
    ];
    scribe.blocks(Rmgr::Btree, op(BtreeOp::UnlinkPageMeta), &unlink, with_meta);
    let root = BtreeNewRoot { rootblk: 3, level: 1 };
    let new_root: &[(u8, PageId, BlockFlags, &[u8])] = &[
        (0, page(3), init, b"two items"),
        (1, page(1), flags, &[]),
        (2, page(0), init, &meta_bytes),
    ];
    scribe.blocks(Rmgr::Btree, op(BtreeOp::NewRoot), &root, new_root);
    let reuse = BtreeReusePage {
        node: INDEX,
        block: 1,
        latest_removed_full_xid: 0x1_0000_0005,
        conflict_lsn: Lsn(9),
    };
    scribe.plain(Rmgr::Btree, op(BtreeOp::ReusePage), &reuse);
    scribe.blocks(
        Rmgr::Btree,
        op(BtreeOp::MetaCleanup),
        &[][..],
        &[(0, page(0), init, &meta_bytes)],
    );
}

fn write_others(scribe: &mut Scribe<'_>) {
    let checkpoint = CheckPoint {
        redo: Lsn(0x10_0028),
        timeline: 1,
        prev_timeline: 1,
        full_page_writes: true,
        next_xid: 0x1_0000_02ED,
        next_oid: 24576,
        next_multi: 1,
        next_multi_offset: 0,
        oldest_xid: 716,
        oldest_xid_db: 1,
        oldest_multi: 1,
        oldest_multi_db: 1,
        time: 1_700_000_000,
        oldest_commit_ts_xid: 0,
        newest_commit_ts_xid: 0,
        oldest_active_xid: 748,
    };
    scribe.plain(Rmgr::Xlog, XlogOp::CheckpointShutdown as u8, &checkpoint);
    scribe.plain(Rmgr::Xlog, XlogOp::CheckpointOnline as u8, &checkpoint);
    let end = EndOfRecovery {
        end_time: 848_520_183_123_456,
        timeline: 2,
        prev_timeline: 1,
        incarnation: Incarnation([7; 16]),
    };
    scribe.plain(Rmgr::Xlog, XlogOp::EndOfRecovery as u8, &end);
    let overwrite = OverwriteContrecord {
        overwritten_lsn: Lsn(0x1_2345_6789),
        overwrite_time: 1_000_005,
    };
    scribe.plain(Rmgr::Xlog, XlogOp::OverwriteContrecord as u8, &overwrite);
    scribe.plain(Rmgr::Xlog, XlogOp::NextOid as u8, &NextOid { next_oid: 32768 });
    scribe.plain(Rmgr::Xlog, XlogOp::Noop as u8, &[0u8][..]);
    let change = ParameterChange {
        max_connections: 100,
        max_worker_processes: 8,
        max_wal_senders: 10,
        max_prepared_xacts: 0,
        max_locks_per_xact: 64,
        wal_level: 1,
        wal_log_hints: true,
        track_commit_timestamp: false,
    };
    scribe.plain(Rmgr::Xlog, XlogOp::ParameterChange as u8, &change);
    let image = BlockFlags::STANDARD | BlockFlags::FORCE_IMAGE;
    for op in [XlogOp::Fpi, XlogOp::FpiForHint] {
        scribe.blocks(
            Rmgr::Xlog,
            op as u8,
            &[][..],
            &[(0, PageId::main(REL, 3), image, &[])],
        );
    }
    let fsm = PageId {
        rel: REL,
        fork: ForkKind::Fsm,
        block: 2,
    };
    scribe.blocks(
        Rmgr::Xlog,
        XlogOp::Fpi as u8,
        &[][..],
        &[(0, fsm, BlockFlags::FORCE_IMAGE, &[])],
    );

    scribe.plain(
        Rmgr::Storage,
        SmgrOp::Create as u8,
        &SmgrCreate {
            rel: REL,
            fork: ForkKind::Vm as i32,
        },
    );
    let truncate = SmgrTruncate {
        block: 5,
        rel: REL,
        flags: truncate_flags::ALL,
    };
    scribe.plain(Rmgr::Storage, SmgrOp::Truncate as u8, &truncate);
    let lock = StandbyLock {
        xid: 748,
        db: 5,
        rel: 16384,
    };
    scribe.plain(Rmgr::Standby, StandbyOp::Lock as u8, &StandbyLocks(&[lock, lock]));
    let running = RunningXacts {
        xcnt: 2,
        subxcnt: 0,
        subxid_overflow: false,
        next_xid: 749,
        oldest_running_xid: 747,
        latest_completed_xid: 746,
    };
    let mut main = running.to_bytes().to_vec();
    [747u32, 748]
        .iter()
        .for_each(|xid| main.extend_from_slice(&xid.to_le_bytes()));
    scribe.plain(Rmgr::Standby, StandbyOp::RunningXacts as u8, &main[..]);
    let idle = RunningXacts { xcnt: 0, ..running };
    scribe.plain(Rmgr::Standby, StandbyOp::RunningXacts as u8, &idle);
}

fn write_xact(scribe: &mut Scribe<'_>) {
    let invalidations = [
        Invalidation::Catcache {
            cache: 50,
            db: 5,
            hash: 0xDEAD_BEEF,
        },
        Invalidation::Catalog { db: 5, catalog: 1259 },
        Invalidation::Relcache {
            db: 5,
            relation: 16384,
        },
        Invalidation::Smgr { rel: REL },
        Invalidation::Relmap { db: 5 },
        Invalidation::Snapshot {
            db: 5,
            relation: 2610,
        },
    ];
    let time = 848_520_183_123_456;
    let global = RelFileNode {
        spc: 1664,
        db: 0,
        rel: 1260,
    };
    let plain = XactEnd {
        time,
        ..XactEnd::default()
    };
    let full = XactEnd {
        flags: xinfo::APPLY_FEEDBACK | xinfo::UPDATE_RELCACHE_FILE | xinfo::FORCE_SYNC_COMMIT,
        db: Some((5, 1663)),
        subxacts: &[750, 751],
        dropped: &[REL, global],
        invalidations: &invalidations,
        quorum: Some(Lsn(0x0102_0304)),
        ..plain
    };
    let with_quorum = XactEnd {
        quorum: Some(Lsn(5)),
        ..plain
    };
    for end in [plain, with_quorum, full] {
        scribe.plain(Rmgr::Transaction, end.info(XactOp::Commit), &end);
    }
    let abort = XactEnd {
        subxacts: &[752],
        dropped: &[REL],
        quorum: Some(Lsn(6)),
        ..plain
    };
    for end in [plain, abort] {
        scribe.plain(Rmgr::Transaction, end.info(XactOp::Abort), &end);
    }
    // Long enough for the long form of the main data's header.
    let many: Vec<u32> = (1000..1200).collect();
    let long = XactEnd {
        subxacts: &many,
        ..plain
    };
    scribe.plain(Rmgr::Transaction, long.info(XactOp::Commit), &long);
}

fn write_ours(scribe: &mut Scribe<'_>) {
    scribe.plain(
        Rmgr::Towline,
        TowlineOp::XidReservation as u8,
        &XidReservation { limit: 9000 },
    );
    scribe.plain(
        Rmgr::Towline,
        TowlineOp::QuorumNote as u8,
        &QuorumNote { quorum: Lsn(0x55) },
    );
}

#[test]
fn its_lines_and_counts_equal_ours_for_every_kind_of_record() {
    let Some(tool) = require_tool("pg_waldump") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let wal = start(os(), config(dir.path()));
    let permits = PermitIssuer::new(timeline(1));
    let mut scribe = Scribe {
        wal: &wal,
        permits,
        record: RecordBuilder::new(),
        page: standard_page(),
    };
    // Often enough to cross pages at many offsets, and a segment.
    let compressions = [Compression::Off, Compression::Lz4, Compression::Zstd];
    for round in 0..200 {
        let images = ImagePolicy {
            compression: compressions[round % 3],
            checked: CheckedManagers::parse(if round % 4 == 3 { "all" } else { "" }),
        };
        wal.tune(WalTuning {
            images,
            ..WalTuning::default()
        });
        write_heap(&mut scribe);
        write_btree(&mut scribe);
        write_others(&mut scribe);
        write_xact(&mut scribe);
    }
    write_ours(&mut scribe);
    let end = wal.flush(wal.insert_lsn(), None).unwrap();
    assert!(end.0 > 2 * SEGMENT);

    let segments: Vec<String> = (1..=(end.0 - 1) / SEGMENT)
        .map(|segment| format!("{:08X}{:08X}{segment:08X}", 1, 0))
        .collect();
    let range = [
        segments.first().unwrap().as_str(),
        segments.last().unwrap().as_str(),
    ];
    let end_text = end.to_string();
    let run = |more: &[&str]| {
        let arguments = [more, &["-e", &end_text], &range].concat();
        let (lines, errors) = pg_waldump(&tool, dir.path(), &arguments);
        assert_eq!(errors, "");
        lines
    };
    let ours = |stats, block_details| {
        let mut out = Vec::new();
        let options = DumpOptions {
            stats,
            block_details,
            ..DumpOptions::default()
        };
        let dumped = dump(&os(), dir.path(), &options, &mut out).unwrap();
        assert_eq!(dumped.end.unwrap().lsn, end);
        String::from_utf8(out).unwrap()
    };

    let detailed = ours(Stats::Off, true);
    for (theirs, mine) in [
        (run(&[]), ours(Stats::Off, false)),
        (run(&["--bkp-details"]), detailed.clone()),
    ] {
        assert_eq!(theirs.lines().count(), mine.lines().count());
        for (theirs, mine) in theirs.lines().zip(mine.lines()) {
            if mine.starts_with("rmgr: Towline") {
                assert!(theirs.starts_with("rmgr: custom128"), "{theirs}");
            } else {
                assert_eq!(theirs, mine);
            }
        }
    }
    for kind in ["(FPW); ", "(FPW for WAL verification); "] {
        for end in ["", ", method: lz4", ", method: zstd"] {
            let found =
                |line: &str| line.contains(kind) && line.contains("length: 7640") && line.ends_with(end);
            assert!(detailed.lines().any(found), "{kind}{end}");
        }
    }
    let named = |text: String| text.replace("custom128", "Towline  ");
    assert_eq!(named(run(&["--stats"])), ours(Stats::PerRmgr, false));
}
