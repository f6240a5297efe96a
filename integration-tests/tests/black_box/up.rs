//! `towline up`: one command starts a cluster, goes on with the same data, and refuses with one clear sentence.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use towline_integration_tests::client::Sql;
use towline_integration_tests::node::PATIENCE;
use towline_integration_tests::ports::free_block;
use towline_integration_tests::tools::towline;
use towline_integration_tests::wait::{wait_for, wait_until};

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new(
            "up_starts_three_nodes_stops_on_interrupt_and_goes_on_with_its_data",
            &[],
            up_and_again,
        ),
        Case::new("up_restarts_a_child_that_died", &[], child_restarts),
        Case::new("up_refuses_a_taken_port", &[], taken_port),
        Case::new(
            "up_refuses_a_foreign_directory_and_touches_nothing",
            &[],
            foreign_directory,
        ),
        Case::new("up_refuses_a_directory_in_use", &[], directory_in_use),
        Case::new("up_refuses_a_damaged_directory", &[], damaged_directory),
        Case::new(
            "up_goes_on_after_a_kill_during_its_first_init",
            &[],
            killed_during_init,
        ),
        Case::new("up_does_not_give_standbys_an_empty_primary", &[], primary_is_gone),
        Case::new(
            "an_interrupt_leaves_every_standby_with_the_last_record",
            &[],
            stopped_in_order,
        ),
        Case::new(
            "up_refuses_what_it_cannot_do_in_one_sentence",
            &[],
            wrong_arguments,
        ),
    ]
};

/// A running `towline up`, killed with its nodes when dropped.
pub(crate) struct Up {
    pub(crate) child: Child,
    output: Arc<Mutex<String>>,
}

