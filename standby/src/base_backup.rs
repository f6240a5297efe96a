//! Starting an empty standby: a base backup, written to the data directory.
//!
//! A marker file stands in the directory from the first byte to the last sync. A start that finds it begins anew: half a copy is no
//! database. The control file comes last.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Status;
use towline_base::{NodeId, OpenMode, TimelineId, Vfs, VfsFile};
use towline_proto::replication as pb;
use towline_proto::replication::backup_message::Message;
use towline_proto::replication::replication_client::ReplicationClient;
use towline_proto::transport::{self, Secret, ShowSecret};
use towline_proto::{BadMessage, required};
use towline_storage::control::{self, CONTROL_FILE};
use towline_storage::{ControlData, ControlFile};
use towline_wal::TimelineHistory;

use crate::log::wal_dir;
use crate::shared::describe;
use crate::stream::{CONNECT_TIMEOUT, KEEPALIVE};

/// Stands in a data directory whose copy is not complete, or not to be used any more.
pub const CLONE_MARKER: &str = "towline.clone";
/// Chunks that may wait for the disk.
const QUEUE: usize = 4;

/// How far a copy is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CloneProgress {
    /// Bytes written.
    pub bytes: u64,
    /// Bytes expected; the copy may be a little larger or smaller.
    pub total_bytes: u64,
    /// Files written.
    pub files: u32,
    /// Files expected.
    pub total_files: u32,
}

/// Why there is no copy.
#[derive(Debug)]
pub enum CloneError {
    /// The primary cannot be reached, or refused.
    Primary(String),
    /// What it sent makes no sense.
    BadMessage(String),
    /// It cannot be written here.
    Io(io::Error),
}

impl fmt::Display for CloneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloneError::Primary(why) => write!(f, "no base backup from the primary: {why}"),
            CloneError::BadMessage(why) => write!(f, "the base backup is malformed: {why}"),
            CloneError::Io(error) => write!(f, "the base backup cannot be written: {error}"),
        }
    }
}

impl std::error::Error for CloneError {}

impl From<Status> for CloneError {
    fn from(status: Status) -> CloneError {
        CloneError::Primary(status.message().to_owned())
    }
}

impl From<io::Error> for CloneError {
    fn from(error: io::Error) -> CloneError {
        CloneError::Io(error)
    }
}

impl From<BadMessage> for CloneError {
    fn from(error: BadMessage) -> CloneError {
        CloneError::BadMessage(error.to_string())
    }
}

/// What to copy from where to where.
#[derive(Clone, Debug)]
pub struct CloneRequest {
    /// The primary's replication service, `http://host:port`.
    pub upstream: String,
    /// The secret of the cluster.
    pub secret: Secret,
    /// This node.
    pub node: NodeId,
    /// The slot to keep WAL with; empty takes the node's name.
    pub slot: String,
    /// The data directory; it exists, and holds no database.
    pub data_dir: PathBuf,
    /// `wal_receiver_timeout`: how long the primary may send nothing. `None` waits for ever.
    pub timeout: Option<Duration>,
}

/// Whether a data directory holds no complete database: it was never filled, or its copy was not finished, or it is marked.
pub fn needs_clone(vfs: &dyn Vfs, data_dir: &Path) -> io::Result<bool> {
    Ok(vfs.exists(&data_dir.join(CLONE_MARKER))? || !vfs.exists(&data_dir.join(CONTROL_FILE))?)
}

/// Marks a data directory as not to be used any more, durably: the next start clones it anew.
pub fn mark_for_clone(vfs: &dyn Vfs, data_dir: &Path) -> io::Result<()> {
    vfs.write_file_atomically(
        &data_dir.join(CLONE_MARKER),
        b"this data directory must be cloned anew\n",
    )
}

/// Removes the database from a marked data directory; files at the top (identity, configuration, locks) and the log stay.
pub fn wipe(vfs: &dyn Vfs, data_dir: &Path) -> io::Result<()> {
    for entry in vfs.read_dir(data_dir)? {
        let path = data_dir.join(&entry.name);
        if entry.name == "log" {
            continue;
        }
        if entry.is_dir {
            vfs.remove_dir_all(&path)?;
        } else if vfs.metadata(&path).is_ok_and(|found| found.is_dir) {
            // A link to a directory, on another disk perhaps: what is in it is ours, the link is the operator's.
            wipe_linked(vfs, &path)?;
        }
    }
    vfs.sync_dir(data_dir)
}

