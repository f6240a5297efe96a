//! [`Slots`]: replication slots, which keep WAL for a standby that is away.
//!
//! Each slot is a small file, replaced atomically. What retention sees of a slot is what is in its file: a
//! crash never makes a slot forget that it needed older WAL. Files are written when a checkpoint asks
//! ([`Slots::save`]), not with every ack.
//!
//! ```text
//! slots/<name>   8 magic "TWSLOT\r\n"   4 version 1   4 flags (1 = lost)   8 restart LSN
//!                name, owner's name (each 2 length, bytes)   16 owner's incarnation   4 CRC-32C of all before
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use towline_access::cluster::SlotRow;
use towline_access::engine::RetentionHooks;
use towline_base::codec::{CodecError, seal, unseal};
use towline_base::limits::{MAX_NAME_BYTES, MAX_SLOTS};
use towline_base::{Incarnation, Lsn, NodeId, Vfs};
use towline_proto::UNFINISHED_RECORD;
use towline_storage::CheckpointInfo;

const MAGIC: &[u8; 8] = b"TWSLOT\r\n";
const VERSION: u32 = 1;
const LOST: u32 = 1;
const MAX_FILE: u64 = 4096;

/// Why a slot could not be made or used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SlotError {
    /// Not a slot's name.
    BadName(String),
    /// There are as many as there may be.
    TooMany,
    /// There is none of this name.
    NotFound(String),
    /// Another connection uses it.
    InUse(String),
    /// WAL that it needed is gone.
    Lost(String),
    /// Its file could not be written.
    Io(String),
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotError::BadName(name) => write!(f, "\"{name}\" is not a valid replication slot name"),
            SlotError::TooMany => write!(
                f,
                "there are {MAX_SLOTS} replication slots, the most there may be; drop one that no standby uses"
            ),
            SlotError::NotFound(name) => write!(f, "replication slot \"{name}\" does not exist"),
            SlotError::InUse(name) => write!(f, "replication slot \"{name}\" is in use"),
            SlotError::Lost(name) => write!(f, "replication slot \"{name}\" has lost WAL that it needed"),
            SlotError::Io(error) => write!(f, "replication slot file: {error}"),
        }
    }
}

impl std::error::Error for SlotError {}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Persistent {
    name: String,
    owner: NodeId,
    restart: Lsn,
    lost: bool,
}

#[derive(Debug)]
struct Slot {
    saved: Persistent,
    /// What the standby has confirmed; ahead of `saved.restart`.
    confirmed: Lsn,
    active: Option<i32>,
    /// Its file is being removed: nobody takes it into use any more.
    dropping: bool,
}

/// `wal_status` of pg_replication_slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalStatus {
    /// Within what is kept anyway.
    Reserved,
    /// Kept for the slot.
    Extended,
    /// Beyond what may be kept: the next checkpoint loses it.
    Unreserved,
    /// Gone.
    Lost,
}

impl WalStatus {
    /// PostgreSQL's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            WalStatus::Reserved => "reserved",
            WalStatus::Extended => "extended",
            WalStatus::Unreserved => "unreserved",
            WalStatus::Lost => "lost",
        }
    }
}

/// What bounds the WAL that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// End of the log.
    pub insert: Lsn,
    /// `max_wal_size` in bytes.
    pub max_wal: u64,
    /// `max_slot_wal_keep_size` in bytes; `None` without bound.
    pub max_keep: Option<u64>,
}

/// The state of a slot that needs WAL from `restart` on. Pure.
pub fn wal_status(restart: Lsn, lost: bool, bounds: &Bounds) -> WalStatus {
    let behind = bounds.insert.distance_from(restart);
    if lost {
        WalStatus::Lost
    } else if bounds.max_keep.is_some_and(|keep| behind > keep) {
        WalStatus::Unreserved
    } else if behind > bounds.max_wal {
        WalStatus::Extended
    } else {
        WalStatus::Reserved
    }
}

/// The slots of a node.
#[derive(Debug)]
pub struct Slots {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    /// Held by whoever changes a slot's file, and taken before `slots`. While a file is written it is held alone: acks, which only take
    /// `slots`, do not wait for the disk. So a slot is made, replaced, removed or lost by one at a time; what it has confirmed, and who
    /// uses it, may change during a write.
    files: Mutex<()>,
    slots: Mutex<BTreeMap<String, Slot>>,
}

