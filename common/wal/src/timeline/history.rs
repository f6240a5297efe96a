//! [`TimelineHistory`]: which timelines the log of this node went through, and where it left each.
//!
//! The file `NNNNNNNN.history` has PostgreSQL's form, one line for each ancestor: number, fork LSN, reason. The incarnations
//! (I6: a timeline is a number and 128 random bits) stand in the reason, as `incarnation=<32 hex digits>`; the timeline's own
//! stands in a leading comment. A last comment holds a CRC-32C of all before it, since a changed or cut line would pass for another past.
//! PostgreSQL's tools skip comments and do not look at reasons.

use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;

use crc32c::crc32c;
use towline_base::{Incarnation, Lsn, TimelineId, TimelineNumber, Vfs};

/// One ancestor: the log followed it up to `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The ancestor.
    pub timeline: TimelineId,
    /// The fork LSN: end of the last record that was inherited.
    pub end: Lsn,
    /// Why it was left, for people.
    pub reason: String,
}

/// A timeline and its ancestors, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    ancestors: Vec<HistoryEntry>,
    current: TimelineId,
}

/// Why a history file was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryError {
    /// A line does not have the form `number<TAB>LSN<TAB>reason`; its number, from 1.
    Syntax(usize),
    /// Timeline numbers or fork positions fall.
    NotAscending(usize),
    /// More lines than any cluster can have.
    TooLong,
    /// The checksum at the end is missing or wrong.
    BadChecksum,
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(line) => write!(f, "syntax error in timeline history, line {line}"),
            Self::NotAscending(line) => {
                write!(f, "timelines are out of order in timeline history, line {line}")
            }
            Self::TooLong => f.write_str("timeline history is too long"),
            Self::BadChecksum => f.write_str("timeline history is damaged: its checksum is missing or wrong"),
        }
    }
}

impl std::error::Error for HistoryError {}

/// Largest history file that is read: a hundred thousand starts.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// The name of a timeline's history file.
pub fn history_name(timeline: TimelineNumber) -> String {
    format!("{:08X}.history", timeline.0)
}

impl TimelineHistory {
    /// A timeline without ancestors.
    pub fn first(timeline: TimelineId) -> Self {
        Self {
            ancestors: Vec::new(),
            current: timeline,
        }
    }

    /// The history of a timeline that leaves this one at `fork`.
    ///
    /// # Panics
    /// When the number does not rise or the fork lies before where the current timeline began: the caller chose wrongly.
    pub fn forked(&self, fork: Lsn, timeline: TimelineId, reason: &str) -> Self {
        assert!(timeline.number > self.current.number, "timeline numbers rise");
        assert!(fork >= self.begin(), "a timeline is not left before it began");
        let mut ancestors = self.ancestors.clone();
        // The reason is one line of a text file.
        let reason = reason
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        ancestors.push(HistoryEntry {
            timeline: self.current,
            end: fork,
            reason,
        });
        Self {
            ancestors,
            current: timeline,
        }
    }

    /// The newest timeline.
    pub fn current(&self) -> TimelineId {
        self.current
    }

    /// Where the newest timeline began; zero without ancestors.
    pub fn begin(&self) -> Lsn {
        self.ancestors.last().map_or(Lsn(0), |entry| entry.end)
    }

    /// The ancestors, oldest first.
    pub fn ancestors(&self) -> &[HistoryEntry] {
        &self.ancestors
    }

