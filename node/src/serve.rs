//! A node while it runs: SQL is served, requests from outside are obeyed, until one of them, or a failure, ends it.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use towline_access::Engine;
use towline_wire::{Server, Stop};

use crate::backend::NodeBackend;
use crate::config::NodeConfig;
use crate::process::{Request, Signals};
use crate::refusal::{Outcome, Refusal};

/// How often the engine is asked whether it has failed, and the sessions' runtime is given something to do.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// The SQL listener and its sessions.
pub(crate) struct Front {
    backend: Arc<NodeBackend>,
    server: Arc<Server<NodeBackend>>,
    stop: watch::Sender<Stop>,
    task: JoinHandle<()>,
    /// The sessions' runtime.
    sql: Handle,
}

/// Why a node stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to; sessions are gone.
    Asked,
    /// It was asked to stop as after a crash.
    AtOnce,
    /// The engine cannot go on.
    Failed,
}

impl Front {
    /// Starts listening; clients are told that the node is starting until the backend serves.
    pub(crate) fn start(runtime: &Handle, listener: TcpListener, config: &NodeConfig) -> Outcome<Self> {
        let failed = |error: std::io::Error| Refusal::failed(format!("could not serve SQL: {error}."));
        let backend = NodeBackend::new(Arc::clone(&config.settings));
        let server =
            Server::new(Arc::clone(&backend), config.server().map_err(Refusal::new)?).map_err(failed)?;
        let (stop, stopped) = watch::channel(Stop::No);
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(failed)?
        };
        let task = runtime.spawn(Arc::clone(&server).serve(listener, stopped));
        Ok(Self {
            backend,
            server,
            stop,
            task,
            sql: runtime.clone(),
        })
    }

    /// The node behind the listener.
    pub(crate) fn backend(&self) -> &Arc<NodeBackend> {
        &self.backend
    }

    /// Takes over what a reload may change.
    pub(crate) fn reconfigure(server: &Server<NodeBackend>, config: &NodeConfig) {
        match config.server() {
            Ok(fresh) => server.reconfigure(|config| *config = fresh),
            Err(error) => tracing::error!("login rules not applied: {error}"),
        }
    }

    /// The listener's configuration, for a reload.
    pub(crate) fn server(&self) -> &Arc<Server<NodeBackend>> {
        &self.server
    }

    /// Obeys requests until the node has to stop; on return no session is left (unless it stops at once or has failed).
    pub(crate) async fn run(mut self, signals: &mut Signals, engine: &Engine, reload: impl Fn()) -> Ended {
        loop {
            let request = tokio::select! {
                request = signals.next() => request,
                () = watch(engine, &self.server, &self.sql) => return Ended::Failed,
            };
            match request {
                Request::Reload => {
                    tracing::info!("received SIGHUP, reloading the configuration");
                    reload();
                }
                Request::StopNow => return Ended::AtOnce,
                Request::StopSmart => {
                    tracing::info!("received a smart shutdown request: waiting for the sessions to end");
                    let _ = self.stop.send(Stop::Smart);
                    self.backend.stop();
                    break;
                }
                Request::StopFast => {
                    tracing::info!("received a fast shutdown request: ending the sessions");
                    let _ = self.stop.send(Stop::Fast);
                    self.backend.stop();
                    break;
                }
            }
        }
        loop {
            tokio::select! {
                _ = &mut self.task => return Ended::Asked,
                () = watch(engine, &self.server, &self.sql) => return Ended::Failed,
                request = signals.next() => match request {
                    Request::StopNow => return Ended::AtOnce,
                    Request::StopFast => drop(self.stop.send(Stop::Fast)),
                    Request::Reload | Request::StopSmart => {}
                },
            }
        }
    }
}

/// Ready when the engine has failed. Meanwhile keeps the clients' sockets watched.
///
/// A lone writer flushes the log on its own thread. When that thread was the one that watched the sockets, its runtime gives the watch to
/// no other thread as long as the flush lasts, and a slow disk would hold every client, readers included. A task from outside wakes
/// another thread, which takes the watch over.
async fn watch(engine: &Engine, server: &Server<NodeBackend>, sql: &Handle) {
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    while !engine.has_failed() {
        ticks.tick().await;
        // Without a connection nobody flushes.
        if server.connections() > 0 {
            drop(sql.spawn(async {}));
        }
    }
}
