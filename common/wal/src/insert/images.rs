//! [`ImagePolicy`]: how page images are made: `wal_compression` and `wal_consistency_checking`.
//!
//! The log has the node's policy; a session that has set either for itself lends its own to the thread it works on, for as long as
//! it works there ([`ImageOverride::enter`]).

use std::cell::Cell;
use std::marker::PhantomData;

use crate::format::Compression;
use crate::rmgr::Rmgr;

/// `wal_consistency_checking`: the resource managers whose records carry an image of each page after the change, for redo to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckedManagers(u8);

/// The managers that change pages by records that redo has to follow; an XLOG record's images are the pages.
const CHECKABLE: [Rmgr; 3] = [Rmgr::Heap, Rmgr::Heap2, Rmgr::Btree];

impl CheckedManagers {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(0b111);

    /// From the setting's text: `all`, or names with commas between them. Unknown words say nothing; the setting's check refuses them.
    pub fn parse(text: &str) -> Self {
        text.split(',')
            .map(str::trim)
            .fold(Self::NONE, |set, word| Self(set.0 | Self::of_word(word).0))
    }

    fn of_word(word: &str) -> Self {
        if word.eq_ignore_ascii_case("all") {
            return Self::ALL;
        }
        Rmgr::from_name(word).map_or(Self::NONE, Self::of)
    }

    fn of(rmgr: Rmgr) -> Self {
        let place = CHECKABLE.iter().position(|known| *known == rmgr);
        place.map_or(Self::NONE, |place| Self(1 << place))
    }

    /// Whether records of this manager are checked.
    pub fn contains(self, rmgr: Rmgr) -> bool {
        self.0 & Self::of(rmgr).0 != 0
    }
}

/// How the images of a log's records are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImagePolicy {
    /// `wal_compression`.
    pub compression: Compression,
    /// `wal_consistency_checking`.
    pub checked: CheckedManagers,
}

impl ImagePolicy {
    /// In one word, for an atomic.
    pub(super) fn to_bits(self) -> u16 {
        u16::from(self.checked.0) << 8 | u16::from(self.compression.flag())
    }

    /// Back from [`Self::to_bits`].
    pub(super) fn from_bits(bits: u16) -> Self {
        let flag = bits as u8;
        let known = [Compression::Lz4, Compression::Zstd];
        Self {
            compression: known
                .into_iter()
                .find(|method| method.flag() == flag)
                .unwrap_or_default(),
            checked: CheckedManagers((bits >> 8) as u8),
        }
    }

    /// With what the session on this thread has set for itself.
    pub(super) fn for_this_thread(self) -> Self {
        let own = SESSION.get();
        Self {
            compression: own.compression.unwrap_or(self.compression),
            checked: own.checked.unwrap_or(self.checked),
        }
    }
}

/// What a session has set for itself; what is `None` follows the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageOverride {
    /// `wal_compression`.
    pub compression: Option<Compression>,
    /// `wal_consistency_checking`.
    pub checked: Option<CheckedManagers>,
}

thread_local! {
    static SESSION: Cell<ImageOverride> = const {
        Cell::new(ImageOverride { compression: None, checked: None })
    };
}

impl ImageOverride {
    /// Applies to the records that this thread inserts until the guard is dropped.
    #[must_use = "it ends when the guard is dropped"]
    pub fn enter(self) -> ImageOverrideGuard {
        ImageOverrideGuard {
            before: SESSION.replace(self),
            of_this_thread: PhantomData,
        }
    }
}

/// See [`ImageOverride::enter`]. Not to be taken to another thread.
#[derive(Debug)]
pub struct ImageOverrideGuard {
    before: ImageOverride,
    of_this_thread: PhantomData<*const ()>,
}

impl Drop for ImageOverrideGuard {
    fn drop(&mut self) {
        SESSION.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_names_managers_or_all() {
        let heap = CheckedManagers::parse("heap");
        assert!(heap.contains(Rmgr::Heap) && !heap.contains(Rmgr::Heap2) && !heap.contains(Rmgr::Btree));
        assert_eq!(CheckedManagers::parse("Heap2 , BTREE,heap"), CheckedManagers::ALL);
        assert_eq!(CheckedManagers::parse(" all"), CheckedManagers::ALL);
        assert_eq!(CheckedManagers::parse(""), CheckedManagers::NONE);
        assert!(!CheckedManagers::ALL.contains(Rmgr::Xlog));
        for word in towline_base::settings::CHECKED_MANAGERS {
            assert_ne!(CheckedManagers::parse(word), CheckedManagers::NONE, "{word}");
        }
    }

    #[test]
    fn a_sessions_policy_ends_with_its_guard() {
        let node = ImagePolicy {
            compression: Compression::Lz4,
            checked: CheckedManagers::parse("btree"),
        };
        assert_eq!(ImagePolicy::from_bits(node.to_bits()), node);
        let own = ImageOverride {
            compression: Some(Compression::Zstd),
            checked: None,
        };
        let guard = own.enter();
        let expected = ImagePolicy {
            compression: Compression::Zstd,
            ..node
        };
        assert_eq!(node.for_this_thread(), expected);
        drop(guard);
        assert_eq!(node.for_this_thread(), node);
    }
}
