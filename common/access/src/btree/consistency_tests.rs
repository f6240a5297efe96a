//! `wal_consistency_checking`: redo that gives another page than the primary's is caught, and named.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use towline_base::vfs::CrashVfs;
use towline_base::{ForkKind, Lsn, PageId, Tid, Vfs};
use towline_storage::{Page, RedoContext, RedoError, ResourceManagers};
use towline_types::{Datum, TypeId};
use towline_wal::format::{Compression, DecodedRecord, SegmentSize, decode_record};
use towline_wal::records::btree::BtreeOp;
use towline_wal::{ImagePolicy, ReadOutcome, Rmgr, TimelineHistory, WalReader, WalSource, WalTuning};

use super::context::Pressure;
use super::harness::*;

/// The B-tree's redo, but of each insertion on a leaf one bit too many is changed.
struct Careless;

impl ResourceManagers for Careless {
    fn redo(&self, record: &DecodedRecord<'_>, context: &mut RedoContext<'_>) -> Result<(), RedoError> {
        OnlyBtree.redo(record, context)?;
        let op = BtreeOp::from_info(record.info());
        if record.rmgr() == Rmgr::Btree
            && op == Some(BtreeOp::InsertLeaf)
            && let Some(page) = context.page_mut(0)
        {
            let newest_item = page.upper();
            page.as_bytes_mut()[newest_item] ^= 1;
        }
        Ok(())
    }

    fn mask(&self, record: &DecodedRecord<'_>, page: &mut Page) {
        OnlyBtree.mask(record, page);
    }
}

#[test]
fn a_redo_that_is_wrong_by_one_bit_stops_at_its_record_and_names_the_page() {
    let vfs: Arc<dyn Vfs> = CrashVfs::new().shared();
    let h = Harness::new(Arc::clone(&vfs), Path::new("/data"), 256);
    let idx = index(16400, &[(TypeId::Int4, false)], false);
    h.create(&idx, &[]);
    for n in 0..50 {
        h.insert(&idx, &[Datum::Int4(n)], Tid::new(n as u32, 1));
    }
    h.relieve(Pressure::Flush(Lsn::INVALID));

    let right = h.replica(&vfs, Path::new("/right"));
    h.replay(&vfs, Path::new("/data"), &right);
    let wrong = h.replica(&vfs, Path::new("/wrong"));
    let error = h
        .replay_with(&vfs, Path::new("/data"), &wrong, Arc::new(Careless))
        .unwrap_err();
    let RedoError::Inconsistent {
        page, lsn, record, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((page.rel, page.fork), (idx.node, ForkKind::Main));
    assert_eq!(record, "Btree/INSERT_LEAF");
    let text = error.to_string();
    assert!(
        text.contains(&page.to_string()) && text.contains(&lsn.to_string()),
        "{text}"
    );
    // Nobody sees the wrong page.
    assert!(wrong.pin(PageId::main(idx.node, page.block)).is_err());
}

#[test]
fn a_damaged_compressed_image_is_an_error_that_names_record_and_block() {
    for compression in [Compression::Lz4, Compression::Zstd] {
        let vfs: Arc<dyn Vfs> = CrashVfs::new().shared();
        let h = Harness::new(Arc::clone(&vfs), Path::new("/data"), 256);
        h.wal.tune(WalTuning {
            images: ImagePolicy {
                compression,
                ..ImagePolicy::default()
            },
            ..WalTuning::default()
        });
        let idx = index(16400, &[(TypeId::Int4, false)], false);
        h.create(&idx, &[]);
        for n in 0..50 {
            // The last ones' pages get an image.
            if n == 40 {
                h.wal.begin_checkpoint();
            }
            h.insert(&idx, &[Datum::Int4(n)], Tid::new(n as u32, 1));
        }
        h.relieve(Pressure::Flush(Lsn::INVALID));

        let replica = h.replica(&vfs, Path::new("/replica"));
        let replayer = towline_storage::Replayer::new(replica, Arc::new(OnlyBtree), Lsn(SEGMENT));
        let source = WalSource {
            vfs,
            dir: Path::new("/data/pg_wal").to_owned(),
            segment_size: SegmentSize::new(SEGMENT).unwrap(),
            system: Some(SYSTEM),
            history: TimelineHistory::first(timeline()),
        };
        let mut reader = WalReader::new(source, Lsn(SEGMENT));
        let mut damaged = 0;
        while let ReadOutcome::Record(record) = reader.next().unwrap() {
            let block = record
                .blocks
                .iter()
                .find(|block| block.image.is_some_and(|image| image.method().is_some()));
            if let Some(block) = block {
                let image = block.image.unwrap();
                let at = image.bytes.as_ptr().addr() - record.bytes.as_ptr().addr();
                let mut bytes = record.bytes.to_vec();
                bytes[at..at + image.bytes.len()].fill(0xFF);
                let changed = decode_record(record.start, record.end, &bytes).unwrap();
                let error = replayer.replay_one(&changed).unwrap_err();
                assert!(matches!(&error, RedoError::Record { lsn, .. } if *lsn == record.start));
                let text = error.to_string();
                assert!(text.contains(&block.page.to_string()), "{text}");
                damaged += 1;
            }
            // Nothing was touched: the record as it was is applied.
            replayer.replay_one(&record).unwrap();
        }
        assert!(damaged > 0, "{compression:?}");
    }
}
