//! `towline up`: a whole cluster from one command, each node its own process.
//!
//! [`plan`] decides who runs where and refuses before anything is touched; [`child`] keeps one process alive; this
//! module ties them: start the primary, then the standbys; show the table when something changed; on Ctrl-C stop the primary
//! first, so that its last WAL reaches the standbys, then the standbys.

mod child;
mod plan;
mod table;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::cli::UpArgs;
use crate::refusal::{Outcome, Refusal};
pub(crate) use plan::{CLUSTER_FILE, ClusterFile, SECRET_FILE};
pub(crate) use table::{Asked, ask_all, render};

use child::{Child, Stopping};
use plan::Plan;

/// How often the children are looked at.
const TICK: Duration = Duration::from_millis(200);
/// How often the nodes are asked how they are.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Runs the cluster until it is told to stop.
pub(crate) fn run(args: &UpArgs) -> Outcome {
    towline_base::failpoint::configure_from_env().map_err(Refusal::new)?;
    let plan = Plan::make(args)?;
    let interrupts = count_interrupts()?;
    let _lock = plan.prepare(args.fresh)?;
    say(&format!(
        "Starting {} node(s) in {} …",
        plan.nodes.len(),
        plan.dir.display()
    ));
    let mut children: Vec<Child> = plan.nodes.iter().map(|node| Child::new(&plan, node)).collect();
    let ended = supervise(&plan, &mut children, &interrupts);
    stop_all(&mut children, &interrupts, plan.stop_patience());
    ended
}

fn supervise(plan: &Plan, children: &mut [Child], interrupts: &AtomicUsize) -> Outcome {
    let mut shown = String::new();
    let mut asked: Option<Instant> = None;
    let mut announced = false;
    while interrupts.load(Ordering::SeqCst) == 0 {
        for child in children.iter_mut() {
            if let Some(event) = child.tend()? {
                say(&event);
                // A table shown before no longer tells the truth.
                shown.clear();
            }
        }
        if asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
            let rows: Vec<table::Row> = table::ask(plan);
            for (child, row) in children.iter_mut().zip(&rows) {
                if row.serves() {
                    child.serves();
                }
            }
            let shape = table::shape(&rows);
            if shape != shown && rows.iter().all(table::Row::serves) {
                say(&table::render(&rows));
                if !announced {
                    say(&table::hints(plan));
                    announced = true;
                }
                shown = shape;
            }
            asked = Some(Instant::now());
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// The primary first, so that the standbys receive its last WAL; then the standbys together.
fn stop_all(children: &mut [Child], interrupts: &AtomicUsize, patience: Duration) {
    let (primary, standbys) = children.split_at_mut(1);
    if primary.iter().chain(standbys.iter()).any(Child::runs) {
        say("Stopping …");
    }
    for group in [primary, standbys] {
        for child in group.iter_mut() {
            child.stop(Stopping::Fast);
        }
        let deadline = Instant::now() + patience;
        while group.iter_mut().any(|child| !child.has_ended()) {
            // A second Ctrl-C, or no end in sight: as after a crash; recovery mends it.
            if interrupts.load(Ordering::SeqCst) > 1 || Instant::now() > deadline {
                for child in group.iter_mut() {
                    child.stop(Stopping::Kill);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    say("Stopped.");
}

/// Prints a line for the user; a reader that has gone away is no reason to stop the cluster.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Counts SIGINT and SIGTERM on a thread of its own. The children are in process groups of their own, so that Ctrl-C
/// reaches only us and the order of stopping is ours.
fn count_interrupts() -> Outcome<Arc<AtomicUsize>> {
    let failed = |error: std::io::Error| Refusal::failed(format!("could not listen to signals: {error}"));
    let count = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let mut signals = {
        let _inside = runtime.enter();
        crate::process::Signals::listen().map_err(failed)?
    };
    let shared = Arc::clone(&count);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    if signals.next().await != crate::process::Request::Reload {
                        shared.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        })
        .map_err(failed)?;
    Ok(count)
}
