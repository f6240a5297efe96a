//! How many frames hold pages above the quorum, cheaply: an upper bound from the distance in WAL, a count when that is not enough.
//!
//! Every changed page costs at least [`MIN_WAL_PER_PAGE`] bytes of WAL, so few bytes above the quorum prove few such frames. Only
//! when they do not, the frames are counted, and the count stays good for as many bytes as are missing to the limit.

use super::BufferPool;
use super::frame::{DIRTY, TAGGED};
use crate::error::{StorageError, StorageResult};
use parking_lot::Mutex;
use towline_base::Lsn;

use std::sync::atomic::{AtomicU64, Ordering};

/// Fewest WAL bytes that a record spends per page that it changes: a record has 24 bytes and each block reference 4 or more.
const MIN_WAL_PER_PAGE: u64 = 12;

pub(super) struct RoomEstimate {
    /// Frames that may hold pages above the quorum: three quarters of the pool.
    limit: u64,
    /// Below this insert position the limit cannot be reached.
    safe_until: AtomicU64,
    counting: Mutex<()>,
}

impl RoomEstimate {
    pub(super) fn new(frames: usize) -> RoomEstimate {
        RoomEstimate {
            limit: frames as u64 / 4 * 3,
            safe_until: AtomicU64::new(0),
            counting: Mutex::new(()),
        }
    }
}

impl BufferPool {
    /// Whether one more change may be made when WAL is inserted up to `insert`. [`StorageError::NeedsQuorum`] names the position
    /// that the quorum must reach first. Asked before anything is latched.
    #[inline]
    pub fn quorum_room(&self, insert: Lsn) -> StorageResult<()> {
        if insert.0 <= self.room.safe_until.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.count_above_quorum(insert)
    }

    #[cold]
    fn count_above_quorum(&self, insert: Lsn) -> StorageResult<()> {
        let quorum = self.quorum.get();
        let by_distance = insert.distance_from(quorum) / MIN_WAL_PER_PAGE;
        if by_distance * 2 < self.room.limit {
            let safe = quorum.saturating_add(self.room.limit * MIN_WAL_PER_PAGE);
            self.room.safe_until.fetch_max(safe.0, Ordering::Relaxed);
            return Ok(());
        }
        let _counting = self.room.counting.lock();
        if insert.0 <= self.room.safe_until.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut count = 0;
        let mut lowest = Lsn::MAX;
        for frame in self.frames.as_slice() {
            let state = frame.state.load(Ordering::Relaxed);
            let lsn = Lsn(frame.page_lsn.load(Ordering::Relaxed));
            if state & (DIRTY | TAGGED) == DIRTY | TAGGED && lsn > quorum {
                count += 1;
                lowest = lowest.min(lsn);
            }
        }
        // A little below the limit, so that a full pool is not counted again for every change.
        let slack = self.room.limit / 64 + 1;
        if count + slack < self.room.limit {
            let safe = insert.saturating_add((self.room.limit - count) * MIN_WAL_PER_PAGE);
            self.room.safe_until.fetch_max(safe.0, Ordering::Relaxed);
            return Ok(());
        }
        Err(StorageError::NeedsQuorum(lowest))
    }
}
