//! Fuzzers of what storage reads from disk: pages, the visibility map, the control file, dumps. A page may say anything; no accessor
//! leaves it. `towline_base::testing` says how to run them longer and how to repeat a case.
#![allow(clippy::unwrap_used)]

use towline_base::testing::{Case, WatchedAllocator, fuzz};
use towline_base::{Incarnation, Lsn, PAGE_SIZE, SystemId, TimelineId, TimelineNumber};
use towline_storage::control::{self, COPY_SIZE};
use towline_storage::pagedump::{NoDetail, dump_page};
use towline_storage::{ControlData, ItemId, Page, Placement, vm};

#[global_allocator]
static ALLOCATOR: WatchedAllocator = WatchedAllocator;

/// A page as heap or index code fills it, then damaged; half of the time only where bounds and line pointers stand.
fn damaged_page(case: &mut Case) -> Box<Page> {
    let mut page = Page::boxed_zeroed();
    page.init(*case.pick(&[0, 16]));
    for _ in 0..case.below(60) {
        let count = 1 + case.below(200);
        let data = case.bytes(count);
        if page.add_item(&data, Placement::Heap).is_err() {
            break;
        }
    }
    for _ in 0..case.below(5) {
        let offset = case.below(60) as u16;
        let target = case.below(300) as u16;
        let item = *case.pick(&[ItemId::UNUSED, ItemId::dead(), ItemId::redirect(target)]);
        let _ = page.set_item_id(offset, item);
    }
    let bytes = page.as_bytes_mut();
    match case.below(4) {
        0 => {}
        1 => case.mutate_in_place(&mut bytes[8..24]),
        2 => case.mutate_in_place(&mut bytes[12..280]),
        _ => case.mutate_in_place(bytes),
    }
    page
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_page_of_any_bytes_is_read_and_changed_within_its_bounds() {
    fuzz("page", 200_000, |case| {
        let mut page = damaged_page(case);
        let _ = (
            page.check_header(),
            page.verify_checksum(case.border() as u32),
            page.hole(),
        );
        for (offset, item) in page.item_ids() {
            let _ = (page.item(offset), page.item_bytes(item), item.state());
        }
        for _ in 0..1 + case.below(4) {
            let offset = if case.one_in(3) {
                case.border() as u16
            } else {
                case.below(70) as u16
            };
            let count = if case.one_in(6) {
                case.below(2 * PAGE_SIZE)
            } else {
                case.below(300)
            };
            let data = vec![7; count];
            let _ = match case.below(9) {
                0 => page.add_item(&data, Placement::Heap).map(drop),
                1 => page.add_item(&data, Placement::At(offset)).map(drop),
                2 => page.add_item(&data, Placement::Insert(offset)).map(drop),
                3 => page.overwrite_item(offset, &data),
                4 => page.repair_fragmentation(),
                5 => page.truncate_line_pointers(),
                6 => page.remove_item_keep_order(offset),
                7 => {
                    let mut offsets: Vec<u16> = (0..case.below(5)).map(|_| case.below(70) as u16).collect();
                    if case.one_in(2) {
                        offsets.sort_unstable();
                    }
                    page.remove_items(&offsets)
                }
                _ => {
                    page.item_mut(offset).unwrap_or_default().fill(1);
                    page.special_mut().fill(2);
                    Ok(())
                }
            };
            let _ = (
                page.free_space(),
                page.heap_free_space(),
                page.max_offset(),
                page.is_all_zero(),
            );
        }
        dump_page(&page, 0, &NoDetail, &mut String::new());
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_map_page_of_any_bytes_has_bits_for_every_block() {
    fuzz("visibility map", 200_000, |case| {
        let mut page = Page::boxed_zeroed();
        case.mutate_in_place(page.as_bytes_mut());
        let block = case.border() as u32;
        let bits = case.next_u64() as u8;
        let before = vm::get(&page, block);
        vm::set(&mut page, block, bits);
        assert_eq!(vm::get(&page, block), before | (bits & vm::VALID_BITS));
        vm::clear(&mut page, block, vm::VALID_BITS);
        assert_eq!(vm::get(&page, block), 0);
        vm::clear_from(&mut page, block);
    });
}

fn control_data() -> ControlData {
    let timeline = TimelineId {
        number: TimelineNumber(3),
        incarnation: Incarnation([7; 16]),
    };
    let mut data = ControlData::new(SystemId(42), timeline, 16 << 20, true);
    data.checkpoint.redo = Lsn(0x100_0028);
    data.checkpoint.lsn = Lsn(0x100_0100);
    data.checkpoint.end = Lsn(0x100_0178);
    data
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_control_file_of_any_bytes_is_refused_or_told() {
    let copy = control::encode(&control_data(), 9);
    fuzz("control file", 200_000, |case| {
        let mut bytes = vec![0; 2 * COPY_SIZE];
        for at in [0, COPY_SIZE] {
            let mut copy = copy.clone();
            case.mutate_in_place(&mut copy);
            if case.one_in(2) {
                let end = copy.len() - 4;
                let crc = crc32c::crc32c(&copy[..end]);
                copy[end..].copy_from_slice(&crc.to_le_bytes());
            }
            bytes[at..at + copy.len()].copy_from_slice(&copy);
        }
        if case.one_in(3) {
            case.mutate(&mut bytes);
        }
        if let Ok((_, data)) = control::choose(&bytes) {
            assert!(!data.to_string().is_empty());
            assert!(data.checkpoint.redo <= data.checkpoint.end);
        }
    });
}