impl Slots {
    /// Reads the slots of a directory, which is made when it is not there. A damaged file is logged and counts as a slot
    /// that has lost its WAL: its standby clones itself anew.
    ///
    /// # Errors
    /// When the directory or a file in it cannot be read, or something other than a file stands in a slot's place: a slot that is passed
    /// over would keep no WAL.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> io::Result<Arc<Slots>> {
        vfs.create_dir_all(dir)?;
        // A slot is not durable before its directory's name is.
        vfs.sync_dir(dir.parent().unwrap_or(Path::new(".")))?;
        let mut slots = BTreeMap::new();
        for entry in vfs.read_dir(dir)? {
            if check_name(&entry.name).is_err() {
                continue;
            }
            if entry.is_dir {
                let path = dir.join(&entry.name);
                let text = format!("{} is a directory in the place of a slot's file", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            let bytes = vfs.read_file(&dir.join(&entry.name), MAX_FILE)?;
            let saved = match decode(&bytes) {
                Ok(saved) if saved.name == entry.name => saved,
                outcome => {
                    let wrong = outcome.map_or_else(
                        |error| error.to_string(),
                        |other| format!("it is the file of slot \"{}\"", other.name),
                    );
                    tracing::error!("{}", damaged(&dir.join(&entry.name), &wrong));
                    let owner = NodeId {
                        name: entry.name.clone(),
                        incarnation: Incarnation::ZERO,
                    };
                    Persistent {
                        name: entry.name.clone(),
                        owner,
                        restart: Lsn::INVALID,
                        lost: true,
                    }
                }
            };
            let confirmed = saved.restart;
            slots.insert(
                entry.name,
                Slot {
                    saved,
                    confirmed,
                    active: None,
                    dropping: false,
                },
            );
        }
        Ok(Arc::new(Slots {
            vfs,
            dir: dir.to_owned(),
            files: Mutex::new(()),
            slots: Mutex::new(slots),
        }))
    }

    fn write(&self, saved: &Persistent) -> Result<(), SlotError> {
        let path = self.dir.join(&saved.name);
        let written = self.vfs.write_file_atomically(&path, &encode(saved));
        written.map_err(|error| SlotError::Io(error.to_string()))
    }

    /// Makes a slot that keeps WAL from `restart` on. One of the same name is replaced when its WAL is lost or it belongs to
    /// an earlier incarnation of the node; else it only moves back, if it must. Whoever uses it keeps it. Returns where it begins.
    pub fn ensure(&self, name: &str, owner: &NodeId, restart: Lsn) -> Result<Lsn, SlotError> {
        check_name(name)?;
        let _files = self.files.lock();
        let saved = {
            let mut slots = self.slots.lock();
            let full = slots.len() >= MAX_SLOTS;
            match slots.get_mut(name) {
                Some(slot) if slot.active.is_some() && slot.saved.owner != *owner => {
                    return Err(SlotError::InUse(name.to_owned()));
                }
                Some(slot) if !slot.saved.lost && slot.saved.owner == *owner => {
                    // A standby that lost its log's tail needs again what it had confirmed.
                    slot.confirmed = slot.confirmed.min(restart.max(slot.saved.restart));
                    if restart >= slot.saved.restart {
                        return Ok(slot.saved.restart);
                    }
                }
                None if full => return Err(SlotError::TooMany),
                Some(_) | None => {}
            }
            Persistent {
                name: name.to_owned(),
                owner: owner.clone(),
                restart,
                lost: false,
            }
        };
        self.write(&saved)?;
        self.written(saved);
        Ok(restart)
    }

    /// A slot's file says this from now on, and what was confirmed before does not count any more. Whoever uses the slot keeps it.
    fn written(&self, saved: Persistent) {
        let mut slots = self.slots.lock();
        let active = slots.get(&saved.name).and_then(|slot| slot.active);
        let slot = Slot {
            confirmed: saved.restart,
            active,
            dropping: false,
            saved,
        };
        slots.insert(slot.saved.name.clone(), slot);
    }

    /// Moves a slot back to `restart`, durably: a base backup begins that needs WAL from there.
    pub fn rewind(&self, name: &str, restart: Lsn) -> Result<(), SlotError> {
        let _files = self.files.lock();
        let saved = match self.slots.lock().get(name) {
            Some(slot) => Persistent {
                restart,
                lost: false,
                ..slot.saved.clone()
            },
            None => return Err(SlotError::NotFound(name.to_owned())),
        };
        self.write(&saved)?;
        self.written(saved);
        Ok(())
    }

    /// Takes a slot into use by the process or connection `pid`.
    pub fn acquire(self: &Arc<Self>, name: &str, pid: i32) -> Result<SlotGuard, SlotError> {
        let mut slots = self.slots.lock();
        let slot = slots
            .get_mut(name)
            .ok_or_else(|| SlotError::NotFound(name.to_owned()))?;
        if slot.saved.lost {
            return Err(SlotError::Lost(name.to_owned()));
        }
        if slot.active.is_some() || slot.dropping {
            return Err(SlotError::InUse(name.to_owned()));
        }
        slot.active = Some(pid);
        Ok(SlotGuard {
            slots: Arc::clone(self),
            name: name.to_owned(),
            pid,
        })
    }

    /// Who uses a slot.
    pub fn user(&self, name: &str) -> Option<i32> {
        self.slots.lock().get(name).and_then(|slot| slot.active)
    }

    /// Removes a slot that is not in use.
    pub fn drop_slot(&self, name: &str) -> Result<(), SlotError> {
        let _files = self.files.lock();
        match self.slots.lock().get_mut(name) {
            None => return Err(SlotError::NotFound(name.to_owned())),
            Some(slot) if slot.active.is_some() => return Err(SlotError::InUse(name.to_owned())),
            Some(slot) => slot.dropping = true,
        }
        let removed = self
            .vfs
            .remove_file(&self.dir.join(name))
            .and_then(|()| self.vfs.sync_dir(&self.dir));
        let mut slots = self.slots.lock();
        if let Err(error) = removed {
            if let Some(slot) = slots.get_mut(name) {
                slot.dropping = false;
            }
            return Err(SlotError::Io(error.to_string()));
        }
        slots.remove(name);
        Ok(())
    }

    /// Writes what was confirmed since. Called before retention is decided, and at shutdown.
    pub fn save(&self) -> Result<(), SlotError> {
        let _files = self.files.lock();
        let moved = |slot: &Slot| {
            (slot.confirmed > slot.saved.restart && !slot.saved.lost).then(|| Persistent {
                restart: slot.confirmed,
                ..slot.saved.clone()
            })
        };
        let due: Vec<Persistent> = self.slots.lock().values().filter_map(moved).collect();
        for saved in due {
            self.write(&saved)?;
            // Nobody else has changed it: that needs `files`.
            if let Some(slot) = self.slots.lock().get_mut(&saved.name) {
                slot.saved = saved;
            }
        }
        Ok(())
    }

    /// The lowest position that any slot needs: that of a record which its standby may have half of, and asks for again from its beginning.
    /// What was confirmed is written first: retention must not go beyond what a crash remembers.
    pub fn oldest_needed(&self) -> Option<Lsn> {
        if let Err(error) = self.save() {
            tracing::warn!(%error, "replication slots were not saved");
        }
        self.oldest_saved()
            .map(|lsn| lsn.saturating_sub(UNFINISHED_RECORD))
    }

    /// The lowest position that any standby is known to have, by what is in the slots' files.
    pub fn oldest_saved(&self) -> Option<Lsn> {
        let slots = self.slots.lock();
        slots
            .values()
            .filter(|slot| !slot.saved.lost)
            .map(|slot| slot.saved.restart)
            .min()
    }

    /// WAL below this position is about to go: slots that need it are lost from now on, durably. Returns their names.
    pub fn invalidate_below(&self, oldest_kept: Lsn) -> Result<Vec<String>, SlotError> {
        let mut lost = Vec::new();
        let _files = self.files.lock();
        let falls = |slot: &Slot| {
            let kept = slot.saved.lost || slot.saved.restart.max(slot.confirmed) >= oldest_kept;
            (!kept).then(|| Persistent {
                lost: true,
                ..slot.saved.clone()
            })
        };
        let due: Vec<Persistent> = self.slots.lock().values().filter_map(falls).collect();
        for saved in due {
            self.write(&saved)?;
            tracing::warn!(slot = saved.name, restart = %saved.restart, %oldest_kept, "replication slot is lost");
            lost.push(saved.name.clone());
            if let Some(slot) = self.slots.lock().get_mut(&saved.name) {
                slot.saved = saved;
            }
        }
        Ok(lost)
    }

    /// Rows of pg_replication_slots.
    pub fn rows(&self, bounds: &Bounds) -> Vec<SlotRow> {
        let slots = self.slots.lock();
        let row = |slot: &Slot| {
            let status = wal_status(slot.confirmed, slot.saved.lost, bounds);
            let safe = bounds.max_keep.filter(|_| status != WalStatus::Lost).map(|keep| {
                let behind = bounds.insert.distance_from(slot.confirmed);
                i64::try_from(keep)
                    .unwrap_or(i64::MAX)
                    .saturating_sub_unsigned(behind)
            });
            SlotRow {
                name: slot.saved.name.clone(),
                active: slot.active.is_some(),
                active_pid: slot.active,
                restart_lsn: (status != WalStatus::Lost).then_some(slot.confirmed),
                wal_status: status.as_str().to_owned(),
                safe_wal_size: safe,
            }
        };
        slots.values().map(row).collect()
    }
}

impl RetentionHooks for Slots {
    fn oldest_slot(&self) -> Option<Lsn> {
        self.oldest_needed()
    }

