//! Base backups: the data files as of the last finished checkpoint, copied while they change.
//!
//! - It forces no checkpoint and waits for no standby. Redo begins at the last finished checkpoint; a page that was torn by being
//!   copied while it was written has its full image in the WAL from there on, since it changed after that redo pointer.
//! - It is consistent from Q as of the end of the copy: pages reach disk only at or below Q (I7), so none in the copy is newer.
//! - Only directories are copied, and of those not the WAL, the log and the slots: identity, promise, configuration and locks
//!   are files at the top, and stay here (A6).
//! - At most a few chunks wait for the network; a file that goes away meanwhile is left out, for the WAL says so too.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tonic::Status;
use towline_base::limits::MAX_WAL_CHUNK_BYTES;
use towline_base::rules::{self, Rule};
use towline_base::{Lsn, OpenMode};
use towline_proto::replication as pb;
use towline_proto::replication::backup_message::Message;
use towline_storage::control::{self, CONTROL_FILE};
use towline_storage::{CheckpointInfo, ClusterState, ControlData};

use crate::role::Core;
use crate::service::{SLOT_PAUSE, no_slot};
use crate::slots::{SlotError, SlotGuard};
use crate::walsender::{Phase, SenderState};

/// Directories at the top of a data directory that are not copied.
pub const NOT_COPIED: [&str; 3] = ["pg_wal", "log", "slots"];

/// How long a backup waits for the slot.
const SLOT_PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at whether a backup that waits for its standby may go on.
const LOOK: Duration = Duration::from_millis(100);

type Out = mpsc::Sender<Result<pb::BackupMessage, Status>>;

/// Why a backup ended early.
enum Broken {
    /// The client has gone, or the node stops.
    Gone,
    Failed(Status),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Failed(Status::internal(error.to_string()))
    }
}

/// Streams a backup. Blocks; runs on a thread that may.
pub(crate) fn run(core: &Core, state: &SenderState, slot: &str, out: &Out) {
    state.set_phase(Phase::Backup);
    let started = core.clock.now();
    tracing::info!(standby = %state.node, slot, "base backup begins");
    match copy(core, state, slot, out) {
        Ok(bytes) => {
            let seconds = core.clock.now().since(started).as_secs_f64();
            tracing::info!(standby = %state.node, bytes, seconds, "base backup is complete");
        }
        Err(Broken::Gone) => tracing::info!(standby = %state.node, "base backup was abandoned"),
        Err(Broken::Failed(status)) => {
            tracing::warn!(standby = %state.node, reason = status.message(), "base backup failed");
            // A standby that does not listen learns no more by being waited for.
            let telling = out.send_timeout(Err(status), Duration::from_secs(1));
            let _ = tokio::runtime::Handle::current().block_on(telling);
        }
    }
}

/// Keeps the WAL from a checkpoint's redo pointer on, and returns that checkpoint's control data. A stream of the node's earlier
/// incarnation, whose end was not noticed yet, is waited for.
fn reserve(
    core: &Core,
    state: &SenderState,
    slot: &str,
    out: &Out,
) -> Result<(ControlData, SlotGuard), Broken> {
    let segment_size = core.wal.segments().segment_size();
    let begun = core.clock.now();
    loop {
        let data = core.storage.control().get();
        let begin = segment_size.start(segment_size.segment_of(data.checkpoint.redo));
        match take_slot(core, state, slot, begin) {
            // A checkpoint that ended meanwhile may have removed what the slot did not hold yet.
            Ok(guard) if core.storage.control().get().checkpoint.redo == data.checkpoint.redo => {
                return Ok((data, guard));
            }
            Ok(_) => {}
            Err(SlotError::InUse(_)) if core.clock.now().since(begun) < SLOT_PATIENCE => {
                may_go_on(core, state)?;
                if out.is_closed() {
                    return Err(Broken::Gone);
                }
                std::thread::park_timeout(SLOT_PAUSE);
            }
            Err(error) => return Err(Broken::Failed(no_slot(core, error, &state.node))),
        }
    }
}

/// A copy without the log that follows it is of no use to anybody.
fn still_reserved(guard: &SlotGuard) -> Result<(), Broken> {
    if !guard.is_lost() {
        return Ok(());
    }
    Err(Broken::Failed(Status::out_of_range(
        "the WAL that the copy needs has been removed while it was made; raise max_slot_wal_keep_size on the primary",
    )))
}

fn take_slot(core: &Core, state: &SenderState, slot: &str, begin: Lsn) -> Result<SlotGuard, SlotError> {
    core.slots.ensure(slot, &state.node, begin)?;
    let guard = core.slots.acquire(slot, state.pid)?;
    core.slots.rewind(slot, begin)?;
    Ok(guard)
}

