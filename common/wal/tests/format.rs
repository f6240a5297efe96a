//! Records of any shape survive the way through the log; bytes of any kind do not panic a decoder.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use proptest::prelude::*;
use towline_base::vfs::CrashVfs;
use towline_base::{ForkKind, Lsn, PAGE_SIZE, PageId, RelFileNode, Vfs};
use towline_wal::format::{HEADER_SIZE, RecordHeader, decode_record};
use towline_wal::records::heap2::{HeapFreezeTuple, HeapPrune, MultiInsertTuples, PrunedOffsets};
use towline_wal::records::invalidation::Invalidation;
use towline_wal::records::xact::{ParsedXactEnd, XactEnd, XactOp};
use towline_wal::records::{Payload, describe, identify};
use towline_wal::waldump::write_line;
use towline_wal::{BlockFlags, PermitIssuer, ReadOutcome, RecordBuilder, Rmgr};

#[derive(Debug, Clone)]
struct Block {
    page: PageId,
    flags: BlockFlags,
    data: Vec<u8>,
    new_page: bool,
    lower: u16,
    upper: u16,
}

impl Block {
    fn bytes(&self) -> Box<[u8; PAGE_SIZE]> {
        let mut page = Box::new([0x77u8; PAGE_SIZE]);
        page[..8].copy_from_slice(&if self.new_page { [0; 8] } else { [0xFF; 8] });
        page[12..14].copy_from_slice(&self.lower.to_le_bytes());
        page[14..16].copy_from_slice(&self.upper.to_le_bytes());
        if self.lower >= 24 && self.lower < self.upper && usize::from(self.upper) <= PAGE_SIZE {
            page[usize::from(self.lower)..usize::from(self.upper)].fill(0);
        }
        page
    }
}

fn block() -> impl Strategy<Value = Block> {
    let flags = prop_oneof![
        Just(BlockFlags::DEFAULT),
        Just(BlockFlags::STANDARD),
        Just(BlockFlags::STANDARD | BlockFlags::WILL_INIT),
        Just(BlockFlags::STANDARD | BlockFlags::FORCE_IMAGE),
        Just(BlockFlags::STANDARD | BlockFlags::KEEP_DATA),
        Just(BlockFlags::NO_IMAGE),
    ];
    let page = (0u32..3, 0u8..4, any::<u32>()).prop_map(|(rel, fork, block)| PageId {
        rel: RelFileNode {
            spc: 1663,
            db: 5,
            rel,
        },
        fork: ForkKind::from_number(fork).unwrap(),
        block,
    });
    let data = proptest::collection::vec(any::<u8>(), 0..600);
    (page, flags, data, any::<bool>(), 0u16..9000, 0u16..9000).prop_map(
        |(page, flags, data, new_page, lower, upper)| Block {
            page,
            flags,
            data,
            new_page,
            lower,
            upper,
        },
    )
}

