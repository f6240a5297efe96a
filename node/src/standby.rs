//! `towline standby`: a node that follows a primary and serves reads.
//!
//! An empty directory, an unfinished copy, or data that cannot follow the primary any more is cloned (again); a clone is a new
//! identity (A6). A standby that finds in full run that it must be cloned anew ends its sessions, marks the directory and begins
//! again as a fresh process image.

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tonic::transport::Uri;
use towline_access::Engine;
use towline_base::settings::keys;
use towline_base::{Clock, LsnWatch, NodeId, OsVfs, SqlState, SystemClock, Vfs};
use towline_standby::{
    Backoff, CLONE_MARKER, CloneRequest, LogSettings, PROMISE_FILE, PromiseFile, StandbyEnd, StandbyParts,
    StandbyRole, clone_database, mark_for_clone, needs_clone, open_log, wipe,
};
use towline_storage::{ClusterState, ControlFile};

use crate::cli::StandbyArgs;
use crate::cluster::NodeCluster;
use crate::config::NodeConfig;
use crate::data_dir::{self, Contents};
use crate::launch::{Launch, follow_parent, launch};
use crate::process::{Request, Signals};
use crate::refusal::{FAILED, Outcome, Refusal, damaged_catalog};
use crate::serve::{Ended, Front};
use crate::{engine_config, logging, standby_service};

/// First and longest pause between attempts to copy the primary.
const CLONE_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Counts the clones that led to no steady standby, from one process image to the next.
const CLONES_ENV: &str = "TOWLINE_CLONES";
/// A standby that ran this long was a steady one.
const STEADY: Duration = Duration::from_secs(60);
/// Longest pause before a clone that follows others in vain.
const LONGEST_RECLONE_PAUSE: Duration = Duration::from_secs(30);