impl Up {
    pub(crate) fn start(dir: &Path, port: u16, more: &[&str]) -> Up {
        let mut child = Command::new(towline())
            .arg("up")
            .arg("--data-dir")
            .arg(dir)
            .args(["--sql-port", &port.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        gather(child.stdout.take().unwrap(), &output);
        gather(child.stderr.take().unwrap(), &output);
        Up { child, output }
    }

    pub(crate) fn wait_ready(&mut self, ports: &[u16]) {
        for port in ports {
            wait_until(&format!("port {port} to answer SQL"), PATIENCE, || {
                if let Some(status) = self.child.try_wait().unwrap() {
                    panic!("up ended with {status}: {}", self.output.lock().unwrap());
                }
                Sql::connect(*port).is_ok_and(|sql| sql.value("select 1").is_ok())
            });
        }
    }

    pub(crate) fn interrupt(mut self) -> Option<i32> {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        wait_for("up to stop", PATIENCE, || self.child.try_wait().unwrap()).code()
    }
}

/// Appends what a stream says, line by line, on a thread of its own.
fn gather(stream: impl Read + Send + 'static, output: &Arc<Mutex<String>>) {
    let sink = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut text = sink.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // Whoever panicked may have held it.
            let said = self.output.lock();
            eprintln!("up has said: {}", said.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Runs `up` where it must refuse, and returns what it said.
fn refused(dir: &Path, port: u16, more: &[&str]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new("timeout")
        .arg(PATIENCE.as_secs().to_string())
        .arg(towline())
        .arg("up")
        .arg("--data-dir")
        .arg(dir)
        .args(["--sql-port", &port.to_string()])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    // 124: it was still there when the time was over.
    let refused = status.code().is_some_and(|code| code != 0 && code != 124);
    assert!(refused, "it did not refuse ({status}): {said}");
    said
}

fn up_and_again() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("data");
    let port = free_block();
    let ports = [port, port + 1, port + 2];
    let mut up = Up::start(&dir, port, &[]);
    up.wait_ready(&ports);
    wait_until("the table of nodes", PATIENCE, || {
        let text = up.output.lock().unwrap();
        ["primary", "standby", "psql"]
            .iter()
            .all(|word| text.contains(word))
    });
    let sql = Sql::connect(port).unwrap();
    sql.query("create table kept (id int primary key)").unwrap();
    sql.query("insert into kept values (1), (2)").unwrap();
    assert_eq!(up.interrupt(), Some(0));
    assert!(Sql::connect(port).is_err(), "a node outlived up");

    let mut up = Up::start(&dir, port, &[]);
    up.wait_ready(&ports);
    let sql = Sql::connect(port).unwrap();
    assert_eq!(sql.value("select count(*) from kept").unwrap(), "2");
    sql.query("insert into kept values (3)").unwrap();
    assert_eq!(up.interrupt(), Some(0));

    let mut up = Up::start(&dir, port, &["--fresh", "--nodes", "1"]);
    up.wait_ready(&ports[..1]);
    let gone = Sql::connect(port)
        .unwrap()
        .query("select * from kept")
        .unwrap_err();
    assert_eq!(gone.sqlstate.as_deref(), Some("42P01"));
    assert_eq!(up.interrupt(), Some(0));
}

fn child_restarts() {
    let base = tempfile::tempdir().unwrap();
    let port = free_block();
    let mut up = Up::start(&base.path().join("data"), port, &["--nodes", "1"]);
    up.wait_ready(&[port]);
    Sql::connect(port)
        .unwrap()
        .query("create table t (id int)")
        .unwrap();
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", up.child.id())).unwrap();
    let child: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
    wait_until("the old process to be gone", PATIENCE, || {
        let now = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", up.child.id())).unwrap();
        !now.split_whitespace().any(|c| c.parse() == Ok(child))
    });
    up.wait_ready(&[port]);
    assert_eq!(
        Sql::connect(port)
            .unwrap()
            .value("select count(*) from t")
            .unwrap(),
        "0"
    );
    assert_eq!(up.interrupt(), Some(0));
}

fn taken_port() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("data");
    let port = free_block();
    let _taken = TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
    let said = refused(&dir, port, &[]);
    assert!(said.contains(&(port + 1).to_string()), "{said}");
    assert!(!dir.exists(), "it made a directory before it looked at the ports");
    let grpc = port + 2000;
    let _grpc_taken = TcpListener::bind(("127.0.0.1", grpc)).unwrap();
    let said = refused(&dir, port, &["--nodes", "1"]);
    assert!(
        said.contains(&grpc.to_string()) && said.contains("gRPC"),
        "{said}"
    );
    assert!(!dir.exists(), "it made a directory before it looked at the ports");
}

fn wrong_arguments() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("data");
    let port = free_block();
    for (more, named) in [
        (&["--nodes", "0"][..], "--nodes"),
        (&["--nodes", "17"], "--nodes"),
        (&["--set", "shared_bufers=64MB"], "shared_bufers"),
        (&["--set", "shared_buffers=plenty"], "shared_buffers"),
        (&["--set", "port"], "name=value"),
        (&["--sync", "ANY 1 ("], "synchronous_standby_names"),
        (&["--sync", "ANY 0 (*)"], "synchronous_standby_names"),
        (&["--sync", "node9"], "names node9"),
        (&["--sync", "ANY 3 (*)"], "wants 3 standbys where it means 2"),
        (&["--nodes", "1", "--sync", "*"], "--sync ''"),
        (&["--set", "shared_buffers=8000GB"], "shared_buffers = 8000GB"),
        (&["--nodes", "100"], "--nodes"),
        (&["--sql-port", "64000"], "--sql-port"),
    ] {
        let said = if named == "--sql-port" {
            refused(&dir, 64_000, &[])
        } else {
            refused(&dir, port, more)
        };
        assert!(said.contains(named), "{more:?}: {said}");
        let first = said.lines().next().unwrap();
        assert!(
            first.starts_with("towline: ") || first.starts_with("error: "),
            "{said}"
        );
        assert!(!dir.exists(), "{more:?} made a directory");
    }
    for (port, named) in [
        ("0", "--sql-port"),
        ("65535", "--sql-port"),
        ("65536", "--sql-port"),
    ] {
        let mut command = Command::new(towline());
        let output = command
            .args(["up", "--sql-port", port, "--data-dir"])
            .arg(&dir)
            .output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(named), "{port}: {said}");
        assert!(!dir.exists(), "{port} made a directory");
    }
    let link = base.path().join("link");
    std::os::unix::fs::symlink(base.path().join("nowhere"), &link).unwrap();
    let said = refused(&link, port, &[]);
    assert!(said.contains("leads nowhere"), "{said}");
    assert!(!base.path().join("nowhere").exists());
    // Neither below a file nor where nothing can be made.
    let file = base.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    for place in [file.join("data"), Path::new("/proc/towline-data").to_path_buf()] {
        let said = refused(&place, port, &[]);
        assert!(said.contains(place.to_str().unwrap()), "{said}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

fn foreign_directory() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("data");
    std::fs::create_dir_all(dir.join("node1")).unwrap();
    for name in ["notes.txt", "node1/notes.txt"] {
        std::fs::write(dir.join(name), "mine").unwrap();
    }
    for more in [&[][..], &["--fresh"][..]] {
        let said = refused(&dir, free_block(), more);
        assert!(said.contains(dir.to_str().unwrap()), "{said}");
        assert_eq!(
            std::fs::read_to_string(dir.join("node1/notes.txt")).unwrap(),
            "mine"
        );
        assert_eq!(std::fs::read_to_string(dir.join("notes.txt")).unwrap(), "mine");
    }
}

fn directory_in_use() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("data");
    let port = free_block();
    let mut up = Up::start(&dir, port, &["--nodes", "1"]);
    up.wait_ready(&[port]);
    let said = refused(&dir, free_block(), &["--nodes", "1"]);
    assert!(said.contains("in use") || said.contains("already"), "{said}");
    assert_eq!(Sql::connect(port).unwrap().value("select 1").unwrap(), "1");
    assert_eq!(up.interrupt(), Some(0));
}

/// The directory that was left had an identity and no control file: the primary could not start, and nothing made it anew.
fn killed_during_init() {
    let base = tempfile::tempdir().unwrap();
    // A path that is no text, beside: the nodes were started with another one.
    let dir = base.path().join(OsStr::from_bytes(b"data\xff"));
    let port = free_block();
    let ports = [port, port + 1];
    for cut in [
        "node::init_marked=crash",
        "wal::before_fsync=crash",
        "node::init_made=crash",
    ] {
        let status = Command::new(towline())
            .args([
                "up",
                "--nodes",
                "2",
                "--sql-port",
                &port.to_string(),
                "--data-dir",
            ])
            .arg(&dir)
            .env("TOWLINE_FAILPOINTS", cut)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!status.success(), "{cut}");
        assert!(dir.join("node1/towline.init").exists(), "{cut}");
    }
    let mut up = Up::start(&dir, port, &["--nodes", "2"]);
    up.wait_ready(&ports);
    Sql::connect(port)
        .unwrap()
        .query("create table t (id int)")
        .unwrap();
    assert_eq!(up.interrupt(), Some(0));
}

