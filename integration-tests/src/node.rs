//! Real Towline processes on loopback ports and directories of their own, killed when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client::{Failure, Sql};
use crate::ports::free_port;
use crate::tools::towline;
use crate::wait::{wait_for, wait_until};

/// How long anything may take before a test calls it broken: longer than every patience of the nodes themselves one after the other (`up`
/// gives each of two groups a minute to stop), on a slow machine whose disk stalls. A test that passes never waits so long.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// What a node is started as.
#[derive(Debug, Clone)]
pub enum Role {
    /// The primary.
    Primary,
    /// A standby of the gRPC port of its upstream.
    Standby {
        /// The upstream's gRPC port.
        upstream: u16,
    },
}

/// One node: its directory and ports stay, its process comes and goes.
pub struct Node {
    /// The node's name, also that of its standby.
    pub name: String,
    /// The data directory.
    pub dir: PathBuf,
    /// The port of its PostgreSQL protocol.
    pub sql_port: u16,
    /// The port of its gRPC service.
    pub grpc_port: u16,
    role: Role,
    settings: Vec<String>,
    envs: Vec<(String, String)>,
    open_files: Option<u64>,
    child: Option<Child>,
}

impl Node {
    /// A node that is not running yet, with `settings` as `name=value`.
    pub fn new(base: &Path, name: &str, role: Role, settings: &[&str]) -> Node {
        Node {
            name: name.to_owned(),
            dir: base.join(name),
            sql_port: free_port(),
            grpc_port: free_port(),
            role,
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
            envs: Vec::new(),
            open_files: None,
            child: None,
        }
    }

    /// Adds an environment variable to later starts.
    pub fn env(&mut self, name: &str, value: &str) {
        self.envs.push((name.to_owned(), value.to_owned()));
    }

    /// Later starts may have so many files open.
    pub fn limit_open_files(&mut self, limit: u64) {
        self.open_files = Some(limit);
    }

    /// Creates the data directory of a primary.
    pub fn init(&self) {
        self.init_with(&[]);
    }

    /// The same with more arguments.
    pub fn init_with(&self, arguments: &[&str]) {
        let out = Command::new(towline())
            .arg("init")
            .arg("--data-dir")
            .arg(&self.dir)
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "init failed: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    /// Starts the process; it may not answer yet.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.with_extension("stderr"))
            .unwrap();
        let mut command = match self.open_files {
            None => Command::new(towline()),
            Some(limit) => {
                let mut limited = Command::new("prlimit");
                limited.arg(format!("--nofile={limit}:{limit}")).arg(towline());
                limited
            }
        };
        match &self.role {
            Role::Primary => command.arg("primary"),
            Role::Standby { upstream } => command
                .arg("standby")
                .arg("--upstream")
                .arg(format!("http://127.0.0.1:{upstream}"))
                .arg("--name")
                .arg(&self.name),
        };
        command
            .arg("--data-dir")
            .arg(&self.dir)
            .arg("--sql-listen")
            .arg(format!("127.0.0.1:{}", self.sql_port))
            .arg("--grpc-listen")
            .arg(format!("127.0.0.1:{}", self.grpc_port));
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        // A test run that is killed leaves no node behind.
        command.arg("--parent").arg(std::process::id().to_string());
        command.envs(self.envs.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts the process and waits until it answers SQL.
    pub fn start_ready(&mut self) {
        self.start();
        self.wait_ready();
    }

    /// Waits until the node answers SQL; fails at once when its process has ended.
    pub fn wait_ready(&mut self) {
        let (port, name) = (self.sql_port, self.name.clone());
        let child = self.child.as_mut().expect("a started node");
        wait_until(&format!("{name} to answer SQL"), PATIENCE, || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{name} ended with {status}");
            }
            Sql::connect(port).is_ok_and(|sql| sql.value("select 1").is_ok())
        });
    }

    /// The end of what the process has said, for whoever looks into a failure.
    fn last_words(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.with_extension("stderr")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(30)..];
        last.iter().map(|line| (*line).to_owned()).collect()
    }

    /// A new connection.
    pub fn connect(&self) -> Result<Sql, Failure> {
        Sql::connect(self.sql_port)
    }

    /// A new connection that must succeed.
    pub fn sql(&self) -> Sql {
        self.connect()
            .unwrap_or_else(|e| panic!("{} refuses a connection: {e:?}", self.name))
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`, and the wait for the process to be gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until the process has ended by itself; returns its exit code, none when a signal ended it.
    pub fn wait_ended(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        wait_for(&format!("{} to end", self.name), PATIENCE, || {
            child.try_wait().unwrap()
        })
        .code()
    }

    /// Asks the process to stop (SIGTERM) and waits for its end; returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = wait_for(&format!("{} to stop", self.name), PATIENCE, || {
            child.try_wait().unwrap()
        });
        status.code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the last words of {}: {:#?}", self.name, self.last_words());
        }
    }
}

/// A primary and its standbys below one temporary directory.
pub struct Cluster {
    /// The primary first, then the standbys s1, s2, ….
    pub nodes: Vec<Node>,
    /// The folder that holds all data directories; removed with the cluster.
    pub base: tempfile::TempDir,
}

impl Cluster {
    /// Starts a primary and `standbys` standbys, each with `settings`, and waits until all serve SQL.
    pub fn start(standbys: usize, settings: &[&str]) -> Cluster {
        Cluster::start_with(standbys, settings, &[])
    }

    /// The same, with more arguments of `init`.
    pub fn start_with(standbys: usize, settings: &[&str], init: &[&str]) -> Cluster {
        let base = tempfile::tempdir().unwrap();
        let primary = Node::new(base.path(), "p", Role::Primary, settings);
        primary.init_with(init);
        let upstream = primary.grpc_port;
        let mut nodes = vec![primary];
        for i in 1..=standbys {
            nodes.push(Node::new(
                base.path(),
                &format!("s{i}"),
                Role::Standby { upstream },
                settings,
            ));
        }
        for node in &mut nodes {
            node.start();
        }
        for node in &mut nodes {
            node.wait_ready();
        }
        Cluster { nodes, base }
    }

    /// The primary.
    pub fn primary(&mut self) -> &mut Node {
        &mut self.nodes[0]
    }

    /// Waits until every running standby has replayed what the primary has flushed now.
    pub fn wait_for_standbys(&self) {
        let lsn = self.nodes[0]
            .sql()
            .value("select pg_current_wal_flush_lsn()")
            .unwrap();
        for standby in &self.nodes[1..] {
            wait_until(&format!("{} to replay {lsn}", standby.name), PATIENCE, || {
                standby.connect().is_ok_and(|sql| {
                    sql.value(&format!("select pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn"))
                        .is_ok_and(|answer| answer == "t")
                })
            });
        }
    }
}
