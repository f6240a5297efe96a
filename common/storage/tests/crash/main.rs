//! Crash tests: random logged changes over a disk that forgets, a power cut at every write and sync, recovery, comparison.
//!
//! Each case is a pure function of its seed, printed with a failure. More seeds: `TOWLINE_CRASH_SEEDS=n`.
#![allow(clippy::unwrap_used)]

mod errors;
mod standby;
mod world;

use towline_base::Lsn;
use towline_base::rules::{Rule, RuleOff};
use towline_base::testing::points;
use towline_base::vfs::crash::{CrashVfs, Op, Unsynced};
use world::{
    Contents, Event, Failure, History, Node, SLOTS, Sabotage, check_page_lsn_bound, contents_at, init,
};

/// A small deterministic generator.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}

/// What a run did before the power went.
#[derive(Default)]
struct Trace {
    history: History,
    /// What was promised to be durable.
    acknowledged: Lsn,
}

fn pick(rng: &mut Rng, contents: &Contents) -> Option<(u32, u32)> {
    let filled: Vec<(u32, usize)> = contents
        .iter()
        .filter(|(_, pages)| !pages.is_empty())
        .map(|(rel, pages)| (*rel, pages.len()))
        .collect();
    let (rel, blocks) = *filled.get(rng.below(filled.len() as u64) as usize)?;
    Some((rel, rng.below(blocks as u64) as u32))
}