/// Runs a standby until it is told to stop.
pub(crate) fn run(args: &StandbyArgs) -> Outcome {
    follow_parent(&args.node)?;
    check_upstream(&args.upstream)?;
    let id = identity(args)?;
    let Launch {
        mut id,
        config,
        sql_listener,
        grpc_listener,
        sql,
        replication,
        lock,
    } = launch(&args.node, id)?;
    let mut signals = {
        let _inside = replication.enter();
        Signals::listen()
            .map_err(|error| Refusal::failed(format!("could not listen to signals: {error}.")))?
    };
    let front = Front::start(sql.handle(), sql_listener, &config)?;
    let vfs = OsVfs::shared();
    if !replication.block_on(fill(args, &config, &vfs, &mut id, &mut signals))? {
        return Ok(());
    }

    let settings = &config.settings;
    for (name, value) in [
        ("in_hot_standby", "on"),
        ("primary_conninfo", args.upstream.as_str()),
    ] {
        settings
            .override_value(name, value)
            .map_err(|error| Refusal::failed(error.to_string()))?;
    }
    let broken = |error: &dyn std::fmt::Display| {
        tracing::error!("{error}");
        Refusal::failed(format!(
            "The data directory {} cannot be opened: {error}.",
            args.node.data_dir.display()
        ))
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let control = ControlFile::open(Arc::clone(&vfs), &args.node.data_dir)
        .map_err(|error| broken(&error))?
        .get();
    let engine_config = engine_config::engine(&args.node.data_dir, settings);
    let log = LogSettings {
        sync_method: engine_config.wal_sync_method,
        fsync: engine_config.fsync,
        progress_interval: engine_config.progress_interval,
    };
    let log = open_log(&vfs, &args.node.data_dir, &control, log).map_err(|error| broken(&error))?;
    let promise = PromiseFile::open(Arc::clone(&vfs), &args.node.data_dir, &id, control.timeline)
        .map_err(|error| broken(&error))?;
    let (publisher, quorum) = LsnWatch::new(log.quorum);
    let engine = Engine::open_standby(Arc::clone(&vfs), Arc::clone(&clock), engine_config, quorum)
        .map_err(|error| broken(&error))?;
    front.backend().recovers(engine.storage_arc());
    let segments = Arc::clone(log.received.segments());
    let parts = StandbyParts {
        node: id.clone(),
        system: control.system,
        settings: Arc::clone(settings),
        clock,
        upstream: args.upstream.clone(),
        secret: config.secret.clone(),
        replay: Arc::clone(&engine) as _,
        received: log.received,
        followed: log.followed,
        quorum: publisher,
        consistent_at: log.consistent_at,
        on_disk: log.on_disk,
        promise,
    };
    let role = StandbyRole::start(parts, replication.handle()).map_err(|error| broken(&error))?;
    let cluster = NodeCluster::new(&id.name, Arc::clone(settings), control.timeline);
    cluster.set_standby(role.view(), engine.storage_arc());
    // What others need is known before the first restartpoint removes anything.
    engine.set_retention_hooks(Arc::new(role.view()));
    engine
        .start_restartpoints(Some(segments))
        .map_err(|error| broken(&error))?;
    standby_service::start(
        grpc_listener,
        replication.handle(),
        &id,
        control.system,
        role.view(),
        &config,
    )?;
    let (server, reload_config, reload_engine) = (
        Arc::clone(front.server()),
        Arc::clone(&config),
        Arc::downgrade(&engine),
    );
    cluster.set_reload(Box::new(move || {
        Front::reconfigure(&server, &reload_config);
        if let Some(engine) = reload_engine.upgrade() {
            engine.configure_checkpoints(engine_config::checkpoint(&reload_config.settings));
            engine.configure_background_writer(engine_config::background_writer(&reload_config.settings));
        }
    }));
    engine.set_cluster(Arc::clone(&cluster) as _);
    tracing::info!(node = %id, upstream = args.upstream, "the standby follows its primary");
    let started = std::time::Instant::now();

    let ended = replication.block_on(async {
        let backend = Arc::clone(front.backend());
        let serving = Arc::clone(&engine);
        let serve_when_consistent = async {
            if role.wait_consistent().await {
                // A reader may also be cancelled by replay; what is damaged is said once, where an operator looks.
                if let Err(error) = serving.catalog().shared(&serving)
                    && error.sqlstate() != SqlState::SERIALIZATION_FAILURE
                {
                    tracing::error!("{}", damaged_catalog(&args.node.data_dir, &error));
                }
                backend.serve(serving);
            }
            std::future::pending::<()>().await;
        };
        let running = front.run(&mut signals, &engine, || cluster.reload_settings());
        tokio::select! {
            ended = running => FirstEnd::Node(ended),
            end = role.wait_ended() => FirstEnd::Role(end),
            () = serve_when_consistent => FirstEnd::Node(Ended::Failed),
        }
    });
    match ended {
        FirstEnd::Node(Ended::Asked) => logging::ending(Ended::Asked),
        FirstEnd::Node(Ended::AtOnce) => {
            logging::ending(Ended::AtOnce);
            std::process::exit(i32::from(FAILED));
        }
        FirstEnd::Node(Ended::Failed) => {
            logging::ending(Ended::Failed);
            return Err(Refusal::failed(
                "The node has failed; its log says why. Start it again to recover.",
            ));
        }
        FirstEnd::Role(StandbyEnd::Reclone(_)) => {
            mark_for_clone(vfs.as_ref(), &args.node.data_dir)
                .map_err(|error| Refusal::failed(format!("the data directory cannot be marked: {error}.")))?;
            drop(lock);
            return Err(begin_again(if started.elapsed() > STEADY {
                0
            } else {
                clones_in_vain() + 1
            }));
        }
        FirstEnd::Role(StandbyEnd::Failed(why)) => {
            return Err(Refusal::failed(format!("The standby has failed: {why}.")));
        }
        FirstEnd::Role(StandbyEnd::Stopped) => {}
    }
    // What has arrived becomes durable and is acknowledged before the restartpoint.
    let _ = replication.block_on(role.shutdown());
    match engine.shutdown() {
        Ok(()) => tracing::info!("the database system is shut down"),
        Err(error) => tracing::warn!("{error}"),
    }
    sql.shutdown_background();
    replication.shutdown_background();
    Ok(())
}

/// What ended first.
enum FirstEnd {
    Node(Ended),
    Role(StandbyEnd),
}

/// An address that can be followed: what is wrong with it would be wrong with every attempt.
fn check_upstream(upstream: &str) -> Outcome {
    let wrong = |why: &str| {
        Err(Refusal::new(format!(
            "\"{upstream}\" is not an address to follow{why}; give the gRPC address of the primary, such as http://127.0.0.1:7432."
        )))
    };
    let Ok(uri) = upstream.parse::<Uri>() else {
        return wrong("");
    };
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return wrong(": TLS between nodes is not supported yet"),
        _ => return wrong(""),
    }
    if uri.host().is_none_or(str::is_empty) {
        return wrong(": it names no host");
    }
    if uri.port_u16().is_none_or(|port| port == 0) {
        return wrong(": it names no port");
    }
    if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return wrong(": there is more than a host and a port in it");
    }
    Ok(())
}

