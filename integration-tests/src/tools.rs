//! Finds the programs that a test needs. A missing one makes the test ignored, with the reason in its
//! name, or failed where `TOWLINE_REQUIRE_TOOLS=1` says that the machine must have them all.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian keeps the programs of PostgreSQL 15 that are not on the path.
const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";

/// The path of a program, from PostgreSQL 15's own folder first and then from `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from(POSTGRES_BIN))
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// The path of a program that the test has declared as needed.
pub fn need(program: &str) -> PathBuf {
    find(program).unwrap_or_else(|| panic!("{program} is not installed (Debian: postgresql-15)"))
}

/// psql as user `postgres` in database `postgres` of the server on a loopback port.
pub fn psql(port: u16) -> Command {
    let mut command = Command::new(need("psql"));
    command.args(["-X", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-p"]);
    command.arg(port.to_string());
    command
}

/// The programs of `wanted` that this machine lacks.
pub fn missing<'a>(wanted: &[&'a str]) -> Vec<&'a str> {
    wanted
        .iter()
        .copied()
        .filter(|program| find(program).is_none())
        .collect()
}

/// Whether a missing tool is a failure on this machine.
pub fn required() -> bool {
    std::env::var("TOWLINE_REQUIRE_TOOLS").is_ok_and(|value| value == "1")
}

/// Builds the `towline` program once per test run, in the profile of the tests, and returns its path.
pub fn towline() -> &'static Path {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    BUILT.get_or_init(|| {
        let profile = std::env::current_exe()
            .unwrap()
            .ancestors()
            .nth(2)
            .unwrap()
            .to_path_buf();
        if let Some(given) = std::env::var_os("TOWLINE_BIN") {
            return PathBuf::from(given);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut build = Command::new(cargo);
        build
            .args([
                "build", "--quiet", "--locked", "-p", "towline", "--bin", "towline",
            ])
            .current_dir(root);
        // The tests and benchmarks run from <target>/<profile>/deps.
        if profile.file_name().is_some_and(|name| name == "release") {
            build.arg("--release");
        }
        assert!(
            build.status().expect("cargo runs").success(),
            "the towline program does not build"
        );
        profile.join("towline")
    })
}
