//! `towline controldata`: prints the control file.

use std::io::{self, Write as _};
use std::sync::Arc;

use towline_base::OsVfs;
use towline_storage::ControlFile;

use crate::cli::ControldataArgs;
use crate::refusal::{Outcome, Refusal, printed};

/// Prints what the control file says.
pub(crate) fn run(args: &ControldataArgs) -> Outcome {
    let control = ControlFile::open(Arc::new(OsVfs), &args.data_dir).map_err(|error| {
        Refusal::new(format!(
            "{} has no readable control file: {error}.",
            args.data_dir.display()
        ))
    })?;
    printed(write!(io::stdout(), "{}", control.get()))
}
