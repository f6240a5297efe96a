//! The control file: what a start must know before it can read anything else.
//!
//! `global/towline_control` holds two copies, each in a block of its own. An update writes and syncs the first copy, then the second, so
//! at every moment at least one is whole; the one with the higher generation is believed. Only when both are durable is the
//! update visible here (I3), and only then may WAL or files go that the old one needed.
//!
//! Each copy (little-endian, specified byte by byte in docs/formats.md):
//!
//! ```text
//!  0 magic "TOWLCTRL"   8 version u32   12 length of the body u32   16 generation u64   24 body   24+length CRC-32C of all before
//! ```

mod data;
mod text;

pub use data::{CheckpointInfo, ClusterState, ControlData};

use crate::error::{StorageError, StorageResult};
use parking_lot::{Mutex, RwLock};
use towline_base::codec::{CodecError, CodecResult, Reader, Writer};
use towline_base::{OpenMode, Vfs};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Place of the control file below the data directory.
pub const CONTROL_FILE: &str = "global/towline_control";
/// Distance between the copies: a block that disks write apart from its neighbour.
pub const COPY_SIZE: usize = 8192;
/// Version of the format that this code writes; the only one it reads.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"TOWLCTRL";
const PREFIX: usize = 24;
const MAX_BODY: usize = COPY_SIZE - PREFIX - 4;

/// Encodes one copy, without padding.
pub fn encode(data: &ControlData, generation: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    data.encode(&mut Writer::new(&mut body));
    debug_assert!(body.len() <= MAX_BODY);
    let mut out = Vec::with_capacity(body.len() + PREFIX + 4);
    let mut writer = Writer::new(&mut out);
    writer
        .bytes(MAGIC)
        .u32(VERSION)
        .u32(body.len() as u32)
        .u64(generation)
        .bytes(&body);
    let crc = crc32c::crc32c(&out);
    Writer::new(&mut out).u32(crc);
    out
}

/// Decodes one copy: its generation and what it says. Any bytes give an answer or an error.
pub fn decode(copy: &[u8]) -> CodecResult<(u64, ControlData)> {
    let mut reader = Reader::new(copy);
    if reader.array::<8>()? != *MAGIC {
        return Err(CodecError::Invalid("magic number: this is no control file"));
    }
    let version = reader.u32()?;
    let length = reader.u32()? as usize;
    let generation = reader.u64()?;
    if version != VERSION {
        return Err(CodecError::Invalid(
            "version: the control file was written by another release",
        ));
    }
    if length > MAX_BODY {
        return Err(CodecError::Invalid("length"));
    }
    let body = reader.bytes(length)?;
    if reader.u32()? != crc32c::crc32c(&copy[..PREFIX + length]) {
        return Err(CodecError::Invalid("checksum"));
    }
    let mut reader = Reader::new(body);
    let data = ControlData::decode(&mut reader)?;
    reader.finish()?;
    Ok((generation, data))
}

/// The control file of a data directory, read once and updated through here.
pub struct ControlFile {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    current: RwLock<ControlData>,
    /// Generation on disk; its lock serialises updates.
    generation: Mutex<u64>,
    /// A write or sync has failed: what is on disk is not known, and nothing is written any more (I5).
    failed: AtomicBool,
}

impl std::fmt::Debug for ControlFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl ControlFile {
    /// Writes the first control file of a data directory. `global` must exist.
    pub fn create(vfs: Arc<dyn Vfs>, root: &Path, data: ControlData) -> StorageResult<ControlFile> {
        let path = root.join(CONTROL_FILE);
        let control = ControlFile {
            vfs,
            path,
            current: RwLock::new(data.clone()),
            generation: Mutex::new(0),
            failed: AtomicBool::new(false),
        };
        let io = |action, error| StorageError::io(action, &control.path, error);
        let file = control
            .vfs
            .open(&control.path, OpenMode::CreateNew)
            .map_err(|error| io("create", error))?;
        file.allocate_zeroed(0, 2 * COPY_SIZE as u64)
            .map_err(|error| io("extend", error))?;
        file.sync_all().map_err(|error| io("sync", error))?;
        drop(file);
        control.write(&data, 1)?;
        let parent = control.path.parent().unwrap_or(root);
        control
            .vfs
            .sync_dir(parent)
            .map_err(|error| StorageError::io("sync directory", parent, error))?;
        *control.generation.lock() = 1;
        Ok(control)
    }

    /// Reads the control file; an error says which copies are damaged and how.
    pub fn open(vfs: Arc<dyn Vfs>, root: &Path) -> StorageResult<ControlFile> {
        let path = root.join(CONTROL_FILE);
        let bytes = vfs
            .read_file(&path, 4 * COPY_SIZE as u64)
            .map_err(|error| StorageError::io("read", &path, error))?;
        let (generation, data) = choose(&bytes).map_err(|what| {
            StorageError::Damaged(format!("control file \"{}\" is damaged: {what}", path.display()))
        })?;
        let control = ControlFile {
            vfs,
            path,
            current: RwLock::new(data),
            generation: Mutex::new(generation),
            failed: AtomicBool::new(false),
        };
        Ok(control)
    }

    /// What it says now.
    pub fn get(&self) -> ControlData {
        self.current.read().clone()
    }

    /// Changes it: durable in both copies when this returns. After an error the change may be on disk or not, and is not visible here;
    /// the node must stop (I5), and every later change is refused.
    pub fn update(&self, change: impl FnOnce(&mut ControlData)) -> StorageResult<()> {
        let mut generation = self.generation.lock();
        if self.has_failed() {
            return Err(StorageError::Stopped("the control file could not be written"));
        }
        let mut data = self.get();
        change(&mut data);
        self.write(&data, *generation + 1)
            .inspect_err(|_| self.failed.store(true, Ordering::SeqCst))?;
        *generation += 1;
        *self.current.write() = data;
        Ok(())
    }

    /// Whether a change has failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    fn write(&self, data: &ControlData, generation: u64) -> StorageResult<()> {
        let io = |action, error| StorageError::io(action, &self.path, error);
        let bytes = encode(data, generation);
        let file = self
            .vfs
            .open(&self.path, OpenMode::ReadWrite)
            .map_err(|error| io("open", error))?;
        for copy in 0..2 {
            file.write_all_at(&bytes, copy * COPY_SIZE as u64)
                .map_err(|error| io("write", error))?;
            file.sync_data().map_err(|error| io("sync", error))?;
        }
        Ok(())
    }
}

/// The believable copy of a control file's bytes; the text says what is wrong with both.
pub fn choose(bytes: &[u8]) -> Result<(u64, ControlData), String> {
    let copies = [
        bytes.get(..COPY_SIZE.min(bytes.len())).unwrap_or(&[]),
        bytes.get(COPY_SIZE..).unwrap_or(&[]),
    ];
    match (decode(copies[0]), decode(copies[1])) {
        (Ok(first), Ok(second)) => Ok(if second.0 > first.0 { second } else { first }),
        (Ok(good), Err(_)) | (Err(_), Ok(good)) => Ok(good),
        (Err(first), Err(second)) if first == second => Err(first.to_string()),
        (Err(first), Err(second)) => Err(format!("first copy: {first}; second copy: {second}")),
    }
}

#[cfg(test)]
mod tests;
