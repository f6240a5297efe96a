//! Holds the structure of the code base against the design: dependencies run one way, the layers below
//! `wire` know no async runtime, `std::fs` and `unsafe` stay in the modules named for them, and each file
//! says in its first line what it owns.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// For each crate: its folder, and the crates of ours that it may use.
const LAYERS: &[(&str, &str, &[&str])] = &[
    ("towline-base", "common/base", &[]),
    ("towline-types", "common/types", &["towline-base"]),
    ("towline-wal", "common/wal", &["towline-base"]),
    (
        "towline-storage",
        "common/storage",
        &["towline-base", "towline-wal"],
    ),
    (
        "towline-access",
        "common/access",
        &["towline-base", "towline-types", "towline-wal", "towline-storage"],
    ),
    (
        "towline-sql",
        "common/sql",
        &[
            "towline-base",
            "towline-types",
            "towline-wal",
            "towline-storage",
            "towline-access",
        ],
    ),
    (
        "towline-wire",
        "common/wire",
        &["towline-base", "towline-types", "towline-access", "towline-sql"],
    ),
    ("towline-proto", "proto", &["towline-base"]),
    (
        "towline-primary",
        "primary",
        &[
            "towline-base",
            "towline-wal",
            "towline-storage",
            "towline-access",
            "towline-proto",
        ],
    ),
    (
        "towline-standby",
        "standby",
        &[
            "towline-base",
            "towline-wal",
            "towline-storage",
            "towline-access",
            "towline-proto",
        ],
    ),
];

/// Crates whose code is called synchronously and must not know a runtime.
const RUNTIME_FREE: &[&str] = &[
    "common/base",
    "common/types",
    "common/wal",
    "common/storage",
    "common/access",
    "common/sql",
];

/// Files that may contain `unsafe`, each with its safety argument in the module documentation.
const UNSAFE_ALLOWED: &[&str] = &[
    "common/base/src/vfs/",
    "common/base/src/testing/allocation.rs",
    "common/storage/src/buffer/frame.rs",
    "common/wal/src/insert/ring.rs",
    "common/wal/src/insert/copy.rs",
    "common/wal/src/insert/flush.rs",
    "common/wal/src/insert/wal.rs",
    "node/src/",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn manifest(folder: &str) -> toml::Table {
    fs::read_to_string(root().join(folder).join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap()
}

fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest = manifest(folder);
    let table = manifest
        .get("dependencies")
        .and_then(|d| d.as_table())
        .cloned()
        .unwrap_or_default();
    table.keys().cloned().collect()
}

/// A module of tests in a file of its own.
fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_string_lossy();
    stem == "tests" || stem.ends_with("_tests")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && !is_test(&path) {
            found.push(path);
        }
    }
}

fn production_sources() -> BTreeMap<String, String> {
    let root = root();
    let mut found = Vec::new();
    for folder in LAYERS.iter().map(|(_, folder, _)| *folder).chain(["node"]) {
        sources(&root.join(folder).join("src"), &mut found);
    }
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            (name, text)
        })
        .collect()
}

/// The text of a file before its test module, without comment lines.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]").next().unwrap_or(text);
    body.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn dependencies_between_crates_run_one_way() {
    let mut wrong = Vec::new();
    for (name, folder, allowed) in LAYERS {
        for dependency in dependencies(folder) {
            if dependency.starts_with("towline") && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{name} uses {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the layers of the design: {wrong:?}");
}

#[test]
fn layers_below_wire_know_no_runtime_and_no_transport() {
    let mut wrong = Vec::new();
    for folder in RUNTIME_FREE {
        for dependency in dependencies(folder) {
            if ["tokio", "tonic", "prost", "pgwire", "futures-util"].contains(&dependency.as_str()) {
                wrong.push(format!("{folder} uses {dependency}"));
            }
        }
    }
    for (_, folder, _) in LAYERS {
        assert!(
            !dependencies(folder).contains("etcd-client"),
            "etcd-client belongs in node, not in {folder}"
        );
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn files_are_touched_through_the_vfs_only() {
    let mut wrong = Vec::new();
    for (name, text) in production_sources() {
        // The binary reads its own configuration, and starts children with log files, before there is a Vfs.
        if name.starts_with("common/base/src/vfs") || name.starts_with("node/") {
            continue;
        }
        let code = code(&text);
        if code.contains("std::fs") || code.contains("fs::File") || code.contains("rustix::fs") {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "std::fs outside of base's Vfs: {wrong:?}");
}

#[test]
fn unsafe_code_stays_in_the_modules_named_for_it() {
    let mut wrong = Vec::new();
    for (name, text) in production_sources() {
        let code = code(&text);
        let uses = code
            .lines()
            .any(|l| l.contains("unsafe ") && !l.contains("unsafe_") && !l.contains("\"unsafe"));
        if uses && !UNSAFE_ALLOWED.iter().any(|allowed| name.starts_with(allowed)) {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "unsafe outside of its modules: {wrong:?}");
}

#[test]
fn every_file_says_first_what_it_owns() {
    let wrong: Vec<String> = production_sources()
        .into_iter()
        .filter(|(_, text)| !text.lines().take(3).any(|line| line.starts_with("//!")))
        .map(|(name, _)| name)
        .collect();
    assert!(wrong.is_empty(), "no module documentation in: {wrong:?}");
}

#[test]
fn no_unfinished_code_is_on_main() {
    let marks = [concat!("todo", "!("), concat!("unimplemented", "!(")];
    let wrong: Vec<String> = production_sources()
        .into_iter()
        .filter(|(_, text)| marks.iter().any(|mark| code(text).contains(mark)))
        .map(|(name, _)| name)
        .collect();
    assert!(wrong.is_empty(), "unfinished code in: {wrong:?}");
}
