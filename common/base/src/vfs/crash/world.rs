//! The state behind a [`super::CrashVfs`]: a tree of inodes, the boundary counter, injected failures.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Component, Path};

use super::disk::{Dice, DirNode, FileNode, NameChange};
use super::{Op, Unsynced};
use crate::vfs::{DirEntry, Metadata, OpenMode};

pub(super) type InodeId = u64;

const ROOT: InodeId = 0;
const ENOSPC: i32 = 28;

#[derive(Clone, Debug)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    at: u64,
    errno: i32,
    sticky: bool,
}

/// Called in the middle of each boundary. See [`super::CrashVfs::observe`].
pub(super) struct Observer(pub(super) Box<dyn FnMut(&World) + Send>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

#[derive(Debug)]
pub(super) struct World {
    nodes: BTreeMap<InodeId, Node>,
    next_inode: InodeId,
    boundaries: u64,
    crash_at: Option<u64>,
    crashed: bool,
    counts: HashMap<Op, u64>,
    failures: HashMap<Op, Failure>,
    capacity: Option<u64>,
    used: u64,
    locks: HashSet<InodeId>,
    observer: Option<Observer>,
}

/// Whether the change that was announced takes place, or the power goes while it is under way.
enum Power {
    On,
    GoesNow,
}

fn power_cut() -> io::Error {
    io::Error::other("the power is cut")
}

impl World {
    pub(super) fn new() -> World {
        World {
            nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]),
            next_inode: ROOT + 1,
            boundaries: 0,
            crash_at: None,
            crashed: false,
            counts: HashMap::new(),
            failures: HashMap::new(),
            capacity: None,
            used: 0,
            locks: HashSet::new(),
            observer: None,
        }
    }

    pub(super) fn boundaries(&self) -> u64 {
        self.boundaries
    }

    pub(super) fn crash_at(&mut self, k: Option<u64>) {
        self.crash_at = k;
    }

    pub(super) fn crashed(&self) -> bool {
        self.crashed
    }

    pub(super) fn count(&self, op: Op) -> u64 {
        self.counts.get(&op).copied().unwrap_or(0)
    }

    pub(super) fn fail_nth(&mut self, op: Op, nth: u64, errno: i32, sticky: bool) {
        let at = self.count(op) + nth;
        self.failures.insert(op, Failure { at, errno, sticky });
    }

    pub(super) fn clear_failures(&mut self) {
        self.failures.clear();
    }

    pub(super) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    pub(super) fn free(&self) -> io::Result<u64> {
        self.alive()?;
        Ok(self
            .capacity
            .map_or(1 << 40, |capacity| capacity.saturating_sub(self.used)))
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(power_cut()) } else { Ok(()) }
    }

    /// Counts a call and fails it when that was asked for.
    fn call(&mut self, op: Op) -> io::Result<()> {
        self.alive()?;
        let count = self.counts.entry(op).or_insert(0);
        *count += 1;
        match self.failures.get(&op) {
            Some(failure) if *count == failure.at || (failure.sticky && *count > failure.at) => {
                Err(io::Error::from_raw_os_error(failure.errno))
            }
            _ => Ok(()),
        }
    }

    /// Counts a boundary. A change under way when the power goes is recorded, not confirmed.
    fn boundary(&mut self) -> Power {
        self.boundaries += 1;
        // A boundary that is passed already counts too: the power must not stay on because the order came late.
        if self.crash_at.is_some_and(|at| self.boundaries >= at) {
            self.crashed = true;
            Power::GoesNow
        } else {
            Power::On
        }
    }

    /// The change of this boundary is under way: it stands as not durable. Lets the observer look, or ends the power.
    fn settle(&mut self, power: Power) -> io::Result<()> {
        if matches!(power, Power::GoesNow) {
            return Err(power_cut());
        }
        if let Some(mut observer) = self.observer.take() {
            (observer.0)(self);
            self.observer = Some(observer);
        }
        Ok(())
    }

    pub(super) fn set_observer(&mut self, observer: Option<Observer>) {
        self.observer = observer;
    }

    pub(super) fn take_observer(&mut self) -> Option<Observer> {
        self.observer.take()
    }

    pub(super) fn cut_power(&mut self) {
        self.crashed = true;
    }

    /// The disk that a start finds if the power goes now, and a mark that is the same for equal disks of one moment.
    pub(super) fn after_crash(&self, unsynced: Unsynced, seed: u64) -> (World, u64) {
        let mut dice = Dice::new(seed);
        let mut world = World::new();
        world.next_inode = self.next_inode;
        world.boundaries = 0;
        world.capacity = self.capacity;
        let mut found = vec![ROOT];
        while let Some(inode) = found.pop() {
            let node = match self.nodes.get(&inode) {
                Some(Node::File(file)) => {
                    let content = file.after_crash(inode, unsynced, &mut dice);
                    world.used += content.len() as u64;
                    Node::File(FileNode::on_disk(content))
                }
                Some(Node::Dir(dir)) => {
                    let names = dir.after_crash(inode, unsynced, &mut dice);
                    found.extend(names.values().filter(|inode| !world.nodes.contains_key(inode)));
                    Node::Dir(DirNode::on_disk(names))
                }
                None => continue,
            };
            world.nodes.insert(inode, node);
        }
        (world, dice.chosen())
    }

    /// The disk that the next process finds when this one ends and the system does not: everything is there, and what was not synced is still
    /// not durable. Boundaries are counted on.
    pub(super) fn after_kill(&self) -> World {
        let mut world = World::new();
        world.next_inode = self.next_inode;
        world.boundaries = self.boundaries;
        world.capacity = self.capacity;
        world.used = self.used;
        world.nodes.clone_from(&self.nodes);
        world
    }

    // Names.

    fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        let mut inode = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            inode = *self.dir(inode)?.live.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(inode)
    }

    /// The directory that holds the path's last component, and that component.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(InodeId, &'a str)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let inode = self.lookup(parent)?;
        self.dir(inode)?;
        Ok((inode, name))
    }

    fn dir(&self, inode: InodeId) -> io::Result<&DirNode> {
        match self.nodes.get(&inode) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn dir_mut(&mut self, inode: InodeId) -> io::Result<&mut DirNode> {
        match self.nodes.get_mut(&inode) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file(&self, inode: InodeId) -> io::Result<&FileNode> {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file_mut(&mut self, inode: InodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create(&mut self, parent: InodeId, name: &str, node: Node) -> io::Result<InodeId> {
        let power = self.boundary();
        let inode = self.next_inode;
        self.next_inode += 1;
        self.nodes.insert(inode, node);
        self.dir_mut(parent)?
            .change(NameChange::Add(name.to_owned(), inode));
        self.settle(power)?;
        Ok(inode)
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeId> {
        self.call(Op::Open)?;
        match (self.lookup(path), mode) {
            (Ok(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(inode), OpenMode::Truncate) => {
                if !self.file(inode)?.live.is_empty() {
                    self.resize(inode, 0)?;
                }
                Ok(inode)
            }
            (Ok(inode), _) => self.file(inode).map(|_| inode),
            (Err(error), OpenMode::Create | OpenMode::CreateNew | OpenMode::Truncate)
                if error.kind() == io::ErrorKind::NotFound =>
            {
                let (parent, name) = self.parent(path)?;
                self.create(parent, name, Node::File(FileNode::default()))
            }
            (Err(error), _) => Err(error),
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.call(Op::CreateDir)?;
        let mut inode = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            inode = match self.dir(inode)?.live.get(name) {
                Some(found) => *found,
                None => self.create(inode, name, Node::Dir(DirNode::default()))?,
            };
        }
        self.dir(inode).map(|_| ())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Op::Rename)?;
        let inode = self.lookup(from)?;
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        if let Some(replaced) = self.dir(to_dir)?.live.get(to_name)
            && matches!(self.nodes.get(replaced), Some(Node::Dir(dir)) if !dir.live.is_empty())
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let power = self.boundary();
        let (from_name, to_name) = (from_name.to_owned(), to_name.to_owned());
        if from_dir == to_dir {
            self.dir_mut(to_dir)?
                .change(NameChange::Rename(from_name, to_name, inode));
        } else {
            self.dir_mut(to_dir)?.change(NameChange::Add(to_name, inode));
            self.dir_mut(from_dir)?.change(NameChange::Remove(from_name));
        }
        self.settle(power)
    }

    pub(super) fn remove(&mut self, path: &Path, directory: bool) -> io::Result<()> {
        self.call(Op::Remove)?;
        let inode = self.lookup(path)?;
        let (parent, name) = self.parent(path)?;
        if directory {
            self.dir(inode)?;
        } else {
            self.file(inode)?;
        }
        let power = self.boundary();
        self.dir_mut(parent)?.change(NameChange::Remove(name.to_owned()));
        self.settle(power)
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.call(Op::SyncDir)?;
        let inode = self.lookup(path)?;
        self.dir(inode)?;
        let power = self.boundary();
        self.settle(power)?;
        self.dir_mut(inode)?.sync();
        Ok(())
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.alive()?;
        let dir = self.dir(self.lookup(path)?)?;
        let entries = dir.live.iter().map(|(name, inode)| {
            let (is_dir, len) = self.kind_and_len(*inode);
            DirEntry {
                name: name.clone(),
                is_dir,
                len,
            }
        });
        Ok(entries.collect())
    }

    pub(super) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.alive()?;
        let (is_dir, len) = self.kind_and_len(self.lookup(path)?);
        Ok(Metadata {
            is_dir,
            len,
            mode: if is_dir { 0o700 } else { 0o600 },
        })
    }

    fn kind_and_len(&self, inode: InodeId) -> (bool, u64) {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => (false, file.live.len() as u64),
            Some(Node::Dir(_)) | None => (true, 0),
        }
    }

    pub(super) fn lock_file(&mut self, path: &Path) -> io::Result<InodeId> {
        let inode = self.open(path, OpenMode::Create)?;
        if self.locks.insert(inode) {
            Ok(inode)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    pub(super) fn unlock(&mut self, inode: InodeId) {
        self.locks.remove(&inode);
    }

    // Contents.

    /// Accounts for a file that grows or shrinks to `len`.
    fn account(&mut self, inode: InodeId, len: u64) -> io::Result<()> {
        let before = self.file(inode)?.live.len() as u64;
        let used = self.used - before.min(self.used) + len;
        if len > before && self.capacity.is_some_and(|capacity| used > capacity) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        self.used = used;
        Ok(())
    }

    pub(super) fn read(&mut self, inode: InodeId, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.call(Op::Read)?;
        let content = &self.file(inode)?.live;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    pub(super) fn write(
        &mut self,
        inode: InodeId,
        bytes: &[u8],
        offset: u64,
        through: bool,
    ) -> io::Result<()> {
        self.call(Op::Write)?;
        let len = self.len(inode)?.max(offset + bytes.len() as u64);
        self.account(inode, len)?;
        let power = self.boundary();
        let file = self.file_mut(inode)?;
        match power {
            // A write-through under way is like any other that may or may not reach the disk.
            Power::On if through => file.write_through(offset as usize, bytes),
            Power::On | Power::GoesNow => file.write(offset as usize, bytes),
        }
        self.settle(power)
    }

    pub(super) fn sync(&mut self, inode: InodeId) -> io::Result<()> {
        if let Err(error) = self.call(Op::Sync) {
            if !self.crashed {
                self.file_mut(inode)?.forget_pending();
            }
            return Err(error);
        }
        let power = self.boundary();
        self.settle(power)?;
        self.file_mut(inode)?.sync();
        Ok(())
    }

    pub(super) fn len(&self, inode: InodeId) -> io::Result<u64> {
        self.alive()?;
        Ok(self.file(inode)?.live.len() as u64)
    }

    pub(super) fn set_len(&mut self, inode: InodeId, len: u64) -> io::Result<()> {
        self.call(Op::SetLen)?;
        self.resize(inode, len)
    }

    fn resize(&mut self, inode: InodeId, len: u64) -> io::Result<()> {
        self.account(inode, len)?;
        let power = self.boundary();
        self.file_mut(inode)?.set_len(len as usize);
        self.settle(power)
    }
}
