//! The pool under threads, the write-back gate, damaged pages.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::page::Page;
use crate::smgr::relation;
use towline_base::{LsnPublisher, OsVfs};

pub(super) struct Fixture {
    dir: tempfile::TempDir,
    pub(super) pool: Arc<BufferPool>,
    quorum: LsnPublisher,
}

const REL: RelFileNode = relation(16384);

pub(super) fn page(block: u32) -> PageId {
    PageId::main(REL, block)
}

pub(super) fn fixture(frames: usize, blocks: u32) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let smgr = Arc::new(Smgr::new(Arc::new(OsVfs), dir.path(), 100));
    smgr.create_directories().unwrap();
    smgr.create(REL, ForkKind::Main).unwrap();
    if blocks > 0 {
        smgr.extend(REL, ForkKind::Main, blocks).unwrap();
    }
    let (quorum, watch) = LsnWatch::new(Lsn(1000));
    let pool = Arc::new(BufferPool::new(frames, smgr, watch, true));
    Fixture { dir, pool, quorum }
}

/// A change as a logged one would make it, its record from `end - 8` to `end`.
fn change(pin: PinnedPage, end: u64, body: impl FnOnce(&mut Page)) {
    let mut page = pin.write();
    page.mark_dirty(Lsn(end - 8));
    if page.is_new() {
        page.bytes_mut().init(0);
    }
    body(page.bytes_mut());
    let end = page.lsn().max(Lsn(end));
    page.stamp(end);
}

pub(super) fn set(pool: &BufferPool, block: u32, end: u64, value: u64) {
    change(pool.pin(page(block)).unwrap(), end, |page| {
        page.as_bytes_mut()[4000..4008].copy_from_slice(&value.to_le_bytes());
    });
}

fn value(page: &Page) -> u64 {
    u64::from_le_bytes(page.as_bytes()[4000..4008].try_into().unwrap())
}

fn on_disk(fixture: &Fixture, block: u32) -> Page {
    let mut page = Page::zeroed();
    fixture
        .pool
        .smgr
        .read(&super::tests::page(block), &mut page)
        .unwrap();
    page
}

fn flush_all(pool: &Arc<BufferPool>) {
    let mut write_back = pool.write_back(Lsn::MAX);
    loop {
        match write_back.step().unwrap() {
            FlushState::Done => return,
            FlushState::More | FlushState::Busy => {}
            FlushState::NeedsQuorum(lsn) => panic!("nothing is above the quorum, but {lsn}"),
        }
    }
}

#[test]
fn every_page_holds_its_own_content_under_threads() {
    const BLOCKS: u32 = 300;
    let fixture = fixture(24, BLOCKS);
    for block in 0..BLOCKS {
        set(&fixture.pool, block, 100, u64::from(block) << 32);
    }
    let rounds = if std::env::var_os("TOWLINE_LONG_TESTS").is_some() {
        400_000
    } else {
        20_000
    };
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let pool = &fixture.pool;
            scope.spawn(move || {
                let mut state = thread.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
                for _ in 0..rounds {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    // A few hot pages and a long tail.
                    let block = if state & 3 == 0 {
                        (state >> 8) as u32 % 8
                    } else {
                        (state >> 8) as u32 % BLOCKS
                    };
                    let pin = pool.pin(page(block)).unwrap();
                    assert_eq!(pin.id(), page(block));
                    if state & 0x700 == 0 {
                        change(pin, 200 + (state >> 60), |page| {
                            let next = value(page) + 1;
                            page.as_bytes_mut()[4000..4008].copy_from_slice(&next.to_le_bytes());
                        });
                    } else {
                        let read = pin.read();
                        assert_eq!((value(&read) >> 32) as u32, block);
                    }
                }
            });
        }
        let pool = &fixture.pool;
        scope.spawn(move || {
            for _ in 0..20 {
                flush_all(pool);
            }
        });
    });
    let mut counted = 0;
    for block in 0..BLOCKS {
        counted += value(&fixture.pool.pin(page(block)).unwrap().read()) as u32;
    }
    flush_all(&fixture.pool);
    assert_eq!(fixture.pool.dirty_count(), 0);
    let mut written = 0;
    for block in 0..BLOCKS {
        let page = on_disk(&fixture, block);
        assert!(page.verify_checksum(block));
        assert_eq!((value(&page) >> 32) as u32, block);
        written += value(&page) as u32;
    }
    assert_eq!(counted, written, "no change is lost between memory and disk");
    assert!(counted > 1000);
    assert!(
        fixture
            .pool
            .frames
            .as_slice()
            .iter()
            .all(|frame| frame.pins() == 0)
    );
}