    fn checkpoint_finished(&self, _info: &CheckpointInfo, oldest_kept: Lsn) {
        if let Err(error) = self.invalidate_below(oldest_kept) {
            tracing::error!(%error, "lost replication slots were not noted");
        }
    }
}

/// A slot in use; dropping it gives the slot back.
#[derive(Debug)]
pub struct SlotGuard {
    slots: Arc<Slots>,
    name: String,
    pid: i32,
}

impl SlotGuard {
    /// The standby has made everything before `lsn` durable.
    pub fn confirm(&self, lsn: Lsn) {
        if let Some(slot) = self.slots.slots.lock().get_mut(&self.name)
            && slot.active == Some(self.pid)
            && lsn > slot.confirmed
        {
            slot.confirmed = lsn;
        }
    }

    /// Whether the slot was lost while in use.
    pub fn is_lost(&self) -> bool {
        self.slots
            .slots
            .lock()
            .get(&self.name)
            .is_none_or(|slot| slot.saved.lost)
    }

    /// The slot's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if let Some(slot) = self.slots.slots.lock().get_mut(&self.name)
            && slot.active == Some(self.pid)
        {
            slot.active = None;
        }
    }
}

/// What is said of a slot's file that cannot be used.
fn damaged(path: &Path, wrong: &str) -> String {
    format!(
        "the replication slot file {} is damaged: {wrong}; the slot counts as lost, and its standby clones itself anew when it connects; of a \
         standby that is gone, drop the slot with pg_drop_replication_slot",
        path.display()
    )
}

