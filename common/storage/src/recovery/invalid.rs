//! Blocks that redo should have changed and did not find.
//!
//! That is right when a later record drops or cuts the relation: its files went before the crash, and its old records are still in
//! the log. So a missing block is noted, a drop or truncation takes the note away, and what is left when the data must be
//! consistent is damage: a file or a part of it was lost.

use hashbrown::HashMap;
use parking_lot::Mutex;
use towline_base::{BlockNumber, ForkKind, Lsn, PageId, RelFileNode};

/// The most notes that are kept; whoever loses more has lost the data directory.
const MAX_NOTES: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct InvalidPages {
    notes: Mutex<HashMap<PageId, Lsn>>,
}

impl InvalidPages {
    /// Redo of the record at `record` did not find `page`.
    pub(super) fn add(&self, page: PageId, record: Lsn) {
        let mut notes = self.notes.lock();
        if notes.len() < MAX_NOTES {
            notes.entry(page).or_insert(record);
        }
    }

    /// The relation was dropped, or its main fork cut to `blocks`.
    pub(super) fn forget_relation(&self, rel: RelFileNode, blocks: BlockNumber) {
        let mut notes = self.notes.lock();
        if notes.is_empty() {
            return;
        }
        let map_blocks = crate::vm::map_blocks(blocks);
        notes.retain(|page, _| {
            let kept = match page.fork {
                ForkKind::Vm => map_blocks,
                ForkKind::Main | ForkKind::Fsm | ForkKind::Init => blocks,
            };
            page.rel != rel || page.block < kept
        });
    }

    /// A note that is left, the one of the earliest record.
    pub(super) fn first(&self) -> Option<(PageId, Lsn)> {
        self.notes
            .lock()
            .iter()
            .map(|(page, lsn)| (*page, *lsn))
            .min_by_key(|(page, lsn)| (*lsn, *page))
    }
}
