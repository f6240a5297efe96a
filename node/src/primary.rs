//! `towline primary`: a node that writes.
//!
//! The order of a start (DESIGN §7): open the log on a new timeline, ship it to standbys at once, redo meanwhile, then serve SQL.
//! The order of a stop: no more sessions, the shutdown checkpoint, then the walsenders, which deliver its record; the log last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use towline_access::engine::{OpenedPrimary, QuorumMode, RetentionHooks};
use towline_access::{AccessError, Engine, EngineConfig};
use towline_base::settings::keys;
use towline_base::{Clock, Lsn, OsVfs, SystemClock, TimelineNumber};
use towline_primary::{PrimaryParts, PrimaryRole, QuorumPublishers, SeenTimelines, Slots, SyncRep};
use towline_standby::PROMISE_FILE;
use towline_storage::CheckpointInfo;

use crate::cli::NodeArgs;
use crate::cluster::NodeCluster;
use crate::data_dir::{self, Contents};
use crate::launch::{Launch, follow_parent, launch};
use crate::process::{Request, Signals};
use crate::refusal::{Outcome, Refusal, damaged_catalog};
use crate::serve::{Ended, Front};
use crate::{engine_config, logging};

/// Runs a primary until it is told to stop.
pub(crate) fn run(args: &NodeArgs) -> Outcome {
    follow_parent(args)?;
    let id = match data_dir::look(&args.data_dir)? {
        Contents::Node(id) if args.data_dir.join(PROMISE_FILE).exists() => {
            return Err(Refusal::new(format!(
                "{} is the data directory of the standby {}, and as a primary it would write a history of its own; run it with \
                 towline standby, or name another with --data-dir.",
                args.data_dir.display(),
                id.name
            )));
        }
        Contents::Node(id) => id,
        Contents::Nothing => {
            return Err(Refusal::new(format!(
                "{} is not a data directory yet; make it with: towline init --data-dir {0}",
                args.data_dir.display()
            )));
        }
        Contents::Unfinished => {
            return Err(Refusal::new(format!(
                "{} was not finished by towline init; begin it anew with: towline init --data-dir {0}",
                args.data_dir.display()
            )));
        }
        Contents::Foreign => {
            return Err(Refusal::new(format!(
                "{} is not a data directory of Towline; name another with --data-dir.",
                args.data_dir.display()
            )));
        }
    };
    let Launch {
        id,
        config,
        sql_listener,
        grpc_listener,
        sql,
        replication,
        lock: _lock,
    } = launch(args, id)?;
    let signals = {
        let _inside = replication.enter();
        Signals::listen()
            .map_err(|error| Refusal::failed(format!("could not listen to signals: {error}.")))?
    };
    let front = Front::start(sql.handle(), sql_listener, &config)?;

    let broken = |error: AccessError| {
        tracing::error!("{error}");
        Refusal::failed(format!(
            "The data directory {} cannot be opened: {error}.",
            args.data_dir.display()
        ))
    };
    let settings = &config.settings;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let vfs = OsVfs::shared();
    let seen = SeenTimelines::open(Arc::clone(&vfs), &args.data_dir)
        .map_err(|error| Refusal::failed(format!("what standbys have told cannot be read: {error}.")))?;
    let engine_config = EngineConfig {
        timelines_seen: seen.highest().unwrap_or(TimelineNumber(0)),
        ..engine_config::engine(&args.data_dir, settings)
    };
    let mut opened = Engine::open_primary(
        Arc::clone(&vfs),
        Arc::clone(&clock),
        engine_config,
        QuorumMode::Managed,
    )
    .map_err(broken)?;
    let engine = Arc::clone(&opened.engine);
    front.backend().recovers(Arc::clone(&opened.storage));
    let sync_rep = start_quorum(&mut opened, settings)?;
    let writer = engine.start_wal_writer(&opened.wal).map_err(broken)?;
    let slots = Slots::open(vfs, &args.data_dir.join(SLOTS_DIR))
        .map_err(|error| Refusal::failed(format!("replication slots cannot be read: {error}.")))?;
    engine.set_retention_hooks(Arc::new(Retention {
        slots: Arc::clone(&slots),
    }));
    let feedback = Arc::clone(&engine);
    let listener = {
        let _inside = replication.enter();
        tokio::net::TcpListener::from_std(grpc_listener)
            .map_err(|error| Refusal::failed(format!("could not serve replication: {error}.")))?
    };
    let control = opened.storage.control().get();
    let parts = PrimaryParts {
        node: id.clone(),
        system: control.system,
        settings: Arc::clone(settings),
        clock,
        wal: Arc::clone(&opened.wal),
        history: opened.history.clone(),
        storage: Arc::clone(&opened.storage),
        sync_rep: Arc::clone(&sync_rep),
        slots,
        seen,
        on_feedback: Box::new(move |oldest| feedback.set_feedback(oldest)),
        secret: config.secret.clone(),
        listener,
    };
    let role = PrimaryRole::start(parts, replication.handle())
        .map_err(|error| Refusal::failed(format!("could not serve replication: {error}.")))?;
    // Redo may wait for standbys that never come, and for space: a stop is obeyed meanwhile.
    let stop = Arc::new(AtomicBool::new(false));
    let redone = Arc::new(Notify::new());
    let listening = replication.spawn(listen_during_redo(
        signals,
        Arc::clone(&stop),
        Arc::clone(&redone),
    ));
    let recovered = opened.recover_until(&|| stop.load(Ordering::Acquire));
    redone.notify_one();
    let (mut signals, asked) = replication
        .block_on(listening)
        .map_err(|error| Refusal::failed(format!("could not listen to signals: {error}.")))?;
    recovered.map_err(broken)?;
    if let Some(request) = asked {
        if request == Request::StopNow {
            logging::ending(Ended::AtOnce);
            std::process::exit(i32::from(crate::refusal::FAILED));
        }
        logging::ending(Ended::Asked);
        tracing::info!(
            "the start was stopped before redo had ended; the next start recovers as after a crash"
        );
        sql.shutdown_background();
        replication.shutdown_background();
        return Ok(());
    }
    engine
        .start_background_with(&opened.history, writer)
        .map_err(broken)?;
    // Without the catalog nobody can log in, and no restart helps.
    engine.catalog().shared(&engine).map_err(|error| {
        let sentence = damaged_catalog(&args.data_dir, &error);
        tracing::error!("{sentence}");
        Refusal::new(sentence)
    })?;

    let cluster = NodeCluster::new(&id.name, Arc::clone(settings), opened.history.current());
    cluster.set_primary(role.view());
    let (server, reload_config, reload_engine) = (
        Arc::clone(front.server()),
        Arc::clone(&config),
        Arc::downgrade(&engine),
    );
    let alone = !sync_rep.is_synchronous();
    cluster.set_reload(Box::new(move || {
        Front::reconfigure(&server, &reload_config);
        sync_rep.set_names(engine_config::sync_names(&reload_config.settings));
        if let Some(engine) = reload_engine.upgrade() {
            engine.configure_checkpoints(engine_config::checkpoint(&reload_config.settings));
            engine.configure_background_writer(engine_config::background_writer(&reload_config.settings));
            engine.configure_autovacuum(engine_config::autovacuum(&reload_config.settings));
            if let Ok(writer) = engine.writer() {
                writer
                    .wal
                    .tune(engine_config::wal_tuning(&reload_config.settings));
            }
        }
    }));
    engine.set_cluster(Arc::clone(&cluster) as _);
    if config.is_open() {
        require_passwords(&engine, &config)?;
    }
    let serve = {
        let (backend, engine) = (Arc::clone(front.backend()), Arc::clone(&engine));
        let text = format!(
            "the primary serves SQL on {} and replication on {}",
            config.sql_listen,
            role.address()
        );
        let (node, timeline) = (id.clone(), opened.history.current().number);
        move || {
            backend.serve(engine);
            tracing::info!(%node, %timeline, "{text}");
        }
    };
    // What was acknowledged before a crash is released with the timeline's first record. Where no standby is required only this disk
    // decides when that is, and whoever is let in finds it. A stop is obeyed meanwhile.
    let released = engine.visible().wait_for(opened.first_record_end);
    let serving = if alone {
        replication.spawn(async move {
            // An error is a log that has failed; that ends the node.
            if released.await.is_ok() {
                serve();
            }
        })
    } else {
        serve();
        replication.spawn(async {})
    };

    let ended = replication.block_on(front.run(&mut signals, &engine, || cluster.reload_settings()));
    serving.abort();
    logging::ending(ended);
    match ended {
        Ended::Asked => {}
        Ended::AtOnce => std::process::exit(i32::from(crate::refusal::FAILED)),
        Ended::Failed => {
            return Err(Refusal::failed(
                "The node has failed; its log says why. Start it again to recover.",
            ));
        }
    }
    let clean = engine.shutdown();
    let patience = settings
        .duration(keys::shutdown_timeout)
        .unwrap_or(Duration::from_secs(10));
    replication.block_on(role.shutdown(patience));
    match clean {
        Ok(()) => tracing::info!("the database system is shut down"),
        Err(error) => tracing::warn!("{error}"),
    }
    sql.shutdown_background();
    replication.shutdown_background();
    Ok(())
}