/// Whether a primary has run on this directory, and no copy has been begun in its place.
fn is_a_primarys(dir: &Path) -> bool {
    let marked = dir.join(CLONE_MARKER).exists() || dir.join(PROMISE_FILE).exists();
    !marked
        && ControlFile::open(OsVfs::shared(), dir).is_ok_and(|control| match control.get().state {
            ClusterState::ShutDown
            | ClusterState::ShuttingDown
            | ClusterState::InCrashRecovery
            | ClusterState::InProduction => true,
            ClusterState::Starting | ClusterState::ShutDownInRecovery | ClusterState::InArchiveRecovery => {
                false
            }
        })
}

/// Who this standby is: what the directory says, or a new identity for an empty one.
fn identity(args: &StandbyArgs) -> Outcome<NodeId> {
    let dir = &args.node.data_dir;
    match data_dir::look(dir)? {
        Contents::Nothing => data_dir::write_node(dir, &args.name),
        Contents::Unfinished => {
            data_dir::check_name(&args.name)?;
            data_dir::reclaim(dir)?;
            data_dir::write_node(dir, &args.name)
        }
        Contents::Node(id) if is_a_primarys(dir) => Err(Refusal::new(format!(
            "{} is the data directory of the primary {}, and as a standby it could not be a primary any more; run it with towline primary, or \
             name another with --data-dir.",
            dir.display(),
            id.name
        ))),
        Contents::Node(id) if id.name == args.name => Ok(id),
        Contents::Node(id) => Err(Refusal::new(format!(
            "{} is the data directory of node {}, not of {}; use --name {0}, or another directory.",
            dir.display(),
            id.name,
            args.name
        ))),
        Contents::Foreign => Err(Refusal::new(format!(
            "{} is not a data directory of Towline, and it is not empty; name another with --data-dir.",
            dir.display()
        ))),
    }
}

