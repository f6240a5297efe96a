//! The dump tool as a library: records as lines, or as a table of counts, in pg_waldump 15's format.
//!
//! It only reads. Times are printed in UTC (pg_waldump prints local time: compare with TZ=UTC), and Towline's own records by their
//! names, where pg_waldump prints `custom128` and `UNKNOWN`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use towline_base::{ForkKind, Lsn, OpenMode, PAGE_SIZE, TimelineId, TimelineNumber, Vfs};

use crate::format::{DecodedRecord, LONG_HEADER, SegmentNumber, SegmentSize, parse_segment_name};
use crate::reader::{EndOfWal, EndReason, ReadOutcome, WalReader, WalSource};
use crate::records;
use crate::rmgr::{MIN_CUSTOM_ID, Rmgr};
use crate::timeline::TimelineHistory;

/// What is counted instead of printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stats {
    /// Nothing: records are printed.
    #[default]
    Off,
    /// Per resource manager.
    PerRmgr,
    /// Per kind of record.
    PerRecord,
}

/// What is dumped, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct DumpOptions {
    /// The first record begins at or behind it.
    pub start: Option<Lsn>,
    /// Records that begin at or behind it are not shown.
    pub end: Option<Lsn>,
    /// The timeline to follow; the newest of the directory by default.
    pub timeline: Option<TimelineNumber>,
    /// Only this resource manager.
    pub rmgr: Option<Rmgr>,
    /// Only this many records.
    pub limit: Option<u64>,
    /// Say of each page image what it leaves out, and how it is compressed (pg_waldump's `--bkp-details`).
    pub block_details: bool,
    /// Count instead of printing.
    pub stats: Stats,
}

/// Why a dump could not begin, or not go on.
#[derive(Debug)]
pub enum DumpError {
    /// There is nothing to dump; a sentence for the operator.
    Nothing(String),
    /// Reading or writing failed.
    Io(io::Error),
}

impl std::fmt::Display for DumpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing(text) => f.write_str(text),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for DumpError {}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Where a dump came to.
#[derive(Debug, Clone, Copy)]
pub struct Dumped {
    /// Records shown or counted.
    pub records: u64,
    /// The end of the log, when the dump ran into it rather than to the asked end.
    pub end: Option<EndOfWal>,
}

/// Dumps a directory of segments, or one segment file, to `out`.
pub fn dump(
    vfs: &Arc<dyn Vfs>,
    path: &Path,
    options: &DumpOptions,
    out: &mut dyn Write,
) -> Result<Dumped, DumpError> {
    let target = Target::find(vfs, path, options)?;
    let mut reader = WalReader::new(target.source, target.start);
    if let Some(file_end) = target.file_end {
        reader.set_limit(file_end);
    }
    let first = match reader.seek_first(target.start)? {
        Ok(first) => first,
        Err(end) => {
            return Err(DumpError::Nothing(format!(
                "no WAL record at or behind {}: {end}",
                target.start
            )));
        }
    };
    let stop = options.end.unwrap_or(Lsn::MAX);
    let (mut counts, mut line) = (Counts::default(), String::new());
    let mut dumped = Dumped {
        records: 0,
        end: None,
    };
    let mut last_end = first;
    while options.limit.is_none_or(|limit| dumped.records < limit) {
        let record = match reader.next()? {
            ReadOutcome::End(end) => {
                dumped.end = (end.reason != EndReason::Limit).then_some(end);
                break;
            }
            ReadOutcome::Record(record) => record,
        };
        if record.start >= stop {
            break;
        }
        last_end = record.end;
        if options.rmgr.is_some_and(|wanted| wanted != record.rmgr()) {
            continue;
        }
        dumped.records += 1;
        if options.stats == Stats::Off {
            line.clear();
            if options.block_details {
                write_details(&record, &mut line);
            } else {
                write_line(&record, &mut line);
            }
            out.write_all(line.as_bytes())?;
        } else {
            counts.add(&record);
        }
    }
    if options.stats != Stats::Off {
        counts.write(options, first, last_end, out)?;
    }
    Ok(dumped)
}