#[test]
fn a_page_above_the_quorum_is_not_written_and_gives_its_frame_only_afterwards() {
    let mut fixture = fixture(16, 40);
    for block in 0..16 {
        set(&fixture.pool, block, 2000 + u64::from(block), 7);
    }
    // All frames are above the quorum of 1000: nobody can go.
    match fixture.pool.pin(page(20)) {
        Err(StorageError::NeedsQuorum(lsn)) => assert_eq!(lsn, Lsn(2000)),
        other => panic!("{other:?}"),
    }
    assert!(on_disk(&fixture, 0).is_all_zero());
    fixture.quorum.advance(Lsn(2000));
    assert!(fixture.pool.pin(page(20)).unwrap().read().is_all_zero());
    assert_eq!(value(&on_disk(&fixture, 0)), 7);
    assert!(on_disk(&fixture, 1).is_all_zero());
}

#[test]
fn with_every_frame_pinned_the_error_says_so() {
    let fixture = fixture(16, 40);
    let pins: Vec<PinnedPage> = (0..16)
        .map(|block| fixture.pool.pin(page(block)).unwrap())
        .collect();
    assert!(matches!(
        fixture.pool.pin(page(30)),
        Err(StorageError::NoFreeFrame)
    ));
    drop(pins);
    fixture.pool.pin(page(30)).unwrap();
}

#[test]
fn write_back_copies_a_hot_page_once_and_keeps_later_changes_dirty() {
    let mut fixture = fixture(16, 4);
    set(&fixture.pool, 0, 2000, 1);
    let mut write_back = fixture.pool.write_back(Lsn::MAX);
    assert_eq!(write_back.step().unwrap(), FlushState::NeedsQuorum(Lsn(2000)));
    // The page changes again and again while the copy waits.
    set(&fixture.pool, 0, 3000, 2);
    fixture.quorum.advance(Lsn(2500));
    assert_eq!(write_back.step().unwrap(), FlushState::Done);
    assert_eq!(
        write_back.counts(),
        WriteBackCounts {
            written: 1,
            skipped: 0,
            total: 1
        }
    );
    assert_eq!(
        (value(&on_disk(&fixture, 0)), on_disk(&fixture, 0).lsn()),
        (1, Lsn(2000))
    );
    assert_eq!(fixture.pool.dirty_count(), 1);
    // A checkpoint whose redo pointer is before the second change has nothing to do.
    assert_eq!(fixture.pool.write_back(Lsn(2500)).counts().total, 0);
    assert_eq!(fixture.pool.write_back(Lsn(2993)).counts().total, 1);
}

#[test]
fn a_write_back_given_up_leaves_pages_dirty_since_their_first_change() {
    let fixture = fixture(16, 4);
    set(&fixture.pool, 0, 2000, 1);
    let mut write_back = fixture.pool.write_back(Lsn::MAX);
    assert_eq!(write_back.step().unwrap(), FlushState::NeedsQuorum(Lsn(2000)));
    assert_eq!(
        fixture.pool.write_back(Lsn(1)).counts().total,
        1,
        "a page whose copy is not written yet still counts"
    );
    set(&fixture.pool, 0, 3000, 2);
    drop(write_back);
    assert_eq!(fixture.pool.write_back(Lsn(1993)).counts().total, 1);
}

#[test]
fn a_dropped_page_is_not_written_by_a_copy_taken_before() {
    let mut fixture = fixture(16, 4);
    set(&fixture.pool, 1, 2000, 1);
    let mut write_back = fixture.pool.write_back(Lsn::MAX);
    assert_eq!(write_back.step().unwrap(), FlushState::NeedsQuorum(Lsn(2000)));
    fixture.pool.drop_pages(REL, Some(ForkKind::Main), 1);
    fixture.quorum.advance(Lsn(4000));
    assert_eq!(write_back.step().unwrap(), FlushState::Done);
    assert!(on_disk(&fixture, 1).is_all_zero());
    assert_eq!(fixture.pool.dirty_count(), 0);
    // The frame is usable again.
    for block in 0..4 {
        fixture.pool.pin(page(block)).unwrap();
    }
}

#[test]
fn a_hint_never_makes_a_page_dirty() {
    let fixture = fixture(16, 4);
    set(&fixture.pool, 0, 500, 1);
    flush_all(&fixture.pool);
    let pin = fixture.pool.pin(page(0)).unwrap();
    pin.try_hint().unwrap().page_mut().as_bytes_mut()[5000] = 9;
    pin.clone().write().hint_mut().as_bytes_mut()[5001] = 9;
    assert_eq!(fixture.pool.dirty_count(), 0);
    let reader = pin.clone().read();
    assert!(pin.try_hint().is_none(), "a reader keeps hints out");
    assert_eq!(reader.as_bytes()[5000], 9);
}

