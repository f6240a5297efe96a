//! `towline init`: makes the data directory of a primary.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use towline_access::bootstrap::{self, InitOptions};
use towline_base::limits::{DEFAULT_SEGMENT_BYTES, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES};
use towline_base::scram::ScramSecret;
use towline_base::{Clock, OsVfs, SystemClock, Vfs as _, Xid, failpoint};

use crate::cli::InitArgs;
use crate::data_dir::{self, Contents};
use crate::refusal::{Outcome, Refusal, printed};

/// Longest password that is read from a file.
const MAX_PASSWORD: u64 = 1024;

/// Runs the subcommand.
pub(crate) fn run(args: &InitArgs) -> Outcome {
    failpoint::configure_from_env().map_err(Refusal::new)?;
    let password = args.password_file.as_deref().map(read_password).transpose()?;
    match data_dir::look(&args.data_dir)? {
        Contents::Nothing | Contents::Unfinished => {}
        Contents::Node(node) => {
            return Err(Refusal::new(format!(
                "{} is the data directory of node {} already; start it with towline primary, or choose another directory.",
                args.data_dir.display(),
                node.name
            )));
        }
        Contents::Foreign => {
            return Err(Refusal::new(format!(
                "{} is not empty; choose an empty directory.",
                args.data_dir.display()
            )));
        }
    }
    make(
        &args.data_dir,
        &args.name,
        password.as_deref(),
        Some(&args.wal_segment_size),
        Xid(args.first_xid),
    )?;
    let dir = args.data_dir.display();
    printed(writeln!(
        std::io::stdout(),
        "{dir} is ready; start it with: towline primary --data-dir {dir}"
    ))
}

/// The first line of a file; `-` is standard input.
fn read_password(path: &Path) -> Outcome<String> {
    let failed = |error: std::io::Error| {
        Refusal::new(format!(
            "The password file {} cannot be read: {error}.",
            path.display()
        ))
    };
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .take(MAX_PASSWORD + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
    } else {
        std::fs::File::open(path)
            .map_err(failed)?
            .take(MAX_PASSWORD + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
    }
    // One that is cut would be another password.
    if text.len() as u64 > MAX_PASSWORD {
        return Err(Refusal::new(format!(
            "The password file {} is longer than {MAX_PASSWORD} bytes; give it one line with the password.",
            path.display()
        )));
    }
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        return Err(Refusal::new(format!(
            "The password file {} is empty.",
            path.display()
        )));
    }
    Ok(password.to_owned())
}

/// Makes the directory: identity, first WAL, catalog, control file. With a password, logins need it from the start. A directory that
/// an earlier attempt left unfinished is made anew: it is marked from the first byte to the last sync.
pub(crate) fn make(
    dir: &Path,
    name: &str,
    password: Option<&str>,
    segment_size: Option<&str>,
    first_xid: Xid,
) -> Outcome {
    let options = InitOptions {
        segment_size: segment_size.map_or(Ok(DEFAULT_SEGMENT_BYTES), parse_size)?,
        password: password.map(secret).transpose()?,
        first_xid,
        ..InitOptions::default()
    };
    let failed = |what: String| {
        Refusal::failed(format!(
            "The data directory {} could not be made: {what}.",
            dir.display()
        ))
    };
    data_dir::check_name(name)?;
    let broken = |error: std::io::Error| failed(format!("{error}; the same command begins it anew"));
    OsVfs
        .create_dir_all(dir)
        .map_err(|error| failed(error.to_string()))?;
    let _lock = data_dir::lock(dir)?;
    // Somebody else may have made it since it was looked at.
    if matches!(data_dir::look(dir)?, Contents::Node(_) | Contents::Foreign) {
        return Err(Refusal::new(format!(
            "{} has just been made by another process; choose another directory.",
            dir.display()
        )));
    }
    data_dir::mark(dir)
        .and_then(|()| data_dir::clear(dir))
        .map_err(broken)?;
    failpoint!("node::init_marked").map_err(broken)?;
    let node = data_dir::write_node(dir, name)?;
    if password.is_some() {
        OsVfs
            .write_file_atomically(&dir.join("towline.toml"), PASSWORD_RULES.as_bytes())
            .map_err(broken)?;
    }
    let vfs = OsVfs::shared();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    bootstrap::init(&vfs, dir, &clock, &options)
        .map_err(|error| failed(format!("{error}; the same command begins it anew")))?;
    failpoint!("node::init_made").map_err(broken)?;
    // The directory's own name too is durable before it counts as made.
    vfs.sync_dir(&parent_of(dir))
        .and_then(|()| data_dir::unmark(dir))
        .map_err(broken)?;
    tracing::info!(node = %node, "data directory is made");
    Ok(())
}

fn parent_of(dir: &Path) -> std::path::PathBuf {
    // A bare name, `..` or a link: what the system takes for it.
    std::fs::canonicalize(dir)
        .ok()
        .and_then(|whole| whole.parent().map(Path::to_owned))
        .unwrap_or_else(|| dir.to_owned())
}

/// What a node made with a password starts with.
const PASSWORD_RULES: &str = "# Settings of this node; see SHOW ALL. Reload with SIGHUP or SELECT pg_reload_conf().\n\
\n\
[[hba]]\n\
address = \"all\"\n\
method = \"scram-sha-256\"\n";

fn secret(password: &str) -> Outcome<String> {
    ScramSecret::generate(password)
        .map(|secret| secret.to_string())
        .map_err(|error| Refusal::failed(format!("No random numbers are to be had: {error}.")))
}

/// A size such as `16MB`; a bare number counts bytes.
fn parse_size(text: &str) -> Outcome<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "B" => Some(1),
        "kB" => Some(1 << 10),
        "MB" => Some(1 << 20),
        "GB" => Some(1 << 30),
        _ => None,
    };
    let size = digits
        .trim()
        .parse::<u64>()
        .ok()
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit));
    size.filter(|size| size.is_power_of_two() && (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(size))
        .ok_or_else(|| {
            Refusal::new(format!(
                "\"{text}\" cannot be a segment size: use a power of two from 1MB to 1GB."
            ))
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn segment_sizes_are_powers_of_two_with_units() {
        assert_eq!(parse_size("16MB").unwrap(), 16 << 20);
        assert_eq!(parse_size("1GB").unwrap(), 1 << 30);
        for wrong in ["", "MB", "3MB", "512kB", "2GB", "-1MB", "16 XB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