fn copy(core: &Core, state: &SenderState, slot: &str, out: &Out) -> Result<u64, Broken> {
    let (data, guard) = reserve(core, state, slot, out)?;
    let files = list(core)?;
    let total: u64 = files.iter().map(|(_, len)| len).sum();
    let start = pb::BackupStart {
        system_id: core.system.0,
        redo: data.checkpoint.redo.0,
        timeline: Some(core.history.current().into()),
        history: core.history.to_text().into(),
        segment_size: data.segment_size,
        total_bytes: total,
        total_files: files.len() as u32,
    };
    send(core, state, out, Message::Start(start))?;
    let (mut bytes, mut count) = (0, 0);
    for (path, _) in files {
        still_reserved(&guard)?;
        if let Some(copied) = copy_file(core, state, out, &path)? {
            bytes += copied;
            count += 1;
        }
    }
    still_reserved(&guard)?;
    // A checkpoint that ended meanwhile has removed outcomes which no row needs any more; nor does one of the copy, when it is replayed up
    // to `stop`, which is behind that checkpoint.
    let newest = core.storage.control().get().checkpoint;
    let stop = if rules::is_off(Rule::BackupKnowsItsEnd) {
        data.checkpoint.end
    } else {
        core.sync_rep.quorum().get().max(data.checkpoint.end)
    };
    let checkpoint = CheckpointInfo {
        oldest_xid: data.checkpoint.oldest_xid.max(newest.oldest_xid),
        ..data.checkpoint
    };
    let data = ControlData {
        checkpoint,
        state: ClusterState::InArchiveRecovery,
        timeline: core.history.current(),
        page_lsn_bound: stop,
        page_lsn_bound_is_strict: false,
        quorum: stop,
        ..data
    };
    let end = pb::BackupEnd {
        stop: stop.0,
        timeline: Some(core.history.current().into()),
        total_bytes: bytes,
        total_files: count,
        control: control::encode(&data, 1).into(),
    };
    send(core, state, out, Message::End(end))?;
    Ok(bytes)
}

/// Every file to copy, relative to the data directory, with its length now.
fn list(core: &Core) -> io::Result<Vec<(PathBuf, u64)>> {
    let vfs = core.storage.vfs();
    let root = core.storage.root();
    let mut files = Vec::new();
    let top = vfs.read_dir(root)?.into_iter();
    let copied = |name: &str| !NOT_COPIED.contains(&name) && !name.starts_with('.');
    let mut directories: Vec<PathBuf> = top
        .filter(|entry| entry.is_dir && copied(&entry.name))
        .map(|entry| entry.name.into())
        .collect();
    while let Some(directory) = directories.pop() {
        for entry in vfs.read_dir(&root.join(&directory))? {
            let path = directory.join(&entry.name);
            if entry.is_dir {
                directories.push(path);
            } else if path.as_os_str() != CONTROL_FILE && !entry.name.ends_with(".tmp") {
                files.push((path, entry.len));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn copy_file(
    core: &Core,
    state: &SenderState,
    out: &Out,
    path: &std::path::Path,
) -> Result<Option<u64>, Broken> {
    let file = match core
        .storage
        .vfs()
        .open(&core.storage.root().join(path), OpenMode::Read)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let name = path
        .to_str()
        .ok_or_else(|| Broken::Failed(Status::internal("a file name is not UTF-8")))?;
    send(
        core,
        state,
        out,
        Message::File(pb::BackupFile {
            path: name.to_owned(),
            size: file.len()?,
        }),
    )?;
    let mut offset = 0;
    loop {
        let mut buffer = vec![0; MAX_WAL_CHUNK_BYTES];
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return Ok(Some(offset));
        }
        buffer.truncate(filled);
        send(
            core,
            state,
            out,
            Message::Chunk(pb::BackupChunk {
                offset,
                data: Bytes::from(buffer),
            }),
        )?;
        offset += filled as u64;
    }
}

fn may_go_on(core: &Core, state: &SenderState) -> Result<(), Broken> {
    if core.stopping() {
        return Err(Broken::Failed(Status::unavailable(
            "the primary is shutting down",
        )));
    }
    if state.cancel.is_cancelled() {
        return Err(Broken::Failed(Status::aborted("the node has connected anew")));
    }
    Ok(())
}

fn send(core: &Core, state: &SenderState, out: &Out, message: Message) -> Result<(), Broken> {
    may_go_on(core, state)?;
    let message = Ok(pb::BackupMessage {
        message: Some(message),
    });
    let message = match out.try_send(message) {
        Ok(()) => return Ok(()),
        Err(TrySendError::Closed(_)) => return Err(Broken::Gone),
        Err(TrySendError::Full(message)) => message,
    };
    // Neither a stop nor the node's next attempt waits for a standby that takes nothing.
    let waiting = async {
        let mut sending = std::pin::pin!(out.send(message));
        let begun = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => return sent.map_err(|_| Broken::Gone),
                () = state.cancel.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            may_go_on(core, state)?;
            if core
                .sender_timeout()
                .is_some_and(|timeout| begun.elapsed() >= timeout)
            {
                return Err(Broken::Failed(Status::deadline_exceeded(
                    "the standby has taken nothing within wal_sender_timeout",
                )));
            }
        }
    };
    tokio::runtime::Handle::current().block_on(waiting)
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
