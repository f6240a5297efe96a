//! `towline checksums`: reads every page of a stopped node and names the damaged ones.

use std::io::{self, Write as _};

use towline_base::OsVfs;
use towline_storage::checksums;
use towline_storage::control::CONTROL_FILE;

use crate::cli::ChecksumsArgs;
use crate::data_dir;
use crate::refusal::{Outcome, Refusal, printed};

/// Scans; fails when a page is damaged.
pub(crate) fn run(args: &ChecksumsArgs) -> Outcome {
    // Before anything is made in it, the lock too.
    data_dir::check_is_directory(&args.data_dir)?;
    let control = args.data_dir.join(CONTROL_FILE);
    if !control
        .try_exists()
        .map_err(|error| data_dir::unreadable(&control, &error))?
    {
        return Err(Refusal::new(format!(
            "{} is not a data directory of Towline, or its making was not finished: there is no file {CONTROL_FILE} in it.",
            args.data_dir.display()
        )));
    }
    let _lock = data_dir::lock(&args.data_dir)?;
    let report = checksums::scan(&OsVfs::shared(), &args.data_dir, |bad| {
        // The exit code tells too.
        let _ = writeln!(io::stderr(), "towline: {bad}");
    })
    .map_err(|error| Refusal::new(format!("{} cannot be checked: {error}.", args.data_dir.display())))?;
    printed(writeln!(
        io::stdout(),
        "Files scanned:  {}\nBlocks scanned: {}\nBad checksums:  {}",
        report.files,
        report.blocks,
        report.bad
    ))?;
    if report.bad == 0 {
        return Ok(());
    }
    Err(Refusal::failed(format!(
        "{} of {} blocks are damaged.",
        report.bad, report.blocks
    )))
}
