//! Who runs where: names, ports and directories of the cluster, checked before anything is touched.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use towline_base::settings::sync_names::{SyncName, SyncNames};
use towline_base::settings::{Settings, keys};
use towline_base::vfs::FileLock;
use towline_base::{OsVfs, Vfs as _};
use towline_storage::StorageError;
use towline_storage::control::ControlFile;

use crate::cli::{Assignment, UpArgs};
use crate::config::check_memory;
use crate::data_dir::{self, Contents};
use crate::engine_config;
use crate::refusal::{Outcome, Refusal};

/// Distance between a node's SQL and gRPC ports.
const GRPC_OFFSET: u16 = 7432 - 5432;
/// The file that marks a directory as a cluster of ours; `towline status` reads the nodes from it.
pub(crate) const CLUSTER_FILE: &str = "towline-up.json";
const LOCK_FILE: &str = "towline-up.lock";
/// What a start that was cut short before it had left the cluster file may leave.
const LEFTOVERS: [&str; 2] = [LOCK_FILE, "towline-up.json.tmp"];
/// The setting that names the file with the secret of the cluster.
pub(crate) const SECRET_FILE: &str = "cluster_secret_file";
/// How long the primary may take to stop before the standbys are stopped too, at least.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// What a cluster synchronises with unless told otherwise.
const DEFAULT_SYNC: &str = "ANY 1 (*)";

/// One node of the plan.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct PlannedNode {
    /// Its name and that of its directory.
    pub(crate) name: String,
    /// Where it serves SQL.
    pub(crate) sql: SocketAddr,
    /// Where it serves replication.
    pub(crate) grpc: SocketAddr,
}

/// The cluster to run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The directory above the nodes'.
    pub(crate) dir: PathBuf,
    /// The primary first.
    pub(crate) nodes: Vec<PlannedNode>,
    /// Settings for every node.
    pub(crate) settings: Vec<Assignment>,
    /// `synchronous_standby_names` of the primary.
    pub(crate) sync: String,
}

/// What [`CLUSTER_FILE`] holds.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct ClusterFile {
    /// The nodes of the last run, the primary first.
    pub(crate) nodes: Vec<PlannedNode>,
    /// `cluster_secret_file`, when it was given to all nodes: where the secret is, not what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster_secret_file: Option<String>,
}

impl Plan {
    /// Makes the plan and checks everything that can be checked without touching anything.
    pub(crate) fn make(args: &UpArgs) -> Outcome<Self> {
        let last = u32::from(args.sql_port) + u32::from(GRPC_OFFSET) + u32::from(args.nodes) - 1;
        if last > u32::from(u16::MAX) {
            return Err(Refusal::new(format!(
                "--sql-port {} leaves no room for the gRPC ports {GRPC_OFFSET} above it; choose one below {}.",
                args.sql_port,
                u32::from(u16::MAX) - u32::from(GRPC_OFFSET) - u32::from(args.nodes) + 2
            )));
        }
        let nodes = (0..args.nodes).map(|i| PlannedNode {
            name: format!("node{}", i + 1),
            sql: SocketAddr::from((Ipv4Addr::LOCALHOST, args.sql_port + i)),
            grpc: SocketAddr::from((Ipv4Addr::LOCALHOST, args.sql_port + GRPC_OFFSET + i)),
        });
        let sync = match (&args.sync, args.nodes) {
            (Some(sync), _) => sync.clone(),
            (None, 1) => String::new(),
            (None, _) => DEFAULT_SYNC.to_owned(),
        };
        let plan = Self {
            dir: args.data_dir.clone(),
            nodes: nodes.collect(),
            settings: args.settings.clone(),
            sync,
        };
        plan.check_settings()?;
        plan.check_ports()?;
        plan.check_directory()?;
        Ok(plan)
    }

    /// What every node was given for a setting; the last one counts.
    fn setting(&self, name: &str) -> Option<String> {
        let mut given = self.settings.iter().rev();
        let found = given.find(|set| set.name.eq_ignore_ascii_case(name));
        found.map(|set| set.value.clone())
    }

