//! Who runs where: names, ports and directories of the cluster, checked before anything is touched.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use towline_base::OsVfs;
use towline_base::settings::Settings;
use towline_base::vfs::FileLock;
use towline_storage::control::ControlFile;

use crate::cli::{Assignment, UpArgs};
use crate::data_dir::{self, Contents};
use crate::refusal::{Outcome, Refusal};

/// Distance between a node's SQL and gRPC ports.
const GRPC_OFFSET: u16 = 7432 - 5432;
/// The file that marks a directory as a cluster of ours; `towline status` reads the nodes from it.
pub(crate) const CLUSTER_FILE: &str = "towline-up.json";
const LOCK_FILE: &str = "towline-up.lock";
/// The setting that names the file with the secret of the cluster.
pub(crate) const SECRET_FILE: &str = "cluster_secret_file";
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

    fn check_settings(&self) -> Outcome {
        let settings = self.primary_settings();
        let pairs: Vec<(&str, &str)> = settings
            .iter()
            .map(|set| (set.name.as_str(), set.value.as_str()))
            .collect();
        Settings::with(&pairs)
            .map(|_| ())
            .map_err(|error| Refusal::new(format!("{error}; see --set and --sync.")))
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
            Contents::Node(_) => {
                return Err(Refusal::new(format!(
                    "{} is the data directory of a single node; run it with towline primary, or choose another directory \
                     with --data-dir.",
                    self.dir.display()
                )));
            }
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

    /// Takes the directory: locks it, removes what `--fresh` says, checks the nodes' data, leaves the cluster file. The
    /// lock is held for as long as the result lives.
    pub(crate) fn prepare(&self, fresh: bool) -> Outcome<Box<dyn FileLock>> {
        let failed =
            |error: io::Error| Refusal::new(format!("{} cannot be used: {error}.", self.dir.display()));
        fs::create_dir_all(&self.dir).map_err(failed)?;
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
        for dir in &present {
            drop(data_dir::lock(dir)?);
        }
        if fresh {
            for dir in &present {
                fs::remove_dir_all(dir).map_err(failed)?;
            }
        } else {
            for dir in self
                .nodes
                .iter()
                .map(|node| self.node_dir(node))
                .filter(|dir| present.contains(dir))
            {
                check_control(&dir)?;
            }
        }
        let text = serde_json::to_vec_pretty(&ClusterFile {
            nodes: self.nodes.clone(),
            cluster_secret_file: self.setting(SECRET_FILE),
        })
        .map_err(|error| Refusal::failed(error.to_string()))?;
        fs::write(cluster, text).map_err(failed)?;
        Ok(lock)
    }

    /// The folders below ours that carry a node's mark.
    fn present_nodes(&self) -> Outcome<Vec<PathBuf>> {
        let failed =
            |error: io::Error| Refusal::new(format!("{} cannot be read: {error}.", self.dir.display()));
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() && path.join(data_dir::NODE_FILE).is_file() {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

/// A node whose copy or init was cut short has no control file yet and begins anew; a damaged one is for the user.
fn check_control(dir: &Path) -> Outcome {
    if !dir.join(towline_storage::control::CONTROL_FILE).exists() {
        return Ok(());
    }
    ControlFile::open(std::sync::Arc::new(OsVfs), dir).map(|_| ()).map_err(|error| {
        Refusal::new(format!(
            "The data directory {} is damaged: {error}; restore it from a backup, or begin again with --fresh.",
            dir.display()
        ))
    })
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
