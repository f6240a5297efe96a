//! A cluster is made, whole and consistent.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use towline_base::vfs::CrashVfs;
use towline_base::{Clock, LsnWatch, SystemClock, Vfs};
use towline_storage::{ClusterState, ControlFile, Storage, StorageConfig};

use super::*;
use crate::btree::check;

fn make(vfs: &Arc<dyn Vfs>) -> Initialized {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = InitOptions {
        segment_size: 1 << 20,
        ..InitOptions::default()
    };
    init(vfs, Path::new("/data"), &clock, &options).unwrap()
}

#[test]
fn a_new_cluster_is_shut_down_and_its_catalog_is_whole() {
    let vfs = CrashVfs::new().shared();
    let made = make(&vfs);
    let control = ControlFile::open(Arc::clone(&vfs), Path::new("/data")).unwrap();
    assert_eq!(control.get().state, ClusterState::ShutDown);
    assert_eq!(control.get().checkpoint.end, made.end);
    assert_eq!(control.get().system, made.system);
    let (_publisher, quorum) = LsnWatch::new(made.end);
    let storage = Storage::open(Arc::clone(&vfs), &StorageConfig::new("/data"), control, quorum).unwrap();
    let system = SystemDescriptors::new();
    let mut rows = 0;
    for table in system.tables() {
        let blocks = storage.nblocks(table.node, ForkKind::Main).unwrap();
        let mut places = Vec::new();
        for block in 0..blocks {
            let page = storage
                .pin(towline_base::PageId::main(table.node, block))
                .unwrap()
                .read();
            places.extend((1..=page.max_offset()).map(|offset| Tid::new(block, offset)));
        }
        rows += places.len();
        for index in &table.indexes {
            let mut indexed = check(storage.pool(), index).unwrap().places;
            indexed.sort_unstable();
            assert_eq!(indexed, places, "{}", index.name);
        }
    }
    assert!(rows > 500, "{rows} rows");
}
