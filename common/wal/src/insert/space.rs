//! Space in the WAL buffers: credits, the floor that readers hold down, and the capacity between them.
//!
//! Everything is counted in usable byte positions. The rule that keeps the ring safe: a reservation never ends more than
//! `capacity` above the floor. A credit checks it before the reservation, counting itself first and looking at the floor
//! afterwards; a reader registers its pin first and looks at what is promised afterwards. Both are sequentially consistent, so
//! at least one of the two sees the other (Dekker's argument): the creditor backs off, or the reader does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::format::{BytePosition, PositionMap, WAL_PAGE};

/// Shared by the log and its credits.
#[derive(Debug)]
pub(crate) struct Space {
    /// End of all reserved space; raised under the reservation lock only.
    pub(crate) reserved: CachePadded<AtomicU64>,
    /// Sum of the credits that are out.
    outstanding: CachePadded<AtomicU64>,
    /// What is below is in the file.
    written: CachePadded<AtomicU64>,
    /// The lowest pin, or `u64::MAX`.
    lowest_pin: AtomicU64,
    pins: Mutex<SmallVec<[u64; 8]>>,
    capacity: u64,
}

/// Space promised to one record. Dropped, it goes back; an insertion drops it after its reservation.
#[derive(Debug)]
pub struct Credit {
    space: Arc<Space>,
    bytes: u32,
}

/// Why no credit was given. Nothing is latched yet, so the caller waits and tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Room comes when everything below this position is written.
    Until(BytePosition),
    /// Never: the most that is given.
    TooLarge(u32),
}

impl Space {
    /// For a ring of `ring_size` bytes, empty at `start`.
    pub(crate) fn new(ring_size: usize, start: BytePosition) -> Self {
        let capacity = Self::capacity_of(ring_size);
        Self {
            reserved: CachePadded::new(AtomicU64::new(start.0)),
            outstanding: CachePadded::new(AtomicU64::new(0)),
            written: CachePadded::new(AtomicU64::new(start.0)),
            lowest_pin: AtomicU64::new(u64::MAX),
            pins: Mutex::new(SmallVec::new()),
            capacity,
        }
    }

    /// Usable bytes that span at most a ring, headers included, wherever they begin.
    fn capacity_of(ring_size: usize) -> u64 {
        let capacity = (ring_size as u64 / WAL_PAGE as u64 - 3) * (WAL_PAGE as u64 - 32);
        assert!(
            PositionMap::worst_case(capacity) <= ring_size as u64,
            "capacity fits the ring"
        );
        capacity
    }

    /// The largest credit: half the buffers, so that one large record cannot starve the others.
    pub(crate) fn max_credit(&self) -> u32 {
        u32::try_from(self.capacity / 2).unwrap_or(u32::MAX)
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    fn floor(&self) -> u64 {
        self.written
            .load(Ordering::Acquire)
            .min(self.lowest_pin.load(Ordering::SeqCst))
    }

    /// The end of everything reserved or promised, by those to whom a credit is given: at most the buffers behind what is reserved.
    pub(crate) fn promised_end(&self) -> BytePosition {
        let bound = self.reserved.load(Ordering::SeqCst) + self.capacity;
        BytePosition(self.promised().min(bound))
    }

    /// The end of everything reserved or promised. Credits are read first: one that is spent in between is then counted twice,
    /// never not at all.
    fn promised(&self) -> u64 {
        let outstanding = self.outstanding.load(Ordering::SeqCst);
        self.reserved.load(Ordering::SeqCst) + outstanding
    }

    pub(crate) fn credit(self: &Arc<Self>, bytes: u32) -> Result<Credit, Refused> {
        if bytes > self.max_credit() {
            return Err(Refused::TooLarge(self.max_credit()));
        }
        self.outstanding.fetch_add(u64::from(bytes), Ordering::SeqCst);
        let credit = Credit {
            space: Arc::clone(self),
            bytes,
        };
        fence(Ordering::SeqCst);
        let promised = self.promised();
        if promised <= self.floor() + self.capacity {
            return Ok(credit);
        }
        let wanted = (promised - self.capacity).min(self.reserved.load(Ordering::Acquire));
        if wanted <= self.written.load(Ordering::Acquire) {
            // Only other credits or a reader's pin are in the way, both gone in microseconds.
            drop(credit);
            std::thread::yield_now();
        }
        Err(Refused::Until(BytePosition(wanted)))
    }

    /// Everything below is in the file.
    pub(crate) fn advance_written(&self, position: BytePosition) {
        self.written.store(position.0, Ordering::Release);
    }

    /// Keeps the bytes from `from` on in the buffers; `None` when they may be overwritten already.
    pub(crate) fn pin(&self, from: BytePosition) -> Option<Pin<'_>> {
        // Asked first without a pin: one far below would turn credits away for nothing.
        if self.promised() > from.0.saturating_add(self.capacity) {
            return None;
        }
        let mut pins = self.pins.lock();
        pins.push(from.0);
        self.store_lowest(&pins);
        drop(pins);
        let pin = Pin {
            space: self,
            position: from.0,
        };
        fence(Ordering::SeqCst);
        (self.promised() <= from.0.saturating_add(self.capacity)).then_some(pin)
    }

    fn store_lowest(&self, pins: &[u64]) {
        self.lowest_pin
            .store(pins.iter().copied().min().unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Makes every further credit fail, when none is out. For a segment switch, which jumps over space.
    pub(crate) fn freeze(&self) -> Option<Frozen<'_>> {
        const ALL: u64 = 1 << 62;
        let before = self.outstanding.fetch_add(ALL, Ordering::SeqCst);
        let frozen = Frozen {
            space: self,
            amount: ALL,
        };
        (before == 0).then_some(frozen)
    }
}

impl Credit {
    /// Usable bytes it covers.
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    pub(crate) fn is_of(&self, space: &Arc<Space>) -> bool {
        Arc::ptr_eq(&self.space, space)
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.space
            .outstanding
            .fetch_sub(u64::from(self.bytes), Ordering::SeqCst);
    }
}

/// Holds the floor down.
#[derive(Debug)]
pub(crate) struct Pin<'a> {
    space: &'a Space,
    position: u64,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut pins = self.space.pins.lock();
        if let Some(index) = pins.iter().position(|pin| *pin == self.position) {
            pins.swap_remove(index);
        }
        self.space.store_lowest(&pins);
    }
}

/// No credit is given while it lives.
#[derive(Debug)]
pub(crate) struct Frozen<'a> {
    space: &'a Space,
    amount: u64,
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.space.outstanding.fetch_sub(self.amount, Ordering::SeqCst);
    }
}
