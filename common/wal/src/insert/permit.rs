//! [`WritePermit`]: the capability to write the log, one timeline at a time.
//!
//! I6: a timeline has one writer. Only the primary role (and `init`) holds a [`PermitIssuer`]; every insertion shows a
//! permit, and a revoked one is refused at the next insertion, however many sessions still hold it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use towline_base::TimelineId;

/// Hands out permits for one timeline, and takes them all back at once.
#[derive(Debug)]
pub struct PermitIssuer {
    timeline: TimelineId,
    revoked: Arc<AtomicBool>,
}

impl PermitIssuer {
    /// For the timeline that this node has just opened as its writer.
    pub fn new(timeline: TimelineId) -> Self {
        Self {
            timeline,
            revoked: Arc::new(AtomicBool::new(false)),
        }
    }

    /// A permit; clones share its fate.
    pub fn issue(&self) -> WritePermit {
        WritePermit {
            timeline: self.timeline,
            revoked: Arc::clone(&self.revoked),
        }
    }

    /// Takes back every permit of this issuer, for ever.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    /// The timeline it is for.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }
}

impl Drop for PermitIssuer {
    fn drop(&mut self) {
        self.revoke();
    }
}

/// The right to insert records on one timeline.
#[derive(Debug, Clone)]
pub struct WritePermit {
    timeline: TimelineId,
    revoked: Arc<AtomicBool>,
}

impl WritePermit {
    /// The timeline it is for.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// False once the issuer took it back.
    #[inline]
    pub fn is_valid(&self) -> bool {
        !self.revoked.load(Ordering::Acquire)
    }
}
