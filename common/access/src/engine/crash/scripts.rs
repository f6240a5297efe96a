//! The workloads.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use towline_base::PAGE_SIZE;
use towline_base::testing::points;
use towline_base::vfs::{CrashVfs, Unsynced, Vfs as _};

use super::driver::{COMMIT, Driver, End, Promise};
use super::node::{Failure, Node};
use super::sweep::{Random, Sweep, seeds, suite, sweep_recovery};
use crate::CommitLevel;
use crate::testing::fresh_disk;

const OFF: End = End::Commit(CommitLevel::Off);

/// Inserts, HOT and other updates, deletes, rollbacks, commits that nobody waits for, checkpoints between.
fn heap(driver: &mut Driver, random: &mut Random) -> Result<(), Failure> {
    driver.create("t", COMMIT)?;
    for round in 0..60 {
        let mut changes = Vec::new();
        for _ in 0..1 + random.below(4) {
            let id = random.below(30) as i32;
            let value = (random.below(4) != 0).then(|| random.below(1000) as i32);
            if !changes.iter().any(|(other, _)| *other == id) {
                changes.push((id, value));
            }
        }
        let end = match random.below(8) {
            0 => End::Rollback,
            1 | 2 => OFF,
            _ => COMMIT,
        };
        driver.change("t", &changes, end)?;
        if round % 17 == 16 {
            driver.checkpoint()?;
        }
    }
    Ok(())
}

#[test]
fn a_power_cut_at_any_boundary_of_changes_to_rows_keeps_what_was_acknowledged() {
    suite("heap", seeds(1, 2), 1, heap);
}

/// Long keys in no order, so that leaves and inner pages of a unique index split, some of them in a transaction that is rolled back.
fn splits(driver: &mut Driver, random: &mut Random) -> Result<(), Failure> {
    driver.text_length = 900;
    driver.create("t", COMMIT)?;
    let mut next = 0;
    for round in 0..40 {
        let changes: Vec<_> = (next..next + 1 + random.below(6) as i32)
            .map(|id| (id, Some(id)))
            .collect();
        next += changes.len() as i32;
        driver.change("t", &changes, if round % 7 == 6 { End::Rollback } else { COMMIT })?;
        if round % 15 == 14 {
            driver.checkpoint()?;
        }
    }
    Ok(())
}

#[test]
fn a_power_cut_at_any_boundary_of_splits_leaves_whole_indexes() {
    suite("splits", seeds(11, 1), 1, splits);
}

/// Tables and indexes that come and go, with rows, committed and rolled back.
fn ddl(driver: &mut Driver, random: &mut Random) -> Result<(), Failure> {
    for round in 0..9 {
        let name = ["a", "b", "c"][round % 3];
        if driver.state.contains_key(name) {
            match random.below(3) {
                0 => driver.truncate(name, COMMIT)?,
                1 => driver.truncate(name, End::Rollback)?,
                _ => {
                    driver.drop_table(name, End::Rollback)?;
                    driver.drop_table(name, COMMIT)?;
                    driver.create(name, COMMIT)?;
                }
            }
        } else {
            driver.create(name, End::Rollback)?;
            driver.create(name, COMMIT)?;
        }
        let changes: Vec<_> = (0..1 + random.below(8) as i32).map(|id| (id, Some(id))).collect();
        driver.change(name, &changes, COMMIT)?;
        if random.below(2) == 0 {
            driver.index(
                name,
                if random.below(3) == 0 {
                    End::Rollback
                } else {
                    COMMIT
                },
            )?;
        }
        if round % 3 == 1 {
            driver.checkpoint()?;
        }
        driver.change(name, &[(0, Some(round as i32)), (50, Some(1))], COMMIT)?;
    }
    driver.checkpoint()
}

#[test]
fn a_power_cut_at_any_boundary_of_ddl_leaves_the_old_or_the_new_catalog_and_its_files() {
    suite("ddl", seeds(21, 2), 1, ddl);
}

/// Many rows die; vacuum prunes, freezes, empties index pages and cuts the table.
fn vacuum(driver: &mut Driver, random: &mut Random) -> Result<(), Failure> {
    driver.text_length = 700;
    driver.create("t", COMMIT)?;
    for round in 0..5 {
        let changes: Vec<_> = (0..24).map(|id| (id, Some(round))).collect();
        driver.change("t", &changes, COMMIT)?;
        let keep = random.below(6) as i32;
        let gone: Vec<_> = (keep..24).map(|id| (id, None)).collect();
        driver.change("t", &gone, if round == 2 { End::Rollback } else { COMMIT })?;
        driver.vacuum("t")?;
        driver.change("t", &[(1, Some(100 + round))], OFF)?;
        driver.checkpoint()?;
        driver.vacuum("t")?;
    }
    Ok(())
}