/// Copies the primary if there is no whole database here. False when the node was told to stop meanwhile.
async fn fill(
    args: &StandbyArgs,
    config: &NodeConfig,
    vfs: &Arc<dyn Vfs>,
    id: &mut NodeId,
    signals: &mut Signals,
) -> Outcome<bool> {
    let dir = &config.data_dir;
    let failed =
        |error: std::io::Error| Refusal::failed(format!("{} cannot be prepared: {error}.", dir.display()));
    if !needs_clone(vfs.as_ref(), dir).map_err(failed)? {
        return Ok(true);
    }
    // A copy never inherits what an earlier incarnation of this directory promised or acknowledged.
    *id = data_dir::write_node(dir, &args.name)?;
    let mut backoff = Backoff::new(CLONE_PAUSES.0, CLONE_PAUSES.1);
    let clones = clones_in_vain();
    if clones > 0 {
        let pause = (Duration::from_millis(500) * 2u32.saturating_pow(clones)).min(LONGEST_RECLONE_PAUSE);
        tracing::warn!("cloning again in {} s", pause.as_secs_f32());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop_requested(signals) => return Ok(false),
        }
    }
    loop {
        wipe(vfs.as_ref(), dir).map_err(failed)?;
        let request = CloneRequest {
            upstream: args.upstream.clone(),
            secret: config.secret.clone(),
            node: id.clone(),
            slot: String::new(),
            data_dir: dir.clone(),
            timeout: config
                .settings
                .duration(keys::wal_receiver_timeout)
                .filter(|timeout| !timeout.is_zero()),
        };
        let bar = progress_bar();
        tracing::info!(upstream = args.upstream, "copying the primary");
        let copying = clone_database(vfs, &request, |progress| {
            bar.set_length(progress.total_bytes.max(progress.bytes));
            bar.set_position(progress.bytes);
        });
        tokio::select! {
            copied = copying => match copied {
                Ok(()) => {
                    bar.finish_and_clear();
                    tracing::info!("the copy is complete: {} bytes", bar.position());
                    return Ok(true);
                }
                Err(error) => tracing::warn!("{error}; trying again"),
            },
            () = stop_requested(signals) => return Ok(false),
        }
        bar.finish_and_clear();
        tokio::select! {
            () = tokio::time::sleep(backoff.next_pause()) => {}
            () = stop_requested(signals) => return Ok(false),
        }
    }
}

/// How many clones in a row led to no steady standby.
fn clones_in_vain() -> u32 {
    std::env::var(CLONES_ENV)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Ready when the node is told to stop.
async fn stop_requested(signals: &mut Signals) {
    while signals.next().await == Request::Reload {}
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) =
        ProgressStyle::with_template("copying {wide_bar} {bytes}/{total_bytes} ({bytes_per_sec}, {eta})")
    {
        bar.set_style(style);
    }
    bar
}

/// Becomes the same command anew; returns only when that fails. A supervisor then starts us again, with the same effect.
fn begin_again(clones: u32) -> Refusal {
    let error = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(CLONES_ENV, clones.to_string())
            .exec(),
        Err(error) => error,
    };
    Refusal::failed(format!(
        "The standby must be started again to clone itself anew ({error})."
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// It was tried for ever, and the directory was made before.
    #[test]
    fn an_address_that_nobody_can_have_is_refused_at_once() {
        for right in ["http://127.0.0.1:7432", "http://node1:7432/", "http://[::1]:7432"] {
            assert!(check_upstream(right).is_ok(), "{right}");
        }
        for (wrong, why) in [
            ("", "address to follow"),
            ("127.0.0.1:7432", "address to follow"),
            ("ftp://node1:7432", "address to follow"),
            ("http://", "address to follow"),
            ("http://a b:1", "address to follow"),
            ("https://node1:7432", "TLS"),
            ("http://node1", "no port"),
            ("http://node1:0", "no port"),
            ("http://node1:99999", "no port"),
            ("http://:7432", "no host"),
            ("http://node1:7432/path", "more than"),
        ] {
            let said = check_upstream(wrong).unwrap_err().sentence;
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }

    /// It followed, and was a standby's from then on.
    #[test]
    fn a_primarys_directory_does_not_become_a_standbys() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("p");
        crate::init::make(&dir, "p", None, Some("1MB"), towline_base::Xid::FIRST_NORMAL).unwrap();
        assert!(is_a_primarys(&dir));
        mark_for_clone(&OsVfs, &dir).unwrap();
        assert!(!is_a_primarys(&dir));
        assert!(!is_a_primarys(&base.path().join("missing")));
    }
}