fn wipe_linked(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
    for entry in vfs.read_dir(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            vfs.remove_dir_all(&path)?;
        } else {
            vfs.remove_file(&path)?;
        }
    }
    vfs.sync_dir(dir)
}

/// Copies the primary's database. The directory is marked before anything else, so an interrupted copy is begun anew; it must have been
/// [wiped](wipe).
pub async fn clone_database(
    vfs: &Arc<dyn Vfs>,
    request: &CloneRequest,
    mut progress: impl FnMut(CloneProgress),
) -> Result<(), CloneError> {
    let failed = |error: tonic::transport::Error| CloneError::Primary(describe(&error));
    let endpoint = transport::endpoint(&request.upstream, CONNECT_TIMEOUT, KEEPALIVE).map_err(failed)?;
    let channel = endpoint.connect().await.map_err(failed)?;
    let mut client = ReplicationClient::with_interceptor(channel, ShowSecret(request.secret.clone()))
        .max_decoding_message_size(transport::MESSAGE_LIMIT);
    let wanted = pb::BaseBackupRequest {
        node: Some((&request.node).into()),
        slot: request.slot.clone(),
    };
    let mut messages = in_time(request.timeout, client.base_backup(wanted))
        .await?
        .into_inner();
    let (to_disk, mut queue) = mpsc::channel::<Message>(QUEUE);
    let mut copy = Copy::new(Arc::clone(vfs), request.data_dir.clone());
    let disk = tokio::task::spawn_blocking(move || -> Result<bool, CloneError> {
        while let Some(message) = queue.blocking_recv() {
            copy.take(message)?;
        }
        Ok(copy.complete)
    });
    let mut done = CloneProgress::default();
    let received = async {
        while let Some(message) = in_time(request.timeout, messages.message()).await? {
            let message = message.message.ok_or(BadMessage("empty backup message"))?;
            match &message {
                Message::Start(start) => {
                    done.total_bytes = start.total_bytes;
                    done.total_files = start.total_files;
                }
                Message::File(_) => done.files += 1,
                Message::Chunk(chunk) => done.bytes += chunk.data.len() as u64,
                Message::End(_) => {}
            }
            progress(done);
            if to_disk.send(message).await.is_err() {
                // The disk has failed; its own error says more.
                return Ok(());
            }
        }
        Ok::<(), CloneError>(())
    };
    let received = received.await;
    drop(to_disk);
    let complete = disk
        .await
        .map_err(|error| CloneError::Io(io::Error::other(error)))?;
    match (complete, received) {
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        (Ok(true), Ok(())) => Ok(()),
        (Ok(false), Ok(())) => Err(CloneError::Primary("the stream ended early".to_owned())),
    }
}

/// What the primary answers, unless it is silent for too long: a ping of the connection says nothing of the copy.
async fn in_time<T>(
    timeout: Option<Duration>,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, CloneError> {
    let Some(timeout) = timeout else {
        return Ok(answer.await?);
    };
    match tokio::time::timeout(timeout, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CloneError::Primary(
            "the primary has sent nothing within wal_receiver_timeout".to_owned(),
        )),
    }
}

/// The writing half; runs on a thread that may block.
struct Copy {
    vfs: Arc<dyn Vfs>,
    data_dir: PathBuf,
    /// The file that is written, and its length so far.
    file: Option<(Arc<dyn VfsFile>, u64)>,
    bytes: u64,
    files: u32,
    begun: bool,
    directories: std::collections::BTreeSet<PathBuf>,
    complete: bool,
}

impl Copy {
    fn new(vfs: Arc<dyn Vfs>, data_dir: PathBuf) -> Copy {
        Copy {
            vfs,
            data_dir,
            file: None,
            bytes: 0,
            files: 0,
            begun: false,
            directories: Default::default(),
            complete: false,
        }
    }

    fn take(&mut self, message: Message) -> Result<(), CloneError> {
        if self.complete {
            return Err(BadMessage("a message after the end").into());
        }
        match message {
            Message::Start(start) if !self.begun => self.start(&start),
            Message::File(file) if self.begun => self.begin_file(&file.path),
            Message::Chunk(chunk) => {
                let (file, length) = self.file.as_mut().ok_or(BadMessage("a chunk without its file"))?;
                if chunk.offset != *length {
                    return Err(BadMessage("a chunk out of its place").into());
                }
                file.write_all_at(&chunk.data, chunk.offset)?;
                *length += chunk.data.len() as u64;
                self.bytes += chunk.data.len() as u64;
                Ok(())
            }
            Message::End(end) if self.begun => self.end(&end),
            _ => Err(BadMessage("messages out of order").into()),
        }
    }

