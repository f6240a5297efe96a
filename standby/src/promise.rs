//! What this standby has promised: the highest timeline that it has accepted, and the version of the sync set it was last told.
//!
//! - I3: stored before anything of that timeline is written, and so before anything of it is acknowledged.
//! - It never goes back. A primary on a lower timeline, or on another one of the same number, is not followed (A11).
//! - A6: a promise belongs to the incarnation of the node that gave it. The file of another one, copied here or left behind by a
//!   database that was wiped, counts for nothing.
//!
//! ```text
//! towline.promise   8 magic "TWPROM\r\n"   4 version 1   4 timeline number   16 timeline incarnation
//!                   8 sync set version   16 node's incarnation   4 CRC-32C of all before
//! ```

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use towline_base::codec::{CodecError, seal, unseal};
use towline_base::{Incarnation, NodeId, TimelineId, TimelineNumber, Vfs};
use towline_proto::may_follow;

/// The file's name in the data directory.
pub const PROMISE_FILE: &str = "towline.promise";
const MAGIC: &[u8; 8] = b"TWPROM\r\n";
const VERSION: u32 = 1;
const MAX_FILE: u64 = 4096;

/// What a standby has promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promise {
    /// The highest timeline it has accepted.
    pub timeline: TimelineId,
    /// Version of the sync set that it was last told.
    pub sync_set_version: u64,
}

/// Why a promise was not given.
#[derive(Debug)]
pub enum PromiseError {
    /// An earlier promise forbids the timeline.
    Refused {
        /// The timeline promised before.
        promised: TimelineId,
        /// The one offered.
        offered: TimelineId,
    },
    /// It could not be stored.
    Io(io::Error),
}

impl fmt::Display for PromiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PromiseError::Refused { promised, offered } => write!(
                f,
                "the primary is on timeline {offered} ({}), and this standby has followed timeline {promised} ({}): the primary was \
                 started from an old copy of its data directory",
                offered.incarnation, promised.incarnation
            ),
            PromiseError::Io(error) => write!(f, "the promise could not be stored: {error}"),
        }
    }
}

impl std::error::Error for PromiseError {}

/// The promise and its file.
#[derive(Debug)]
pub struct PromiseFile {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    owner: Incarnation,
    held: Mutex<Promise>,
}

impl PromiseFile {
    /// Reads the promise of `node` in a data directory whose log follows `followed`.
    ///
    /// # Errors
    /// When the file cannot be read, or is damaged ([`io::ErrorKind::InvalidData`]): then nobody knows what was promised.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        data_dir: &Path,
        node: &NodeId,
        followed: TimelineId,
    ) -> io::Result<PromiseFile> {
        let path = data_dir.join(PROMISE_FILE);
        let mut held = Promise {
            timeline: followed,
            sync_set_version: 0,
        };
        match vfs.read_file(&path, MAX_FILE) {
            Ok(bytes) => {
                let (owner, promise) = decode(&bytes).map_err(|error| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{PROMISE_FILE} is damaged: {error}"),
                    )
                })?;
                if owner == node.incarnation && promise.timeline.number >= followed.number {
                    held = promise;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(PromiseFile {
            vfs,
            path,
            owner: node.incarnation,
            held: Mutex::new(held),
        })
    }

    /// What is promised now.
    pub fn get(&self) -> Promise {
        *self.held.lock()
    }

    /// Accepts a timeline and a version of the sync set, durably. Nothing is written when both are known. Blocks.
    ///
    /// # Errors
    /// When an earlier promise forbids the timeline, or it cannot be stored; then it counts as not given.
    pub fn give(&self, timeline: TimelineId, sync_set_version: u64) -> Result<(), PromiseError> {
        let mut held = self.held.lock();
        if !may_follow(held.timeline, timeline) {
            return Err(PromiseError::Refused {
                promised: held.timeline,
                offered: timeline,
            });
        }
        let wanted = Promise {
            timeline,
            sync_set_version: held.sync_set_version.max(sync_set_version),
        };
        if *held != wanted {
            let bytes = encode(self.owner, &wanted);
            self.vfs
                .write_file_atomically(&self.path, &bytes)
                .map_err(PromiseError::Io)?;
            *held = wanted;
        }
        Ok(())
    }
}

