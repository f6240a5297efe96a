//! Where a node's words go: all of them into `<data directory>/log/towline.log`, and to standard error for a human.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::refusal::{Outcome, Refusal};

/// A log file that has grown above this is set aside (one generation) at the next start.
const KEEP_BYTES: u64 = 64 * 1024 * 1024;

fn filter() -> EnvFilter {
    EnvFilter::try_from_env("TOWLINE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,h2=warn,tonic=warn,hyper=warn"))
}

/// Starts logging for a node. Without a directory (tools) only standard error is used.
pub(crate) fn start(data_dir: Option<&Path>) -> Outcome {
    let file = data_dir.map(open_log).transpose()?;
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .compact();
    let file = file.map(|file| {
        tracing_subscriber::fmt::layer()
            .with_writer(Mutex::new(file))
            .with_ansi(false)
            .with_thread_names(true)
    });
    let _ = tracing_subscriber::registry()
        .with(filter())
        .with(stderr)
        .with(file)
        .try_init();
    Ok(())
}

fn open_log(data_dir: &Path) -> Outcome<File> {
    let dir = data_dir.join("log");
    let path = dir.join("towline.log");
    for (place, wanted, other, is_wrong) in [
        (&dir, "directory", "file", Path::is_file as fn(&Path) -> bool),
        (&path, "file", "directory", Path::is_dir),
    ] {
        if is_wrong(place) {
            return Err(Refusal::new(format!(
                "{} is a {other} in the place of the log's {wanted}; move it away, and the node makes a {wanted} there.",
                place.display()
            )));
        }
    }
    open_file(&dir, &path).map_err(|error| {
        Refusal::new(format!(
            "The log {} cannot be opened: {error}; see that the node may write there.",
            path.display()
        ))
    })
}

fn open_file(dir: &Path, path: &Path) -> io::Result<File> {
    // Statements are in it, and whatever a client wrote into them.
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > KEEP_BYTES) {
        std::fs::rename(path, dir.join("towline.log.1"))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Says why the node ends.
pub(crate) fn ending(ended: crate::serve::Ended) {
    match ended {
        crate::serve::Ended::Asked => tracing::info!("all sessions have ended; shutting down"),
        crate::serve::Ended::AtOnce => tracing::warn!("stopping at once, as after a crash"),
        crate::serve::Ended::Failed => tracing::error!("the engine has failed; the node stops"),
    }
}
