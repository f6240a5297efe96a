//! Why a command could not do what it was asked: one sentence for the user, and the exit code.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// The exit code of a command that refused: a user must act before it is worth trying again.
pub(crate) const REFUSED: u8 = 2;
/// The exit code of a node that failed while it ran; starting it again may help.
pub(crate) const FAILED: u8 = 1;

/// A sentence that says what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The sentence.
    pub(crate) sentence: String,
    /// [`REFUSED`] or [`FAILED`].
    pub(crate) code: u8,
}

impl Refusal {
    /// The user must act.
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            code: REFUSED,
        }
    }

    /// Something broke that may not break again.
    pub(crate) fn failed(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            code: FAILED,
        }
    }

    /// For the end of `main`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Refusal {}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Refusal>;

/// The end of a command that prints: a reader that has gone away (`| head`) has seen enough; a full disk is told.
pub(crate) fn printed(written: io::Result<()>) -> Outcome {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Refusal::failed(format!("The output cannot be written: {error}.")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is said when the system catalog cannot be read; the error names the file.
pub(crate) fn damaged_catalog(dir: &Path, error: &dyn fmt::Display) -> String {
    format!(
        "The system catalog in {} cannot be read: {error}. Restore the directory from a backup, or remove it and clone the node anew from \
         another.",
        dir.display()
    )
}