fn encode(owner: Incarnation, promise: &Promise) -> Vec<u8> {
    seal(MAGIC, VERSION, |body| {
        body.u32(promise.timeline.number.0)
            .bytes(&promise.timeline.incarnation.0)
            .u64(promise.sync_set_version)
            .bytes(&owner.0);
    })
}

fn decode(bytes: &[u8]) -> Result<(Incarnation, Promise), CodecError> {
    let mut reader = unseal(bytes, MAGIC, VERSION)?;
    let timeline = TimelineId {
        number: TimelineNumber(reader.u32()?),
        incarnation: Incarnation(reader.array()?),
    };
    let sync_set_version = reader.u64()?;
    let owner = Incarnation(reader.array()?);
    reader.finish()?;
    Ok((
        owner,
        Promise {
            timeline,
            sync_set_version,
        },
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towline_base::vfs::{CrashVfs, Unsynced};

    const DIR: &str = "/data";

    fn timeline(number: u32, incarnation: u8) -> TimelineId {
        TimelineId {
            number: TimelineNumber(number),
            incarnation: Incarnation([incarnation; 16]),
        }
    }

    fn node(incarnation: u8) -> NodeId {
        NodeId {
            name: "s1".into(),
            incarnation: Incarnation([incarnation; 16]),
        }
    }

    fn disk() -> CrashVfs {
        let vfs = CrashVfs::new();
        vfs.create_dir_all(Path::new(DIR)).unwrap();
        vfs.sync_dir(Path::new("/")).unwrap();
        vfs
    }

    fn open(vfs: &CrashVfs, owner: u8, followed: TimelineId) -> PromiseFile {
        PromiseFile::open(vfs.shared(), Path::new(DIR), &node(owner), followed).unwrap()
    }

    #[test]
    fn a_promise_survives_a_crash_and_never_goes_back() {
        let vfs = disk();
        let promise = open(&vfs, 1, timeline(3, 3));
        promise.give(timeline(5, 5), 70).unwrap();
        promise.give(timeline(5, 5), 60).unwrap();
        let again = open(&vfs.after_crash(Unsynced::Lost, 0), 1, timeline(3, 3));
        let known = Promise {
            timeline: timeline(5, 5),
            sync_set_version: 70,
        };
        assert_eq!(again.get(), known);
        for offered in [timeline(4, 4), timeline(5, 9)] {
            let refused = again.give(offered, 80).unwrap_err();
            assert!(refused.to_string().contains("old copy"), "{refused}");
        }
        assert_eq!(again.get(), known, "a refusal changes nothing");
        again.give(timeline(6, 1), 80).unwrap();
        assert_eq!(again.get().timeline, timeline(6, 1));
    }

    #[test]
    fn without_a_file_what_the_log_follows_is_promised() {
        let promise = open(&disk(), 1, timeline(3, 3));
        assert_eq!(promise.get().timeline, timeline(3, 3));
        assert!(promise.give(timeline(2, 2), 0).is_err());
    }

    #[test]
    fn the_promise_of_another_incarnation_counts_for_nothing() {
        let vfs = disk();
        open(&vfs, 1, timeline(3, 3)).give(timeline(9, 9), 1).unwrap();
        assert_eq!(open(&vfs, 2, timeline(4, 4)).get().timeline, timeline(4, 4));
    }

    #[test]
    fn a_damaged_promise_is_no_promise_to_start_with() {
        let vfs = disk();
        open(&vfs, 1, timeline(3, 3)).give(timeline(4, 4), 1).unwrap();
        let path = Path::new(DIR).join(PROMISE_FILE);
        let whole = vfs.read_file(&path, 4096).unwrap();
        for cut in 0..whole.len() {
            assert!(decode(&whole[..cut]).is_err());
            let mut flipped = whole.clone();
            flipped[cut] ^= 0x20;
            assert!(decode(&flipped).is_err());
        }
        vfs.write_file_atomically(&path, &whole[1..]).unwrap();
        let refused = PromiseFile::open(vfs.shared(), Path::new(DIR), &node(1), timeline(3, 3)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }
}