    /// Every timeline with its range `[begin, end)`, oldest first. The newest one's end is [`Lsn::MAX`].
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = (TimelineId, Lsn, Lsn)> + '_ {
        (0..=self.ancestors.len()).map(|index| {
            let begin = if index == 0 {
                Lsn(0)
            } else {
                self.ancestors[index - 1].end
            };
            match self.ancestors.get(index) {
                Some(entry) => (entry.timeline, begin, entry.end),
                None => (self.current, begin, Lsn::MAX),
            }
        })
    }

    /// The timeline of a record that begins here (A14: the one whose range contains its start).
    pub fn timeline_at(&self, start: Lsn) -> TimelineId {
        let left = self.ancestors.partition_point(|entry| entry.end <= start);
        self.ancestors
            .get(left)
            .map_or(self.current, |entry| entry.timeline)
    }

    /// Where a timeline of this history was left; `None` for the newest or one that is not in it.
    pub fn end_of(&self, timeline: TimelineNumber) -> Option<Lsn> {
        self.ancestors
            .iter()
            .find(|entry| entry.timeline.number == timeline)
            .map(|entry| entry.end)
    }

    /// Whether this history went through `timeline` up to at least `lsn`: a node at (timeline, lsn) can follow it.
    pub fn contains(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.ranges()
            .any(|(known, _, end)| known == timeline && lsn <= end)
    }

    /// The last position that both histories share, with its timeline. `None` when they have no timeline in common.
    pub fn fork_from(&self, other: &TimelineHistory) -> Option<(TimelineId, Lsn)> {
        let mut shared = None;
        for ((mine, _, my_end), (theirs, _, their_end)) in self.ranges().zip(other.ranges()) {
            if mine != theirs {
                break;
            }
            shared = Some((mine, my_end.min(their_end)));
            if my_end != their_end {
                break;
            }
        }
        shared
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "# timeline={} incarnation={}",
            self.current.number, self.current.incarnation
        );
        for entry in &self.ancestors {
            let _ = writeln!(
                text,
                "{}\t{}\tincarnation={} {}",
                entry.timeline.number, entry.end, entry.timeline.incarnation, entry.reason
            );
        }
        let checksum = crc32c(text.as_bytes());
        let _ = writeln!(text, "{CHECKSUM}{checksum:08X}");
        text
    }

    /// Parses a file's text. Lines without an incarnation (PostgreSQL's own files, which have no checksum either) get a zero one.
    pub fn parse(number: TimelineNumber, text: &str) -> Result<Self, HistoryError> {
        check_sum(text)?;
        let mut current = TimelineId {
            number,
            incarnation: Incarnation::ZERO,
        };
        let mut ancestors: Vec<HistoryEntry> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            if line_number > 200_000 {
                return Err(HistoryError::TooLong);
            }
            let line = line.trim();
            if let Some(comment) = line.strip_prefix('#') {
                if let Some(incarnation) = find_incarnation(comment) {
                    current.incarnation = incarnation;
                }
                continue;
            }
            if line.is_empty() {
                continue;
            }
            let mut fields = line.splitn(3, char::is_whitespace);
            let parsed = fields
                .next()
                .and_then(|text| text.parse::<u32>().ok())
                .zip(fields.next().and_then(|text| text.parse::<Lsn>().ok()));
            let (timeline, end) = parsed.ok_or(HistoryError::Syntax(line_number))?;
            let rest = fields.next().unwrap_or_default();
            let incarnation = find_incarnation(rest).unwrap_or_default();
            let ascending = ancestors
                .last()
                .is_none_or(|last| last.timeline.number.0 < timeline && last.end <= end);
            if !ascending || timeline >= number.0 {
                return Err(HistoryError::NotAscending(line_number));
            }
            let reason = match rest.strip_prefix("incarnation=") {
                Some(tagged) => tagged.split_once(' ').map_or("", |(_, reason)| reason),
                None => rest,
            };
            ancestors.push(HistoryEntry {
                timeline: TimelineId {
                    number: TimelineNumber(timeline),
                    incarnation,
                },
                end,
                reason: reason.to_owned(),
            });
        }
        Ok(Self { ancestors, current })
    }

    /// Writes the file durably, whole or not at all.
    pub fn write(&self, vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
        vfs.write_file_atomically(
            &dir.join(history_name(self.current.number)),
            self.to_text().as_bytes(),
        )
    }

    /// Reads a timeline's file. `None` when it is not there; errors name it.
    pub fn read(vfs: &dyn Vfs, dir: &Path, timeline: TimelineNumber) -> io::Result<Option<Self>> {
        let path = dir.join(history_name(timeline));
        let bytes = match vfs.read_file(&path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io::Error::new(error.kind(), named(&path, &error))),
        };
        let invalid =
            |error: &dyn fmt::Display| io::Error::new(io::ErrorKind::InvalidData, named(&path, error));
        let text = std::str::from_utf8(&bytes).map_err(|error| invalid(&error))?;
        Self::parse(timeline, text)
            .map(Some)
            .map_err(|error| invalid(&error))
    }

    /// The history of the timeline that a node is on, as its control file says. Only the first timeline of all may do without a file.
    ///
    /// # Errors
    /// When the file is missing, damaged, or that of another incarnation; the error names it.
    pub fn read_of(vfs: &dyn Vfs, dir: &Path, timeline: TimelineId) -> io::Result<Self> {
        let wrong = |what: String| {
            let path = dir.join(history_name(timeline.number));
            io::Error::new(io::ErrorKind::InvalidData, named(&path, &what))
        };
        match Self::read(vfs, dir, timeline.number)? {
            Some(history) => {
                let (found, known) = (history.current.incarnation, timeline.incarnation);
                // A restartpoint may know a timeline by its number only.
                if found != known && known != Incarnation::ZERO {
                    return Err(wrong(format!(
                        "it is of another incarnation ({found}, not {known})"
                    )));
                }
                Ok(history)
            }
            None if timeline.number == TimelineNumber::FIRST => Ok(Self::first(timeline)),
            None => Err(wrong(format!(
                "it is missing, and this node is on timeline {timeline}"
            ))),
        }
    }
}