/// Directory of the slot files below the data directory.
const SLOTS_DIR: &str = "slots";

/// Obeys requests while redo runs on another thread: a stop is told to it. Returns when redo is done, or with the stop.
async fn listen_during_redo(
    mut signals: Signals,
    stop: Arc<AtomicBool>,
    redone: Arc<Notify>,
) -> (Signals, Option<Request>) {
    loop {
        tokio::select! {
            request = signals.next() => {
                if request == Request::Reload {
                    // What it would change is read at the start's end.
                    continue;
                }
                stop.store(true, Ordering::Release);
                return (signals, Some(request));
            }
            () = redone.notified() => return (signals, None),
        }
    }
}

/// Members and quorum of the new timeline, fed by the log's own flushes.
fn start_quorum(
    opened: &mut OpenedPrimary,
    settings: &towline_base::settings::Settings,
) -> Outcome<Arc<SyncRep>> {
    let (quorum, quorum_written) = opened
        .quorum
        .take()
        .ok_or_else(|| Refusal::failed("the engine computes the quorum by itself"))?;
    let sync_rep = SyncRep::new(
        opened.history.current(),
        opened.first_record_end,
        QuorumPublishers {
            quorum,
            quorum_written,
        },
        Arc::clone(opened.engine.release()),
        engine_config::sync_names(settings),
        opened.wal.positions().flush.get(),
    );
    let told = Arc::clone(&sync_rep);
    let wal = Arc::downgrade(&opened.wal);
    opened.wal.set_post_flush_hook(Box::new(move |flush| {
        // I2: a position crosses from the log to the primary role here.
        if let Some(wal) = wal.upgrade() {
            let insert = wal.insert_lsn();
            assert!(flush <= insert, "flush {flush} is beyond insert {insert} (I2)");
        }
        told.on_flush(flush);
    }));
    Ok(sync_rep)
}

