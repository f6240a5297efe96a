//! `towline checksums`: reads every page of a stopped node and names the damaged ones.

use towline_base::OsVfs;
use towline_storage::checksums;

use crate::cli::ChecksumsArgs;
use crate::data_dir;
use crate::refusal::{Outcome, Refusal};

/// Scans; fails when a page is damaged.
pub(crate) fn run(args: &ChecksumsArgs) -> Outcome {
    let _lock = data_dir::lock(&args.data_dir)?;
    let report = checksums::scan(&OsVfs::shared(), &args.data_dir, |bad| {
        eprintln!("towline: {bad}")
    })
    .map_err(|error| Refusal::new(format!("{} cannot be checked: {error}.", args.data_dir.display())))?;
    println!("Files scanned:  {}", report.files);
    println!("Blocks scanned: {}", report.blocks);
    println!("Bad checksums:  {}", report.bad);
    if report.bad == 0 {
        return Ok(());
    }
    Err(Refusal::failed(format!(
        "{} of {} blocks are damaged.",
        report.bad, report.blocks
    )))
}