#[test]
fn a_damaged_page_is_an_error_that_names_relation_block_and_offset() {
    let fixture = fixture(16, 4);
    set(&fixture.pool, 2, 500, 1);
    flush_all(&fixture.pool);
    let path = fixture.dir.path().join("base/5/16384");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2 * 8192 + 6000] ^= 0x10;
    std::fs::write(&path, &bytes).unwrap();
    let (_quorum, watch) = LsnWatch::new(Lsn(1000));
    let smgr = Arc::new(Smgr::new(Arc::new(OsVfs), fixture.dir.path(), 100));
    let pool = BufferPool::new(16, smgr, watch, true);
    for _ in 0..3 {
        let error = pool.pin(page(2)).unwrap_err();
        assert_eq!(error.sqlstate().code(), "XX001");
        let text = error.to_string();
        assert!(
            text.contains("relation 1663/5/16384")
                && text.contains("block 2")
                && text.contains("16384\", offset 16384"),
            "{text}"
        );
    }
    pool.pin(page(1)).unwrap();
    assert!(matches!(pool.pin(page(4)), Err(StorageError::NoSuchBlock(id)) if id == page(4)));
}

#[test]
fn the_cleanup_latch_waits_until_its_pin_is_the_only_one() {
    let fixture = fixture(16, 4);
    let pin = fixture.pool.pin(page(0)).unwrap();
    let other = fixture.pool.pin(page(0)).unwrap();
    let pin = pin.try_cleanup().unwrap_err();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || pin.cleanup().is_cleanup());
        drop(other);
        assert!(waiter.join().unwrap());
    });
    let pin = fixture.pool.pin(page(0)).unwrap();
    assert!(pin.try_cleanup().is_ok());
}

#[test]
fn pages_above_the_quorum_are_bounded_to_three_quarters() {
    let mut fixture = fixture(64, 64);
    let mut insert = 1000u64;
    let mut accepted = 0;
    for block in 0..64 {
        match fixture.pool.quorum_room(Lsn(insert)) {
            Ok(()) => {
                insert += 64;
                set(&fixture.pool, block, insert, 1);
                accepted += 1;
            }
            Err(error) => {
                assert!(
                    matches!(error, StorageError::NeedsQuorum(lsn) if lsn == Lsn(1064)),
                    "{error}"
                );
                break;
            }
        }
    }
    assert!((44..=48).contains(&accepted), "{accepted}");
    fixture.quorum.advance(Lsn(insert));
    fixture.pool.quorum_room(Lsn(insert)).unwrap();
    fixture.pool.quorum_room(Lsn(insert + 64)).unwrap();
}

#[test]
fn extension_gives_zeroed_pages_and_scans_do_not_keep_others_out() {
    let fixture = fixture(16, 0);
    for block in 0..40 {
        let pin = fixture.pool.extend(REL, ForkKind::Main).unwrap();
        assert_eq!(pin.id(), page(block));
        assert!(pin.read().is_all_zero());
    }
    assert_eq!(fixture.pool.nblocks(REL, ForkKind::Main).unwrap(), 40);
    for _ in 0..5 {
        fixture.pool.pin(page(3)).unwrap();
    }
    let before = fixture.pool.counters().reads.load(Ordering::Relaxed);
    for block in 10..30 {
        fixture.pool.pin_for(page(block), Access::Scan).unwrap();
    }
    let scanned = fixture.pool.counters().reads.load(Ordering::Relaxed);
    fixture.pool.pin(page(3)).unwrap();
    assert_eq!(
        fixture.pool.counters().reads.load(Ordering::Relaxed),
        scanned,
        "the hot page stayed"
    );
    assert!(scanned > before);
}

#[test]
fn a_stopped_pool_gives_out_nothing() {
    let fixture = fixture(16, 4);
    let pin = fixture.pool.pin(page(0)).unwrap();
    fixture.pool.stop();
    assert!(matches!(fixture.pool.pin(page(0)), Err(StorageError::Stopped(_))));
    assert!(matches!(fixture.pool.pin(page(1)), Err(StorageError::Stopped(_))));
    drop(pin);
}

#[test]
fn a_pin_may_outlive_the_pool() {
    let fixture = fixture(16, 4);
    let pin = fixture.pool.pin(page(0)).unwrap();
    drop(fixture);
    assert!(pin.read().is_all_zero());
}

/// Whether a write-back ends while its page changes before each of its steps and the quorum is always one change behind (B3).
fn write_back_of_a_hot_page_ends() -> bool {
    let mut fixture = fixture(16, 1);
    let mut end = 1000;
    set(&fixture.pool, 0, end, end);
    let mut write_back = fixture.pool.write_back(Lsn::MAX);
    for _ in 0..50 {
        let before = end;
        end += 100;
        set(&fixture.pool, 0, end, end);
        if write_back.step().unwrap() == FlushState::Done {
            return true;
        }
        fixture.quorum.advance(Lsn(before));
    }
    false
}

#[test]
fn a_page_that_never_stops_changing_is_written_as_it_was() {
    assert!(write_back_of_a_hot_page_ends());
}

#[cfg(debug_assertions)]
#[test]
fn without_the_rule_of_the_copies_a_hot_page_would_hold_a_checkpoint_for_ever() {
    let _off = towline_base::rules::RuleOff::new(towline_base::rules::Rule::CopyWaits);
    assert!(!write_back_of_a_hot_page_ends());
}