/// Beyond loopback only passwords let anybody in; without one nobody could, so the node says so instead of starting.
fn require_passwords(engine: &Arc<Engine>, config: &crate::config::NodeConfig) -> Outcome {
    let catalog = engine
        .catalog()
        .shared(engine)
        .map_err(|error| Refusal::failed(format!("the roles cannot be read: {error}.")))?;
    if catalog
        .roles()
        .any(|role| role.can_login && role.password.is_some())
    {
        return Ok(());
    }
    Err(Refusal::new(format!(
        "The SQL listener {} can be reached from other machines, and no role has a password; start with --sql-listen \
         127.0.0.1:{}, run ALTER ROLE postgres PASSWORD '…', and start again.",
        config.sql_listen,
        config.sql_listen.port()
    )))
}

/// What the replication slots need of the log.
#[derive(Debug)]
struct Retention {
    slots: Arc<Slots>,
}

impl RetentionHooks for Retention {
    fn oldest_slot(&self) -> Option<Lsn> {
        self.slots.oldest_needed()
    }

    fn checkpoint_finished(&self, _info: &CheckpointInfo, oldest_kept: Lsn) {
        match self.slots.invalidate_below(oldest_kept) {
            Ok(lost) => {
                for slot in lost {
                    tracing::warn!(
                        "replication slot \"{slot}\" needs log below {oldest_kept}, which max_slot_wal_keep_size does not keep: \
                         its standby will clone itself anew"
                    );
                }
            }
            Err(error) => tracing::warn!("replication slots were not updated: {error}"),
        }
        if let Err(error) = self.slots.save() {
            tracing::warn!("replication slots were not saved: {error}");
        }
    }
}
