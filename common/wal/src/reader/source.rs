//! Pages of the log out of segment files, across timelines.
//!
//! The file of a segment is that of the newest timeline of the history that reaches into it: a fork copies the segment's beginning
//! into its own file (HAZARDS A14). Where that file is missing, an ancestor's serves, up to its fork and not a byte further: for a record
//! behind the fork the newer file is looked for again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use towline_base::{Lsn, OpenMode, SystemId, TimelineNumber, Vfs, VfsFile};

use super::EndReason;
use crate::format::{PageHeader, SegmentNumber, SegmentSize, WAL_PAGE, segment_name};
use crate::timeline::TimelineHistory;

/// Bytes read from a file at once.
const CHUNK: usize = 256 * 1024;

/// Where a reader finds segments.
#[derive(Debug, Clone)]
pub struct WalSource {
    /// The file layer.
    pub vfs: Arc<dyn Vfs>,
    /// The `pg_wal` directory.
    pub dir: PathBuf,
    /// Segment size.
    pub segment_size: SegmentSize,
    /// The cluster whose segments are accepted; `None` accepts any.
    pub system: Option<SystemId>,
    /// The timelines to follow, newest last.
    pub history: TimelineHistory,
}

impl WalSource {
    /// The file that should hold this position, for messages.
    pub fn file_of(&self, lsn: Lsn) -> PathBuf {
        let timeline = self.history.timeline_at(lsn).number;
        let size = self.segment_size;
        self.dir.join(segment_name(timeline, size.segment_of(lsn), size))
    }
}

/// An open segment.
#[derive(Debug)]
struct OpenSegment {
    segment: SegmentNumber,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    /// The file's timeline was left here; nothing at or behind it may be read from it.
    fork: Lsn,
}

/// The error, with the name of the file that it is about.
fn of_segment(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("WAL segment \"{}\": {error}", path.display()),
    )
}

/// Reads pages through a cache of one chunk.
#[derive(Debug)]
pub(crate) struct Pages {
    source: WalSource,
    open: Option<OpenSegment>,
    chunk: Vec<u8>,
    /// Position of the chunk's first byte; its length says how far it reaches.
    chunk_start: Lsn,
    filled: usize,
    /// Bytes at or behind it may have changed since they were read.
    valid_to: Lsn,
    chunk_size: usize,
    /// The page that was checked last: most records lie on the page of the one before.
    checked: Option<Page>,
}

/// A page that passed its checks, as a range of the chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub(super) header: PageHeader,
    /// Where it begins in the chunk.
    at: usize,
}

impl Pages {
    pub(crate) fn new(source: WalSource) -> Self {
        let chunk_size = CHUNK;
        Self {
            source,
            open: None,
            chunk: Vec::new(),
            chunk_start: Lsn(0),
            filled: 0,
            valid_to: Lsn(0),
            chunk_size,
            checked: None,
        }
    }

    pub(super) fn source(&self) -> &WalSource {
        &self.source
    }

    /// Reads single pages instead of chunks: for looking here and there.
    pub(super) fn read_sparsely(&mut self) {
        self.chunk_size = WAL_PAGE;
        self.forget();
    }

    /// Follow another history from now on: the one read so far has been extended.
    pub(super) fn set_history(&mut self, history: TimelineHistory) {
        self.source.history = history;
        self.forget();
    }

    /// Forgets what was read, and which file it came from: both may have changed.
    pub(super) fn forget(&mut self) {
        self.filled = 0;
        self.checked = None;
        self.open = None;
    }

    /// The page at `address`, checked. `limit` is how far the caller may look: bytes behind it may still change, so a page that
    /// reaches beyond it is read anew when the limit has been raised.
    pub(super) fn page(&mut self, address: Lsn, limit: Lsn) -> io::Result<Result<Page, EndReason>> {
        let page_end = address.saturating_add(WAL_PAGE as u64);
        let cached = address >= self.chunk_start
            && page_end <= self.chunk_start.saturating_add(self.filled as u64)
            && (page_end <= self.valid_to || limit <= self.valid_to);
        if cached && let Some(page) = self.checked.filter(|page| page.header.address == address) {
            return Ok(Ok(page));
        }
        if !cached && let Err(reason) = self.read_chunk(address, limit)? {
            return Ok(Err(reason));
        }
        let at = address.distance_from(self.chunk_start) as usize;
        let bytes = &self.chunk[at..at + WAL_PAGE];
        let header = match PageHeader::decode(bytes, address, self.source.segment_size, self.source.system) {
            Ok(header) => header,
            Err(error) => return Ok(Err(EndReason::Page(error))),
        };
        if !self.timeline_fits(header.timeline, address) {
            return Ok(Err(EndReason::WrongTimeline(header.timeline)));
        }
        let page = Page { header, at };
        self.checked = Some(page);
        Ok(Ok(page))
    }

