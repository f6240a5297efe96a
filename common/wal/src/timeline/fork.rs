//! Opening a timeline, and making a log's tail durable before it is reported.
//!
//! A14: a fork never overwrites in place. The new timeline's first segment is a new file: the bytes before the fork copied, the rest
//! zero, synced, renamed. A13: what a restarted node reads may only be in the page cache; before it reports a position it writes
//! the tail anew into fresh files and syncs those.

use std::io;

use towline_base::rules::{self, Rule};
use towline_base::{Lsn, TimelineId, TimelineNumber, VfsFile};

use super::TimelineHistory;
use crate::format::SegmentNumber;
use crate::reader::{Pages, WalSource};
use crate::segments::SegmentDir;

/// Opens `timeline` as a child of `parent.history` at `fork`, the end of the last complete record: makes its first segment, then its
/// history file, both durable. The history returned is what the log and its readers go on with.
///
/// # Errors
/// When the parent's log cannot be read up to `fork`, or I/O fails; the timeline then does not exist (without a history file,
/// a segment left behind means nothing).
pub fn fork_timeline(
    parent: &WalSource,
    fork: Lsn,
    timeline: TimelineId,
    reason: &str,
) -> io::Result<TimelineHistory> {
    if timeline.number <= parent.history.current().number || fork < parent.history.begin() {
        let text = format!(
            "timeline {timeline} cannot leave {} at {fork}",
            parent.history.current()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let history = parent.history.forked(fork, timeline, reason);
    let segments = SegmentDir::new(parent.vfs.clone(), parent.dir.clone(), parent.segment_size);
    copy_prefix(&segments, parent, fork, timeline.number)?;
    history.write(&*parent.vfs, &parent.dir)?;
    Ok(history)
}

/// Makes the segment of `timeline` that begins before `fork` and goes on behind it: its bytes before `fork` are those that `parent`
/// reads, the rest is zero.
pub(super) fn copy_prefix(
    segments: &SegmentDir,
    parent: &WalSource,
    fork: Lsn,
    timeline: TimelineNumber,
) -> io::Result<()> {
    let size = parent.segment_size;
    let segment = size.segment_of(fork);
    // What stands behind the fork would be taken along with the rule off.
    let to = if rules::is_off(Rule::ForkIsANewFile) {
        size.end(segment)
    } else {
        fork
    };
    segments.replace(timeline, segment, |file| {
        copy_bytes(parent, size.start(segment), to, file)
    })
}

fn copy_bytes(source: &WalSource, from: Lsn, to: Lsn, file: &dyn VfsFile) -> io::Result<u64> {
    if to > from {
        Pages::new(source.clone()).copy_raw(from, to, |bytes, offset| file.write_all_at(bytes, offset))?;
    }
    Ok(to.distance_from(from))
}

/// Writes the log's bytes from the segment of `durable` (the last position known to be durable) up to `end` anew into fresh files,
/// with zeros behind `end`, and syncs files and directory. Afterwards, and not before, `end` may be reported to anybody.
///
/// Only the newest timeline's files are written: its ancestors' bytes were made durable when they were forked from.
pub fn rewrite_tail_durable(source: &WalSource, durable: Lsn, end: Lsn) -> io::Result<()> {
    if rules::is_off(Rule::TailIsDurable) {
        return Ok(());
    }
    let size = source.segment_size;
    if durable >= end {
        return source.vfs.sync_dir(&source.dir);
    }
    let timeline = source.history.current().number;
    let first = size.segment_of(durable.max(source.history.begin()).min(end));
    let last = size.segment_before(end);
    let segments = SegmentDir::new(source.vfs.clone(), source.dir.clone(), size);
    for number in first.0..=last.0 {
        let segment = SegmentNumber(number);
        let to = end.min(size.end(segment));
        if to <= size.start(segment) {
            break;
        }
        segments.replace(timeline, segment, |file| {
            copy_bytes(source, size.start(segment), to, file)
        })?;
    }
    source.vfs.sync_dir(&source.dir)
}