/// What a path and options mean.
struct Target {
    source: WalSource,
    start: Lsn,
    /// For a single file: nothing behind its segment is looked for.
    file_end: Option<Lsn>,
}

impl Target {
    fn find(vfs: &Arc<dyn Vfs>, path: &Path, options: &DumpOptions) -> Result<Self, DumpError> {
        let metadata = vfs.metadata(path)?;
        let (dir, file_name) = if metadata.is_dir {
            (path.to_owned(), None)
        } else {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default()
                .to_owned();
            if !crate::format::is_segment_name(&name) {
                return Err(DumpError::Nothing(format!(
                    "\"{name}\" is not the name of a WAL segment"
                )));
            }
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            (parent.unwrap_or(Path::new(".")).to_owned(), Some(name))
        };
        let names: Vec<String> = vfs.read_dir(&dir)?.into_iter().map(|entry| entry.name).collect();
        let size = Self::segment_size(vfs, &dir, file_name.as_deref(), &names)?;
        let present: Vec<_> = names
            .iter()
            .filter_map(|name| parse_segment_name(name, size))
            .collect();
        let chosen =
            match &file_name {
                Some(name) => Some(parse_segment_name(name, size).ok_or_else(|| {
                    DumpError::Nothing(format!("\"{name}\" is not the name of a WAL segment"))
                })?),
                None => None,
            };
        if let (Some((own, _)), Some(asked)) = (chosen, options.timeline)
            && own != asked
        {
            return Err(DumpError::Nothing(format!(
                "the segment is of timeline {own}, not {asked}; name the directory to follow a timeline"
            )));
        }
        let number = chosen
            .map(|(timeline, _)| timeline)
            .or(options.timeline)
            .or_else(|| Self::newest_timeline(&names, &present))
            .ok_or_else(|| DumpError::Nothing(format!("no WAL segment in \"{}\"", dir.display())))?;
        let history = TimelineHistory::read(&**vfs, &dir, number)?.unwrap_or_else(|| {
            TimelineHistory::first(TimelineId {
                number,
                incarnation: Default::default(),
            })
        });
        let first_segment = match chosen {
            Some((_, segment)) => segment,
            None => present
                .iter()
                .filter(|(timeline, _)| history.ranges().any(|(known, ..)| known.number == *timeline))
                .map(|(_, segment)| *segment)
                .min()
                .ok_or_else(|| {
                    DumpError::Nothing(format!(
                        "no WAL segment of timeline {number} in \"{}\"",
                        dir.display()
                    ))
                })?,
        };
        // A fresh cluster's first page is at the segment's start: record positions begin behind its header.
        let start = options
            .start
            .unwrap_or(size.start(first_segment))
            .max(size.start(SegmentNumber(0)));
        let file_end = chosen.map(|(_, segment)| size.end(segment));
        let source = WalSource {
            vfs: Arc::clone(vfs),
            dir,
            segment_size: size,
            system: None,
            history,
        };
        Ok(Self {
            source,
            start,
            file_end,
        })
    }

    /// The newest timeline that has a history file or, without any, the newest of the segments.
    fn newest_timeline(
        names: &[String],
        present: &[(TimelineNumber, SegmentNumber)],
    ) -> Option<TimelineNumber> {
        let from_history = names
            .iter()
            .filter_map(|name| name.strip_suffix(".history"))
            .filter(|number| number.len() == 8)
            .filter_map(|number| u32::from_str_radix(number, 16).ok())
            .map(TimelineNumber)
            .max();
        present
            .iter()
            .map(|(timeline, _)| *timeline)
            .max()
            .max(from_history)
    }