/// The slot that a node of this name uses: its letters in lower case, other characters as underscores.
pub fn slot_name_of(node: &str) -> String {
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    node.chars().map(letter).take(MAX_NAME_BYTES).collect()
}

fn check_name(name: &str) -> Result<(), SlotError> {
    let valid = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
    if fits && name.bytes().all(valid) {
        Ok(())
    } else {
        Err(SlotError::BadName(name.to_owned()))
    }
}

fn encode(slot: &Persistent) -> Vec<u8> {
    seal(MAGIC, VERSION, |body| {
        body.u32(if slot.lost { LOST } else { 0 })
            .lsn(slot.restart)
            .short_str(&slot.name)
            .short_str(&slot.owner.name)
            .bytes(&slot.owner.incarnation.0);
    })
}

fn decode(bytes: &[u8]) -> Result<Persistent, CodecError> {
    let mut reader = unseal(bytes, MAGIC, VERSION)?;
    let flags = reader.u32()?;
    let restart = reader.lsn()?;
    let name = reader.short_str(MAX_NAME_BYTES)?.to_owned();
    let owner = reader.short_str(MAX_NAME_BYTES)?.to_owned();
    let owner = NodeId {
        name: owner,
        incarnation: Incarnation(reader.array()?),
    };
    reader.finish()?;
    Ok(Persistent {
        name,
        owner,
        restart,
        lost: flags & LOST != 0,
    })
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