#[test]
fn a_power_cut_at_any_boundary_of_vacuum_loses_no_row_and_revives_none() {
    suite("vacuum", seeds(31, 1), 1, vacuum);
}

/// Values out of line: written, carried, replaced, deleted, rolled back, vacuumed, and gone with their table.
fn large_values(driver: &mut Driver, random: &mut Random) -> Result<(), Failure> {
    driver.create_large("t", COMMIT)?;
    for round in 0..24 {
        let mut changes: Vec<(i32, Option<i32>)> = Vec::new();
        for _ in 0..1 + random.below(3) {
            let id = random.below(6) as i32;
            let before = driver.state["t"].rows.get(&id).copied();
            let value = match random.below(6) {
                0 => None,
                // Of the same ten: the value out of line stays.
                1 | 2 => Some(before.unwrap_or(20) / 10 * 10 + random.below(10) as i32),
                _ => Some(random.below(80) as i32),
            };
            if !changes.iter().any(|(other, _)| *other == id) {
                changes.push((id, value));
            }
        }
        let end = [COMMIT, COMMIT, COMMIT, OFF, End::Rollback][random.below(5) as usize];
        driver.change("t", &changes, end)?;
        match round % 8 {
            1 => driver.vacuum("t")?,
            3 => driver.checkpoint()?,
            4 => {
                // Nothing is left: vacuum cuts the table and its chunks' table.
                let all: Vec<_> = driver.state["t"].rows.keys().map(|id| (*id, None)).collect();
                driver.change("t", &all, COMMIT)?;
                driver.vacuum("t")?;
            }
            6 => {
                driver.truncate("t", End::Rollback)?;
                driver.truncate("t", COMMIT)?;
            }
            7 => {
                driver.drop_table("t", End::Rollback)?;
                driver.drop_table("t", COMMIT)?;
                driver.create_large("t", COMMIT)?;
            }
            _ => {}
        }
    }
    driver.checkpoint()
}

#[test]
fn a_power_cut_at_any_boundary_of_large_values_leaves_each_with_its_row() {
    suite("large values", seeds(51, 1), 1, large_values);
}

/// Segments that end early and late, are made, recycled and removed.
fn segments(driver: &mut Driver, random: &mut Random) -> Result<(), Failure> {
    driver.text_length = 1500;
    driver.create("t", COMMIT)?;
    for round in 0..14 {
        let first = random.below(20) as i32;
        let changes: Vec<_> = (first..first + 6).map(|id| (id, Some(round))).collect();
        driver.change("t", &changes, if round % 3 == 0 { OFF } else { COMMIT })?;
        driver.switch_segment()?;
        if round % 3 == 2 {
            driver.checkpoint()?;
        }
    }
    Ok(())
}

#[test]
fn a_power_cut_at_any_boundary_of_a_change_of_segments_loses_no_log() {
    suite("segments", seeds(41, 1), 1, segments);
}

