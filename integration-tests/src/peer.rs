//! A throw-away PostgreSQL 15 server: the peer whose answers ours are held against, and the reader of our
//! pages.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::Sql;
use rustix::process::{Pid, Signal, kill_process};

use crate::node::PATIENCE;
use crate::ports::free_port;
use crate::process::children;
use crate::tools::need;
use crate::wait::wait_until;

/// Seconds that `pg_ctl` waits for the server.
const CTL_PATIENCE: &str = "240";

/// A PostgreSQL 15 server in a temporary directory, stopped when dropped.
pub struct Postgres {
    /// The loopback port it listens on.
    pub port: u16,
    /// Its data directory.
    pub data: PathBuf,
    /// The folder that holds the data directory and the log; removed with the server.
    base: tempfile::TempDir,
    options: String,
}

/// A command that runs as user `postgres` where we are root, since PostgreSQL refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn run(mut command: Command) {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

impl Postgres {
    /// Makes a cluster in UTF-8 with the C collation and checksums, and starts it without fsync.
    pub fn start() -> Postgres {
        Postgres::start_with(&["fsync=off"])
    }

    /// Like [`Postgres::start`], with these settings instead.
    pub fn start_with(settings: &[&str]) -> Postgres {
        let base = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            let mut chown = Command::new("chown");
            chown.arg("postgres").arg(base.path());
            run(chown);
        }
        let options = settings.iter().map(|s| format!(" -c '{s}'")).collect();
        let server = Postgres {
            port: free_port(),
            data: base.path().join("data"),
            base,
            options,
        };
        let mut initdb = as_postgres(&need("initdb"));
        initdb.arg("-D").arg(&server.data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "--data-checksums",
            "--locale=C",
            "--encoding=UTF8",
            "--no-sync",
        ]);
        run(initdb);
        server.start_again();
        server
    }

    /// Starts a stopped server.
    pub fn start_again(&self) {
        self.start_without_waiting();
        wait_until("PostgreSQL to answer", PATIENCE, || {
            Sql::connect(self.port).is_ok()
        });
    }

    /// Starts a stopped server, which may not answer yet.
    pub fn start_without_waiting(&self) {
        let mut start = as_postgres(&need("pg_ctl"));
        start
            .arg("-D")
            .arg(&self.data)
            .args(["-W", "-l"])
            .arg(self.log())
            .arg("-o")
            .arg(format!(
                "-p {} -c unix_socket_directories= -c listen_addresses=127.0.0.1{}",
                self.port, self.options
            ));
        // The server must not hold our pipes, or waiting for pg_ctl's output would wait for the server.
        start
            .arg("start")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        assert!(start.status().unwrap().success(), "PostgreSQL did not start");
    }

    /// Stops the server in its orderly way.
    pub fn stop(&self) {
        let mut stop = as_postgres(&need("pg_ctl"));
        stop.arg("-D")
            .arg(&self.data)
            .args(["-w", "-t", CTL_PATIENCE, "-m", "fast", "stop"]);
        run(stop);
    }

    /// A standby of this server, streaming through a slot named `name`, started.
    pub fn standby(&self, name: &str) -> Postgres {
        let base = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            let mut chown = Command::new("chown");
            chown.arg("postgres").arg(base.path());
            run(chown);
        }
        let options = self.options.clone();
        let server = Postgres {
            port: free_port(),
            data: base.path().join("data"),
            base,
            options,
        };
        let mut copy = as_postgres(&need("pg_basebackup"));
        let source = format!(
            "host=127.0.0.1 port={} user=postgres application_name={name}",
            self.port
        );
        copy.arg("-D")
            .arg(&server.data)
            .args(["-d", &source, "-R", "-C", "-S", name, "-X", "stream"]);
        run(copy);
        server.start_again();
        server
    }

    /// Kills the server and all its processes.
    pub fn kill(&self) {
        let postmaster = self.pid();
        let processes = || std::iter::once(postmaster).chain(children(postmaster));
        for pid in processes().collect::<Vec<_>>() {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let gone = || !Path::new(&format!("/proc/{postmaster}")).exists();
        wait_until("PostgreSQL to be gone", PATIENCE, gone);
    }

    /// Where its messages go.
    pub fn log(&self) -> PathBuf {
        self.base.path().join("log")
    }

    /// The process id of the postmaster.
    pub fn pid(&self) -> u32 {
        let file = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().trim().parse().unwrap()
    }

    /// A new connection.
    pub fn sql(&self) -> Sql {
        Sql::connect(self.port).unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut stop = as_postgres(&need("pg_ctl"));
        stop.arg("-D").arg(&self.data).args(["-m", "immediate", "stop"]);
        let _ = stop.output();
    }
}
