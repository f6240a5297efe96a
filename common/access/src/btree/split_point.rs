//! Where to split a page: a pure choice over item sizes, after PostgreSQL's nbtsplitloc.c.
//!
//! Leaf splits prefer, among the points near the target fill, the one whose separator keeps the fewest attributes. The
//! target is half and half; on the rightmost page it leaves the left page at the index's fillfactor (ascending loads),
//! and on a page of one single value it leaves 96 %.

use towline_storage::page::HEADER_SIZE;
use towline_storage::{OffsetNumber, Page};

use super::key::KeyDescriptor;
use super::page::{HIGH_KEY, OPAQUE_SIZE, Opaque, item};
use super::tuple::{IndexTuple, TUPLE_HEADER};

/// How full an internal page stays when the rightmost one splits, in percent.
const INTERNAL_FILL: usize = 70;
/// How full a leaf of one single value stays, in percent.
const SINGLE_VALUE_FILL: usize = 96;
/// Bytes of a line pointer.
const LINE: usize = 4;
/// Bytes that a tie-breaking place may add to a leaf's high key.
const TIEBREAK: usize = 8;

/// The chosen point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SplitPoint {
    /// The first item of the old page (new item not counted) that goes right.
    pub(super) first_right: OffsetNumber,
    /// Whether the new item goes left; it then stands right before `first_right` if its offset is `first_right`.
    pub(super) new_on_left: bool,
}

#[derive(Clone, Copy)]
struct Candidate {
    point: SplitPoint,
    left_free: isize,
    right_free: isize,
}

/// What a split is chosen for.
pub(super) struct SplitInput<'a> {
    pub(super) key: &'a KeyDescriptor,
    pub(super) page: &'a Page,
    pub(super) opaque: Opaque,
    /// The item that did not fit.
    pub(super) new_item: &'a [u8],
    /// Where it would have gone.
    pub(super) new_offset: OffsetNumber,
    /// The index's fillfactor.
    pub(super) fillfactor: u8,
}

const fn max_align(len: usize) -> usize {
    (len + 7) & !7
}

impl SplitInput<'_> {
    fn size_at(&self, offset: OffsetNumber) -> usize {
        item(self.page, offset).map_or(0, |bytes| max_align(bytes.len())) + LINE
    }

    /// The last item on the left and the first on the right of `point`.
    fn neighbours(&self, point: SplitPoint) -> Option<(IndexTuple<'_>, IndexTuple<'_>)> {
        let new_here = point.first_right == self.new_offset;
        let left = if point.new_on_left && new_here {
            self.new_item
        } else {
            item(self.page, point.first_right.checked_sub(1)?)?
        };
        let right = if !point.new_on_left && new_here {
            self.new_item
        } else {
            item(self.page, point.first_right)?
        };
        Some((IndexTuple(left), IndexTuple(right)))
    }

    /// Attributes that the separator at `point` needs, one more than there are if the place too.
    fn penalty(&self, point: SplitPoint) -> usize {
        match self.neighbours(point) {
            Some((left, right)) if self.opaque.is_leaf() => self.key.distinguishing(left, right),
            Some((_, right)) => right.size(),
            None => usize::MAX,
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let leaf = self.opaque.is_leaf();
        let room = self.page.as_bytes().len() - HEADER_SIZE - max_align(OPAQUE_SIZE);
        let right_room = if self.opaque.is_rightmost() {
            room
        } else {
            room - self.size_at(HIGH_KEY)
        };
        let new_size = max_align(self.new_item.len()) + LINE;
        let (first, last) = (self.opaque.first_data(), self.page.max_offset());
        let total: usize = (first..=last).map(|offset| self.size_at(offset)).sum::<usize>() + new_size;

        let mut out = Vec::with_capacity(usize::from(last) + 2);
        let mut left = 0usize;
        let mut consider =
            |first_right: OffsetNumber, new_on_left: bool, left: usize, first_right_size: usize| {
                let mut left_free = room as isize - left as isize;
                let mut right_free = right_room as isize - (total - left) as isize;
                // The left page's high key is the first right item, at worst with a place.
                left_free -= (first_right_size + if leaf { TIEBREAK } else { 0 }) as isize;
                if !leaf {
                    right_free += first_right_size as isize - (TUPLE_HEADER + LINE) as isize;
                }
                if left_free >= 0 && right_free >= 0 {
                    out.push(Candidate {
                        point: SplitPoint {
                            first_right,
                            new_on_left,
                        },
                        left_free,
                        right_free,
                    });
                }
            };
        for offset in first..=last {
            let size = self.size_at(offset);
            if offset == self.new_offset {
                if left > 0 {
                    consider(offset, false, left, new_size);
                }
                left += new_size;
                consider(offset, true, left, size);
            } else if left > 0 {
                consider(offset, offset > self.new_offset, left, size);
            }
            left += size;
        }
        if self.new_offset > last {
            consider(last + 1, false, left, new_size);
        }
        out
    }

    /// The point, or `None` when the page cannot be split (no item is that large, so only on damage).
    pub(super) fn choose(&self) -> Option<SplitPoint> {
        let leaf = self.opaque.is_leaf();
        let mut all = self.candidates();
        if all.is_empty() {
            return None;
        }
        let fill = match (leaf, self.opaque.is_rightmost()) {
            (true, true) => Some(usize::from(self.fillfactor)),
            (false, true) => Some(INTERNAL_FILL),
            (_, false) => None,
        };
        sort_by_fill(&mut all, fill);
        let natts = self.key.columns.len();
        let near = if leaf { (all.len() / 20).clamp(3, 9) } else { 2 }.min(all.len());
        let (best, penalty) = self.lowest_penalty(&all[..near]);
        if !leaf || penalty <= natts {
            return Some(best);
        }
        // Every near point lies between equal keys. Look everywhere; if there is but one value, pack it.
        let (anywhere, penalty) = self.lowest_penalty(&all);
        if penalty <= natts {
            return Some(anywhere);
        }
        if self.opaque.is_rightmost() || self.new_offset > self.page.max_offset() {
            sort_by_fill(&mut all, Some(SINGLE_VALUE_FILL));
        } else {
            sort_by_fill(&mut all, None);
        }
        all.first().map(|candidate| candidate.point)
    }

    fn lowest_penalty(&self, candidates: &[Candidate]) -> (SplitPoint, usize) {
        let mut best = (candidates[0].point, usize::MAX);
        for candidate in candidates {
            let penalty = self.penalty(candidate.point);
            if penalty < best.1 {
                best = (candidate.point, penalty);
            }
            if penalty <= 1 && self.opaque.is_leaf() {
                break;
            }
        }
        best
    }
}

/// Best first: nearest to `fill` percent on the left, or to half and half.
fn sort_by_fill(candidates: &mut [Candidate], fill: Option<usize>) {
    candidates.sort_by_key(|candidate| {
        let (left, right) = (candidate.left_free, candidate.right_free);
        match fill {
            Some(percent) => {
                let percent = percent as isize;
                (percent * left - (100 - percent) * right).unsigned_abs()
            }
            None => (100 * (left - right)).unsigned_abs(),
        }
    });
}