fn record() -> impl Strategy<Value = (u8, u32, Vec<Block>, Vec<u8>)> {
    let main = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::collection::vec(any::<u8>(), 250..260),
        proptest::collection::vec(any::<u8>(), 8000..9000),
    ];
    (
        any::<u8>(),
        any::<u32>(),
        proptest::collection::vec(block(), 0..5),
        main,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn records_of_any_shape_come_back_as_they_were(records in proptest::collection::vec(record(), 1..40)) {
        let vfs = CrashVfs::new();
        vfs.create_dir_all("/pg_wal".as_ref()).unwrap();
        let wal = start(vfs.shared(), config("/pg_wal".as_ref()));
        let permits = PermitIssuer::new(timeline(1));
        let mut builder = RecordBuilder::new();
        let mut places = Vec::new();
        for (info, xid, blocks, main) in &records {
            builder.begin(Rmgr::Foreign(20), info & 0xF3, *xid);
            let pages: Vec<_> = blocks.iter().map(Block::bytes).collect();
            for (id, block) in blocks.iter().enumerate() {
                builder.block(id as u8 * 3, block.page, block.flags).block_data(id as u8 * 3, &block.data);
            }
            builder.data(main);
            let pages: Vec<_> = pages.iter().map(|page| &**page).collect();
            places.push(insert_built(&wal, &permits, &mut builder, &pages));
        }
        wal.flush(wal.insert_lsn(), None).unwrap();

        let mut reader = reader(vfs.shared(), "/pg_wal".as_ref());
        for ((info, xid, blocks, main), place) in records.iter().zip(places) {
            let ReadOutcome::Record(found) = reader.next().unwrap() else { panic!("too few records") };
            prop_assert_eq!((found.start, found.end), (place.start, place.end));
            prop_assert_eq!((found.header.info, found.header.xid, found.main), (info & 0xF3, *xid, &main[..]));
            prop_assert_eq!(found.blocks.len(), blocks.len());
            for (found, block) in found.blocks.iter().zip(blocks) {
                prop_assert_eq!(found.page, block.page);
                let never = block.flags.contains(BlockFlags::NO_IMAGE);
                let imaged = block.flags.contains(BlockFlags::FORCE_IMAGE) || (!never && block.new_page);
                prop_assert_eq!(found.image.is_some(), imaged);
                let kept = !imaged || block.flags.contains(BlockFlags::KEEP_DATA);
                prop_assert_eq!(found.data, if kept { &block.data[..] } else { &[] });
                if let Some(image) = found.image {
                    let mut page = Box::new([1u8; PAGE_SIZE]);
                    prop_assert_eq!(image.restore(&mut page), Ok(()));
                    prop_assert!(page == block.bytes());
                }
            }
        }
        prop_assert!(matches!(reader.next().unwrap(), ReadOutcome::End(_)));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused_but_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), HEADER_SIZE..400),
        plausible in proptest::collection::vec(prop_oneof![Just(255u8), Just(254), Just(253), 0u8..4, Just(0x20), Just(0x90)], 0..60),
        rmid in prop_oneof![0u8..12, Just(128u8)],
        info in any::<u8>(),
    ) {
        let covered = plausible.len().min(bytes.len() - HEADER_SIZE);
        bytes[HEADER_SIZE..HEADER_SIZE + covered].copy_from_slice(&plausible[..covered]);
        let header = RecordHeader { total_len: bytes.len() as u32, xid: 1, prev: Lsn(5), info, rmid, crc: 0 };
        bytes[..HEADER_SIZE].copy_from_slice(&header.to_bytes());
        if let Ok(record) = decode_record(Lsn(40), Lsn(48), &bytes) {
            write_line(&record, &mut String::new());
        }
    }

    #[test]
    fn any_payload_of_any_kind_is_described_without_a_panic(
        main in proptest::collection::vec(any::<u8>(), 0..250),
        small_counts in any::<bool>(),
        rmid in prop_oneof![0u8..12, Just(128u8)],
        info in any::<u8>(),
    ) {
        let mut main = main;
        if small_counts {
            // Counts that might fit, so that decoding goes deeper.
            main.iter_mut().skip(8).for_each(|byte| *byte &= 0x83);
        }
        let mut bytes = RecordHeader { total_len: 0, xid: 1, prev: Lsn(5), info, rmid, crc: 0 }.to_bytes().to_vec();
        if !main.is_empty() {
            bytes.extend_from_slice(&[255, main.len() as u8]);
            bytes.extend_from_slice(&main);
        }
        let total = (bytes.len() as u32).to_le_bytes();
        bytes[..4].copy_from_slice(&total);
        let record = decode_record(Lsn(40), Lsn(48), &bytes).unwrap();
        describe(&record, &mut String::new());
        identify(record.rmgr(), info);
        for tuple in MultiInsertTuples::new(&main).take(1000) {
            let _ = tuple;
        }
        HeapFreezeTuple::iter(&main).for_each(drop);
        if let Ok(prune) = HeapPrune::decode(&main) {
            let _ = PrunedOffsets::decode(&prune, &main).map(|offsets| offsets.redirected().count());
        }
    }

    #[test]
    fn transaction_ends_round_trip(
        time in any::<i64>(),
        db in proptest::option::of((any::<u32>(), any::<u32>())),
        subxacts in proptest::collection::vec(any::<u32>(), 0..5),
        dropped in proptest::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 0..4),
        messages in proptest::collection::vec(any::<[u8; 16]>(), 0..4),
        quorum in proptest::option::of(any::<u64>()),
        abort in any::<bool>(),
    ) {
        let dropped: Vec<_> = dropped.into_iter().map(|(spc, db, rel)| RelFileNode { spc, db, rel }).collect();
        let messages: Vec<_> = messages.iter().map(Invalidation::from_bytes).collect();
        let end = XactEnd {
            time,
            flags: 0,
            db,
            subxacts: &subxacts,
            dropped: &dropped,
            invalidations: &messages,
            quorum: quorum.map(Lsn),
        };
        let mut bytes = Vec::new();
        end.encode(&mut bytes);
        let info = end.info(if abort { XactOp::Abort } else { XactOp::Commit });
        let parsed = ParsedXactEnd::decode(info, &bytes).unwrap();
        prop_assert_eq!((parsed.time, parsed.db, parsed.quorum), (time, db, quorum.map(Lsn)));
        prop_assert_eq!(parsed.subxacts.iter().collect::<Vec<_>>(), subxacts);
        prop_assert_eq!(parsed.dropped.iter().collect::<Vec<_>>(), dropped);
        prop_assert_eq!(parsed.invalidations.iter().collect::<Vec<_>>(), messages);
        for length in 0..bytes.len() {
            prop_assert!(ParsedXactEnd::decode(info, &bytes[..length]).is_err());
        }
    }
}