/// What a message says of a file.
fn named(path: &Path, what: &dyn fmt::Display) -> String {
    format!("file \"{}\": {what}", path.display())
}

/// Begins the last line of a file that this server writes.
const CHECKSUM: &str = "# crc32c=";

/// Begins its first line.
const OURS: &str = "# timeline=";

/// A text with our first or last line ends with the checksum of all before it.
fn check_sum(text: &str) -> Result<(), HistoryError> {
    let Some(at) = text.rfind(CHECKSUM) else {
        return if text.starts_with(OURS) {
            Err(HistoryError::BadChecksum)
        } else {
            Ok(())
        };
    };
    let (body, line) = text.split_at(at);
    let written = line[CHECKSUM.len()..]
        .strip_suffix('\n')
        .filter(|digits| digits.len() == 8)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let begins_a_line = body.is_empty() || body.ends_with('\n');
    if begins_a_line && written == Some(crc32c(body.as_bytes())) {
        Ok(())
    } else {
        Err(HistoryError::BadChecksum)
    }
}

fn find_incarnation(text: &str) -> Option<Incarnation> {
    text.split_whitespace()
        .find_map(|word| word.strip_prefix("incarnation="))
        .and_then(|hex| hex.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId {
            number: TimelineNumber(number),
            incarnation: Incarnation([number as u8; 16]),
        }
    }

    fn history() -> TimelineHistory {
        TimelineHistory::first(timeline(1))
            .forked(Lsn(100), timeline(3), "promotion\tof s1")
            .forked(Lsn(200), timeline(4), "crash restart")
    }

    #[test]
    fn the_text_form_round_trips() {
        let history = history();
        assert_eq!(
            TimelineHistory::parse(TimelineNumber(4), &history.to_text()).unwrap(),
            history
        );
    }

    #[test]
    fn postgresqls_own_files_are_read() {
        let text = "1\t0/3000060\tno recovery target specified\n\n2\t0/4000000\tbefore 2020\n";
        let history = TimelineHistory::parse(TimelineNumber(3), text).unwrap();
        assert_eq!(history.ancestors().len(), 2);
        assert_eq!(history.ancestors()[0].end, Lsn(0x300_0060));
        assert_eq!(history.ancestors()[1].reason, "before 2020");
    }

    #[test]
    fn damaged_files_are_refused() {
        let parse = |text| TimelineHistory::parse(TimelineNumber(3), text);
        assert_eq!(parse("x\t0/1\t"), Err(HistoryError::Syntax(1)));
        assert_eq!(parse("1"), Err(HistoryError::Syntax(1)));
        assert_eq!(parse("1\t0/5\t\n2\t0/4\t"), Err(HistoryError::NotAscending(2)));
        assert_eq!(parse("3\t0/5\t"), Err(HistoryError::NotAscending(1)));
    }

    /// A flipped bit in an ancestor's line, or a lost one, passed for another past.
    #[test]
    fn every_flipped_bit_and_every_cut_of_our_own_file_is_refused() {
        let text = history().to_text().into_bytes();
        let refused = |bytes: &[u8]| {
            let parsed =
                std::str::from_utf8(bytes).map(|text| TimelineHistory::parse(TimelineNumber(4), text));
            // What is left without its first line is nobody's, and the incarnation in the control file shows it.
            !matches!(parsed, Ok(Ok(history)) if history.current.incarnation != Incarnation::ZERO)
        };
        for at in 0..text.len() {
            assert!(refused(&text[..at]), "cut to {at} bytes");
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                let case_of_a_digit = flipped.eq_ignore_ascii_case(&text) && at + 9 >= text.len();
                assert!(refused(&flipped) || case_of_a_digit, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_missing_file_or_one_of_another_incarnation_is_an_error_with_its_name() {
        let vfs = towline_base::vfs::CrashVfs::new();
        let dir = Path::new("/wal");
        vfs.create_dir_all(dir).unwrap();
        let read = |id| TimelineHistory::read_of(&vfs, dir, id).map_err(|error| error.to_string());
        assert_eq!(read(timeline(1)), Ok(TimelineHistory::first(timeline(1))));
        assert!(read(timeline(4)).unwrap_err().contains("/wal/00000004.history"));
        history().write(&vfs, dir).unwrap();
        assert_eq!(read(timeline(4)), Ok(history()));
        let known_by_number = TimelineId {
            incarnation: Incarnation::ZERO,
            ..timeline(4)
        };
        assert_eq!(read(known_by_number), Ok(history()));
        let other = TimelineId {
            incarnation: Incarnation([9; 16]),
            ..timeline(4)
        };
        assert!(read(other).unwrap_err().contains("another incarnation"));
    }

    #[test]
    fn a_records_timeline_is_the_one_whose_range_holds_its_start() {
        let history = history();
        assert_eq!(history.timeline_at(Lsn(99)), timeline(1));
        assert_eq!(history.timeline_at(Lsn(100)), timeline(3));
        assert_eq!(history.timeline_at(Lsn(200)), timeline(4));
        assert!(history.contains(timeline(1), Lsn(100)));
        assert!(!history.contains(timeline(1), Lsn(101)));
        assert!(!history.contains(
            TimelineId {
                incarnation: Incarnation::ZERO,
                ..timeline(3)
            },
            Lsn(150)
        ));
    }

    #[test]
    fn the_common_point_of_two_histories_is_found() {
        let mine = history();
        let other = TimelineHistory::first(timeline(1))
            .forked(Lsn(100), timeline(3), "")
            .forked(Lsn(150), timeline(5), "");
        assert_eq!(mine.fork_from(&other), Some((timeline(3), Lsn(150))));
        let stale = TimelineHistory::first(timeline(1));
        assert_eq!(mine.fork_from(&stale), Some((timeline(1), Lsn(100))));
        assert_eq!(mine.fork_from(&TimelineHistory::first(timeline(9))), None);
        assert_eq!(mine.fork_from(&mine), Some((timeline(4), Lsn::MAX)));
    }
}
