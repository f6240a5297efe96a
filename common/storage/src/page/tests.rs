//! The page against a simple oracle: a list of line pointers, each with its bytes.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn fresh(special: usize) -> Box<Page> {
    let mut page = Page::boxed_zeroed();
    page.init(special);
    page
}

#[test]
fn a_fresh_page_has_postgresqls_header() {
    let page = fresh(16);
    assert_eq!(
        (page.lower(), page.upper(), page.special_offset()),
        (24, 8176, 8176)
    );
    assert_eq!(page.size_and_version(), 8192 | 4);
    assert_eq!(
        &page.as_bytes()[12..20],
        &[24, 0, 0xf0, 0x1f, 0xf0, 0x1f, 4, 0x20]
    );
    assert_eq!(page.special().len(), 16);
    page.check_header().unwrap();
}

#[test]
fn the_lsn_is_stored_high_half_first() {
    let mut page = fresh(0);
    page.set_lsn(Lsn(0x0000_0016_B374_D848));
    assert_eq!(&page.as_bytes()[..8], &[0x16, 0, 0, 0, 0x48, 0xD8, 0x74, 0xB3]);
    assert_eq!(page.lsn(), Lsn(0x0000_0016_B374_D848));
}

/// Vectors computed by PostgreSQL 15's `page_checksum(page, block)` (see tests/pageinspect.rs, which asks it again).
#[test]
fn the_checksum_is_never_zero_and_depends_on_the_block() {
    let mut page = fresh(0);
    page.add_item(b"some bytes", Placement::Heap).unwrap();
    assert_ne!(page.checksum(0), page.checksum(1));
    let sum = page.checksum(7);
    page.set_stored_checksum(sum);
    assert!(page.verify_checksum(7) && !page.verify_checksum(8));
    page.as_bytes_mut()[5000] ^= 1;
    assert!(!page.verify_checksum(7));
    assert!(Page::zeroed().verify_checksum(3));
}

#[test]
fn the_checksum_ignores_what_is_stored_in_its_place() {
    let mut page = fresh(0);
    let sum = page.checksum(1);
    page.set_stored_checksum(0xbeef);
    assert_eq!(page.checksum(1), sum);
}

#[test]
fn a_full_page_refuses_and_stays_as_it_was() {
    let mut page = fresh(0);
    while page.add_item(&[7; 100], Placement::Heap).is_ok() {}
    let before = page.clone();
    assert_eq!(page.add_item(&[7; 100], Placement::Heap), Err(PageError::NoSpace));
    assert!(page == before);
}

#[test]
fn the_heap_stops_at_its_limit_of_line_pointers() {
    let mut page = fresh(0);
    for _ in 0..MAX_HEAP_TUPLES {
        page.add_item(&[1; 16], Placement::Heap).unwrap();
    }
    assert!(page.free_space() > 0);
    assert_eq!(page.heap_free_space(), 0);
    assert_eq!(page.add_item(&[1; 16], Placement::Heap), Err(PageError::NoSpace));
    page.set_item_id(5, ItemId::UNUSED).unwrap();
    page.repair_fragmentation().unwrap();
    assert!(page.heap_free_space() > 0);
    assert_eq!(page.add_item(&[1; 16], Placement::Heap), Ok(5));
}

#[derive(Debug, Clone)]
enum Op {
    AddHeap(Vec<u8>),
    Insert(u16, Vec<u8>),
    Overwrite(u16, Vec<u8>),
    SetUnused(u16),
    SetDead(u16),
    Redirect(u16, u16),
    Repair,
    TruncateLinePointers,
    Remove(Vec<u16>),
    RemoveKeepOrder(u16),
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 1..120),
        1 => prop::collection::vec(any::<u8>(), 1000..3000),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => bytes().prop_map(Op::AddHeap),
        6 => (1u16..60, bytes()).prop_map(|(at, data)| Op::Insert(at, data)),
        3 => (1u16..60, bytes()).prop_map(|(at, data)| Op::Overwrite(at, data)),
        2 => (1u16..60).prop_map(Op::SetUnused),
        2 => (1u16..60).prop_map(Op::SetDead),
        1 => (1u16..60, 1u16..60).prop_map(|(at, to)| Op::Redirect(at, to)),
        2 => Just(Op::Repair),
        1 => Just(Op::TruncateLinePointers),
        1 => prop::collection::btree_set(1u16..60, 0..6).prop_map(|set| Op::Remove(set.into_iter().collect())),
        1 => (1u16..60).prop_map(Op::RemoveKeepOrder),
    ]
}