    fn start(&mut self, start: &pb::BackupStart) -> Result<(), CloneError> {
        self.begun = true;
        mark_for_clone(self.vfs.as_ref(), &self.data_dir)?;
        let wal = wal_dir(&self.data_dir);
        for directory in [
            wal.clone(),
            self.data_dir.join("global"),
            self.data_dir.join("base"),
        ] {
            self.make_directory(&directory)?;
        }
        let timeline: TimelineId = required(start.timeline.clone(), "backup without timeline")?;
        let text = String::from_utf8_lossy(&start.history);
        let history = TimelineHistory::parse(timeline.number, &text)
            .map_err(|error| CloneError::BadMessage(error.to_string()))?;
        history.write(self.vfs.as_ref(), &wal)?;
        Ok(())
    }

    fn make_directory(&mut self, path: &Path) -> io::Result<()> {
        self.vfs.create_dir_all(path)?;
        let mut parent = Some(path);
        while let Some(directory) = parent.filter(|directory| directory.starts_with(&self.data_dir)) {
            self.directories.insert(directory.to_owned());
            parent = directory.parent();
        }
        Ok(())
    }

    fn begin_file(&mut self, name: &str) -> Result<(), CloneError> {
        self.finish_file()?;
        let path = safe_path(name).ok_or(BadMessage("a path that leaves the data directory"))?;
        let path = self.data_dir.join(path);
        if let Some(parent) = path.parent() {
            self.make_directory(parent)?;
        }
        self.file = Some((self.vfs.open(&path, OpenMode::Truncate)?, 0));
        self.files += 1;
        Ok(())
    }

    fn finish_file(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |(file, _)| file.sync_all())
    }

    fn end(&mut self, end: &pb::BackupEnd) -> Result<(), CloneError> {
        self.finish_file()?;
        if (end.total_bytes, end.total_files) != (self.bytes, self.files) {
            return Err(BadMessage("not as many files and bytes as were sent").into());
        }
        let (_, data): (u64, ControlData) =
            control::decode(&end.control).map_err(|error| CloneError::BadMessage(error.to_string()))?;
        for directory in self.directories.iter().rev() {
            self.vfs.sync_dir(directory)?;
        }
        ControlFile::create(Arc::clone(&self.vfs), &self.data_dir, data)
            .map_err(|error| CloneError::Io(io::Error::other(error.to_string())))?;
        self.vfs.remove_file(&self.data_dir.join(CLONE_MARKER))?;
        self.vfs.sync_dir(&self.data_dir)?;
        self.complete = true;
        Ok(())
    }
}

