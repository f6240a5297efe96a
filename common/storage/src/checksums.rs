//! Looking at every page of a stopped node: `towline checksums`. It only reads.

use crate::control::{ClusterState, ControlFile};
use crate::error::{StorageError, StorageResult};
use crate::page::Page;
use crate::smgr::{DATABASE, parse_file_name};
use towline_base::limits::BLOCKS_PER_FILE;
use towline_base::{OpenMode, PAGE_SIZE, Vfs};

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A page that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPage {
    /// Its file, below the data directory.
    pub file: PathBuf,
    /// Its block in the relation.
    pub block: u32,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for BadPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "checksum verification failed in file \"{}\", block {} (offset {}): {}",
            self.file.display(),
            self.block,
            self.offset,
            self.what
        )
    }
}

/// What a scan has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChecksumReport {
    /// Relation files read.
    pub files: u64,
    /// Blocks read.
    pub blocks: u64,
    /// Blocks that are damaged.
    pub bad: u64,
}

/// Reads every page of every relation of a node that was shut down, and hands each damaged one to `found`. The caller holds the data
/// directory's lock. After a crash torn pages are no damage (recovery restores them), so such a directory is refused.
pub fn scan(
    vfs: &Arc<dyn Vfs>,
    root: &Path,
    mut found: impl FnMut(&BadPage),
) -> StorageResult<ChecksumReport> {
    let control = ControlFile::open(Arc::clone(vfs), root)?.get();
    if !control.checksums {
        return Err(StorageError::Damaged(
            "data checksums are not enabled in this cluster".to_owned(),
        ));
    }
    if !matches!(
        control.state,
        ClusterState::ShutDown | ClusterState::ShutDownInRecovery
    ) {
        return Err(StorageError::Damaged(format!(
            "the node was not shut down (its state is \"{}\"): start it and stop it first",
            control.state.name()
        )));
    }
    let mut report = ChecksumReport::default();
    for directory in [PathBuf::from("global"), PathBuf::from(format!("base/{DATABASE}"))] {
        let path = root.join(&directory);
        let entries = vfs
            .read_dir(&path)
            .map_err(|error| StorageError::io("list", &path, error))?;
        for entry in entries {
            if let Some((_, _, part)) = parse_file_name(&entry.name) {
                scan_file(
                    vfs,
                    root,
                    directory.join(&entry.name),
                    part,
                    &mut report,
                    &mut found,
                )?;
            }
        }
    }
    Ok(report)
}

fn scan_file(
    vfs: &Arc<dyn Vfs>,
    root: &Path,
    name: PathBuf,
    part: u32,
    report: &mut ChecksumReport,
    found: &mut impl FnMut(&BadPage),
) -> StorageResult<()> {
    let path = root.join(&name);
    let io = |action, error| StorageError::io(action, &path, error);
    let file = vfs
        .open(&path, OpenMode::Read)
        .map_err(|error| io("open", error))?;
    let len = file.len().map_err(|error| io("measure", error))?;
    report.files += 1;
    let mut page = Page::boxed_zeroed();
    for index in 0..len.div_ceil(PAGE_SIZE as u64) {
        let offset = index * PAGE_SIZE as u64;
        let block = part
            .saturating_mul(BLOCKS_PER_FILE)
            .saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
        report.blocks += 1;
        let what = if len - offset < PAGE_SIZE as u64 {
            Some(format!("the file ends after {} of its bytes", len - offset))
        } else {
            file.read_exact_at(page.as_bytes_mut(), offset)
                .map_err(|error| io("read", error))?;
            damage(&page, block)
        };
        if let Some(what) = what {
            report.bad += 1;
            found(&BadPage {
                file: name.clone(),
                block,
                offset,
                what,
            });
        }
    }
    Ok(())
}

/// What is wrong with a page as it was read, if something is: as whoever reads it through the pool would hear.
pub(crate) fn damage(page: &Page, block: u32) -> Option<String> {
    if page.verify_checksum(block) {
        return page.check_header().err().map(|error| error.to_string());
    }
    let (stored, computed) = (page.stored_checksum(), page.checksum(block));
    Some(format!(
        "page verification failed, calculated checksum {computed} but expected {stored}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::control::ControlData;
    use crate::page::Placement;
    use crate::smgr::{Smgr, relation};
    use towline_base::vfs::CrashVfs;
    use towline_base::{ForkKind, Incarnation, PageId, SystemId, TimelineId, TimelineNumber};

    #[test]
    fn a_scan_of_a_stopped_node_names_each_damaged_page() {
        let vfs = CrashVfs::new().shared();
        let root = Path::new("/data");
        let smgr = Smgr::new(Arc::clone(&vfs), root, 10);
        smgr.create_directories().unwrap();
        let timeline = TimelineId {
            number: TimelineNumber(1),
            incarnation: Incarnation([1; 16]),
        };
        let data = ControlData::new(SystemId(1), timeline, 1 << 20, true);
        let control = ControlFile::create(Arc::clone(&vfs), root, data).unwrap();
        let rel = relation(16384);
        smgr.create(rel, ForkKind::Main).unwrap();
        smgr.extend(rel, ForkKind::Main, 3).unwrap();
        for block in 0..2 {
            let mut page = Page::boxed_zeroed();
            page.init(0);
            page.add_item(b"some bytes of an item", Placement::Heap).unwrap();
            page.set_stored_checksum(page.checksum(block));
            smgr.write(&PageId::main(rel, block), &page).unwrap();
        }
        let scanned = |found: &mut Vec<BadPage>| scan(&vfs, root, |bad| found.push(bad.clone()));
        let mut found = Vec::new();
        let refused = scanned(&mut found).unwrap_err().to_string();
        assert!(refused.contains("was not shut down"), "{refused}");
        control
            .update(|data| data.state = ClusterState::ShutDown)
            .unwrap();
        let report = scanned(&mut found).unwrap();
        assert_eq!((report.files, report.blocks, report.bad), (1, 3, 0), "{found:?}");
        let file = vfs.open(&root.join("base/5/16384"), OpenMode::ReadWrite).unwrap();
        file.write_all_at(b"X", 8192 + 8180).unwrap();
        file.write_all_at(b"Y", 3 * 8192).unwrap();
        assert_eq!(scanned(&mut found).unwrap().bad, 2);
        let places: Vec<_> = found.iter().map(|bad| (bad.block, bad.offset)).collect();
        assert_eq!(places, [(1, 8192), (3, 3 * 8192)]);
        assert!(found[0].to_string().contains("base/5/16384"), "{}", found[0]);
    }
}
