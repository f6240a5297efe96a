//! Inodes of the double: what a file or directory holds now, what is durable of it, and the changes
//! in between, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Unsynced;
use super::world::InodeId;

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Splitmix64 (Steele, Lea, Flood 2014): enough for choosing what a crash loses. Also notes what was chosen: two disks from the same changes
/// are equal when their choices are.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    state: u64,
    chosen: u64,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice {
            state: seed,
            chosen: 0,
        }
    }

    pub(super) fn flip(&mut self) -> bool {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed(self.state) & 1 == 1
    }

    /// Of a change, these bytes (or all of it) reached the disk.
    fn note(&mut self, inode: InodeId, change: usize, from: usize, to: usize) {
        for part in [inode, change as u64, from as u64, to as u64] {
            self.chosen = mixed(self.chosen ^ part.wrapping_add(0x9E37_79B9_7F4A_7C15));
        }
    }

    /// A mark of all that was chosen.
    pub(super) fn chosen(&self) -> u64 {
        self.chosen
    }

    /// Whether one change, taken whole, reached the disk.
    pub(super) fn keeps(&mut self, unsynced: Unsynced) -> bool {
        match unsynced {
            Unsynced::Lost => false,
            Unsynced::Kept => true,
            Unsynced::Reordered | Unsynced::Torn(_) => self.flip(),
        }
    }
}

/// A change of a file that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// Contents are shared by the disks that a crash leaves and the disk it came from, until one of them writes.
#[derive(Clone, Default, Debug)]
pub(super) struct FileNode {
    pub(super) live: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
}

fn put(content: &mut Arc<Vec<u8>>, offset: usize, bytes: &[u8]) {
    let content = Arc::make_mut(content);
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl FileNode {
    /// A file as a start finds it.
    pub(super) fn on_disk(content: Arc<Vec<u8>>) -> FileNode {
        FileNode {
            live: Arc::clone(&content),
            durable: content,
            pending: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.live, offset, bytes);
        self.pending.push(Change::Write {
            offset,
            bytes: bytes.to_vec(),
        });
    }

    /// A write that is durable when it returns, before earlier ones that are not.
    pub(super) fn write_through(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.live, offset, bytes);
        put(&mut self.durable, offset, bytes);
        // An earlier write of the same place must not undo this one when it is synced.
        for change in &mut self.pending {
            if let Change::Write {
                offset: start,
                bytes: old,
            } = change
            {
                let from = offset.max(*start);
                let to = (offset + bytes.len()).min(*start + old.len());
                if from < to {
                    old[from - *start..to - *start].copy_from_slice(&bytes[from - offset..to - offset]);
                }
            }
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        Arc::make_mut(&mut self.live).resize(len, 0);
        self.pending.push(Change::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
                Change::SetLen(len) => Arc::make_mut(&mut self.durable).resize(len, 0),
            }
        }
    }

    /// A sync failed: the system forgets that these writes were not on disk.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
    }

    /// What the disk holds after a power cut.
    pub(super) fn after_crash(&self, inode: InodeId, unsynced: Unsynced, dice: &mut Dice) -> Arc<Vec<u8>> {
        let mut content = Arc::clone(&self.durable);
        for (number, change) in self.pending.iter().enumerate() {
            match (change, unsynced) {
                (Change::Write { offset, bytes }, Unsynced::Torn(sector)) => {
                    for (from, to) in torn(*offset, bytes.len(), sector.max(1), dice) {
                        put(&mut content, offset + from, &bytes[from..to]);
                        dice.note(inode, number, from, to);
                    }
                }
                (Change::Write { offset, bytes }, _) => {
                    if dice.keeps(unsynced) {
                        put(&mut content, *offset, bytes);
                        dice.note(inode, number, 0, bytes.len());
                    }
                }
                (Change::SetLen(len), _) => {
                    if dice.keeps(unsynced) {
                        Arc::make_mut(&mut content).resize(*len, 0);
                        dice.note(inode, number, *len, *len);
                    }
                }
            }
        }
        content
    }
}

/// The parts of a write that reached the disk, sector by sector. Sectors are those of the file, not of the write.
fn torn(offset: usize, len: usize, sector: usize, dice: &mut Dice) -> Vec<(usize, usize)> {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    let mut done = 0;
    while done < len {
        let count = (sector - (offset + done) % sector).min(len - done);
        if dice.flip() {
            match parts.last_mut() {
                Some((_, to)) if *to == done => *to = done + count,
                _ => parts.push((done, done + count)),
            }
        }
        done += count;
    }
    parts
}

/// A change of a directory that is not durable yet. It names the inode, so that each can be kept
/// or lost without the others.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Add(String, InodeId),
    Remove(String),
    /// Both at once or neither, within one directory.
    Rename(String, String, InodeId),
}

type Names = BTreeMap<String, InodeId>;

#[derive(Clone, Default, Debug)]
pub(super) struct DirNode {
    pub(super) live: Names,
    durable: Names,
    pending: Vec<NameChange>,
}

fn apply(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Add(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
        NameChange::Rename(from, to, inode) => {
            // The old name may mean another file by now, when an earlier change was lost.
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
    }
}

impl DirNode {
    pub(super) fn on_disk(names: Names) -> DirNode {
        DirNode {
            live: names.clone(),
            durable: names,
            pending: Vec::new(),
        }
    }

    pub(super) fn change(&mut self, change: NameChange) {
        apply(&mut self.live, &change);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            apply(&mut self.durable, &change);
        }
    }

    pub(super) fn after_crash(&self, inode: InodeId, unsynced: Unsynced, dice: &mut Dice) -> Names {
        let mut names = self.durable.clone();
        for (number, change) in self.pending.iter().enumerate() {
            if dice.keeps(unsynced) {
                apply(&mut names, change);
                dice.note(inode, number, 0, 0);
            }
        }
        names
    }
}