    /// Where a node keeps its data.
    pub(crate) fn node_dir(&self, node: &PlannedNode) -> PathBuf {
        self.dir.join(&node.name)
    }

    /// The settings of the primary: everybody's and the standbys it waits for.
    pub(crate) fn primary_settings(&self) -> Vec<Assignment> {
        let sync = Assignment {
            name: "synchronous_standby_names".to_owned(),
            value: self.sync.clone(),
        };
        std::iter::once(sync)
            .chain(self.settings.iter().cloned())
            .collect()
    }

    fn settings_of_primary(&self) -> Outcome<Arc<Settings>> {
        let settings = self.primary_settings();
        let pairs: Vec<(&str, &str)> = settings
            .iter()
            .map(|set| (set.name.as_str(), set.value.as_str()))
            .collect();
        Settings::with(&pairs).map_err(|error| Refusal::new(format!("{error}; see --set and --sync.")))
    }

    /// How long a stop in order may take: the primary waits twice for its standbys, before its checkpoint is complete and until they have
    /// it.
    pub(crate) fn stop_patience(&self) -> Duration {
        let settings = self.settings_of_primary().ok();
        let timeout = settings.and_then(|settings| settings.duration(keys::shutdown_timeout));
        STOP_PATIENCE.max(timeout.unwrap_or_default().saturating_mul(3))
    }

    fn check_settings(&self) -> Outcome {
        let settings = self.settings_of_primary()?;
        check_memory(&settings)?;
        let names = engine_config::sync_names(&settings);
        self.check_sync(&names)
    }

    /// Commits that wait for standbys which this cluster does not have would wait for ever.
    fn check_sync(&self, names: &SyncNames) -> Outcome {
        let standbys: Vec<&str> = self.nodes.iter().skip(1).map(|node| node.name.as_str()).collect();
        let those = if standbys.is_empty() {
            "none; --sync '' waits for nobody".to_owned()
        } else {
            standbys.join(", ")
        };
        for name in &names.names {
            if let SyncName::Named(unknown) = name
                && !standbys.iter().any(|standby| name.matches(standby))
            {
                return Err(Refusal::new(format!(
                    "synchronous_standby_names (see --sync) names {unknown}, and the standbys of this cluster are {those}."
                )));
            }
        }
        let meant = standbys
            .iter()
            .filter(|standby| names.priority(standby).is_some());
        let meant = meant.count();
        if meant < names.count {
            return Err(Refusal::new(format!(
                "synchronous_standby_names (see --sync) wants {} standbys where it means {meant}: every commit would wait for ever; the \
                 standbys of this cluster are {those}.",
                names.count
            )));
        }
        Ok(())
    }

    fn check_ports(&self) -> Outcome {
        for node in &self.nodes {
            for (address, what) in [(node.sql, "SQL"), (node.grpc, "gRPC")] {
                TcpListener::bind(address).map_err(|error| {
                    let port = address.port();
                    if error.kind() == io::ErrorKind::AddrInUse {
                        Refusal::new(format!(
                            "Port {port} (the {what} port of {}) is already in use; stop the program that uses it, or choose \
                             other ports with --sql-port.",
                            node.name
                        ))
                    } else {
                        Refusal::new(format!(
                            "Port {port} (the {what} port of {}) cannot be opened ({error}); choose other ports with \
                             --sql-port.",
                            node.name
                        ))
                    }
                })?;
            }
        }
        Ok(())
    }

    fn check_directory(&self) -> Outcome {
        let foreign = || {
            Refusal::new(format!(
                "{} is not a Towline cluster, and it is not empty; choose another directory with --data-dir.",
                self.dir.display()
            ))
        };
        match data_dir::look(&self.dir)? {
            Contents::Nothing => return Ok(()),
            Contents::Node(_) | Contents::Unfinished => {
                return Err(Refusal::new(format!(
                    "{} is the data directory of a single node; run it with towline primary, or choose another directory \
                     with --data-dir.",
                    self.dir.display()
                )));
            }
            Contents::Foreign if self.holds_leftovers_only()? => return Ok(()),
            Contents::Foreign if !self.dir.join(CLUSTER_FILE).is_file() => return Err(foreign()),
            Contents::Foreign => {}
        }
        for node in &self.nodes {
            let dir = self.node_dir(node);
            if data_dir::look(&dir)? == Contents::Foreign {
                return Err(Refusal::new(format!(
                    "{} is not a data directory of Towline, and it is not empty; remove it or choose another directory with \
                     --data-dir.",
                    dir.display()
                )));
            }
        }
        Ok(())
    }