    /// The bytes of a page that `page` returned just now.
    pub(super) fn bytes(&self, page: Page) -> &[u8] {
        &self.chunk[page.at..page.at + WAL_PAGE]
    }

    /// Copies the bytes `[from, to)` of one segment piece by piece, unchecked: for copying files. Fails when they are not there.
    pub(crate) fn copy_raw(
        &mut self,
        from: Lsn,
        to: Lsn,
        mut sink: impl FnMut(&[u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let size = self.source.segment_size;
        let segment = size.segment_of(from);
        assert!(to <= size.end(segment), "a raw copy stays in its segment");
        self.filled = 0;
        self.checked = None;
        if self.open.as_ref().is_none_or(|open| open.segment != segment) {
            self.open = self.open_segment(segment)?;
        }
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no WAL segment holds {from}"));
        let open = self.open.as_ref().ok_or_else(missing)?;
        if to > open.fork {
            return Err(missing());
        }
        let mut at = from;
        while at < to {
            let length = to.distance_from(at).min(self.chunk_size as u64) as usize;
            self.chunk.resize(length.max(self.chunk.len()), 0);
            open.file
                .read_exact_at(&mut self.chunk[..length], size.offset(at))?;
            sink(&self.chunk[..length], size.offset(at))?;
            at = at + length as u64;
        }
        Ok(())
    }

    /// Whether the open file still has its name; a recycled one has not.
    pub(super) fn file_is_there(&mut self) -> io::Result<bool> {
        let Some(open) = &self.open else { return Ok(true) };
        let there = self.source.vfs.exists(&open.path)?;
        if !there {
            self.forget();
        }
        Ok(there)
    }

    /// Positions at or behind it cannot be read from the open file.
    pub(super) fn fork(&self) -> Lsn {
        self.open.as_ref().map_or(Lsn::MAX, |open| open.fork)
    }

    fn timeline_fits(&self, found: TimelineNumber, address: Lsn) -> bool {
        let history = &self.source.history;
        // A history without ancestors may just be unknown (a dump of a lone file): older numbers are let pass.
        found == history.timeline_at(address).number
            || (history.ancestors().is_empty() && found < history.current().number)
    }

    fn read_chunk(&mut self, address: Lsn, limit: Lsn) -> io::Result<Result<(), EndReason>> {
        let size = self.source.segment_size;
        let segment = size.segment_of(address);
        if self.open.as_ref().is_none_or(|open| open.segment != segment) {
            self.open = self.open_segment(segment)?;
        }
        self.filled = 0;
        self.checked = None;
        let Some(open) = &self.open else {
            return Ok(Err(EndReason::MissingSegment));
        };
        if address >= open.fork {
            return Ok(Err(EndReason::MissingSegment));
        }
        // No further than asked for: what lies behind the limit would only be read again.
        let in_segment = size.end(segment).distance_from(address);
        let wanted = limit.distance_from(address).div_ceil(WAL_PAGE as u64).max(1) * WAL_PAGE as u64;
        let length = in_segment.min(wanted).min(self.chunk_size as u64) as usize;
        self.chunk.resize(length.max(self.chunk.len()), 0);
        let mut done = 0;
        while done < length {
            match open
                .file
                .read_at(&mut self.chunk[done..length], size.offset(address) + done as u64)
                .map_err(|error| of_segment(&open.path, &error))?
            {
                0 => break,
                count => done += count,
            }
        }
        let whole_pages = done - done % WAL_PAGE;
        if whole_pages == 0 {
            return Ok(Err(EndReason::ShortSegment));
        }
        self.chunk_start = address;
        self.filled = whole_pages;
        self.valid_to = limit;
        Ok(Ok(()))
    }

    fn open_segment(&self, segment: SegmentNumber) -> io::Result<Option<OpenSegment>> {
        let size = self.source.segment_size;
        for (timeline, begin, end) in self.source.history.ranges().rev() {
            if size.segment_of(begin) > segment {
                continue;
            }
            let path = self.source.dir.join(segment_name(timeline.number, segment, size));
            match self.source.vfs.open(&path, OpenMode::Read) {
                Ok(file) => {
                    return Ok(Some(OpenSegment {
                        segment,
                        path,
                        file,
                        fork: end,
                    }));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(of_segment(&path, &error)),
            }
        }
        Ok(None)
    }
}
