//! [`WalBytes`]: the log as bytes, for walsenders that have fallen behind the WAL buffers, and for archives.

use std::io;

use towline_base::Lsn;

use super::{Pages, WalSource};
use crate::timeline::TimelineHistory;

/// Reads raw bytes of the log out of segment files. Whether they are durable, or good, is the caller's to know: it asks for
/// nothing behind a published position.
#[derive(Debug)]
pub struct WalBytes {
    pages: Pages,
}

impl WalBytes {
    /// Over these segments.
    pub fn new(source: WalSource) -> Self {
        Self {
            pages: Pages::new(source),
        }
    }

    /// Appends the bytes from `from` on to `out`, at most up to `to` and at most `max` of them; returns how many. It may stop at a
    /// segment's end.
    ///
    /// # Errors
    /// `NotFound` when the segment is not there any more (recycled: a slot was lost), or no timeline of the history holds the range.
    pub fn read(&mut self, from: Lsn, to: Lsn, max: usize, out: &mut Vec<u8>) -> io::Result<usize> {
        let size = self.pages.source().segment_size;
        let to = to
            .min(from.saturating_add(max as u64))
            .min(size.end(size.segment_of(from)));
        // Not beyond the range of the timeline that the first byte belongs to: its file ends being true there.
        let history = &self.pages.source().history;
        let range_end = history
            .end_of(history.timeline_at(from).number)
            .unwrap_or(Lsn::MAX);
        let to = to.min(range_end);
        let before = out.len();
        self.pages.copy_raw(from, to, |bytes, _| {
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        // A segment's name goes before its contents change: what was read counts only if the name is still there.
        if !self.pages.file_is_there()? {
            out.truncate(before);
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("the WAL segment of {from} was recycled"),
            ));
        }
        Ok(out.len() - before)
    }

    /// Follows a longer history from now on.
    pub fn set_history(&mut self, history: TimelineHistory) {
        self.pages.set_history(history);
    }
}