    fn holds_leftovers_only(&self) -> Outcome<bool> {
        let failed = |error: io::Error| data_dir::unreadable(&self.dir, &error);
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if !LEFTOVERS.iter().any(|leftover| name == *leftover) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the directory: locks it, removes what `--fresh` says, checks the nodes' data, leaves the cluster file. The
    /// lock is held for as long as the result lives.
    pub(crate) fn prepare(&self, fresh: bool) -> Outcome<Box<dyn FileLock>> {
        let failed =
            |error: io::Error| Refusal::new(format!("{} cannot be used: {error}.", self.dir.display()));
        OsVfs.create_dir_all(&self.dir).map_err(failed)?;
        let lock = data_dir::lock_file(&self.dir.join(LOCK_FILE)).map_err(|error| match error {
            Some(error) => failed(error),
            None => Refusal::new(format!(
                "{} is already in use by another towline up; stop that one with Ctrl-C, or choose another directory with \
                 --data-dir.",
                self.dir.display()
            )),
        })?;
        let cluster = self.dir.join(CLUSTER_FILE);
        let present = self.present_nodes()?;
        let locks: Vec<_> = present
            .iter()
            .map(|dir| data_dir::lock(dir))
            .collect::<Outcome<_>>()?;
        if fresh {
            // All are marked before the first one is touched, the primary last: a removal that is cut short is gone on with, and never leaves
            // a primary that has lost its standbys' data, or standbys without their primary.
            for dir in present.iter().rev() {
                data_dir::mark(dir).map_err(failed)?;
            }
            for dir in &present {
                remove(dir).map_err(failed)?;
            }
        } else {
            self.check_primary(&present)?;
            for dir in self
                .nodes
                .iter()
                .map(|node| self.node_dir(node))
                .filter(|dir| present.contains(dir))
            {
                check_control(&dir)?;
            }
        }
        drop(locks);
        let text = serde_json::to_vec_pretty(&ClusterFile {
            nodes: self.nodes.clone(),
            cluster_secret_file: self.setting(SECRET_FILE),
        })
        .map_err(|error| Refusal::failed(error.to_string()))?;
        OsVfs.write_file_atomically(&cluster, &text).map_err(failed)?;
        Ok(lock)
    }

    /// Standbys that hold data and a primary that holds none: a new, empty one would be no primary of theirs, and take what it is told.
    fn check_primary(&self, present: &[PathBuf]) -> Outcome {
        let Some(primary) = self.nodes.first().map(|node| self.node_dir(node)) else {
            return Ok(());
        };
        let holds_none = match data_dir::look(&primary)? {
            Contents::Nothing | Contents::Unfinished => true,
            Contents::Node(_) | Contents::Foreign => false,
        };
        match present.iter().find(|dir| **dir != primary && is_whole(dir)) {
            Some(standby) if holds_none => Err(Refusal::new(format!(
                "{} holds no data, and its standby {} does; restore the primary's directory from a backup, or give up all data of the \
                 cluster with --fresh.",
                primary.display(),
                standby.display()
            ))),
            _ => Ok(()),
        }
    }

    /// The folders below ours that carry a node's mark.
    fn present_nodes(&self) -> Outcome<Vec<PathBuf>> {
        let failed = |error: io::Error| data_dir::unreadable(&self.dir, &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let marks = [data_dir::NODE_FILE, data_dir::INIT_MARKER];
            if path.is_dir() && marks.iter().any(|mark| path.join(mark).is_file()) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Removes a marked directory; of a link, what it leads to is emptied and the link stays.
fn remove(dir: &Path) -> io::Result<()> {
    data_dir::clear(dir)?;
    fs::remove_file(dir.join(data_dir::LOCK_FILE))?;
    data_dir::unmark(dir)?;
    let kept = fs::read_dir(dir)?.next().is_some();
    if kept || fs::symlink_metadata(dir)?.is_symlink() {
        return Ok(());
    }
    fs::remove_dir(dir)
}

/// Whether a node's directory holds a whole database.
fn is_whole(dir: &Path) -> bool {
    let unfinished = [data_dir::INIT_MARKER, towline_standby::CLONE_MARKER];
    dir.join(towline_storage::control::CONTROL_FILE).exists()
        && !unfinished.iter().any(|marker| dir.join(marker).exists())
}

/// A node whose copy or init was cut short has no control file yet and begins anew; a damaged one is for the user.
fn check_control(dir: &Path) -> Outcome {
    if !is_whole(dir) {
        return Ok(());
    }
    match ControlFile::open(OsVfs::shared(), dir) {
        Ok(_) => Ok(()),
        Err(StorageError::Damaged(what)) => Err(Refusal::new(format!(
            "The data directory {} is damaged: {what}; restore it from a backup, or begin again with --fresh.",
            dir.display()
        ))),
        // It may be whole.
        Err(error) => Err(data_dir::unreadable(dir, &error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU16, Ordering};

    use super::*;

    fn args(dir: &Path, nodes: u16, port: u16) -> UpArgs {
        UpArgs {
            data_dir: dir.to_owned(),
            nodes,
            sql_port: port,
            sync: None,
            fresh: false,
            settings: Vec::new(),
        }
    }

    /// A port that is free together with those the plan puts beside it. No two calls of one process get the same: a plan opens its ports
    /// for a moment, and another test's plan would find them taken.
    fn free_port() -> u16 {
        static CALLS: AtomicU16 = AtomicU16::new(0);
        let first = u16::try_from(std::process::id() % 500).unwrap();
        let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        (0..500)
            .map(|_| 24_000 + (first + CALLS.fetch_add(1, Ordering::Relaxed)) % 500 * 4)
            .find(|port| (0..3).all(|i| free(port + i) && free(port + GRPC_OFFSET + i)))
            .unwrap()
    }

    #[test]
    fn one_node_waits_for_nobody_and_three_for_any_one() {
        let base = tempfile::tempdir().unwrap();
        let port = free_port();
        assert_eq!(Plan::make(&args(base.path(), 1, port)).unwrap().sync, "");
        let plan = Plan::make(&args(base.path(), 3, port)).unwrap();
        assert_eq!(plan.sync, "ANY 1 (*)");
        assert_eq!(plan.nodes[2].grpc.port(), port + 2002);
    }

    #[test]
    fn wrong_ports_and_settings_are_named() {
        let base = tempfile::tempdir().unwrap();
        let said = Plan::make(&args(base.path(), 3, 65_000)).unwrap_err().sentence;
        assert!(said.contains("65000"), "{said}");
        let mut wrong = args(base.path(), 1, free_port());
        wrong.settings = vec!["no_such_thing=1".parse().unwrap()];
        assert!(Plan::make(&wrong).unwrap_err().sentence.contains("no_such_thing"));
    }

    /// It waited for standbys that there were not, with every commit, and said nothing.
    #[test]
    fn standbys_that_the_cluster_does_not_have_are_not_waited_for() {
        let base = tempfile::tempdir().unwrap();
        let port = free_port();
        for (nodes, sync, named) in [
            (3, "node9", "names node9"),
            (3, "node1", "names node1"),
            (3, "ANY 3 (*)", "wants 3 standbys where it means 2"),
            (3, "2 (node2)", "wants 2 standbys where it means 1"),
            (1, "*", "--sync ''"),
        ] {
            let mut wrong = args(base.path(), nodes, port);
            wrong.sync = Some(sync.to_owned());
            let said = Plan::make(&wrong).unwrap_err().sentence;
            assert!(said.contains(named), "{sync}: {said}");
        }
        let mut wrong = args(base.path(), 1, port);
        wrong.settings = vec!["synchronous_standby_names=*".parse().unwrap()];
        assert!(Plan::make(&wrong).is_err());
        for sync in ["ANY 2 (*)", "NODE3", "FIRST 2 (node3, *)", ""] {
            let mut right = args(base.path(), 3, port);
            right.sync = Some(sync.to_owned());
            assert!(Plan::make(&right).is_ok(), "{sync}");
        }
    }

    #[test]
    fn a_stop_is_given_the_time_that_its_nodes_take() {
        let base = tempfile::tempdir().unwrap();
        let mut plan = args(base.path(), 1, free_port());
        let patience = |plan: &UpArgs| Plan::make(plan).unwrap().stop_patience().as_secs();
        assert_eq!(patience(&plan), 60);
        plan.settings = vec!["shutdown_timeout=5min".parse().unwrap()];
        assert_eq!(patience(&plan), 900);
    }

    /// A lock, or half of a cluster file, made the directory somebody else's.
    #[test]
    fn a_start_that_was_cut_short_is_gone_on_with() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("data");
        fs::create_dir(&dir).unwrap();
        for leftover in LEFTOVERS {
            fs::write(dir.join(leftover), "").unwrap();
            let plan = Plan::make(&args(&dir, 1, free_port())).unwrap();
            drop(plan.prepare(false).unwrap());
            fs::remove_file(dir.join(CLUSTER_FILE)).unwrap();
        }
        fs::write(dir.join("notes.txt"), "mine").unwrap();
        assert!(Plan::make(&args(&dir, 1, free_port())).is_err());
    }

    /// A removal by `--fresh` that was cut short left directories that neither `up` nor `up --fresh` took for its own.
    #[test]
    fn a_removal_that_was_cut_short_is_gone_on_with() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("data");
        let plan = Plan::make(&args(&dir, 2, free_port())).unwrap();
        for fresh in [false, true] {
            drop(plan.prepare(false).unwrap());
            for node in ["node1", "node2"] {
                data_dir::write_node(&dir.join(node), node).unwrap();
                fs::create_dir_all(dir.join(node).join("base")).unwrap();
                data_dir::mark(&dir.join(node)).unwrap();
            }
            data_dir::clear(&dir.join("node1")).unwrap();
            let plan = Plan::make(&args(&dir, 2, free_port())).unwrap();
            drop(plan.prepare(fresh).unwrap());
            assert_eq!(dir.join("node1").exists(), !fresh);
        }
    }

    /// A new, empty primary was made beside standbys that had all the data.
    #[test]
    fn standbys_without_their_primarys_data_are_not_given_an_empty_primary() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("data");
        let plan = Plan::make(&args(&dir, 2, free_port())).unwrap();
        drop(plan.prepare(false).unwrap());
        crate::init::make(
            &dir.join("node2"),
            "node2",
            None,
            Some("1MB"),
            towline_base::Xid::FIRST_NORMAL,
        )
        .unwrap();
        let said = plan.prepare(false).unwrap_err().sentence;
        assert!(
            said.contains("node1 holds no data") && said.contains("--fresh"),
            "{said}"
        );
        assert!(dir.join("node2").exists() && !dir.join("node1").exists());
        plan.prepare(true).unwrap();
        assert!(!dir.join("node2").exists());
    }

    #[test]
    fn a_second_up_is_refused_and_fresh_removes_only_nodes() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("data");
        let plan = Plan::make(&args(&dir, 1, free_port())).unwrap();
        let held = plan.prepare(false).unwrap();
        assert!(plan.prepare(false).unwrap_err().sentence.contains("in use"));
        drop(held);
        data_dir::write_node(&dir.join("node1"), "node1").unwrap();
        fs::create_dir(dir.join("other")).unwrap();
        fs::write(dir.join("other/notes.txt"), "mine").unwrap();
        plan.prepare(true).unwrap();
        assert!(!dir.join("node1").exists());
        assert!(dir.join("other/notes.txt").exists());
    }
}
