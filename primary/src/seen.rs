//! The highest timeline number that a standby's handshake has told this node of.
//!
//! A standby may have followed a timeline that this node's own log knows nothing of, when the node was started from an old copy of its data.
//! The next start opens a timeline above every number seen: two timelines of one number would be two histories (A11).
//!
//! ```text
//! towline.seen   8 magic "TWSEEN\r\n"   4 version 1   4 timeline number   4 CRC-32C of all before
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use towline_base::codec::{CodecError, seal, unseal};
use towline_base::{TimelineNumber, Vfs};

/// The file's name in the data directory.
pub const SEEN_FILE: &str = "towline.seen";
const MAGIC: &[u8; 8] = b"TWSEEN\r\n";
const VERSION: u32 = 1;
const MAX_FILE: u64 = 4096;
/// A number farther above one's own is not believed: each start takes one number, and a garbled one would use up those that are left.
const MAX_LEAP: u32 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct SeenTimelines {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    highest: Mutex<Option<TimelineNumber>>,
}

impl SeenTimelines {
    /// Reads what was seen; no file means nothing.
    ///
    /// # Errors
    /// When the file cannot be read, or is damaged ([`io::ErrorKind::InvalidData`]).
    pub fn open(vfs: Arc<dyn Vfs>, data_dir: &Path) -> io::Result<Arc<SeenTimelines>> {
        let path = data_dir.join(SEEN_FILE);
        let highest = match vfs.read_file(&path, MAX_FILE) {
            Ok(bytes) => Some(decode(&bytes).map_err(|error| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is damaged: {error}", path.display()),
                )
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Arc::new(SeenTimelines {
            vfs,
            path,
            highest: Mutex::new(highest),
        }))
    }

    /// The highest number seen, if any.
    pub fn highest(&self) -> Option<TimelineNumber> {
        *self.highest.lock()
    }

    /// Remembers a number above `own`, durably. False when it is too far above to be believed. Blocks when it writes.
    ///
    /// # Errors
    /// When it could not be stored.
    pub fn note(&self, seen: TimelineNumber, own: TimelineNumber) -> io::Result<bool> {
        if seen <= own {
            return Ok(true);
        }
        if seen.0 - own.0 > MAX_LEAP {
            return Ok(false);
        }
        let mut highest = self.highest.lock();
        if highest.is_none_or(|known| known < seen) {
            self.vfs.write_file_atomically(&self.path, &encode(seen))?;
            *highest = Some(seen);
        }
        Ok(true)
    }
}

fn encode(number: TimelineNumber) -> Vec<u8> {
    seal(MAGIC, VERSION, |body| {
        body.u32(number.0);
    })
}

fn decode(bytes: &[u8]) -> Result<TimelineNumber, CodecError> {
    let mut reader = unseal(bytes, MAGIC, VERSION)?;
    let number = TimelineNumber(reader.u32()?);
    reader.finish()?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towline_base::vfs::{CrashVfs, Unsynced};

    const DIR: &str = "/data";

    fn disk() -> CrashVfs {
        let vfs = CrashVfs::new();
        vfs.create_dir_all(Path::new(DIR)).unwrap();
        vfs.sync_dir(Path::new("/")).unwrap();
        vfs
    }

    fn open(vfs: &CrashVfs) -> Arc<SeenTimelines> {
        SeenTimelines::open(vfs.shared(), Path::new(DIR)).unwrap()
    }

    #[test]
    fn the_highest_number_survives_a_crash() {
        let vfs = disk();
        let (seen, own) = (open(&vfs), TimelineNumber(3));
        assert_eq!(seen.highest(), None);
        for number in [2, 3] {
            assert!(seen.note(TimelineNumber(number), own).unwrap());
            assert_eq!(seen.highest(), None, "{number} is not above one's own");
        }
        for number in [7, 5] {
            assert!(seen.note(TimelineNumber(number), own).unwrap());
        }
        let again = open(&vfs.after_crash(Unsynced::Lost, 0));
        assert_eq!(again.highest(), Some(TimelineNumber(7)));
    }

    #[test]
    fn a_number_far_beyond_ones_own_is_not_believed() {
        let vfs = disk();
        let seen = open(&vfs);
        for number in [u32::MAX, MAX_LEAP + 4] {
            assert!(!seen.note(TimelineNumber(number), TimelineNumber(3)).unwrap());
        }
        assert_eq!(open(&vfs).highest(), None);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let vfs = disk();
        open(&vfs).note(TimelineNumber(7), TimelineNumber(3)).unwrap();
        let path = Path::new(DIR).join(SEEN_FILE);
        let whole = vfs.read_file(&path, MAX_FILE).unwrap();
        for cut in 0..whole.len() {
            assert!(decode(&whole[..cut]).is_err());
            let mut flipped = whole.clone();
            flipped[cut] ^= 0x20;
            assert!(decode(&flipped).is_err());
        }
        vfs.write_file_atomically(&path, &whole[1..]).unwrap();
        let refused = SeenTimelines::open(vfs.shared(), Path::new(DIR)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert!(refused.to_string().contains(SEEN_FILE), "{refused}");
    }
}