/// The oracle: what each line pointer must stand for.
#[derive(Debug, Clone, PartialEq)]
enum Line {
    Unused,
    Item(Vec<u8>),
    Dead,
    Redirect(u16),
}

fn lines_of(page: &Page) -> Vec<Line> {
    page.item_ids()
        .map(|(_, item)| match item.state() {
            ItemState::Unused => Line::Unused,
            ItemState::Normal => Line::Item(page.item_bytes(item).unwrap().to_vec()),
            ItemState::Dead => Line::Dead,
            ItemState::Redirect => Line::Redirect(item.redirect_target()),
        })
        .collect()
}

/// Applies `op` to both; the oracle follows only what the page accepted.
fn apply(page: &mut Page, oracle: &mut Vec<Line>, op: &Op) {
    let exists = |at: u16, oracle: &Vec<Line>| at >= 1 && usize::from(at) <= oracle.len();
    match op {
        Op::AddHeap(data) => {
            if let Ok(at) = page.add_item(data, Placement::Heap) {
                let at = usize::from(at);
                if at > oracle.len() {
                    assert_eq!(at, oracle.len() + 1);
                    oracle.push(Line::Item(data.clone()));
                } else {
                    assert_eq!(oracle[at - 1], Line::Unused, "took a line pointer in use");
                    oracle[at - 1] = Line::Item(data.clone());
                }
            }
        }
        Op::Insert(at, data) => {
            let free = page.exact_free_space();
            match page.add_item(data, Placement::Insert(*at)) {
                Ok(got) => {
                    assert_eq!(got, *at);
                    oracle.insert(usize::from(*at) - 1, Line::Item(data.clone()));
                }
                Err(PageError::InvalidOffset(_)) => assert!(usize::from(*at) > oracle.len() + 1),
                Err(PageError::NoSpace) => assert!(free < max_align(data.len()) + ITEM_ID_SIZE),
                Err(other) => panic!("{other}"),
            }
        }
        Op::Overwrite(at, data) => {
            let is_item = exists(*at, oracle) && matches!(oracle[usize::from(*at) - 1], Line::Item(_));
            match page.overwrite_item(*at, data) {
                Ok(()) => oracle[usize::from(*at) - 1] = Line::Item(data.clone()),
                Err(PageError::InvalidOffset(_)) => assert!(!is_item),
                Err(PageError::NoSpace) => {}
                Err(other) => panic!("{other}"),
            }
        }
        Op::SetUnused(at) if exists(*at, oracle) => {
            page.set_item_id(*at, ItemId::UNUSED).unwrap();
            oracle[usize::from(*at) - 1] = Line::Unused;
        }
        Op::SetDead(at) if exists(*at, oracle) => {
            page.set_item_id(*at, ItemId::dead()).unwrap();
            oracle[usize::from(*at) - 1] = Line::Dead;
        }
        Op::Redirect(at, to) if exists(*at, oracle) => {
            page.set_item_id(*at, ItemId::redirect(*to)).unwrap();
            oracle[usize::from(*at) - 1] = Line::Redirect(*to);
        }
        Op::SetUnused(at) | Op::SetDead(at) | Op::Redirect(at, _) => {
            assert_eq!(
                page.set_item_id(*at, ItemId::UNUSED),
                Err(PageError::InvalidOffset(*at))
            );
        }
        Op::Repair => {
            page.repair_fragmentation().unwrap();
            let stored: usize = oracle
                .iter()
                .map(|line| {
                    if let Line::Item(d) = line {
                        max_align(d.len())
                    } else {
                        0
                    }
                })
                .sum();
            assert_eq!(page.upper(), page.special_offset() - stored, "gaps remain");
        }
        Op::TruncateLinePointers => {
            page.truncate_line_pointers().unwrap();
            while oracle.len() > 1 && oracle.last() == Some(&Line::Unused) {
                oracle.pop();
            }
        }
        Op::Remove(offsets) => {
            let result = page.remove_items(offsets);
            if offsets.iter().all(|at| exists(*at, oracle)) {
                result.unwrap();
                for at in offsets.iter().rev() {
                    oracle.remove(usize::from(*at) - 1);
                }
            } else {
                assert!(matches!(result, Err(PageError::InvalidOffset(_))));
            }
        }
        Op::RemoveKeepOrder(at) => {
            let result = page.remove_item_keep_order(*at);
            if exists(*at, oracle) {
                result.unwrap();
                if usize::from(*at) == oracle.len() {
                    oracle.pop();
                } else {
                    oracle[usize::from(*at) - 1] = Line::Unused;
                }
            } else {
                assert_eq!(result, Err(PageError::InvalidOffset(*at)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_sequence_of_operations_matches_the_oracle(special in prop_oneof![Just(0usize), Just(16)], ops in prop::collection::vec(op(), 1..120)) {
        let mut page = fresh(special);
        page.special_mut().fill(0xAB);
        let mut oracle = Vec::new();
        for op in &ops {
            apply(&mut page, &mut oracle, op);
            page.check_header().unwrap();
            prop_assert_eq!(lines_of(&page), oracle.clone(), "after {:?}", op);
            prop_assert!(page.special().iter().all(|byte| *byte == 0xAB));
        }
    }

    #[test]
    fn no_content_makes_the_page_panic(seed in any::<u64>(), header in prop::array::uniform12(any::<u16>()), ops in prop::collection::vec(op(), 1..20)) {
        let mut page = Page::boxed_zeroed();
        let mut state = seed | 1;
        for byte in page.as_bytes_mut().iter_mut() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (state >> 33) as u8;
        }
        for (index, word) in header.iter().enumerate() {
            // Half of the headers are plausible, so that the operations go deep.
            let value = if seed % 2 == 0 { *word } else { [0, 0, 0, 0, 0, 1, 600, 4000, 8176, 8196, 0, 0][index].max(*word % 2) };
            page.put_u16(index * 2, value);
        }
        let _ = (page.check_header(), page.hole(), page.special().len(), page.heap_free_space(), page.verify_checksum(1));
        for (offset, item) in page.item_ids().collect::<Vec<_>>() {
            let _ = (page.item(offset), page.item_bytes(item));
        }
        for op in &ops {
            let _ = match op {
                Op::AddHeap(data) => page.add_item(data, Placement::Heap).map(|_| ()),
                Op::Insert(at, data) => page.add_item(data, Placement::Insert(*at)).map(|_| ()),
                Op::Overwrite(at, data) => page.overwrite_item(*at, data),
                Op::SetUnused(at) => page.set_item_id(*at, ItemId::UNUSED),
                Op::SetDead(at) => page.set_item_id(*at, ItemId::dead()),
                Op::Redirect(at, to) => page.set_item_id(*at, ItemId::redirect(*to)),
                Op::Repair => page.repair_fragmentation(),
                Op::TruncateLinePointers => page.truncate_line_pointers(),
                Op::Remove(offsets) => page.remove_items(offsets),
                Op::RemoveKeepOrder(at) => page.remove_item_keep_order(*at),
            };
        }
    }
}

/// A line pointer to the last bytes of the page, which no aligned item reaches: replacing the item wrote its padding out of the page.
#[test]
fn an_item_that_a_damaged_line_pointer_leads_to_is_not_overwritten() {
    let mut page = Page::boxed_zeroed();
    page.init(16);
    page.add_item(b"row", Placement::Heap).unwrap();
    for at in [PAGE_SIZE - 3, PAGE_SIZE - 16, HEADER_SIZE] {
        page.set_item_id(1, ItemId::normal(at, 3)).unwrap();
        let before = page.as_bytes().to_vec();
        let answer = page.overwrite_item(1, b"new");
        assert!(
            matches!(answer, Err(PageError::Corrupt(_))),
            "at {at}: {answer:?}"
        );
        assert_eq!(page.as_bytes()[..], before[..]);
    }
}
