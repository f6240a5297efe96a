//! `towline waldump`: prints or counts the records of a log, in `pg_waldump`'s format.

use std::io::{self, BufWriter, Write as _};

use towline_base::{Lsn, OsVfs, TimelineNumber};
use towline_wal::EndReason;
use towline_wal::waldump::{DumpError, DumpOptions, Stats, dump};

use crate::cli::WaldumpArgs;
use crate::refusal::{Outcome, Refusal};

/// Dumps a data directory, a directory of segments or one segment. Running into the end of the log is no error, into that of a file that was
/// cut short it is; where and why it ends is said on standard error.
pub(crate) fn run(args: &WaldumpArgs) -> Outcome {
    let options = DumpOptions {
        start: args.start.as_deref().map(parse_lsn).transpose()?,
        end: args.end.as_deref().map(parse_lsn).transpose()?,
        timeline: args.timeline.map(TimelineNumber),
        block_details: args.bkp_details,
        stats: if args.stats { Stats::PerRmgr } else { Stats::Off },
        ..DumpOptions::default()
    };
    let inside = args.path.join("pg_wal");
    let path = if inside.is_dir() { &inside } else { &args.path };
    // Before it is opened: a pipe would be waited for.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_dir() && !found.is_file()) {
        return Err(Refusal::new(format!(
            "{} is neither a directory nor a file; name a data directory, a directory of segments, or one segment.",
            path.display()
        )));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let dumped = dump(&OsVfs::shared(), path, &options, &mut out).and_then(|dumped| {
        out.flush()?;
        Ok(dumped)
    });
    match dumped {
        Ok(dumped) => {
            // A log ends anywhere, a file only where its segment does.
            if let Some(end) = dumped.end.filter(|end| end.reason == EndReason::ShortSegment) {
                return Err(Refusal::failed(format!(
                    "{} is cut short: {end}.",
                    path.display()
                )));
            }
            if let Some(end) = dumped.end {
                // The exit code is that of the records.
                let _ = writeln!(io::stderr(), "towline: {end}");
            }
            Ok(())
        }
        // A reader that has gone away (`| head`) has seen enough.
        Err(DumpError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Refusal::new(format!(
            "{} cannot be dumped: {error}.",
            path.display()
        ))),
    }
}

fn parse_lsn(text: &str) -> Outcome<Lsn> {
    text.parse()
        .map_err(|_| Refusal::new(format!("\"{text}\" is not a WAL position such as 0/16B3748.")))
}