    /// From a segment's long header, as pg_waldump does.
    fn segment_size(
        vfs: &Arc<dyn Vfs>,
        dir: &Path,
        chosen: Option<&str>,
        names: &[String],
    ) -> Result<SegmentSize, DumpError> {
        let candidates = names
            .iter()
            .map(String::as_str)
            .filter(|name| crate::format::is_segment_name(name));
        // Beside one that was named, the others tell the size too, but not what is in it.
        for name in chosen.into_iter().chain(candidates.filter(|_| chosen.is_none())) {
            let file = vfs.open(&dir.join(name), OpenMode::Read)?;
            let mut header = [0u8; LONG_HEADER];
            if file.read_exact_at(&mut header, 0).is_ok() {
                let bytes = u32::from_le_bytes([header[32], header[33], header[34], header[35]]);
                if let Some(size) = SegmentSize::new(u64::from(bytes)) {
                    return Ok(size);
                }
            }
        }
        Err(DumpError::Nothing(match chosen {
            Some(name) => format!("\"{name}\" does not begin with the header of a WAL segment"),
            None => format!("no readable WAL segment in \"{}\"", dir.display()),
        }))
    }
}

/// Appends what is said of a record before its blocks.
fn write_head(record: &DecodedRecord<'_>, out: &mut String) {
    let header = &record.header;
    let image_bytes = record.image_bytes() as u32;
    let _ = write!(
        out,
        "rmgr: {:<11} len (rec/tot): {:6}/{:6}, tx: {:10}, lsn: {:X}/{:08X}, prev {:X}/{:08X}, desc: ",
        record.rmgr(),
        header.total_len.saturating_sub(image_bytes),
        header.total_len,
        header.xid,
        record.start.0 >> 32,
        record.start.0 as u32,
        header.prev.0 >> 32,
        header.prev.0 as u32,
    );
    match records::identify(record.rmgr(), header.info) {
        Some(name) => {
            out.push_str(name);
            out.push(' ');
        }
        None => {
            let _ = write!(out, "UNKNOWN ({:x}) ", header.info & 0xF0);
        }
    }
    records::describe(record, out);
}

/// Appends one record as pg_waldump's lines with `--bkp-details`: one for the record, one for each block.
pub fn write_details(record: &DecodedRecord<'_>, out: &mut String) {
    write_head(record, out);
    out.push('\n');
    for block in &record.blocks {
        let rel = block.page.rel;
        let _ = write!(
            out,
            "\tblkref #{}: rel {}/{}/{} fork {} blk {}",
            block.id, rel.spc, rel.db, rel.rel, block.page.fork, block.page.block
        );
        if let Some(image) = &block.image {
            let purpose = if image.apply() {
                ""
            } else {
                " for WAL verification"
            };
            let (hole, length) = (image.hole_offset, image.hole_length);
            let _ = write!(out, " (FPW{purpose}); hole: offset: {hole}, length: {length}");
            if let Some(method) = image.method() {
                let whole = PAGE_SIZE.saturating_sub(usize::from(length));
                let saved = whole.saturating_sub(image.bytes.len());
                let _ = write!(out, ", compression saved: {saved}, method: {method}");
            }
        }
        out.push('\n');
    }
}

/// Appends one record as pg_waldump's line.
pub fn write_line(record: &DecodedRecord<'_>, out: &mut String) {
    write_head(record, out);
    for block in &record.blocks {
        let rel = block.page.rel;
        let _ = write!(
            out,
            ", blkref #{}: rel {}/{}/{}",
            block.id, rel.spc, rel.db, rel.rel
        );
        if block.page.fork != ForkKind::Main {
            let _ = write!(out, " fork {}", block.page.fork);
        }
        let _ = write!(out, " blk {}", block.page.block);
        match block.image.map(|image| image.apply()) {
            Some(true) => out.push_str(" FPW"),
            Some(false) => out.push_str(" FPW for WAL verification"),
            None => {}
        }
    }
    out.push('\n');
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    records: u64,
    record_bytes: u64,
    image_bytes: u64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.records += other.records;
        self.record_bytes += other.record_bytes;
        self.image_bytes += other.image_bytes;
    }
}

/// Counts by resource manager and by the high bits of `xl_info`.
#[derive(Debug, Default)]
struct Counts(BTreeMap<(u8, u8), Count>);

impl Counts {
    fn add(&mut self, record: &DecodedRecord<'_>) {
        let image_bytes = record.image_bytes() as u64;
        let mut kind = record.header.info & 0xF0;
        if record.rmgr() == Rmgr::Transaction {
            // The bit only tells of a field; it is no kind of its own.
            kind &= 0x70;
        }
        let one = Count {
            records: 1,
            record_bytes: u64::from(record.header.total_len).saturating_sub(image_bytes),
            image_bytes,
        };
        self.0.entry((record.header.rmid, kind)).or_default().add(one);
    }

