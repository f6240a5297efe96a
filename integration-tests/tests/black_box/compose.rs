//! The compose cluster of deploy/: built from the program under test, pgbench against its published ports,
//! containers killed and back, and its volumes' data there again after `down` and `up`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use towline_integration_tests::client::Sql;
use towline_integration_tests::ports::free_port;
use towline_integration_tests::tools::{need, towline};
use towline_integration_tests::wait::wait_until;

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![Case::new(
        "the_compose_cluster_survives_killed_containers_and_keeps_its_volumes",
        &["docker", "docker-compose", "pgbench"],
        compose_cluster,
    )]
};

/// How long a container may take to become healthy again.
const PATIENCE: Duration = Duration::from_secs(300);

/// A compose project of its own name and ports, removed with its volumes when dropped.
struct Compose {
    deploy: PathBuf,
    project: String,
    ports: [u16; 3],
    password: String,
}

fn checked(mut command: Command) -> Output {
    let out = command.output().unwrap();
    let text = || {
        format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        )
    };
    assert!(out.status.success(), "{command:?}: {}", text());
    out
}

impl Compose {
    fn prepare() -> Compose {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let deploy = root.join("deploy");
        let have = Command::new("docker")
            .args(["image", "inspect", "debian:bookworm-slim"])
            .output()
            .unwrap();
        if !have.status.success() {
            checked(Command::new(deploy.join("make-base-images")));
        }
        std::fs::create_dir_all(deploy.join("image")).unwrap();
        std::fs::copy(towline(), deploy.join("image/towline")).unwrap();
        let mut build = Command::new("docker");
        build.args([
            "build",
            "-q",
            "-f",
            "deploy/Dockerfile",
            "--target",
            "prebuilt",
            "-t",
            "towline",
            ".",
        ]);
        build.current_dir(root);
        checked(build);
        let secrets = deploy.join("secrets");
        std::fs::create_dir_all(&secrets).unwrap();
        for name in ["cluster_secret", "postgres_password"] {
            let file = secrets.join(name);
            if !std::fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
                std::fs::write(&file, format!("secret{}", rand::random::<u64>())).unwrap();
            }
            // As deploy/prepare does: the container's own user reads them.
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o444)).unwrap();
        }
        let password = std::fs::read_to_string(secrets.join("postgres_password"))
            .unwrap()
            .trim()
            .to_owned();
        let compose = Compose {
            deploy,
            project: format!("towline-test-{}", std::process::id()),
            ports: [free_port(), free_port(), free_port()],
            password,
        };
        // A run of the same number that was killed may have left its containers and its volumes.
        compose.run(&["down", "-v", "--remove-orphans"]);
        compose.run(&["up", "-d"]);
        compose
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker-compose");
        command
            .arg("-f")
            .arg(self.deploy.join("compose.yaml"))
            .args(["-p", &self.project])
            .args(arguments);
        for (name, port) in ["TOWLINE_PORT", "TOWLINE_PORT_1", "TOWLINE_PORT_2"]
            .iter()
            .zip(self.ports)
        {
            command.env(name, port.to_string());
        }
        command
    }

    fn run(&self, arguments: &[&str]) {
        checked(self.command(arguments));
    }

    fn container(&self, service: &str) -> String {
        let out = checked(self.command(&["ps", "-q", service]));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// `kill -9` of the container's process, with Docker told not to bring it back by itself.
    fn kill(&self, service: &str) {
        self.run(&["kill", "-s", "SIGKILL", service]);
    }

    fn wait_healthy(&self, services: &[&str]) {
        let containers: Vec<String> = services.iter().map(|service| self.container(service)).collect();
        wait_until(&format!("{services:?} to be healthy"), PATIENCE, || {
            let mut inspect = Command::new("docker");
            inspect.args(["inspect", "--format", "{{.State.Health.Status}}"]);
            let said = inspect.args(&containers).output().unwrap().stdout;
            let said = String::from_utf8_lossy(&said);
            said.lines().count() == containers.len() && said.lines().all(|health| health == "healthy")
        });
    }

    fn sql(&self, node: usize) -> Sql {
        let port = self.ports[node];
        let config = format!(
            "host=127.0.0.1 port={port} user=postgres dbname=postgres password={}",
            self.password
        );
        Sql::connect_with(&config).unwrap()
    }

    fn pgbench(&self, arguments: &[&str]) {
        let mut command = Command::new(need("pgbench"));
        command.args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &self.ports[0].to_string(),
        ]);
        command
            .args(arguments)
            .arg("postgres")
            .env("PGPASSWORD", &self.password);
        checked(command);
    }

    fn sums_agree(&self) {
        let lsn = self.sql(0).value("select pg_current_wal_flush_lsn()").unwrap();
        let query = "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), \
                     (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history), \
                     (select count(*) from pgbench_history)";
        let primary = self.sql(0).query(query).unwrap();
        assert!(
            primary[0][..4].iter().all(|sum| sum == &primary[0][0]),
            "{primary:?}"
        );
        for node in 1..3 {
            let reader = self.sql(node);
            wait_until(&format!("standby {node} to replay"), PATIENCE, || {
                reader
                    .value(&format!("select pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn"))
                    .is_ok_and(|t| t == "t")
            });
            assert_eq!(reader.query(query).unwrap(), primary, "standby {node}");
        }
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(said) = self.command(&["logs", "--no-color", "--tail", "30"]).output()
        {
            eprintln!("{}", String::from_utf8_lossy(&said.stdout));
        }
        let _ = self.command(&["down", "-v", "--remove-orphans"]).output();
    }
}

fn compose_cluster() {
    let cluster = Compose::prepare();
    let all = ["primary", "standby1", "standby2"];
    cluster.wait_healthy(&all);
    let stranger = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres password=wrong",
        cluster.ports[0]
    );
    let refused = Sql::connect_with(&stranger).err().unwrap();
    assert_eq!(refused.sqlstate.as_deref(), Some("28P01"), "{refused:?}");

    cluster.pgbench(&["-i", "-q", "-s", "1"]);
    cluster.pgbench(&["-n", "-c", "8", "-t", "50"]);
    cluster.sums_agree();

    cluster.kill("standby1");
    cluster.pgbench(&["-n", "-c", "8", "-t", "50"]);
    cluster.run(&["start", "standby1"]);
    cluster.wait_healthy(&["standby1"]);
    cluster.sums_agree();

    cluster.kill("primary");
    cluster.run(&["start", "primary"]);
    cluster.wait_healthy(&all);
    cluster.pgbench(&["-n", "-c", "8", "-t", "50"]);
    cluster.sums_agree();

    cluster.run(&["down"]);
    cluster.run(&["up", "-d"]);
    cluster.wait_healthy(&all);
    assert_eq!(
        cluster
            .sql(0)
            .value("select count(*) from pgbench_history")
            .unwrap(),
        "1200"
    );
    cluster.sums_agree();
}
