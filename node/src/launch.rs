//! What every node does before it has a role: ties itself to its parent, takes its directory, reads its configuration,
//! binds its ports, makes its runtimes.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::runtime::Runtime;
use towline_base::NodeId;
use towline_base::settings::{ConfigFiles, keys};
use towline_base::vfs::FileLock;

use crate::cli::NodeArgs;
use crate::config::NodeConfig;
use crate::refusal::{Outcome, Refusal};
use crate::{data_dir, engine_config, logging, process};

/// Threads of the runtime for replication, health and signals.
const REPLICATION_THREADS: usize = 2;
/// Sessions run on at least this many threads, since page reads block in place.
const LEAST_SQL_THREADS: usize = 4;

/// A node about to take its role.
pub(crate) struct Launch {
    /// Who it is.
    pub(crate) id: NodeId,
    /// What it runs with.
    pub(crate) config: Arc<NodeConfig>,
    /// Where SQL clients will knock.
    pub(crate) sql_listener: TcpListener,
    /// Where standbys will knock.
    pub(crate) grpc_listener: TcpListener,
    /// Runs sessions.
    pub(crate) sql: Runtime,
    /// Runs everything that must not wait behind a query.
    pub(crate) replication: Runtime,
    /// Keeps the directory ours.
    pub(crate) lock: Box<dyn FileLock>,
}

/// Does all of it. The directory must carry the identity `id` already.
pub(crate) fn launch(args: &NodeArgs, id: NodeId) -> Outcome<Launch> {
    let lock = data_dir::lock(&args.data_dir)?;
    logging::start(Some(&args.data_dir))?;
    process::end_on_panic();
    process::raise_open_files();
    towline_base::failpoint::configure_from_env().map_err(Refusal::new)?;
    let config = Arc::new(NodeConfig::load(args)?);
    let dir = std::path::absolute(&args.data_dir).unwrap_or_else(|_| args.data_dir.clone());
    let config_file = ConfigFiles::in_dir(&dir).main.display().to_string();
    for (name, value) in [
        ("data_directory", dir.display().to_string()),
        ("config_file", config_file.clone()),
        ("hba_file", config_file),
        ("towline.node_name", id.name.clone()),
    ] {
        config
            .settings
            .override_value(name, &value)
            .map_err(|error| Refusal::failed(format!("{error}.")))?;
    }
    let limit = process::open_files();
    engine_config::relation_files(&config.settings, limit).map_err(|least| {
        Refusal::new(format!(
            "The limit of open files is {limit}, and max_connections = {} needs at least {least}; raise it (ulimit -n), or lower \
             max_connections.",
            config.settings.get(keys::max_connections)
        ))
    })?;
    let sql_listener = listen(config.sql_listen, "SQL", "--sql-listen")?;
    let grpc_listener = listen(config.grpc_listen, "gRPC", "--grpc-listen")?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Launch {
        id,
        config,
        sql_listener,
        grpc_listener,
        sql: runtime("sql", (2 * cores).max(LEAST_SQL_THREADS))?,
        replication: runtime("replication", REPLICATION_THREADS)?,
        lock,
    })
}

/// Ties the process to the parent named on the command line, if one is.
pub(crate) fn follow_parent(args: &NodeArgs) -> Outcome {
    match args.parent {
        None => Ok(()),
        Some(parent) => process::die_with_parent(parent)
            .map_err(|error| Refusal::failed(format!("could not follow the parent process: {error}."))),
    }
}

fn runtime(name: &'static str, threads: usize) -> Outcome<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|error| Refusal::failed(format!("could not start threads: {error}.")))
}

fn listen(address: SocketAddr, what: &str, option: &str) -> Outcome<TcpListener> {
    if address.port() == 0 {
        return Err(Refusal::new(format!(
            "The {what} address {address} names no port, and nobody would know where to connect; give one from 1 to 65535 with {option}."
        )));
    }
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| {
        Refusal::new(format!(
            "The {what} address {address} cannot be used ({error}); stop the program that uses it, or choose another with \
             {option}."
        ))
    })
}