    fn write(&self, options: &DumpOptions, from: Lsn, to: Lsn, out: &mut dyn Write) -> io::Result<()> {
        let mut total = Count::default();
        self.0.values().for_each(|count| total.add(*count));
        writeln!(out, "WAL statistics between {from} and {to}:")?;
        let row = |cells: [&str; 9]| {
            format!(
                "{:<27} {:>20} {:>8} {:>20} {:>8} {:>20} {:>8} {:>20} {:>8}\n",
                cells[0], cells[1], cells[2], cells[3], cells[4], cells[5], cells[6], cells[7], cells[8]
            )
        };
        let heads = [
            "Type",
            "N",
            "(%)",
            "Record size",
            "(%)",
            "FPI size",
            "(%)",
            "Combined size",
            "(%)",
        ];
        out.write_all(row(heads).as_bytes())?;
        let rules = [
            "----",
            "-",
            "---",
            "-----------",
            "---",
            "--------",
            "---",
            "-------------",
            "---",
        ];
        out.write_all(row(rules).as_bytes())?;
        match options.stats {
            Stats::PerRecord => {
                for (&(rmid, kind), count) in &self.0 {
                    let rmgr = Rmgr::from_id(rmid);
                    let name = match records::identify(rmgr, kind) {
                        Some(name) => format!("{rmgr}/{name}"),
                        None => format!("{rmgr}/UNKNOWN ({kind:x})"),
                    };
                    write_count(&name, *count, total, out)?;
                }
            }
            Stats::PerRmgr | Stats::Off => {
                let wanted = |rmgr: &Rmgr| options.rmgr.is_none_or(|wanted| wanted == *rmgr);
                let known: Vec<u8> = Rmgr::all().map(Rmgr::id).collect();
                let others = self
                    .0
                    .keys()
                    .map(|(rmid, _)| *rmid)
                    .filter(|rmid| !known.contains(rmid));
                let mut listed: Vec<u8> = known.iter().copied().chain(others).collect();
                listed.dedup();
                for rmgr in listed.into_iter().map(Rmgr::from_id).filter(wanted) {
                    let mut sum = Count::default();
                    self.0
                        .range((rmgr.id(), 0)..=(rmgr.id(), 0xFF))
                        .for_each(|(_, count)| sum.add(*count));
                    if sum.records > 0 || rmgr.id() < MIN_CUSTOM_ID {
                        write_count(&rmgr.to_string(), sum, total, out)?;
                    }
                }
            }
        }
        writeln!(
            out,
            "{:<27} {:>20} {:>8} {:>20} {:>8} {:>20} {:>8} {:>20}",
            "", "--------", "", "--------", "", "--------", "", "--------"
        )?;
        let combined = total.record_bytes + total.image_bytes;
        writeln!(
            out,
            "{:<27} {:>20} {:<9}{:>20} {:<9}{:>20} {:<9}{:>20} {:<6}",
            "Total",
            total.records,
            "",
            total.record_bytes,
            format!("[{:.2}%]", percent(total.record_bytes, combined)),
            total.image_bytes,
            format!("[{:.2}%]", percent(total.image_bytes, combined)),
            combined,
            "[100%]"
        )
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

fn write_count(name: &str, count: Count, total: Count, out: &mut dyn Write) -> io::Result<()> {
    let combined = count.record_bytes + count.image_bytes;
    let all = total.record_bytes + total.image_bytes;
    writeln!(
        out,
        "{name:<27} {:>20} ({:>6.2}) {:>20} ({:>6.2}) {:>20} ({:>6.2}) {:>20} ({:>6.2})",
        count.records,
        percent(count.records, total.records),
        count.record_bytes,
        percent(count.record_bytes, total.record_bytes),
        count.image_bytes,
        percent(count.image_bytes, total.image_bytes),
        combined,
        percent(combined, all)
    )
}