/// A new, empty primary took writes, and the standbys with all the data were told that they belong to another cluster.
fn primary_is_gone() {
    let base = tempfile::tempdir().unwrap();
    let (dir, saved) = (base.path().join("data"), base.path().join("saved"));
    let port = free_block();
    let ports = [port, port + 1];
    let mut up = Up::start(&dir, port, &["--nodes", "2"]);
    up.wait_ready(&ports);
    Sql::connect(port)
        .unwrap()
        .query("create table kept (id int)")
        .unwrap();
    assert_eq!(up.interrupt(), Some(0));
    std::fs::rename(dir.join("node1"), &saved).unwrap();
    let said = refused(&dir, port, &["--nodes", "2"]);
    assert!(
        said.contains("node1 holds no data") && said.contains("--fresh"),
        "{said}"
    );
    assert!(!dir.join("node1").exists());
    std::fs::rename(&saved, dir.join("node1")).unwrap();
    let mut up = Up::start(&dir, port, &["--nodes", "2"]);
    up.wait_ready(&ports);
    assert_eq!(
        Sql::connect(port)
            .unwrap()
            .value("select count(*) from kept")
            .unwrap(),
        "0"
    );
    assert_eq!(up.interrupt(), Some(0));
}

/// Where a node's log ends, by its own dump of it.
fn last_record(dir: &Path) -> String {
    let output = Command::new(towline()).arg("waldump").arg(dir).output().unwrap();
    let records = String::from_utf8(output.stdout).unwrap();
    let last = records.lines().last().unwrap_or_default();
    last.to_owned()
}

/// Two required standbys and a stop while commits run: each has the shutdown checkpoint, the last record there is.
fn stopped_in_order() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("data");
    let port = free_block();
    let ports = [port, port + 1, port + 2];
    let mut up = Up::start(&dir, port, &["--sync", "ANY 2 (*)"]);
    up.wait_ready(&ports);
    let sql = Sql::connect(port).unwrap();
    sql.query("create table t (id int)").unwrap();
    let writing = std::thread::spawn(move || while sql.query("insert into t values (1)").is_ok() {});
    let sql = Sql::connect(port).unwrap();
    wait_until("some commits", PATIENCE, || {
        sql.value("select count(*) > 20 from t")
            .is_ok_and(|enough| enough == "t")
    });
    assert_eq!(up.interrupt(), Some(0));
    writing.join().unwrap();
    let last = last_record(&dir.join("node1"));
    assert!(last.contains("CHECKPOINT_SHUTDOWN"), "{last}");
    for node in ["node2", "node3"] {
        assert_eq!(last_record(&dir.join(node)), last, "{node}");
    }
}

/// Every file named like the control file below a folder.
fn control_files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            control_files(&path, found);
        } else if path.file_name().unwrap().to_string_lossy().contains("control") {
            found.push(path);
        }
    }
}

fn damaged_directory() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("data");
    let port = free_block();
    let mut up = Up::start(&dir, port, &["--nodes", "1"]);
    up.wait_ready(&[port]);
    assert_eq!(up.interrupt(), Some(0));
    let mut files = Vec::new();
    control_files(&dir, &mut files);
    assert!(!files.is_empty());
    for file in &files {
        let len = std::fs::metadata(file).unwrap().len() as usize;
        std::fs::write(file, vec![0xA5; len]).unwrap();
    }
    let said = refused(&dir, port, &["--nodes", "1"]);
    assert!(said.contains("control"), "{said}");
}