/// All of it in any order.
fn anything(driver: &mut Driver, random: &mut Random) -> Result<(), Failure> {
    driver.create("t", COMMIT)?;
    for _ in 0..150 {
        driver.text_length = [10, 300, 1200][random.below(3) as usize];
        match random.below(40) {
            0 | 1 => driver.checkpoint()?,
            2 | 3 => driver.vacuum("t")?,
            4 => driver.switch_segment()?,
            5 if driver.state.contains_key("u") => driver.drop_table("u", COMMIT)?,
            5 | 6 if !driver.state.contains_key("u") => driver.create("u", COMMIT)?,
            7 => driver.truncate(
                "t",
                if random.below(2) == 0 {
                    COMMIT
                } else {
                    End::Rollback
                },
            )?,
            8 if driver.state["t"].indexes < 4 => driver.index("t", COMMIT)?,
            _ => {
                let mut changes: Vec<(i32, Option<i32>)> = Vec::new();
                for _ in 0..1 + random.below(6) {
                    let id = random.below(40) as i32;
                    if !changes.iter().any(|(other, _)| *other == id) {
                        changes.push((id, (random.below(3) != 0).then(|| random.below(9999) as i32)));
                    }
                }
                let end = [COMMIT, COMMIT, COMMIT, OFF, End::Rollback][random.below(5) as usize];
                driver.change("t", &changes, end)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_power_cut_at_sampled_boundaries_of_random_work_keeps_what_was_acknowledged() {
    suite("random", seeds(1000, 6), 6, anything);
}

/// Every file below a folder.
fn files(vfs: &CrashVfs, dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in vfs.read_dir(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            files(vfs, &path, into);
        } else {
            let mut bytes = vfs.read_file(&path, u64::MAX).unwrap();
            // How far ahead a file is extended depends on who extends it first.
            while bytes
                .last_chunk::<PAGE_SIZE>()
                .is_some_and(|page| page.iter().all(|byte| *byte == 0))
            {
                bytes.truncate(bytes.len() - PAGE_SIZE);
            }
            into.insert(path.clone(), bytes);
        }
    }
}

/// In these tests each page is compared with the primary's as well, by the images that records carry.
#[test]
fn several_appliers_make_the_files_that_one_thread_makes() {
    for seed in seeds(3000, 80) {
        let vfs = fresh_disk();
        let mut driver = Driver::start(&vfs).unwrap();
        let mut random = Random::new(seed);
        let work = [anything, splits, heap, large_values][random.below(4) as usize];
        work(&mut driver, &mut random).unwrap();
        let expected = driver.state.clone();
        driver.node.flush().unwrap();
        drop(driver);
        let crashed = vfs.after_crash(Unsynced::Lost, seed);
        let recovered = |appliers: usize| {
            let disk = crashed.after_kill();
            let mut node = Node::start_with(&disk, appliers).unwrap();
            node.checkpoint().unwrap();
            let mut found = BTreeMap::new();
            for dir in ["/data/base", "/data/global"] {
                files(&disk, Path::new(dir), &mut found);
            }
            found.retain(|path, _| !path.ends_with("towline_control"));
            assert_eq!(
                node.contents().unwrap(),
                expected,
                "seed {seed}, {appliers} appliers"
            );
            found
        };
        let alone = recovered(0);
        for appliers in [1, 2, 3, 4, 8] {
            for (path, bytes) in recovered(appliers) {
                let one = &alone[&path];
                let at = one.iter().zip(&bytes).position(|(one, other)| one != other);
                assert!(
                    at.is_none() && one.len() == bytes.len(),
                    "seed {seed}, {appliers} appliers: {} differs at {at:?}, {} and {} bytes",
                    path.display(),
                    one.len(),
                    bytes.len()
                );
            }
        }
    }
}

/// Disks in the middle of work, whose recovery is then killed at each of its own boundaries.
#[test]
fn a_recovery_that_is_killed_at_any_boundary_may_begin_again() {
    let mut points = 0;
    for seed in seeds(2000, 4) {
        let mut random = Random::new(seed);
        let vfs = fresh_disk();
        let mut driver = Driver::start(&vfs).unwrap();
        let disks = Arc::new(Mutex::new(Vec::new()));
        let (kept, promise) = (Arc::clone(&disks), Arc::clone(&driver.promise));
        let mut choice = random.clone();
        vfs.observe(move |moment| {
            if choice.below(40) == 0 {
                let fate = Unsynced::ALL[choice.below(5) as usize];
                let mut found = moment.disks(&[fate], moment.boundary());
                // A power cut, or only the end of the process.
                let disk = if choice.below(2) == 0 {
                    moment.after_kill()
                } else {
                    found.remove(0).1
                };
                kept.lock()
                    .push((moment.boundary(), disk, promise.lock().clone()));
            }
        });
        anything(&mut driver, &mut random).unwrap();
        vfs.observe_no_more();
        drop(driver);
        let disks: Vec<(u64, _, Promise)> = std::mem::take(&mut *disks.lock());
        for (boundary, disk, promise) in disks.into_iter().rev().take(2) {
            for appliers in [0, 3] {
                let sweep = Sweep::new("recovery", seed, 1);
                let disk = disk.after_kill();
                if let Err(failure) = sweep_recovery(&sweep, &disk, promise.clone(), appliers) {
                    panic!("the recovery from boundary {boundary} with {appliers} appliers: {failure}");
                }
                points += sweep.points();
            }
        }
    }
    points::report("recovery", points);
}