/// Random changes; the contents follow the node. Stops with the first error, which a power cut makes of everything.
fn work(
    node: &mut Node,
    rng: &mut Rng,
    steps: usize,
    next_rel: &mut u32,
    trace: &mut Trace,
) -> Result<(), Failure> {
    for _ in 0..steps {
        let contents = contents_at(&trace.history, Lsn::MAX);
        let largest = contents
            .iter()
            .max_by_key(|(_, pages)| pages.len())
            .map(|(rel, pages)| (*rel, pages.len() as u32));
        let event = match rng.below(100) {
            0..=4 if contents.len() < 4 => {
                *next_rel += 1;
                Event::Create(*next_rel)
            }
            5..=29 if !contents.is_empty() => {
                let rels: Vec<u32> = contents.keys().copied().collect();
                let rel = rels[rng.below(rels.len() as u64) as usize];
                Event::Init(rel, contents[&rel].len() as u32)
            }
            30..=69 => match pick(rng, &contents) {
                Some((rel, block)) => {
                    Event::Put(rel, block, 1 + rng.below(SLOTS.into()) as u16, rng.below(1 << 40))
                }
                None => continue,
            },
            70..=79 => {
                let (Some(one), Some(two)) = (pick(rng, &contents), pick(rng, &contents)) else {
                    continue;
                };
                if one == two {
                    continue;
                }
                let slot = 1 + rng.below(SLOTS.into()) as u16;
                let (value, other) = (rng.below(1 << 40), rng.below(1 << 40));
                let end = node
                    .put(&[(one.0, one.1, slot, value), (two.0, two.1, slot, other)])?
                    .end;
                trace.history.push((end, Event::Put(one.0, one.1, slot, value)));
                trace.history.push((end, Event::Put(two.0, two.1, slot, other)));
                continue;
            }
            80..=82 => match largest {
                Some((rel, blocks)) if blocks > 2 => Event::Truncate(rel, rng.below(blocks.into()) as u32),
                _ => continue,
            },
            83..=84 => match largest {
                Some((rel, _)) if contents.len() > 2 => Event::Drop(rel),
                _ => continue,
            },
            85..=88 => {
                node.checkpoint()?;
                trace.acknowledged = trace.acknowledged.max(node.wal.positions().flush.get());
                continue;
            }
            _ => {
                trace.acknowledged = trace.acknowledged.max(node.flush()?);
                continue;
            }
        };
        // A truncation flushes on the way and then fails, or not: the record may be in the log although the call failed.
        let before = node.wal.insert_lsn();
        match node.apply(&event) {
            Ok(end) => trace.history.push((end, event)),
            Err(error) => {
                let after = node.wal.insert_lsn();
                if after > before {
                    trace.history.push((after, event));
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Short runs, so that every boundary can be tried, and now and then one that overflows the pool many times.
fn steps(seed: u64) -> usize {
    if seed.is_multiple_of(2) { 250 } else { 60 }
}

/// Runs the workload of `seed` on a disk that fails at boundary `crash_at`, and returns the disk and what was done.
fn run(seed: u64, crash_at: Option<u64>, sabotage: Sabotage) -> (CrashVfs, Trace, u64) {
    let vfs = CrashVfs::new();
    init(&vfs).unwrap();
    let start = vfs.boundaries();
    if let Some(k) = crash_at {
        vfs.crash_at(start + k);
    }
    let mut trace = Trace::default();
    let mut next_rel = 20_000;
    if let Ok(mut node) = Node::start(&vfs, sabotage) {
        let done = work(
            &mut node,
            &mut Rng::new(seed),
            steps(seed),
            &mut next_rel,
            &mut trace,
        );
        assert!(done.is_ok() || vfs.crashed(), "seed {seed}: {done:?}");
        // Without a power cut during the work it comes now, with whatever stands unsynced.
    }
    let boundaries = vfs.boundaries() - start;
    (vfs, trace, boundaries)
}

/// Recovers and compares; then works on, checkpoints, restarts and compares again.
fn check(disk: &CrashVfs, trace: &Trace, seed: u64, sabotage: Sabotage) -> Result<(), Failure> {
    check_page_lsn_bound(disk)?;
    let mut node = Node::start(disk, sabotage)?;
    if node.found_end < trace.acknowledged {
        return Err(format!(
            "the log ends at {}, but {} was durable",
            node.found_end, trace.acknowledged
        ));
    }
    node.verify(&trace.history, node.found_end)?;
    let end = node.found_end;
    let mut later = Trace {
        history: trace
            .history
            .iter()
            .filter(|(lsn, _)| *lsn <= end)
            .cloned()
            .collect(),
        acknowledged: Lsn(0),
    };
    let mut next_rel = 30_000;
    work(
        &mut node,
        &mut Rng::new(seed ^ 0xABCD),
        15,
        &mut next_rel,
        &mut later,
    )?;
    node.checkpoint()?;
    if !node.storage.unlinks().is_empty() {
        return Err("dropped relations wait although a checkpoint has passed".to_owned());
    }
    let position = node.wal.positions().flush.get();
    drop(node);
    let node = Node::start(disk, sabotage)?;
    node.verify(&later.history, position)
}

const MODES: [Unsynced; 5] = [
    Unsynced::Lost,
    Unsynced::Kept,
    Unsynced::Reordered,
    Unsynced::Torn(512),
    Unsynced::Torn(4096),
];

fn seeds() -> u64 {
    std::env::var("TOWLINE_CRASH_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2)
}

#[test]
fn after_a_power_cut_at_any_boundary_every_page_holds_what_the_log_says() {
    let mut points = 0;
    for seed in 1..=seeds() {
        let (_, _, boundaries) = run(seed, None, Sabotage::None);
        for k in 1..=boundaries + 1 {
            let (disk, trace, _) = run(seed, Some(k), Sabotage::None);
            // Each boundary with two ways to forget; all of them over the seeds and boundaries.
            for mode in [MODES[(k % 5) as usize], MODES[((k + 2 + seed) % 5) as usize]] {
                let after = disk.after_crash(mode, k);
                if let Err(error) = check(&after, &trace, seed, Sabotage::None) {
                    panic!("seed {seed}, boundary {k} of {boundaries}, {mode:?}: {error}");
                }
                points += 1;
            }
        }
    }
    points::report("pages", points);
}

#[test]
fn a_recovery_that_is_killed_may_begin_again() {
    let mut points = 0;
    for seed in 100..100 + seeds() {
        let (disk, whole, _) = run(seed, None, Sabotage::None);
        let mut rng = Rng::new(seed);
        for k in 1..60 {
            let mode = MODES[rng.below(5) as usize];
            let first = disk.after_crash(mode, seed);
            first.crash_at(first.boundaries() + k);
            let mut trace = Trace {
                history: whole.history.clone(),
                acknowledged: whole.acknowledged,
            };
            let killed = Node::start(&first, Sabotage::None).and_then(|node| {
                // What this start did not find never happened: other records may take its place in the log.
                trace.history.retain(|(end, _)| *end <= node.found_end);
                node.checkpoint()
            });
            if killed.is_ok() {
                break;
            }
            let second = first.after_crash(MODES[rng.below(5) as usize], k);
            if let Err(error) = check(&second, &trace, seed, Sabotage::None) {
                panic!("seed {seed}, {mode:?}, recovery killed at its boundary {k}: {error}");
            }
            points += 1;
        }
    }
    points::report("page recovery", points);
}

#[test]
fn after_any_single_failing_call_a_restart_finds_what_was_logged() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    let mut points = 0;
    for seed in (201..).step_by(2).take(seeds() as usize) {
        for op in Op::ALL {
            for nth in 1.. {
                let vfs = CrashVfs::new();
                init(&vfs).unwrap();
                let mut trace = Trace::default();
                let mut node = Node::start(&vfs, Sabotage::None).unwrap();
                let before = vfs.count(op);
                vfs.fail_nth(op, nth, if nth % 2 == 0 { EIO } else { ENOSPC }, false);
                let (mut rng, mut next_rel) = (Rng::new(seed), 20_000);
                for _ in 0..60 {
                    // A failed statement is no reason to stop, unless the log or the storage has.
                    let _ = work(&mut node, &mut rng, 1, &mut next_rel, &mut trace);
                }
                let reached = vfs.count(op) - before >= nth;
                drop(node);
                vfs.clear_failures();
                let disk = vfs.after_crash(MODES[(nth % 5) as usize], nth);
                if let Err(error) = check(&disk, &trace, seed, Sabotage::None) {
                    panic!("seed {seed}, the {nth}th {op:?} failed: {error}");
                }
                points += 1;
                if !reached {
                    break;
                }
            }
        }
    }
    println!("{points} failing calls");
    assert!(points > 50);
}

/// With the rule switched off some crash point must fail, else this harness proves nothing.
fn is_noticed(sabotage: Sabotage) -> bool {
    (1..40u64).any(|seed| {
        let (_, _, boundaries) = run(seed, None, sabotage);
        (1..=boundaries).rev().step_by(3).any(|k| {
            let (disk, trace, _) = run(seed, Some(k), sabotage);
            let mut modes = [Unsynced::Lost, Unsynced::Torn(512)].iter();
            modes.any(|mode| {
                let after = disk.after_crash(*mode, k);
                let attempt = || check(&after, &trace, seed, sabotage).is_err();
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt)).unwrap_or(true)
            })
        })
    })
}

/// Threads change pages of their own, two per record, with checkpoints beside them, until the power goes.
#[test]
fn a_power_cut_under_threads_loses_nothing_that_was_flushed_and_halves_no_record() {
    const THREADS: u32 = 3;
    const PAGES: u32 = 16;
    for seed in 400..400 + 6 * seeds() {
        let vfs = CrashVfs::new();
        init(&vfs).unwrap();
        let node = Node::start(&vfs, Sabotage::None).unwrap();
        node.apply(&Event::Create(20_000)).unwrap();
        for block in 0..THREADS * PAGES {
            node.apply(&Event::Init(20_000, block)).unwrap();
        }
        node.flush().unwrap();
        vfs.crash_at(vfs.boundaries() + 100 + Rng::new(seed).below(600));
        // Highest round that was flushed, and that was begun, by thread.
        let rounds: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let (node, vfs) = (&node, &vfs);
            scope.spawn(move || while node.checkpoint().is_ok() {});
            let workers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut flushed = 0;
                        for round in 1.. {
                            let block = thread * PAGES + (round as u32 * 2) % PAGES;
                            let puts = [(20_000, block, 1, round), (20_000, block + 1, 1, round)];
                            let logged = node.put(&puts);
                            if logged.is_err() || (round % 5 == 0 && node.flush().is_err()) {
                                assert!(vfs.crashed(), "{logged:?}");
                                return (flushed, round);
                            }
                            if round % 5 == 0 {
                                flushed = round;
                            }
                        }
                        unreachable!("the power goes first")
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        drop(node);
        let disk = vfs.after_crash(MODES[(seed % 5) as usize], seed);
        let node = Node::start(&disk, Sabotage::None).unwrap();
        let value = |block: u32| {
            let id = towline_base::PageId::main(towline_storage::smgr::relation(20_000), block);
            let page = node.storage.pin(id).unwrap().read();
            u64::from_le_bytes(page.item(1).unwrap().try_into().unwrap())
        };
        for (thread, (flushed, begun)) in rounds.into_iter().enumerate() {
            let first = thread as u32 * PAGES;
            let mut newest = 0;
            for block in (first..first + PAGES).step_by(2) {
                assert_eq!(
                    value(block),
                    value(block + 1),
                    "seed {seed}: a record is there by half"
                );
                newest = newest.max(value(block));
            }
            assert!(
                flushed <= newest && newest <= begun,
                "seed {seed}: {flushed} flushed, {newest} found, {begun} begun"
            );
            for round in newest.saturating_sub(u64::from(PAGES / 2) - 1).max(1)..=newest {
                assert_eq!(
                    value(first + (round as u32 * 2) % PAGES),
                    round,
                    "seed {seed}: a round is missing"
                );
            }
        }
    }
}

#[test]
fn a_standby_replays_the_same_pages_and_restarts_from_its_restartpoint() {
    let mut restarted_later = 0;
    for seed in 300..300 + 4 * seeds() {
        let disk = CrashVfs::new();
        init(&disk).unwrap();
        let standby_disk = disk.after_crash(Unsynced::Kept, 0);
        let disk = disk.after_crash(Unsynced::Kept, 0);
        let mut node = Node::start(&disk, Sabotage::None).unwrap();
        let mut trace = Trace::default();
        let (mut rng, mut next_rel) = (Rng::new(seed), 20_000);
        let mut follower = standby::Standby::start(&standby_disk, &disk).unwrap();
        for round in 0..12 {
            work(&mut node, &mut rng, 20, &mut next_rel, &mut trace).unwrap();
            let flushed = node.flush().unwrap();
            follower.follow(flushed).unwrap();
            assert_eq!(follower.replayed(), flushed);
            follower.verify(&trace.history).unwrap();
            standby::compare(&node.storage, &follower.storage, &trace.history);
            if round % 3 == 2 {
                let before = follower.redo();
                follower.restartpoint();
                restarted_later += u32::from(follower.redo() > before);
            }
        }
        // The standby loses power and starts again from its restartpoint.
        let first_redo = follower.redo();
        let disk_after = standby_disk.after_crash(MODES[(seed % 5) as usize], seed);
        check_page_lsn_bound(&disk_after).unwrap();
        let mut again = standby::Standby::start(&disk_after, &disk).unwrap();
        assert_eq!(again.redo(), first_redo);
        again.follow(node.wal.positions().flush.get()).unwrap();
        again.verify(&trace.history).unwrap();
        standby::compare(&node.storage, &again.storage, &trace.history);
    }
    assert!(restarted_later > 4, "restartpoints were made");
}

#[test]
fn the_harness_notices_pages_written_before_their_log() {
    assert!(is_noticed(Sabotage::NoGate));
}

#[test]
fn the_harness_notices_missing_page_images() {
    assert!(is_noticed(Sabotage::NoImages));
}

#[test]
fn the_harness_notices_a_bound_of_page_lsns_that_is_only_noted() {
    assert!(is_noticed(Sabotage::NoBound));
}

/// B1: a dropped relation whose record is lost is there again, and its files must be too.
#[cfg(debug_assertions)]
#[test]
fn the_harness_notices_files_that_go_before_their_record_is_durable() {
    let _off = RuleOff::new(Rule::FilesBelowQuorum);
    assert!(is_noticed(Sabotage::None));
}
