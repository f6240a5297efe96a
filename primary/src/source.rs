//! The bytes that walsenders send: out of the WAL buffers when they are still there, else out of segment files.
//!
//! A segment may be recycled while it is read. Its name goes before its contents change, so bytes count only when the name
//! is still there after they were read.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use towline_base::limits::MAX_WAL_CHUNK_BYTES;
use towline_base::{Lsn, OpenMode, TimelineId, TimelineNumber, VfsFile};
use towline_wal::format::SegmentNumber;
use towline_wal::{SegmentDir, TimelineHistory, Wal};

/// Bytes of the log that belong to one timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    pub(crate) timeline: TimelineId,
    pub(crate) bytes: Bytes,
}

/// Why there are no bytes.
#[derive(Debug)]
pub(crate) enum SourceError {
    /// The segment that held the position is gone.
    Removed(Lsn),
    /// It cannot be read.
    Io(io::Error),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Removed(lsn) => write!(f, "the WAL at {lsn} has already been removed"),
            SourceError::Io(error) => write!(f, "WAL cannot be read: {error}"),
        }
    }
}

/// A primary's log, for reading at any position.
#[derive(Clone, Debug)]
pub(crate) struct LogBytes {
    wal: Arc<Wal>,
    segments: Arc<SegmentDir>,
    history: Arc<TimelineHistory>,
}

impl LogBytes {
    pub(crate) fn new(wal: Arc<Wal>, history: Arc<TimelineHistory>) -> LogBytes {
        let segments = Arc::clone(wal.segments());
        LogBytes {
            wal,
            segments,
            history,
        }
    }

    /// End of the part of the segment files that may be read.
    pub(crate) fn written(&self) -> Lsn {
        self.wal.positions().write.get()
    }

    /// Complete bytes from `from` on that are still in the buffers. They may not be durable here yet.
    pub(crate) fn recent(&self, from: Lsn) -> Option<Chunk> {
        if from < self.history.begin() || from >= self.wal.complete_lsn() {
            return None;
        }
        let mut bytes = Vec::new();
        let count = self.wal.read_recent(from, MAX_WAL_CHUNK_BYTES, &mut bytes);
        (count > 0).then(|| Chunk {
            timeline: self.history.current(),
            bytes: bytes.into(),
        })
    }

    /// Bytes from `from` on, below the written position, out of a segment file. Blocks. `None` when there are none yet.
    pub(crate) fn in_files(&self, from: Lsn) -> Result<Option<Chunk>, SourceError> {
        let size = self.segments.segment_size();
        let segment = size.segment_of(from);
        let timeline = self.history.timeline_at(from);
        let range_end = self.history.end_of(timeline.number).unwrap_or(Lsn::MAX);
        let end = size
            .end(segment)
            .min(range_end)
            .min(self.written())
            .min(from.saturating_add(MAX_WAL_CHUNK_BYTES as u64));
        if end <= from {
            return Ok(None);
        }
        let mut bytes = vec![0; end.distance_from(from) as usize];
        for number in self.files_that_may_hold(from, segment) {
            if self
                .read_named(number, segment, from, &mut bytes)
                .map_err(SourceError::Io)?
            {
                return Ok(Some(Chunk {
                    timeline,
                    bytes: bytes.into(),
                }));
            }
        }
        Err(SourceError::Removed(from))
    }

    /// The timelines whose file of this segment begins with the bytes up to `from`'s timeline: that one, and those that
    /// were forked inside the segment and copied its beginning. Newest first.
    fn files_that_may_hold(&self, from: Lsn, segment: SegmentNumber) -> Vec<TimelineNumber> {
        let segment_end = self.segments.segment_size().end(segment);
        let own = self.history.timeline_at(from).number;
        let ranges = self.history.ranges().rev();
        let holds = ranges.filter(|(known, begin, _)| known.number >= own && *begin < segment_end);
        holds.map(|(known, ..)| known.number).collect()
    }

    fn read_named(
        &self,
        timeline: TimelineNumber,
        segment: SegmentNumber,
        from: Lsn,
        bytes: &mut [u8],
    ) -> io::Result<bool> {
        let path = self.segments.path(timeline, segment);
        let vfs = self.segments.vfs();
        let file: Arc<dyn VfsFile> = match vfs.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match file.read_exact_at(bytes, self.segments.segment_size().offset(from)) {
            Ok(()) => vfs.exists(&path),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}