/// A path from the network: relative, of plain names, below a directory (files at the top are this node's own).
fn safe_path(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let plain = path
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    let first = path.components().next()?.as_os_str().to_str()?;
    let foreign = ["pg_wal", "log", "slots"].contains(&first);
    let deep = path.components().count() > 1;
    // Compared as paths, not as text: there is more than one way to write one.
    (plain && deep && !foreign && name.len() < 1024 && path != Path::new(CONTROL_FILE))
        .then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towline_base::vfs::CrashVfs;
    use towline_base::{Incarnation, SystemId, TimelineNumber};

    /// What a copy of these messages, after its beginning, came to.
    fn copied(messages: Vec<Message>) -> String {
        let vfs = CrashVfs::new();
        vfs.create_dir_all(Path::new("/data")).unwrap();
        let mut copy = Copy::new(vfs.shared(), PathBuf::from("/data"));
        let timeline = TimelineId {
            number: TimelineNumber(1),
            incarnation: Incarnation([1; 16]),
        };
        let start = pb::BackupStart {
            timeline: Some(timeline.into()),
            history: TimelineHistory::first(timeline).to_text().into(),
            ..pb::BackupStart::default()
        };
        copy.take(Message::Start(start)).unwrap();
        let failed = messages.into_iter().find_map(|message| copy.take(message).err());
        assert!(!copy.complete);
        failed.map_or_else(String::new, |error| error.to_string())
    }

    fn file() -> Message {
        Message::File(pb::BackupFile {
            path: "base/5/1259".to_owned(),
            size: 8,
        })
    }

    fn chunk(offset: u64) -> Message {
        Message::Chunk(pb::BackupChunk {
            offset,
            data: vec![1; 8].into(),
        })
    }

    fn end(total_bytes: u64, total_files: u32) -> Message {
        Message::End(pb::BackupEnd {
            total_bytes,
            total_files,
            ..pb::BackupEnd::default()
        })
    }

    /// A message that was lost made a copy with a hole, which only its pages' checksums could tell later.
    #[test]
    fn a_copy_that_lacks_a_part_is_no_copy() {
        for (messages, reason) in [
            (vec![chunk(0)], "without its file"),
            (vec![file(), chunk(8)], "out of its place"),
            (vec![file(), chunk(0), chunk(0)], "out of its place"),
            (vec![file(), chunk(0), end(16, 1)], "not as many"),
            (vec![file(), chunk(0), end(8, 2)], "not as many"),
            (vec![end(8, 1)], "not as many"),
        ] {
            let said = copied(messages);
            assert!(said.contains(reason), "{said}, not {reason}");
        }
        // All of it has come; what its control file says is another question.
        let said = copied(vec![file(), chunk(0), end(8, 1)]);
        assert!(!said.contains("not as many"), "{said}");
    }

    /// A file that came after the end was written over the one of the copy, which counted as complete.
    #[test]
    fn nothing_of_a_complete_copy_is_changed_any_more() {
        let vfs = CrashVfs::new();
        let dir = Path::new("/data");
        vfs.create_dir_all(dir).unwrap();
        let mut copy = Copy::new(vfs.shared(), dir.to_owned());
        let timeline = TimelineId {
            number: TimelineNumber(1),
            incarnation: Incarnation([1; 16]),
        };
        let control = ControlData::new(SystemId(7), timeline, 1 << 20, true);
        let start = pb::BackupStart {
            timeline: Some(timeline.into()),
            history: TimelineHistory::first(timeline).to_text().into(),
            ..pb::BackupStart::default()
        };
        let Message::End(mut last) = end(8, 1) else {
            panic!("not the end")
        };
        last.control = control::encode(&control, 1).into();
        let whole = [
            Message::Start(start.clone()),
            file(),
            chunk(0),
            Message::End(last.clone()),
        ];
        for message in whole {
            copy.take(message).unwrap();
        }
        assert!(copy.complete && !needs_clone(&vfs, dir).unwrap());
        for message in [Message::Start(start), file(), chunk(8), Message::End(last)] {
            let said = copy.take(message).unwrap_err().to_string();
            assert!(said.contains("after the end"), "{said}");
        }
        let copied = vfs.read_file(&dir.join("base/5/1259"), 100).unwrap();
        assert_eq!(copied, [1; 8]);
    }

    #[test]
    fn paths_from_the_network_stay_in_their_place() {
        for name in ["base/5/1259", "global/1262_vm", "pg_xact/0000"] {
            assert!(safe_path(name).is_some(), "{name}");
        }
        for name in [
            "",
            "/etc/passwd",
            "../x/y",
            "base/../../x",
            "towline.node",
            "pg_wal/000000010000000000000001",
            "slots/s1",
            "global/towline_control",
            "global//towline_control",
            "global/./towline_control",
            "global/towline_control/",
            "./base/1",
        ] {
            assert!(safe_path(name).is_none(), "{name}");
        }
    }

    /// A link to a directory was passed over: what an earlier copy had there stayed, and was read as this one's log.
    #[test]
    fn what_lies_behind_a_link_is_wiped_and_the_link_stays() {
        let base = tempfile::tempdir().unwrap();
        let (dir, elsewhere) = (base.path().join("data"), base.path().join("wal"));
        for made in [&dir, &elsewhere, &dir.join("base"), &dir.join("log")] {
            std::fs::create_dir(made).unwrap();
        }
        std::os::unix::fs::symlink(&elsewhere, dir.join("pg_wal")).unwrap();
        std::fs::write(elsewhere.join("000000010000000000000001"), "old").unwrap();
        std::fs::write(dir.join("towline.toml"), "mine").unwrap();
        wipe(&towline_base::OsVfs, &dir).unwrap();
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
        let names = ["pg_wal", "log", "towline.toml"];
        assert!(names.iter().all(|name| dir.join(name).exists()));
        assert!(!dir.join("base").exists());
    }
}
